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
//! memory than its records. A stripe that is late (its worker is slow, or died) keeps back only the chunks around it. Each drainer looks after units of its own, so that
//! all indexes are read once between them; after the others' it looks when there is no room.

use crate::error::WorkError;
use crate::shared::{DrainOrder, Shared};
use crate::spool::UnitResult;
use shm_layout::planted;
use shm_layout::words::Task;

/// How many stripes may be late, beside two for each drainer, without keeping back what lies behind them.
const LATE: usize = 64;

/// A chunk that holds nothing but records, and the places in the drain's order between which all stripes lie that have records in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    last: u32,
    first: u32,
    chunk: u32,
}

/// The spent chunks of some units, found as the drain goes on.
pub(crate) struct SpentChunks {
    /// Chunks of which some stripe is not known to be DONE; the last first.
    candidates: Vec<Candidate>,
    /// Chunks before the cursor with a late stripe.
    kept_back: Vec<Candidate>,
    /// Chunks that are spent, and not handed out.
    spent: Vec<u32>,
    /// Before this place in the drain's order all stripes are DONE, but for the late ones.
    cursor: u32,
    /// Places before the cursor whose stripes are not known to be DONE, in order.
    late: Vec<u32>,
    drainers: usize,
    /// Whose units were looked at; `None`: everybody's.
    share: Option<usize>,
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
        let drainers = usize::from(shared.worker_slots()?.max(1));
        let mut found = Self {
            candidates: Vec::new(),
            kept_back: Vec::new(),
            spent: Vec::new(),
            cursor: 0,
            late: Vec::new(),
            drainers,
            share: None,
        };
        if order.all && shared.arena.again(0).is_some() {
            found.share = Some(usize::from(slot) % drainers);
            found.add_units(shared, units, order, |share| share == usize::from(slot) % drainers)?;
        }
        Ok(found)
    }

    fn add_units(
        &mut self,
        shared: &Shared,
        units: &[(usize, UnitResult)],
        order: &DrainOrder,
        is_asked: impl Fn(usize) -> bool,
    ) -> Result<(), WorkError> {
        let mut ranks = vec![0; shared.stripes.len()];
        (0u32..).zip(&order.order).for_each(|(rank, stripe)| ranks[*stripe as usize] = rank);
        for (at, (_, unit)) in units.iter().enumerate() {
            if is_asked(at % self.drainers) {
                add_chunks(shared, unit, &ranks, &mut self.candidates)?;
            }
        }
        self.candidates.sort_unstable_by(|a, b| b.cmp(a));
        Ok(())
    }

    /// Looks at the others' units as well, whose drainers may be gone; false when that was done before. What they have used already cannot be had twice.
    ///
    /// # Errors
    /// When an index is damaged.
    pub(crate) fn look_everywhere(
        &mut self,
        shared: &Shared,
        units: &[(usize, UnitResult)],
        order: &DrainOrder,
    ) -> Result<bool, WorkError> {
        let Some(own) = self.share.take() else { return Ok(false) };
        self.add_units(shared, units, order, |share| share != own)?;
        Ok(true)
    }

    /// Looks how far the drain is, and gives out chunks that are spent. What was taken counts as used unless [`Taken::put_back`] says otherwise.
    ///
    /// # Errors
    /// When a stripe's word is damaged.
    pub(crate) fn look(&mut self, shared: &Shared, order: &DrainOrder) -> Result<Taken<'_>, WorkError> {
        if !self.candidates.is_empty() || !self.kept_back.is_empty() {
            self.advance(shared, order)?;
        }
        Ok(Taken { taken: Vec::new(), spent: self })
    }

    fn advance(&mut self, shared: &Shared, order: &DrainOrder) -> Result<(), WorkError> {
        let is_done = |rank: u32| -> Result<bool, WorkError> {
            let stripe = order.order[rank as usize] as usize;
            Ok(matches!(shared.stripes.look(stripe)?, Task::Done { .. }))
        };
        let mut late = Vec::new();
        for rank in std::mem::take(&mut self.late) {
            if !is_done(rank)? {
                late.push(rank);
            }
        }
        while (self.cursor as usize) < order.order.len() && late.len() < 2 * self.drainers + LATE {
            if !is_done(self.cursor)? {
                late.push(self.cursor);
            }
            self.cursor += 1;
        }
        self.late = late;
        let passed =
            self.candidates.iter().rposition(|chunk| chunk.last >= self.cursor).map_or(0, |at| at + 1);
        let looked_at =
            std::mem::take(&mut self.kept_back).into_iter().chain(self.candidates.drain(passed..));
        for chunk in looked_at {
            let late = self.late.partition_point(|rank| *rank < chunk.first);
            let is_late = self.late.get(late).is_some_and(|rank| *rank <= chunk.last);
            if planted::is("records-overwritten-early") {
                self.spent.insert(0, chunk.chunk);
            } else if is_late {
                self.kept_back.push(chunk);
            } else {
                self.spent.push(chunk.chunk);
            }
        }
        Ok(())
    }
}

/// Spent chunks on their way into a table.
pub(crate) struct Taken<'a> {
    spent: &'a mut SpentChunks,
    taken: Vec<u32>,
}

impl Taken<'_> {
    /// They were not needed after all.
    pub(crate) fn put_back(self) {
        self.spent.spent.extend(self.taken);
    }
}

impl Iterator for Taken<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let chunk = self.spent.spent.pop()?;
        self.taken.push(chunk);
        Some(chunk)
    }
}

/// Adds the chunks of a unit that hold nothing but records.
fn add_chunks(
    shared: &Shared,
    unit: &UnitResult,
    ranks: &[u32],
    into: &mut Vec<Candidate>,
) -> Result<(), WorkError> {
    let (chain, stripes, mut scratch) = (unit.chain(), ranks.len(), Vec::new());
    // Of each chunk: bytes of records, and the first and last place in the drain's order of their stripes.
    let mut records = vec![(0, u32::MAX, 0); chain.chunks().len()];
    for batch in 0..unit.batches() {
        unit.index(&shared.arena, batch, stripes, &mut scratch, |stripe, indexed| {
            let (section, from) = (&indexed.section, unit.begin_of(batch, stripes, &indexed.section));
            for piece in chain.pieces(from, section.bytes.into()) {
                let (sum, first, last) = &mut records[piece.place];
                *sum += piece.len as u64;
                (*first, *last) = (ranks[stripe].min(*first), ranks[stripe].max(*last));
            }
        })?;
    }
    let chunks = chain.chunks().iter().zip(records).enumerate();
    into.extend(
        chunks
            .filter(|(place, (_, (sum, ..)))| *sum > 0 && *sum == chain.bytes_in(*place))
            .map(|(_, (chunk, (_, first, last)))| Candidate { last, first, chunk: *chunk }),
    );
    Ok(())
}
