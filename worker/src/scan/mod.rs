//! Scans a unit: reads its blocks, takes the column out of every visible row, and stores the k-mers sorted by stripe.
//!
//! A unit is whole pages, a row lies in one page, and a k-mer in one value, so units have nothing to do with each other; but of few
//! blocks with long rows several units take a portion each (`portion.rs`). Long values are taken in batches: what a unit needs at a time is bounded, however large its rows are.

mod sorter;
mod unit;

use crate::error::WorkError;
use crate::portion::Portion;
use crate::shared::Shared;
use crate::source::Blocks;
use crate::spool::UnitSummary;
use shm_layout::arena::OwnedChain;
use shm_layout::words::Owner;
use sorter::Sorter;

/// Messages about skipped tuples that a result keeps for each of its units, in bytes; the rest is counted only.
const MESSAGE_BYTES: usize = 64 << 10;

/// Scans units of one job.
pub struct Scanner {
    blocks: Blocks,
    sorter: Sorter,
}

impl Scanner {
    /// Gets ready to scan for the worker in `slot`, through mappings if `mapped` says so.
    ///
    /// # Errors
    /// When the transaction logs cannot be opened, or the job's numbers are out of range.
    pub fn new(shared: &Shared, slot: u16, mapped: bool) -> Result<Self, WorkError> {
        Ok(Self { blocks: Blocks::new(shared, slot, mapped)?, sorter: Sorter::new(&shared.job)? })
    }

    /// Scans unit `unit` and stores its result in chunks of `owner`. Nothing of it is published.
    ///
    /// # Errors
    /// Damage in the relation, no room in the arena. What was stored is freed again.
    pub fn scan(
        &mut self,
        shared: &Shared,
        unit: usize,
        owner: Owner,
    ) -> Result<(OwnedChain, UnitSummary), WorkError> {
        self.begin(shared, unit, Portion::of(&shared.job, unit), owner);
        self.take(shared, unit)?;
        self.finish(shared)
    }

    /// Begins a result, which will be known as `number`, of `owner`'s: of each unit that it takes, `portion`.
    pub(crate) fn begin(&mut self, shared: &Shared, number: usize, portion: Portion, owner: Owner) {
        self.sorter.begin(number, owner, &shared.arena, portion, shared.share());
        self.sorter.unit.slots = Some(shared.slots.clone());
    }

    /// Takes the rows of unit `unit` into the result that was begun.
    ///
    /// # Errors
    /// Damage in the relation, no room in the arena. What was stored is freed again, and the result is lost.
    pub fn take(&mut self, shared: &Shared, unit: usize) -> Result<(), WorkError> {
        let (first, blocks) = shared.unit_blocks(unit)?;
        self.sorter.unit.most_messages = self.sorter.unit.messages.len() + MESSAGE_BYTES;
        let mut counts = self.sorter.unit.counts;
        let scanned = match shared.parcel_of(unit) {
            Some(parcel) => self.blocks.read_parcel(shared, parcel, self.sorter.unit.owner, &mut self.sorter),
            None => self.blocks.read(shared, first, blocks, &mut counts, &mut self.sorter),
        };
        match self.sorter.unit.failure.take().map_or(scanned, Err) {
            Ok(text) => {
                let unit = &mut self.sorter.unit;
                unit.counts = counts;
                unit.summary.blocks += blocks;
                unit.summary.text += text;
                Ok(())
            }
            Err(e) => self.lose(shared, e),
        }
    }

    /// k-mers of the result that was begun so far.
    pub fn kmers(&self) -> u64 {
        self.sorter.bases.counts().kmers
    }

    /// Stores what the result still lacks.
    ///
    /// # Errors
    /// As [`Scanner::take`].
    pub fn finish(&mut self, shared: &Shared) -> Result<(OwnedChain, UnitSummary), WorkError> {
        self.sorter.finish().or_else(|e| self.lose(shared, e))
    }

    /// Frees what was stored of the result.
    fn lose<T>(&mut self, shared: &Shared, error: WorkError) -> Result<T, WorkError> {
        if let Some(chain) = self.sorter.unit.chain.take() {
            shared.arena.free(chain)?;
        }
        Err(error)
    }
}
