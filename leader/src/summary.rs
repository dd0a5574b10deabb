//! What is said on standard error at the end: the result's five fields, what was left out, and what each worker did.

use crate::lead::Outcome;
use crate::plan::Plan;
use shm_layout::slots::Figure;
use std::fmt::Write as _;

/// The summary, several lines.
pub fn summary(plan: &Plan, outcome: &Outcome, reported: u64, seconds: f64) -> String {
    let mut text = String::new();
    let (sums, rule) = (&outcome.scan.sums, &plan.rule);
    let _ = writeln!(text, "total_rows: {}", sums.rows);
    let _ = writeln!(text, "highfreq_kmers_count: {}", reported);
    let _ = writeln!(text, "parallel_workers_used: {}", outcome.launched);
    let _ = writeln!(text, "max_appearance_rate_used: {}", rule.rate);
    let _ = writeln!(text, "max_appearance_nrow_used: {}", rule.nrow);
    for (number, what) in [
        (sums.nulls, "rows with NULL"),
        (sums.short, "rows shorter than k"),
        (sums.dead, "tuples deleted or aborted"),
        (sums.undecided, "tuples whose hint bits leave their state open"),
        (sums.zero_pages, "pages of zeros"),
        (sums.expanded, "windows expanded"),
        (sums.skipped, "windows skipped"),
        (sums.damaged_pages, "damaged pages skipped"),
        (sums.damaged_tuples, "damaged tuples skipped"),
        (outcome.scan.poisoned.len() as u64, "units skipped, since workers died on them"),
        (outcome.deaths.into(), "workers died and were recovered from"),
        (outcome.respawns.into(), "workers started in their place"),
    ] {
        if number > 0 {
            let _ = writeln!(text, "{what}: {number}");
        }
    }
    if !plan.job.verify_checksums && plan.job.text_bytes() == 0 {
        let _ = writeln!(text, "page checksums: not verified");
    }
    workers(outcome, &mut text);
    let (scan, drain) = outcome.seconds;
    let different = if outcome.threshold == 0 {
        format!(", {} different", outcome.drain.distinct)
    } else {
        String::new()
    };
    let _ = writeln!(
        text,
        "{} k-mers{different}, in {seconds:.3} s (scan {scan:.3}, drain {drain:.3})",
        sums.kmers
    );
    text
}

fn workers(outcome: &Outcome, text: &mut String) {
    let _ = writeln!(
        text,
        "{:>8} {:>10} {:>12} {:>15} {:>8} {:>9} {:>9}",
        "worker", "blocks", "rows", "k-mers", "stripes", "scan s", "drain s"
    );
    let last = (outcome.shared.slots.len() - 1) as u16;
    for slot in 0..=last {
        let get = |figure| outcome.shared.slots.get(slot, figure).unwrap_or(0);
        let (blocks, stripes) = (get(Figure::Blocks), get(Figure::Stripes));
        let leader = slot == last;
        if (leader || Some(slot) == outcome.shared.feeder_slot()) && blocks == 0 && stripes == 0 {
            continue;
        }
        let name = if leader { "leader".to_owned() } else { slot.to_string() };
        let seconds = |figure| get(figure) as f64 / 1e9;
        let _ = writeln!(
            text,
            "{name:>8} {blocks:>10} {:>12} {:>15} {stripes:>8} {:>9.3} {:>9.3}",
            get(Figure::Rows),
            get(Figure::Kmers),
            seconds(Figure::ScanNanos),
            seconds(Figure::DrainNanos)
        );
    }
}
