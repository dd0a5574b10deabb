//! Writes a relation's pages into segment files that get their names only when they are complete.
//!
//! Segment 0 of `FILE` is `FILE`, segment N is `FILE.N`. While being written they have no name at all (O_TMPFILE), so that
//! the kernel removes them whatever becomes of the process; where the file system cannot do that they are called
//! `.FILE.PID-N.tmp`, opened with O_EXCL. Nameless files take that name for the moment between `linkat` and `rename`.
//! Whatever this module made and was not told to [`keep`](SegmentedFile::keep) it removes when dropped.
//!
//! Each segment keeps its file descriptor until the end: one for each GiB.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;

use super::WriteOptions;
use super::error::WriteError;
use super::page::{PAGE, PageBuilder};
use crate::checksum::page_checksum;

/// Bytes gathered before a write.
const BUFFER: usize = 128 * PAGE;
/// Tries to find a temporary name that no earlier process of the same number left behind.
const NAME_TRIES: usize = 100;

/// Tells writers of one process apart; Relaxed because only the uniqueness of the numbers matters.
static NEXT_WRITER: AtomicU32 = AtomicU32::new(0);

/// A relation being written: a row of segment files.
#[derive(Debug)]
pub(super) struct SegmentedFile {
    target: PathBuf,
    temporary: PathBuf,
    /// All segments so far; the last one is being written.
    files: Vec<File>,
    /// The files have no name yet.
    unnamed: bool,
    buffer: Vec<u8>,
    /// Pages appended, buffered ones included.
    blocks: u32,
    blocks_per_segment: u32,
    checksums: bool,
    overwrite: bool,
    /// Segments that already have their final name.
    published: Vec<PathBuf>,
    kept: bool,
}

impl SegmentedFile {
    /// Opens the first temporary segment.
    pub(super) fn create(target: &Path, options: &WriteOptions) -> Result<Self, WriteError> {
        if !options.overwrite {
            refuse_existing(target)?;
            refuse_existing(&segment(target, 1))?;
        }
        let unnamed = options.unnamed && can_be_unnamed(directory_of(target));
        let (temporary, file) = open_temporary(target, unnamed)?;
        Ok(Self {
            target: target.to_path_buf(),
            temporary,
            files: vec![file],
            unnamed,
            buffer: Vec::with_capacity(BUFFER),
            blocks: 0,
            blocks_per_segment: options.blocks_per_segment,
            checksums: options.checksums,
            overwrite: options.overwrite,
            published: Vec::new(),
            kept: false,
        })
    }

    /// The number of pages so far; also the number of the block that comes next.
    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Takes a filled page as the next block and empties it for the one after.
    pub(super) fn append(&mut self, page: &mut PageBuilder) -> Result<(), WriteError> {
        // Block number 2^32 - 1 means "no block" to the server.
        let next = self.blocks.checked_add(1).ok_or_else(|| self.too_many())?;
        if self.blocks > 0 && self.blocks.is_multiple_of(self.blocks_per_segment) {
            self.next_segment()?;
        }
        let bytes = page.seal();
        if self.checksums {
            let sum = page_checksum(bytes, self.blocks);
            bytes[8..10].copy_from_slice(&sum.to_le_bytes());
        }
        self.buffer.extend_from_slice(bytes);
        page.clear();
        self.blocks = next;
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Writes the buffer out and waits until the segment is on disk.
    pub(super) fn sync(&mut self) -> Result<(), WriteError> {
        self.flush()?;
        self.files.last().map_or(Ok(()), File::sync_all).map_err(|cause| self.io("sync", cause))
    }

    /// Gives all segments their names, the first segment last, and syncs the directory.
    pub(super) fn publish(&mut self) -> Result<(), WriteError> {
        let old = if self.overwrite { count_segments(&self.target, self.blocks_per_segment) } else { 0 };
        // A reader would take the segment behind our last one for ours.
        for number in old..=self.files.len() {
            refuse_existing(&segment(&self.target, number))?;
        }
        remove_segments(&self.target, self.files.len()..old)?;
        for (number, file) in self.files.iter().enumerate().rev() {
            let (from, to) = (segment(&self.temporary, number), segment(&self.target, number));
            if self.unnamed {
                name_it(file, &from).map_err(|cause| self.io("give it a name", cause))?;
            }
            fs::rename(from, &to).map_err(|cause| self.io("rename", cause))?;
            self.published.push(to);
        }
        let directory = directory_of(&self.target);
        File::open(directory)
            .and_then(|opened| opened.sync_all())
            .map_err(|cause| io_error(directory, "sync", cause))
    }

    /// Leaves the published files where they are from now on.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    fn next_segment(&mut self) -> Result<(), WriteError> {
        self.sync()?;
        let file = if self.unnamed {
            open_unnamed(directory_of(&self.target))
        } else {
            open_new(&segment(&self.temporary, self.files.len()))
        };
        self.files.push(file.map_err(|cause| self.io("create a segment", cause))?);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        let written = self.files.last_mut().map_or(Ok(()), |file| file.write_all(&self.buffer));
        self.buffer.clear();
        written.map_err(|cause| self.io("write", cause))
    }

    fn io(&self, action: &'static str, cause: io::Error) -> WriteError {
        io_error(&self.target, action, cause)
    }

    fn too_many(&self) -> WriteError {
        WriteError::TooManyBlocks { path: self.target.clone() }
    }
}

impl Drop for SegmentedFile {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Nobody is left to hear of a failure here, and what has been renamed already is not there to remove.
        for number in 0..self.files.len() {
            let _ = fs::remove_file(segment(&self.temporary, number));
        }
        for path in &self.published {
            let _ = fs::remove_file(path);
        }
    }
}

/// Fails if something of that name exists.
pub(super) fn refuse_existing(path: &Path) -> Result<(), WriteError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(WriteError::Exists { path: path.to_path_buf() }),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(io_error(path, "look it up", cause)),
    }
}

/// Counts the segments of the relation `path`: there is another one only behind a full one, whatever else may have a name
/// of that form.
pub(super) fn count_segments(path: &Path, blocks_per_segment: u32) -> usize {
    let full = u64::from(blocks_per_segment) * PAGE as u64;
    let regular = |number| fs::symlink_metadata(segment(path, number)).ok().filter(|meta| meta.is_file());
    let mut count = 0;
    while let Some(meta) = regular(count) {
        count += 1;
        if meta.len() != full {
            break;
        }
    }
    count
}

/// Removes these segments of `path`.
pub(super) fn remove_segments(path: &Path, numbers: Range<usize>) -> Result<(), WriteError> {
    for number in numbers.rev() {
        let old = segment(path, number);
        fs::remove_file(&old).map_err(|cause| io_error(&old, "remove", cause))?;
    }
    Ok(())
}

/// The path of one segment.
fn segment(path: &Path, number: usize) -> PathBuf {
    let mut name = OsString::from(path);
    if number > 0 {
        name.push(format!(".{number}"));
    }
    PathBuf::from(name)
}

/// The directory that a file lies in.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Says whether the file system has files without a name and `/proc` can give them one later.
pub(super) fn can_be_unnamed(directory: &Path) -> bool {
    open_unnamed(directory).is_ok_and(|file| Path::new(&descriptor_path(&file)).exists())
}

fn open_unnamed(directory: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(OFlag::O_TMPFILE.bits()).mode(0o644).open(directory)
}

/// Gives a file without a name one that is not taken.
fn name_it(file: &File, path: &Path) -> io::Result<()> {
    let from = descriptor_path(file);
    Ok(linkat(AT_FDCWD, from.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
}

fn descriptor_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Finds a temporary name that nobody uses and makes the first segment, with that name or to take it later.
fn open_temporary(target: &Path, unnamed: bool) -> Result<(PathBuf, File), WriteError> {
    let name = target.file_name().ok_or_else(|| WriteError::NoFileName { path: target.to_path_buf() })?;
    let mut refused = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..NAME_TRIES {
        let number = NEXT_WRITER.fetch_add(1, Ordering::Relaxed);
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{number}.tmp", std::process::id()));
        let path = directory_of(target).join(temporary);
        let opened = match unnamed {
            true if fs::symlink_metadata(&path).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
            true => open_unnamed(directory_of(target)),
            false => open_new(&path),
        };
        match opened {
            Ok(file) => return Ok((path, file)),
            Err(cause) => refused = cause,
        }
        if refused.kind() != io::ErrorKind::AlreadyExists {
            break;
        }
    }
    Err(io_error(target, "create", refused))
}

fn open_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)
}

fn io_error(path: &Path, action: &'static str, cause: io::Error) -> WriteError {
    WriteError::Io { path: path.to_path_buf(), action, cause }
}
