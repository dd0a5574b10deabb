//! Turns: m-mers that are preferred as minimizers since they lie further apart than chance has it, so that neighbours share theirs for longer.
//!
//! ```text
//! n          (m - 1) / 2, rounded down
//! hill(i)    of the n bases from i on, as numbers from 0 to 3, the sum of each times 1, or times 2 if it is none of the two at the ends of three or more
//! falls(i)   hill(i) > hill(i + m / 2): of the m - 1 bases from i on, the first half weighs more than the second
//! turn       an m-mer that begins at i with falls(i + 1) and not falls(i); where k-mers are canonical, one with one of both
//! ```
//!
//! The first half less the second is a wave laid over the bases, by which those changes of the sequence come out that have about m bases to them. So the sum
//! becomes positive about every m bases, and more evenly than chance has it. A wave whose weights are sines makes the turns a decycling set of least
//! size (J. Mykkeltveit, A proof of Golomb's conjecture for the de Bruijn graph, 1972): no long sequence is without one. That such sets make good minimizers
//! was found by D. Pellow, L. Pu, B. Ekim, L. Kotlar, B. Berger, R. Shamir and Y. Orenstein (Efficient minimizer orders for large values of k using minimum
//! decycling sets, 2023). Here the sines are rounded to 1 and 2, which costs nothing measurable: see docs/performance-log.md. On the other strand the wave
//! is read backwards and a base counts 3 less what its complement does: the sums are the same, in the other order. So where k-mers are canonical turns are those
//! of both ways.
//!
//! All positions of a tile are computed side by side, a byte each, by loops that the compiler turns into vectors.

use super::copies;
use crate::minimizer::{Dealer, REACH, TILE};

/// Room for the m-mers of a tile and what they reach.
const ROOM: usize = TILE + REACH + 32;

/// Scratch for the turns of a tile.
pub(crate) struct Turns {
    bases: [u8; ROOM],
    hills: [u8; ROOM],
    falls: [u8; ROOM],
    none: [u8; ROOM],
}

impl Default for Turns {
    fn default() -> Self {
        Self { bases: [0; ROOM], hills: [0; ROOM], falls: [0; ROOM], none: [0; ROOM] }
    }
}

impl Turns {
    /// A byte for each m-mer that begins in `bytes`, the last eight aside: 0 for a turn, 255 for any other; 0 for all by the older rule.
    ///
    /// # Panics
    /// When those are more than a tile's, or there are no eight.
    pub(crate) fn find(&mut self, dealer: &Dealer, bytes: &[u8]) -> &[u8] {
        let mmers = (bytes.len() - 8) * 4;
        if dealer.turns {
            turns(dealer, bytes, self);
        } else {
            self.none[..mmers].fill(0);
        }
        &self.none[..mmers]
    }
}

copies! {
    fn turns(dealer: &Dealer, bytes: &[u8], scratch: &mut Turns) = turns_any
}

#[inline(always)]
fn turns_any(dealer: &Dealer, bytes: &[u8], scratch: &mut Turns) {
    let Turns { bases, hills, falls, none } = scratch;
    let bases = &mut bases[..bytes.len() * 4];
    for (byte, four) in bytes.iter().zip(bases.as_chunks_mut::<4>().0) {
        let byte = u32::from(*byte);
        // The first base is in the highest bits, and in the lowest byte.
        *four =
            (byte >> 6 | byte << 4 & 0x300 | byte << 14 & 0x3_0000 | byte << 24 & 0x300_0000).to_le_bytes();
    }
    let mmers = bases.len() - 32;
    let hills = &mut hills[..mmers + 16];
    match (dealer.m - 1) / 2 {
        1 => hills_of(bases, hills, |[a, ..]| a),
        2 => hills_of(bases, hills, |[a, b, ..]| a + b),
        3 => hills_of(bases, hills, |[a, b, c, _]| a + b + b + c),
        _ => hills_of(bases, hills, |[a, b, c, d]| a + d + 2 * (b + c)),
    }
    let falls = &mut falls[..mmers + 8];
    for ((fall, first), second) in falls.iter_mut().zip(&*hills).zip(&hills[dealer.m as usize / 2..]) {
        *fall = if first > second { u8::MAX } else { 0 };
    }
    let pairs = none[..mmers].iter_mut().zip(&*falls).zip(&falls[1..]);
    if dealer.canonical {
        pairs.for_each(|((none, before), after)| *none = !(before ^ after));
    } else {
        pairs.for_each(|((none, before), after)| *none = before | !after);
    }
}

/// What `hill` makes of the four bases from each on.
#[inline(always)]
fn hills_of(bases: &[u8], hills: &mut [u8], hill: impl Fn([u8; 4]) -> u8) {
    let (second, third, fourth) = (&bases[1..], &bases[2..], &bases[3..]);
    let fours = bases.iter().zip(second).zip(third).zip(fourth);
    for (out, (((a, b), c), d)) in hills.iter_mut().zip(fours) {
        *out = hill([*a, *b, *c, *d]);
    }
}
