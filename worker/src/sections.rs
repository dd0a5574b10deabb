//! Where a stripe's sections are: in the indexes of the batches of all units, an entry for each stripe in each of them.
//!
//! Where all entries fit [`TURNED`], a drainer turns them once, so that what a stripe needs of them lies together. Where they do not, since there are
//! many batches, it asks every batch's index when it comes to a stripe: an access far from the one before each, asked for ahead. So a drainer's own memory does not
//! grow with the input but by a few bytes a batch.
//!
//! A stripe's sections come in the order of their units, but where units share blocks: there those of a long row come one after the other, whichever of
//! the block's units they are from, so that its records are a row again.

use crate::error::WorkError;
use crate::shared::Shared;
use crate::spool::{Indexed, NO_ROW, UnitResult};
use std::ops::Range;

/// The most entries that are turned; each takes 32 bytes.
const TURNED: usize = 1 << 20;
/// How many batches ahead an index is asked for.
const AHEAD: usize = 8;

/// Where a section is: place of its unit, batch, what the index says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) unit: u32,
    pub(crate) batch: u32,
    pub(crate) indexed: Indexed,
}

/// A row that was dealt out, by its block's units without their last bits, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LongRow {
    block: usize,
    row: u64,
}

impl LongRow {
    /// The row of a batch of unit `unit`, if it is a long one.
    pub(crate) fn of(shared: &Shared, (unit, result): &(usize, UnitResult), batch: u32) -> Option<Self> {
        let row = result.long_row(batch as usize);
        (row != NO_ROW).then_some(Self { block: unit >> shared.job.part_bits, row })
    }
}

/// Finds the sections that are not empty.
pub(crate) struct Sections {
    /// Places of units, and batches of them, in the order in which their sections come.
    batches: Vec<(u32, u32)>,
    /// Of all stripes, or of the one that was asked for last.
    pub(crate) places: Vec<Place>,
    /// Where each stripe's places begin, one more than stripes; `None`: those of one stripe are there.
    begins: Option<Vec<usize>>,
    scratch: Vec<u8>,
}

impl Sections {
    /// Of these units, each with its number.
    ///
    /// # Errors
    /// When an index is damaged.
    pub(crate) fn new(shared: &Shared, units: &[(usize, UnitResult)]) -> Result<Self, WorkError> {
        let batches = batches(shared, units);
        // In a pass the others' sections are empty.
        let entries = batches.len().saturating_mul(shared.job.stripes() >> shared.job.pass_bits);
        if entries > TURNED {
            return Ok(Self { batches, places: Vec::new(), begins: None, scratch: Vec::new() });
        }
        Self::turned(shared, units, batches)
    }

    /// Reads all indexes, twice: to know how much there is of each stripe, and to have it.
    fn turned(
        shared: &Shared,
        units: &[(usize, UnitResult)],
        batches: Vec<(u32, u32)>,
    ) -> Result<Self, WorkError> {
        let (stripes, mut scratch) = (shared.job.stripes(), Vec::new());
        let mut begins = vec![0; stripes + 1];
        for (unit, batch) in &batches {
            let (result, batch) = (&units[*unit as usize].1, *batch as usize);
            result.index(&shared.arena, batch, stripes, &mut scratch, |stripe, indexed| {
                begins[stripe + 1] += usize::from(indexed.section.bytes > 0);
            })?;
        }
        for stripe in 0..stripes {
            begins[stripe + 1] += begins[stripe];
        }
        let none = Place { unit: 0, batch: 0, indexed: Indexed::default() };
        let (mut places, mut next) = (vec![none; begins[stripes]], begins.clone());
        for (unit, batch) in batches.iter().copied() {
            let result = &units[unit as usize].1;
            result.index(&shared.arena, batch as usize, stripes, &mut scratch, |stripe, indexed| {
                if indexed.section.bytes > 0 && next[stripe] < begins[stripe + 1] {
                    places[next[stripe]] = Place { unit, batch, indexed };
                    next[stripe] += 1;
                }
            })?;
        }
        Ok(Self { batches, places, begins: Some(begins), scratch })
    }

    /// The sections of a stripe, as a range of [`Self::places`].
    ///
    /// # Errors
    /// When an index is damaged.
    pub(crate) fn of(
        &mut self,
        shared: &Shared,
        units: &[(usize, UnitResult)],
        stripe: usize,
    ) -> Result<Range<usize>, WorkError> {
        if let Some(begins) = &self.begins {
            return Ok(begins[stripe]..begins[stripe + 1]);
        }
        self.places.clear();
        let of = |(unit, batch): &(u32, u32)| (*unit, *batch as usize, &units[*unit as usize].1);
        let batches = || self.batches.iter().map(of);
        let mut ahead = batches();
        ahead
            .by_ref()
            .take(AHEAD)
            .for_each(|(_, batch, result)| result.expect_index(&shared.arena, batch, stripe));
        for (unit, batch, result) in batches() {
            if let Some((_, batch, result)) = ahead.next() {
                result.expect_index(&shared.arena, batch, stripe);
            }
            let indexed = result.index_of(&shared.arena, batch, stripe, &mut self.scratch)?;
            if indexed.section.bytes > 0 {
                self.places.push(Place { unit, batch: batch as u32, indexed });
            }
        }
        Ok(0..self.places.len())
    }
}

/// All batches: those of units that share a block by the long row that they are of, of none first.
fn batches(shared: &Shared, units: &[(usize, UnitResult)]) -> Vec<(u32, u32)> {
    let all = (0u32..).zip(units);
    let of = |(unit, (_, result)): (u32, &(usize, UnitResult))| {
        (0..result.batches() as u32).map(move |batch| (unit, batch))
    };
    let mut batches: Vec<(u32, u32)> = all.flat_map(of).collect();
    if shared.job.part_bits > 0 {
        // Not one is moved past another of the same row.
        batches.sort_by_key(|(unit, batch)| LongRow::of(shared, &units[*unit as usize], *batch));
    }
    batches
}
