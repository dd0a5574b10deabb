//! What a worker does, as a library: the worker binary runs it in a process of its own, the leader runs it when it works alone.
//!
//! * [`job`]: the description that the leader puts into the segment, and how it is encoded.
//! * [`shared`]: all structures of a run's segment, created or attached together.
//! * [`seal`]: the digest over what is asked for.
//! * [`source`]: the blocks of all leaves of a job, numbered through.
//! * [`spool`]: how a unit's result is laid out in the arena.
//! * [`scan`]: a unit of blocks becomes sections of super-k-mers, one a stripe.
//! * [`drain`]: a stripe's sections become its published table; `sections` finds them, `spent` finds memory for the table.
//! * [`engine`]: claims, commits, waits, leaves.
//!
//! A worker attaches and never creates (I1); it holds no lock while it works; whatever it has not committed is lost with it, and
//! nothing that it has committed is (I3, I4).

#![forbid(unsafe_code)]

mod counting;
pub mod digest;
pub mod drain;
pub mod engine;
mod error;
pub mod feed;
pub mod job;
mod letters;
mod method;
mod portion;
pub mod scan;
pub mod seal;
mod sections;
pub mod shared;
pub mod source;
mod spent;
pub mod spool;
pub mod stdin;
pub mod steady;
mod stripe;
pub mod trace;

pub use error::{EXIT_FENCED, EXIT_NO_ATTACH, EXIT_REPORTED, WorkError};
