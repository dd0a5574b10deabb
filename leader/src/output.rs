//! Where the result goes: a file that appears whole or not at all, or standard output.
//!
//! A name that stands for something else than a file (a device, a named pipe) is written to and stays what it is.

use crate::failure::Failure;
use nix::sys::signal::Signal;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A result being written.
pub enum Output {
    /// Standard output.
    Stdout,
    /// A device or a named pipe.
    Special(File, PathBuf),
    /// A file beside the one that it will become.
    Aside(Aside),
}

/// A file that is not yet where it belongs; removed when dropped.
pub struct Aside {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    done: bool,
}

impl Output {
    /// Opens the output: standard output, or a new file beside `target`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(target: Option<&Path>) -> Result<Self, Failure> {
        let Some(target) = target else { return Ok(Self::Stdout) };
        if let Ok(meta) = std::fs::metadata(target) {
            if meta.is_dir() {
                return Err(Failure::error(format!("could not create file {target:?}: it is a directory")));
            }
            if !meta.is_file() {
                let opened = OpenOptions::new().write(true).open(target);
                let file = opened.map_err(|e| Failure::io("open", target, &e))?;
                return Ok(Self::Special(file, target.into()));
            }
        }
        // Behind a symbolic link it is the file that is replaced, not the link.
        let target = &target.canonicalize().unwrap_or_else(|_| target.into());
        let mut name = std::ffi::OsString::from(".");
        name.push(
            target
                .file_name()
                .ok_or_else(|| Failure::error(format!("output {target:?}: expected a file name")))?,
        );
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = target.with_file_name(name);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&temporary);
        let file = made.map_err(|e| Failure::io("create", target, &e))?;
        Ok(Self::Aside(Aside { file, temporary, target: target.into(), done: false }))
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
            Self::Aside(aside) => {
                aside.file.write_all(bytes).map_err(|e| Failure::io("write", &aside.target, &e))
            }
        }
    }

    /// Makes the result stay: flushed, or synced and renamed.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stdout => std::io::stdout().flush().map_err(|e| stdout_error(&e)),
            Self::Special(..) => Ok(()),
            Self::Aside(mut aside) => {
                aside.file.sync_all().map_err(|e| Failure::io("sync", &aside.target, &e))?;
                let renamed = std::fs::rename(&aside.temporary, &aside.target);
                renamed.map_err(|e| Failure::io("rename to", &aside.target, &e))?;
                aside.done = true;
                let dir =
                    aside.target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                // The name is there; a directory that cannot be synced (some file systems) is not worth an error.
                let _ = File::open(dir).and_then(|d| d.sync_all());
                Ok(())
            }
        }
    }
}

fn stdout_error(e: &std::io::Error) -> Failure {
    if e.kind() == ErrorKind::BrokenPipe {
        return Failure::Signal(Signal::SIGPIPE);
    }
    Failure::error(format!("could not write to standard output: {e}"))
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.temporary);
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
    }
}
