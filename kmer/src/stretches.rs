//! Stretches of a tile whose k-mers all have one minimizer, and the stripe of each.
//!
//! Where minimizers change is a bit mask. Where a run ends a stretch ends as well, and what lies between two runs is nobody's: both are put into
//! the mask, so that one walk over it, without a look at the runs, lists all stretches. Which are of which run is known from where they end.

use crate::minimizer::{Dealer, TILE, Tile};
use crate::simd;
use std::ops::Range;

/// Most places that are written at a time, wanted or not.
pub(crate) const AT_A_TIME: usize = 16;

/// A stretch: the position of its last k-mer in the tile, and its stripe in the high half.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(crate) struct Stretch(u32);

impl Stretch {
    #[inline(always)]
    pub(crate) fn new(last: u16, stripe: u32) -> Self {
        Self(stripe << 16 | u32::from(last))
    }
    #[inline(always)]
    pub(crate) fn last(self) -> usize {
        (self.0 & 0xffff) as usize
    }
    #[inline(always)]
    pub(crate) fn stripe(self) -> u32 {
        self.0 >> 16
    }
}

/// The stretches of a tile; keeps its memory from tile to tile.
pub(crate) struct Stretches {
    /// Bit i: a stretch ends with the k-mer that starts at position i of the tile.
    ends_here: [u64; TILE / 64],
    list: Vec<Stretch>,
}

impl Default for Stretches {
    fn default() -> Self {
        Self { ends_here: [0; TILE / 64], list: vec![Stretch::default(); TILE + AT_A_TIME] }
    }
}

impl Stretches {
    /// Lists the stretches of a tile with `count` positions, of which those in `runs` are k-mers. The ranges come in their order, are not empty and do not overlap.
    pub(crate) fn find(
        &mut self,
        dealer: &Dealer,
        tile: &Tile,
        count: usize,
        runs: impl Iterator<Item = Range<usize>>,
    ) -> &[Stretch] {
        simd::changes(tile.minimizers(), count, &mut self.ends_here);
        let words = count.div_ceil(64);
        let mut before = 0;
        for run in runs {
            clear(&mut self.ends_here, before..run.start);
            before = run.end;
            self.ends_here[(before - 1) / 64] |= 1 << ((before - 1) % 64);
        }
        clear(&mut self.ends_here, before..words * 64);
        let found = simd::stretches(dealer, tile.minimizers(), &self.ends_here[..words], &mut self.list);
        &self.list[..found]
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
