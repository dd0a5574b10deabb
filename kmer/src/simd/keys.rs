//! Keys of up to 32 bits out of packed bases, and into buckets.

use super::copies;
#[cfg(target_arch = "x86_64")]
use super::{eight, has_avx2};
use crate::keys::buckets::Buckets;
use crate::params::{Params, canonical};

/// [`keys`] takes as many of them at a time.
pub(crate) const KEYS_AT_A_TIME: usize = 8;
/// The longest k that [`keys`] takes: eight windows lie in a word, and a key in 32 bits.
pub(crate) const KEYS_MAX_K: u32 = 16;
/// Cells that are added up in 32 bits.
const CELLS: usize = 1 << 16;

/// The keys of `out.len()` (a multiple of 8) k-mers from the first base of `packed` on, one base apart, as they are counted.
///
/// # Panics
/// When k is above [`KEYS_MAX_K`], or `packed` does not have eight bytes from each two on.
pub(crate) fn keys(packed: &[u8], params: Params, out: &mut [u32]) {
    assert!(params.k() <= KEYS_MAX_K && out.len().is_multiple_of(KEYS_AT_A_TIME));
    assert!(out.is_empty() || packed.len() >= out.len() / 4 + 6);
    #[cfg(target_arch = "x86_64")]
    if has_avx2() && params.k() <= eight::MOST_BASES {
        let copy = if params.canonical() { keys_avx2::<true> } else { keys_avx2::<false> };
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: the processor has AVX2, all that the function asks for.
        return unsafe { copy(packed, params.k(), out) };
    }
    keys_any(packed, params, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn keys_avx2<const CANONICAL: bool>(packed: &[u8], k: u32, out: &mut [u32]) {
    const { assert!(KEYS_AT_A_TIME == eight::LANES) };
    let eight = eight::Eight::new(k);
    for (keys, word) in out.as_chunks_mut().0.iter_mut().zip(packed.windows(8).step_by(2)) {
        let word = word.try_into().expect("8 bytes");
        eight::store(if CANONICAL { eight.canonical(word) } else { eight.exact(word) }, keys);
    }
}

fn keys_any(packed: &[u8], params: Params, out: &mut [u32]) {
    let k = params.k();
    if params.canonical() {
        keys_as(packed, k, out, |kmer| canonical(kmer, k));
    } else {
        keys_as(packed, k, out, |kmer| kmer);
    }
}

#[inline(always)]
fn keys_as(packed: &[u8], k: u32, out: &mut [u32], taken: impl Fn(u64) -> u64) {
    let (shift, mask) = (64 - 2 * k, u64::MAX >> (64 - 2 * k));
    for (group, eight) in out.chunks_exact_mut(KEYS_AT_A_TIME).enumerate() {
        let word = u64::from_be_bytes(packed[group * 2..group * 2 + 8].try_into().expect("8 bytes"));
        for (i, key) in eight.iter_mut().enumerate() {
            *key = taken(word >> (shift - 2 * i as u32) & mask) as u32;
        }
    }
}

copies! {
    /// Puts the low bits of every key, of a chunk at most, into bucket `key >> low_bits`. There is room: they were not full.
    ///
    /// # Panics
    /// When a key is of no bucket.
    pub(crate) fn into_buckets(keys: &[u32], low_bits: u32, buckets: &mut Buckets<u16>) = into_buckets_any
}

#[inline(always)]
fn into_buckets_any(keys: &[u32], low_bits: u32, buckets: &mut Buckets<u16>) {
    let mask = (1u32 << low_bits) - 1;
    buckets.put(keys.iter().map(|key| ((key >> low_bits) as usize, (key & mask) as u16)));
}

copies! {
    /// Adds every cell to its sum. Returns what they come to, or `None` when a sum does not fit.
    pub(crate) fn add_cells(cells: &[u8], sums: &mut [u32]) -> Option<u64> = add_cells_any
}

#[inline(always)]
fn add_cells_any(cells: &[u8], sums: &mut [u32]) -> Option<u64> {
    let (mut total, mut full) = (0, false);
    for (cells, sums) in cells.chunks(CELLS).zip(sums.chunks_mut(CELLS)) {
        let mut here = 0u32;
        for (cell, sum) in cells.iter().zip(sums) {
            let cell = u32::from(*cell);
            *sum = sum.wrapping_add(cell);
            here += cell;
            // One question for all cells instead of one for each.
            full |= *sum < cell;
        }
        total += u64::from(here);
    }
    (!full).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_copy_takes_the_same_keys(packed in prop::collection::vec(any::<u8>(), 40), k in 4..=16u32, canonical: bool, groups in 0..17usize) {
            let params = Params::new(k, 0).unwrap().with_canonical(canonical);
            let (mut best, mut plain) = (vec![1; groups * KEYS_AT_A_TIME], vec![2; groups * KEYS_AT_A_TIME]);
            keys(&packed, params, &mut best);
            keys_any(&packed, params, &mut plain);
            prop_assert_eq!(best, plain);
        }
    }
}
