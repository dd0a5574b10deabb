//! The words of the protocol: how a fact is packed into 64 bits, and the only ways in which it may change.
//!
//! One naturally aligned 64-bit word carries a whole fact (who owns this unit, where its result is), so a process that is killed
//! between any two instructions leaves either the old fact or the new one. Three kinds of words exist:
//!
//! ```text
//! task word (a unit of blocks, or a stripe)      chunk word (a piece of the arena)
//!   0..2   state: 0 FREE 1 CLAIMED 2 DONE 3 POISON  0      state: 0 FREE 1 OWNED
//!   2..8   attempts that died, 0..=63               1..32  sequence number, + 1 at every allocation
//!   8      CLAIMED, as part of a bundle             32..64 owner (zero when FREE)
//!   9..32  zero
//!   32..64 owner or bundle (CLAIMED), or head
//!          chunk (DONE)
//!
//! slot word (a place for a worker)               owner, 32 bits
//!   0..3   state                                    0..20  generation
//!   3..23  generation                               20..32 slot
//!   23..64 zero
//! ```
//!
//! A *bundle* is claims on several tasks that are committed, or lost, at once: their words name the bundle, and the bundle's own word, another
//! task word, says how they stand ([`Task::in_bundle`]). A bundle is used once, so what its word has come to stays so. In PostgreSQL a tuple names its transaction likewise, and two
//! bits in `pg_xact` decide over all tuples of it: there is nothing to undo when it aborts.
//!
//! Promises: every transition is one compare-and-swap from an exact old value (I2), so it may be tried by anybody, any number of
//! times, and by two processes at once (I5). A word with bits that this module never writes does not decode ([`BadWord`]).
//!
//! Not here: which words there are, where they lie, and who may call what; see [`crate::tasks`], [`crate::arena`], [`crate::slots`].
//!
//! The pure `pack`/`unpack` functions, in `facts.rs`, are shared with the explicit-state model in `tests/model.rs`; the atomic operations below them
//! are what loom runs. Orderings: a claim acquires, a publication releases, a look acquires. Their partners are named at each place.

mod facts;

pub use facts::{Chunk, Slot, SlotState, Task, may_be_bundled};

use crate::sync::{AtomicU64, Ordering};

/// Slots a segment can have; a slot number is below it.
pub const MAX_SLOTS: u16 = 1 << 12;
/// Generations a slot can have; a generation is below it and starts at 1.
pub const MAX_GENERATION: u32 = 1 << 20;
/// The highest attempt count that a task word can carry.
pub const MAX_ATTEMPTS: u8 = 63;
/// Sequence numbers a chunk can have.
pub const MAX_SEQ: u32 = 1 << 31;
/// A bundle that came to nothing, without a death.
const ABANDONED: u64 = Task::Poison { attempts: 0 }.pack();

/// A worker's identity: a slot and how many workers were started in that slot. Never a process id, which the kernel reuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Slot number, below [`MAX_SLOTS`].
    pub slot: u16,
    /// Generation of the slot, from 1, below [`MAX_GENERATION`].
    pub generation: u32,
}

impl Owner {
    /// The owner as its 32 bits.
    pub const fn pack(self) -> u32 {
        assert!(self.slot < MAX_SLOTS && self.generation < MAX_GENERATION);
        (self.slot as u32) << 20 | self.generation
    }

    /// The owner from its 32 bits; every value decodes.
    pub const fn unpack(bits: u32) -> Self {
        Self { slot: (bits >> 20) as u16, generation: bits & (MAX_GENERATION - 1) }
    }
}

/// A word whose bits no transition writes: the segment is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} word: expected a state of the protocol, found {bits:#018x}")]
pub struct BadWord {
    /// "task", "chunk" or "slot".
    pub kind: &'static str,
    /// What was found.
    pub bits: u64,
}

/// The worker's claim on a task was taken away: it is believed dead and must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claim was taken away")]
pub struct Fenced;

/// A claim that succeeded. It is the exact word that a commit must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a claimed task stays claimed until it is committed or given back"]
pub struct Claim {
    owner: Owner,
    attempts: u8,
}

impl Claim {
    const fn word(self) -> u64 {
        Task::Claimed { owner: self.owner, attempts: self.attempts }.pack()
    }

    /// How many owners died on the task before.
    pub const fn attempts(self) -> u8 {
        self.attempts
    }
}

/// Reads a task word. Acquire: its partner is the commit in [`commit`], so what a DONE word reaches is visible to the reader.
///
/// # Errors
/// [`BadWord`] when the word is damaged.
pub fn look(word: &AtomicU64) -> Result<Task, BadWord> {
    Task::unpack(word.load(Ordering::Acquire))
}

/// Claims a free task for `owner`; `None` when it is not free (any more), or in a bundle.
///
/// # Errors
/// [`BadWord`] when the word is damaged.
pub fn claim(word: &AtomicU64, owner: Owner) -> Result<Option<Claim>, BadWord> {
    let seen = Task::unpack(word.load(Ordering::Relaxed))?;
    let Task::Free { attempts } = seen else { return Ok(None) };
    Ok(claim_seen(word, seen, owner, attempts))
}

/// Claims for `owner` a task whose word was `seen`, which is free with so many `attempts`; `None` when the word is another by now.
pub fn claim_seen(word: &AtomicU64, seen: Task, owner: Owner, attempts: u8) -> Option<Claim> {
    let claim = Claim { owner, attempts };
    // Acquire: partner is the Release in `recover` or `give_back`, which freed the word.
    let swap = word.compare_exchange(seen.pack(), claim.word(), Ordering::AcqRel, Ordering::Relaxed);
    swap.ok().map(|_| claim)
}

/// Takes a task whose word was `seen`, which is free with so many `attempts`, into bundle `bundle`, which the caller has claimed; false when the word is
/// another by now. Only the bundle's owner does this, and not once it has committed it. Also false where the task was in this very bundle: that has
/// ended, and one death is not counted on a task twice.
pub fn bundle_seen(word: &AtomicU64, seen: Task, bundle: u32, attempts: u8) -> bool {
    if matches!(seen, Task::Bundled { bundle: before, .. } if before == bundle) {
        return false;
    }
    let bundled = Task::Bundled { bundle, attempts }.pack();
    // Acquire: as in `claim_seen`.
    word.compare_exchange(seen.pack(), bundled, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Publishes the result of a claimed task: the one instruction after which it exists.
///
/// Release: everything that was written into the chunks from `head` on comes before it. Partner: [`look`].
///
/// # Errors
/// [`Fenced`] when the word is no longer this claim; the caller frees its chunks and stops.
pub fn commit(word: &AtomicU64, claim: Claim, head: u32) -> Result<(), Fenced> {
    let done = Task::Done { head, attempts: claim.attempts }.pack();
    let swap = word.compare_exchange(claim.word(), done, Ordering::AcqRel, Ordering::Relaxed);
    swap.map(drop).map_err(|_| Fenced)
}

/// Makes a done task whose chain begins at `head` lead to nothing; false when it does not lead there. Release: what was read of the chain
/// happened before.
///
/// # Errors
/// [`BadWord`].
pub fn consume(word: &AtomicU64, head: u32) -> Result<bool, BadWord> {
    let now = word.load(Ordering::Acquire);
    let Task::Done { head: found, attempts } = Task::unpack(now)? else { return Ok(false) };
    let used_up = Task::Done { head: u32::MAX, attempts }.pack();
    Ok(found == head && word.compare_exchange(now, used_up, Ordering::AcqRel, Ordering::Relaxed).is_ok())
}

/// Gives a claim back unfinished, without counting an attempt: the owner stops in good order.
pub fn give_back(word: &AtomicU64, claim: Claim) {
    let free = Task::Free { attempts: claim.attempts }.pack();
    let _ = word.compare_exchange(claim.word(), free, Ordering::AcqRel, Ordering::Relaxed);
}

/// Ends the claim on a bundle for good without counting an attempt on its tasks: they are free again, at once.
pub fn abandon(word: &AtomicU64, claim: Claim) {
    let _ = word.compare_exchange(claim.word(), ABANDONED, Ordering::AcqRel, Ordering::Relaxed);
}

/// The same for the bundle of an owner that died for a reason that has nothing to do with it. Idempotent; says whether this call changed the
/// word.
///
/// # Errors
/// [`BadWord`] when the word is damaged.
pub fn abandon_of(word: &AtomicU64, dead: Owner) -> Result<bool, BadWord> {
    let seen = word.load(Ordering::Acquire);
    let is_dead = matches!(Task::unpack(seen)?, Task::Claimed { owner, .. } if owner == dead);
    Ok(is_dead && word.compare_exchange(seen, ABANDONED, Ordering::AcqRel, Ordering::Relaxed).is_ok())
}

/// Takes a task away from an owner that is dead or believed to be. Idempotent; says what the task became, if this call changed it.
///
/// # Errors
/// [`BadWord`] when the word is damaged.
pub fn recover(word: &AtomicU64, dead: Owner, max_attempts: u8) -> Result<Option<Task>, BadWord> {
    let seen = word.load(Ordering::Acquire);
    let Some(next) = Task::unpack(seen)?.after_death(dead, max_attempts) else { return Ok(None) };
    let swap = word.compare_exchange(seen, next.pack(), Ordering::AcqRel, Ordering::Relaxed);
    Ok(swap.ok().map(|_| next))
}

/// Takes a task away from an owner that is dead for a reason that has nothing to do with the task: no attempt is counted. Idempotent; says
/// whether this call changed the word.
///
/// # Errors
/// [`BadWord`] when the word is damaged.
pub fn take_back(word: &AtomicU64, dead: Owner) -> Result<bool, BadWord> {
    let seen = word.load(Ordering::Acquire);
    let attempts = match Task::unpack(seen)? {
        Task::Claimed { owner, attempts } if owner == dead => attempts,
        _ => return Ok(false),
    };
    let free = Task::Free { attempts }.pack();
    Ok(word.compare_exchange(seen, free, Ordering::AcqRel, Ordering::Relaxed).is_ok())
}

/// An allocated chunk: the exact word that a release must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned(u64);

/// Allocates a free chunk for `owner`; `None` when it is not free (any more).
///
/// # Errors
/// [`BadWord`] when the word is damaged.
pub fn allocate(word: &AtomicU64, owner: Owner) -> Result<Option<Owned>, BadWord> {
    let seen = word.load(Ordering::Relaxed);
    let Some(next) = Chunk::unpack(seen)?.allocated(owner) else { return Ok(None) };
    // Acquire: partner is the Release in `release`; what the last owner wrote comes before what we write.
    let swap = word.compare_exchange(seen, next.pack(), Ordering::AcqRel, Ordering::Relaxed);
    Ok(swap.ok().map(|_| Owned(next.pack())))
}

/// Gives a chunk back. Does nothing when the word is not exactly `owned` any more.
pub fn release(word: &AtomicU64, owned: Owned) -> bool {
    let Ok(chunk) = Chunk::unpack(owned.0) else { return false };
    word.compare_exchange(owned.0, chunk.released().pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// The word of a chunk that belongs to `owner`, for a later [`release`]; `None` when it does not.
///
/// # Errors
/// [`BadWord`] when the word is damaged.
pub fn owned_by(word: &AtomicU64, owner: Owner) -> Result<Option<Owned>, BadWord> {
    let seen = word.load(Ordering::Acquire);
    Ok(match Chunk::unpack(seen)? {
        Chunk::Owned { owner: found, .. } if found == owner => Some(Owned(seen)),
        _ => None,
    })
}

/// Moves a slot word from `from` to `to`; says whether it was at `from`.
pub fn change_slot(word: &AtomicU64, from: Slot, to: Slot) -> bool {
    word.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

#[cfg(all(test, not(loom)))]
mod tests;
