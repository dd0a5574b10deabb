//! Everything that a worker, a leader or a fault may do next.

use crate::state::{
    ABSENT, Bug, Data, LIMIT, MEMORY_OF, NONE, Pc, RECORDS_OF, STRIPES, Scope, State, Step, USES, WORKERS,
    chunk, task,
};
use shm_layout::words::{Chunk, Task};

impl State {
    fn worker_steps(&self, scope: &Scope, slot: usize, out: &mut Vec<Step>) {
        let me = self.workers[slot];
        let mut push = |what, next| out.push((what, slot, next));
        match me.pc {
            Pc::Idle if me.fenced => push("worker leaves", self.with(slot, |w| w.pc = Pc::Done)),
            Pc::Idle => {
                for stripe in 0..STRIPES {
                    let Task::Free { attempts } = task(self.stripes[stripe]) else { continue };
                    let mut next = self.with(slot, |w| {
                        (w.pc, w.stripe, w.attempts) = (Pc::Claimed, stripe as u8, attempts);
                    });
                    next.stripes[stripe] = next.claimed(slot);
                    push("worker claims", next);
                }
                if (0..STRIPES).all(|stripe| self.is_done(stripe)) {
                    push("worker leaves", self.with(slot, |w| w.pc = Pc::Done));
                }
            }
            Pc::Claimed if self.memory[RECORDS_OF[usize::from(me.stripe)]] == Data::Records => {
                push("worker copies records", self.with(slot, |w| w.pc = Pc::Counted));
            }
            Pc::Claimed => push("worker finds its records gone", self.with(slot, |w| w.pc = Pc::Erred)),
            Pc::Erred => {
                let mut next = self.with(slot, |w| w.pc = Pc::Done);
                next.is_wrongly_over = !me.fenced || scope.bug == Bug::NoFenceLook;
                push("worker leaves with what it found wrong", next);
            }
            Pc::Counted => self.allocate(scope, slot, &mut push),
            Pc::Held => {
                let mut next = self.with(slot, |w| w.pc = Pc::Written);
                next.memory[MEMORY_OF[usize::from(me.held)]] = Data::TableOf(me.stripe);
                push("worker writes its table", next);
            }
            Pc::Written => self.commit(scope, slot, &mut push),
            Pc::Refused => {
                let mut next = self.with(slot, |w| (w.pc, w.held) = (Pc::Done, NONE));
                next.free(me.held.into());
                push("worker gives its chunk back, and leaves", next);
            }
            Pc::Gone | Pc::Killed | Pc::Done => {}
        }
    }

    fn allocate(&self, scope: &Scope, slot: usize, push: &mut impl FnMut(&'static str, Self)) {
        for (at, memory) in MEMORY_OF.into_iter().enumerate() {
            let is_second = RECORDS_OF.contains(&memory);
            if is_second && !self.is_spent(scope, memory) {
                continue;
            }
            let mut found = chunk(self.uses[at]);
            if is_second && scope.bug == Bug::NoWord {
                found = found.released();
            }
            let Some(taken) = found.allocated(self.owner(slot)) else { continue };
            let mut next = self.with(slot, |w| (w.pc, w.held) = (Pc::Held, at as u8));
            next.uses[at] = taken.pack();
            push(
                if is_second { "worker allocates a spent chunk" } else { "worker allocates a free chunk" },
                next,
            );
        }
    }

    fn commit(&self, scope: &Scope, slot: usize, push: &mut impl FnMut(&'static str, Self)) {
        let me = self.workers[slot];
        let stripe = usize::from(me.stripe);
        if self.stripes[stripe] != self.claimed(slot) && scope.bug != Bug::PlainCommit {
            return push("worker finds its claim gone", self.with(slot, |w| w.pc = Pc::Refused));
        }
        let mut next = self.with(slot, |w| (w.pc, w.stripe, w.held) = (Pc::Idle, NONE, NONE));
        next.stripes[stripe] = Task::Done { head: me.held.into(), attempts: me.attempts }.pack();
        push("worker commits", next);
    }

    fn fault_steps(&self, slot: usize, out: &mut Vec<Step>) {
        let me = self.workers[slot];
        if matches!(me.pc, Pc::Gone | Pc::Killed) {
            return;
        }
        if me.fenced {
            // The leader kills whom it fenced, at its own time.
            out.push(("is killed behind its fence", slot, self.with(slot, |w| w.pc = Pc::Killed)));
            return;
        }
        if me.pc == Pc::Done {
            return;
        }
        if self.kills > 0 {
            let mut next = self.with(slot, |w| w.pc = Pc::Killed);
            next.kills -= 1;
            out.push(("is killed", slot, next));
        }
        if self.suspicions > 0 {
            let mut next = self.with(slot, |w| w.fenced = true);
            next.suspicions -= 1;
            out.push(("is wrongly believed dead", slot, next));
        }
    }

    /// Recovers word by word, in any order and cut off anywhere: the leader's steps are one each.
    fn leader_steps(&self, scope: &Scope, slot: usize, out: &mut Vec<Step>) {
        let me = self.workers[slot];
        let (is_dead, owner) = (me.pc == Pc::Killed, self.owner(slot));
        if !is_dead && !me.fenced {
            return;
        }
        let mut left = false;
        for stripe in 0..STRIPES {
            if let Some(after) = task(self.stripes[stripe]).after_death(owner, LIMIT) {
                let mut next = *self;
                next.stripes[stripe] = after.pack();
                out.push(("leader takes a claim back", slot, next));
                left = true;
            }
        }
        for at in 0..USES {
            let owned = matches!(chunk(self.uses[at]), Chunk::Owned { owner: found, .. } if found == owner);
            if is_dead && owned && (!self.is_reached(at) || scope.bug == Bug::SweepAll) {
                let mut next = *self;
                next.free(at);
                out.push(("leader frees a chunk of the dead", slot, next));
                left = true;
            }
        }
        if is_dead && !left {
            let mut next = *self;
            next.workers[slot] = crate::state::Process { generation: me.generation + 1, ..ABSENT };
            if !(0..STRIPES).all(|stripe| self.is_done(stripe)) {
                next.workers[slot].pc = Pc::Idle;
            }
            out.push(("leader starts another", slot, next));
        }
    }

    pub(crate) fn steps(&self, scope: &Scope, out: &mut Vec<Step>) {
        out.clear();
        for slot in 0..WORKERS {
            self.worker_steps(scope, slot, out);
            self.fault_steps(slot, out);
            self.leader_steps(scope, slot, out);
        }
    }
}
