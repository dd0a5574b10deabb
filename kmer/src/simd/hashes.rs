//! The minimizers of a tile: hashes of m-mers side by side, then the least of each window; see [`crate::minimizer`].

use super::copies;
#[cfg(target_arch = "x86_64")]
use super::has_avx2;
#[cfg(target_arch = "x86_64")]
use crate::minimizer::MAX_M;
use crate::minimizer::{Dealer, LAST_PLACE, REACH, TILE};

/// Hashes that are computed side by side: of the m-mers that begin in two bytes.
const LANES: usize = 8;

/// Minimizers of `mmers` positions (a multiple of 8, at most TILE + REACH); see [`Dealer::minimizers`].
///
/// # Panics
/// When `bytes` has not eight bytes from each two bytes of bases on.
pub(crate) fn minimizers(dealer: &Dealer, bytes: &[u8], mmers: usize, out: &mut [u32]) {
    assert!(mmers.is_multiple_of(LANES) && mmers <= TILE + REACH && bytes.len() >= mmers / 4 + 6);
    let out = &mut out[..mmers];
    hashes(dealer, bytes, out);
    least(out, dealer.window());
}

/// The lane of each m-mer: its hash, and below it how far it is from the last place.
fn hashes(dealer: &Dealer, bytes: &[u8], out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        let copy = if dealer.canonical { hashes_avx2::<true> } else { hashes_avx2::<false> };
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: the processor has AVX2, all that the function asks for.
        return unsafe { copy(dealer, bytes, out) };
    }
    hashes_any(dealer, bytes, out);
}

fn hashes_any(dealer: &Dealer, bytes: &[u8], out: &mut [u32]) {
    let shift = 64 - 2 * dealer.m;
    let mut last = LAST_PLACE;
    for (lanes, word) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(bytes.windows(8).step_by(2)) {
        let word = u64::from_be_bytes(word.try_into().expect("8 bytes"));
        for (i, lane) in (0u32..).zip(lanes) {
            let mmer = (word >> (shift - 2 * i)) as u32 & dealer.mask;
            let taken = if dealer.canonical { dealer.canonical(mmer) } else { mmer };
            *lane = dealer.hash(taken) | last.wrapping_sub(i);
        }
        last = last.wrapping_sub(LANES as u32);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn hashes_avx2<const CANONICAL: bool>(dealer: &Dealer, bytes: &[u8], out: &mut [u32]) {
    use super::eight::{Eight, store};
    use std::arch::x86_64::*;
    const { assert!(MAX_M <= super::eight::MOST_BASES && LANES == super::eight::LANES) };
    let (all, eight) = (|number: u32| _mm256_set1_epi32(number as i32), Eight::new(dealer.m));
    let (flip, factor) = (all(dealer.flip), all(dealer.factor));
    let mut places = _mm256_sub_epi32(all(LAST_PLACE), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (lanes, word) in out.as_chunks_mut().0.iter_mut().zip(bytes.windows(8).step_by(2)) {
        let word = word.try_into().expect("8 bytes");
        // What is above an m-mer leaves the product at its top.
        let mmers = if CANONICAL { eight.canonical(word) } else { eight.open(word) };
        let hashes = _mm256_mullo_epi32(_mm256_xor_si256(mmers, flip), factor);
        store(_mm256_or_si256(hashes, places), lanes);
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
            hashes(&dealer, &bytes, &mut lanes);
            hashes_any(&dealer, &bytes, &mut plain);
            prop_assert_eq!(&lanes, &plain);
            least(&mut lanes, window);
            let want: Vec<_> = plain.windows(window).map(|window| *window.iter().min().unwrap()).collect();
            prop_assert_eq!(&lanes[..want.len()], &want[..]);
        }
    }
}
