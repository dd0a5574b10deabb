//! The row at hand: which of its keys it had already.
//!
//! The keys of a short row are kept, and looked through where a key's stamp says that it may be a repeat. A longer row gives each of its keys a bit. Nothing
//! of a row is known any more once the next one begins.

use super::CHUNK;
use crate::params::Params;
use crate::simd::{self, Look, PART_BITS};

/// Keys of a row that are looked through one by one.
pub(super) const SHORT: usize = 512;
/// Places for stamps; a place is a byte, so that all of them fit the first cache.
const STAMPS: usize = 1 << PART_BITS;
/// Keys of a row that are remembered, to clear their bits one by one.
const REMEMBERED: usize = 1 << 16;

/// The row at hand, and how its repeats are found.
pub(super) struct Row {
    key_bits: u32,
    pub(super) number: u32,
    /// The keys of a short row, then room for a chunk.
    pub(super) keys: Box<[u32; SHORT + CHUNK]>,
    /// How many are of the row.
    pub(super) len: usize,
    /// The first [`STAMPS`] are used; the others are there so that no number of 16 bits needs to be looked at before it is a place.
    stamps: Box<[u8; 1 << 16]>,
    stamp: u8,
    /// The row was found to be long: its keys are in `seen`.
    pub(super) is_long: bool,
    /// A bit for each key.
    seen: Vec<u64>,
    /// The keys that have one; more than [`REMEMBERED`] are not all here.
    marked: Vec<u32>,
    /// A bit for each key of the last chunk: it was left out.
    repeats: [u64; CHUNK / 64],
    /// Of the last keys of a short row, until they are looked through: which have a stamp, and where those are. Kept, since to clear as much for
    /// each row would take time.
    hits: Box<[bool; SHORT]>,
    suspects: Box<[u16; SHORT]>,
}

impl Row {
    /// No row yet, of keys of `key_bits` bits.
    pub(super) fn new(key_bits: u32) -> Self {
        Self {
            key_bits,
            number: 0,
            keys: Box::new([0; SHORT + CHUNK]),
            len: 0,
            stamps: Box::new([0; 1 << 16]),
            stamp: 0,
            is_long: false,
            seen: Vec::new(),
            marked: Vec::new(),
            repeats: [0; CHUNK / 64],
            hits: Box::new([false; SHORT]),
            suspects: Box::new([0; SHORT]),
        }
    }

    /// Begins row `number`.
    pub(super) fn begin(&mut self, number: u32) {
        if self.is_long {
            self.clear_bits();
        }
        (self.number, self.len, self.is_long) = (number, 0, false);
        self.new_stamp();
    }

    /// Takes a stamp that no place has.
    fn new_stamp(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.stamps[..STAMPS].fill(0);
            self.stamp = 1;
        }
    }

    /// Whether a row that was begun, all of whose k-mers `look` has been at, may have one of them twice. If it has, the answer is yes; else it is no
    /// most of the time. The row's keys are still to be taken then.
    ///
    /// Of a k-mer that comes again so do four parts of k - 3 bases, one base apart. Parts at even places are marked, and those at the first two of each
    /// four places asked for. Of four places in a row two are even, and those of their like later on are two apart, so one of them is among the
    /// first two of four: that one is found. It is the same with the places from behind, where reverse complements count as the same. Then only
    /// k-mers less than four places apart would be asked for before they are marked; their stretch is its own reverse complement, which `look` tells.
    pub(super) fn may_repeat(&mut self, look: &Look) -> bool {
        let [first, second, third] = &look.parts;
        let (stamps, stamp) = (&mut *self.stamps, self.stamp);
        let mut found = look.mirrored;
        for ((first, second), third) in first[..look.windows].iter().zip(second).zip(third) {
            let first = &mut stamps[usize::from(*first)];
            found |= *first == stamp;
            *first = stamp;
            found |= stamps[usize::from(*second)] == stamp;
            stamps[usize::from(*third)] = stamp;
        }
        if found {
            self.new_stamp();
        }
        found
    }

    /// Which of the four k-mers from place `first` of the last chunk on were left out: a bit each, from the lowest.
    pub(super) fn repeats(&self, first: usize) -> u64 {
        self.repeats[first / 64] >> (first % 64) & 15
    }

    /// Takes the first `count` k-mers of `packed`, a chunk at most: their keys are behind those of the row now.
    pub(super) fn extract(&mut self, packed: &[u8], params: Params, count: usize) {
        let whole = count.next_multiple_of(simd::KEYS_AT_A_TIME);
        simd::keys(packed, params, &mut self.keys[self.len..self.len + whole]);
    }

    /// The same, but for repeats, and they are keys of the row from now on. Returns how many stay.
    pub(super) fn take(&mut self, packed: &[u8], params: Params, count: usize) -> usize {
        self.extract(packed, params, count);
        let kept = self.filter(count);
        if !self.is_long {
            self.len += kept;
        }
        kept
    }

    /// Leaves out of the `count` keys behind those of the row what the row has already, and of several the same all but the first. Returns how many
    /// stay.
    fn filter(&mut self, count: usize) -> usize {
        self.repeats.fill(0);
        if !self.is_long && self.len + count <= SHORT {
            return self.filter_short(count);
        }
        self.make_long();
        let (from, mut kept) = (std::mem::take(&mut self.len), 0);
        for at in 0..count {
            let key = self.keys[from + at];
            let (word, bit) = (&mut self.seen[key as usize / 64], 1u64 << (key % 64));
            // Written whether it is new or not, so that there is nothing to guess.
            self.keys[from + kept] = key;
            let is_new = *word & bit == 0;
            kept += usize::from(is_new);
            self.repeats[at / 64] |= u64::from(!is_new) << (at % 64);
            *word |= bit;
        }
        self.remember(from, kept);
        kept
    }

    /// Gives every key of this row so far its bit.
    fn make_long(&mut self) {
        if self.is_long {
            return;
        }
        self.is_long = true;
        self.seen.resize(1 << (self.key_bits - 6), 0);
        let keys = &self.keys[..self.len];
        keys.iter().for_each(|key| self.seen[*key as usize / 64] |= 1 << (key % 64));
        self.remember(0, self.len);
    }

    fn remember(&mut self, from: usize, count: usize) {
        if self.marked.len() <= REMEMBERED {
            self.marked.extend_from_slice(&self.keys[from..from + count]);
        }
    }

    fn clear_bits(&mut self) {
        if self.marked.len() > REMEMBERED {
            self.seen.fill(0);
        } else {
            self.marked.iter().for_each(|key| self.seen[*key as usize / 64] = 0);
        }
        self.marked.clear();
    }

    fn filter_short(&mut self, count: usize) -> usize {
        let (row, keys) = (self.len, &mut self.keys[..self.len + count]);
        let (hits, suspects, mut found) = (&mut self.hits[..], &mut self.suspects[..], 0);
        for (hit, key) in hits.iter_mut().zip(&keys[row..]) {
            let stamp = &mut self.stamps[*key as usize % STAMPS];
            *hit = *stamp == self.stamp;
            *stamp = self.stamp;
        }
        // Eight are asked at once: few are any.
        let eights = count.next_multiple_of(8);
        hits[count..eights].fill(false);
        let (eights, _) = hits[..eights].as_chunks::<8>();
        for (first, eight) in (0u16..).step_by(8).zip(eights) {
            let mut bits = u64::from_le_bytes(eight.map(u8::from));
            while bits != 0 {
                suspects[found] = first + (bits.trailing_zeros() / 8) as u16;
                found += 1;
                bits &= bits - 1;
            }
        }
        let mut repeats = 0;
        for suspect in 0..found {
            let at = row + usize::from(suspects[suspect]);
            if keys[..at].contains(&keys[at]) {
                (suspects[repeats], repeats) = (suspects[suspect], repeats + 1);
            }
        }
        let mut kept = count;
        for at in suspects[..repeats].iter().rev().map(|at| usize::from(*at)) {
            self.repeats[at / 64] |= 1 << (at % 64);
            keys.copy_within(row + at + 1..row + kept, row + at);
            kept -= 1;
        }
        kept
    }
}
