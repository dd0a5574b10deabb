//! What a worker can do next, each step one access to a shared word or to a chunk, and what can be done to a worker.

use crate::state::{Bug, Data, MAX_CHUNKS, MAX_WORKERS, NONE, Pc, Scope, Seen, State, Worker};
use shm_layout::words::{Chunk, Owner, Slot, SlotState, Task};

/// A step: who, what, and on which unit, chunk or slot. For traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// "worker 0", "leader", ...
    pub(crate) who: &'static str,
    /// What is done.
    pub(crate) what: &'static str,
    /// To which task, chunk or slot.
    pub(crate) at: usize,
}

/// Successors of a state.
pub(crate) type Steps = Vec<(Step, State)>;

const NAMES: [&str; MAX_WORKERS] = ["worker 0", "worker 1", "worker 2"];

impl State {
    /// Adds everything that worker `w` can do, and that can happen to it.
    pub(crate) fn worker_steps(&self, scope: &Scope, w: usize, out: &mut Steps) {
        if self.workers[w].pc == Pc::Gone {
            return;
        }
        self.faults(w, out);
        match self.workers[w].pc {
            Pc::Gone => {}
            Pc::Start => self.start(w, out),
            Pc::Idle | Pc::Checked => self.look_for_work(scope, w, out),
            Pc::Noting => self.note_claim(w, out),
            Pc::Allocate => self.allocate(scope, w, out),
            Pc::Taken => self.note_chunk(scope, w, out),
            Pc::Read => self.read(scope, w, out),
            Pc::Write => self.write(scope, w, out),
            Pc::Commit => self.commit(scope, w, out),
            Pc::Head => self.store_head(w, out),
            Pc::Abort => self.abort(scope, w, out),
        }
    }

    fn faults(&self, w: usize, out: &mut Steps) {
        let fence = |state| Slot { state, generation: u32::from(self.workers[w].generation) }.pack();
        let (running, fenced) = (fence(SlotState::Running), fence(SlotState::Fenced));
        if self.kills > 0 {
            let mut next = *self;
            next.kills -= 1;
            next.workers[w] = Worker::default();
            out.push((step(w, "is killed", w), next));
        }
        if self.slots[w] == fenced {
            let mut next = *self;
            next.workers[w] = Worker::default();
            out.push((step(w, "is killed by the leader after its fence", w), next));
        }
        if self.suspicions > 0 && self.slots[w] == running {
            let mut next = *self;
            next.suspicions -= 1;
            next.slots[w] = fenced;
            out.push((step(w, "is wrongly believed dead: fenced", w), next));
        }
    }

    fn is_running(&self, w: usize) -> bool {
        let slot = self.slot(w);
        slot.state == SlotState::Running && slot.generation == u32::from(self.workers[w].generation)
    }

    fn start(&self, w: usize, out: &mut Steps) {
        let generation = u32::from(self.workers[w].generation);
        let mut next = *self;
        if self.slots[w] == (Slot { state: SlotState::Starting, generation }).pack() {
            next.slots[w] = Slot { state: SlotState::Running, generation }.pack();
            next.workers[w].pc = Pc::Idle;
        } else {
            next.workers[w] = Worker::default();
        }
        out.push((step(w, "starts", w), next));
    }

    fn look_for_work(&self, scope: &Scope, w: usize, out: &mut Steps) {
        let me = self.workers[w];
        if self.phase == scope.end() {
            return out.push((step(w, "exits, all is done", w), self.exit(w)));
        }
        if me.pc == Pc::Idle {
            if !self.is_running(w) {
                return out.push((step(w, "exits, it is fenced", w), self.exit(w)));
            }
            let mut next = *self;
            next.workers[w].pc = Pc::Checked;
            return out.push((step(w, "is not fenced", w), next));
        }
        for task in scope.open(self.phase) {
            let Task::Free { attempts } = self.task(task) else { continue };
            let fresh_unit = !scope.is_stripe(task) && attempts == 0;
            if scope.bug != Bug::TwoStepClaim || !fresh_unit {
                let mut next = *self;
                next.tasks[task] = Task::Claimed { owner: self.owner(w), attempts }.pack();
                next.workers[w] = me.working_on(task, attempts, Pc::Allocate);
                if scope.bug == Bug::DrainInPlace && scope.is_stripe(task) {
                    next.workers[w].seen = self.in_place[task - scope.unit_words()];
                }
                out.push((step(w, "claims", task), next));
            } else if task == usize::from(self.hint) {
                let mut next = *self;
                next.hint += 1;
                next.workers[w] = me.working_on(task, 0, Pc::Noting);
                out.push((step(w, "advances the hint past", task), next));
            }
        }
    }

    fn note_claim(&self, w: usize, out: &mut Steps) {
        let me = self.workers[w];
        let mut next = *self;
        next.tasks[usize::from(me.task)] = Task::Claimed { owner: self.owner(w), attempts: 0 }.pack();
        next.workers[w].pc = Pc::Allocate;
        out.push((step(w, "notes itself in", me.task.into()), next));
    }

    fn allocate(&self, scope: &Scope, w: usize, out: &mut Steps) {
        let mut tried = [None; MAX_CHUNKS];
        for chunk in 0..scope.chunks {
            let mut found = self.chunk(chunk);
            if scope.bug == Bug::NoSequence && matches!(found, Chunk::Free { .. }) {
                found = Chunk::Free { seq: 0 };
            }
            let Some(Chunk::Owned { owner, seq }) = found.allocated(self.owner(w)) else { continue };
            // Free chunks with one content that nobody remembers are alike.
            let key = Some((self.chunks[chunk], self.data[chunk], self.is_remembered(chunk)));
            if scope.reduce && tried.contains(&key) {
                continue;
            }
            tried[chunk] = key;
            let seq = if scope.bug == Bug::NoSequence { 0 } else { seq };
            let mut next = *self;
            let me = &mut next.workers[w];
            (me.chunk[usize::from(me.held)], me.seq[usize::from(me.held)]) = (chunk as u8, seq as u8);
            me.held += 1;
            me.pc = if scope.is_stripe(me.task.into()) { Pc::Read } else { Pc::Write };
            next.chunks[chunk] = Chunk::Owned { owner, seq }.pack();
            if scope.bug == Bug::AllocateThenNote {
                let nobody = Owner { slot: 8, generation: 0 };
                next.chunks[chunk] = Chunk::Owned { owner: nobody, seq }.pack();
                next.workers[w].pc = Pc::Taken;
            }
            out.push((step(w, "allocates", chunk), next));
        }
        let stop = self.phase == scope.end() || !self.is_running(w);
        if tried == [None; MAX_CHUNKS] && stop {
            self.give_back(w, out);
        }
    }

    fn give_back(&self, w: usize, out: &mut Steps) {
        let me = self.workers[w];
        let task = usize::from(me.task);
        let mut next = *self;
        if self.tasks[task] == (Task::Claimed { owner: self.owner(w), attempts: me.attempts }).pack() {
            next.tasks[task] = Task::Free { attempts: me.attempts }.pack();
        }
        next.workers[w] = me.aborting();
        out.push((step(w, "gives up for the full arena, and gives back", task), next));
    }

    fn is_remembered(&self, chunk: usize) -> bool {
        use crate::state::Stale;
        let stale = match self.stale {
            Stale::Chunk { index, .. } | Stale::Sealed { index, .. } => usize::from(index) == chunk,
            _ => false,
        };
        stale || self.workers.iter().any(|w| w.chunk[..usize::from(w.held)].contains(&(chunk as u8)))
    }

    fn note_chunk(&self, scope: &Scope, w: usize, out: &mut Steps) {
        let me = self.workers[w];
        let last = usize::from(me.held) - 1;
        let chunk = usize::from(me.chunk[last]);
        let mut next = *self;
        next.chunks[chunk] = Chunk::Owned { owner: self.owner(w), seq: me.seq[last].into() }.pack();
        next.workers[w].pc = if scope.is_stripe(me.task.into()) { Pc::Read } else { Pc::Write };
        out.push((step(w, "notes itself in chunk", chunk), next));
    }

    fn read(&self, scope: &Scope, w: usize, out: &mut Steps) {
        let me = self.workers[w];
        let mut next = *self;
        let unit = scope.live_units(self.phase).start + usize::from(me.read);
        if let Task::Done { head, .. } = self.task(unit) {
            let (_, pieces) = self.chain(head);
            let seen = &mut next.workers[w].seen;
            for piece in 0..scope.unit_words() {
                (0..pieces.get(piece)).for_each(|_| seen.add(piece));
            }
            if scope.bug == Bug::DrainInPlace {
                next.in_place[usize::from(me.task) - scope.unit_words()] = *seen;
            }
        }
        next.workers[w].read += 1;
        if usize::from(next.workers[w].read) == scope.units.len() {
            next.workers[w].pc = Pc::Write;
        }
        out.push((step(w, "reads unit", unit), next));
    }

    fn write(&self, scope: &Scope, w: usize, out: &mut Steps) {
        let me = self.workers[w];
        let last = usize::from(me.held) - 1;
        let before = if last == 0 { NONE } else { me.chunk[last - 1] };
        let data = if scope.is_stripe(me.task.into()) {
            Data::Table(me.seen)
        } else {
            Data::Piece { unit: me.task, next: before }
        };
        let mut next = *self;
        next.data[usize::from(me.chunk[last])] = data.pack();
        let complete = me.held == scope.length(me.task.into());
        next.workers[w].pc = if complete { Pc::Commit } else { Pc::Allocate };
        out.push((step(w, "writes chunk", me.chunk[last].into()), next));
    }

    fn commit(&self, scope: &Scope, w: usize, out: &mut Steps) {
        let me = self.workers[w];
        let task = usize::from(me.task);
        let head = u32::from(me.chunk[usize::from(me.held) - 1]);
        let claim = Task::Claimed { owner: self.owner(w), attempts: me.attempts }.pack();
        let unchecked =
            scope.bug == Bug::PlainCommit || scope.bug == Bug::DrainUnchecked && scope.is_stripe(task);
        let mut next = *self;
        if self.tasks[task] != claim && !unchecked {
            next.workers[w] = me.aborting();
            return out.push((step(w, "finds its claim gone from", task), next));
        }
        let (head, pc) =
            if scope.bug == Bug::TwoWordPublish { (u32::from(NONE), Pc::Head) } else { (head, Pc::Idle) };
        next.tasks[task] = Task::Done { head, attempts: me.attempts }.pack();
        match pc {
            Pc::Head => next.workers[w].pc = Pc::Head,
            _ => next.workers[w] = me.idle(),
        }
        out.push((step(w, "commits", task), next));
    }

    fn store_head(&self, w: usize, out: &mut Steps) {
        let me = self.workers[w];
        let mut next = *self;
        let head = u32::from(me.chunk[usize::from(me.held) - 1]);
        next.tasks[usize::from(me.task)] = Task::Done { head, attempts: me.attempts }.pack();
        next.workers[w] = me.idle();
        out.push((step(w, "stores the head of", me.task.into()), next));
    }

    fn abort(&self, scope: &Scope, w: usize, out: &mut Steps) {
        let me = self.workers[w];
        let Some(last) = usize::from(me.held).checked_sub(1) else {
            return out.push((step(w, "exits after its chunks are back", w), self.exit(w)));
        };
        let chunk = usize::from(me.chunk[last]);
        let owned = Chunk::Owned { owner: self.owner(w), seq: me.seq[last].into() };
        let mut next = *self;
        if self.chunks[chunk] == owned.pack() {
            next.free(scope, chunk);
        }
        next.workers[w].held -= 1;
        (next.workers[w].chunk[last], next.workers[w].seq[last]) = (0, 0);
        out.push((step(w, "gives back chunk", chunk), next));
    }

    fn exit(&self, w: usize) -> Self {
        let mut next = *self;
        if self.is_running(w) && matches!(self.workers[w].pc, Pc::Idle | Pc::Checked) {
            next.slots[w] = Slot { state: SlotState::Done, ..self.slot(w) }.pack();
        }
        next.workers[w] = Worker::default();
        next
    }

    /// Frees a chunk whose word was found to be the expected one.
    pub(crate) fn free(&mut self, scope: &Scope, chunk: usize) {
        let freed = self.chunk(chunk).released();
        self.chunks[chunk] = if scope.bug == Bug::NoSequence { Chunk::Free { seq: 0 } } else { freed }.pack();
        self.data[chunk] = Data::Blank.pack();
    }
}

impl Worker {
    fn idle(self) -> Self {
        Self { pc: Pc::Idle, generation: self.generation, ..Self::default() }
    }

    fn aborting(self) -> Self {
        Self { pc: Pc::Abort, task: 0, attempts: 0, read: 0, seen: Seen(0), ..self }
    }

    fn working_on(self, task: usize, attempts: u8, pc: Pc) -> Self {
        Self { pc, task: task as u8, attempts, seen: Seen(0), ..self.idle() }
    }
}

fn step(w: usize, what: &'static str, at: usize) -> Step {
    Step { who: NAMES[w], what, at }
}
