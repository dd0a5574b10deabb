//! The k-mers in the most rows: as many as are asked for, in room for twice as many.

use super::Entry;
use std::cmp::Reverse;

/// A place in the order by count.
pub type Place = (Reverse<u32>, u64);

/// The most frequent first, and among equal counts the smallest key: the choice does not depend on who saw which k-mer.
pub fn by_count(entry: &Entry) -> Place {
    (Reverse(entry.1), entry.0)
}

/// Entries that are held, at least, before it is looked which of them stay.
const LEAST: usize = 1 << 10;

/// Keeps the `most` entries with the highest counts; among equal counts the smallest keys.
#[derive(Clone, Debug)]
pub struct Top {
    most: usize,
    entries: Vec<Entry>,
    /// Of `most` entries that are held the last; what comes behind it needs not be held.
    last: Option<Place>,
}

impl Top {
    /// For as many as `most`.
    pub fn new(most: u64) -> Self {
        Self { most: usize::try_from(most).unwrap_or(usize::MAX), entries: Vec::new(), last: None }
    }

    /// How many are kept.
    pub fn most(&self) -> u64 {
        self.most as u64
    }

    /// Looks at an entry.
    #[inline]
    pub fn add(&mut self, key: u64, rows: u32) {
        let entry = (key, rows);
        if self.last.is_some_and(|last| by_count(&entry) > last) {
            return;
        }
        self.entries.push(entry);
        if self.entries.len() >= self.most.saturating_mul(2).max(LEAST) {
            self.drop_others();
        }
    }

    fn drop_others(&mut self) {
        if self.entries.len() > self.most {
            let (_, last, _) = self.entries.select_nth_unstable_by_key(self.most.max(1) - 1, by_count);
            self.last = Some(by_count(last));
            self.entries.truncate(self.most);
        }
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: Self) {
        other.entries.into_iter().for_each(|(key, rows)| self.add(key, rows));
    }

    /// The entries that are kept, in no order.
    pub fn into_entries(mut self) -> Vec<Entry> {
        self.drop_others();
        self.entries.shrink_to_fit();
        self.entries
    }

    /// The entries that are kept, the most frequent first.
    pub fn sorted(&self) -> Vec<Entry> {
        let mut entries = self.clone().into_entries();
        entries.sort_unstable_by_key(by_count);
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_are_kept_whatever_the_order() {
        // Every limit falls among many equal counts.
        let count = 9 * LEAST as u64 + 1;
        let all: Vec<Entry> =
            (0..count).map(|i| i * 1979 % count).map(|key| (key, (key / 3 % 5) as u32)).collect();
        for most in [1, 20, 700, 2 * LEAST as u64, u64::MAX] {
            let mut expected = all.clone();
            expected.sort_by_key(|(key, rows)| (Reverse(*rows), *key));
            expected.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            let (mut first, mut second) = (Top::new(most), Top::new(most));
            for (i, (key, rows)) in all.iter().enumerate() {
                if i.is_multiple_of(3) { first.add(*key, *rows) } else { second.add(*key, *rows) }
            }
            first.merge(second);
            assert_eq!(first.sorted(), expected, "{most}");
        }
    }

    #[test]
    fn room_is_for_twice_as_many() {
        let mut top = Top::new(1000);
        (0..100_000).for_each(|key| top.add(key, key as u32));
        assert!(top.entries.capacity() <= 4000, "{}", top.entries.capacity());
    }
}
