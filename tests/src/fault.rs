//! Runs the engine with injected faults, through deaths of the leader, and looks at what is left in between.
//!
//! [`crate::engine`] wants nothing to be left after a run. Here a leader is killed on purpose, so what it leaves is looked for by name: its segment
//! bears its process id, and its workers bear the segment's name.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::data::{self, Rng};
use crate::engine::bin;

/// Capacities so small that every path is taken: a few blocks are many units, a batch is several chunks, a unit several batches.
pub const SMALL: &str = "--unit-blocks 1 --chunk-bytes 4096 --stripe-bits 2 --batch-bytes 8000";

/// The build in the header of segments that are pinned.
const PIN_BUILD: u64 = 0x6b6d_6572_7069_6e01;

/// A relation of some blocks, imported from random rows.
#[derive(Debug)]
pub struct Small {
    dir: TempDir,
}

impl Small {
    /// Makes it of `rows` rows; the same seed makes the same rows.
    ///
    /// # Panics
    /// When it cannot be imported.
    #[must_use]
    pub fn new(seed: u64, rows: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("ks").tempdir().expect("a directory");
        let rows = data::rows(seed, rows);
        let fasta: String = rows
            .iter()
            .enumerate()
            .map(|(i, row)| format!(">r{i}\n{}\n", row.as_deref().unwrap_or("")))
            .collect();
        fs::write(dir.path().join("rows.fa"), fasta).expect("written");
        let status = Command::new(bin("kmer-leader"))
            .args(["import", "rows.fa", "-o", "rows"])
            .current_dir(dir.path())
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("an import").success());
        Self { dir }
    }

    /// The relation's file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("rows")
    }
}

/// How a process of the engine ended.
#[derive(Debug)]
pub struct End {
    /// Its command, its status and what it said, for messages.
    pub told: String,
    /// Its status.
    pub status: ExitStatus,
    /// Its process id.
    pub pid: u32,
    /// All of standard error.
    pub stderr: String,
    /// The segment that it resumed.
    pub resumed: Option<String>,
}

impl End {
    /// The segments that it led or was told to resume, if they are there.
    #[must_use]
    pub fn segments(&self) -> Vec<String> {
        let mut names = segments_of(self.pid);
        let resumed = self.resumed.iter().filter(|name| Path::new("/dev/shm").join(name).exists());
        names.extend(resumed.cloned());
        names.dedup();
        names
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal it died by.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// Runs `kmer-leader` in `dir` to its end; `watch` sees its process id every few milliseconds.
///
/// # Panics
/// When it does not end within two minutes.
pub fn run<S: AsRef<OsStr>>(dir: &Path, args: &[S], mut watch: impl FnMut(Pid)) -> End {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let log = std::env::temp_dir().join(format!(
        "kf-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    ));
    let mut command = Command::new(bin("kmer-leader"));
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(File::create(&log).expect("a log")).spawn().expect("kmer-leader starts");
    let (pid, start) = (child.id(), Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break Some(status);
        }
        if start.elapsed() > Duration::from_secs(120) {
            break None;
        }
        watch(Pid::from_raw(i32::try_from(pid).expect("a process id")));
        thread::sleep(Duration::from_millis(2));
    };
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let stderr = fs::read_to_string(&log).unwrap_or_default();
    let _ = fs::remove_file(&log);
    let told = format!("\n{command:?}\n{status:?}\n{}", crate::head(&stderr, 20));
    End { status: status.unwrap_or_else(|| panic!("{told}did not end")), told, pid, stderr, resumed: None }
}

/// Wakes the process if it is stopped; says whether it was.
pub fn wake(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let stopped = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
    if stopped {
        thread::sleep(Duration::from_millis(30));
        let _ = kill(pid, Signal::SIGCONT);
    }
    stopped
}

/// Names of segments of runs whose header says that the process led them; those that it pinned, or was going to, are none.
#[must_use]
pub fn segments_of(pid: u32) -> Vec<String> {
    let names = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.starts_with("kmer."))
        .filter(|name| {
            let (mut build, mut word) = ([0; 8], [0; 8]);
            let file = File::open(format!("/dev/shm/{name}"));
            file.is_ok_and(|f| {
                f.read_exact_at(&mut build, 16).is_ok() && f.read_exact_at(&mut word, 64).is_ok()
            }) && u64::from_le_bytes(word) == u64::from(pid)
                && u64::from_le_bytes(build) != PIN_BUILD
        })
        .collect()
}

/// Processes whose command line has this word; zombies have none.
#[must_use]
pub fn processes_with(word: &str) -> Vec<Pid> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).any(|part| part == word.as_bytes())
        })
        .map(Pid::from_raw)
        .collect()
}

/// Waits until `done`, but not longer than `limit`.
pub fn within(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Does `work` on every item, several at a time: most of them wait most of the time.
pub fn in_parallel<T: Sync>(threads: usize, items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

/// A random delay below `limit`.
pub fn delay(rng: &mut Rng, limit: Duration) -> Duration {
    Duration::from_micros(rng.below(usize::try_from(limit.as_micros()).expect("short").max(1)) as u64)
}
