//! What all are doing, and how they hear of it.

use super::{ALL_PROCESSED, ERROR_OCCURRED, PHASE, SharedState};
use crate::error::Result;
use crate::process::{futex_wait, futex_wake_all};
use crate::sync::Ordering;
use crate::takeover::SoleUser;
use std::time::Duration;

/// What all are doing. Only the leader moves from one phase to the next (I1), and never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Phase {
    /// Units of blocks are claimed, scanned and committed.
    Scan = 1,
    /// All units are settled; stripes are claimed, drained and published.
    Drain = 2,
    /// All stripes are settled; workers leave.
    Finished = 3,
    /// The run failed or was stopped; workers leave at once.
    Aborted = 4,
}

impl SharedState {
    /// The phase. Acquire; partner: [`SharedState::open_phase`], so what the leader wrote before is visible.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::error::Error::Damaged) when it is none.
    pub fn phase(&self) -> Result<Phase> {
        Ok(match self.half(PHASE)?.load(Ordering::Acquire) {
            1 => Phase::Scan,
            2 => Phase::Drain,
            3 => Phase::Finished,
            4 => Phase::Aborted,
            other => return Err(self.damaged("phase", "1 to 4", other.into())),
        })
    }

    /// Opens a phase and wakes all that wait for it. Leader only (I1).
    ///
    /// # Errors
    /// None for an attached state.
    pub fn open_phase(&self, phase: Phase) -> Result<()> {
        let word = self.half(PHASE)?;
        if phase != Phase::Scan && phase != Phase::Aborted {
            self.half(ALL_PROCESSED)?.store(1, Ordering::Relaxed);
        }
        word.store(phase as u32, Ordering::Release);
        futex_wake_all(word);
        Ok(())
    }

    /// Undoes what an ended run left here, for a leader that takes over: the error, and the phase in which everybody leaves.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn reopen(&self, _proof: &SoleUser) -> Result<()> {
        self.half(ERROR_OCCURRED)?.store(0, Ordering::Release);
        if self.phase()? == Phase::Aborted {
            let phase = if self.all_processed()? { Phase::Drain } else { Phase::Scan };
            self.half(PHASE)?.store(phase as u32, Ordering::Release);
        }
        Ok(())
    }

    /// True when every unit is settled (Postgres's `all_processed`).
    ///
    /// # Errors
    /// None for an attached state.
    pub fn all_processed(&self) -> Result<bool> {
        Ok(self.half(ALL_PROCESSED)?.load(Ordering::Relaxed) != 0)
    }

    /// Sleeps until the phase is no longer `seen`, or `limit` has passed.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn wait_for_phase(&self, seen: Phase, limit: Duration) -> Result<()> {
        futex_wait(self.half(PHASE)?, seen as u32, limit);
        Ok(())
    }
}
