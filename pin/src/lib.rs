//! Looks k-mers up in what `kmer-leader --pin NAME` keeps in shared memory: one copy for the machine, read by any number of processes.
//!
//! ```
//! # let name = format!("doc-test-{}", std::process::id());
//! # let spec = kmer_pin::Spec { entries: 1, ..kmer_pin::Spec::new(16) };
//! # let mut writer = kmer_pin::Writer::create(&spec)?;
//! # writer.put(kmer_pin::parse("GATTACAGATTACAGA", 16)?, 3)?;
//! # writer.finish()?.pin(&name, false)?;
//! # let as_you_named_it = name.as_str();
//! let genomes = kmer_pin::Pinned::open(as_you_named_it)?;
//! let rows = genomes.count("GATTACAGATTACAGA")?;
//! assert_eq!(rows, 3);
//! # kmer_pin::remove(&name)?;
//! # Ok::<(), kmer_pin::Error>(())
//! ```
//!
//! [`Pinned::count_all`] answers many questions at once, several times as fast. [`Pinned::entries`] gives everything there is.
//!
//! The segment is mapped read-only. Its header and every answer are under check sums, so one that was damaged, cut off or made up is an
//! [`Error`], never a wrong number; while this process has it mapped it may be removed or replaced, and stays what it was.
//!
//! # The bytes
//!
//! ```text
//! segment header, table of contents      as of every segment, see `shm_layout::segment` and `toc`
//! 0x4b50_0001  head, 16 words            version, k, occur_bitlen, flags, entries of a bucket, buckets, entries, multiplier, sum of counts,
//!                                        threshold, rows, reach, 0, 0, 0, digest
//! 0x4b50_0002  facts                     text: the lines that a report begins with
//! 0x4b50_0003  buckets                   64 bytes each
//!
//! bucket of keys up to 32 bits           7 words: key, count in the high half; 1 word: 0, check sum in the high half
//! bucket of longer keys                  5 words: keys; 5 half words: counts; 1 half word: check sum
//! ```
//!
//! A bucket is a line of the processor's cache, so most look-ups touch memory once. A key is in its home bucket, or, when that is full, in the next one
//! that has room, at most `reach` further on. A count of 0 marks an empty place, and behind one there are no others. The digest is of all bytes
//! before the buckets but itself; a bucket's check sum is of its other bytes and of its number.
//!
//! Who writes: the leader, before the segment gets its name (`shm_layout::pin`); nobody after. A writer that is killed leaves a segment under a random
//! name, which cannot be opened here and goes with the next sweep.
#![forbid(unsafe_code)]

mod bucket;
mod error;
mod read;
mod spec;
mod write;

pub use error::{Error, Result};
pub use read::{About, Pinned, about, parse};
pub use spec::Spec;
pub use write::{Provisional, Ready, Writer};

use shm_layout::pin::pin_name;
use shm_layout::segment::Segment;

/// True when there is a pinned segment of that name, or anything else in its place.
pub fn exists(name: &str) -> bool {
    pin_name(name).is_ok_and(|name| shm_layout::pin::exists(&name))
}

/// Removes a pinned segment. Processes that have it open keep it until they end.
///
/// # Errors
/// When the name cannot be one; what the system says. That there is none is no error.
pub fn remove(name: &str) -> Result<()> {
    Ok(Segment::destroy(&pin_name(name)?)?)
}
