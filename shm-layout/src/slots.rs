//! Slots: one a worker at a time, with its state, its progress, its figures and its last words.
//!
//! ```text
//! offset  bytes  field                  who writes
//! 0       8      slot word              leader and worker, by CAS (see `words`)
//! 8       8      progress counter       the worker, at every step; the leader only looks whether it moves
//! 16      8      process id             the leader; for people, never for a decision
//! 24      8      units committed        the worker, after each commit
//! 32      8      stripes published      the worker
//! 40      8      blocks read            the worker
//! 48      8      rows seen              the worker
//! 56      8      k-mers extracted       the worker
//! 64      8      nanoseconds scanning   the worker
//! 72      8      nanoseconds draining   the worker
//! 80      8      what it is at          the worker: task number + 1 in the low half, 1 unit 2 stripe in the high half
//! 88      8      block it is at, + 1    the worker, before each block
//! 124     4      bytes of last words    the worker, Release, after the text
//! 128     1024   last words             the worker
//! ```
//!
//! The last words are written before the shared error is (I7): a worker that dies in between has still said what was wrong, and the leader
//! reads them when it has seen the death. Figures are for the summary; no decision rests on them.

use crate::error::{Error, Result};
use crate::planted::RECOVERS;
use crate::segment::Segment;
use crate::state::{ERROR_BYTES, cut, printable};
use crate::sync::{AtomicU64, Ordering};
use crate::toc::Area;
use crate::words::{self, Owner, Slot, SlotState};
use std::sync::Arc;

const SLOT_BYTES: usize = 128 + ERROR_BYTES;
const WORDS_LEN: usize = 124;
const WORDS: usize = 128;

/// A figure that a worker keeps in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Figure {
    /// Moves at every step of the worker.
    Progress = 8,
    /// Process id of the slot's worker.
    Pid = 16,
    /// Units committed.
    Units = 24,
    /// Stripes published.
    Stripes = 32,
    /// Blocks read.
    Blocks = 40,
    /// Rows seen.
    Rows = 48,
    /// k-mers extracted.
    Kmers = 56,
    /// Nanoseconds spent scanning.
    ScanNanos = 64,
    /// Nanoseconds spent draining.
    DrainNanos = 72,
    /// What the worker is at.
    Current = 80,
    /// The block that it is at, counted from 1; 0 before the first.
    Block = 88,
}

/// This process's view of the slots.
#[derive(Clone)]
pub struct Slots {
    segment: Arc<Segment>,
    at: usize,
    len: usize,
}

impl Slots {
    /// Bytes for `slots` slots.
    pub const fn estimate(slots: usize) -> usize {
        slots * SLOT_BYTES
    }

    /// Uses the slots in `area`, as many as fill it. Zeroed memory is empty slots of generation 0, so this also creates them.
    ///
    /// # Errors
    /// None; the area was checked by the table of contents.
    pub fn attach(segment: &Arc<Segment>, area: Area) -> Result<Self> {
        Ok(Self { segment: Arc::clone(segment), at: area.offset, len: area.len / SLOT_BYTES })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn offset(&self, slot: u16) -> Result<usize> {
        if usize::from(slot) >= self.len {
            let (offset, limit) =
                ((self.at + usize::from(slot) * SLOT_BYTES) as u64, (self.at + self.len * SLOT_BYTES) as u64);
            return Err(Error::OutOfBounds {
                name: self.segment.name().into(),
                offset,
                len: SLOT_BYTES as u64,
                limit,
            });
        }
        Ok(self.at + usize::from(slot) * SLOT_BYTES)
    }

    fn word(&self, slot: u16) -> Result<&AtomicU64> {
        self.segment.map().word(self.offset(slot)?)
    }

    /// What the slot's word says.
    ///
    /// # Errors
    /// [`Error::Word`] when it is damaged.
    pub fn look(&self, slot: u16) -> Result<Slot> {
        let bits = self.word(slot)?.load(Ordering::Acquire);
        Slot::unpack(bits).map_err(|source| Error::Word { name: self.segment.name().into(), source })
    }

    /// Prepares the slot for a new worker: the next generation, STARTING. Leader only.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the slot has no generation left or is in use.
    pub fn start(&self, slot: u16) -> Result<Owner> {
        let old = self.look(slot)?;
        let generation = old.generation + 1;
        let in_use = matches!(old.state, SlotState::Starting | SlotState::Running | SlotState::Fenced);
        let word = self.word(slot)?;
        let new = Slot { state: SlotState::Starting, generation };
        if generation >= words::MAX_GENERATION || in_use || !words::change_slot(word, old, new) {
            let name = self.segment.name().into();
            let (expected, found) = ("a slot that is free".into(), format!("{old:?}"));
            return Err(Error::Damaged { name, what: "slot", expected, found });
        }
        self.segment.map().half(self.offset(slot)? + WORDS_LEN)?.store(0, Ordering::Relaxed);
        self.set(slot, Figure::Block, 0)?;
        self.set(slot, Figure::Current, 0)?;
        Ok(Owner { slot, generation })
    }

    /// Moves the owner's slot from one state to another; says whether it was in the first.
    ///
    /// # Errors
    /// None for a slot that exists.
    pub fn change(&self, owner: Owner, from: SlotState, to: SlotState) -> Result<bool> {
        let generation = owner.generation;
        let (from, to) = (Slot { state: from, generation }, Slot { state: to, generation });
        Ok(words::change_slot(self.word(owner.slot)?, from, to))
    }

    /// True while the owner may claim: its generation is the slot's, and it is running.
    ///
    /// # Errors
    /// [`Error::Word`] when the word is damaged.
    pub fn may_claim(&self, owner: Owner) -> Result<bool> {
        let slot = self.look(owner.slot)?;
        Ok(slot.generation == owner.generation && slot.state == SlotState::Running)
    }

    /// True when the owner was given up: whatever it finds wrong may come from that.
    ///
    /// # Errors
    /// [`Error::Word`] when the word is damaged.
    pub fn is_fenced(&self, owner: Owner) -> Result<bool> {
        let Slot { state, generation } = self.look(owner.slot)?;
        Ok(generation != owner.generation || matches!(state, SlotState::Fenced | SlotState::Dead))
    }

    /// Sets the slot's state whatever it was, for the leader that has proof of the worker's end.
    ///
    /// # Errors
    /// None for a slot that exists.
    pub fn set_ended(&self, owner: Owner, state: SlotState) -> Result<()> {
        for from in [SlotState::Starting, SlotState::Running, SlotState::Fenced, SlotState::Done] {
            self.change(owner, from, state)?;
        }
        Ok(())
    }

    fn figure(&self, slot: u16, figure: Figure) -> Result<&AtomicU64> {
        self.segment.map().word(self.offset(slot)? + figure as usize)
    }

    /// Reads a figure.
    ///
    /// # Errors
    /// None for a slot that exists.
    pub fn get(&self, slot: u16, figure: Figure) -> Result<u64> {
        Ok(self.figure(slot, figure)?.load(Ordering::Relaxed))
    }

    /// Sets a figure.
    ///
    /// # Errors
    /// None for a slot that exists.
    pub fn set(&self, slot: u16, figure: Figure, value: u64) -> Result<()> {
        self.figure(slot, figure)?.store(value, Ordering::Relaxed);
        Ok(())
    }

    /// Adds to a figure. Figures go on over the generations of a slot.
    ///
    /// # Errors
    /// None for a slot that exists.
    pub fn add(&self, slot: u16, figure: Figure, value: u64) -> Result<()> {
        // By its progress a worker that hangs is found.
        if RECOVERS || figure != Figure::Progress {
            self.figure(slot, figure)?.fetch_add(value, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Notes that the slot's worker has come to `block`, which is progress.
    ///
    /// # Errors
    /// None for a slot that exists.
    pub fn at_block(&self, slot: u16, block: u64) -> Result<()> {
        if !RECOVERS {
            return Ok(());
        }
        self.set(slot, Figure::Block, block + 1)?;
        self.add(slot, Figure::Progress, 1)
    }

    /// Leaves last words. Text first, then its length, Release: partner is [`Slots::last_words`].
    ///
    /// # Errors
    /// None for a slot that exists.
    pub fn say(&self, slot: u16, message: &str) -> Result<()> {
        let (at, text) = (self.offset(slot)?, cut(message, ERROR_BYTES));
        self.segment.map().half(at + WORDS_LEN)?.store(0, Ordering::Release);
        self.segment.map().write(at + WORDS, text.as_bytes())?;
        self.segment.map().half(at + WORDS_LEN)?.store(text.len() as u32, Ordering::Release);
        Ok(())
    }

    /// What the slot's worker said last, if it said anything.
    ///
    /// # Errors
    /// None for a slot that exists.
    pub fn last_words(&self, slot: u16) -> Result<Option<String>> {
        let at = self.offset(slot)?;
        let len =
            (self.segment.map().half(at + WORDS_LEN)?.load(Ordering::Acquire) as usize).min(ERROR_BYTES);
        let mut text = vec![0; len];
        self.segment.map().read(at + WORDS, &mut text)?;
        Ok((len > 0).then(|| printable(&text)))
    }
}
