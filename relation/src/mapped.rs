//! Hands out the pages of a relation from a memory map.
//!
//! The same relation as [`RelationFile`] opens, mapped read-only, segment by segment. Saves the copy of `pread`; pays with
//! signals: if a file is truncated or a disk fails while it is mapped, touching the page raises SIGBUS. This module does
//! not handle that signal; a program that maps relations has to (the engine's worker does, and names the block), or has to
//! use [`RelationFile::read_blocks`].
//!
//! Promise: a page handed out lies inside the mapping as the file was when it was opened.

use std::path::Path;

use memmap2::Mmap;

use crate::error::{Result, page_error};
use crate::file::{Fingerprint, RelationFile, SEGMENT_BLOCKS};
use crate::page::BLOCK_SIZE;

/// A relation whose segments are mapped.
#[derive(Debug)]
pub struct MappedRelation {
    file: RelationFile,
    maps: Vec<Mmap>,
}

impl MappedRelation {
    /// Opens and maps FILE, FILE.1, ...
    ///
    /// # Errors
    /// As for [`RelationFile::open`]; [`crate::ErrorKind::Io`] if a mapping fails.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with_segment_size(path, SEGMENT_BLOCKS)
    }

    /// The same with segments of `segment_blocks` blocks, for tests.
    ///
    /// # Errors
    /// As for [`MappedRelation::open`].
    pub fn open_with_segment_size(path: &Path, segment_blocks: u32) -> Result<Self> {
        let file = RelationFile::open_with_segment_size(path, segment_blocks)?;
        let maps = file.segment_files().map(map).collect::<std::io::Result<_>>();
        let maps = maps.map_err(|e| crate::file::io_error("cannot map", e).in_file(path))?;
        Ok(Self { file, maps })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The number of blocks of all segments.
    pub fn total_blocks(&self) -> u32 {
        self.file.total_blocks()
    }

    /// Identifies the state the files had when they were opened.
    pub fn fingerprint(&self) -> Fingerprint {
        self.file.fingerprint()
    }

    /// As [`RelationFile::check_unchanged`].
    ///
    /// # Errors
    /// As there.
    pub fn check_unchanged(&self) -> Result<()> {
        self.file.check_unchanged()
    }

    /// The 8192 bytes of a block. Touching them can raise SIGBUS, see above.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Page`] if the relation has no such block.
    pub fn page(&self, block: u32) -> Result<&[u8]> {
        let start = (block % self.file.segment_blocks()) as usize * BLOCK_SIZE;
        let map = self.maps.get((block / self.file.segment_blocks()) as usize);
        map.and_then(|map| map.get(start..start + BLOCK_SIZE)).ok_or_else(|| {
            let expected = format!("a block below {}", self.total_blocks());
            page_error("blocks asked for", expected, block).in_file(self.path())
        })
    }
}

#[allow(unsafe_code)]
fn map(file: &std::fs::File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only and private to this process; the bytes are only ever read as u8, for which every value
    // is valid, and each page is checked after reading and never trusted. That another process may change the file under
    // the map is the caller's condition stated in the module's contract: relations must not change during a run, the end
    // of the run compares size and modification time, and truncation raises SIGBUS rather than reading elsewhere.
    unsafe { Mmap::map(file) }
}
