//! Chains of chunks: one that is being written, and one that is read.

use super::NO_NEXT;
use crate::words::Owned;

/// A chain that this process wrote and still owns.
#[derive(Debug, Default)]
#[must_use = "a chain that is neither committed nor freed stays allocated until its owner dies"]
pub struct OwnedChain {
    pub(super) chunks: Vec<(u32, Owned)>,
}

impl OwnedChain {
    /// The first chunk: what a commit publishes.
    pub fn head(&self) -> u32 {
        self.chunks.first().map_or(NO_NEXT, |(index, _)| *index)
    }
}

/// A chain that was walked and checked: where its bytes lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    chunks: Vec<u32>,
    /// Where each chunk's bytes end, counted from the start of the chain.
    ends: Vec<u64>,
}

/// Bytes of a chain that lie in one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The chunk's place in the chain, from 0.
    pub place: usize,
    /// Its number.
    pub chunk: u32,
    /// Where in the chunk the bytes begin.
    pub from: usize,
    /// How many they are.
    pub len: usize,
}

impl Chain {
    /// Appends a chunk and the bytes in it.
    pub(super) fn push(&mut self, chunk: u32, used: usize) {
        self.ends.push(self.len() + used as u64);
        self.chunks.push(chunk);
    }

    /// Bytes of the chain.
    pub fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// True when the chain holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its chunks in order.
    pub fn chunks(&self) -> &[u32] {
        &self.chunks
    }

    /// Bytes in the chunk at `place` of [`Chain::chunks`].
    ///
    /// # Panics
    /// When there is no such place.
    pub fn bytes_in(&self, place: usize) -> u64 {
        self.ends[place] - self.begin_of(place)
    }

    fn begin_of(&self, place: usize) -> u64 {
        if place == 0 { 0 } else { self.ends[place - 1] }
    }

    /// Where `len` bytes at `offset` lie, as far as the chain has them: a piece for each chunk.
    pub fn pieces(&self, offset: u64, len: u64) -> impl Iterator<Item = Piece> {
        let (first, end) = (self.ends.partition_point(|end| *end <= offset), offset.saturating_add(len));
        let piece = move |place: usize| {
            let begin = self.begin_of(place);
            let from = begin.max(offset);
            let len = self.ends[place].min(end).saturating_sub(from) as usize;
            Piece { place, chunk: self.chunks[place], from: (from - begin) as usize, len }
        };
        (first..self.ends.len()).take_while(move |place| self.begin_of(*place) < end).map(piece)
    }
}
