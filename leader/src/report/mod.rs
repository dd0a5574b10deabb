//! Reads the published stripes, sorts their keys, and hands them out as text.
//!
//! Stripes are hashes, so their keys come in no order. They are dealt into ranges by their highest bits; each range is sorted and turned into
//! text by itself, by as many threads as there were workers, and written in order. No process is started any more when the threads begin.
//! Where the order is another one, or only the most frequent k-mers are asked for, [`ranked`] makes one list, which is cut into ranges.

pub mod ranked;
pub mod tally;
pub mod top;

use crate::carried::{Source, put};
use crate::failure::Failure;
use crate::lead::Outcome;
use crate::limits;
use crate::plan::Plan;
use crate::select::{Selection, Sort};
use crate::totals::{image_bytes, open_stripe};
use std::borrow::Cow;
use std::sync::mpsc::{Receiver, sync_channel};
use tally::Tally;
use top::Top;

/// A key and the number of rows it is in.
pub type Entry = (u64, u32);
/// Entries that a range should have, more or less.
const RANGE_ENTRIES: u64 = 1 << 15;
const MAX_RANGE_BITS: u32 = 14;
const PASS_RANGE_BITS: u32 = 8;

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
    /// In their final order.
    Ranked(Vec<Entry>),
}

/// What the thread that deals a share of the stripes brings.
pub struct Share {
    ranges: Vec<Vec<Entry>>,
    tally: Option<Tally>,
    top: Option<Top>,
}

impl Share {
    /// Appends it as numbers: ranges and their entries, the tally, and the most frequent k-mers, each with how many there are.
    pub fn append(&self, bytes: &mut Vec<u8>) {
        put(bytes, self.ranges.len() as u64);
        for range in &self.ranges {
            append_entries(range.iter().copied(), range.len(), bytes);
        }
        let tally: Vec<(u64, u32)> =
            self.tally.iter().flat_map(Tally::iter).map(|(rows, kmers)| (kmers, rows)).collect();
        append_entries(tally.iter().copied(), tally.len(), bytes);
        let top = self.top.as_ref().map(Top::sorted).unwrap_or_default();
        append_entries(top.iter().copied(), top.len(), bytes);
        put(bytes, u64::from(self.tally.is_some()) | u64::from(self.top.is_some()) << 1);
    }

    /// Takes what [`Share::append`] appended; `None` when it is cut off.
    pub fn take(from: &mut Source<'_>) -> Option<Self> {
        let ranges = from.many(8, take_entries)?;
        let (entries, most) = (take_entries(from)?, take_entries(from)?);
        let (mut tally, mut top) = (Tally::default(), Top::default());
        entries.iter().for_each(|(kmers, rows)| tally.add(*rows, *kmers));
        most.iter().for_each(|(key, rows)| top.add(*key, *rows));
        let given = from.number()?;
        Some(Self { ranges, tally: (given & 1 != 0).then_some(tally), top: (given & 2 != 0).then_some(top) })
    }
}

fn append_entries(entries: impl Iterator<Item = Entry>, count: usize, bytes: &mut Vec<u8>) {
    put(bytes, count as u64);
    for (key, count) in entries {
        put(bytes, key);
        bytes.extend(count.to_le_bytes());
    }
}

fn take_entries(from: &mut Source<'_>) -> Option<Vec<Entry>> {
    from.many(12, |from| Some((from.number()?, from.half()?)))
}

struct Dealing<'a> {
    plan: &'a Plan,
    outcome: &'a Outcome,
    range_bits: u32,
    threads: usize,
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
        let select = &plan.select;
        if plan.count_only && !plan.needs_entries() {
            // The stripes' own numbers say how many there are.
            let (ranges, count) = (Ranges::Ranked(Vec::new()), outcome.drain.kept);
            return Ok(Self { ranges, threads: 1, count, histogram: None, top: None });
        }
        let dealing = Dealing::new(plan, outcome);
        let (range_bits, threads) = (dealing.range_bits, dealing.threads);
        let mut shares = before;
        shares.extend(dealing.deal()?);
        let mut histogram = plan.select.histogram.then(Tally::default);
        let mut top = plan.page.then(Top::default);
        let mut dealt = Vec::new();
        for share in shares {
            if let (Some(all), Some(tally)) = (&mut histogram, share.tally) {
                all.merge(tally);
            }
            if let (Some(all), Some(found)) = (&mut top, share.top) {
                all.merge(found);
            }
            dealt.push(share.ranges);
        }
        let ranges = if select.top.is_some() || select.sort == Sort::Count {
            Ranges::Ranked(ranked::rank(dealt, select.top, select.sort))
        } else {
            Ranges::Dealt(dealt, 1 << range_bits)
        };
        let count = match &ranges {
            Ranges::Dealt(dealt, _) => dealt.iter().flatten().map(|range| range.len() as u64).sum(),
            Ranges::Ranked(entries) => entries.len() as u64,
        };
        Ok(Self { ranges, threads, count, histogram, top })
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

    /// Entries that were collected elsewhere, in ascending order; those that `select` wants of them, in its order.
    pub fn ranked(entries: Vec<Entry>, select: &Selection) -> Self {
        let entries = if select.top.is_some() || select.sort == Sort::Count {
            ranked::rank(vec![vec![entries]], select.top, select.sort)
        } else {
            entries
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(64);
        let count = entries.len() as u64;
        Self { ranges: Ranges::Ranked(entries), threads, count, histogram: None, top: None }
    }

    /// Forgets the entries, not how many they are: for a report that lists none.
    pub fn unlist(&mut self) {
        self.ranges = Ranges::Ranked(Vec::new());
    }

    fn ranges(&self) -> usize {
        match &self.ranges {
            Ranges::Dealt(_, ranges) => *ranges,
            Ranges::Ranked(entries) => entries.len().div_ceil(RANGE_ENTRIES as usize),
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
            Ranges::Ranked(entries) => {
                let start = range * RANGE_ENTRIES as usize;
                Cow::Borrowed(&entries[start..entries.len().min(start + RANGE_ENTRIES as usize)])
            }
        }
    }
}

impl<'a> Dealing<'a> {
    fn new(plan: &'a Plan, outcome: &'a Outcome) -> Self {
        let bits = plan.params.key_bits();
        // Where there are several passes, none knows how many entries there will be.
        let wanted = if plan.job.pass_bits > 0 {
            PASS_RANGE_BITS
        } else {
            (outcome.drain.kept / RANGE_ENTRIES).max(1).ilog2()
        };
        let range_bits = wanted.min(MAX_RANGE_BITS).min(bits);
        let threads = usize::from(plan.workers.workers).clamp(1, 64).min(1 << range_bits);
        Self { plan, outcome, range_bits, threads }
    }

    /// Past the limit of a control group the kernel would kill us instead of refusing memory.
    fn check_room(&self) -> Result<(), Failure> {
        // Vectors that grow have room for half as many again.
        let wanted = self.outcome.drain.kept * size_of::<Entry>() as u64 * 3 / 2;
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

    /// The entries of all stripes, dealt into ranges by each of the threads.
    fn deal(&self) -> Result<Vec<Share>, Failure> {
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
        let (shared, select, threshold) = (&self.outcome.shared, self.plan.select, self.outcome.threshold);
        let (bits, range_bits) = (self.plan.params.key_bits(), self.range_bits);
        let range = |key: u64| {
            if range_bits == 0 { 0 } else { (key >> (bits - range_bits)) as usize & ((1 << range_bits) - 1) }
        };
        let (mut counts, mut scratch) = (vec![0; 1 << range_bits], Vec::new());
        let mut tally = select.histogram.then(Tally::default);
        let mut top = self.plan.page.then(Top::default);
        for stripe in (thread..shared.stripes.len()).step_by(self.threads) {
            image_bytes(shared, stripe, &mut scratch)?;
            let Some((_, image)) = open_stripe(shared, stripe)? else { continue };
            image.for_each(&mut scratch, |key, rows| {
                counts[range(key)] += usize::from(select.admits(threshold, rows));
                if let Some(tally) = &mut tally {
                    tally.add(rows, 1);
                }
                if let Some(top) = &mut top {
                    top.add(key, rows);
                }
            })?;
        }
        let mut ranges: Vec<Vec<Entry>> = counts.into_iter().map(Vec::with_capacity).collect();
        for stripe in (thread..shared.stripes.len()).step_by(self.threads) {
            let Some((_, image)) = open_stripe(shared, stripe)? else { continue };
            image.for_each(&mut scratch, |key, rows| {
                if select.admits(threshold, rows) {
                    ranges[range(key)].push((key, rows));
                }
            })?;
        }
        Ok(Share { ranges, tally, top })
    }
}
