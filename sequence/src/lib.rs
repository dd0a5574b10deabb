//! FASTA and FASTQ files as relations: rows are records, and a run of bytes can be read without what is before it.
//!
//! | module | job |
//! |---|---|
//! | [`mod@format`] | tells FASTA from FASTQ, and compressions, by the first bytes |
//! | [`mod@file`] | opens a file, and says whether it is still the same |
//! | [`mod@unpack`] | text out of packed files |
//! | [`parcels`] | cuts a stream into parcels of whole records |
//! | [`records`] | cuts a run of bytes into records and hands out their letters |
//!
//! A record belongs to the run of bytes in which it begins, so runs that lie side by side have every record exactly once; whoever reads a run
//! finds its first record by looking, and reads the last one to its end, however far that is.
//!
//! What it does not do: know what letters mean, or count.

#![forbid(unsafe_code)]

pub mod error;
pub mod file;
pub mod format;
pub mod parcels;
pub mod records;
pub mod unpack;

pub use error::{Error, Result};
pub use file::SequenceFile;
pub use format::{Format, Packing};
pub use records::{Part, RecordSink, read};
