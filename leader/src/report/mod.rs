//! Reads the published stripes, sorts their keys, and hands them out as text.
//!
//! Stripes are hashes, so their keys come in no order. They are dealt into ranges by their highest bits; each range is sorted and turned into
//! text by itself, by as many threads as there were workers, and written in order. No process is started any more when the threads begin.
//! Where the order is by count, each thread sorts what it found ([`runs`]); where only the most frequent k-mers are asked for, it holds no others
//! ([`top`]); where none is listed, it holds none.

pub mod dealing;
pub mod runs;
pub mod share;
pub mod tally;
pub mod top;

use crate::failure::Failure;
use crate::lead::Outcome;
use crate::plan::Plan;
use crate::select::{Selection, Sort};
use dealing::{Dealing, Held, ON_PAGE};
use runs::Runs;
use share::Share;
use std::borrow::Cow;
use std::sync::mpsc::{Receiver, sync_channel};
use tally::Tally;
use top::{Top, by_count};

/// A key and the number of rows it is in.
pub type Entry = (u64, u32);
/// Entries that a range should have, more or less.
const RANGE_ENTRIES: usize = 1 << 15;

/// How entries become bytes.
pub trait EntryText: Sync {
    /// Appends entries, in order.
    fn append(&self, entries: &[Entry], text: &mut Vec<u8>);

    /// Bytes at the beginning of every entry that stand between it and the one before, so the very first does without.
    fn separator(&self) -> usize {
        0
    }
}

/// The k-mers to be reported.
pub struct Entries {
    ranges: Ranges,
    threads: usize,
    /// How many there are.
    pub count: u64,
    /// How many k-mers are in how many rows, of all k-mers, if that was asked for.
    pub histogram: Option<Tally>,
    /// The k-mers in the most rows, of all k-mers, if they were asked for.
    pub top: Option<Top>,
}

enum Ranges {
    /// By thread, then by range; not sorted yet.
    Dealt(Vec<Vec<Vec<Entry>>>, usize),
    /// By count, in sorted runs.
    Runs(Runs),
    /// In their final order.
    Listed(Vec<Entry>),
}

impl Entries {
    /// Reads the stripes of one of several passes.
    ///
    /// # Errors
    /// A damaged segment.
    pub fn deal(plan: &Plan, outcome: &Outcome) -> Result<Vec<Share>, Failure> {
        if plan.count_only && !plan.needs_entries() {
            Ok(Vec::new())
        } else {
            Dealing::new(plan, outcome).deal()
        }
    }

    /// Reads all stripes of the last pass, and adds them to what the ones `before` it found.
    ///
    /// # Errors
    /// A damaged segment.
    pub fn collect(plan: &Plan, outcome: &Outcome, before: Vec<Share>) -> Result<Self, Failure> {
        if plan.count_only && !plan.needs_entries() {
            // The stripes' own numbers say how many there are.
            let (ranges, count) = (Ranges::Listed(Vec::new()), outcome.drain.kept);
            return Ok(Self { ranges, threads: 1, count, histogram: None, top: None });
        }
        let (select, dealing) = (&plan.select, Dealing::new(plan, outcome));
        let mut shares = before;
        shares.extend(dealing.deal()?);
        let (mut admitted, mut held) = (0, Vec::new());
        let mut histogram = select.histogram.then(Tally::default);
        let mut top = plan.page.then(|| Top::new(ON_PAGE));
        for share in shares {
            admitted += share.admitted;
            held.push(share.entries);
            if let (Some(all), Some(tally)) = (&mut histogram, share.tally) {
                all.merge(tally);
            }
            if let (Some(all), Some(found)) = (&mut top, share.top) {
                all.merge(found);
            }
        }
        let ranges = match dealing.held {
            Held::Nothing => Ranges::Listed(Vec::new()),
            Held::Top(most) => {
                let mut all = Top::new(most);
                held.into_iter().flatten().flatten().for_each(|(key, rows)| all.add(key, rows));
                Ranges::Listed(sorted(all.into_entries(), select.sort))
            }
            Held::Run => Ranges::Runs(Runs::new(held.into_iter().flatten().collect(), RANGE_ENTRIES)),
            Held::Ranges(_) => Ranges::Dealt(held, dealing.held.ranges()),
        };
        let count = select.top.map_or(admitted, |most| admitted.min(most));
        Ok(Self { ranges, threads: dealing.threads, count, histogram, top })
    }

    /// Hands all entries, in order, as text to `sink`.
    ///
    /// # Errors
    /// What `sink` says.
    pub fn stream(
        &self,
        form: &dyn EntryText,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.stream_watched(form, sink, &mut |_, _| {})
    }

    /// The same; `watch` learns how many entries of how many, more or less, are handed out.
    ///
    /// # Errors
    /// What `sink` says.
    pub fn stream_watched(
        &self,
        form: &dyn EntryText,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
        watch: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Failure> {
        let (ranges, threads) = (self.ranges(), self.threads);
        let mut skip = form.separator();
        std::thread::scope(|scope| {
            let text_of = |range: usize| {
                let mut text = Vec::new();
                form.append(&self.range(range), &mut text);
                text
            };
            // `None`: the system has no thread for us.
            let texts: Vec<Option<Receiver<Vec<u8>>>> = (0..threads)
                .map(|thread| {
                    let (send, receive) = sync_channel(2);
                    let work = move || {
                        for range in (thread..ranges).step_by(threads) {
                            // A writer that failed has gone away; so do we.
                            if send.send(text_of(range)).is_err() {
                                return;
                            }
                        }
                    };
                    std::thread::Builder::new().spawn_scoped(scope, work).ok().map(|_| receive)
                })
                .collect();
            let receive = |range: usize| match &texts[range % threads] {
                Some(receiver) => receiver.recv(),
                None => Ok(text_of(range)),
            };
            let mut watch = |range: usize| {
                let done = u128::from(self.count) * range as u128 / ranges.max(1) as u128;
                watch(done as u64, self.count);
            };
            (0..ranges).inspect(|range| watch(*range)).try_for_each(|range| match receive(range) {
                Ok(text) if text.is_empty() => Ok(()),
                Ok(text) => sink(&text[std::mem::take(&mut skip)..]),
                Err(_) => Err(Failure::error("report: a thread ended too early")),
            })
        })
    }

    /// Hands all entries to `sink`, in order, some at a time.
    ///
    /// # Errors
    /// What `sink` says.
    pub fn each(&self, sink: &mut dyn FnMut(&[Entry]) -> Result<(), Failure>) -> Result<(), Failure> {
        (0..self.ranges()).try_for_each(|range| sink(&self.range(range)))
    }

    /// Entries that were collected elsewhere: ascending, or, where `select` wants the most frequent, those in any order. They are listed in its order.
    pub fn listed(entries: Vec<Entry>, select: &Selection) -> Self {
        let entries = match (select.top, select.sort) {
            (None, Sort::Kmer) => entries,
            (_, sort) => sorted(entries, sort),
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(64);
        let count = entries.len() as u64;
        Self { ranges: Ranges::Listed(entries), threads, count, histogram: None, top: None }
    }

    /// Forgets the entries, not how many they are: for a report that lists none.
    pub fn unlist(&mut self) {
        self.ranges = Ranges::Listed(Vec::new());
    }

    fn ranges(&self) -> usize {
        match &self.ranges {
            Ranges::Dealt(_, ranges) => *ranges,
            Ranges::Runs(runs) => runs.pieces(),
            Ranges::Listed(entries) => entries.len().div_ceil(RANGE_ENTRIES),
        }
    }

    fn range(&self, range: usize) -> Cow<'_, [Entry]> {
        match &self.ranges {
            Ranges::Dealt(dealt, _) => {
                let mut entries: Vec<Entry> =
                    dealt.iter().flat_map(|share| share[range].iter().copied()).collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                Cow::Owned(entries)
            }
            Ranges::Runs(runs) => Cow::Owned(runs.piece(range)),
            Ranges::Listed(entries) => {
                let start = range * RANGE_ENTRIES;
                Cow::Borrowed(&entries[start..entries.len().min(start + RANGE_ENTRIES)])
            }
        }
    }
}

fn sorted(mut entries: Vec<Entry>, sort: Sort) -> Vec<Entry> {
    match sort {
        Sort::Kmer => entries.sort_unstable_by_key(|(key, _)| *key),
        Sort::Count => entries.sort_unstable_by_key(by_count),
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_collected_elsewhere_is_in_order() {
        let listed = |top, sort| {
            let select = Selection { top, sort, min_rows: None, max_rows: None, histogram: false };
            let entries = Entries::listed(vec![(1, 3), (2, 2), (7, 2), (8, 3), (9, 1)], &select);
            assert_eq!(entries.count, 5);
            entries.range(0).into_owned()
        };
        assert_eq!(listed(None, Sort::Kmer), [(1, 3), (2, 2), (7, 2), (8, 3), (9, 1)]);
        assert_eq!(listed(None, Sort::Count), [(1, 3), (8, 3), (2, 2), (7, 2), (9, 1)]);
        assert_eq!(listed(Some(5), Sort::Kmer), listed(None, Sort::Kmer));
    }
}
