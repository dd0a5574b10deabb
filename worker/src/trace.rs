//! When each task was claimed and done, by each worker: for a picture of the run, and only if one was asked for (`--report`).
//!
//! ```text
//! trace := slot*                  one for each slot of the segment
//! slot  := count u64, event*      events of the slot so far, more than are kept perhaps: the newest are
//! event := what u64               1 unit, 2 stripe in the high half, its number in the low half
//!          asked u64              when it was asked for a task
//!          claimed u64            when it had it
//!          ended u64              when its result was published; all in nanoseconds of CLOCK_MONOTONIC, which is one for all processes
//! ```
//!
//! A slot's events are its worker's alone; the leader reads them when the run is over. A worker that dies leaves what it had written: an event counts
//! from the moment that `count` says so. No decision rests on any of this.

use crate::error::WorkError;
use nix::time::{ClockId, clock_gettime};
use shm_layout::segment::Segment;
use shm_layout::sync::Ordering;
use shm_layout::toc::Area;
use std::sync::Arc;

const EVENT_WORDS: usize = 4;
/// Events that are kept of a slot at the most.
pub const MAX_EVENTS: usize = 4096;

/// What a worker did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Scanned this unit.
    Unit(u32),
    /// Drained this stripe.
    Stripe(u32),
}

/// One task of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Slot of the worker.
    pub slot: u16,
    /// What it did.
    pub what: What,
    /// When it asked for a task.
    pub asked: u64,
    /// When it had it.
    pub claimed: u64,
    /// When the result was published.
    pub ended: u64,
}

/// This process's view of the trace.
#[derive(Clone)]
pub struct Trace {
    segment: Arc<Segment>,
    at: usize,
    slots: usize,
    events: usize,
}

/// Nanoseconds of the clock that all processes share; 0 where there is none.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC);
    time.map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

impl Trace {
    const fn slot_bytes(events: usize) -> usize {
        8 * (1 + events * EVENT_WORDS)
    }

    /// Bytes for so many slots and events of each.
    pub const fn estimate(slots: usize, events: usize) -> usize {
        slots * Self::slot_bytes(events)
    }

    /// Uses the trace in `area`, which is of so many slots. Zeroed memory has no events, so this also creates it. `None` when the area is too
    /// small for one event each.
    pub fn attach(segment: &Arc<Segment>, area: Area, slots: usize) -> Option<Self> {
        let words = area.len.checked_div(slots)? / 8;
        let events = words.checked_sub(1)? / EVENT_WORDS;
        (events > 0).then(|| Self { segment: Arc::clone(segment), at: area.offset, slots, events })
    }

    fn set(&self, at: usize, value: u64, ordering: Ordering) -> Result<(), WorkError> {
        self.segment.map().word(at)?.store(value, ordering);
        Ok(())
    }

    /// Writes an event, over the oldest one if there is no other room.
    ///
    /// # Errors
    /// None for a slot that exists.
    pub fn record(&self, event: Event) -> Result<(), WorkError> {
        let slot = self.at + usize::from(event.slot) * Self::slot_bytes(self.events);
        let count = self.segment.map().word(slot)?.load(Ordering::Relaxed);
        let what = match event.what {
            What::Unit(task) => 1 << 32 | u64::from(task),
            What::Stripe(task) => 2 << 32 | u64::from(task),
        };
        let place = slot + 8 * (1 + (count % self.events as u64) as usize * EVENT_WORDS);
        for (word, value) in [what, event.asked, event.claimed, event.ended].into_iter().enumerate() {
            self.set(place + 8 * word, value, Ordering::Relaxed)?;
        }
        // Release: partner is the Acquire in `read`.
        self.set(slot, count + 1, Ordering::Release)
    }

    /// All events that are kept, in the order of their slots and then of time, and how many are not. What makes no sense is left out.
    ///
    /// # Errors
    /// None for an attached segment.
    pub fn read(&self) -> Result<(Vec<Event>, u64), WorkError> {
        let (mut events, mut lost) = (Vec::new(), 0u64);
        for slot in 0..self.slots as u16 {
            let begin = self.at + usize::from(slot) * Self::slot_bytes(self.events);
            let count = self.segment.map().word(begin)?.load(Ordering::Acquire);
            let kept = count.min(self.events as u64);
            lost = lost.saturating_add(count - kept);
            for place in 0..kept as usize {
                let place = begin + 8 * (1 + place * EVENT_WORDS);
                let word = |n: usize| self.segment.map().word(place + 8 * n);
                let [what, asked, claimed, ended] =
                    [word(0)?, word(1)?, word(2)?, word(3)?].map(|word| word.load(Ordering::Relaxed));
                let what = match what >> 32 {
                    1 => What::Unit(what as u32),
                    2 => What::Stripe(what as u32),
                    _ => continue,
                };
                if asked <= claimed && claimed <= ended {
                    events.push(Event { slot, what, asked, claimed, ended });
                }
            }
        }
        events.sort_by_key(|event| (event.slot, event.claimed));
        Ok((events, lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_layout::segment::Plan;
    use shm_layout::toc::TocEstimator;

    #[test]
    fn the_newest_events_are_kept() {
        let bytes = Trace::estimate(2, 3);
        let mut toc = TocEstimator::default();
        toc.estimate(bytes);
        let plan = Plan { toc_bytes: toc.total(), chunk_bytes: 4096, chunks: 1, beside: 0, build: 7 };
        let segment = Arc::new(Segment::create_private(&plan).expect("memory"));
        let area = segment.toc().expect("a table").allocate(1, bytes).expect("estimated");
        let trace = Trace::attach(&segment, area, 2).expect("room for three each");
        assert_eq!(trace.read().expect("mapped"), (Vec::new(), 0));
        let event = |slot: u16, n: u64| {
            let what = if n.is_multiple_of(2) { What::Unit(n as u32) } else { What::Stripe(u32::MAX) };
            Event { slot, what, asked: 10 * n, claimed: 10 * n + 1, ended: 10 * n + 9 }
        };
        for n in 0..5 {
            trace.record(event(1, n)).expect("mapped");
        }
        trace.record(event(0, 7)).expect("mapped");
        // One that cannot be.
        trace.record(Event { ended: 0, ..event(0, 8) }).expect("mapped");
        let expected = vec![event(0, 7), event(1, 2), event(1, 3), event(1, 4)];
        assert_eq!(trace.read().expect("mapped"), (expected, 2));
        assert!(now() > 0);
    }
}
