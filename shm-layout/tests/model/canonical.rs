//! One state for all that behave alike, and the fingerprint of a state.
//!
//! - Chunks and slots are renamed; an imperfect choice of names costs states and hides nothing.
//! - Sequence numbers and attempts are only compared with those that somebody remembers, and new ones are higher, so their ranks
//!   will do (attempts only where the scope is too small for a task to be given up).
//! - All confirmed dead are alike, and the generations of a slot count from the last of them. Not under the planted bugs that let
//!   the dead's names return.
//! - Nobody reads the attempts in a DONE word.
//!
//! `tests/model.rs` compares searches with and without all this: the same verdict at the same depth.

use crate::state::{Bug, Data, MAX_CHUNKS, MAX_WORKERS, NONE, Pc, Scope, Stale, State, THE_DEAD};
use shm_layout::words::{Chunk, Owner, Slot, Task};

/// All orders of one, two and three slots.
const ORDERS: [&[&[u8]]; MAX_WORKERS] =
    [&[&[0]], &[&[0, 1], &[1, 0]], &[&[0, 1, 2], &[0, 2, 1], &[1, 0, 2], &[1, 2, 0], &[2, 0, 1], &[2, 1, 0]]];

impl State {
    /// The representative of all states that differ from this one in names only.
    pub(crate) fn canonical(mut self, scope: &Scope) -> Self {
        if !scope.reduce {
            return self;
        }
        if !matches!(scope.bug, Bug::SameGeneration | Bug::NoSequence) {
            self.forget_the_dead(scope);
        }
        self.renumber(scope);
        if scope.max_attempts > scope.kills + scope.suspicions && scope.bug != Bug::TwoStepClaim {
            self.renumber_attempts(scope);
        }
        let keys: [_; MAX_WORKERS] = std::array::from_fn(|slot| self.slot_key(slot));
        let orders = ORDERS[scope.workers - 1].iter();
        let mut sorted = orders.filter(|order| order.is_sorted_by_key(|slot| keys[usize::from(*slot)]));
        let first = sorted.next().map_or(self, |order| self.in_order(scope, order));
        sorted.fold(first, |best, order| {
            let other = self.in_order(scope, order);
            if other.fingerprint(scope) < best.fingerprint(scope) { other } else { best }
        })
    }

    /// The state with the slots in another order, and its chunks named.
    fn in_order(&self, scope: &Scope, order: &[u8]) -> Self {
        let mut state = *self;
        let mut to = [0; MAX_WORKERS];
        for (new, old) in order.iter().map(|old| usize::from(*old)).enumerate() {
            to[old] = new as u16;
            state.slots[new] = self.slots[old];
            state.workers[new] = self.workers[old];
            state.confirmed[new] = self.confirmed[old];
        }
        if to[..order.len()].iter().enumerate().any(|(old, new)| old != usize::from(*new)) {
            state.rename_owners(scope, |owner| match to[..order.len()].get(usize::from(owner.slot)) {
                Some(slot) => Owner { slot: *slot, ..owner },
                None => owner,
            });
        }
        state.rename_chunks(scope);
        state
    }

    fn forget_the_dead(&mut self, scope: &Scope) {
        let old = *self;
        let shift = |slot: usize| old.confirmed[slot].min(old.slot(slot).generation.saturating_sub(1) as u8);
        let rename = |owner: Owner| match old.is_dead(owner) {
            true => THE_DEAD,
            false if usize::from(owner.slot) < scope.workers => {
                Owner { generation: owner.generation - u32::from(shift(owner.slot.into())), ..owner }
            }
            false => owner,
        };
        self.rename_owners(scope, rename);
        for at in 0..scope.workers {
            let Slot { state, generation } = old.slot(at);
            self.slots[at] = Slot { state, generation: generation - u32::from(shift(at)) }.pack();
            self.confirmed[at] -= shift(at);
            if self.workers[at].pc != Pc::Gone {
                self.workers[at].generation -= shift(at);
            }
        }
    }

    fn rename_owners(&mut self, scope: &Scope, rename: impl Fn(Owner) -> Owner + Copy) {
        self.tasks[..scope.tasks()].iter_mut().for_each(|word| *word = rename_task(*word, rename));
        self.chunks[..scope.chunks].iter_mut().for_each(|word| *word = rename_chunk(*word, rename));
        match &mut self.stale {
            Stale::Idle => {}
            Stale::Task { word, .. } => *word = rename_task(*word, rename),
            Stale::Chunk { word, .. } | Stale::Sealed { word, .. } => *word = rename_chunk(*word, rename),
        }
    }

    fn slot_key(&self, slot: usize) -> (u64, [u8; 7]) {
        let w = self.workers[slot];
        let local = [w.pc as u8, w.generation, w.task, w.attempts, w.held, w.seen.0, self.confirmed[slot]];
        (self.slots[slot], local)
    }

    /// Numbers the chunks in the order in which the processes' and the tasks' references meet them, and the others by content.
    fn rename_chunks(&mut self, scope: &Scope) {
        let mut names = Names { new: [NONE; MAX_CHUNKS], count: 0 };
        for task in 0..scope.tasks() {
            if let Task::Done { head, .. } = self.task(task) {
                self.name_chain(&mut names, head as u8);
            }
        }
        for worker in self.workers {
            worker.chunk[..usize::from(worker.held)].iter().for_each(|chunk| names.give(*chunk));
        }
        if let Stale::Chunk { index, .. } | Stale::Sealed { index, .. } = self.stale {
            names.give(index);
        }
        let mut rest = [(0, 0, 0, 0); MAX_CHUNKS];
        for (at, key) in rest[..scope.chunks].iter_mut().enumerate() {
            *key = (self.chunks[at], self.sealed >> at & 1, self.data[at], at as u8);
        }
        rest[..scope.chunks].sort_unstable();
        rest[..scope.chunks].iter().for_each(|key| names.give(key.3));
        self.apply(scope, &names.new);
    }

    fn name_chain(&self, names: &mut Names, head: u8) {
        let mut at = head;
        while usize::from(at) < MAX_CHUNKS && names.new[usize::from(at)] == NONE {
            names.give(at);
            let Data::Piece { next, .. } = Data::unpack(self.data[usize::from(at)]) else { return };
            at = next;
        }
    }

    fn apply(&mut self, scope: &Scope, new: &[u8; MAX_CHUNKS]) {
        let rename = |old: u8| new.get(usize::from(old)).copied().unwrap_or(NONE);
        let old = *self;
        self.sealed = 0;
        for (at, to) in new.iter().enumerate().take(scope.chunks) {
            let to = usize::from(*to);
            self.chunks[to] = old.chunks[at];
            self.sealed |= (old.sealed >> at & 1) << to;
            self.data[to] = match Data::unpack(old.data[at]) {
                Data::Piece { unit, next } => Data::Piece { unit, next: rename(next) }.pack(),
                _ => old.data[at],
            };
        }
        for task in 0..scope.tasks() {
            if let Task::Done { head, attempts } = self.task(task) {
                self.tasks[task] = Task::Done { head: rename(head as u8).into(), attempts }.pack();
            }
        }
        for worker in &mut self.workers {
            worker.chunk[..usize::from(worker.held)].iter_mut().for_each(|chunk| *chunk = rename(*chunk));
        }
        if let Stale::Chunk { index, .. } | Stale::Sealed { index, .. } = &mut self.stale {
            *index = rename(*index);
        }
    }

    /// Sequence numbers are only compared, and every new one is higher than the others of its chunk, so their ranks will do.
    fn renumber(&mut self, scope: &Scope) {
        for at in 0..scope.chunks {
            let now = seq(self.chunk(at)) as u8;
            let stale = self.stale_seq(at);
            let held = |w| self.held_seq(w, at);
            let all = [Some(now), stale, held(0), held(1), held(2)];
            self.chunks[at] = with_seq(self.chunk(at), rank(&all, now));
            for worker in 0..scope.workers {
                for held in 0..usize::from(self.workers[worker].held) {
                    if usize::from(self.workers[worker].chunk[held]) == at {
                        self.workers[worker].seq[held] = rank(&all, self.workers[worker].seq[held]);
                    }
                }
            }
            if let (Some(seq), Stale::Chunk { word, .. } | Stale::Sealed { word, .. }) =
                (stale, &mut self.stale)
            {
                *word = with_seq(decode(*word), rank(&all, seq));
            }
        }
    }

    fn renumber_attempts(&mut self, scope: &Scope) {
        for at in 0..scope.tasks() {
            let claimed = |w: usize| {
                (Pc::Noting..Pc::Abort).contains(&self.workers[w].pc)
                    && usize::from(self.workers[w].task) == at
            };
            let held = |w: usize| claimed(w).then_some(self.workers[w].attempts);
            let stale = match self.stale {
                Stale::Task { index, word } if usize::from(index) == at => attempts(word),
                _ => None,
            };
            let all = [attempts(self.tasks[at]), stale, held(0), held(1), held(2)];
            if let Some(now) = all[0] {
                self.tasks[at] = with_attempts(self.tasks[at], rank(&all, now));
            }
            for w in 0..scope.workers {
                if let Some(held) = all[w + 2] {
                    self.workers[w].attempts = rank(&all, held);
                }
            }
            if let (Some(held), Stale::Task { word, .. }) = (stale, &mut self.stale) {
                *word = with_attempts(*word, rank(&all, held));
            }
        }
    }

    fn held_seq(&self, worker: usize, chunk: usize) -> Option<u8> {
        let worker = &self.workers[worker];
        let held = worker.chunk[..usize::from(worker.held)].iter();
        held.zip(worker.seq).find(|(held, _)| usize::from(**held) == chunk).map(|(_, seq)| seq)
    }

    fn stale_seq(&self, chunk: usize) -> Option<u8> {
        match self.stale {
            Stale::Chunk { index, word } | Stale::Sealed { index, word } if usize::from(index) == chunk => {
                Some(seq(decode(word)) as u8)
            }
            _ => None,
        }
    }

    /// 64 bits that stand for the state; never zero.
    pub(crate) fn fingerprint(&self, scope: &Scope) -> u64 {
        let mut hash = Mix(0x9e37_79b9_7f4a_7c15);
        self.tasks[..scope.tasks()].iter().for_each(|word| hash.add(*word));
        for (word, data) in self.chunks[..scope.chunks].iter().zip(self.data) {
            hash.add(word.rotate_left(24) ^ u64::from(data) << 40);
        }
        for (slot, w) in self.workers.iter().enumerate().take(scope.workers) {
            let held = u64::from_le_bytes([
                w.held,
                w.chunk[0],
                w.chunk[1],
                w.seq[0],
                w.seq[1],
                w.read,
                w.seen.0,
                self.confirmed[slot],
            ]);
            let at = u64::from_le_bytes([w.pc as u8, w.generation, w.task, w.attempts, 0, 0, 0, 0]);
            hash.add(held);
            hash.add(at | self.slots[slot] << 32);
        }
        let (kind, index, word) = match self.stale {
            Stale::Idle => (0, 0, 0),
            Stale::Task { index, word } => (1, index, word),
            Stale::Chunk { index, word } => (2, index, word),
            Stale::Sealed { index, word } => (3, index, word),
        };
        hash.add(word);
        let planted = [self.hint, self.in_place[0].0, self.in_place[1].0];
        hash.add(u64::from_le_bytes([
            kind,
            index,
            self.phase,
            self.kills,
            self.suspicions,
            self.sealed,
            0,
            0,
        ]));
        hash.add(u64::from_le_bytes([planted[0], planted[1], planted[2], 0, 0, 0, 0, 0]));
        hash.0.max(1)
    }
}

struct Names {
    new: [u8; MAX_CHUNKS],
    count: u8,
}

impl Names {
    fn give(&mut self, old: u8) {
        let Some(new) = self.new.get_mut(usize::from(old)) else { return };
        if *new == NONE {
            *new = self.count;
            self.count += 1;
        }
    }
}

/// A hash over whole words; each step is one-to-one in the word and in what came before.
struct Mix(u64);

impl Mix {
    fn add(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(26) ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.0 = mixed ^ mixed >> 32;
    }
}

fn decode(word: u64) -> Chunk {
    Chunk::unpack(word).expect("the model writes only words of the protocol")
}

fn seq(chunk: Chunk) -> u32 {
    match chunk {
        Chunk::Free { seq } | Chunk::Owned { seq, .. } => seq,
    }
}

fn with_seq(chunk: Chunk, seq: u8) -> u64 {
    let seq = u32::from(seq);
    match chunk {
        Chunk::Free { .. } => Chunk::Free { seq }.pack(),
        Chunk::Owned { owner, .. } => Chunk::Owned { owner, seq }.pack(),
    }
}

fn rename_task(word: u64, rename: impl Fn(Owner) -> Owner) -> u64 {
    match Task::unpack(word).expect("the model writes only words of the protocol") {
        Task::Claimed { owner, attempts } => Task::Claimed { owner: rename(owner), attempts }.pack(),
        Task::Done { head, .. } => Task::Done { head, attempts: 0 }.pack(),
        _ => word,
    }
}

fn rename_chunk(word: u64, rename: impl Fn(Owner) -> Owner) -> u64 {
    match decode(word) {
        Chunk::Owned { owner, seq } => Chunk::Owned { owner: rename(owner), seq }.pack(),
        Chunk::Free { .. } => word,
    }
}

fn with_attempts(word: u64, attempts: u8) -> u64 {
    match Task::unpack(word).expect("the model writes only words of the protocol") {
        Task::Free { .. } => Task::Free { attempts }.pack(),
        Task::Claimed { owner, .. } => Task::Claimed { owner, attempts }.pack(),
        _ => word,
    }
}

fn attempts(word: u64) -> Option<u8> {
    match Task::unpack(word) {
        Ok(Task::Free { attempts } | Task::Claimed { attempts, .. }) => Some(attempts),
        _ => None,
    }
}

/// How many different values there are in `all` below `value`.
fn rank(all: &[Option<u8>; 2 + MAX_WORKERS], value: u8) -> u8 {
    let below = |i: &usize| all[*i].is_some_and(|it| it < value) && !all[..*i].contains(&all[*i]);
    (0..all.len()).filter(below).count() as u8
}
