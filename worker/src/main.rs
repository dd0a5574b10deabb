//! kmer-worker: attaches to the segment that its leader names, counts, and leaves. Not meant to be started by hand.
//!
//! Exit codes: 0 done, 1 an error that was reported through the segment, 2 usage, 7 could not attach (said on stderr), 8 fenced, 9 the
//! leader is gone. Whatever ends the process, at whatever instruction, the leader sees it and recovers.

#![forbid(unsafe_code)]

use clap::Parser;
use kmer_worker::engine::{Surroundings, Worker};
use kmer_worker::shared::Shared;
use kmer_worker::{EXIT_FENCED, EXIT_NO_ATTACH, EXIT_REPORTED, WorkError};
use shm_layout::process;
use shm_layout::segment::SHM_DIR;
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
    /// Leave the segment when the leader dies.
    #[arg(long)]
    keep: bool,
}

/// Standard input is the end of a pipe that only the leader holds open; standard output is its ear.
struct Process;

impl Surroundings for Process {
    fn idle(&mut self) {
        // The pipe does not block and may be full: then the leader has enough to hear.
        let _ = nix::unistd::write(std::io::stdout().as_fd(), b"i");
    }

    fn leave_if_orphaned(&mut self) {
        if is_hung_up(std::io::stdin().as_fd()) {
            process::leave_after_leader();
        }
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
    let path = format!("{SHM_DIR}/{}", args.segment);
    match process::die_with_parent(args.leader, (!args.keep).then_some(&path)) {
        Ok(true) => {}
        Ok(false) => process::leave_after_leader(),
        Err(e) => return fail(&format!("could not arm the death signal: {e}")),
    }
    // The kernel shall end a worker before the leader when memory runs out.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    let owner = Owner { slot: args.slot, generation: args.generation };
    let shared = match Shared::attach(&args.segment) {
        Ok(shared) => shared,
        Err(e) => return fail(&e.to_string()),
    };
    match shared.slots.change(owner, SlotState::Starting, SlotState::Running) {
        Ok(true) => {}
        Ok(false) => return EXIT_FENCED,
        Err(e) => return fail(&e.to_string()),
    }
    let _ = shared.slots.set(owner.slot, Figure::Pid, std::process::id().into());
    match Worker::new(&shared, owner).run(&mut Process) {
        Ok(()) => {
            let _ = shared.slots.change(owner, SlotState::Running, SlotState::Done);
            0
        }
        Err(e) if e.is_fenced() => EXIT_FENCED,
        Err(e) => report(&shared, owner, &e),
    }
}

/// Says what went wrong: in the slot first, then as the run's error, then by leaving.
fn report(shared: &Shared, owner: Owner, error: &WorkError) -> i32 {
    let text = error.report();
    let _ = shared.slots.say(owner.slot, &text);
    let _ = shared.state.record_error(owner.slot, &text);
    let _ = shared.slots.change(owner, SlotState::Running, SlotState::Done);
    EXIT_REPORTED
}

fn fail(text: &str) -> i32 {
    eprintln!("kmer-worker: error: {text}");
    EXIT_NO_ATTACH
}
