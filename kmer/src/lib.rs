//! DNA in bits, its k-mers, and the super-k-mers in which they travel.
//!
//! * [`params`]: k, occur_bitlen, and what they allow.
//! * [`codec`]: bases as 2-bit codes and as 4-bit sets, and as letters.
//! * [`bases`]: takes rows of `dna2` or `dna4` and leaves runs of plain bases, degenerate ones expanded.
//! * [`minimizer`]: which stripe a k-mer belongs to, for many k-mers at once.
//! * [`superkmer`]: cuts runs into super-k-mers and writes and reads their records.
//! * [`direct`]: counts small k-mers where they are met, without super-k-mers.
//!
//! Meaning of it all: the row counts of the pg_kmersearch extension. A = 0, C = 1, G = 2, T = 3; the first base is the most significant; no
//! reverse complement. Nothing here knows files, pages or shared memory.

#![deny(unsafe_code)]

pub mod bases;
pub mod codec;
pub mod direct;
pub mod minimizer;
pub mod params;
mod simd;
pub mod superkmer;
