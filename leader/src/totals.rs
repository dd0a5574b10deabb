//! Sums over units and over stripes, and the proof that nothing was lost, doubled or altered between them.

use crate::failure::Failure;
use kmer_worker::WorkError;
use kmer_worker::drain::{IMAGE_OFFSET, StripeSummary, image_digest};
use kmer_worker::job::Job;
use kmer_worker::shared::{DrainOrder, Shared};
use kmer_worker::spool::{Indexed, UnitResult, UnitSummary, add_index};
use shm_layout::arena::NOTHING;
use shm_layout::hash::image::Image;
use shm_layout::words::{Owner, Task};

/// A stripe is large that has more than one part in so many of what each drainer gets, if that is between the least and the most of these times the mean.
const LARGE_PART: u64 = 32;
const LARGE: (u64, u64) = (2, 16);
/// The last of the stripes are one part in so many, and at least so many stripes.
const LAST_PART: usize = 16;
const LAST_STRIPES: usize = 64;

/// What all units came to.
#[derive(Clone, Debug, Default)]
pub struct ScanTotals {
    /// Sums of the units' numbers.
    pub sums: UnitSummary,
    /// What was skipped, one a line.
    pub messages: String,
    /// Units that were given up.
    pub poisoned: Vec<usize>,
    /// What is in each stripe.
    pub stripes: Vec<StripeTotals>,
}

/// What the units' indexes say of a stripe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StripeTotals {
    /// k-mers in its sections.
    pub kmers: u64,
    /// Rows that have k-mers in it: no k-mer of the stripe occurs in more.
    pub rows: u64,
    /// Sum of the digests of its sections.
    pub digest: u64,
}

impl ScanTotals {
    /// Adds up all units, which are settled.
    ///
    /// # Errors
    /// When a result is damaged.
    pub fn collect(shared: &Shared) -> Result<Self, Failure> {
        let stripes = shared.job.stripes();
        let mut totals = Self { stripes: vec![StripeTotals::default(); stripes], ..Self::default() };
        let mut ended = false;
        for unit in 0..shared.units.len() {
            match shared.units.look(unit)? {
                Task::Done { head: NOTHING, .. } if shared.job.stream.is_some() => ended = true,
                Task::Done { head, .. } if head == NOTHING || ended => {
                    let text = "expected the result of its blocks, found none, or none before it";
                    return Err(Failure::error(format!("unit {unit}: {text}")));
                }
                Task::Done { .. } | Task::Bundled { .. } => {}
                Task::Poison { .. } => totals.poisoned.push(unit),
                other => {
                    return Err(Failure::error(format!(
                        "unit {unit}: expected a settled word, found {other:?}"
                    )));
                }
            }
        }
        let heads = shared.units.results()?;
        for (number, head) in heads.into_iter().filter(|(_, head)| *head != NOTHING) {
            totals.add(shared, number, head)?;
        }
        Ok(totals)
    }

    /// Adds the result of a unit or a bundle.
    fn add(&mut self, shared: &Shared, number: usize, head: u32) -> Result<(), Failure> {
        let (stripes, mut scratch, mut indexes) = (self.stripes.len(), Vec::new(), 0);
        let result = UnitResult::open(&shared.arena, head, stripes)?;
        self.sums.add(&result.summary);
        if result.summary.messages > 0 {
            self.messages.push_str(&result.messages(&shared.arena)?);
        }
        for batch in 0..result.batches() {
            result.index(&shared.arena, batch, stripes, &mut scratch, |stripe, indexed| {
                self.stripes[stripe].add(&indexed);
            })?;
            indexes = add_index(indexes, batch, &scratch);
        }
        Ok(result.check_seal(&shared.arena, number, indexes)?)
    }

    /// Every block must be in one result, and in no other: results are of a unit, or of the units of a bundle.
    ///
    /// # Errors
    /// When the sums of all have more blocks, or fewer.
    pub fn check_blocks(&self, job: &Job) -> Result<(), Failure> {
        let (expected, found) = (job.total_blocks(), self.sums.blocks);
        if job.stream.is_some() || !self.poisoned.is_empty() || expected == found {
            return Ok(());
        }
        Err(Failure::error(format!("results of the scan: expected {expected} blocks, found {found}")))
    }

    /// Every byte of a sequence file must be part of a record. A record of FASTQ that is not built as one, and begins where a unit of blocks does, is
    /// passed over by the search for the unit's first record: here it is missed.
    ///
    /// # Errors
    /// When bytes are missing, unless damage is to be skipped: then they are counted and told of.
    pub fn check_text(&mut self, job: &Job) -> Result<(), Failure> {
        let (expected, found) = (job.text_bytes(), self.sums.text);
        if job.stream.is_some() || !self.poisoned.is_empty() || expected == found {
            return Ok(());
        }
        let text = format!("sequence files: expected records of {expected} bytes together, found {found}");
        if !job.skip_damaged {
            return Err(
                Failure::error(text).hint("a record of FASTQ is damaged; --on-error skip leaves it out")
            );
        }
        self.sums.damaged_tuples += 1;
        self.messages.push_str(&text);
        self.messages.push('\n');
        Ok(())
    }

    /// The stripes that must be drained, large ones first, then as their records lie. The others have no records in this pass, or
    /// cannot hold a k-mer over the threshold: a k-mer occurs in no more rows than its stripe has.
    ///
    /// # Errors
    /// When there are more rows than can be counted.
    pub fn drain_order(&self, threshold: u64, all: bool, drainers: u16) -> Result<DrainOrder, Failure> {
        if self.sums.rows > u64::from(u32::MAX) {
            let text = format!("relation: expected at most {} rows, found {}", u32::MAX, self.sums.rows);
            return Err(Failure::error(text).hint("count parts of it"));
        }
        let mut order: Vec<u32> = (0u32..)
            .zip(&self.stripes)
            .filter(|(_, totals)| totals.kmers > 0 && (all || totals.rows > threshold))
            .map(|(stripe, _)| stripe)
            .collect();
        in_drain_order(&mut order, drainers, |stripe| self.stripes[stripe as usize].kmers);
        Ok(DrainOrder { threshold, all, order })
    }
}

impl StripeTotals {
    fn add(&mut self, indexed: &Indexed) {
        self.kmers += u64::from(indexed.section.kmers);
        self.rows += u64::from(indexed.section.rows);
        self.digest = self.digest.wrapping_add(indexed.digest);
    }
}

/// Sorts stripes of so many `kmers` each: the large ones first, the fullest of them before the others, so that none is begun late; then by number, which is how
/// their records lie, so that memory of records is spent from the front and tables can be written over it; of the last of them the fullest first again.
/// Large ones spend no memory before the others, so only those are that could keep one of the drainers busy after the rest.
fn in_drain_order(order: &mut [u32], drainers: u16, kmers: impl Fn(u32) -> u64) {
    let fullest_first =
        |stripes: &mut [u32]| stripes.sort_by_key(|stripe| (std::cmp::Reverse(kmers(*stripe)), *stripe));
    let all: u64 = order.iter().map(|stripe| kmers(*stripe)).sum();
    let mean = all / (order.len() as u64).max(1);
    let most = (all / u64::from(drainers.max(1)) / LARGE_PART).clamp(mean * LARGE.0, mean * LARGE.1);
    order.sort_by_key(|stripe| (kmers(*stripe) <= most, *stripe));
    let large = order.partition_point(|stripe| kmers(*stripe) > most);
    fullest_first(&mut order[..large]);
    let last = (order.len() / LAST_PART).max(LAST_STRIPES).min(order.len() - large);
    let from = order.len() - last;
    fullest_first(&mut order[from..]);
}

/// Which stripes `order` names.
fn drained_by(shared: &Shared, order: &DrainOrder) -> Vec<bool> {
    let mut drained = vec![false; shared.stripes.len()];
    order.order.iter().for_each(|stripe| drained[*stripe as usize] = true);
    drained
}

/// Settles, as `owner`, the stripes that `order` leaves out, with nothing in them. May be done again (I5).
///
/// # Errors
/// When a stripe's word is damaged.
pub fn settle_left_out(shared: &Shared, order: &DrainOrder, owner: Owner) -> Result<(), WorkError> {
    let drained = drained_by(shared, order);
    for stripe in (0..drained.len()).filter(|stripe| !drained[*stripe]) {
        if let Some(claim) = shared.stripes.claim(stripe, owner)? {
            shared.stripes.commit(stripe, claim, owner, NOTHING)?;
        }
    }
    Ok(())
}

/// Opens a published stripe: its numbers, checked against their seal, and its table, which is not; `None` when it was left out.
///
/// # Errors
/// When it is damaged, or not published.
pub fn open_stripe(shared: &Shared, stripe: usize) -> Result<Option<(StripeSummary, Image<'_>)>, WorkError> {
    let Task::Done { head, .. } = shared.stripes.look(stripe)? else {
        return Err(WorkError::Section {
            unit: 0,
            stripe,
            what: "expected a published table, found none".into(),
        });
    };
    let chain = shared.arena.open(head)?;
    if chain.is_empty() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    shared.arena.read(&chain, 0, IMAGE_OFFSET as usize, &mut bytes)?;
    let summary = StripeSummary::from_bytes(bytes[..].try_into().expect("as many as were read"));
    equal(|| format!("seal of stripe {stripe}"), summary.sealed(stripe).seal, summary.seal)?;
    let image = Image::open(&shared.arena, chain, IMAGE_OFFSET)?;
    if image.len() != summary.kept {
        let what = format!("expected {} keys, found {}", summary.kept, image.len());
        return Err(WorkError::Section { unit: 0, stripe, what });
    }
    Ok(Some((summary, image)))
}

/// Copies the bytes of a stripe's table to `into`, which is emptied before, and checks them; nothing when it was left out.
///
/// # Errors
/// As [`open_stripe`], and when the bytes are not those that were published.
pub fn image_bytes(shared: &Shared, stripe: usize, into: &mut Vec<u8>) -> Result<(), WorkError> {
    into.clear();
    let Some((summary, _)) = open_stripe(shared, stripe)? else { return Ok(()) };
    let Task::Done { head, .. } = shared.stripes.look(stripe)? else { return Ok(()) };
    let chain = shared.arena.open(head)?;
    let len = chain.len().saturating_sub(IMAGE_OFFSET);
    shared.arena.read(&chain, IMAGE_OFFSET, len as usize, into)?;
    let found = image_digest(stripe, into);
    equal(|| format!("digest of the table of stripe {stripe}"), summary.image, found)
}

/// Adds up all stripes and compares with the units: the indexes against the units' own sums, and each drained stripe against the indexes.
/// Drained must be what `order` says, and nothing else.
///
/// # Errors
/// [`WorkError::Conservation`] when sums differ.
pub fn conserve(shared: &Shared, scan: &ScanTotals, order: &DrainOrder) -> Result<StripeSummary, WorkError> {
    let (mut sums, mut indexed) = (StripeSummary::default(), StripeTotals::default());
    for ((stripe, totals), is_drained) in scan.stripes.iter().enumerate().zip(drained_by(shared, order)) {
        indexed.kmers += totals.kmers;
        indexed.digest = indexed.digest.wrapping_add(totals.digest);
        let published = open_stripe(shared, stripe)?;
        let tables = || format!("tables of stripe {stripe}");
        equal(tables, is_drained.into(), published.is_some().into())?;
        if let Some((summary, _)) = published {
            equal(|| format!("k-mers of stripe {stripe}"), totals.kmers, summary.delivered)?;
            equal(|| format!("digests of stripe {stripe}"), totals.digest, summary.digest)?;
            sums.add(&summary);
        }
    }
    equal(|| "k-mers of units and stripes".into(), scan.sums.delivered, indexed.kmers)?;
    equal(|| "digests of units and stripes".into(), scan.sums.digest, indexed.digest)?;
    Ok(sums)
}

fn equal(what: impl FnOnce() -> String, expected: u64, found: u64) -> Result<(), WorkError> {
    if expected == found {
        return Ok(());
    }
    Err(WorkError::Conservation { what: what(), expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stripes of 100 k-mers, but for two that are five and twenty times as full, and two of the last.
    fn order(drainers: u16) -> Vec<u32> {
        let mut order: Vec<u32> = (0..2048).rev().collect();
        let kmers = |stripe| match stripe {
            700 => 500,
            900 => 2000,
            2045 => 110,
            2046 => 120,
            _ => 100,
        };
        in_drain_order(&mut order, drainers, kmers);
        order
    }

    #[test]
    fn stripes_lie_in_their_order_but_for_those_that_would_end_late() {
        let (few, many) = (order(2), order(64));
        for order in [&few, &many] {
            let mut all = order.clone();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..2048));
            // One in sixteen are the last, the fullest of them first.
            assert!(
                order[2048 - 128..]
                    .iter()
                    .copied()
                    .eq([2046, 2045].into_iter().chain(1920..2045).chain([2047]))
            );
        }
        assert!(
            few[..2048 - 128].iter().copied().eq([900].into_iter().chain((0..1920).filter(|s| *s != 900)))
        );
        let others = (0..1920).filter(|s| ![700, 900].contains(s));
        assert!(many[..2048 - 128].iter().copied().eq([900, 700].into_iter().chain(others)));
    }
}
