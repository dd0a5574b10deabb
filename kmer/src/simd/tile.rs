//! What the scan does with the minimizers of a tile: where they change, and the list of stretches; see [`crate::stretches`].

use super::copies;
#[cfg(target_arch = "x86_64")]
use super::{has_avx2, has_avx512};
#[cfg(target_arch = "x86_64")]
use crate::minimizer::LAST_PLACE;
use crate::minimizer::{Dealer, PLACE_BITS, place_of};
use crate::stretches::{AT_A_TIME, Stretch, around};
use crate::superkmer::Piece;

/// Bit i of `out` says that the hashes in `minima[i]` and `minima[i + 1]` differ, for i below `count`; the bits behind mean nothing.
///
/// # Panics
/// When `minima` has no 64 numbers more than `count`, or `out` is too short.
pub(crate) fn changes(minima: &[u32], count: usize, out: &mut [u64]) {
    assert!(minima.len() > count.next_multiple_of(64) && out.len() >= count.div_ceil(64));
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: the processor has all that the function asks for.
        return unsafe { changes_avx512(minima, count, out) };
    } else if has_avx2() {
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: the processor has AVX2 and BMI2, all that the function asks for.
        return unsafe { changes_avx2(minima, count, out) };
    }
    changes_any(minima, count, out);
}

fn changes_any(minima: &[u32], count: usize, out: &mut [u64]) {
    for (word, at) in out.iter_mut().zip((0..count).step_by(64)) {
        let pairs = minima[at..at + 64].iter().zip(&minima[at + 1..at + 65]).enumerate();
        *word = pairs.fold(0, |bits, (i, (a, b))| bits | u64::from((a ^ b) >> PLACE_BITS != 0) << i);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn changes_avx512(minima: &[u32], count: usize, out: &mut [u64]) {
    use std::arch::x86_64::{_mm512_set1_epi32, _mm512_test_epi32_mask, _mm512_xor_si512};
    let hash = _mm512_set1_epi32(!LAST_PLACE as i32);
    for (word, at) in out.iter_mut().zip((0..count).step_by(64)) {
        let (these, next) = (&minima[at..at + 64], &minima[at + 1..at + 65]);
        let pairs = these.as_chunks::<16>().0.iter().zip(next.as_chunks::<16>().0).enumerate();
        *word = pairs.fold(0, |bits, (i, (a, b))| {
            let apart = _mm512_xor_si512(sixteen(a), sixteen(b));
            bits | u64::from(_mm512_test_epi32_mask(apart, hash)) << (16 * i)
        });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sixteen(lanes: &[u32; 16]) -> std::arch::x86_64::__m512i {
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: there are sixteen lanes of four bytes, as many as are read; the load asks for no alignment.
    unsafe {
        std::arch::x86_64::_mm512_loadu_si512(lanes.as_ptr().cast())
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
fn changes_avx2(minima: &[u32], count: usize, out: &mut [u64]) {
    use std::arch::x86_64::{
        _mm256_castsi256_ps, _mm256_cmpeq_epi32, _mm256_movemask_ps, _mm256_setzero_si256, _mm256_srli_epi32,
        _mm256_xor_si256,
    };
    const PLACE: i32 = PLACE_BITS as i32;
    for (word, at) in out.iter_mut().zip((0..count).step_by(64)) {
        let (these, next) = (&minima[at..at + 64], &minima[at + 1..at + 65]);
        let mut same = 0u64;
        for (i, (a, b)) in these.as_chunks().0.iter().zip(next.as_chunks().0).enumerate() {
            let apart = _mm256_srli_epi32::<PLACE>(_mm256_xor_si256(eight(a), eight(b)));
            let equal = _mm256_cmpeq_epi32(apart, _mm256_setzero_si256());
            same |= u64::from(_mm256_movemask_ps(_mm256_castsi256_ps(equal)) as u8) << (8 * i);
        }
        *word = !same;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn eight(lanes: &[u32; 8]) -> std::arch::x86_64::__m256i {
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: there are eight lanes of four bytes, as many as are read; the load asks for no alignment.
    unsafe {
        std::arch::x86_64::_mm256_loadu_si256(lanes.as_ptr().cast())
    }
}

/// Lists the bits that are set, each with the number of the minimizer there, and where that is; returns how many. See [`crate::stretches`].
///
/// # Panics
/// When `minima` has no 64 numbers for each word, or `list` and `places` no room for [`crate::stretches::AT_A_TIME`] more than there are.
pub(crate) fn stretches(
    dealer: &Dealer,
    minima: &[u32],
    ends_here: &[u64],
    list: &mut [Stretch],
    places: &mut [u32],
) -> usize {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: the processor has all that the function asks for.
        return unsafe { stretches_avx512(dealer, minima, ends_here, list, places) };
    }
    stretches_one_by_one(dealer, minima, ends_here, list, places)
}

copies! {
    fn stretches_one_by_one(
        dealer: &Dealer, minima: &[u32], ends_here: &[u64], list: &mut [Stretch], places: &mut [u32]
    ) -> usize = stretches_any
}

#[inline(always)]
fn stretches_any(
    dealer: &Dealer,
    minima: &[u32],
    ends_here: &[u64],
    list: &mut [Stretch],
    places: &mut [u32],
) -> usize {
    // A word has as many bits, or less, most of the time.
    let found = match dealer.window() {
        ..12 => positions::<AT_A_TIME>(minima, ends_here, list, places),
        12..18 => positions::<12>(minima, ends_here, list, places),
        _ => positions::<8>(minima, ends_here, list, places),
    };
    for (stretch, place) in list[..found].iter_mut().zip(places) {
        let (last, lane) = (stretch.last() as u32, *place);
        *stretch = Stretch::new(last, dealer.number(lane));
        *place = place_of(lane) as u32;
    }
    found
}

/// Lists where bits are set, and the lanes there; `BITS` of them at a time, at most [`AT_A_TIME`].
#[inline(always)]
fn positions<const BITS: usize>(
    minima: &[u32],
    ends_here: &[u64],
    list: &mut [Stretch],
    places: &mut [u32],
) -> usize {
    let minima = minima.as_chunks::<64>().0;
    let (mut found, room) = (0, "room for more than there are");
    for ((word, minima), first) in ends_here.iter().zip(minima).zip((0u32..).step_by(64)) {
        // Always so many at a time, so that there is little to guess; what is behind the last is overwritten by the next word's.
        let (mut left, count) = (*word, word.count_ones() as usize);
        for at in (found..found + count).step_by(BITS) {
            let stretches = list[at..].first_chunk_mut::<BITS>().expect(room);
            let lanes = places[at..].first_chunk_mut::<BITS>().expect(room);
            for (stretch, lane) in stretches.iter_mut().zip(lanes) {
                let bit = left.trailing_zeros();
                *stretch = Stretch::new(first + bit, 0);
                *lane = minima[bit as usize % 64];
                left &= left.wrapping_sub(1);
            }
        }
        found += count;
    }
    found
}

/// Positions and minimizers are moved together where their bits are set, 16 at a time, and the numbers computed side by side.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,popcnt")]
fn stretches_avx512(
    dealer: &Dealer,
    minima: &[u32],
    ends_here: &[u64],
    list: &mut [Stretch],
    places: &mut [u32],
) -> usize {
    use crate::minimizer::SPREAD;
    use crate::stretches::AT_BITS;
    use std::arch::x86_64::{
        _mm_cvtsi32_si128, _mm512_add_epi32, _mm512_and_si512, _mm512_andnot_si512,
        _mm512_maskz_compress_epi32, _mm512_mullo_epi32, _mm512_or_si512, _mm512_set1_epi32,
        _mm512_slli_epi32, _mm512_srl_epi32, _mm512_xor_si512,
    };
    let sixteen_on = sixteen(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    let (spread, all) = (_mm512_set1_epi32(SPREAD as i32), _mm512_set1_epi32(dealer.mask as i32));
    let (m, last) = (_mm_cvtsi32_si128(dealer.m as i32), _mm512_set1_epi32(LAST_PLACE as i32));
    let below = _mm_cvtsi32_si128((32 - 2 * dealer.m) as i32);
    let minima = minima[..ends_here.len() * 64].as_chunks::<16>().0;
    let masks = ends_here.iter().flat_map(|word| [0, 16, 32, 48].map(|shift| (*word >> shift) as u16));
    let mut found = 0;
    for ((mask, minima), first) in masks.zip(minima).zip((0i32..).step_by(16)) {
        let at = _mm512_add_epi32(sixteen_on, _mm512_set1_epi32(first));
        let at = _mm512_maskz_compress_epi32(mask, at);
        let lanes = _mm512_maskz_compress_epi32(mask, sixteen(minima));
        // Not the highest bit, which says whether it is a turn.
        let hashes = _mm512_srl_epi32(_mm512_slli_epi32::<1>(lanes), below);
        let mixed = _mm512_xor_si512(hashes, _mm512_srl_epi32(hashes, m));
        let numbers = _mm512_and_si512(_mm512_mullo_epi32(mixed, spread), all);
        let room = "room for more than there are";
        let stretches = list[found..].first_chunk_mut::<16>().expect(room);
        store(_mm512_or_si512(_mm512_slli_epi32::<AT_BITS>(numbers), at), stretches);
        // The last place less so many as a lane says.
        store(_mm512_andnot_si512(lanes, last), places[found..].first_chunk_mut::<16>().expect(room));
        found += mask.count_ones() as usize;
    }
    found
}

/// What is four bytes of which every value is one.
#[cfg(target_arch = "x86_64")]
trait FourBytes {}
#[cfg(target_arch = "x86_64")]
impl FourBytes for u32 {}
#[cfg(target_arch = "x86_64")]
impl FourBytes for Stretch {}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn store<T: FourBytes>(lanes: std::arch::x86_64::__m512i, into: &mut [T; 16]) {
    const { assert!(size_of::<T>() == 4) };
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: there are 16 places of four bytes, as many as are written, and every value is one; the store asks for no alignment.
    unsafe {
        std::arch::x86_64::_mm512_storeu_si512(into.as_mut_ptr().cast(), lanes);
    }
}

copies! {
    /// For each stretch but the first its piece, in a tile from base `first` on, if it begins where the one before it ends; see
    /// [`crate::stretches::around`].
    pub(crate) fn all_pieces(
        list: &[Stretch], minimizers: &[u32], first: u32, window: u32, out: &mut [Piece]
    ) = all_pieces_any
}

#[inline(always)]
fn all_pieces_any(list: &[Stretch], minimizers: &[u32], first: u32, window: u32, out: &mut [Piece]) {
    let later = list.iter().zip(list.iter().skip(1)).zip(minimizers.iter().skip(1));
    for (((before, stretch), minimizer), out) in later.zip(out.iter_mut().skip(1)) {
        let begin = before.last() as u32 + 1;
        *out = Piece::new(first + begin, around(*stretch, begin, *minimizer, window));
    }
}

copies! {
    /// How many bits are set in the words before each of `words`.
    pub(crate) fn counts_before(words: &[u64], out: &mut [u32]) = counts_before_any
}

#[inline(always)]
fn counts_before_any(words: &[u64], out: &mut [u32]) {
    let mut count = 0;
    for (word, out) in words.iter().zip(out) {
        *out = count;
        count += word.count_ones();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minimizer::TILE;
    use crate::params::Params;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn changes_and_stretches_whichever_copy_runs(
            k in 8..=32u32, minima in prop::collection::vec(0..3u32, 64 * 7 + 1), seed: u64, stripe_bits in 0..=16u32, count in 1..64 * 6usize,
        ) {
            let dealer = Dealer::new(Params::new(k, 0).unwrap(), stripe_bits, seed);
            // Equal hashes at other places are no change.
            let minima: Vec<u32> = (0..).zip(minima).map(|(i, m)| dealer.hash(m) | i).collect();
            let (mut bits, mut plain) = ([0; TILE / 64], [0; TILE / 64]);
            changes(&minima, count, &mut bits);
            changes_any(&minima, count, &mut plain);
            prop_assert_eq!(bits, plain);
            #[cfg(target_arch = "x86_64")]
            if has_avx2() {
                let mut bits = [0; TILE / 64];
                #[allow(unsafe_code, reason = "the copy that this processor may not choose")]
                // SAFETY: the processor has AVX2 and BMI2, all that the function asks for.
                unsafe {
                    changes_avx2(&minima, count, &mut bits);
                }
                prop_assert_eq!(bits, plain);
            }
            let bits = &bits[..count.div_ceil(64)];
            let set = |i: &usize| bits[i / 64] >> (i % 64) & 1 == 1;
            let one = |i| (i, dealer.number(minima[i]), place_of(minima[i]) as u32);
            let want: Vec<_> = (0..bits.len() * 64).filter(set).map(one).collect();
            for copy in [stretches, stretches_one_by_one] {
                let mut stretches = vec![Stretch::default(); TILE + AT_A_TIME];
                let mut places = vec![0; TILE + AT_A_TIME];
                let found = copy(&dealer, &minima, bits, &mut stretches, &mut places);
                let got: Vec<_> = stretches[..found].iter().zip(places).map(|(s, place)| (s.last(), s.number(), place)).collect();
                prop_assert_eq!(&got, &want);
            }
        }
    }
}
