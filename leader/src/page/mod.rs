//! `--report FILE`: one page about a run, with everything in it: no script, no other file, no network.
//!
//! | section | where its numbers come from |
//! |---|---|
//! | spectrum, most frequent k-mers | all published tables ([`crate::report`]); every k-mer is kept for them, as for a histogram |
//! | timeline, claims | what workers note of each task ([`kmer_worker::trace`]) |
//! | stripes | the indexes of all units ([`crate::totals`]) |
//! | memory, deaths | what the leader notes ([`record`]) |
//! | all figures | the summary as JSON, as it is |
//!
//! Every picture is drawn to scale and has its numbers in a table or a sentence beside it. Names come from outside and are escaped; a policy in the page
//! forbids whatever is not in it. Letters are as large on a phone as elsewhere ([`chart`]), and colours follow what the reader prefers.

pub mod chart;
pub mod record;
pub mod scale;
mod sections;
pub mod text;

use crate::failure::Failure;
use crate::format::facts::Facts;
use crate::lead::Outcome;
use crate::plan::Plan;
use crate::progress::figures::bytes;
use crate::report::Entries;
use clap::Args;
use kmer_worker::job::path_of;
use record::Record;
use serde_json::Value;
use std::path::PathBuf;
use text::{Table, escape, grouped};

/// Options of the page.
#[derive(Clone, Debug, Default, Args)]
pub struct PageArgs {
    /// Write a page about the run to FILE: spectrum, timeline of the workers, stripes, memory; keeps every k-mer, as --histogram does
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
}

const STYLE: &str = include_str!("style.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// Everything that a page is made of.
pub(crate) struct About<'a> {
    plan: &'a Plan,
    outcome: &'a Outcome,
    facts: &'a Facts,
    entries: &'a Entries,
    record: &'a Record,
    /// `rows`, or `occurrences`.
    unit: &'a str,
    seconds: f64,
}

/// The page. `summary` is the summary as JSON.
///
/// # Errors
/// When nothing was noted for it.
pub fn page(
    plan: &Plan,
    outcome: &Outcome,
    facts: &Facts,
    entries: &Entries,
    summary: &str,
    seconds: f64,
) -> Result<String, Failure> {
    let missing = || Failure::error("report: expected notes of the run, found none");
    let record = outcome.record.as_ref().ok_or_else(missing)?;
    let summary: Value = serde_json::from_str(summary)
        .map_err(|e| Failure::error(format!("could not read the summary again: {e}")))?;
    let unit = facts.count.unwrap_or("rows");
    let about = About { plan, outcome, facts, entries, record, unit, seconds };
    let title = format!("{}-mers of {}", facts.k, about.names());
    let sections = [
        about.head(&title),
        about.spectrum(),
        about.most_frequent(),
        about.timeline(),
        about.claims(),
        about.stripes(),
        about.memory(),
        about.deaths(),
        figures(&summary),
    ];
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>{}</title><link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body><main>{}</main><footer>kmer-leader {}</footer></body></html>\n",
        escape(&title),
        sections.join("\n"),
        env!("CARGO_PKG_VERSION")
    ))
}

impl About<'_> {
    /// Names of the files without their directories.
    fn names(&self) -> String {
        let leaves = &self.plan.job.leaves;
        let name = |path: &[u8]| {
            path_of(path).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        };
        match &leaves[..] {
            [] => String::new(),
            [first] => name(&first.path),
            [first, others @ ..] => format!("{} and {} more", name(&first.path), others.len()),
        }
    }

    fn head(&self, title: &str) -> String {
        let (facts, outcome) = (self.facts, self.outcome);
        let paths = self.plan.job.leaves.iter().map(|leaf| path_of(&leaf.path).to_string_lossy());
        let paths = escape(&paths.collect::<Vec<_>>().join(", "));
        let (scan, drain) = outcome.seconds;
        let different = self.entries.histogram.as_ref().map(|tally| tally.iter().map(|(_, n)| n).sum());
        let peak = self.record.memory.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        let cards = [
            ("rows", grouped(facts.total_rows)),
            ("k-mers", grouped(outcome.scan.sums.kmers)),
            ("different k-mers", different.map_or_else(String::new, grouped)),
            ("reported", grouped(facts.kmers_reported)),
            (
                "reported above",
                facts.threshold.map_or("every k-mer".into(), |t| format!("{} {}", grouped(t), self.unit)),
            ),
            ("time", format!("{:.2} s", self.seconds)),
            ("collecting, draining", format!("{scan:.2} s, {drain:.2} s")),
            ("largest segment", bytes(peak)),
            ("workers", outcome.launched.to_string()),
            ("deaths survived", outcome.deaths.to_string()),
        ];
        let cards: String = cards
            .iter()
            .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", escape(value)))
            .collect();
        let (column, dna) = (escape(&facts.column), facts.dna_type);
        format!(
            "<h1>{}</h1><p class=\"what\">{paths}, column {column} ({dna})</p><dl class=\"cards\">{cards}</dl>",
            escape(title)
        )
    }
}

/// All of the summary, field by field.
fn figures(summary: &Value) -> String {
    let mut table = Table::wrapped("The fields of --summary-json", &["field", "value"]);
    flatten("", summary, &mut table);
    format!("<section><h2>All figures</h2>{}</section>", table.end())
}

fn flatten(path: &str, value: &Value, table: &mut Table) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| flatten(&join(name), value, table)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| flatten(&join(&at.to_string()), value, table));
        }
        Value::String(text) => table.named_row(path, &[&path, text]),
        other => table.named_row(path, &[&path, other]),
    }
}
