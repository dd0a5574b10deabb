//! The search, breadth first, and the judge: what no step may do, and what must hold when nothing can go on.

use crate::state::{Data, NONE, Scope, State};
use crate::steps::Steps;
use shm_layout::words::{Chunk, SlotState, Task};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A unit is missing from a stripe.
    Lost,
    /// A unit is in a stripe more than once.
    Doubled,
    /// A chunk is owned and nothing reaches it.
    Leak,
    /// Nothing can go on and the work is not done.
    Stuck,
    /// A DONE word, or what one reaches, was written.
    Overwritten,
    /// A chunk that a DONE word reaches was given away.
    Freed,
}

/// What a search found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Distinct states.
    pub(crate) states: u64,
    /// Steps between them.
    pub(crate) transitions: u64,
    /// Steps from the start to the last state found.
    pub(crate) depth: usize,
    /// States in which all is over.
    pub(crate) ends: u64,
    /// Those of them in which a task was given up.
    pub(crate) errors: u64,
    /// How often each kind of step was taken.
    pub(crate) kinds: Vec<(&'static str, u64)>,
    /// What went wrong first, and the shortest way there.
    pub(crate) violation: Option<(Violation, Vec<String>)>,
    /// How long it took.
    pub(crate) time: Duration,
}

impl State {
    /// All successors.
    pub(crate) fn steps(&self, scope: &Scope, out: &mut Steps) {
        out.clear();
        for worker in 0..scope.workers {
            self.worker_steps(scope, worker, out);
        }
        self.leader_steps(scope, out);
        self.stale_steps(scope, out);
    }

    /// What must never happen in a step: a DONE word that changes, a chunk that one reaches changed or given away.
    fn judge_step(&self, next: &Self, scope: &Scope) -> Option<Violation> {
        for task in 0..scope.tasks() {
            let complete = matches!(self.task(task), Task::Done { head, .. } if head != u32::from(NONE));
            if complete && next.tasks[task] != self.tasks[task] {
                return Some(Violation::Overwritten);
            }
        }
        let reached = self.reached(scope, next.phase);
        for chunk in (0..scope.chunks).filter(|chunk| reached >> chunk & 1 == 1) {
            if next.chunks[chunk] != self.chunks[chunk] {
                return Some(Violation::Freed);
            }
            if next.data[chunk] != self.data[chunk] {
                return Some(Violation::Overwritten);
            }
        }
        None
    }

    /// What must hold when nothing can go on.
    fn judge_end(&self, scope: &Scope) -> Option<Violation> {
        let stopped = |slot: usize| matches!(self.slot(slot).state, SlotState::Done | SlotState::Dead);
        if self.phase != scope.end() || !(0..scope.workers).all(stopped) {
            return Some(Violation::Stuck);
        }
        if !self.is_poisoned(scope)
            && let Some(wrong) = self.judge_tables(scope)
        {
            return Some(wrong);
        }
        let owned = |chunk: &usize| matches!(self.chunk(*chunk), Chunk::Owned { .. });
        let owned = (0..scope.chunks).filter(owned).fold(0, |mask, chunk| mask | 1 << chunk);
        let claimed = (0..scope.tasks()).any(|task| matches!(self.task(task), Task::Claimed { .. }));
        (owned != self.reached(scope, self.phase) || claimed).then_some(Violation::Leak)
    }

    fn is_poisoned(&self, scope: &Scope) -> bool {
        (0..scope.tasks()).any(|task| matches!(self.task(task), Task::Poison { .. }))
    }

    fn judge_tables(&self, scope: &Scope) -> Option<Violation> {
        for stripe in scope.unit_words()..scope.tasks() {
            let Task::Done { head, .. } = self.task(stripe) else { return Some(Violation::Stuck) };
            let data = self.data.get(head as usize).map_or(Data::Blank, |data| Data::unpack(*data));
            let Data::Table(seen) = data else { return Some(Violation::Lost) };
            let expected = scope.expected(stripe);
            for unit in 0..scope.unit_words() {
                match seen.get(unit).cmp(&expected.get(unit)) {
                    std::cmp::Ordering::Less => return Some(Violation::Lost),
                    std::cmp::Ordering::Greater => return Some(Violation::Doubled),
                    std::cmp::Ordering::Equal => {}
                }
            }
        }
        None
    }
}

impl Report {
    fn count(&mut self, what: &'static str) {
        self.transitions += 1;
        match self.kinds.iter_mut().find(|kind| std::ptr::eq(kind.0, what)) {
            Some(kind) => kind.1 += 1,
            None => self.kinds.push((what, 1)),
        }
    }
}

/// Visits every state that can be reached, level by level, until the first violation.
pub(crate) fn search(scope: &Scope) -> Report {
    let start = Instant::now();
    let first = State::new(scope).canonical(scope);
    let mut seen = Seen::new();
    seen.insert(first.fingerprint(scope), 0);
    let (mut level, mut next_level, mut steps) = (vec![first], Vec::new(), Steps::new());
    let mut report = Report { states: 1, ..Report::default() };
    let mut found = None;
    'levels: while !level.is_empty() {
        for state in level.drain(..) {
            let from = state.fingerprint(scope);
            state.steps(scope, &mut steps);
            if steps.is_empty() {
                report.ends += 1;
                report.errors += u64::from(state.is_poisoned(scope));
                found = state.judge_end(scope).map(|wrong| (wrong, from, None));
            }
            for (step, next) in &steps {
                report.count(step.what);
                found =
                    found.or_else(|| state.judge_step(next, scope).map(|wrong| (wrong, from, Some(*step))));
                let next = next.canonical(scope);
                if seen.insert(next.fingerprint(scope), from) {
                    next_level.push(next);
                }
            }
            if found.is_some() {
                break 'levels;
            }
        }
        std::mem::swap(&mut level, &mut next_level);
        report.depth += usize::from(!level.is_empty());
    }
    report.states = seen.count as u64;
    report.violation = found.map(|(wrong, last, step)| {
        let mut trace = trace(scope, &seen, last);
        trace.extend(step.map(|step| format!("{} {} {}", step.who, step.what, step.at)));
        (wrong, trace)
    });
    report.time = start.elapsed();
    report
}

/// The way from the start to the state with fingerprint `last`, found again by its fingerprints. Names stay what they are here.
fn trace(scope: &Scope, seen: &Seen, last: u64) -> Vec<String> {
    let mut way = vec![last];
    while let Some(from) = seen.parent(way[way.len() - 1]).filter(|from| *from != 0) {
        way.push(from);
    }
    way.pop();
    let (mut state, mut steps, mut lines) = (State::new(scope), Steps::new(), Vec::new());
    for print in way.iter().rev() {
        state.steps(scope, &mut steps);
        let taken = steps.iter().find(|(_, next)| next.canonical(scope).fingerprint(scope) == *print);
        let Some((step, next)) = taken else {
            lines.push("(the rest of the way was not found again)".to_owned());
            break;
        };
        lines.push(format!("{} {} {}", step.who, step.what, step.at));
        state = *next;
    }
    lines
}

/// Fingerprints of the states seen and of those they were reached from: open addressing, 16 bytes an entry.
struct Seen {
    table: Vec<(u64, u64)>,
    count: usize,
}

impl Seen {
    fn new() -> Self {
        Self { table: vec![(0, 0); 1 << 16], count: 0 }
    }

    fn slot(&self, print: u64) -> usize {
        let mask = self.table.len() - 1;
        let mut at = (print >> 20) as usize & mask;
        while self.table[at].0 != 0 && self.table[at].0 != print {
            at = (at + 1) & mask;
        }
        at
    }

    fn insert(&mut self, print: u64, from: u64) -> bool {
        if (self.count + 1) * 4 > self.table.len() * 3 {
            let wider = vec![(0, 0); self.table.len() * 2];
            for entry in std::mem::replace(&mut self.table, wider).into_iter().filter(|entry| entry.0 != 0) {
                let at = self.slot(entry.0);
                self.table[at] = entry;
            }
        }
        let at = self.slot(print);
        let new = self.table[at].0 == 0;
        if new {
            self.table[at] = (print, from);
            self.count += 1;
        }
        new
    }

    fn parent(&self, print: u64) -> Option<u64> {
        let entry = self.table[self.slot(print)];
        (entry.0 == print).then_some(entry.1)
    }
}

/// True when a run can come back to a state that it was in: then it might go on for ever without an end.
pub(crate) fn has_circle(scope: &Scope) -> bool {
    let first = State::new(scope).canonical(scope);
    let (mut seen, mut on_path) = (Seen::new(), HashSet::new());
    let mut path = vec![(first.fingerprint(scope), vec![first])];
    let mut steps = Steps::new();
    // Each entry is a state and the successors of it that are still to be visited; the first entry stands before the start.
    while let Some((print, todo)) = path.last_mut() {
        let Some(state) = todo.pop() else {
            on_path.remove(print);
            path.pop();
            continue;
        };
        let print = state.fingerprint(scope);
        if on_path.contains(&print) {
            return true;
        }
        if seen.insert(print, 0) {
            on_path.insert(print);
            state.steps(scope, &mut steps);
            path.push((print, steps.iter().map(|(_, next)| next.canonical(scope)).collect()));
        }
    }
    false
}

/// How many states a search with `scope.reduce` keeps of those that one without it visits; to compare with what the reduced one finds.
pub(crate) fn images(scope: &Scope) -> (u64, u64) {
    let (raw, reduced) = (Scope { reduce: false, ..*scope }, Scope { reduce: true, ..*scope });
    let (mut seen, mut images) = (Seen::new(), Seen::new());
    let (mut stack, mut steps) = (vec![State::new(scope)], Steps::new());
    seen.insert(stack[0].fingerprint(scope), 0);
    while let Some(state) = stack.pop() {
        images.insert(state.canonical(&reduced).fingerprint(scope), 0);
        state.steps(&raw, &mut steps);
        stack.extend(
            steps.iter().map(|(_, next)| *next).filter(|next| seen.insert(next.fingerprint(scope), 0)),
        );
    }
    (seen.count as u64, images.count as u64)
}
