//! Says for every position of a packed buffer which stripe the k-mer that starts there belongs to, and where its minimizer is.
//!
//! The minimizer of a k-mer is the smallest among its m-mers, and the stripe is some bits of a hash of that. Equal k-mers have equal minimizers,
//! so all copies of a k-mer meet in one stripe; neighbours share theirs, so long stretches of a read go to one stripe together (super-k-mers).
//! Of two m-mers the smaller is one that is a *turn* (`simd/turns.rs`), and among turns, or if there is none, the one with the smaller hash. Turns
//! are a tenth to a seventh of all m-mers, lie further apart than chance has it, and so make super-k-mers a sixth longer.
//! Both hashes are bijections of 2 m bits: who knows the stripe needs only the bits of a minimizer that the stripe does not tell ([`crate::record`]).
//!
//! All positions of a tile are computed side by side: m-mers by shifts of loaded words, the minimum over w = k - m + 1 neighbours in steps
//! (of 4, 16, ... neighbours, then one overlapping step), so the work is the same straight lines for every lane. A lane has in its highest bit whether
//! its m-mer is no turn, then the hash, and below it how far the m-mer is from the last place there can be, so that of equal m-mers the last one is the
//! smallest. Positions whose window leaves its run get a number that means nothing.

use crate::params::Params;
use crate::record::Form;
use crate::simd::{self, Turns};

/// Which rule deals k-mers out to stripes: a digit that is another one whenever a k-mer may get into another stripe than before. Leader and workers agree
/// on it, and dense files can be read as long as theirs is this one or the one before.
pub const RULE: u8 = b'5';
/// The rule before: [`Dealer::of_older_rule`].
pub const OLDER_RULE: u8 = b'4';

/// How k-mers are dealt out to stripes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dealer {
    pub(crate) k: u32,
    pub(crate) m: u32,
    /// 2 m ones.
    pub(crate) mask: u32,
    pub(crate) flip: u32,
    /// Odd, then as many zeros as a lane has bits below a hash.
    pub(crate) factor: u32,
    /// What undoes that factor, modulo 2^32.
    undone: u32,
    /// Bits of a minimizer that its stripe does not tell.
    pub(crate) rest_bits: u32,
    pub(crate) canonical: bool,
    /// Whether turns are smaller than all others.
    pub(crate) turns: bool,
}

/// Positions that are computed at a time, a multiple of 64. The arrays of a tile fit the first cache.
pub const TILE: usize = 1984;
/// What spreads minimizers over the stripes.
pub(crate) const SPREAD: u32 = 0x85eb_ca6b;
/// m-mers behind the last position of a tile that its windows reach.
pub(crate) const REACH: usize = 64;
/// Bits of a lane for the place of an m-mer, and the last place.
pub(crate) const PLACE_BITS: u32 = 11;
pub(crate) const LAST_PLACE: u32 = (1 << PLACE_BITS) - 1;
const _: () = assert!(TILE + REACH <= 1 << PLACE_BITS);
/// The bit of a lane that says that its m-mer is no turn.
pub(crate) const NO_TURN: u32 = 1 << 31;
/// Most bases of a minimizer, so that a lane has room for that bit, hash and place.
pub(crate) const MAX_M: u32 = (31 - PLACE_BITS) / 2;

impl Dealer {
    /// Deals k-mers of `params` to `2^stripe_bits` stripes (0 to 16 bits), with a hash drawn by `seed`. Where there are fewer minimizers than stripes, the
    /// last stripes have none.
    ///
    /// # Panics
    /// When `stripe_bits` is above 16.
    pub fn new(params: Params, stripe_bits: u32, seed: u64) -> Self {
        let m = minimizer_size(params.k());
        Self { turns: true, ..Self::of_hashes(params, stripe_bits, seed, m) }
    }

    /// The same by [`OLDER_RULE`], where hashes alone decide, and minimizers of k = 21 have nine bases.
    ///
    /// # Panics
    /// When `stripe_bits` is above 16.
    pub fn of_older_rule(params: Params, stripe_bits: u32, seed: u64) -> Self {
        let m = if params.k() == 21 { 9 } else { minimizer_size(params.k()) };
        Self::of_hashes(params, stripe_bits, seed, m)
    }

    fn of_hashes(params: Params, stripe_bits: u32, seed: u64, m: u32) -> Self {
        assert!(stripe_bits <= 16);
        let mask = u32::MAX >> (32 - 2 * m);
        let factor = (seed as u32 ^ 0x9e37_79b1) | 1;
        Self {
            k: params.k(),
            m,
            mask,
            // A poly-A m-mer is 0, which must not be everybody's minimizer: it is flipped first.
            flip: ((seed >> 32) as u32 ^ 0x5bd1_e995) & mask,
            factor: factor << (31 - 2 * m),
            undone: inverse(factor),
            rest_bits: (2 * m).saturating_sub(stripe_bits),
            canonical: params.canonical(),
            turns: false,
        }
    }

    /// The hash by which m-mers are ordered, in the bits of a lane below the highest: a bijection of 2 m bits.
    #[inline(always)]
    pub(crate) fn hash(&self, mmer: u32) -> u32 {
        (mmer ^ self.flip).wrapping_mul(self.factor) & !NO_TURN
    }

    /// What an m-mer is hashed as where k-mers are canonical: the smaller of it and its reverse complement, so that both strands of a k-mer have
    /// one minimizer.
    #[inline(always)]
    pub(crate) fn canonical(&self, mmer: u32) -> u32 {
        mmer.min(self.other_strand(mmer))
    }

    /// The reverse complement of an m-mer.
    #[inline(always)]
    pub(crate) fn other_strand(&self, mmer: u32) -> u32 {
        let pairs = !mmer;
        let nibbles = (pairs >> 2 & 0x3333_3333) | (pairs & 0x3333_3333) << 2;
        let bytes = (nibbles >> 4 & 0x0f0f_0f0f) | (nibbles & 0x0f0f_0f0f) << 4;
        bytes.swap_bytes() >> (32 - 2 * self.m)
    }

    /// The number of a lane's minimizer: a bijection of 2 m bits, whose high bits are its stripe. Minimizers are small numbers mostly, so they are
    /// spread by another factor.
    #[inline(always)]
    pub(crate) fn number(&self, lane: u32) -> u32 {
        let hash = (lane & !NO_TURN) >> (31 - 2 * self.m);
        (hash ^ hash >> self.m).wrapping_mul(SPREAD) & self.mask
    }

    /// The m-mer of which that is the number.
    #[inline(always)]
    pub(crate) fn mmer(&self, number: u32) -> u32 {
        const GATHER: u32 = inverse(SPREAD);
        let spread = number.wrapping_mul(GATHER) & self.mask;
        let hash = spread ^ spread >> self.m;
        hash.wrapping_mul(self.undone) & self.mask ^ self.flip
    }

    /// The stripe of the minimizer with this number.
    #[inline(always)]
    pub(crate) fn stripe(&self, number: u32) -> u32 {
        number >> self.rest_bits
    }

    /// The stripe of a position of a tile.
    pub fn stripe_of(&self, lane: u32) -> u32 {
        self.stripe(self.number(lane))
    }

    /// What records of super-k-mers look like.
    pub const fn form(&self) -> Form {
        Form::new(self)
    }

    /// m-mers that a k-mer has.
    pub(crate) const fn window(&self) -> usize {
        (self.k - self.m + 1) as usize
    }
}

/// What an odd number is to be multiplied with so that it is 1, modulo 2^32; by Newton's steps, each of which doubles how many bits are right.
const fn inverse(odd: u32) -> u32 {
    let (mut inverse, mut right) = (odd, 3);
    while right < 32 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
        right *= 2;
    }
    inverse
}

/// Where in its tile a lane's minimizer begins.
#[inline(always)]
pub(crate) const fn place_of(lane: u32) -> usize {
    (LAST_PLACE - (lane & LAST_PLACE)) as usize
}

/// Bases of a minimizer: long enough that stripes come out even, short enough that neighbours share it.
pub const fn minimizer_size(k: u32) -> u32 {
    match k {
        ..=7 => k.div_ceil(2) + 1,
        8..=17 => 7,
        18..=21 => 8,
        22..=30 => 9,
        // So that among 2048 stripes and more a record of k = 31 fits 12 bytes.
        _ => 10,
    }
}

/// Minimizers of a tile, a lane for each position: scratch of [`Dealer::minimizers`].
pub struct Tile {
    pub(crate) minima: Vec<u32>,
    turns: Turns,
}

impl Default for Tile {
    fn default() -> Self {
        Self { minima: vec![0; TILE + REACH], turns: Turns::default() }
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
        let no_turns = tile.turns.find(self, bytes);
        simd::minimizers(self, bytes, no_turns, &mut tile.minima);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bases::PADDING;
    use proptest::prelude::*;

    /// The oracle: each m-mer of each k-mer; of equal ones the last. The hash, and where the m-mer begins.
    fn naive(dealer: &Dealer, packed: &[u8], at: usize) -> (u32, usize) {
        let base = |i: usize| u32::from(packed[i / 4] >> (6 - 2 * (i % 4)) & 3);
        let mmer = |i: usize| (i..i + dealer.m as usize).fold(0, |m, i| m << 2 | base(i));
        let other = |i: usize| (i..i + dealer.m as usize).rev().fold(0, |m, i| m << 2 | (3 - base(i)));
        let taken = |i: usize| if dealer.canonical { mmer(i).min(other(i)) } else { mmer(i) };
        let bases = |i: usize| (i..i + dealer.m as usize).map(|i| base(i) as u8).collect::<Vec<u8>>();
        let no_turn = |i: usize| u32::from(dealer.turns && !is_turn(&bases(i), dealer.canonical)) << 31;
        let lanes = (at..at + dealer.window()).map(|i| (no_turn(i) | dealer.hash(taken(i)), i));
        lanes.min_by_key(|(lane, i)| (*lane, usize::MAX - i)).expect("at least one m-mer")
    }

    /// Whether an m-mer is a turn, as docs/formats.md says it.
    fn is_turn(mmer: &[u8], canonical: bool) -> bool {
        let weights: &[i32] = match mmer.len() {
            3 => &[1, -1],
            4 => &[1, 0, -1],
            5 => &[1, 1, -1, -1],
            6 => &[1, 1, 0, -1, -1],
            7 => &[1, 2, 1, -1, -2, -1],
            8 => &[1, 2, 1, 0, -1, -2, -1],
            9 => &[1, 2, 2, 1, -1, -2, -2, -1],
            10 => &[1, 2, 2, 1, 0, -1, -2, -2, -1],
            m => panic!("minimizers of {m} bases"),
        };
        let sum = |bases: &[u8]| bases.iter().zip(weights).map(|(base, w)| i32::from(*base) * w).sum::<i32>();
        let (before, after) = (sum(&mmer[..mmer.len() - 1]) > 0, sum(&mmer[1..]) > 0);
        if canonical { before != after } else { after && !before }
    }

    proptest! {
        #[test]
        fn minimizers_like_the_oracle(bytes in prop::collection::vec(any::<u8>(), 600), k in 4..=32u32, first in 0..10usize, count in 1..500usize, seed in any::<u64>(), canonical: bool, older: bool) {
            let mut packed = bytes;
            packed.extend([0; PADDING]);
            let of = if older { Dealer::of_older_rule } else { Dealer::new };
            let dealer = of(Params::new(k, 0).unwrap().with_canonical(canonical), 10, seed);
            let mut tile = Tile::default();
            dealer.minimizers(&packed, first * 4, count, &mut tile);
            for i in 0..count {
                let lane = tile.minima[i];
                let found = (lane & !LAST_PLACE, first * 4 + place_of(lane));
                prop_assert_eq!(found, naive(&dealer, &packed, first * 4 + i), "position {}", i);
            }
        }
    }

    proptest! {
        #[test]
        fn a_number_leads_back_to_its_mmer(k in 4..=32u32, seed: u64, mmer: u32) {
            let dealer = Dealer::new(Params::new(k, 0).unwrap(), 5, seed);
            let mmer = mmer & dealer.mask;
            let hash = dealer.hash(mmer);
            prop_assert_eq!(hash & (NO_TURN | LAST_PLACE), 0, "room for the place, and for whether it is a turn");
            for lane in [hash | LAST_PLACE, hash | NO_TURN] {
                prop_assert_eq!(dealer.mmer(dealer.number(lane)), mmer);
            }
            prop_assert_eq!(dealer.other_strand(dealer.other_strand(mmer)), mmer);
        }
    }

    /// A k-mer's stripe as docs/formats.md says it of a dense file, of the older ones as well.
    fn documented(k: u32, seed: u64, stripe_bits: u32, (canonical, older): (bool, bool), kmer: &[u8]) -> u32 {
        let m = match k {
            31.. => 10,
            21 if older => 9,
            22.. => 9,
            18.. => 8,
            8.. => 7,
            _ => k.div_ceil(2) + 1,
        } as usize;
        let all = 1u64 << (2 * m);
        let (f, g) = ((seed >> 32) ^ 0x5bd1_e995, ((seed & 0xffff_ffff) ^ 0x9e37_79b1) | 1);
        let number = |bases: &mut dyn Iterator<Item = u8>| bases.fold(0, |x, base| x * 4 + u64::from(base));
        let mix = |x: u64| x ^ (x >> m);
        let hash = |m_mer: &[u8]| {
            let x = number(&mut m_mer.iter().copied());
            let other = number(&mut m_mer.iter().rev().map(|base| 3 - base));
            let h = ((if canonical { x.min(other) } else { x }) ^ f).wrapping_mul(g) % all;
            (!older && !is_turn(m_mer, canonical), h)
        };
        let (_, h) = kmer.windows(m).map(hash).min().expect("at least one m-mer");
        ((mix(h) * 0x85eb_ca6b % all) >> (2 * m).saturating_sub(stripe_bits as usize)) as u32
    }

    proptest! {
        #[test]
        fn stripes_as_documented(
            bases in prop::collection::vec(0..4u8, 32), k in 4..=32u32, seed: u64, stripe_bits in 0..=16u32, canonical: bool, older: bool,
        ) {
            let params = Params::new(k, 0).unwrap().with_canonical(canonical);
            let dealer = if older { Dealer::of_older_rule } else { Dealer::new }(params, stripe_bits, seed);
            let mut packed: Vec<u8> = bases.chunks(4).map(|four| four.iter().fold(0, |byte, base| byte << 2 | base)).collect();
            packed.extend([0; PADDING]);
            let mut tile = Tile::default();
            dealer.minimizers(&packed, 0, 1, &mut tile);
            let want = documented(k, seed, stripe_bits, (canonical, older), &bases[..k as usize]);
            prop_assert_eq!(dealer.stripe_of(tile.minimizers()[0]), want, "k-mers are dealt out otherwise: that needs another RULE, and another sentence in docs/formats.md");
        }
    }

    /// What turns are for: with them super-k-mers of random bases are at least a tenth longer, of canonical ones a twentieth.
    #[test]
    fn minimizers_change_less_often_where_turns_are_preferred() {
        let mut packed: Vec<u8> = random_bytes(100_000);
        packed.extend([0; PADDING]);
        for (k, canonical, fewer) in [
            (16, false, 0.9),
            (21, false, 0.9),
            (31, false, 0.9),
            (16, true, 0.95),
            (21, true, 0.95),
            (31, true, 0.95),
        ] {
            let dealer = Dealer::new(Params::new(k, 0).expect("in range").with_canonical(canonical), 6, 42);
            let changes = |dealer: Dealer| {
                let (mut tile, mut changes) = (Tile::default(), 0);
                for first in (0..398_000).step_by(TILE) {
                    dealer.minimizers(&packed, first, TILE.min(398_000 - first), &mut tile);
                    changes += tile.minima[..TILE.min(398_000 - first)]
                        .windows(2)
                        .filter(|pair| (pair[0] ^ pair[1]) & !LAST_PLACE != 0)
                        .count();
                }
                changes as f64
            };
            let (found, older) = (changes(dealer), changes(Dealer { turns: false, ..dealer }));
            assert!(
                found < fewer * older,
                "k {k}, canonical {canonical}: {found} changes, without turns {older}"
            );
        }
    }

    /// Of a generator with a fixed seed.
    fn random_bytes(count: usize) -> Vec<u8> {
        let mut x = 1u64;
        let next = |_| {
            x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(3);
            (x >> 56) as u8
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn stripes_come_out_even_on_random_bases() {
        for k in [10, 16, 21, 31] {
            let mut packed = random_bytes(100_000);
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
