//! What can be wrong with a pinned segment or with a question.

use kmer::codec::why_no_kmer;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The segment as such: there is none, it is somebody else's, it is damaged.
    #[error(transparent)]
    Segment(#[from] shm_layout::Error),
    /// What is in the segment contradicts itself.
    #[error("pinned segment \"{name}\": {what}: expected {expected}, found {found}")]
    Damaged {
        /// Name of the segment.
        name: String,
        /// Which number.
        what: &'static str,
        /// What would have been right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A question that is none.
    #[error("k-mer {letters:?}: expected {k} letters of A, C, G, T, found {}", why_no_kmer(letters, *k as usize))]
    NotAKmer {
        /// What was asked for.
        letters: String,
        /// Letters that a k-mer has.
        k: u32,
    },
    /// k or `occur_bitlen` are out of range.
    #[error("{0}")]
    Params(String),
    /// More entries than were announced, a count of 0, or keys that collide beyond measure.
    #[error("pinned result: {what}: expected {expected}, found {found}")]
    Entries {
        /// Which number.
        what: &'static str,
        /// What would have been right.
        expected: String,
        /// What came.
        found: String,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
