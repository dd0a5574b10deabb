//! Where the result goes: a file that appears whole or not at all, or standard output.
//!
//! While it is written the file has no name (O_TMPFILE), so that it goes with this process whatever becomes of that; where the file system cannot do
//! that it is called `.FILE.PID.tmp`, as it is for the moment between `linkat` and `rename` when it replaces a file. It is locked as long as its
//! process lives, so that the next run with the same output knows what a process that was killed left under such a name, and removes it: process
//! ids come again, and are others in another container.
//!
//! Where a run writes several files all of them are synced before the first one appears. Then they appear one after the other, the result last.
//!
//! A name that stands for something else than a file (a device, a named pipe) is written to and stays what it is.

use crate::failure::Failure;
use crate::signals::Signals;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

mod all;
mod aside;
pub mod same;
mod stream;

pub use all::Outputs;
pub use aside::Aside;
pub use stream::{Stream, stdout_error};

/// A result being written.
pub enum Output {
    /// Standard output, a device or a named pipe.
    Stream(Stream),
    /// A file beside the one that it will become.
    Aside(Aside),
}

impl Output {
    /// Opens the output: standard output, which is also `-`, or a new file beside `target`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(target: Option<&Path>) -> Result<Self, Failure> {
        Self::open_heard(target, None)
    }

    /// The same, where signals are caught: one of them ends the wait for a reader.
    fn open_heard(target: Option<&Path>, signals: Option<&Signals>) -> Result<Self, Failure> {
        let Some(target) = target.filter(|target| *target != Path::new(same::STDOUT)) else {
            return Stream::stdout(signals).map(Self::Stream);
        };
        if let Ok(meta) = std::fs::metadata(target) {
            if meta.is_dir() {
                return Err(Failure::error(format!("could not create file {target:?}: it is a directory")));
            }
            if !meta.is_file() {
                let is_pipe = meta.file_type().is_fifo();
                return Stream::special(target, is_pipe, signals).map(Self::Stream);
            }
        }
        Aside::create(target).map(Self::Aside)
    }

    /// True for standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.is_stdout())
    }

    /// True when nothing would be left of the result if this process ended now.
    pub fn leaves_nothing(&self) -> bool {
        !matches!(self, Self::Aside(aside) if aside.is_named())
    }

    /// True for a file, which nobody sees before it is finished.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::Aside(_))
    }

    /// Takes back all that was written.
    ///
    /// # Errors
    /// When that is no file, or cannot be changed.
    pub fn restart(&mut self) -> Result<(), Failure> {
        match self {
            Self::Aside(aside) => aside.restart(),
            _ => {
                let text = "output: expected a file, which can be written anew, found another thing";
                Err(Failure::error(text))
            }
        }
    }

    /// Lets the disk begin with bytes that were written, as far as it is known how.
    pub fn send_on(&self, from: u64, len: u64) {
        if let Self::Aside(aside) = self {
            aside.send_on(from, len);
        }
    }

    /// Writes all of `bytes`; a reader sees them at once, where there can be one.
    ///
    /// # Errors
    /// A full disk, or a reader that is gone: that one ends the program as SIGPIPE would have. A signal while a reader is waited for.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stream(stream) => stream.write(bytes),
            Self::Aside(aside) => aside.write(bytes),
        }
    }

    /// Brings what was written to where it can be lost no more.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn sync(&mut self) -> Result<(), Failure> {
        match self {
            Self::Aside(aside) => aside.sync(),
            Self::Stream(_) => Ok(()),
        }
    }

    /// Makes the result stay: synced and renamed.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn finish(mut self) -> Result<(), Failure> {
        self.sync()?;
        match self {
            Self::Stream(_) => Ok(()),
            Self::Aside(aside) => aside.publish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_at_the_end_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("out.tsv");
        let mut output = Output::open(Some(&target)).expect("made");
        output.write(b"half").expect("room");
        assert!(!target.exists());
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0, "something was left");
        let mut output = Output::open(Some(&target)).expect("made");
        output.write(b"whole").expect("room");
        output.finish().expect("renamed");
        assert_eq!(std::fs::read(&target).expect("there"), b"whole");
        // Again, over the file that is there now, and with something of a dead process beside it.
        let left = dir.path().join(".out.tsv.4194305.tmp");
        std::fs::write(&left, "left").expect("written");
        let mut output = Output::open(Some(&target)).expect("made");
        assert!(!left.exists(), "no process has that number");
        output.write(b"new").expect("room");
        assert_eq!(std::fs::read(&target).expect("there"), b"whole");
        output.finish().expect("renamed");
        assert_eq!(std::fs::read(&target).expect("there"), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1, "something was left");
    }
}
