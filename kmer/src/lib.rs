//! DNA in bits, its k-mers, and the super-k-mers in which they travel.
//!
//! * [`params`]: k, occur_bitlen, and what they allow.
//! * [`codec`]: bases as 2-bit codes and as 4-bit sets, and as letters.
//! * [`bases`]: takes rows of `dna2` or `dna4` and leaves runs of plain bases, degenerate ones expanded.
//! * [`minimizer`]: which stripe a k-mer belongs to, for many k-mers at once.
//! * [`record`]: a super-k-mer as one number, written around its minimizer.
//! * [`spelled`]: records spelled out again, and their k-mers.
//! * [`superkmer`]: cuts runs into super-k-mers and sorts their records by stripe.
//! * [`tally`]: finds equal super-k-mers, so that their k-mers are counted once for all.
//! * [`direct`]: counts k-mers of up to 20 bits where they are met, without super-k-mers.
//! * [`keys`]: sorts k-mers of a few bits more by stripe, two bytes each.
//!
//! Meaning of it all: the row counts of the pg_kmersearch extension. A = 0, C = 1, G = 2, T = 3; the first base is the most significant; no
//! reverse complement. Nothing here knows files, pages or shared memory.

#![deny(unsafe_code)]

pub mod bases;
pub mod codec;
pub mod direct;
pub mod keys;
pub mod line;
pub mod minimizer;
mod pages;
pub mod params;
pub mod record;
mod simd;
pub mod spelled;
mod stretches;
pub mod superkmer;
pub mod tally;

pub use simd::totals;

/// Which copy of the vector loops runs on this processor, for people.
pub fn vector_level() -> &'static str {
    simd::name()
}
