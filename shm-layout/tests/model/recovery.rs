//! The leader, and the second recoverer.
//!
//! Recovery of one word does not depend on recovery of another, so a pass over all words is not modelled as one: the leader may
//! at any time recover any word that needs it, reading it at that moment, and the second recoverer reads such a word at one time
//! and swaps it at any later one. Between them they do what two full passes do, in any order, overlapping, cut off anywhere and
//! started again.

use crate::state::{Bug, Pc, Scope, Stale, State, THE_DEAD, Worker};
use crate::steps::{Step, Steps};
use shm_layout::words::{Chunk, Owner, Slot, SlotState, Task};

impl State {
    /// Adds everything that the leader can do.
    pub(crate) fn leader_steps(&self, scope: &Scope, out: &mut Steps) {
        self.change_phase(scope, out);
        for slot in 0..scope.workers {
            self.look_after(scope, slot, out);
        }
        for task in 0..scope.tasks() {
            if let Some(after) = self.task_after_death(scope, task) {
                let mut next = *self;
                next.tasks[task] = after;
                out.push((leader("takes back", task), next));
            }
        }
        for chunk in 0..scope.chunks {
            if self.is_garbage(scope, chunk, scope.bug == Bug::ReclaimOnSuspicion) {
                let mut next = *self;
                next.free(scope, chunk);
                out.push((leader("reclaims chunk", chunk), next));
            }
            if self.is_sealed(scope, chunk) {
                let mut next = *self;
                next.free(scope, chunk);
                next.sealed &= !(1 << chunk);
                out.push((leader("frees chunk of the last pass", chunk), next));
            }
        }
    }

    fn change_phase(&self, scope: &Scope, out: &mut Steps) {
        let tasks = || scope.open(self.phase).map(|task| self.task(task));
        let mut next = *self;
        if tasks().any(|task| matches!(task, Task::Poison { .. })) {
            next.phase = scope.end();
            return out.push((leader("ends the run with an error in phase", self.phase.into()), next));
        }
        let is_drain = self.phase % 2 == 1;
        if scope.bug == Bug::FreeAfterFirstStripe && is_drain && self.sealed == 0 {
            self.seal_early(scope, out);
        }
        let over = |task: Task| match scope.bug {
            Bug::HintIsDone => {
                is_drain && task.is_settled() || !is_drain && !matches!(task, Task::Free { .. })
            }
            _ => task.is_settled(),
        };
        if self.phase == scope.end() || !tasks().all(over) {
            return;
        }
        next.phase += 1;
        if is_drain && next.phase != scope.end() {
            next.sealed = self.reached(scope, self.phase) & !self.reached(scope, next.phase);
        }
        out.push((leader("opens phase", next.phase.into()), next));
    }

    fn seal_early(&self, scope: &Scope, out: &mut Steps) {
        let any = scope.open(self.phase).any(|task| self.task(task).is_settled());
        let mut next = *self;
        for unit in scope.live_units(self.phase) {
            if let Task::Done { head, .. } = self.task(unit) {
                next.sealed |= self.chain(head).0;
            }
        }
        if any {
            out.push((leader("retires the units of phase", self.phase.into()), next));
        }
    }

    fn look_after(&self, scope: &Scope, slot: usize, out: &mut Steps) {
        let now = self.slot(slot);
        let died = matches!(now.state, SlotState::Starting | SlotState::Running | SlotState::Fenced);
        let mut next = *self;
        if self.workers[slot].pc == Pc::Gone && died {
            next.slots[slot] = Slot { state: SlotState::Dead, ..now }.pack();
            next.confirmed[slot] = now.generation as u8;
            out.push((leader("sees the death of worker", slot), next));
        } else if now.state == SlotState::Dead && self.phase != scope.end() {
            let generation = now.generation + u32::from(scope.bug != Bug::SameGeneration);
            next.slots[slot] = Slot { state: SlotState::Starting, generation }.pack();
            next.workers[slot] = Worker { pc: Pc::Start, generation: generation as u8, ..Worker::default() };
            out.push((leader("starts a worker in slot", slot), next));
        }
    }

    pub(crate) fn is_dead(&self, owner: Owner) -> bool {
        let last = self.confirmed.get(usize::from(owner.slot));
        owner == THE_DEAD || last.is_some_and(|last| owner.generation <= u32::from(*last))
    }

    fn is_fenced(&self, owner: Owner) -> bool {
        let fenced = Slot { state: SlotState::Fenced, generation: owner.generation }.pack();
        self.slots.get(usize::from(owner.slot)) == Some(&fenced)
    }

    fn task_after_death(&self, scope: &Scope, task: usize) -> Option<u64> {
        let Task::Claimed { owner, .. } = self.task(task) else { return None };
        if !self.is_dead(owner) && !self.is_fenced(owner) {
            return None;
        }
        self.task(task).after_death(owner, scope.max_attempts).map(Task::pack)
    }

    /// True when the chunk's owner is dead (or, if that is enough, fenced) and no DONE word reaches it.
    fn is_garbage(&self, scope: &Scope, chunk: usize, fence_is_enough: bool) -> bool {
        let Chunk::Owned { owner, .. } = self.chunk(chunk) else { return false };
        let reached = self.reached(scope, self.phase) | self.sealed;
        let gone = self.is_dead(owner) || fence_is_enough && self.is_fenced(owner);
        gone && reached >> chunk & 1 == 0
    }

    /// True when the chunk is on the list, made before any of them is freed, of the last pass's chunks.
    fn is_sealed(&self, scope: &Scope, chunk: usize) -> bool {
        let retired = |unit: usize| match self.task(unit) {
            Task::Done { head, .. } => self.chain(head).0 >> chunk & 1 == 1,
            _ => false,
        };
        match scope.bug {
            Bug::RetireByHead => {
                let owned = matches!(self.chunk(chunk), Chunk::Owned { .. });
                owned && (0..scope.live_units(self.phase).start).any(retired)
            }
            _ => self.sealed >> chunk & 1 == 1,
        }
    }

    /// Adds everything that the second recoverer can do.
    pub(crate) fn stale_steps(&self, scope: &Scope, out: &mut Steps) {
        match self.stale {
            Stale::Idle => self.remember(scope, out),
            Stale::Task { index, word } => self.swap_task(scope, index, word, out),
            Stale::Chunk { index, word } => {
                let Ok(Chunk::Owned { owner, .. }) = Chunk::unpack(word) else { return };
                if scope.bug != Bug::ReachBeforeDeath || self.is_dead(owner) {
                    self.swap_chunk(scope, index, word, out);
                }
            }
            Stale::Sealed { index, word } => self.swap_chunk(scope, index, word, out),
        }
    }

    fn remember(&self, scope: &Scope, out: &mut Steps) {
        let mut add = |what, at: usize, stale| out.push((second(what, at), Self { stale, ..*self }));
        for task in 0..scope.tasks() {
            if self.task_after_death(scope, task).is_some() {
                add("reads", task, Stale::Task { index: task as u8, word: self.tasks[task] });
            }
        }
        let early = scope.bug == Bug::ReclaimOnSuspicion || scope.bug == Bug::ReachBeforeDeath;
        for chunk in 0..scope.chunks {
            let (index, word) = (chunk as u8, self.chunks[chunk]);
            if self.is_garbage(scope, chunk, early) {
                add("reads chunk", chunk, Stale::Chunk { index, word });
            }
            if self.is_sealed(scope, chunk) {
                add("reads sealed chunk", chunk, Stale::Sealed { index, word });
            }
        }
    }

    fn swap_task(&self, scope: &Scope, index: u8, word: u64, out: &mut Steps) {
        let at = usize::from(index);
        let seen = Task::unpack(word).expect("the model writes only words of the protocol");
        let Task::Claimed { owner, .. } = seen else { return };
        let mut next = Self { stale: Stale::Idle, ..*self };
        if let Some(after) = seen.after_death(owner, scope.max_attempts)
            && (self.tasks[at] == word || scope.bug == Bug::StaleRecovery)
        {
            next.tasks[at] = after.pack();
        }
        out.push((second("swaps what it read of", at), next));
    }

    fn swap_chunk(&self, scope: &Scope, index: u8, word: u64, out: &mut Steps) {
        let at = usize::from(index);
        let mut next = Self { stale: Stale::Idle, ..*self };
        if self.chunks[at] == word {
            next.free(scope, at);
            next.sealed &= !(1 << index);
        }
        out.push((second("swaps what it read of chunk", at), next));
    }
}

fn leader(what: &'static str, at: usize) -> Step {
    Step { who: "leader", what, at }
}

fn second(what: &'static str, at: usize) -> Step {
    Step { who: "second recoverer", what, at }
}
