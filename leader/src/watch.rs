//! Watches workers: sees their death, recovers, replaces them; sees that one is stopped or hangs, and ends it.
//!
//! | what is seen | how | what follows |
//! |---|---|---|
//! | it ended | its pidfd, waitid without reaping | recovery, then it is reaped: its process id cannot be another's meanwhile |
//! | it is stopped | waitid | it is said; it may go on any time |
//! | its progress counter stands still for the time limit | every second | fenced, its claims are taken back, SIGKILL; its chunks stay its own until its death is seen |
//! | it does not die | | the run ends without it; its chunks are never used again |

use crate::cli::OnWorkerDeath;
use crate::failure::Failure;
use crate::launch::{End, Running};
use crate::lead::Leader;
use crate::recover::{recover, take_claims};
use kmer_worker::{EXIT_FENCED, EXIT_NO_ATTACH};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use shm_layout::inject::{Point, at};
use shm_layout::planted;
use shm_layout::process::EXIT_BUS_ERROR;
use shm_layout::slots::Figure;
use shm_layout::state::Phase;
use shm_layout::words::{Owner, SlotState};
use std::time::{Duration, Instant};

/// How long workers get to leave by themselves after the end, and to die after a SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// How long they get when the run is given up: they lose nothing by being killed, and one that waits for its input does not hear that it should leave.
const SHORT_GRACE: Duration = Duration::from_millis(200);
/// A leader that did not look for so long was stopped itself, and perhaps everybody with it (a container that is frozen): it cannot tell who stood still.
const ABSENCE: Duration = Duration::from_secs(2);
/// Workers that may end without having attached before the run is given up.
const FALSE_STARTS: u32 = 3;

/// A worker process and what was last seen of it.
pub struct Watched {
    /// The process.
    pub process: Running,
    progress: u64,
    since: Instant,
    /// When it was fenced and killed, if it was.
    given_up: Option<Instant>,
}

impl Watched {
    /// A worker that was started just now.
    pub fn new(process: Running) -> Self {
        Self { process, progress: 0, since: Instant::now(), given_up: None }
    }

    /// True when nothing can be expected of it any more: it was killed and does not die.
    pub fn is_lost(&self) -> bool {
        self.given_up.is_some_and(|since| since.elapsed() > GRACE)
    }
}

impl Leader<'_> {
    /// Recovers from every worker that has ended, reaps it, and replaces it if that is the rule. Gives how many there were.
    pub(crate) fn bury(&mut self) -> Result<usize, Failure> {
        let (mut place, mut buried) = (0, 0);
        while place < self.running.len() {
            let Some(end) = self.running[place].process.ended() else {
                place += 1;
                continue;
            };
            let dead = self.running.swap_remove(place).process;
            let owner = dead.owner;
            let state = self.shared.slots.look(owner.slot)?.state;
            recover(self.shared, owner)?;
            dead.reap();
            at(Point::RecoverReaped)?;
            self.after_death(owner, end, state)?;
            buried += 1;
        }
        Ok(buried)
    }

    fn after_death(&mut self, owner: Owner, end: End, state: SlotState) -> Result<(), Failure> {
        // What it could not say through the shared state it may have said in its slot.
        self.check_error()?;
        if end == End::Exit(0) && state == SlotState::Done {
            self.feeder_done |= Some(owner.slot) == self.shared.feeder_slot();
            return Ok(());
        }
        // What was given up may have met its own end: others do its work, and meet again what is wrong.
        if state != SlotState::Fenced {
            if let (End::Exit(1), Some(words)) = (end, self.shared.slots.last_words(owner.slot)?) {
                return Err(Failure::from_report(&words));
            }
            if end == End::Exit(EXIT_BUS_ERROR) {
                return Err(self.bus_error(owner.slot)?);
            }
        }
        if state == SlotState::Starting {
            self.false_start(end)?;
        }
        let is_feeder = Some(owner.slot) == self.shared.feeder_slot();
        if is_feeder {
            self.after_feeder(end)?;
        }
        let is_needed = !is_feeder || !(self.feeder_done || self.own_feeder.is_some());
        self.deaths += 1;
        if let Some(record) = &mut self.record {
            record.death(owner.slot, end.to_string());
        }
        if end != End::Exit(EXIT_FENCED) {
            let after = if is_needed { "its work is done again" } else { "its work is not needed any more" };
            self.console.tell(&format!("worker {} ended too early ({end}); {after}", owner.slot));
        }
        match self.rule.on_death {
            OnWorkerDeath::Abort => Err(Failure::lost(format!("worker {}: {end}", owner.slot))),
            OnWorkerDeath::Degrade => Ok(()),
            OnWorkerDeath::Respawn if !is_needed => Ok(()),
            OnWorkerDeath::Respawn if self.respawns < self.rule.max_respawns => {
                self.respawns += 1;
                if let Some(why) = self.launch(owner.slot, true)? {
                    self.console
                        .tell(&format!("could not start a worker in place of worker {}: {why}", owner.slot));
                }
                Ok(())
            }
            OnWorkerDeath::Respawn if self.running.is_empty() && !self.must_feed(Phase::Scan)? => {
                let text = format!(
                    "workers: expected at most {} to be replaced, found one more dead",
                    self.rule.max_respawns
                );
                Err(Failure::lost(text).hint("allow more with --max-respawns, or look why they die"))
            }
            OnWorkerDeath::Respawn => Ok(()),
        }
    }

    /// A worker that ended before it attached says that something is wrong with all of them.
    fn false_start(&mut self, end: End) -> Result<(), Failure> {
        // Whoever is killed from outside says nothing of the others.
        if matches!(end, End::Killed(Signal::SIGKILL)) {
            return Ok(());
        }
        self.false_starts += 1;
        if end != End::Exit(EXIT_NO_ATTACH) && self.false_starts < FALSE_STARTS {
            return Ok(());
        }
        let binary = self.launcher.as_ref().map(|l| l.binary().to_path_buf()).unwrap_or_default();
        Err(Failure::error(format!("worker {binary:?} failed to initialise: {end}"))
            .hint("kmer-leader and kmer-worker must be of one version"))
    }

    /// A worker touched memory with nothing behind it.
    fn bus_error(&self, slot: u16) -> Result<Failure, Failure> {
        let job = &self.shared.job;
        let text = match self.shared.slots.get(slot, Figure::Block)? {
            block if block > 0 && job.mapped => format!(
                "{}: expected to read it through the mapping, found nothing behind it (bus error)",
                job.describe_blocks(block - 1, 1)
            ),
            _ => format!("worker {slot}: memory had nothing behind it (bus error)"),
        };
        Ok(Failure::error(text)
            .hint("the file was truncated or its disk failed: --read-method pread says which"))
    }

    /// Says which workers are stopped, and ends those that make no progress.
    pub(crate) fn look_for_hung(&mut self) -> Result<(), Failure> {
        let limit = self.rule.timeout;
        let missed = std::mem::replace(&mut self.looked, Instant::now()).elapsed();
        if missed > ABSENCE {
            self.running.iter_mut().for_each(|worker| worker.since = Instant::now());
        }
        for place in 0..self.running.len() {
            let worker = &mut self.running[place];
            let owner = worker.process.owner;
            if worker.process.was_stopped() {
                self.console.tell(&format!("worker {} is stopped", owner.slot));
            }
            let progress = self.shared.slots.get(owner.slot, Figure::Progress)?;
            if progress != worker.progress {
                (worker.progress, worker.since) = (progress, Instant::now());
            } else if !limit.is_zero() && worker.since.elapsed() > limit && worker.given_up.is_none() {
                worker.given_up = Some(Instant::now());
                let seconds = limit.as_secs_f64();
                self.console
                    .tell(&format!("worker {} made no progress for {seconds} s and is killed", owner.slot));
                self.give_up(place)?;
            }
        }
        Ok(())
    }

    /// Fences a worker, takes its claims back, and kills it. Others can go on with its work at once; its chunks are freed when its death is seen.
    fn give_up(&mut self, place: usize) -> Result<(), Failure> {
        let is_killed = at(Point::LeaderHung).is_ok();
        let owner = self.running[place].process.owner;
        for from in [SlotState::Starting, SlotState::Running] {
            self.shared.slots.change(owner, from, SlotState::Fenced)?;
        }
        at(Point::LeaderFenced)?;
        take_claims(self.shared, owner)?;
        if planted::is("chunks-freed-on-suspicion") {
            recover(self.shared, owner)?;
        }
        if is_killed {
            self.running[place].process.kill();
        }
        Ok(())
    }

    /// Ends all workers. Those of a run that has finished or failed get a moment to leave by themselves; those of a run that another leader
    /// may go on with are killed, since everything they committed is there.
    pub(crate) fn stop(&mut self, finished: bool, resumable: bool) {
        if !finished && !resumable {
            let _ = self.shared.state.open_phase(Phase::Aborted);
        }
        let end = Instant::now() + if finished { GRACE } else { SHORT_GRACE };
        // All are waited for at the same time, and those that are killed as well.
        let workers = std::mem::take(&mut self.running);
        for worker in &workers {
            if (!finished && resumable) || !worker.process.ends_until(end) {
                worker.process.kill();
            }
        }
        let end = Instant::now() + GRACE;
        for worker in workers {
            if worker.process.ends_until(end) {
                worker.process.reap();
            } else {
                let slot = worker.process.owner.slot;
                self.console.tell(&format!("worker {slot} (process {}) does not die", worker.process.pid()));
            }
        }
    }
}

impl Running {
    /// Waits for its end, but not longer than until `end`.
    fn ends_until(&self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now()).as_millis() as u16;
        let mut fds = [PollFd::new(self.pidfd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::from(left)), Ok(n) if n > 0)
    }
}
