//! What the model knows of a drain, and what must hold of it.

use shm_layout::words::{Chunk, Owner, Task};

pub(crate) const STRIPES: usize = 3;
/// Memory of chunks: two with records, two that are free.
pub(crate) const CHUNKS: usize = 4;
/// Uses that can be allocated: of the two free chunks the first, of the others the second.
pub(crate) const USES: usize = 4;
/// The memory behind each use.
pub(crate) const MEMORY_OF: [usize; USES] = [2, 3, 0, 1];
/// Which chunk holds a stripe's records.
pub(crate) const RECORDS_OF: [usize; STRIPES] = [0, 0, 1];
pub(crate) const WORKERS: usize = 2;
pub(crate) const LIMIT: u8 = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// A chunk counts as spent when one stripe of it is DONE.
    SpentByOne,
    /// A stripe counts as done when it is claimed.
    SpentByClaim,
    /// A second use has no word: whoever finds a chunk spent writes into it.
    NoWord,
    /// Second uses of the dead are freed, also what a stripe's word reaches.
    SweepAll,
    /// A stripe is published by a plain store.
    PlainCommit,
    /// What a worker finds wrong is the run's error, whatever its slot says.
    NoFenceLook,
}

/// What is in a chunk's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Data {
    Nothing,
    Records,
    TableOf(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pc {
    /// Not started, or its death is confirmed.
    Gone,
    /// Died, and nobody has seen it.
    Killed,
    Idle,
    Claimed,
    /// Has copied its records.
    Counted,
    /// Has a chunk as well.
    Held,
    /// Has written its table.
    Written,
    /// Its commit was refused: gives its chunk back.
    Refused,
    /// What it copied were no records of its stripe.
    Erred,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pc: Pc,
    pub(crate) generation: u8,
    /// Its claim was taken back by a leader that believes it dead, and it may claim nothing more.
    pub(crate) fenced: bool,
    pub(crate) stripe: u8,
    pub(crate) attempts: u8,
    /// The use that it allocated.
    pub(crate) held: u8,
}

pub(crate) const NONE: u8 = 255;
pub(crate) const ABSENT: Process =
    Process { pc: Pc::Gone, generation: 0, fenced: false, stripe: NONE, attempts: 0, held: NONE };

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) stripes: [u64; STRIPES],
    pub(crate) uses: [u64; USES],
    pub(crate) memory: [Data; CHUNKS],
    pub(crate) workers: [Process; WORKERS],
    pub(crate) kills: u8,
    pub(crate) suspicions: u8,
    /// A worker that was fenced has made its error the run's.
    pub(crate) is_wrongly_over: bool,
}

pub(crate) struct Scope {
    pub(crate) kills: u8,
    pub(crate) suspicions: u8,
    pub(crate) bug: Bug,
}

pub(crate) type Step = (&'static str, usize, State);

pub(crate) fn task(word: u64) -> Task {
    Task::unpack(word).expect("a word of the protocol")
}

pub(crate) fn chunk(word: u64) -> Chunk {
    Chunk::unpack(word).expect("a word of the protocol")
}

impl State {
    pub(crate) fn new(scope: &Scope) -> Self {
        Self {
            stripes: [Task::Free { attempts: 0 }.pack(); STRIPES],
            uses: [Chunk::Free { seq: 0 }.pack(); USES],
            memory: [Data::Records, Data::Records, Data::Nothing, Data::Nothing],
            workers: [Process { pc: Pc::Idle, generation: 1, ..ABSENT }; WORKERS],
            kills: scope.kills,
            suspicions: scope.suspicions,
            is_wrongly_over: false,
        }
    }

    pub(crate) fn owner(&self, slot: usize) -> Owner {
        Owner { slot: slot as u16, generation: self.workers[slot].generation.into() }
    }

    pub(crate) fn claimed(&self, slot: usize) -> u64 {
        Task::Claimed { owner: self.owner(slot), attempts: self.workers[slot].attempts }.pack()
    }

    /// Whether a stripe's word leads to the use.
    pub(crate) fn is_reached(&self, at: usize) -> bool {
        self.stripes.iter().any(|word| matches!(task(*word), Task::Done { head, .. } if head as usize == at))
    }

    pub(crate) fn is_done(&self, stripe: usize) -> bool {
        matches!(task(self.stripes[stripe]), Task::Done { .. })
    }

    /// Whether the records in a chunk count as spent.
    pub(crate) fn is_spent(&self, scope: &Scope, memory: usize) -> bool {
        let mut stripes = (0..STRIPES).filter(|stripe| RECORDS_OF[*stripe] == memory);
        let is_over = |stripe: usize| {
            let claimed = matches!(task(self.stripes[stripe]), Task::Claimed { .. });
            self.is_done(stripe) || claimed && scope.bug == Bug::SpentByClaim
        };
        if scope.bug == Bug::SpentByOne { stripes.any(is_over) } else { stripes.all(is_over) }
    }

    pub(crate) fn with(&self, slot: usize, change: impl FnOnce(&mut Process)) -> Self {
        let mut next = *self;
        change(&mut next.workers[slot]);
        next
    }

    /// Frees a use; the memory is given back to the system.
    pub(crate) fn free(&mut self, at: usize) {
        self.uses[at] = chunk(self.uses[at]).released().pack();
        self.memory[MEMORY_OF[at]] = Data::Nothing;
    }

    /// What must hold in every state.
    pub(crate) fn wrong(&self) -> Option<&'static str> {
        for (stripe, word) in self.stripes.iter().enumerate() {
            match task(*word) {
                Task::Done { head, .. } => {
                    let (at, table) = (head as usize, Data::TableOf(stripe as u8));
                    let is_owned = matches!(chunk(self.uses[at]), Chunk::Owned { .. });
                    if !is_owned || self.memory[MEMORY_OF[at]] != table {
                        return Some("a table that is not in its chunk");
                    }
                }
                _ if self.memory[RECORDS_OF[stripe]] != Data::Records => {
                    return Some("records that are gone before they are counted");
                }
                _ => {}
            }
        }
        self.is_wrongly_over.then_some("an error of the run that is none")
    }

    /// What must hold when nobody can do anything more.
    pub(crate) fn wrong_at_end(&self) -> Option<&'static str> {
        if !(0..STRIPES).all(|stripe| self.is_done(stripe)) {
            return Some("stuck");
        }
        let is_leaked =
            |at: usize| matches!(chunk(self.uses[at]), Chunk::Owned { .. }) && !self.is_reached(at);
        (0..USES).any(is_leaked).then_some("a chunk that nothing reaches")
    }
}
