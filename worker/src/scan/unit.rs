//! The result at hand, of a unit or of several: what is stored of it in the arena, and what is still to be told.

use crate::error::WorkError;
use crate::letters::Letters;
use crate::portion::Portion;
use crate::spool::{
    Batch, Indexed, NO_ROW, UnitSummary, add_index, index_bytes, section_digest, tail, write_index,
};
use kmer::bases::WindowCounts;
use kmer::superkmer::Section;
use relation::PageCounts;
use shm_layout::arena::{Arena, OwnedChain};
use shm_layout::slots::Slots;
use shm_layout::words::Owner;

/// What belongs to the result at hand: of a unit, or of several.
pub(super) struct Unit {
    pub(super) number: usize,
    pub(super) portion: Portion,
    pub(super) owner: Owner,
    arena: Option<Arena>,
    /// Where progress is counted.
    pub(super) slots: Option<Slots>,
    pub(super) chain: Option<OwnedChain>,
    chain_bytes: u64,
    batches: Vec<Batch>,
    /// The long row that what is not stored yet is from, or [`NO_ROW`].
    pub(super) long_row: u64,
    /// Digest of the batches' indexes.
    indexes: u64,
    pub(super) row: u32,
    pub(super) messages: String,
    /// Bytes of messages that it may have.
    pub(super) most_messages: usize,
    pub(super) counts: PageCounts,
    pub(super) summary: UnitSummary,
    pub(super) failure: Option<WorkError>,
}

impl Unit {
    /// None yet.
    pub(super) fn none() -> Self {
        Self {
            number: 0,
            portion: Portion::default(),
            owner: Owner { slot: 0, generation: 0 },
            arena: None,
            slots: None,
            chain: None,
            chain_bytes: 0,
            batches: Vec::new(),
            long_row: NO_ROW,
            indexes: 0,
            row: 0,
            messages: String::new(),
            most_messages: 0,
            counts: PageCounts::default(),
            summary: UnitSummary::default(),
            failure: None,
        }
    }

    /// Begins another, with the memory of this.
    pub(super) fn begin(&mut self, number: usize, owner: Owner, arena: &Arena, portion: Portion) {
        let (mut messages, mut batches) =
            (std::mem::take(&mut self.messages), std::mem::take(&mut self.batches));
        messages.clear();
        batches.clear();
        let (arena, chain) = (Some(arena.clone()), Some(arena.begin()));
        *self = Self { number, owner, arena, chain, portion, messages, batches, ..Self::none() };
    }

    /// Adds up what the result came to; of what all units see that share a block one tells. Returns its k-mers.
    pub(super) fn sum_up(&mut self, windows: WindowCounts, letters: &Letters) -> u64 {
        let summary = &mut self.summary;
        if self.portion.tells() {
            count_rows(summary, &self.counts);
            summary.rows += letters.rows;
            summary.short += letters.short;
            summary.damaged_tuples += letters.damaged;
        } else {
            self.messages.clear();
            (summary.short, summary.text, summary.blocks) = (0, 0, 0);
        }
        (summary.kmers, summary.expanded, summary.skipped) =
            (windows.kmers, windows.expanded, windows.skipped);
        (summary.messages, summary.batches) = (self.messages.len() as u64, self.batches.len() as u64);
        summary.kmers
    }

    /// Stores the tail, and gives the chain away.
    pub(super) fn end(&mut self) -> Result<(OwnedChain, UnitSummary), WorkError> {
        let tail = tail(self.number, &self.messages, &self.batches, &self.summary, self.indexes);
        self.append(&tail)?;
        let chain = self.chain.take().expect("begun with the unit");
        Ok((chain, self.summary))
    }

    /// Adds a message to those that are kept.
    pub(super) fn say(&mut self, message: &dyn std::fmt::Display) {
        if self.messages.len() < self.most_messages {
            self.messages.push_str(&message.to_string());
            self.messages.push('\n');
        }
    }

    /// Stores a batch: room for the index, then the sections that `sections` describes.
    pub(super) fn store(&mut self, batch: &mut [u8], sections: &[Section]) -> Result<(), WorkError> {
        let (index, records) = batch.split_at_mut(index_bytes(sections.len()));
        let (number, long_row, summary) = (self.number, self.long_row, &mut self.summary);
        let indexed = sections.iter().enumerate().map(|(stripe, section)| {
            if section.bytes == 0 {
                return Indexed { section: *section, digest: 0 };
            }
            let from = section.offset as usize;
            let records = &records[from..from + section.bytes as usize];
            let digest = section_digest(number, long_row, stripe, records);
            summary.digest = summary.digest.wrapping_add(digest);
            summary.delivered += u64::from(section.kmers);
            Indexed { section: *section, digest }
        });
        write_index(indexed, index);
        self.indexes = add_index(self.indexes, self.batches.len(), index);
        self.batches.push(Batch { begin: self.chain_bytes, long_row: self.long_row });
        self.append(batch)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), WorkError> {
        let (Some(arena), Some(chain)) = (&self.arena, &mut self.chain) else { return Ok(()) };
        arena.append(self.owner, chain, bytes)?;
        self.chain_bytes += bytes.len() as u64;
        Ok(())
    }
}

fn count_rows(summary: &mut UnitSummary, counts: &PageCounts) {
    (summary.rows, summary.nulls, summary.missing) = (counts.live, counts.nulls, counts.missing);
    (summary.compressed, summary.external) = (counts.compressed, counts.external);
    (summary.dead, summary.undecided, summary.zero_pages) =
        (counts.dead, counts.undecided, counts.zero_pages);
    (summary.damaged_pages, summary.damaged_tuples) = (counts.damaged_pages, counts.damaged_tuples);
}
