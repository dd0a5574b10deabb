//! Records on their way: buckets of the same room, by stripe for keys that travel, by the bases of their windows for those that are counted here.

use super::CHUNK;
use crate::pages::on_large_pages;
use crate::simd::{self, LINE};

/// The least room of a bucket: what one chunk can bring, twice.
const LEAST_ROOM: usize = 2 * CHUNK;

/// Buckets of records.
pub(crate) struct Buckets<T> {
    room_bits: u32,
    records: Vec<T>,
    /// Records in each.
    filled: Vec<u32>,
    /// The most records that a bucket that got one has had since buckets were emptied.
    most: u32,
}

impl<T: Copy + Default> Buckets<T> {
    /// `2^bits` buckets, which take `bytes` (a power of two) all together, or a little more.
    pub(super) fn new(bits: u32, bytes: usize) -> Self {
        let room = ((bytes / size_of::<T>()) >> bits).max(LEAST_ROOM);
        let (records, filled) = (vec![T::default(); room << bits], vec![0; 1 << bits]);
        Self { room_bits: room.ilog2(), records, filled, most: 0 }
    }

    /// Asks for large pages for records, before there is one.
    pub(super) fn on_large_pages(&mut self) {
        on_large_pages(&mut self.records);
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

    /// The records of a bucket.
    pub(super) fn of(&self, bucket: usize) -> &[T] {
        &self.records[bucket << self.room_bits..][..self.filled[bucket] as usize]
    }

    /// Puts a record into a bucket.
    ///
    /// # Panics
    /// When there is no such bucket, or the last one is overfull; the room of others is the caller's to watch, see [`Buckets::is_full`].
    #[inline(always)]
    pub(crate) fn put(&mut self, bucket: usize, record: T) {
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
    pub(super) fn empty(&mut self, all: bool, mut take: impl FnMut(usize, &[T])) {
        let enough = if all { 1 } else { (1 << self.room_bits) - CHUNK + 1 };
        for bucket in 0..self.filled.len() {
            if self.filled[bucket] as usize >= enough {
                take(bucket, self.of(bucket));
                self.filled[bucket] = 0;
            }
        }
        self.most = 0;
    }
}
