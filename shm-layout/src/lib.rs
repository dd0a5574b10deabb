//! Dynamic shared memory for a leader and its workers, after PostgreSQL's design, for processes that may die at any instruction.
//!
//! | Postgres | here | job |
//! |---|---|---|
//! | `dsm_segment` | [`segment`] | create, attach to, destroy a named segment |
//! | `dsm_pin_segment`, `dsm_registry` | [`pin`] | keep a segment under a name that a user chose |
//! | `dsm_impl_op`, `dynamic_shared_memory_type` | [`place`] | where segments lie, how they are opened |
//! | `dsm_cleanup_using_control_segment` | [`takeover`] | who uses a segment; sweep what nobody owns; take over after a death |
//! | `shm_toc`, `shm_toc_estimator` | [`toc`] | find structures by key; add up what they need |
//! | `LWLock` | [`lock`] | a robust mutex whose owner's death is a value |
//! | `ParallelBlockTableScanDesc`, error propagation | [`state`] | next_block, phase, first error |
//! | `ParallelWorkerInfo` | [`slots`] | who is at work, its progress, its last words |
//! | (none: there a crash restarts the server) | [`words`], [`tasks`] | facts as single words, and their compare-and-swaps |
//! | `dsa_area` | [`arena`] | chunks with owners, chains of bytes |
//! | `dshash_table` | [`hash`] | open-addressed stripes, built aside and published whole |
//! | injection points (`INJECTION_POINT`) | [`inject`] | named points at which a process dies, stops, fails or waits |
//!
//! The crate knows nothing of DNA or of heap pages. Life cycle of every structure: `estimate` its bytes, `create_in` an area,
//! `attach` in another process, and let go; the segment is created and destroyed by the leader alone.
//!
//! # Invariants
//!
//! * I1 Workers attach; only the leader creates, opens phases, recovers and destroys.
//! * I2 A unit or stripe belongs to at most one (slot, generation); its word says which; the word changes only by CAS.
//! * I3 Bytes that no DONE word reaches do not exist for anybody but the owner of their chunk.
//! * I4 What a DONE word reaches is immutable until the run ends, but for records whose stripes are DONE: tables are written over them.
//! * I5 Recovery is idempotent and frees memory only of the confirmed dead.
//! * I6 Every offset and length read from the segment is copied once, checked, then used; no raw pointer and no Rust reference
//!   crosses processes.
//! * I7 The first error wins, and its text is in the worker's slot before it is anywhere else.
//! * I8 Mapped memory that is written through the mapping was reserved before; the arena is written with `pwrite`, or after the kernel was asked for its pages.
//! * I9 Nothing outlives a run unless it was asked to; what an unclean end left is removed by the next start after proof of death.
//! * I10 No condition variable, rwlock, barrier or semaphore in the segment; robust mutexes in a fixed place; every wait has an end.
//! * I11 Workers are single-threaded and abort on panic.

pub mod sync;
pub mod words;

#[cfg(not(loom))]
pub mod arena;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
pub mod hash;
#[cfg(not(loom))]
pub mod inject;
#[cfg(not(loom))]
pub mod lock;
#[cfg(not(loom))]
pub mod pin;
#[cfg(not(loom))]
pub mod place;
pub mod planted;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
pub mod raw;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod slots;
#[cfg(not(loom))]
pub mod state;
#[cfg(not(loom))]
pub mod takeover;
#[cfg(not(loom))]
pub mod tasks;
#[cfg(not(loom))]
pub mod toc;

#[cfg(not(loom))]
pub use error::{Error, Result};
