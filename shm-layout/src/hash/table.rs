//! What a private table tells of itself once it is complete: all that publishing it needs.
//!
//! A table names its keys by *numbers*: the keys themselves, or what it keeps of them. A number times [`Table::number_multiplier`] modulo 2^64 is the hash
//! of its key, which is the key times [`Table::multiplier`].

use super::weights::Lines;

/// A private table of keys and counts, a power of two of places.
pub trait Table {
    /// Places that are looked at together, a power of two: a key is found from the first place of its home's bucket on.
    const BUCKET: usize;
    /// 64 places.
    type Places<'a>: Places
    where
        Self: 'a;

    /// Keys in the table.
    fn len(&self) -> usize;
    /// True when no key is in the table.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Places of the table, used or not.
    fn places(&self) -> usize;
    /// What makes a hash of a key: an odd number, shifted by 64 less the bits of a key, so that the product's highest bits are the hash's.
    fn multiplier(&self) -> u64;
    /// What makes a hash of a number.
    fn number_multiplier(&self) -> u64;
    /// The key of that number.
    fn key(&self, number: u64) -> u64;
    /// Its lines, if it is one of weights alone.
    fn lines(&self) -> Option<Lines<'_>> {
        None
    }
    /// The places, 64 at a time, in order.
    fn by_64(&self) -> impl Iterator<Item = Self::Places<'_>>;

    /// Calls `each` with the numbers of all keys and their counts, many at a time, in the order of the table.
    fn for_each_batch(&self, mut each: impl FnMut(&[(u64, u32)])) {
        let mut batch = [(0, 0); 64 + 1];
        for places in self.by_64() {
            let mut filled = 0;
            for place in 0..64 {
                // Written whether it is in use or not, so that there is nothing to guess.
                batch[filled] = places.get(place);
                filled += usize::from(batch[filled].1 != 0);
            }
            each(&batch[..filled]);
        }
    }
}

/// 64 places of a table: numbers of keys, and counts.
pub trait Places {
    /// Number and count of place `i`, taken modulo 64; a free place has no count.
    fn get(&self, i: usize) -> (u64, u32);

    /// Bit i: place i is in use.
    #[inline(always)]
    fn used(&self) -> u64 {
        (0..64).fold(0, |used, i| used | u64::from(self.get(i).1 != 0) << i)
    }

    /// Numbers and counts of `N` places, the `at`-th `N` of them.
    #[inline(always)]
    fn some<const N: usize>(&self, at: usize) -> ([u64; N], [u64; N]) {
        let pairs: [(u64, u32); N] = std::array::from_fn(|i| self.get(at * N + i));
        (pairs.map(|(number, _)| number), pairs.map(|(_, count)| count.into()))
    }
}
