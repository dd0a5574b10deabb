//! What can go wrong with a segment, each with the object, what was expected and what was found.

use crate::words::BadWord;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("could not {action} shared-memory segment \"{name}\": {source}")]
    Os {
        /// A verb: "create", "attach to", "reserve", ...
        action: &'static str,
        /// Name of the segment.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no room where the segment lives.
    #[error(
        "no room in shared memory for segment \"{name}\": expected {wanted} bytes, found {free} free of {total}"
    )]
    NoRoom {
        /// Name of the segment.
        name: String,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes free in the file system of the segment.
        free: u64,
        /// Size of that file system in bytes.
        total: u64,
    },
    /// The arena has no free chunk left.
    #[error(
        "arena of segment \"{name}\" is full: expected {wanted} free chunks, found {found} of {chunks} of {chunk_bytes} bytes each"
    )]
    ArenaFull {
        /// Name of the segment.
        name: String,
        /// Chunks asked for.
        wanted: usize,
        /// Chunks that could be had.
        found: usize,
        /// Chunks of the arena.
        chunks: usize,
        /// Bytes of a chunk.
        chunk_bytes: usize,
    },
    /// The object is no segment of ours, or a damaged one.
    #[error("segment \"{name}\": {what}: expected {expected}, found {found}")]
    Damaged {
        /// Name of the segment.
        name: String,
        /// Which field.
        what: &'static str,
        /// What would have been right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A word of the protocol does not decode.
    #[error("segment \"{name}\": {source}")]
    Word {
        /// Name of the segment.
        name: String,
        /// The word.
        source: BadWord,
    },
    /// An offset or length read from the segment points outside of it.
    #[error("segment \"{name}\": expected {len} bytes at offset {offset} to lie below {limit}")]
    OutOfBounds {
        /// Name of the segment.
        name: String,
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// End of what may be read.
        limit: u64,
    },
    /// The table of contents has no space for a chunk.
    #[error("table of contents: key {key:#x}: expected room for {wanted} bytes, found {left}")]
    TocFull {
        /// The key that was to be inserted.
        key: u64,
        /// Bytes wanted, entry included.
        wanted: usize,
        /// Bytes left.
        left: usize,
    },
    /// A key is not in the table of contents.
    #[error("table of contents: expected key {key:#x}, found none")]
    TocMissing {
        /// The key.
        key: u64,
    },
    /// A mutex cannot be used any more.
    #[error("shared mutex: {action}: {source}")]
    Lock {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A name that a user chose for a pinned segment cannot be one.
    #[error(
        "pinned segment {name:?}: expected a name of 1 to 200 letters, digits, '.', '_' and '-', found another"
    )]
    PinName {
        /// What was chosen.
        name: String,
    },
    /// There is a pinned segment of that name.
    #[error("pinned segment \"{name}\": expected none of that name yet, found one")]
    PinExists {
        /// Its name below /dev/shm.
        name: String,
    },
    /// Somebody removed the segment before it could be taken over.
    #[error("segment \"{name}\": expected it to have its name, found that it was removed")]
    Removed {
        /// The name that it had.
        name: String,
    },
    /// A rule of `--inject` made a step fail.
    #[error("injected error at {point}")]
    Injected {
        /// Name of the point.
        point: &'static str,
    },
    /// The worker was fenced: its result does not count.
    #[error("worker {slot} (generation {generation}) was fenced")]
    Fenced {
        /// Slot of the worker.
        slot: u16,
        /// Its generation.
        generation: u32,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
