//! Says for every position of a packed buffer which stripe the k-mer that starts there belongs to.
//!
//! The minimizer of a k-mer is the smallest hash among its m-mers, and the stripe is a hash of that. Equal k-mers have equal minimizers, so all
//! copies of a k-mer meet in one stripe; neighbours share theirs, so long stretches of a read go to one stripe together (super-k-mers).
//! Positions alone do not matter, so ties need no rule.
//!
//! All positions of a tile are computed side by side: m-mers by shifts of loaded words, the minimum over w = k - m + 1 neighbours by doubling
//! (of 2, 4, 8, ... neighbours, then one overlapping step), so the work is the same straight lines for every lane. Positions whose window
//! leaves its run get a number that means nothing.

use crate::params::Params;
use crate::record::Width;
use crate::simd;

/// Which rule deals k-mers out to stripes: a digit that is another one whenever a k-mer may get into another stripe than before. Dense files have it in
/// their magic number, and leader and workers agree on it.
pub const RULE: u8 = b'3';

/// How k-mers are dealt out to stripes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dealer {
    pub(crate) k: u32,
    pub(crate) m: u32,
    pub(crate) mask: u32,
    pub(crate) flip: u32,
    pub(crate) factor: u32,
    pub(crate) stripe_shift: u32,
    pub(crate) canonical: bool,
}

/// Positions that are computed at a time. The arrays of a tile fit the first cache.
pub const TILE: usize = 2048;
/// What spreads minimizers over the stripes, and by how much they are shifted before.
pub(crate) const SPREAD: u32 = 0x85eb_ca6b;
pub(crate) const SPREAD_SHIFT: u32 = 15;
/// m-mers behind the last position of a tile that its windows reach.
pub(crate) const REACH: usize = 64;

impl Dealer {
    /// Deals k-mers of `params` to `2^stripe_bits` stripes (0 to 16 bits), with a hash drawn by `seed`.
    ///
    /// # Panics
    /// When `stripe_bits` is above 16.
    pub fn new(params: Params, stripe_bits: u32, seed: u64) -> Self {
        assert!(stripe_bits <= 16);
        let m = minimizer_size(params.k());
        Self {
            k: params.k(),
            m,
            mask: u32::MAX >> (32 - 2 * m),
            // A poly-A m-mer is 0, which must not be everybody's minimizer: it is flipped first.
            flip: (seed >> 32) as u32 ^ 0x5bd1_e995,
            factor: (seed as u32 ^ 0x9e37_79b1) | 1,
            stripe_shift: 32 - stripe_bits,
            canonical: params.canonical(),
        }
    }

    /// The hash by which m-mers are ordered: a bijection of 32 bits.
    #[inline(always)]
    pub(crate) fn hash(&self, mmer: u32) -> u32 {
        (mmer ^ self.flip).wrapping_mul(self.factor)
    }

    /// What an m-mer is hashed as where k-mers are canonical: the smaller of it and its reverse complement, so that both strands of a k-mer have
    /// one minimizer.
    #[inline(always)]
    pub(crate) fn canonical(&self, mmer: u32) -> u32 {
        let pairs = !mmer;
        let nibbles = (pairs >> 2 & 0x3333_3333) | (pairs & 0x3333_3333) << 2;
        let bytes = (nibbles >> 4 & 0x0f0f_0f0f) | (nibbles & 0x0f0f_0f0f) << 4;
        mmer.min(bytes.swap_bytes() >> (32 - 2 * self.m))
    }

    /// The stripe of a minimizer's hash. Minimizers are small numbers mostly, so they are spread by another factor.
    #[inline(always)]
    pub fn stripe_of(&self, minimizer: u32) -> u32 {
        let spread = (minimizer ^ minimizer >> SPREAD_SHIFT).wrapping_mul(SPREAD);
        ((u64::from(spread)) >> self.stripe_shift) as u32
    }

    /// How wide records of super-k-mers are.
    pub const fn width(&self) -> Width {
        Width::for_kmers(self.k, self.m)
    }

    /// m-mers that a k-mer has.
    pub(crate) fn window(&self) -> usize {
        (self.k - self.m + 1) as usize
    }
}

/// Bases of a minimizer: long enough that stripes come out even, short enough that neighbours share it.
pub const fn minimizer_size(k: u32) -> u32 {
    match k {
        ..=7 => k.div_ceil(2) + 1,
        8..=17 => 7,
        18..=20 => 8,
        _ => 9,
    }
}

/// Minimizers of a tile: scratch of [`Dealer::minimizers`].
pub struct Tile {
    pub(crate) minima: Vec<u32>,
}

impl Default for Tile {
    fn default() -> Self {
        Self { minima: vec![0; TILE + REACH] }
    }
}

impl Tile {
    /// The minimizers of the positions, as far as they were computed.
    pub fn minimizers(&self) -> &[u32] {
        &self.minima
    }
}

impl Dealer {
    /// Computes the minimizers of `count` positions from base `first` on, a multiple of four, `count` at most [`TILE`]. `packed` ends with
    /// [`crate::bases::PADDING`].
    ///
    /// # Panics
    /// When the positions are not in `packed`.
    pub fn minimizers(&self, packed: &[u8], first: usize, count: usize, tile: &mut Tile) {
        assert!(first.is_multiple_of(4) && count <= TILE);
        // The m-mers of the last windows reach on; they are computed in whole groups of eight.
        let mmers = (count + self.window() - 1).next_multiple_of(8);
        let bytes = &packed[first / 4..first / 4 + mmers / 4 + 8];
        simd::minimizers(self, bytes, mmers, &mut tile.minima);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bases::PADDING;
    use proptest::prelude::*;

    /// The oracle: each m-mer of each k-mer.
    fn naive(dealer: &Dealer, packed: &[u8], at: usize) -> u32 {
        let base = |i: usize| u32::from(packed[i / 4] >> (6 - 2 * (i % 4)) & 3);
        let mmer = |i: usize| (i..i + dealer.m as usize).fold(0, |m, i| m << 2 | base(i));
        let other = |i: usize| (i..i + dealer.m as usize).rev().fold(0, |m, i| m << 2 | (3 - base(i)));
        let taken = |i: usize| if dealer.canonical { mmer(i).min(other(i)) } else { mmer(i) };
        (at..at + dealer.window()).map(|i| dealer.hash(taken(i))).min().expect("at least one m-mer")
    }

    proptest! {
        #[test]
        fn minimizers_like_the_oracle(bytes in prop::collection::vec(any::<u8>(), 600), k in 4..=32u32, first in 0..10usize, count in 1..500usize, seed in any::<u64>(), canonical: bool) {
            let mut packed = bytes;
            packed.extend([0; PADDING]);
            let dealer = Dealer::new(Params::new(k, 0).unwrap().with_canonical(canonical), 10, seed);
            let mut tile = Tile::default();
            dealer.minimizers(&packed, first * 4, count, &mut tile);
            for i in 0..count {
                prop_assert_eq!(tile.minima[i], naive(&dealer, &packed, first * 4 + i), "position {}", i);
            }
        }
    }

    /// A k-mer's stripe as docs/formats.md says it of a dense file.
    fn documented(k: u32, seed: u64, stripe_bits: u32, canonical: bool, kmer: &[u8]) -> u32 {
        let m = match k {
            21.. => 9,
            18.. => 8,
            8.. => 7,
            _ => k.div_ceil(2) + 1,
        } as usize;
        let (f, g) = ((seed >> 32) ^ 0x5bd1_e995, ((seed & 0xffff_ffff) ^ 0x9e37_79b1) | 1);
        let number = |bases: &mut dyn Iterator<Item = u8>| bases.fold(0, |x, base| x * 4 + u64::from(base));
        let hash = |m_mer: &[u8]| {
            let x = number(&mut m_mer.iter().copied());
            let other = number(&mut m_mer.iter().rev().map(|base| 3 - base));
            ((if canonical { x.min(other) } else { x }) ^ f).wrapping_mul(g) & u64::from(u32::MAX)
        };
        let h = kmer.windows(m).map(hash).min().expect("at least one m-mer");
        ((((h ^ (h >> 15)) * 0x85eb_ca6b) & 0xffff_ffff) >> (32 - stripe_bits)) as u32
    }

    proptest! {
        #[test]
        fn stripes_as_documented(bases in prop::collection::vec(0..4u8, 32), k in 4..=32u32, seed: u64, stripe_bits in 0..=16u32, canonical: bool) {
            let params = Params::new(k, 0).unwrap().with_canonical(canonical);
            let dealer = Dealer::new(params, stripe_bits, seed);
            let mut packed: Vec<u8> = bases.chunks(4).map(|four| four.iter().fold(0, |byte, base| byte << 2 | base)).collect();
            packed.extend([0; PADDING]);
            let mut tile = Tile::default();
            dealer.minimizers(&packed, 0, 1, &mut tile);
            let want = documented(k, seed, stripe_bits, canonical, &bases[..k as usize]);
            prop_assert_eq!(dealer.stripe_of(tile.minimizers()[0]), want, "k-mers are dealt out otherwise: that needs another RULE, and another sentence in docs/formats.md");
        }
    }

    #[test]
    fn stripes_come_out_even_on_random_bases() {
        for k in [10, 16, 21, 31] {
            let mut x = 1u64;
            let mut packed: Vec<u8> = (0..100_000)
                .map(|_| {
                    x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(3);
                    (x >> 56) as u8
                })
                .collect();
            packed.extend([0; PADDING]);
            let dealer = Dealer::new(Params::new(k, 0).expect("in range"), 6, 42);
            let (mut tile, mut hits) = (Tile::default(), [0u32; 64]);
            for first in (0..398_000).step_by(TILE) {
                dealer.minimizers(&packed, first, TILE.min(398_000 - first), &mut tile);
                tile.minima[..TILE.min(398_000 - first)]
                    .iter()
                    .for_each(|m| hits[dealer.stripe_of(*m) as usize] += 1);
            }
            let (mean, most) = (398_000.0 / 64.0, f64::from(*hits.iter().max().expect("64")));
            assert!(most < 1.6 * mean, "k {k}: the fullest stripe has {most}, the mean is {mean}");
        }
    }
}
