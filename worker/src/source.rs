//! Reads the blocks of a job, whichever of its leaves they lie in, and hands out their rows.
//!
//! The leaves of a job are numbered through: block 0 is the first of the first leaf, and where one leaf ends the next begins. A range of
//! blocks may cross from leaf to leaf; each part is read with its own leaf's columns and TOAST relation.
//!
//! Promises
//! - Every leaf is what the leader saw: its files are compared when it is opened.
//! - One leaf is open at a time, so that thousands of partitions need no more file descriptors than one.
//! - The block numbers that pages are checked with, and that errors name, are those of the leaf's own file.
//! - A sequence file's blocks are runs of its bytes; a record is of the run in which it begins.
//!
//! What it does not do: decide what a row is worth; see [`crate::scan`].

use crate::error::WorkError;
use crate::feed;
use crate::job::{Job, Leaf, LeafSequence, LeafToast, path_of};
use crate::shared::Shared;
use crate::steady;
use relation::visibility::Oracle;
use relation::{
    BLOCK_SIZE, MappedRelation, PageBuffer, PageCounts, PageReader, RelationFile, RowSink, Toast, ToastIndex,
};
use sequence::file::{InMemory, Text};
use sequence::{Format, RecordSink, SequenceFile};
use shm_layout::inject::{self, Point};
use shm_layout::words::Owner;
use std::path::Path;
use std::sync::Arc;

/// Blocks of pages that are read at a time, so that they are still in the core's cache when their rows are taken.
const RUN: u64 = 32;

/// Takes rows of every kind.
pub trait Rows: RowSink + RecordSink {
    /// Records of a sequence file follow.
    fn begin_file(&mut self, path: &Path);
    /// Those of that file, or of a run of its blocks, were all.
    fn end_file(&mut self);
}

/// The blocks of a job.
pub struct Blocks {
    /// The first block of each leaf, and behind them the number of all.
    starts: Vec<u64>,
    oracle: Option<Arc<dyn Oracle>>,
    buffer: Buffer,
    open: Option<OpenLeaf>,
    slot: u16,
    mapped: bool,
    parcel: Vec<u8>,
}

struct OpenLeaf {
    number: usize,
    files: Files,
}

enum Files {
    Heap(Box<(PageReader, Pages)>),
    Sequence { file: SequenceFile, format: Format, block_bytes: u64 },
}

enum Pages {
    Pread(RelationFile),
    Mapped(MappedRelation),
}

impl Blocks {
    /// Gets ready to read for the worker in `slot`, through mappings if `mapped` says so; leaves are opened when their turn comes.
    ///
    /// # Errors
    /// When the transaction logs cannot be opened.
    pub fn new(shared: &Shared, slot: u16, mapped: bool) -> Result<Self, WorkError> {
        let job = &shared.job;
        let has_pages = job.stream.is_none() && job.leaves.iter().any(|leaf| leaf.sequence.is_none());
        let blocks = if has_pages { RUN.min(job.total_blocks()) as usize } else { 0 };
        let beside_server = job.lock_lsn.map(|lsn| (PageBuffer::new(blocks), lsn));
        let buffer = Buffer { pages: PageBuffer::new(blocks), beside_server };
        Ok(Self {
            starts: job.starts(),
            oracle: job.oracle()?,
            buffer,
            open: None,
            slot,
            mapped,
            parcel: Vec::new(),
        })
    }

    /// Reads `count` blocks from `first` on, at most a unit of them, and hands their rows to `sink`. Returns how many bytes of text the records had.
    ///
    /// # Errors
    /// When a file cannot be read or has changed, and what the sink gives.
    pub fn read(
        &mut self,
        shared: &Shared,
        first: u64,
        count: u64,
        counts: &mut PageCounts,
        sink: &mut impl Rows,
    ) -> Result<u64, WorkError> {
        let (mut at, end, mut text) = (first, first + count, 0);
        while at < end {
            let leaf = leaf_of(&self.starts, at);
            let (start, next) = (self.starts[leaf], self.starts[leaf + 1]);
            let mut stop = end.min(next);
            if shared.job.leaves[leaf].sequence.is_none() {
                stop = stop.min(at + RUN);
            }
            self.open_leaf(shared, leaf)?;
            if let Some(open) = &mut self.open {
                let slot = self.slot;
                let mut step = |block: u32| -> Result<(), WorkError> {
                    shared.slots.at_block(slot, start + u64::from(block))?;
                    Ok(inject::at(Point::ScanBlock)?)
                };
                // Below the number of the leaf's blocks, which is a u32.
                let (first, count) = ((at - start) as u32, (stop - at) as usize);
                text += open.read(first, count, &mut self.buffer, counts, sink, &mut step)?;
            }
            at = stop;
        }
        Ok(text)
    }

    /// Reads the parcel of a stream and hands its rows to `sink`. Returns how many bytes of text it had.
    ///
    /// # Errors
    /// When it was freed meanwhile, is damaged, and what the sink gives.
    pub fn read_parcel(
        &mut self,
        shared: &Shared,
        parcel: usize,
        owner: Owner,
        sink: &mut impl Rows,
    ) -> Result<u64, WorkError> {
        shared.slots.at_block(self.slot, parcel as u64)?;
        inject::at(Point::ScanBlock)?;
        let taken = feed::take(shared, parcel, owner, &mut self.parcel)?;
        let text = Piece {
            text: InMemory { text: &self.parcel[feed::PARCEL_HEAD..], path: taken.path },
            offset: taken.offset,
        };
        sink.begin_file(taken.path);
        let stretch = sequence::read(&text, taken.format, (taken.offset, u64::MAX), sink)?;
        sink.end_file();
        Ok(stretch.end - stretch.first)
    }

    fn open_leaf(&mut self, shared: &Shared, number: usize) -> Result<(), WorkError> {
        if self.open.as_ref().is_some_and(|open| open.number == number) {
            return Ok(());
        }
        self.open = None;
        let leaf = &shared.job.leaves[number];
        let files = match leaf.sequence {
            Some(sequence) => open_sequence(leaf, sequence)?,
            None => self.open_heap(shared, leaf)?,
        };
        self.open = Some(OpenLeaf { number, files });
        Ok(())
    }
}

/// The leaf that block `at` lies in. `starts` holds one number more than there are leaves, and `at` is below the last.
fn leaf_of(starts: &[u64], at: u64) -> usize {
    starts.partition_point(|start| *start <= at) - 1
}

impl Blocks {
    fn open_heap(&self, shared: &Shared, leaf: &Leaf) -> Result<Files, WorkError> {
        let job = &shared.job;
        let toast = leaf.toast.as_ref().map(|toast| open_toast(shared, toast)).transpose()?;
        let path = path_of(&leaf.path);
        let file = RelationFile::open_with_segment_size(path, job.segment_blocks)?;
        check_same(leaf, &file)?;
        let desc = leaf.tuple_desc()?;
        let mut reader = PageReader::new(&desc, leaf.column as usize, job.read_options(), path, toast)?
            .with_bases(job.dna_type());
        if let Some(oracle) = &self.oracle {
            reader = reader.with_oracle(Arc::clone(oracle));
        }
        let pages = if self.mapped {
            Pages::Mapped(MappedRelation::open_with_segment_size(path, job.segment_blocks)?)
        } else {
            Pages::Pread(file)
        };
        Ok(Files::Heap(Box::new((reader, pages))))
    }
}

fn open_sequence(leaf: &Leaf, sequence: LeafSequence) -> Result<Files, WorkError> {
    let file = SequenceFile::open(path_of(&leaf.path))?;
    if leaf.fingerprint.is_some_and(|digest| digest != file.fingerprint()) || file.len() != sequence.bytes {
        return Err(sequence::Error::Changed { path: path_of(&leaf.path).to_path_buf() }.into());
    }
    let format = if sequence.fastq { Format::Fastq } else { Format::Fasta };
    // A block of no bytes would have no end.
    Ok(Files::Sequence { file, format, block_bytes: sequence.block_bytes.max(1) })
}

impl OpenLeaf {
    fn read(
        &mut self,
        first: u32,
        count: usize,
        buffer: &mut Buffer,
        counts: &mut PageCounts,
        sink: &mut impl Rows,
        step: &mut dyn FnMut(u32) -> Result<(), WorkError>,
    ) -> Result<u64, WorkError> {
        match &mut self.files {
            Files::Heap(heap) => {
                let (reader, pages) = &mut **heap;
                pages.read(first, count, reader, buffer, counts, sink, step)?;
                Ok(0)
            }
            Files::Sequence { file, format, block_bytes } => {
                step(first)?;
                let run = (u64::from(first) * *block_bytes, (u64::from(first) + count as u64) * *block_bytes);
                sink.begin_file(file.path());
                let stretch = sequence::read(file, *format, run, sink)?;
                sink.end_file();
                Ok(stretch.end - stretch.first)
            }
        }
    }
}

impl Pages {
    #[allow(clippy::too_many_arguments, reason = "what a page needs")]
    fn read(
        &mut self,
        first: u32,
        count: usize,
        reader: &mut PageReader,
        buffer: &mut Buffer,
        counts: &mut PageCounts,
        sink: &mut impl RowSink,
        step: &mut dyn FnMut(u32) -> Result<(), WorkError>,
    ) -> Result<(), WorkError> {
        match self {
            Self::Pread(file) => {
                let pages = buffer.fill(file, first, count)?;
                for (page, block) in pages.chunks_exact(BLOCK_SIZE).zip(first..) {
                    step(block)?;
                    reader.read_page(page, block, counts, sink)?;
                }
            }
            Self::Mapped(mapped) => {
                for block in first..first + count as u32 {
                    step(block)?;
                    reader.read_page(mapped.page(block)?, block, counts, sink)?;
                }
            }
        }
        Ok(())
    }
}

/// A piece of a text, whose places are those in the whole.
struct Piece<'a> {
    text: InMemory<'a>,
    offset: u64,
}

impl Text for Piece<'_> {
    fn len(&self) -> u64 {
        self.offset + self.text.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> sequence::Result<()> {
        self.text.read_at(offset.saturating_sub(self.offset), into)
    }

    fn path(&self) -> &Path {
        self.text.path()
    }

    fn begin(&self) -> u64 {
        self.offset
    }
}

/// Pages that were read.
struct Buffer {
    pages: PageBuffer,
    /// For a second look, when a server may be writing to the files, and the LSN of the lock.
    beside_server: Option<(PageBuffer, u64)>,
}

impl Buffer {
    fn fill(&mut self, file: &RelationFile, first: u32, count: usize) -> Result<&[u8], WorkError> {
        let pages = self.pages.blocks_mut(count);
        match &mut self.beside_server {
            None => file.read_blocks(first, pages)?,
            Some((again, lsn)) => {
                steady::read(&mut Run { file, first }, *lsn, pages, again.blocks_mut(count))?;
            }
        }
        Ok(pages)
    }
}

struct Run<'a> {
    file: &'a RelationFile,
    first: u32,
}

impl steady::Source for Run<'_> {
    fn read(&mut self, at: usize, pages: &mut [u8]) -> Result<(), WorkError> {
        // Blocks of one leaf, so their numbers are u32.
        Ok(self.file.read_blocks(self.first + at as u32, pages)?)
    }
}

/// The leaf must be what it was when the leader looked.
fn check_same(leaf: &Leaf, file: &RelationFile) -> Result<(), WorkError> {
    let same = match leaf.fingerprint {
        Some(digest) => file.fingerprint().digest == digest,
        None => file.total_blocks() >= leaf.blocks,
    };
    if same {
        return Ok(());
    }
    Err(WorkError::Job(format!("relation {:?}: changed since the start", file.path())))
}

fn open_toast(shared: &Shared, toast: &LeafToast) -> Result<Arc<Toast>, WorkError> {
    let bytes = shared.toast_index(toast.index_offset, toast.index_bytes)?;
    let file = RelationFile::open_with_segment_size(path_of(&toast.path), shared.job.segment_blocks)?;
    let index = ToastIndex::from_bytes(&bytes)?;
    let beside_server = shared.job.lock_lsn.is_some();
    Ok(Arc::new(if beside_server { Toast::beside_server(file, index) } else { Toast::new(file, index)? }))
}

impl Job {
    /// The first block of each leaf, and behind them the number of all.
    fn starts(&self) -> Vec<u64> {
        let mut starts = vec![0];
        let mut at = 0;
        for leaf in &self.leaves {
            at += u64::from(leaf.blocks);
            starts.push(at);
        }
        starts
    }

    /// Names the blocks from `first` on, for messages: `relation "FILE": blocks 3 to 6`, or the first and the last if they lie in two leaves.
    pub fn describe_blocks(&self, first: u64, count: u64) -> String {
        if self.stream.is_some() {
            return format!("parcel {first} of the unpacked input");
        }
        let (starts, last) = (self.starts(), (first + count).saturating_sub(1));
        if last >= self.all_blocks() {
            return format!("blocks {first} to {last}");
        }
        let place = |block| {
            let leaf = leaf_of(&starts, block);
            (path_of(&self.leaves[leaf].path), block - starts[leaf])
        };
        let leaf = &self.leaves[leaf_of(&starts, first)];
        if let (Some(sequence), ((path, from), (last_path, to))) =
            (leaf.sequence, (place(first), place(last)))
        {
            let from = from * sequence.block_bytes;
            let to = if path == last_path {
                ((to + 1) * sequence.block_bytes).min(sequence.bytes)
            } else {
                sequence.bytes
            };
            let and_on = if path == last_path { String::new() } else { format!(" and on to {last_path:?}") };
            return format!("file {path:?}: bytes {from} to {to}{and_on}");
        }
        let ((path, from), (last_path, to)) = (place(first), place(last));
        if count == 1 {
            format!("relation {path:?}: block {from}")
        } else if path == last_path {
            format!("relation {path:?}: blocks {from} to {to}")
        } else {
            format!("relation {path:?}: from block {from} to relation {last_path:?}: block {to}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;

    #[test]
    fn blocks_are_numbered_through_and_empty_leaves_have_none() {
        let job = job(&[("a", 3), ("b", 0), ("c", 1), ("d", 0)]);
        let starts = job.starts();
        assert_eq!(starts, [0, 3, 3, 4, 4]);
        assert_eq!([0, 2, 3].map(|block| leaf_of(&starts, block)), [0, 0, 2]);
        assert_eq!(job.describe_blocks(1, 2), r#"relation "a": blocks 1 to 2"#);
        assert_eq!(job.describe_blocks(2, 1), r#"relation "a": block 2"#);
        assert_eq!(job.describe_blocks(0, 4), r#"relation "a": from block 0 to relation "c": block 0"#);
    }
}
