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
use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::head;
use crate::output::Report;

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

/// A run that has ended, and passed the audit.
pub struct Ended {
    /// The command, as a shell would take it.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: String,
    /// The run's directory with the files that the test asked to keep.
    pub dir: TempDir,
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

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        write!(
            f,
            "\ncommand: {}\n{}\nstdout:\n{}stderr:\n{}",
            self.command,
            self.status,
            head(&stdout, 15),
            head(&self.stderr, 30)
        )
    }
}

impl Ended {
    /// Checks the exit code.
    ///
    /// # Panics
    /// When it is another, or a signal ended the program.
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}expected exit code {code}");
        self
    }

    /// Checks that the program ended by this signal, or with the exit code a shell would give for it.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[must_use]
    pub fn ends_by(self, signal: Signal) -> Self {
        let number = signal as i32;
        let by_signal = self.status.signal() == Some(number);
        let by_code = self.status.code() == Some(128 + number);
        assert!(by_signal || by_code, "{self}expected an end by {signal}");
        self
    }

    /// Checks that the run failed with an error line that has all these words, that every line on standard error is of the program's form,
    /// and that nothing like a panic is in it.
    ///
    /// # Panics
    /// When not.
    #[must_use]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        let ended = self.exits(code);
        let errors: Vec<&str> =
            ended.stderr.lines().filter(|line| line.starts_with("kmer-leader: error: ")).collect();
        assert!(!errors.is_empty(), "{ended}expected a line \"kmer-leader: error: ...\"");
        let text = ended.stderr.replace('\n', " ");
        for word in words {
            assert!(text.contains(word), "{ended}expected {word:?} in the message");
        }
        assert!(!errors.iter().any(|line| line.ends_with('.')), "{ended}a full stop ends an error");
        assert!(!text.contains("panicked"), "{ended}a panic");
        ended
    }

    /// How many workers extracted k-mers, by the summary's table: worker, blocks, rows, k-mers, stripes and two times.
    #[must_use]
    pub fn busy_workers(&self) -> usize {
        let is_busy = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.len() == 7
                && words[0].parse::<u16>().is_ok()
                && words[3].parse().is_ok_and(|kmers: u64| kmers > 0)
        };
        self.stderr.lines().filter(is_busy).count()
    }

    /// Gives standard output as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap_or_else(|error| panic!("{self}{error}"))
    }

    /// Reads standard output as a report; see [`Report::parse`].
    ///
    /// # Panics
    /// When its form is not right.
    #[must_use]
    pub fn report(&self, k: usize, occur_bitlen: u32) -> Report {
        Report::parse(self.text(), k, occur_bitlen).unwrap_or_else(|error| panic!("{self}{error}"))
    }
}

#[derive(Debug)]
struct Audit {
    before: BTreeSet<OsString>,
    mark: String,
    kept: BTreeSet<OsString>,
    dir: Option<TempDir>,
}

impl Audit {
    fn dir(&self) -> &Path {
        self.dir.as_ref().expect("the run's directory").path()
    }

    /// Waits until nothing is left, or patience ends, and names what is left.
    fn leftovers(&self) -> Vec<String> {
        let start = Instant::now();
        let suspects: BTreeSet<OsString> = shm_entries().difference(&self.before).cloned().collect();
        loop {
            let left = self.look(&suspects);
            if left.is_empty() || start.elapsed() > PATIENCE {
                return left;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn look(&self, suspects: &BTreeSet<OsString>) -> Vec<String> {
        let shm = shm_entries();
        let segments = suspects
            .iter()
            .filter(|name| shm.contains(*name))
            .map(|name| format!("/dev/shm/{}", name.display()));
        let processes = self.marked().into_iter().map(|pid| format!("process {pid}"));
        let files = fs::read_dir(self.dir())
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| !self.kept.contains(&entry.file_name()))
            .map(|entry| format!("file {}", entry.path().display()));
        segments.chain(processes).chain(files).collect()
    }

    fn marked(&self) -> Vec<Pid> {
        let mark = format!("{MARK}={}", self.mark);
        processes().filter(|&pid| bears(pid, &mark)).collect()
    }

    /// Ends what this run left running; only processes that bear its mark.
    fn end_marked(&self) {
        for pid in self.marked() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.end_marked();
    }
}

fn shm_entries() -> BTreeSet<OsString> {
    fs::read_dir("/dev/shm")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().starts_with("kmer"))
        .filter(|name| !name.to_string_lossy().starts_with(crate::pinned::PREFIX))
        .collect()
}

fn processes() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}

/// Tells whether the process has this entry in its environment; a zombie has none.
fn bears(pid: Pid, entry: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|found| found == entry.as_bytes()))
}

fn parent(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}
