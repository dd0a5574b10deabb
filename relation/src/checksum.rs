//! Computes the checksum of a page as the server does.
//!
//! The sum is an FNV-1a variant over 32 lanes of 32-bit words that run side by side, so plain loops over arrays become
//! vector code; the block's number goes in at the end, so that a page at the wrong place is found too.
//!
//! Source of the format: `checksum_impl.h` (lanes, prime, start values, two closing rounds of zeros, reduction to 1..=65535)
//! and `bufpage.h` (`pd_checksum` at byte 8, taken as zero while the sum is made).

use crate::page::{BLOCK_SIZE, PD_CHECKSUM};

const LANES: usize = 32;
const ROW: usize = LANES * 4;
const PRIME: u32 = 16_777_619;

#[rustfmt::skip]
const START: [u32; LANES] = [
    0x5b1f_36e9, 0xb852_5960, 0x02ab_50aa, 0x1de6_6d2a, 0x79ff_467a, 0x9bb9_f8a3, 0x217e_7cd2, 0x83e1_3d2c,
    0xf8d4_474f, 0xe39e_b970, 0x42c6_ae16, 0x9932_16fa, 0x7b09_3b5d, 0x98da_ff3c, 0xf718_902a, 0x0b1c_9cdb,
    0xe58f_764b, 0x1876_36bc, 0x5d7b_3bb1, 0xe73d_e7de, 0x92be_c979, 0xcca6_c0b2, 0x304a_0979, 0x85aa_43d4,
    0x7831_25bb, 0x6ca8_eaa2, 0xe407_eac6, 0x4b5c_fc3e, 0x9fbf_8c76, 0x15ca_20be, 0xf2ca_9fd3, 0x959b_d756,
];

#[inline(always)]
fn mix(sum: u32, word: u32) -> u32 {
    let mixed = sum ^ word;
    mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
}

#[inline(always)]
fn absorb(sums: &mut [u32; LANES], row: &[u8; ROW]) {
    let mut words = [0u32; LANES];
    for (word, bytes) in words.iter_mut().zip(row.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    for (sum, word) in sums.iter_mut().zip(words) {
        *sum = mix(*sum, word);
    }
}

/// The checksum that `page` should carry as block `block` of its relation (counted over all segments), 1 to 65535. The
/// stored checksum has no part in it.
pub fn page_checksum(page: &[u8; BLOCK_SIZE], block: u32) -> u16 {
    let folded = folded(page) ^ block;
    // The remainder is below 65535, so the sum fits and is never zero.
    (folded % 65_535) as u16 + 1
}

/// All lanes' sums in one, by a copy of the loop for this processor: it takes a fifth of the instructions where it has AVX2.
fn folded(page: &[u8; BLOCK_SIZE]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code)]
        // SAFETY: the processor has AVX2, all that the function asks for.
        return unsafe { folded_avx2(page) };
    }
    folded_any(page)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn folded_avx2(page: &[u8; BLOCK_SIZE]) -> u32 {
    folded_any(page)
}

#[inline(always)]
fn folded_any(page: &[u8; BLOCK_SIZE]) -> u32 {
    let mut sums = START;
    let (rows, _) = page.as_chunks::<ROW>();
    if let Some((first, rest)) = rows.split_first() {
        let mut first = *first;
        first[PD_CHECKSUM..PD_CHECKSUM + 2].fill(0);
        absorb(&mut sums, &first);
        for row in rest {
            absorb(&mut sums, row);
        }
    }
    for _ in 0..2 {
        absorb(&mut sums, &[0; ROW]);
    }
    sums.into_iter().fold(0, |all, sum| all ^ sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One word at a time, each lane on its own.
    fn naive(page: &[u8; BLOCK_SIZE], block: u32) -> u16 {
        let mut page = *page;
        page[8] = 0;
        page[9] = 0;
        let mut all = 0u32;
        for (lane, start) in START.into_iter().enumerate() {
            let mut sum = start;
            for row in 0..BLOCK_SIZE / ROW + 2 {
                let at = row * ROW + lane * 4;
                let word = page.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                let mixed = sum ^ word;
                sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
            }
            all ^= sum;
        }
        ((all ^ block) % 65535 + 1) as u16
    }

    proptest::proptest! {
        #[test]
        fn equals_the_naive_sum(seed: u64, block: u32) {
            let mut page = [0u8; BLOCK_SIZE];
            let mut state = seed | 1;
            for byte in &mut page {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            proptest::prop_assert_eq!(page_checksum(&page, block), naive(&page, block));
            // The copy of the loop that this processor may not run.
            proptest::prop_assert_eq!(folded_any(&page), folded(&page));
        }
    }

    #[test]
    fn stored_checksum_has_no_part_and_block_has() {
        let mut page = [7u8; BLOCK_SIZE];
        let sum = page_checksum(&page, 3);
        page[8] = 200;
        page[9] = 1;
        assert_eq!(page_checksum(&page, 3), sum);
        assert_ne!(page_checksum(&page, 4), sum);
    }
}
