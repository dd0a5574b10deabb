//! Tells by the first bytes of a file what it is: names mean nothing.
//!
//! FASTA begins with `>`, FASTQ with `@`. gzip (and bgzf, which is gzip in blocks) by RFC 1952, zstd by RFC 8878, xz by its file format 1.2,
//! bzip2 by its magic; what is read nowhere is named with a command that unpacks it.

use crate::error::{Error, Result};
use std::path::Path;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `>` and a header line, then lines of letters.
    Fasta,
    /// Four lines: `@` and a header, letters, `+`, qualities.
    Fastq,
}

/// How the text is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// It is not.
    Plain,
    /// gzip, bgzf.
    Gzip,
    /// zstd.
    Zstd,
    /// xz.
    Xz,
}

/// Bytes that [`packing`] and [`format()`] look at, at the most.
pub const MAGIC: usize = 6;

const PACKED: [(&[u8], Packing); 3] =
    [(b"\x1f\x8b", Packing::Gzip), (b"\x28\xb5\x2f\xfd", Packing::Zstd), (b"\xfd7zXZ\0", Packing::Xz)];

/// First bytes of what is recognised but not read, its name, and a command that unpacks it.
const FOREIGN: [(&[u8], &str, Option<&str>); 7] = [
    (b"\n", "an empty line at its start", Some("sed '/./,$!d'")),
    (b"\r\n", "an empty line at its start", Some("sed '/[^\\r]/,$!d'")),
    (b"BZh", "a bzip2 file", Some("bzip2 -dc")),
    (b"PK\x03\x04", "a zip file", Some("unzip -p")),
    (b"BAM\x01", "a BAM file", Some("samtools fasta")),
    (b"CRAM", "a CRAM file", Some("samtools fasta")),
    (b"@HD\t", "a SAM file", Some("samtools fasta")),
];

/// How the bytes that begin with `magic` are packed.
pub fn packing(magic: &[u8]) -> Packing {
    // A zstd file may begin with a frame to skip, as pzstd's do: sixteen magics.
    if let [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] = magic {
        return Packing::Zstd;
    }
    PACKED.iter().find(|(start, _)| magic.starts_with(start)).map_or(Packing::Plain, |(_, packing)| *packing)
}

/// The format of the text that begins with `magic`.
///
/// # Errors
/// [`Error::Format`] when it is neither.
pub fn format(path: &Path, magic: &[u8]) -> Result<Format> {
    let refuse = |found, unpack| Err(Error::Format { path: path.to_path_buf(), found, unpack });
    if let Some((_, found, unpack)) = FOREIGN.iter().find(|(start, ..)| magic.starts_with(start)) {
        return refuse(found, *unpack);
    }
    match magic.first() {
        Some(b'>') => Ok(Format::Fasta),
        Some(b'@') => Ok(Format::Fastq),
        Some(_) if packing(magic) != Packing::Plain => refuse("a file that is packed twice", None),
        Some(_) => refuse("neither > nor @ at its start", None),
        None => refuse("an empty file", None),
    }
}

/// Whether the bytes look like something that is read here, packed or not, or that is known and not read. A heap page begins with its LSN, whose high word is small for
/// 18 exabytes of log, so none of these magics can begin one unless its LSN is absurd.
pub fn is_sequence(magic: &[u8]) -> bool {
    let line = magic.iter().find(|byte| !matches!(byte, b'\n' | b'\r'));
    let is_foreign = FOREIGN.iter().any(|(start, ..)| start.len() > 2 && magic.starts_with(start));
    packing(magic) != Packing::Plain || matches!(line, Some(b'>' | b'@')) || is_foreign
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_not_the_name() {
        let path = Path::new("reads.bam");
        assert_eq!(format(path, b">r1\nAC").expect("FASTA"), Format::Fasta);
        assert_eq!(format(path, b"@r1\nAC").expect("FASTQ"), Format::Fastq);
        assert_eq!(packing(b"\x1f\x8b\x08"), Packing::Gzip);
        assert_eq!(packing(b"\x28\xb5\x2f\xfd\x04"), Packing::Zstd);
        assert_eq!(packing(b"\x50\x2a\x4d\x18\x04\0"), Packing::Zstd);
        assert_eq!(packing(b"\xfd7zXZ\0"), Packing::Xz);
        for (magic, word) in [
            (&b"BZh9"[..], "bzip2"),
            (b"@HD\tVN", "SAM"),
            (b"", "empty"),
            (b"ACGT", "neither"),
            (b"\n@a\nAC", "an empty line at its start"),
            (b"\r\n>a\r", "an empty line at its start"),
            (b"\x1f\x8b\x08\0", "twice"),
        ] {
            let text = format(path, magic).expect_err("none").to_string();
            assert!(text.contains(word), "{text}");
        }
        let hint = format(path, b"\r\n>a\r").expect_err("none").hint();
        assert_eq!(hint.as_deref(), Some(r#"sed '/[^\r]/,$!d' "reads.bam" | kmer-leader -"#));
    }
}
