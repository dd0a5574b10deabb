//! Eight stretches of bases side by side, one from each base of two bytes on, in 32 bits each, for processors with AVX2.
//!
//! The first four of them lie in the four bytes from the first on, the others in those from the second on, and each is shifted down by itself.

use std::arch::x86_64::*;

/// Stretches that are taken side by side.
pub(super) const LANES: usize = 8;
/// Bases of a stretch, at the most: up to three are before it in its four bytes.
pub(super) const MOST_BASES: u32 = 13;

/// How stretches of so many bases are taken.
#[derive(Clone, Copy)]
pub(super) struct Eight {
    bytes: __m256i,
    shifts: __m256i,
    above: __m128i,
    mask: __m256i,
}

impl Eight {
    /// Stretches of 1 to [`MOST_BASES`] bases.
    #[target_feature(enable = "avx2")]
    pub(super) fn new(bases: u32) -> Self {
        let (above, all) = (32 - 2 * bases, |number: u32| _mm256_set1_epi32(number as i32));
        // Big endian.
        let [first, second] = [0x0001_0203, 0x0102_0304];
        Self {
            bytes: _mm256_setr_epi32(first, first, first, first, second, second, second, second),
            shifts: _mm256_sub_epi32(all(above), _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6)),
            above: _mm_cvtsi32_si128(above as i32),
            mask: all(u32::MAX >> above),
        }
    }

    /// The stretches that begin in the first two of these bytes, and above each the bases before it.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn open(self, bytes: [u8; 8]) -> __m256i {
        let bytes = _mm256_set1_epi64x(i64::from_le_bytes(bytes));
        _mm256_srlv_epi32(_mm256_shuffle_epi8(bytes, self.bytes), self.shifts)
    }

    /// The same with zeros above.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn exact(self, bytes: [u8; 8]) -> __m256i {
        _mm256_and_si256(self.open(bytes), self.mask)
    }

    /// The same, of each stretch and its reverse complement the smaller.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn canonical(self, bytes: [u8; 8]) -> __m256i {
        let stretches = self.exact(bytes);
        _mm256_min_epu32(stretches, self.other_strands(stretches))
    }

    /// Reverse complements.
    #[target_feature(enable = "avx2")]
    fn other_strands(self, stretches: __m256i) -> __m256i {
        let (even, odd) = (0x0405_0607_0001_0203, 0x0c0d_0e0f_0809_0a0b);
        let bytes = _mm256_shuffle_epi8(stretches, _mm256_setr_epi64x(even, odd, even, odd));
        // Of two bases, by their number, the complements the other way round: of AA is TT, 15, of AC GT, 11, and so on.
        let (a_c, g_t) = (0x0206_0a0e_0307_0b0f, 0x0004_080c_0105_090d);
        let pairs = _mm256_setr_epi64x(a_c, g_t, a_c, g_t);
        let nibble = _mm256_set1_epi8(15);
        let low = _mm256_shuffle_epi8(_mm256_slli_epi32::<4>(pairs), _mm256_and_si256(bytes, nibble));
        let high = _mm256_and_si256(_mm256_srli_epi32::<4>(bytes), nibble);
        let strands = _mm256_or_si256(low, _mm256_shuffle_epi8(pairs, high));
        _mm256_srl_epi32(strands, self.above)
    }
}

/// Writes eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(lanes: __m256i, into: &mut [u32; LANES]) {
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: there are eight lanes of four bytes, as many as are written; the store asks for no alignment.
    unsafe {
        _mm256_storeu_si256(into.as_mut_ptr().cast(), lanes);
    }
}
