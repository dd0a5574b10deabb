//! Packs the letters of bases; see [`crate::codec`].

#[cfg(target_arch = "x86_64")]
use super::has_avx2;

/// Packs plain letters (A, C, G, T, U, upper or lower case) four a byte into `out`, the last byte filled up with zeros. False when there is another
/// letter; what `out` holds then means nothing.
///
/// # Panics
/// When `out` has no room for the bytes.
pub(crate) fn pack_letters(letters: &[u8], out: &mut [u8]) -> bool {
    assert!(out.len() >= letters.len().div_ceil(4));
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: the processor has AVX2, the one thing that the function asks for.
        return unsafe { pack_letters_avx2(letters, out) };
    }
    pack_letters_any(letters, out)
}

/// In [`PLAIN`]: not a plain base.
const NOT_PLAIN: u8 = 0x80;

/// The `dna2` code of every letter.
static PLAIN: [u8; 256] = {
    let (mut codes, mut letter) = ([NOT_PLAIN; 256], 0);
    while letter < 256 {
        if let Some(code) = crate::codec::dna2_code(letter as u8) {
            codes[letter] = code;
        }
        letter += 1;
    }
    codes
};

fn pack_letters_any(letters: &[u8], out: &mut [u8]) -> bool {
    let mut seen = 0;
    let (fours, rest) = letters.as_chunks::<4>();
    for (four, byte) in fours.iter().zip(out.iter_mut()) {
        let [a, b, c, d] = four.map(|letter| PLAIN[usize::from(letter)]);
        seen |= a | b | c | d;
        *byte = a << 6 | b << 4 | c << 2 | d;
    }
    if !rest.is_empty() {
        let codes = rest.iter().map(|letter| PLAIN[usize::from(*letter)]);
        out[fours.len()] = (0..).zip(codes).fold(0, |byte, (i, code)| {
            seen |= code;
            byte | (code & 3) << (6 - 2 * i)
        });
    }
    seen & NOT_PLAIN == 0
}

/// 32 letters at a time: bits 1 and 2 of a letter tell the four bases apart, and from them the letter is looked up again to see whether it was one.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn pack_letters_avx2(letters: &[u8], out: &mut [u8]) -> bool {
    use std::arch::x86_64::{
        __m256i, _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_extract_epi32, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16,
        _mm256_set1_epi32, _mm256_setr_epi8, _mm256_shuffle_epi8, _mm256_srli_epi16,
    };
    #[target_feature(enable = "avx2")]
    fn table(of: [i8; 4]) -> __m256i {
        let [a, b, c, d] = of;
        _mm256_setr_epi8(
            a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        )
    }
    let (upper, low_bits, uracil) =
        (_mm256_set1_epi8(0xdfu8 as i8), _mm256_set1_epi8(3), _mm256_set1_epi8(b'U' as i8));
    let (bases, codes) = (table([b'A', b'C', b'T', b'G'].map(|b| b as i8)), table([0, 1, 3, 2]));
    // Two neighbours become one number, then two of those: each of eight words has the byte of four bases.
    let (pairs, quads) = (_mm256_set1_epi16(0x0104), _mm256_set1_epi32(0x0001_0010));
    let (thirty_twos, rest) = letters.as_chunks::<32>();
    for (letters, bytes) in thirty_twos.iter().zip(out.chunks_exact_mut(8)) {
        let letters = _mm256_and_si256(thirty_two(letters), upper);
        let which = _mm256_and_si256(_mm256_srli_epi16::<1>(letters), low_bits);
        let same = _mm256_cmpeq_epi8(letters, _mm256_shuffle_epi8(bases, which));
        let plain = _mm256_or_si256(same, _mm256_cmpeq_epi8(letters, uracil));
        if _mm256_movemask_epi8(plain) != -1 {
            return false;
        }
        let twos = _mm256_maddubs_epi16(_mm256_shuffle_epi8(codes, which), pairs);
        let fours = _mm256_madd_epi16(twos, quads);
        let order = table([0, 4, 8, 12]);
        let packed = _mm256_shuffle_epi8(fours, order);
        bytes[..4].copy_from_slice(&_mm256_extract_epi32::<0>(packed).to_le_bytes());
        bytes[4..].copy_from_slice(&_mm256_extract_epi32::<4>(packed).to_le_bytes());
    }
    pack_letters_any(rest, &mut out[thirty_twos.len() * 8..])
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn thirty_two(letters: &[u8; 32]) -> std::arch::x86_64::__m256i {
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: there are 32 letters, as many as are read; the load asks for no alignment.
    unsafe {
        std::arch::x86_64::_mm256_loadu_si256(letters.as_ptr().cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_packed_like_the_code_says_whatever_its_place() {
        for letter in 0..=255u8 {
            for at in [0, 31, 32, 63, 64, 66] {
                let mut letters = b"ACGTacgtuU".repeat(7)[..67].to_vec();
                letters[at] = letter;
                let (mut fast, mut any) = ([0; 17], [0; 17]);
                let plain = pack_letters(&letters, &mut fast);
                assert_eq!(plain, pack_letters_any(&letters, &mut any));
                assert_eq!(
                    plain.then(|| fast.to_vec()),
                    crate::codec::pack_dna2(&letters),
                    "{letter} at {at}"
                );
                assert!(!plain || fast == any);
            }
        }
    }
}
