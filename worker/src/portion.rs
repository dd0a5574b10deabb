//! What a unit takes of the rows of its block, where several units share it.
//!
//! A chromosome in one row, or a few of them in one block, would keep one worker busy and no other. So of few blocks with long rows each block is several
//! units', and each of them reads all of its rows but takes a *portion*: whole rows in turn, and of a long row every so many windows in turn, a
//! *stretch*.
//!
//! Promises
//! - Every window of every row is in exactly one unit's portion. Which one follows from the row's number and the window's place alone, so units need to agree
//!   on nothing, and a unit that is scanned again takes the same.
//! - A batch has records of one long row only, or of none, and tells which ([`crate::spool`]): the drain puts those of a long row together again.
//!   See [`crate::sections`].
//!
//! What it does not do: know how long a row of letters will be. Such a row is long when it comes in pieces.

use crate::job::Job;
use std::ops::Range;

/// Windows of a row that a unit takes at a time, when all are its own: a multiple of 4.
const PIECE: u64 = 1 << 24;

/// A unit's portion.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Portion {
    /// 2^bits units share a block.
    bits: u32,
    /// Which of them.
    number: u64,
    stretch: u64,
}

impl Portion {
    /// The portion of unit `unit`.
    pub(crate) fn of(job: &Job, unit: usize) -> Self {
        let number = unit as u64 & ((1 << job.part_bits) - 1);
        Self { bits: job.part_bits, number, stretch: job.stretch }
    }

    /// Whether no other unit takes anything of the block's rows.
    pub(crate) fn is_whole(self) -> bool {
        self.bits == 0
    }

    /// Whether a row with so many windows is this unit's as a whole, and no more than is taken at a time.
    #[inline]
    pub(crate) fn takes_at_once(self, windows: u64) -> bool {
        self.is_whole() && windows <= PIECE
    }

    /// Whether this is the unit that tells what all of them see.
    pub(crate) fn tells(self) -> bool {
        self.number == 0
    }

    /// Whether a row with so many windows is dealt out.
    pub(crate) fn is_long(self, windows: u64) -> bool {
        self.bits > 0 && windows > self.stretch << self.bits
    }

    fn takes(self, row: u64, stretch: u64) -> bool {
        row.wrapping_add(stretch) & ((1 << self.bits) - 1) == self.number
    }

    /// Of the windows of row `row` that begin at the bases `windows`, those of this portion. `is_long`: the row is dealt out.
    pub(crate) fn windows(
        self,
        row: u64,
        windows: Range<u64>,
        is_long: bool,
    ) -> impl Iterator<Item = Range<u64>> {
        let is_dealt = is_long && !self.is_whole();
        let step = if is_dealt { self.stretch } else { PIECE };
        let numbers =
            if windows.is_empty() { 0..0 } else { windows.start / step..windows.end.div_ceil(step) };
        let takes = move |number: &u64| self.takes(row, if is_dealt { *number } else { 0 });
        numbers
            .filter(takes)
            .map(move |number| (number * step).max(windows.start)..((number + 1) * step).min(windows.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_window_is_in_one_portion(
            bits in 0..4u32, stretch in 1..20u64, row: u64, from in 0..200u64, len in 0..200u64, is_long: bool,
        ) {
            let stretch = stretch * 4;
            let mut taken = vec![0; (from + len) as usize];
            for number in 0..1 << bits {
                let portion = Portion { bits, number, stretch };
                for windows in portion.windows(row, from..from + len, is_long) {
                    prop_assert!(!windows.is_empty());
                    // Where what is given begins with a byte of bases, what is taken does.
                    prop_assert!(windows.start == from || windows.start % 4 == 0);
                    windows.for_each(|at| taken[at as usize] += 1);
                }
            }
            prop_assert!(taken.iter().zip(0..).all(|(times, at)| *times == u32::from(at >= from)), "{:?}", taken);
        }

        #[test]
        fn a_long_row_is_dealt_out_evenly(bits in 0..4u32, stretch in 1..20u64, row: u64, windows in 0..20_000u64) {
            let stretch = stretch * 4;
            let portions = (0..1 << bits).map(|number| Portion { bits, number, stretch });
            let is_long = Portion { bits, number: 0, stretch }.is_long(windows);
            prop_assert_eq!(is_long, bits > 0 && windows > stretch << bits);
            prop_assume!(is_long);
            let shares: Vec<u64> =
                portions.map(|portion| portion.windows(row, 0..windows, true).map(|w| w.end - w.start).sum()).collect();
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(*least > 0 && most - least <= stretch, "{:?}", shares);
        }
    }

    #[test]
    fn only_what_is_one_piece_of_one_unit_is_taken_at_once() {
        let shared = Portion { bits: 1, number: 0, stretch: 4 };
        assert!(Portion::default().takes_at_once(PIECE) && !Portion::default().takes_at_once(PIECE + 1));
        assert!(!shared.takes_at_once(1));
    }

    #[test]
    fn a_whole_row_comes_in_pieces_that_can_be_stored_in_between() {
        let pieces: Vec<_> = Portion::default().windows(7, 0..PIECE * 2 + 5, false).collect();
        assert_eq!(pieces, [0..PIECE, PIECE..2 * PIECE, 2 * PIECE..2 * PIECE + 5]);
    }
}
