//! How a unit's result is laid out: batches of sections, and a summary at the end of the chain.
//!
//! ```text
//! chain := batch* tail
//! batch := index sections          index: for each stripe offset u32, bytes u32, k-mers u32; then the sections
//! tail  := messages batches summary
//!   messages  what was skipped, as text, one a line
//!   batches   where each batch begins in the chain, u64 each
//!   summary   [`UNIT_FIELDS`] numbers, u64 each, the last bytes of the chain
//! ```
//!
//! The summary is at the end, since a unit's batches are stored while it is still being scanned. Sums over units: `delivered` counts the k-mers
//! in sections and `digest` adds up the digests of the sections, each salted with its unit and stripe; a drain that reads every section
//! exactly once comes to the same two sums.

use crate::error::WorkError;
use kmer::superkmer::Section;
use shm_layout::arena::{Arena, Chain};

/// Numbers of a summary.
pub const UNIT_FIELDS: usize = 24;
/// Bytes of an index entry.
const ENTRY: usize = 12;

macro_rules! summary {
    ($($(#[$doc:meta])* $field:ident = $at:literal,)*) => {
        /// What a unit's scan came to.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct UnitSummary { $($(#[$doc])* pub $field: u64,)* }

        impl UnitSummary {
            fn fields(&self) -> [u64; UNIT_FIELDS] {
                let mut fields = [0; UNIT_FIELDS];
                $(fields[$at] = self.$field;)*
                fields
            }

            fn from_fields(fields: &[u64; UNIT_FIELDS]) -> Self {
                Self { $($field: fields[$at],)* }
            }

            /// Adds another unit's numbers.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
            }
        }
    };
}

summary! {
    /// Visible rows.
    rows = 0,
    /// Of these, with a NULL in the column.
    nulls = 1,
    /// Of these, shorter than k.
    short = 2,
    /// Of these, whose value is older than the column.
    missing = 3,
    /// Of these, whose value was compressed.
    compressed = 4,
    /// Of these, whose value lay in the TOAST relation.
    external = 5,
    /// Tuples that do not count: deleted, aborted.
    dead = 6,
    /// Tuples whose hint bits leave their state open.
    undecided = 7,
    /// Pages of zeros.
    zero_pages = 8,
    /// Damaged pages that were skipped.
    damaged_pages = 9,
    /// Damaged tuples that were skipped.
    damaged_tuples = 10,
    /// k-mers of the rows, repeats in a row included.
    kmers = 11,
    /// Windows that were expanded.
    expanded = 12,
    /// Windows that were skipped.
    skipped = 13,
    /// k-mers (or row counts, when counted directly) in the sections.
    delivered = 14,
    /// Sum of the sections' digests.
    digest = 15,
    /// Bytes of messages in the tail.
    messages = 16,
    /// Batches.
    batches = 17,
    /// Blocks read.
    blocks = 18,
}

/// The digest of a section, salted with where it belongs.
pub fn digest(unit: usize, stripe: usize, section: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |state: u64, word: u64| (state ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let mut state = step(step(0x51ed_270b, unit as u64), stripe as u64);
    let (words, rest) = section.as_chunks::<8>();
    for word in words {
        state = step(state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    step(step(state, u64::from_le_bytes(last)), section.len() as u64)
}

/// Writes the index of a batch into the room that was left for it.
pub fn write_index(sections: &[Section], index: &mut [u8]) {
    for (section, entry) in sections.iter().zip(index.chunks_exact_mut(ENTRY)) {
        entry[..4].copy_from_slice(&section.offset.to_le_bytes());
        entry[4..8].copy_from_slice(&section.bytes.to_le_bytes());
        entry[8..].copy_from_slice(&section.kmers.to_le_bytes());
    }
}

/// Bytes of a batch's index.
pub const fn index_bytes(stripes: usize) -> usize {
    stripes * ENTRY
}

/// The tail of a chain.
pub fn tail(messages: &str, batches: &[u64], summary: &UnitSummary) -> Vec<u8> {
    let mut bytes = messages.as_bytes().to_vec();
    batches.iter().for_each(|batch| bytes.extend(batch.to_le_bytes()));
    summary.fields().iter().for_each(|field| bytes.extend(field.to_le_bytes()));
    bytes
}

/// A unit's result, opened for reading.
pub struct UnitResult {
    chain: Chain,
    batches: Vec<u64>,
    tail: u64,
    /// Its numbers.
    pub summary: UnitSummary,
}

impl UnitResult {
    /// Opens the result whose chain begins at `head`. Checks every number that is used as a place (I6).
    ///
    /// # Errors
    /// When the chain or its tail is damaged.
    pub fn open(arena: &Arena, head: u32, stripes: usize) -> Result<Self, WorkError> {
        let chain = arena.open(head)?;
        let mut bytes = Vec::new();
        let fields_at =
            chain.len().checked_sub(8 * UNIT_FIELDS as u64).ok_or_else(|| damaged("no summary"))?;
        arena.read(&chain, fields_at, 8 * UNIT_FIELDS, &mut bytes)?;
        let mut fields = [0; UNIT_FIELDS];
        for (field, word) in fields.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *field = u64::from_le_bytes(*word);
        }
        let summary = UnitSummary::from_fields(&fields);
        let batches_at = summary.batches.checked_mul(8).and_then(|b| fields_at.checked_sub(b));
        let tail = batches_at.and_then(|at| at.checked_sub(summary.messages));
        let (Some(batches_at), Some(tail)) = (batches_at, tail) else {
            return Err(damaged("a tail that is too long"));
        };
        bytes.clear();
        arena.read(&chain, batches_at, (fields_at - batches_at) as usize, &mut bytes)?;
        let batches: Vec<u64> =
            bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let index = index_bytes(stripes) as u64;
        if batches.iter().any(|at| at.checked_add(index).is_none_or(|end| end > tail)) {
            return Err(damaged("a batch outside of the chain"));
        }
        Ok(Self { chain, batches, tail, summary })
    }

    /// Batches of the unit.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The chain, for the sweep.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// What was skipped, one a line.
    ///
    /// # Errors
    /// When the chain is damaged.
    pub fn messages(&self, arena: &Arena) -> Result<String, WorkError> {
        let mut bytes = Vec::new();
        arena.read(&self.chain, self.tail, self.summary.messages as usize, &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The index entry of a stripe in a batch.
    ///
    /// # Errors
    /// When the chain is damaged.
    pub fn section(
        &self,
        arena: &Arena,
        batch: usize,
        stripe: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<Section, WorkError> {
        scratch.clear();
        arena.read(&self.chain, self.batches[batch] + (stripe * ENTRY) as u64, ENTRY, scratch)?;
        let number = |at: usize| u32::from_le_bytes(scratch[at..at + 4].try_into().expect("4 bytes"));
        Ok(Section { offset: number(0), bytes: number(4), kmers: number(8) })
    }

    /// k-mers of every stripe in a batch, added to `sums`.
    ///
    /// # Errors
    /// When the chain is damaged.
    pub fn add_kmers(
        &self,
        arena: &Arena,
        batch: usize,
        scratch: &mut Vec<u8>,
        sums: &mut [u64],
    ) -> Result<(), WorkError> {
        scratch.clear();
        arena.read(&self.chain, self.batches[batch], index_bytes(sums.len()), scratch)?;
        for (sum, entry) in sums.iter_mut().zip(scratch.chunks_exact(ENTRY)) {
            *sum += u64::from(u32::from_le_bytes(entry[8..].try_into().expect("4 bytes")));
        }
        Ok(())
    }

    /// Copies a section's records and `padding` bytes behind them into `into`, which is emptied before.
    ///
    /// # Errors
    /// When the section does not lie in the chain.
    pub fn read(
        &self,
        arena: &Arena,
        batch: usize,
        stripes: usize,
        section: &Section,
        padding: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), WorkError> {
        let from = self.batches[batch] + index_bytes(stripes) as u64 + u64::from(section.offset);
        if from + u64::from(section.bytes) > self.tail {
            return Err(damaged("a section outside of its batch"));
        }
        into.clear();
        arena.read(&self.chain, from, section.bytes as usize, into)?;
        into.resize(into.len() + padding, 0);
        Ok(())
    }
}

fn damaged(found: &str) -> WorkError {
    let (name, expected) = ("(arena)".into(), "a unit's result".into());
    shm_layout::Error::Damaged { name, what: "chain", expected, found: found.into() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_knows_bytes_order_place_and_length() {
        let base = digest(1, 2, b"abcdefghij");
        for other in [
            digest(2, 1, b"abcdefghij"),
            digest(1, 2, b"abcdefghji"),
            digest(1, 2, b"abcdefghij\0"),
            digest(1, 2, b""),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base, digest(1, 2, b"abcdefghij"));
    }

    #[test]
    fn summaries_add_up_field_by_field() {
        let mut sum = UnitSummary { rows: 1, digest: u64::MAX, ..Default::default() };
        sum.add(&UnitSummary { rows: 2, digest: 3, blocks: 9, ..Default::default() });
        assert_eq!(sum, UnitSummary { rows: 3, digest: 2, blocks: 9, ..Default::default() });
        assert_eq!(UnitSummary::from_fields(&sum.fields()), sum);
    }
}
