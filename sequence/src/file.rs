//! A sequence file that is read where it lies, by `pread`.
//!
//! Promises: its size is fixed when it is opened, and one that ends earlier later on is an error, never a short answer;
//! [`SequenceFile::check_unchanged`] finds what else was done to it in the meantime. Reads need no lock and no seek.

use crate::error::{Error, Result};
use crate::format::{Format, MAGIC, Packing, format, packing};
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Somewhere that text can be read from at any place.
pub trait Text {
    /// Bytes of the text.
    fn len(&self) -> u64;
    /// True when there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `into` from byte `offset` on; the bytes are there.
    ///
    /// # Errors
    /// What the system says, or that the file became shorter.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()>;
    /// The file, for messages.
    fn path(&self) -> &Path;
    /// Where the text begins that is there: not at 0 if it is a piece of a longer one.
    fn begin(&self) -> u64 {
        0
    }
}

/// An open sequence file.
#[derive(Debug)]
pub struct SequenceFile {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    packing: Packing,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl SequenceFile {
    /// Opens a file, packed or not.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] when it is no regular file.
    pub fn open(path: &Path) -> Result<Self> {
        // Looked at before it is opened: to open a named pipe would wait for somebody who writes to it, and take what that one writes.
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, "open", e))?;
        if !meta.is_file() {
            let found = if meta.is_dir() { "a directory" } else { "no regular file" };
            let unpack = (!meta.is_dir()).then_some("cat");
            return Err(Error::Format { path: path.to_path_buf(), found, unpack });
        }
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, "look at", e))?;
        let stamp = Stamp::of(&meta);
        let mut file = Self { path: path.to_path_buf(), file, stamp, packing: Packing::Plain };
        file.packing = packing(&file.magic()?);
        Ok(file)
    }

    fn magic(&self) -> Result<Vec<u8>> {
        let mut magic = vec![0; MAGIC.min(self.stamp.size as usize)];
        self.read_at(0, &mut magic)?;
        Ok(magic)
    }

    /// How the text is packed.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// The format of a file that is not packed.
    ///
    /// # Errors
    /// [`Error::Format`] when it is none.
    pub fn format(&self) -> Result<Format> {
        format(&self.path, &self.magic()?)
    }

    /// A number that changes when the file does: of device, inode, size and modification time.
    pub fn fingerprint(&self) -> u64 {
        let Stamp { dev, ino, size, mtime: (seconds, nanos) } = self.stamp;
        [dev, ino, size, seconds as u64, nanos as u64]
            .iter()
            .flat_map(|part| part.to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// Looks whether the file, by its name, is still what it was.
    ///
    /// # Errors
    /// [`Error::Changed`] when not.
    pub fn check_unchanged(&self) -> Result<()> {
        let now = std::fs::metadata(&self.path).map(|meta| Stamp::of(&meta));
        if now.is_ok_and(|now| now == self.stamp) {
            return Ok(());
        }
        Err(Error::Changed { path: self.path.clone() })
    }
}

impl Text for SequenceFile {
    fn len(&self) -> u64 {
        self.stamp.size
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(into, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::Changed { path: self.path.clone() },
            _ => Error::io(&self.path, "read", e),
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// Text in memory.
#[derive(Clone, Copy, Debug)]
pub struct InMemory<'a> {
    /// The text.
    pub text: &'a [u8],
    /// Where it is from, for messages.
    pub path: &'a Path,
}

impl Text for InMemory<'_> {
    fn len(&self) -> u64 {
        self.text.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let from = offset as usize;
        match self.text.get(from..from + into.len()) {
            Some(text) => into.copy_from_slice(text),
            None => return Err(Error::Changed { path: self.path.to_path_buf() }),
        }
        Ok(())
    }

    fn path(&self) -> &Path {
        self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_is_found_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("reads");
        std::fs::write(&path, ">a\nACGT\n").expect("written");
        let file = SequenceFile::open(&path).expect("opens");
        assert_eq!((file.len(), file.format().expect("FASTA")), (8, Format::Fasta));
        file.check_unchanged().expect("unchanged");
        let other = SequenceFile::open(&path).expect("opens").fingerprint();
        assert_eq!(file.fingerprint(), other);
        std::fs::write(&path, ">a\n").expect("written");
        assert!(matches!(file.check_unchanged(), Err(Error::Changed { .. })));
        assert!(matches!(file.read_at(0, &mut [0; 8]), Err(Error::Changed { .. })));
        assert_ne!(SequenceFile::open(&path).expect("opens").fingerprint(), other);
    }

    #[test]
    fn what_is_no_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = SequenceFile::open(dir.path()).expect_err("a directory").to_string();
        assert!(text.contains("found a directory"), "{text}");
        assert!(
            SequenceFile::open(&dir.path().join("none"))
                .expect_err("none")
                .to_string()
                .contains("could not open")
        );
    }
}
