//! Entries without what their place tells of the key.
//!
//! Of a table with 2^b places for keys of n bits, whose hash is a product mod 2^n with an odd number, the place tells the b highest bits of the hash, once
//! it is known how far from home the entry is. An entry is the rest of the hash, n - b bits in whole bytes, then the distance from home, three
//! added, since it may lie before it in its bucket ([`BUCKET`]), and the count, a byte each; a count above 254 lies apart. The hash is a permutation of the keys, so a key comes back by the inverse of
//! the odd number.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m128i, _mm_cvtsi64_si128};

/// Bytes of distance and count.
const FIXED: u32 = 2;
/// A count that does not fit stands elsewhere.
pub(super) const APART: u32 = u8::MAX as u32;
/// Entries of more bytes than this are not short.
const MOST: u32 = 8;

/// How the entries of one table are packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short {
    place_bits: u32,
    key_bits: u32,
    /// Bits of the hash that are stored, and the bytes they take.
    rest_bits: u32,
    rest_bytes: u32,
    multiplier: u64,
    inverse: u64,
    /// An entry lies at most so many places before its home: those of a bucket but one.
    before: u64,
}

/// An entry, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unpacked {
    pub(super) rest: u64,
    pub(super) distance: u64,
    /// [`APART`] when it is too large.
    pub(super) count: u32,
}

/// For the copies that compute entries side by side.
#[cfg(target_arch = "x86_64")]
impl Short {
    /// Bits of a place's number, all ones.
    pub(super) const fn place_mask(self) -> i64 {
        (1 << self.place_bits) - 1
    }

    /// The multiplier of the hash, as it was given.
    pub(super) const fn multiplier(self) -> u64 {
        self.multiplier
    }

    /// By how much all lanes are shifted, as [`Short::pack`] does it.
    #[target_feature(enable = "sse2")]
    pub(super) fn shifts(self) -> Shifts {
        let shift = |bits: u32| _mm_cvtsi64_si128(bits.into());
        Shifts {
            rest_up: shift(self.place_bits),
            rest_down: shift(64 - self.rest_bits),
            home_down: shift(64 - self.place_bits),
            behind_up: shift(8 * self.rest_bytes),
        }
    }

    /// Which byte of as many lanes as `N` bytes are stands where, once only as many of each as an entry has are left.
    pub(super) fn bytes_left<const N: usize>(self) -> [u8; N] {
        let size = self.bytes();
        std::array::from_fn(|at| if at < N / 8 * size { (at / size * 8 + at % size) as u8 } else { 0 })
    }
}

/// See [`Short::shifts`].
#[cfg(target_arch = "x86_64")]
pub(super) struct Shifts {
    /// The hash's high bits away.
    pub(super) rest_up: __m128i,
    /// The rest down.
    pub(super) rest_down: __m128i,
    /// The home down.
    pub(super) home_down: __m128i,
    /// Distance and count up.
    pub(super) behind_up: __m128i,
}

impl Short {
    /// For a table of `places` places whose homes are the highest bits of key times `multiplier` mod 2^64, an odd number shifted by 64 less the bits
    /// of a key. `None` when places are no power of two, or entries would not be short.
    pub(super) fn of(places: u64, bucket: u64, multiplier: u64) -> Option<Self> {
        if !places.is_power_of_two() || places < 64 || multiplier == 0 {
            return None;
        }
        let (place_bits, key_bits) = (places.ilog2(), 64 - multiplier.trailing_zeros());
        let rest_bits = key_bits.saturating_sub(place_bits);
        let rest_bytes = rest_bits.div_ceil(8);
        let inverse = inverse(multiplier >> (64 - key_bits));
        (place_bits < 32 && rest_bytes + FIXED <= MOST).then_some(Self {
            place_bits,
            key_bits,
            rest_bits,
            rest_bytes,
            multiplier,
            inverse,
            before: bucket - 1,
        })
    }

    /// How many places before its home an entry lies at most.
    pub(super) const fn before(self) -> u64 {
        self.before
    }

    /// Bytes of an entry, at most 8.
    pub(super) const fn bytes(self) -> usize {
        (self.rest_bytes + FIXED) as usize
    }

    /// Where a key is at home, and the rest of its hash; `None` for a number that is no key of this table.
    pub(super) fn of_key(self, key: u64) -> Option<(u64, u64)> {
        (key & !(u64::MAX >> (64 - self.key_bits)) == 0).then(|| self.parts(key))
    }

    #[inline(always)]
    fn parts(self, key: u64) -> (u64, u64) {
        let hash = key.wrapping_mul(self.multiplier);
        (hash >> (64 - self.place_bits), self.rest_of(hash))
    }

    #[inline(always)]
    fn rest_of(self, hash: u64) -> u64 {
        // In two steps: there may be no bit of it.
        hash << self.place_bits >> (63 - self.rest_bits) >> 1
    }

    /// The entry of `key` at `place`, as the low bytes of a number, and whether it can be told that way: the distance may be too long.
    #[inline(always)]
    pub(super) fn pack(self, place: u64, key: u64, count: u32) -> (u64, bool) {
        let (home, rest) = self.parts(key);
        let distance = (place + self.before).wrapping_sub(home) & ((1 << self.place_bits) - 1);
        let behind = distance & 0xff | u64::from(count.min(APART)) << 8;
        (rest | behind << (8 * self.rest_bytes), distance <= 0xff)
    }

    /// What an entry's bytes say.
    #[inline(always)]
    pub(super) fn unpack(self, bytes: u64) -> Unpacked {
        let behind = bytes >> (8 * self.rest_bytes);
        let rest = bytes & ((1 << (8 * self.rest_bytes)) - 1);
        Unpacked { rest, distance: behind & 0xff, count: (behind >> 8) as u32 & 0xff }
    }

    /// The key of an entry at `place`. Damaged bytes give some key.
    #[inline(always)]
    pub(super) fn key(self, place: u64, entry: Unpacked) -> u64 {
        let home = (place + self.before).wrapping_sub(entry.distance) & ((1 << self.place_bits) - 1);
        let hash =
            home << (64 - self.place_bits) | entry.rest << 1 << (63 - self.rest_bits) >> self.place_bits;
        (hash >> (64 - self.key_bits)).wrapping_mul(self.inverse) & (u64::MAX >> (64 - self.key_bits))
    }
}

/// The number whose product with `odd` is 1 mod 2^64, by Newton's iteration: each step doubles the bits that are right.
pub(in crate::hash) fn inverse(odd: u64) -> u64 {
    (0..6).fold(odd, |x, _| x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_comes_back_from_its_place(key: u64, odd: u64, key_bits in 17..=64u32, place_bits in 6..20u32, distance in 0..256u64, bucket in prop::sample::select(&[4u64, 8]), count in 1..1000u32) {
            let (key, multiplier) = (key >> (64 - key_bits), (odd | 1) << (64 - key_bits));
            let Some(short) = Short::of(1 << place_bits, bucket, multiplier) else {
                prop_assert!(key_bits > place_bits + 48);
                return Ok(());
            };
            let (home, rest) = short.of_key(key).unwrap();
            prop_assert_eq!(home, key.wrapping_mul(multiplier) >> (64 - place_bits));
            let place = home.wrapping_add(distance).wrapping_sub(bucket - 1) % (1 << place_bits);
            let (bytes, told) = short.pack(place, key, count);
            // Distances are taken round the end, of which small tables have fewer than 256.
            let distance = distance % (1 << place_bits);
            prop_assert!(told && bytes.leading_zeros() as usize >= 64 - 8 * short.bytes());
            let entry = short.unpack(bytes);
            prop_assert_eq!(entry, Unpacked { rest, distance, count: count.min(APART) });
            prop_assert_eq!(short.key(place, entry), key);
            prop_assert!(key_bits == 64 || short.of_key(key | 1 << 63).is_none());
        }
    }

    #[test]
    fn what_is_too_far_from_home_is_told() {
        let short = Short::of(1024, 4, 5 << 32).expect("short");
        let (home, _) = short.of_key(7).expect("a key");
        assert!(short.pack((home + 252) % 1024, 7, 1).1);
        assert!(!short.pack((home + 253) % 1024, 7, 1).1);
        assert!(
            Short::of(1000, 4, 5 << 32).is_none()
                && Short::of(64, 4, 5).is_none()
                && Short::of(64, 4, 0).is_none()
        );
    }
}
