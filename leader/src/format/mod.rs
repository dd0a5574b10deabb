//! The forms in which a result is written. `docs/output.md` describes them for users.
//!
//! A form is a header, a text for each k-mer, and a footer ([`Form`]). The k-mers' text is made range by range by several threads (see
//! [`crate::report`]), so a form decides what it is once a range and then runs a loop of its own.

pub mod facts;
pub mod parquet;
pub mod sql;
pub mod summary_json;

use crate::failure::Failure;
use crate::output::Output;
use crate::plan::Plan;
use crate::report::{Entries, Entry, EntryText};
use clap::{Args, ValueEnum};
use facts::Facts;
use kmer::codec::write_kmer;
use kmer::params::Params;
use sql::Target;
use std::path::PathBuf;

/// Names of the forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Facts in lines that begin with #, then kmer, uintkey and appearance_nrow with tabs between
    #[default]
    Tsv,
    /// A header line and a line a k-mer, comma-separated
    Csv,
    /// One document: facts and k-mers
    Json,
    /// A JSON object a line and k-mer
    Jsonl,
    /// A script for psql that makes and fills pg_kmersearch's tables
    Sql,
    /// Rows for COPY kmersearch_highfreq_kmer (...) FROM STDIN
    Copy,
    /// A Parquet file with columns kmer, uintkey and appearance_nrow
    Parquet,
    /// FASTA: >appearance_nrow, then the k-mer
    Fasta,
}

/// Options of the output.
#[derive(Clone, Debug, Default, Args)]
pub struct FormatArgs {
    /// Form of the result
    #[arg(short = 'F', long, value_enum, value_name = "FORM", default_value_t = Format::Tsv, help_heading = "Output")]
    pub format: Format,
    /// OID of the table, for the forms sql and copy [default: from the database]
    #[arg(long, value_name = "OID", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Output")]
    pub table_oid: Option<u32>,
    /// Write the summary to FILE as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub summary_json: Option<PathBuf>,
}

/// A form, ready to write.
pub struct Form {
    format: Format,
    params: Params,
    target: Option<Target>,
    /// Names of the columns.
    columns: [&'static str; 3],
}

impl Form {
    /// The form that was asked for.
    ///
    /// # Errors
    /// Exit code 2 when it needs what is not known here: the table's OID, a threshold.
    pub fn new(args: &FormatArgs, plan: &Plan) -> Result<Self, Failure> {
        let plain = !plan.job.occurrences && !plan.params.canonical();
        if matches!(args.format, Format::Sql | Format::Copy) && !plain {
            let text = "--format: expected counts of rows by k-mers as they stand, since pg_kmersearch's tables know no others, found others";
            return Err(Failure::usage(text).hint("leave --canonical and --count occurrences away"));
        }
        let target = match args.format {
            Format::Sql | Format::Copy => Some(Target::new(plan, args.table_oid)?),
            _ => None,
        };
        if args.format == Format::Sql && (plan.all || plan.select.narrows()) {
            let text = "--format sql: expected an analysis by rate and row count, since its row of kmersearch_highfreq_kmer_meta says nothing else";
            return Err(Failure::usage(text)
                .hint("for every k-mer: --max-appearance-rate 0; rows alone: --format copy"));
        }
        if args.format == Format::Sql {
            sql::must_fit(plan.rule.rate)?;
        }
        let columns = ["kmer", "uintkey", if plan.job.occurrences { "occurrences" } else { facts::ROWS }];
        Ok(Self { format: args.format, params: plan.params, target, columns })
    }

    /// A form that needs to know no table.
    ///
    /// # Errors
    /// Exit code 2 for one that does.
    pub fn plain(format: Format, params: Params, counts: &'static str) -> Result<Self, Failure> {
        if matches!(format, Format::Sql | Format::Copy) {
            let text = "--format: expected a form that is not of a table, found sql or copy";
            return Err(Failure::usage(text).hint("write tsv or parquet, and load that"));
        }
        Ok(Self { format, params, target: None, columns: ["kmer", "uintkey", counts] })
    }

    /// What comes before the k-mers.
    fn header(&self, facts: &Facts) -> Result<String, Failure> {
        Ok(match self.format {
            Format::Tsv => facts.report_head(),
            Format::Csv => self.columns.join(",") + "\n",
            Format::Json => {
                let facts = serde_json::to_string_pretty(facts)
                    .map_err(|e| Failure::error(format!("could not write the facts as JSON: {e}")))?;
                let facts = facts.replace('\n', "\n  ");
                format!("{{\n  \"schema_version\": 1,\n  \"facts\": {facts},\n  \"kmers\": [")
            }
            Format::Sql => self.target.as_ref().map(|t| t.script_head(facts)).unwrap_or_default(),
            Format::Jsonl | Format::Copy | Format::Parquet | Format::Fasta => String::new(),
        })
    }

    /// What comes behind them.
    fn footer(&self, facts: &Facts) -> String {
        match self.format {
            Format::Json => "\n  ]\n}\n".into(),
            Format::Sql => self.target.as_ref().map(|t| t.script_tail(facts)).unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// Writes a whole result, and tells `written` how many k-mers of how many it has.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn write(
        &self,
        facts: &Facts,
        entries: &Entries,
        output: &mut Output,
        written: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Failure> {
        if self.format == Format::Parquet {
            return parquet::write(entries, facts, self.params, output, written);
        }
        output.write(self.header(facts)?.as_bytes())?;
        entries.stream_watched(self, &mut |text| output.write(text), written)?;
        output.write(self.footer(facts).as_bytes())
    }

    /// A header with the row count, and the k-mer, as other counters dump them.
    fn fasta(&self, entries: &[Entry], text: &mut Vec<u8>) {
        let (k, shift) = (self.params.k(), self.params.occur_bitlen());
        text.reserve(entries.len() * (k as usize + 14));
        let mut digits = itoa::Buffer::new();
        for (key, count) in entries {
            text.push(b'>');
            text.extend_from_slice(digits.format(*count).as_bytes());
            text.push(b'\n');
            write_kmer(key >> shift, k, text);
            text.push(b'\n');
        }
    }

    /// The three fields with something before, between and behind them.
    fn rows(&self, entries: &[Entry], frame: [&[u8]; 4], text: &mut Vec<u8>) {
        let (k, shift, [before, first, second, behind]) =
            (self.params.k(), self.params.occur_bitlen(), frame);
        text.reserve(entries.len() * (frame.iter().map(|part| part.len()).sum::<usize>() + k as usize + 30));
        let mut digits = itoa::Buffer::new();
        for (key, count) in entries {
            text.extend_from_slice(before);
            write_kmer(key >> shift, k, text);
            text.extend_from_slice(first);
            text.extend_from_slice(digits.format(*key).as_bytes());
            text.extend_from_slice(second);
            text.extend_from_slice(digits.format(*count).as_bytes());
            text.extend_from_slice(behind);
        }
    }
}

impl EntryText for Form {
    fn append(&self, entries: &[Entry], text: &mut Vec<u8>) {
        let counts = format!(",\"{}\":", self.columns[2]);
        let json: [&[u8]; 4] = [b"{\"kmer\":\"", b"\",\"uintkey\":", counts.as_bytes(), b"}\n"];
        match self.format {
            Format::Tsv => self.rows(entries, [b"", b"\t", b"\t", b"\n"], text),
            Format::Csv => self.rows(entries, [b"", b",", b",", b"\n"], text),
            Format::Jsonl => self.rows(entries, json, text),
            Format::Json => self.rows(entries, [b",\n    {\"kmer\":\"", json[1], json[2], b"}"], text),
            Format::Fasta => self.fasta(entries, text),
            // Not made of text.
            Format::Parquet => {}
            Format::Sql => sql::append_rows(entries, "", "", text),
            Format::Copy => {
                if let Some(target) = &self.target {
                    sql::append_rows(entries, &target.copy_front(self.params), sql::COPY_BEHIND, text);
                }
            }
        }
    }

    fn separator(&self) -> usize {
        usize::from(self.format == Format::Json)
    }
}
