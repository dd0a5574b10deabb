//! The state that leader and workers share, after Postgres's parallel-scan descriptor and `KmerAnalysisSharedState`.
//!
//! ```text
//! offset  bytes  field                     who writes, under what
//! 0       64     mutex                     robust mutex, see `lock`
//! 64      8      next_block                claimer, under the mutex; a hint: unit words are what is true
//! 72      8      total_blocks              leader, before publication
//! 80      8      blocks of a unit          leader, before publication
//! 88      8      next_stripe               claimers, fetch-and-add; a hint as well
//! 96      4      phase                     leader only, Release; futex of the waiting workers
//! 100     4      all_processed             leader, when every unit is settled
//! 104     4      worker_error_occurred     first failing worker, under the mutex, after the message
//! 108     4      slot of that worker       as above
//! 112     8      workers asked for         leader, before publication
//! 120     8      workers launched          leader
//! 128     4      bytes of error_message    first failing worker, under the mutex
//! 136     8      recoveries                leader, after each: whoever found no room may find some now
//! 144     8      looks                     leader, each time that it has looked for deaths: whoever found no room knows when none is to come
//! 192     1024   error_message             as above
//! ```
//!
//! The claim of a run of blocks mirrors Postgres's: under the mutex, in order, through `next_block`. What a killed claimer leaves is a
//! unit word that names it and perhaps a `next_block` that still points to that unit; the next claimer finds the unit taken and goes on to
//! the one behind it, so there is nothing to repair under the mutex (I5). Units that came back are found by their words. The mutex only
//! keeps claimers from trying the same words: one that does not get it in time (its owner may be stopped) claims by the words alone.

use crate::error::{Error, Result};
use crate::inject::{Point, at};
use crate::lock::{Acquired, Guard, MUTEX_BYTES, RobustMutex};
use crate::planted::RECOVERS;
use crate::process::{futex_wait, futex_wake_all};
use crate::segment::Segment;
use crate::sync::{AtomicU32, Ordering};
use crate::takeover::SoleUser;
use crate::tasks::TaskWords;
use crate::toc::Area;
use crate::words::{Claim, Owner};
use std::sync::Arc;
use std::time::Duration;

/// How long a claimer waits for the mutex.
const LOCK_LIMIT: Duration = Duration::from_millis(100);
const NEXT_BLOCK: usize = 64;
const TOTAL_BLOCKS: usize = 72;
const UNIT_BLOCKS: usize = 80;
const NEXT_STRIPE: usize = 88;
const PHASE: usize = 96;
const ALL_PROCESSED: usize = 100;
const ERROR_OCCURRED: usize = 104;
const ERROR_SLOT: usize = 108;
const WORKERS_ASKED: usize = 112;
const WORKERS_LAUNCHED: usize = 120;
const ERROR_LEN: usize = 128;
const RECOVERIES: usize = 136;
const LOOKS: usize = 144;
const ERROR_TEXT: usize = 192;
/// Longest error message in bytes; a longer one is cut at a character border.
pub const ERROR_BYTES: usize = 1024;
const _: () = assert!(MUTEX_BYTES <= NEXT_BLOCK && PHASE.is_multiple_of(4));

/// What all are doing. Only the leader moves from one phase to the next (I1), and never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Phase {
    /// Units of blocks are claimed, scanned and committed.
    Scan = 1,
    /// All units are settled; stripes are claimed, drained and published.
    Drain = 2,
    /// All stripes are settled; workers leave.
    Finished = 3,
    /// The run failed or was stopped; workers leave at once.
    Aborted = 4,
}

/// The first error of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedError {
    /// Slot of the worker that met it.
    pub slot: u16,
    /// Its text.
    pub message: String,
}

/// This process's view of the shared state.
pub struct SharedState {
    segment: Arc<Segment>,
    at: usize,
    mutex: RobustMutex,
}

impl SharedState {
    /// Bytes that the state takes.
    pub const fn estimate() -> usize {
        ERROR_TEXT + ERROR_BYTES
    }

    /// Makes the state in `area`, which is zeroed.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] when the area is too small; [`Error::Lock`].
    pub fn create_in(
        segment: &Arc<Segment>,
        area: Area,
        total_blocks: u64,
        unit_blocks: u64,
        workers: u64,
    ) -> Result<Self> {
        let at = Self::checked(segment, area)?;
        let mutex = segment.map().address(at, MUTEX_BYTES)?;
        // SAFETY: aligned (TOC chunks are), of MUTEX_BYTES, and nobody reads the segment before it is published.
        let mutex = unsafe { RobustMutex::create_in(mutex, std::ptr::null_mut()) }?;
        let state = Self { segment: Arc::clone(segment), at, mutex };
        state.set(TOTAL_BLOCKS, total_blocks)?;
        state.set(UNIT_BLOCKS, unit_blocks)?;
        state.set(WORKERS_ASKED, workers)?;
        state.half(PHASE)?.store(Phase::Scan as u32, Ordering::Release);
        Ok(state)
    }

    /// Uses the state in `area`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] when the area is too small; [`Error::Damaged`].
    pub fn attach(segment: &Arc<Segment>, area: Area) -> Result<Self> {
        let at = Self::checked(segment, area)?;
        let mutex = segment.map().address(at, MUTEX_BYTES)?;
        // SAFETY: the segment is published, so its creator made the mutex here; `Arc` keeps the mapping.
        let mutex = unsafe { RobustMutex::attach(mutex, std::ptr::null_mut()) };
        let state = Self { segment: Arc::clone(segment), at, mutex };
        state.phase()?;
        if state.unit_blocks()? == 0 {
            return Err(state.damaged("blocks of a unit", "at least 1", 0));
        }
        Ok(state)
    }

    /// What does not change any more in the state in `area`, for a digest.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] when the area is too small.
    pub fn constants(segment: &Segment, area: Area) -> Result<Vec<u8>> {
        let (at, mut bytes) = (Self::checked(segment, area)?, Vec::new());
        for field in [TOTAL_BLOCKS, UNIT_BLOCKS, WORKERS_ASKED] {
            segment.map().read_to_vec(at + field, 8, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Checks that the mutex is one, before it is used: the C library trusts what lies there. Who takes over does without, and makes it anew: a
    /// leader that was killed while it did that leaves half of one.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn check_mutex(&self) -> Result<()> {
        let (kind, found) =
            (RobustMutex::kind()?, self.half(RobustMutex::KIND_OFFSET)?.load(Ordering::Relaxed));
        if kind == found {
            Ok(())
        } else {
            Err(self.damaged("kind of the mutex", &kind.to_string(), found.into()))
        }
    }

    /// Thread that holds the mutex, as the C library has it; for people. 0: nobody.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn mutex_holder(&self) -> Result<u32> {
        const THREAD: u32 = (1 << 30) - 1;
        Ok(self.half(0)?.load(Ordering::Relaxed) & THREAD)
    }

    fn checked(segment: &Segment, area: Area) -> Result<usize> {
        if area.len < Self::estimate() {
            let (name, limit) = (segment.name().into(), (area.offset + area.len) as u64);
            return Err(Error::OutOfBounds {
                name,
                offset: area.offset as u64,
                len: Self::estimate() as u64,
                limit,
            });
        }
        Ok(area.offset)
    }

    fn damaged(&self, what: &'static str, expected: &str, found: u64) -> Error {
        let name = self.segment.name().into();
        Error::Damaged { name, what, expected: expected.into(), found: found.to_string() }
    }

    fn half(&self, field: usize) -> Result<&AtomicU32> {
        self.segment.map().half(self.at + field)
    }

    fn get(&self, field: usize) -> Result<u64> {
        Ok(self.segment.map().word(self.at + field)?.load(Ordering::Relaxed))
    }

    fn set(&self, field: usize, value: u64) -> Result<()> {
        self.segment.map().word(self.at + field)?.store(value, Ordering::Relaxed);
        Ok(())
    }

    /// Blocks of the relation.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn total_blocks(&self) -> Result<u64> {
        self.get(TOTAL_BLOCKS)
    }

    /// Blocks of a unit.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn unit_blocks(&self) -> Result<u64> {
        self.get(UNIT_BLOCKS)
    }

    /// The next block that nobody claimed yet, for progress; units that came back lie before it.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn next_block(&self) -> Result<u64> {
        self.get(NEXT_BLOCK)
    }

    /// Workers asked for.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn workers_asked(&self) -> Result<u64> {
        self.get(WORKERS_ASKED)
    }

    /// Workers launched so far, replacements included.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn workers_launched(&self) -> Result<u64> {
        self.get(WORKERS_LAUNCHED)
    }

    /// Notes that a worker was launched.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn count_launch(&self) -> Result<()> {
        self.segment.map().word(self.at + WORKERS_LAUNCHED)?.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The mutex, or `None` when its owner does not give it up.
    fn lock(&self) -> Result<Option<Guard<'_>>> {
        Ok(self.mutex.acquire_within(LOCK_LIMIT)?.map(|acquired| match acquired {
            // See the module's head: whatever the dead owner left is right as it is.
            Acquired::Clean(guard) | Acquired::OwnerDied(guard) => guard,
        }))
    }

    /// Makes the mutex anew, for a leader that takes over after the death of all who used it: what it holds may be anything.
    ///
    /// # Errors
    /// [`Error::Lock`].
    pub fn renew_mutex(&self, _proof: &SoleUser) -> Result<()> {
        // SAFETY: the proof says that no other process uses the segment, and this one is single-threaded while it takes over.
        unsafe { self.mutex.renew() }
    }

    /// Recoveries so far.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn recoveries(&self) -> Result<u64> {
        self.get(RECOVERIES)
    }

    /// Notes that a dead worker's chunks are free, and wakes those who wait for a phase: a task may have come back. Leader only.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn count_recovery(&self) -> Result<()> {
        self.segment.map().word(self.at + RECOVERIES)?.fetch_add(1, Ordering::Relaxed);
        futex_wake_all(self.half(PHASE)?);
        Ok(())
    }

    /// How often the leader has looked for workers that died, and recovered from those that it found.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn looks(&self) -> Result<u64> {
        self.get(LOOKS)
    }

    /// Notes that the leader has looked. Leader only.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn count_look(&self) -> Result<()> {
        self.segment.map().word(self.at + LOOKS)?.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Claims the next unit for `owner`: in order through `next_block`, then any that came back. `None` when all are taken or settled.
    ///
    /// # Errors
    /// [`Error::Word`], [`Error::Lock`].
    pub fn claim_unit(&self, units: &TaskWords, owner: Owner) -> Result<Option<(usize, Claim)>> {
        if let Some(found) = self.claim_in_order(units, owner)? {
            return Ok(Some(found));
        }
        let found = units.claim_any(owner)?;
        if found.is_some() {
            at(Point::ClaimAgain)?;
        }
        Ok(found)
    }

    fn claim_in_order(&self, units: &TaskWords, owner: Owner) -> Result<Option<(usize, Claim)>> {
        let (unit_blocks, total) = (self.unit_blocks()?, self.total_blocks()?);
        if self.next_block()? >= total {
            return Ok(None);
        }
        let _guard = if RECOVERS {
            let Some(guard) = self.lock()? else { return Ok(None) };
            Some(guard)
        } else {
            None
        };
        at(Point::ClaimLocked)?;
        loop {
            let block = self.next_block()?;
            if block >= total {
                return Ok(None);
            }
            let unit = (block / unit_blocks) as usize;
            let claim = units.claim(unit, owner)?;
            if claim.is_some() {
                at(Point::ClaimTaken)?;
            }
            // Only now the hint: a death before this line leaves the unit named and the hint behind it.
            self.set(NEXT_BLOCK, ((unit as u64 + 1) * unit_blocks).min(total))?;
            if let Some(claim) = claim {
                at(Point::ClaimMoved)?;
                return Ok(Some((unit, claim)));
            }
        }
    }

    /// Takes the next stripe number in the leader's order; past the last one, the caller looks for stripes that came back.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn next_stripe(&self) -> Result<u64> {
        Ok(self.segment.map().word(self.at + NEXT_STRIPE)?.fetch_add(1, Ordering::Relaxed))
    }

    /// Stripes handed out so far, for progress.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn stripes_handed_out(&self) -> Result<u64> {
        self.get(NEXT_STRIPE)
    }

    /// The phase. Acquire; partner: [`SharedState::open_phase`], so what the leader wrote before is visible.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is none.
    pub fn phase(&self) -> Result<Phase> {
        Ok(match self.half(PHASE)?.load(Ordering::Acquire) {
            1 => Phase::Scan,
            2 => Phase::Drain,
            3 => Phase::Finished,
            4 => Phase::Aborted,
            other => return Err(self.damaged("phase", "1 to 4", other.into())),
        })
    }

    /// Opens a phase and wakes all that wait for it. Leader only (I1).
    ///
    /// # Errors
    /// None for an attached state.
    pub fn open_phase(&self, phase: Phase) -> Result<()> {
        let word = self.half(PHASE)?;
        if phase != Phase::Scan && phase != Phase::Aborted {
            self.half(ALL_PROCESSED)?.store(1, Ordering::Relaxed);
        }
        word.store(phase as u32, Ordering::Release);
        futex_wake_all(word);
        Ok(())
    }

    /// Undoes what an ended run left here, for a leader that takes over: the error, and the phase in which everybody leaves.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn reopen(&self, _proof: &SoleUser) -> Result<()> {
        self.half(ERROR_OCCURRED)?.store(0, Ordering::Release);
        if self.phase()? == Phase::Aborted {
            let phase = if self.all_processed()? { Phase::Drain } else { Phase::Scan };
            self.half(PHASE)?.store(phase as u32, Ordering::Release);
        }
        Ok(())
    }

    /// True when every unit is settled (Postgres's `all_processed`).
    ///
    /// # Errors
    /// None for an attached state.
    pub fn all_processed(&self) -> Result<bool> {
        Ok(self.half(ALL_PROCESSED)?.load(Ordering::Relaxed) != 0)
    }

    /// Sleeps until the phase is no longer `seen`, or `limit` has passed.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn wait_for_phase(&self, seen: Phase, limit: Duration) -> Result<()> {
        futex_wait(self.half(PHASE)?, seen as u32, limit);
        Ok(())
    }

    /// Records the run's first error; later ones are dropped (I7). Text first, then its length, then the flag. When the mutex cannot be had
    /// the text in the slot has to do: the leader reads it when the worker has ended.
    ///
    /// # Errors
    /// [`Error::Lock`].
    pub fn record_error(&self, slot: u16, message: &str) -> Result<()> {
        let Some(_guard) = self.lock()? else { return Ok(()) };
        at(Point::ErrorLocked)?;
        let flag = self.half(ERROR_OCCURRED)?;
        if flag.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        let text = cut(message, ERROR_BYTES);
        self.segment.map().write(self.at + ERROR_TEXT, text.as_bytes())?;
        self.half(ERROR_LEN)?.store(text.len() as u32, Ordering::Relaxed);
        self.half(ERROR_SLOT)?.store(slot.into(), Ordering::Relaxed);
        at(Point::ErrorText)?;
        flag.store(1, Ordering::Release);
        at(Point::ErrorFlag)
    }

    /// True when a worker failed (Postgres's `worker_error_occurred`).
    ///
    /// # Errors
    /// None for an attached state.
    pub fn error_occurred(&self) -> Result<bool> {
        Ok(self.half(ERROR_OCCURRED)?.load(Ordering::Acquire) != 0)
    }

    /// The run's first error, if there is one.
    ///
    /// # Errors
    /// None for an attached state; damaged text comes with its odd bytes replaced.
    pub fn error(&self) -> Result<Option<SharedError>> {
        if !self.error_occurred()? {
            return Ok(None);
        }
        let len = (self.half(ERROR_LEN)?.load(Ordering::Relaxed) as usize).min(ERROR_BYTES);
        let mut text = vec![0; len];
        self.segment.map().read(self.at + ERROR_TEXT, &mut text)?;
        let slot = self.half(ERROR_SLOT)?.load(Ordering::Relaxed) as u16;
        Ok(Some(SharedError { slot, message: printable(&text) }))
    }
}

/// At most `limit` bytes of `text`, whole characters only.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Text out of shared memory with nothing in it that a terminal would obey.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Plan;
    use crate::toc::TocEstimator;
    use crate::words::Task;

    fn state(total: u64, unit: u64) -> (SharedState, TaskWords) {
        let units = total.div_ceil(unit) as usize;
        let mut toc = TocEstimator::default();
        toc.estimate(SharedState::estimate()).estimate(TaskWords::estimate(units));
        let plan = Plan { toc_bytes: toc.total(), chunk_bytes: 4096, chunks: 1, build: 7 };
        let segment = Arc::new(Segment::create_private(&plan).expect("memory"));
        let toc = segment.toc().expect("a table");
        let area = toc.allocate(1, SharedState::estimate()).expect("estimated");
        let words = toc.allocate(2, TaskWords::estimate(units)).expect("estimated");
        let state = SharedState::create_in(&segment, area, total, unit, 2).expect("estimated");
        (state, TaskWords::create_in(&segment, words, units).expect("estimated"))
    }

    const A: Owner = Owner { slot: 0, generation: 1 };
    const B: Owner = Owner { slot: 1, generation: 1 };

    #[test]
    fn units_are_claimed_in_order_and_once() {
        let (state, units) = state(10, 4);
        let mut seen = Vec::new();
        while let Some((unit, _claim)) = state.claim_unit(&units, A).expect("sound") {
            seen.push(unit);
        }
        assert_eq!(seen, [0, 1, 2]);
        assert_eq!(state.next_block().expect("mapped"), 10);
    }

    #[test]
    fn a_unit_that_came_back_is_found_by_its_word() {
        let (state, units) = state(10, 4);
        for _ in 0..3 {
            let _claim = state.claim_unit(&units, A).expect("sound").expect("free");
        }
        assert_eq!(state.claim_unit(&units, B).expect("sound"), None);
        assert_eq!(units.recover(A, 9).expect("sound").len(), 3);
        let (unit, claim) = state.claim_unit(&units, B).expect("sound").expect("came back");
        assert_eq!((unit, claim.attempts()), (0, 1));
        assert_eq!(units.look(0).expect("sound"), Task::Claimed { owner: B, attempts: 1 });
    }

    #[test]
    fn a_claimer_that_died_before_moving_the_hint_does_no_harm() {
        let (state, units) = state(10, 4);
        let _claim = units.claim(0, A).expect("sound").expect("free");
        let (unit, _claim) = state.claim_unit(&units, B).expect("sound").expect("free");
        assert_eq!(unit, 1, "unit 0 is A's by its word, whatever next_block said");
    }

    #[test]
    fn the_first_error_wins_and_is_made_printable() {
        let (state, _) = state(1, 1);
        assert_eq!(state.error().expect("mapped"), None);
        state.record_error(3, "bad\x1b[31m page").expect("lock");
        state.record_error(4, "later").expect("lock");
        let error = state.error().expect("mapped").expect("recorded");
        assert_eq!(error, SharedError { slot: 3, message: "bad\u{fffd}[31m page".into() });
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let (state, _) = state(1, 1);
        state.record_error(0, &"ä".repeat(ERROR_BYTES)).expect("lock");
        assert_eq!(state.error().expect("mapped").expect("recorded").message, "ä".repeat(ERROR_BYTES / 2));
    }
}
