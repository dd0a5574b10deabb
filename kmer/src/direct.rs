//! Counts k-mers of few bits where they are met, in a table with a place for each key: no super-k-mers, no hash.
//!
//! For keys of up to [`MAX_KEY_BITS`] bits a unit of blocks has many k-mers for each key, so what a unit publishes is its sums: for each
//! stripe, which is a range of keys here, the keys that occurred and in how many rows, as differences:
//!
//! ```text
//! a record: key less the one before it less 1 (LEB128; the first: less the stripe's first key), row count (LEB128)
//! ```
//!
//! Sums of different units add up, since a row lies in one unit.

use crate::bases::Bases;
use crate::params::Params;
use crate::simd;

/// Keys of more bits than this are not counted directly.
pub const MAX_KEY_BITS: u32 = 20;

/// k-mers that are extracted at a time.
const CHUNK: usize = 512;

/// Rows that cells tell apart; then all are moved to the sums.
const STAMPS: u32 = u16::MAX as u32;

/// The stamp of the row that had a key last in the high half, in how many of the last rows it was in the low half: one load and one store for each
/// k-mer, and half as many lines of the cache as two numbers of 32 bits take. Stamps grow from row to row, so one comparison tells whether the row
/// is a new one.
#[derive(Clone, Copy, Default)]
struct Cell(u32);

impl Cell {
    #[inline(always)]
    fn rows(self) -> u32 {
        self.0 & 0xffff
    }

    #[inline(always)]
    fn last_row(self) -> u32 {
        self.0 >> 16
    }

    /// Counts the row with this stamp, no less than that of any row before it, unless it was the last one.
    #[inline(always)]
    fn count(&mut self, stamp: u32) {
        let first = stamp << 16;
        let counted = self.rows() + first + 1;
        // Chosen, not branched on.
        self.0 = if self.0 >= first { self.0 } else { counted };
    }
}

/// Row counts of a unit, for each key.
pub struct DirectCounter {
    params: Params,
    cells: Vec<Cell>,
    /// What was moved out of the cells, or every occurrence.
    sums: Vec<u32>,
    nth: Vec<u32>,
    kmers: u64,
    occurrences: bool,
    /// The row at hand, and its stamp, which is above 0.
    row: u32,
    stamp: u32,
}

impl DirectCounter {
    /// An empty counter; `None` when keys have too many bits. With `occurrences` every occurrence counts, not every row.
    pub fn new(params: Params, occurrences: bool) -> Option<Self> {
        if params.key_bits() > MAX_KEY_BITS {
            return None;
        }
        let nth = if params.occur_bitlen() > 0 { vec![0; 1 << (2 * params.k())] } else { Vec::new() };
        let (cells, sums) = (vec![Cell::default(); 1 << params.key_bits()], vec![0; 1 << params.key_bits()]);
        Some(Self { params, cells, sums, nth, kmers: 0, occurrences, row: 0, stamp: 0 })
    }

    /// Counts the runs of `bases`. Row numbers start above 0 and are not used again before [`DirectCounter::take`].
    pub fn add(&mut self, bases: &Bases) {
        // To clear as much for each row takes longer than to extract its k-mers.
        let mut keys = [0; CHUNK];
        for run in bases.runs() {
            if run.row != self.row {
                self.begin(run.row);
            }
            let kmers = (run.len - self.params.k() + 1) as usize;
            self.kmers += kmers as u64;
            for first in (0..kmers).step_by(CHUNK) {
                let (count, byte) = ((kmers - first).min(CHUNK), (run.start as usize + first) / 4);
                let whole = count.next_multiple_of(simd::KEYS_AT_A_TIME);
                simd::keys(&bases.packed()[byte..], self.params, &mut keys[..whole]);
                self.count(&keys[..count]);
            }
        }
    }

    /// Gives row `row` a stamp that no cell has.
    fn begin(&mut self, row: u32) {
        if self.stamp == STAMPS {
            self.move_cells();
        }
        (self.row, self.stamp) = (row, self.stamp + 1);
    }

    /// Adds what the cells have to the sums.
    fn move_cells(&mut self) {
        for (sum, cell) in self.sums.iter_mut().zip(&mut self.cells) {
            *sum += std::mem::take(cell).rows();
        }
        self.stamp = 0;
    }

    fn count(&mut self, kmers: &[u32]) {
        if self.params.occur_bitlen() > 0 {
            kmers.iter().for_each(|kmer| self.add_nth(*kmer));
        } else if self.occurrences {
            let sums = &mut self.sums[..];
            each(kmers, |kmer| sums[kmer as usize] += 1);
        } else {
            let (cells, stamp) = (&mut self.cells[..], self.stamp);
            each(kmers, |kmer| cells[kmer as usize].count(stamp));
        }
    }

    fn add_nth(&mut self, kmer: u32) {
        let bits = self.params.occur_bitlen();
        let first = (kmer << bits) as usize;
        let seen = &mut self.nth[kmer as usize];
        if self.cells[first].last_row() != self.stamp {
            *seen = 0;
        }
        if *seen < 1 << bits {
            self.cells[first + *seen as usize].count(self.stamp);
            *seen += 1;
        }
    }

    /// Writes the records of stripe `stripe` of `2^stripe_bits` to `out`: how many keys, and the sum of their row counts.
    ///
    /// # Panics
    /// When a stripe would be less than one key.
    pub fn write_stripe(&self, stripe: usize, stripe_bits: u32, out: &mut Vec<u8>) -> (u64, u64) {
        let width = 1usize << (self.params.key_bits() - stripe_bits);
        let (mut next, mut keys, mut sum) = (0, 0, 0);
        let here = stripe * width..(stripe + 1) * width;
        for (place, (cell, moved)) in self.cells[here.clone()].iter().zip(&self.sums[here]).enumerate() {
            let rows = moved + cell.rows();
            if rows > 0 {
                write_number((place - next) as u32, out);
                write_number(rows, out);
                (next, keys, sum) = (place + 1, keys + 1, sum + u64::from(rows));
            }
        }
        (keys, sum)
    }

    /// k-mers counted since the last [`DirectCounter::take`], repeats in a row included.
    pub fn kmers(&self) -> u64 {
        self.kmers
    }

    /// Whether every k-mer counts, so that the sum of all cells is their number.
    pub fn counts_all(&self) -> bool {
        self.occurrences && self.params.occur_bitlen() == 0
    }

    /// k-mers counted since the last call, repeats in a row included; empties the counter.
    pub fn take(&mut self) -> u64 {
        self.cells.fill(Cell::default());
        self.sums.fill(0);
        (self.row, self.stamp) = (0, 0);
        std::mem::take(&mut self.kmers)
    }
}

/// Takes every k-mer, eight in a round: going round takes longer than counting otherwise.
#[inline(always)]
fn each(kmers: &[u32], mut take: impl FnMut(u32)) {
    let (eights, rest) = kmers.as_chunks::<8>();
    for eight in eights {
        for kmer in eight {
            take(*kmer);
        }
    }
    rest.iter().for_each(|kmer| take(*kmer));
}

fn write_number(mut number: u32, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0u32;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Adds the records of a stripe to `sums`, a cell for each key of the stripe. Returns the sum of the row counts that were read.
///
/// `None` when the records are damaged: a key outside of the stripe, a number that does not end, a sum that does not fit.
pub fn add_stripe(mut records: &[u8], sums: &mut [u32]) -> Option<u64> {
    let (mut next, mut total) = (0usize, 0u64);
    while !records.is_empty() {
        let place = next.checked_add(read_number(&mut records)? as usize)?;
        let rows = read_number(&mut records)?;
        let sum = sums.get_mut(place)?;
        *sum = sum.checked_add(rows)?;
        total += u64::from(rows);
        next = place + 1;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{pack_dna2, parse_kmer};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashMap, HashSet};

    /// The oracle: numbered occurrences, a set a row.
    fn naive(rows: &[Vec<u8>], k: usize, bits: u32) -> BTreeMap<u64, u32> {
        let mut counts = BTreeMap::new();
        for row in rows {
            let mut seen: HashMap<u64, u64> = HashMap::new();
            let mut keys = HashSet::new();
            for kmer in row.windows(k).map(|w| parse_kmer(w).expect("ACGT")) {
                let n = seen.entry(kmer).or_default();
                if *n < 1 << bits {
                    keys.insert(kmer << bits | *n);
                }
                *n += 1;
            }
            keys.into_iter().for_each(|key| *counts.entry(key).or_default() += 1);
        }
        counts
    }

    proptest! {
        #[test]
        fn sums_of_units_are_the_counts_of_all_rows(
            rows in prop::collection::vec(prop::collection::vec(prop::sample::select(&b"AACGT"[..]), 0..90), 0..20),
            k in 4..=8u32, bits in 0..=3u32, stripe_bits in 0..=4u32, units in 1..4usize,
        ) {
            let params = Params::new(k, bits).unwrap();
            let mut counter = DirectCounter::new(params, false).unwrap();
            let mut sums = vec![0; 1 << params.key_bits()];
            for unit in rows.chunks(rows.len().div_ceil(units).max(1)) {
                let mut bases = Bases::new(params);
                for (i, row) in unit.iter().enumerate() {
                    bases.push_dna2(i as u32 + 1, row.len() as u64, &pack_dna2(row).unwrap());
                }
                counter.add(&bases);
                let width = sums.len() >> stripe_bits;
                for stripe in 0..1 << stripe_bits {
                    let mut out = Vec::new();
                    let (_, sum) = counter.write_stripe(stripe, stripe_bits, &mut out);
                    prop_assert_eq!(add_stripe(&out, &mut sums[stripe * width..(stripe + 1) * width]), Some(sum));
                }
                prop_assert_eq!(counter.take(), bases.counts().kmers);
            }
            let got: BTreeMap<u64, u32> = sums.iter().enumerate().filter(|(_, n)| **n > 0).map(|(k, n)| (k as u64, *n)).collect();
            prop_assert_eq!(got, naive(&rows, k as usize, bits));
        }

        #[test]
        fn damaged_records_never_leave_the_stripe(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = add_stripe(&bytes, &mut [0; 16]);
        }
    }

    #[test]
    fn a_unit_may_have_more_rows_than_there_are_stamps() {
        let (params, row) = (Params::new(4, 1).expect("in range"), b"ACGTACGTTT");
        let (packed, rows) = (pack_dna2(row).expect("ACGT"), 2 * STAMPS + 7);
        let mut counter = DirectCounter::new(params, false).expect("in range");
        for first in (1..=rows).step_by(1 << 15) {
            let mut bases = Bases::new(params);
            (first..=rows)
                .take(1 << 15)
                .for_each(|number| bases.push_dna2(number, row.len() as u64, &packed));
            counter.add(&bases);
        }
        let (mut out, mut sums) = (Vec::new(), vec![0; 1 << params.key_bits()]);
        counter.write_stripe(0, 0, &mut out);
        let found = add_stripe(&out, &mut sums);
        let want = naive(&[row.to_vec()], 4, 1);
        assert_eq!(found, Some(want.len() as u64 * u64::from(rows)));
        assert!(want.iter().all(|(key, _)| sums[*key as usize] == rows));
        assert_eq!(counter.take(), 7 * u64::from(rows));
        assert_eq!(counter.write_stripe(0, 0, &mut out), (0, 0), "nothing is left for the next unit");
    }
}
