//! A bucket: eight words with seven or five entries and a check sum over them and the bucket's number.

/// Words of a bucket.
pub(crate) type Bucket = [u64; 8];

/// How entries lie in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Keys of up to 32 bits: seven words with key and count.
    Narrow,
    /// Longer keys: five words, then five counts.
    Wide,
}

const NARROW: usize = 7;
const WIDE: usize = 5;
/// Share of the entries in use, in hundredths: fuller buckets overflow so often that look-ups become slower than they become denser.
const FULL: u64 = 72;

impl Form {
    pub(crate) const fn for_bits(key_bits: u32) -> Self {
        if key_bits <= 32 { Self::Narrow } else { Self::Wide }
    }

    /// Entries of a bucket.
    pub(crate) const fn slots(self) -> usize {
        match self {
            Self::Narrow => NARROW,
            Self::Wide => WIDE,
        }
    }

    /// Buckets for so many entries.
    pub(crate) fn buckets(self, entries: u64) -> u64 {
        entries.saturating_mul(100) / (self.slots() as u64 * FULL) + 1
    }

    /// The entry in a place of the bucket; a count of 0 when it is empty.
    pub(crate) fn entry(self, words: &Bucket, place: usize) -> (u64, u32) {
        match self {
            Self::Narrow => (words[place] & 0xffff_ffff, (words[place] >> 32) as u32),
            Self::Wide => (words[place], wide_count(words, place)),
        }
    }

    /// The count of `key` in the bucket; 0 when it is not there.
    #[inline]
    pub(crate) fn find(self, words: &Bucket, key: u64) -> u32 {
        // All places are looked at, and nothing is guessed: which one it is cannot be foretold.
        match self {
            Self::Narrow => (0..NARROW).fold(0, |found, place| {
                let hit = words[place] & 0xffff_ffff == key;
                found | if hit { (words[place] >> 32) as u32 } else { 0 }
            }),
            Self::Wide => (0..WIDE).fold(0, |found, place| {
                found | if words[place] == key { wide_count(words, place) } else { 0 }
            }),
        }
    }

    /// True when the bucket has no empty place, so that what belongs into it may be in the next one.
    #[inline]
    pub(crate) fn is_full(self, words: &Bucket) -> bool {
        match self {
            Self::Narrow => words[NARROW - 1] >> 32 != 0,
            Self::Wide => wide_count(words, WIDE - 1) != 0,
        }
    }

    /// Whether the key is in the bucket.
    pub(crate) fn has(self, words: &Bucket, key: u64) -> bool {
        (0..self.slots())
            .map(|place| self.entry(words, place))
            .any(|(other, count)| count != 0 && other == key)
    }

    /// Puts an entry into the first empty place; false when there is none. The check sum is not right any more then.
    pub(crate) fn put(self, words: &mut Bucket, key: u64, count: u32) -> bool {
        let Some(place) = (0..self.slots()).find(|place| self.entry(words, *place).1 == 0) else {
            return false;
        };
        match self {
            Self::Narrow => words[place] = key | u64::from(count) << 32,
            Self::Wide => {
                words[place] = key;
                words[WIDE + place / 2] |= u64::from(count) << (32 * (place % 2));
            }
        }
        true
    }
}

#[inline]
fn wide_count(words: &Bucket, place: usize) -> u32 {
    (words[WIDE + place / 2] >> (32 * (place % 2))) as u32
}

/// Odd factors, one a word and one for the number: the first numbers of splitmix64. A flipped bit changes the sum by a power of two times one of them,
/// which is never so small that the high half stays the same.
const FACTORS: [u64; 9] = {
    let (mut factors, mut i) = ([0; 9], 0);
    while i < 9 {
        let mut x = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(i as u64 + 1);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        factors[i] = (x ^ x >> 31) | 1;
        i += 1;
    }
    factors
};

/// The check sum that the bucket must bear.
#[inline]
pub(crate) fn check_of(words: &Bucket, number: u64) -> u32 {
    let start = (words[7] & 0xffff_ffff).wrapping_mul(FACTORS[7]);
    let start = start.wrapping_add(number.wrapping_add(1).wrapping_mul(FACTORS[8]));
    let add = |sum: u64, place: usize| sum.wrapping_add(words[place].wrapping_mul(FACTORS[place]));
    ((0..7).fold(start, add) >> 32) as u32
}

/// The check sum that the bucket bears.
#[inline]
pub(crate) const fn check_in(words: &Bucket) -> u32 {
    (words[7] >> 32) as u32
}

/// The home bucket of a key.
#[inline]
pub(crate) fn home(key: u64, multiplier: u64, buckets: u64) -> u64 {
    let mixed = (key ^ key >> 32).wrapping_mul(multiplier);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xd6e8_feb8_6659_fd93);
    ((u128::from(mixed) * u128::from(buckets)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_is_a_small_map(keys in prop::collection::btree_map(any::<u32>(), 1..u32::MAX, 0..9), other in any::<u32>(), wide in any::<bool>(), number in any::<u32>()) {
            let form = if wide { Form::Wide } else { Form::Narrow };
            let spread = |key: u32| if wide { u64::from(key) << 17 } else { u64::from(key) };
            let mut words = [0; 8];
            for (at, (key, count)) in keys.iter().enumerate() {
                prop_assert_eq!(form.is_full(&words), at >= form.slots());
                prop_assert_eq!(form.put(&mut words, spread(*key), *count), at < form.slots());
            }
            for (key, count) in keys.iter().take(form.slots()) {
                prop_assert_eq!(form.find(&words, spread(*key)), *count);
            }
            if !keys.contains_key(&other) {
                prop_assert_eq!(form.find(&words, spread(other)), 0);
            }
            // Every bit and the number are under the check sum.
            let check = check_of(&words, number.into());
            for bit in 0..480 {
                let mut altered = words;
                altered[bit / 64] ^= 1 << (bit % 64);
                prop_assert_ne!(check_of(&altered, number.into()), check, "bit {}", bit);
            }
            prop_assert_ne!(check_of(&words, u64::from(number) + 1), check);
        }
    }
}
