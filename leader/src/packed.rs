//! What is in packed files, more or less: the beginning of each is unpacked, and the rest is taken to be like it.

use crate::memory::Found;
use kmer_worker::feed::STDIN;
use kmer_worker::job::{Job, path_of};
use sequence::Format;
use sequence::unpack::unpack;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of packed files that are looked at, in all.
const LOOK: u64 = 4 << 20;
/// The least that is looked at of a file.
const LEAST: u64 = 256 << 10;
/// The most text that is looked at of a file, however small it packs.
const TEXT: u64 = 32 << 20;
/// Bytes of a block, for people: how much was looked at.
const BLOCK: u64 = 8192;

/// Reads and counts.
struct Counted {
    file: File,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// What was seen of a file.
#[derive(Clone, Copy, Default)]
struct Seen {
    packed: u64,
    rows: u64,
    bases: u64,
    text: u64,
}

/// The rows, bases and k-mers of the files of a stream; `None` when there is no stream, or one of them cannot be looked at.
pub(crate) fn look(job: &Job) -> Option<Found> {
    job.stream?;
    let (mut rows, mut bases, mut text, mut looked) = (0, 0, 0, 0);
    let least = LOOK / (job.leaves.len() as u64).max(1);
    for leaf in &job.leaves {
        if leaf.path == STDIN {
            return None;
        }
        let path = path_of(&leaf.path);
        let whole = std::fs::metadata(path).ok()?.len();
        let seen = look_at(path, least.max(LEAST))?;
        let of_whole = |n: u64| (u128::from(n) * u128::from(whole) / u128::from(seen.packed.max(1))) as u64;
        rows += of_whole(seen.rows);
        bases += of_whole(seen.bases);
        text += of_whole(seen.text);
        looked += seen.packed.div_ceil(BLOCK);
    }
    if job.row_per_file {
        rows = job.leaves.len() as u64;
    }
    let kmers = bases.saturating_sub(rows.saturating_mul(u64::from(job.k) - 1));
    Some(Found { looked, rows, bases, kmers, fullest: 0, text })
}

/// Unpacks a file until so many packed bytes went into what was seen, or it ends. Packed bytes are read in pieces: when one is asked for, all of those before
/// are unpacked.
fn look_at(path: &Path, most: u64) -> Option<Seen> {
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = Counted { file: File::open(path).ok()?, bytes: bytes.clone() };
    let unpacked = unpack(path, Box::new(counted)).ok()?;
    let (mut text, mut seen) = (BufReader::new(unpacked.text.take(TEXT)), Seen::default());
    let (mut line, mut number) = (Vec::new(), 0u64);
    loop {
        let before = bytes.load(Ordering::Relaxed);
        line.clear();
        // What is damaged the feeder will say.
        if text.read_until(b'\n', &mut line).ok()? == 0 {
            break;
        }
        seen.text += line.len() as u64;
        let letters = line.trim_ascii_end().len() as u64;
        match unpacked.format {
            Format::Fasta if line.starts_with(b">") => seen.rows += 1,
            Format::Fasta => seen.bases += letters,
            // Four lines a record, as nearly everybody writes them.
            Format::Fastq if number % 4 == 0 => seen.rows += 1,
            Format::Fastq if number % 4 == 1 => seen.bases += letters,
            Format::Fastq => {}
        }
        number += 1;
        if before >= most && bytes.load(Ordering::Relaxed) > before {
            return Some(Seen { packed: before, ..seen });
        }
    }
    seen.packed = bytes.load(Ordering::Relaxed);
    Some(seen)
}
