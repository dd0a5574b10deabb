//! Sorts k-mers of few bits by stripe, each as the two bytes that its stripe leaves of it: no minimizer, no hash.
//!
//! A stripe is a range of keys here, of at most 2^16, and a record is a key less the stripe's first:
//!
//! ```text
//! a record: the key's low bits, u16, little-endian
//! ```
//!
//! A row's repeats are left out before, so a drain counts with a place for each key of the stripe and asks no questions. Short rows, reads, are
//! searched for repeats through a table of stamps: where a key's place has the stamp of this row already, the row's keys so far are looked through.
//! Longer rows have a bit for every key there can be.

mod row;

use crate::bases::Bases;
use crate::params::Params;
use crate::simd;
use crate::superkmer::{LeftOut, Section, Share};
use row::Row;

/// Keys of more bits than this are not sorted this way: with more stripes than 2^8 sections get short, and at k = 13 nothing was gained.
pub const MAX_KEY_BITS: u32 = 24;
/// Bits of a record.
pub const RECORD_BITS: u32 = 16;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 2;

/// k-mers that are extracted at a time.
const CHUNK: usize = 512;
/// Records that buckets have room for, all together.
const ROOM: usize = 1 << 21;
/// The least room of a bucket: what one chunk can bring, twice.
const LEAST_ROOM: usize = 2 * CHUNK;

/// Whether keys of `params` are sorted this way: there are too many to be counted in every unit, but not by far.
pub const fn suits(params: Params) -> bool {
    let bits = params.key_bits();
    params.occur_bitlen() == 0 && bits > crate::direct::MAX_KEY_BITS && bits <= MAX_KEY_BITS
}

/// The fewest stripes, as a power of two, so that a record holds what they leave of a key.
pub const fn least_stripe_bits(params: Params) -> u32 {
    params.key_bits().saturating_sub(RECORD_BITS)
}

/// Sorts; keeps its memory from batch to batch.
pub struct KeySorter {
    params: Params,
    occurrences: bool,
    share: Share,
    row: Row,
    buckets: Buckets,
    sections: Vec<Section>,
    left_out: LeftOut,
    repeats: u64,
}

/// A bucket of records a stripe, of the same room each.
struct Buckets {
    /// Bits of a key below its stripe.
    low_bits: u32,
    room_bits: u32,
    records: Vec<[u8; RECORD_BYTES]>,
    /// Records in each.
    filled: Vec<u32>,
    /// Keys of another pass, which are counted and not kept.
    passed_over: Vec<u32>,
    /// A bucket may have no room for another chunk.
    is_full: bool,
}

impl KeySorter {
    /// A sorter for `2^stripe_bits` stripes; with `occurrences` repeats stay. `None` when keys of `params` do not suit, or stripes are too wide.
    pub fn new(params: Params, stripe_bits: u32, occurrences: bool) -> Option<Self> {
        if !suits(params) || !(least_stripe_bits(params)..=params.key_bits()).contains(&stripe_bits) {
            return None;
        }
        Some(Self {
            params,
            occurrences,
            share: Share::default(),
            row: Row::new(params.key_bits()),
            buckets: Buckets::new(stripe_bits, params.key_bits() - stripe_bits),
            sections: vec![Section::default(); 1 << stripe_bits],
            left_out: LeftOut::default(),
            repeats: 0,
        })
    }

    /// Begins a unit, of which `share` is to be written. Its row numbers start above 0.
    pub fn begin_unit(&mut self, share: Share) {
        (self.share, self.left_out, self.repeats) = (share, LeftOut::default(), 0);
        self.buckets.clear();
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

    /// Takes the runs of `bases`. Whenever a bucket may be full, `batch` is called, which must call [`KeySorter::write`].
    ///
    /// # Errors
    /// What `batch` returns.
    pub fn add<E>(
        &mut self,
        bases: &Bases,
        mut batch: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        for run in bases.runs() {
            if run.row != self.row.number {
                self.row.begin(run.row);
            }
            let kmers = (run.len - self.params.k() + 1) as usize;
            for first in (0..kmers).step_by(CHUNK) {
                if self.buckets.is_full {
                    batch(self)?;
                }
                self.take(&bases.packed()[(run.start as usize + first) / 4..], (kmers - first).min(CHUNK));
            }
        }
        Ok(())
    }

    /// Puts the first `count` k-mers of `packed`, which are of the row at hand, into their buckets, but for repeats.
    fn take(&mut self, packed: &[u8], count: usize) {
        let row = &mut self.row;
        let from = row.len;
        let whole = count.next_multiple_of(simd::KEYS_AT_A_TIME);
        simd::keys(packed, self.params, &mut row.keys[from..from + whole]);
        let mut kept = if self.occurrences { count } else { row.filter(count) };
        self.repeats += (count - kept) as u64;
        if !self.occurrences && !row.is_long {
            row.len = from + kept;
        }
        if self.share.pass_bits > 0 {
            // Those of other passes are left out in a copy: they stay keys of the row.
            let mut chunk = [0; CHUNK];
            chunk[..kept].copy_from_slice(&row.keys[from..from + kept]);
            let written = self.buckets.of_share(self.share, &mut chunk[..kept]);
            self.left_out.pass += (kept - written) as u64;
            kept = written;
            self.buckets.put(&chunk[..kept]);
        } else {
            self.buckets.put(&row.keys[from..from + kept]);
        }
    }

    /// Whether there is nothing to write yet: no record, and no key of another pass to tell of.
    pub fn is_empty(&self) -> bool {
        self.buckets.filled.iter().chain(&self.buckets.passed_over).all(|keys| *keys == 0)
    }

    /// Writes the records so far behind what `out` has, sorted by stripe. The sections, one a stripe, say where; their offsets count from the old
    /// end.
    pub fn write(&mut self, out: &mut Vec<u8>) -> &[Section] {
        let from = out.len();
        for (stripe, section) in self.sections.iter_mut().enumerate() {
            let (offset, records) = ((out.len() - from) as u32, self.buckets.of(stripe));
            let (bytes, kmers) = (records.as_flattened(), records.len() as u32);
            // A key is in no more rows than there are records, in this pass or another.
            let rows = kmers + self.buckets.passed_over[stripe];
            *section = Section { offset, bytes: bytes.len() as u32, kmers, rows };
            out.extend_from_slice(bytes);
        }
        self.buckets.clear();
        &self.sections
    }
}

impl Buckets {
    fn new(stripe_bits: u32, low_bits: u32) -> Self {
        let room = (ROOM >> stripe_bits).max(LEAST_ROOM);
        let (records, none) = (vec![[0; RECORD_BYTES]; room << stripe_bits], vec![0; 1 << stripe_bits]);
        let (filled, passed_over) = (none.clone(), none);
        Self { low_bits, room_bits: room.ilog2(), records, filled, passed_over, is_full: false }
    }

    fn clear(&mut self) {
        self.filled.fill(0);
        self.passed_over.fill(0);
        self.is_full = false;
    }

    fn of(&self, stripe: usize) -> &[[u8; RECORD_BYTES]] {
        let from = stripe << self.room_bits;
        &self.records[from..from + self.filled[stripe] as usize]
    }

    /// Moves the keys that are of a share to the front of `keys`, and counts the others. Returns how many are.
    fn of_share(&mut self, share: Share, keys: &mut [u32]) -> usize {
        let mut kept = 0;
        for at in 0..keys.len() {
            let key = keys[at];
            let (stripe, is_written) = (key >> self.low_bits, share.writes(key >> self.low_bits));
            keys[kept] = key;
            kept += usize::from(is_written);
            self.passed_over[stripe as usize] += u32::from(!is_written);
        }
        kept
    }

    /// Puts every key, of a chunk at most, into its bucket. There is room: it was not full.
    fn put(&mut self, keys: &[u32]) {
        let bits = (self.low_bits, self.room_bits);
        let most = simd::into_buckets(keys, bits, &mut self.filled, &mut self.records);
        self.is_full |= most as usize + CHUNK > 1 << self.room_bits;
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
        (stripe_bits, pass_bits, occurrences): (u32, u32, bool),
        piece: usize,
    ) -> BTreeMap<u64, u32> {
        let mut sorter = KeySorter::new(params, stripe_bits, occurrences).expect("suits");
        let width = 1usize << (params.key_bits() - stripe_bits);
        let mut counts = BTreeMap::new();
        for pass in 0..1 << pass_bits {
            sorter.begin_unit(Share { pass_bits, pass, ..Share::default() });
            let (mut delivered, mut pushed, mut told) = (0, 0, 0);
            let mut store = |sorter: &mut KeySorter| {
                let mut out = b"before".to_vec();
                let sections = sorter.write(&mut out).to_vec();
                for (stripe, section) in sections.iter().enumerate() {
                    let from = 6 + section.offset as usize;
                    let (records, rest) =
                        out[from..from + section.bytes as usize].as_chunks::<RECORD_BYTES>();
                    assert_eq!((records.len(), rest.len()), (section.kmers as usize, 0));
                    told += u64::from(section.rows);
                    delivered += u64::from(section.kmers);
                    for low in records.iter().map(|record| usize::from(u16::from_le_bytes(*record))) {
                        assert!(low < width);
                        *counts.entry((stripe * width + low) as u64).or_default() += 1;
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
            let how = (least_stripe_bits(params) + more, pass_bits, occurrences);
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

    #[test]
    fn many_batches_of_one_row_count_each_key_once() {
        let params = Params::new(11, 0).expect("in range");
        let row: Vec<u8> = (0..3 * ROOM as u64 / 2)
            .map(|i| b"ACGT"[(i.wrapping_mul(i ^ 0x9e37_79b9_7f4a_7c15) >> 61) as usize & 3])
            .collect();
        let rows = vec![row, b"ACGTACGTACGTTTGA".to_vec()];
        assert_eq!(counted(&rows, params, (6, 0, false), 1 << 24), naive(&rows, params, false));
    }

    #[test]
    fn what_does_not_suit_is_refused() {
        let params = |k, bits| Params::new(k, bits).expect("in range");
        assert!(KeySorter::new(params(10, 0), 8, false).is_none());
        assert!(KeySorter::new(params(13, 0), 12, false).is_none());
        assert!(KeySorter::new(params(11, 1), 8, false).is_none());
        assert!(KeySorter::new(params(12, 0), 7, false).is_none());
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
