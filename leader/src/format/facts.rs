//! What is known about an analysis, beside its k-mers. Nothing in it depends on how many workers there were, or what became of them.

use crate::lead::Outcome;
use crate::plan::Plan;
use serde::Serialize;
use std::fmt::{Display, Write as _};

/// Name of the column with counts of rows.
pub const ROWS: &str = "appearance_nrow";

/// The facts, in the order in which they are written.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// k.
    pub k: u32,
    /// occur_bitlen.
    pub occur_bitlen: u32,
    /// Whether a k-mer and its reverse complement count as one.
    pub canonical: bool,
    /// What is counted, if not rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<&'static str>,
    /// Name of the column.
    pub column: String,
    /// `dna2` or `dna4`.
    #[serde(rename = "type")]
    pub dna_type: &'static str,
    /// Visible rows.
    pub total_rows: u64,
    /// Of these, rows with NULL.
    pub rows_null: u64,
    /// Of these, rows shorter than k.
    pub rows_short: u64,
    /// Tuples whose hint bits leave their state open.
    pub tuples_undecided: u64,
    /// Damaged tuples.
    pub tuples_skipped: u64,
    /// Damaged pages.
    pub pages_skipped: u64,
    /// Windows with one degenerate letter.
    pub windows_expanded: u64,
    /// Windows that stand for no k-mer.
    pub windows_skipped: u64,
    /// The rate.
    pub max_appearance_rate: f64,
    /// The row count; 0 is none.
    pub max_appearance_nrow: u64,
    /// k-mers in more rows than this are reported; none: every k-mer.
    pub threshold: Option<u64>,
    /// `--min-rows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rows: Option<u64>,
    /// `--max-rows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
    /// `--top`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<u64>,
    /// Different k-mers, if every k-mer is over the threshold: else those are not counted that cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kmers_distinct: Option<u64>,
    /// Reported k-mers.
    pub kmers_reported: u64,
}

impl Facts {
    /// Name of the column with the counts.
    pub fn counts(&self) -> &'static str {
        self.count.unwrap_or(ROWS)
    }

    /// The facts of a run that reports `reported` k-mers.
    pub fn new(plan: &Plan, outcome: &Outcome, reported: u64) -> Self {
        let (sums, rule, select) = (&outcome.scan.sums, &plan.rule, &plan.select);
        Self {
            k: plan.params.k(),
            occur_bitlen: plan.params.occur_bitlen(),
            canonical: plan.params.canonical(),
            count: plan.job.occurrences.then_some("occurrences"),
            column: plan.source.column.clone(),
            dna_type: if plan.job.dna4 { "dna4" } else { "dna2" },
            total_rows: sums.rows,
            rows_null: sums.nulls,
            rows_short: sums.short,
            tuples_undecided: sums.undecided,
            tuples_skipped: sums.damaged_tuples,
            pages_skipped: sums.damaged_pages,
            windows_expanded: sums.expanded,
            windows_skipped: sums.skipped,
            max_appearance_rate: rule.rate,
            max_appearance_nrow: rule.nrow,
            threshold: (!plan.all).then(|| rule.threshold(sums.rows)),
            min_rows: select.min_rows,
            max_rows: select.max_rows,
            top: select.top,
            kmers_distinct: (outcome.threshold == 0).then_some(outcome.drain.distinct),
            kmers_reported: reported,
        }
    }

    /// What a report in the form tsv begins with.
    pub fn report_head(&self) -> String {
        format!("{}# columns: kmer\tuintkey\t{}\n", self.lines("# "), self.counts())
    }

    /// Lines `NAME: VALUE`, each behind `mark`.
    pub fn lines(&self, mark: &str) -> String {
        let mut text = String::new();
        let mut fact = |name: &str, value: &dyn Display| {
            let _ = writeln!(text, "{mark}{name}: {value}");
        };
        fact("k", &self.k);
        fact("occur_bitlen", &self.occur_bitlen);
        fact("canonical", &if self.canonical { "yes" } else { "no" });
        if let Some(count) = self.count {
            fact("count", &count);
        }
        // A name may hold anything; a line ends where it ends.
        fact("column", &self.column.escape_debug());
        fact("type", &self.dna_type);
        fact("total_rows", &self.total_rows);
        fact("rows_null", &self.rows_null);
        fact("rows_short", &self.rows_short);
        fact("tuples_undecided", &self.tuples_undecided);
        fact("tuples_skipped", &self.tuples_skipped);
        fact("pages_skipped", &self.pages_skipped);
        fact("windows_expanded", &self.windows_expanded);
        fact("windows_skipped", &self.windows_skipped);
        fact("max_appearance_rate", &self.max_appearance_rate);
        fact("max_appearance_nrow", &self.max_appearance_nrow);
        let nrow = self.max_appearance_nrow;
        match self.threshold {
            None => fact("threshold", &"none (every k-mer)"),
            Some(threshold) => {
                fact("threshold", &threshold);
                let lowered = if nrow > 0 { format!(", lowered to {nrow} rows") } else { String::new() };
                let rate = self.max_appearance_rate;
                let formula = format!("appearance_nrow > floor(total_rows * {rate}){lowered}");
                fact("threshold_formula", &formula);
            }
        }
        for (name, value) in [("min_rows", self.min_rows), ("max_rows", self.max_rows), ("top", self.top)] {
            if let Some(value) = value {
                fact(name, &value);
            }
        }
        if let Some(distinct) = self.kmers_distinct {
            fact("kmers_distinct", &distinct);
        }
        fact("kmers_reported", &self.kmers_reported);
        text
    }
}
