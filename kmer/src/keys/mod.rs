//! Sorts k-mers of few bits by stripe, each as the two bytes that its stripe leaves of it: no minimizer, no hash.
//!
//! A stripe is a range of keys here, of at most 2^16, and a record is a key less the stripe's first:
//!
//! ```text
//! a section of records := record*      record: the key's low bits, u16, little-endian
//! ```
//!
//! As many k-mers as there are keys, or more, are better written as their sums (`sums.rs`): then only a byte for each key gets into shared memory, once for
//! all units that a worker scans, and k-mers are sorted four at a time.
//!
//! A row's repeats are left out before, so a drain counts with a place for each key of the stripe and asks no questions. Short rows, reads, are
//! searched for repeats through a table of stamps: where a key's place has the stamp of this row already, the row's keys so far are looked through.
//! Longer rows have a bit for every key there can be.

pub(crate) mod buckets;
mod fold;
mod row;
mod sums;

pub use sums::add_summed;

use crate::bases::Bases;
use crate::params::Params;
use crate::simd;
use crate::superkmer::{Section, Share};
use buckets::Buckets;
use row::Row;
use std::ops::RangeInclusive;
use sums::Sums;

/// Keys of more bits than this are not sorted this way: with more stripes than 2^8 sections get short, and at k = 13 nothing was gained.
pub const MAX_KEY_BITS: u32 = 24;
/// Keys of fewer bits than this are not summed: k-mers of 9 bases come too often in a row.
const LEAST_SUMMED_BITS: u32 = 20;
/// Bits of a record.
pub const RECORD_BITS: u32 = 16;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 2;

/// k-mers that are extracted at a time.
pub(crate) const CHUNK: usize = 512;
/// Bytes of buckets, all together.
const ROOM: usize = 1 << 22;
/// k-mers after which sums are written even if more are to come: a section's number of them has 32 bits.
const MOST_SUMMED: u64 = 1 << 30;

/// Whether keys of `params` are sorted this way: there are too many to be counted in every unit, but not by far.
pub const fn suits(params: Params) -> bool {
    let bits = params.key_bits();
    params.occur_bitlen() == 0 && bits > crate::direct::MAX_KEY_BITS && bits <= MAX_KEY_BITS
}

/// Whether keys of `params` can be written as sums. Those of fewer bits than [`suits`] asks for are counted directly where units are not so large.
pub const fn can_be_summed(params: Params) -> bool {
    let bits = params.key_bits();
    params.occur_bitlen() == 0 && bits >= LEAST_SUMMED_BITS && bits <= MAX_KEY_BITS
}

/// The fewest stripes, as a power of two, so that a record holds what they leave of a key.
pub const fn least_stripe_bits(params: Params) -> u32 {
    params.key_bits().saturating_sub(RECORD_BITS)
}

/// Bytes of room for windows of k-mers on their way to sums, as a power of two: the least, and enough for four times as many k-mers as there are
/// keys of 24 bits.
pub const WINDOWS_BITS: RangeInclusive<u32> = 25..=26;

/// Bytes of memory that a sorter of sums has, and what it writes at a time; `windows_bits` of [`WINDOWS_BITS`].
pub const fn summed_bytes(params: Params, windows_bits: u32) -> u64 {
    (1 << windows_bits) + 2 * (1 << params.key_bits())
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
    left_out: u64,
    repeats: u64,
    /// k-mers taken since the last batch.
    taken: u64,
}

/// What became of the keys that were taken.
enum Kept {
    /// They are in their stripes' buckets.
    Keys(Buckets<u16>),
    /// They are counted.
    Sums(Box<Sums>),
}

impl KeySorter {
    /// A sorter for `2^stripe_bits` stripes; with `occurrences` repeats stay, and with `windows_bits`, of [`WINDOWS_BITS`], sums are written.
    /// `None` when keys of `params` do not suit, stripes are too wide, or there is too much or too little room.
    pub fn new(
        params: Params,
        stripe_bits: u32,
        occurrences: bool,
        windows_bits: Option<u32>,
    ) -> Option<Self> {
        let can = match &windows_bits {
            Some(bits) => can_be_summed(params) && WINDOWS_BITS.contains(bits),
            None => suits(params),
        };
        if !can || !(least_stripe_bits(params)..=params.key_bits()).contains(&stripe_bits) {
            return None;
        }
        let kept = match windows_bits {
            Some(bits) => Kept::Sums(Box::new(Sums::new(params, bits))),
            None => Kept::Keys(Buckets::new(stripe_bits, ROOM)),
        };
        Some(Self {
            params,
            low_bits: params.key_bits() - stripe_bits,
            occurrences,
            share: Share::default(),
            row: Row::new(params.key_bits()),
            kept,
            passed_over: vec![0; 1 << stripe_bits],
            sections: vec![Section::default(); 1 << stripe_bits],
            left_out: 0,
            repeats: 0,
            taken: 0,
        })
    }

    /// Begins a unit, of which `share` is to be written. Its row numbers start above 0.
    pub fn begin_unit(&mut self, share: Share) {
        (self.share, self.left_out, self.repeats) = (share, 0, 0);
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

    /// k-mers of this unit so far that were not written, being of another pass.
    pub fn left_out(&self) -> u64 {
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

    fn is_full(&mut self) -> bool {
        let no_room = match &mut self.kept {
            Kept::Keys(buckets) => buckets.is_full(),
            Kept::Sums(_) => false,
        };
        no_room || self.taken >= MOST_SUMMED
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
        if self.share.pass_bits == 0 {
            simd::into_buckets(keys, low_bits, buckets);
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
        simd::into_buckets(&chunk[..written], low_bits, buckets);
        self.left_out += (kept - written) as u64;
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
                        self.left_out += u64::from(counted);
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
mod tests;
