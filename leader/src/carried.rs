//! What the finished passes of a run came to, for the next one: in memory, or in the next one's segment where the run may be resumed.
//!
//! A leader that may die must leave what its passes found to another one. So the segment of each pass but the first is made with all of it, and with
//! the name of the segment before; only when it is whole and marked resumable, the one before is removed:
//!
//! ```text
//! pass finished -> [pass.begin] segment made, marked -> [pass.made] segment before removed -> [pass.left] next pass
//! ```
//!
//! | killed at | there are | who resumes |
//! |---|---|---|
//! | `pass.begin`, `create.*` | the finished segment; the new one, not marked: nobody's | goes on from the finished one, and makes another |
//! | `pass.made` | both | whichever is taken removes the other: the new one has done nothing yet |
//! | `pass.left` | the new segment | goes on from that |
//!
//! Two that take one each see each other's locks, and give up.
//!
//! The bytes are a digest, then numbers of 64 bits, little endian: how they follow each other is in [`Carried::to_bytes`].

use crate::failure::Failure;
use crate::lead::Outcome;
use crate::plan::Plan;
use crate::report::Entries;
use crate::report::share::Share;
use crate::totals::{ScanTotals, StripeTotals};
use kmer_worker::WorkError;
use kmer_worker::digest::digest;
use kmer_worker::drain::{IMAGE_OFFSET, StripeSummary};
use kmer_worker::shared::Shared;
use kmer_worker::spool::{UNIT_FIELDS, UnitSummary};
use shm_layout::place::path_of;
use shm_layout::takeover::{self, State};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a leader that was killed just now gets to be gone.
const PATIENCE: Duration = Duration::from_secs(3);

/// What finished passes came to.
#[derive(Default)]
pub struct Carried {
    /// The segment of the last of them.
    before: String,
    /// Sums of the first one's units: all passes read the same rows.
    scan: ScanTotals,
    drain: StripeSummary,
    launched: u16,
    deaths: u32,
    respawns: u32,
    seconds: (f64, f64),
    /// The k-mers that they found.
    found: Vec<Share>,
}

impl Carried {
    /// What the segment of a pass brings from those before it; `None` for the first pass.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(shared: &Shared) -> Result<Option<Self>, Failure> {
        let Some(bytes) = shared.carried()? else { return Ok(None) };
        let damaged = || {
            let (name, what) = (shared.segment.name().into(), "what finished passes came to");
            let (expected, found) = ("as it was written".into(), "something else".into());
            WorkError::from(shm_layout::Error::Damaged { name, what, expected, found })
        };
        let carried = Self::from_bytes(&bytes).ok_or_else(damaged)?;
        if carried.scan.stripes.len() != shared.job.stripes() {
            return Err(damaged().into());
        }
        Ok(Some(carried))
    }

    /// Adds a finished pass to the ones before it.
    ///
    /// # Errors
    /// When its segment is damaged.
    pub fn and(before: Option<Self>, plan: &Plan, outcome: &mut Outcome) -> Result<Self, Failure> {
        let share = Entries::deal(plan, outcome)?;
        let mut found = Self::join(before, outcome);
        found.extend(share);
        let Outcome { scan, drain, launched, deaths, respawns, seconds, shared, .. } = outcome;
        let (scan, drain, before) = (scan.clone(), *drain, shared.segment.name().to_owned());
        let (launched, deaths, respawns, seconds) = (*launched, *deaths, *respawns, *seconds);
        Ok(Self { before, scan, drain, launched, deaths, respawns, seconds, found })
    }

    /// Makes the sums of a pass those of all passes so far: rows and k-mers are the first one's, stripes are added up. Gives what was found before.
    pub fn join(before: Option<Self>, outcome: &mut Outcome) -> Vec<Share> {
        let Some(mut before) = before else { return Vec::new() };
        before.scan.poisoned.append(&mut outcome.scan.poisoned);
        before.scan.poisoned.sort_unstable();
        before.scan.poisoned.dedup();
        (outcome.scan, outcome.launched) = (before.scan, before.launched);
        outcome.drain.add(&before.drain);
        outcome.deaths += before.deaths;
        outcome.respawns += before.respawns;
        outcome.seconds.0 += before.seconds.0;
        outcome.seconds.1 += before.seconds.1;
        before.found
    }

    /// Sums of the units of the first pass.
    pub fn scan(&self) -> &ScanTotals {
        &self.scan
    }

    /// k-mers that are held for the report.
    pub fn held(&self) -> u64 {
        self.found.iter().map(Share::held).sum()
    }

    /// `digest before messages poisoned stripes unit-sums stripe-sums numbers found`: what each is, `from_bytes` says.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        put_bytes(&mut bytes, self.before.as_bytes());
        put_bytes(&mut bytes, self.scan.messages.as_bytes());
        put(&mut bytes, self.scan.poisoned.len() as u64);
        self.scan.poisoned.iter().for_each(|unit| put(&mut bytes, *unit as u64));
        put(&mut bytes, self.scan.stripes.len() as u64);
        for StripeTotals { kmers, rows, digest } in &self.scan.stripes {
            [*kmers, *rows, *digest].iter().for_each(|n| put(&mut bytes, *n));
        }
        self.scan.sums.fields().iter().for_each(|n| put(&mut bytes, *n));
        bytes.extend(self.drain.to_bytes());
        for n in [self.launched.into(), self.deaths.into(), self.respawns.into()] {
            put(&mut bytes, n);
        }
        [self.seconds.0, self.seconds.1].iter().for_each(|n| put(&mut bytes, n.to_bits()));
        put(&mut bytes, self.found.len() as u64);
        self.found.iter().for_each(|share| share.append(&mut bytes));
        let sum = digest(2, 0, &bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// From the bytes of [`Carried::to_bytes`], and perhaps zeros behind them; `None` when they are not what was written.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut from = Source(bytes);
        let sum = from.number()?;
        let all = from.0;
        let before = String::from_utf8(from.bytes()?.to_vec()).ok()?;
        let messages = String::from_utf8(from.bytes()?.to_vec()).ok()?;
        let poisoned = from.many(8, |from| Some(from.number()? as usize))?;
        let stripes = from.many(24, |from| {
            Some(StripeTotals { kmers: from.number()?, rows: from.number()?, digest: from.number()? })
        })?;
        let mut fields = [0; UNIT_FIELDS];
        fields.iter_mut().try_for_each(|field| from.number().map(|n| *field = n))?;
        let sums = UnitSummary::from_fields(&fields);
        let drain = StripeSummary::from_bytes(from.take(IMAGE_OFFSET as usize)?.try_into().ok()?);
        let (launched, deaths, respawns) = (from.number()?, from.number()?, from.number()?);
        let seconds = (f64::from_bits(from.number()?), f64::from_bits(from.number()?));
        let found = from.many(8, Share::take)?;
        if digest(2, 0, &all[..all.len() - from.0.len()]) != sum {
            return None;
        }
        let scan = ScanTotals { sums, messages, poisoned, stripes };
        let (launched, deaths, respawns) =
            (u16::try_from(launched).ok()?, u32::try_from(deaths).ok()?, u32::try_from(respawns).ok()?);
        Some(Self { before, scan, drain, launched, deaths, respawns, seconds, found })
    }
}

/// Appends a number.
pub fn put(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend(number.to_le_bytes());
}

fn put_bytes(bytes: &mut Vec<u8>, text: &[u8]) {
    put(bytes, text.len() as u64);
    bytes.extend(text);
}

/// Bytes that are taken from the front; `None` where there are too few.
pub struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    /// A number.
    pub fn number(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")))
    }

    /// A number of 32 bits.
    pub fn half(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("4 bytes")))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        self.take(len)
    }

    /// So many items as the next number says, each of `least` bytes or more.
    pub fn many<T>(&mut self, least: usize, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.number()?).ok().filter(|n| *n <= self.0.len() / least)?;
        (0..count).map(|_| each(self)).collect()
    }
}

/// Removes what a death between two passes left beside a segment that was taken over: the finished segment before it, or a next one that was not
/// begun. See the head of this module.
///
/// # Errors
/// When somebody uses the other segment.
pub fn remove_other(shared: &Shared) -> Result<(), Failure> {
    let name = shared.segment.name();
    let mut others = Vec::new();
    if let Some(carried) = Carried::read(shared)? {
        others.push(carried.before);
    }
    let dir = Path::new(name).parent().filter(|_| name.starts_with('/'));
    for listed in takeover::list(dir)? {
        if listed.name != name && matches!(listed.state, State::Resumable | State::Running) {
            // What cannot be attached to is another build's, or is being made: not ours to judge.
            let Ok(other) = Shared::attach_to_read(&listed.name) else { continue };
            if Carried::read(&other).is_ok_and(|carried| carried.is_some_and(|c| c.before == name)) {
                others.push(listed.name);
            }
        }
    }
    let end = Instant::now() + PATIENCE;
    for other in others {
        // The kernel may still be at taking its dead leader away.
        let is_running = || takeover::look(&other).is_ok_and(|listed| listed.state == State::Running);
        while is_running() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        match takeover::remove(&other, |state| state == State::Resumable) {
            Ok(Some(State::Running)) => {
                let text = format!(
                    "segment {name:?}: expected to be the only one of its run, found {other:?} in use"
                );
                return Err(Failure::error(text).hint("wait for the leader of that one"));
            }
            Err(e @ shm_layout::Error::Os { .. }) if path_of(&other).exists() => return Err(e.into()),
            // Gone already.
            _ => {}
        }
    }
    Ok(())
}
