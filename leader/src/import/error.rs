//! What can go wrong in an import, and what may help.

use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use relation::write::WriteError;

use super::ImportType;
use super::encode::Refused;
use crate::failure::Failure;

/// An error of an import. Records count from 1 in each file, bases from 1 in each record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be opened or read.
    #[error("file {path:?}: could not {action}: {cause}")]
    Io {
        /// The input file.
        path: PathBuf,
        /// What was tried, a verb.
        action: &'static str,
        /// The system's or the decompressor's answer.
        cause: io::Error,
    },
    /// The content is not a format that is read here, or cannot be unpacked.
    #[error(transparent)]
    Sequence(#[from] sequence::Error),
    /// A record is not built as its format asks.
    #[error("file {path:?}: record {record}: {problem}")]
    Record {
        /// The input file.
        path: PathBuf,
        /// The record.
        record: u64,
        /// Expected and found, and the line.
        problem: String,
    },
    /// A letter that the column's type cannot hold.
    #[error(
        "file {path:?}: record {record} {name:?}: expected {expected}, found {found:?} (base {position})"
    )]
    Base {
        /// The input file.
        path: PathBuf,
        /// The record.
        record: u64,
        /// Its name.
        name: String,
        /// What the type holds.
        expected: &'static str,
        /// The letter.
        found: char,
        /// Where it stands.
        position: u64,
        /// It could be stored as `dna4`.
        ambiguous: bool,
    },
    /// A record longer than one value can be.
    #[error("file {path:?}: record {record} {name:?}: expected at most {expected} bases, found {found}")]
    TooLong {
        /// The input file.
        path: PathBuf,
        /// The record.
        record: u64,
        /// Its name.
        name: String,
        /// The most bases.
        expected: u64,
        /// Its bases.
        found: u64,
    },
    /// The relation cannot be written; the output exists already, or the disk is full, say.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The output has a name that the sidecar cannot hold.
    #[error("file {path:?}: expected a name {expected}, found {found}")]
    OutputName {
        /// The output file.
        path: PathBuf,
        /// What a name must be.
        expected: &'static str,
        /// What it has.
        found: &'static str,
    },
    /// A signal came before the files had their names.
    #[error("ended by {0}")]
    Signal(Signal),
    /// Signals could not be caught.
    #[error("{0}")]
    Signals(String),
    /// More records than an `int4` can number.
    #[error("file {path:?}: expected at most 2147483647 records in all files, found more")]
    TooManyRows {
        /// The file whose record was one too many.
        path: PathBuf,
    },
}

/// How an import ends that [`super::run`] gave this error.
pub fn failure(error: &anyhow::Error) -> Failure {
    let known = error.downcast_ref::<ImportError>();
    match (known, known.and_then(ImportError::hint)) {
        (Some(ImportError::Signal(signal)), _) => Failure::Signal(*signal),
        (_, Some(hint)) => Failure::error(error).hint(hint),
        (_, None) => Failure::error(error),
    }
}

impl ImportError {
    /// What the user can do about it, if something is known to help.
    pub fn hint(&self) -> Option<String> {
        match self {
            ImportError::Base { ambiguous: true, .. } => Some(
                "use --type dna4 to store ambiguous bases, or --skip-ambiguous to leave such records out"
                    .to_owned(),
            ),
            ImportError::Sequence(sequence::Error::Format { path, unpack: Some(unpack), .. }) => {
                Some(sequence::error::unpacked_by(unpack, path, "kmer-leader import - -o OUT"))
            }
            ImportError::Write(WriteError::Exists { .. }) => Some("use --force to replace it".to_owned()),
            ImportError::Write(WriteError::NoFile { found: "a directory", .. }) => {
                Some("name a file in it, or another one".to_owned())
            }
            ImportError::Write(WriteError::NoFile { .. }) => Some("name another file".to_owned()),
            ImportError::Write(WriteError::Stray { .. }) => {
                Some("move it away: it would be read as a part of the relation".to_owned())
            }
            ImportError::OutputName { .. } => {
                Some("choose another: the file of long records is named in the sidecar".to_owned())
            }
            _ => None,
        }
    }

    pub(super) fn io(path: &Path, action: &'static str, cause: io::Error) -> Self {
        ImportError::Io { path: path.to_path_buf(), action, cause }
    }

    pub(super) fn base(path: &Path, record: u64, name: &str, refused: &Refused) -> Self {
        ImportError::Base {
            path: path.to_path_buf(),
            record,
            name: name.to_owned(),
            expected: match refused.kind {
                ImportType::Dna2 => "A, C, G or T",
                ImportType::Dna4 => "an IUPAC nucleotide code",
            },
            found: char::from(refused.letter),
            position: refused.position,
            ambiguous: refused.ambiguous,
        }
    }
}
