//! Which options go together, as far as the command line's own description does not say it.
//!
//! An option that would be passed over in silence is an error: whoever typed it expects something of it.

use crate::cli::{AnalysisArgs, Count};
use crate::failure::Failure;
use crate::select::Selection;

/// Refuses what does not go together, whatever is read.
///
/// # Errors
/// Exit code 2.
pub fn check(args: &AnalysisArgs) -> Result<(), Failure> {
    check_table(args)?;
    if args.count == Count::Occurrences {
        check_occurrences(args)?;
    }
    if args.database.save && (args.count == Count::Occurrences || args.canonical) {
        let option = if args.count == Count::Occurrences { "--count occurrences" } else { "--canonical" };
        let text = format!("{option}: expected a result that is not saved, found --save");
        return Err(
            Failure::usage(text).hint("pg_kmersearch's tables hold row counts of k-mers as they stand")
        );
    }
    Ok(())
}

/// What is about tables, beside files, and the other way round. Options that need a table exclude one another with files, so clap takes their need for
/// satisfied where files are.
fn check_table(args: &AnalysisArgs) -> Result<(), Failure> {
    let of_tables = [
        ("--save", args.database.save),
        ("--lock-wait-timeout", args.database.lock_wait_timeout.is_some()),
        ("--type", args.pgdata.dna_type.is_some()),
    ];
    match (&args.database.table, of_tables.iter().find(|(_, given)| *given)) {
        (None, Some((option, _))) => {
            let found = args.relations.first().map_or("none".into(), |path| format!("file {path:?}"));
            let hint = "name it with -d DBNAME -t [SCHEMA.]TABLE";
            Err(Failure::usage(format!("{option}: expected a table, found {found}")).hint(hint))
        }
        (Some(table), _) if args.row_per_file => {
            Err(Failure::usage(format!("--row-per-file: expected sequence files, found table {table:?}")))
        }
        _ => Ok(()),
    }
}

/// A dense file has every k-mer over the threshold, and 'dump' prints what the report would have been: so there must be no other choice of them, and
/// nothing for which others are kept as well.
///
/// # Errors
/// Exit code 2.
pub fn check_dense(args: &AnalysisArgs, select: &Selection, all: bool) -> Result<(), Failure> {
    let has_spectrum = select.histogram || args.page.report.is_some();
    let refuse = |what: &str, hint: &str| Err(Failure::usage(format!("--dense: expected {what}")).hint(hint));
    if args.dense.is_some() && select.narrows() {
        let hint = "choose from what dump prints, or write the choice with -o alone";
        return refuse(
            "every k-mer over the threshold, found --top, --min-rows or --max-rows beside it",
            hint,
        );
    }
    if args.dense.is_some() && has_spectrum && !all {
        let hint = "a spectrum is of every k-mer, so every one is kept: add --all, or make two runs";
        return refuse("--all where --histogram or --report is, found them without it", hint);
    }
    Ok(())
}

/// What has no meaning where occurrences are counted.
fn check_occurrences(args: &AnalysisArgs) -> Result<(), Failure> {
    let refuse = |option: &str, hint: &str| {
        let text = format!("{option}: expected --count rows beside it, found --count occurrences");
        Err(Failure::usage(text).hint(hint))
    };
    if args.max_appearance_rate.is_some() {
        return refuse(
            "--max-appearance-rate",
            "a number of occurrences is no share of rows; --min-count has a number",
        );
    }
    if args.max_appearance_nrow.is_some() {
        return refuse("--max-appearance-nrow", "--min-count has a number of occurrences");
    }
    if args.occur_bitlen > 0 {
        return refuse("--occur-bitlen", "it numbers the occurrences in a row");
    }
    Ok(())
}
