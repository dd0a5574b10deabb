//! What the `kmer-leader` binary does, as a library.
#![forbid(unsafe_code)]

pub mod import;
