//! The straight-line loops of the scan, compiled twice: for any x86-64 or other processor, and for AVX2, chosen when the program runs.
//!
//! Both are the same source, so they give the same results; the tests of [`crate::minimizer`] judge whichever one runs. The only unsafe
//! operation is the call into the AVX2 copy, after the processor said that it has AVX2.

use crate::minimizer::{Dealer, REACH, TILE};

/// Minimizers of `mmers` positions (a multiple of 8, at most TILE + REACH); see [`Dealer::minimizers`].
pub(crate) fn minimizers(dealer: &Dealer, bytes: &[u8], mmers: usize, out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: the processor has AVX2, the one thing that the function asks for.
        return unsafe { minimizers_avx2(dealer, bytes, mmers, out) };
    }
    minimizers_any(dealer, bytes, mmers, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn minimizers_avx2(dealer: &Dealer, bytes: &[u8], mmers: usize, out: &mut [u32]) {
    minimizers_any(dealer, bytes, mmers, out);
}

#[inline(always)]
fn minimizers_any(dealer: &Dealer, bytes: &[u8], mmers: usize, out: &mut [u32]) {
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

/// Hashes of eight m-mers from each two bytes on.
#[inline(always)]
fn hashes(dealer: &Dealer, bytes: &[u8], out: &mut [u32]) {
    let shift = 64 - 2 * dealer.m;
    for (group, eight) in out.chunks_exact_mut(8).enumerate() {
        let word = u64::from_be_bytes(bytes[group * 2..group * 2 + 8].try_into().expect("8 bytes"));
        for (i, hash) in eight.iter_mut().enumerate() {
            *hash = dealer.hash((word >> (shift - 2 * i as u32)) as u32 & dealer.mask);
        }
    }
}

/// `out[i] = min(out[i], out[i + distance])`, front to back, so that every right side is still the old one.
#[inline(always)]
fn min_with_later(out: &mut [u32], distance: usize) {
    let mut lanes = [0u32; 8];
    let whole = (out.len() - distance) / 8 * 8;
    for at in (0..whole).step_by(8) {
        lanes.copy_from_slice(&out[at + distance..at + distance + 8]);
        for (mine, later) in out[at..at + 8].iter_mut().zip(lanes) {
            *mine = later.min(*mine);
        }
    }
    for at in whole..out.len() - distance {
        out[at] = out[at].min(out[at + distance]);
    }
}
