//! What the model knows of a stream, and what must hold of it.

use shm_layout::words::{Chunk, Owner, Task};

/// Words of parcels and of units: two with text, and the end.
pub(crate) const PARCELS: usize = 3;
pub(crate) const TEXTS: usize = 2;
pub(crate) const CHUNKS: usize = 2;
/// The feeder is in the slot behind the workers'.
pub(crate) const FEEDER: usize = 2;
/// A word that leads nowhere.
pub(crate) const NOTHING: u32 = u32::MAX;
/// What a unit's word leads to: this and the parcel that it copied; nothing for the end.
pub(crate) const RESULT: u32 = 100;
pub(crate) const LIMIT: u8 = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// A worker does not look at the parcel's word again behind its copy.
    NoSecondLook,
    /// A parcel's chunk is freed, and only then does its word lead nowhere.
    FreeThenConsume,
    /// A parcel is used up as soon as its unit is claimed.
    ConsumeOnClaim,
    /// All chunks of a dead feeder are freed, also what a parcel's word reaches.
    SweepAll,
    /// The next feeder goes on behind what the dead one had claimed.
    SkipClaimed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pc {
    /// Not started, or its death is confirmed.
    Gone,
    /// Died, and nobody has seen it.
    Killed,
    Idle,
    /// Has a parcel, or a unit.
    Claimed,
    /// Has a chunk as well; a worker: has seen the word.
    Held,
    /// Has written it; a worker: has copied it.
    Written,
    /// The word leads nowhere, the chunk is to be freed; a worker: the word is the same still.
    Checked,
    /// Its commit was refused: gives its chunk back.
    Refused,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pc: Pc,
    pub(crate) generation: u8,
    /// Its claim was taken back by a leader that believes it dead, and it may claim nothing more.
    pub(crate) fenced: bool,
    pub(crate) task: u8,
    pub(crate) attempts: u8,
    /// A chunk, and what was read of it.
    pub(crate) chunk: u8,
    pub(crate) read: u8,
    /// A feeder: the next parcel to make, and the chunks of those that it made.
    pub(crate) next: u8,
    pub(crate) fed: [u8; TEXTS],
}

pub(crate) const NONE: u8 = 255;
/// Bytes of a chunk that is free.
pub(crate) const FREED: u8 = 254;
pub(crate) const ABSENT: Process = Process {
    pc: Pc::Gone,
    generation: 0,
    fenced: false,
    task: NONE,
    attempts: 0,
    chunk: NONE,
    read: NONE,
    next: 0,
    fed: [NONE; TEXTS],
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) parcels: [u64; PARCELS],
    pub(crate) units: [u64; PARCELS],
    pub(crate) chunks: [u64; CHUNKS],
    pub(crate) data: [u8; CHUNKS],
    pub(crate) processes: [Process; FEEDER + 1],
    pub(crate) kills: u8,
    pub(crate) suspicions: u8,
}

pub(crate) struct Scope {
    pub(crate) workers: usize,
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
        let free = Task::Free { attempts: 0 }.pack();
        let begun = Process { pc: Pc::Idle, generation: 1, ..ABSENT };
        let mut processes = [ABSENT; FEEDER + 1];
        processes[..scope.workers].fill(begun);
        processes[FEEDER] = begun;
        Self {
            parcels: [free; PARCELS],
            units: [free; PARCELS],
            chunks: [Chunk::Free { seq: 0 }.pack(); CHUNKS],
            data: [FREED; CHUNKS],
            processes,
            kills: scope.kills,
            suspicions: scope.suspicions,
        }
    }

    pub(crate) fn owner(&self, slot: usize) -> Owner {
        Owner { slot: slot as u16, generation: self.processes[slot].generation.into() }
    }

    pub(crate) fn claimed(&self, slot: usize) -> u64 {
        Task::Claimed { owner: self.owner(slot), attempts: self.processes[slot].attempts }.pack()
    }

    /// Whether a parcel's word leads to the chunk.
    pub(crate) fn is_reached(&self, at: usize) -> bool {
        self.parcels.iter().any(|word| matches!(task(*word), Task::Done { head, .. } if head as usize == at))
    }

    pub(crate) fn is_done(&self, unit: usize) -> bool {
        matches!(task(self.units[unit]), Task::Done { .. })
    }

    pub(crate) fn with(&self, slot: usize, change: impl FnOnce(&mut Process)) -> Self {
        let mut next = *self;
        change(&mut next.processes[slot]);
        next
    }

    pub(crate) fn free(&mut self, at: usize) {
        self.chunks[at] = chunk(self.chunks[at]).released().pack();
        self.data[at] = FREED;
    }

    /// What must hold in every state.
    pub(crate) fn wrong(&self) -> Option<&'static str> {
        for (unit, word) in self.units.iter().enumerate() {
            let expected = if unit < TEXTS { RESULT + unit as u32 } else { NOTHING };
            if matches!(task(*word), Task::Done { head, .. } if head != expected) {
                return Some("a unit with other text than its parcel's");
            }
        }
        for worker in &self.processes[..FEEDER] {
            if worker.pc == Pc::Checked && worker.read != NONE && worker.read != worker.task {
                return Some("a worker that takes other bytes for its parcel's");
            }
        }
        for (parcel, word) in self.parcels.iter().enumerate() {
            let Task::Done { head, .. } = task(*word) else { continue };
            if head == NOTHING {
                if parcel < TEXTS && !self.is_done(parcel) {
                    return Some("a parcel that is gone before its unit is done");
                }
                continue;
            }
            let at = head as usize;
            if !matches!(chunk(self.chunks[at]), Chunk::Owned { .. }) || self.data[at] != parcel as u8 {
                return Some("a parcel whose chunk is not its own");
            }
        }
        None
    }

    /// What must hold when nobody can do anything more.
    pub(crate) fn wrong_at_end(&self) -> Option<&'static str> {
        if !(0..PARCELS).all(|unit| self.is_done(unit)) {
            return Some("stuck");
        }
        let leaks = (0..CHUNKS)
            .any(|at| matches!(chunk(self.chunks[at]), Chunk::Owned { .. }) && !self.is_reached(at));
        leaks.then_some("a chunk that nothing reaches")
    }
}
