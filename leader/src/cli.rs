//! What can be typed. What it means for a relation is [`crate::plan`]'s to say.

use crate::about::{CompletionsArgs, ManArgs};
use crate::book::DumpArgs;
use crate::colour::When;
use crate::debug::{DebugArgs, Seconds};
use crate::format::FormatArgs;
use crate::import::ImportArgs;
use crate::inspect::InspectArgs;
use crate::live::args::DatabaseArgs;
use crate::live::undo::UndoArgs;
use crate::lookup::LookupArgs;
use crate::page::PageArgs;
use crate::partial::PartialArgs;
use crate::partial::merge::MergeArgs;
use crate::pgdata::PgdataArgs;
use crate::pin::PinArgs;
use crate::resume::ResumeArgs;
use crate::room::RoomArgs;
use crate::segments::SegmentsArgs;
use crate::select::SelectArgs;
use crate::status::StatusArgs;
use crate::torture::TortureArgs;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Most workers that may be asked for.
pub const MAX_WORKERS: u16 = 1024;

const EXIT_CODES: &str = "\
Exit codes:
  0  the result is whole
  1  an error; nothing was written
  2  the command line is wrong
  3  damaged pages or tuples were skipped (--on-error skip)
  4  workers were lost beyond repair; nothing was written
  130, 143  stopped by Ctrl-C, SIGTERM

Examples:
  kmer-leader --workers 8 base/16384/24601 --schema 'id int4, seq dna2' --column seq
  kmer-leader -k 21 --max-appearance-rate 0.01 -o frequent.tsv reads
  kmer-leader -d mydb -t reads -c seq --save
  kmer-leader -D /var/lib/postgresql/15/main -d mydb -t reads -c seq
  kmer-leader import reads.fq.gz -o reads";

/// Count in how many rows of a PostgreSQL heap relation each k-mer of a DNA column occurs.
#[derive(Debug, Parser)]
#[command(name = "kmer-leader", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true, disable_help_flag = true)]
pub struct Cli {
    /// Print help (-? for a summary)
    #[arg(short = '?', long, action = ArgAction::Help, global = true)]
    help: Option<bool>,
    /// A subcommand.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The analysis.
    #[command(flatten)]
    pub analysis: AnalysisArgs,
    /// When to colour messages; NO_COLOR is heeded
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        global = true,
        hide_possible_values = true
    )]
    pub color: When,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a relation file from FASTA or FASTQ files
    Import(ImportArgs),
    /// Go on with a run whose leader died (--resumable)
    Resume(ResumeArgs),
    /// Run a job again and again while its processes are killed and stopped, and compare the bytes
    Torture(TortureArgs),
    /// Show how far a run is
    Status(StatusArgs),
    /// List shared-memory segments of runs, and remove what nobody owns
    Segments(SegmentsArgs),
    /// Draw the map of a segment, with PostgreSQL's names beside it
    Inspect(InspectArgs),
    /// Add up what --partial wrote, and report it as one run would have
    Merge(MergeArgs),
    /// Print what --pin or --dense kept, in order
    Dump(DumpArgs),
    /// Look k-mers up in what --pin or --dense kept
    Lookup(LookupArgs),
    /// Remove a saved analysis from a database
    Undo(UndoArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them into a directory
    Man(ManArgs),
}

/// What to do about something that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// End with an error
    Stop,
    /// Leave it out, count and report it, exit with 3
    Skip,
}

/// What to do with rows whose hint bits leave their state open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnhintedArg {
    /// End with an error
    Error,
    /// Take them as committed
    Visible,
    /// Leave them out
    Skip,
}

/// What to do when a worker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnWorkerDeath {
    /// Start another in its place
    Respawn,
    /// Go on with those that are left, at last with the leader alone
    Degrade,
    /// End with exit code 4
    Abort,
}

/// How the relation is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReadMethod {
    /// pread into private memory
    Pread,
    /// A private mapping
    Mmap,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Count {
    /// In how many rows it occurs
    Rows,
    /// How often it occurs
    Occurrences,
}

/// Options of the analysis.
#[derive(Clone, Debug, Args)]
pub struct AnalysisArgs {
    /// Heap relation file (its segments FILE.1, FILE.2, ... are found beside it), or FASTA and FASTQ files
    #[arg(value_name = "FILE", required_unless_present_any = ["table", "dbname", "host", "port", "username", "inject"])]
    pub relations: Vec<PathBuf>,
    /// A table of a running server instead, or of a data directory.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// A table of a data directory.
    #[command(flatten)]
    pub pgdata: PgdataArgs,

    /// k, from 4 to 32
    #[arg(short = 'k', long, value_name = "K", default_value_t = 16, allow_hyphen_values = true)]
    #[arg(value_parser = |text: &str| number(text, 4, 32), help_heading = "What is counted")]
    pub kmer_size: u32,
    /// Bits that number the occurrences of a k-mer in a row, from 0 to 16
    ///
    /// With b bits, the n-th occurrence of a k-mer in a row counts as a key of its own, kmer * 2^b + n - 1, for n up to 2^b. 2 * k + b is at
    /// most 64.
    #[arg(short = 'b', long, value_name = "BITS", default_value_t = 0, allow_hyphen_values = true)]
    #[arg(value_parser = |text: &str| number(text, 0, 16), help_heading = "What is counted")]
    pub occur_bitlen: u32,
    /// What is counted of a k-mer
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Count::Rows, help_heading = "What is counted")]
    pub count: Count,
    /// Count a k-mer and its reverse complement as one, the smaller of the two
    #[arg(long, help_heading = "What is counted")]
    pub canonical: bool,
    /// Count in how many files a k-mer occurs: all records of a sequence file are one row
    #[arg(long, help_heading = "What is counted")]
    pub row_per_file: bool,
    /// Report k-mers that occur in more than this share of all rows, from 0 to 1 [default: 0.5]
    #[arg(short = 'R', long, value_name = "RATE", allow_hyphen_values = true)]
    #[arg(value_parser = rate, help_heading = "What is reported")]
    pub max_appearance_rate: Option<f64>,
    /// Report k-mers that occur in more than this many rows, if that is fewer, from 0 (no such limit) to 2147483647 [default: 0]
    #[arg(short = 'N', long, value_name = "ROWS", allow_hyphen_values = true)]
    #[arg(value_parser = |text: &str| number(text, 0, i32::MAX as u32), help_heading = "What is reported")]
    pub max_appearance_nrow: Option<u32>,
    /// Report every k-mer
    #[arg(long, help_heading = "What is reported")]
    #[arg(conflicts_with_all = ["max_appearance_rate", "max_appearance_nrow"])]
    pub all: bool,
    /// Which k-mers, in which order.
    #[command(flatten)]
    pub select: SelectArgs,

    /// Columns of the relation, like 'id int4, note text, seq dna2' [default: from RELATION.schema, else one column seq dna2]
    #[arg(long, value_name = "COLUMNS", help_heading = "The relation")]
    pub schema: Option<String>,
    /// The DNA column, by name or number [default: from RELATION.schema, else the only DNA column]
    #[arg(short, long, value_name = "COLUMN", help_heading = "The relation")]
    pub column: Option<String>,
    /// Its TOAST relation file [default: from RELATION.schema]
    #[arg(long, value_name = "FILE", help_heading = "The relation")]
    pub toast: Option<PathBuf>,
    /// Do not verify page checksums [default: verified where pages bear them]
    #[arg(long, help_heading = "The relation")]
    pub no_checksums: bool,
    /// Every page must bear the right checksum
    #[arg(long, conflicts_with = "no_checksums", help_heading = "The relation")]
    pub checksums: bool,
    /// What to do with rows whose hint bits do not say whether they are committed
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = UnhintedArg::Error, help_heading = "The relation")]
    pub unhinted: UnhintedArg,
    /// What to do about damaged pages and tuples
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnError::Stop, help_heading = "The relation")]
    pub on_error: OnError,
    /// How the relation is read
    #[arg(long, value_enum, value_name = "HOW", default_value_t = ReadMethod::Pread, help_heading = "The relation")]
    pub read_method: ReadMethod,

    /// Worker processes; 0: the leader does the work itself [default: one a processor]
    #[arg(short = 'j', long, visible_alias = "jobs", value_name = "N", help_heading = "Processes")]
    pub workers: Option<u32>,
    /// Rows that a worker takes at once, more or less, from 1000 to 1000000 [default: as many as 128 blocks have, or fewer]
    #[arg(short = 'B', long, value_name = "ROWS", allow_hyphen_values = true)]
    #[arg(value_parser = |text: &str| number(text, 1000, 1_000_000), help_heading = "Processes")]
    pub batch_size: Option<u32>,
    /// Memory that all processes of the run may use, like 512M or 4G; less means more passes [default: what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Processes")]
    pub memory: Option<u64>,
    /// What to do when a worker dies
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnWorkerDeath::Respawn, help_heading = "Processes")]
    pub on_worker_death: OnWorkerDeath,
    /// Replacements that are started for dead workers [default: 4 for each worker, at least 16]
    #[arg(long, value_name = "N", help_heading = "Processes")]
    pub max_respawns: Option<u32>,
    /// Deaths on one unit of blocks after which it is given up, from 1 to 63
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=63), help_heading = "Processes")]
    pub max_attempts: u8,
    /// Kill a worker that makes no progress (not one block) for so many seconds; 0: never
    #[arg(long, value_name = "SECONDS", default_value = "300", help_heading = "Processes")]
    pub worker_timeout: Seconds,
    /// Keep the segment until the result is whole: when the leader is killed, kmer-leader resume goes on
    #[arg(long, help_heading = "Processes")]
    pub resumable: bool,

    /// Write every kept k-mer to FILE in a dense form that 'dump' and 'lookup' read
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub dense: Option<PathBuf>,
    /// Keep the result in shared memory.
    #[command(flatten)]
    pub pin: PinArgs,
    /// Counts that are to be added to others.
    #[command(flatten)]
    pub partial: PartialArgs,
    /// Count, and write the facts of the header, but list no k-mer
    #[arg(long, help_heading = "Output")]
    pub count_only: bool,
    /// Write the result to FILE, which appears whole or not at all [default: standard output]
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Its form.
    #[command(flatten)]
    pub format: FormatArgs,
    /// Say nothing on standard error but errors
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
    /// Say how the work is laid out; with -V: build, vector instructions, versions of PostgreSQL
    #[arg(short, long, conflicts_with = "quiet", help_heading = "Output")]
    pub verbose: bool,

    /// A page about the run.
    #[command(flatten)]
    pub page: PageArgs,
    /// Where the segment lies.
    #[command(flatten)]
    pub room: RoomArgs,
    /// Options for tests.
    #[command(flatten)]
    pub debug: DebugArgs,
}

/// A number from `least` to `most`.
pub(crate) fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let found = text.parse().ok().filter(|n| (least..=most).contains(n));
    found.ok_or_else(|| format!("expected a number from {least} to {most}"))
}

/// A share from 0 to 1.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    found.ok_or_else(|| "expected a number from 0 to 1".into())
}

/// Bytes from a number with K, M, G or T behind it (powers of 1024).
fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim_end_matches(['B', 'b']).trim_end_matches(['i', 'I']);
    let (digits, shift) = match text.char_indices().last() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => match unit.to_ascii_uppercase() {
            'K' => (&text[..at], 10),
            'M' => (&text[..at], 20),
            'G' => (&text[..at], 30),
            'T' => (&text[..at], 40),
            _ => return Err("expected a number of bytes, or one with K, M, G or T behind it".into()),
        },
        _ => (text, 0),
    };
    let number: u64 = digits
        .trim()
        .parse()
        .map_err(|_| "expected a number of bytes, or one with K, M, G or T behind it")?;
    number.checked_mul(1 << shift).ok_or_else(|| "expected fewer bytes".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("4GiB"), Ok(4 << 30));
        assert_eq!(parse_size("77"), Ok(77));
        assert!(parse_size("4X").is_err() && parse_size("").is_err() && parse_size("99999999999T").is_err());
    }
}
