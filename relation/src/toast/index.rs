//! Knows where in a TOAST relation each value's chunks lie.
//!
//! Chunks of a value mostly follow each other, so the index keeps runs: a value id, the first `chunk_seq`, where that chunk
//! lies, and how many follow at the next line pointers (or from the first of the next block on). A value of a gigabyte
//! written in one go is one run.
//!
//! As bytes, for handing it to another process: magic, number of blocks of the relation, number of runs, the runs of 20
//! bytes each, and an FNV-1a sum over all that; all integers little endian.

use crate::buffer::PageBuffer;
use crate::bytes::{fnv1a64, u16_at, u32_at, u64_at};
use crate::error::{Error, Result, own_error};
use crate::file::RelationFile;
use crate::page::{BLOCK_SIZE, Checked, MAX_ITEMS, Page};
use crate::rows::ReadOptions;
use crate::visibility::{HintBitsOnly, Oracle, Stamps, Verdict};

use super::Chunk;

const MAGIC: u64 = u64::from_le_bytes(*b"toastix1");
const HEADER: usize = 24;
const RUN_SIZE: usize = 20;
const SUM_SIZE: usize = 8;
const BATCH_BLOCKS: usize = 64;

/// Chunks that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    pub(super) value_id: u32,
    pub(super) seq: u32,
    pub(super) block: u32,
    pub(super) item: u16,
    pub(super) count: u32,
}

/// All runs of a TOAST relation, by value and `chunk_seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToastIndex {
    runs: Vec<Run>,
    total_blocks: u32,
}

/// A run that may still grow, and the place where its next chunk would have to lie.
struct Open {
    run: Run,
    next_block: u32,
    next_item: u16,
}

impl ToastIndex {
    /// Reads a TOAST relation once, from its first block to its last.
    ///
    /// # Errors
    /// The first damage found; [`ToastIndex::build_with`] can go on past it.
    pub fn build(f: &RelationFile, opts: &ReadOptions) -> Result<Self> {
        Self::build_with(f, opts, &HintBitsOnly, &mut Err)
    }

    /// The same with an oracle for transactions, and with a say in what happens at damage: if `damaged` gives `Ok`, the tuple
    /// or page is left out.
    ///
    /// # Errors
    /// What `damaged` gives; whatever makes the whole relation unusable.
    pub fn build_with(
        f: &RelationFile,
        opts: &ReadOptions,
        oracle: &dyn Oracle,
        damaged: &mut dyn FnMut(Error) -> Result<()>,
    ) -> Result<Self> {
        let mut builder = Builder { runs: Vec::new(), open: None, oracle };
        let mut pages = PageBuffer::new(BATCH_BLOCKS);
        let mut block = 0;
        while block < f.total_blocks() {
            let blocks = (f.total_blocks() - block).min(BATCH_BLOCKS as u32);
            let pages = pages.blocks_mut(blocks as usize);
            f.read_blocks(block, pages)?;
            for page in pages.as_chunks::<BLOCK_SIZE>().0 {
                let report = &mut |e: Error| damaged(e.at_block(block).in_file(f.path()));
                builder.page(page, block, opts.verify_checksums, report)?;
                block += 1;
            }
        }
        Ok(builder.finish(f.total_blocks()))
    }

    /// Blocks of the relation it was built from.
    pub fn total_blocks(&self) -> u32 {
        self.total_blocks
    }

    /// The number of runs; it takes about 20 bytes for each.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn runs_of(&self, value_id: u32) -> &[Run] {
        let start = self.runs.partition_point(|run| run.value_id < value_id);
        let rest = self.runs.get(start..).unwrap_or_default();
        let len = rest.partition_point(|run| run.value_id == value_id);
        rest.get(..len).unwrap_or_default()
    }

    /// The index as bytes for [`ToastIndex::from_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.runs.len() * RUN_SIZE + SUM_SIZE);
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&u64::from(self.total_blocks).to_le_bytes());
        bytes.extend_from_slice(&(self.runs.len() as u64).to_le_bytes());
        for run in &self.runs {
            bytes.extend_from_slice(&run.value_id.to_le_bytes());
            bytes.extend_from_slice(&run.seq.to_le_bytes());
            bytes.extend_from_slice(&run.block.to_le_bytes());
            bytes.extend_from_slice(&u32::from(run.item).to_le_bytes());
            bytes.extend_from_slice(&run.count.to_le_bytes());
        }
        let sum = fnv1a64(0, &bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads what [`ToastIndex::to_bytes`] wrote, and checks all of it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Own`]: cut off, not ours, altered, runs out of order or outside of the relation.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let wrong = |expected: &str, found: &dyn std::fmt::Display| own_error("toast index", expected, found);
        let (Some(magic), Some(blocks), Some(count)) =
            (u64_at(bytes, 0), u64_at(bytes, 8), u64_at(bytes, 16))
        else {
            return Err(wrong("at least 32 bytes", &bytes.len()));
        };
        if magic != MAGIC {
            return Err(wrong("its magic number", &format!("{magic:#018x}")));
        }
        let size = count.checked_mul(RUN_SIZE as u64).and_then(|n| n.checked_add((HEADER + SUM_SIZE) as u64));
        if size != Some(bytes.len() as u64) {
            return Err(wrong(&format!("the size of {count} runs"), &format!("{} bytes", bytes.len())));
        }
        let (body, sum) = bytes.split_at(bytes.len() - SUM_SIZE);
        if u64_at(sum, 0) != Some(fnv1a64(0, body)) {
            return Err(wrong("the sum of its bytes", &"another"));
        }
        let total_blocks = u32::try_from(blocks).map_err(|_| wrong("fewer than 2^32 blocks", &blocks))?;
        let runs = body.get(HEADER..).unwrap_or_default().as_chunks::<RUN_SIZE>().0.iter();
        let runs = runs.map(|raw| Run::read(raw, total_blocks)).collect::<Result<Vec<_>>>()?;
        if !runs.is_sorted() {
            return Err(wrong("runs in order of value and chunk_seq", &"another order"));
        }
        Ok(Self { runs, total_blocks })
    }
}

impl Run {
    fn read(raw: &[u8; RUN_SIZE], total_blocks: u32) -> Result<Self> {
        let part = |n: usize| u32_at(raw, n * 4).unwrap_or_default();
        let item = u16_at(raw, 12).filter(|_| u16_at(raw, 14) == Some(0)).unwrap_or_default();
        let run = Self { value_id: part(0), seq: part(1), block: part(2), item, count: part(4) };
        let end = run.seq.checked_add(run.count).filter(|&end| end <= i32::MAX as u32);
        let item_fits = (1..=MAX_ITEMS).contains(&usize::from(run.item));
        if run.block >= total_blocks || !item_fits || run.count == 0 || end.is_none() {
            return Err(own_error("toast index", "runs inside the relation", format!("{run:?}")));
        }
        Ok(run)
    }
}

struct Builder<'a> {
    runs: Vec<Run>,
    open: Option<Open>,
    oracle: &'a dyn Oracle,
}

impl Builder<'_> {
    fn page(
        &mut self,
        page: &[u8],
        block: u32,
        verify: bool,
        damaged: &mut dyn FnMut(Error) -> Result<()>,
    ) -> Result<()> {
        let page = match Page::check(page, block, verify) {
            Ok(Checked::Page(page)) => page,
            Ok(Checked::Zero) => return Ok(()),
            Err(error) => return damaged(error),
        };
        for item in page.items() {
            let stamps = Stamps::read(item.tuple);
            if stamps.is_none_or(|s| s.judge(self.oracle) == Verdict::Invisible) {
                continue;
            }
            match Chunk::parse(item.tuple) {
                Ok(chunk) => self.add(&chunk, block, item.number),
                Err(error) => damaged(error.at_item(item.number))?,
            }
        }
        // The next chunk of an open run may only come first on the next page.
        if let Some(open) = self.open.as_mut().filter(|open| open.next_block == block)
            && open.next_item == page.line_pointers() + 1
        {
            (open.next_block, open.next_item) = (block.saturating_add(1), 1);
        }
        Ok(())
    }

    fn add(&mut self, chunk: &Chunk<'_>, block: u32, item: u16) {
        if let Some(open) = &mut self.open {
            let run = &mut open.run;
            let fits = (open.next_block, open.next_item) == (block, item)
                && (run.value_id, run.seq + run.count) == (chunk.value_id, chunk.seq);
            if fits {
                run.count += 1;
                open.next_item += 1;
                return;
            }
            self.runs.push(*run);
        }
        let run = Run { value_id: chunk.value_id, seq: chunk.seq, block, item, count: 1 };
        self.open = Some(Open { run, next_block: block, next_item: item + 1 });
    }

    fn finish(mut self, total_blocks: u32) -> ToastIndex {
        self.runs.extend(self.open.map(|open| open.run));
        self.runs.sort_unstable();
        self.runs.shrink_to_fit();
        ToastIndex { runs: self.runs, total_blocks }
    }
}
