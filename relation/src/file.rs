//! Reads the blocks of a relation that lies in FILE, FILE.1, FILE.2, ... by `pread`.
//!
//! Promises
//! - The number of blocks is fixed when the relation is opened. A file that ends earlier later on is an error, never a
//!   short answer; [`RelationFile::check_unchanged`] finds what else was done to the files in the meantime.
//! - Opening refuses what is no heap relation and says what it seems to be instead. A relation of 0 blocks is fine.
//! - Reads need no lock and no seek: one `RelationFile` may be read by several threads at once.
//!
//! What it does not do: check pages (see [`crate::page`]), or notice changes while it reads.
//!
//! Source of the format: `md.c` (segments of RELSEG_SIZE = 131072 blocks; a relation ends with its first segment that is
//! not full, and empty segments may follow it).

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::buffer::PageBuffer;
use crate::bytes::{fnv1a64, u16_at};
use crate::error::{Error, ErrorKind, Result, changed_error, shrank_error};
use crate::page::sniff;
use crate::page::{BLOCK_SIZE, PD_CHECKSUM};

/// Blocks of a full segment file (1 GiB).
pub const SEGMENT_BLOCKS: u32 = 131_072;

/// What tells one state of a relation's files from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Sum over device, inode, size and modification time (ns) of every segment, in order.
    pub digest: u64,
    /// Bytes of all segments together.
    pub bytes: u64,
}

/// What `stat` said about a segment when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self { dev: meta.dev(), ino: meta.ino(), size: meta.size(), mtime: (meta.mtime(), meta.mtime_nsec()) }
    }

    fn digest(&self, seed: u64) -> u64 {
        let (seconds, nanos) = self.mtime;
        [self.dev, self.ino, self.size, seconds as u64, nanos as u64]
            .iter()
            .fold(seed, |sum, part| fnv1a64(sum, &part.to_le_bytes()))
    }
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    stamp: Stamp,
}

/// An open relation: all its segment files.
#[derive(Debug)]
pub struct RelationFile {
    path: PathBuf,
    segments: Vec<Segment>,
    segment_blocks: u32,
    total_blocks: u32,
}

impl RelationFile {
    /// Opens FILE and its further segments of 131072 blocks each.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if a file cannot be opened, [`ErrorKind::NotHeap`] if it cannot be a heap relation (directory, odd
    /// size, missing or short segment, foreign contents).
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with_segment_size(path, SEGMENT_BLOCKS)
    }

    /// The same with segments of `segment_blocks` blocks (at least 1), so that tests need no gigabytes.
    ///
    /// # Errors
    /// As for [`RelationFile::open`].
    pub fn open_with_segment_size(path: &Path, segment_blocks: u32) -> Result<Self> {
        let relation = Self::open_segments(path, segment_blocks.max(1)).map_err(|e| e.in_file(path))?;
        relation.sniff().map_err(|e| e.in_file(path))?;
        Ok(relation)
    }

    fn open_segments(path: &Path, segment_blocks: u32) -> Result<Self> {
        refuse_forks(path)?;
        let full = u64::from(segment_blocks) * BLOCK_SIZE as u64;
        let mut segments = vec![open_segment(path)?];
        loop {
            let size = segments.last().map_or(0, |s| s.stamp.size);
            if size > full {
                return Err(odd_segment(&segments, format!("at most {segment_blocks} blocks")));
            }
            let (next, last_full) = (segment_path(path, segments.len()), size == full);
            match open_segment(&next) {
                Ok(segment) if last_full => segments.push(segment),
                // Truncation leaves empty segments behind the end.
                Ok(segment) if segment.stamp.size == 0 => break,
                Ok(_) => {
                    let expected = format!("{segment_blocks} blocks as another segment follows");
                    return Err(odd_segment(&segments, expected));
                }
                Err(error) if is_missing(&error) => break,
                Err(error) => return Err(error),
            }
        }
        refuse_gap(path, segments.len())?;
        let blocks = segments.iter().map(|s| s.stamp.size / BLOCK_SIZE as u64).sum::<u64>();
        let total_blocks = u32::try_from(blocks)
            .map_err(|_| not_heap(format!("expected fewer than 2^32 blocks, found {blocks}")))?;
        Ok(Self { path: path.to_path_buf(), segments, segment_blocks, total_blocks })
    }

    /// Looks at the first, the middle and the last page.
    fn sniff(&self) -> Result<()> {
        let mut pages = Vec::new();
        let mut blocks = vec![0, self.total_blocks / 2, self.total_blocks.saturating_sub(1)];
        blocks.dedup();
        for block in blocks.into_iter().filter(|&b| b < self.total_blocks) {
            let mut page = vec![0; BLOCK_SIZE];
            match self.read_blocks(block, &mut page) {
                Ok(()) => pages.push(page),
                // An unreadable block says nothing about the kind of file; who reads it will report it.
                Err(error) if matches!(error.kind(), ErrorKind::Read(_)) => {}
                Err(error) => return Err(error),
            }
        }
        match sniff::foreign(&pages) {
            Some((what, hint)) => Err(not_heap(what).with_hint(hint)),
            None => Ok(()),
        }
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of blocks of all segments when it was opened.
    pub fn total_blocks(&self) -> u32 {
        self.total_blocks
    }

    /// Fills `buf`, a multiple of 8192 bytes, with the blocks from `first` on. A [`crate::PageBuffer`] is filled fastest.
    ///
    /// # Errors
    /// [`ErrorKind::Read`] naming the block (others may be readable), [`ErrorKind::Shrank`] if a file has become shorter,
    /// [`ErrorKind::Page`] if the blocks asked for are not there at all.
    pub fn read_blocks(&self, first: u32, buf: &mut [u8]) -> Result<()> {
        if !buf.len().is_multiple_of(BLOCK_SIZE) {
            return Err(own_range(format!("a buffer of {} bytes", buf.len())).in_file(&self.path));
        }
        let (mut block, mut rest) = (first, buf);
        while !rest.is_empty() {
            let wanted = (rest.len() / BLOCK_SIZE) as u64;
            let in_segment = block % self.segment_blocks;
            let count = wanted.min(u64::from(self.segment_blocks - in_segment));
            let end = u64::from(block) + count;
            let segment = self.segments.get((block / self.segment_blocks) as usize);
            let (Some(segment), true) = (segment, end <= u64::from(self.total_blocks)) else {
                let found = format!("block {} of {}", end - 1, self.total_blocks);
                return Err(own_range(found).in_file(&self.path));
            };
            let (now, later) = rest.split_at_mut(count as usize * BLOCK_SIZE);
            read_exact(segment, block, in_segment, now).map_err(|e| e.in_file(&self.path))?;
            rest = later;
            // The end was checked against total_blocks, so it fits.
            block = end as u32;
        }
        Ok(())
    }

    /// Whether the pages bear checksums: looks at up to 16 blocks from all over the relation. A server that makes checksums
    /// writes none that is 0 (`checksum_impl.h`), one that does not writes 0 into every page.
    ///
    /// # Errors
    /// As [`RelationFile::read_blocks`].
    pub fn bears_checksums(&self) -> Result<bool> {
        const LOOKS: u64 = 16;
        let (total, mut page) = (u64::from(self.total_blocks), PageBuffer::new(1));
        for look in 0..LOOKS.min(total) {
            // Below total_blocks, which is a u32.
            self.read_blocks((look * total / LOOKS.min(total)) as u32, page.blocks_mut(1))?;
            if u16_at(page.blocks(1), PD_CHECKSUM).is_some_and(|sum| sum != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn segment_files(&self) -> impl Iterator<Item = &File> {
        self.segments.iter().map(|segment| &segment.file)
    }

    pub(crate) fn segment_blocks(&self) -> u32 {
        self.segment_blocks
    }

    /// Identifies the state the files had when they were opened.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint {
            digest: self.segments.iter().fold(0, |sum, segment| segment.stamp.digest(sum)),
            bytes: self.segments.iter().map(|segment| segment.stamp.size).sum(),
        }
    }

    /// As [`Watch::check_unchanged`].
    ///
    /// # Errors
    /// As there.
    pub fn check_unchanged(&self) -> Result<()> {
        check_unchanged(&self.path, self.segments.iter().map(|segment| &segment.stamp))
    }

    /// Closes the files and remembers what they were.
    pub fn into_watch(self) -> Watch {
        let stamps = self.segments.iter().map(|segment| segment.stamp).collect();
        Watch { path: self.path, stamps }
    }
}

/// What a relation's files were when they were opened, without keeping them open.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    stamps: Vec<Stamp>,
}

impl Watch {
    /// Looks the paths up again and compares inode, size and modification time with those at the start; a new segment
    /// counts as a change too.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`] with the first difference, [`ErrorKind::Io`] if a file is gone.
    pub fn check_unchanged(&self) -> Result<()> {
        check_unchanged(&self.path, self.stamps.iter())
    }
}

fn check_unchanged<'a>(path: &Path, stamps: impl ExactSizeIterator<Item = &'a Stamp>) -> Result<()> {
    let segments = stamps.len();
    for (stamp, n) in stamps.zip(0..) {
        let file = segment_path(path, n);
        let meta = std::fs::metadata(&file)
            .map_err(|e| io_error("cannot look at the file again", e).in_file(&file))?;
        compare(stamp, &Stamp::of(&meta)).map_err(|e| e.in_file(&file))?;
    }
    let next = segment_path(path, segments);
    if std::fs::metadata(&next).is_ok_and(|meta| meta.size() > 0) {
        return Err(
            changed_error("segments", format!("{segments} segments"), format!("{next:?}")).in_file(path)
        );
    }
    Ok(())
}

/// Segment `n` of the relation at `path`: the path itself for 0, with `.n` behind it for others.
pub fn segment_path(path: &Path, n: usize) -> PathBuf {
    if n == 0 {
        return path.to_path_buf();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

fn open_segment(path: &Path) -> Result<Segment> {
    let opened = |e| io_error("cannot open", e).in_file(path);
    // Opening a pipe would wait for its writer, so look before opening.
    let meta = std::fs::metadata(path).map_err(opened)?;
    if meta.is_dir() {
        return Err(not_heap("expected a file, found a directory").in_file(path));
    }
    if !meta.is_file() {
        return Err(not_heap("expected a regular file, found a pipe, socket or device").in_file(path));
    }
    let file = File::open(path).map_err(opened)?;
    let stamp = Stamp::of(&file.metadata().map_err(opened)?);
    if !stamp.size.is_multiple_of(BLOCK_SIZE as u64) {
        let text = format!("expected a size that is a multiple of 8192, found {} bytes", stamp.size);
        return Err(not_heap(text).in_file(path));
    }
    Ok(Segment { path: path.to_path_buf(), file, stamp })
}

fn read_exact(segment: &Segment, block: u32, in_segment: u32, buf: &mut [u8]) -> Result<()> {
    let start = u64::from(in_segment) * BLOCK_SIZE as u64;
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at_block = block + (done / BLOCK_SIZE) as u32;
        match segment.file.read_at(rest, start + done as u64) {
            Ok(0) => {
                let (expected, found) = (segment.stamp.size, start + done as u64);
                return Err(shrank_error("size", format!("{expected} bytes"), found)
                    .at_block(at_block)
                    .in_file(&segment.path));
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Error::new(ErrorKind::Read(error)).at_block(at_block));
            }
        }
    }
    Ok(())
}

fn compare(then: &Stamp, now: &Stamp) -> Result<()> {
    if (then.dev, then.ino) != (now.dev, now.ino) {
        return Err(changed_error("inode", then.ino, now.ino));
    }
    if then.size != now.size {
        return Err(changed_error("size", then.size, now.size));
    }
    if then.mtime != now.mtime {
        let text = |(seconds, nanos): (i64, i64)| format!("{seconds}.{nanos:09}");
        return Err(changed_error("modification time", text(then.mtime), text(now.mtime)));
    }
    Ok(())
}

/// The other forks of a relation look like pages of a heap without tuples, so only their names tell them.
fn refuse_forks(path: &Path) -> Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    for (suffix, what) in [("_fsm", "free space map"), ("_vm", "visibility map")] {
        let stem = name.strip_suffix(suffix).unwrap_or_default();
        if !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_digit()) {
            let text = format!("expected a heap relation, found the {what} of relation {stem:?}");
            return Err(not_heap(text).with_hint("give the file without the suffix"));
        }
    }
    Ok(())
}

/// A later segment behind a missing one means that a file was lost.
fn refuse_gap(path: &Path, segments: usize) -> Result<()> {
    let beyond = (segments + 1..segments + 9).map(|n| segment_path(path, n));
    for later in beyond {
        if std::fs::metadata(&later).is_ok_and(|meta| meta.is_file() && meta.size() > 0) {
            let missing = segment_path(path, segments);
            return Err(not_heap(format!("segment {missing:?} is missing, but {later:?} is there")));
        }
    }
    Ok(())
}

/// The last of these segments has an impossible size.
fn odd_segment(segments: &[Segment], expected: String) -> Error {
    let last = segments.last();
    let blocks = last.map_or(0, |s| s.stamp.size / BLOCK_SIZE as u64);
    let path = last.map(|s| s.path.clone()).unwrap_or_default();
    not_heap(format!("segment {path:?}: expected {expected}, found {blocks}"))
}

fn is_missing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

pub(crate) fn not_heap(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::NotHeap(text.into()))
}

pub(crate) fn io_error(action: &'static str, source: io::Error) -> Error {
    Error::new(ErrorKind::Io { action, source })
}

fn own_range(found: String) -> Error {
    crate::error::page_error("blocks asked for", "whole blocks of the relation", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_block_is_named_and_costs_its_page_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rel");
        for n in 0..2 {
            std::fs::write(segment_path(&path, n), vec![0; 2 * BLOCK_SIZE]).unwrap();
        }
        let mut relation = RelationFile::open_with_segment_size(&path, 2).unwrap();
        // Reading from a file opened for writing fails as a bad disk would, with another number.
        let second = segment_path(&path, 1);
        relation.segments[1].file = File::options().write(true).open(&second).unwrap();
        let error = relation.read_blocks(1, &mut [0; 3 * BLOCK_SIZE]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("relation {path:?}: cannot read: Bad file descriptor (os error 9) (block 2)")
        );
        assert_eq!(error.extent(), crate::Extent::Page);
        relation.read_blocks(0, &mut [0; 2 * BLOCK_SIZE]).unwrap();
    }
}
