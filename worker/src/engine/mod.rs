//! The worker's loop: claim, work, commit, and wait for the leader when there is nothing to claim.
//!
//! ```text
//! phase Scan    claim a unit   -> scan it, store it      -> commit, or free it when fenced
//!               claim units    -> scan all, store one result -> commit them as a bundle, where units are summed
//! phase Drain   claim a stripe -> count it, store its table -> commit, or free it when fenced
//! phase Finished, Aborted      -> leave
//! ```
//!
//! A worker that finds nothing to claim tells the leader and sleeps until the phase changes, a tenth of a second at the most: a unit may have come
//! back in the meantime, or the leader may be gone. It looks at the error flag and at its own slot before every claim. Whatever it does moves
//! the progress counter of its slot, waiting too: a counter that stands still means a worker that hangs.
//!
//! A worker that finds no room for a result gives its task back and waits a moment: the chunks of a worker that died just now may become
//! free. Only when no recovery came is it an error.

mod bundles;

pub use bundles::BUNDLE_KMERS;

use crate::drain::Drainer;
use crate::error::WorkError;
use crate::scan::Scanner;
use crate::shared::{DrainOrder, Shared};
use crate::spool::UnitSummary;
use crate::trace::{self, Event, What};
use shm_layout::arena::NOTHING;
use shm_layout::inject::{Point, at};
use shm_layout::slots::Figure;
use shm_layout::state::Phase;
use shm_layout::tasks::{Bundle, TaskWords};
use shm_layout::words::{Claim, Owner, Task};
use std::time::{Duration, Instant};

/// Longest sleep of a worker that has nothing to do.
const IDLE: Duration = Duration::from_millis(100);
/// How long a worker without room waits for a recovery at most, on a machine that is so busy that its leader does not come to look for deaths.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// How long it waits at least: a process that is being killed takes a moment to die.
const DYING: Duration = Duration::from_millis(200);
/// Looks of the leader's after which a death before the wait was seen: one may have been under way.
const LOOKS: u64 = 2;

/// How long a worker sleeps that waits for a parcel.
const PARCEL_WAIT: Duration = Duration::from_micros(200);

/// What is to be done about a unit of a stream.
enum Parcel {
    /// It is there.
    There,
    /// The stream ended before it.
    Ended,
    /// An earlier unit came back: until it is done the feeder may not go on, so it is first.
    Earlier,
    /// The work is to be left.
    Leave,
}

/// What a worker asks of its surroundings.
pub trait Surroundings {
    /// Tells the leader that this worker found nothing to claim.
    fn idle(&mut self);
    /// A worker has a unit of a stream whose parcel is not there yet: brings it nearer, or waits a moment.
    ///
    /// # Errors
    /// What stands in the way of it.
    fn await_parcel(&mut self) -> Result<(), WorkError> {
        std::thread::sleep(PARCEL_WAIT);
        Ok(())
    }
    /// False when the work is to be left as it is. Does not return at all when nobody leads any more.
    fn may_go_on(&mut self) -> bool;
}

/// A worker at work.
pub struct Worker<'a> {
    shared: &'a Shared,
    owner: Owner,
    mapped: bool,
    scanner: Option<Scanner>,
    drainer: Option<Drainer>,
    order: Option<DrainOrder>,
    /// One in which nothing is, for units that come back.
    bundle: Option<Bundle>,
}

impl<'a> Worker<'a> {
    /// A worker for the run in `shared`, as `owner`.
    pub fn new(shared: &'a Shared, owner: Owner) -> Self {
        Self {
            shared,
            owner,
            mapped: shared.job.mapped,
            scanner: None,
            drainer: None,
            order: None,
            bundle: None,
        }
    }

    /// The same, but it reads with pread whatever the job says: for a leader, whom a bus error must not end.
    #[must_use]
    pub fn without_mapping(self) -> Self {
        Self { mapped: false, ..self }
    }

    /// Works until the run is over.
    ///
    /// # Errors
    /// The first thing that went wrong here; see [`WorkError::is_fenced`].
    pub fn run(&mut self, around: &mut impl Surroundings) -> Result<(), WorkError> {
        loop {
            let phase = self.shared.state.phase()?;
            match phase {
                Phase::Scan => self.scan_all(around)?,
                Phase::Drain => self.drain_all(around)?,
                Phase::Finished | Phase::Aborted => return Ok(()),
            }
            at(Point::WorkerIdle)?;
            around.idle();
            if !around.may_go_on() {
                return Ok(());
            }
            self.shared.slots.add(self.owner.slot, Figure::Progress, 1)?;
            self.shared.state.wait_for_phase(phase, IDLE)?;
        }
    }

    /// True while this worker may claim: not fenced, and nobody failed.
    fn may_claim(&self) -> Result<bool, WorkError> {
        if !self.shared.slots.may_claim(self.owner)? {
            let Owner { slot, generation } = self.owner;
            return Err(shm_layout::Error::Fenced { slot, generation }.into());
        }
        Ok(!self.shared.state.error_occurred()?)
    }

    fn step(&self, kind: u64, task: usize) -> Result<(), WorkError> {
        let slots = &self.shared.slots;
        slots.set(self.owner.slot, Figure::Current, kind << 32 | (task as u64 + 1))?;
        Ok(slots.add(self.owner.slot, Figure::Progress, 1)?)
    }

    /// The time, for [`Worker::trace`]; nobody asks for it where there is no trace.
    fn time(&self) -> u64 {
        if self.shared.trace.is_some() { trace::now() } else { 0 }
    }

    /// Notes a task that was asked for and claimed at these times and ended now.
    fn trace(&self, what: What, (asked, claimed): (u64, u64)) -> Result<(), WorkError> {
        let Some(trace) = &self.shared.trace else { return Ok(()) };
        trace.record(Event { slot: self.owner.slot, what, asked, claimed, ended: trace::now() })
    }

    fn add_figures(&self, figures: &[(Figure, u64)]) -> Result<(), WorkError> {
        figures.iter().try_for_each(|(f, value)| Ok(self.shared.slots.add(self.owner.slot, *f, *value)?))
    }

    /// Gives a task back for which there was no room, and waits for more; false when none came in time. Who is to leave meanwhile learns that where
    /// it claims.
    fn make_room(
        &self,
        tasks: &TaskWords,
        (task, claim): (usize, Claim),
        recoveries: u64,
        around: &mut impl Surroundings,
    ) -> Result<bool, WorkError> {
        tasks.give_back(task, claim)?;
        self.wait_for_room(recoveries, around)
    }

    fn wait_for_room(&self, recoveries: u64, around: &mut impl Surroundings) -> Result<bool, WorkError> {
        at(Point::RoomWait)?;
        let (start, looks) = (Instant::now(), self.shared.state.looks()?);
        let is_vain = |looked: u64| looked.wrapping_sub(looks) >= LOOKS && start.elapsed() > DYING;
        while start.elapsed() < ROOM_WAIT && !is_vain(self.shared.state.looks()?) {
            around.idle();
            let is_over = !around.may_go_on() || !self.may_claim()?;
            if is_over || self.shared.state.recoveries()? != recoveries {
                return Ok(true);
            }
            self.shared.slots.add(self.owner.slot, Figure::Progress, 1)?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
    }

    /// Scans units until none can be claimed.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub fn scan_all(&mut self, around: &mut impl Surroundings) -> Result<(), WorkError> {
        let shared = self.shared;
        while self.may_scan(around)? {
            if shared.job.bundles_units() && self.scan_bundle(around)? {
                continue;
            }
            let (start, asked) = (Instant::now(), self.time());
            let recoveries = shared.state.recoveries()?;
            let Some((unit, claim)) = self.claim_unit()? else { break };
            at(Point::ScanClaimed)?;
            let times = (asked, self.time());
            self.step(1, unit)?;
            match self.wait_for_parcel(unit, around)? {
                Parcel::There => {}
                Parcel::Ended => {
                    shared.units.commit(unit, claim, self.owner, NOTHING)?;
                    continue;
                }
                Parcel::Leave => {
                    shared.units.give_back(unit, claim)?;
                    break;
                }
                Parcel::Earlier => {
                    shared.units.give_back(unit, claim)?;
                    continue;
                }
            }
            let owner = self.owner;
            let (chain, summary) = match self.scanner()?.scan(shared, unit, owner) {
                Err(e) if e.is_no_room() => {
                    if self.make_room(&shared.units, (unit, claim), recoveries, around)? {
                        continue;
                    }
                    return Err(e);
                }
                scanned => scanned?,
            };
            at(Point::ScanStored)?;
            if let Err(e) = shared.units.commit(unit, claim, self.owner, chain.head()) {
                at(Point::ScanFenced)?;
                shared.arena.free(chain)?;
                return Err(e.into());
            }
            at(Point::ScanCommitted)?;
            self.trace(What::Unit(unit as u32), times)?;
            self.count_scanned(1, &summary, start)?;
        }
        Ok(())
    }

    /// True while this worker may claim units.
    fn may_scan(&self, around: &mut impl Surroundings) -> Result<bool, WorkError> {
        Ok(around.may_go_on() && self.shared.state.phase()? == Phase::Scan && self.may_claim()?)
    }

    fn scanner(&mut self) -> Result<&mut Scanner, WorkError> {
        Ok(match &mut self.scanner {
            Some(scanner) => scanner,
            none => none.insert(Scanner::new(self.shared, self.owner.slot, self.mapped)?),
        })
    }

    /// Adds what was committed to the slot's figures.
    fn count_scanned(&self, units: u64, summary: &UnitSummary, start: Instant) -> Result<(), WorkError> {
        self.add_figures(&[
            (Figure::Units, units),
            (Figure::Blocks, summary.blocks),
            (Figure::Rows, summary.rows),
            (Figure::Kmers, summary.kmers),
            (Figure::ScanNanos, start.elapsed().as_nanos() as u64),
            (Figure::Progress, 1),
        ])
    }

    /// Claims the next unit; of a stream always the first that is free, since its parcels are made in order and only some at a time.
    fn claim_unit(&self) -> Result<Option<(usize, Claim)>, WorkError> {
        let shared = self.shared;
        if shared.job.stream.is_some() {
            return Ok(shared.units.first(|unit| shared.units.claim(unit, self.owner))?);
        }
        Ok(shared.state.claim_unit(&shared.units, self.owner)?)
    }

    /// Waits for the parcel of a unit, if there is a stream.
    fn wait_for_parcel(&self, unit: usize, around: &mut impl Surroundings) -> Result<Parcel, WorkError> {
        let shared = self.shared;
        let Some(parcel) = shared.parcel_of(unit) else { return Ok(Parcel::There) };
        loop {
            match shared.parcels.look(parcel)? {
                Task::Done { head: NOTHING, .. } => return Ok(Parcel::Ended),
                Task::Done { .. } => return Ok(Parcel::There),
                Task::Free { .. } | Task::Claimed { .. } => {}
                Task::Poison { .. } | Task::Bundled { .. } => return Ok(Parcel::Leave),
            }
            if !around.may_go_on() || shared.state.phase()? != Phase::Scan || !self.may_claim()? {
                return Ok(Parcel::Leave);
            }
            if shared.units.has_free_before(unit)? {
                return Ok(Parcel::Earlier);
            }
            shared.slots.add(self.owner.slot, Figure::Progress, 1)?;
            around.await_parcel()?;
        }
    }

    /// The next stripe: the leader's order first, then any of it that came back; what the order leaves out is the leader's to settle. The inner
    /// `None` says that the one drawn is somebody else's.
    fn claim_stripe(&mut self) -> Result<Option<Option<(usize, Claim)>>, WorkError> {
        let shared = self.shared;
        let order = match &mut self.order {
            Some(order) => &order.order,
            none => &none.insert(shared.drain_order()?).order,
        };
        let next = shared.state.next_stripe()?;
        at(Point::DrainNumber)?;
        if let Some(stripe) = order.get(next as usize) {
            let stripe = *stripe as usize;
            return Ok(Some(shared.stripes.claim(stripe, self.owner)?.map(|claim| (stripe, claim))));
        }
        for stripe in order {
            let stripe = *stripe as usize;
            if let Some(claim) = shared.stripes.claim(stripe, self.owner)? {
                at(Point::ClaimAgain)?;
                return Ok(Some(Some((stripe, claim))));
            }
        }
        Ok(None)
    }

    /// Drains stripes until none can be claimed.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub fn drain_all(&mut self, around: &mut impl Surroundings) -> Result<(), WorkError> {
        let shared = self.shared;
        // What the scan held is not needed any more.
        self.scanner = None;
        if let Some(bundle) = self.bundle.take() {
            shared.units.abandon(&bundle)?;
        }
        while around.may_go_on() && shared.state.phase()? == Phase::Drain && self.may_claim()? {
            let (start, asked) = (Instant::now(), self.time());
            let recoveries = shared.state.recoveries()?;
            let (stripe, claim) = match self.claim_stripe()? {
                Some(Some(claimed)) => claimed,
                Some(None) => continue,
                None => break,
            };
            at(Point::DrainClaimed)?;
            let times = (asked, self.time());
            self.step(2, stripe)?;
            let drainer = match &mut self.drainer {
                Some(drainer) => drainer,
                none => none.insert(Drainer::new(shared, self.owner.slot)?),
            };
            let (image, _) = drainer.drain(shared, stripe)?;
            at(Point::DrainBuilt)?;
            let chain = match drainer.store(shared, self.owner, &image) {
                Err(e) if e.is_no_room() => {
                    if self.make_room(&shared.stripes, (stripe, claim), recoveries, around)? {
                        continue;
                    }
                    return Err(e);
                }
                stored => stored?,
            };
            at(Point::DrainStored)?;
            if let Err(e) = shared.stripes.commit(stripe, claim, self.owner, chain.head()) {
                at(Point::DrainFenced)?;
                shared.arena.free(chain)?;
                return Err(e.into());
            }
            at(Point::DrainPublished)?;
            drainer.reuse(image);
            self.trace(What::Stripe(stripe as u32), times)?;
            let nanos = start.elapsed().as_nanos() as u64;
            self.add_figures(&[(Figure::Stripes, 1), (Figure::DrainNanos, nanos), (Figure::Progress, 1)])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;
    use crate::shared::{Given, Sizes};
    use shm_layout::words::SlotState;

    /// Surroundings that want the work to be left after some looks.
    struct Leaving(u32);

    impl Surroundings for Leaving {
        fn idle(&mut self) {}

        fn may_go_on(&mut self) -> bool {
            self.0 = self.0.saturating_sub(1);
            self.0 > 0
        }
    }

    #[test]
    fn who_is_to_leave_has_not_waited_for_room_in_vain() {
        let sizes = Sizes {
            unit_blocks: 1,
            ramp: 0,
            slots: 2,
            workers: 1,
            trace: 0,
            chunk_bytes: 4096,
            chunks: 2,
            twice: 0,
            beside: 0,
        };
        let shared = Shared::create(None, job(&[("a", 4)]), &sizes, &Given::default()).expect("a segment");
        let owner = shared.slots.start(0).expect("free");
        shared.slots.change(owner, SlotState::Starting, SlotState::Running).expect("a slot");
        let claim = shared.units.claim(0, owner).expect("sound").expect("free");
        let (worker, recoveries) = (Worker::new(&shared, owner), shared.state.recoveries().expect("mapped"));
        let again = worker.make_room(&shared.units, (0, claim), recoveries, &mut Leaving(3));
        assert!(again.expect("no error"), "the arena is full only when the time is up");
        assert!(matches!(shared.units.look(0), Ok(Task::Free { .. })));
    }
}
