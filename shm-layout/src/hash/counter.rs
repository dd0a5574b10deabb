//! Counts in how many groups each key occurs: the private table in which a stripe is built aside.
//!
//! Keys come in batches with their groups, a group's keys one after the other. A slot remembers the group that touched it last, so a key
//! that comes again in the same group is counted once. Group numbers are the caller's, from 1, never the same for two groups. A group has a
//! weight: it may stand for many groups of exactly the same keys.
//!
//! A power of two of places, at most [`MAX_LOAD`] full, in buckets of [`BUCKET`]; a key's bucket is that of its home, the high bits of key times a
//! random odd multiplier, or the next one that has room, each filled from its first place on. All places of a bucket are compared at once, and
//! whether a key is there or new is the same straight line: of a place that has it and a free one the first is taken. A bucket of long
//! keys is a cache line. Those of a batch are prefetched [`AHEAD`] pairs before they are needed: the table is larger than the first cache.

use super::table::{self, Table};
use crate::raw::prefetch;

/// What keys can be.
pub trait Key: Copy + Default + PartialEq {
    /// The key as 64 bits.
    fn wide(self) -> u64;
    /// The key from 64 bits that fit it.
    fn narrow(wide: u64) -> Self;
}

impl Key for u32 {
    fn wide(self) -> u64 {
        self.into()
    }
    fn narrow(wide: u64) -> Self {
        wide as u32
    }
}

impl Key for u64 {
    fn wide(self) -> u64 {
        self
    }
    fn narrow(wide: u64) -> Self {
        wide
    }
}

/// Places that are looked at together.
pub const BUCKET: usize = 4;

#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Bucket<K> {
    keys: [K; BUCKET],
    /// Groups that have the key; 0 is a free place.
    groups: [u32; BUCKET],
    /// The group that touched the place last.
    last: [u32; BUCKET],
}

impl<K: Key> Bucket<K> {
    /// Bit i: place i has the key or is free. Behind the first free place there are only free ones.
    #[inline(always)]
    fn find(&self, key: K) -> u32 {
        let mut found = 0;
        for i in 0..BUCKET {
            found |= u32::from((self.keys[i] == key) | (self.groups[i] == 0)) << i;
        }
        found
    }

    /// Key and groups of its places.
    #[inline(always)]
    fn pairs(&self) -> impl Iterator<Item = (K, u32)> {
        self.keys.into_iter().zip(self.groups)
    }
}

/// A table is made larger when more than this share of its places would be in use (numerator, denominator).
pub const MAX_LOAD: (usize, usize) = (5, 8);
/// How many pairs ahead buckets are prefetched.
pub const AHEAD: usize = 16;

/// Counts groups a key; see the module.
pub struct GroupCounter<K> {
    buckets: Vec<Bucket<K>>,
    shift: u32,
    multiplier: u64,
    used: usize,
}

/// 64 places of a table: their keys and numbers of groups.
pub struct Places<'a, K>(&'a [Bucket<K>; 64 / BUCKET]);

impl<K: Key> table::Places for Places<'_, K> {
    #[inline(always)]
    fn get(&self, i: usize) -> (u64, u32) {
        let (bucket, place) = (&self.0[i / BUCKET % (64 / BUCKET)], i % BUCKET);
        (bucket.keys[place].wide(), bucket.groups[place])
    }
}

/// Numbers are keys.
impl<K: Key> Table for GroupCounter<K> {
    const BUCKET: usize = BUCKET;
    type Places<'a>
        = Places<'a, K>
    where
        K: 'a;

    fn len(&self) -> usize {
        self.used
    }
    fn places(&self) -> usize {
        self.buckets.len() * BUCKET
    }
    fn multiplier(&self) -> u64 {
        self.multiplier
    }
    fn number_multiplier(&self) -> u64 {
        self.multiplier
    }
    fn key(&self, number: u64) -> u64 {
        number
    }
    #[inline(always)]
    fn by_64(&self) -> impl Iterator<Item = Places<'_, K>> {
        self.buckets.as_chunks().0.iter().map(Places)
    }
}

/// What a batch added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Pairs that were new in their group: by so much the sum of all counts grew.
    pub counted: u64,
    /// Sum of their keys, wrapping: by so much the sum of key times count grew.
    pub key_sum: u64,
}

impl<K: Key> GroupCounter<K> {
    /// An empty table for about `keys` keys. `multiplier` is drawn for each run; its lowest bit is taken as 1.
    pub fn new(keys: usize, multiplier: u64) -> Self {
        Self::for_bits(keys, multiplier, 64)
    }

    /// The same for keys of up to `key_bits` bits, 1 to 64: the hash is a permutation of them, so that a place tells a part of its key.
    pub fn for_bits(keys: usize, multiplier: u64, key_bits: u32) -> Self {
        let multiplier = (multiplier | 1) << (64 - key_bits);
        let mut table = Self { buckets: Vec::new(), shift: 64, multiplier, used: 0 };
        table.reset(keys);
        table
    }

    /// Empties the table and fits it to about `keys` keys, using its memory again.
    pub fn reset(&mut self, keys: usize) {
        let places = (keys * MAX_LOAD.1 / MAX_LOAD.0 + 1).next_power_of_two().max(64);
        self.buckets.clear();
        self.buckets.resize(places / BUCKET, Bucket::default());
        self.shift = 64 - places.trailing_zeros();
        self.used = 0;
    }

    /// The bucket in which a key is at home.
    #[inline(always)]
    fn home(&self, key: K) -> usize {
        (key.wide().wrapping_mul(self.multiplier) >> self.shift) as usize / BUCKET
    }

    /// Every key with the number of groups that have it, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (K, u32)> + '_ {
        self.buckets.iter().flat_map(Bucket::pairs).filter(|(_, groups)| *groups != 0)
    }

    /// Counts the pairs `keys[i]`, `tags[i]`: a tag is a group in its low half and a weight in its high half, which says for how many
    /// groups of the same keys this one stands.
    ///
    /// # Panics
    /// When the slices differ in length.
    pub fn add_batch(&mut self, keys: &[K], tags: &[u64]) -> Added {
        self.add_pairs::<false>(keys, tags)
    }

    /// The same, but a key that comes again in a group counts again: of the tags only the weights matter.
    ///
    /// # Panics
    /// As [`GroupCounter::add_batch`].
    pub fn add_every(&mut self, keys: &[K], tags: &[u64]) -> Added {
        self.add_pairs::<true>(keys, tags)
    }

    fn add_pairs<const EVERY: bool>(&mut self, keys: &[K], tags: &[u64]) -> Added {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
        {
            #[allow(unsafe_code, reason = "the corner for SIMD")]
            // SAFETY: the processor has AVX2, BMI1 and BMI2, all that the function asks for.
            return unsafe { self.add_pairs_avx2::<EVERY>(keys, tags) };
        }
        self.add_pairs_any::<EVERY>(keys, tags)
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn add_pairs_avx2<const EVERY: bool>(&mut self, keys: &[K], tags: &[u64]) -> Added {
        self.add_pairs_any::<EVERY>(keys, tags)
    }

    #[inline(always)]
    fn add_pairs_any<const EVERY: bool>(&mut self, keys: &[K], tags: &[u64]) -> Added {
        assert_eq!(keys.len(), tags.len());
        self.make_room(keys.len());
        let (multiplier, shift) = (self.multiplier, self.shift);
        let home = |key: K| (key.wide().wrapping_mul(multiplier) >> shift) as usize / BUCKET;
        let buckets = &mut self.buckets[..];
        let mask = buckets.len() - 1;
        let (mut added, mut used) = (Added::default(), 0);
        for &key in &keys[..keys.len().min(AHEAD)] {
            prefetch(std::ptr::from_ref(&buckets[home(key) & mask]));
        }
        for (i, (&key, &tag)) in keys.iter().zip(tags).enumerate() {
            if let Some(&later) = keys.get(i + AHEAD) {
                prefetch(std::ptr::from_ref(&buckets[home(later) & mask]));
            }
            let mut at = home(key) & mask;
            let mut found = buckets[at].find(key);
            while found == 0 {
                at = (at + 1) & mask;
                found = buckets[at].find(key);
            }
            let (bucket, place) = (&mut buckets[at], found.trailing_zeros() as usize % BUCKET);
            let (group, weight) = (tag as u32, (tag >> 32) as u32);
            let more = if !EVERY && bucket.last[place] == group { 0 } else { weight };
            used += usize::from(bucket.groups[place] == 0);
            bucket.keys[place] = key;
            bucket.last[place] = group;
            bucket.groups[place] += more;
            added.counted += u64::from(more);
            added.key_sum = added.key_sum.wrapping_add(key.wide().wrapping_mul(more.into()));
        }
        self.used += used;
        added
    }

    /// Counts one more occurrence of `key` in the group of `tag`, where the n-th occurrence in a group is a key of its own:
    /// `key << bits | (n - 1)`, for n up to 2^bits; later ones are not counted.
    pub fn add_nth(&mut self, key: u64, bits: u32, tag: u64) -> Added {
        self.make_room(1);
        let nth = |n: u64| K::narrow(key << bits | n);
        let group = tag as u32;
        // The occurrences seen in this group are 0..m without a gap, so m is found by doubling and halving.
        let limit = 1u64 << bits;
        let (mut low, mut step) = (0, 1);
        while low < limit && self.is_touched(nth(low), group) {
            low += step;
            step *= 2;
        }
        let (mut first_free, mut known) = (low.min(limit), low - step / 2);
        while known < first_free {
            let middle = known + (first_free - known) / 2;
            if self.is_touched(nth(middle), group) { known = middle + 1 } else { first_free = middle }
        }
        if known >= limit {
            return Added::default();
        }
        self.add_batch(&[nth(known)], &[tag])
    }

    fn is_touched(&self, key: K, group: u32) -> bool {
        let bucket = &self.buckets[self.bucket_of(key)];
        let place = bucket.find(key).trailing_zeros() as usize % BUCKET;
        bucket.groups[place] != 0 && bucket.last[place] == group
    }

    /// The bucket that has `key`, or in which there is a place for it.
    fn bucket_of(&self, key: K) -> usize {
        let mut at = self.home(key);
        while self.buckets[at].find(key) == 0 {
            at = (at + 1) & (self.buckets.len() - 1);
        }
        at
    }

    fn make_room(&mut self, more: usize) {
        if (self.used + more) * MAX_LOAD.1 > self.places() * MAX_LOAD.0 {
            self.grow(self.used + more);
        }
    }

    #[cold]
    fn grow(&mut self, keys: usize) {
        let mut larger = Self { buckets: Vec::new(), shift: 64, multiplier: self.multiplier, used: 0 };
        larger.reset(keys * 2);
        for old in &self.buckets {
            for (from, (key, groups)) in old.pairs().enumerate().filter(|(_, (_, groups))| *groups != 0) {
                let at = larger.bucket_of(key);
                let bucket = &mut larger.buckets[at];
                let place = bucket.find(key).trailing_zeros() as usize % BUCKET;
                (bucket.keys[place], bucket.groups[place], bucket.last[place]) =
                    (key, groups, old.last[from]);
                larger.used += 1;
            }
        }
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    /// The oracle: a set a group, then one addition a member.
    fn naive(groups: &[Vec<u64>]) -> HashMap<u64, u32> {
        let mut counts = HashMap::new();
        for group in groups {
            group
                .iter()
                .collect::<HashSet<_>>()
                .into_iter()
                .for_each(|key| *counts.entry(*key).or_default() += 1);
        }
        counts
    }

    fn naive_nth(groups: &[Vec<u64>], bits: u32) -> HashMap<u64, u32> {
        let numbered = groups.iter().map(|group| {
            let mut seen: HashMap<u64, u64> = HashMap::new();
            let nth = group.iter().map(|key| {
                let n = seen.entry(*key).or_default();
                *n += 1;
                (*key, *n - 1)
            });
            nth.filter(|(_, n)| *n < 1 << bits).map(|(key, n)| key << bits | n).collect()
        });
        naive(&numbered.collect::<Vec<Vec<u64>>>())
    }

    fn groups(keys: u64) -> impl Strategy<Value = Vec<Vec<u64>>> {
        prop::collection::vec(prop::collection::vec(0..keys, 0..60), 0..40)
    }

    fn check<K: Key>(groups: &[Vec<u64>], multiplier: u64) {
        let mut counter = GroupCounter::<K>::new(0, multiplier);
        let mut total = Added::default();
        for (i, group) in groups.iter().enumerate() {
            let keys: Vec<K> = group.iter().map(|k| K::narrow(*k)).collect();
            let added = counter.add_batch(&keys, &vec![1 << 32 | (i as u64 + 1); keys.len()]);
            total.counted += added.counted;
            total.key_sum = total.key_sum.wrapping_add(added.key_sum);
        }
        let got: HashMap<u64, u32> = counter.iter().map(|(k, n)| (k.wide(), n)).collect();
        assert_eq!(got, naive(groups));
        assert_eq!(counter.len(), got.len());
        assert_eq!(total.counted, got.values().map(|n| u64::from(*n)).sum::<u64>());
        assert_eq!(
            total.key_sum,
            got.iter().fold(0, |s: u64, (k, n)| s.wrapping_add(k.wrapping_mul(u64::from(*n))))
        );
    }

    proptest! {
        #[test]
        fn counts_groups_like_a_map_of_sets(groups in groups(300), multiplier in any::<u64>()) {
            check::<u32>(&groups, multiplier);
            check::<u64>(&groups, multiplier);
        }

        #[test]
        fn counts_nth_occurrences_like_the_oracle(groups in groups(6), bits in 0..5u32) {
            let mut counter = GroupCounter::<u64>::new(0, 0x9e37_79b9_7f4a_7c15);
            for (i, group) in groups.iter().enumerate() {
                for key in group {
                    counter.add_nth(*key, bits, 1 << 32 | (i as u64 + 1));
                }
            }
            prop_assert_eq!(counter.iter().collect::<HashMap<_, _>>(), naive_nth(&groups, bits));
        }
    }

    #[test]
    fn a_reset_table_is_empty_and_counts_again() {
        let mut counter = GroupCounter::<u64>::new(10, 3);
        counter.add_batch(&[1, 2, 1], &[1 << 32 | 1, 1 << 32 | 1, 1 << 32 | 2]);
        counter.reset(1000);
        assert!(counter.is_empty());
        counter.add_batch(&[7, 7, 7], &[3 << 32 | 1, 3 << 32 | 1, 2 << 32 | 2]);
        assert_eq!(counter.iter().collect::<Vec<_>>(), [(7, 5)]);
        let mut seen = Vec::new();
        counter.for_each_batch(|batch| seen.extend_from_slice(batch));
        assert_eq!(seen, [(7, 5)]);
    }

    #[test]
    fn many_occurrences_in_one_group_stop_at_the_limit() {
        let mut counter = GroupCounter::<u64>::new(0, 5);
        let counted: u64 = (0..1000).map(|_| counter.add_nth(3, 8, 1 << 32 | 1).counted).sum();
        assert_eq!((counted, counter.len()), (256, 256));
    }
}
