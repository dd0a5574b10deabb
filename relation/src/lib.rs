//! Reads and writes PostgreSQL heap relation files without a server.
//!
//! Promises
//! - Only pages of 8192 bytes, layout version 4, little endian: what servers of versions 13 to 18 write on
//!   common machines. Anything else is refused by name.
//! - No byte of a file is trusted: every offset and length is checked before it is used, nothing panics on input, and
//!   no length that was merely read decides how much memory is taken.
//! - An error names the file, the block, the line pointer and the attribute it is about, and says by
//!   [`Error::extent`] how much of the relation it makes unusable.
//!
//! What it does not do: it never writes to a relation it reads, takes no lock and talks to no server.
//!
//! The tree follows the format: [`mod@file`] and [`mapped`] hand out pages, [`page`] checks one, [`mod@tuple`] walks a tuple,
//! [`varlena`], [`pglz`] and [`toast`] unpack a value, [`varbit`] reads it, [`visibility`] (with [`xact`]) says which tuples count, and
//! [`rows`] puts all of it together. [`catalog`] finds a table in a data directory by its name.
#![deny(unsafe_code)]

pub mod buffer;
pub mod catalog;
pub mod checksum;
pub mod error;
pub mod file;
pub mod mapped;
pub mod page;
pub mod pglz;
pub mod rows;
pub mod schema;
pub mod sidecar;
pub mod toast;
pub mod tuple;
pub mod types;
pub mod varbit;
pub mod varlena;
pub mod visibility;
pub mod write;
pub mod xact;

mod bytes;
#[cfg(test)]
mod tests;

pub use buffer::PageBuffer;
pub use error::{Error, ErrorKind, Extent};
pub use file::{Fingerprint, RelationFile};
pub use mapped::MappedRelation;
pub use page::BLOCK_SIZE;
pub use rows::{PageCounts, PageReader, ReadOptions, RowSink, Value};
pub use schema::{Align, AttLen, Attribute, DnaType, TupleDesc};
pub use sidecar::Sidecar;
pub use toast::{Toast, ToastIndex};
pub use visibility::{Unhinted, Verdict};
pub use xact::PgXact;
