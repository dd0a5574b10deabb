//! How blocks are parted into units.
//!
//! Units are numbered in the order of their blocks. All have as many blocks, the last one perhaps fewer; but in place of the last whole ones, as many as the
//! *ramp* says, there are [`PARTS`] times as many that have so many times fewer. At the end of a scan some workers wait for one that has just claimed a unit: with
//! a ramp of a unit for each worker they wait for a small one. PostgreSQL's parallel scan halves its chunks towards the end likewise
//! (`PARALLEL_SEQSCAN_RAMPDOWN_CHUNKS`); here units are what they are from the start, since their results lie in the segment by their numbers.

use std::ops::Range;

/// Units of the ramp in place of a whole one.
pub const PARTS: u64 = 4;

/// The units of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// Blocks of all units together.
    pub total_blocks: u64,
    /// Blocks of a unit before the ramp, at least 1.
    pub unit_blocks: u64,
    /// Whole units that are parted; more than there are is all of them, 0 is none.
    pub ramp: u64,
}

impl Units {
    /// How many there are.
    pub const fn count(self) -> u64 {
        self.large() + (self.total_blocks - self.ramp_from()).div_ceil(self.small_blocks())
    }

    /// The blocks of unit `unit`; none for one behind the last.
    pub const fn blocks(self, unit: u64) -> Range<u64> {
        self.first(unit)..self.first(unit.saturating_add(1))
    }

    /// The unit that has block `block`.
    pub const fn of_block(self, block: u64) -> u64 {
        match block.checked_sub(self.ramp_from()) {
            None => block / self.unit_blocks,
            Some(behind) => self.large() + behind / self.small_blocks(),
        }
    }

    /// The first block of the ramp.
    const fn ramp_from(self) -> u64 {
        let whole = self.total_blocks / self.unit_blocks;
        match self.ramp {
            0 => self.total_blocks,
            ramp => whole.saturating_sub(ramp) * self.unit_blocks,
        }
    }

    /// Units before the ramp.
    const fn large(self) -> u64 {
        self.ramp_from().div_ceil(self.unit_blocks)
    }

    /// Blocks of a unit of the ramp.
    const fn small_blocks(self) -> u64 {
        self.unit_blocks.div_ceil(PARTS)
    }

    const fn first(self, unit: u64) -> u64 {
        let first = match unit.checked_sub(self.large()) {
            None => unit * self.unit_blocks,
            Some(behind) => self.ramp_from().saturating_add(behind.saturating_mul(self.small_blocks())),
        };
        if first < self.total_blocks { first } else { self.total_blocks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_block_is_in_one_unit_and_units_follow_each_other(total_blocks in 0..5000u64, unit_blocks in 1..700u64, ramp in 0..20u64) {
            let units = Units { total_blocks, unit_blocks, ramp };
            let mut next = 0;
            for unit in 0..units.count() {
                let blocks = units.blocks(unit);
                prop_assert_eq!(blocks.start, next);
                prop_assert!(!blocks.is_empty() && blocks.end - blocks.start <= unit_blocks);
                for block in blocks.clone() {
                    prop_assert_eq!(units.of_block(block), unit);
                }
                next = blocks.end;
            }
            prop_assert_eq!(next, total_blocks);
            prop_assert!(units.blocks(units.count()).is_empty() && units.blocks(u64::MAX).is_empty());
            let even = total_blocks.div_ceil(unit_blocks);
            prop_assert!(ramp > 0 || units.count() == even);
            prop_assert!(units.count() <= even + PARTS * (ramp + 1));
        }
    }

    #[test]
    fn the_last_whole_units_are_parted() {
        let units = Units { total_blocks: 5000, unit_blocks: 512, ramp: 2 };
        let sizes: Vec<u64> =
            (0..units.count()).map(|unit| units.blocks(unit)).map(|b| b.end - b.start).collect();
        // Nine whole ones and 392 blocks, of which seven are left as they are.
        assert_eq!(sizes, [vec![512; 7], vec![128; 11], vec![8]].concat());
    }
}
