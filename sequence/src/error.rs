//! What can be wrong with a sequence file, and where.

use std::path::{Path, PathBuf};

/// An error about a sequence file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system could not do it.
    #[error("file {path:?}: could not {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, a verb.
        action: &'static str,
        /// What the system or the decompressor said.
        source: std::io::Error,
    },
    /// The content is no format that is read here.
    #[error("file {path:?}: expected FASTA or FASTQ, plain or packed, found {found}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: &'static str,
        /// A command that turns it into something that is read.
        unpack: Option<&'static str>,
    },
    /// A record is not built as its format asks.
    #[error("file {path:?}: record at byte {offset} ({name:?}): expected {expected}, found {found}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Where the record begins, from 0, in the unpacked text.
        offset: u64,
        /// Its name.
        name: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A record, or all that is one row, is longer than memory has room for.
    #[error("file {path:?}: {}: expected at most {most} bytes of unpacked text, found more", long(record.as_ref()))]
    Long {
        /// The file.
        path: PathBuf,
        /// Where the record begins or its letters do, from 0, in the unpacked text, and its name. `None`: it is about the whole file.
        record: Option<(u64, String)>,
        /// What there is room for.
        most: u64,
        /// Whether it is FASTA.
        is_fasta: bool,
    },
    /// The file is not what it was when it was opened.
    #[error("file {path:?}: expected it as it was at the start, found it changed")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The receiver of the records stopped; it knows why.
    #[error("{0}")]
    Stopped(String),
}

/// Short for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the system about a file.
    pub fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), action, source }
    }

    /// What may help.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Format { path, unpack: Some(unpack), .. } => Some(unpacked_by(unpack, path, "kmer-leader -")),
            // Plain text of both formats is read in place; of FASTQ a record is held whole.
            Self::Long { record, is_fasta, .. } if *is_fasta || record.is_none() => {
                Some("count the unpacked text as a file, where long records are read in parts; or allow more with --memory".into())
            }
            Self::Long { .. } => Some("allow more with --memory".into()),
            Self::Changed { .. } => Some("count a copy, or stop what writes to it".into()),
            _ => None,
        }
    }
}

/// A command line that gives what is read of `path` to `reader`.
pub fn unpacked_by(unpack: &str, path: &Path, reader: &str) -> String {
    // What another command writes to (/dev/fd/63 for a shell's <(...)) can be given directly.
    if unpack == "cat" && (path.starts_with("/dev/fd") || path.starts_with("/proc")) {
        return format!("COMMAND | {reader}");
    }
    match unpack {
        _ if path != Path::new("-") => format!("{unpack} {path:?} | {reader}"),
        // It wants to seek.
        "unzip -p" => format!("... | funzip | {reader}"),
        _ => format!("... | {unpack} - | {reader}"),
    }
}

fn long(record: Option<&(u64, String)>) -> String {
    match record {
        Some((offset, name)) => format!("record at byte {offset} ({name:?})"),
        None => "all records, being one row".to_owned(),
    }
}
