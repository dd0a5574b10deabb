//! What the leader notes while a run goes on, for a page about it: memory, deaths, phases, and at the end what the workers noted.

use crate::failure::Failure;
use kmer_worker::shared::Shared;
use kmer_worker::trace::{Event, now};
use std::time::Duration;

/// The leader looks at the memory so often.
pub const EVERY: Duration = Duration::from_millis(50);
/// More looks than these are thinned out.
const MAX_LOOKS: usize = 2000;

/// When a run (or one of its passes) came to what; all times are of [`now`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Its segment was there.
    pub began: u64,
    /// The drain was opened.
    pub drain: u64,
    /// All stripes were settled.
    pub ended: u64,
}

/// A worker's death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// When the leader saw it.
    pub at: u64,
    /// Slot of the worker.
    pub slot: u16,
    /// How it ended.
    pub how: String,
}

/// All that was noted.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Of each pass.
    pub passes: Vec<Phases>,
    /// Tasks of the workers.
    pub events: Vec<Event>,
    /// Tasks of which there is no note.
    pub lost: u64,
    /// Bytes of the segment at some times.
    pub memory: Vec<(u64, u64)>,
    /// Deaths of workers.
    pub deaths: Vec<Death>,
    skip: usize,
    skipped: usize,
}

impl Record {
    /// Begins with a pass.
    pub fn begin(shared: &Shared) -> Self {
        let mut record = Self::default();
        record.passes.push(Phases { began: now(), ..Phases::default() });
        record.look(shared);
        record
    }

    fn last(&mut self) -> &mut Phases {
        if self.passes.is_empty() {
            self.passes.push(Phases::default());
        }
        let last = self.passes.len() - 1;
        &mut self.passes[last]
    }

    /// Notes that the drain is open.
    pub fn drain(&mut self) {
        self.last().drain = now();
    }

    /// Looks at the memory.
    pub fn look(&mut self, shared: &Shared) {
        self.skipped += 1;
        if self.skipped <= self.skip {
            return;
        }
        self.skipped = 0;
        if let Ok(bytes) = shared.segment.resident() {
            self.memory.push((now(), bytes));
        }
        if self.memory.len() >= MAX_LOOKS {
            let mut at = 0;
            self.memory.retain(|_| {
                at += 1;
                !usize::is_multiple_of(at, 2)
            });
            self.skip = 2 * self.skip + 1;
        }
    }

    /// Notes a death.
    pub fn death(&mut self, slot: u16, how: String) {
        self.deaths.push(Death { at: now(), slot, how });
    }

    /// Takes what the workers noted, when all stripes are settled.
    ///
    /// # Errors
    /// When the segment is damaged.
    pub fn end(&mut self, shared: &Shared) -> Result<(), Failure> {
        self.skipped = self.skip;
        self.look(shared);
        self.last().ended = now();
        if let Some(trace) = &shared.trace {
            let (events, lost) = trace.read()?;
            self.events.extend(events);
            self.lost += lost;
        }
        Ok(())
    }

    /// Adds another pass.
    pub fn then(&mut self, next: Self) {
        self.passes.extend(next.passes);
        self.events.extend(next.events);
        self.memory.extend(next.memory);
        self.deaths.extend(next.deaths);
        self.lost += next.lost;
    }
}
