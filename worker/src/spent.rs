//! Chunks of records that nobody will read any more, for tables to be written over.
//!
//! A chunk is spent when every stripe that has records in it is DONE (or left out): a stripe's records are read by who has claimed it, and a DONE stripe
//! cannot be claimed again. Only chunks that hold nothing but records count: indexes, summaries and messages are read to the end, and the chains are
//! walked by whoever comes later, so words and links of a spent chunk stay as they are ([`shm_layout::arena`], second uses).
//!
//! Who reads records of a DONE stripe nevertheless is a worker that was believed dead: its claim was taken back, somebody else has drained the stripe. What
//! it copies may be half a table; the digest tells it, and its slot that this is no error of the run.
//!
//! Stripes are drained nearly in the order in which their records lie, so the first chunks are spent soon, and a run in which every k-mer is kept needs little more
//! memory than its records. Each drainer looks after units of its own, so that all indexes are read once between them.

use crate::error::WorkError;
use crate::shared::{DrainOrder, Shared};
use crate::spool::UnitResult;
use shm_layout::planted;
use shm_layout::words::Task;

/// The spent chunks of some units, found as the drain goes on.
pub(crate) struct SpentChunks {
    /// Chunks that hold nothing but records, each behind the place in the drain's order of the last stripe in it; in the order of these places.
    chunks: Vec<(u32, u32)>,
    /// How many of them were handed out.
    next: usize,
    /// The first of the drain's order that is not known to be DONE.
    frontier: usize,
}

impl SpentChunks {
    /// Of those of `units` that fall to the drainer in `slot`. None unless all k-mers are kept: other tables are small, and no chunk is for two uses.
    ///
    /// # Errors
    /// When an index is damaged.
    pub(crate) fn new(
        shared: &Shared,
        units: &[(usize, UnitResult)],
        order: &DrainOrder,
        slot: u16,
    ) -> Result<Self, WorkError> {
        let mut chunks = Vec::new();
        if order.all && shared.arena.again(0).is_some() {
            let mut ranks = vec![0; shared.stripes.len()];
            (0u32..).zip(&order.order).for_each(|(rank, stripe)| ranks[*stripe as usize] = rank);
            let drainers = usize::from(shared.worker_slots()?.max(1));
            for (_, unit) in units.iter().skip(usize::from(slot) % drainers).step_by(drainers) {
                add_chunks(shared, unit, &ranks, &mut chunks)?;
            }
            chunks.sort_unstable();
        }
        Ok(Self { chunks, next: 0, frontier: 0 })
    }

    /// Looks how far the drain is, and gives out the chunks that are spent. What was taken counts as used unless [`Taken::put_back`] says otherwise.
    ///
    /// # Errors
    /// When a stripe's word is damaged.
    pub(crate) fn look(&mut self, shared: &Shared, order: &DrainOrder) -> Result<Taken<'_>, WorkError> {
        while let Some(stripe) = order.order.get(self.frontier)
            && self.next < self.chunks.len()
            && matches!(shared.stripes.look(*stripe as usize)?, Task::Done { .. })
        {
            self.frontier += 1;
        }
        Ok(Taken { before: self.next, spent: self })
    }
}

/// Spent chunks on their way into a table.
pub(crate) struct Taken<'a> {
    spent: &'a mut SpentChunks,
    before: usize,
}

impl Taken<'_> {
    /// They were not needed after all.
    pub(crate) fn put_back(self) {
        self.spent.next = self.before;
    }
}

impl Iterator for Taken<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (last, chunk) = *self.spent.chunks.get(self.spent.next)?;
        let is_spent = (last as usize) < self.spent.frontier || planted::is("records-overwritten-early");
        self.spent.next += usize::from(is_spent);
        is_spent.then_some(chunk)
    }
}

/// Adds the chunks of a unit that hold nothing but records.
fn add_chunks(
    shared: &Shared,
    unit: &UnitResult,
    ranks: &[u32],
    into: &mut Vec<(u32, u32)>,
) -> Result<(), WorkError> {
    let (chain, stripes, mut scratch) = (unit.chain(), ranks.len(), Vec::new());
    // Of each chunk: bytes of records, and the place of the last stripe in the drain's order.
    let mut records = vec![(0, 0); chain.chunks().len()];
    for batch in 0..unit.batches() {
        unit.index(&shared.arena, batch, stripes, &mut scratch, |stripe, indexed| {
            let (section, from) = (&indexed.section, unit.begin_of(batch, stripes, &indexed.section));
            for piece in chain.pieces(from, section.bytes.into()) {
                let (sum, last) = &mut records[piece.place];
                (*sum, *last) = (*sum + piece.len as u64, ranks[stripe].max(*last));
            }
        })?;
    }
    let places = records
        .into_iter()
        .enumerate()
        .filter(|(place, (sum, _))| *sum > 0 && *sum == chain.bytes_in(*place));
    into.extend(places.map(|(place, (_, last))| (last, chain.chunks()[place])));
    Ok(())
}
