//! What a partial result says of itself, and whether several belong together.

use crate::failure::Failure;
use crate::format::facts::{Facts, ROWS};
use crate::lead::Outcome;
use crate::plan::Plan;
use crate::report::Entry;
use kmer_worker::feed::STDIN;
use kmer_worker::job::{Leaf, path_of};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Version of the meta data; fields may be added under one number.
pub const SCHEMA_VERSION: u32 = 1;

/// A file of the relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartFile {
    /// Its path.
    pub path: String,
    /// Its blocks.
    pub blocks: u64,
    /// Its bytes.
    pub bytes: u64,
    /// When it was last written to, in nanoseconds since 1970. None while a server runs beside, which may do so without a change of a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<i64>,
}

impl PartFile {
    /// Whether it has the size of `other`, which has its path.
    fn has_size_of(&self, other: &Self) -> bool {
        (self.blocks, self.bytes) == (other.blocks, other.bytes)
    }

    /// Whether it may have been another at the time of `other`, which has its path.
    fn may_differ(&self, other: &Self) -> bool {
        self.modified.zip(other.modified).is_some_and(|(mine, its)| mine != its)
    }
}

/// When the last of a leaf's files (`path`, `path.1`, ...) was written to, unless that says nothing of its rows.
pub fn modified(leaf: &Leaf) -> Option<i64> {
    let path = path_of(&leaf.path);
    leaf.fingerprint?;
    let at = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        meta.mtime().checked_mul(1_000_000_000)?.checked_add(meta.mtime_nsec())
    };
    let segment = |number: u32| {
        let mut path = path.as_os_str().to_owned();
        path.push(format!(".{number}"));
        at(Path::new(&path))
    };
    std::iter::once(at(path)?).chain((1..).map_while(segment)).max()
}

/// The meta data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of the program.
    pub version: String,
    /// k.
    pub k: u32,
    /// occur_bitlen.
    pub occur_bitlen: u32,
    /// Whether a k-mer and its reverse complement count as one.
    pub canonical: bool,
    /// Name of the column with counts: what is counted.
    pub counts: String,
    /// All records of a file are one row.
    pub row_per_file: bool,
    /// Name of the DNA column.
    pub column: String,
    /// `dna2` or `dna4`.
    #[serde(rename = "type")]
    pub dna_type: String,
    /// The files whose blocks are numbered through, in that order.
    pub files: Vec<PartFile>,
    /// The first block that was counted, and the one behind the last.
    pub blocks: (u64, u64),
    /// Visible rows.
    pub total_rows: u64,
    /// Rows with NULL.
    pub rows_null: u64,
    /// Rows shorter than k.
    pub rows_short: u64,
    /// Tuples whose hint bits leave their state open.
    pub tuples_undecided: u64,
    /// Damaged tuples.
    pub tuples_skipped: u64,
    /// Damaged pages.
    pub pages_skipped: u64,
    /// Runs of blocks that were given up.
    pub units_skipped: u64,
    /// Windows with one degenerate letter.
    pub windows_expanded: u64,
    /// Windows that stand for no k-mer.
    pub windows_skipped: u64,
    /// Keys.
    pub keys: u64,
    /// [`Digest`] of keys and counts, in hexadecimal.
    pub digest: String,
    /// [`Conserved`] sum of keys and counts, in hexadecimal.
    pub conserved: String,
}

/// A digest of keys and counts, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0x51ed_270b_9e37_79b9)
    }
}

impl Digest {
    /// Adds an entry.
    #[inline]
    pub fn add(&mut self, (key, count): Entry) {
        let mixed = (self.0 ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 29 ^ u64::from(count)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.0 = mixed ^ mixed >> 32;
    }

    /// As it is written.
    pub fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// A sum over keys and counts that does not ask for their order, and that of a result is the sum of those of its parts: whoever adds parts up, in
/// whatever way and place, knows by it that nothing was lost, doubled or altered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conserved(u64);

impl Conserved {
    /// Adds an entry.
    #[inline]
    pub fn add(&mut self, (key, count): Entry) {
        let mixed = (key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = mixed ^ mixed >> 29;
        self.0 = self.0.wrapping_add(mixed.wrapping_mul(count.into()));
    }

    /// As it is written.
    pub fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

impl Meta {
    /// What is known of a part before its entries are.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn new(plan: &Plan, outcome: &Outcome, facts: &Facts) -> Result<Self, Failure> {
        let job = &plan.job;
        let mut files = Vec::new();
        // A stream is cut into parcels, not into blocks of its files: each of these counts as one, and standard input is nothing that could be named.
        let whole = job.stream.is_some();
        let leaves = job.leaves.iter().zip(&plan.modified);
        for (leaf, modified) in leaves.filter(|(leaf, _)| !whole || leaf.path != STDIN) {
            let path = path_of(&leaf.path);
            let path = path.canonicalize().unwrap_or_else(|_| path.into());
            let text = path.to_str().ok_or_else(|| {
                Failure::error(format!("--partial: expected a path of UTF-8, found {path:?}"))
            })?;
            let blocks = if whole { 1 } else { leaf.blocks.into() };
            files.push(PartFile { path: text.into(), blocks, bytes: leaf.bytes(), modified: *modified });
        }
        let range = (job.first_block(), job.first_block() + job.total_blocks());
        let blocks = if whole { (0, files.len() as u64) } else { range };
        Ok(Self {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            k: facts.k,
            occur_bitlen: facts.occur_bitlen,
            canonical: facts.canonical,
            counts: facts.counts().into(),
            row_per_file: job.row_per_file,
            column: facts.column.clone(),
            dna_type: facts.dna_type.into(),
            files,
            blocks,
            total_rows: facts.total_rows,
            rows_null: facts.rows_null,
            rows_short: facts.rows_short,
            tuples_undecided: facts.tuples_undecided,
            tuples_skipped: facts.tuples_skipped,
            pages_skipped: facts.pages_skipped,
            units_skipped: outcome.scan.poisoned.len() as u64,
            windows_expanded: facts.windows_expanded,
            windows_skipped: facts.windows_skipped,
            keys: 0,
            digest: Digest::default().text(),
            conserved: Conserved::default().text(),
        })
    }

    /// Whether rows are counted, and not occurrences.
    pub fn counts_rows(&self) -> bool {
        self.counts == ROWS
    }

    /// What of each file was counted: its blocks from one to before another.
    fn counted(&self) -> impl Iterator<Item = (&PartFile, (u64, u64))> {
        let mut start = 0u64;
        self.files.iter().filter_map(move |file| {
            let (first, end) = (start, start.saturating_add(file.blocks));
            start = end;
            let (from, to) = (self.blocks.0.max(first), self.blocks.1.min(end));
            (from < to).then(|| (file, (from - first, to - first)))
        })
    }

    /// Adds another part's numbers, when the two belong together.
    ///
    /// # Errors
    /// What is different.
    pub fn add(&mut self, other: &Self) -> Result<(), String> {
        let differ = |what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
            Err(format!("{what}: expected {expected:?}, as in the first part, found {found:?}"))
        };
        macro_rules! same {
            ($($field:ident $name:literal,)*) => {
                $(if self.$field != other.$field { return differ($name, &self.$field, &other.$field); })*
            };
        }
        same!(
            version "version of the program", k "k", occur_bitlen "occur_bitlen", canonical "canonical",
            counts "counts", row_per_file "row_per_file", column "column", dna_type "type",
        );
        let sums = [
            (&mut self.total_rows, other.total_rows),
            (&mut self.rows_null, other.rows_null),
            (&mut self.rows_short, other.rows_short),
            (&mut self.tuples_undecided, other.tuples_undecided),
            (&mut self.tuples_skipped, other.tuples_skipped),
            (&mut self.pages_skipped, other.pages_skipped),
            (&mut self.units_skipped, other.units_skipped),
            (&mut self.windows_expanded, other.windows_expanded),
            (&mut self.windows_skipped, other.windows_skipped),
        ];
        for (sum, more) in sums {
            *sum = sum.checked_add(more).ok_or("its numbers are too large")?;
        }
        Ok(())
    }
}

/// What may be wrong with the parts of a result, and cannot be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Blocks of a file, from the first to the last, that are in no part, though others of it are.
    Missing(String, u64, u64),
    /// A file that was written to between two parts, or was copied so that its time is another.
    Altered(String, String, String),
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(file, from, to) => write!(f, "file {file:?}: blocks {from} to {to} are in no part"),
            Self::Altered(file, one, other) => write!(
                f,
                "file {file:?}: its time of modification in part {one:?} is not that in part {other:?}; if it was altered in between, the sum is of neither"
            ),
        }
    }
}

/// What came by standard input names no file; the same of it twice is taken for one part that was named twice.
fn check_unnamed(parts: &[(String, Meta)]) -> Result<(), Failure> {
    let unnamed: Vec<_> = parts.iter().filter(|(_, meta)| meta.files.is_empty() && meta.keys > 0).collect();
    for (i, (name, meta)) in unnamed.iter().enumerate() {
        let known = |(_, other): &&&(String, Meta)| {
            (&other.digest, other.keys, other.total_rows) == (&meta.digest, meta.keys, meta.total_rows)
        };
        if let Some((other, _)) = unnamed[..i].iter().find(known) {
            let text = format!(
                "parts {other:?} and {name:?}: expected different parts, found the same k-mers and counts, and no file that tells them apart"
            );
            return Err(Failure::error(text).hint("count files instead of standard input, whose names tell"));
        }
    }
    Ok(())
}

/// Looks that no block is in two parts. Gives what is to be doubted: a file of which parts know different times, once, and blocks that are in no part.
///
/// # Errors
/// Naming the two parts, and the blocks.
pub fn check_disjoint(parts: &[(String, Meta)]) -> Result<Vec<Doubt>, Failure> {
    check_unnamed(parts)?;
    let mut counted: Vec<(&PartFile, (u64, u64), usize)> = parts
        .iter()
        .enumerate()
        .flat_map(|(part, (_, meta))| meta.counted().map(move |(file, range)| (file, range, part)))
        .collect();
    counted.sort_by(|a, b| (&a.0.path, a.1).cmp(&(&b.0.path, b.1)));
    // Whoever named a file twice for one part wants it twice, as in a run.
    let of = |part: &usize| parts[*part].0.as_str();
    let mut doubts = Vec::new();
    for (place, (file, (from, to), part)) in counted.iter().enumerate() {
        let name = of(part);
        let before = counted[..place].last().filter(|(other, ..)| other.path == file.path);
        if let Some((other, (_, end), other_part)) = before.filter(|(.., other)| other != part) {
            let other_name = of(other_part);
            if !file.has_size_of(other) {
                let text = format!(
                    "part {name:?}: file {:?}: expected {} blocks and {} bytes, as in part {other_name:?}, found {} and {}",
                    file.path, other.blocks, other.bytes, file.blocks, file.bytes
                );
                return Err(Failure::error(text));
            }
            if from < end {
                let text = format!(
                    "part {name:?}: expected blocks of file {:?} that are in no other part, found {from} to {} in part {other_name:?} too",
                    file.path,
                    to.min(end) - 1
                );
                return Err(Failure::error(text));
            }
        }
        let is_told = |doubt: &Doubt| matches!(doubt, Doubt::Altered(path, ..) if *path == file.path);
        let altered = before.filter(|(other, ..)| file.may_differ(other));
        if let Some((.., other)) = altered.filter(|_| !doubts.iter().any(is_told)) {
            doubts.push(Doubt::Altered(file.path.clone(), of(other).into(), name.into()));
        }
        let seen = before.map_or(0, |(_, (_, end), _)| *end);
        if seen < *from {
            doubts.push(Doubt::Missing(file.path.clone(), seen, from - 1));
        }
        let is_last = counted.get(place + 1).is_none_or(|(next, ..)| next.path != file.path);
        if is_last && *to < file.blocks {
            doubts.push(Doubt::Missing(file.path.clone(), *to, file.blocks - 1));
        }
    }
    Ok(doubts)
}
