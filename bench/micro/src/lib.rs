//! Nothing by itself: see `benches/steps.rs`, run by `cargo bench -p kmer-micro`.
#![forbid(unsafe_code)]
