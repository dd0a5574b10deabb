//! Text out of packed files: gzip (bgzf is gzip in many members), zstd, xz, by the libraries that are kept for them.
//!
//! A file may be several packed ones in a row, as `cat a.gz b.gz` makes them. One that is cut off is an error, never a shorter text. Zeros behind
//! the last gzip member fill up a block of a tape, as gzip itself takes them. The blocks of a bgzf file are whole gzip members, so nothing but the block
//! without text at its end (section 4.1.2 of the SAM specification) tells that none is missing.

use crate::error::{Error, Result};
use crate::format::{Format, MAGIC, Packing, format, packing};
use flate2::bufread::GzDecoder;
use std::io::{BufRead, BufReader, Cursor, Read};
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
            let packed = BufReader::with_capacity(BUFFER, source);
            Box::new(Members { member: Some(GzDecoder::new(packed)), bytes: 0, bgzf_open: false })
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

/// The members of a gzip file, one after the other.
struct Members<R> {
    member: Option<GzDecoder<R>>,
    /// Bytes of text of this member so far.
    bytes: u64,
    /// The member before this one was a block of bgzf with text, so another block must follow.
    bgzf_open: bool,
}

impl<R: BufRead> Members<R> {
    /// Looks at the member that has ended.
    fn end_member(&mut self) -> std::io::Result<()> {
        let extra = self.member.as_ref().and_then(|member| member.header()?.extra());
        let is_bgzf = extra.is_some_and(|extra| extra.starts_with(b"BC\x02\0"));
        if self.bgzf_open && !is_bgzf {
            return Err(cut_off());
        }
        self.bgzf_open = is_bgzf && self.bytes > 0;
        self.bytes = 0;
        Ok(())
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(into)?;
            self.bytes += read as u64;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            self.end_member()?;
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            let zeros = skip_zeros(&mut rest)?;
            if !rest.fill_buf()?.is_empty() {
                if zeros > 0 {
                    let text =
                        format!("expected the end or a gzip member, found other bytes behind {zeros} zeros");
                    return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
                }
                self.member = Some(GzDecoder::new(rest));
            } else if self.bgzf_open {
                return Err(cut_off());
            }
        }
        Ok(0)
    }
}

fn cut_off() -> std::io::Error {
    let text = "expected the empty block that ends a bgzf file, found none: it is cut off";
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, text)
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

/// Reads the first bytes and gives them back with a reader that begins with them.
fn peek(path: &Path, action: &'static str, mut source: Source) -> Result<(Vec<u8>, Source)> {
    let mut magic = Vec::with_capacity(MAGIC);
    let read = source.by_ref().take(MAGIC as u64).read_to_end(&mut magic);
    read.map_err(|e| Error::io(path, action, e))?;
    Ok((magic.clone(), Box::new(Cursor::new(magic).chain(source))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, GzBuilder};
    use std::io::Write;

    fn member(text: &str, extra: Option<&[u8]>) -> Vec<u8> {
        let builder = extra.map_or_else(GzBuilder::new, |extra| GzBuilder::new().extra(extra));
        let mut packer = builder.write(Vec::new(), Compression::fast());
        packer.write_all(text.as_bytes()).and_then(|()| packer.finish()).expect("in memory")
    }

    fn gzip(text: &str) -> Vec<u8> {
        member(text, None)
    }

    /// The size in the extra field is nothing that is looked at.
    fn block(text: &str) -> Vec<u8> {
        member(text, Some(b"BC\x02\0\x1b\0"))
    }

    fn text_of(parts: &[Vec<u8>]) -> std::io::Result<String> {
        let unpacked =
            unpack(Path::new("x"), Box::new(Cursor::new(parts.concat()))).map_err(std::io::Error::other)?;
        let mut text = String::new();
        unpacked.text.take(1 << 20).read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn files_in_a_row_are_whole_each() {
        let (first, second, end, zeros) = (">a\nAC\n", ">b\nGT\n", block(""), vec![0; 700]);
        let both = format!("{first}{second}");
        for parts in [
            vec![gzip(first), gzip(second), zeros.clone()],
            vec![block(first), block(second), end.clone()],
            vec![block(first), block(second), end.clone(), zeros.clone()],
            vec![block(first), end.clone(), block(second), end.clone()],
            vec![block(first), end.clone(), gzip(second)],
            vec![gzip(first), block(second), end.clone(), zeros.clone()],
        ] {
            assert_eq!(text_of(&parts).expect("whole"), both);
        }
        for parts in [
            vec![block(first), block(second)],
            vec![block(first), block(second), zeros],
            vec![block(first), gzip(second)],
            vec![block(first), gzip(second), end],
            vec![gzip(first), block(second)],
        ] {
            let told = text_of(&parts).expect_err("cut off").to_string();
            assert!(told.contains("empty block that ends a bgzf file"), "{told}");
        }
    }
}
