//! The source of FASTA and FASTQ files: every record is a row, or with `--row-per-file` every file.
//!
//! If one of them is packed, or is standard input, all of them become one stream that a feeder unpacks ([`kmer_worker::feed`]).
//!
//! What a file is, its content says. Files that are not packed are read where they lie, in runs of bytes. A FASTA file of a few long records
//! (a chromosome, say) is one block instead, which all workers read, a part of the stripes each: else one of them would be left with it alone.

use crate::cli::{AnalysisArgs, OnError};
use crate::failure::Failure;
use crate::source::{Leaves, Source};
use kmer_worker::feed::STDIN;
use kmer_worker::job::{LeafSequence, Stream};
use relation::file::SEGMENT_BLOCKS;
use relation::{BLOCK_SIZE, DnaType};
use sequence::file::{InMemory, Text};
use sequence::records::first_record;
use sequence::unpack::unpack;
use sequence::{Format, Packing, SequenceFile};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes of text that a packed byte is taken for.
const UNPACKED_GUESS: u64 = 5;
/// Bytes of text that standard input is taken for.
const STDIN_GUESS: u64 = 1 << 30;
/// Parcels that a stream should have, if it is as long as is guessed, and that there may be.
const PARCELS_GUESS: u64 = 512;
const PARCELS: u32 = 4096;
/// Bytes of a parcel, at least and at most.
const PARCEL_BYTES: (u64, u64) = (1 << 20, 16 << 20);
/// Bytes behind each of the places that are looked at, in which a record should begin if records are short.
const LOOK: u64 = 1 << 20;

/// Whether the first of the paths is of a sequence file. A heap relation is never taken for one: its first page says what it is. What is neither file
/// nor directory, as a named pipe, is no relation, and is not opened.
pub fn are_sequences(paths: &[PathBuf]) -> bool {
    paths.len() > 1 || paths.first().is_some_and(|path| is_stdin(path) || is_sequence(path).unwrap_or(false))
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str().as_bytes() == STDIN
}

fn is_sequence(path: &Path) -> std::io::Result<bool> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() && !meta.is_dir() {
        return Ok(true);
    }
    let (mut head, mut file) = (Vec::new(), File::open(path)?);
    file.by_ref().take(BLOCK_SIZE as u64).read_to_end(&mut head)?;
    // bufpage.h: pd_pagesize_version, at byte 18, is the size of a page with the version of its layout, 4.
    let is_page = head.len() == BLOCK_SIZE && head[18..20] == [4, 0x20];
    Ok(!is_page && sequence::format::is_sequence(&head))
}

/// The source of sequence files.
///
/// # Errors
/// What is wrong with a file; exit code 2 for options that are about relations.
pub fn from_files(args: &AnalysisArgs, workers: u16) -> Result<Source, Failure> {
    refuse_options(args)?;
    let mut files = Vec::new();
    for path in &args.relations {
        files.push(if is_stdin(path) { None } else { Some(SequenceFile::open(path).map_err(failure)?) });
    }
    let is_packed =
        |file: &Option<SequenceFile>| file.as_ref().is_none_or(|file| file.packing() != Packing::Plain);
    let (mut stream, mut long_rows, mut leaves) = (None, false, Leaves::new(SEGMENT_BLOCKS));
    // Where damage is to be passed over it matters where a reader begins: a stream is cut by its text alone, so for every number of workers alike.
    let is_skipped = |file: &Option<SequenceFile>| {
        let format = file.as_ref().filter(|file| file.packing() == Packing::Plain).map(SequenceFile::format);
        args.on_error == OnError::Skip && matches!(format, Some(Ok(Format::Fastq)))
    };
    if files.iter().any(|file| is_packed(file) || is_skipped(file)) {
        refuse_streams(args, &files)?;
        long_rows = has_long_first_record(&files)?;
        stream = Some(pack(files, args, workers, &mut leaves));
    } else {
        for file in files.into_iter().flatten() {
            let leaf = layout(&file, args.row_per_file, workers).map_err(failure)?;
            leaves.add_sequence(file, leaf)?;
        }
    }
    Ok(Source {
        leaves,
        transactions: None,
        stream,
        long_rows,
        column: "sequence".into(),
        dna: DnaType::Dna4,
        verify_checksums: false,
        table: None,
        warnings: Vec::new(),
    })
}

/// The error with its hint.
pub fn failure(error: sequence::Error) -> Failure {
    let failure = Failure::error(&error);
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn refuse_options(args: &AnalysisArgs) -> Result<(), Failure> {
    let given = [
        ("--schema", args.schema.is_some()),
        ("--column", args.column.is_some()),
        ("--toast", args.toast.is_some()),
        ("--checksums", args.checksums),
        ("--no-checksums", args.no_checksums),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => {
            let path = args.relations.first().cloned().unwrap_or_default();
            Err(Failure::usage(format!("{option}: expected a heap relation, found sequence file {path:?}")))
        }
        None => Ok(()),
    }
}

/// What cannot be done with standard input, which is there once.
fn refuse_streams(args: &AnalysisArgs, files: &[Option<SequenceFile>]) -> Result<(), Failure> {
    let stdins = files.iter().filter(|file| file.is_none()).count();
    if stdins > 1 {
        return Err(Failure::usage(format!("-: expected standard input once, found it {stdins} times")));
    }
    if stdins > 0 && args.resumable {
        let text = "--resumable: expected files, found standard input, which cannot be read again";
        return Err(Failure::usage(text));
    }
    Ok(())
}

/// Makes one stream of the files.
fn pack(files: Vec<Option<SequenceFile>>, args: &AnalysisArgs, workers: u16, leaves: &mut Leaves) -> Stream {
    let (inputs, mut text) = (files.len() as u32, 0);
    for file in files {
        let bytes = file.as_ref().map_or(STDIN_GUESS, |file| match file.packing() {
            Packing::Plain => file.len(),
            _ => file.len().saturating_mul(UNPACKED_GUESS),
        });
        text += bytes;
        leaves.add_input(file, bytes);
    }
    let asked = args.debug.unit_blocks.map(|blocks| blocks * BLOCK_SIZE as u64);
    let parcel_bytes = asked.unwrap_or((text / PARCELS_GUESS).clamp(PARCEL_BYTES.0, PARCEL_BYTES.1));
    // A file is one parcel, if it is one row; else every file begins one.
    let (parcels, parcel_bytes) =
        if args.row_per_file { (inputs, u64::MAX) } else { (PARCELS + inputs, parcel_bytes) };
    Stream { parcels, parcel_bytes, window: 2 * u32::from(workers) + 2, longest: u64::MAX }
}

/// Whether the first file, if it is one, begins with a record that goes on and on.
fn has_long_first_record(files: &[Option<SequenceFile>]) -> Result<bool, Failure> {
    let Some(Some(file)) = files.first() else { return Ok(false) };
    let source = File::open(file.path()).map_err(|e| Failure::io("open", file.path(), &e))?;
    let unpacked = unpack(file.path(), Box::new(source)).map_err(failure)?;
    let mut head = Vec::new();
    // What is wrong with it the feeder will say.
    let read = unpacked.text.take(LOOK).read_to_end(&mut head).unwrap_or(0);
    let text = InMemory { text: &head, path: file.path() };
    let second = first_record(&text, unpacked.format, 1).map_err(failure)?;
    Ok(read as u64 == LOOK && unpacked.format == Format::Fasta && second == LOOK)
}

/// How a file is divided into blocks.
fn layout(file: &SequenceFile, row_per_file: bool, workers: u16) -> sequence::Result<LeafSequence> {
    let format = file.format()?;
    let one_block = row_per_file || (format == Format::Fasta && has_long_records(file, workers)?);
    let block_bytes = if one_block { file.len().max(1) } else { BLOCK_SIZE as u64 };
    Ok(LeafSequence { fastq: format == Format::Fastq, bytes: file.len(), block_bytes })
}

/// Whether a record takes so much of the file that workers would wait for who has it.
fn has_long_records(file: &SequenceFile, workers: u16) -> sequence::Result<bool> {
    let (bytes, places) = (file.len(), 4 * u64::from(workers.max(1)));
    if workers < 2 || bytes < 4 * LOOK {
        return Ok(false);
    }
    let mut seen = 0;
    for place in 0..places {
        let from = place * bytes / places;
        let begins = begins_within(file, from, (from + LOOK).min(bytes))?;
        seen += u64::from(begins);
    }
    if seen * 2 >= places {
        return Ok(false);
    }
    // A record that is longer than the space between two places, and so than half of what a worker should have, has none of the next in it.
    let space = bytes / places;
    for place in 0..places {
        let from = place * bytes / places;
        if !begins_soon(file, from, (from + space).min(bytes))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same as [`begins_within`], however far it is from one to the other: as much is read as it takes.
fn begins_soon(file: &SequenceFile, from: u64, to: u64) -> sequence::Result<bool> {
    let mut at = from;
    while at + 1 < to {
        // Two bytes say that one begins, so pieces overlap by one.
        if begins_within(file, at, (at + LOOK).min(to))? {
            return Ok(true);
        }
        at += LOOK - 1;
    }
    Ok(false)
}

/// Whether a record of FASTA begins in `from..to`.
fn begins_within(file: &SequenceFile, from: u64, to: u64) -> sequence::Result<bool> {
    let mut bytes = vec![0; (to - from) as usize];
    file.read_at(from, &mut bytes)?;
    Ok(bytes.windows(2).any(|pair| pair == b"\n>"))
}
