//! Stretches of a tile whose k-mers all have one minimizer, and its number.
//!
//! Where minimizers change is a bit mask. Where a run ends a stretch ends as well, and what lies between two runs is nobody's: both are put into
//! the mask, so that one walk over it, without a look at the runs, lists all stretches. Which are of which run is known from where they end.

use crate::minimizer::{Dealer, MAX_M, TILE, Tile};
use crate::simd;
use crate::superkmer::Piece;
use std::ops::Range;

/// Most places that are written at a time, wanted or not.
pub(crate) const AT_A_TIME: usize = 16;

/// A stretch: the position of its last k-mer in the tile, and above it the number of its minimizer ([`Dealer::number`]).
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(crate) struct Stretch(u32);

/// Bits for the position, and the last there can be.
pub(crate) const AT_BITS: u32 = 12;
const LAST: u32 = (1 << AT_BITS) - 1;
const _: () = assert!(2 * MAX_M + AT_BITS <= 32 && TILE <= 1 << AT_BITS);

impl Stretch {
    #[inline(always)]
    pub(crate) fn new(last: u32, number: u32) -> Self {
        Self(number << AT_BITS | last)
    }
    #[inline(always)]
    pub(crate) fn last(self) -> usize {
        (self.0 & LAST) as usize
    }
    #[inline(always)]
    pub(crate) fn number(self) -> u32 {
        self.0 >> AT_BITS
    }
}

/// How a stretch lies around its minimizer: the low half of the piece that it is.
///
/// ```text
/// 0..5    bases before the minimizer
/// 5..10   k-mers
/// 11      there are more of one or the other, since the minimizer comes again: the other bits mean nothing
/// 12..32  the number of the minimizer
/// ```
#[inline(always)]
pub(crate) fn around(stretch: Stretch, begin: u32, minimizer: u32, window: u32) -> u32 {
    let last = stretch.0 & LAST;
    let (kmers, before) = (last.wrapping_add(1).wrapping_sub(begin), minimizer.wrapping_sub(begin));
    let again = if before < window { 0 } else { AGAIN };
    stretch.0 & !LAST | kmers << 5 | before | again
}

/// See [`around`].
pub(crate) const AGAIN: u32 = 1 << 11;

/// The stretches of a tile; keeps its memory from tile to tile.
pub(crate) struct Stretches {
    /// Bit i: a stretch ends with the k-mer that starts at position i of the tile.
    ends_here: [u64; TILE / 64],
    /// How many there are before each 64 positions.
    before: [u32; TILE / 64],
    list: Vec<Stretch>,
    /// Where each one's last k-mer has its minimizer.
    minimizers: Vec<u32>,
    /// Of each its piece, as if it began where the one before it ends.
    pieces: Vec<Piece>,
}

impl Default for Stretches {
    fn default() -> Self {
        const MOST: usize = TILE + AT_A_TIME;
        Self {
            ends_here: [0; TILE / 64],
            before: [0; TILE / 64],
            list: vec![Stretch::default(); MOST],
            minimizers: vec![0; MOST],
            pieces: vec![Piece::default(); MOST],
        }
    }
}

/// The stretches of a tile: see [`Stretches`].
pub(crate) struct Found<'a> {
    pub(crate) list: &'a [Stretch],
    pub(crate) minimizers: &'a [u32],
    pub(crate) pieces: &'a [Piece],
    ends_here: &'a [u64],
    before: &'a [u32],
}

impl Found<'_> {
    /// How many there are up to position `last`.
    #[inline]
    pub(crate) fn up_to(&self, last: usize) -> usize {
        let these = self.ends_here[last / 64] & u64::MAX >> (63 - last % 64);
        self.before[last / 64] as usize + these.count_ones() as usize
    }
}

impl Stretches {
    /// Lists the stretches of a tile with `count` positions from base `first` on, of which those in `runs` are k-mers. The ranges come in their order, are
    /// not empty and do not overlap.
    pub(crate) fn find(
        &mut self,
        dealer: &Dealer,
        tile: &Tile,
        (first, count): (usize, usize),
        runs: impl Iterator<Item = Range<usize>>,
    ) -> Found<'_> {
        simd::changes(tile.minimizers(), count, &mut self.ends_here);
        let words = count.div_ceil(64);
        let mut before = 0;
        for run in runs {
            clear(&mut self.ends_here, before..run.start);
            before = run.end;
            self.ends_here[(before - 1) / 64] |= 1 << ((before - 1) % 64);
        }
        clear(&mut self.ends_here, before..words * 64);
        let ends_here = &self.ends_here[..words];
        let (list, minimizers) = (&mut self.list[..], &mut self.minimizers[..]);
        let found = simd::stretches(dealer, tile.minimizers(), ends_here, list, minimizers);
        let (list, minimizers, pieces) = (&list[..found], &minimizers[..found], &mut self.pieces[..found]);
        simd::all_pieces(list, minimizers, first as u32, dealer.window() as u32, pieces);
        let before = &mut self.before[..words];
        simd::counts_before(ends_here, before);
        Found { list, minimizers, pieces, ends_here, before }
    }
}

/// Clears the bits of a range.
fn clear(words: &mut [u64], mut bits: Range<usize>) {
    while !bits.is_empty() {
        let word = bits.start / 64;
        let end = bits.end.min(word * 64 + 64);
        words[word] &= !(u64::MAX >> (64 - (end - bits.start)) << (bits.start % 64));
        bits.start = end;
    }
}
