//! Allocates pieces of the segment that have owners, and strings them into chains of bytes: the counterpart of Postgres's `dsa_area`.
//!
//! ```text
//! in the table of contents' area                      in the arena
//! 0       8      where to look next (a hint)          chunk i: `chunk_bytes` bytes from
//! 64      8 * n  chunk words (see `words`)                     arena offset + i * chunk_bytes
//! then    8 * n  links: next chunk in the high half (all ones: none), bytes used in the low half
//! ```
//!
//! A chunk's word *is* its allocation record: there is no free list that a death could tear, and a sequence number in the word keeps a late
//! release from hitting the chunk's next life. A chain is written by its owner, links and bytes, before the one commit that publishes its
//! head; until then nobody else may look at it (I3), from then on nobody may write it (I4). Chunks whose owner is *confirmed* dead and
//! which no DONE task reaches are freed by [`Arena::sweep`], which may be done again by anybody (I5).
//!
//! Readers trust nothing: a chain is walked once into a private list, with bounds, fill and length checked on the way (I6).

use crate::error::{Error, Result};
use crate::inject::{self, Point};
use crate::planted;
use crate::segment::{ArenaPlace, Segment};
use crate::sync::{AtomicU64, Ordering};
use crate::toc::Area;
use crate::words::{self, BadWord, Chunk, Owned, Owner};
use std::collections::BTreeSet;
use std::sync::Arc;

const WORDS: usize = 64;
const NO_NEXT: u32 = u32::MAX;
/// Head of a result that has no bytes: no chunk belongs to it.
pub const NOTHING: u32 = NO_NEXT;

/// This process's view of the arena.
#[derive(Clone)]
pub struct Arena {
    segment: Arc<Segment>,
    at: usize,
    place: ArenaPlace,
}

/// A chain that this process wrote and still owns.
#[derive(Debug)]
#[must_use = "a chain that is neither committed nor freed stays allocated until its owner dies"]
pub struct OwnedChain {
    chunks: Vec<(u32, Owned)>,
}

impl OwnedChain {
    /// The first chunk: what a commit publishes.
    pub fn head(&self) -> u32 {
        self.chunks.first().map_or(NO_NEXT, |(index, _)| *index)
    }
}

/// A chain that was walked and checked: where its bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    chunks: Vec<u32>,
    /// Where each chunk's bytes end, counted from the start of the chain.
    ends: Vec<u64>,
}

impl Chain {
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
}

impl Arena {
    /// Bytes that the arena takes in the table of contents' area.
    pub const fn estimate(chunks: usize) -> usize {
        WORDS + chunks * 16
    }

    /// Uses the arena's words in `area`. Zeroed memory is free chunks, so this also creates them.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] when the area is too small for the chunks that the header states.
    pub fn attach(segment: &Arc<Segment>, area: Area) -> Result<Self> {
        let place = segment.arena_place()?;
        let needed = Self::estimate(place.chunks);
        if area.len < needed || place.chunks >= NO_NEXT as usize || place.chunk_bytes > u32::MAX as usize {
            let (offset, limit) = (area.offset as u64, (area.offset + area.len) as u64);
            return Err(Error::OutOfBounds {
                name: segment.name().into(),
                offset,
                len: needed as u64,
                limit,
            });
        }
        Ok(Self { segment: Arc::clone(segment), at: area.offset, place })
    }

    /// Chunks of the arena.
    pub fn chunks(&self) -> usize {
        self.place.chunks
    }

    /// Bytes of a chunk.
    pub fn chunk_bytes(&self) -> usize {
        self.place.chunk_bytes
    }

    fn word(&self, chunk: u32) -> Result<&AtomicU64> {
        self.segment.map().word(self.at + WORDS + self.checked(chunk)? * 8)
    }

    fn link(&self, chunk: u32) -> Result<&AtomicU64> {
        self.segment.map().word(self.at + WORDS + (self.place.chunks + self.checked(chunk)?) * 8)
    }

    fn checked(&self, chunk: u32) -> Result<usize> {
        if (chunk as usize) < self.place.chunks {
            return Ok(chunk as usize);
        }
        Err(self.damaged("chunk number", format!("less than {}", self.place.chunks), chunk.to_string()))
    }

    fn damaged(&self, what: &'static str, expected: String, found: String) -> Error {
        Error::Damaged { name: self.segment.name().into(), what, expected, found }
    }

    fn bad(&self, source: BadWord) -> Error {
        Error::Word { name: self.segment.name().into(), source }
    }

    /// What a chunk's word says.
    ///
    /// # Errors
    /// [`Error::Word`] when it is damaged; [`Error::Damaged`] for a chunk that there is not.
    pub fn look(&self, chunk: u32) -> Result<Chunk> {
        Chunk::unpack(self.word(chunk)?.load(Ordering::Acquire)).map_err(|e| self.bad(e))
    }

    fn offset(&self, chunk: u32) -> usize {
        self.place.offset + chunk as usize * self.place.chunk_bytes
    }

    /// Allocates `count` chunks for `owner`, or none at all.
    ///
    /// # Errors
    /// [`Error::ArenaFull`] naming how many were wanted and how many could be had.
    fn allocate(&self, owner: Owner, count: usize) -> Result<OwnedChain> {
        let mut chain = OwnedChain { chunks: Vec::with_capacity(count.min(self.place.chunks)) };
        let hint = self.segment.map().word(self.at)?;
        while chain.chunks.len() < count {
            let next = hint.fetch_add(1, Ordering::Relaxed);
            if next >= self.place.chunks as u64 {
                break;
            }
            self.try_one(next as u32, owner, &mut chain)?;
        }
        // Past the hint's end there may be chunks that came back.
        for chunk in 0..self.place.chunks as u32 {
            if chain.chunks.len() >= count {
                return Ok(chain);
            }
            self.try_one(chunk, owner, &mut chain)?;
        }
        let found = chain.chunks.len();
        if found >= count {
            return Ok(chain);
        }
        self.free(chain)?;
        let (chunks, chunk_bytes) = (self.place.chunks, self.place.chunk_bytes);
        Err(Error::ArenaFull { name: self.segment.name().into(), wanted: count, found, chunks, chunk_bytes })
    }

    fn try_one(&self, chunk: u32, owner: Owner, chain: &mut OwnedChain) -> Result<()> {
        let owned = words::allocate(self.word(chunk)?, owner).map_err(|e| self.bad(e))?;
        if let Some(owned) = owned {
            chain.chunks.push((chunk, owned));
            inject::at(Point::ChunkTaken)?;
        }
        Ok(())
    }

    /// Writes `bytes` as a chain owned by `owner`. Not visible to others before its head is committed (I3).
    ///
    /// # Errors
    /// [`Error::ArenaFull`]; [`Error::NoRoom`] when the memory behind the arena runs out. Nothing stays allocated then.
    pub fn store(&self, owner: Owner, bytes: &[u8]) -> Result<OwnedChain> {
        let mut chain = OwnedChain { chunks: Vec::new() };
        match self.append(owner, &mut chain, bytes) {
            Ok(()) => Ok(chain),
            Err(e) => {
                self.free(chain)?;
                Err(e)
            }
        }
    }

    /// Begins a chain that [`Arena::append`] fills piece by piece.
    pub fn begin(&self) -> OwnedChain {
        OwnedChain { chunks: Vec::new() }
    }

    /// Appends `bytes` to a chain that is not committed yet, in chunks of their own. On an error the chain is as long as before, and its
    /// owner frees it.
    ///
    /// # Errors
    /// As [`Arena::store`].
    pub fn append(&self, owner: Owner, chain: &mut OwnedChain, bytes: &[u8]) -> Result<()> {
        let pieces = bytes.len().div_ceil(self.place.chunk_bytes).max(1);
        let more = self.allocate(owner, pieces)?;
        if let Err(e) = self.fill(&more, bytes) {
            self.free(more)?;
            return Err(e);
        }
        if let Some((last, _)) = chain.chunks.last() {
            let link = self.link(*last)?;
            let used = link.load(Ordering::Relaxed) as u32;
            link.store(u64::from(more.head()) << 32 | u64::from(used), Ordering::Relaxed);
            inject::at(Point::ChainLinked)?;
        }
        chain.chunks.extend(more.chunks);
        Ok(())
    }

    fn fill(&self, chain: &OwnedChain, bytes: &[u8]) -> Result<()> {
        let nexts = chain.chunks.iter().skip(1).map(|(index, _)| *index).chain([NO_NEXT]);
        let empty: &[u8] = &[];
        let pieces = bytes.chunks(self.place.chunk_bytes).chain(bytes.is_empty().then_some(empty));
        for (((chunk, _), next), piece) in chain.chunks.iter().zip(nexts).zip(pieces) {
            self.segment.map().store(self.offset(*chunk), piece)?;
            inject::at(Point::ChunkWritten)?;
            // Relaxed: the commit's Release publishes it together with the bytes.
            self.link(*chunk)?.store(u64::from(next) << 32 | piece.len() as u64, Ordering::Relaxed);
            inject::at(Point::ChunkLinked)?;
        }
        Ok(())
    }

    /// Gives a chain back that was not committed.
    ///
    /// # Errors
    /// None for a chain of this arena.
    pub fn free(&self, chain: OwnedChain) -> Result<()> {
        for (chunk, owned) in chain.chunks {
            inject::at(Point::ChainFree)?;
            self.segment.map().give_up(self.offset(chunk), self.place.chunk_bytes);
            words::release(self.word(chunk)?, owned);
        }
        Ok(())
    }

    /// Walks the chain at `head`, which a DONE word named, and checks it.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a chunk is not allocated, a link leads out of the arena or in a circle, or a fill is impossible.
    pub fn open(&self, head: u32) -> Result<Chain> {
        let mut chain = Chain { chunks: Vec::new(), ends: Vec::new() };
        if head == NOTHING {
            return Ok(chain);
        }
        let mut chunk = head;
        loop {
            if !matches!(Chunk::unpack(self.word(chunk)?.load(Ordering::Acquire)), Ok(Chunk::Owned { .. })) {
                return Err(self.damaged(
                    "chunk of a chain",
                    "an allocated chunk".into(),
                    format!("chunk {chunk}, free"),
                ));
            }
            let link = self.link(chunk)?.load(Ordering::Relaxed);
            let (next, used) = ((link >> 32) as u32, link as u32 as usize);
            if used > self.place.chunk_bytes {
                let expected = format!("at most {}", self.place.chunk_bytes);
                return Err(self.damaged("bytes of a chunk", expected, used.to_string()));
            }
            if chain.chunks.len() >= self.place.chunks {
                let expected = format!("at most {} chunks", self.place.chunks);
                return Err(self.damaged("chain", expected, "a circle".into()));
            }
            let end = chain.len() + used as u64;
            chain.chunks.push(chunk);
            chain.ends.push(end);
            if next == NO_NEXT {
                return Ok(chain);
            }
            chunk = next;
        }
    }

    /// Appends `len` bytes at `offset` of a chain to `into`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] when the chain does not have them.
    pub fn read(&self, chain: &Chain, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()> {
        if offset.checked_add(len as u64).is_none_or(|end| end > chain.len()) {
            let (name, len) = (self.segment.name().into(), len as u64);
            return Err(Error::OutOfBounds { name, offset, len, limit: chain.len() });
        }
        let mut piece = chain.ends.partition_point(|end| *end <= offset);
        let (mut at, mut left) = (offset, len);
        while left > 0 {
            let start = if piece == 0 { 0 } else { chain.ends[piece - 1] };
            let part = left.min((chain.ends[piece] - at) as usize);
            let from = self.offset(chain.chunks[piece]) + (at - start) as usize;
            self.segment.map().read_to_vec(from, part, into)?;
            (piece, at, left) = (piece + 1, at + part as u64, left - part);
        }
        Ok(())
    }

    /// Asks for the first of `len` bytes at `offset` of a chain, which are to be read soon: as many as lie in one chunk, and no more than a core keeps on
    /// its way at a time.
    pub fn prefetch(&self, chain: &Chain, offset: u64, len: usize) {
        const MOST: usize = 2048;
        let piece = chain.ends.partition_point(|end| *end <= offset);
        let (Some(end), Some(chunk)) = (chain.ends.get(piece), chain.chunks.get(piece)) else { return };
        let start = if piece == 0 { 0 } else { chain.ends[piece - 1] };
        let from = self.offset(*chunk) + (offset - start) as usize;
        self.segment.map().prefetch(from, len.min((end - offset) as usize).min(MOST));
    }

    /// Frees every chunk of `dead` that no chain in `reachable` holds. For the confirmed dead only (I5); returns how many.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn sweep(&self, dead: Owner, reachable: &[Chain]) -> Result<usize> {
        let mut kept: Vec<u32> = reachable.iter().flat_map(|c| c.chunks.iter().copied()).collect();
        kept.sort_unstable();
        if planted::is("sweep-frees-published") {
            kept.clear();
        }
        let mut freed = 0;
        for chunk in 0..self.place.chunks as u32 {
            let word = self.word(chunk)?;
            if let Some(owned) = words::owned_by(word, dead).map_err(|e| self.bad(e))?
                && kept.binary_search(&chunk).is_err()
            {
                inject::at(Point::RecoverChunk)?;
                self.segment.map().give_up(self.offset(chunk), self.place.chunk_bytes);
                freed += usize::from(words::release(word, owned));
            }
        }
        Ok(freed)
    }

    /// Everybody who owns a chunk, once each, for a leader that takes over.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn owners(&self) -> Result<BTreeSet<Owner>> {
        let mut owners = BTreeSet::new();
        for chunk in 0..self.place.chunks as u32 {
            let state = Chunk::unpack(self.word(chunk)?.load(Ordering::Acquire)).map_err(|e| self.bad(e))?;
            if let Chunk::Owned { owner, .. } = state {
                owners.insert(owner);
            }
        }
        Ok(owners)
    }

    /// Chunks that are allocated, for progress and for the leak audit.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn allocated(&self) -> Result<usize> {
        (0..self.place.chunks as u32).try_fold(0, |n, chunk| {
            let state = Chunk::unpack(self.word(chunk)?.load(Ordering::Acquire)).map_err(|e| self.bad(e))?;
            Ok(n + usize::from(matches!(state, Chunk::Owned { .. })))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Plan;
    use crate::toc::TocEstimator;
    use proptest::prelude::*;

    const A: Owner = Owner { slot: 0, generation: 1 };
    const B: Owner = Owner { slot: 1, generation: 4 };

    fn arena(chunks: usize) -> Arena {
        let mut toc = TocEstimator::default();
        toc.estimate(Arena::estimate(chunks));
        let plan = Plan { toc_bytes: toc.total(), chunk_bytes: 4096, chunks, build: 0 };
        let segment = Arc::new(Segment::create_private(&plan).expect("memory"));
        let area = segment.toc().expect("a table").allocate(1, Arena::estimate(chunks)).expect("estimated");
        Arena::attach(&segment, area).expect("estimated")
    }

    fn bytes(n: usize, salt: u8) -> Vec<u8> {
        (0..n).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt).collect()
    }

    #[test]
    fn a_chain_gives_back_what_was_stored() {
        let arena = arena(8);
        for len in [0, 1, 4095, 4096, 4097, 12288, 20000] {
            let want = bytes(len, 7);
            let stored = arena.store(A, &want).expect("room");
            let chain = arena.open(stored.head()).expect("just stored");
            assert_eq!(chain.len(), len as u64);
            let (from, mut got) = (len / 3, Vec::new());
            arena.read(&chain, from as u64, len - from, &mut got).expect("inside");
            assert_eq!(got, want[from..]);
            assert!(arena.read(&chain, 1, len, &mut got).is_err(), "one byte past the end");
            arena.free(stored).expect("ours");
            assert_eq!(arena.allocated().expect("sound"), 0);
        }
    }

    #[test]
    fn a_chain_grows_piece_by_piece() {
        let arena = arena(12);
        let (mut chain, mut want) = (arena.begin(), Vec::new());
        for (salt, len) in [(1, 5000), (2, 10), (3, 0), (4, 4096)] {
            arena.append(A, &mut chain, &bytes(len, salt)).expect("room");
            want.extend(bytes(len, salt));
        }
        let open = arena.open(chain.head()).expect("stored");
        for (from, len) in [(0, want.len()), (4999, 3), (5005, 10), (want.len(), 0)] {
            let mut got = Vec::new();
            arena.read(&open, from as u64, len, &mut got).expect("inside");
            assert_eq!(got, want[from..from + len]);
        }
        assert!(arena.append(A, &mut chain, &bytes(40000, 5)).is_err(), "no room");
        assert_eq!(arena.open(chain.head()).expect("as before"), open);
    }

    #[test]
    fn a_full_arena_takes_nothing_and_says_so() {
        let arena = arena(3);
        let _first = arena.store(A, &bytes(5000, 1)).expect("room for two chunks");
        let error = arena.store(B, &bytes(5000, 2)).expect_err("one chunk is left");
        assert!(error.to_string().contains("expected 2 free chunks, found 1 of 3"), "{error}");
        assert_eq!(arena.allocated().expect("sound"), 2);
        let _second = arena.store(B, &bytes(4000, 2)).expect("the last chunk");
    }

    #[test]
    fn a_sweep_frees_what_no_chain_reaches_and_only_of_the_dead() {
        let arena = arena(8);
        let committed = arena.store(A, &bytes(5000, 1)).expect("room");
        let _lost = arena.store(A, &bytes(5000, 2)).expect("room");
        let _other = arena.store(B, &bytes(100, 3)).expect("room");
        let reachable = [arena.open(committed.head()).expect("stored")];
        assert_eq!(arena.sweep(A, &reachable).expect("sound"), 2);
        assert_eq!(arena.sweep(A, &reachable).expect("sound"), 0, "again: nothing left to do");
        assert_eq!(arena.allocated().expect("sound"), 3);
        let mut got = Vec::new();
        arena.read(&reachable[0], 0, 5000, &mut got).expect("still there");
        assert_eq!(got, bytes(5000, 1));
    }

    #[test]
    fn a_damaged_chain_is_an_error_and_never_a_loop() {
        let arena = arena(4);
        let stored = arena.store(A, &bytes(9000, 1)).expect("room");
        let head = stored.head();
        arena.link(head).expect("in range").store(u64::from(head) << 32 | 4096, Ordering::Relaxed);
        assert!(arena.open(head).expect_err("a circle").to_string().contains("a circle"));
        arena.link(head).expect("in range").store(99 << 32 | 4096, Ordering::Relaxed);
        assert!(arena.open(head).is_err(), "out of the arena");
        arena.link(head).expect("in range").store(u64::from(NO_NEXT) << 32 | 5000, Ordering::Relaxed);
        assert!(arena.open(head).is_err(), "more than a chunk");
        assert!(arena.open(3).is_err(), "a free chunk");
    }

    proptest! {
        #[test]
        fn chains_never_share_a_chunk(steps in prop::collection::vec((0..3usize, 1..14000usize), 1..40)) {
            let arena = arena(12);
            let mut held: Vec<(OwnedChain, Vec<u8>)> = Vec::new();
            for (i, (kind, len)) in steps.into_iter().enumerate() {
                if kind == 0 && !held.is_empty() {
                    let (chain, _) = held.swap_remove(len % held.len());
                    arena.free(chain).unwrap();
                } else if let Ok(chain) = arena.store(if kind == 1 { A } else { B }, &bytes(len, i as u8)) {
                    held.push((chain, bytes(len, i as u8)));
                }
                for (chain, want) in &held {
                    let mut got = Vec::new();
                    let open = arena.open(chain.head()).unwrap();
                    arena.read(&open, 0, want.len(), &mut got).unwrap();
                    prop_assert_eq!(&got, want);
                }
            }
        }
    }
}
