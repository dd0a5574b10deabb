//! Short entries, eight places at a time, for processors with AVX-512.
//!
//! The same bytes, sums and refusals as the plain loop of [`super::squeeze`], whose tests judge the two by each other. Unsafe are the load
//! of eight lanes from an array of as many bytes and the store of them alone: the call into this module is the caller's.

use super::short::{APART, Shifts, Short};
use super::squeeze::{Apart, Squeezed, write_bits};
use crate::hash::table::{Places, Table};
use std::arch::x86_64::{
    __m512i, _mm_cvtsi64_si128, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpge_epu64_mask,
    _mm512_cmpgt_epu64_mask, _mm512_loadu_si512, _mm512_maskz_compress_epi64, _mm512_max_epu64,
    _mm512_min_epu64, _mm512_mullo_epi64, _mm512_or_si512, _mm512_permutexvar_epi8, _mm512_reduce_add_epi64,
    _mm512_reduce_max_epu64, _mm512_set_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_sll_epi64,
    _mm512_srl_epi64, _mm512_storeu_si512, _mm512_sub_epi64, _mm512_test_epi64_mask,
};

/// Places that are packed at a time.
const LANES: usize = 8;
/// Bytes of eight lanes, which are stored whole however short the entries are.
const STORED: usize = 64;

/// Whether the processor has what [`squeeze_short`] asks for.
pub(super) fn suits() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("popcnt")
}

/// How entries are packed, in every lane alike.
struct Packing {
    multiplier: __m512i,
    shifts: Shifts,
    place_mask: __m512i,
    before: __m512i,
    byte: __m512i,
    /// Which byte of eight lanes stands where, once only as many of each as an entry has are left.
    bytes: __m512i,
}

/// What the lanes have added up.
struct Sums {
    counted: __m512i,
    key_sum: __m512i,
    highest: __m512i,
    all_told: bool,
}

impl Packing {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
    fn new(short: Short) -> Self {
        let bytes: [u8; STORED] = short.bytes_left();
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: 64 bytes are read of an array of 64.
        let bytes = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        Self {
            multiplier: _mm512_set1_epi64(short.multiplier() as i64),
            shifts: short.shifts(),
            place_mask: _mm512_set1_epi64(short.place_mask()),
            before: lanes(std::array::from_fn(|lane| short.before() + lane as u64)),
            byte: _mm512_set1_epi64(0xff),
            bytes,
        }
    }

    /// The entries of eight places from `place` on, those in use side by side, and which are in use.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
    fn pack(
        &self,
        place: u64,
        (keys, counts): ([u64; LANES], [u64; LANES]),
        sums: &mut Sums,
    ) -> (__m512i, u8) {
        let (keys, counts) = (lanes(keys), lanes(counts));
        let used = _mm512_test_epi64_mask(counts, counts);
        let hash = _mm512_mullo_epi64(keys, self.multiplier);
        let rest = _mm512_srl_epi64(_mm512_sll_epi64(hash, self.shifts.rest_up), self.shifts.rest_down);
        let home = _mm512_srl_epi64(hash, self.shifts.home_down);
        let place = _mm512_add_epi64(_mm512_set1_epi64(place as i64), self.before);
        let distance = _mm512_and_si512(_mm512_sub_epi64(place, home), self.place_mask);
        sums.all_told &= _mm512_cmpgt_epu64_mask(distance, self.byte) & used == 0;
        let count = _mm512_sll_epi64(_mm512_min_epu64(counts, self.byte), _mm_cvtsi64_si128(8));
        let behind = _mm512_or_si512(_mm512_and_si512(distance, self.byte), count);
        let entries = _mm512_or_si512(rest, _mm512_sll_epi64(behind, self.shifts.behind_up));
        // A free place has no count, so it adds nothing.
        sums.counted = _mm512_add_epi64(sums.counted, counts);
        sums.key_sum = _mm512_add_epi64(sums.key_sum, _mm512_mullo_epi64(keys, counts));
        sums.highest = _mm512_max_epu64(sums.highest, counts);
        (_mm512_permutexvar_epi8(self.bytes, _mm512_maskz_compress_epi64(used, entries)), used)
    }
}

#[target_feature(enable = "avx512f")]
fn lanes(numbers: [u64; LANES]) -> __m512i {
    let [a, b, c, d, e, f, g, h] = numbers.map(|number| number as i64);
    _mm512_set_epi64(h, g, f, e, d, c, b, a)
}

/// Which of eight counts stand apart.
#[target_feature(enable = "avx512f")]
fn apart_of(counts: [u64; LANES]) -> u8 {
    _mm512_cmpge_epu64_mask(lanes(counts), _mm512_set1_epi64(APART.into()))
}

/// As the plain loop.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,popcnt")]
pub(super) fn squeeze_short<T: Table>(
    buffer: &mut Vec<u8>,
    bits_at: usize,
    words: usize,
    table: &T,
    short: Short,
) -> Option<(Squeezed, Apart)> {
    let (packing, size, mut apart) = (Packing::new(short), short.bytes(), Vec::new());
    let zero = _mm512_setzero_si512();
    let mut sums = Sums { counted: zero, key_sum: zero, highest: zero, all_told: true };
    let mut rank = 0u32;
    let mut entries = [0u8; 64 * 8 + STORED];
    for (word, places) in table.by_64().enumerate() {
        let (mut bits, mut filled) = (0, 0);
        for eight in 0..64 / LANES {
            let pairs = places.some(eight);
            let (packed, used) = packing.pack((word * 64 + eight * LANES) as u64, pairs, &mut sums);
            let into = &mut entries[filled * size..][..STORED];
            #[allow(unsafe_code, reason = "the corner for SIMD")]
            // SAFETY: 64 bytes are written to a slice of 64.
            unsafe {
                _mm512_storeu_si512(into.as_mut_ptr().cast(), packed);
            }
            let far = apart_of(pairs.1);
            if far != 0 {
                note_apart(pairs.1, used, far, rank + filled as u32, &mut apart);
            }
            bits |= u64::from(used) << (eight * LANES);
            filled += used.count_ones() as usize;
        }
        write_bits(buffer, bits_at, words, word, (bits, rank));
        buffer.extend_from_slice(&entries[..filled * size]);
        rank += filled as u32;
    }
    let mut found = Squeezed::default();
    found.sums.counted = _mm512_reduce_add_epi64(sums.counted) as u64;
    found.sums.key_sum = _mm512_reduce_add_epi64(sums.key_sum) as u64;
    found.highest = _mm512_reduce_max_epu64(sums.highest) as u32;
    sums.all_told.then_some((found, apart))
}

/// Notes the counts that stand apart, with their ranks: the entries before each of them that are in use, from `rank` on.
#[cold]
fn note_apart(counts: [u64; LANES], used: u8, far: u8, rank: u32, apart: &mut Apart) {
    for (lane, count) in counts.into_iter().enumerate().filter(|(lane, _)| far >> lane & 1 == 1) {
        let before = (used & ((1 << lane) - 1)).count_ones();
        apart.push((rank + before, count as u32));
    }
}
