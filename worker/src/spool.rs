//! How a unit's result is laid out: batches of sections, and a summary at the end of the chain.
//!
//! ```text
//! chain := batch* tail
//! batch := index sections          index: for each stripe offset u32, bytes u32, k-mers u32, rows u32, digest u64; then the sections
//! tail  := messages batches summary seal
//!   messages  what was skipped, as text, one a line
//!   batches   where each batch begins in the chain, and the long row it is from, or 0: u64 both
//!   summary   [`UNIT_FIELDS`] numbers, u64 each
//!   seal      digest of the tail before it and of all indexes, u64, the last bytes of the chain
//! ```
//!
//! The summary is at the end, since a unit's batches are stored while it is still being scanned. `delivered` counts the k-mers in sections and
//! `digest` adds up the digests of the sections, each salted with its unit, stripe and long row; a drain that reads every section of its stripes
//! exactly once comes to the sums that the indexes have for these stripes. The seal is over what the leader decides by: numbers of rows, most
//! of all, which tell whether a stripe can be left out.

pub use crate::digest::digest;

use crate::error::WorkError;
use kmer::superkmer::Section;
use shm_layout::arena::{Arena, Chain, NOTHING};

/// Numbers of a summary.
pub const UNIT_FIELDS: usize = 24;
/// Bytes of the summary and the seal behind it.
const END: u64 = 8 * UNIT_FIELDS as u64 + 8;
/// Bytes of what the tail says of a batch.
const BATCH: usize = 16;
/// Rows are numbered from 1 on in their block: what a batch has that is of no long row, but of one or many that are in one unit.
pub const NO_ROW: u64 = 0;

/// What a tail says of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where in the chain it begins.
    pub begin: u64,
    /// The row that was dealt out to the units of its block and that all its records are from, or [`NO_ROW`].
    pub long_row: u64,
}

/// Bytes of an index entry.
const ENTRY: usize = 24;

macro_rules! summary {
    ($($(#[$doc:meta])* $field:ident = $at:literal,)*) => {
        /// What a unit's scan came to.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct UnitSummary { $($(#[$doc])* pub $field: u64,)* }

        impl UnitSummary {
            /// The numbers, in their order.
            pub fn fields(&self) -> [u64; UNIT_FIELDS] {
                let mut fields = [0; UNIT_FIELDS];
                $(fields[$at] = self.$field;)*
                fields
            }

            /// From the numbers in their order.
            pub fn from_fields(fields: &[u64; UNIT_FIELDS]) -> Self {
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
    /// Bytes of text that belong to records of sequence files.
    text = 19,
}

/// What the index says of a stripe's section in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indexed {
    /// Where it is and what is in it.
    pub section: Section,
    /// Its digest.
    pub digest: u64,
}

impl Indexed {
    fn to_bytes(self) -> [u8; ENTRY] {
        let Section { offset, bytes, kmers, rows } = self.section;
        let mut entry = [0; ENTRY];
        for (place, number) in entry.chunks_exact_mut(4).zip([offset, bytes, kmers, rows]) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        entry[16..].copy_from_slice(&self.digest.to_le_bytes());
        entry
    }

    fn from_bytes(entry: &[u8; ENTRY]) -> Self {
        let number = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("4 bytes"));
        let section = Section { offset: number(0), bytes: number(4), kmers: number(8), rows: number(12) };
        Self { section, digest: u64::from_le_bytes(entry[16..].try_into().expect("8 bytes")) }
    }
}

/// The digest of `records`, a section of a batch of `unit` that has only those of `long_row`: a result in which another row is named has another one.
pub fn section_digest(unit: usize, long_row: u64, stripe: usize, records: &[u8]) -> u64 {
    digest(unit ^ (long_row as usize).rotate_left(usize::BITS / 2), stripe, records)
}

/// Writes the index of a batch into the room that was left for it.
pub fn write_index(indexed: impl Iterator<Item = Indexed>, index: &mut [u8]) {
    for (indexed, entry) in indexed.zip(index.chunks_exact_mut(ENTRY)) {
        entry.copy_from_slice(&indexed.to_bytes());
    }
}

/// Bytes of a batch's index.
pub const fn index_bytes(stripes: usize) -> usize {
    stripes * ENTRY
}

/// The digest over the indexes up to `batch`, whose bytes are `index`, from that over the ones before.
pub fn add_index(before: u64, batch: usize, index: &[u8]) -> u64 {
    digest(before as usize, batch, index)
}

/// The tail of the chain of unit `unit`; `indexes` is the digest of all indexes, see [`add_index`].
pub fn tail(unit: usize, messages: &str, batches: &[Batch], summary: &UnitSummary, indexes: u64) -> Vec<u8> {
    let mut bytes = messages.as_bytes().to_vec();
    for Batch { begin, long_row } in batches {
        bytes.extend(begin.to_le_bytes());
        bytes.extend(long_row.to_le_bytes());
    }
    summary.fields().iter().for_each(|field| bytes.extend(field.to_le_bytes()));
    bytes.extend(digest(unit, indexes as usize, &bytes).to_le_bytes());
    bytes
}

/// A unit's result, opened for reading.
pub struct UnitResult {
    chain: Chain,
    batches: Vec<Batch>,
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
        if head == NOTHING {
            // A unit behind the end of a stream; whether there is one is for who adds up to say.
            return Ok(Self { chain, batches: Vec::new(), tail: 0, summary: UnitSummary::default() });
        }
        let mut bytes = Vec::new();
        let fields_at = chain.len().checked_sub(END).ok_or_else(|| damaged("no summary"))?;
        arena.read(&chain, fields_at, 8 * UNIT_FIELDS, &mut bytes)?;
        let mut fields = [0; UNIT_FIELDS];
        for (field, word) in fields.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *field = u64::from_le_bytes(*word);
        }
        let summary = UnitSummary::from_fields(&fields);
        let batches_at = summary.batches.checked_mul(BATCH as u64).and_then(|b| fields_at.checked_sub(b));
        let tail = batches_at.and_then(|at| at.checked_sub(summary.messages));
        let (Some(batches_at), Some(tail)) = (batches_at, tail) else {
            return Err(damaged("a tail that is too long"));
        };
        bytes.clear();
        arena.read(&chain, batches_at, (fields_at - batches_at) as usize, &mut bytes)?;
        let (words, _) = bytes.as_chunks::<8>();
        let (pairs, _) = words.as_chunks::<2>();
        let batches: Vec<Batch> = pairs
            .iter()
            .map(|pair| pair.map(u64::from_le_bytes))
            .map(|[begin, long_row]| Batch { begin, long_row })
            .collect();
        let index = index_bytes(stripes) as u64;
        if batches.iter().any(|batch| batch.begin.checked_add(index).is_none_or(|end| end > tail)) {
            return Err(damaged("a batch outside of the chain"));
        }
        Ok(Self { chain, batches, tail, summary })
    }

    /// Batches of the unit.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The row that a batch's records are all from and that was dealt out to the units of its block, or [`NO_ROW`].
    pub fn long_row(&self, batch: usize) -> u64 {
        self.batches[batch].long_row
    }

    /// The chain, for the sweep.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Compares the seal with the tail and with the digest of the indexes as they were read, see [`add_index`].
    ///
    /// # Errors
    /// When they are not what was stored for unit `unit`.
    pub fn check_seal(&self, arena: &Arena, unit: usize, indexes: u64) -> Result<(), WorkError> {
        if self.chain.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        arena.read(&self.chain, self.tail, (self.chain.len() - self.tail) as usize, &mut bytes)?;
        let (tail, seal) = bytes.split_last_chunk().ok_or_else(|| damaged("no seal"))?;
        let (expected, found) = (u64::from_le_bytes(*seal), digest(unit, indexes as usize, tail));
        if expected == found {
            return Ok(());
        }
        let what = format!("digest of the numbers of unit {unit}");
        Err(WorkError::Conservation { what, expected, found })
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

    /// The index of a batch: an entry a stripe, in their order.
    ///
    /// # Errors
    /// When the chain is damaged.
    pub fn index(
        &self,
        arena: &Arena,
        batch: usize,
        stripes: usize,
        scratch: &mut Vec<u8>,
        mut each: impl FnMut(usize, Indexed),
    ) -> Result<(), WorkError> {
        scratch.clear();
        arena.read(&self.chain, self.batches[batch].begin, index_bytes(stripes), scratch)?;
        let (entries, _) = scratch.as_chunks::<ENTRY>();
        entries.iter().enumerate().for_each(|(stripe, entry)| each(stripe, Indexed::from_bytes(entry)));
        Ok(())
    }

    /// What the index of a batch says of one stripe.
    ///
    /// # Errors
    /// When the chain is damaged.
    pub fn index_of(
        &self,
        arena: &Arena,
        batch: usize,
        stripe: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<Indexed, WorkError> {
        scratch.clear();
        arena.read(&self.chain, self.batches[batch].begin + index_bytes(stripe) as u64, ENTRY, scratch)?;
        let entry = scratch.first_chunk().ok_or_else(|| damaged("half an index"))?;
        Ok(Indexed::from_bytes(entry))
    }

    /// Asks for that entry, which is to be read soon.
    pub fn expect_index(&self, arena: &Arena, batch: usize, stripe: usize) {
        arena.prefetch(&self.chain, self.batches[batch].begin + index_bytes(stripe) as u64, ENTRY);
    }

    /// Where a section's bytes begin in the chain.
    pub fn begin_of(&self, batch: usize, stripes: usize, section: &Section) -> u64 {
        self.batches[batch].begin + index_bytes(stripes) as u64 + u64::from(section.offset)
    }

    /// Asks for the records of a section that is to be read soon.
    pub fn prefetch(&self, arena: &Arena, batch: usize, stripes: usize, section: &Section) {
        let from = self.begin_of(batch, stripes, section);
        arena.prefetch(&self.chain, from, section.bytes as usize);
    }

    /// Appends a section to `into`.
    ///
    /// # Errors
    /// When the section does not lie in the chain.
    pub fn read(
        &self,
        arena: &Arena,
        batch: usize,
        stripes: usize,
        section: &Section,
        into: &mut Vec<u8>,
    ) -> Result<(), WorkError> {
        let from = self.begin_of(batch, stripes, section);
        if from + u64::from(section.bytes) > self.tail {
            return Err(damaged("a section outside of its batch"));
        }
        Ok(arena.read(&self.chain, from, section.bytes as usize, into)?)
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
    fn a_section_of_another_row_has_another_digest() {
        let rows = [NO_ROW, 1, 2, 1 << 31, 1 << 32, u64::MAX];
        let mut digests: Vec<u64> = rows.iter().map(|row| section_digest(5, *row, 3, b"records")).collect();
        assert_eq!(digests[0], digest(5, 3, b"records"));
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), rows.len());
    }

    #[test]
    fn summaries_add_up_field_by_field() {
        let mut sum = UnitSummary { rows: 1, digest: u64::MAX, ..Default::default() };
        sum.add(&UnitSummary { rows: 2, digest: 3, blocks: 9, ..Default::default() });
        assert_eq!(sum, UnitSummary { rows: 3, digest: 2, blocks: 9, ..Default::default() });
        assert_eq!(UnitSummary::from_fields(&sum.fields()), sum);
    }
}
