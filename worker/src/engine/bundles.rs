//! Units that are scanned into one result, and committed together: what is written for them is then no more than for one of them.
//!
//! A worker takes units into a bundle one after the other. When there is none left, or it has enough, it stores the result and commits the bundle, with one word.
//! Units that are to be scanned alone, since workers died on them, are left to [`Worker::scan_all`], and so are all where no bundle is left.

use super::{Surroundings, Worker};
use crate::error::WorkError;
use crate::portion::Portion;
use crate::spool::UnitSummary;
use crate::trace::What;
use shm_layout::arena::OwnedChain;
use shm_layout::inject::{Point, at};
use shm_layout::tasks::Bundle;
use std::time::Instant;

/// k-mers after which a bundle of units is committed, lest too much is lost with a worker: a second's work, or a few.
pub const BUNDLE_KMERS: u64 = 1 << 29;

impl Worker<'_> {
    /// Scans units into one result until none can be claimed or they have [`BUNDLE_KMERS`], and commits them together; false when there was no unit to begin with,
    /// or no bundle.
    pub(super) fn scan_bundle(&mut self, around: &mut impl Surroundings) -> Result<bool, WorkError> {
        let shared = self.shared;
        let (start, asked, recoveries) = (Instant::now(), self.time(), shared.state.recoveries()?);
        let Some(bundle) = self.begin_bundle()? else { return Ok(false) };
        let Some(unit) = self.bundle_unit(&bundle)? else {
            self.bundle = Some(bundle);
            return Ok(false);
        };
        let (result, chain, summary) = match self.scan_units(&bundle, unit, asked, around) {
            Err(e) if e.is_no_room() => {
                shared.units.abandon(&bundle)?;
                return if self.wait_for_room(recoveries, around)? { Ok(true) } else { Err(e) };
            }
            scanned => scanned?,
        };
        at(Point::ScanStored)?;
        if let Err(e) = shared.units.commit_bundle(&bundle, self.owner, chain.head()) {
            at(Point::ScanFenced)?;
            shared.arena.free(chain)?;
            return Err(e.into());
        }
        at(Point::ScanCommitted)?;
        self.count_scanned(result, &summary, start)?;
        Ok(true)
    }

    /// Scans `unit`, which was claimed at this time, and those after it. Returns how many, their result and what it came to.
    fn scan_units(
        &mut self,
        bundle: &Bundle,
        mut unit: usize,
        mut asked: u64,
        around: &mut impl Surroundings,
    ) -> Result<(u64, OwnedChain, UnitSummary), WorkError> {
        let (shared, owner) = (self.shared, self.owner);
        let number = shared.units.result_of(bundle);
        self.scanner()?.begin(shared, number, Portion::of(&shared.job, unit), owner);
        let mut units = 0;
        loop {
            let times = (asked, self.time());
            self.step(1, unit)?;
            self.scanner()?.take(shared, unit)?;
            at(Point::ScanBundled)?;
            units += 1;
            self.trace(What::Unit(unit as u32), times)?;
            if self.scanner()?.kmers() >= BUNDLE_KMERS || !self.may_scan(around)? {
                break;
            }
            asked = self.time();
            let Some(next) = self.bundle_unit(bundle)? else { break };
            unit = next;
        }
        let (chain, summary) = self.scanner()?.finish(shared)?;
        Ok((units, chain, summary))
    }

    /// A bundle with nothing in it: the one that was left over, or a new one.
    fn begin_bundle(&mut self) -> Result<Option<Bundle>, WorkError> {
        match self.bundle.take() {
            Some(bundle) => Ok(Some(bundle)),
            None => Ok(self.shared.units.begin_bundle(self.owner)?),
        }
    }

    /// Takes the next unit into a bundle.
    fn bundle_unit(&self, bundle: &Bundle) -> Result<Option<usize>, WorkError> {
        let shared = self.shared;
        let unit = shared.state.bundle_unit(&shared.units, bundle, shared.job.max_attempts)?;
        if unit.is_some() {
            at(Point::ScanClaimed)?;
        }
        Ok(unit)
    }
}
