//! The sums of a large unit: how often it has each key, in a byte where that is enough.
//!
//! ```text
//! a section of sums := cells more*
//!   cells  for each key of the stripe its count modulo 256, a byte
//!   more   the key's low bits, u16, and how many times 256 its count is besides, u32; in the order of keys, of those of which that is not 0
//! ```
//!
//! Counts in bytes keep a stripe's cells, at most 2^16, near the processor, are written as they lie, and are added up many at a time.

use crate::simd::{self, LINE};

/// Bytes of a count that a cell is too small for.
const MORE_BYTES: usize = 6;

/// Counts of the keys of all stripes.
pub(super) struct Sums {
    low_bits: u32,
    cells: Vec<u8>,
    /// For each stripe the low bits of a key for each time that its cell came to 256.
    wrapped: Vec<Vec<u16>>,
    /// Records counted, for each stripe.
    counted: Vec<u32>,
}

impl Sums {
    /// Nothing counted yet, for `2^stripe_bits` stripes of `2^low_bits` keys.
    pub(super) fn new(stripe_bits: u32, low_bits: u32) -> Self {
        let stripes = 1 << stripe_bits;
        Self {
            low_bits,
            cells: vec![0; stripes << low_bits],
            wrapped: vec![Vec::new(); stripes],
            counted: vec![0; stripes],
        }
    }

    /// Counts `records` of `stripe`.
    pub(super) fn add(&mut self, stripe: usize, records: &[u16]) {
        let first = stripe << self.low_bits;
        let cells = &mut self.cells[first..first + (1 << self.low_bits)];
        if records.len() >= cells.len() / LINE {
            // Most lines are needed, and come sooner one after the other than where a record happens to want one.
            cells.chunks(LINE).for_each(|line| simd::prefetch(&line[0]));
        }
        for low in records {
            let cell = &mut cells[usize::from(*low)];
            *cell = cell.wrapping_add(1);
            if *cell == 0 {
                self.wrapped[stripe].push(*low);
            }
        }
        self.counted[stripe] += records.len() as u32;
    }

    /// Nothing is counted.
    pub(super) fn is_empty(&self) -> bool {
        self.counted.iter().all(|records| *records == 0)
    }

    /// Writes the section of `stripe` behind what `out` has, nothing where nothing was counted, and forgets its sums. Returns what
    /// they come to.
    pub(super) fn take(&mut self, stripe: usize, out: &mut Vec<u8>) -> u32 {
        let counted = std::mem::take(&mut self.counted[stripe]);
        if counted == 0 {
            return 0;
        }
        let first = stripe << self.low_bits;
        let cells = &mut self.cells[first..first + (1 << self.low_bits)];
        out.extend_from_slice(cells);
        cells.fill(0);
        let wrapped = &mut self.wrapped[stripe];
        wrapped.sort_unstable();
        for times in wrapped.chunk_by(|one, next| one == next) {
            out.extend(times[0].to_le_bytes());
            out.extend((times.len() as u32).to_le_bytes());
        }
        wrapped.clear();
        counted
    }

    /// Forgets all sums.
    pub(super) fn clear(&mut self) {
        if !self.is_empty() {
            self.cells.fill(0);
            self.wrapped.iter_mut().for_each(Vec::clear);
            self.counted.fill(0);
        }
    }
}

/// Adds a section of sums to `sums`, a cell for each key of the stripe. Returns how many records it stands for.
///
/// `None` when it is damaged: its cells are not as many as the stripe's keys, what follows them is no whole number of keys or has one outside of the
/// stripe, or a sum does not fit.
pub fn add_summed(section: &[u8], sums: &mut [u32]) -> Option<u64> {
    let (cells, more) = section.split_at_checked(sums.len())?;
    let (more, rest) = more.as_chunks::<MORE_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let mut counted = simd::add_cells(cells, sums)?;
    for [low, high, times @ ..] in more {
        let add = u32::from_le_bytes(*times).checked_mul(256)?;
        let sum = sums.get_mut(usize::from(u16::from_le_bytes([*low, *high])))?;
        *sum = sum.checked_add(add)?;
        counted += u64::from(add);
    }
    Some(counted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_are_the_counts_of_their_records(
            batches in prop::collection::vec((0..4usize, prop::collection::vec(0..8u16, 0..900)), 0..8),
        ) {
            let mut sums = Sums::new(2, 3);
            // Of the first round nothing is left for the second.
            for _ in 0..2 {
                let mut want = [[0u32; 8]; 4];
                for (stripe, lows) in &batches {
                    sums.add(*stripe, lows);
                    lows.iter().for_each(|low| want[*stripe][usize::from(*low)] += 1);
                }
                for (stripe, want) in want.iter().enumerate() {
                    let (mut section, mut found) = (Vec::new(), [0; 8]);
                    let counted = sums.take(stripe, &mut section);
                    prop_assert_eq!(counted, want.iter().sum::<u32>());
                    if !section.is_empty() {
                        prop_assert_eq!(add_summed(&section, &mut found), Some(counted.into()));
                        let more = section[8..].as_chunks::<MORE_BYTES>().0;
                        prop_assert!(more.is_sorted_by(|one, next| one[0] < next[0]), "each key once, in their order");
                    }
                    prop_assert_eq!(&found, want);
                }
            }
            prop_assert!(sums.is_empty());
        }

        #[test]
        fn damaged_sums_never_leave_the_stripe(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = add_summed(&bytes, &mut [0; 16]);
        }
    }

    #[test]
    fn damage_is_told() {
        let section = |more: &[u8]| [&[1, 2, 3, 255][..], more].concat();
        let mut sums = [0; 4];
        assert_eq!(add_summed(&section(&[2, 0, 1, 1, 0, 0]), &mut sums), Some(261 + 257 * 256));
        assert_eq!(sums, [1, 2, 3 + 257 * 256, 255]);
        assert_eq!(add_summed(&[1, 2, 3], &mut sums), None, "too few cells");
        assert_eq!(add_summed(&section(&[2, 0, 1, 0, 0]), &mut sums), None, "half a number");
        assert_eq!(add_summed(&section(&[4, 0, 1, 0, 0, 0]), &mut sums), None, "a key outside");
        assert_eq!(add_summed(&section(&[0, 0, 0, 0, 0, 1]), &mut sums), None, "a number that does not fit");
        assert_eq!(
            add_summed(&section(&[]), &mut [0, 0, 0, u32::MAX - 254]),
            None,
            "a sum that does not fit"
        );
        assert_eq!(
            add_summed(&section(&[1, 0, 1, 0, 0, 0]), &mut [0, u32::MAX - 256, 0, 0]),
            None,
            "likewise"
        );
    }
}
