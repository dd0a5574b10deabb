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
//! 152     8      whole units of the ramp   leader, before publication
//! 192     1024   error_message             as above
//! ```
//!
//! Claims are in `claim`, phases in [`phase`](Phase), the first error in `error`.

use crate::error::{Error, Result};
use crate::lock::{Acquired, Guard, MUTEX_BYTES, RobustMutex};
use crate::process::futex_wake_all;
use crate::segment::Segment;
use crate::sync::{AtomicU32, Ordering};
use crate::takeover::SoleUser;
use crate::toc::Area;
use std::sync::Arc;
use std::time::Duration;

mod claim;
mod error;
mod phase;
mod units;

pub use error::SharedError;
pub(crate) use error::{cut, printable};
pub use phase::Phase;
pub use units::{PARTS, Units};

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
const RAMP: usize = 152;
const ERROR_TEXT: usize = 192;
/// Longest error message in bytes; a longer one is cut at a character border.
pub const ERROR_BYTES: usize = 1024;
const _: () = assert!(MUTEX_BYTES <= NEXT_BLOCK && PHASE.is_multiple_of(4));

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
    pub fn create_in(segment: &Arc<Segment>, area: Area, units: Units, workers: u64) -> Result<Self> {
        let at = Self::checked(segment, area)?;
        let mutex = segment.map().address(at, MUTEX_BYTES)?;
        // SAFETY: aligned (TOC chunks are), of MUTEX_BYTES, and nobody reads the segment before it is published.
        let mutex = unsafe { RobustMutex::create_in(mutex, std::ptr::null_mut()) }?;
        let state = Self { segment: Arc::clone(segment), at, mutex };
        state.set(TOTAL_BLOCKS, units.total_blocks)?;
        state.set(UNIT_BLOCKS, units.unit_blocks)?;
        state.set(RAMP, units.ramp)?;
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
        if state.units()?.unit_blocks == 0 {
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
        for field in [TOTAL_BLOCKS, UNIT_BLOCKS, RAMP, WORKERS_ASKED] {
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

    /// How blocks are parted into units.
    ///
    /// # Errors
    /// None for an attached state.
    pub fn units(&self) -> Result<Units> {
        Ok(Units {
            total_blocks: self.total_blocks()?,
            unit_blocks: self.get(UNIT_BLOCKS)?,
            ramp: self.get(RAMP)?,
        })
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Plan;
    use crate::tasks::TaskWords;
    use crate::toc::TocEstimator;
    use crate::words::{Owner, Task};

    fn state(total_blocks: u64, unit_blocks: u64) -> (SharedState, TaskWords) {
        parted(Units { total_blocks, unit_blocks, ramp: 0 })
    }

    fn parted(parted: Units) -> (SharedState, TaskWords) {
        let units = parted.count() as usize;
        let mut toc = TocEstimator::default();
        toc.estimate(SharedState::estimate()).estimate(TaskWords::estimate(units));
        let plan = Plan { toc_bytes: toc.total(), chunk_bytes: 4096, chunks: 1, beside: 0, build: 7 };
        let segment = Arc::new(Segment::create_private(&plan).expect("memory"));
        let toc = segment.toc().expect("a table");
        let area = toc.allocate(1, SharedState::estimate()).expect("estimated");
        let words = toc.allocate(2, TaskWords::estimate(units)).expect("estimated");
        let state = SharedState::create_in(&segment, area, parted, 2).expect("estimated");
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
    fn units_of_a_ramp_are_claimed_in_order_and_once() {
        let (state, units) = parted(Units { total_blocks: 50, unit_blocks: 8, ramp: 2 });
        let mut starts = Vec::new();
        while let Some((unit, _claim)) = state.claim_unit(&units, A).expect("sound") {
            assert_eq!(unit, starts.len());
            starts.push(state.units().expect("mapped").blocks(unit as u64).start);
            let end = state.units().expect("mapped").blocks(unit as u64).end;
            assert_eq!(state.next_block().expect("mapped"), end);
        }
        assert_eq!(starts, [0, 8, 16, 24, 32, 34, 36, 38, 40, 42, 44, 46, 48]);
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
