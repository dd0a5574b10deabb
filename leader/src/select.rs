//! Which of the counted k-mers are reported, and in which order.
//!
//! The threshold of [`crate::threshold::ThresholdRule`] comes first. `--min-rows`, `--max-rows` and `--top` are further conditions; where one of them is
//! given, the default rate of 0.5 is not applied, since nobody who asks for the ten most frequent k-mers wants only those in half of all
//! rows. A rate or a row count that was typed always holds.
//!
//! `--histogram` needs the count of every k-mer, so the drain keeps all of them then, and the report leaves out what was not asked for.

use crate::failure::Failure;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Order of the reported k-mers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Ascending by k-mer (by uintkey)
    #[default]
    Kmer,
    /// Most rows first, equal counts ascending by k-mer
    Count,
}

/// Options of the selection.
#[derive(Clone, Debug, Default, Args)]
pub struct SelectArgs {
    /// Report k-mers that occur in at least so many rows
    #[arg(long, visible_alias = "min-count", value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..), help_heading = "What is reported")]
    pub min_rows: Option<u64>,
    /// Report k-mers that occur in at most so many rows
    #[arg(long, visible_alias = "max-count", value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..), help_heading = "What is reported")]
    pub max_rows: Option<u64>,
    /// Report the N k-mers in the most rows; among equal counts the first by k-mer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "What is reported")]
    pub top: Option<u64>,
    /// Order of the report
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = Sort::Kmer, help_heading = "What is reported")]
    pub sort: Sort,
    /// Write the histogram to FILE: lines of a number of rows, a tab and the number of k-mers, of all k-mers, for every number of rows that occurs
    #[arg(long, value_name = "FILE", help_heading = "What is reported")]
    pub histogram: Option<PathBuf>,
}

/// What is reported, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Least rows.
    pub min_rows: Option<u64>,
    /// Most rows.
    pub max_rows: Option<u64>,
    /// How many at most.
    pub top: Option<u64>,
    /// Order.
    pub sort: Sort,
    /// Every k-mer is counted into a histogram.
    pub histogram: bool,
}

impl Selection {
    /// From what was typed.
    ///
    /// # Errors
    /// When no count can be in the range.
    pub fn new(args: &SelectArgs) -> Result<Self, Failure> {
        if let (Some(least), Some(most)) = (args.min_rows, args.max_rows)
            && least > most
        {
            let text = format!("--max-rows: expected at least --min-rows, {least}, found {most}");
            return Err(Failure::usage(text));
        }
        let SelectArgs { min_rows, max_rows, top, sort, .. } = *args;
        Ok(Self { min_rows, max_rows, top, sort, histogram: args.histogram.is_some() })
    }

    /// Whether one of the conditions is there that put the default rate out of force.
    pub fn narrows(&self) -> bool {
        self.min_rows.is_some() || self.max_rows.is_some() || self.top.is_some()
    }

    /// Whether how many are reported is only known from all of them.
    pub fn needs_entries(&self) -> bool {
        self.histogram || self.max_rows.is_some() || self.top.is_some()
    }

    /// Keys in more rows than this can be reported, if they are in more than `threshold` for the rule's sake.
    pub fn threshold(&self, threshold: u64) -> u64 {
        threshold.max(self.min_rows.unwrap_or(1) - 1)
    }

    /// Whether a k-mer that is in `rows` rows is reported, given that it must be in more than `threshold`; `top` is another matter.
    pub fn admits(&self, threshold: u64, rows: u32) -> bool {
        let rows = u64::from(rows);
        rows > threshold && self.max_rows.is_none_or(|most| rows <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_add_up() {
        let args = SelectArgs { min_rows: Some(3), max_rows: Some(5), ..SelectArgs::default() };
        let select = Selection::new(&args).expect("a range");
        assert!(select.narrows());
        let threshold = select.threshold(0);
        let admitted: Vec<u32> = (0..9).filter(|n| select.admits(threshold, *n)).collect();
        assert_eq!(admitted, [3, 4, 5]);
        let admitted: Vec<u32> = (0..9).filter(|n| select.admits(select.threshold(4), *n)).collect();
        assert_eq!(admitted, [5], "the threshold holds as well");
        assert!(Selection::new(&SelectArgs { max_rows: Some(2), ..args }).is_err());
        assert!(!Selection::new(&SelectArgs::default()).expect("nothing").narrows());
    }
}
