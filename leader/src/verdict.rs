//! What ends a run between its phases: work that killed whoever took it up, and an order of the drain that is not the one.

use crate::failure::{Failure, HALF_COUNTED};
use crate::lead::Leader;
use crate::totals::ScanTotals;
use kmer_worker::shared::{DrainOrder, Shared};
use shm_layout::words::{SlotState, Task};

impl Leader<'_> {
    /// The order that workers drain by must be the one that follows from the units and the command line.
    pub(crate) fn check_order(&self, order: &DrainOrder) -> Result<(), Failure> {
        let found = self.shared.drain_order()?;
        if found == *order {
            return Ok(());
        }
        let told = |order: &DrainOrder| {
            let DrainOrder { threshold, order, .. } = order;
            format!("{} stripes and k-mers in more than {threshold} rows", order.len())
        };
        let text = format!("drain's order: expected {}, found another of {}", told(order), told(&found));
        Err(Failure::error(text))
    }

    /// Units that were given up end the run, unless damage is to be skipped and they can be left out whole: of every pass, and with all rows that
    /// are in them.
    pub(crate) fn check_poison(&self, scan: &ScanTotals, left_out: &[usize]) -> Result<(), Failure> {
        let job = &self.shared.job;
        let Some(unit) = scan.poisoned.iter().find(|unit| !job.skip_damaged || !left_out.contains(unit))
        else {
            return Ok(());
        };
        let text = describe_poison(self.shared, *unit)?;
        if !job.skip_damaged {
            return Err(Failure::lost(text).hint("--on-error skip leaves them out, counts and reports them"));
        }
        if job.part_bits > 0 {
            return Err(Failure::lost(format!("{text}, {HALF_COUNTED}"))
                .hint("count with -j 1, where no row is shared"));
        }
        if job.pass > 0 {
            let text = format!("{text} in pass {}, and the one before has counted them", job.pass + 1);
            return Err(
                Failure::lost(text).hint("allow more memory with --memory: in one pass they can be left out")
            );
        }
        Ok(())
    }

    /// Gives up, before the work begins, the units that an earlier pass gave up: all passes are of the same rows. May be done again (I5).
    pub(crate) fn leave_out(&self, units: &[usize]) -> Result<(), Failure> {
        if units.is_empty() {
            return Ok(());
        }
        let owner = self.shared.slots.start((self.shared.slots.len() - 1) as u16)?;
        self.shared.slots.change(owner, SlotState::Starting, SlotState::Running)?;
        for unit in units {
            self.shared.units.claim(*unit, owner)?;
        }
        self.shared.units.recover(owner, 1)?;
        self.shared.slots.change(owner, SlotState::Running, SlotState::Done)?;
        Ok(())
    }

    /// A stripe cannot be left out: its k-mers are those of all rows.
    pub(crate) fn check_stripes(&self) -> Result<(), Failure> {
        for stripe in 0..self.shared.stripes.len() {
            if let Task::Poison { attempts } = self.shared.stripes.look(stripe)? {
                return Err(Failure::lost(format!("stripe {stripe}: {attempts} workers died on it")));
            }
        }
        Ok(())
    }
}

/// Names the blocks of a unit that killed its workers.
///
/// # Errors
/// None for a sound segment.
pub fn describe_poison(shared: &Shared, unit: usize) -> Result<String, Failure> {
    let (first, count) = shared.unit_blocks(unit)?;
    let (blocks, attempts) = (shared.job.describe_blocks(first, count), shared.job.max_attempts);
    Ok(format!("{blocks}: {attempts} workers died on them"))
}
