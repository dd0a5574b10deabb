//! Keys on their way to their stripe: a bucket of records for each, of the same room.

use super::{CHUNK, RECORD_BYTES};

/// The least room of a bucket: what one chunk can bring, twice.
const LEAST_ROOM: usize = 2 * CHUNK;

/// Buckets of records.
pub(super) struct Buckets {
    room_bits: u32,
    records: Vec<u16>,
    /// Records in each.
    filled: Vec<u32>,
    /// A bucket may have no room for another chunk.
    is_full: bool,
}

impl Buckets {
    /// `2^bits` buckets, which take `bytes` (a power of two) all together, or a little more.
    pub(super) fn new(bits: u32, bytes: usize) -> Self {
        let room = ((bytes / RECORD_BYTES) >> bits).max(LEAST_ROOM);
        let (records, filled) = (vec![0; room << bits], vec![0; 1 << bits]);
        Self { room_bits: room.ilog2(), records, filled, is_full: false }
    }

    /// Forgets all records.
    pub(super) fn clear(&mut self) {
        self.filled.fill(0);
        self.is_full = false;
    }

    /// A bucket may have no room for another chunk.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// The records of a bucket.
    pub(super) fn of(&self, bucket: usize) -> &[u16] {
        let from = bucket << self.room_bits;
        &self.records[from..from + self.filled[bucket] as usize]
    }

    /// Lets `put` put in what a chunk brings, for which there is room if it was not full: it has the records in each bucket, the records of all, bucket
    /// after bucket, and the bits of the room of each, and tells the most records that a bucket has now, of those that got one.
    pub(super) fn put(&mut self, put: impl FnOnce(&mut [u32], &mut [u16], u32) -> u32) {
        let most = put(&mut self.filled, &mut self.records, self.room_bits);
        self.is_full |= most as usize + CHUNK > 1 << self.room_bits;
    }
}
