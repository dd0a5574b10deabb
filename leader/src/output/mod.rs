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
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::signal::Signal;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

mod all;
mod aside;
pub mod same;

pub use all::Outputs;
pub use aside::Aside;

/// A result being written.
pub enum Output {
    /// Standard output.
    Stdout,
    /// A device or a named pipe.
    Special(File, PathBuf),
    /// A file beside the one that it will become.
    Aside(Aside),
}

fn open_special(target: &Path) -> Result<File, Failure> {
    OpenOptions::new().write(true).open(target).map_err(|e| Failure::io("open", target, &e))
}

/// How often a reader of a named pipe, or a signal, is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// Opens a named pipe as soon as somebody reads it. To open it at once would wait for that too, and not be heard to end while signals are caught.
fn open_pipe(target: &Path, caught: &dyn Fn() -> Option<Signal>) -> Result<File, Failure> {
    loop {
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(target);
        match opened {
            Ok(file) => {
                let blocks = fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()));
                return blocks.map(|_| file).map_err(|e| Failure::io("open", target, &e.into()));
            }
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => match caught() {
                Some(signal) => return Err(Failure::Signal(signal)),
                None => std::thread::sleep(LOOK),
            },
            Err(e) => return Err(Failure::io("open", target, &e)),
        }
    }
}

impl Output {
    /// Opens the output: standard output, or a new file beside `target`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(target: Option<&Path>) -> Result<Self, Failure> {
        Self::open_unless(target, &|| None)
    }

    /// The same, unless a signal is `caught` while a named pipe is waited for.
    fn open_unless(target: Option<&Path>, caught: &dyn Fn() -> Option<Signal>) -> Result<Self, Failure> {
        let Some(target) = target else { return Ok(Self::Stdout) };
        if let Ok(meta) = std::fs::metadata(target) {
            if meta.is_dir() {
                return Err(Failure::error(format!("could not create file {target:?}: it is a directory")));
            }
            if !meta.is_file() {
                let is_pipe = meta.file_type().is_fifo();
                let file = if is_pipe { open_pipe(target, caught) } else { open_special(target) }?;
                return Ok(Self::Special(file, target.into()));
            }
        }
        Aside::create(target).map(Self::Aside)
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

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// A full disk, or a reader that is gone: that one ends the program as SIGPIPE would have.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout => std::io::stdout().write_all(bytes).map_err(|e| stdout_error(&e)),
            Self::Special(file, path) => match file.write_all(bytes) {
                Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Failure::Signal(Signal::SIGPIPE)),
                other => other.map_err(|e| Failure::io("write", path, &e)),
            },
            Self::Aside(aside) => aside.write(bytes),
        }
    }

    /// Lets a reader see what was written so far, where there can be one.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Self::Stdout => std::io::stdout().flush().map_err(|e| stdout_error(&e)),
            _ => Ok(()),
        }
    }

    /// Brings what was written to where it can be lost no more.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn sync(&mut self) -> Result<(), Failure> {
        match self {
            Self::Aside(aside) => aside.sync(),
            _ => self.flush(),
        }
    }

    /// Makes the result stay: flushed, or synced and renamed.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn finish(mut self) -> Result<(), Failure> {
        self.sync()?;
        match self {
            Self::Stdout | Self::Special(..) => Ok(()),
            Self::Aside(aside) => aside.publish(),
        }
    }
}

/// Why standard output cannot be written to: a reader that is gone ends the program as SIGPIPE would have.
pub fn stdout_error(e: &std::io::Error) -> Failure {
    if e.kind() == ErrorKind::BrokenPipe {
        return Failure::Signal(Signal::SIGPIPE);
    }
    Failure::error(format!("could not write to standard output: {e}"))
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
