//! The k-mers in the most rows, of all that were counted, for a page about the run.

use super::Entry;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How many are kept.
pub const MOST: usize = 20;

/// Keeps the [`MOST`] entries with the highest counts; among equal counts the smallest keys.
#[derive(Clone, Debug, Default)]
pub struct Top(BinaryHeap<Reverse<(u32, Reverse<u64>)>>);

impl Top {
    /// Looks at an entry.
    pub fn add(&mut self, key: u64, rows: u32) {
        let entry = Reverse((rows, Reverse(key)));
        if self.0.len() < MOST {
            self.0.push(entry);
        } else if let Some(mut least) = self.0.peek_mut()
            && entry < *least
        {
            *least = entry;
        }
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: Self) {
        other.0.into_iter().for_each(|Reverse((rows, Reverse(key)))| self.add(key, rows));
    }

    /// The entries, the most frequent first.
    pub fn sorted(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> =
            self.0.iter().map(|Reverse((rows, Reverse(key)))| (*key, *rows)).collect();
        entries.sort_unstable_by_key(|(key, rows)| (Reverse(*rows), *key));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_are_kept_whatever_the_order() {
        let all: Vec<Entry> = (0..200u64).map(|i| (i * 37 % 200, (i * 37 % 200 / 3) as u32)).collect();
        let mut expected = all.clone();
        expected.sort_by_key(|(key, rows)| (Reverse(*rows), *key));
        expected.truncate(MOST);
        let (mut first, mut second) = (Top::default(), Top::default());
        for (i, (key, rows)) in all.into_iter().enumerate() {
            if i.is_multiple_of(3) { first.add(key, rows) } else { second.add(key, rows) }
        }
        first.merge(second);
        assert_eq!(first.sorted(), expected);
    }
}
