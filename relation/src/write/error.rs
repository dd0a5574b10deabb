//! What can go wrong while a relation is written.
//!
//! Every text says which file or row, what was expected there and what was found; rows and attributes count from 1.

use std::io;
use std::path::PathBuf;

/// An error of [`HeapWriter`](super::HeapWriter).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A file of that name is there and was not to be replaced.
    #[error("file {path:?}: exists already")]
    Exists {
        /// The file in the way.
        path: PathBuf,
    },
    /// Something else than a file is in the way.
    #[error("file {path:?}: exists already: expected a file, found {found}")]
    NoFile {
        /// What is in the way.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A file that is no segment of the relation, and would be read as one.
    #[error("file {path:?}: expected none behind the relation's last segment, found one")]
    Stray {
        /// The file in the way.
        path: PathBuf,
    },
    /// The path has no last component that a file could be called by.
    #[error("file {path:?}: expected a file name, found a directory")]
    NoFileName {
        /// The path as given.
        path: PathBuf,
    },
    /// The operating system refused; a full disk is reported so.
    #[error("file {path:?}: could not {action}: {cause}")]
    Io {
        /// The file that was being worked on, by the name it was to get in the end.
        path: PathBuf,
        /// What was tried, a verb.
        action: &'static str,
        /// The system's answer.
        cause: io::Error,
    },
    /// The sidecar cannot hold what it should.
    #[error(transparent)]
    Sidecar(#[from] crate::Error),
    /// The relation has grown to 2^32 - 1 blocks, the most that a block number can count.
    #[error("file {path:?}: expected at most 4294967295 blocks, found more")]
    TooManyBlocks {
        /// The relation file.
        path: PathBuf,
    },
    /// An option that must not be 0 is.
    #[error("option \"{name}\": expected 1 or more, found 0")]
    Option {
        /// The field of [`WriteOptions`](super::WriteOptions).
        name: &'static str,
    },
    /// A row has another number of fields than the first one.
    #[error("row {row}: expected {expected} columns, found {found}")]
    ColumnCount {
        /// The row.
        row: u64,
        /// Fields of the first row.
        expected: usize,
        /// Fields of this row.
        found: usize,
    },
    /// A row without fields, or with more than a tuple can have.
    #[error("row {row}: expected 1 to {expected} columns, found {found}")]
    ColumnRange {
        /// The row.
        row: u64,
        /// The most columns that a table can have.
        expected: usize,
        /// Fields of this row.
        found: usize,
    },
    /// A bit string's bytes do not match its length.
    #[error("row {row}: expected {expected} bytes for {bits} bits, found {found} (attribute {attribute})")]
    BitBytes {
        /// The row.
        row: u64,
        /// The attribute.
        attribute: usize,
        /// Length in bits.
        bits: u32,
        /// Bytes that this many bits fill.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// Bits behind the end of a bit string are set.
    #[error(
        "row {row}: expected zero bits behind bit {bits}, found last byte {found:#04x} (attribute {attribute})"
    )]
    BitPadding {
        /// The row.
        row: u64,
        /// The attribute.
        attribute: usize,
        /// Length in bits.
        bits: u32,
        /// The last byte.
        found: u8,
    },
    /// A text with a zero byte, which no PostgreSQL text can hold.
    #[error("row {row}: expected text without zero bytes, found one at byte {at} (attribute {attribute})")]
    TextNul {
        /// The row.
        row: u64,
        /// The attribute.
        attribute: usize,
        /// Its place in the text, from 1.
        at: usize,
    },
    /// A value longer than its type allows.
    #[error("row {row}: expected at most {expected} {unit}, found {found} (attribute {attribute})")]
    ValueTooLarge {
        /// The row.
        row: u64,
        /// The attribute.
        attribute: usize,
        /// The type's limit.
        expected: u64,
        /// The value's length.
        found: u64,
        /// "bits" or "bytes".
        unit: &'static str,
    },
    /// A row that does not fit a page even with all its values moved out.
    #[error("row {row}: expected a tuple of at most 8160 bytes, found {found}")]
    TupleTooLarge {
        /// The row.
        row: u64,
        /// Bytes of the tuple.
        found: usize,
    },
    /// All value ids up to 2^32 - 1 are used.
    #[error("row {row}: expected a free TOAST value id, found none up to 4294967295")]
    ValueIds {
        /// The row.
        row: u64,
    },
}
