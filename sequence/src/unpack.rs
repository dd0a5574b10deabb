//! Text out of packed files: gzip (bgzf is gzip in many members), zstd, xz, by the libraries that are kept for them.
//!
//! A file may be several packed ones in a row, as `cat a.gz b.gz` makes them. One that is cut off is an error, never a shorter text. Zeros behind
//! the last gzip member fill up a block of a tape, as gzip itself takes them.

use crate::error::{Error, Result};
use crate::format::{Format, MAGIC, Packing, format, packing};
use flate2::bufread::GzDecoder;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

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
            let end = Arc::new(Mutex::new(End::default()));
            let packed = Watched { source, end: Arc::clone(&end) };
            let packed = BufReader::with_capacity(BUFFER, packed);
            Box::new(Ended { text: Members(Some(GzDecoder::new(packed))), end })
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
    let format = format(path, &magic).map_err(|error| match error {
        // The command would be for the text, which is no file; but samtools unpacks by itself.
        Error::Format { path, found, unpack } => {
            Error::Format { path, found, unpack: unpack.filter(|command| command.starts_with("samtools")) }
        }
        other => other,
    })?;
    Ok(Unpacked { text, format })
}

/// The block without text that ends a bgzf file (section 4.1.2 of the SAM specification).
const BGZF_END: [u8; 28] =
    [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, b'B', b'C', 2, 0, 0x1b, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The first and the last bytes of a packed text, as far as it was read. Blocks of bgzf are whole gzip files, so nothing else tells that some are missing.
#[derive(Default)]
struct End {
    first: Vec<u8>,
    last: Vec<u8>,
}

impl End {
    fn add(&mut self, bytes: &[u8]) {
        let wanted = 16usize.saturating_sub(self.first.len());
        self.first.extend(bytes.iter().take(wanted));
        self.last.extend(&bytes[bytes.len().saturating_sub(BGZF_END.len())..]);
        self.last.drain(..self.last.len().saturating_sub(BGZF_END.len()));
    }

    /// Whether it begins as bgzf and does not end as such.
    fn is_cut_off(&self) -> bool {
        let is_bgzf = self.first.get(3).is_some_and(|flags| flags & 4 != 0)
            && self.first.get(12..16) == Some(b"BC\x02\0");
        is_bgzf && self.last != BGZF_END
    }
}

/// What is packed, watched for how it begins and ends.
struct Watched {
    source: Source,
    end: Arc<Mutex<End>>,
}

impl Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.source.read(into)?;
        self.end.lock().unwrap_or_else(PoisonError::into_inner).add(&into[..read]);
        Ok(read)
    }
}

/// The members of a gzip file, one after the other.
struct Members<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let read = member.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            let Some(mut rest) = self.0.take().map(GzDecoder::into_inner) else { break };
            let zeros = skip_zeros(&mut rest)?;
            if !rest.fill_buf()?.is_empty() {
                if zeros > 0 {
                    let text =
                        format!("expected the end or a gzip member, found other bytes behind {zeros} zeros");
                    return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
                }
                self.0 = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

/// Reads over bytes that are zero; says how many.
fn skip_zeros(from: &mut impl BufRead) -> std::io::Result<u64> {
    let mut skipped = 0;
    loop {
        let bytes = from.fill_buf()?;
        let (zeros, len) = (bytes.iter().take_while(|byte| **byte == 0).count(), bytes.len());
        from.consume(zeros);
        skipped += zeros as u64;
        if zeros == 0 || zeros < len {
            return Ok(skipped);
        }
    }
}

/// What was packed; its end is one only if that of the packed bytes is.
struct Ended<R> {
    text: R,
    end: Arc<Mutex<End>>,
}

impl<R: Read> Read for Ended<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.text.read(into)?;
        if read == 0
            && !into.is_empty()
            && self.end.lock().unwrap_or_else(PoisonError::into_inner).is_cut_off()
        {
            let text = "expected the empty block that ends a bgzf file, found none: it is cut off";
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, text));
        }
        Ok(read)
    }
}

/// Reads the first bytes and gives them back with a reader that begins with them.
fn peek(path: &Path, action: &'static str, mut source: Source) -> Result<(Vec<u8>, Source)> {
    let mut magic = Vec::with_capacity(MAGIC);
    let read = source.by_ref().take(MAGIC as u64).read_to_end(&mut magic);
    read.map_err(|e| Error::io(path, action, e))?;
    Ok((magic.clone(), Box::new(Cursor::new(magic).chain(source))))
}
