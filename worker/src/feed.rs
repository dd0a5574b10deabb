//! Unpacks what cannot be read in place, and hands it to the workers in parcels of whole records: the counterpart of Postgres's `shm_mq`.
//!
//! ```text
//! parcel i := head text       head: file u32, 1 for FASTQ u32, where in the file's unpacked text it begins u64
//! unit i (or the units that share it, if units do) is what parcel i holds
//!
//! feeder   claims parcel word i -> stores the parcel in its chunks -> commits   DONE(head)
//! worker   claims unit i, waits for parcel i, copies it, looks at its word again, scans it, commits unit i
//! feeder   sees that unit i is done: parcel word DONE(head) -> DONE(NOTHING), then frees the chunks, which are its own
//! at the end of the text the feeder commits all parcels that are left as DONE(NOTHING): their units have no rows
//! ```
//!
//! Promises
//! - Parcels depend on the input alone ([`sequence::parcels`]), so a feeder that takes a dead one's place makes the same ones, and leaves out
//!   those that are there.
//! - At most [`Stream::window`] parcels wait for workers, so memory is bounded however long the text is.
//! - A worker that is believed dead may still be reading a parcel while it is freed: it sees that the word has changed, and is fenced.
//!
//! What it does not do: know records, but for where one begins.

use crate::engine::Surroundings;
use crate::error::WorkError;
use crate::job::{Stream, path_of};
use crate::shared::Shared;
use sequence::parcels::{Parcel, Parcels};
use sequence::unpack::{Source, unpack};
use sequence::{Format, SequenceFile};
use shm_layout::arena::{NOTHING, OwnedChain};
use shm_layout::inject::{Point, at};
use shm_layout::slots::Figure;
use shm_layout::state::Phase;
use shm_layout::words::{Claim, Owner, Task};
use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes before a parcel's text.
pub const PARCEL_HEAD: usize = 16;
/// How long a feeder that has nothing to do sleeps.
const PAUSE: Duration = Duration::from_micros(300);
/// How long a feeder without room waits for some.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// The name that stands for standard input.
pub const STDIN: &[u8] = b"-";

/// Feeds one run.
pub struct Feeder<'a> {
    shared: &'a Shared,
    owner: Owner,
    stream: Stream,
    stdin: Option<Source>,
    file: usize,
    open: Option<Parcels<'a>>,
    next: usize,
    /// The first parcel that is not known to be done with.
    oldest: usize,
    /// Parcels that this feeder made and has not freed.
    fed: VecDeque<(usize, OwnedChain)>,
    /// One that it claimed, for which there was no room yet.
    waiting: Option<Waiting>,
    ended: bool,
}

/// A parcel that is to be stored.
struct Waiting {
    parcel: usize,
    claim: Claim,
    /// Head and text, in one piece, so that a parcel takes no more chunks than it must.
    bytes: Vec<u8>,
    since: Instant,
}

impl<'a> Feeder<'a> {
    /// A feeder for the run in `shared`, as `owner`; `stdin` is what `-` stands for.
    ///
    /// # Errors
    /// When the job has no stream.
    pub fn new(shared: &'a Shared, owner: Owner, stdin: Option<Source>) -> Result<Self, WorkError> {
        let stream = shared.job.stream.ok_or_else(|| WorkError::Job("it has nothing to feed".into()))?;
        let (file, open, fed, waiting) = (0, None, VecDeque::new(), None);
        Ok(Self { shared, owner, stream, stdin, file, open, next: 0, oldest: 0, fed, waiting, ended: false })
    }

    /// Feeds until all parcels are done with.
    ///
    /// # Errors
    /// What is wrong with the input; no room.
    pub fn run(&mut self, around: &mut impl Surroundings) -> Result<(), WorkError> {
        while around.may_go_on() && self.shared.state.phase()? == Phase::Scan && !self.is_over()? {
            if !self.shared.slots.may_claim(self.owner)? {
                let Owner { slot, generation } = self.owner;
                return Err(shm_layout::Error::Fenced { slot, generation }.into());
            }
            if self.shared.state.error_occurred()? {
                return Ok(());
            }
            if !self.step()? {
                self.progress()?;
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// True when the text has ended and all parcels are done with.
    fn is_over(&mut self) -> Result<bool, WorkError> {
        self.release()?;
        Ok(self.ended && self.oldest >= self.next)
    }

    fn progress(&self) -> Result<(), WorkError> {
        Ok(self.shared.slots.add(self.owner.slot, Figure::Progress, 1)?)
    }

    /// Makes a parcel, if there is a next one, it is time for it, and there is room; false if not. It does not wait: who feeds has other things to see to.
    ///
    /// # Errors
    /// As [`Feeder::run`].
    pub fn step(&mut self) -> Result<bool, WorkError> {
        self.release()?;
        if let Some(waiting) = self.waiting.take() {
            return self.store(waiting);
        }
        if self.ended || self.next >= self.oldest + self.stream.window as usize {
            return Ok(false);
        }
        match self.parcel()? {
            Some((file, format, parcel)) => self.publish(file, format, &parcel),
            None => self.end().map(|()| true),
        }
    }

    /// The next parcel, with its file's number.
    fn parcel(&mut self) -> Result<Option<(usize, Format, Parcel)>, WorkError> {
        // Every file begins a parcel, however small it is: those do not make the next ones larger.
        let (shared, size) = (self.shared, self.stream.parcel_size(self.next.saturating_sub(self.file)));
        while let Some(leaf) = shared.job.leaves.get(self.file) {
            if self.open.is_none() {
                let path = path_of(&leaf.path);
                let source: Source = if leaf.path == STDIN {
                    let gone = || WorkError::Job("standard input was read already and is gone".into());
                    self.stdin.take().ok_or_else(gone)?
                } else {
                    let file = SequenceFile::open(path)?;
                    if leaf.fingerprint.is_some_and(|digest| digest != file.fingerprint()) {
                        return Err(sequence::Error::Changed { path: path.to_path_buf() }.into());
                    }
                    Box::new(File::open(path).map_err(|e| sequence::Error::io(path, "open", e))?)
                };
                let unpacked = unpack(path, source)?;
                self.open = Some(Parcels::new(unpacked.text, unpacked.format, path, self.stream.longest));
            }
            if let Some(open) = &mut self.open {
                let mut each = || {
                    let _ = shared.slots.add(self.owner.slot, Figure::Progress, 1);
                };
                let next = open.next(size, &mut each)?;
                if let Some(parcel) = next {
                    return Ok(Some((self.file, open.format(), parcel)));
                }
            }
            (self.open, self.file) = (None, self.file + 1);
        }
        Ok(None)
    }

    fn publish(&mut self, file: usize, format: Format, parcel: &Parcel) -> Result<bool, WorkError> {
        let at_parcel = self.next;
        let mut head = (file as u32).to_le_bytes().to_vec();
        head.extend(u32::from(format == Format::Fastq).to_le_bytes());
        head.extend(parcel.offset.to_le_bytes());
        if at_parcel >= self.shared.parcels.len() {
            let text = format!("input: expected at most {} parcels, found more", self.shared.parcels.len());
            return Err(WorkError::Job(text));
        }
        self.next += 1;
        let Some(claim) = self.shared.parcels.claim(at_parcel, self.owner)? else {
            return self.there_already(at_parcel).map(|()| true);
        };
        at(Point::FeedClaimed)?;
        let bytes = [&head[..], &parcel.text].concat();
        self.store(Waiting { parcel: at_parcel, claim, bytes, since: Instant::now() })
    }

    /// A parcel that this feeder need not make: one before it has.
    fn there_already(&self, parcel: usize) -> Result<(), WorkError> {
        match self.shared.parcels.look(parcel)? {
            Task::Done { .. } => Ok(()),
            other => {
                Err(WorkError::Job(format!("parcel {parcel}: expected it free or done, found {other:?}")))
            }
        }
    }

    /// Stores a parcel and commits it; false where there is no room yet: workers may make some, for a while.
    fn store(&mut self, waiting: Waiting) -> Result<bool, WorkError> {
        let (parcel, mut chain) = (waiting.parcel, self.shared.arena.begin());
        match self.shared.arena.append(self.owner, &mut chain, &waiting.bytes).map_err(WorkError::from) {
            Ok(()) => {}
            Err(e) if e.is_no_room() && waiting.since.elapsed() < ROOM_WAIT => {
                self.shared.arena.free(chain)?;
                self.waiting = Some(waiting);
                return Ok(false);
            }
            Err(e) => return Err(e),
        }
        at(Point::FeedStored)?;
        if let Err(e) = self.shared.parcels.commit(parcel, waiting.claim, self.owner, chain.head()) {
            self.shared.arena.free(chain)?;
            return Err(e.into());
        }
        at(Point::FeedCommitted)?;
        self.fed.push_back((parcel, chain));
        self.progress()?;
        Ok(true)
    }

    /// Says that there are no more parcels.
    fn end(&mut self) -> Result<(), WorkError> {
        at(Point::FeedEnded)?;
        for parcel in self.next..self.shared.parcels.len() {
            match self.shared.parcels.claim(parcel, self.owner)? {
                Some(claim) => self.shared.parcels.commit(parcel, claim, self.owner, NOTHING)?,
                None => self.there_already(parcel)?,
            }
        }
        self.ended = true;
        Ok(())
    }

    /// Frees the parcels whose units are done. One that was given up stays: a leader that goes on tries it again.
    fn release(&mut self) -> Result<(), WorkError> {
        while self.oldest < self.next && self.shared.is_parcel_settled(self.oldest, false)? {
            self.oldest += 1;
        }
        let mut kept = VecDeque::new();
        while let Some((parcel, chain)) = self.fed.pop_front() {
            if !self.shared.is_parcel_settled(parcel, true)? {
                kept.push_back((parcel, chain));
                continue;
            }
            self.shared.parcels.consume(parcel, chain.head())?;
            at(Point::FeedConsumed)?;
            self.shared.arena.free(chain)?;
        }
        self.fed = kept;
        Ok(())
    }
}

/// A parcel as a worker takes it: file, format, offset in the file's text, and the text.
pub struct Taken<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its format.
    pub format: Format,
    /// Where the text begins in the file's.
    pub offset: u64,
}

/// Copies parcel `parcel` into `text`.
///
/// # Errors
/// [`shm_layout::Error::Fenced`] when it was freed meanwhile: this worker was believed dead, and another has done its unit.
pub fn take<'a>(
    shared: &'a Shared,
    parcel: usize,
    owner: Owner,
    text: &mut Vec<u8>,
) -> Result<Taken<'a>, WorkError> {
    let fenced = || shm_layout::Error::Fenced { slot: owner.slot, generation: owner.generation };
    let before = shared.parcels.look(parcel)?;
    let Task::Done { head, .. } = before else { return Err(fenced().into()) };
    // It was there when this worker had waited for it, and is done with.
    if head == NOTHING {
        return Err(fenced().into());
    }
    text.clear();
    let copied = shared.arena.open(head).and_then(|chain| {
        let bytes = chain.len() as usize;
        shared.arena.read(&chain, 0, bytes, text)
    });
    if shared.parcels.look(parcel)? != before {
        return Err(fenced().into());
    }
    copied?;
    let wrong = |what: String| WorkError::Job(format!("parcel {parcel}: {what}"));
    let front = text.get(..PARCEL_HEAD).ok_or_else(|| wrong("expected a head, found its end".into()))?;
    let half = |at: usize| u32::from_le_bytes(front[at..at + 4].try_into().expect("4 bytes"));
    let offset = u64::from_le_bytes(front[8..16].try_into().expect("8 bytes"));
    let (file, format) = (half(0), if half(4) != 0 { Format::Fastq } else { Format::Fasta });
    let leaf = shared.job.leaves.get(file as usize).ok_or_else(|| wrong(format!("found file {file}")))?;
    Ok(Taken { path: path_of(&leaf.path), format, offset })
}
