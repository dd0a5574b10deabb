//! The atomics that the protocol runs on: `std`'s, or loom's when the crate is built with `--cfg loom`.
//!
//! Only [`crate::words`] is meant to be checked by loom; everything that lays words over mapped memory is left out of such a
//! build, since loom's atomics own their storage.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
