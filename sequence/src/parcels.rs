//! Cuts a stream of text into parcels of whole records, so that many can work on what one unpacks.
//!
//! Where a parcel ends depends on the text alone, not on how it comes in: at the first record that begins `size` bytes or more behind the parcel's
//! begin. So who cuts the same text again gets the same parcels.
//!
//! A parcel is held whole, so a record (or, where all of a text is one parcel, the text) may be only so long: what is longer is an error, before
//! there is twice as much of it in memory.

use crate::error::{Error, Result};
use crate::file::InMemory;
use crate::format::Format;
use crate::records::{Part, RecordSink, first_record, read};
use crate::unpack::Source;
use std::io::Read;
use std::path::Path;

/// A text being cut.
pub struct Parcels<'a> {
    text: Source,
    format: Format,
    path: &'a Path,
    /// Text that was read and is in no parcel yet.
    held: Vec<u8>,
    /// Where `held` begins in the text.
    offset: u64,
    ended: bool,
    /// Bytes of the longest record.
    longest: usize,
}

/// Whole records, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The records.
    pub text: Vec<u8>,
    /// Where they begin in the whole text.
    pub offset: u64,
}

/// Bytes that are asked for at a time.
const STEP: usize = 1 << 20;
/// The size of a parcel that has all of the text.
pub const WHOLE: usize = usize::MAX / 2;

impl<'a> Parcels<'a> {
    /// Cuts `text`, none of whose records is to have more than `longest` bytes; `path` is for messages.
    pub fn new(text: Source, format: Format, path: &'a Path, longest: u64) -> Self {
        let longest = usize::try_from(longest).unwrap_or(WHOLE).min(WHOLE);
        Self { text, format, path, held: Vec::new(), offset: 0, ended: false, longest }
    }

    /// The format of the text.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The next parcel, of `size` bytes or somewhat more, or with [`WHOLE`] all of the text; `None` at its end. `each` is called now and then
    /// while it is read.
    ///
    /// # Errors
    /// When the text cannot be read or unpacked, and when a record is too long.
    pub fn next(&mut self, size: usize, each: &mut dyn FnMut()) -> Result<Option<Parcel>> {
        let most = if size == WHOLE { self.longest } else { size.saturating_add(self.longest) };
        let mut wanted = size.clamp(1, most);
        loop {
            self.read_to(wanted.saturating_add(STEP), each)?;
            if self.held.is_empty() {
                return Ok(None);
            }
            if self.held.len() > size {
                let memory = InMemory { text: &self.held, path: self.path };
                let cut = first_record(&memory, self.format, size.max(1) as u64)? as usize;
                if cut < self.held.len() {
                    return Ok(Some(self.cut(cut)));
                }
            }
            if self.held.len() > most {
                return Err(self.too_long(size)?);
            }
            if self.ended {
                return Ok(Some(self.cut(self.held.len())));
            }
            wanted = self.held.len().saturating_mul(2).min(most);
        }
    }

    /// The error about the record at the end of what is held, or about all of it.
    fn too_long(&self, size: usize) -> Result<Error> {
        let mut last = LastRecord::default();
        let memory = InMemory { text: &self.held, path: self.path };
        if size < WHOLE {
            // The end of the text that is held is not the end of the text.
            read(&memory, self.format, (0, memory.text.len() as u64), &mut last)?;
        }
        Ok(Error::Long {
            path: self.path.to_path_buf(),
            record: (size < WHOLE).then_some((self.offset + last.letters, last.name)),
            most: self.longest as u64,
            is_fasta: self.format == Format::Fasta,
        })
    }

    fn cut(&mut self, at: usize) -> Parcel {
        let rest = self.held.split_off(at);
        let text = std::mem::replace(&mut self.held, rest);
        let offset = self.offset;
        self.offset += text.len() as u64;
        Parcel { text, offset }
    }

    /// Reads until `bytes` bytes are held, or the text ends.
    fn read_to(&mut self, bytes: usize, each: &mut dyn FnMut()) -> Result<()> {
        while !self.ended && self.held.len() < bytes {
            each();
            let more = (bytes - self.held.len()).min(STEP) as u64;
            let read = self.text.by_ref().take(more).read_to_end(&mut self.held);
            let read = read.map_err(|e| Error::io(self.path, "unpack", e))?;
            self.ended = (read as u64) < more;
        }
        Ok(())
    }
}

/// Remembers the last record: its name, and where its letters begin.
#[derive(Default)]
struct LastRecord {
    name: String,
    letters: u64,
}

impl RecordSink for LastRecord {
    fn part(&mut self, part: &Part<'_>) -> Result<()> {
        if part.first {
            *self = Self { name: String::from_utf8_lossy(part.name).into_owned(), letters: part.offset };
        }
        Ok(())
    }

    fn damaged(&mut self, error: Error) -> Result<()> {
        if let Error::Record { offset, name, .. } = error {
            *self = Self { name, letters: offset };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::unpack;
    use proptest::prelude::*;
    use std::io::Write;

    /// Gives a few bytes at a time.
    struct Trickle(std::io::Cursor<Vec<u8>>, usize);

    impl Read for Trickle {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let most = into.len().min(self.1);
            self.0.read(&mut into[..most])
        }
    }

    fn cut(source: Source, size: usize) -> Result<Vec<Parcel>> {
        let path = Path::new("text");
        let unpacked = unpack(path, source)?;
        let mut parcels = Parcels::new(unpacked.text, unpacked.format, path, u64::MAX);
        let mut all = Vec::new();
        while let Some(parcel) = parcels.next(size, &mut || ())? {
            all.push(parcel);
        }
        Ok(all)
    }

    fn text(format: Format, records: usize) -> Vec<u8> {
        let record = |i: usize| {
            let letters = "ACGT".repeat(1 + i * i % 37);
            match format {
                Format::Fasta => format!(">r{i}\n{letters}\n"),
                Format::Fastq => format!("@r{i}\n{letters}\n+\n{}\n", "@+>I".repeat(letters.len() / 4)),
            }
        };
        (0..records).map(record).collect::<String>().into_bytes()
    }

    proptest! {
        #[test]
        fn parcels_are_the_text_cut_between_records(records in 1..60usize, size in 1..3000usize, step in 1..500usize, fastq: bool) {
            let format = if fastq { Format::Fastq } else { Format::Fasta };
            let text = text(format, records);
            let parcels = cut(Box::new(Trickle(std::io::Cursor::new(text.clone()), step)), size).unwrap();
            let again = cut(Box::new(std::io::Cursor::new(text.clone())), size).unwrap();
            prop_assert_eq!(&parcels, &again);
            let mut joined = Vec::new();
            for parcel in &parcels {
                prop_assert_eq!(parcel.offset, joined.len() as u64);
                prop_assert_eq!(parcel.text[0], text[0]);
                joined.extend_from_slice(&parcel.text);
            }
            prop_assert_eq!(joined, text);
            prop_assert!(parcels[..parcels.len() - 1].iter().all(|parcel| parcel.text.len() >= size));
        }
    }

    #[test]
    fn a_record_may_be_so_long_and_no_longer() {
        let letters = "ACGT".repeat(STEP);
        let fasta = format!(">a\nACGT\n>long one\n{letters}\n>c\nA\n");
        let fastq = format!("@a\nACGT\n+\nIIII\n@long one\n{letters}\n+\n{letters}\n");
        let cut = |text: &str, format, size, longest| {
            let source = Box::new(std::io::Cursor::new(text.to_owned().into_bytes()));
            let mut parcels = Parcels::new(source, format, Path::new("text"), longest);
            let mut count = 0;
            while parcels.next(size, &mut || ())?.is_some() {
                count += 1;
            }
            Ok::<_, Error>(count)
        };
        for (format, text, place) in [(Format::Fasta, &fasta, 18), (Format::Fastq, &fastq, 15)] {
            let long = text.len() as u64;
            assert_eq!(
                cut(text, format, 8, long).expect("short enough"),
                if format == Format::Fasta { 3 } else { 2 }
            );
            assert_eq!(cut(text, format, WHOLE, long).expect("short enough"), 1);
            let error = cut(text, format, 8, 1 << 20).expect_err("too long").to_string();
            assert!(
                error.contains(&format!("record at byte {place} (\"long\"): expected at most 1048576 bytes")),
                "{error}"
            );
            let error = cut(text, format, WHOLE, 1 << 20).expect_err("too long").to_string();
            assert!(error.contains("all records, being one row: expected at most 1048576 bytes"), "{error}");
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(bytes).and_then(|()| packed.finish()).expect("in memory")
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut packed = liblzma::write::XzEncoder::new(Vec::new(), 1);
        packed.write_all(bytes).and_then(|()| packed.finish()).expect("in memory")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).expect("in memory")
    }

    #[test]
    fn every_packing_in_one_piece_and_in_several_and_cut_off() {
        let (first, second) = (text(Format::Fastq, 400), text(Format::Fastq, 90));
        let plain: Vec<u8> = [&first[..], &second].concat();
        for pack in [gzip as fn(&[u8]) -> Vec<u8>, xz, zstd] {
            let packed = [pack(&first), pack(&second)].concat();
            let parcels = cut(Box::new(std::io::Cursor::new(packed.clone())), 5000).expect("unpacks");
            assert!(parcels.iter().flat_map(|parcel| parcel.text.clone()).eq(plain.iter().copied()));
            for end in [packed.len() - 1, packed.len() - 9, packed.len() / 2] {
                let error =
                    cut(Box::new(std::io::Cursor::new(packed[..end].to_vec())), 5000).expect_err("cut off");
                assert!(error.to_string().contains("could not unpack"), "{error}");
            }
        }
        // Zeros fill up a tape's block; a frame that is to be skipped stands first in what pzstd writes.
        let padded = [gzip(&first), gzip(&second), vec![0; 3000]].concat();
        let framed = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &zstd(&plain)].concat();
        for packed in [padded, framed] {
            let parcels = cut(Box::new(std::io::Cursor::new(packed)), 5000).expect("unpacks");
            assert!(parcels.iter().flat_map(|parcel| parcel.text.clone()).eq(plain.iter().copied()));
        }
        let odd = [&gzip(&first)[..], &[0; 30], b"more"].concat();
        let error = cut(Box::new(std::io::Cursor::new(odd)), 5000).expect_err("no end").to_string();
        assert!(error.contains("found other bytes behind 30 zeros"), "{error}");
        let twice = gzip(&gzip(&first));
        let error = cut(Box::new(std::io::Cursor::new(twice)), 5000).expect_err("packed twice");
        assert!(error.to_string().contains("packed twice"), "{error}");
    }
}
