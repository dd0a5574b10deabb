//! Records on their way: buckets of the same room, by stripe for keys that travel, by the bases of their windows for those that are counted here.

use super::CHUNK;
use crate::pages::on_large_pages;
use crate::simd::{self, LINE};

/// The least room of a bucket: what one chunk can bring, twice.
const LEAST_ROOM: usize = 2 * CHUNK;
/// Room that every bucket has after full ones were emptied, if it is no more than half of it: many records are put before all are looked at again.
const SPARE: usize = 8 * CHUNK;

/// Buckets of records.
pub(crate) struct Buckets<T> {
    room_bits: u32,
    records: Vec<T>,
    /// Where the next record of each goes.
    ends: Vec<u32>,
    /// So many records have room even if all are of one bucket; there may be room for more.
    left: usize,
}

impl<T: Copy + Default> Buckets<T> {
    /// `2^bits` buckets, which take `bytes` (a power of two) all together, or a little more.
    pub(super) fn new(bits: u32, bytes: usize) -> Self {
        let room = ((bytes / size_of::<T>()) >> bits).max(LEAST_ROOM);
        let room_bits = room.ilog2();
        let mut buckets = Self {
            room_bits,
            records: vec![T::default(); 1 << (room_bits + bits)],
            ends: vec![0; 1 << bits],
            left: 0,
        };
        buckets.clear();
        buckets
    }

    /// Asks for large pages for records, before there is one.
    pub(super) fn on_large_pages(&mut self) {
        on_large_pages(&mut self.records);
    }

    fn begin(&self, bucket: usize) -> u32 {
        (bucket as u32) << self.room_bits
    }

    /// Records in a bucket.
    fn filled(&self, bucket: usize) -> usize {
        (self.ends[bucket] - self.begin(bucket)) as usize
    }

    /// Forgets all records.
    pub(super) fn clear(&mut self) {
        for bucket in 0..self.ends.len() {
            self.ends[bucket] = self.begin(bucket);
        }
        self.left = 1 << self.room_bits;
    }

    /// A bucket may have no room for another chunk.
    #[inline]
    pub(super) fn is_full(&mut self) -> bool {
        if self.left < CHUNK {
            self.measure();
        }
        self.left < CHUNK
    }

    /// Looks at all buckets: between two looks records are only counted.
    fn measure(&mut self) {
        let most = (0..self.ends.len()).map(|bucket| self.filled(bucket)).max();
        self.left = (1 << self.room_bits) - most.unwrap_or(0);
    }

    /// The records of a bucket.
    pub(super) fn of(&self, bucket: usize) -> &[T] {
        &self.records[self.begin(bucket) as usize..self.ends[bucket] as usize]
    }

    /// Puts records into their buckets.
    ///
    /// # Panics
    /// When there is no such bucket, or the last one is overfull; the room of others is the caller's to watch, see [`Buckets::is_full`].
    #[inline(always)]
    pub(crate) fn put(&mut self, records: impl ExactSizeIterator<Item = (usize, T)>) {
        self.left = self.left.saturating_sub(records.len());
        let (ends, places) = (&mut self.ends[..], &mut self.records[..]);
        for (bucket, record) in records {
            let end = &mut ends[bucket];
            let place = &mut places[*end as usize];
            *place = record;
            *end += 1;
            // All buckets together are larger than a core's caches, and a bucket's next line is needed soon.
            simd::prefetch_behind(place, LINE);
        }
    }

    /// Gives the records of every bucket that is full, or nearly, to `take`, with its number, and empties it; with `all` those of every bucket.
    pub(super) fn empty(&mut self, all: bool, mut take: impl FnMut(usize, &[T])) {
        let room = 1 << self.room_bits;
        let enough = if all { 1 } else { room - SPARE.min(room / 2) };
        for bucket in 0..self.ends.len() {
            if self.filled(bucket) >= enough {
                take(bucket, self.of(bucket));
                self.ends[bucket] = self.begin(bucket);
            }
        }
        self.measure();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_record_comes_out_of_its_bucket(
            puts in prop::collection::vec((0..4usize, 0..4usize, 0..=CHUNK), 1..60), all_at_end: bool,
        ) {
            let mut buckets = Buckets::<u16>::new(2, 0);
            let (mut want, mut found) = ([(); 4].map(|()| Vec::new()), [(); 4].map(|()| Vec::new()));
            let mut number = 0u16;
            for (most_of, other, count) in puts {
                if buckets.is_full() {
                    buckets.empty(false, |bucket, records| found[bucket].extend_from_slice(records));
                    prop_assert!(!buckets.is_full());
                }
                let records: Vec<(usize, u16)> = (0..count)
                    .map(|at| (if at % 8 == 7 { other } else { most_of }, number.wrapping_add(at as u16)))
                    .collect();
                number = number.wrapping_add(count as u16);
                records.iter().for_each(|(bucket, record)| want[*bucket].push(*record));
                buckets.put(records.into_iter());
            }
            if all_at_end {
                buckets.empty(true, |bucket, records| found[bucket].extend_from_slice(records));
            } else {
                (0..4).for_each(|bucket| found[bucket].extend_from_slice(buckets.of(bucket)));
            }
            prop_assert_eq!(&found, &want);
            buckets.clear();
            prop_assert!((0..4).all(|bucket| buckets.of(bucket).is_empty()) && !buckets.is_full());
        }
    }
}
