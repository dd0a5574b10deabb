//! `kmer-leader import`: makes a relation file out of FASTA and FASTQ files.
//!
//! The table is `id int4, name text, seq dna2` (or `dna4`): one row for each record in the order of the files, ids from 1,
//! the name being the header's first word. Beside the relation come its TOAST file, where records are long, and the
//! sidecar that tells readers the columns.
//!
//! Promises:
//! - Each record becomes exactly one row or is counted as skipped; a letter that cannot be stored is an error that names
//!   file, record and base, never a guess.
//! - Nothing appears under the output's name before all input was read and all that was made of it is on disk; after an error or a signal
//!   nothing is left behind, and a relation that was to be replaced is as it was. A signal that comes while files get their names comes too late.
//! - Memory is constant but for the longest record; no allocation is made for a record of common size.
//!
//! What it does not do: qualities are checked for their number and dropped; names are not checked to be unique.

mod encode;
mod error;
mod fastq;
mod input;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::failure::Failure;
use crate::output::same::{self, Input};
use crate::signals::Signals;
use clap::{Args, ValueEnum};
use relation::sidecar::Sidecar;
use relation::write::{FIRST_VALUE_ID, Field, HeapWriter, WriteOptions, WriteSummary, toast_path};

pub use error::{ImportError, failure};

use encode::{Packer, Refused};
use input::{Record, Records};

/// How the bases are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportType {
    /// 2 bits a base: A, C, G and T only
    Dna2,
    /// 4 bits a base: all IUPAC codes
    Dna4,
}

impl ImportType {
    /// The SQL type's name.
    pub fn name(self) -> &'static str {
        match self {
            ImportType::Dna2 => "dna2",
            ImportType::Dna4 => "dna4",
        }
    }
}

/// Make a relation file out of FASTA and FASTQ files
///
/// The table has the columns id int4, name text and seq; every record becomes a row. Format and compression are known by
/// their content. Lower case counts as upper case, and U as T.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// FASTA or FASTQ file, plain, gzip, zstd or xz; - is standard input
    #[arg(value_name = "IN", required = true)]
    pub inputs: Vec<PathBuf>,

    /// Relation file to make; OUT.1, OUT.2, ... follow after each GiB, OUT.toast holds long sequences
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// Type of the column seq
    #[arg(long = "type", value_enum, value_name = "TYPE", default_value_t = ImportType::Dna2)]
    pub dna_type: ImportType,

    /// Leave out records with codes other than A, C, G and T, instead of stopping at the first (for dna2)
    #[arg(long)]
    pub skip_ambiguous: bool,

    /// Write pages without checksums
    #[arg(long)]
    pub no_checksums: bool,

    /// OID of the TOAST table that long rows shall name
    ///
    /// Needed only when the files are to be put in the place of a server's table: pass the table's reltoastrelid, copy
    /// OUT and OUT.toast over the files of both tables while the server is down, then REINDEX the TOAST table. 0 means
    /// OUT.toast beside OUT.
    #[arg(long, value_name = "OID", default_value_t = 0)]
    pub toast_relid: u32,

    /// Id of the first long sequence in OUT.toast
    #[arg(long, value_name = "ID", default_value_t = FIRST_VALUE_ID, value_parser = clap::value_parser!(u32).range(1..))]
    pub first_value_id: u32,

    /// Replace OUT if it exists
    #[arg(long)]
    pub force: bool,
}

/// What an import made.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportSummary {
    /// Rows written.
    pub rows: u64,
    /// Bases in all rows.
    pub bases: u64,
    /// Records left out because of ambiguous bases.
    pub skipped: u64,
    /// 8 KiB blocks of the relation.
    pub heap_blocks: u32,
    /// 8 KiB blocks of its TOAST file, 0 without one.
    pub toast_blocks: u32,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Looks whether an input would be replaced by what is made of it, or cannot be read as often as it is named.
///
/// # Errors
/// Exit code 2, naming it.
pub fn check(args: &ImportArgs) -> Result<(), Failure> {
    let stdins = args.inputs.iter().filter(|path| *path == Path::new("-")).count();
    if stdins > 1 {
        return Err(Failure::usage(format!("-: expected standard input once, found it {stdins} times")));
    }
    let made = [args.output.clone(), toast_path(&args.output)].map(Input::Relation);
    let is_made = |path: &&PathBuf| {
        **path != Path::new("-") && made.iter().any(|relation| relation.has(&same::full(path)))
    };
    match args.inputs.iter().find(is_made) {
        Some(input) => {
            let output = &args.output;
            let text = format!("-o {output:?}: expected files of its own, found input {input:?} among them");
            Err(Failure::usage(text))
        }
        None => Ok(()),
    }
}

/// Does the import. Signals end the process at once as long as nothing would be left of it then; else they are held and heard.
///
/// # Errors
/// An [`ImportError`], always; ask [`ImportError::hint`] what may help.
pub fn run(args: &ImportArgs, signals: &Signals) -> anyhow::Result<ImportSummary> {
    let start = Instant::now();
    let done = import(args, signals);
    // It may be the error.
    let signal = signals.caught().filter(|_| done.is_err());
    let (written, bases, skipped) = signal.map_or(done, |signal| Err(ImportError::Signal(signal)))?;
    // Those that came since came too late.
    while signals.caught().is_some() {}
    signals.release();
    Ok(ImportSummary {
        rows: written.rows,
        bases,
        skipped,
        heap_blocks: written.heap_blocks,
        toast_blocks: written.toast_blocks,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// What was written, its bases, and the records that were skipped.
fn import(args: &ImportArgs, signals: &Signals) -> Result<(WriteSummary, u64, u64), ImportError> {
    signals.hold();
    let mut import = Import::begin(args)?;
    if !import.writer.has_names() {
        signals.release();
    }
    for path in &args.inputs {
        import.file(path, args, signals)?;
    }
    let (bases, skipped) = (import.bases, import.skipped);
    Ok((import.finish(args, signals)?, bases, skipped))
}

/// An import under way.
struct Import {
    writer: HeapWriter,
    packer: Packer,
    skip_ambiguous: bool,
    bases: u64,
    skipped: u64,
}

impl Import {
    fn begin(args: &ImportArgs) -> Result<Self, ImportError> {
        let options = WriteOptions {
            checksums: !args.no_checksums,
            toast_relid: args.toast_relid,
            first_value_id: args.first_value_id,
            overwrite: args.force,
            ..WriteOptions::default()
        };
        Ok(Self {
            writer: HeapWriter::create(&args.output, &options)?,
            packer: Packer::new(args.dna_type),
            skip_ambiguous: args.skip_ambiguous,
            bases: 0,
            skipped: 0,
        })
    }

    /// Reads one input file to its end.
    fn file(&mut self, path: &Path, args: &ImportArgs, signals: &Signals) -> Result<(), ImportError> {
        let heard = signals.again().map_err(|failure| {
            ImportError::Signals(failure.message().map(|message| message.error.clone()).unwrap_or_default())
        })?;
        let mut records = Records::open(path, heard)?;
        let mut record = 1;
        while records.next(path, record, &mut |found| self.record(path, record, found))? {
            record += 1;
        }
        // Not only when all is read.
        if self.writer.has_toast() { sidecar(args, true).map(|_| ()) } else { Ok(()) }
    }

    fn record(&mut self, path: &Path, record: u64, found: &Record<'_>) -> Result<(), ImportError> {
        let Record { header, lines } = *found;
        let name = input::name(path, record, header)?;
        match self.packer.pack(lines) {
            Ok(()) => {}
            Err(Refused { ambiguous: true, .. }) if self.skip_ambiguous => {
                self.skipped += 1;
                let invalid = self.packer.invalid(lines);
                return invalid.map_or(Ok(()), |found| Err(ImportError::base(path, record, name, &found)));
            }
            Err(refused) => return Err(ImportError::base(path, record, name, &refused)),
        }
        let id = i32::try_from(self.writer.rows() + 1)
            .map_err(|_| ImportError::TooManyRows { path: path.to_path_buf() })?;
        let (bits, bytes) = self.packer.value().ok_or_else(|| ImportError::TooLong {
            path: path.to_path_buf(),
            record,
            name: name.to_owned(),
            expected: self.packer.max_bases(),
            found: self.packer.bases(),
        })?;
        self.writer.insert(&[Field::Int4(id), Field::Text(name), Field::VarBit { bits, bytes }])?;
        self.bases += self.packer.bases();
        Ok(())
    }

    /// Gives the files their names once all of them are on disk. A signal that came before has nothing appear.
    fn finish(self, args: &ImportArgs, signals: &Signals) -> Result<WriteSummary, ImportError> {
        let ready = self.writer.ready(|written| sidecar(args, written.toast_path.is_some()).map(Some))?;
        signals.hold();
        match signals.caught() {
            Some(signal) => Err(ImportError::Signal(signal)),
            None => Ok(ready.publish()?),
        }
    }
}

/// What the relation's readers have to know.
fn sidecar(args: &ImportArgs, has_toast: bool) -> Result<Sidecar, ImportError> {
    let refuse = |expected, found| ImportError::OutputName { path: args.output.clone(), expected, found };
    let toast = toast_path(&args.output);
    let name = toast.file_name().unwrap_or_default().to_str();
    let toast = match name.filter(|_| has_toast) {
        Some(name) if name.contains(['\n', '\r']) => return Err(refuse("of one line", "a line break")),
        None if has_toast => return Err(refuse("in UTF-8", "other bytes")),
        name => name.map(str::to_owned),
    };
    Ok(Sidecar {
        columns: format!("id int4, name text, seq {}", args.dna_type.name()),
        column: Some("seq".to_owned()),
        toast,
        checksums: !args.no_checksums,
    })
}
