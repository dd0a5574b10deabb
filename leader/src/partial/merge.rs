//! `kmer-leader merge`: adds partial results, applies the threshold, and reports what one run over all of it would have reported, byte for byte.
//!
//! Parts are sorted, so they are merged as they are read, and only what is reported is held in memory.

use super::meta::{Meta, check_disjoint};
use super::read::Part;
use crate::cli::{number, rate};
use crate::console::say;
use crate::failure::{EXIT_SKIPPED, Failure};
use crate::format::facts::{Facts, ROWS};
use crate::format::{Form, Format};
use crate::output::Output;
use crate::output::same::{Input, STDOUT, refuse_same};
use crate::report::tally::Tally;
use crate::report::top::Top;
use crate::report::{Entries, Entry};
use crate::select::{SelectArgs, Selection};
use crate::threshold::ThresholdRule;
use clap::Args;
use kmer::params::Params;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};

/// Options of `merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Files that --partial wrote
    #[arg(value_name = "PART", required = true)]
    pub parts: Vec<PathBuf>,
    /// Report k-mers that occur in more than this share of all rows, from 0 to 1 [default: 0.5]
    #[arg(short = 'R', long, value_name = "RATE", value_parser = rate, help_heading = "What is reported")]
    pub max_appearance_rate: Option<f64>,
    /// Report k-mers that occur in more than this many rows, if that is fewer, from 0 (no such limit) to 2147483647 [default: 0]
    #[arg(short = 'N', long, value_name = "ROWS", help_heading = "What is reported")]
    #[arg(value_parser = |text: &str| number(text, 0, i32::MAX as u32))]
    pub max_appearance_nrow: Option<u32>,
    /// Report every k-mer
    #[arg(long, conflicts_with_all = ["max_appearance_rate", "max_appearance_nrow"], help_heading = "What is reported")]
    pub all: bool,
    /// Which k-mers, in which order.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Form of the result; sql and copy are for runs
    #[arg(short = 'F', long, value_enum, value_name = "FORM", default_value_t = Format::Tsv, help_heading = "Output")]
    pub format: Format,
    /// Write the result to FILE, which appears whole or not at all [default: standard output]
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
}

/// Merges. Gives the exit code.
///
/// # Errors
/// Parts that do not belong together, or are damaged; what the output says.
pub fn merge(args: &MergeArgs) -> Result<i32, Failure> {
    let mut parts = args.parts.iter().map(|path| Part::open(path)).collect::<Result<Vec<_>, _>>()?;
    let sum = together(&parts)?;
    let params = Params::new(sum.k, sum.occur_bitlen).map_err(Failure::error)?.with_canonical(sum.canonical);
    let select = Selection::new(&args.select)?;
    let typed = args.max_appearance_rate.is_some() || args.max_appearance_nrow.is_some();
    if !sum.counts_rows() && typed {
        let text = "--max-appearance-rate, --max-appearance-nrow: expected counts of rows, found occurrences";
        return Err(Failure::usage(text).hint("--min-rows takes a number of occurrences then"));
    }
    let all = args.all || !sum.counts_rows() || (select.narrows() && !typed);
    let rule = ThresholdRule::typed(args.max_appearance_rate, args.max_appearance_nrow, &args.select);
    let counts = if sum.counts_rows() { ROWS } else { "occurrences" };
    let form = Form::plain(args.format, params, counts)?;
    let result = args.output.as_deref().unwrap_or(Path::new(STDOUT));
    let outputs = [("-o", Some(result)), ("--histogram", args.select.histogram.as_deref())];
    let inputs: Vec<Input> = args.parts.iter().cloned().map(Input::File).collect();
    refuse_same(&inputs, &outputs)?;
    let mut output = Output::open(args.output.as_deref())?;
    let histogram = args.select.histogram.as_deref().map(|path| Output::open(Some(path))).transpose()?;
    let by_rule = if all { 0 } else { rule.threshold(sum.total_rows) };
    let threshold = select.threshold(by_rule);

    let (mut admitted, mut tally, mut distinct) = (Vec::new(), Tally::default(), 0);
    let mut top = select.top.map(Top::new);
    add_up(&mut parts, &mut |key, count| {
        distinct += 1;
        if select.admits(threshold, count) {
            match &mut top {
                Some(top) => top.add(key, count),
                None => admitted.push((key, count)),
            }
        }
        if select.histogram {
            tally.add(count, 1);
        }
    })?;
    let entries = Entries::listed(top.map_or(admitted, Top::into_entries), &select);
    let facts = facts_of(&sum, (all, &rule, &select), (threshold, distinct, entries.count));
    form.write(&facts, &entries, &mut output, &mut |_, _| ())?;
    if let Some(mut histogram) = histogram {
        histogram.write(tally.to_text().as_bytes())?;
        histogram.sync()?;
        output.sync()?;
        histogram.finish()?;
    }
    output.finish()?;
    let skipped = sum.pages_skipped + sum.tuples_skipped + sum.units_skipped;
    Ok(if skipped > 0 { EXIT_SKIPPED } else { 0 })
}

/// The sum of what the parts say, when they belong together.
fn together(parts: &[Part]) -> Result<Meta, Failure> {
    let Some(first) = parts.first() else { return Err(Failure::usage("merge: expected parts, found none")) };
    let mut sum = first.meta.clone();
    for part in &parts[1..] {
        sum.add(&part.meta).map_err(|what| Failure::error(format!("part {:?}: {what}", part.name())))?;
    }
    let named: Vec<(String, Meta)> =
        parts.iter().map(|part| (part.name().to_owned(), part.meta.clone())).collect();
    for doubt in check_disjoint(&named)? {
        say("warning: ", &doubt.to_string());
    }
    if sum.total_rows > u64::from(u32::MAX) && sum.counts_rows() {
        let text = format!("parts: expected at most {} rows in all, found {}", u32::MAX, sum.total_rows);
        return Err(Failure::error(text));
    }
    Ok(sum)
}

/// Calls `each` with every key of any part, ascending, and the sum of its counts.
fn add_up(parts: &mut [Part], each: &mut dyn FnMut(u64, u32)) -> Result<(), Failure> {
    let mut heads: BinaryHeap<Reverse<(u64, usize, u32)>> = BinaryHeap::new();
    for (place, part) in parts.iter_mut().enumerate() {
        heads.extend(part.next_entry()?.map(|(key, count)| Reverse((key, place, count))));
    }
    let mut sum: Option<Entry> = None;
    while let Some(Reverse((key, place, count))) = heads.pop() {
        match &mut sum {
            Some((same, total)) if *same == key => {
                *total = total.checked_add(count).ok_or_else(|| {
                    let text =
                        format!("key {key}: expected counts of at most {} in all, found more", u32::MAX);
                    Failure::error(text)
                })?;
            }
            other => {
                if let Some((key, total)) = other.replace((key, count)) {
                    each(key, total);
                }
            }
        }
        heads.extend(parts[place].next_entry()?.map(|(key, count)| Reverse((key, place, count))));
    }
    if let Some((key, total)) = sum {
        each(key, total);
    }
    Ok(())
}

fn facts_of(
    sum: &Meta,
    (all, rule, select): (bool, &ThresholdRule, &Selection),
    (threshold, distinct, reported): (u64, u64, u64),
) -> Facts {
    Facts {
        k: sum.k,
        occur_bitlen: sum.occur_bitlen,
        canonical: sum.canonical,
        count: (!sum.counts_rows()).then_some("occurrences"),
        column: sum.column.clone(),
        dna_type: if sum.dna_type == "dna4" { "dna4" } else { "dna2" },
        total_rows: sum.total_rows,
        rows_null: sum.rows_null,
        rows_short: sum.rows_short,
        tuples_undecided: sum.tuples_undecided,
        tuples_skipped: sum.tuples_skipped,
        pages_skipped: sum.pages_skipped,
        windows_expanded: sum.windows_expanded,
        windows_skipped: sum.windows_skipped,
        max_appearance_rate: rule.rate,
        max_appearance_nrow: rule.nrow,
        threshold: (!all).then(|| rule.threshold(sum.total_rows)),
        min_rows: select.min_rows,
        max_rows: select.max_rows,
        top: select.top,
        kmers_distinct: (threshold == 0).then_some(distinct),
        kmers_reported: reported,
    }
}
