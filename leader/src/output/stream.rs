//! A result that goes to a reader as it is written: standard output, a device, a named pipe.
//!
//! A reader may take nothing for as long as it likes (a pager does). As long as signals are caught, whoever writes to a pipe or a socket waits for the reader
//! and for signals at once, and then writes no more than there is room for: a pipe that can be written to takes PIPE_BUF bytes without a wait.

use crate::failure::Failure;
use crate::signals::Signals;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a reader of a named pipe, or a signal, is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// What a pipe takes at once.
const PIECE: usize = libc::PIPE_BUF;

/// Where what is written is gone.
pub struct Stream {
    file: File,
    /// `None`: standard output.
    path: Option<PathBuf>,
    /// Signals, where it may have to be waited for a reader while they are caught.
    heard: Option<Signals>,
}

impl Stream {
    /// Standard output; signals that are caught end the wait for its reader.
    ///
    /// # Errors
    /// When there are no file descriptors left.
    pub(super) fn stdout(signals: Option<&Signals>) -> Result<Self, Failure> {
        let copy = std::io::stdout().as_fd().try_clone_to_owned().map_err(|e| stdout_error(&e))?;
        Self::new(File::from(copy), None, signals)
    }

    /// A device or a named pipe.
    ///
    /// # Errors
    /// When it cannot be opened, or a signal came while a named pipe had no reader.
    pub(super) fn special(path: &Path, is_pipe: bool, signals: Option<&Signals>) -> Result<Self, Failure> {
        let file = match is_pipe {
            true => open_pipe(path, signals)?,
            false => OpenOptions::new().write(true).open(path).map_err(|e| Failure::io("open", path, &e))?,
        };
        Self::new(file, Some(path.into()), signals)
    }

    fn new(file: File, path: Option<PathBuf>, signals: Option<&Signals>) -> Result<Self, Failure> {
        // What has no type waits for nobody.
        let waits = file.metadata().is_ok_and(|m| m.file_type().is_fifo() || m.file_type().is_socket());
        let heard = signals.filter(|_| waits).map(Signals::again).transpose()?;
        Ok(Self { file, path, heard })
    }

    /// True for standard output.
    pub(super) fn is_stdout(&self) -> bool {
        self.path.is_none()
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(signals) = self.heard.as_ref().filter(|signals| signals.are_caught()) else {
            return self.file.write_all(bytes).map_err(|e| self.error(&e));
        };
        let mut left = bytes;
        while !left.is_empty() {
            let mut waited = [
                PollFd::new(self.file.as_fd(), PollFlags::POLLOUT),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waited, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.map_err(|e| self.error(&e.into()))?,
            };
            let [room, came] = waited.map(|fd| fd.any().unwrap_or(true));
            if came && let Some(signal) = signals.caught() {
                return Err(Failure::Signal(signal));
            }
            if room {
                match self.file.write(&left[..left.len().min(PIECE)]) {
                    Ok(written) => left = &left[written..],
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return Err(self.error(&e)),
                }
            }
        }
        Ok(())
    }

    fn error(&self, e: &std::io::Error) -> Failure {
        match &self.path {
            None => stdout_error(e),
            Some(_) if e.kind() == ErrorKind::BrokenPipe => Failure::Signal(Signal::SIGPIPE),
            Some(path) => Failure::io("write", path, e),
        }
    }
}

/// Opens a named pipe as soon as somebody reads it. To open it at once would wait for that too, and not be heard to end while signals are caught.
fn open_pipe(target: &Path, signals: Option<&Signals>) -> Result<File, Failure> {
    loop {
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(target);
        match opened {
            Ok(file) => {
                let blocks = fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()));
                return blocks.map(|_| file).map_err(|e| Failure::io("open", target, &e.into()));
            }
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => match signals.and_then(Signals::caught) {
                Some(signal) => return Err(Failure::Signal(signal)),
                None => std::thread::sleep(LOOK),
            },
            Err(e) => return Err(Failure::io("open", target, &e)),
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
