//! Everything that a feeder, a worker, a leader or a fault may do next.

use crate::state::{
    ABSENT, Bug, CHUNKS, FEEDER, LIMIT, NONE, NOTHING, PARCELS, Pc, RESULT, Scope, State, Step, TEXTS, chunk,
    task,
};
use shm_layout::words::{Chunk, Task};

impl State {
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

    pub(crate) fn steps(&self, scope: &Scope, out: &mut Vec<Step>) {
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
}
