//! Reads the published stripes, each thread every so manieth of them, and holds of their k-mers what the report needs.

use super::share::Share;
use super::tally::Tally;
use super::top::{Top, by_count};
use super::{Entry, RANGE_ENTRIES};
use crate::failure::Failure;
use crate::lead::Outcome;
use crate::limits;
use crate::plan::Plan;
use crate::select::Sort;
use crate::totals::{image_bytes, open_stripe};

/// The most frequent k-mers that a page about the run shows.
pub const ON_PAGE: u64 = 20;
const MAX_RANGE_BITS: u32 = 14;
const PASS_RANGE_BITS: u32 = 8;

/// What is held of the k-mers that are admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing: none is listed.
    Nothing,
    /// The most frequent ones, in a list.
    Top(u64),
    /// All, in a list that is sorted by count.
    Run,
    /// All, by the highest bits of their keys; not sorted.
    Ranges(u32),
}

impl Held {
    /// What the report needs.
    pub fn of(plan: &Plan, kept: u64) -> Self {
        match (plan.select.top, plan.select.sort) {
            _ if plan.count_only && !plan.pins => Self::Nothing,
            (Some(most), _) => Self::Top(most),
            (None, Sort::Count) => Self::Run,
            // Where there are several passes, none knows how many entries there will be.
            (None, Sort::Kmer) if plan.job.pass_bits > 0 => {
                Self::Ranges(PASS_RANGE_BITS.min(plan.params.key_bits()))
            }
            (None, Sort::Kmer) => {
                let wanted = (kept / RANGE_ENTRIES as u64).max(1).ilog2();
                Self::Ranges(wanted.min(MAX_RANGE_BITS).min(plan.params.key_bits()))
            }
        }
    }

    /// How many ranges there are, for one list or many.
    pub fn ranges(self) -> usize {
        match self {
            Self::Ranges(bits) => 1 << bits,
            _ => 1,
        }
    }

    /// Entries that are held of `kept`, at the most, by all of `threads`.
    fn entries(self, kept: u64, threads: usize) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Top(most) => kept.min(most.saturating_mul(2 * threads as u64)),
            Self::Run | Self::Ranges(_) => kept,
        }
    }
}

/// The work of all threads.
pub struct Dealing<'a> {
    plan: &'a Plan,
    outcome: &'a Outcome,
    /// What they hold.
    pub held: Held,
    /// How many they are.
    pub threads: usize,
}

impl<'a> Dealing<'a> {
    /// For the stripes of a pass.
    pub fn new(plan: &'a Plan, outcome: &'a Outcome) -> Self {
        let held = Held::of(plan, outcome.drain.kept);
        // A few k-mers are not worth a thread.
        let most = (outcome.drain.kept / RANGE_ENTRIES as u64).clamp(1, 64) as usize;
        let threads = usize::from(plan.workers.workers).clamp(1, most);
        Self { plan, outcome, held, threads }
    }

    /// Past the limit of a control group the kernel would kill us instead of refusing memory.
    fn check_room(&self) -> Result<(), Failure> {
        // Vectors that grow have room for half as many again.
        let held = self.held.entries(self.outcome.drain.kept, self.threads);
        let wanted = held * size_of::<Entry>() as u64 * 3 / 2;
        match limits::cgroup_left() {
            Some(left) if left < wanted => {
                let text = format!(
                    "memory: expected {wanted} bytes for the k-mers found, found {left} left in the control group"
                );
                Err(Failure::error(text).hint("allow more memory there, or ask for fewer k-mers"))
            }
            _ => Ok(()),
        }
    }

    /// What each of the threads finds.
    ///
    /// # Errors
    /// A damaged segment.
    pub fn deal(&self) -> Result<Vec<Share>, Failure> {
        self.check_room()?;
        std::thread::scope(|scope| {
            let start = |thread| std::thread::Builder::new().spawn_scoped(scope, move || self.share(thread));
            let threads: Vec<_> = (0..self.threads).map(|thread| (thread, start(thread))).collect();
            threads
                .into_iter()
                .map(|(thread, started)| match started {
                    Ok(t) => t.join().map_err(|_| Failure::error("report: a thread ended too early"))?,
                    // The system has no thread for us.
                    Err(_) => self.share(thread),
                })
                .collect()
        })
    }

    fn share(&self, thread: usize) -> Result<Share, Failure> {
        let select = &self.plan.select;
        let mut share = Share {
            tally: select.histogram.then(Tally::default),
            top: self.plan.page.then(|| Top::new(ON_PAGE)),
            ..Share::default()
        };
        let mut chosen = Top::new(select.top.unwrap_or(0));
        let chooses = matches!(self.held, Held::Top(_));
        let mut counts = vec![0; self.held.ranges()];
        let range = self.range();
        self.each(thread, true, |key, rows, admitted| {
            if admitted {
                share.admitted += 1;
                counts[range(key)] += 1;
                if chooses {
                    chosen.add(key, rows);
                }
            }
            if let Some(tally) = &mut share.tally {
                tally.add(rows, 1);
            }
            if let Some(top) = &mut share.top {
                top.add(key, rows);
            }
        })?;
        share.entries = match self.held {
            Held::Nothing => Vec::new(),
            Held::Top(_) => vec![chosen.into_entries()],
            Held::Run | Held::Ranges(_) => self.entries(thread, counts)?,
        };
        Ok(share)
    }

    /// The admitted entries of a thread's stripes, of which so many as `counts` says are in each range.
    fn entries(&self, thread: usize, counts: Vec<usize>) -> Result<Vec<Vec<Entry>>, Failure> {
        let range = self.range();
        let mut ranges: Vec<Vec<Entry>> = counts.into_iter().map(Vec::with_capacity).collect();
        self.each(thread, false, |key, rows, admitted| {
            if admitted {
                ranges[range(key)].push((key, rows));
            }
        })?;
        if self.held == Held::Run {
            ranges.iter_mut().for_each(|run| run.sort_unstable_by_key(by_count));
        }
        Ok(ranges)
    }

    /// The range that a key belongs to.
    fn range(&self) -> impl Fn(u64) -> usize + use<> {
        let (bits, ranges) = (self.plan.params.key_bits(), self.held.ranges());
        let shift = bits - ranges.ilog2();
        // Shifting a number of 64 bits by 64 is no shift at all.
        move |key| if ranges == 1 { 0 } else { (key >> shift) as usize & (ranges - 1) }
    }

    /// Calls `each` with the k-mers of a thread's stripes, their rows, and whether they are admitted. The first time what the stripes say of
    /// themselves is looked at.
    fn each(&self, thread: usize, first: bool, mut each: impl FnMut(u64, u32, bool)) -> Result<(), Failure> {
        let (shared, select, threshold) = (&self.outcome.shared, self.plan.select, self.outcome.threshold);
        let mut scratch = Vec::new();
        for stripe in (thread..shared.stripes.len()).step_by(self.threads) {
            if first {
                image_bytes(shared, stripe, &mut scratch)?;
            }
            let Some((_, image)) = open_stripe(shared, stripe)? else { continue };
            image.for_each(&mut scratch, |key, rows| each(key, rows, select.admits(threshold, rows)))?;
        }
        Ok(())
    }
}
