//! The state of the model: the segment's words, the chunks' contents, and what each process knows by itself.
//!
//! The words are the real ones, packed and unpacked by `shm_layout::words`. A chunk's content is reduced to what it stands for
//! ([`Data`]); a chunk that is free has none, so whoever reads a recycled chunk is found out.
//!
//! Many states differ only in names; [`State::canonical`] picks one of them (see `canonical.rs`).

use shm_layout::words::{Chunk, Owner, Slot, SlotState, Task};

/// Most workers that a scope can ask for.
pub(crate) const MAX_WORKERS: usize = 3;
/// Most task words that a scope can ask for.
pub(crate) const MAX_TASKS: usize = 6;
/// Most chunks that a scope can ask for.
pub(crate) const MAX_CHUNKS: usize = 7;
/// Most chunks in the result of one task.
pub(crate) const MAX_CHAIN: usize = 2;
/// "No chunk", in a head or in a `next`.
pub(crate) const NONE: u8 = 15;

/// One bug of those that the search must find; see `docs/crash-safety.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The protocol as it is.
    None,
    /// A commit stores its word instead of swapping it for the claim.
    PlainCommit,
    /// A stripe is published without a look at who has claimed it.
    DrainUnchecked,
    /// Chunks are taken from a worker that is only believed dead.
    ReclaimOnSuspicion,
    /// What a chunk's owner reaches is looked up before its death is confirmed.
    ReachBeforeDeath,
    /// Chunk words carry no sequence number.
    NoSequence,
    /// Recovery stores the word that follows from what it read some time ago.
    StaleRecovery,
    /// The hint is advanced first, and the owner noted in the unit word after that.
    TwoStepClaim,
    /// The state and the head of a result are stored one after the other.
    TwoWordPublish,
    /// Units are given back as soon as one stripe is drained.
    FreeAfterFirstStripe,
    /// A worker is started in a slot under its predecessor's generation.
    SameGeneration,
    /// A stripe's table is filled in place instead of aside.
    DrainInPlace,
    /// A chunk is taken first and its owner noted after that.
    AllocateThenNote,
    /// "No unit is free" is taken for "all units are done".
    HintIsDone,
    /// After a pass, chunks are given back by what the units' words name, whoever owns them by now.
    RetireByHead,
}

/// The size of a search: how much work there is and what may go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// Workers at a time.
    pub(crate) workers: usize,
    /// Chunks of each unit's result; its length is the number of units.
    pub(crate) units: &'static [u8],
    /// Stripes of a pass.
    pub(crate) stripes: usize,
    /// Passes; the units' chunks are given back between two of them.
    pub(crate) passes: usize,
    /// Chunks of the arena.
    pub(crate) chunks: usize,
    /// Workers that may be killed.
    pub(crate) kills: u8,
    /// Workers that may wrongly be believed dead.
    pub(crate) suspicions: u8,
    /// Deaths after which a task is given up.
    pub(crate) max_attempts: u8,
    /// What is wrong with the protocol.
    pub(crate) bug: Bug,
    /// False: every state is kept as it is, to show that [`State::canonical`] hides nothing.
    pub(crate) reduce: bool,
}

/// Stands for every owner that is confirmed dead: whoever is dead stays dead, so one name will do for them all.
pub(crate) const THE_DEAD: Owner = Owner { slot: 9, generation: 0 };

impl Scope {
    /// Unit words, those of all passes.
    pub(crate) fn unit_words(&self) -> usize {
        self.units.len() * self.passes
    }

    /// Task words: units, then stripes.
    pub(crate) fn tasks(&self) -> usize {
        self.unit_words() + self.stripes * self.passes
    }

    /// The phase in which the run is over.
    pub(crate) fn end(&self) -> u8 {
        2 * self.passes as u8
    }

    /// The task words that may be claimed in a phase: scans have even numbers, drains odd ones.
    pub(crate) fn open(&self, phase: u8) -> std::ops::Range<usize> {
        let pass = usize::from(phase / 2);
        let (first, each) = match phase {
            _ if phase >= self.end() => return 0..0,
            _ if phase.is_multiple_of(2) => (0, self.units.len()),
            _ => (self.unit_words(), self.stripes),
        };
        first + pass * each..first + (pass + 1) * each
    }

    /// The unit words whose results are needed in a phase. At the end these are the last pass's.
    pub(crate) fn live_units(&self, phase: u8) -> std::ops::Range<usize> {
        let pass = usize::from(phase / 2).min(self.passes - 1);
        pass * self.units.len()..(pass + 1) * self.units.len()
    }

    /// True when the task is a stripe.
    pub(crate) fn is_stripe(&self, task: usize) -> bool {
        task >= self.unit_words()
    }

    /// Chunks that the task's result has.
    pub(crate) fn length(&self, task: usize) -> u8 {
        if self.is_stripe(task) { 1 } else { self.units[task % self.units.len()] }
    }

    /// What a stripe of `task`'s pass must have seen: every piece of every unit of that pass, once.
    pub(crate) fn expected(&self, task: usize) -> Seen {
        let pass = (task - self.unit_words()) / self.stripes;
        let mut seen = Seen(0);
        for (unit, pieces) in self.units.iter().enumerate() {
            (0..*pieces).for_each(|_| seen.add(pass * self.units.len() + unit));
        }
        seen
    }
}

/// How many pieces of each unit a stripe has seen, two bits a unit; three stands for three or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen(pub(crate) u8);

impl Seen {
    /// Pieces seen of a unit.
    pub(crate) fn get(self, unit: usize) -> u8 {
        self.0 >> (2 * unit) & 3
    }

    /// Counts one piece of a unit.
    pub(crate) fn add(&mut self, unit: usize) {
        if self.get(unit) < 3 {
            self.0 += 1 << (2 * unit);
        }
    }
}

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// Nothing that a reader would take for a result.
    Blank,
    /// A piece of a unit's result and the chunk that follows.
    Piece { unit: u8, next: u8 },
    /// A stripe's table.
    Table(Seen),
}

impl Data {
    /// The content as bits.
    pub(crate) fn pack(self) -> u16 {
        match self {
            Self::Blank => 0,
            Self::Piece { unit, next } => 1 | u16::from(unit) << 2 | u16::from(next) << 5,
            Self::Table(seen) => 2 | u16::from(seen.0) << 2,
        }
    }

    /// The content from its bits.
    pub(crate) fn unpack(bits: u16) -> Self {
        match bits & 3 {
            0 => Self::Blank,
            1 => Self::Piece { unit: (bits >> 2 & 7) as u8, next: (bits >> 5) as u8 },
            _ => Self::Table(Seen((bits >> 2) as u8)),
        }
    }
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Pc {
    /// No process.
    #[default]
    Gone,
    /// Started; next it says so in its slot.
    Start,
    /// Next it looks whether it is fenced.
    Idle,
    /// It was not fenced; next it claims.
    Checked,
    /// Planted bug: it has advanced the hint, and notes itself next.
    Noting,
    /// Next it allocates a chunk.
    Allocate,
    /// Planted bug: it has taken a chunk, and notes itself next.
    Taken,
    /// Next it reads one unit, if there are any left, into the table that it builds.
    Read,
    /// Next it writes the chunk that it allocated last.
    Write,
    /// Next it commits.
    Commit,
    /// Planted bug: the task says DONE, and the head is stored next.
    Head,
    /// Its commit failed: it gives its chunks back one by one and exits.
    Abort,
}

/// What a worker knows by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Worker {
    /// Where it is.
    pub(crate) pc: Pc,
    /// Its generation, told to it at its start.
    pub(crate) generation: u8,
    /// The task it works on.
    pub(crate) task: u8,
    /// Attempts in the claim that it holds.
    pub(crate) attempts: u8,
    /// Chunks that it holds.
    pub(crate) held: u8,
    /// Their numbers; each written chunk's `next` is the one before it.
    pub(crate) chunk: [u8; MAX_CHAIN],
    /// Their sequence numbers: with its name, the exact words that a release must find.
    pub(crate) seq: [u8; MAX_CHAIN],
    /// Units that it has read.
    pub(crate) read: u8,
    /// What it saw in them.
    pub(crate) seen: Seen,
}

/// What the second recoverer read some time ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// Nothing.
    Idle,
    /// A task word whose owner is dead or fenced.
    Task { index: u8, word: u64 },
    /// A chunk word whose owner is dead and reaches it from nowhere.
    Chunk { index: u8, word: u64 },
    /// A chunk word on the list of chunks to give back after a pass.
    Sealed { index: u8, word: u64 },
}

/// All there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Task words.
    pub(crate) tasks: [u64; MAX_TASKS],
    /// Chunk words.
    pub(crate) chunks: [u64; MAX_CHUNKS],
    /// Slot words.
    pub(crate) slots: [u64; MAX_WORKERS],
    /// Contents of the chunks, as [`Data`].
    pub(crate) data: [u16; MAX_CHUNKS],
    /// The worker processes.
    pub(crate) workers: [Worker; MAX_WORKERS],
    /// The second recoverer.
    pub(crate) stale: Stale,
    /// Last generation of each slot whose death is confirmed.
    pub(crate) confirmed: [u8; MAX_WORKERS],
    /// Phase word.
    pub(crate) phase: u8,
    /// Kills left.
    pub(crate) kills: u8,
    /// Suspicions left.
    pub(crate) suspicions: u8,
    /// Chunks to give back after a pass, one bit each.
    pub(crate) sealed: u8,
    /// Planted bug: units handed out so far.
    pub(crate) hint: u8,
    /// Planted bug: tables that are filled in place.
    pub(crate) in_place: [Seen; 2],
}

/// Says that a word decodes; the model writes no other words.
macro_rules! sound {
    ($word:expr) => {
        $word.expect("the model writes only words of the protocol")
    };
}

impl State {
    /// The state in which the leader has created the segment and started its workers.
    pub(crate) fn new(scope: &Scope) -> Self {
        assert!(scope.tasks() <= MAX_TASKS && scope.chunks <= MAX_CHUNKS && scope.unit_words() <= 4);
        assert!(scope.units.iter().all(|len| usize::from(*len) <= MAX_CHAIN));
        assert!((1..=MAX_WORKERS).contains(&scope.workers));
        let mut slots = [Slot { state: SlotState::Empty, generation: 0 }.pack(); MAX_WORKERS];
        slots[..scope.workers].fill(Slot { state: SlotState::Starting, generation: 1 }.pack());
        let mut workers = [Worker::default(); MAX_WORKERS];
        workers[..scope.workers].fill(Worker { pc: Pc::Start, generation: 1, ..Worker::default() });
        Self {
            tasks: [Task::Free { attempts: 0 }.pack(); MAX_TASKS],
            chunks: [Chunk::Free { seq: 0 }.pack(); MAX_CHUNKS],
            slots,
            data: [Data::Blank.pack(); MAX_CHUNKS],
            workers,
            stale: Stale::Idle,
            confirmed: [0; MAX_WORKERS],
            phase: 0,
            kills: scope.kills,
            suspicions: scope.suspicions,
            sealed: 0,
            hint: 0,
            in_place: [Seen(0); 2],
        }
    }

    /// A task word, decoded.
    pub(crate) fn task(&self, index: usize) -> Task {
        sound!(Task::unpack(self.tasks[index]))
    }

    /// A chunk word, decoded.
    pub(crate) fn chunk(&self, index: usize) -> Chunk {
        sound!(Chunk::unpack(self.chunks[index]))
    }

    /// A slot word, decoded.
    pub(crate) fn slot(&self, index: usize) -> Slot {
        sound!(Slot::unpack(self.slots[index]))
    }

    /// The name of the worker that runs in a slot.
    pub(crate) fn owner(&self, slot: usize) -> Owner {
        Owner { slot: slot as u16, generation: u32::from(self.workers[slot].generation) }
    }

    /// The chunks that a chain visits, as bits, and the pieces in them. A chain longer than the arena is cut.
    pub(crate) fn chain(&self, head: u32) -> (u8, Seen) {
        let (mut mask, mut seen, mut at) = (0, Seen(0), head as u8);
        while usize::from(at) < MAX_CHUNKS && mask >> at & 1 == 0 {
            mask |= 1 << at;
            at = match Data::unpack(self.data[usize::from(at)]) {
                Data::Piece { unit, next } => {
                    seen.add(usize::from(unit));
                    next
                }
                _ => NONE,
            };
        }
        (mask, seen)
    }

    /// The chunks that DONE words reach whose results are needed in `phase`, as bits.
    pub(crate) fn reached(&self, scope: &Scope, phase: u8) -> u8 {
        let live = scope.live_units(phase).chain(scope.unit_words()..scope.tasks());
        live.fold(0, |mask, task| match self.task(task) {
            Task::Done { head, .. } => mask | self.chain(head).0,
            _ => mask,
        })
    }
}
