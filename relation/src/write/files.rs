//! Writes a relation's pages into segment files that get their names only when all is complete.
//!
//! Segment 0 of `FILE` is `FILE`, segment N is `FILE.N`. While being written they have no name at all (O_TMPFILE), so that
//! the kernel removes them whatever becomes of the process; where the file system cannot do that they have their temporary
//! names from the start, opened with O_EXCL. How they come to their own names is [`super::exchange`]'s to know.
//!
//! Each segment keeps its file descriptor until the end: one for each GiB.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;

use super::WriteOptions;
use super::error::WriteError;
use super::exchange::{Names, is_there, lock};
use super::page::{PAGE, PageBuilder};
use crate::checksum::page_checksum;
use crate::file::segment_path;

/// Bytes gathered before a write.
const BUFFER: usize = 128 * PAGE;
/// So many segments behind a relation's last one are looked for by its readers, who take one there for the remains of a longer relation.
const LOOKED_FOR: usize = 9;

/// A new file that is not yet called what it will be.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) target: PathBuf,
    pub(super) file: File,
    unnamed: bool,
}

/// How new files are made.
#[derive(Debug, Clone)]
pub(super) struct Making {
    unnamed: bool,
    /// The mode of those that replace nothing: that of the relation's first file, if one is replaced.
    mode: Option<Permissions>,
    overwrite: bool,
}

impl Making {
    pub(super) fn new(first: &Path, options: &WriteOptions) -> Self {
        Self {
            unnamed: options.unnamed && can_be_unnamed(directory_of(first)),
            mode: mode_of(first).filter(|_| options.overwrite),
            overwrite: options.overwrite,
        }
    }

    pub(super) fn is_unnamed(&self) -> bool {
        self.unnamed
    }

    /// Makes the file that is to become `target`.
    pub(super) fn make(&self, target: &Path, names: &Names) -> Result<Staged, WriteError> {
        let temporary = names.temporary(target);
        // A name that is too long is found now, and not when all is written.
        let made = match fs::symlink_metadata(&temporary) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
            Err(_) if self.unnamed => open_unnamed(directory_of(target)),
            Err(_) => open_new(&temporary),
        };
        let file = made.map_err(|cause| io_error(target, "create", cause))?;
        lock(&file);
        // Who may read the one that is replaced may read the new one. Where that cannot be had (some file systems have no modes) it is as any new file.
        let old = mode_of(target).filter(|_| self.overwrite);
        if let Some(mode) = old.or_else(|| self.mode.clone()) {
            let _ = file.set_permissions(mode);
        }
        Ok(Staged { target: target.to_path_buf(), file, unnamed: self.unnamed })
    }
}

impl Staged {
    /// Gives it its temporary name.
    pub(super) fn name(&self, names: &Names) -> Result<(), WriteError> {
        if !self.unnamed {
            return Ok(());
        }
        let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let to = names.temporary(&self.target);
        linkat(AT_FDCWD, from.as_str(), AT_FDCWD, &to, AtFlags::AT_SYMLINK_FOLLOW)
            .map_err(|cause| io_error(&self.target, "give it a name", cause.into()))
    }

    /// Writes all of a small file.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(bytes).map_err(|cause| io_error(&self.target, "write", cause))?;
        self.file.sync_all().map_err(|cause| io_error(&self.target, "sync", cause))
    }
}

/// A relation being written: a row of segment files.
#[derive(Debug)]
pub(super) struct SegmentedFile {
    target: PathBuf,
    making: Making,
    /// All segments so far; the last one is being written.
    files: Vec<Staged>,
    buffer: Vec<u8>,
    /// Pages appended, buffered ones included.
    blocks: u32,
    blocks_per_segment: u32,
    checksums: bool,
}

impl SegmentedFile {
    /// Opens the first segment.
    pub(super) fn create(
        target: &Path,
        options: &WriteOptions,
        making: &Making,
        names: &Names,
    ) -> Result<Self, WriteError> {
        old_segments(target, 1, options)?;
        Ok(Self {
            target: target.to_path_buf(),
            making: making.clone(),
            files: vec![making.make(target, names)?],
            buffer: Vec::with_capacity(BUFFER),
            blocks: 0,
            blocks_per_segment: options.blocks_per_segment,
            checksums: options.checksums,
        })
    }

    /// The number of pages so far; also the number of the block that comes next.
    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Takes a filled page as the next block and empties it for the one after.
    pub(super) fn append(&mut self, page: &mut PageBuilder, names: &Names) -> Result<(), WriteError> {
        // Block number 2^32 - 1 means "no block" to the server.
        let next = self.blocks.checked_add(1).ok_or_else(|| self.too_many())?;
        if self.blocks > 0 && self.blocks.is_multiple_of(self.blocks_per_segment) {
            self.next_segment(names)?;
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
        let last = self.files.last();
        last.map_or(Ok(()), |staged| staged.file.sync_all()).map_err(|cause| self.io("sync", cause))
    }

    /// The segments, the first one first.
    pub(super) fn into_files(self) -> Vec<Staged> {
        self.files
    }

    fn next_segment(&mut self, names: &Names) -> Result<(), WriteError> {
        self.sync()?;
        self.files.push(self.making.make(&segment_path(&self.target, self.files.len()), names)?);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        let last = self.files.last_mut();
        let written = last.map_or(Ok(()), |staged| staged.file.write_all(&self.buffer));
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

/// Looks at the files that stand where a relation of `new` segments is to be: what it replaces, the first one first.
///
/// A file with the name of a segment that the old relation cannot have had is in the way. Without `overwrite` all are.
pub(super) fn old_segments(
    path: &Path,
    new: usize,
    options: &WriteOptions,
) -> Result<Vec<PathBuf>, WriteError> {
    replaceable(path, options.overwrite)?;
    let old = if options.overwrite { count_segments(path, options.blocks_per_segment) } else { 0 };
    if old.max(new) > 0 {
        // A reader would take it for a part of ours.
        let behind = (old.max(1)..=old.max(new) + LOOKED_FOR).map(|number| segment_path(path, number));
        if let Some(path) = behind.into_iter().find(|path| is_there(path)) {
            return Err(WriteError::Stray { path });
        }
    }
    Ok((0..old).map(|number| segment_path(path, number)).collect())
}

/// Fails if something of that name exists, or exists and cannot be replaced. Says whether something does.
pub(super) fn replaceable(path: &Path, overwrite: bool) -> Result<bool, WriteError> {
    let found = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() && overwrite => return Ok(true),
        Ok(meta) if meta.is_file() => return Err(WriteError::Exists { path: path.to_path_buf() }),
        Ok(meta) if meta.is_dir() => "a directory",
        Ok(meta) if meta.is_symlink() => "a symbolic link",
        Ok(_) => "a pipe, socket or device",
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(cause) => return Err(io_error(path, "look it up", cause)),
    };
    Err(WriteError::NoFile { path: path.to_path_buf(), found })
}

/// Counts the segments of the relation `path`: there is another one only behind a full one, or empty ones, which truncation
/// leaves. Whatever else may have a name of that form is none.
fn count_segments(path: &Path, blocks_per_segment: u32) -> usize {
    let full = u64::from(blocks_per_segment) * PAGE as u64;
    let regular =
        |number| fs::symlink_metadata(segment_path(path, number)).ok().filter(|meta| meta.is_file());
    let (mut count, mut is_full) = (0, true);
    while let Some(meta) = regular(count).filter(|meta| is_full || meta.len() == 0) {
        is_full = meta.len() == full;
        count += 1;
    }
    count
}

/// The directory that a file lies in.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn mode_of(path: &Path) -> Option<Permissions> {
    let mode = fs::symlink_metadata(path).ok()?.permissions().mode();
    Some(Permissions::from_mode(mode & 0o7777))
}

/// Says whether the file system has files without a name and `/proc` can give them one later.
pub(super) fn can_be_unnamed(directory: &Path) -> bool {
    let path = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    open_unnamed(directory).is_ok_and(|file| Path::new(&path(&file)).exists())
}

fn open_unnamed(directory: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(OFlag::O_TMPFILE.bits()).mode(0o644).open(directory)
}

fn open_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)
}

pub(super) fn io_error(path: &Path, action: &'static str, cause: io::Error) -> WriteError {
    WriteError::Io { path: path.to_path_buf(), action, cause }
}
