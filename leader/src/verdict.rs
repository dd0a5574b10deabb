//! What ends a run between its phases: work that killed whoever took it up, and an order of the drain that is not the one.

use crate::failure::Failure;
use crate::lead::Leader;
use crate::totals::ScanTotals;
use kmer_worker::shared::{DrainOrder, Shared};
use shm_layout::words::Task;

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

    /// Units that were given up end the run, unless damage is to be skipped.
    pub(crate) fn check_poison(&self, scan: &ScanTotals) -> Result<(), Failure> {
        let Some(unit) = scan.poisoned.first() else { return Ok(()) };
        let text = describe_poison(self.shared, *unit)?;
        if self.shared.job.skip_damaged {
            return Ok(());
        }
        Err(Failure::lost(text).hint("--on-error skip leaves them out, counts and reports them"))
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
