//! Why a worker stops, and with which exit code the leader is told.

use std::path::PathBuf;

/// Exit code after an error that was reported through the segment.
pub const EXIT_REPORTED: i32 = 1;
/// Exit code of a worker that could not attach.
pub const EXIT_NO_ATTACH: i32 = 7;
/// Exit code of a worker that was fenced.
pub const EXIT_FENCED: i32 = 8;

/// Errors of a worker at work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// The relation, or its TOAST relation, cannot be read.
    #[error("{0}")]
    Relation(#[from] relation::Error),
    /// A sequence file cannot be read, or a record of it.
    #[error("{0}")]
    Sequence(#[from] sequence::Error),
    /// A letter that is no nucleotide code.
    #[error(
        "file {path:?}: record {name:?}: expected an IUPAC nucleotide code, found {found:?} (byte {offset})"
    )]
    Letter {
        /// The file.
        path: PathBuf,
        /// Name of the record.
        name: String,
        /// Where in the file's text, from 0.
        offset: u64,
        /// The letter.
        found: char,
    },
    /// The segment cannot be used, or the worker was fenced.
    #[error("{0}")]
    Segment(#[from] shm_layout::Error),
    /// A section in the arena is damaged.
    #[error("unit {unit}, stripe {stripe}: {what}")]
    Section {
        /// Unit of blocks.
        unit: usize,
        /// Stripe.
        stripe: usize,
        /// What is wrong.
        what: String,
    },
    /// Sums that must be equal are not.
    #[error("conservation: {what}: expected {expected}, found {found}")]
    Conservation {
        /// Which sums.
        what: String,
        /// The sum of what went in.
        expected: u64,
        /// The sum of what came out.
        found: u64,
    },
    /// A k-mer is there more often than a count can say.
    #[error("counts: expected at most {} occurrences of a k-mer, found more", u32::MAX)]
    TooMany,
    /// The job description cannot be understood.
    #[error("job description: {0}")]
    Job(String),
}

impl WorkError {
    /// True when the worker was told that it is believed dead: no error of the run.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Segment(shm_layout::Error::Fenced { .. }))
    }

    /// True when there was no room for a result: a recovery from somebody's death may make some.
    pub fn is_no_room(&self) -> bool {
        use shm_layout::Error::{ArenaFull, NoRoom};
        matches!(self, Self::Segment(ArenaFull { .. } | NoRoom { .. }))
    }

    /// The text for the user: the error, and on a second line the hint if there is one.
    pub fn report(&self) -> String {
        let hint = match self {
            Self::Relation(e) => e.hint().map(str::to_owned),
            Self::Sequence(e) => e.hint(),
            Self::TooMany => Some("count in how many rows it is (without --count occurrences), or fewer files at a time".into()),
            Self::Letter { .. } => Some("--on-error skip takes such letters for N, counts and reports the records".into()),
            Self::Segment(shm_layout::Error::NoRoom { name, .. }) if name.contains('/') => {
                Some("make room in the directory of the segment, or name another with --segment-dir".into())
            }
            Self::Segment(shm_layout::Error::NoRoom { .. }) => Some(
                "make the shared-memory file system larger (mount -o remount,size=... /dev/shm, docker run --shm-size=...), or lay the segment in a directory on a disk: --segment-dir DIR".into(),
            ),
            Self::Segment(shm_layout::Error::Removed { .. }) => Some("begin the run anew".into()),
            Self::Segment(shm_layout::Error::ArenaFull { .. }) => Some("allow more memory with --memory".into()),
            _ => None,
        };
        hint.map_or_else(|| self.to_string(), |hint| format!("{self}\nhint: {hint}"))
    }
}
