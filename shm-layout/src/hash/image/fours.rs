//! Short entries, a bucket of four places at a time, for processors with AVX2.
//!
//! The same bytes, sums and refusals as the plain loop of [`super::squeeze`], whose tests judge the two by each other. Unsafe are the loads and stores of
//! lanes in arrays of as many: the call into this module is the caller's.

use super::short::{APART, Shifts, Short};
use super::squeeze::{Apart, Squeezed, write_bits};
use crate::hash::table::{Places, Table};
use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi64_si128, _mm_storeu_si128, _mm256_add_epi64, _mm256_and_si256,
    _mm256_andnot_si256, _mm256_castsi256_pd, _mm256_castsi256_si128, _mm256_cmpeq_epi64,
    _mm256_cvtepu8_epi32, _mm256_extracti128_si256, _mm256_max_epu32, _mm256_min_epu32, _mm256_movemask_pd,
    _mm256_mul_epu32, _mm256_or_si256, _mm256_permutevar8x32_epi32, _mm256_set_epi64x, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sll_epi64, _mm256_slli_epi64, _mm256_srl_epi64,
    _mm256_srli_epi64, _mm256_storeu_si256, _mm256_sub_epi64,
};

/// Places that are packed at a time.
const LANES: usize = 4;
/// Bytes of two lanes, which are stored whole however short the entries are.
const STORED: usize = 16;

/// Whether the processor has what [`squeeze_short`] asks for.
pub(super) fn suits() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt")
}

/// For each set of four places the halves of those lanes that are in it, in order: places that are in use move together.
const TOGETHER: [[u8; 8]; 16] = {
    let mut together = [[0; 8]; 16];
    let (mut set, mut place, mut found) = (0, 0, 0);
    while set < 16 {
        if set >> place & 1 == 1 {
            together[set][2 * found] = 2 * place;
            together[set][2 * found + 1] = 2 * place + 1;
            found += 1;
        }
        place += 1;
        if place == 4 {
            (set, place, found) = (set + 1, 0, 0);
        }
    }
    together
};

/// How entries are packed, in every lane alike.
struct Packing {
    multiplier: __m256i,
    shifts: Shifts,
    place_mask: __m256i,
    byte: __m256i,
    /// Which byte of two lanes stands where, once only as many of each as an entry has are left.
    bytes: __m256i,
}

/// What the lanes have added up.
struct Sums {
    counted: __m256i,
    key_sum: __m256i,
    highest: __m256i,
    /// All bits of distances: those that cannot be told have some above a byte.
    distances: __m256i,
    /// All ones where a count stands apart, until that is noted.
    apart: __m256i,
}

impl Packing {
    #[target_feature(enable = "avx2")]
    fn new(short: Short) -> Self {
        let bytes: [u8; STORED] = short.bytes_left();
        let [low, high] =
            [0, 8].map(|from| u64::from_le_bytes(bytes[from..from + 8].try_into().expect("eight bytes")));
        Self {
            multiplier: _mm256_set1_epi64x(short.multiplier() as i64),
            shifts: short.shifts(),
            place_mask: _mm256_set1_epi64x(short.place_mask()),
            byte: _mm256_set1_epi64x(0xff),
            bytes: lanes([low, high, low, high]),
        }
    }

    /// The entries of four places, of which the first is number `place`, with [`Short::before`] added: those in use in order, two in each half side by side. And
    /// which are in use.
    #[target_feature(enable = "avx2")]
    fn pack(&self, place: __m256i, keys: __m256i, counts: __m256i, sums: &mut Sums) -> (__m256i, u8) {
        let free = _mm256_cmpeq_epi64(counts, _mm256_setzero_si256());
        let used = !signs(free) & 15;
        let hash = product(keys, self.multiplier);
        let rest = _mm256_srl_epi64(_mm256_sll_epi64(hash, self.shifts.rest_up), self.shifts.rest_down);
        let home = _mm256_srl_epi64(hash, self.shifts.home_down);
        let distance = _mm256_and_si256(_mm256_sub_epi64(place, home), self.place_mask);
        sums.distances = _mm256_or_si256(sums.distances, _mm256_andnot_si256(free, distance));
        let told = _mm256_min_epu32(counts, self.byte);
        sums.apart = _mm256_or_si256(sums.apart, _mm256_cmpeq_epi64(told, self.byte));
        let behind = _mm256_or_si256(distance, _mm256_slli_epi64::<8>(told));
        let entries = _mm256_or_si256(rest, _mm256_sll_epi64(behind, self.shifts.behind_up));
        // A free place has no count, so it adds nothing.
        sums.counted = _mm256_add_epi64(sums.counted, counts);
        sums.key_sum = _mm256_add_epi64(sums.key_sum, product_short(keys, counts));
        sums.highest = _mm256_max_epu32(sums.highest, counts);
        let together = _mm_cvtsi64_si128(i64::from_le_bytes(TOGETHER[usize::from(used)]));
        let entries = _mm256_permutevar8x32_epi32(entries, _mm256_cvtepu8_epi32(together));
        (_mm256_shuffle_epi8(entries, self.bytes), used)
    }
}

#[target_feature(enable = "avx2")]
fn lanes(numbers: [u64; LANES]) -> __m256i {
    let [a, b, c, d] = numbers.map(|number| number as i64);
    _mm256_set_epi64x(d, c, b, a)
}

#[target_feature(enable = "avx2")]
fn numbers(lanes: __m256i) -> [u64; LANES] {
    let mut numbers = [0; LANES];
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: there are four numbers of eight bytes, as many as are written; the store asks for no alignment.
    unsafe {
        _mm256_storeu_si256(numbers.as_mut_ptr().cast(), lanes);
    }
    numbers
}

/// The highest bit of each lane.
#[target_feature(enable = "avx2")]
fn signs(lanes: __m256i) -> u8 {
    _mm256_movemask_pd(_mm256_castsi256_pd(lanes)) as u8
}

/// Products modulo 2^64.
#[target_feature(enable = "avx2")]
fn product(a: __m256i, b: __m256i) -> __m256i {
    let across = _mm256_mul_epu32(a, _mm256_srli_epi64::<32>(b));
    _mm256_add_epi64(product_short(a, b), _mm256_slli_epi64::<32>(across))
}

/// Products modulo 2^64 with the low halves of `b`.
#[target_feature(enable = "avx2")]
fn product_short(a: __m256i, b: __m256i) -> __m256i {
    let across = _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), b);
    _mm256_add_epi64(_mm256_mul_epu32(a, b), _mm256_slli_epi64::<32>(across))
}

/// As the plain loop.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn squeeze_short<T: Table>(
    buffer: &mut Vec<u8>,
    bits_at: usize,
    words: usize,
    table: &T,
    short: Short,
) -> Option<(Squeezed, Apart)> {
    let (packing, size, mut apart) = (Packing::new(short), short.bytes(), Vec::new());
    let zero = _mm256_setzero_si256();
    let mut sums = Sums { counted: zero, key_sum: zero, highest: zero, distances: zero, apart: zero };
    let mut rank = 0u32;
    let mut place = lanes(std::array::from_fn(|lane| short.before() + lane as u64));
    let mut entries = [0u8; 64 * 8 + 2 * STORED];
    for (word, places) in table.by_64().enumerate() {
        let (mut bits, mut filled) = (0, 0);
        for four in 0..64 / LANES {
            let (keys, counts) = places.some(four);
            let (packed, used) = packing.pack(place, lanes(keys), lanes(counts), &mut sums);
            let into = entries[filled..].first_chunk_mut::<{ 2 * STORED }>().expect("room for two halves");
            store(_mm256_castsi256_si128(packed), into, 0);
            store(_mm256_extracti128_si256::<1>(packed), into, 2 * size);
            bits |= u64::from(used) << (four * LANES);
            filled += used.count_ones() as usize * size;
            place = _mm256_add_epi64(place, _mm256_set1_epi64x(LANES as i64));
        }
        if signs(sums.apart) != 0 {
            note_apart(&places, bits, rank, &mut apart);
            sums.apart = zero;
        }
        write_bits(buffer, bits_at, words, word, (bits, rank));
        buffer.extend_from_slice(&entries[..filled]);
        rank += bits.count_ones();
    }
    let mut found = Squeezed::default();
    found.sums.counted = numbers(sums.counted).into_iter().sum();
    found.sums.key_sum = numbers(sums.key_sum).into_iter().fold(0, u64::wrapping_add);
    found.highest = numbers(sums.highest).into_iter().max().unwrap_or(0) as u32;
    let all_told = numbers(sums.distances).into_iter().all(|distances| distances <= 0xff);
    all_told.then_some((found, apart))
}

/// Writes the bytes of `into` from `at` on.
#[target_feature(enable = "avx2")]
fn store(bytes: __m128i, into: &mut [u8; 2 * STORED], at: usize) {
    let into = &mut into[at..at + STORED];
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: 16 bytes are written to a slice of 16; the store asks for no alignment.
    unsafe {
        _mm_storeu_si128(into.as_mut_ptr().cast(), bytes);
    }
}

/// Notes the counts of 64 places that stand apart, with their ranks: the entries before each of them that are in use, from `rank` on.
#[cold]
fn note_apart(places: &impl Places, used: u64, rank: u32, apart: &mut Apart) {
    for (place, (_, count)) in (0..64).map(|place| (place, places.get(place))) {
        if count >= APART {
            apart.push((rank + (used & ((1 << place) - 1)).count_ones(), count));
        }
    }
}
