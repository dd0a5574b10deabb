//! Allocates pieces of the segment that have owners, and strings them into chains of bytes: the counterpart of Postgres's `dsa_area`.
//!
//! ```text
//! in the table of contents' area, for n chunks of which the first m may be used twice
//! 0       8 * 8        where to look next in each object of the segment, a row of it (hints)
//! 64      8 * (n + m)  chunk words (see `words`), of first uses, then of second ones
//! then    8 * (n + m)  links, likewise: next chunk in the high half (all ones: none), bytes used in the low half
//! in the arena
//!                      chunk i: `chunk_bytes` bytes; of n objects it is in object i mod n, in row i / n
//! ```
//!
//! A chunk's word *is* its allocation record: there is no free list that a death could tear, and a sequence number in the word keeps a late
//! release from hitting the chunk's next life. A chain is written by its owner, links and bytes, before the one commit that publishes its
//! head; until then nobody else may look at it (I3), from then on nobody may write it (I4). Chunks whose owner is *confirmed* dead and
//! which no DONE task reaches are freed by [`Arena::sweep`], which may be done again by anybody (I5).
//!
//! **Second uses.** A published chain may come to hold bytes that nobody will read any more: records whose tables are published. Its chunks cannot be
//! freed, since whoever comes later walks the chain; but their memory can be written again ([`Arena::store_over`]). So a chunk `i` of the first m, which are
//! handed out first, has another number, `n + i`, for a second use of the same bytes, with a word and a link of its own. A second use is allocated, published, recovered and freed like
//! a first one, and changes no word and no link of the first. Whether bytes are spent is for the caller to know; there is no third use.
//!
//! **Objects.** Who allocates looks in one object first, after the number of its slot: where there are as many objects as workers, each writes to its own, and none waits
//! for another in the kernel.
//!
//! Readers trust nothing: a chain is walked once into a private list, with bounds, fill and length checked on the way (I6).

mod chain;

pub use chain::{Chain, OwnedChain, Piece};

use crate::error::{Error, Result};
use crate::inject::{self, Point};
use crate::planted;
use crate::segment::{ArenaPlace, MAX_BESIDE, Segment};
use crate::sync::{AtomicU64, Ordering};
use crate::toc::Area;
use crate::words::{self, BadWord, Chunk, Owner};
use std::collections::BTreeSet;
use std::sync::Arc;

const WORDS: usize = (MAX_BESIDE + 1) * 8;
const NO_NEXT: u32 = u32::MAX;
/// Head of a result that has no bytes: no chunk belongs to it.
pub const NOTHING: u32 = NO_NEXT;

/// Chunks that may be used again, by their numbers: asked for one after the other as long as they are wanted.
pub type Spent<'a> = &'a mut dyn Iterator<Item = u32>;

/// This process's view of the arena.
#[derive(Clone)]
pub struct Arena {
    segment: Arc<Segment>,
    at: usize,
    place: ArenaPlace,
    /// So many chunks, the first ones, may be used twice.
    twice: usize,
}

impl Arena {
    /// Bytes that the arena takes in the table of contents' area, `twice` of its chunks being for two uses.
    pub const fn estimate(chunks: usize, twice: usize) -> usize {
        WORDS + (chunks + twice) * 16
    }

    /// Uses the arena's words in `area`, which is of the estimated size. Zeroed memory is free chunks, so this also creates them.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] when the area is too small for the chunks that the header states.
    pub fn attach(segment: &Arc<Segment>, area: Area) -> Result<Self> {
        let place = segment.arena_place()?;
        let needed = Self::estimate(place.chunks, 0);
        let dealt = place.beside <= MAX_BESIDE;
        if !dealt
            || area.len < needed
            || 2 * place.chunks >= NO_NEXT as usize
            || place.chunk_bytes > u32::MAX as usize
        {
            let (offset, limit) = (area.offset as u64, (area.offset + area.len) as u64);
            return Err(Error::OutOfBounds {
                name: segment.name().into(),
                offset,
                len: needed as u64,
                limit,
            });
        }
        let twice = ((area.len - needed) / 16).min(place.chunks);
        Ok(Self { segment: Arc::clone(segment), at: area.offset, place, twice })
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
        self.segment.map().word(self.at + WORDS + (self.uses() + self.checked(chunk)?) * 8)
    }

    /// Numbers of chunks and of their second uses are below this.
    fn uses(&self) -> usize {
        self.place.chunks + self.twice
    }

    fn checked(&self, chunk: u32) -> Result<usize> {
        if (chunk as usize) < self.uses() {
            return Ok(chunk as usize);
        }
        Err(self.damaged("chunk number", format!("less than {}", self.uses()), chunk.to_string()))
    }

    /// The number of a chunk's second use, if it has one.
    pub fn again(&self, chunk: u32) -> Option<u32> {
        ((chunk as usize) < self.twice).then_some(chunk + self.place.chunks as u32)
    }

    /// Numbers under which a chunk may be in use: of first uses all, of second ones those of chunks that were handed out.
    fn numbers(&self) -> Result<std::ops::Range<u32>> {
        let mut rows = 0;
        for object in 0..self.place.objects() {
            rows = rows.max(self.hint(object)?.load(Ordering::Relaxed));
        }
        let handed_out = rows.saturating_mul(self.place.objects() as u64);
        Ok(0..(self.place.chunks as u64 + handed_out.min(self.twice as u64)) as u32)
    }

    /// The row of an object at which a free chunk is looked for next.
    fn hint(&self, object: usize) -> Result<&AtomicU64> {
        self.segment.map().word(self.at + object * 8)
    }

    fn damaged(&self, what: &'static str, expected: String, found: String) -> Error {
        Error::Damaged { name: self.segment.name().into(), what, expected, found }
    }

    fn bad(&self, source: BadWord) -> Error {
        Error::Word { name: self.segment.name().into(), source }
    }

    /// What a chunk's word says: of its first use, or of its second.
    ///
    /// # Errors
    /// [`Error::Word`] when it is damaged; [`Error::Damaged`] for a chunk that there is not.
    pub fn look(&self, chunk: u32) -> Result<Chunk> {
        Chunk::unpack(self.word(chunk)?.load(Ordering::Acquire)).map_err(|e| self.bad(e))
    }

    /// Where a chunk's bytes are, by the number of either use.
    fn offset(&self, chunk: u32) -> usize {
        let chunk = chunk as usize;
        self.place.offset_of(chunk.checked_sub(self.place.chunks).unwrap_or(chunk))
    }

    /// Allocates `count` chunks for `owner`, or none at all; those that `spent` names are used again first.
    ///
    /// # Errors
    /// [`Error::ArenaFull`] naming how many were wanted and how many could be had.
    fn allocate(&self, owner: Owner, count: usize, spent: Spent<'_>) -> Result<OwnedChain> {
        let mut chain = OwnedChain { chunks: Vec::with_capacity(count.min(self.place.chunks)) };
        while chain.chunks.len() < count
            && let Some(chunk) = spent.next()
        {
            let before = chain.chunks.len();
            if let Some(again) = self.again(chunk) {
                self.try_one(again, owner, &mut chain)?;
            }
            if chain.chunks.len() > before {
                inject::at(Point::ChunkAgain)?;
            }
        }
        let objects = self.place.objects();
        for object in (0..objects).map(|i| (usize::from(owner.slot) + i) % objects) {
            self.take_new(object, owner, count, &mut chain)?;
        }
        // Past the hints' ends there may be chunks that came back.
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

    /// Adds chunks of one object that nobody had yet, until there are `count` or no more.
    fn take_new(&self, object: usize, owner: Owner, count: usize, chain: &mut OwnedChain) -> Result<()> {
        let hint = self.hint(object)?;
        while chain.chunks.len() < count {
            let row = hint.fetch_add(1, Ordering::Relaxed);
            let chunk = row.saturating_mul(self.place.objects() as u64).saturating_add(object as u64);
            if chunk >= self.place.chunks as u64 {
                break;
            }
            self.try_one(chunk as u32, owner, chain)?;
        }
        Ok(())
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
        self.store_over(owner, bytes, &mut std::iter::empty())
    }

    /// The same, in the chunks that `spent` names as far as they go: of chains that a DONE word reaches, and whose bytes nobody will read any more.
    ///
    /// # Errors
    /// As [`Arena::store`].
    pub fn store_over(&self, owner: Owner, bytes: &[u8], spent: Spent<'_>) -> Result<OwnedChain> {
        let mut chain = OwnedChain::default();
        match self.add(owner, &mut chain, bytes, spent) {
            Ok(()) => Ok(chain),
            Err(e) => {
                self.free(chain)?;
                Err(e)
            }
        }
    }

    /// Begins a chain that [`Arena::append`] fills piece by piece.
    pub fn begin(&self) -> OwnedChain {
        OwnedChain::default()
    }

    /// Appends `bytes` to a chain that is not committed yet, in chunks of their own. On an error the chain is as long as before, and its
    /// owner frees it.
    ///
    /// # Errors
    /// As [`Arena::store`].
    pub fn append(&self, owner: Owner, chain: &mut OwnedChain, bytes: &[u8]) -> Result<()> {
        self.add(owner, chain, bytes, &mut std::iter::empty())
    }

    fn add(&self, owner: Owner, chain: &mut OwnedChain, bytes: &[u8], spent: Spent<'_>) -> Result<()> {
        let pieces = bytes.len().div_ceil(self.place.chunk_bytes).max(1);
        let more = self.allocate(owner, pieces, spent)?;
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
        let mut chain = Chain::default();
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
            if chain.chunks().len() >= self.place.chunks {
                let expected = format!("at most {} chunks", self.place.chunks);
                return Err(self.damaged("chain", expected, "a circle".into()));
            }
            chain.push(chunk, used);
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
        for piece in chain.pieces(offset, len as u64) {
            self.segment.map().read_to_vec(self.offset(piece.chunk) + piece.from, piece.len, into)?;
        }
        Ok(())
    }

    /// Asks for the first of `len` bytes at `offset` of a chain, which are to be read soon: as many as lie in one chunk, and no more than a core keeps on
    /// its way at a time.
    pub fn prefetch(&self, chain: &Chain, offset: u64, len: usize) {
        const MOST: usize = 2048;
        if let Some(piece) = chain.pieces(offset, len.min(MOST) as u64).next() {
            self.segment.map().prefetch(self.offset(piece.chunk) + piece.from, piece.len);
        }
    }

    /// Frees every chunk of `dead` that no chain in `reachable` holds. For the confirmed dead only (I5); returns how many.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn sweep(&self, dead: Owner, reachable: &[Chain]) -> Result<usize> {
        let mut kept: Vec<u32> = reachable.iter().flat_map(|c| c.chunks().iter().copied()).collect();
        kept.sort_unstable();
        if planted::is("sweep-frees-published") {
            kept.clear();
        }
        let mut freed = 0;
        for chunk in self.numbers()? {
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
        for chunk in self.numbers()? {
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
        self.numbers()?.try_fold(0, |n, chunk| {
            let state = Chunk::unpack(self.word(chunk)?.load(Ordering::Acquire)).map_err(|e| self.bad(e))?;
            Ok(n + usize::from(matches!(state, Chunk::Owned { .. })))
        })
    }
}

#[cfg(test)]
mod tests;
