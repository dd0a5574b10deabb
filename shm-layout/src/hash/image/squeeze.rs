//! Writes images without their empty places: for tables of which all is kept.

use super::short::{APART, Short};
use super::{HEADER, SHORT, SQUEEZED, ranks_bytes, write_header};
use crate::hash::counter::Added;
use crate::hash::entry::EntryKind;
use crate::hash::table::{Places, Table};

/// What a squeezed table came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Squeezed {
    /// Sum of the counts, and of the numbers of keys times counts.
    pub sums: Added,
    /// The highest count.
    pub highest: u32,
}

/// Appends the squeezed image of all of `table` to `buffer`: with short entries, if they are short and none is too far from home.
pub fn squeeze<T: Table>(mut buffer: Vec<u8>, kind: EntryKind, table: &T) -> (Vec<u8>, Squeezed) {
    let (from, words) = (buffer.len(), table.places().div_ceil(64));
    let bits_at = from + HEADER;
    let entries_at = bits_at + words * 8 + ranks_bytes(words);
    let short = Short::of(table.places() as u64, T::BUCKET as u64, table.number_multiplier());
    buffer.resize(entries_at, 0);
    buffer.reserve(table.len() * short.map_or(kind.bytes(), Short::bytes));
    let mut numbers =
        [table.places() as u64, table.len() as u64, table.multiplier(), 0, 0, 0, T::BUCKET as u64];
    if let Some(short) = short
        && let Some((found, apart)) = squeeze_short(&mut buffer, bits_at, words, table, short)
    {
        apart.iter().for_each(|(rank, count)| {
            buffer.extend(rank.to_le_bytes());
            buffer.extend(count.to_le_bytes());
        });
        (numbers[4], numbers[5]) = (found.sums.counted, apart.len() as u64);
        write_header(&mut buffer[from..bits_at], kind, SHORT, numbers);
        return (buffer, found);
    }
    buffer.truncate(entries_at);
    let found = match kind {
        EntryKind::Kmer64 => squeeze_entries::<T, 12>(&mut buffer, bits_at, words, table),
        _ => squeeze_entries::<T, 8>(&mut buffer, bits_at, words, table),
    };
    numbers[4] = found.sums.counted;
    write_header(&mut buffer[from..bits_at], kind, SQUEEZED, numbers);
    (buffer, found)
}

impl Squeezed {
    #[inline(always)]
    fn add(&mut self, number: u64, count: u32) {
        self.sums.counted += u64::from(count);
        self.sums.key_sum = self.sums.key_sum.wrapping_add(number.wrapping_mul(u64::from(count)));
        self.highest = self.highest.max(count);
    }
}

/// Notes which places of word `word` are in use, and how many were before them.
pub(super) fn write_bits(
    buffer: &mut [u8],
    bits_at: usize,
    words: usize,
    word: usize,
    (bits, rank): (u64, u32),
) {
    buffer[bits_at + word * 8..][..8].copy_from_slice(&bits.to_le_bytes());
    buffer[bits_at + words * 8 + word * 4..][..4].copy_from_slice(&rank.to_le_bytes());
}

/// Counts that do not fit an entry, with the ranks of theirs.
pub(super) type Apart = Vec<(u32, u32)>;

/// Short entries, and the counts that are kept apart. `None` when an entry is too far from home.
fn squeeze_short<T: Table>(
    buffer: &mut Vec<u8>,
    bits_at: usize,
    words: usize,
    table: &T,
    short: Short,
) -> Option<(Squeezed, Apart)> {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if let Some(lines) = table.lines().filter(|_| super::eights::suits()) {
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: the processor has all that the function asks for.
        return Some(unsafe { super::eights::squeeze_short(buffer, bits_at, words, &lines, short) });
    } else if super::lanes::suits() {
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: the processor has all that the function asks for.
        return unsafe { super::lanes::squeeze_short(buffer, bits_at, words, table, short) };
    } else if super::fours::suits() {
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: the processor has all that the function asks for.
        return unsafe { super::fours::squeeze_short(buffer, bits_at, words, table, short) };
    }
    squeeze_short_any(buffer, bits_at, words, table, short)
}

fn squeeze_short_any<T: Table>(
    buffer: &mut Vec<u8>,
    bits_at: usize,
    words: usize,
    table: &T,
    short: Short,
) -> Option<(Squeezed, Apart)> {
    let (mut found, mut apart, size) = (Squeezed::default(), Vec::new(), short.bytes());
    let (mut rank, mut all_told) = (0u32, true);
    let mut entries = [0u8; 64 * 8 + 8];
    for (word, places) in table.by_64().enumerate() {
        let bits = places.used();
        let (mut left, mut filled) = (bits, 0);
        while left != 0 {
            let i = left.trailing_zeros();
            left &= left - 1;
            let (number, count) = places.get(i as usize);
            let (entry, told) = short.pack(word as u64 * 64 + u64::from(i), number, count);
            entries[filled * size..filled * size + 8].copy_from_slice(&entry.to_le_bytes());
            if count >= APART {
                apart.push((rank + filled as u32, count));
            }
            all_told &= told;
            found.add(number, count);
            filled += 1;
        }
        write_bits(buffer, bits_at, words, word, (bits, rank));
        buffer.extend_from_slice(&entries[..filled * size]);
        rank += filled as u32;
    }
    all_told.then_some((found, apart))
}

/// Entries of `SIZE` bytes, the count in the last four.
fn squeeze_entries<T: Table, const SIZE: usize>(
    buffer: &mut Vec<u8>,
    bits_at: usize,
    words: usize,
    table: &T,
) -> Squeezed {
    let mut found = Squeezed::default();
    let mut rank = 0u32;
    let mut entries = [[0u8; SIZE]; 64];
    for (word, places) in table.by_64().enumerate() {
        let bits = places.used();
        let (mut left, mut filled) = (bits, 0);
        while left != 0 {
            let (number, count) = places.get(left.trailing_zeros() as usize);
            left &= left - 1;
            let entry = &mut entries[filled];
            entry[..SIZE - 4].copy_from_slice(&table.key(number).to_le_bytes()[..SIZE - 4]);
            entry[SIZE - 4..].copy_from_slice(&count.to_le_bytes());
            found.add(number, count);
            filled += 1;
        }
        write_bits(buffer, bits_at, words, word, (bits, rank));
        buffer.extend_from_slice(entries[..filled].as_flattened());
        rank += filled as u32;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::counter::{GroupCounter, Key};
    use crate::hash::weights::WeightCounter;
    use proptest::prelude::*;

    /// Whether the keys, of `key_bits` bits each, fit short entries: `None` when no entry of their table is short.
    fn check<K: Key>(keys: &[(u64, u32)], key_bits: u32, multiplier: u64) -> Option<bool> {
        let mut table = GroupCounter::<K>::for_bits(keys.len(), multiplier, key_bits);
        for (i, (key, count)) in keys.iter().enumerate() {
            let tag = u64::from(*count) << 32 | (i as u64 + 1);
            table.add_batch(&[K::narrow(*key)], &[tag]);
        }
        check_table(&table)
    }

    fn check_table<T: Table>(table: &T) -> Option<bool> {
        let words = table.places().div_ceil(64);
        let short = Short::of(table.places() as u64, T::BUCKET as u64, table.number_multiplier())?;
        let (mut best, mut any) = (vec![0; 16 + words * 12], vec![0; 16 + words * 12]);
        let found = squeeze_short(&mut best, 16, words, table, short);
        assert_eq!(found, squeeze_short_any(&mut any, 16, words, table, short));
        assert!(found.is_none() || best == any);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if super::super::lanes::suits() {
            let mut lanes = vec![0; 16 + words * 12];
            #[allow(unsafe_code, reason = "the copy that may not be chosen")]
            // SAFETY: the processor has all that the function asks for.
            let same = unsafe { super::super::lanes::squeeze_short(&mut lanes, 16, words, table, short) };
            assert!(same == found && (found.is_none() || lanes == any));
        }
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if super::super::fours::suits() {
            let mut fours = vec![0; 16 + words * 12];
            #[allow(unsafe_code, reason = "the copy that this processor may not choose")]
            // SAFETY: the processor has all that the function asks for.
            let same = unsafe { super::super::fours::squeeze_short(&mut fours, 16, words, table, short) };
            assert!(same == found && (found.is_none() || fours == any));
        }
        Some(found.is_some())
    }

    proptest! {
        #[test]
        fn every_copy_of_the_loop_writes_the_same(
            keys in prop::collection::vec((any::<u64>(), prop_oneof![1..9u32, 250..260u32, any::<u32>().prop_map(|n| n >> 8 | 1)]), 0..700),
            key_bits in 6..=64u32, multiplier: u64,
        ) {
            let of_bits = |bits: u32| keys.iter().map(|(key, count)| (key >> (64 - bits), *count)).collect::<Vec<_>>();
            check::<u64>(&of_bits(key_bits), key_bits, multiplier);
            check::<u32>(&of_bits(key_bits.min(32)), key_bits.min(32), multiplier);
            let mut table = WeightCounter::new(multiplier, key_bits);
            if table.reset(keys.len()) {
                let (keys, tags): (Vec<u64>, Vec<u64>) = of_bits(key_bits).into_iter().map(|(key, count)| (key, u64::from(count) << 32)).unzip();
                if table.add_batch(&keys, &tags).is_some() {
                    prop_assert!(check_table(&table) != Some(false));
                }
            }
        }
    }

    /// All at home in the last line of eight, or in the first, with counts that fit and that do not.
    #[test]
    fn every_copy_tells_weights_that_are_lines_from_home() {
        for home in [7 << 17, 0] {
            let mut table = WeightCounter::new(1, 20);
            assert!(table.reset(0));
            let keys: Vec<u32> = (0..40).map(|key| home | (key * 2909)).collect();
            let tags: Vec<u64> = (0..40).map(|count| (count * 37 % 300 + 1) << 32).collect();
            assert!(table.add_batch(&keys, &tags).is_some());
            assert_eq!(table.places(), 64, "it did not grow");
            assert_eq!(check_table(&table), Some(true));
        }
    }

    #[test]
    fn every_copy_refuses_what_is_too_far_from_home() {
        // All at home in the first place.
        let near = |keys: u64| (0..keys).map(|key| (key, 1)).collect::<Vec<_>>();
        for (keys, fit) in [(200, true), (253, true), (254, false), (600, false)] {
            assert_eq!(check::<u64>(&near(keys), 40, 1), Some(fit), "{keys}");
            assert_eq!(check::<u32>(&near(keys), 32, 1), Some(fit), "{keys}");
        }
    }
}
