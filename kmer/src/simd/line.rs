//! [`Line::masks`] by instructions for it.

use crate::line::{Line, Masks};
use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn masks_avx512(line: &Line, first: u64, second: u64) -> Masks {
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: a line is 64 bytes, as many as are read; the load asks for no alignment.
    let words = unsafe { _mm512_loadu_si512(line.0.as_ptr().cast()) };
    let low = _mm512_set1_epi64(0xffff_ffff);
    let second_word = _mm512_set1_epi64(second as i64);
    let apart = _mm512_xor_si512(words, second_word);
    Masks {
        first: _mm512_cmpeq_epi64_mask(words, _mm512_set1_epi64(first as i64)).into(),
        second: _mm512_cmpeq_epi64_mask(words, second_word).into(),
        high: _mm512_testn_epi64_mask(apart, _mm512_set1_epi64(!0 << 32)).into(),
        low_zero: _mm512_testn_epi64_mask(words, low).into(),
        half_zero: _mm512_testn_epi32_mask(words, words).into(),
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) fn masks_avx2(line: &Line, first: u64, second: u64) -> Masks {
    let mut masks = Masks::default();
    for (at, half) in line.0.as_chunks::<8>().0.iter().enumerate() {
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: four words are 32 bytes, as many as are read; the load asks for no alignment.
        let words = unsafe { _mm256_loadu_si256(half.as_ptr().cast()) };
        let by_word = |equal: __m256i| (_mm256_movemask_pd(_mm256_castsi256_pd(equal)) as u32) << (4 * at);
        let (zero, second_word) = (_mm256_setzero_si256(), _mm256_set1_epi64x(second as i64));
        let apart = _mm256_xor_si256(words, second_word);
        masks.first |= by_word(_mm256_cmpeq_epi64(words, _mm256_set1_epi64x(first as i64)));
        masks.second |= by_word(_mm256_cmpeq_epi64(words, second_word));
        masks.high |= by_word(_mm256_cmpeq_epi64(_mm256_srli_epi64::<32>(apart), zero));
        masks.low_zero |= by_word(_mm256_cmpeq_epi64(_mm256_slli_epi64::<32>(words), zero));
        let halves = _mm256_castsi256_ps(_mm256_cmpeq_epi32(words, zero));
        masks.half_zero |= (_mm256_movemask_ps(halves) as u32) << (8 * at);
    }
    masks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_copies_see_the_same(words in prop::array::uniform8(0..4u64), halves in 0..4u32, first in 0..4u64, second in 0..4u64) {
            let spread = |word: u64| if halves & 1 == 0 { word } else { word >> 1 << 32 | (word & 1) << 31 };
            let halves = words.map(spread).map(|word| [word as u32, (word >> 32) as u32]);
            let line = Line(*halves.as_flattened().first_chunk().expect("sixteen halves"));
            let (first, second) = (spread(first), spread(second));
            let expected = line.masks(first, second);
            if super::super::has_avx2() {
                #[allow(unsafe_code, reason = "the copy that this processor may not choose")]
                // SAFETY: the processor has what the function asks for.
                let found = unsafe { masks_avx2(&line, first, second) };
                prop_assert_eq!(found, expected);
            }
            if super::super::has_avx512() {
                #[allow(unsafe_code, reason = "the copy that this processor may not choose")]
                // SAFETY: the processor has what the function asks for.
                let found = unsafe { masks_avx512(&line, first, second) };
                prop_assert_eq!(found, expected);
            }
        }
    }
}
