//! Memory, disk, files and processes that run out, and a relation that changes while it is read: the right result or a clear error, never a part
//! of a result with exit code 0.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use kmer_tests::engine::{Ended, Engine, bin, leader};
use kmer_tests::fault::{Small, in_parallel, wake, within};

fn relation() -> &'static (Small, Vec<u8>) {
    static RELATION: OnceLock<(Small, Vec<u8>)> = OnceLock::new();
    RELATION.get_or_init(|| {
        let small = Small::new(43, 400);
        let peace = leader().words("-q --all -k 21 -j 1").arg(small.path()).run().exits(0).stdout;
        (small, peace)
    })
}

/// A run of `kmer-leader` by a shell that does `before` first.
fn shell(before: &str, words: &str) -> Engine {
    Engine::new(PathBuf::from("sh"))
        .args(["-c", &format!("{before}; exec \"$@\""), "sh"])
        .arg(bin("kmer-leader"))
        .words(words)
        .arg(relation().0.path())
}

/// The right result on standard output, or an error and no result at all. Says whether it was the result.
fn right_or_error(ended: Ended) -> bool {
    if ended.status.code() == Some(0) {
        assert!(ended.stdout == relation().1, "{ended}other bytes with exit code 0");
        return true;
    }
    if ended.stderr.starts_with("memory allocation of ") {
        // The language's library ends a process that gets no memory for something small.
        let _ = ended.ends_by(Signal::SIGABRT);
        return false;
    }
    let code = ended.status.code();
    assert!(matches!(code, Some(1 | 4 | 127)), "{ended}expected an error's exit code");
    assert!(ended.stderr.contains("kmer-leader: error: ") || code == Some(127), "{ended}expected a message");
    assert!(ended.stdout.is_empty(), "{ended}a part of a result");
    false
}

#[test]
fn address_space_that_runs_out() {
    // From where the program's own code has room.
    let sizes: Vec<u32> = (0..14).map(|i| 10_000 + i * 2_500).collect();
    let all: Vec<(u32, u32)> = sizes.iter().flat_map(|size| [(*size, 0), (*size, 2)]).collect();
    in_parallel(4, &all, |(size, workers)| {
        let words = format!("-q --all -k 21 --memory 8M -j {workers}");
        right_or_error(shell(&format!("ulimit -v {size}"), &words).run());
    });
    assert!(right_or_error(shell("ulimit -v 1000000", "-q --all -k 21 --memory 8M -j 2").run()));
}

#[test]
fn file_descriptors_that_run_out() {
    let all: Vec<u32> = (3..40).collect();
    in_parallel(4, &all, |files| {
        right_or_error(shell(&format!("ulimit -n {files}"), "-q --all -k 21 -j 4").run());
    });
    assert!(right_or_error(shell("ulimit -n 60", "-q --all -k 21 -j 4").run()));
}

#[test]
fn files_that_may_not_grow() {
    for (blocks, result) in [("1", false), ("16", false), ("100000", true)] {
        let right =
            right_or_error(shell(&format!("ulimit -f {blocks}"), "-q --all -k 21 -j 2 --memory 8M").run());
        assert_eq!(right, result, "{blocks} blocks");
    }
    // The segment fits, the output does not.

    let ended =
        shell("ulimit -f 900", "-q --all -k 21 -j 1 --memory 1600K --chunk-bytes 4096 --format json -o out")
            .run();
    let _ = ended.fails(1, &["File too large"]);
}

#[test]
fn processes_that_run_out() {
    let own = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").expect("/proc"));
    if own != 0 {
        println!("skipped: only root can become a user without processes");
        return;
    }
    let dir = relation().0.path().parent().expect("a directory").to_owned();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&dir, mode).expect("ours");
    // The limit is for processes of the user, and a user nobody has does not have any but the leader.
    let ended = Engine::new(PathBuf::from("setpriv"))
        .words("--reuid 54321 --regid 54321 --clear-groups prlimit --nproc=2")
        .arg(bin("kmer-leader"))
        .words("--all -k 21 -j 4")
        .arg(relation().0.path())
        .run();
    if ended.stderr.contains("Permission denied") {
        println!("skipped: another user cannot come to the programs here");
        return;
    }
    let ended = ended.exits(0);
    assert!(ended.stdout == relation().1, "{ended}other bytes");
    assert!(
        ended.stderr.contains("workers: "),
        "{ended}expected a word of workers that could not be started"
    );
}

fn may_mount() -> bool {
    let mut probe = Command::new("unshare");
    probe
        .args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /dev/shm"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let may = probe.status().is_ok_and(|status| status.success());
    if !may {
        println!("skipped: a mount namespace of our own is not permitted here");
    }
    may
}

fn mounted(script: &str, words: &str) -> Engine {
    Engine::new(PathBuf::from("unshare"))
        .args(["-m", "sh", "-c", &format!("{script} && exec \"$@\""), "sh"])
        .arg(bin("kmer-leader"))
        .words(words)
        .arg(relation().0.path())
}

#[test]
fn shared_memory_of_every_size() {
    if !may_mount() {
        return;
    }
    let sizes: Vec<(u32, u32)> = (1..30).flat_map(|i| [(i * 24, 0), (i * 24, 3), (i * 24, 7)]).collect();
    in_parallel(4, &sizes, |(size, workers)| {
        let script = format!("mount -t tmpfs -o size={size}k tmpfs /dev/shm");
        let words = format!("-q --all -k 21 --unit-blocks 1 -j {workers}");
        right_or_error(mounted(&script, &words).run());
    });
    // The default of a container.
    assert!(right_or_error(
        mounted("mount -t tmpfs -o size=64m tmpfs /dev/shm", "-q --all -k 21 -j 3").run()
    ));
}

#[test]
fn an_output_disk_that_is_full() {
    if !may_mount() {
        return;
    }
    let script = "mkdir full && mount -t tmpfs -o size=16k tmpfs full";
    let ended = mounted(script, "--all -k 21 -j 2 -o full/out").keeps("full").run();
    let _ = ended.fails(1, &["full/out", "No space left on device"]);
    let script = "mkdir full && mount -t tmpfs -o size=16k tmpfs full && exec > full/out";
    let ended = mounted(script, "--all -k 21 -j 2").keeps("full").run();
    let _ = ended.fails(1, &["No space left on device"]);
}

/// A copy of the relation that a run stops at, at its third block, while `change` is done to it.
fn changed(method: &str, change: impl FnOnce(&Path)) -> Ended {
    let engine = leader();
    let copy = engine.dir().join("copy");
    fs::copy(relation().0.path(), &copy).expect("copied");
    fs::copy(relation().0.path().with_extension("schema"), copy.with_extension("schema")).expect("copied");
    let words = format!(
        "--all -k 21 -j 1 --unit-blocks 1 --read-method {method} --inject scan.block:worker=0:nth=3:stop"
    );
    let mut running = engine.words(&words).arg(&copy).keeps("copy").keeps("copy.schema").spawn();
    let mut worker = None;
    assert!(within(Duration::from_secs(30), || {
        worker = running.workers().first().copied();
        let stat = worker.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        running.has_ended() || stat.is_some_and(|stat| stat.contains(") T "))
    }));
    assert!(!running.has_ended(), "{}it never came to the third block", running.wait());
    change(&copy);
    wake(worker.expect("a worker"));
    running.wait()
}

#[test]
fn a_relation_that_is_cut_while_it_is_read() {
    let cut = |path: &Path| {
        let file = fs::OpenOptions::new().write(true).open(path).expect("ours");
        file.set_len(2 * 8192).expect("cut");
    };
    // Block 2 is read, the next is not there.
    let _ = changed("pread", cut).fails(1, &["copy", "block 3"]);
    let _ = changed("mmap", cut).fails(1, &["copy", "block 2", "bus error", "--read-method pread"]);
}

#[test]
fn a_relation_that_changes_while_it_is_read() {
    for method in ["pread", "mmap"] {
        let ended = changed(method, |path| {
            let mut bytes = fs::read(path).expect("ours");
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(path, bytes).expect("ours");
        });
        // Whichever is seen first.
        let ended = ended.fails(1, &["copy"]);
        let seen = ended.stderr.contains("changed") || ended.stderr.contains("checksum: expected");
        assert!(seen, "{ended}");
        // Another file under the name is none of our business, but may be seen as a change.
        let ended = changed(method, |path| {
            fs::copy(path, path.with_extension("new")).expect("ours");
            fs::rename(path.with_extension("new"), path).expect("ours");
        });
        right_or_error(ended);
    }
}

#[test]
fn a_leader_that_works_alone_obeys_signals() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let words = "--all -k 21 -j 0 --unit-blocks 1 --inject scan.block:leader:nth=all:delay=700";
        let mut running = leader().words(words).arg(relation().0.path()).spawn();
        thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        running.signal(signal);
        let ended = running.wait().ends_by(signal);
        assert!(ended.stdout.is_empty(), "{ended}a part of a result");
        // Four blocks are left, and it does not read them.
        assert!(start.elapsed() < Duration::from_millis(2500), "{ended}took {:?}", start.elapsed());
    }
}

/// The leader's death reaches a worker that is stopped: the kernel wakes an orphaned process group.
#[test]
fn a_stopped_worker_does_not_outlive_its_leader() {
    let words = "--all -k 21 -j 2 --worker-timeout 0 --inject scan.claimed:stop";
    let mut running = leader().words(words).arg(relation().0.path()).spawn();
    let stopped = |pid: nix::unistd::Pid| {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
    };
    assert!(within(Duration::from_secs(30), || running.workers().len() == 2
        && running.workers().into_iter().all(stopped)));
    running.signal(Signal::SIGKILL);
    let _ = running.wait(); // audits: no process, no segment
}

/// Unless the run is to be resumed, the result's file has no name before it is whole, so a killed leader leaves none.
#[test]
fn a_leader_killed_while_it_writes_leaves_no_file() {
    for point in ["report.begin", "report.written", "output.synced"] {
        let words = format!("--all -k 21 -j 2 -o out --inject {point}:leader:kill");
        let ended = leader().words(&words).arg(relation().0.path()).run();
        let _ = ended.ends_by(Signal::SIGKILL);
    }
    // And a signal ends it at once, though nobody reads what it writes.
    let words = "--all -k 21 -j 2 --inject report.written:leader:stop";
    let mut running = leader().words(words).arg(relation().0.path()).spawn();
    let pid = running.pid();
    assert!(within(Duration::from_secs(30), || fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| s.contains(") T "))));
    let _ = kill(pid, Signal::SIGTERM);
    let _ = kill(pid, Signal::SIGCONT);
    running.signal(Signal::SIGCONT);
    let _ = running.wait().ends_by(Signal::SIGTERM);
}

#[test]
fn a_poison_run_of_blocks_is_named_and_can_be_left_out() {
    // Whoever claims a unit dies of it, the leader excepted: it never works while others may.
    let poison = "-j 1 --all -k 21 --unit-blocks 1 --inject scan.claimed:again:kill";
    let ended = leader().words(poison).arg(relation().0.path()).run();
    let ended = ended.fails(4, &["block 0: 3 workers died on", "--on-error skip"]);
    assert!(ended.stdout.is_empty(), "{ended}a result");
    let skip = format!("{poison} --on-error skip --max-respawns 1000");
    let ended = leader().words(&skip).arg(relation().0.path()).run().exits(3);
    assert!(ended.stderr.contains("warning: skipped: relation"), "{ended}");
    assert!(ended.stderr.contains("block 3: 3 workers died on"), "{ended}");
    // A stripe cannot be left out.
    let stripe = "--all -k 21 -j 1 --on-error skip --max-respawns 1000 --inject drain.claimed:again:kill";
    let _ =
        leader().words(stripe).arg(relation().0.path()).run().fails(4, &["stripe", "3 workers died on it"]);
}
