//! The straight-line loops of the scan, compiled three times: for any processor, for AVX2 and for AVX-512, chosen when the program runs.
//!
//! All are the same source but for the hashes of [`minimizers`], [`keys`](fn@keys), [`changes`], [`stretches`], [`pack_letters`] and the masks of lines, so they give the same results; the tests of
//! [`crate::minimizer`], [`crate::superkmer`] and [`crate::spelled`] judge whichever one runs. Unsafe are only the calls into the copies, after the processor said that it has what they ask for
//! ([`copies`]), and the loads and stores of lanes in a slice of as many.

#[cfg(target_arch = "x86_64")]
use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
mod eight;
mod hashes;
mod keys;
mod letters;
#[cfg(target_arch = "x86_64")]
mod line;
mod records;
mod tile;
mod turns;
mod windows;

pub(crate) use hashes::minimizers;
pub(crate) use keys::{KEYS_AT_A_TIME, add_cells, into_buckets, keys};
pub(crate) use letters::pack_letters;
pub(crate) use records::{expand, sort_out, write_records};
pub(crate) use tile::{all_pieces, changes, counts_before, stretches};
pub(crate) use turns::Turns;
pub(crate) use windows::{
    BucketCells, CELLS, Look, PART_BITS, WINDOW, add_bucket, bucket_bits, count_windows, look, put_some,
    put_windows,
};

/// Whether the processor has what the copies for AVX2 ask for, and whether what those for AVX-512 do; asked once, since every tile wants to know.
#[cfg(target_arch = "x86_64")]
static HAS: LazyLock<(bool, bool)> = LazyLock::new(|| {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    (avx2, avx2 && avx512)
});

/// True when the processor has what the AVX2 copies ask for.
#[cfg(target_arch = "x86_64")]
#[inline]
fn has_avx2() -> bool {
    HAS.0
}

/// True when the processor has what the AVX-512 copies ask for.
#[cfg(target_arch = "x86_64")]
#[inline]
fn has_avx512() -> bool {
    HAS.1
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

/// Bytes of a line of the cache.
pub(crate) const LINE: usize = 64;

/// Asks for the cache line in which `what` begins.
#[inline(always)]
pub(crate) fn prefetch<T>(what: &T) {
    prefetch_behind(what, 0);
}

/// Asks for the cache line so many bytes behind where `what` begins, if there is one.
#[inline(always)]
pub(crate) fn prefetch_behind<T>(what: &T, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let place = std::ptr::from_ref(what).cast::<i8>().wrapping_add(bytes);
        #[allow(unsafe_code, reason = "the corner for SIMD")]
        // SAFETY: prefetching changes nothing and cannot fault, whatever the address.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place);
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (what, bytes);
}

/// Makes a function that runs the best copy of another one for the processor: `any`, inlined into functions that are compiled for more of it.
macro_rules! copies {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$($g:ident: $bound:path),+>)?
        ($($arg:ident: $type:ty),+) $(-> $ret:ty)? = $any:ident) => {
        $(#[$doc])*
        $vis fn $name $(<$($g: $bound),+>)? ($($arg: $type),+) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
                fn avx512 $(<$($g: $bound),+>)? ($($arg: $type),+) $(-> $ret)? {
                    $any $(::<$($g),+>)? ($($arg),+)
                }
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
                fn avx2 $(<$($g: $bound),+>)? ($($arg: $type),+) $(-> $ret)? {
                    $any $(::<$($g),+>)? ($($arg),+)
                }
                if $crate::simd::has_avx512() {
                    #[allow(unsafe_code, reason = "the corner for SIMD")]
                    // SAFETY: the processor has all that the function asks for.
                    return unsafe { avx512 $(::<$($g),+>)? ($($arg),+) };
                }
                if $crate::simd::has_avx2() {
                    #[allow(unsafe_code, reason = "the corner for SIMD")]
                    // SAFETY: the processor has AVX2 and what came with it, all that the function asks for.
                    return unsafe { avx2 $(::<$($g),+>)? ($($arg),+) };
                }
            }
            $any $(::<$($g),+>)? ($($arg),+)
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
