//! Opens FASTA and FASTQ files, whatever they are called and however packed, and explains what is wrong with them.
//!
//! What they are is [`sequence::unpack`]'s to find out; the record parsers are needletail's. An empty last record is an unfinished one to its
//! FASTA parser but a record here, so the parser sees two more line ends behind each file, which mean nothing behind any other record.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use needletail::FastxReader;
use needletail::errors::{ParseError, ParseErrorKind};
use needletail::parser::{FastaReader, FastqReader};
use sequence::Format;
use sequence::unpack::{Source, unpack};

use super::error::ImportError;

/// Opens `path`, or standard input for `-`, as the format that its content says.
pub(super) fn open(path: &Path) -> Result<Box<dyn FastxReader>, ImportError> {
    let source: Source = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|cause| ImportError::io(path, "open", cause))?)
    };
    let unpacked = unpack(path, source)?;
    Ok(match unpacked.format {
        Format::Fasta => Box::new(FastaReader::new(unpacked.text.chain(&b"\n\n"[..]))),
        Format::Fastq => Box::new(FastqReader::new(unpacked.text)),
    })
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

/// Says in our words what the parser found wrong.
pub(super) fn parse_error(path: &Path, record: u64, cause: &ParseError) -> ImportError {
    if cause.kind == ParseErrorKind::Io {
        return ImportError::io(path, "read", io::Error::other(cause.msg.clone()));
    }
    let problem = match cause.kind {
        ParseErrorKind::InvalidStart => "expected > or @ at its start, found something else",
        ParseErrorKind::InvalidSeparator => {
            "expected a line with + behind the sequence, found something else"
        }
        ParseErrorKind::UnequalLengths => "expected as many qualities as bases, found another number",
        ParseErrorKind::UnexpectedEnd => "expected a whole record, found the end of the file",
        _ => "expected a record, found something else",
    };
    let problem = format!("{problem} (line {})", cause.position.line);
    ImportError::Record { path: path.to_path_buf(), record, problem }
}
