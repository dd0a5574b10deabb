//! What a run must not leave: segments in /dev/shm, processes that bear its mark, files in its directory.

use super::{MARK, PATIENCE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_layout::takeover::{self, Listed, State};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[derive(Debug)]
pub(super) struct Audit {
    pub(super) before: BTreeSet<OsString>,
    pub(super) mark: String,
    pub(super) kept: BTreeSet<OsString>,
    pub(super) dir: Option<TempDir>,
}

impl Audit {
    pub(super) fn dir(&self) -> &Path {
        self.dir.as_ref().expect("the run's directory").path()
    }

    /// Waits until nothing is left, or patience ends, and names what is left.
    pub(super) fn leftovers(&self) -> Vec<String> {
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
            .filter(|name| shm.contains(*name) && !self.is_anothers(&name.to_string_lossy()))
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

    /// Another test's run, which goes on: its leader lives and does not bear this mark.
    fn is_anothers(&self, name: &str) -> bool {
        let Ok(Listed { state: State::Running, leader, .. }) = takeover::look(name) else { return false };
        let leader = Pid::from_raw(leader as i32);
        kill(leader, None).is_ok() && !bears(leader, &format!("{MARK}={}", self.mark))
    }

    fn marked(&self) -> Vec<Pid> {
        let mark = format!("{MARK}={}", self.mark);
        processes().filter(|&pid| bears(pid, &mark)).collect()
    }

    /// Ends what this run left running; only processes that bear its mark.
    pub(super) fn end_marked(&self) {
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

pub(super) fn shm_entries() -> BTreeSet<OsString> {
    fs::read_dir("/dev/shm")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().starts_with("kmer"))
        .filter(|name| !name.to_string_lossy().starts_with(crate::pinned::PREFIX))
        .collect()
}

pub(super) fn processes() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}

/// Tells whether the process has this entry in its environment; a zombie has none.
pub(super) fn bears(pid: Pid, entry: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|found| found == entry.as_bytes()))
}

pub(super) fn parent(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}
