//! Drains a stripe: reads its sections out of every unit, counts in private memory, and writes the table that will be published.
//!
//! ```text
//! chain := summary image        summary: [`STRIPE_FIELDS`] numbers, u64 each; image: see `shm_layout::hash::image`
//! ```
//!
//! What is read does not change until the stripe is DONE (I4), so it may be drained again after a death, to the same table. The table is written over
//! records that nobody will read any more, as far as there are such (`spent`). Every sum that can be checked is:
//! the k-mers of each section, the counts in the table against the pairs that were counted, and keys times counts likewise.

pub use crate::stripe::{IMAGE_OFFSET, STRIPE_FIELDS, StripeSummary, image_digest};

use crate::counting::{Counted, Counting};
use crate::error::WorkError;
use crate::job::Job;
use crate::sections::{LongRow, Place, Sections};
use crate::shared::{DrainOrder, Shared};
use crate::spent::SpentChunks;
use crate::spool::{UnitResult, section_digest};
use kmer::line::Places;
use kmer::minimizer::Dealer;
use kmer::params::Params;
use kmer::record::{Eight, Six, Sixteen, Twelve, Width};
use kmer::spelled::KeyBits;
use kmer::{direct, keys};
use shm_layout::arena::OwnedChain;
use shm_layout::hash::counter::{Added, Key};
use shm_layout::hash::entry::EntryKind;
use shm_layout::hash::image::{ImageWriter, squeeze};
use shm_layout::hash::table::Table;
use shm_layout::planted;
use shm_layout::slots::Figure;
use shm_layout::words::Owner;

/// How many sections ahead records are asked for.
const SECTIONS_AHEAD: usize = 2;
/// Drains stripes of one run.
pub struct Drainer {
    units: Vec<(usize, UnitResult)>,
    sections: Sections,
    spent: SpentChunks,
    order: DrainOrder,
    params: Params,
    method: Method,
    records: Vec<u8>,
    image: Vec<u8>,
    slot: u16,
}

/// How a stripe is counted: by the width of records, and of keys.
enum Method {
    SixShort(Box<Counting<Six, u32>>),
    Six(Box<Counting<Six, u64>>),
    EightShort(Box<Counting<Eight, u32>>),
    Eight(Box<Counting<Eight, u64>>),
    Twelve(Box<Counting<Twelve, u64>>),
    Sixteen(Box<Counting<Sixteen, u64>>),
    Direct(Vec<u32>),
}

impl Method {
    fn new(job: &Job, params: Params) -> Self {
        fn counting<R: Places, K: Key + KeyBits>(job: &Job, params: Params) -> Box<Counting<R, K>> {
            Box::new(Counting::new(params, job.stripe_bits, job.seed, job.occurrences))
        }
        if job.direct {
            return Self::Direct(vec![0; 1 << (params.key_bits() - job.stripe_bits)]);
        }
        let short = params.key_bits() <= 32;
        match Dealer::new(params, job.stripe_bits, job.seed).form().width() {
            Width::Six if short => Self::SixShort(counting(job, params)),
            Width::Six => Self::Six(counting(job, params)),
            Width::Eight if short => Self::EightShort(counting(job, params)),
            Width::Eight => Self::Eight(counting(job, params)),
            Width::Twelve => Self::Twelve(counting(job, params)),
            Width::Sixteen => Self::Sixteen(counting(job, params)),
        }
    }
}

impl Drainer {
    /// Opens the results of all units for the worker in `slot`, after the leader opened the drain.
    ///
    /// # Errors
    /// When a result is damaged.
    pub fn new(shared: &Shared, slot: u16) -> Result<Self, WorkError> {
        let job = &shared.job;
        let mut units = Vec::new();
        for (at, (unit, head)) in shared.units.results()?.into_iter().enumerate() {
            if at == 0 && planted::is("unit-not-drained") {
                continue;
            }
            units.push((unit, UnitResult::open(&shared.arena, head, job.stripes())?));
            if at == 0 && planted::is("unit-drained-twice") {
                units.push((unit, UnitResult::open(&shared.arena, head, job.stripes())?));
            }
        }
        let params = job.params()?;
        let method = Method::new(job, params);
        let (sections, order) = (Sections::new(shared, &units)?, shared.drain_order()?);
        let spent = SpentChunks::new(shared, &units, &order, slot)?;
        let (records, image) = Default::default();
        Ok(Self { units, sections, spent, order, params, method, records, image, slot })
    }

    /// Drains stripe `stripe` into the bytes of its chain.
    ///
    /// # Errors
    /// When a section is damaged, or sums do not agree.
    pub fn drain(&mut self, shared: &Shared, stripe: usize) -> Result<(Vec<u8>, StripeSummary), WorkError> {
        let mut summary = StripeSummary::default();
        let mut method = std::mem::replace(&mut self.method, Method::Direct(Vec::new()));
        let image = match &mut method {
            Method::SixShort(counting) => self.count(shared, stripe, counting, &mut summary),
            Method::Six(counting) => self.count(shared, stripe, counting, &mut summary),
            Method::EightShort(counting) => self.count(shared, stripe, counting, &mut summary),
            Method::Eight(counting) => self.count(shared, stripe, counting, &mut summary),
            Method::Twelve(counting) => self.count(shared, stripe, counting, &mut summary),
            Method::Sixteen(counting) => self.count(shared, stripe, counting, &mut summary),
            Method::Direct(sums) => self.add_up(shared, stripe, sums, &mut summary),
        };
        self.method = method;
        let mut image = image?;
        summary.image = image_digest(stripe, &image[IMAGE_OFFSET as usize..]);
        summary = summary.sealed(stripe);
        image[..IMAGE_OFFSET as usize].copy_from_slice(&summary.to_bytes());
        Ok((image, summary))
    }

    /// Stores an image as a chain of `owner`'s, over records that nobody will read any more as far as there are such.
    ///
    /// # Errors
    /// No room, or what the system says; nothing stays allocated then.
    pub fn store(&mut self, shared: &Shared, owner: Owner, image: &[u8]) -> Result<OwnedChain, WorkError> {
        loop {
            let mut spent = self.spent.look(shared, &self.order)?;
            let stored = shared.arena.store_over(owner, image, &mut spent).map_err(WorkError::from);
            if stored.is_err() {
                spent.put_back();
            }
            match stored {
                Err(e) if e.is_no_room() => {
                    if !self.spent.look_everywhere(shared, &self.units, &self.order)? {
                        return Err(e);
                    }
                }
                stored => return stored,
            }
        }
    }

    /// Gives the memory of a stored image back for the next one.
    pub fn reuse(&mut self, image: Vec<u8>) {
        self.image = image;
    }

    /// An empty buffer with room for the summary, which is known last.
    fn front(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.image);
        buffer.clear();
        buffer.resize(IMAGE_OFFSET as usize, 0);
        buffer
    }

    /// Asks for the first of these sections, if there is one: they lie far from each other.
    fn expect(&self, shared: &Shared, sections: std::ops::Range<usize>) {
        if let Some(Place { unit, batch, indexed }) =
            sections.clone().next().map(|at| self.sections.places[at])
        {
            let result = &self.units[unit as usize].1;
            result.prefetch(&shared.arena, batch as usize, shared.job.stripes(), &indexed.section);
        }
    }

    /// Copies a section of the stripe behind what `self.records` has, checks it, and adds it to the sums. Returns its unit.
    fn load(
        &mut self,
        shared: &Shared,
        stripe: usize,
        place: Place,
        summary: &mut StripeSummary,
    ) -> Result<usize, WorkError> {
        shared.slots.add(self.slot, Figure::Progress, 1)?;
        let Place { unit, batch, indexed } = place;
        let (unit, result) = &self.units[unit as usize];
        let from = self.records.len();
        result.read(
            &shared.arena,
            batch as usize,
            shared.job.stripes(),
            &indexed.section,
            &mut self.records,
        )?;
        let long_row = result.long_row(batch as usize);
        let found = section_digest(*unit, long_row, stripe, &self.records[from..]);
        if found != indexed.digest {
            let what = format!("expected records of digest {:016x}, found {found:016x}", indexed.digest);
            return Err(WorkError::Section { unit: *unit, stripe, what });
        }
        summary.digest = summary.digest.wrapping_add(found);
        summary.delivered += u64::from(indexed.section.kmers);
        Ok(*unit)
    }

    fn count<R: Places, K: Key + KeyBits>(
        &mut self,
        shared: &Shared,
        stripe: usize,
        counting: &mut Counting<R, K>,
        summary: &mut StripeSummary,
    ) -> Result<Vec<u8>, WorkError> {
        self.records.clear();
        let sections = self.sections.of(shared, &self.units, stripe)?;
        let mut before = None;
        for at in sections.clone() {
            self.expect(shared, at + SECTIONS_AHEAD..sections.end);
            let (place, from) = (self.sections.places[at], self.records.len());
            self.load(shared, stripe, place, summary)?;
            let long_row = LongRow::of(shared, &self.units[place.unit as usize], place.batch);
            if long_row.is_some() && long_row == before {
                unmark::<R>(&mut self.records[from..]);
            }
            before = long_row;
        }
        let bad = |what: String| WorkError::Section { unit: 0, stripe, what };
        let (kmers, total) = counting.count(stripe as u32, &self.records, summary.delivered).map_err(bad)?;
        if kmers != summary.delivered {
            return Err(bad(format!("expected {} k-mers, found {kmers}", summary.delivered)));
        }
        if shared.job.occurrences && total.counted != kmers {
            let what = format!("occurrences of stripe {stripe}");
            return Err(WorkError::Conservation { what, expected: kmers, found: total.counted });
        }
        let front = self.front();
        let kind = EntryKind::for_bits(self.params.key_bits());
        match counting.table() {
            Counted::Groups(table) => publish(table, total, &self.order, kind, front, summary),
            Counted::Weights(table) => publish(table, total, &self.order, kind, front, summary),
        }
    }

    fn add_up(
        &mut self,
        shared: &Shared,
        stripe: usize,
        sums: &mut [u32],
        summary: &mut StripeSummary,
    ) -> Result<Vec<u8>, WorkError> {
        sums.fill(0);
        for at in self.sections.of(shared, &self.units, stripe)? {
            self.records.clear();
            let place = self.sections.places[at];
            let unit = self.load(shared, stripe, place, summary)?;
            let add = match (shared.job.is_summed(), keys::suits(self.params)) {
                (true, _) => keys::add_summed,
                (_, true) => keys::add_stripe,
                _ => direct::add_stripe,
            };
            let (read, kmers) = (add(&self.records, sums), place.indexed.section.kmers);
            if read.is_none() && shared.job.occurrences && summary.delivered > u32::MAX.into() {
                return Err(WorkError::TooMany);
            }
            if read != Some(u64::from(kmers)) {
                let what = format!("expected row counts of {kmers} in all, found {read:?}");
                return Err(WorkError::Section { unit, stripe, what });
            }
        }
        summary.counted = sums.iter().map(|n| u64::from(*n)).sum();
        if summary.counted != summary.delivered {
            let what = format!("row counts of stripe {stripe}");
            return Err(WorkError::Conservation {
                what,
                expected: summary.delivered,
                found: summary.counted,
            });
        }
        let base = (stripe * sums.len()) as u64;
        let buffer = self.front();
        let keep = |count: u32| count > 0 && (self.order.all || u64::from(count) > self.order.threshold);
        summary.distinct = sums.iter().filter(|n| **n > 0).count() as u64;
        summary.kept = sums.iter().filter(|n| keep(**n)).count() as u64;
        summary.highest = sums.iter().copied().max().unwrap_or(0).into();
        let entry = EntryKind::for_bits(shared.job.params()?.key_bits());
        // Where most keys are kept, their places need no keys beside them.
        let mut image = if summary.kept as usize * entry.bytes() >= sums.len() * EntryKind::Identity.bytes() {
            ImageWriter::identity(buffer, base, sums.len() as u64)
        } else {
            ImageWriter::hashed(buffer, entry, summary.kept, shared.job.seed | 1)
        };
        for (key, count) in (base..).zip(sums.iter()).filter(|(_, n)| keep(**n)) {
            image.put(key, *count);
        }
        Ok(image.finish())
    }
}

/// Takes the mark from the first of `records`: it is of the same row as the one before it.
fn unmark<R: Places>(records: &mut [u8]) {
    if let Some(first) = records.get_mut(..R::WIDTH.bytes()) {
        R::load(first).unmarked().store(first);
    }
}

/// Writes the image of the keys that are kept, and checks the table against what was counted.
fn publish<T: Table>(
    table: &T,
    total: Added,
    order: &DrainOrder,
    kind: EntryKind,
    buffer: Vec<u8>,
    summary: &mut StripeSummary,
) -> Result<Vec<u8>, WorkError> {
    if order.all {
        let (image, found) = squeeze(buffer, kind, table);
        check(total, found.sums)?;
        (summary.distinct, summary.counted) = (table.len() as u64, found.sums.counted);
        (summary.kept, summary.highest) = (table.len() as u64, found.highest.into());
        return Ok(image);
    }
    let mut found = Added::default();
    let keep = |count: u32| u64::from(count) > order.threshold;
    table.for_each_batch(|batch| {
        for (number, count) in batch {
            found.counted += u64::from(*count);
            found.key_sum = found.key_sum.wrapping_add(number.wrapping_mul(u64::from(*count)));
            summary.kept += u64::from(keep(*count));
            summary.highest = summary.highest.max(u64::from(*count));
        }
    });
    check(total, found)?;
    (summary.distinct, summary.counted) = (table.len() as u64, found.counted);
    let mut image = ImageWriter::hashed(buffer, kind, summary.kept, table.multiplier());
    table.for_each_batch(|batch| {
        let kept = batch.iter().filter(|(_, count)| keep(*count));
        image.put_all(kept.map(|(number, count)| (table.key(*number), *count)));
    });
    Ok(image.finish())
}

const ROW_COUNTS: &str = "row counts";

fn check(expected: Added, found: Added) -> Result<(), WorkError> {
    for (what, expected, found) in [
        (ROW_COUNTS, expected.counted, found.counted),
        ("keys times row counts", expected.key_sum, found.key_sum),
    ] {
        if expected != found {
            // Each count that went over its end has lost so many.
            let is_over = expected > found && (expected - found).trailing_zeros() >= u32::BITS;
            if is_over && what == ROW_COUNTS {
                return Err(WorkError::TooMany);
            }
            return Err(WorkError::Conservation { what: format!("{what} of a table"), expected, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_over_its_end_is_told_from_a_lost_one() {
        let sums = |counted| Added { counted, key_sum: 7 };
        assert!(check(sums(5 << 32), sums(5 << 32)).is_ok());
        assert!(matches!(check(sums((5 << 32) + 3), sums((3 << 32) + 3)), Err(WorkError::TooMany)));
        for found in [(5 << 32) + 2, 6 << 32, 3] {
            assert!(matches!(check(sums((5 << 32) + 4), sums(found)), Err(WorkError::Conservation { .. })));
        }
    }
}
