//! What can be typed. What it means for a relation is [`crate::plan`]'s to say.

use crate::import::ImportArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
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
  kmer-leader import reads.fq.gz -o reads";

/// Count in how many rows of a PostgreSQL heap relation each k-mer of a DNA column occurs.
#[derive(Debug, Parser)]
#[command(name = "kmer-leader", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true)]
pub struct Cli {
    /// A subcommand.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The analysis.
    #[command(flatten)]
    pub analysis: AnalysisArgs,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a relation file from FASTA or FASTQ files
    Import(ImportArgs),
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

/// Options of the analysis.
#[derive(Debug, Args)]
pub struct AnalysisArgs {
    /// Heap relation file (its segments FILE.1, FILE.2, ... are found beside it)
    #[arg(value_name = "RELATION", required = true)]
    pub relation: Option<PathBuf>,

    /// k, from 4 to 32
    #[arg(short = 'k', long, value_name = "K", default_value_t = 16, allow_hyphen_values = true)]
    #[arg(value_parser = |text: &str| number(text, 4, 32), help_heading = "What is counted")]
    pub kmer_size: u32,
    /// Bits that number the occurrences of a k-mer in a row, from 0 to 16
    ///
    /// With b bits, the n-th occurrence of a k-mer in a row counts as a key of its own, kmer * 2^b + n - 1, for n up to 2^b. 2 * k + b is at
    /// most 64.
    #[arg(long, value_name = "BITS", default_value_t = 0, allow_hyphen_values = true)]
    #[arg(value_parser = |text: &str| number(text, 0, 16), help_heading = "What is counted")]
    pub occur_bitlen: u32,
    /// Report k-mers that occur in more than this share of all rows, from 0 to 1
    #[arg(long, value_name = "RATE", default_value_t = 0.5, allow_hyphen_values = true)]
    #[arg(help_heading = "What is counted")]
    pub max_appearance_rate: f64,
    /// Report k-mers that occur in more than this many rows, if that is fewer; 0 is no such limit
    #[arg(long, value_name = "ROWS", default_value_t = 0, allow_hyphen_values = true)]
    #[arg(help_heading = "What is counted")]
    pub max_appearance_nrow: u64,
    /// Report every k-mer
    #[arg(long, help_heading = "What is counted")]
    pub all: bool,

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
    /// Shared memory that the run may use, like 512M or 4G [default: what is free]
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
    /// Kill a worker that makes no progress for so many seconds; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "Processes")]
    pub worker_timeout: u64,

    /// Write the result to FILE, which appears whole or not at all [default: standard output]
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Say nothing on standard error but errors
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}

/// A number from `least` to `most`.
fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let found = text.parse().ok().filter(|n| (least..=most).contains(n));
    found.ok_or_else(|| format!("expected a number from {least} to {most}"))
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
