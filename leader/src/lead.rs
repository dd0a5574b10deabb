//! Leads a run: creates the segment, starts workers, opens the phases.
//!
//! ```text
//! create -> launch -> [ wait: a worker idle, a worker dead, a signal, a second gone ] -> all units settled: open the drain
//! resumed ----^       [ the same                                                    ] -> all stripes settled: finished -> reap
//! ```
//!
//! Only the leader opens phases and recovers (I1): [`crate::watch`] sees deaths, [`crate::recover`] repairs. A resumed run begins in the phase that the
//! segment is in. Whatever is done between two phases depends on settled units alone, so that doing it again comes to the same bytes.

use crate::console::Console;
use crate::dense::write::Writer;
use crate::failure::Failure;
use crate::launch::{Launcher, cannot_execute, find_binary, no_room};
use crate::limits;
use crate::page::record::{EVERY, Record};
use crate::plan::{Plan, WorkerRule};
use crate::recover::recover;
use crate::signals::Signals;
use crate::totals::{ScanTotals, conserve, settle_left_out};
use crate::watch::Watched;
use kmer_worker::drain::StripeSummary;
use kmer_worker::feed::Feeder;
use kmer_worker::shared::{DrainOrder, Given, Shared};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_layout::inject::{Point, at};
use shm_layout::planted;
use shm_layout::segment::Segment;
use shm_layout::state::Phase;
use shm_layout::takeover::sweep;
use shm_layout::words::SlotState;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long a leader waits between two looks at whether a parcel is wanted or there.
pub(crate) const PARCEL_WAIT: Duration = Duration::from_millis(1);
/// The same for a stripe that is to be written.
const STRIPE_WAIT: Duration = Duration::from_millis(5);
/// Stripes that are written between two looks at the workers.
const STRIPES_AT_A_TIME: u32 = 16;
/// How long the end of a run waits for workers that have not attached yet.
const LATE: Duration = Duration::from_secs(1);

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
    /// What was noted for a page about the run, if one is wanted.
    pub record: Option<Record>,
}

/// Runs `plan` up to the published stripes, or goes on with it in a segment that was taken over. A `dense` file follows the drain.
///
/// # Errors
/// Everything that ends a run without a result; workers are gone then and the segment is removed.
pub fn lead(
    plan: &Plan,
    resumed: Option<Shared>,
    signals: &Signals,
    console: &mut Console,
    dense: Option<&mut Writer>,
) -> Result<Outcome, Failure> {
    if plan.workers.workers > 0 {
        find_binary()?;
    }
    let mut swept = sweep(None, false).unwrap_or_default();
    if let Some(dir) = plan.room.dir.as_deref() {
        swept.extend(sweep(Some(dir), false).unwrap_or_default());
    }
    for name in swept {
        console.tell(&format!("removed shared-memory segment \"{name}\" of a run that was killed"));
    }
    let shared = match resumed {
        Some(shared) => shared,
        None => create(plan, &[])?,
    };
    let resumable = shared.segment.is_resumable()?;
    let mut leader = Leader::new(&shared, plan, signals, console)?;
    leader.record = plan.page.then(|| Record::begin(&shared));
    leader.dense = dense;
    let killed_before = limits::oom_kills();
    let result = leader.run(plan);
    leader.stop(result.is_ok(), resumable);
    let (launched, deaths, respawns) = (leader.launched, leader.deaths, leader.respawns);
    let mut record = leader.record;
    let (scan, drain, threshold, seconds) = result.map_err(|e| with_cause(e, killed_before))?;
    if let Some(record) = &mut record {
        record.end(&shared)?;
    }
    plan.source.leaves.check_unchanged()?;
    Ok(Outcome { shared, scan, drain, threshold, launched, deaths, respawns, seconds, record })
}

/// Workers that were killed because memory ran out say so by nothing but SIGKILL; the control group knows.
fn with_cause(failure: Failure, killed_before: Option<u64>) -> Failure {
    let killed = limits::oom_kills().unwrap_or(0).saturating_sub(killed_before.unwrap_or(0));
    if killed == 0 || !matches!(failure, Failure::Lost(_)) {
        return failure;
    }
    failure.hint(format!(
        "memory ran out in the control group, and the kernel killed {killed} processes there: allow more, or work with fewer processes (-j)"
    ))
}

/// Creates the segment of a run, or of a pass that others went before: `carried` is what they came to.
///
/// # Errors
/// No room.
pub fn create(plan: &Plan, carried: &[u8]) -> Result<Shared, Failure> {
    let given = Given { toast_index: &plan.source.leaves.toast_index, command: &plan.command, carried };
    let shared = Shared::create(plan.room.dir.as_deref(), plan.job.clone(), &plan.sizes, &given)?;
    if plan.resumable {
        shared.segment.mark_resumable()?;
        shared.segment.set_removes(false);
    }
    Ok(shared)
}

/// A run being led.
pub(crate) struct Leader<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) rule: WorkerRule,
    pub(crate) launcher: Option<Launcher>,
    pub(crate) running: Vec<Watched>,
    /// When it last looked for workers that make no progress.
    pub(crate) looked: Instant,
    pub(crate) signals: &'a Signals,
    pub(crate) console: &'a mut Console,
    launched: u16,
    pub(crate) deaths: u32,
    pub(crate) respawns: u32,
    pub(crate) false_starts: u32,
    /// A feeder has fed everything.
    pub(crate) feeder_done: bool,
    pub(crate) own_feeder: Option<Feeder<'a>>,
    pub(crate) record: Option<Record>,
    dense: Option<&'a mut Writer>,
}

impl<'a> Leader<'a> {
    fn new(
        shared: &'a Shared,
        plan: &Plan,
        signals: &'a Signals,
        console: &'a mut Console,
    ) -> Result<Self, Failure> {
        let mut rule = plan.workers;
        // A segment that was taken over has the slots that it has; the last one is the leader's own.
        let others = 1 + usize::from(shared.job.stream.is_some());
        rule.workers = rule.workers.min((shared.slots.len() - others) as u16);
        if rule.workers > 0 {
            shared.segment.map().read_file();
        }
        let stdin = shared.job.reads_stdin();
        let launcher = if rule.workers > 0 || stdin {
            let name = shared.segment.name();
            let launcher = Launcher::new(name, shared.segment.is_resumable()?, plan.debug.inject.clone())?;
            Some(launcher.with_feeder(shared.feeder_slot(), stdin)?)
        } else {
            None
        };
        let (launched, deaths, respawns, false_starts) = (0, 0, 0, 0);
        Ok(Self {
            shared,
            rule,
            launcher,
            running: Vec::new(),
            looked: Instant::now(),
            signals,
            console,
            launched,
            deaths,
            respawns,
            false_starts,
            feeder_done: false,
            own_feeder: None,
            record: None,
            dense: None,
        })
    }

    fn run(&mut self, plan: &Plan) -> Result<(ScanTotals, StripeSummary, u64, (f64, f64)), Failure> {
        let (start, state) = (Instant::now(), &self.shared.state);
        let phase = state.phase()?;
        if phase == Phase::Scan {
            self.leave_out(&plan.left_out)?;
        }
        if phase < Phase::Finished {
            self.launch_all()?;
        }
        if phase == Phase::Scan {
            self.launch_feeder()?;
            self.until_settled(Phase::Scan)?;
        }
        at(Point::CollectBegin)?;
        let mut scan = ScanTotals::collect(self.shared)?;
        self.check_poison(&scan, &plan.left_out)?;
        scan.check_blocks(&self.shared.job)?;
        scan.check_text(&self.shared.job)?;
        let threshold = plan.threshold(scan.sums.rows);
        let scanned = start.elapsed();
        let drainers = self.shared.worker_slots()?;
        let order = scan.drain_order(threshold, plan.keeps_all(threshold), drainers)?;
        if phase == Phase::Scan {
            at(Point::CollectEnd)?;
            self.shared.set_drain_order(&order)?;
            at(Point::OrderWritten)?;
            state.open_phase(Phase::Drain)?;
            at(Point::DrainOpened)?;
            if let Some(record) = &mut self.record {
                record.drain();
            }
        } else {
            self.check_order(&order)?;
        }
        if let Some(dense) = &mut self.dense {
            dense.begin(plan, &order.order)?;
        }
        if phase < Phase::Finished {
            // Only now: before the drain is open, units that were given up may come back and bring stripes over the threshold.
            self.settle_left_out(&order)?;
            self.until_settled(Phase::Drain)?;
            self.check_stripes()?;
        }
        at(Point::DrainSettled)?;
        let drain = conserve(self.shared, &scan, &order)?;
        if !self.shared.segment.is_resumable()? && self.all_started()? {
            // Nobody attaches any more. While workers are there they would remove the name if the leader died here; behind the next line they go.
            Segment::destroy(self.shared.segment.name())?;
        }
        state.open_phase(Phase::Finished)?;
        at(Point::Finished)?;
        Ok((scan, drain, threshold, (scanned.as_secs_f64(), (start.elapsed() - scanned).as_secs_f64())))
    }

    /// Waits a moment for workers that are still on their way: a small job may be done before they come. False when one is not there then.
    fn all_started(&self) -> Result<bool, Failure> {
        let end = Instant::now() + LATE;
        for worker in &self.running {
            let slot = worker.process.owner.slot;
            while self.shared.slots.look(slot)?.state == SlotState::Starting
                && worker.process.ended().is_none()
            {
                if Instant::now() > end {
                    return Ok(false);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(true)
    }

    /// Settles the stripes that need no drain, in the leader's own slot.
    fn settle_left_out(&self, order: &DrainOrder) -> Result<(), Failure> {
        let owner = self.shared.slots.start((self.shared.slots.len() - 1) as u16)?;
        self.shared.slots.change(owner, SlotState::Starting, SlotState::Running)?;
        settle_left_out(self.shared, order, owner)?;
        self.shared.slots.change(owner, SlotState::Running, SlotState::Done)?;
        Ok(())
    }

    /// Starts the workers that were asked for, or as many as the system allows.
    fn launch_all(&mut self) -> Result<(), Failure> {
        for slot in 0..self.rule.workers {
            if let Some(why) = self.launch(slot, false)? {
                let (asked, got) = (self.rule.workers, self.running.len());
                self.console.tell(&format!("could start only {got} of {asked} workers: {why}"));
                break;
            }
            self.launched += 1;
        }
        Ok(())
    }

    /// Starts a worker in `slot`. Gives the reason if the system has no room for another process now; what will never work is an error.
    pub(crate) fn launch(&mut self, slot: u16, replacement: bool) -> Result<Option<String>, Failure> {
        let Some(launcher) = &self.launcher else { return Ok(Some("no workers were asked for".into())) };
        let owner = self.shared.slots.start(slot)?;
        at(Point::LaunchSlot)?;
        match launcher.launch(owner, replacement) {
            Ok(process) => {
                self.running.push(Watched::new(process));
                if Some(slot) != self.shared.feeder_slot() {
                    self.shared.state.count_launch()?;
                }
                at(Point::LaunchSpawned)?;
                Ok(None)
            }
            Err(e) => {
                // It may have been a worker for a moment, and have claimed something.
                recover(self.shared, owner)?;
                if no_room(&e) { Ok(Some(e.to_string())) } else { Err(cannot_execute(launcher.binary(), &e)) }
            }
        }
    }

    /// Waits until every task of the phase is settled, and does what has to be done meanwhile.
    fn until_settled(&mut self, phase: Phase) -> Result<(), Failure> {
        loop {
            self.console.look(self.shared);
            if let Some(record) = &mut self.record {
                record.look(self.shared);
            }
            let tasks = if phase == Phase::Scan { &self.shared.units } else { &self.shared.stripes };
            let mut settled = tasks.all_settled()?;
            if planted::is("hint-is-truth") && phase == Phase::Scan {
                settled = self.shared.state.next_block()? >= self.shared.state.total_blocks()?;
            }
            self.check_error()?;
            if settled {
                return Ok(());
            }
            if self.are_all_lost() {
                let before = tasks.settled()?;
                self.work_alone(phase)?;
                // A feeder that ended keeps the leader from its work until it is buried: that is what was done in this round.
                let buried = self.bury()?;
                self.look_for_hung()?;
                let is_fed_by = self.feeder().is_some_and(|feeder| !feeder.is_lost());
                if tasks.settled()? == before && buried == 0 && !is_fed_by && !self.must_feed(phase)? {
                    let text = format!(
                        "phase {phase:?}: {before} of {} tasks are settled, and none is free",
                        tasks.len()
                    );
                    return Err(Failure::error(text));
                }
                continue;
            }
            at(Point::LeaderWait)?;
            let feeds = self.must_feed(phase)?;
            let did_something = if feeds { self.feed()? } else { self.write_on(phase)? };
            if !did_something {
                self.wait(self.pause(feeds))?;
            }
            if let Some(signal) = self.signals.caught() {
                return Err(Failure::Signal(signal));
            }
            self.bury()?;
            self.shared.state.count_look()?;
            self.look_for_hung()?;
        }
    }

    /// Writes some stripes that were drained to the dense file; false when there is none.
    fn write_on(&mut self, phase: Phase) -> Result<bool, Failure> {
        let Some(dense) = self.dense.as_mut().filter(|dense| phase == Phase::Drain && dense.follows()) else {
            return Ok(false);
        };
        let mut written = 0;
        while written < STRIPES_AT_A_TIME && dense.step(self.shared)? {
            written += 1;
        }
        Ok(written > 0)
    }

    /// How long the leader may sleep at most where nobody wakes it.
    fn pause(&self, feeds: bool) -> Duration {
        match &self.dense {
            _ if feeds => PARCEL_WAIT,
            Some(dense) if dense.follows() => STRIPE_WAIT,
            _ => Duration::MAX,
        }
    }

    pub(crate) fn check_error(&self) -> Result<(), Failure> {
        match self.shared.state.error()? {
            Some(error) => Err(Failure::from_report(&error.message)),
            None => Ok(()),
        }
    }

    /// Sleeps until a worker is idle or dead, a signal comes, or a second has passed, or `longest`.
    fn wait(&self, longest: Duration) -> Result<(), Failure> {
        let Some(launcher) = &self.launcher else { return Ok(()) };
        let mut fds = vec![PollFd::new(self.signals.descriptor.as_fd(), PollFlags::POLLIN)];
        fds.push(PollFd::new(launcher.lines.ear(), PollFlags::POLLIN));
        fds.extend(self.running.iter().map(|w| PollFd::new(w.process.pidfd(), PollFlags::POLLIN)));
        let limit = self.rule.timeout.as_millis() / 4;
        let limit = if limit == 0 { 1000 } else { limit.min(1000) as u16 };
        let limit = if self.record.is_some() { limit.min(EVERY.as_millis() as u16) } else { limit };
        let limit = limit.min(self.console.pause().as_millis().max(1).try_into().unwrap_or(limit));
        let limit = limit.min(longest.as_millis().max(1).try_into().unwrap_or(limit));
        match poll(&mut fds, PollTimeout::from(limit)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(Failure::error(format!("could not wait for workers: {e}"))),
        }
        launcher.lines.listen();
        Ok(())
    }
}
