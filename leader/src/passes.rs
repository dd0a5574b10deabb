//! Runs of which each takes a part of the stripes, where the records of all of them do not fit the memory at once.
//!
//! Every pass reads the whole relation and keeps the records of its stripes, in a segment of its own, under the same protocol as a single run;
//! what is over the threshold is taken out before the next pass begins, and carried on ([`crate::carried`]). The first pass counts the rows of *all* stripes, so later passes are
//! left out when none of their stripes can hold a k-mer over the threshold: the default analysis of reads ends after one.
//!
//! Where it is likely that no other stripe matters, one such pass is tried first: see [`crate::first_look`].
//!
//! Which stripes are whose is in [`kmer::superkmer::Share`]; how many passes there are is [`crate::memory`]'s to say.

use crate::carried::Carried;
use crate::console::Console;
use crate::dense::write::Writer;
use crate::failure::Failure;
use crate::first_look;
use crate::lead::{Outcome, create, lead};
use crate::memory::most_pass_bits;
use crate::plan::Plan;
use crate::report::share::Share;
use crate::signals::Signals;
use crate::totals::ScanTotals;
use kmer_worker::shared::Shared;
use shm_layout::inject::{Point, at};
use shm_layout::segment::Segment;

/// Leads all passes. Gives the last one's outcome, with the sums of all, and what the ones before it found. Where tables turn out not to fit the memory
/// beside the records, all begins anew with twice as many passes.
///
/// # Errors
/// As [`lead`].
pub fn lead_all(
    plan: &mut Plan,
    mut resumed: Option<Shared>,
    signals: &Signals,
    console: &mut Console,
    mut dense: Option<&mut Writer>,
) -> Result<(Outcome, Vec<Share>), Failure> {
    loop {
        let is_resumed = resumed.is_some();
        match lead_passes(plan, resumed.take(), signals, console, dense.as_deref_mut()) {
            Err(failure) if failure.is_arena_full() && !is_resumed && may_be_parted(plan) => {
                let had = if plan.job.first_look { 0 } else { plan.job.pass_bits };
                (plan.job.first_look, plan.job.pass, plan.job.pass_bits) = (false, 0, had + 1);
                let passes = 1 << plan.job.pass_bits;
                console.tell(&format!(
                    "the tables do not fit the memory; the run begins anew, in {passes} passes"
                ));
                if let Some(dense) = &mut dense {
                    dense.restart()?;
                }
            }
            Err(failure) if failure.is_half_counted() && !is_resumed && may_begin_anew(plan) => {
                console.tell("blocks cannot be left out while workers share their rows; the run begins anew, each row a worker's own");
                (plan.job.first_look, plan.job.pass, plan.job.part_bits) = (false, 0, 0);
                if let Some(dense) = &mut dense {
                    dense.restart()?;
                }
            }
            Err(failure) if failure.is_arena_full() && plan.job.reads_stdin() => {
                return Err(
                    failure.hint("allow more memory with --memory, or count a file: it can be read again")
                );
            }
            other => return other,
        }
    }
}

/// Whether all may be done again: a segment that another leader may go on with stays as it was planned, and standard input is there once.
fn may_begin_anew(plan: &Plan) -> bool {
    !plan.resumable && !plan.job.reads_stdin()
}

/// Whether more passes may be taken.
fn may_be_parted(plan: &Plan) -> bool {
    let asked = plan.debug.pass_bits.is_some();
    may_begin_anew(plan) && !asked && plan.job.pass_bits < most_pass_bits(&plan.job, plan.params)
}

fn lead_passes(
    plan: &mut Plan,
    resumed: Option<Shared>,
    signals: &Signals,
    console: &mut Console,
    mut dense: Option<&mut Writer>,
) -> Result<(Outcome, Vec<Share>), Failure> {
    let of_earlier =
        |before: &Option<Carried>| before.as_ref().map_or_else(Vec::new, |c| c.scan().poisoned.clone());
    plan.left_out = match &resumed {
        Some(shared) => of_earlier(&Carried::read(shared)?),
        None => Vec::new(),
    };
    if resumed.is_none() && first_look::is_promising(plan) {
        (plan.job.first_look, plan.job.pass_bits) = (true, first_look::BITS);
        let outcome = lead(plan, None, signals, console, None)?;
        if !others_matter(plan, &outcome) {
            return Ok((outcome, Vec::new()));
        }
        Segment::destroy(outcome.shared.segment.name())?;
        outcome.shared.segment.give_up_arena()?;
        (plan.job.first_look, plan.job.pass_bits, plan.job.pass) = (false, 0, 0);
        let mut second = lead(plan, None, signals, console, None)?;
        second.deaths += outcome.deaths;
        second.respawns += outcome.respawns;
        return Ok((second, Vec::new()));
    }
    let mut outcome = lead(plan, resumed, signals, console, dense.as_deref_mut())?;
    let mut before = Carried::read(&outcome.shared)?;
    for pass in plan.job.pass + 1..1u32 << plan.job.pass_bits {
        plan.job.pass = pass;
        let scan = before.as_ref().map_or(&outcome.scan, Carried::scan);
        if !is_worth_it(plan, scan, outcome.threshold) {
            continue;
        }
        let carried = Carried::and(before.take(), plan, &mut outcome)?;
        check_room(plan, &carried)?;
        plan.left_out.clone_from(&carried.scan().poisoned);
        let record = outcome.record.take();
        if let Some(dense) = &mut dense {
            dense.complete(&outcome.shared)?;
        }
        at(Point::PassBegin)?;
        outcome = if plan.resumable {
            let next = make_next(plan, carried, &outcome.shared)?;
            let next = lead(plan, Some(next), signals, console, None)?;
            before = Carried::read(&next.shared)?;
            next
        } else {
            Segment::destroy(outcome.shared.segment.name())?;
            // Its mapping lives until the next pass is over, and its records are not needed any more.
            outcome.shared.segment.give_up_arena()?;
            before = Some(carried);
            lead(plan, None, signals, console, dense.as_deref_mut())?
        };
        outcome.record = match (record, outcome.record) {
            (Some(mut first), Some(next)) => {
                first.then(next);
                Some(first)
            }
            (first, next) => first.or(next),
        };
    }
    let found = Carried::join(before, &mut outcome);
    Ok((outcome, found))
}

/// Makes the next pass's segment with what is carried, and then removes the one before: see [`crate::carried`].
fn make_next(plan: &Plan, carried: Carried, last: &Shared) -> Result<Shared, Failure> {
    let next = create(plan, &carried.to_bytes())?;
    at(Point::PassMade)?;
    Segment::destroy(last.segment.name())?;
    last.segment.give_up_arena()?;
    at(Point::PassLeft)?;
    Ok(next)
}

/// Whether a stripe of another pass than the first can hold a k-mer that is kept.
fn others_matter(plan: &mut Plan, outcome: &Outcome) -> bool {
    let matters = (1..1u32 << plan.job.pass_bits).any(|pass| {
        plan.job.pass = pass;
        is_worth_it(plan, &outcome.scan, outcome.threshold)
    });
    plan.job.pass = 0;
    matters
}

/// Whether a stripe of the pass at hand can hold a k-mer that is kept.
fn is_worth_it(plan: &Plan, scan: &ScanTotals, threshold: u64) -> bool {
    let share = kmer::superkmer::Share { pass_bits: plan.job.pass_bits, pass: plan.job.pass };
    let all = plan.keeps_all(threshold);
    (0u32..)
        .zip(&scan.stripes)
        .any(|(stripe, totals)| share.writes(stripe) && (all || totals.rows > threshold))
}

/// The k-mers that were found are held outside of the chunks, in memory that counts as well.
fn check_room(plan: &Plan, carried: &Carried) -> Result<(), Failure> {
    let bytes = carried.held() * size_of::<crate::report::Entry>() as u64;
    match plan.memory {
        Some(memory) if bytes > memory => {
            let text =
                format!("memory: expected the result to fit {memory} bytes, found {bytes} bytes of it");
            let hint = "allow more with --memory, ask for fewer k-mers, or write them with --dense FILE --count-only";
            Err(Failure::error(text).hint(hint))
        }
        _ => Ok(()),
    }
}
