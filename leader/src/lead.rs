//! Leads a run: creates the segment, starts workers, watches them, recovers from their deaths, opens the phases.
//!
//! ```text
//! create -> launch -> [ wait: a worker idle, a worker dead, a signal, a second gone ] -> all units settled: open the drain
//!                     [ the same                                                    ] -> all stripes settled: finished -> reap
//! ```
//!
//! Only this module opens phases and recovers (I1). A worker's death is confirmed by waitid on its pidfd before its chunks are freed, and it
//! is reaped after that, so its process id cannot be somebody else's meanwhile. Recovery is compare-and-swaps from exact words and a sweep:
//! done twice, it changes nothing (I5).

use crate::cli::OnWorkerDeath;
use crate::failure::Failure;
use crate::launch::{End, Launcher, Running, cannot_execute, find_binary, no_room};
use crate::plan::{Plan, WorkerRule};
use crate::totals::{ScanTotals, conserve};
use kmer_worker::drain::StripeSummary;
use kmer_worker::engine::{Surroundings, Worker};
use kmer_worker::shared::Shared;
use kmer_worker::{EXIT_FENCED, EXIT_NO_ATTACH};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use shm_layout::arena::Chain;
use shm_layout::slots::Figure;
use shm_layout::state::Phase;
use shm_layout::words::{Owner, SlotState, Task};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long workers get to leave by themselves after the end.
const GRACE: Duration = Duration::from_secs(2);
/// Workers that may end without having attached before the run is given up.
const FALSE_STARTS: u32 = 3;

/// What a run came to; its result lies in the segment still.
pub struct Outcome {
    /// The segment.
    pub shared: Shared,
    /// Sums over units.
    pub scan: ScanTotals,
    /// Sums over stripes.
    pub drain: StripeSummary,
    /// k-mers in more rows than this were kept.
    pub threshold: u64,
    /// Workers that were started at first.
    pub launched: u16,
    /// Workers that died and were recovered from.
    pub deaths: u32,
    /// Replacements that were started.
    pub respawns: u32,
    /// Seconds of the scan and of the drain.
    pub seconds: (f64, f64),
}

/// The signals by which users end a run, caught by a file descriptor.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks SIGINT, SIGTERM and SIGHUP and catches them; SIGCHLD gets its default back, in case it was ignored by whoever started us.
    ///
    /// # Errors
    /// When there are no file descriptors left.
    #[allow(clippy::missing_panics_doc, reason = "does not panic")]
    pub fn catch() -> Result<Self, Failure> {
        let failed = |e: nix::Error| Failure::error(format!("could not catch signals: {e}"));
        shm_layout::process::default_sigchld()
            .map_err(|e| Failure::error(format!("could not catch signals: {e}")))?;
        let mut set = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].iter().for_each(|s| set.add(*s));
        set.thread_block().map_err(failed)?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self).map_err(failed)
    }

    /// The signal that came, if one did.
    pub fn caught(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok()??;
        Signal::try_from(info.ssi_signo as i32).ok()
    }
}

/// Runs `plan` up to the published stripes.
///
/// # Errors
/// Everything that ends a run without a result; workers are gone then and the segment is removed.
pub fn lead(plan: &Plan, signals: &Signals, say: &mut dyn FnMut(&str)) -> Result<Outcome, Failure> {
    if plan.workers.workers > 0 {
        find_binary()?;
    }
    let swept = shm_layout::segment::sweep().unwrap_or_default();
    for name in &swept {
        say(&format!("removed shared-memory segment \"{name}\" of a run that was killed"));
    }
    let toast = plan.toast.as_ref().map(|(_, index)| index.as_slice());
    let shared = Shared::create(plan.job.clone(), &plan.sizes, toast)?;
    let mut leader = Leader::new(&shared, plan.workers, signals, say)?;
    let result = leader.run(plan);
    leader.stop(result.is_ok());
    let (launched, deaths, respawns) = (leader.launched, leader.deaths, leader.respawns);
    let (scan, drain, threshold, seconds) = result?;
    plan.relation.check_unchanged()?;
    if let Some((toast, _)) = &plan.toast {
        toast.check_unchanged()?;
    }
    Ok(Outcome { shared, scan, drain, threshold, launched, deaths, respawns, seconds })
}

struct Watched {
    process: Running,
    progress: u64,
    since: Instant,
}

struct Leader<'a> {
    shared: &'a Shared,
    rule: WorkerRule,
    launcher: Option<Launcher>,
    running: Vec<Watched>,
    signals: &'a Signals,
    say: &'a mut dyn FnMut(&str),
    launched: u16,
    deaths: u32,
    respawns: u32,
    false_starts: u32,
}

struct Alone<'a>(&'a Signals, Option<Signal>);

impl Surroundings for Alone<'_> {
    fn idle(&mut self) {}
    fn leave_if_orphaned(&mut self) {
        self.1 = self.1.or_else(|| self.0.caught());
    }
}

impl<'a> Leader<'a> {
    fn new(
        shared: &'a Shared,
        rule: WorkerRule,
        signals: &'a Signals,
        say: &'a mut dyn FnMut(&str),
    ) -> Result<Self, Failure> {
        let launcher = if rule.workers > 0 { Some(Launcher::new(shared.segment.name())?) } else { None };
        let (launched, deaths, respawns, false_starts) = (0, 0, 0, 0);
        Ok(Self {
            shared,
            rule,
            launcher,
            running: Vec::new(),
            signals,
            say,
            launched,
            deaths,
            respawns,
            false_starts,
        })
    }

    fn run(&mut self, plan: &Plan) -> Result<(ScanTotals, StripeSummary, u64, (f64, f64)), Failure> {
        let start = Instant::now();
        self.launch_all()?;
        self.until_settled(Phase::Scan)?;
        let scan = ScanTotals::collect(self.shared)?;
        self.check_poison(&scan)?;
        let threshold = plan.rule.threshold(scan.sums.rows);
        self.shared.set_drain_order(&scan.drain_order(threshold, plan.all)?)?;
        let scanned = start.elapsed();
        self.shared.state.open_phase(Phase::Drain)?;
        self.until_settled(Phase::Drain)?;
        let drain = conserve(self.shared, &scan)?;
        self.shared.state.open_phase(Phase::Finished)?;
        Ok((scan, drain, threshold, (scanned.as_secs_f64(), (start.elapsed() - scanned).as_secs_f64())))
    }

    /// Starts the workers that were asked for, or as many as the system allows.
    fn launch_all(&mut self) -> Result<(), Failure> {
        for slot in 0..self.rule.workers {
            if let Some(why) = self.launch(slot)? {
                let (asked, got) = (self.rule.workers, self.running.len());
                (self.say)(&format!("could start only {got} of {asked} workers: {why}"));
                break;
            }
            self.launched += 1;
        }
        Ok(())
    }

    /// Starts a worker in `slot`. Gives the reason if the system has no room for another process now; what will never work is an error.
    fn launch(&mut self, slot: u16) -> Result<Option<String>, Failure> {
        let Some(launcher) = &self.launcher else { return Ok(Some("no workers were asked for".into())) };
        let owner = self.shared.slots.start(slot)?;
        match launcher.launch(owner) {
            Ok(process) => {
                self.shared.state.count_launch()?;
                self.running.push(Watched { process, progress: 0, since: Instant::now() });
                Ok(None)
            }
            Err(e) => {
                self.shared.slots.set_ended(owner, SlotState::Dead)?;
                if no_room(&e) { Ok(Some(e.to_string())) } else { Err(cannot_execute(launcher.binary(), &e)) }
            }
        }
    }

    /// Waits until every task of the phase is settled, and does what has to be done meanwhile.
    fn until_settled(&mut self, phase: Phase) -> Result<(), Failure> {
        loop {
            let tasks = if phase == Phase::Scan { &self.shared.units } else { &self.shared.stripes };
            let settled = tasks.all_settled()?;
            self.check_error()?;
            if settled {
                return Ok(());
            }
            if self.running.is_empty() {
                self.work_alone(phase)?;
                continue;
            }
            self.wait()?;
            if let Some(signal) = self.signals.caught() {
                return Err(Failure::Signal(signal));
            }
            self.bury()?;
            self.look_for_hung();
        }
    }

    fn check_error(&self) -> Result<(), Failure> {
        match self.shared.state.error()? {
            Some(error) => Err(Failure::from_report(&error.message)),
            None => Ok(()),
        }
    }

    /// Sleeps until a worker is idle or dead, a signal comes, or a second has passed.
    fn wait(&self) -> Result<(), Failure> {
        let Some(launcher) = &self.launcher else { return Ok(()) };
        let mut fds = vec![PollFd::new(self.signals.0.as_fd(), PollFlags::POLLIN)];
        fds.push(PollFd::new(launcher.lines.ear(), PollFlags::POLLIN));
        fds.extend(self.running.iter().map(|w| PollFd::new(w.process.pidfd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::from(1000u16)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(Failure::error(format!("could not wait for workers: {e}"))),
        }
        launcher.lines.listen();
        Ok(())
    }

    /// Recovers from every worker that has ended, reaps it, and replaces it if that is the rule.
    fn bury(&mut self) -> Result<(), Failure> {
        let mut at = 0;
        while at < self.running.len() {
            let Some(end) = self.running[at].process.ended() else {
                at += 1;
                continue;
            };
            let dead = self.running.swap_remove(at).process;
            let owner = dead.owner;
            let state = self.shared.slots.look(owner.slot)?.state;
            self.recover(owner)?;
            self.shared.slots.set_ended(owner, SlotState::Dead)?;
            dead.reap();
            self.after_death(owner, end, state)?;
        }
        Ok(())
    }

    /// Takes back whatever `dead` had claimed, and frees the chunks that only it knew. Its death is confirmed.
    fn recover(&self, dead: Owner) -> Result<(), Failure> {
        let limit = self.shared.job.max_attempts;
        let mut changed = self.shared.units.recover(dead, limit)?;
        changed.extend(self.shared.stripes.recover(dead, limit)?);
        let mut reachable: Vec<Chain> = Vec::new();
        for tasks in [&self.shared.units, &self.shared.stripes] {
            for task in 0..tasks.len() {
                if let Task::Done { head, .. } = tasks.look(task)? {
                    reachable.push(self.shared.arena.open(head)?);
                }
            }
        }
        self.shared.arena.sweep(dead, &reachable)?;
        Ok(())
    }

    fn after_death(&mut self, owner: Owner, end: End, state: SlotState) -> Result<(), Failure> {
        // What it could not say through the shared state it may have said in its slot.
        self.check_error()?;
        if end == End::Exit(0) && state == SlotState::Done {
            return Ok(());
        }
        if let (End::Exit(1), Some(words)) = (end, self.shared.slots.last_words(owner.slot)?) {
            return Err(Failure::from_report(&words));
        }
        if state == SlotState::Starting {
            self.false_start(end)?;
        }
        self.deaths += 1;
        if end != End::Exit(EXIT_FENCED) {
            (self.say)(&format!("worker {} ended too early ({end}); its work is done again", owner.slot));
        }
        match self.rule.on_death {
            OnWorkerDeath::Abort => Err(Failure::lost(format!("worker {}: {end}", owner.slot))),
            OnWorkerDeath::Degrade => Ok(()),
            OnWorkerDeath::Respawn if self.respawns < self.rule.max_respawns => {
                self.respawns += 1;
                if let Some(why) = self.launch(owner.slot)? {
                    (self.say)(&format!("could not start a worker in place of worker {}: {why}", owner.slot));
                }
                Ok(())
            }
            OnWorkerDeath::Respawn if self.running.is_empty() => {
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
        self.false_starts += 1;
        let killed = matches!(end, End::Killed(Signal::SIGKILL));
        if end != End::Exit(EXIT_NO_ATTACH) && (killed || self.false_starts < FALSE_STARTS) {
            return Ok(());
        }
        let binary = self.launcher.as_ref().map(|l| l.binary().to_path_buf()).unwrap_or_default();
        Err(Failure::error(format!("worker {binary:?} failed to initialise: {end}"))
            .hint("kmer-leader and kmer-worker must be of one version"))
    }

    /// Kills workers that make no progress. Their death is seen and treated as any other.
    fn look_for_hung(&mut self) {
        let limit = Duration::from_secs(self.rule.timeout);
        for worker in &mut self.running {
            let progress = self.shared.slots.get(worker.process.owner.slot, Figure::Progress).unwrap_or(0);
            if progress != worker.progress {
                (worker.progress, worker.since) = (progress, Instant::now());
            } else if !limit.is_zero() && worker.since.elapsed() > limit {
                let slot = worker.process.owner.slot;
                (self.say)(&format!(
                    "worker {slot} made no progress for {} s and is killed",
                    limit.as_secs()
                ));
                worker.since = Instant::now();
                worker.process.kill();
            }
        }
    }

    /// The leader does what is left of the phase itself, in the slot behind the workers'.
    fn work_alone(&mut self, phase: Phase) -> Result<(), Failure> {
        let owner = self.shared.slots.start(self.rule.workers)?;
        self.shared.slots.change(owner, SlotState::Starting, SlotState::Running)?;
        let mut alone = Alone(self.signals, None);
        let mut worker = Worker::new(self.shared, owner);
        let done = match phase {
            Phase::Scan => worker.scan_all(&mut alone),
            _ => worker.drain_all(&mut alone),
        };
        self.shared.slots.change(owner, SlotState::Running, SlotState::Done)?;
        match alone.1 {
            Some(signal) => Err(Failure::Signal(signal)),
            None => Ok(done?),
        }
    }

    /// Units that were given up end the run, unless damage is to be skipped.
    fn check_poison(&self, scan: &ScanTotals) -> Result<(), Failure> {
        let Some(unit) = scan.poisoned.first() else { return Ok(()) };
        let text = describe_poison(self.shared, *unit)?;
        if self.shared.job.skip_damaged { Ok(()) } else { Err(Failure::lost(text)) }
    }

    /// Ends all workers: those that finish by themselves get a moment, the others are killed.
    fn stop(&mut self, finished: bool) {
        if !finished {
            let _ = self.shared.state.open_phase(Phase::Aborted);
        }
        let end = Instant::now() + GRACE;
        for worker in std::mem::take(&mut self.running) {
            let mut fds = [PollFd::new(worker.process.pidfd(), PollFlags::POLLIN)];
            let left = end.saturating_duration_since(Instant::now()).as_millis() as u16;
            let gone = matches!(poll(&mut fds, PollTimeout::from(left)), Ok(n) if n > 0);
            if !gone {
                worker.process.kill();
            }
            worker.process.reap();
        }
    }
}

/// Names the blocks of a unit that killed its workers.
///
/// # Errors
/// None for a sound segment.
pub fn describe_poison(shared: &Shared, unit: usize) -> Result<String, Failure> {
    let (first, count) = shared.unit_blocks(unit)?;
    let (path, last) = (shared.job.relation_path(), (first + count).saturating_sub(1));
    let attempts = shared.job.max_attempts;
    Ok(format!("relation {path:?}: blocks {first} to {last}: {attempts} workers died on them"))
}
