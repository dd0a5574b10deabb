//! Puts together the values that lie outside of their rows, in a TOAST relation.
//!
//! Promises
//! - A value is handed out only if its chunks are all there, each once, in order, each of exactly its size.
//! - Memory grows with the chunks that were really read, not with what a pointer claims.
//!
//! What it does not do: choose between versions. A TOAST tuple is written and deleted with the row that points to it, so
//! the row's own visibility decides; only tuples that certainly do not count (aborted, deleted) are left out. Their hint
//! bits are set by VACUUM alone, so undecided ones are taken, as the server takes them.
//!
//! Source of the format: `heaptoast.h` (TOAST_MAX_CHUNK_SIZE), `toast_internals.c` (columns chunk_id oid, chunk_seq int4,
//! chunk_data bytea; a compressed value's chunks begin with its `va_tcinfo`), `heapam_visibility.c` (HeapTupleSatisfiesToast).

mod index;
#[cfg(test)]
mod tests;

pub use index::ToastIndex;

use std::sync::OnceLock;
use std::time::Duration;

use crate::buffer::PageBuffer;
use crate::bytes::u32_at;
use crate::error::{Error, ErrorKind, Result, toast_error, tuple_error};
use crate::file::RelationFile;
use crate::page::{BLOCK_SIZE, Checked, Page};
use crate::schema::TupleDesc;
use crate::tuple::{Datum, Walker};
use crate::varlena::{self, Pointer, Varlena};

use index::Run;

/// Bytes of every chunk but the last of a value.
pub const CHUNK_SIZE: usize = 1996;

/// Blocks it is worth to read at once while a long value is fetched.
pub const READ_AHEAD: usize = 16;

/// Reads of a value that do not agree before it is given up.
const MAX_READS: u32 = 50;
/// A server that is writing a page goes on in less time than that.
const PAUSE: Duration = Duration::from_millis(4);

/// A TOAST relation, ready for look-ups. Holds no changing state: workers may share one.
#[derive(Debug)]
pub struct Toast {
    /// Its file.
    pub file: RelationFile,
    /// Where its values lie.
    pub index: ToastIndex,
    /// Whether a server may write to the file, see [`Toast::beside_server`].
    pub beside_server: bool,
}

/// One TOAST tuple.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    pub(crate) value_id: u32,
    pub(crate) seq: u32,
    pub(crate) data: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// Reads a TOAST tuple, header included.
    pub(crate) fn parse(tuple: &'a [u8]) -> Result<Self> {
        let datum = chunk_walker()?.datum(tuple)?;
        let hoff = usize::from(tuple.get(22).copied().unwrap_or(0));
        let fixed = tuple.get(hoff..).unwrap_or_default();
        let (Some(value_id), Some(seq), Datum::Bytes(data)) = (u32_at(fixed, 0), u32_at(fixed, 4), datum)
        else {
            return Err(tuple_error("toast tuple", "chunk_id, chunk_seq and chunk_data", "a NULL"));
        };
        if crate::bytes::u16_at(tuple, 20).is_some_and(|mask| mask & 1 != 0) {
            return Err(tuple_error("toast tuple", "no NULL", "a null bitmap"));
        }
        if seq > i32::MAX as u32 {
            return Err(tuple_error("toast tuple", "chunk_seq >= 0", seq as i32));
        }
        let Varlena::Plain(data) = varlena::parse(data)? else {
            return Err(tuple_error("toast tuple", "plain chunk_data", "a compressed or external one"));
        };
        if data.is_empty() || data.len() > CHUNK_SIZE {
            return Err(tuple_error("toast tuple", "1 to 1996 bytes of chunk_data", data.len()));
        }
        Ok(Self { value_id, seq, data })
    }
}

fn chunk_walker() -> Result<&'static Walker> {
    static WALKER: OnceLock<Walker> = OnceLock::new();
    if let Some(walker) = WALKER.get() {
        return Ok(walker);
    }
    let desc = TupleDesc::parse("chunk_id oid, chunk_seq int4, chunk_data bytea")?;
    let walker = Walker::new(&desc, 2)?;
    Ok(WALKER.get_or_init(|| walker))
}

impl Toast {
    /// A TOAST relation with the index that was built from it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Own`] if the index was built from a file of another size.
    pub fn new(file: RelationFile, index: ToastIndex) -> Result<Self> {
        if index.total_blocks() != file.total_blocks() {
            let expected = format!("{} blocks, as when its index was built", index.total_blocks());
            return Err(
                crate::error::own_error("toast relation", expected, file.total_blocks()).in_file(file.path())
            );
        }
        Ok(Self { file, index, beside_server: false })
    }

    /// The same while a server runs that may prune pages of the relation and write them, cut off empty pages at its end (VACUUM), or add some: every value
    /// is read until two reads agree, since a page may be read while it is written, half old and half new. What is cut off had no value of a
    /// visible row in it.
    #[must_use]
    pub fn beside_server(file: RelationFile, index: ToastIndex) -> Self {
        Self { file, index, beside_server: true }
    }

    /// Replaces `into` by the stored bytes of a value, `pointer.stored_size` of them. `pages` is working space,
    /// best of [`READ_AHEAD`] blocks; `verify` asks
    /// for right checksums.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Detoast`] with the cause: a chunk is missing, there twice, or of a wrong size
    /// ([`crate::ErrorKind::Toast`]), or the TOAST relation itself is damaged or cannot be read.
    pub fn fetch(
        &self,
        pointer: &Pointer,
        verify: bool,
        pages: &mut PageBuffer,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        let value = Wanted::new(pointer, verify);
        let mut read = |into: &mut Vec<u8>| {
            into.clear();
            self.fetch_runs(&value, pages, into)
        };
        let done = if self.beside_server {
            until_two_agree(&mut read, &mut || std::thread::sleep(PAUSE), into)
        } else {
            read(into)
        };
        done.map_err(|cause| {
            let cause = cause.in_file(self.file.path());
            Error::new(ErrorKind::Detoast { value_id: pointer.value_id, cause })
        })
    }

    fn fetch_runs(&self, value: &Wanted, pages: &mut PageBuffer, into: &mut Vec<u8>) -> Result<()> {
        let runs = self.index.runs_of(value.id);
        value.check_runs(runs)?;
        runs.iter().try_for_each(|run| self.fetch_run(value, run, pages, into))
    }

    fn fetch_run(&self, value: &Wanted, run: &Run, pages: &mut PageBuffer, into: &mut Vec<u8>) -> Result<()> {
        let (mut block, mut item, mut seq) = (run.block, run.item, run.seq);
        let end = run.seq + run.count;
        while seq < end {
            let left = self.file.total_blocks().saturating_sub(block);
            // A page holds four whole chunks, so this rarely reads a page in vain.
            let blocks = (end - seq).div_ceil(4).min(left.max(1)) as usize;
            let blocks = blocks.min(pages.capacity());
            let pages = pages.blocks_mut(blocks);
            self.file.read_blocks(block, pages)?;
            for page in pages.as_chunks::<BLOCK_SIZE>().0 {
                let before = seq;
                seq = copy_page(value, page, block, (item, seq, end), into).map_err(|e| e.at_block(block))?;
                if seq == before {
                    let what = format!("chunk {seq} where the index has it");
                    return Err(toast_error("toast relation", what, "none").at_block(block).at_item(item));
                }
                if seq == end {
                    return Ok(());
                }
                (block, item) = (block + 1, 1);
            }
        }
        Ok(())
    }
}

/// Reads until two reads give the same; an error counts only if it stays.
fn until_two_agree(
    read: &mut dyn FnMut(&mut Vec<u8>) -> Result<()>,
    pause: &mut dyn FnMut(),
    into: &mut Vec<u8>,
) -> Result<()> {
    let mut again = Vec::new();
    let mut last = read(into);
    for _ in 0..MAX_READS {
        let next = read(&mut again);
        if last.is_ok() && next.is_ok() && *into == again {
            return Ok(());
        }
        std::mem::swap(into, &mut again);
        last = next;
        pause();
    }
    last.and_then(|()| Err(toast_error("toast value", "the same bytes in two reads", "others each time")))
}

/// Copies the chunks from `item` on while they continue the run; gives the next sequence number.
fn copy_page(
    value: &Wanted,
    page: &[u8],
    block: u32,
    (item, mut seq, end): (u16, u32, u32),
    into: &mut Vec<u8>,
) -> Result<u32> {
    let Checked::Page(page) = Page::check(page, block, value.verify)? else { return Ok(seq) };
    for number in item..=page.line_pointers() {
        if seq == end {
            break;
        }
        let Some(found) = page.item(number) else { break };
        let chunk = Chunk::parse(found.tuple).map_err(|e| e.at_item(number))?;
        if chunk.value_id != value.id || chunk.seq != seq {
            break;
        }
        let expected = value.chunk_size(seq);
        if chunk.data.len() != expected {
            let what = format!("{expected} bytes in chunk {seq}");
            return Err(toast_error("toast value", what, chunk.data.len()).at_item(number));
        }
        into.extend_from_slice(chunk.data);
        seq += 1;
    }
    Ok(seq)
}

/// What a pointer says about the chunks of its value.
struct Wanted {
    id: u32,
    size: usize,
    chunks: u32,
    verify: bool,
}

impl Wanted {
    fn new(pointer: &Pointer, verify: bool) -> Self {
        // At most 2^30 bytes, so the number of chunks fits.
        let size = pointer.stored_size as usize;
        Self { id: pointer.value_id, size, chunks: size.div_ceil(CHUNK_SIZE) as u32, verify }
    }

    fn chunk_size(&self, seq: u32) -> usize {
        self.size.saturating_sub(seq as usize * CHUNK_SIZE).min(CHUNK_SIZE)
    }

    /// The runs must cover the chunks from 0 on, each once.
    fn check_runs(&self, runs: &[Run]) -> Result<()> {
        let mut next = 0;
        for run in runs {
            if run.seq > next {
                return Err(self.missing(next));
            }
            if run.seq < next {
                return Err(toast_error("toast value", format!("chunk {} once", run.seq), "it twice"));
            }
            next = run.seq.saturating_add(run.count);
        }
        if next < self.chunks {
            return Err(self.missing(next));
        }
        if next > self.chunks {
            return Err(toast_error("toast value", format!("{} chunks", self.chunks), next));
        }
        Ok(())
    }

    fn missing(&self, seq: u32) -> Error {
        toast_error("toast value", format!("chunk {seq} of {}", self.chunks), "none")
    }
}
