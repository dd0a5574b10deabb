//! A process is killed after every single instruction: a worker from its first claim to its end, and a leader that resumes a run, from the lock on.
//!
//! Of a process that dies nothing survives but the segment. So one pass is enough: the process is stepped through (ptrace), and whenever the segment
//! has changed after an instruction, a copy of it is recovered from and finished, and its result compared. That a copy is as good as a death
//! is shown by real SIGKILLs at the instructions before, at and behind changes, in runs of their own, whose leader recovers and goes on.
//!
//! And where a task changes hands, the process really dies after *every* instruction, a run for each: in a claim, a commit, a publication, and in the
//! leader's recovery from a dead worker.
//!
//! The short form takes a sample of the images and of these deaths. `KMER_INSTRUCTIONS=all cargo test --release -p kmer-tests --test instructions` takes every image, and many
//! more deaths.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::personality::{self, Persona};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use kmer_tests::engine::bin;
use kmer_tests::fault::{Small, in_parallel, processes_with, run, segments_of, within};

const OPTIONS: &str = "--all -k 21 -q --no-checksums --unit-blocks 1 --chunk-bytes 4096 --stripe-bits 1 --batch-bytes 300 --memory 160K --worker-timeout 0";

fn is_long() -> bool {
    std::env::var_os("KMER_INSTRUCTIONS").is_some_and(|what| what == "all")
}

fn relation() -> &'static Small {
    static RELATION: OnceLock<Small> = OnceLock::new();
    RELATION.get_or_init(|| Small::new(60, 8))
}

fn args(options: &str) -> Vec<String> {
    let mut args: Vec<String> =
        format!("{OPTIONS} {options}").split_whitespace().map(str::to_owned).collect();
    args.push(relation().path().to_string_lossy().into_owned());
    args
}

fn dir() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    DIR.get_or_init(|| tempfile::tempdir().expect("a directory")).path()
}

fn expected() -> &'static [u8] {
    static EXPECTED: OnceLock<Vec<u8>> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let end = run(dir(), &args("-j 1 -o peace"), |_| ());
        assert_eq!(end.code(), Some(0), "{}", end.told);
        fs::read(dir().join("peace")).expect("a result")
    })
}

/// An image of a segment, and after how many instructions it was there.
struct Image {
    after: u64,
    bytes: Vec<u8>,
}

/// A process that is stepped through.
struct Stepped {
    pid: Pid,
    segment: File,
    /// Bytes before the arena.
    control: usize,
    /// Instructions so far.
    steps: u64,
}

impl Stepped {
    /// Takes hold of a process that stopped itself.
    fn new(pid: Pid, segment: &str) -> Self {
        let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(
            within(Duration::from_secs(20), || stat().contains(") T ")),
            "{pid} does not stop: {}",
            stat()
        );
        ptrace::attach(pid).expect("may trace");
        waitpid(pid, None).expect("a stop");
        let _ = kill(pid, Signal::SIGCONT);
        let segment = File::open(format!("/dev/shm/{segment}")).expect("the segment");
        let mut word = [0; 8];
        segment.read_exact_at(&mut word, 40).expect("a header");
        let control = usize::try_from(u64::from_le_bytes(word)).expect("an offset");
        Self { pid, segment, control, steps: 0 }
    }

    /// Steps to where the process stops itself again; gives how many instructions that took.
    fn until_it_stops(mut self) -> u64 {
        loop {
            ptrace::step(self.pid, None).expect("may step");
            match waitpid(self.pid, None).expect("a stop") {
                // The wake-up of its first stop is swallowed.
                WaitStatus::Stopped(_, Signal::SIGTRAP | Signal::SIGCONT) => self.steps += 1,
                WaitStatus::Stopped(_, Signal::SIGSTOP) => break,
                other => panic!("{other:?} after {} instructions", self.steps),
            }
        }
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
        self.steps
    }

    /// Kills it after so many instructions.
    fn die_after(mut self, steps: u64) {
        while self.steps < steps && self.step() {}
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }

    /// Does one instruction; false when the process has ended.
    fn step(&mut self) -> bool {
        if ptrace::step(self.pid, None).is_err() {
            let _ = waitpid(self.pid, None);
            return false;
        }
        self.steps += 1;
        // Signals (there is only the SIGCONT above) are swallowed.
        matches!(waitpid(self.pid, None), Ok(WaitStatus::Stopped(..)))
    }

    fn image(&self, into: &mut Vec<u8>) {
        let len = self.segment.metadata().map_or(0, |meta| meta.len() as usize);
        into.resize(len, 0);
        self.segment.read_exact_at(into, 0).expect("the segment");
    }

    /// Steps to the end and collects every image that differs from the one before.
    fn images(mut self) -> (Vec<Image>, u64) {
        let mut images: Vec<Image> = Vec::new();
        let (mut now, mut control) = (Vec::new(), Vec::new());
        loop {
            // The control area after every instruction; the rest, which is written by system calls, a little later at the most.
            let changed = match images.last() {
                Some(last) if !self.steps.is_multiple_of(256) => {
                    control.resize(self.control, 0);
                    self.segment.read_exact_at(&mut control, 0).expect("the segment");
                    control[..] != last.bytes[..self.control]
                }
                _ => true,
            };
            if changed {
                self.image(&mut now);
                if images.last().is_none_or(|last| last.bytes != now) {
                    images.push(Image { after: self.steps, bytes: now.clone() });
                }
            }
            if !self.step() {
                return (images, self.steps);
            }
        }
    }
}

/// Finishes a copy of a segment whose processes are dead, and compares its result.
fn finish(image: &Image, number: usize, what: &str) {
    let name = format!("kmer.image-{}-{what}-{number}", std::process::id());
    let path = format!("/dev/shm/{name}");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).expect("made");
    file.write_all_at(&image.bytes, 0).expect("room");
    // The leader of the original may live: that of the copy is dead.
    file.write_all_at(&[0; 16], 64).expect("the creator");
    let out = format!("{what}-{number}");
    let end = run(dir(), &["resume", &name, "-j", "0", "-q", "-o", &out], |_| ());
    let result = fs::read(dir().join(&out)).unwrap_or_default();
    let _ = (fs::remove_file(dir().join(&out)), fs::remove_file(&path));
    assert_eq!(end.code(), Some(0), "{what}, instruction {}: {}", image.after, end.told);
    assert!(result == expected(), "{what}, instruction {}: other bytes; {}", image.after, end.told);
}

/// Finishes all images, or a sample of them, each content once. Says how many.
fn finish_all(images: &[Image], what: &str) -> usize {
    let (mut seen, hasher) = (BTreeSet::new(), RandomState::new());
    let distinct = images.iter().filter(|image| {
        let mut state = hasher.build_hasher();
        state.write(&image.bytes);
        seen.insert(state.finish())
    });
    let mut chosen: Vec<(usize, &Image)> = distinct.enumerate().collect();
    if !is_long() {
        let every = (chosen.len() / 120).max(1);
        chosen.retain(|(number, _)| number % every == 0);
    }
    in_parallel(4, &chosen, |(number, image)| finish(image, *number, what));
    chosen.len()
}

fn spawn(args: &[String]) -> Child {
    let mut command = Command::new(bin("kmer-leader"));
    command.args(args).current_dir(dir()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("kmer-leader starts")
}

/// A run whose only worker has stopped itself at the beginning, and that worker.
fn with_worker(out: &str) -> (Child, String, Stepped) {
    with_worker_at(out, "--inject worker.running:worker=0:stop")
}

/// The same, stopped where `rule` says.
fn with_worker_at(out: &str, rule: &str) -> (Child, String, Stepped) {
    let leader = spawn(&args(&format!("-j 1 -o {out} --resumable {rule}")));
    let mut worker = None;
    assert!(within(Duration::from_secs(20), || {
        let segment = segments_of(leader.id()).pop();
        worker = segment.and_then(|segment| Some((processes_with(&segment).pop()?, segment)));
        worker.is_some()
    }));
    let (pid, segment) = worker.expect("a worker");
    let stepped = Stepped::new(pid, &segment);
    (leader, segment, stepped)
}

fn may_trace() -> bool {
    // Addresses that are the same each time make instruction counts the same, but for what waits.
    let _ = personality::set(personality::get().unwrap_or(Persona::empty()) | Persona::ADDR_NO_RANDOMIZE);
    let mut child = Command::new("sleep").arg("9").stdout(Stdio::null()).spawn().expect("sleep");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    let may = ptrace::attach(pid).is_ok();
    if may {
        let _ = waitpid(pid, None);
        let _ = ptrace::detach(pid, None);
    } else {
        println!("skipped: tracing is not permitted here");
    }
    let _ = (child.kill(), child.wait());
    may
}

#[test]
fn a_worker_killed_after_any_instruction_changes_nothing() {
    if !may_trace() {
        return;
    }
    let (mut leader, _, stepped) = with_worker("stepped");
    let (images, steps) = stepped.images();
    assert!(leader.wait().is_ok_and(|status| status.success()), "the stepped run itself");
    assert!(fs::read(dir().join("stepped")).expect("a result") == expected(), "the stepped run itself");
    let finished = finish_all(&images, "worker");
    println!(
        "worker: {steps} instructions, {} changes of the segment, {finished} images finished, 0 bad",
        images.len()
    );
    assert!(steps > 20_000 && images.len() > 60, "{steps} instructions, {} changes", images.len());
    // Real deaths before, at and behind changes. Each is a run of its own, stepped from the start.
    let (first, every) = if is_long() { (1, images.len() / 100) } else { (images.len() / 2, images.len()) };
    let mut deaths = 0;
    for image in images.iter().skip(first).step_by(every.max(1)) {
        for after in image.after.saturating_sub(1)..=image.after + 1 {
            let (mut leader, _, mut stepped) = with_worker("killed");
            while stepped.steps < after && stepped.step() {}
            let _ = kill(stepped.pid, Signal::SIGKILL);
            let _ = waitpid(stepped.pid, None);
            assert!(leader.wait().is_ok_and(|status| status.success()), "killed after {after} instructions");
            let out = fs::read(dir().join("killed")).expect("a result");
            assert!(out == expected(), "killed after {after} instructions: other bytes");
            deaths += 1;
        }
    }
    println!("worker: {deaths} real deaths, 0 bad");
}

#[test]
#[allow(clippy::zombie_processes, reason = "the stepper waits for it")]
fn a_leader_killed_after_any_instruction_of_a_recovery_is_resumed() {
    if !may_trace() {
        return;
    }
    // A worker died with a unit and chunks, and the leader while it recovered from that.
    let rules = "--inject scan.stored:worker=0:kill --inject recover.units:leader:kill";
    let end = run(dir(), &args(&format!("-j 1 -o recovered --resumable {rules}")), |_| ());
    assert_eq!(end.signal(), Some(9), "{}", end.told);
    let segment = segments_of(end.pid).pop().expect("a segment");
    let words = format!("resume {segment} -j 0 -q --inject resume.locked:leader:stop");
    let child = spawn(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    let (images, steps) = Stepped::new(pid, &segment).images();
    assert!(fs::read(dir().join("recovered")).expect("a result") == expected(), "the stepped run itself");
    let finished = finish_all(&images, "leader");
    println!(
        "leader: {steps} instructions, {} changes of the segment, {finished} images finished, 0 bad",
        images.len()
    );
    assert!(steps > 20_000 && images.len() > 50, "{steps} instructions, {} changes", images.len());
}

/// Deaths after so many instructions each: all, or a sample.
fn deaths(instructions: u64) -> Vec<u64> {
    let every = if is_long() { 1 } else { (instructions / 6).max(1) };
    (0..=instructions).step_by(usize::try_from(every).expect("few")).collect()
}

#[test]
fn a_worker_really_dies_after_every_instruction_of_a_claim_a_commit_and_a_publication() {
    if !may_trace() {
        return;
    }
    let _ = expected();
    for (what, from, to) in [
        ("claim", "claim.locked", "claim.moved"),
        ("commit", "scan.stored", "scan.committed"),
        ("publication", "drain.stored", "drain.published"),
    ] {
        let rules = |points: &[&str]| {
            points.iter().map(|at| format!("--inject {at}:worker=0:stop ")).collect::<String>()
        };
        let (mut leader, _, stepped) = with_worker_at("counted", &rules(&[from, to]));
        let instructions = stepped.until_it_stops();
        assert!(leader.wait().is_ok_and(|status| status.success()), "the counted run itself");
        let all = deaths(instructions);
        in_parallel(3, &all, |after| {
            let out = format!("{what}-{after}");
            let (mut leader, _, stepped) = with_worker_at(&out, &rules(&[from]));
            stepped.die_after(*after);
            assert!(leader.wait().is_ok_and(|status| status.success()), "{what}: killed after {after}");
            let result = fs::read(dir().join(&out)).expect("a result");
            assert!(result == expected(), "{what}: killed after {after} instructions: other bytes");
            let _ = fs::remove_file(dir().join(&out));
        });
        println!("{what}: {instructions} instructions, {} real deaths, 0 bad", all.len());
        assert!(instructions > 20, "{what}: {instructions} instructions");
    }
}

/// A leader that has seen its worker's death, and stopped itself at the beginning of the recovery.
fn recovering(out: &str, to: &str) -> (Child, String, Stepped) {
    let rules = "--inject scan.stored:worker=0:kill --inject recover.begin:leader:stop";
    let leader = spawn(&args(&format!("-j 1 -o {out} --resumable {rules} {to}")));
    let mut segment = None;
    assert!(within(Duration::from_secs(20), || {
        segment = segments_of(leader.id()).pop();
        segment.is_some()
    }));
    let pid = Pid::from_raw(i32::try_from(leader.id()).expect("a process id"));
    let segment = segment.expect("a segment");
    let stepped = Stepped::new(pid, &segment);
    (leader, segment, stepped)
}

#[test]
fn a_leader_really_dies_after_every_instruction_of_a_recovery() {
    if !may_trace() {
        return;
    }
    let _ = expected();
    let (mut leader, segment, stepped) = recovering("counted-leader", "--inject recover.reaped:leader:stop");
    let instructions = stepped.until_it_stops();
    let _ = leader.wait();
    let ended = run(dir(), &["resume", &segment, "-j", "0", "-q"], |_| ());
    assert_eq!(ended.code(), Some(0), "{}", ended.told);
    let all = deaths(instructions);
    in_parallel(3, &all, |after| {
        let out = format!("recovery-{after}");
        let (mut leader, segment, stepped) = recovering(&out, "");
        stepped.die_after(*after);
        let _ = leader.wait();
        let ended = run(dir(), &["resume", &segment, "-j", "0", "-q"], |_| ());
        assert_eq!(ended.code(), Some(0), "killed after {after}: {}", ended.told);
        let result = fs::read(dir().join(&out)).expect("a result");
        assert!(result == expected(), "killed after {after} instructions: other bytes");
        let _ = fs::remove_file(dir().join(&out));
    });
    println!("recovery: {instructions} instructions, {} real deaths, 0 bad", all.len());
    assert!(instructions > 100, "{instructions} instructions");
}
