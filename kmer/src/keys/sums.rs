//! The sums of many k-mers: how often each key is among them, in a byte where that is enough.
//!
//! ```text
//! a section of sums := cells more*
//!   cells  for each key of the stripe its count modulo 256, a byte
//!   more   the key's low bits, u16, and how many times 256 its count is besides, u32; in the order of keys, of those of which that is not 0
//! ```
//!
//! Counts in bytes are written as they lie, and added up many at a time.
//!
//! K-mers get there by fours, the *window* of four that begin at the first base of a byte: that is what four k-mers need to be taken out of packed bases, to
//! be looked at for repeats and to be put into a bucket, and a record of four bytes for all of them. The buckets are by the bases that all four have, so
//! each counts in a small table that stays near the processor (`simd/windows.rs`) before it is added to the counts of all keys.

use super::buckets::Buckets;
use super::fold::fold;
use super::row::{Row, SHORT};
use crate::pages::on_large_pages;
use crate::params::Params;
use crate::simd::{self, BucketCells, CELLS, Look, WINDOW};

/// Bytes of a count that a cell is too small for.
const MORE_BYTES: usize = 6;

/// Counts of all keys.
pub(super) struct Sums {
    params: Params,
    look: Box<Look>,
    windows: Buckets<u32>,
    /// What a bucket comes to, while it is counted.
    bucket: Box<BucketCells>,
    /// For each k-mer how often it was counted, modulo 256.
    cells: Vec<u8>,
    /// A k-mer for each time that its cell came to 256.
    wrapped: Vec<u32>,
    /// Of the wrapped ones the first so many are of stripes that were taken.
    taken: usize,
}

impl Sums {
    /// Nothing counted yet. The buckets of windows take `2^windows_bits` bytes: the more, the less often a bucket's cells are fetched.
    pub(super) fn new(params: Params, windows_bits: u32) -> Self {
        let mut windows = Buckets::new(simd::bucket_bits(params.k()), 1 << windows_bits);
        windows.on_large_pages();
        let mut cells = vec![0; 1 << (2 * params.k())];
        on_large_pages(&mut cells);
        Self {
            params,
            look: Box::default(),
            windows,
            bucket: Box::new([[0; CELLS]; WINDOW]),
            cells,
            wrapped: Vec::new(),
            taken: 0,
        }
    }

    /// Counts the first `count` k-mers of `packed`, a chunk at most, of the row at hand but for repeats. `alone`: they are all of it. Returns how many
    /// counted.
    pub(super) fn add(&mut self, packed: &[u8], count: usize, row: &mut Row, alone: bool) -> usize {
        self.look(packed, count);
        if alone && count <= SHORT && !row.may_repeat(&self.look) {
            return self.add_all(count);
        }
        let kept = row.take(packed, self.params, count);
        if kept == count {
            return self.add_all(count);
        }
        simd::put_some(&self.look, count, self.params.k(), |first| row.repeats(first), &mut self.windows);
        kept
    }

    /// Counts the first `count` k-mers of `packed`, a chunk at most.
    pub(super) fn add_occurrences(&mut self, packed: &[u8], count: usize) -> usize {
        self.look(packed, count);
        self.add_all(count)
    }

    fn look(&mut self, packed: &[u8], count: usize) {
        if self.windows.is_full() {
            self.count(false);
        }
        simd::look(packed, self.params, count, &mut self.look);
    }

    fn add_all(&mut self, count: usize) -> usize {
        simd::put_windows(&self.look, count, self.params.k(), &mut self.windows);
        count
    }

    /// Counts what is in full buckets, or in all.
    fn count(&mut self, all: bool) {
        let Self { params, windows, bucket: counts, cells, wrapped, .. } = self;
        windows.empty(all, |bucket, records| {
            let (bucket, k) = (bucket as u32, params.k());
            simd::count_windows(records, bucket, k, counts, wrapped);
            simd::add_bucket(bucket, k, counts, cells, wrapped);
        });
    }

    /// All that was added is counted, as what it counts as: now stripes can be taken.
    pub(super) fn finish(&mut self) {
        self.count(true);
        if self.params.canonical() {
            let canonical = |kmer: &mut u32| *kmer = self.params.counted_as(u64::from(*kmer)) as u32;
            self.wrapped.iter_mut().for_each(canonical);
            fold(&mut self.cells, self.params.k(), &mut self.wrapped);
        }
        self.wrapped.sort_unstable();
        self.taken = 0;
    }

    /// Writes the section of the next stripe, whose keys have `low_bits` bits besides, behind what `out` has, nothing where nothing was counted, and
    /// forgets its sums. Returns what they come to. Stripes are taken in their order, after [`Sums::finish`].
    pub(super) fn take(&mut self, stripe: usize, low_bits: u32, out: &mut Vec<u8>) -> u32 {
        let first = stripe << low_bits;
        let cells = &mut self.cells[first..first + (1 << low_bits)];
        let wrapped = &self.wrapped[self.taken..];
        let wrapped = &wrapped[..wrapped.partition_point(|kmer| (kmer >> low_bits) as usize <= stripe)];
        self.taken += wrapped.len();
        let counted = cells.iter().map(|cell| u32::from(*cell)).sum::<u32>() + 256 * wrapped.len() as u32;
        if counted == 0 {
            return 0;
        }
        out.extend_from_slice(cells);
        cells.fill(0);
        for times in wrapped.chunk_by(|one, next| one == next) {
            let low = times[0] & ((1 << low_bits) - 1);
            out.extend((low as u16).to_le_bytes());
            out.extend((times.len() as u32).to_le_bytes());
        }
        counted
    }

    /// Forgets all that was added and not taken.
    pub(super) fn clear(&mut self) {
        self.windows.clear();
        self.cells.fill(0);
        self.forget();
    }

    /// Forgets what wrapped, after all stripes were taken.
    pub(super) fn forget(&mut self) {
        self.wrapped.clear();
        self.taken = 0;
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
