//! What words say, and how that is packed into their bits: nothing here touches memory.

use super::{BadWord, MAX_ATTEMPTS, MAX_GENERATION, MAX_SEQ, Owner};

/// The bit of a CLAIMED task that is part of a bundle.
const BUNDLED: u64 = 1 << 8;

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
