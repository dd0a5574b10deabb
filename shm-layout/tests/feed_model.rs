//! Explicit-state model of a stream: a feeder that publishes parcels in chunks of its own, workers that copy them, a leader that recovers.
//!
//! Every interleaving is visited, with feeders and workers killed, or wrongly believed dead, at any step; words are packed by production. Two
//! parcels of a chunk each go through two chunks, so that a chunk that was freed too early gets other bytes; a third parcel is the end of the text.
//!
//! ```text
//! feeder   claims parcel -> allocates chunk -> writes it -> commits -> ... its unit is done: word leads nowhere -> frees chunk
//! worker   claims unit -> sees the parcel's word -> copies the chunk -> looks at the word again -> commits what it copied
//! leader   takes claims back (of the dead, of the suspected); frees chunks of the dead that no word reaches; starts others
//! ```
//!
//! That a feeder commits by a compare-and-swap is not needed here, and no search can show it: there is one feeder at a time, since another is started
//! only when the death of the one before is confirmed.
#![cfg(not(loom))]
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};

use shm_layout::words::{Chunk, Owner, Task};

/// Words of parcels and of units: two with text, and the end.
const PARCELS: usize = 3;
const TEXTS: usize = 2;
const CHUNKS: usize = 2;
/// The feeder is in the slot behind the workers'.
const FEEDER: usize = 2;
/// A word that leads nowhere.
const NOTHING: u32 = u32::MAX;
/// What a unit's word leads to: this and the parcel that it copied; nothing for the end.
const RESULT: u32 = 100;
const LIMIT: u8 = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
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
enum Pc {
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
struct Process {
    pc: Pc,
    generation: u8,
    /// Its claim was taken back by a leader that believes it dead, and it may claim nothing more.
    fenced: bool,
    task: u8,
    attempts: u8,
    /// A chunk, and what was read of it.
    chunk: u8,
    read: u8,
    /// A feeder: the next parcel to make, and the chunks of those that it made.
    next: u8,
    fed: [u8; TEXTS],
}

const NONE: u8 = 255;
/// Bytes of a chunk that is free.
const FREED: u8 = 254;
const ABSENT: Process = Process {
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
struct State {
    parcels: [u64; PARCELS],
    units: [u64; PARCELS],
    chunks: [u64; CHUNKS],
    data: [u8; CHUNKS],
    processes: [Process; FEEDER + 1],
    kills: u8,
    suspicions: u8,
}

struct Scope {
    workers: usize,
    kills: u8,
    suspicions: u8,
    bug: Bug,
}

type Step = (&'static str, usize, State);

fn task(word: u64) -> Task {
    Task::unpack(word).expect("a word of the protocol")
}

fn chunk(word: u64) -> Chunk {
    Chunk::unpack(word).expect("a word of the protocol")
}

impl State {
    fn new(scope: &Scope) -> Self {
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

    fn owner(&self, slot: usize) -> Owner {
        Owner { slot: slot as u16, generation: self.processes[slot].generation.into() }
    }

    fn claimed(&self, slot: usize) -> u64 {
        Task::Claimed { owner: self.owner(slot), attempts: self.processes[slot].attempts }.pack()
    }

    /// Whether a parcel's word leads to the chunk.
    fn is_reached(&self, at: usize) -> bool {
        self.parcels.iter().any(|word| matches!(task(*word), Task::Done { head, .. } if head as usize == at))
    }

    fn is_done(&self, unit: usize) -> bool {
        matches!(task(self.units[unit]), Task::Done { .. })
    }

    fn with(&self, slot: usize, change: impl FnOnce(&mut Process)) -> Self {
        let mut next = *self;
        change(&mut next.processes[slot]);
        next
    }

    fn free(&mut self, at: usize) {
        self.chunks[at] = chunk(self.chunks[at]).released().pack();
        self.data[at] = FREED;
    }

    fn feeder_steps(&self, scope: &Scope, out: &mut Vec<Step>) {
        let me = self.processes[FEEDER];
        let mut push = |what, next| out.push((what, FEEDER, next));
        match me.pc {
            Pc::Idle => self.feeder_idle(scope, &mut push),
            Pc::Claimed if usize::from(me.task) >= TEXTS => self.feeder_commits(NOTHING, &mut push),
            Pc::Claimed => {
                let owner = self.owner(FEEDER);
                for at in 0..CHUNKS {
                    if let Some(taken) = chunk(self.chunks[at]).allocated(owner) {
                        let mut next = self.with(FEEDER, |p| (p.pc, p.chunk) = (Pc::Held, at as u8));
                        next.chunks[at] = taken.pack();
                        push("feeder allocates", next);
                    }
                }
                // No room: what is done with is freed meanwhile.
                self.feeder_releases(scope, &mut push);
            }
            Pc::Held => {
                let mut next = self.with(FEEDER, |p| p.pc = Pc::Written);
                next.data[usize::from(me.chunk)] = me.task;
                push("feeder writes", next);
            }
            Pc::Written => self.feeder_commits(me.chunk.into(), &mut push),
            Pc::Checked => {
                let at = usize::from(me.read);
                let mut next = self.with(FEEDER, |p| {
                    p.pc = if p.task == NONE { Pc::Idle } else { Pc::Claimed };
                    p.read = NONE;
                });
                if scope.bug == Bug::FreeThenConsume {
                    next.consume(at);
                } else {
                    next.free(at);
                }
                push("feeder frees a parcel's chunk", next);
            }
            Pc::Refused => {
                let mut next = self.with(FEEDER, |p| p.pc = Pc::Done);
                if me.chunk != NONE {
                    next.free(me.chunk.into());
                }
                push("feeder gives its chunk back, and leaves", next);
            }
            _ => {}
        }
    }

    fn feeder_idle(&self, scope: &Scope, push: &mut impl FnMut(&'static str, Self)) {
        let me = self.processes[FEEDER];
        self.feeder_releases(scope, push);
        let at = usize::from(me.next);
        if at >= PARCELS {
            if (0..PARCELS).all(|unit| self.is_done(unit)) && me.fed == [NONE; TEXTS] {
                push("feeder leaves", self.with(FEEDER, |p| p.pc = Pc::Done));
            }
            return;
        }
        match task(self.parcels[at]) {
            Task::Free { .. } if me.fenced => push("feeder leaves", self.with(FEEDER, |p| p.pc = Pc::Done)),
            Task::Free { attempts } => {
                let mut next = self.with(FEEDER, |p| {
                    (p.pc, p.task, p.attempts, p.next) = (Pc::Claimed, at as u8, attempts, p.next + 1);
                });
                next.parcels[at] = next.claimed(FEEDER);
                push("feeder claims", next);
            }
            Task::Done { .. } => push("feeder leaves a parcel out", self.with(FEEDER, |p| p.next += 1)),
            _ if scope.bug == Bug::SkipClaimed => push("feeder skips", self.with(FEEDER, |p| p.next += 1)),
            _ => {}
        }
    }

    fn feeder_commits(&self, head: u32, push: &mut impl FnMut(&'static str, Self)) {
        let me = self.processes[FEEDER];
        let at = usize::from(me.task);
        if self.parcels[at] != self.claimed(FEEDER) {
            return push("feeder finds its claim gone", self.with(FEEDER, |p| p.pc = Pc::Refused));
        }
        let mut next = self.with(FEEDER, |p| {
            if head != NOTHING {
                p.fed[at] = p.chunk;
            }
            (p.pc, p.task, p.chunk) = (Pc::Idle, NONE, NONE);
        });
        next.parcels[at] = Task::Done { head, attempts: me.attempts }.pack();
        push("feeder commits", next);
    }

    fn feeder_releases(&self, scope: &Scope, push: &mut impl FnMut(&'static str, Self)) {
        for parcel in 0..TEXTS {
            let held = self.processes[FEEDER].fed[parcel];
            let early =
                scope.bug == Bug::ConsumeOnClaim && matches!(task(self.units[parcel]), Task::Claimed { .. });
            if held == NONE || !(self.is_done(parcel) || early) {
                continue;
            }
            let mut next = self.with(FEEDER, |p| {
                p.fed[parcel] = NONE;
                (p.pc, p.read) = (Pc::Checked, held);
            });
            if scope.bug == Bug::FreeThenConsume {
                next.free(held.into());
            } else {
                next.consume(held.into());
            }
            push("feeder makes a word lead nowhere", next);
        }
    }

    fn consume(&mut self, at: usize) {
        for word in &mut self.parcels {
            if let Task::Done { head, attempts } = task(*word)
                && head as usize == at
            {
                *word = Task::Done { head: NOTHING, attempts }.pack();
            }
        }
    }

    fn worker_steps(&self, scope: &Scope, slot: usize, out: &mut Vec<Step>) {
        let me = self.processes[slot];
        let at = usize::from(me.task);
        let mut push = |what, next| out.push((what, slot, next));
        match me.pc {
            Pc::Idle => {
                match (0..PARCELS).find(|unit| matches!(task(self.units[*unit]), Task::Free { .. })) {
                    _ if me.fenced => push("worker leaves", self.with(slot, |p| p.pc = Pc::Done)),
                    Some(unit) => {
                        let Task::Free { attempts } = task(self.units[unit]) else { return };
                        let mut next = self
                            .with(slot, |p| (p.pc, p.task, p.attempts) = (Pc::Claimed, unit as u8, attempts));
                        next.units[unit] = next.claimed(slot);
                        push("worker claims", next);
                    }
                    None if (0..PARCELS).all(|unit| self.is_done(unit)) => {
                        push("worker leaves", self.with(slot, |p| p.pc = Pc::Done));
                    }
                    None => {}
                }
            }
            Pc::Claimed => match task(self.parcels[at]) {
                Task::Done { head: NOTHING, .. } => {
                    push("worker finds no text", self.with(slot, |p| (p.pc, p.read) = (Pc::Checked, NONE)));
                }
                Task::Done { head, .. } => {
                    push(
                        "worker sees a parcel",
                        self.with(slot, |p| (p.pc, p.chunk) = (Pc::Held, head as u8)),
                    );
                }
                // One that waits gives way to an earlier unit that came back.
                _ if (0..at).any(|unit| matches!(task(self.units[unit]), Task::Free { .. })) => {
                    let mut next = self.with(slot, |p| (p.pc, p.task) = (Pc::Idle, NONE));
                    if self.units[at] == self.claimed(slot) {
                        next.units[at] = Task::Free { attempts: me.attempts }.pack();
                    }
                    push("worker gives way", next);
                }
                _ if me.fenced => push("worker leaves", self.with(slot, |p| p.pc = Pc::Done)),
                _ => {}
            },
            Pc::Held => {
                let read = self.data[usize::from(me.chunk)];
                push("worker copies", self.with(slot, |p| (p.pc, p.read) = (Pc::Written, read)));
            }
            Pc::Written => {
                let same =
                    matches!(task(self.parcels[at]), Task::Done { head, .. } if head == u32::from(me.chunk));
                let pc = if same || scope.bug == Bug::NoSecondLook { Pc::Checked } else { Pc::Done };
                push("worker looks again", self.with(slot, |p| p.pc = pc));
            }
            Pc::Checked if self.units[at] == self.claimed(slot) => {
                let head = if me.read == NONE { NOTHING } else { RESULT + u32::from(me.read) };
                let mut next = self.with(slot, |p| {
                    (p.pc, p.task, p.chunk, p.read) = (Pc::Idle, NONE, NONE, NONE);
                });
                next.units[at] = Task::Done { head, attempts: me.attempts }.pack();
                push("worker commits", next);
            }
            Pc::Checked => push("worker finds its claim gone", self.with(slot, |p| p.pc = Pc::Done)),
            _ => {}
        }
    }

    fn fault_steps(&self, slot: usize, out: &mut Vec<Step>) {
        let me = self.processes[slot];
        if matches!(me.pc, Pc::Gone | Pc::Killed) {
            return;
        }
        if me.fenced {
            // The leader kills whom it fenced, at its own time; not one that has left.
            out.push(("is killed behind its fence", slot, self.with(slot, |p| p.pc = Pc::Killed)));
            return;
        }
        if me.pc == Pc::Done {
            return;
        }
        if self.kills > 0 {
            let mut next = self.with(slot, |p| p.pc = Pc::Killed);
            next.kills -= 1;
            out.push(("is killed", slot, next));
        }
        if self.suspicions > 0 {
            let mut next = self.with(slot, |p| p.fenced = true);
            next.suspicions -= 1;
            out.push(("is wrongly believed dead", slot, next));
        }
    }

    /// Recovers word by word, in any order and cut off anywhere: the leader's steps are one each.
    fn leader_steps(&self, scope: &Scope, slot: usize, out: &mut Vec<Step>) {
        let me = self.processes[slot];
        let (is_dead, owner) = (me.pc == Pc::Killed, self.owner(slot));
        if !is_dead && !me.fenced {
            return;
        }
        let mut left = false;
        for at in 0..PARCELS {
            for of_parcels in [true, false] {
                let words = if of_parcels { &self.parcels } else { &self.units };
                if let Some(after) = task(words[at]).after_death(owner, LIMIT) {
                    let mut next = *self;
                    let words = if of_parcels { &mut next.parcels } else { &mut next.units };
                    words[at] = after.pack();
                    out.push(("leader takes a claim back", slot, next));
                    left = true;
                }
            }
        }
        for at in 0..CHUNKS {
            let owned = matches!(chunk(self.chunks[at]), Chunk::Owned { owner: found, .. } if found == owner);
            if is_dead && owned && (!self.is_reached(at) || scope.bug == Bug::SweepAll) {
                let mut next = *self;
                next.free(at);
                out.push(("leader frees a chunk of the dead", slot, next));
                left = true;
            }
        }
        if is_dead && !left {
            let mut next = *self;
            let begun = &mut next.processes[slot];
            let (skipped, generation) = (begun.next, begun.generation + 1);
            *begun = ABSENT;
            begun.generation = generation;
            if scope.bug == Bug::SkipClaimed {
                begun.next = skipped;
            }
            if !(0..PARCELS).all(|unit| self.is_done(unit)) {
                begun.pc = Pc::Idle;
            }
            out.push(("leader starts another", slot, next));
        }
    }

    fn steps(&self, scope: &Scope, out: &mut Vec<Step>) {
        out.clear();
        self.feeder_steps(scope, out);
        for slot in (0..scope.workers).chain([FEEDER]) {
            if slot != FEEDER {
                self.worker_steps(scope, slot, out);
            }
            self.fault_steps(slot, out);
            self.leader_steps(scope, slot, out);
        }
    }

    /// What must hold in every state.
    fn wrong(&self) -> Option<&'static str> {
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
    fn wrong_at_end(&self) -> Option<&'static str> {
        if !(0..PARCELS).all(|unit| self.is_done(unit)) {
            return Some("stuck");
        }
        let leaks = (0..CHUNKS)
            .any(|at| matches!(chunk(self.chunks[at]), Chunk::Owned { .. }) && !self.is_reached(at));
        leaks.then_some("a chunk that nothing reaches")
    }
}

struct Found {
    states: usize,
    transitions: u64,
    ends: u64,
    wrong: Option<(&'static str, Vec<String>)>,
    kinds: HashMap<&'static str, u64>,
}

fn search(scope: &Scope) -> Found {
    let start = State::new(scope);
    let mut from: HashMap<State, Option<(State, &'static str, usize)>> = HashMap::from([(start, None)]);
    let (mut queue, mut steps) = (VecDeque::from([start]), Vec::new());
    let mut found = Found { states: 0, transitions: 0, ends: 0, wrong: None, kinds: HashMap::new() };
    while let Some(state) = queue.pop_front() {
        state.steps(scope, &mut steps);
        let wrong = state.wrong().or_else(|| if steps.is_empty() { state.wrong_at_end() } else { None });
        if let Some(wrong) = wrong {
            let (mut trace, mut at) = (Vec::new(), state);
            while let Some((before, what, slot)) = from[&at] {
                trace.push(format!("{slot} {what}"));
                at = before;
            }
            trace.reverse();
            found.wrong = Some((wrong, trace));
            break;
        }
        found.ends += u64::from(steps.is_empty());
        for (what, slot, next) in &steps {
            found.transitions += 1;
            *found.kinds.entry(what).or_default() += 1;
            from.entry(*next).or_insert_with(|| {
                queue.push_back(*next);
                Some((state, what, *slot))
            });
        }
    }
    found.states = from.len();
    found
}

/// Steps that a search must take, or it shows less than it seems to.
const KINDS: [&str; 22] = [
    "feeder allocates",
    "feeder claims",
    "feeder commits",
    "feeder finds its claim gone",
    "feeder frees a parcel's chunk",
    "feeder gives its chunk back, and leaves",
    "feeder leaves",
    "feeder leaves a parcel out",
    "feeder makes a word lead nowhere",
    "feeder writes",
    "is killed",
    "is killed behind its fence",
    "is wrongly believed dead",
    "leader frees a chunk of the dead",
    "leader starts another",
    "leader takes a claim back",
    "worker claims",
    "worker commits",
    "worker copies",
    "worker finds its claim gone",
    "worker gives way",
    "worker looks again",
];

fn show(name: &str, found: &Found) {
    println!("{name}: {} states, {} transitions, {} ends", found.states, found.transitions, found.ends);
    if let Some((wrong, trace)) = &found.wrong {
        println!("  {wrong} after {} steps", trace.len());
        trace.iter().for_each(|line| println!("    {line}"));
    }
}

#[test]
fn a_stream_survives_deaths_and_false_suspicions_of_feeder_and_workers() {
    let found = search(&Scope { workers: 2, kills: 1, suspicions: 1, bug: Bug::None });
    show("two workers", &found);
    assert!(found.wrong.is_none() && found.ends > 0, "see the trace above");
    let missing: Vec<_> = KINDS.iter().filter(|kind| !found.kinds.contains_key(*kind)).collect();
    assert!(missing.is_empty(), "never taken: {missing:?}");
    let found = search(&Scope { workers: 1, kills: 2, suspicions: 1, bug: Bug::None });
    show("one worker, more faults", &found);
    assert!(found.wrong.is_none() && found.ends > 0, "see the trace above");
}

#[test]
fn every_planted_bug_is_found() {
    for (bug, expected) in [
        (Bug::NoSecondLook, "a worker that takes other bytes for its parcel's"),
        (Bug::FreeThenConsume, "a parcel whose chunk is not its own"),
        (Bug::ConsumeOnClaim, "a parcel that is gone before its unit is done"),
        (Bug::SweepAll, "a parcel whose chunk is not its own"),
        (Bug::SkipClaimed, "stuck"),
    ] {
        let found = search(&Scope { workers: 2, kills: 1, suspicions: 1, bug });
        show(&format!("{bug:?}"), &found);
        assert_eq!(found.wrong.map(|(wrong, _)| wrong), Some(expected), "{bug:?}");
    }
}
