//! Opens FASTA and FASTQ files, whatever they are called and however packed, and explains what is wrong with them.
//!
//! What they are is [`sequence::unpack`]'s to find out. FASTA is cut into records by needletail. An empty last record is an unfinished one to its
//! parser but a record here, so the parser sees two more line ends behind each file, which mean nothing behind any other record.
//!
//! Where signals are held, one of them ends the wait for input.

use std::fs::{File, OpenOptions};
use std::io::{self, Chain, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use needletail::FastxReader;
use needletail::errors::{ParseError, ParseErrorKind};
use needletail::parser::FastaReader;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sequence::Format;
use sequence::unpack::{Source, unpack};

use super::error::ImportError;
use super::fastq::Fastq;
use crate::signals::Signals;
use crate::standard;

/// A record.
pub(super) struct Record<'a> {
    /// Its first line without what it begins with.
    pub(super) header: &'a [u8],
    /// Its letters, with line ends but the last.
    pub(super) lines: &'a [u8],
}

/// What records are cut from.
pub(super) enum Records {
    /// FASTA.
    Fasta(FastaReader<Chain<Source, &'static [u8]>>),
    /// FASTQ.
    Fastq(Fastq),
}

impl Records {
    /// Opens `path`, or standard input for `-`, as the format that its content says.
    pub(super) fn open(path: &Path, signals: Signals) -> Result<Self, ImportError> {
        let opened = if path == Path::new("-") {
            standard::input()
        } else {
            // A named pipe is open at once, and waited for where signals are heard.
            OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
        };
        let file = opened.map_err(|cause| ImportError::io(path, "open", cause))?;
        let unpacked = unpack(path, Box::new(Heard { file, signals }))?;
        Ok(match unpacked.format {
            Format::Fasta => Self::Fasta(FastaReader::new(unpacked.text.chain(&b"\n\n"[..]))),
            Format::Fastq => Self::Fastq(Fastq::new(unpacked.text)),
        })
    }

    /// Hands the next record, which is number `record` of `path`, to `take`. Says whether there was one.
    pub(super) fn next(
        &mut self,
        path: &Path,
        record: u64,
        take: &mut dyn FnMut(&Record<'_>) -> Result<(), ImportError>,
    ) -> Result<bool, ImportError> {
        match self {
            Self::Fasta(reader) => match reader.next() {
                None => Ok(false),
                Some(Err(cause)) => Err(parse_error(path, record, &cause)),
                Some(Ok(parsed)) => {
                    let found = Record { header: parsed.id(), lines: parsed.raw_seq() };
                    take(&found).map(|()| true)
                }
            },
            Self::Fastq(reader) => match reader.next(path, record)? {
                None => Ok(false),
                Some(found) => take(&found).map(|()| true),
            },
        }
    }
}

/// A file that is read until a signal comes that is held.
struct Heard {
    file: File,
    signals: Signals,
}

impl Read for Heard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = [
                PollFd::new(self.file.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            while poll(&mut ready, PollTimeout::NONE) == Err(Errno::EINTR) {}
            if ready[1].any() == Some(true) {
                return Err(io::Error::other("a signal came"));
            }
            match self.file.read(buffer) {
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

/// The name in a header: its first word.
pub(super) fn name<'a>(path: &Path, record: u64, header: &'a [u8]) -> Result<&'a str, ImportError> {
    let refuse = |problem: String| ImportError::Record { path: path.to_path_buf(), record, problem };
    // A file with carriage returns for line ends is one header to the parser: its bases must not vanish.
    if header.contains(&b'\r') {
        return Err(refuse("expected a header line, found a carriage return in it".to_owned()));
    }
    let word = header.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    match std::str::from_utf8(word) {
        Ok(name) if !name.contains('\0') => Ok(name),
        _ => Err(refuse(format!("expected a name in UTF-8, found \"{}\"", word.escape_ascii()))),
    }
}

/// Says in our words what the parser of FASTA found wrong.
fn parse_error(path: &Path, record: u64, cause: &ParseError) -> ImportError {
    if cause.kind == ParseErrorKind::Io {
        return ImportError::io(path, "read", io::Error::other(cause.msg.clone()));
    }
    let problem = match cause.kind {
        ParseErrorKind::InvalidStart => "expected > or @ at its start, found something else",
        ParseErrorKind::UnexpectedEnd => "expected a whole record, found the end of the file",
        _ => "expected a record, found something else",
    };
    let problem = format!("{problem} (line {})", cause.position.line);
    ImportError::Record { path: path.to_path_buf(), record, problem }
}
