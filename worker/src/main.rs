//! kmer-worker: attaches to the segment that its leader names, counts, and leaves. Not meant to be started by hand.
//!
//! Exit codes: 0 done, 1 an error that was reported through the segment, 2 usage, 7 could not attach (said on stderr), 8 fenced, 9 the
//! leader is gone, 10 a bus error. Whatever ends the process, at whatever instruction, the leader sees it and recovers.

#![forbid(unsafe_code)]

use clap::Parser;
use kmer_worker::engine::{Surroundings, Worker};
use kmer_worker::feed::Feeder;
use kmer_worker::shared::Shared;
use kmer_worker::stdin::Patient;
use kmer_worker::{EXIT_FENCED, EXIT_NO_ATTACH, EXIT_REPORTED, WorkError};
use shm_layout::inject::{self, Point, Rule, Who, at};
use shm_layout::place;
use shm_layout::process;
use shm_layout::slots::Figure;
use shm_layout::words::{Owner, SlotState};
use std::os::fd::{AsFd, BorrowedFd};

/// Counts k-mers for a kmer-leader, which starts it.
#[derive(Parser)]
#[command(name = "kmer-worker", version)]
struct Args {
    /// Name of the shared-memory segment.
    #[arg(long)]
    segment: String,
    /// Slot of this worker.
    #[arg(long)]
    slot: u16,
    /// Generation of this worker in its slot.
    #[arg(long)]
    generation: u32,
    /// Process id of the leader.
    #[arg(long)]
    leader: u32,
    /// Unpack the input for the other workers.
    #[arg(long)]
    feed: bool,
    /// File descriptor that the input - stands for.
    #[arg(long)]
    input: Option<i32>,
    /// Leave the segment when the leader dies.
    #[arg(long)]
    keep: bool,
    /// Stands for a worker that died: rules of --inject are not for it, unless they say so.
    #[arg(long)]
    replacement: bool,
    /// What to do at which point, see `shm_layout::inject`.
    #[arg(long)]
    inject: Vec<Rule>,
}

/// Standard input is the end of a pipe that only the leader holds open; standard output is its ear.
struct Process;

impl Surroundings for Process {
    fn idle(&mut self) {
        // The pipe does not block and may be full: then the leader has enough to hear.
        let _ = nix::unistd::write(std::io::stdout().as_fd(), b"i");
    }

    fn may_go_on(&mut self) -> bool {
        if is_hung_up(std::io::stdin().as_fd()) {
            process::leave_after_leader();
        }
        true
    }
}

fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn main() {
    let args = Args::parse();
    std::process::exit(run(&args));
}

fn run(args: &Args) -> i32 {
    count(args).unwrap_or_else(|e| fail(&e.to_string()))
}

fn count(args: &Args) -> Result<i32, WorkError> {
    let armed = inject::arm(&args.inject, Who::Worker(args.slot), args.replacement);
    armed.map_err(|e| WorkError::Job(format!("--inject: {e}")))?;
    at(Point::WorkerStart)?;
    let names = if args.keep { Vec::new() } else { place::paths_of(&args.segment) };
    match process::die_with_parent(args.leader, &names) {
        Ok(true) => {}
        Ok(false) => process::leave_after_leader(),
        Err(e) => return Ok(fail(&format!("could not arm the death signal: {e}"))),
    }
    at(Point::WorkerArmed)?;
    let _ = process::exit_on_bus_error();
    let _ = process::ignore_file_size_signal();
    // The kernel shall end a worker before the leader when memory runs out.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    let owner = Owner { slot: args.slot, generation: args.generation };
    let shared = Shared::attach(&args.segment)?;
    shared.state.check_mutex()?;
    // Somebody who takes the segment over counts on every worker being gone.
    if !shared.segment.lock_as_worker()? {
        return Ok(EXIT_FENCED);
    }
    at(Point::WorkerAttached)?;
    if !shared.slots.change(owner, SlotState::Starting, SlotState::Running)? {
        return Ok(EXIT_FENCED);
    }
    let _ = shared.slots.set(owner.slot, Figure::Pid, std::process::id().into());
    match work(args, &shared, owner) {
        Ok(()) => Ok(0),
        // What others have done with its work meanwhile is no error of the run.
        Err(e) if e.is_fenced() || shared.slots.is_fenced(owner)? => Ok(EXIT_FENCED),
        Err(e) => Ok(report(&shared, owner, &e)),
    }
}

fn work(args: &Args, shared: &Shared, owner: Owner) -> Result<(), WorkError> {
    at(Point::WorkerRunning)?;
    if args.feed {
        let stdin = args.input.map(|number| {
            let file = process::inherited(number);
            Box::new(Patient::new(file, shared.slots.clone(), owner.slot)) as sequence::unpack::Source
        });
        Feeder::new(shared, owner, stdin)?.run(&mut Process)?;
    } else {
        Worker::new(shared, owner).run(&mut Process)?;
    }
    at(Point::WorkerLeaving)?;
    shared.slots.change(owner, SlotState::Running, SlotState::Done)?;
    Ok(at(Point::WorkerDone)?)
}

/// Says what went wrong: in the slot first, then as the run's error, then by leaving.
fn report(shared: &Shared, owner: Owner, error: &WorkError) -> i32 {
    let text = error.report();
    let _ = at(Point::ErrorBegin);
    let _ = shared.slots.say(owner.slot, &text);
    let _ = at(Point::ErrorSaid);
    let _ = shared.state.record_error(owner.slot, &text);
    let _ = shared.slots.change(owner, SlotState::Running, SlotState::Done);
    EXIT_REPORTED
}

fn fail(text: &str) -> i32 {
    eprintln!("kmer-worker: error: {text}");
    EXIT_NO_ATTACH
}
