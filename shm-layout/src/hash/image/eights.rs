//! Short entries of a table of weights, a line of eight places at a time, for processors with AVX2.
//!
//! A place of such a table ([`crate::hash::weights`]) keeps what an entry tells: the rest of the hash, of which the three highest bits say which place of its line a
//! key is at home in, and how many lines that is before. So entries are parted and put together in lanes of 32 bits, without the hash being computed again.
//! The same bytes and sums as the plain loop of [`super::squeeze`], whose tests judge the two by each other. Unsafe are the loads and stores of lanes in arrays
//! of as many: the call into this module is the caller's.

use super::short::{APART, Short};
use super::squeeze::{Apart, Squeezed, write_bits};
use crate::hash::weights::{BUCKET, Line, Lines};
use std::arch::x86_64::*;

/// Lines whose places have a word of bits.
const LINES: usize = 64 / BUCKET;
/// Bytes of two entries, which are stored whole however short they are.
const STORED: usize = 16;
/// Bits that say which place of a line it is.
const PLACE_BITS: u32 = BUCKET.ilog2();

/// Whether the processor has what [`squeeze_short`] asks for.
pub(super) fn suits() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt")
}

/// For each set of eight places those in it, in order: places that are in use move together.
const TOGETHER: [[u8; BUCKET]; 1 << BUCKET] = {
    let mut together = [[0; BUCKET]; 1 << BUCKET];
    let (mut set, mut place, mut found) = (0, 0, 0);
    while set < 1 << BUCKET {
        if set >> place & 1 == 1 {
            together[set][found] = place as u8;
            found += 1;
        }
        place += 1;
        if place == BUCKET {
            (set, place, found) = (set + 1, 0, 0);
        }
    }
    together
};

/// How entries are packed, in every lane alike.
struct Packing {
    /// Bits of what is kept below the three, below the lines from home, and the masks of each.
    entry_bits: __m128i,
    rest_bits: __m128i,
    entry: __m256i,
    rest: __m256i,
    line: __m256i,
    distance: __m256i,
    /// The place of each lane in its line, with [`Short::before`] added.
    places: __m256i,
    byte: __m256i,
    /// Which byte of two entries, eight bytes each, stands where, once only as many of each as it has are left.
    bytes: __m256i,
}

/// What the lanes have added up.
struct Sums {
    counted: __m256i,
    /// Rests times counts, and numbers of home lines times counts.
    rests: __m256i,
    lines: __m256i,
    highest: __m256i,
    /// All ones where a count stands apart, until that is noted.
    apart: __m256i,
}

impl Packing {
    #[target_feature(enable = "avx2")]
    fn new(lines: &Lines<'_>, short: Short) -> Self {
        let (all, ones) = (|number: u32| _mm256_set1_epi32(number as i32), |bits: u32| !(u32::MAX << bits));
        let (rest_bits, before) = (lines.rest_bits(), short.before() as i32);
        let size = short.bytes();
        // Of an entry the rest is in the low half of eight bytes, distance and count in the high one.
        let byte = |at: usize| {
            let (entry, byte) = (at / size, at % size);
            let of_entry = if byte < size - 2 { byte } else { byte + 6 - size };
            if entry < 2 { (8 * entry + of_entry) as u8 } else { u8::MAX }
        };
        let bytes: [u8; STORED] = std::array::from_fn(byte);
        Self {
            entry_bits: _mm_cvtsi64_si128((rest_bits - PLACE_BITS).into()),
            rest_bits: _mm_cvtsi64_si128(rest_bits.into()),
            entry: all(ones(rest_bits - PLACE_BITS)),
            rest: all(ones(rest_bits)),
            line: all(lines.all().len() as u32 - 1),
            distance: all(short.place_mask() as u32),
            places: _mm256_add_epi32(_mm256_set1_epi32(before), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
            byte: all(APART),
            bytes: _mm256_broadcastsi128_si256(_mm_set_epi64x(
                i64::from_le_bytes(*bytes.last_chunk().expect("eight bytes")),
                i64::from_le_bytes(*bytes.first_chunk().expect("eight bytes")),
            )),
        }
    }

    /// The entries of line number `at`, those in use in order: the first two and the third pair side by side, then the second and the fourth. And which are in use.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn pack(&self, at: u32, line: &Line, sums: &mut Sums) -> ([__m256i; 2], u8) {
        let (kept, counts) = (eight(&line.rests), eight(&line.weights));
        let free = _mm256_cmpeq_epi32(counts, _mm256_setzero_si256());
        let used = !signs(free);
        let far = _mm256_srl_epi32(kept, self.rest_bits);
        let home = _mm256_and_si256(_mm256_srl_epi32(kept, self.entry_bits), _mm256_set1_epi32(7));
        let distance = _mm256_add_epi32(_mm256_slli_epi32::<3>(far), _mm256_sub_epi32(self.places, home));
        let distance = _mm256_and_si256(distance, self.distance);
        let told = _mm256_min_epu32(counts, self.byte);
        sums.apart = _mm256_or_si256(sums.apart, _mm256_cmpeq_epi32(told, self.byte));
        sums.add(
            _mm256_and_si256(kept, self.rest),
            _mm256_and_si256(_mm256_sub_epi32(_mm256_set1_epi32(at as i32), far), self.line),
            counts,
        );
        let behind = _mm256_or_si256(distance, _mm256_slli_epi32::<8>(told));
        let together = _mm_cvtsi64_si128(i64::from_le_bytes(TOGETHER[usize::from(used)]));
        let together = _mm256_cvtepu8_epi32(together);
        let rests = _mm256_permutevar8x32_epi32(_mm256_and_si256(kept, self.entry), together);
        let behind = _mm256_permutevar8x32_epi32(behind, together);
        let entries = [_mm256_unpacklo_epi32(rests, behind), _mm256_unpackhi_epi32(rests, behind)];
        (entries.map(|entries| _mm256_shuffle_epi8(entries, self.bytes)), used)
    }
}

impl Sums {
    /// A free place has no count, so it adds nothing.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&mut self, rests: __m256i, lines: __m256i, counts: __m256i) {
        let odd = |lanes| _mm256_srli_epi64::<32>(lanes);
        let odd_counts = odd(counts);
        let even_counts = _mm256_blend_epi32::<0b1010_1010>(counts, _mm256_setzero_si256());
        self.counted = _mm256_add_epi64(self.counted, _mm256_add_epi64(even_counts, odd_counts));
        for (sum, lanes) in [(&mut self.rests, rests), (&mut self.lines, lines)] {
            let (even, odd) = (_mm256_mul_epu32(lanes, counts), _mm256_mul_epu32(odd(lanes), odd_counts));
            *sum = _mm256_add_epi64(*sum, _mm256_add_epi64(even, odd));
        }
        self.highest = _mm256_max_epu32(self.highest, counts);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn eight(lanes: &[u32; BUCKET]) -> __m256i {
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: there are eight lanes of four bytes, as many as are read; the load asks for no alignment.
    unsafe {
        _mm256_loadu_si256(lanes.as_ptr().cast())
    }
}

/// The highest bit of each lane.
#[inline]
#[target_feature(enable = "avx2")]
fn signs(lanes: __m256i) -> u8 {
    _mm256_movemask_ps(_mm256_castsi256_ps(lanes)) as u8
}

/// The sum of four numbers, modulo 2^64.
#[target_feature(enable = "avx2")]
fn sum(numbers: __m256i) -> u64 {
    let halves = _mm_add_epi64(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256::<1>(numbers));
    (_mm_cvtsi128_si64(halves) as u64).wrapping_add(_mm_extract_epi64::<1>(halves) as u64)
}

/// As the plain loop; a place is never further from home than an entry can tell.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn squeeze_short(
    buffer: &mut Vec<u8>,
    bits_at: usize,
    words: usize,
    lines: &Lines<'_>,
    short: Short,
) -> (Squeezed, Apart) {
    let (packing, size, mut apart) = (Packing::new(lines, short), short.bytes(), Vec::new());
    let zero = _mm256_setzero_si256();
    let mut sums = Sums { counted: zero, rests: zero, lines: zero, highest: zero, apart: zero };
    let (mut rank, mut at) = (0u32, 0u32);
    let mut entries = [0u8; 64 * 8 + 8 * STORED];
    for (word, lines) in lines.all().as_chunks::<LINES>().0.iter().enumerate() {
        let (mut bits, mut filled) = (0, 0);
        for (i, line) in lines.iter().enumerate() {
            let ([first, second], used) = packing.pack(at, line, &mut sums);
            let into =
                entries[filled..].first_chunk_mut::<{ 6 * 8 + STORED }>().expect("room for four pairs");
            store(_mm256_castsi256_si128(first), into, 0);
            store(_mm256_castsi256_si128(second), into, 2 * size);
            store(_mm256_extracti128_si256::<1>(first), into, 4 * size);
            store(_mm256_extracti128_si256::<1>(second), into, 6 * size);
            bits |= u64::from(used) << (i * BUCKET);
            filled += used.count_ones() as usize * size;
            at += 1;
        }
        if signs(sums.apart) != 0 {
            note_apart(lines, rank, &mut apart);
            sums.apart = zero;
        }
        write_bits(buffer, bits_at, words, word, (bits, rank));
        buffer.extend_from_slice(&entries[..filled]);
        rank += bits.count_ones();
    }
    let mut found = Squeezed::default();
    found.sums.counted = sum(sums.counted);
    found.sums.key_sum = sum(sums.rests).wrapping_add(sum(sums.lines) << lines.rest_bits());
    found.highest = highest(sums.highest);
    (found, apart)
}

/// The highest of eight numbers.
#[target_feature(enable = "avx2")]
fn highest(lanes: __m256i) -> u32 {
    let mut numbers = [0; BUCKET];
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: there are eight numbers of four bytes, as many as are written; the store asks for no alignment.
    unsafe {
        _mm256_storeu_si256(numbers.as_mut_ptr().cast(), lanes);
    }
    numbers.into_iter().max().unwrap_or(0)
}

/// Writes the bytes of `into` from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
fn store(bytes: __m128i, into: &mut [u8; 6 * 8 + STORED], at: usize) {
    let into = &mut into[at..at + STORED];
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: 16 bytes are written to a slice of 16; the store asks for no alignment.
    unsafe {
        _mm_storeu_si128(into.as_mut_ptr().cast(), bytes);
    }
}

/// Notes the counts of these places that stand apart, with their ranks: the entries before each of them, from `rank` on.
#[cold]
fn note_apart(lines: &[Line; LINES], mut rank: u32, apart: &mut Apart) {
    for count in lines.iter().flat_map(|line| line.weights).filter(|count| *count != 0) {
        if count >= APART {
            apart.push((rank, count));
        }
        rank += 1;
    }
}
