//! Everything that a worker, a leader or a fault may do next.

use crate::state::{
    ABSENT, BUNDLES, Bug, LIMIT, NONE, Pc, Process, Scope, State, Step, UNITS, WORKERS, task,
};
use shm_layout::words::{Task, may_be_bundled};

impl State {
    fn worker_steps(&self, scope: &Scope, slot: usize, out: &mut Vec<Step>) {
        let me = self.workers[slot];
        let mut push = |what, next| out.push((what, slot, next));
        match me.pc {
            Pc::Idle => self.idle(scope, slot, &mut push),
            Pc::Looked => {
                let next = match self.stands(me.seen) {
                    Task::Free { attempts } => {
                        self.with(slot, |w| (w.pc, w.attempts) = (Pc::Judged, attempts))
                    }
                    _ => self.with(slot, Process::rest),
                };
                push("worker looks at its bundle", next);
            }
            Pc::Judged => self.take(scope, slot, &mut push),
            Pc::Scanning if scope.deadly == Some(me.unit.into()) => {
                push("dies of the unit", self.with(slot, |w| w.pc = Pc::Killed));
            }
            Pc::Scanning if me.alone => {
                push("worker scans the unit", self.with(slot, |w| w.pc = Pc::Scanned))
            }
            Pc::Scanning => {
                let next = self.with(slot, |w| {
                    w.has |= 1 << w.unit;
                    w.rest();
                });
                push("worker scans the unit", next);
            }
            Pc::Scanned => {
                let unit = usize::from(me.unit);
                if self.units[unit] != self.claimed(slot, me.attempts) {
                    return push(
                        "worker finds its claim gone, and leaves",
                        self.with(slot, |w| w.pc = Pc::Done),
                    );
                }
                let mut next = self.with(slot, Process::rest);
                next.units[unit] = Task::Done { head: unit as u32, attempts: me.attempts }.pack();
                push("worker commits a unit alone", next);
            }
            Pc::Gone | Pc::Killed | Pc::Done => {}
        }
    }

    fn idle(&self, scope: &Scope, slot: usize, push: &mut impl FnMut(&'static str, Self)) {
        let me = self.workers[slot];
        if me.has > 0 {
            self.commit(scope, slot, push);
            if self.abandons > 0 {
                let mut next = self.with(slot, |w| (w.bundle, w.has) = (NONE, 0));
                next.abandons -= 1;
                let word = &mut next.bundles[usize::from(me.bundle)];
                if *word == self.claimed(slot, 0) {
                    *word = Task::Poison { attempts: 0 }.pack();
                }
                push("worker abandons its bundle", next);
            }
        }
        if me.fenced || (0..UNITS).all(|unit| self.is_settled(unit)) {
            if me.has == 0 {
                push("worker leaves", self.with(slot, |w| w.pc = Pc::Done));
            }
            return;
        }
        let free = (0..BUNDLES).find(|bundle| matches!(task(self.bundles[*bundle]), Task::Free { .. }));
        if let (NONE, Some(bundle)) = (me.bundle, free) {
            let mut next = self.with(slot, |w| w.bundle = bundle as u8);
            next.bundles[bundle] = self.claimed(slot, 0);
            return push("worker claims a bundle", next);
        }
        for unit in 0..UNITS {
            let seen = self.units[unit];
            let next = self.with(slot, |w| (w.pc, w.unit, w.seen) = (Pc::Looked, unit as u8, seen));
            push("worker looks at a unit", next);
        }
    }

    /// Takes a unit that was found free, if its word is as it was.
    fn take(&self, scope: &Scope, slot: usize, push: &mut impl FnMut(&'static str, Self)) {
        let (me, mut next) = (self.workers[slot], self.with(slot, |w| w.pc = Pc::Scanning));
        let word = &mut next.units[usize::from(me.unit)];
        let may = may_be_bundled(me.attempts, LIMIT) || scope.bug == Bug::LastChanceTogether;
        let is_bundled = me.bundle != NONE && may;
        let is_known = matches!(task(me.seen), Task::Bundled { bundle, .. } if bundle == me.bundle.into());
        let is_known = is_known && scope.bug != Bug::TakenAgain;
        let is_as_it_was = *word == me.seen || is_bundled && scope.bug == Bug::NoSwap;
        // Who has others commits them first.
        if !is_as_it_was || is_bundled && is_known || !is_bundled && me.has > 0 {
            return push("worker finds the unit taken", self.with(slot, Process::rest));
        }
        if is_bundled {
            *word = Task::Bundled { bundle: me.bundle.into(), attempts: me.attempts }.pack();
            push("worker takes the unit into its bundle", next);
        } else {
            *word = self.claimed(slot, me.attempts);
            next.workers[slot].alone = true;
            push("worker claims a unit alone", next);
        }
    }

    fn commit(&self, scope: &Scope, slot: usize, push: &mut impl FnMut(&'static str, Self)) {
        let me = self.workers[slot];
        let bundle = usize::from(me.bundle);
        if self.bundles[bundle] != self.claimed(slot, 0) && scope.bug != Bug::PlainCommit {
            let next = self.with(slot, |w| (w.pc, w.has) = (Pc::Done, 0));
            return push("worker finds its bundle gone, and leaves", next);
        }
        let mut next = self.with(slot, |w| {
            w.has = 0;
            if scope.bug != Bug::LateUnit {
                w.bundle = NONE;
            }
        });
        next.results[bundle] = me.has;
        next.bundles[bundle] = Task::Done { head: 100 + bundle as u32, attempts: 0 }.pack();
        push("worker commits its bundle", next);
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
        if self.disasters > 0 && slot == 0 {
            let mut next = *self;
            next.workers.iter_mut().filter(|w| w.pc != Pc::Gone).for_each(|w| w.pc = Pc::Killed);
            (next.disasters, next.is_resumed) = (0, true);
            out.push(("everybody dies with the leader", slot, next));
        }
    }

    /// Recovers word by word, in any order and cut off anywhere: the leader's steps are one each.
    fn leader_steps(&self, scope: &Scope, slot: usize, out: &mut Vec<Step>) {
        let me = self.workers[slot];
        let (is_dead, owner) = (me.pc == Pc::Killed, self.owner(slot));
        if !is_dead && !me.fenced {
            return;
        }
        let is_of = |word: u64| matches!(task(word), Task::Claimed { owner: found, .. } if found == owner);
        let mut left = false;
        for unit in 0..UNITS {
            let attempts = match task(self.units[unit]) {
                Task::Claimed { attempts, .. } if is_of(self.units[unit]) => attempts,
                Task::Bundled { bundle, attempts }
                    if scope.bug == Bug::UnitsFreed && is_of(self.bundles[bundle as usize]) =>
                {
                    attempts
                }
                _ => continue,
            };
            let claimed = Task::Claimed { owner, attempts };
            let free = Task::Free { attempts };
            let after =
                if self.is_resumed { free } else { claimed.after_death(owner, LIMIT).unwrap_or(free) };
            let mut next = *self;
            next.units[unit] = after.pack();
            out.push(("leader takes a claim back", slot, next));
            left = true;
        }
        for bundle in (0..BUNDLES).filter(|bundle| is_of(self.bundles[*bundle])) {
            if scope.bug == Bug::UnitsFreed && !is_dead {
                continue;
            }
            let attempts = u8::from(!self.is_resumed);
            let mut next = *self;
            next.bundles[bundle] = match scope.bug {
                Bug::UsedTwice => Task::Free { attempts: 0 },
                _ => Task::Poison { attempts },
            }
            .pack();
            out.push(("leader ends a bundle", slot, next));
            left = true;
        }
        if is_dead && !left {
            let mut next = *self;
            next.workers[slot] = Process { generation: me.generation + 1, ..ABSENT };
            if !(0..UNITS).all(|unit| self.is_settled(unit)) {
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

impl Process {
    /// Has no unit any more.
    fn rest(&mut self) {
        (self.pc, self.unit, self.alone, self.seen, self.attempts) = (Pc::Idle, NONE, false, 0, 0);
    }
}
