//! Counts in how many groups each key occurs: the private table in which a stripe is built aside.
//!
//! Keys come in batches with their groups, a group's keys one after the other. A slot remembers the group that touched it last, so a key
//! that comes again in the same group is counted once. Group numbers are the caller's, from 1, never the same for two groups. A group has a
//! weight: it may stand for many groups of exactly the same keys.
//!
//! Linear probing over a power of two of slots, at most [`MAX_LOAD`] full, home = high bits of key times a random odd multiplier. The slots
//! of a batch are prefetched [`AHEAD`] pairs before they are needed: the table is larger than the first cache.

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

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Slot<K> {
    key: K,
    /// Groups that have the key; 0 is an empty slot.
    groups: u32,
    /// The group that touched the slot last.
    last: u32,
}

/// A table is made larger when more than this share of its slots would be in use (numerator, denominator).
pub const MAX_LOAD: (usize, usize) = (1, 2);
/// How many pairs ahead slots are prefetched.
pub const AHEAD: usize = 16;
/// Slots that [`GroupCounter::for_each_batch`] looks at for one call.
const SLOTS_A_BATCH: usize = 1024;

/// Counts groups a key; see the module.
pub struct GroupCounter<K> {
    slots: Vec<Slot<K>>,
    shift: u32,
    multiplier: u64,
    used: usize,
}

/// Some places of a table: their keys and numbers of groups.
pub struct Places<'a, K>(std::slice::Iter<'a, Slot<K>>);

impl<K: Key> Iterator for Places<'_, K> {
    type Item = (u64, u32);

    #[inline(always)]
    fn next(&mut self) -> Option<(u64, u32)> {
        self.0.next().map(|slot| (slot.key.wide(), slot.groups))
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
        let mut table = Self { slots: Vec::new(), shift: 64, multiplier, used: 0 };
        table.reset(keys);
        table
    }

    /// Empties the table and fits it to about `keys` keys, using its memory again.
    pub fn reset(&mut self, keys: usize) {
        let slots = (keys * MAX_LOAD.1 / MAX_LOAD.0 + 1).next_power_of_two().max(64);
        self.slots.clear();
        self.slots.resize(slots, Slot::default());
        self.shift = 64 - slots.trailing_zeros();
        self.used = 0;
    }

    /// Keys in the table.
    pub fn len(&self) -> usize {
        self.used
    }

    /// True when no key is in the table.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The multiplier of the hash: an odd number, shifted by 64 less the bits of a key, so that the product's highest bits are the hash's.
    pub fn multiplier(&self) -> u64 {
        self.multiplier
    }

    fn home(&self, key: K) -> usize {
        (key.wide().wrapping_mul(self.multiplier) >> self.shift) as usize
    }

    /// Every key with the number of groups that have it, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (K, u32)> + '_ {
        self.slots.iter().filter(|s| s.groups != 0).map(|s| (s.key, s.groups))
    }

    /// Calls `each` with the keys and their numbers of groups, many at a time, in the order of the table.
    pub fn for_each_batch(&self, mut each: impl FnMut(&[(K, u32)])) {
        let mut batch = [(K::default(), 0); SLOTS_A_BATCH + 1];
        for slots in self.slots.chunks(SLOTS_A_BATCH) {
            let mut filled = 0;
            for slot in slots {
                // Written whether it is in use or not, so that there is nothing to guess.
                batch[filled] = (slot.key, slot.groups);
                filled += usize::from(slot.groups != 0);
            }
            each(&batch[..filled]);
        }
    }

    /// Places of the table, a power of two, used or not.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// Calls `each` with 64 places at a time, in order: key and number of groups, both 0 for an empty place.
    pub fn for_each_64(&self, mut each: impl FnMut(Places<'_, K>)) {
        self.slots.as_chunks::<64>().0.iter().for_each(|slots| each(Places(slots.iter())));
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

    #[inline(always)]
    fn add_pairs<const EVERY: bool>(&mut self, keys: &[K], tags: &[u64]) -> Added {
        assert_eq!(keys.len(), tags.len());
        self.make_room(keys.len());
        let mut added = Added::default();
        for &key in &keys[..keys.len().min(AHEAD)] {
            prefetch(&self.slots[self.home(key)]);
        }
        for (i, (&key, &tag)) in keys.iter().zip(tags).enumerate() {
            if let Some(&later) = keys.get(i + AHEAD) {
                prefetch(&self.slots[self.home(later)]);
            }
            let slot = self.slot_of(key);
            let (group, weight) = (tag as u32, (tag >> 32) as u32);
            let more = if !EVERY && slot.last == group { 0 } else { weight };
            slot.last = group;
            slot.groups += more;
            added.counted += u64::from(more);
            added.key_sum = added.key_sum.wrapping_add(key.wide().wrapping_mul(more.into()));
        }
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
        let mask = self.slots.len() - 1;
        let mut at = self.home(key);
        loop {
            let slot = &self.slots[at];
            if slot.groups == 0 {
                return false;
            }
            if slot.key == key {
                return slot.last == group;
            }
            at = (at + 1) & mask;
        }
    }

    /// The slot of `key`, which gets one if it had none. There is room: `make_room` was called.
    #[inline(always)]
    fn slot_of(&mut self, key: K) -> &mut Slot<K> {
        let mask = self.slots.len() - 1;
        let mut at = self.home(key) & mask;
        loop {
            let slot = &self.slots[at];
            // Both in one question: whether a key is new cannot be guessed.
            let empty = slot.groups == 0;
            if empty | (slot.key == key) {
                self.used += usize::from(empty);
                break;
            }
            at = (at + 1) & mask;
        }
        let slot = &mut self.slots[at];
        slot.key = key;
        slot
    }

    fn make_room(&mut self, more: usize) {
        if (self.used + more) * MAX_LOAD.1 > self.slots.len() * MAX_LOAD.0 {
            self.grow(self.used + more);
        }
    }

    #[cold]
    fn grow(&mut self, keys: usize) {
        let mut larger = Self { slots: Vec::new(), shift: 64, multiplier: self.multiplier, used: 0 };
        larger.reset(keys * 2);
        for slot in self.slots.iter().filter(|s| s.groups != 0) {
            *larger.slot_of(slot.key) = *slot;
        }
        *self = larger;
    }
}

/// Asks for the cache line of `place`; changes nothing.
#[inline(always)]
fn prefetch<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint; it reads nothing and faults on nothing. SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
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
