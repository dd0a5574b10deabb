//! Sums over units and over stripes, and the proof that nothing was lost, doubled or altered between them.

use crate::failure::Failure;
use kmer_worker::WorkError;
use kmer_worker::drain::{IMAGE_OFFSET, StripeSummary};
use kmer_worker::shared::{DrainOrder, Shared};
use kmer_worker::spool::{UnitResult, UnitSummary};
use shm_layout::hash::image::Image;
use shm_layout::words::Task;

/// What all units came to.
#[derive(Clone, Debug, Default)]
pub struct ScanTotals {
    /// Sums of the units' numbers.
    pub sums: UnitSummary,
    /// What was skipped, one a line.
    pub messages: String,
    /// Units that were given up.
    pub poisoned: Vec<usize>,
    /// k-mers of each stripe.
    pub stripes: Vec<u64>,
}

impl ScanTotals {
    /// Adds up all units, which are settled.
    ///
    /// # Errors
    /// When a result is damaged.
    pub fn collect(shared: &Shared) -> Result<Self, Failure> {
        let stripes = shared.job.stripes();
        let mut totals = Self { stripes: vec![0; stripes], ..Self::default() };
        let mut scratch = Vec::new();
        for unit in 0..shared.units.len() {
            match shared.units.look(unit)? {
                Task::Done { head, .. } => {
                    let result = UnitResult::open(&shared.arena, head, stripes)?;
                    totals.sums.add(&result.summary);
                    if result.summary.messages > 0 {
                        totals.messages.push_str(&result.messages(&shared.arena)?);
                    }
                    for batch in 0..result.batches() {
                        result.add_kmers(&shared.arena, batch, &mut scratch, &mut totals.stripes)?;
                    }
                }
                Task::Poison { .. } => totals.poisoned.push(unit),
                other => {
                    return Err(Failure::error(format!(
                        "unit {unit}: expected a settled word, found {other:?}"
                    )));
                }
            }
        }
        Ok(totals)
    }

    /// The order in which stripes are drained: the fullest first, so that no large one is begun last.
    pub fn drain_order(&self, threshold: u64, all: bool) -> Result<DrainOrder, Failure> {
        if self.sums.rows > u64::from(u32::MAX) {
            let text = format!("relation: expected at most {} rows, found {}", u32::MAX, self.sums.rows);
            return Err(Failure::error(text).hint("count parts of it"));
        }
        let mut order: Vec<u32> = (0..self.stripes.len() as u32).collect();
        order.sort_by_key(|stripe| (std::cmp::Reverse(self.stripes[*stripe as usize]), *stripe));
        Ok(DrainOrder { threshold, all, order })
    }
}

/// Opens a published stripe: its numbers and its table.
///
/// # Errors
/// When it is damaged, or not published.
pub fn open_stripe(shared: &Shared, stripe: usize) -> Result<(StripeSummary, Image<'_>), WorkError> {
    let Task::Done { head, .. } = shared.stripes.look(stripe)? else {
        return Err(WorkError::Section {
            unit: 0,
            stripe,
            what: "expected a published table, found none".into(),
        });
    };
    let chain = shared.arena.open(head)?;
    let mut bytes = Vec::new();
    shared.arena.read(&chain, 0, IMAGE_OFFSET as usize, &mut bytes)?;
    let summary = StripeSummary::from_bytes(bytes[..].try_into().expect("as many as were read"));
    let image = Image::open(&shared.arena, chain, IMAGE_OFFSET)?;
    if image.len() != summary.kept {
        let what = format!("expected {} keys, found {}", summary.kept, image.len());
        return Err(WorkError::Section { unit: 0, stripe, what });
    }
    Ok((summary, image))
}

/// Adds up all stripes and compares with the units: as many k-mers, and the same digests.
///
/// # Errors
/// [`WorkError::Conservation`] when sums differ.
pub fn conserve(shared: &Shared, scan: &ScanTotals) -> Result<StripeSummary, WorkError> {
    let mut sums = StripeSummary::default();
    for stripe in 0..shared.stripes.len() {
        sums.add(&open_stripe(shared, stripe)?.0);
    }
    for (what, expected, found) in
        [("k-mers", scan.sums.delivered, sums.delivered), ("digests", scan.sums.digest, sums.digest)]
    {
        if expected != found {
            return Err(WorkError::Conservation {
                what: format!("{what} of units and stripes"),
                expected,
                found,
            });
        }
    }
    Ok(sums)
}
