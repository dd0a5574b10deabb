//! Every kept k-mer in one file, as dense as the published tables are, and read back: `--dense FILE`, `kmer-leader dump`, `kmer-leader lookup`.
//!
//! ```text
//! file      := head image* directory facts foot
//! head      0   8  "KMERDNS6"                     all numbers little endian
//!           8   4  k                  12  4  occur_bitlen
//!           16  4  stripe_bits        20  4  1: keys were counted directly, a stripe is a range of keys; 2: canonical k-mers
//!           24  8  seed: which stripe a k-mer is in, see kmer::minimizer
//! image     a stripe's table as it was published, see shm_layout::hash::image; in the order in which stripes were drained
//! directory for each of 2^stripe_bits stripes: offset u64, bytes u64 (0: no k-mers), digest of the bytes u64
//! facts     the lines that a report begins with
//! foot      0   8  offset of the directory        8   8  bytes of the facts
//!           16  8  digest of head, directory and facts  24  8  "KMERDNS6"
//! ```
//!
//! Nothing is sorted and nothing is turned into text while the run holds its memory, so writing costs little more than copying. A k-mer is looked up
//! by its stripe and then in the stripe's table; [`crate::book`] sorts. A file that was cut off or altered is an error: foot and
//! digests say so.

pub mod read;
pub mod write;

use kmer::minimizer::{OLDER_RULE, RULE};

/// The digit is another one whenever k-mers are dealt out otherwise, or tables read otherwise.
pub(crate) const MAGIC: &[u8; 8] = b"KMERDNS6";
/// The versions before: their k-mers are dealt out by the older rule, and the headers of the tables of the first do not say how many places a bucket has,
/// which are four.
pub(crate) const OLDER: [&[u8; 8]; 2] = [b"KMERDNS4", b"KMERDNS5"];
/// With other rules than these no older file can be read.
const _: () = assert!(RULE == b'5' && OLDER_RULE == b'4');
pub(crate) const HEAD: usize = 32;
pub(crate) const FOOT: usize = 32;
pub(crate) const ENTRY: usize = 24;
