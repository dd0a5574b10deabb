//! The summary as JSON, for programs. Its shape is described in `docs/output.md` and numbered by `schema_version`; fields are added without a new number,
//! none is removed or changes its meaning under the old one.

use super::facts::Facts;
use crate::failure::Failure;
use crate::lead::Outcome;
use crate::plan::Plan;
use kmer_worker::job::path_of;
use serde::Serialize;
use shm_layout::slots::Figure;

/// The number of the shape.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    program: Program,
    result: AnalysisResult,
    facts: &'a Facts,
    relation: Relation,
    seconds: Seconds,
    worker_deaths: u32,
    worker_respawns: u32,
    units: u64,
    units_skipped: u64,
    workers: Vec<Worker>,
}

#[derive(Serialize)]
struct Program {
    name: &'static str,
    version: &'static str,
}

/// The fields that kmersearch_perform_highfreq_analysis returns.
#[derive(Serialize)]
struct AnalysisResult {
    total_rows: u64,
    highfreq_kmers_count: u64,
    parallel_workers_used: u16,
    max_appearance_rate_used: f64,
    max_appearance_nrow_used: u64,
}

#[derive(Serialize)]
struct Relation {
    paths: Vec<String>,
    blocks: u64,
    table_oid: Option<u32>,
    checksums_verified: bool,
    kmers: u64,
    /// The highest row count, if it is over the threshold: the others are not all counted.
    highest_appearance_nrow: Option<u64>,
    tuples_dead: u64,
    pages_of_zeros: u64,
}

#[derive(Serialize)]
struct Seconds {
    total: f64,
    scan: f64,
    drain: f64,
}

#[derive(Serialize)]
struct Worker {
    worker: String,
    blocks: u64,
    rows: u64,
    kmers: u64,
    stripes: u64,
    scan_seconds: f64,
    drain_seconds: f64,
}

/// The document.
///
/// # Errors
/// None that is known: its parts are plain.
pub fn summary_json(plan: &Plan, outcome: &Outcome, facts: &Facts, seconds: f64) -> Result<String, Failure> {
    let sums = &outcome.scan.sums;
    let (scan, drain) = outcome.seconds;
    let document = Document {
        schema_version: SCHEMA_VERSION,
        program: Program { name: "kmer-leader", version: env!("CARGO_PKG_VERSION") },
        result: AnalysisResult {
            total_rows: sums.rows,
            highfreq_kmers_count: facts.kmers_reported,
            parallel_workers_used: outcome.launched,
            max_appearance_rate_used: facts.max_appearance_rate,
            max_appearance_nrow_used: facts.max_appearance_nrow,
        },
        facts,
        relation: Relation {
            paths: plan.job.leaves.iter().map(|leaf| path_of(&leaf.path).to_string_lossy().into()).collect(),
            blocks: plan.job.total_blocks(),
            table_oid: plan.table_oid(),
            checksums_verified: plan.job.verify_checksums,
            kmers: sums.kmers,
            highest_appearance_nrow: Some(outcome.drain.highest).filter(|n| *n > outcome.threshold),
            tuples_dead: sums.dead,
            pages_of_zeros: sums.zero_pages,
        },
        seconds: Seconds { total: seconds, scan, drain },
        worker_deaths: outcome.deaths,
        worker_respawns: outcome.respawns,
        units: outcome.shared.units.len() as u64,
        units_skipped: outcome.scan.poisoned.len() as u64,
        workers: workers(plan, outcome),
    };
    let text = serde_json::to_string_pretty(&document);
    text.map(|text| text + "\n")
        .map_err(|e| Failure::error(format!("could not write the summary as JSON: {e}")))
}

fn workers(plan: &Plan, outcome: &Outcome) -> Vec<Worker> {
    let leader = plan.workers.workers;
    let figures = |slot| {
        let get = |figure| outcome.shared.slots.get(slot, figure).unwrap_or(0);
        let seconds = |figure| get(figure) as f64 / 1e9;
        Worker {
            worker: if slot == leader { "leader".into() } else { slot.to_string() },
            blocks: get(Figure::Blocks),
            rows: get(Figure::Rows),
            kmers: get(Figure::Kmers),
            stripes: get(Figure::Stripes),
            scan_seconds: seconds(Figure::ScanNanos),
            drain_seconds: seconds(Figure::DrainNanos),
        }
    };
    let worked = |w: &Worker| w.worker != "leader" || w.blocks > 0 || w.stripes > 0;
    (0..=leader).map(figures).filter(worked).collect()
}
