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
//! The pure `pack`/`unpack` functions are shared with the explicit-state model in `tests/model.rs`; the atomic operations below them
//! are what loom runs. Orderings: a claim acquires, a publication releases, a look acquires. Their partners are named at each place.

use crate::sync::{AtomicU64, Ordering};

/// Slots a segment can have; a slot number is below it.
pub const MAX_SLOTS: u16 = 1 << 12;
/// Generations a slot can have; a generation is below it and starts at 1.
pub const MAX_GENERATION: u32 = 1 << 20;
/// The highest attempt count that a task word can carry.
pub const MAX_ATTEMPTS: u8 = 63;
/// Sequence numbers a chunk can have.
pub const MAX_SEQ: u32 = 1 << 31;
/// The bit of a CLAIMED task that is part of a bundle.
const BUNDLED: u64 = 1 << 8;
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

/// What a task word says of its unit or stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Nobody has it.
    Free {
        /// Owners that died on it.
        attempts: u8,
    },
    /// `owner` is at work on it; nothing that it wrote exists yet for others (I3).
    Claimed {
        /// Who has it.
        owner: Owner,
        /// Owners that died on it before.
        attempts: u8,
    },
    /// It is part of bundle `bundle`, whose word says how it stands. Of a bundle that is DONE: so is the task, in its result.
    Bundled {
        /// Which bundle.
        bundle: u32,
        /// Owners that died on it before.
        attempts: u8,
    },
    /// Its result is the chain of chunks that starts at `head`, immutable from now on (I4).
    Done {
        /// First chunk of the result.
        head: u32,
        /// Owners that died on it before.
        attempts: u8,
    },
    /// It killed its owner too often and is given up.
    Poison {
        /// Owners that died on it.
        attempts: u8,
    },
}

impl Task {
    /// The task as its word.
    pub const fn pack(self) -> u64 {
        let (state, attempts, payload) = match self {
            Self::Free { attempts } => (0, attempts, 0),
            Self::Claimed { owner, attempts } => (1, attempts, owner.pack()),
            Self::Bundled { bundle, attempts } => (1 | BUNDLED, attempts, bundle),
            Self::Done { head, attempts } => (2, attempts, head),
            Self::Poison { attempts } => (3, attempts, 0),
        };
        assert!(attempts <= MAX_ATTEMPTS);
        state | (attempts as u64) << 2 | (payload as u64) << 32
    }

    /// The task from its word.
    ///
    /// # Errors
    /// [`BadWord`] when bits are set that no task has.
    pub const fn unpack(bits: u64) -> Result<Self, BadWord> {
        let (attempts, payload) = ((bits >> 2 & 63) as u8, (bits >> 32) as u32);
        let task = match bits & 3 {
            0 => Self::Free { attempts },
            1 if bits & BUNDLED > 0 => Self::Bundled { bundle: payload, attempts },
            1 => Self::Claimed { owner: Owner::unpack(payload), attempts },
            2 => Self::Done { head: payload, attempts },
            _ => Self::Poison { attempts },
        };
        if task.pack() == bits { Ok(task) } else { Err(BadWord { kind: "task", bits }) }
    }

    /// What the task becomes when its owner is gone: free with one attempt more, or poison when `max_attempts` have died on it.
    /// `None` when `dead` does not own it.
    pub const fn after_death(self, dead: Owner, max_attempts: u8) -> Option<Self> {
        match self {
            Self::Claimed { owner, attempts } if owner.pack() == dead.pack() => {
                let attempts = one_more(attempts);
                if attempts >= max_attempts {
                    Some(Self::Poison { attempts })
                } else {
                    Some(Self::Free { attempts })
                }
            }
            _ => None,
        }
    }

    /// How a task stands whose bundle's word says `bundle`; itself if it is in none. `None` when no bundle is like that.
    ///
    /// | the bundle is | the task is |
    /// |---|---|
    /// | CLAIMED | claimed by its owner |
    /// | DONE | done with it: this task says so |
    /// | POISON, one attempt: its owner died | free, with one attempt more |
    /// | POISON, no attempt: it was abandoned | free |
    ///
    /// Who takes a task into a bundle leaves it an attempt after this one, see [`may_be_bundled`], so none is given up with others.
    pub const fn in_bundle(self, bundle: Self) -> Option<Self> {
        let Self::Bundled { attempts, .. } = self else { return Some(self) };
        match bundle {
            Self::Claimed { owner, .. } => Some(Self::Claimed { owner, attempts }),
            Self::Done { .. } => Some(self),
            Self::Poison { attempts: 0 } => Some(Self::Free { attempts }),
            Self::Poison { .. } => Some(Self::Free { attempts: one_more(attempts) }),
            Self::Free { .. } | Self::Bundled { .. } => None,
        }
    }

    /// True when nobody needs to work on it any more. Of a task in a bundle ask only what [`Task::in_bundle`] made of it.
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Done { .. } | Self::Poison { .. } | Self::Bundled { .. })
    }
}

/// An attempt more, as far as a word can tell.
const fn one_more(attempts: u8) -> u8 {
    if attempts < MAX_ATTEMPTS { attempts + 1 } else { attempts }
}

/// Whether a task on which so many died may be taken up together with others: not when it is given up after the next death. It is alone then, so
/// that the one that kills is found, and no other is blamed.
pub const fn may_be_bundled(attempts: u8, max_attempts: u8) -> bool {
    attempts.saturating_add(1) < max_attempts
}

/// What a chunk word says of its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chunk {
    /// Nobody has it.
    Free {
        /// Allocations so far.
        seq: u32,
    },
    /// `owner` allocated it. It is alive while a DONE task reaches it or its owner is not known to be dead.
    Owned {
        /// Who allocated it.
        owner: Owner,
        /// Allocations so far, this one included.
        seq: u32,
    },
}

impl Chunk {
    /// The chunk state as its word.
    pub const fn pack(self) -> u64 {
        let (state, seq, payload) = match self {
            Self::Free { seq } => (0, seq, 0),
            Self::Owned { owner, seq } => (1, seq, owner.pack()),
        };
        assert!(seq < MAX_SEQ);
        state | (seq as u64) << 1 | (payload as u64) << 32
    }

    /// The chunk state from its word.
    ///
    /// # Errors
    /// [`BadWord`] when bits are set that no chunk has.
    pub const fn unpack(bits: u64) -> Result<Self, BadWord> {
        let (seq, payload) = ((bits as u32) >> 1, (bits >> 32) as u32);
        let chunk = match bits & 1 {
            0 => Self::Free { seq },
            _ => Self::Owned { owner: Owner::unpack(payload), seq },
        };
        if chunk.pack() == bits { Ok(chunk) } else { Err(BadWord { kind: "chunk", bits }) }
    }

    /// What a free chunk becomes when `owner` allocates it; `None` when it is not free, or was allocated too often to count.
    pub const fn allocated(self, owner: Owner) -> Option<Self> {
        match self {
            Self::Free { seq } if seq + 1 < MAX_SEQ => Some(Self::Owned { owner, seq: seq + 1 }),
            _ => None,
        }
    }

    /// What an owned chunk becomes when it is given back.
    pub const fn released(self) -> Self {
        match self {
            Self::Free { seq } | Self::Owned { seq, .. } => Self::Free { seq },
        }
    }
}

/// States of a worker's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SlotState {
    /// No worker was started in this generation.
    Empty = 0,
    /// The leader is starting one.
    Starting = 1,
    /// The worker attached and works.
    Running = 2,
    /// The leader believes it dead or hung: it claims nothing new, and what it commits does not count.
    Fenced = 3,
    /// The worker ended in good order.
    Done = 4,
    /// The leader has seen its death.
    Dead = 5,
}

/// What a slot word says: the slot's generation and the state of that generation's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// State of the worker.
    pub state: SlotState,
    /// Workers started in this slot so far; 0 before the first.
    pub generation: u32,
}

impl Slot {
    /// The slot as its word.
    pub const fn pack(self) -> u64 {
        assert!(self.generation < MAX_GENERATION);
        self.state as u64 | (self.generation as u64) << 3
    }

    /// The slot from its word.
    ///
    /// # Errors
    /// [`BadWord`] when bits are set that no slot has.
    pub const fn unpack(bits: u64) -> Result<Self, BadWord> {
        let state = match bits & 7 {
            0 => SlotState::Empty,
            1 => SlotState::Starting,
            2 => SlotState::Running,
            3 => SlotState::Fenced,
            4 => SlotState::Done,
            5 => SlotState::Dead,
            _ => return Err(BadWord { kind: "slot", bits }),
        };
        if bits >> 23 != 0 {
            return Err(BadWord { kind: "slot", bits });
        }
        Ok(Self { state, generation: (bits >> 3) as u32 })
    }
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner() -> impl Strategy<Value = Owner> {
        (0..MAX_SLOTS, 0..MAX_GENERATION).prop_map(|(slot, generation)| Owner { slot, generation })
    }

    fn task() -> impl Strategy<Value = Task> {
        let attempts = 0..=MAX_ATTEMPTS;
        prop_oneof![
            attempts.clone().prop_map(|attempts| Task::Free { attempts }),
            (owner(), attempts.clone()).prop_map(|(owner, attempts)| Task::Claimed { owner, attempts }),
            (any::<u32>(), attempts.clone()).prop_map(|(head, attempts)| Task::Done { head, attempts }),
            (any::<u32>(), attempts.clone())
                .prop_map(|(bundle, attempts)| Task::Bundled { bundle, attempts }),
            attempts.prop_map(|attempts| Task::Poison { attempts }),
        ]
    }

    proptest! {
        #[test]
        fn every_task_survives_its_word(task in task()) {
            prop_assert_eq!(Task::unpack(task.pack()), Ok(task));
        }

        #[test]
        fn a_word_that_decodes_encodes_to_itself(bits in any::<u64>()) {
            if let Ok(task) = Task::unpack(bits) { prop_assert_eq!(task.pack(), bits); }
            if let Ok(chunk) = Chunk::unpack(bits) { prop_assert_eq!(chunk.pack(), bits); }
            if let Ok(slot) = Slot::unpack(bits) { prop_assert_eq!(slot.pack(), bits); }
        }

        #[test]
        fn recovery_touches_only_the_dead(task in task(), dead in owner(), limit in 1..MAX_ATTEMPTS) {
            let word = AtomicU64::new(task.pack());
            let changed = recover(&word, dead, limit).unwrap();
            let now = look(&word).unwrap();
            match task {
                Task::Claimed { owner, .. } if owner == dead => prop_assert_eq!(changed, Some(now)),
                _ => { prop_assert_eq!(changed, None); prop_assert_eq!(now, task); }
            }
            prop_assert_eq!(recover(&word, dead, limit).unwrap(), None, "a second recovery changes nothing");
        }
    }

    const A: Owner = Owner { slot: 1, generation: 1 };
    const B: Owner = Owner { slot: 2, generation: 7 };

    #[test]
    fn a_claim_excludes_others_and_a_commit_ends_it() {
        let word = AtomicU64::new(Task::Free { attempts: 0 }.pack());
        let mine = claim(&word, A).unwrap().expect("free");
        assert_eq!(claim(&word, B), Ok(None));
        commit(&word, mine, 9).expect("still mine");
        assert_eq!(look(&word), Ok(Task::Done { head: 9, attempts: 0 }));
        assert_eq!(commit(&word, mine, 10), Err(Fenced), "a second commit must not replace the first");
    }

    #[test]
    fn a_zombie_cannot_commit_what_was_taken_from_it() {
        let word = AtomicU64::new(Task::Free { attempts: 0 }.pack());
        let zombie = claim(&word, A).unwrap().expect("free");
        assert_eq!(recover(&word, A, 3), Ok(Some(Task::Free { attempts: 1 })));
        assert_eq!(commit(&word, zombie, 4), Err(Fenced));
        let again = claim(&word, A).unwrap().expect("free again");
        assert_eq!(
            commit(&word, zombie, 4),
            Err(Fenced),
            "the attempt count tells the two claims of one owner apart"
        );
        commit(&word, again, 5).expect("mine");
    }

    #[test]
    fn poison_after_the_last_attempt() {
        let word = AtomicU64::new(Task::Free { attempts: 2 }.pack());
        let _claim = claim(&word, A).unwrap().expect("free");
        assert_eq!(recover(&word, A, 3), Ok(Some(Task::Poison { attempts: 3 })));
        assert_eq!(claim(&word, B), Ok(None));
    }

    #[test]
    fn one_word_decides_over_all_tasks_of_a_bundle() {
        let bundle = AtomicU64::new(Task::Free { attempts: 0 }.pack());
        let words = [0, 1].map(|attempts| AtomicU64::new(Task::Free { attempts }.pack()));
        let stand = |word: &AtomicU64| look(word).unwrap().in_bundle(look(&bundle).unwrap());
        let claim = claim(&bundle, A).unwrap().expect("free");
        for (word, attempts) in words.iter().zip([0, 1]) {
            assert!(bundle_seen(word, Task::Free { attempts }, 7, attempts));
            assert!(!bundle_seen(word, Task::Free { attempts }, 8, attempts), "taken");
            assert_eq!(super::claim(word, B), Ok(None), "by itself it is nobody's to claim");
            assert_eq!(stand(word), Some(Task::Claimed { owner: A, attempts }));
        }
        commit(&bundle, claim, 5).expect("mine");
        for (word, attempts) in words.iter().zip([0, 1]) {
            assert_eq!(stand(word), Some(Task::Bundled { bundle: 7, attempts }), "done with it");
        }
    }

    #[test]
    fn what_a_bundle_had_is_free_when_its_owner_died_or_gave_up() {
        for died in [true, false] {
            let bundle = AtomicU64::new(Task::Free { attempts: 0 }.pack());
            let word = AtomicU64::new(Task::Free { attempts: 1 }.pack());
            let zombie = claim(&bundle, A).unwrap().expect("free");
            assert!(bundle_seen(&word, Task::Free { attempts: 1 }, 7, 1));
            if died {
                recover(&bundle, A, 1).unwrap();
            } else {
                assert_eq!(abandon_of(&bundle, A), Ok(true));
                assert_eq!(abandon_of(&bundle, A), Ok(false));
            }
            abandon(&bundle, zombie);
            let seen = look(&word).unwrap();
            let attempts = 1 + u8::from(died);
            assert_eq!(seen.in_bundle(look(&bundle).unwrap()), Some(Task::Free { attempts }));
            assert!(!bundle_seen(&word, seen, 7, attempts), "its owner does not find it free once more");
            let claim = claim_seen(&word, seen, B, attempts).expect("free");
            assert_eq!(commit(&bundle, zombie, 4), Err(Fenced), "nor does it come back");
            assert_eq!(super::claim(&bundle, B), Ok(None), "nobody uses a bundle twice");
            commit(&word, claim, 9).expect("mine");
        }
        assert_eq!(
            [(0, 1), (0, 2), (1, 2), (1, 3), (255, 255)].map(|(n, most)| may_be_bundled(n, most)),
            [false, true, false, true, false]
        );
    }

    #[test]
    fn a_chunk_released_late_is_not_taken_from_its_next_life() {
        let word = AtomicU64::new(Chunk::Free { seq: 0 }.pack());
        let first = allocate(&word, A).unwrap().expect("free");
        assert!(release(&word, first));
        let second = allocate(&word, A).unwrap().expect("free");
        assert!(!release(&word, first), "same owner, other sequence number");
        assert!(release(&word, second));
    }

    #[test]
    fn a_chunk_allocated_too_often_is_never_handed_out() {
        let word = AtomicU64::new(Chunk::Free { seq: MAX_SEQ - 1 }.pack());
        assert_eq!(allocate(&word, A), Ok(None));
    }
}
