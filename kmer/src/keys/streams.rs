//! Windows on their way to be counted: buckets of records, of the same room.

use super::CHUNK;
use crate::simd::{self, LINE};

/// Buckets of records.
pub(crate) struct Streams {
    room_bits: u32,
    records: Vec<u32>,
    /// Records in each.
    filled: Vec<u32>,
    /// The most records that a bucket that got one has had since buckets were emptied.
    most: u32,
}

impl Streams {
    /// `2^bits` buckets, which take `bytes` (a power of two) all together, or a little more.
    pub(super) fn new(bits: u32, bytes: usize) -> Self {
        let room = ((bytes / size_of::<u32>()) >> bits).max(2 * CHUNK);
        Self { room_bits: room.ilog2(), records: vec![0; room << bits], filled: vec![0; 1 << bits], most: 0 }
    }

    /// Forgets all records.
    pub(super) fn clear(&mut self) {
        self.filled.fill(0);
        self.most = 0;
    }

    /// A bucket may have no room for another chunk.
    pub(super) fn is_full(&self) -> bool {
        self.most as usize + CHUNK > 1 << self.room_bits
    }

    /// Puts a record into a bucket.
    ///
    /// # Panics
    /// When the last bucket is overfull; the room of others is the caller's to watch, see [`Streams::is_full`].
    #[inline(always)]
    pub(crate) fn put(&mut self, bucket: usize, record: u32) {
        let at = &mut self.filled[bucket];
        let place = &mut self.records[(bucket << self.room_bits) + *at as usize];
        *place = record;
        // All buckets together are larger than a core's caches, and a bucket's next line is needed soon.
        simd::prefetch_behind(place, LINE);
        *at += 1;
        self.most = self.most.max(*at);
    }

    /// Gives the records of every bucket that may have no room for another chunk to `take`, with its number, and empties it; with `all` those of
    /// every bucket.
    pub(super) fn empty(&mut self, all: bool, mut take: impl FnMut(usize, &[u32])) {
        let enough = if all { 1 } else { (1 << self.room_bits) - CHUNK + 1 };
        for bucket in 0..self.filled.len() {
            let filled = self.filled[bucket] as usize;
            if filled >= enough {
                take(bucket, &self.records[bucket << self.room_bits..][..filled]);
                self.filled[bucket] = 0;
            }
        }
        self.most = 0;
    }
}
