//! A result that goes to a reader as it is written: standard output, a device, a named pipe.
//!
//! A reader may take nothing for as long as it likes (a pager does). As long as signals are caught, whoever writes to a pipe, a socket or a terminal waits for
//! the reader and for signals at once, and then writes no more than there is room for: a pipe that can be written to takes PIPE_BUF bytes without a wait.

use crate::failure::Failure;
use crate::signals::Signals;
use crate::standard;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd};
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
    /// When it was closed from the start, or there are no file descriptors left.
    pub(super) fn stdout(signals: Option<&Signals>) -> Result<Self, Failure> {
        Self::new(standard::output()?, None, signals)
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
        let Some(signals) = signals else { return Ok(Self { file, path, heard: None }) };
        let is_terminal = file.is_terminal();
        // What has no type waits for nobody.
        let waits = file.metadata().is_ok_and(|m| m.file_type().is_fifo() || m.file_type().is_socket());
        let heard = (waits || is_terminal).then(|| signals.again()).transpose()?;
        let file = if is_terminal { without_waiting(&file).unwrap_or(file) } else { file };
        Ok(Self { file, path, heard })
    }

    /// True for standard output.
    pub(super) fn is_stdout(&self) -> bool {
        self.path.is_none()
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let hears = self.heard.as_ref().is_some_and(Signals::are_caught);
        let piece = if hears { PIECE } else { usize::MAX };
        let (mut left, mut in_vain) = (bytes, false);
        while !left.is_empty() {
            if hears {
                self.wait()?;
            }
            match self.file.write(&left[..left.len().min(piece)]) {
                Ok(0) => return Err(self.error(&ErrorKind::WriteZero.into())),
                Ok(written) => (left, in_vain) = (&left[written..], false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // Somebody who has it as well may have asked for that.
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    // A terminal may have room for a letter, and not for the two of a line's end.
                    if std::mem::replace(&mut in_vain, true) {
                        std::thread::sleep(LOOK);
                    }
                    self.wait()?;
                }
                Err(e) => return Err(self.error(&e)),
            }
        }
        Ok(())
    }

    /// Waits until something can be written, or a signal is caught.
    fn wait(&self) -> Result<(), Failure> {
        loop {
            let signals = self.heard.as_ref().filter(|signals| signals.are_caught());
            let mut waited = vec![PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
            waited.extend(signals.map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
            match poll(&mut waited, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.map_err(|e| self.error(&e.into()))?,
            };
            if let Some(signal) = signals.and_then(Signals::caught) {
                return Err(Failure::Signal(signal));
            }
            if waited[0].any().unwrap_or(true) {
                return Ok(());
            }
        }
    }

    fn error(&self, e: &std::io::Error) -> Failure {
        match &self.path {
            None => stdout_error(e),
            Some(_) if e.kind() == ErrorKind::BrokenPipe => Failure::Signal(Signal::SIGPIPE),
            Some(path) => Failure::io("write", path, e),
        }
    }
}

/// The same terminal, opened once more by us alone: one that is stopped takes less than it says that there is room for.
fn without_waiting(terminal: &File) -> Option<File> {
    let again = format!("/proc/self/fd/{}", terminal.as_raw_fd());
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(again).ok()
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
