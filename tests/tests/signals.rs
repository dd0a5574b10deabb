//! The signals by which users end a run: heard wherever it waits, and left alone where whoever started it had them ignored.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use kmer_tests::data::Rng;
use kmer_tests::engine::{Engine, PATIENCE, bin, leader};
use kmer_tests::fault::{Small, within};
use kmer_tests::pinned::PinName;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Of 57 blocks.
const KLEBS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/klebs");

/// Long enough for a program to come to where it waits.
const MOMENT: Duration = Duration::from_millis(300);

fn named_pipe(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
}

/// A pipe to which nothing more is written as long as its end is kept.
fn silent_pipe(begin: &str) -> (ChildStdin, Stdio) {
    let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
    let (mut end, out) = (cat.stdin.take().expect("piped"), cat.stdout.take().expect("piped"));
    thread::spawn(move || cat.wait());
    std::io::Write::write_all(&mut end, begin.as_bytes()).expect("written");
    (end, out.into())
}

#[test]
fn who_waits_for_input_is_ended() {
    for signal in ENDING {
        for begin in ["", ">a\nACGT", ">a\nACGTACGTACGT\n>b\nAC"] {
            let (end, input) = silent_pipe(begin);
            let mut running = leader().words("-k 4 -j 2 -").stdin(input).spawn();
            thread::sleep(MOMENT);
            let start = Instant::now();
            running.signal(signal);
            let ended = running.wait().ends_by(signal);
            assert!(ended.stdout.is_empty(), "{ended}after {begin:?}");
            // Nobody had to wait for the end of the input.
            assert!(start.elapsed() < Duration::from_secs(20), "{ended}took {:?}", start.elapsed());
            drop(end);
        }
    }
}

#[test]
fn who_waits_for_a_reader_is_ended() {
    let small = Small::new(61, 50);
    for (signal, option) in ENDING.into_iter().zip(["-o", "--histogram", "--partial"]) {
        let engine =
            leader().words("--all -k 9 -j 2").arg(small.path()).arg(option).arg("pipe").keeps("pipe");
        named_pipe(&engine.dir().join("pipe"));
        let mut running = engine.spawn();
        thread::sleep(MOMENT);
        running.signal(signal);
        let ended = running.wait().ends_by(signal);
        assert!(ended.stdout.is_empty(), "{ended}");
    }
}

/// While the result is pinned as well signals are caught; a reader that takes nothing must not keep them from being heard.
#[test]
fn a_reader_that_stalls_is_left() {
    let small = Small::new(63, 400);
    for signal in ENDING {
        for option in ["", "-o pipe"] {
            let name = format!("stalls-{}-{}", std::process::id(), signal as i32);
            let words = format!("--all -k 9 -j 2 --pin {name} {option}");
            let engine = leader().words(&words).arg(small.path()).keeps("pipe");
            let pipe = engine.dir().join("pipe");
            named_pipe(&pipe);
            // Opened and not read: more than a pipe holds is to come.
            let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("opened");
            let engine = match option {
                "" => engine.stdout(reader.try_clone().expect("a copy")),
                _ => engine,
            };
            let mut running = engine.spawn();
            thread::sleep(MOMENT * 2);
            assert!(!running.has_ended(), "{words}: nobody reads");
            running.signal(signal);
            let ended = running.wait().ends_by(signal);
            let listed = leader().words("segments").run().exits(0);
            assert!(!listed.text().contains(&name), "{ended}{listed}");
        }
    }
}

/// A terminal that nobody reads is such a reader, and a pipe that somebody has told not to wait is none that is full.
#[test]
fn a_stopped_terminal_is_left_and_a_pipe_that_does_not_wait_is_waited_for() {
    let small = Small::new(64, 400);
    for signal in ENDING {
        let name = format!("stopped-{}-{}", std::process::id(), signal as i32);
        let pair = nix::pty::openpty(None, None).expect("a terminal");
        let engine = leader().words(&format!("--all -k 9 -j 2 --pin {name}")).arg(small.path());
        let mut running = engine.stdout(fs::File::from(pair.slave)).spawn();
        thread::sleep(MOMENT * 2);
        assert!(!running.has_ended(), "nobody reads");
        running.signal(signal);
        let _ = running.wait().ends_by(signal);
        drop(pair.master);
    }
    let expected = leader().words("--all -k 9 -j 1").arg(small.path()).run().exits(0);
    for pinned in [false, true] {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let nonblocking = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        fcntl(&writer, nonblocking).expect("ours");
        let pin = PinName::new();
        let engine = leader().words("--all -k 9 -j 2").arg(small.path());
        let engine = if pinned { engine.arg("--pin").arg(pin.name()) } else { engine };
        let running = engine.stdout(fs::File::from(std::os::fd::OwnedFd::from(writer))).spawn();
        thread::sleep(MOMENT * 2);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("read to the end");
        let _ = running.wait().exits(0);
        assert!(read.len() > 1 << 16 && read == expected.stdout, "{} bytes came", read.len());
    }
}

#[test]
fn a_reader_that_comes_late_gets_everything() {
    let small = Small::new(62, 400);
    let expected = leader().words("--all -k 9 -j 1").arg(small.path()).run().exits(0);
    let engine = leader().words("--all -k 9 -j 2 -o pipe").arg(small.path()).keeps("pipe");
    let pipe = engine.dir().join("pipe");
    named_pipe(&pipe);
    let running = engine.spawn();
    thread::sleep(MOMENT);
    // More than a pipe holds, so the writer waits for it as well.
    let read = fs::read(pipe).expect("read to the end");
    let _ = running.wait().exits(0);
    assert!(read.len() > 1 << 16 && read == expected.stdout, "{expected}{} bytes came", read.len());
}

/// A leader that feeds, and has no room for the next parcel, has other things to see to while it waits.
#[test]
fn who_waits_for_room_is_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let packed = dir.path().join("reads.fa.gz");
    let letters = Rng::new(68).letters("ACGT", 600_000);
    let mut packer = GzEncoder::new(fs::File::create(&packed).expect("made"), Compression::fast());
    for record in letters.as_bytes().chunks(300) {
        writeln!(packer, ">r\n{}", String::from_utf8_lossy(record)).expect("written");
    }
    packer.finish().expect("written");
    let words = "--all -k 31 -j 2 --chunk-bytes 4096 --unit-blocks 8 --stripe-bits 4 --memory 1000K --pass-bits 0 --on-worker-death degrade
        --inject feed.claimed:worker=2:kill --inject scan.claimed:nth=all:delay=4000";
    for signal in ENDING {
        let mut running = leader().words(words).arg(&packed).spawn();
        thread::sleep(Duration::from_millis(1200));
        running.signal(signal);
        let ended = running.wait().ends_by(signal);
        assert!(ended.stderr.contains("worker 2 ended too early"), "{ended}");
    }
}

/// All at once: each of them has the same moment to leave.
#[test]
fn many_workers_that_cannot_leave_end_together() {
    let words = "--all -k 15 -j 12 --unit-blocks 1 --worker-timeout 0 --inject scan.claimed:nth=all:stop";
    let mut running = leader().words(words).arg(KLEBS).spawn();
    thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    running.signal(Signal::SIGTERM);
    let ended = running.wait().ends_by(Signal::SIGTERM);
    assert!(start.elapsed() < Duration::from_secs(12), "{ended}took {:?}", start.elapsed());
}

/// A container that is paused: when it goes on the leader may be first.
#[test]
fn who_was_stopped_with_its_leader_did_not_hang() {
    let small = Small::new(66, 400);
    let expected = leader().words("--all -k 15 -j 2").arg(small.path()).run().exits(0);
    let words = "--all -k 15 -j 2 --unit-blocks 1 --worker-timeout 3 --inject scan.block:delay=2500";
    let mut running = leader().words(words).arg(small.path()).spawn();
    // The leader has looked, and seen them in the midst of a block.
    thread::sleep(Duration::from_millis(1300));
    let workers = running.workers();
    assert!(!workers.is_empty());
    let signal_workers = |signal| workers.iter().for_each(|worker| _ = kill(*worker, signal));
    running.signal(Signal::SIGSTOP);
    signal_workers(Signal::SIGSTOP);
    thread::sleep(Duration::from_millis(3500));
    running.signal(Signal::SIGCONT);
    // It looks at least once.
    thread::sleep(Duration::from_millis(1400));
    signal_workers(Signal::SIGCONT);
    let ended = running.wait().exits(0);
    assert!(ended.stdout == expected.stdout && !ended.stderr.contains("made no progress"), "{ended}");
}

/// For process 1 of a container the kernel drops a signal whose action is the default one.
#[test]
fn process_1_is_ended_too() {
    let unshare = |words: &str| {
        let words = format!("--pid --fork --mount-proc --kill-child {words}");
        Engine::new("unshare".into()).words(&words)
    };
    let allowed = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        println!("no right to make a namespace of processes: left out");
        return;
    }
    let program = bin("kmer-leader");
    let small = Small::new(67, 50);
    let counting =
        format!("{} --all -k 9 -j 2 --inject report.begin:leader:delay=2000", small.path().display());
    for what in ["-k 4 -j 2 -", &counting] {
        let (end, input) = silent_pipe("");
        let running = unshare(&format!("{} {what}", program.display())).stdin(input).spawn();
        thread::sleep(3 * MOMENT);
        let inner = running.workers();
        assert_eq!(inner.len(), 1, "{what}");
        let _ = kill(inner[0], Signal::SIGTERM);
        let ended = running.wait().exits(143);
        assert!(ended.stdout.is_empty(), "{ended}");
        drop(end);
    }
}

/// The result is there, and its summary waits for a reader.
#[test]
fn who_finds_no_reader_for_its_messages_is_ended() {
    let (small, dir) = (Small::new(68, 50), tempfile::tempdir().expect("a directory"));
    let (_reader, mut errors) = std::io::pipe().expect("a pipe");
    fcntl(&errors, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe");
    while std::io::Write::write(&mut errors, &[b'.'; 1]).is_ok() {}
    fcntl(&errors, FcntlArg::F_SETFL(OFlag::empty())).expect("a pipe");
    let out = dir.path().join("out");
    let mut command = Command::new(bin("kmer-leader"));
    command.args(["--all", "-k", "9", "-j", "2", "-o"]).arg(&out).arg(small.path());
    let mut child = command.stderr(errors).spawn().expect("started");
    assert!(within(PATIENCE, || out.exists()), "no result");
    thread::sleep(MOMENT);
    let _ = kill(Pid::from_raw(child.id().try_into().expect("a number")), Signal::SIGTERM);
    let ended = within(PATIENCE, || child.try_wait().expect("ours").is_some());
    let _ = child.kill();
    assert!(ended, "it did not end");
    assert_eq!(child.wait().expect("ours").signal(), Some(Signal::SIGTERM as i32));
}

/// As `nohup` starts programs, or a shell in a script with `&`.
fn ignoring(signals: &str, words: &str, relation: &Path) -> Engine {
    let script = format!("trap '' {signals}; exec \"$0\" \"$@\"");
    let engine = Engine::new("sh".into()).arg("-c").arg(script).arg(bin("kmer-leader"));
    engine.words(words).arg(relation)
}

#[test]
fn what_was_ignored_from_the_start_stays_ignored() {
    let small = Small::new(63, 200);
    let expected = leader().words("--all -k 15 -j 2").arg(small.path()).run().exits(0);
    for workers in ["0", "2"] {
        let words = format!("--all -k 15 -j {workers} --unit-blocks 1 --inject scan.block:nth=all:delay=50");
        let mut running = ignoring("INT HUP", &words, &small.path()).spawn();
        thread::sleep(MOMENT);
        running.signal(Signal::SIGHUP);
        running.signal(Signal::SIGINT);
        let ended = running.wait().exits(0);
        assert!(ended.stdout == expected.stdout, "{ended}");
        let words = format!("--all -k 15 -j {workers} --unit-blocks 1 --inject scan.block:nth=all:delay=700");
        let mut running = ignoring("INT HUP", &words, &small.path()).spawn();
        thread::sleep(MOMENT);
        running.signal(Signal::SIGTERM);
        let _ = running.wait().ends_by(Signal::SIGTERM);
    }
    // Also while nothing has to be cleaned up, and signals are let through.
    let (end, input) = silent_pipe("");
    let mut running = ignoring("HUP", "--all -k 4 -j 2", Path::new("-")).stdin(input).spawn();
    thread::sleep(MOMENT);
    running.signal(Signal::SIGHUP);
    thread::sleep(MOMENT);
    let mut end = end;
    std::io::Write::write_all(&mut end, b">a\nACGTA\n").expect("somebody reads");
    drop(end);
    assert!(running.wait().exits(0).text().contains("ACGT\t27\t1\n"));
}

#[test]
fn a_reader_that_leaves_ends_the_run() {
    let small = Small::new(64, 20);
    let dir = tempfile::tempdir().expect("a directory");
    let pipe = dir.path().join("pipe");
    named_pipe(&pipe);
    // Somebody reads, and leaves without having read.
    let reader =
        OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).expect("a reader");
    let running = leader()
        .words("--all -k 9 -j 2 --inject report.begin:leader:delay=600 -o")
        .arg(&pipe)
        .arg(small.path())
        .spawn();
    thread::sleep(MOMENT);
    drop(reader);
    let _ = running.wait().ends_by(Signal::SIGPIPE);
}
