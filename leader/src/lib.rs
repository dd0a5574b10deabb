//! What the `kmer-leader` binary does, as a library.
//!
//! * [`cli`]: what can be typed.
//! * [`plan`]: what that means for this relation: the job, the sizes of the segment.
//! * [`lead`]: creates the segment, starts workers, watches them, recovers, moves from phase to phase.
//! * [`launch`]: one worker process: start, watch, reap.
//! * [`totals`]: sums over units and stripes, and that they agree.
//! * [`report`]: reads the published stripes, sorts, writes the result.
//! * [`output`]: files that exist whole or not at all, and standard output.
//! * [`summary`]: what is said on standard error at the end.
//! * [`failure`]: every way to end, and its exit code.
//! * [`import`]: `kmer-leader import`.
#![forbid(unsafe_code)]

pub mod cli;
pub mod failure;
pub mod import;
pub mod launch;
pub mod lead;
pub mod limits;
pub mod output;
pub mod plan;
pub mod report;
pub mod summary;
pub mod totals;
