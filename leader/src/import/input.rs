//! Opens FASTA and FASTQ files, whatever they are called, and explains what is wrong with them.
//!
//! The record parsers are needletail's. An empty last record is an unfinished one to its FASTA parser but a record here, so
//! the parser sees two more line ends behind each file, which mean nothing behind any other record.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use needletail::FastxReader;
use needletail::errors::{ParseError, ParseErrorKind};
use needletail::parser::{FastaReader, FastqReader};

use super::error::ImportError;

/// Bytes that tell formats apart.
const MAGIC: usize = 6;
/// Compressions that are recognised but not read: first bytes, name, program to unpack.
const FOREIGN: [(&[u8], &str, &str); 5] = [
    (b"\xFD7zXZ\0", "an xz file", "xz -dc"),
    (b"BZh", "a bzip2 file", "bzip2 -dc"),
    (b"\x28\xB5\x2F\xFD", "a zstd file", "zstd -dc"),
    (b"PK\x03\x04", "a zip file", "unzip -p"),
    (b"BAM\x01", "a BAM file", "samtools fasta"),
];

/// Opens `path`, or standard input for `-`, as the format that its content says.
pub(super) fn open(path: &Path) -> Result<Box<dyn FastxReader>, ImportError> {
    let source: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|cause| ImportError::io(path, "open", cause))?)
    };
    let (magic, source) = peek(path, source)?;
    if !magic.starts_with(b"\x1F\x8B") {
        return parser(path, &magic, source);
    }
    let (magic, source) = peek(path, Box::new(MultiGzDecoder::new(source)))?;
    parser(path, &magic, source)
}

/// Reads the first bytes and gives them back with a reader that begins with them.
fn peek(
    path: &Path,
    mut source: Box<dyn Read + Send>,
) -> Result<(Vec<u8>, Box<dyn Read + Send>), ImportError> {
    let mut magic = Vec::with_capacity(MAGIC);
    let read = source.by_ref().take(MAGIC as u64).read_to_end(&mut magic);
    read.map_err(|cause| ImportError::io(path, "read", cause))?;
    Ok((magic.clone(), Box::new(Cursor::new(magic).chain(source))))
}

fn parser(
    path: &Path,
    magic: &[u8],
    source: Box<dyn Read + Send>,
) -> Result<Box<dyn FastxReader>, ImportError> {
    match magic.first() {
        Some(b'>') => Ok(Box::new(FastaReader::new(source.chain(&b"\n\n"[..])))),
        Some(b'@') => Ok(Box::new(FastqReader::new(source))),
        first => {
            let foreign = FOREIGN.iter().find(|(start, ..)| magic.starts_with(start));
            let (found, unpack) = match (first, foreign) {
                (None, _) => ("an empty file", None),
                (_, Some(&(_, name, unpack))) => (name, Some(unpack)),
                (_, None) => ("neither > nor @ at its start", None),
            };
            Err(ImportError::Format { path: path.to_path_buf(), found, unpack })
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
