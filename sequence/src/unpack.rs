//! Text out of packed files: gzip (bgzf is gzip in many members), zstd, xz, by the libraries that are kept for them.
//!
//! A file may be several packed ones in a row, as `cat a.gz b.gz` makes them. One that is cut off is an error, never a shorter text.

use crate::error::{Error, Result};
use crate::format::{Format, MAGIC, Packing, format, packing};
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

/// Bytes that are read of a packed file at a time.
const BUFFER: usize = 1 << 18;

/// Where bytes come from.
pub type Source = Box<dyn Read + Send>;

/// The text of a file or a stream, and its format.
pub struct Unpacked {
    /// The text.
    pub text: Source,
    /// Its format.
    pub format: Format,
}

/// Unpacks what `source` gives, if it is packed; `path` is for messages.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] when the text is neither FASTA nor FASTQ.
pub fn unpack(path: &Path, source: Source) -> Result<Unpacked> {
    let (magic, source) = peek(path, "read", source)?;
    let text: Source = match packing(&magic) {
        Packing::Plain => {
            let format = format(path, &magic)?;
            return Ok(Unpacked { text: source, format });
        }
        Packing::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, source)))
        }
        Packing::Zstd => Box::new(
            zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(BUFFER, source))
                .map_err(|e| Error::io(path, "unpack", e))?,
        ),
        Packing::Xz => {
            Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(BufReader::with_capacity(BUFFER, source)))
        }
    };
    let (magic, text) = peek(path, "unpack", text)?;
    Ok(Unpacked { text, format: format(path, &magic)? })
}

/// Reads the first bytes and gives them back with a reader that begins with them.
fn peek(path: &Path, action: &'static str, mut source: Source) -> Result<(Vec<u8>, Source)> {
    let mut magic = Vec::with_capacity(MAGIC);
    let read = source.by_ref().take(MAGIC as u64).read_to_end(&mut magic);
    read.map_err(|e| Error::io(path, action, e))?;
    Ok((magic.clone(), Box::new(Cursor::new(magic).chain(source))))
}
