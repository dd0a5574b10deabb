//! What the model knows of a scan in bundles, and what must hold of it.

use shm_layout::words::{Owner, Task};

pub(crate) const UNITS: usize = 3;
/// Fewer than all deaths could use up: the last units are then claimed one by one.
pub(crate) const BUNDLES: usize = 4;
pub(crate) const WORKERS: usize = 2;
/// A unit on which so many died is given up.
pub(crate) const LIMIT: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// A bundle whose owner died is free again.
    UsedTwice,
    /// A worker goes on with a bundle that it has committed.
    LateUnit,
    /// A bundle is committed by a plain store.
    PlainCommit,
    /// The units of one that is believed dead are freed by their own words, its bundle is left.
    UnitsFreed,
    /// A unit is taken into a bundle by a plain store.
    NoSwap,
    /// A worker takes a unit into the bundle in which it was before: one death is counted twice.
    TakenAgain,
    /// Units on which as many died as may are taken into bundles still.
    LastChanceTogether,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pc {
    /// Not started, or its death is confirmed.
    Gone,
    /// Died, and nobody has seen it.
    Killed,
    Idle,
    /// Has read a unit's word.
    Looked,
    /// Has read the word of the unit's bundle as well, and found the unit free.
    Judged,
    /// Has a unit, in its bundle or alone.
    Scanning,
    /// Has scanned a unit that it has alone.
    Scanned,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pc: Pc,
    pub(crate) generation: u8,
    /// Its claims were ended by a leader that believes it dead, and it may claim nothing more.
    pub(crate) fenced: bool,
    pub(crate) bundle: u8,
    /// Units that are scanned into its bundle, a bit each.
    pub(crate) has: u8,
    pub(crate) unit: u8,
    pub(crate) alone: bool,
    /// The unit's word as it was read, and what it came to.
    pub(crate) seen: u64,
    pub(crate) attempts: u8,
}

pub(crate) const NONE: u8 = 255;
pub(crate) const ABSENT: Process = Process {
    pc: Pc::Gone,
    generation: 0,
    fenced: false,
    bundle: NONE,
    has: 0,
    unit: NONE,
    alone: false,
    seen: 0,
    attempts: 0,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) units: [u64; UNITS],
    pub(crate) bundles: [u64; BUNDLES],
    /// The units whose rows are in the result that a bundle's word leads to.
    pub(crate) results: [u8; BUNDLES],
    pub(crate) workers: [Process; WORKERS],
    pub(crate) kills: u8,
    pub(crate) suspicions: u8,
    pub(crate) disasters: u8,
    pub(crate) abandons: u8,
    /// Another leader took over: those who died with the last one are at no fault.
    pub(crate) is_resumed: bool,
    pub(crate) deadly: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// Units that are not done from the start.
    pub(crate) units: usize,
    pub(crate) kills: u8,
    pub(crate) suspicions: u8,
    /// Deaths of all workers at once, with their leader.
    pub(crate) disasters: u8,
    pub(crate) abandons: u8,
    /// The unit that kills whoever scans it.
    pub(crate) deadly: Option<usize>,
    pub(crate) bug: Bug,
}

pub(crate) type Step = (&'static str, usize, State);

pub(crate) fn task(word: u64) -> Task {
    Task::unpack(word).expect("a word of the protocol")
}

impl State {
    pub(crate) fn new(scope: &Scope) -> Self {
        let free = Task::Free { attempts: 0 }.pack();
        Self {
            units: std::array::from_fn(|unit| {
                if unit < scope.units { free } else { Task::Done { head: 0, attempts: 0 }.pack() }
            }),
            bundles: [free; BUNDLES],
            results: [0; BUNDLES],
            workers: [Process { pc: Pc::Idle, generation: 1, ..ABSENT }; WORKERS],
            kills: scope.kills,
            suspicions: scope.suspicions,
            disasters: scope.disasters,
            abandons: scope.abandons,
            is_resumed: false,
            deadly: scope.deadly,
        }
    }

    pub(crate) fn owner(&self, slot: usize) -> Owner {
        Owner { slot: slot as u16, generation: self.workers[slot].generation.into() }
    }

    /// The word of a claim of the worker in `slot`, on its bundle or, with as many attempts, on a unit.
    pub(crate) fn claimed(&self, slot: usize, attempts: u8) -> u64 {
        Task::Claimed { owner: self.owner(slot), attempts }.pack()
    }

    /// How a unit stands whose word is this.
    pub(crate) fn stands(&self, word: u64) -> Task {
        let bundle = match task(word) {
            Task::Bundled { bundle, .. } => task(self.bundles[bundle as usize]),
            own => own,
        };
        // Free only where a bundle is used twice.
        task(word).in_bundle(bundle).unwrap_or(Task::Free { attempts: 0 })
    }

    pub(crate) fn is_settled(&self, unit: usize) -> bool {
        self.stands(self.units[unit]).is_settled()
    }

    pub(crate) fn with(&self, slot: usize, change: impl FnOnce(&mut Process)) -> Self {
        let mut next = *self;
        change(&mut next.workers[slot]);
        next
    }

    /// What must hold in every state.
    pub(crate) fn wrong(&self) -> Option<&'static str> {
        let is_in = |bundle: usize, unit: usize| {
            matches!(task(self.bundles[bundle]), Task::Done { .. }) && self.results[bundle] >> unit & 1 == 1
        };
        for unit in 0..UNITS {
            let stands = self.stands(self.units[unit]);
            let by = match stands {
                Task::Bundled { bundle, .. } => Some(bundle as usize),
                _ => None,
            };
            if by.is_some_and(|bundle| !is_in(bundle, unit)) {
                return Some("a unit that counts as done, and is in no result");
            }
            if (0..BUNDLES).any(|bundle| is_in(bundle, unit) && by != Some(bundle)) {
                return Some("a unit in a result that does not count as done");
            }
            if matches!(stands, Task::Free { attempts } if attempts >= LIMIT) {
                return Some("a unit that is blamed with another");
            }
        }
        None
    }

    /// What must hold when nobody can do anything more.
    pub(crate) fn wrong_at_end(&self) -> Option<&'static str> {
        if !(0..UNITS).all(|unit| self.is_settled(unit)) {
            return Some("stuck");
        }
        let is_given_up = |unit: &usize| matches!(self.stands(self.units[*unit]), Task::Poison { .. });
        (0..UNITS).find(is_given_up).ne(&self.deadly).then_some("the wrong unit is given up")
    }
}
