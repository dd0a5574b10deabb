//! What the `kmer-leader` binary does, as a library.
//!
//! * [`batch`]: rows of a batch as blocks of a unit.
//! * [`about`]: version, completions, manual pages.
//! * [`colour`]: whether messages are coloured.
//! * [`cli`]: what can be typed; [`combinations`]: what of it goes together.
//! * [`source`]: the relations that are read: files, columns, TOAST, who knows transactions.
//! * [`pgdata`]: tables of a data directory without its server.
//! * [`plan`]: what all that means for a run: the job, the sizes of the segment.
//! * [`lead`]: creates the segment, starts workers, watches them, recovers, moves from phase to phase.
//! * [`alone`]: the leader at a worker's work; [`signals`]: what users end a run by.
//! * [`verdict`]: what ends a run between its phases.
//! * [`watch`]: sees that workers die, stop or hang, and replaces them.
//! * [`recover`]: takes back what the dead had.
//! * [`resume`]: goes on with a run whose leader died.
//! * [`inspect`]: draws the map of a segment.
//! * [`segments`]: lists segments and removes what nobody owns.
//! * [`progress`]: how far a run is, read out of its segment; [`status`] shows it to others, [`console`] to who started it.
//! * [`torture`]: kills, stops and starves runs, and compares their bytes.
//! * [`debug`]: options for tests: injected faults, small capacities.
//! * [`launch`]: one worker process: start, watch, reap; [`birth`]: between fork and exec.
//! * [`totals`]: sums over units and stripes, and that they agree.
//! * [`threshold`], [`select`]: which k-mers are reported, in which order.
//! * [`report`]: reads the published stripes, sorts, hands the k-mers out as text.
//! * [`mod@format`]: the forms of a result, and the summary as JSON.
//! * [`output`]: files that exist whole or not at all, and standard output.
//! * [`summary`]: what is said on standard error at the end.
//! * [`failure`]: every way to end, and its exit code.
//! * [`partial`]: counts of a part, and `kmer-leader merge`.
//! * [`pin`]: keeps a result in shared memory.
//! * [`book`], [`lookup`]: results that were kept, printed or asked.
//! * [`live`]: a table of a running server, and results back into it; `kmer-leader undo`.
//! * [`import`]: `kmer-leader import`.
#![forbid(unsafe_code)]

pub mod about;
pub mod alone;
pub mod batch;
pub mod birth;
pub mod book;
pub mod carried;
pub mod cli;
pub mod colour;
pub mod combinations;
pub mod console;
pub mod debug;
pub mod dense;
pub mod dry_run;
pub mod failure;
pub mod feed;
pub mod first_look;
pub mod format;
pub mod import;
pub mod inspect;
pub mod launch;
pub mod lead;
pub mod limits;
pub mod live;
pub mod lookup;
pub mod memory;
pub mod output;
mod packed;
pub mod page;
pub mod partial;
pub mod passes;
pub mod pgdata;
pub mod pin;
pub mod plan;
pub mod progress;
pub mod recover;
pub mod report;
pub mod resume;
pub mod room;
pub mod segments;
pub mod select;
pub mod sequences;
pub mod signals;
mod sizes;
pub mod source;
pub mod standard;
pub mod status;
pub mod summary;
pub mod threshold;
pub mod torture;
pub mod totals;
pub mod units;
pub mod verdict;
pub mod watch;
