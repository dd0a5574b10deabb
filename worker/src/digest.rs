//! A digest of bytes that finds damage: what another process wrote where it should not, what was lost, doubled or taken from elsewhere.
//!
//! It is no defence against somebody who makes bytes that fit. To each word of 64 bits the number of its place is added, and the product of the
//! sum's halves goes into one total, the word itself into another. These are 32-bit products and additions in any order, which become
//! vector instructions on every processor ([`totals`]).
//!
//! What changes is missed by chance alone. Where a half of a sum is zero, once in 2^32, the product does not show what becomes of the other half; the
//! total of the words does. The same bytes give the same digest on every machine.

use kmer::totals;
use shm_layout::planted::RECOVERS;

/// Odd numbers without a pattern: the step between two places, and the factor of the last steps.
const PLACE: u64 = 0xd1b5_4a32_d192_ed03;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The digest of a section, salted with where it belongs.
pub fn digest(unit: usize, stripe: usize, section: &[u8]) -> u64 {
    if !RECOVERS {
        return 0;
    }
    let salt = step(step(step(0x51ed_270b, unit as u64), stripe as u64), section.len() as u64);
    let (words, rest) = section.as_chunks::<8>();
    let (mut products, mut sum) = totals(words, salt, PLACE);
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let more = totals(&[last], salt.wrapping_add(PLACE.wrapping_mul(words.len() as u64)), PLACE);
        products = products.wrapping_add(more.0);
        sum = sum.wrapping_add(more.1);
    }
    step(step(salt, products), sum)
}

fn step(state: u64, word: u64) -> u64 {
    (state ^ word).wrapping_mul(FACTOR).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_knows_bytes_order_place_and_length() {
        let base = digest(1, 2, b"abcdefghij");
        for other in [
            digest(2, 1, b"abcdefghij"),
            digest(1, 2, b"abcdefghji"),
            digest(1, 2, b"abcdefghij\0"),
            digest(1, 2, b""),
            digest(1, 2, &[b"abcdefghij".as_slice(), &[0; 64]].concat()),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base, digest(1, 2, b"abcdefghij"));
    }

    /// What the module's head says, from the last word to the first and in wide numbers.
    fn naive(unit: usize, stripe: usize, section: &[u8]) -> u64 {
        let salt =
            [unit, stripe, section.len()].iter().fold(0x51ed_270b, |state, word| step(state, *word as u64));
        let (mut products, mut sum) = (0u128, 0u128);
        for at in (0..section.len().div_ceil(8)).rev() {
            let bytes = (0..8).map(|byte| section.get(8 * at + byte).copied().unwrap_or(0));
            let word =
                bytes.enumerate().fold(0u128, |word, (byte, value)| word | u128::from(value) << (8 * byte));
            let placed = (word + u128::from(salt) + at as u128 * u128::from(PLACE)) as u64;
            products += u128::from(placed as u32) * u128::from(placed >> 32);
            sum += word;
        }
        step(step(salt, products as u64), sum as u64)
    }

    #[test]
    fn it_is_what_it_is_said_to_be_and_every_bit_and_every_place_counts() {
        let bytes: Vec<u8> = (0..400u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(digest(7, len, &bytes[..len]), naive(7, len, &bytes[..len]), "{len} bytes");
        }
        let base = digest(3, 4, &bytes);
        for bit in 0..8 * bytes.len() {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest(3, 4, &other), base, "bit {bit}");
        }
        for (a, b) in [(0, 64), (64, 256), (0, 8), (8, 72), (16, 328)] {
            let mut other = bytes.clone();
            (0..8).for_each(|byte| other.swap(a + byte, b + byte));
            assert_ne!(digest(3, 4, &other), base, "words at {a} and {b}");
        }
        assert_ne!(digest(3, 4, &[0; 128]), digest(3, 4, &[[0; 64], [255; 64]].concat()));
    }
}
