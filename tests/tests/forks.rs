//! What lies between fork and exec: a worker that is stopped there when its leader dies has everything that the leader had, its lock as well.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kmer_tests::engine::{bin, leader};
use kmer_tests::fault::{SMALL, Small, processes_with, run, segments_of, within};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

fn is_stopped(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
}

/// A leader that stops before it starts its workers, in the directory of its relation.
fn stopped(relation: &Small, words: &str) -> (Child, Pid) {
    let child = Command::new(bin("kmer-leader"))
        .args(words.split_whitespace())
        .args(["--inject", "create.published:leader:stop"])
        .arg(relation.path())
        .current_dir(relation.path().parent().expect("a directory"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("kmer-leader starts");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    assert!(within(Duration::from_secs(20), || is_stopped(pid)));
    (child, pid)
}

/// Follows a stopped process to the first process that it makes, and leaves that one stopped before its first instruction; `None` when tracing is
/// not permitted.
fn stop_at_fork(parent: Pid) -> Option<Pid> {
    ptrace::attach(parent).ok()?;
    waitpid(parent, None).expect("a stop");
    // Not its threads.
    let forks = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK;
    ptrace::setoptions(parent, forks).expect("a tracer");
    kill(parent, Signal::SIGCONT).expect("alive");
    loop {
        ptrace::cont(parent, None).expect("stopped");
        match waitpid(parent, None).expect("a child") {
            WaitStatus::PtraceEvent(..) => break,
            WaitStatus::Stopped(..) => {}
            other => panic!("{other:?} before a worker was started"),
        }
    }
    let child = ptrace::getevent(parent).expect("an event");
    let child = Pid::from_raw(i32::try_from(child).expect("a process id"));
    waitpid(child, None).expect("a stop");
    ptrace::detach(child, Signal::SIGSTOP).expect("traced");
    assert!(within(Duration::from_secs(5), || is_stopped(child)));
    Some(child)
}

#[test]
fn a_worker_stopped_before_its_program_does_not_keep_a_run_from_being_resumed() {
    let relation = Small::new(45, 200);
    let dir = relation.path().parent().expect("a directory").to_owned();
    let (mut first, pid) = stopped(&relation, &format!("--all -k 21 -j 2 -q {SMALL} --resumable -o out"));
    let child = stop_at_fork(pid);
    let segment = segments_of(first.id()).pop().expect("a segment");
    first.kill().expect("ours");
    let _ = first.wait();
    let Some(child) = child else {
        println!("skipped: tracing is not permitted here");
        let _ = fs::remove_file(format!("/dev/shm/{segment}"));
        return;
    };
    assert!(is_stopped(child), "it went with its leader: the test tests nothing");
    let end = run(&dir, &["resume", &segment, "-q"], |_| ());
    let _ = kill(child, Signal::SIGCONT);
    assert_eq!(end.code(), Some(0), "{}", end.told);
    let peace = leader().words("-q --all -k 21 -j 1").arg(relation.path()).run().exits(0).stdout;
    assert!(fs::read(dir.join("out")).expect("a result") == peace, "{}", end.told);
    assert!(within(Duration::from_secs(5), || processes_with(&segment).is_empty()), "processes are left");
    assert!(!fs::exists(format!("/dev/shm/{segment}")).expect("a directory"), "the segment is left");
}

/// The leader waits in the kernel until its child is a worker.
#[test]
fn a_worker_stopped_before_its_program_does_not_stop_its_leader() {
    let relation = Small::new(46, 200);
    let dir = relation.path().parent().expect("a directory").to_owned();
    let expected = leader().words("-q --all -k 21 -j 1").arg(relation.path()).run().exits(0);
    for signal in [None, Some(Signal::SIGTERM)] {
        let (mut running, pid) = stopped(&relation, &format!("--all -k 21 -j 2 {SMALL} -o out"));
        let child = stop_at_fork(pid);
        let Some(child) = child else {
            println!("skipped: tracing is not permitted here");
            let _ = running.kill();
            let _ = running.wait();
            return;
        };
        ptrace::detach(pid, None).expect("traced");
        if let Some(signal) = signal {
            kill(pid, signal).expect("alive");
        }
        let ends = within(Duration::from_secs(30), || running.try_wait().expect("ours").is_some());
        let _ = kill(child, Signal::SIGCONT);
        let status = running.wait().expect("ours");
        assert!(ends, "it waited until its child went on");
        match signal {
            None => {
                assert_eq!(status.code(), Some(0));
                assert!(fs::read(dir.join("out")).expect("a result") == expected.stdout, "other bytes");
            }
            Some(signal) => assert_eq!(status.signal(), Some(signal as i32)),
        }
    }
}
