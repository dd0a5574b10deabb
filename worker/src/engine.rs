//! The worker's loop: claim, work, commit, and wait for the leader when there is nothing to claim.
//!
//! ```text
//! phase Scan    claim a unit   -> scan it, store it      -> commit, or free it when fenced
//! phase Drain   claim a stripe -> count it, store its table -> commit, or free it when fenced
//! phase Finished, Aborted      -> leave
//! ```
//!
//! A worker that finds nothing to claim tells the leader and sleeps until the phase changes, a tenth of a second at the most: a unit may have come
//! back in the meantime, or the leader may be gone. It looks at the error flag and at its own slot before every claim.

use crate::drain::Drainer;
use crate::error::WorkError;
use crate::scan::Scanner;
use crate::shared::Shared;
use shm_layout::slots::Figure;
use shm_layout::state::Phase;
use shm_layout::words::Owner;
use std::time::{Duration, Instant};

/// Longest sleep of a worker that has nothing to do.
const IDLE: Duration = Duration::from_millis(100);

/// What a worker asks of its surroundings.
pub trait Surroundings {
    /// Tells the leader that this worker found nothing to claim.
    fn idle(&mut self);
    /// Leaves, never to return, when nobody leads any more.
    fn leave_if_orphaned(&mut self);
}

/// A worker at work.
pub struct Worker<'a> {
    shared: &'a Shared,
    owner: Owner,
    scanner: Option<Scanner>,
    drainer: Option<Drainer>,
}

impl<'a> Worker<'a> {
    /// A worker for the run in `shared`, as `owner`.
    pub fn new(shared: &'a Shared, owner: Owner) -> Self {
        Self { shared, owner, scanner: None, drainer: None }
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
            around.idle();
            around.leave_if_orphaned();
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

    /// Scans units until none can be claimed.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub fn scan_all(&mut self, around: &mut impl Surroundings) -> Result<(), WorkError> {
        let shared = self.shared;
        while shared.state.phase()? == Phase::Scan && self.may_claim()? {
            around.leave_if_orphaned();
            let start = Instant::now();
            let Some((unit, claim)) = shared.state.claim_unit(&shared.units, self.owner)? else { break };
            self.step(1, unit)?;
            let scanner = match &mut self.scanner {
                Some(scanner) => scanner,
                none => none.insert(Scanner::new(shared)?),
            };
            let (chain, summary) = scanner.scan(shared, unit, self.owner)?;
            if let Err(e) = shared.units.commit(unit, claim, self.owner, chain.head()) {
                shared.arena.free(chain)?;
                return Err(e.into());
            }
            for (figure, value) in [
                (Figure::Units, 1),
                (Figure::Blocks, summary.blocks),
                (Figure::Rows, summary.rows),
                (Figure::Kmers, summary.kmers),
                (Figure::ScanNanos, start.elapsed().as_nanos() as u64),
                (Figure::Progress, 1),
            ] {
                shared.slots.add(self.owner.slot, figure, value)?;
            }
        }
        Ok(())
    }

    /// Drains stripes until none can be claimed.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub fn drain_all(&mut self, around: &mut impl Surroundings) -> Result<(), WorkError> {
        let shared = self.shared;
        // What the scan held is not needed any more.
        self.scanner = None;
        while shared.state.phase()? == Phase::Drain && self.may_claim()? {
            around.leave_if_orphaned();
            let start = Instant::now();
            let drainer = match &mut self.drainer {
                Some(drainer) => drainer,
                none => none.insert(Drainer::new(shared)?),
            };
            let next = shared.state.next_stripe()?;
            let claimed = match drainer.order().order.get(next as usize) {
                Some(stripe) => {
                    let stripe = *stripe as usize;
                    // Not free: somebody else came upon it by looking for stripes that came back.
                    let Some(claim) = shared.stripes.claim(stripe, self.owner)? else { continue };
                    Some((stripe, claim))
                }
                None => shared.stripes.claim_any(self.owner)?,
            };
            let Some((stripe, claim)) = claimed else { break };
            self.step(2, stripe)?;
            let Some(drainer) = &mut self.drainer else { continue };
            let (image, _) = drainer.drain(shared, stripe)?;
            let chain = shared.arena.store(self.owner, &image)?;
            if let Err(e) = shared.stripes.commit(stripe, claim, self.owner, chain.head()) {
                shared.arena.free(chain)?;
                return Err(e.into());
            }
            drainer.reuse(image);
            let nanos = start.elapsed().as_nanos() as u64;
            for (figure, value) in [(Figure::Stripes, 1), (Figure::DrainNanos, nanos), (Figure::Progress, 1)]
            {
                shared.slots.add(self.owner.slot, figure, value)?;
            }
        }
        Ok(())
    }
}
