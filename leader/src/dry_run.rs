//! `--dry-run`: what a run would read and need, without doing it.
//!
//! Everything is decided as for a run, and then said instead of done: no worker is started, no segment made, no output opened. Rows, bases and
//! k-mers are extrapolated from some blocks of the largest relation, or from the beginning of each packed file; records are what super-k-mers of random sequence take.

use crate::memory::{self, Need};
use crate::plan::Plan;
use crate::progress::figures::bytes;
use kmer_worker::job::path_of;
use std::fmt::{Display, Write as _};

/// Bytes of a kept k-mer in the tables.
const TABLE_ENTRY: (u64, u64) = (9, 13);

/// The lines `name: number (for people)`.
pub fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn Display| {
        let _ = writeln!(text, "{name}: {value}");
    };
    let (job, found, need, room) = (&plan.job, &plan.found, &plan.need, &plan.room);
    for leaf in &job.leaves {
        line("relation", &path_of(&leaf.path).to_string_lossy().escape_debug());
    }
    let blocks = job.total_blocks();
    line("blocks", &in_bytes(blocks, job.total_bytes()));
    if plan.source.leaves.toast_bytes > 0 {
        line("toast_bytes", &in_bytes(plan.source.leaves.toast_bytes, plan.source.leaves.toast_bytes));
    }
    line("blocks_sampled", &found.looked);
    if found.looked == 0 && blocks > 0 {
        // Not there yet: what is reckoned with is not what is known.
        ["rows", "bases", "kmers"].iter().for_each(|name| line(name, &"unknown"));
        line("bases_reckoned_with", &found.bases);
    } else {
        line("rows", &found.rows);
        line("bases", &found.bases);
        line("kmers", &found.kmers);
    }
    let workers = plan.workers.workers;
    line("workers", &workers);
    line("units", &need.units);
    line("stripes", &job.stripes());
    let passes = 1u64 << job.pass_bits;
    line("passes", &passes);
    let segment = need.segment(passes);
    let private = memory::private(workers, plan.params, job.windows_bits);
    line("segment_bytes", &in_bytes(segment, segment));
    line("process_bytes", &in_bytes(private, private));
    if let Some(most) = tables(plan) {
        line("tables_bytes_at_most", &in_bytes(most, most));
    }
    match plan.memory {
        Some(memory) => line("memory_limit", &in_bytes(memory, memory)),
        None => line("memory_limit", &"none (--memory)"),
    }
    line("segment_in", &room.path().to_string_lossy().escape_debug());
    match room.free {
        Some(free) => line("segment_room", &in_bytes(free, free)),
        None => line("segment_room", &"unknown"),
    }
    let whole = segment + private;
    match plan.memory {
        Some(memory) if memory < whole => {
            line("enough", &format!("no: segment and processes take {}", in_bytes(whole, whole)));
        }
        _ => line("enough", &if passes > 1 { "yes, in several passes" } else { "yes" }),
    }
    text
}

fn in_bytes(number: u64, as_bytes: u64) -> String {
    format!("{number} ({})", bytes(as_bytes))
}

/// What the tables take besides, if every k-mer is kept, at the worst: how many different ones there are is not known before.
fn tables(plan: &Plan) -> Option<u64> {
    if !plan.keeps_all(plan.threshold(plan.found.rows)) {
        return None;
    }
    let all = 1u128 << plan.params.key_bits();
    let kept = u128::from(plan.found.kmers).min(all) as u64;
    let each = if plan.params.key_bits() <= 32 { TABLE_ENTRY.0 } else { TABLE_ENTRY.1 };
    Some(kept.saturating_mul(each))
}

impl Need {
    /// Bytes that the segment takes at its fullest, in a run of so many passes; without tables and other results.
    pub fn segment(&self, passes: u64) -> u64 {
        self.control + self.unit_bytes + self.records / passes
    }
}
