//! Counts of a part of the rows, to be added to those of other parts: `--blocks FROM..TO`, `--partial FILE|-`, `kmer-leader merge`.
//!
//! Rows are independent, so the row counts of disjoint parts add up. A partial result has every key of its part with its count, in ascending order, and says
//! what it is a part of ([`meta`]); the threshold is a matter of all rows, so it is applied when the parts are together ([`merge`]). A row belongs to the
//! block that holds its tuple, whatever blocks its TOAST chunks lie in, so every row is in exactly one of disjoint block ranges.
//!
//! ```text
//! -      Arrow IPC stream      schema: uintkey uint64, appearance_nrow or occurrences uint32; batches of 65536 keys
//! FILE   Parquet               the same columns, row groups of 1048576 keys with their least and highest
//! ```
//!
//! Both carry the meta data as JSON under the key `kmer-leader.partial`.

pub mod merge;
pub mod meta;
mod pages;
pub mod read;
mod stream;
pub mod write;

use crate::failure::Failure;
use clap::Args;
use kmer_worker::job::Job;
use std::path::PathBuf;
use std::str::FromStr;

/// Key of the meta data in a schema's metadata.
pub const META_KEY: &str = "kmer-leader.partial";
/// Key of a Parquet file's check sum: the bytes of its pages, and their CRC-32.
const PAGES_KEY: &str = "kmer-leader.pages";
/// Key of the check sum over that document.
const SUM_KEY: &str = "kmer-leader.partial.crc32";

/// Options of a part.
#[derive(Clone, Debug, Default, Args)]
pub struct PartialArgs {
    /// Count the rows of these blocks alone, from FROM to before TO
    #[arg(
        long,
        value_name = "FROM..TO",
        requires = "partial",
        conflicts_with = "dbname",
        help_heading = "Parts"
    )]
    pub blocks: Option<BlockRange>,
    /// Write every k-mer with its count for 'merge': Parquet to FILE, or an Arrow IPC stream to standard output ('-')
    #[arg(long, value_name = "FILE", help_heading = "Parts")]
    #[arg(conflicts_with_all = ["max_appearance_rate", "max_appearance_nrow", "min_rows", "max_rows", "top", "sort"])]
    #[arg(conflicts_with_all = ["histogram", "save", "pin", "output", "format", "count_only"])]
    pub partial: Option<PathBuf>,
}

/// Blocks from one to before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    /// The first.
    pub from: u64,
    /// The one behind the last.
    pub to: u64,
}

impl FromStr for BlockRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
        match numbers {
            Some((from, to)) if from < to => Ok(Self { from, to }),
            _ => Err("expected two block numbers, the second greater, like 0..1000".into()),
        }
    }
}

impl PartialArgs {
    /// Looks whether the job has such blocks.
    ///
    /// # Errors
    /// Exit code 2 when it has not.
    pub fn check(&self, job: &Job) -> Result<(), Failure> {
        let Some(BlockRange { from, to }) = self.blocks else { return Ok(()) };
        if let Some(leaf) = job.leaves.iter().find(|leaf| leaf.sequence.is_some()) {
            let path = kmer_worker::job::path_of(&leaf.path);
            let text = format!("--blocks: expected a heap relation, found sequence file {path:?}");
            return Err(Failure::usage(text).hint("a part of many sequence files is some of them"));
        }
        let all = job.all_blocks();
        if to > all {
            let text = format!("--blocks: expected blocks before {all}, found {from}..{to}");
            return Err(Failure::usage(text));
        }
        Ok(())
    }
}

/// The check sum over the document with the meta data, as it is written.
fn sum_of(json: &str) -> String {
    format!("{:08x}", crc32fast::hash(json.as_bytes()))
}
