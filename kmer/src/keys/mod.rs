//! Sorts k-mers of few bits by stripe, each as the two bytes that its stripe leaves of it: no minimizer, no hash.
//!
//! A stripe is a range of keys here, of at most 2^16, and a record is a key less the stripe's first:
//!
//! ```text
//! a section of records := record*      record: the key's low bits, u16, little-endian
//! ```
//!
//! A unit with more k-mers than there are keys is better written as its sums (`sums.rs`): then only a byte for each key gets into shared memory, once a
//! unit, and k-mers are sorted four at a time.
//!
//! A row's repeats are left out before, so a drain counts with a place for each key of the stripe and asks no questions. Short rows, reads, are
//! searched for repeats through a table of stamps: where a key's place has the stamp of this row already, the row's keys so far are looked through.
//! Longer rows have a bit for every key there can be.

mod buckets;
mod fold;
mod row;
pub(crate) mod streams;
mod sums;

pub use sums::add_summed;

use crate::bases::Bases;
use crate::params::Params;
use crate::simd;
use crate::superkmer::{LeftOut, Section, Share};
use buckets::Buckets;
use row::Row;
use sums::Sums;

/// Keys of more bits than this are not sorted this way: with more stripes than 2^8 sections get short, and at k = 13 nothing was gained.
pub const MAX_KEY_BITS: u32 = 24;
/// Bits of a record.
pub const RECORD_BITS: u32 = 16;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 2;

/// k-mers that are extracted at a time.
pub(crate) const CHUNK: usize = 512;
/// Bytes of buckets, all together.
const ROOM: usize = 1 << 22;
/// k-mers after which sums are written even if the unit goes on: a section's number of them has 32 bits.
const MOST_SUMMED: u64 = 1 << 28;

/// Whether keys of `params` are sorted this way: there are too many to be counted in every unit, but not by far.
pub const fn suits(params: Params) -> bool {
    let bits = params.key_bits();
    params.occur_bitlen() == 0 && bits > crate::direct::MAX_KEY_BITS && bits <= MAX_KEY_BITS
}

/// The fewest stripes, as a power of two, so that a record holds what they leave of a key.
pub const fn least_stripe_bits(params: Params) -> u32 {
    params.key_bits().saturating_sub(RECORD_BITS)
}

/// Bytes of memory that a sorter of sums has, and what it writes at a time.
pub const fn summed_bytes(params: Params) -> u64 {
    sums::ROOM as u64 + 2 * (1 << params.key_bits())
}

/// Sorts; keeps its memory from batch to batch.
pub struct KeySorter {
    params: Params,
    /// Bits of a key below its stripe.
    low_bits: u32,
    occurrences: bool,
    share: Share,
    row: Row,
    kept: Kept,
    /// Of each stripe, k-mers of another pass since the last batch.
    passed_over: Vec<u32>,
    sections: Vec<Section>,
    left_out: LeftOut,
    repeats: u64,
    /// k-mers taken since the last batch.
    taken: u64,
}

/// What became of the keys that were taken.
enum Kept {
    /// They are in their stripes' buckets.
    Keys(Buckets),
    /// They are counted.
    Sums(Box<Sums>),
}

impl KeySorter {
    /// A sorter for `2^stripe_bits` stripes; with `occurrences` repeats stay, and with `summed` units are written as sums. `None` when keys of `params` do
    /// not suit, or stripes are too wide.
    pub fn new(params: Params, stripe_bits: u32, occurrences: bool, summed: bool) -> Option<Self> {
        if !suits(params) || !(least_stripe_bits(params)..=params.key_bits()).contains(&stripe_bits) {
            return None;
        }
        let buckets = || Kept::Keys(Buckets::new(stripe_bits, ROOM));
        Some(Self {
            params,
            low_bits: params.key_bits() - stripe_bits,
            occurrences,
            share: Share::default(),
            row: Row::new(params.key_bits()),
            kept: if summed { Kept::Sums(Box::new(Sums::new(params))) } else { buckets() },
            passed_over: vec![0; 1 << stripe_bits],
            sections: vec![Section::default(); 1 << stripe_bits],
            left_out: LeftOut::default(),
            repeats: 0,
            taken: 0,
        })
    }

    /// Begins a unit, of which `share` is to be written. Its row numbers start above 0.
    pub fn begin_unit(&mut self, share: Share) {
        (self.share, self.left_out, self.repeats) = (share, LeftOut::default(), 0);
        self.passed_over.fill(0);
        // An earlier unit may have ended early.
        match &mut self.kept {
            Kept::Keys(buckets) => buckets.clear(),
            Kept::Sums(sums) if self.taken > 0 => sums.clear(),
            Kept::Sums(_) => {}
        }
        self.taken = 0;
        self.row.begin(0);
    }

    /// k-mers of this unit so far that were not written, being of another share.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// k-mers of this unit so far that were not written, being repeats in their row.
    pub fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Takes the runs of `bases`. Whenever there is enough for a batch, `batch` is called, which must call [`KeySorter::write`].
    ///
    /// # Errors
    /// What `batch` returns.
    pub fn add<E>(
        &mut self,
        bases: &Bases,
        mut batch: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        for (at, run) in bases.runs().iter().enumerate() {
            let begins = run.row != self.row.number;
            if begins {
                self.row.begin(run.row);
            }
            let kmers = (run.len - self.params.k() + 1) as usize;
            // What comes after the last run of the buffer is not known yet.
            let ends = bases.runs().get(at + 1).is_some_and(|next| next.row != run.row);
            let alone = begins && ends && kmers <= CHUNK;
            for first in (0..kmers).step_by(CHUNK) {
                if self.is_full() {
                    batch(self)?;
                }
                let packed = &bases.packed()[(run.start as usize + first) / 4..];
                self.take(packed, (kmers - first).min(CHUNK), alone);
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.taken >= MOST_SUMMED || matches!(&self.kept, Kept::Keys(buckets) if buckets.is_full())
    }

    /// Takes the first `count` k-mers of `packed`, which are of the row at hand, and `alone` in it, but for repeats.
    fn take(&mut self, packed: &[u8], count: usize, alone: bool) {
        self.taken += count as u64;
        let kept = match (&mut self.kept, self.occurrences) {
            (Kept::Sums(sums), false) => sums.add(packed, count, &mut self.row, alone),
            (Kept::Sums(sums), true) => sums.add_occurrences(packed, count),
            (Kept::Keys(_), occurrences) => self.put(packed, count, occurrences),
        };
        self.repeats += (count - kept) as u64;
    }

    /// Puts k-mers into their stripes' buckets.
    fn put(&mut self, packed: &[u8], count: usize, occurrences: bool) -> usize {
        let Kept::Keys(buckets) = &mut self.kept else { return 0 };
        let (row, low_bits) = (&mut self.row, self.low_bits);
        let from = row.len;
        let kept = if occurrences {
            row.extract(packed, self.params, count);
            count
        } else {
            row.take(packed, self.params, count)
        };
        let keys = &row.keys[from..from + kept];
        let mut put = |keys: &[u32]| {
            buckets.put(|filled, records, room_bits| {
                simd::into_buckets(keys, (low_bits, room_bits), filled, records)
            });
        };
        if self.share.pass_bits == 0 {
            put(keys);
            return kept;
        }
        // Those of other passes are left out in a copy: they stay keys of the row.
        let (mut chunk, mut written) = ([0; CHUNK], 0);
        for key in keys {
            let (stripe, is_written) = (key >> low_bits, self.share.writes(key >> low_bits));
            chunk[written] = *key;
            written += usize::from(is_written);
            self.passed_over[stripe as usize] += u32::from(!is_written);
        }
        put(&chunk[..written]);
        self.left_out.pass += (kept - written) as u64;
        kept
    }

    /// Whether there is nothing to write yet: no record, and no key of another pass to tell of.
    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Writes the records so far, or their sums, behind what `out` has, sorted by stripe. The sections, one a stripe, say where; their offsets count from
    /// the old end.
    pub fn write(&mut self, out: &mut Vec<u8>) -> &[Section] {
        let from = out.len();
        let Self { kept, sections, passed_over, share, .. } = self;
        if let Kept::Sums(sums) = kept {
            sums.finish();
        }
        for (stripe, section) in sections.iter_mut().enumerate() {
            let at = out.len();
            let kmers = match kept {
                Kept::Sums(sums) => {
                    let counted = sums.take(stripe, self.low_bits, out);
                    if share.writes(stripe as u32) {
                        counted
                    } else {
                        // Of another pass: counted for nothing.
                        out.truncate(at);
                        passed_over[stripe] = counted;
                        self.left_out.pass += u64::from(counted);
                        0
                    }
                }
                Kept::Keys(buckets) => {
                    let records = buckets.of(stripe);
                    out.extend(records.iter().flat_map(|record| record.to_le_bytes()));
                    records.len() as u32
                }
            };
            // A key is in no more rows than there are records, in this pass or another.
            let rows = kmers.saturating_add(passed_over[stripe]);
            *section = Section { offset: (at - from) as u32, bytes: (out.len() - at) as u32, kmers, rows };
        }
        match kept {
            Kept::Keys(buckets) => buckets.clear(),
            Kept::Sums(sums) => sums.forget(),
        }
        self.passed_over.fill(0);
        self.taken = 0;
        &self.sections
    }
}

/// Adds the records of a stripe to `sums`, a cell for each key of the stripe. Returns how many there were.
///
/// `None` when the records are damaged: half a record, a key outside of the stripe, a sum that does not fit.
pub fn add_stripe(records: &[u8], sums: &mut [u32]) -> Option<u64> {
    let (whole, rest) = records.as_chunks::<RECORD_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let mut full = false;
    for record in whole {
        let sum = sums.get_mut(usize::from(u16::from_le_bytes(*record)))?;
        *sum = sum.wrapping_add(1);
        // One question for all records instead of one for each.
        full |= *sum == 0;
    }
    (!full).then_some(whole.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bases::{Run, kmers_of};
    use crate::codec::{pack_dna2, parse_kmer};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashSet};

    /// The oracle: a set a row, or every k-mer.
    fn naive(rows: &[Vec<u8>], params: Params, occurrences: bool) -> BTreeMap<u64, u32> {
        let mut counts = BTreeMap::new();
        for row in rows {
            let kmers: Vec<u64> = row
                .windows(params.k() as usize)
                .filter_map(parse_kmer)
                .map(|kmer| params.counted_as(kmer))
                .collect();
            let once: HashSet<u64> = kmers.iter().copied().collect();
            let each = if occurrences { kmers } else { once.into_iter().collect() };
            each.into_iter().for_each(|kmer| *counts.entry(kmer).or_default() += 1);
        }
        counts
    }

    /// What the sorter's batches come to, over all passes.
    fn counted(
        rows: &[Vec<u8>],
        params: Params,
        (stripe_bits, pass_bits, occurrences, summed): (u32, u32, bool, bool),
        piece: usize,
    ) -> BTreeMap<u64, u32> {
        let mut sorter = KeySorter::new(params, stripe_bits, occurrences, summed).expect("suits");
        let width = 1usize << (params.key_bits() - stripe_bits);
        let mut counts = BTreeMap::new();
        for pass in 0..1 << pass_bits {
            sorter.begin_unit(Share { pass_bits, pass, ..Share::default() });
            let (mut delivered, mut pushed, mut told) = (0, 0, 0);
            let mut store = |sorter: &mut KeySorter| {
                let mut out = b"before".to_vec();
                let sections = sorter.write(&mut out).to_vec();
                let add = if summed { add_summed } else { add_stripe };
                for (stripe, section) in sections.iter().enumerate().filter(|(_, section)| section.rows > 0) {
                    let from = 6 + section.offset as usize;
                    told += u64::from(section.rows);
                    delivered += u64::from(section.kmers);
                    let mut sums = vec![0; width];
                    let bytes = &out[from..from + section.bytes as usize];
                    if !bytes.is_empty() {
                        assert_eq!(add(bytes, &mut sums), Some(section.kmers.into()));
                    }
                    for (key, sum) in (stripe * width..).zip(sums).filter(|(_, sum)| *sum > 0) {
                        *counts.entry(key as u64).or_default() += sum;
                    }
                }
                Ok::<(), ()>(())
            };
            for (number, row) in rows.iter().enumerate() {
                // Rows in pieces that overlap, as long ones are, and a batch sorted in the middle of a row.
                let step = piece.max(params.k() as usize) - params.k() as usize + 1;
                for from in (0..row.len()).step_by(step) {
                    let part = &row[from..row.len().min(from + step + params.k() as usize - 1)];
                    let mut bases = Bases::new(params);
                    bases.push_dna2(number as u32 + 1, part.len() as u64, &pack_dna2(part).expect("ACGT"), 0);
                    pushed += bases.counts().kmers;
                    sorter.add(&bases, &mut store).expect("stores");
                    if from % 2 == 1 {
                        store(&mut sorter).expect("stores");
                    }
                }
            }
            store(&mut sorter).expect("stores");
            assert_eq!(pushed, delivered + sorter.repeats() + sorter.left_out().pass);
            assert_eq!(told, delivered + sorter.left_out().pass);
        }
        counts
    }

    /// What rows that lie side by side come to, as sums.
    fn summed(rows: &[Vec<u8>], params: Params, occurrences: bool) -> BTreeMap<u64, u32> {
        let mut bases = Bases::new(params);
        for (number, row) in (1..).zip(rows) {
            bases.push_dna2(number, row.len() as u64, &pack_dna2(row).expect("ACGT"), 0);
        }
        let stripe_bits = least_stripe_bits(params);
        let mut sorter = KeySorter::new(params, stripe_bits, occurrences, true).expect("suits");
        sorter.begin_unit(Share::default());
        sorter.add(&bases, |_| Err("there is room")).expect("no batch");
        let mut out = Vec::new();
        let sections = sorter.write(&mut out).to_vec();
        let width = 1usize << (params.key_bits() - stripe_bits);
        let mut counts = BTreeMap::new();
        for (stripe, section) in sections.iter().enumerate().filter(|(_, section)| section.bytes > 0) {
            let mut sums = vec![0; width];
            let bytes = &out[section.offset as usize..(section.offset + section.bytes) as usize];
            assert_eq!(add_summed(bytes, &mut sums), Some(section.kmers.into()));
            counts.extend((stripe as u64 * width as u64..).zip(sums).filter(|(_, sum)| *sum > 0));
        }
        counts
    }

    fn reverse_complement(bases: &[u8]) -> Vec<u8> {
        let other = |base: &u8| match base {
            b'A' => b'T',
            b'C' => b'G',
            b'G' => b'C',
            _ => b'A',
        };
        bases.iter().rev().map(other).collect()
    }

    /// Two stretches: the first k bases of one are its last ones as well, `distance` on, and of the other the reverse complement of its last ones.
    fn stretches(mut bases: impl FnMut(usize) -> Vec<u8>, k: usize, distance: usize) -> [Vec<u8>; 2] {
        let mut again = bases(distance);
        (0..k).for_each(|at| again.push(again[at]));
        let first = bases(if distance < k { (k + distance).div_ceil(2) } else { k });
        let turned = [&first[..], &bases(distance.saturating_sub(k)), &reverse_complement(&first)].concat();
        [again, turned]
    }

    fn rows(letters: &'static [u8], longest: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(prop::sample::select(letters), 0..longest), 0..12)
    }

    proptest! {
        #[test]
        fn counts_rows_and_occurrences_like_the_oracle(
            mut rows in rows(b"ACGT", 200), repetitive in rows(b"AAAAAC", 900), long in rows(b"ACGT", 3000),
            k in 11..=12u32, canonical: bool, occurrences: bool, more in 0..3u32, pass_bits in 0..3u32, piece in 20..4000usize,
        ) {
            rows.extend(repetitive);
            rows.extend(long);
            let doubled: Vec<Vec<u8>> = rows.iter().take(3).map(|row| [&row[..], row].concat()).collect();
            rows.extend(doubled);
            let params = Params::new(k, 0).unwrap().with_canonical(canonical);
            let how = (least_stripe_bits(params) + more, pass_bits, occurrences, false);
            prop_assert_eq!(counted(&rows, params, how, piece), naive(&rows, params, occurrences));
        }

        #[test]
        fn extracts_like_base_by_base(bytes in prop::collection::vec(any::<u8>(), 200), k in 4..=13u32, first in 0..20usize, canonical: bool) {
            let params = Params::new(k, 0).unwrap().with_canonical(canonical);
            let run = Run { start: first as u32 * 4, len: 400 + k - 1, row: 1 };
            let want: Vec<u32> = kmers_of(&bytes, &run, params).map(|kmer| params.counted_as(kmer) as u32).collect();
            let mut got = vec![0; 400];
            simd::keys(&bytes[first..], params, &mut got);
            prop_assert_eq!(got, want);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..Default::default() })]
        #[test]
        fn sums_are_those_of_the_oracle(
            rows in rows(b"ACGT", 900), repetitive in prop::collection::vec(prop::sample::select(&b"AAAAAAC"[..]), 90_000..180_000),
            k in 11..=12u32, canonical: bool, occurrences: bool, more in 0..2u32, pass_bits in 0..2u32,
        ) {
            // Of one stripe's keys there are more than its bucket has room for, and of some of them more than a cell can count.
            let mut all: Vec<Vec<u8>> = repetitive.chunks(100).map(<[u8]>::to_vec).collect();
            all.extend(rows);
            all.push(repetitive);
            let params = Params::new(k, 0).unwrap().with_canonical(canonical);
            let how = (least_stripe_bits(params) + more, pass_bits, occurrences, true);
            prop_assert_eq!(counted(&all, params, how, 1 << 24), naive(&all, params, occurrences));
        }
    }

    #[test]
    fn repeats_at_every_distance_are_found() {
        let mut state = 1u64;
        let mut bases = |count: usize| -> Vec<u8> {
            let mut base = |_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                b"ACGT"[(state >> 62) as usize]
            };
            (0..count).map(&mut base).collect()
        };
        for (k, canonical) in [(11, false), (11, true), (12, false), (12, true)] {
            let params = Params::new(k, 0).expect("in range").with_canonical(canonical);
            let mut rows = Vec::new();
            for (first, distance) in (0..8).flat_map(|first| (1..40).map(move |distance| (first, distance))) {
                for stretch in stretches(&mut bases, k as usize, distance) {
                    rows.push([bases(first % 4), stretch, bases(first / 4 * 20)].concat());
                }
            }
            let counted = summed(&rows, params, false);
            assert!(counted == naive(&rows, params, false), "k = {k}, canonical: {canonical}");
            assert!(counted != naive(&rows, params, true), "there are repeats");
        }
    }

    proptest! {
        #[test]
        fn rows_side_by_side_are_counted_like_the_oracle(
            rows in rows(b"ACGT", 600), few in rows(b"AAAT", 60), k in 11..=12u32, canonical: bool, occurrences: bool,
        ) {
            let params = Params::new(k, 0).unwrap().with_canonical(canonical);
            let rows = [rows, few].concat();
            prop_assert_eq!(summed(&rows, params, occurrences), naive(&rows, params, occurrences));
        }
    }

    #[test]
    fn many_batches_of_one_row_count_each_key_once() {
        let params = Params::new(11, 0).expect("in range");
        let row: Vec<u8> = (0..3 * ROOM as u64 / 2)
            .map(|i| b"ACGT"[(i.wrapping_mul(i ^ 0x9e37_79b9_7f4a_7c15) >> 61) as usize & 3])
            .collect();
        let rows = vec![row, b"ACGTACGTACGTTTGA".to_vec()];
        let want = naive(&rows, params, false);
        assert_eq!(counted(&rows, params, (6, 0, false, false), 1 << 24), want);
        assert_eq!(counted(&rows, params, (6, 0, false, true), 1 << 24), want);
    }

    #[test]
    fn what_does_not_suit_is_refused() {
        let params = |k, bits| Params::new(k, bits).expect("in range");
        assert!(KeySorter::new(params(10, 0), 8, false, false).is_none());
        assert!(KeySorter::new(params(13, 0), 12, false, false).is_none());
        assert!(KeySorter::new(params(11, 1), 8, false, false).is_none());
        assert!(KeySorter::new(params(12, 0), 7, false, false).is_none());
    }

    #[test]
    fn damaged_records_are_told() {
        let mut sums = [u32::MAX, 0, 0, 0];
        assert_eq!(add_stripe(&[1, 0, 3], &mut sums), None);
        assert_eq!(add_stripe(&[4, 0], &mut sums), None);
        assert_eq!(add_stripe(&[0, 0], &mut sums), None);
        assert_eq!(add_stripe(&[1, 0, 3, 0, 1, 0], &mut sums), Some(3));
        assert_eq!(sums[1..], [2, 0, 1]);
    }
}
