//! Claims of units and stripes.
//!
//! The claim of a run of blocks mirrors Postgres's: under the mutex, in order, through `next_block`. What a killed claimer leaves is a
//! unit word that names it and perhaps a `next_block` that still points to that unit; the next claimer finds the unit taken and goes on to
//! the one behind it, so there is nothing to repair under the mutex (I5). Units that came back are found by their words. The mutex only
//! keeps claimers from trying the same words: one that does not get it in time (its owner may be stopped) claims by the words alone.

use super::{NEXT_BLOCK, NEXT_STRIPE, SharedState};
use crate::error::Result;
use crate::inject::{Point, at};
use crate::planted::RECOVERS;
use crate::sync::Ordering;
use crate::tasks::{Bundle, TaskWords};
use crate::words::{Claim, Owner};

impl SharedState {
    /// Claims the next unit for `owner`: in order through `next_block`, then any that came back. `None` when all are taken or settled.
    ///
    /// # Errors
    /// [`Error::Word`](crate::error::Error::Word), [`Error::Lock`](crate::error::Error::Lock).
    pub fn claim_unit(&self, units: &TaskWords, owner: Owner) -> Result<Option<(usize, Claim)>> {
        self.claim_next(units, |unit| units.claim(unit, owner))
    }

    /// Takes the next unit into a bundle likewise, see [`TaskWords::bundle`]. `None` also when those that are free are to be claimed alone.
    ///
    /// # Errors
    /// As [`SharedState::claim_unit`].
    pub fn bundle_unit(&self, units: &TaskWords, bundle: &Bundle, max_attempts: u8) -> Result<Option<usize>> {
        let claim = |unit| Ok(units.bundle(unit, bundle, max_attempts)?.then_some(()));
        Ok(self.claim_next(units, claim)?.map(|(unit, ())| unit))
    }

    fn claim_next<T>(
        &self,
        units: &TaskWords,
        claim: impl Fn(usize) -> Result<Option<T>>,
    ) -> Result<Option<(usize, T)>> {
        if let Some(found) = self.claim_in_order(&claim)? {
            return Ok(Some(found));
        }
        let found = units.first(claim)?;
        if found.is_some() {
            at(Point::ClaimAgain)?;
        }
        Ok(found)
    }

    fn claim_in_order<T>(&self, claim: impl Fn(usize) -> Result<Option<T>>) -> Result<Option<(usize, T)>> {
        let parted = self.units()?;
        if self.next_block()? >= parted.total_blocks {
            return Ok(None);
        }
        let _guard = if RECOVERS {
            let Some(guard) = self.lock()? else { return Ok(None) };
            Some(guard)
        } else {
            None
        };
        at(Point::ClaimLocked)?;
        loop {
            let block = self.next_block()?;
            if block >= parted.total_blocks {
                return Ok(None);
            }
            let unit = parted.of_block(block);
            let claim = claim(unit as usize)?;
            if claim.is_some() {
                at(Point::ClaimTaken)?;
            }
            // Only now the hint: a death before this line leaves the unit named and the hint behind it.
            self.set(NEXT_BLOCK, parted.blocks(unit).end)?;
            if let Some(claim) = claim {
                at(Point::ClaimMoved)?;
                return Ok(Some((unit as usize, claim)));
            }
        }
    }

    /// Takes the next stripe number in the leader's order; past the last one, the caller looks for stripes that came back.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn next_stripe(&self) -> Result<u64> {
        Ok(self.segment.map().word(self.at + NEXT_STRIPE)?.fetch_add(1, Ordering::Relaxed))
    }

    /// Stripes handed out so far, for progress.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn stripes_handed_out(&self) -> Result<u64> {
        self.get(NEXT_STRIPE)
    }
}
