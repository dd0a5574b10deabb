//! The moment between fork and exec, in which the leader waits in the kernel until its child has become a worker, and hears of nothing.
//!
//! A child that is stopped there would stop its leader with it. So another thread watches, and kills a child that is nothing of its own after
//! three seconds; to the leader it is a worker that ended before it attached.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::Builder;
use std::time::Duration;

/// How long a child may take to become a worker: far longer than one takes on a machine that has nothing left.
const LIMIT: Duration = Duration::from_secs(3);

/// Does `spawn`, which starts a process. Where there is no room for a thread nobody watches.
pub fn watched<T>(spawn: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (done, ended) = mpsc::channel::<()>();
        let watch = move || {
            while ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                kill_unborn();
            }
        };
        let _ = Builder::new().spawn_scoped(scope, watch);
        let spawned = spawn();
        drop(done);
        spawned
    })
}

/// Kills the children of this process that still are this program.
fn kill_unborn() {
    let own = Path::new("/proc/self/exe").read_link();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let program = Path::new(&format!("/proc/{pid}/exe")).read_link();
        let is_same = matches!((&program, &own), (Ok(program), Ok(own)) if program == own);
        if is_same && parent(pid) == i32::try_from(std::process::id()).ok() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The parent of a process (proc_pid_stat(5): the second field behind the name, which may hold anything but ends with the last parenthesis).
fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
