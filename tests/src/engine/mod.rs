//! Runs the engine's programs and audits what they leave behind.
//!
//! Every run gets an empty directory as its working and temporary directory, and a mark in its environment that its children inherit. After the run
//! the audit, which no test can skip, wants:
//! * no process that bears the mark;
//! * no file in the run's directory but what the test asked for with [`Engine::keeps`];
//! * no entry `/dev/shm/kmer*` that was not there before the run, but what tests pin ([`crate::pinned`]). Runs of other tests may be under way, so an entry only counts as left
//!   behind when it is still there after [`PATIENCE`].
//!
//! A run that does not end by itself within [`LIMIT`] is ended, and is a failure.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

mod audit;
mod ended;

use audit::{Audit, bears, parent, processes, shm_entries};
pub use ended::Ended;

/// The longest a run may take; far more than any needs.
pub const LIMIT: Duration = Duration::from_secs(120);
/// How long the audit waits for things to vanish.
pub const PATIENCE: Duration = Duration::from_secs(30);
const MARK: &str = "KMER_TEST_RUN";

/// Finds one of the engine's programs: in the directory `KMER_BIN_DIR` names, else above the running test program (`target/<profile>`).
///
/// # Panics
/// When it is not there: it must be built first.
#[must_use]
pub fn bin(name: &str) -> PathBuf {
    let dir = std::env::var_os("KMER_BIN_DIR").map_or_else(
        || {
            let test = std::env::current_exe().expect("the path of the test program");
            let dir = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
            dir.to_path_buf()
        },
        PathBuf::from,
    );
    let program = dir.join(name);
    assert!(
        program.exists(),
        "{} is not there; build first: cargo build --workspace (or name the directory in KMER_BIN_DIR)",
        program.display()
    );
    program
}

/// A run of the engine that has not begun.
#[derive(Debug)]
pub struct Engine {
    program: PathBuf,
    args: Vec<OsString>,
    dir: TempDir,
    kept: BTreeSet<OsString>,
    pinned: BTreeSet<OsString>,
    stdout: Option<fs::File>,
    stdin: Option<Stdio>,
    env: Vec<(OsString, OsString)>,
}

/// A run that has begun.
#[derive(Debug)]
pub struct Running {
    child: Child,
    readers: [Option<JoinHandle<Vec<u8>>>; 2],
    audit: Audit,
    command: String,
}

/// Starts to describe a run of `kmer-leader`.
#[must_use]
pub fn leader() -> Engine {
    Engine::new(bin("kmer-leader"))
}

impl Engine {
    /// Starts to describe a run of a program.
    ///
    /// # Panics
    /// When the run's directory cannot be made.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            args: Vec::new(),
            dir: tempfile::Builder::new().prefix("kr").tempdir().expect("a directory for the run"),
            kept: BTreeSet::new(),
            pinned: BTreeSet::new(),
            stdout: None,
            stdin: None,
            env: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Adds arguments, split at blanks.
    #[must_use]
    pub fn words(self, args: &str) -> Self {
        self.args(args.split_whitespace())
    }

    /// Says that the run may leave this file in its directory.
    #[must_use]
    pub fn keeps(mut self, name: &str) -> Self {
        self.kept.insert(name.into());
        self
    }

    /// Says that the run may leave this pinned segment.
    #[must_use]
    pub fn pins(mut self, name: &str) -> Self {
        self.pinned.insert(format!("kmer.pin.{name}").into());
        self
    }

    /// Sends standard output to a file instead of collecting it.
    #[must_use]
    pub fn stdout(mut self, file: fs::File) -> Self {
        self.stdout = Some(file);
        self
    }

    /// Gives the program a standard input; else it has none.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Gives the run's directory, for files it shall find there.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the run.
    ///
    /// # Panics
    /// When the program does not start.
    #[must_use]
    pub fn spawn(self) -> Running {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mark = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let before = shm_entries().union(&self.pinned).cloned().collect();
        let audit = Audit { before, mark: mark.clone(), kept: self.kept, dir: Some(self.dir) };
        let mut command = Command::new(&self.program);
        let (stdout, collect) = match self.stdout {
            Some(file) => (file.into(), false),
            None => (Stdio::piped(), true),
        };
        command
            .args(&self.args)
            .current_dir(audit.dir())
            .env("TMPDIR", audit.dir())
            .env(MARK, &mark)
            .envs(self.env)
            .stdin(self.stdin.unwrap_or_else(Stdio::null))
            .stdout(stdout)
            .stderr(Stdio::piped());
        // A program under test ignores nothing, though whoever started the tests may have had them ignore something.
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            shm_layout::process::default_action(signal).expect("a signal with a default");
        }
        let text = shell_text(&self.program, &self.args);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{text}: {error}"));
        let readers = [
            if collect { child.stdout.take().map(collector) } else { None },
            child.stderr.take().map(collector),
        ];
        Running { child, readers, audit, command: text }
    }

    /// Runs to the end and audits.
    ///
    /// # Panics
    /// When the run does not end, or leaves something behind.
    #[must_use]
    pub fn run(self) -> Ended {
        self.spawn().wait()
    }
}

fn collector(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn shell_text(program: &Path, args: &[OsString]) -> String {
    let quote = |word: &OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    std::iter::once(program.as_os_str())
        .chain(args.iter().map(OsString::as_os_str))
        .map(quote)
        .collect::<Vec<_>>()
        .join(" ")
}

impl Running {
    /// Gives the process id of the program.
    ///
    /// # Panics
    /// Never: a process id is a positive `i32`.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// Sends the program a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if !self.has_ended() {
            let _ = kill(self.pid(), signal);
        }
    }

    /// Gives the program's children that live and have begun their own program, oldest first.
    #[must_use]
    pub fn workers(&self) -> Vec<Pid> {
        let mark = format!("{MARK}={}", self.audit.mark);
        let mut children: Vec<Pid> =
            processes().filter(|&pid| parent(pid) == Some(self.pid()) && bears(pid, &mark)).collect();
        children.sort();
        children
    }

    /// Tells whether the program has ended; its exit is kept for [`wait`](Self::wait).
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end and audits.
    ///
    /// # Panics
    /// When the run does not end, or leaves something behind.
    #[must_use]
    pub fn wait(mut self) -> Ended {
        let start = Instant::now();
        while !self.has_ended() && start.elapsed() < LIMIT {
            thread::sleep(Duration::from_millis(1));
        }
        let overdue = !self.has_ended();
        if overdue {
            self.audit.end_marked();
        }
        let status = self.child.wait().expect("the exit of our own child");
        let left = self.audit.leftovers();
        self.audit.end_marked();
        let mut collected = self
            .readers
            .each_mut()
            .map(|reader| reader.take().map(|thread| thread.join().expect("a reader")).unwrap_or_default());
        let ended = Ended {
            command: self.command,
            status,
            stdout: std::mem::take(&mut collected[0]),
            stderr: String::from_utf8_lossy(&collected[1]).into_owned(),
            dir: self.audit.dir.take().expect("the run's directory"),
        };
        assert!(!overdue, "{ended}did not end within {LIMIT:?}");
        assert!(left.is_empty(), "{ended}left behind: {left:#?}");
        ended
    }
}
