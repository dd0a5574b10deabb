//! Keys on their way to their stripe: a bucket of records for each, of the same room.

use super::{CHUNK, RECORD_BYTES};
use crate::simd;
use crate::superkmer::Share;

/// The least room of a bucket: what one chunk can bring, twice.
const LEAST_ROOM: usize = 2 * CHUNK;

/// A bucket of records a stripe.
pub(super) struct Buckets {
    /// Bits of a key below its stripe.
    low_bits: u32,
    room_bits: u32,
    records: Vec<u16>,
    /// Records in each.
    filled: Vec<u32>,
    /// Keys of another pass, which are counted and not kept.
    passed_over: Vec<u32>,
    /// A bucket may have no room for another chunk.
    is_full: bool,
}

impl Buckets {
    /// Buckets for `2^stripe_bits` stripes of `2^low_bits` keys, which take `bytes` (a power of two) all together, or a little more.
    pub(super) fn new(stripe_bits: u32, low_bits: u32, bytes: usize) -> Self {
        let room = ((bytes / RECORD_BYTES) >> stripe_bits).max(LEAST_ROOM);
        let (records, none) = (vec![0; room << stripe_bits], vec![0; 1 << stripe_bits]);
        let (filled, passed_over) = (none.clone(), none);
        Self { low_bits, room_bits: room.ilog2(), records, filled, passed_over, is_full: false }
    }

    /// Forgets all records.
    pub(super) fn clear(&mut self) {
        self.filled.fill(0);
        self.passed_over.fill(0);
        self.is_full = false;
    }

    /// A bucket may have no room for another chunk.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// No record is in them, and no key was passed over.
    pub(super) fn is_empty(&self) -> bool {
        self.filled.iter().chain(&self.passed_over).all(|keys| *keys == 0)
    }

    /// The records of `stripe`.
    pub(super) fn of(&self, stripe: usize) -> &[u16] {
        let from = stripe << self.room_bits;
        &self.records[from..from + self.filled[stripe] as usize]
    }

    /// Keys of `stripe` that were passed over.
    pub(super) fn passed_over(&self, stripe: usize) -> u32 {
        self.passed_over[stripe]
    }

    /// Moves the keys that are of a share to the front of `keys`, and counts the others. Returns how many are.
    pub(super) fn of_share(&mut self, share: Share, keys: &mut [u32]) -> usize {
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
    pub(super) fn put(&mut self, keys: &[u32]) {
        let bits = (self.low_bits, self.room_bits);
        let most = simd::into_buckets(keys, bits, &mut self.filled, &mut self.records);
        self.is_full |= most as usize + CHUNK > 1 << self.room_bits;
    }

    /// Gives the records of every full bucket to `take`, with its stripe, and empties it.
    pub(super) fn empty_full(&mut self, mut take: impl FnMut(usize, &[u16])) {
        for stripe in 0..self.filled.len() {
            if self.filled[stripe] as usize + CHUNK > 1 << self.room_bits {
                take(stripe, self.of(stripe));
                self.filled[stripe] = 0;
            }
        }
        self.is_full = false;
    }
}
