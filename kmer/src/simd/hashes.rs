//! The minimizers of a tile: hashes of m-mers side by side, then the least of each window; see [`crate::minimizer`].

use super::copies;
#[cfg(target_arch = "x86_64")]
use super::has_avx2;
#[cfg(target_arch = "x86_64")]
use crate::minimizer::MAX_M;
use crate::minimizer::{Dealer, LAST_PLACE, NO_TURN};

/// Hashes that are computed side by side: of the m-mers that begin in two bytes.
const LANES: usize = 8;

/// Minimizers of as many positions as `no_turns` has (a multiple of 8), which is 0 for those that are turns and 255 for others; see [`Dealer::minimizers`].
///
/// # Panics
/// When `bytes` has not eight bytes from each two bytes of bases on, or `out` is too short.
pub(crate) fn minimizers(dealer: &Dealer, bytes: &[u8], no_turns: &[u8], out: &mut [u32]) {
    assert!(no_turns.len().is_multiple_of(LANES) && bytes.len() >= no_turns.len() / 4 + 6);
    let out = &mut out[..no_turns.len()];
    hashes(dealer, bytes, no_turns, out);
    least(out, dealer.window());
}

/// The lane of each m-mer: whether it is no turn, its hash, and below it how far it is from the last place.
fn hashes(dealer: &Dealer, bytes: &[u8], no_turns: &[u8], out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        let copy = if dealer.canonical { hashes_avx2::<true> } else { hashes_avx2::<false> };
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: the processor has AVX2, all that the function asks for.
        return unsafe { copy(dealer, bytes, no_turns, out) };
    }
    hashes_any(dealer, bytes, no_turns, out);
}

fn hashes_any(dealer: &Dealer, bytes: &[u8], no_turns: &[u8], out: &mut [u32]) {
    let shift = 64 - 2 * dealer.m;
    let mut last = LAST_PLACE;
    let lanes = out.as_chunks_mut::<LANES>().0.iter_mut().zip(no_turns.as_chunks::<LANES>().0);
    for ((lanes, no_turns), word) in lanes.zip(bytes.windows(8).step_by(2)) {
        let word = u64::from_be_bytes(word.try_into().expect("8 bytes"));
        for ((i, lane), no_turn) in (0u32..).zip(lanes).zip(no_turns) {
            let mmer = (word >> (shift - 2 * i)) as u32 & dealer.mask;
            let taken = if dealer.canonical { dealer.canonical(mmer) } else { mmer };
            *lane = u32::from(*no_turn) << 24 & NO_TURN | dealer.hash(taken) | last.wrapping_sub(i);
        }
        last = last.wrapping_sub(LANES as u32);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn hashes_avx2<const CANONICAL: bool>(dealer: &Dealer, bytes: &[u8], no_turns: &[u8], out: &mut [u32]) {
    use super::eight::{Eight, store};
    use std::arch::x86_64::*;
    const { assert!(MAX_M <= super::eight::MOST_BASES && LANES == super::eight::LANES) };
    let (all, eight) = (|number: u32| _mm256_set1_epi32(number as i32), Eight::new(dealer.m));
    let (flip, factor, below) = (all(dealer.flip), all(dealer.factor), all(!NO_TURN));
    let mut places = _mm256_sub_epi32(all(LAST_PLACE), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    let lanes = out.as_chunks_mut().0.iter_mut().zip(no_turns.as_chunks::<LANES>().0);
    for ((lanes, no_turns), word) in lanes.zip(bytes.windows(8).step_by(2)) {
        let word = word.try_into().expect("8 bytes");
        // What is above an m-mer leaves the product at its top, or is in the highest bit.
        let mmers = if CANONICAL { eight.canonical(word) } else { eight.open(word) };
        let hashes = _mm256_mullo_epi32(_mm256_xor_si256(mmers, flip), factor);
        let no_turns = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*no_turns)));
        let ordered = _mm256_or_si256(_mm256_and_si256(hashes, below), _mm256_andnot_si256(below, no_turns));
        store(_mm256_or_si256(ordered, places), lanes);
        places = _mm256_sub_epi32(places, all(LANES as u32));
    }
}

copies! {
    /// Of each lane the least of the `window` from it on; of those whose window reaches past the end something that means nothing.
    fn least(lanes: &mut [u32], window: usize) = least_any
}

#[inline(always)]
fn least_any(lanes: &mut [u32], window: usize) {
    // Each is the least of so many.
    let mut span = 1;
    while span * 4 <= window {
        with_later(lanes, [span, 2 * span, 3 * span]);
        span *= 4;
    }
    match window.div_ceil(span) {
        1 => {}
        2 => with_later(lanes, [window - span]),
        3 => with_later(lanes, [span, window - span]),
        _ => with_later(lanes, [span, 2 * span, window - span]),
    }
}

/// Each lane becomes the least of itself and those so far behind it, front to back, so that these are still the old ones.
#[inline(always)]
fn with_later<const N: usize>(lanes: &mut [u32], distances: [usize; N]) {
    const AT_A_TIME: usize = 16;
    let count = lanes.len().saturating_sub(distances[N - 1]);
    let whole = count / AT_A_TIME * AT_A_TIME;
    for at in (0..whole).step_by(AT_A_TIME) {
        let lanes = &mut lanes[at..at + distances[N - 1] + AT_A_TIME];
        let mut least = [0; AT_A_TIME];
        least.copy_from_slice(&lanes[..AT_A_TIME]);
        for distance in distances {
            let later = &lanes[distance..distance + AT_A_TIME];
            least.iter_mut().zip(later).for_each(|(least, later)| *least = (*least).min(*later));
        }
        lanes[..AT_A_TIME].copy_from_slice(&least);
    }
    for at in whole..count {
        lanes[at] = distances.iter().fold(lanes[at], |least, distance| least.min(lanes[at + distance]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Params;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hashes_whichever_copy_runs_and_the_least_of_any_window(
            k in 4..=32u32, seed: u64, canonical: bool, groups in 1..30usize, bytes in prop::collection::vec(any::<u8>(), 66),
            window in 1..=32usize,
        ) {
            let dealer = Dealer::new(Params::new(k, 0).unwrap().with_canonical(canonical), 11, seed);
            let (mut lanes, mut plain) = (vec![1; groups * LANES], vec![2; groups * LANES]);
            let no_turns: Vec<u8> = bytes.iter().cycle().take(groups * LANES).map(|byte| if byte % 3 == 0 { 0 } else { 255 }).collect();
            hashes(&dealer, &bytes, &no_turns, &mut lanes);
            hashes_any(&dealer, &bytes, &no_turns, &mut plain);
            prop_assert_eq!(&lanes, &plain);
            least(&mut lanes, window);
            let want: Vec<_> = plain.windows(window).map(|window| *window.iter().min().unwrap()).collect();
            prop_assert_eq!(&lanes[..want.len()], &want[..]);
        }
    }
}
