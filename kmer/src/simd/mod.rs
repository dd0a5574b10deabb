//! The straight-line loops of the scan, compiled three times: for any processor, for AVX2 and for AVX-512, chosen when the program runs.
//!
//! All are the same source but for [`changes`] and [`pack_letters`], so they give the same results; the tests of [`crate::minimizer`] and
//! [`crate::record`] judge whichever one runs. Unsafe are only the calls into the copies, after the processor said that it has what they ask for
//! ([`copies`]), and the loads of lanes from a slice of as many.

mod keys;

pub(crate) use keys::{KEYS_AT_A_TIME, into_buckets, keys};

use crate::minimizer::{Dealer, REACH, TILE};
use crate::params::{Params, canonical};
use crate::record::{Expanded, KeyBits, LANES, Record, kmers};
use crate::stretches::{AT_A_TIME, Stretch};

/// True when the processor has what the AVX2 copies ask for.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
}

/// True when the processor has what the AVX-512 copies ask for.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// Which copy of the loops this processor runs.
pub(crate) fn name() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        return "avx512";
    } else if has_avx2() {
        return "avx2";
    }
    "portable"
}

/// Asks for the cache line in which `what` begins.
#[inline(always)]
pub(crate) fn prefetch<T>(what: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: prefetching changes nothing and cannot fault, whatever the address.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                std::ptr::from_ref(what).cast(),
            );
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = what;
}

/// Makes a function that runs the best copy of another one for the processor: `any`, inlined into functions that are compiled for more of it.
macro_rules! copies {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$($g:ident: $bound:path),+>)?
        ($($arg:ident: $type:ty),+) $(-> $ret:ty)? = $any:ident) => {
        $(#[$doc])*
        $vis fn $name $(<$($g: $bound),+>)? ($($arg: $type),+) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512 $(<$($g: $bound),+>)? ($($arg: $type),+) $(-> $ret)? {
                    $any($($arg),+)
                }
                #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
                fn avx2 $(<$($g: $bound),+>)? ($($arg: $type),+) $(-> $ret)? {
                    $any($($arg),+)
                }
                if $crate::simd::has_avx512() {
                    #[allow(unsafe_code, reason = "the corner for SIMD")]
                    // SAFETY: the processor has all that the function asks for.
                    return unsafe { avx512($($arg),+) };
                }
                if $crate::simd::has_avx2() {
                    #[allow(unsafe_code, reason = "the corner for SIMD")]
                    // SAFETY: the processor has AVX2 and what came with it, all that the function asks for.
                    return unsafe { avx2($($arg),+) };
                }
            }
            $any($($arg),+)
        }
    };
}
pub(crate) use copies;

copies! {
    /// Two totals over words, for digests: of the products of the halves of each word plus the number of its place, and of the words. The first place is
    /// `place`, and `step` is added from one to the next.
    pub fn totals(words: &[[u8; 8]], place: u64, step: u64) -> (u64, u64) = totals_any
}

#[inline(always)]
fn totals_any(words: &[[u8; 8]], mut place: u64, step: u64) -> (u64, u64) {
    let (mut products, mut sum) = (0u64, 0u64);
    for word in words {
        let word = u64::from_le_bytes(*word);
        let placed = word.wrapping_add(place);
        products = products.wrapping_add((placed & 0xffff_ffff) * (placed >> 32));
        sum = sum.wrapping_add(word);
        place = place.wrapping_add(step);
    }
    (products, sum)
}

copies! {
    /// Minimizers of `mmers` positions (a multiple of 8, at most TILE + REACH); see [`Dealer::minimizers`].
    pub(crate) fn minimizers(dealer: &Dealer, bytes: &[u8], mmers: usize, out: &mut [u16]) = minimizers_any
}

#[inline(always)]
fn minimizers_any(dealer: &Dealer, bytes: &[u8], mmers: usize, out: &mut [u16]) {
    assert!(mmers.is_multiple_of(8) && mmers <= TILE + REACH);
    let out = &mut out[..mmers];
    hashes(dealer, bytes, out);
    // min over 1, 2, 4, ... neighbours; what reaches past the end is left as it is and means nothing.
    let window = dealer.window();
    let mut span = 1;
    while span * 2 <= window {
        min_with_later(out, span);
        span *= 2;
    }
    if span < window {
        min_with_later(out, window - span);
    }
}

/// Hashes of the m-mers from each base on.
#[inline(always)]
fn hashes(dealer: &Dealer, bytes: &[u8], out: &mut [u16]) {
    // Eight m-mers begin in each two bytes; the words are long for the lanes, so hashing has a loop of its own.
    let shift = 64 - 2 * dealer.m;
    for (group, eight) in out.chunks_exact_mut(8).enumerate() {
        let word = u64::from_be_bytes(bytes[group * 2..group * 2 + 8].try_into().expect("8 bytes"));
        for (i, mmer) in eight.iter_mut().enumerate() {
            *mmer = (word >> (shift - 2 * i as u32)) as u16;
        }
    }
    let mask = dealer.mask;
    if dealer.canonical {
        out.iter_mut().for_each(|mmer| *mmer = dealer.hash(dealer.canonical(*mmer & mask)));
    } else {
        out.iter_mut().for_each(|mmer| *mmer = dealer.hash(*mmer & mask));
    }
}

/// `out[i] = min(out[i], out[i + distance])`, front to back, so that every right side is still the old one.
#[inline(always)]
fn min_with_later(out: &mut [u16], distance: usize) {
    const LANES: usize = 32;
    let mut lanes = [0u16; LANES];
    let whole = (out.len() - distance) / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        lanes.copy_from_slice(&out[at + distance..at + distance + LANES]);
        for (mine, later) in out[at..at + LANES].iter_mut().zip(lanes) {
            *mine = later.min(*mine);
        }
    }
    for at in whole..out.len() - distance {
        out[at] = out[at].min(out[at + distance]);
    }
}

/// Bit i of `out` says that `minima[i]` and `minima[i + 1]` differ, for i below `count`; the bits behind mean nothing.
///
/// # Panics
/// When `minima` has no 64 numbers more than `count`, or `out` is too short.
pub(crate) fn changes(minima: &[u16], count: usize, out: &mut [u64]) {
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

fn changes_any(minima: &[u16], count: usize, out: &mut [u64]) {
    for (word, at) in out.iter_mut().zip((0..count).step_by(64)) {
        let pairs = minima[at..at + 64].iter().zip(&minima[at + 1..at + 65]).enumerate();
        *word = pairs.fold(0, |bits, (i, (a, b))| bits | u64::from(a != b) << i);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn changes_avx512(minima: &[u16], count: usize, out: &mut [u64]) {
    use std::arch::x86_64::_mm512_cmpneq_epi16_mask;
    for (word, at) in out.iter_mut().zip((0..count).step_by(64)) {
        let (these, next) = (&minima[at..at + 64], &minima[at + 1..at + 65]);
        let pairs = these.as_chunks::<32>().0.iter().zip(next.as_chunks::<32>().0).enumerate();
        *word = pairs.fold(0, |bits, (i, (a, b))| {
            bits | u64::from(_mm512_cmpneq_epi16_mask(lanes_512(a), lanes_512(b))) << (32 * i)
        });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn lanes_512(lanes: &[u16; 32]) -> std::arch::x86_64::__m512i {
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: there are 32 lanes of two bytes, as many as are read; the load asks for no alignment.
    unsafe {
        std::arch::x86_64::_mm512_loadu_si512(lanes.as_ptr().cast())
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
fn changes_avx2(minima: &[u16], count: usize, out: &mut [u64]) {
    use std::arch::x86_64::{
        _mm256_cmpeq_epi16, _mm256_movemask_epi8, _mm256_packs_epi16, _mm256_permute4x64_epi64,
    };
    for (word, at) in out.iter_mut().zip((0..count).step_by(64)) {
        let (these, next) = (&minima[at..at + 64], &minima[at + 1..at + 65]);
        let (these, next) = (these.as_chunks::<16>().0, next.as_chunks::<16>().0);
        let equal = |i: usize| _mm256_cmpeq_epi16(lanes_256(&these[i]), lanes_256(&next[i]));
        // Packing takes halves of both in turn; the permutation puts them in order.
        let same = |i: usize| {
            let both = _mm256_packs_epi16(equal(i), equal(i + 1));
            u64::from(_mm256_movemask_epi8(_mm256_permute4x64_epi64::<0b11_01_10_00>(both)) as u32)
        };
        *word = !(same(0) | same(2) << 32);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn lanes_256(lanes: &[u16; 16]) -> std::arch::x86_64::__m256i {
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: there are 16 lanes of two bytes, as many as are read; the load asks for no alignment.
    unsafe {
        std::arch::x86_64::_mm256_loadu_si256(lanes.as_ptr().cast())
    }
}

copies! {
    /// Lists the bits that are set, each with the stripe of the minimizer there; returns how many. See [`crate::stretches`].
    pub(crate) fn stretches(
        dealer: &Dealer, minima: &[u16], ends_here: &[u64], list: &mut [Stretch]
    ) -> usize = stretches_any
}

#[inline(always)]
fn stretches_any(dealer: &Dealer, minima: &[u16], ends_here: &[u64], list: &mut [Stretch]) -> usize {
    let mut found = 0;
    for (first, word) in (0u16..).step_by(64).zip(ends_here) {
        // Always so many at a time, so that there is little to guess; what is behind the last is overwritten by the next word's.
        let (mut left, count) = (*word, word.count_ones() as usize);
        for at in (found..found + count).step_by(AT_A_TIME) {
            for stretch in &mut list[at..at + AT_A_TIME] {
                *stretch = Stretch::new(first + left.trailing_zeros() as u16, 0);
                left &= left.wrapping_sub(1);
            }
        }
        found += count;
    }
    for stretch in &mut list[..found] {
        let last = stretch.last();
        *stretch = Stretch::new(last as u16, dealer.stripe_of(minima[last]));
    }
    found
}

copies! {
    /// See [`crate::record::expand`].
    pub(crate) fn expand<R: Record, K: KeyBits>(
        records: &[R], tags: &[u64], params: Params, into: &mut Expanded<K>
    ) -> Result<usize, usize> = expand_any
}

#[inline(always)]
fn expand_any<R: Record, K: KeyBits>(
    records: &[R],
    tags: &[u64],
    params: Params,
    into: &mut Expanded<K>,
) -> Result<usize, usize> {
    let k = params.k();
    if params.canonical() {
        expand_as(records, tags, k, into, |kmer| canonical(kmer, k))
    } else {
        expand_as(records, tags, k, into, |kmer| kmer)
    }
}

#[inline(always)]
fn expand_as<R: Record, K: KeyBits>(
    records: &[R],
    tags: &[u64],
    k: u32,
    into: &mut Expanded<K>,
    taken: impl Fn(u64) -> u64,
) -> Result<usize, usize> {
    let (most, shift, limit) = (R::WIDTH.max_kmers(k), 64 - 2 * k, into.limit());
    let mut len = into.len;
    for (i, (record, tag)) in records.iter().zip(tags).enumerate() {
        let n = kmers(*record);
        if n.wrapping_sub(1) >= most {
            return Err(i);
        }
        if len + n as usize > limit {
            into.len = len;
            return Ok(i);
        }
        // Whole groups are written; what is behind the last k-mer is overwritten by the next record's.
        let mut done = 0;
        while done < n {
            let at = len + done as usize;
            let (keys, same) = (&mut into.keys[at..at + LANES], &mut into.tags[at..at + LANES]);
            for lane in 0..LANES as u32 {
                keys[lane as usize] = K::from_word(taken(record.window(done + lane) >> shift));
            }
            same.fill(*tag);
            done += LANES as u32;
        }
        len += n as usize;
    }
    into.len = len;
    Ok(records.len().min(tags.len()))
}

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
