//! The relations of a run: which files are read, with which columns, and by whose word their rows are judged.
//!
//! There are several ways to name a table and one structure that all of them fill, [`Source`]:
//!
//! | form | made by |
//! |---|---|
//! | a relation file, `kmer-leader FILE` | [`from_file`] |
//! | sequence files, `kmer-leader FILE...` | [`crate::sequences`] |
//! | a table of a data directory without its server, `-D` | [`crate::pgdata`] |
//!
//! Who makes a source fills it like this:
//! - `leaves`: one for each relation with files of its own, in the order their blocks are to be numbered; [`Leaves::add`] opens the files,
//!   takes their fingerprint, and indexes the TOAST relation. Temporary and unlogged tables never get here.
//! - `transactions`: given whenever there is a data directory; hint bits alone decide otherwise.
//! - What may change during the run (hint bits that a running server writes) is said at the start, by [`Leaves::beside_server`]; then
//!   files are not compared at the end, and whoever made the source holds the lock that keeps rows as they are.

use crate::cli::AnalysisArgs;
use crate::failure::Failure;
use crate::pgdata::AtRest;
use crate::sequences;
use kmer_worker::feed::STDIN;
use kmer_worker::job::{Leaf, LeafSequence, LeafToast, Stream, Transactions};
use relation::file::{SEGMENT_BLOCKS, Watch};
use relation::visibility::{HintBitsOnly, Oracle};
use relation::{BLOCK_SIZE, DnaType, ReadOptions, RelationFile, Sidecar, ToastIndex, TupleDesc};
use sequence::SequenceFile;
use sequence::file::Text;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The relations of a run.
#[derive(Debug)]
pub struct Source {
    /// Their files, columns and TOAST relations.
    pub leaves: Leaves,
    /// Where transactions are looked up; `None`: hint bits alone decide.
    pub transactions: Option<Transactions>,
    /// Name of the DNA column.
    pub column: String,
    /// How the files are cut into parcels, if they are not read in place.
    pub stream: Option<Stream>,
    /// Rows are so long that workers should share them.
    pub long_rows: bool,
    /// How its values hold bases.
    pub dna: DnaType,
    /// Pages must bear the right checksum.
    pub verify_checksums: bool,
    /// The table, where a catalog knows it.
    pub table: Option<TableName>,
    /// What the user is to be told before the start.
    pub warnings: Vec<String>,
}

/// A table as a catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The DNA column's `attnum`.
    pub attnum: i16,
}

/// Relations with files of their own, opened once.
#[derive(Debug)]
pub struct Leaves {
    /// What workers get.
    pub leaves: Vec<Leaf>,
    /// The indexes of all TOAST relations, one behind the other.
    pub toast_index: Vec<u8>,
    /// Bytes of all TOAST relations.
    pub toast_bytes: u64,
    /// Blocks of a full segment file.
    pub segment_blocks: u32,
    /// A server runs, and may write to the files; where its log was at the lock.
    beside_server: Option<u64>,
    at_rest: Option<AtRest>,
    watched: Vec<Watch>,
    sequences: Vec<SequenceFile>,
}

/// A relation that is to be added.
#[derive(Debug)]
pub struct NewLeaf<'a> {
    /// Its first file.
    pub path: &'a Path,
    /// Its columns.
    pub desc: &'a TupleDesc,
    /// The DNA column, counted from 0.
    pub column: usize,
    /// The first file of its TOAST relation.
    pub toast: Option<&'a Path>,
}

impl Leaves {
    /// None yet, with segment files of `segment_blocks` blocks.
    pub fn new(segment_blocks: u32) -> Self {
        let (leaves, toast_index) = (Vec::new(), Vec::new());
        let (beside_server, at_rest, watched, sequences) = (None, None, Vec::new(), Vec::new());
        Self {
            leaves,
            toast_index,
            toast_bytes: 0,
            segment_blocks,
            beside_server,
            at_rest,
            watched,
            sequences,
        }
    }

    /// A server runs beside us: files may be written to without their rows changing. Pages from before `lock_lsn` are written to no more but
    /// for their hint bits; 0 when that is not known.
    #[must_use]
    pub fn beside_server(self, lock_lsn: u64) -> Self {
        Self { beside_server: Some(lock_lsn), ..self }
    }

    /// The files are of a server that must rest until the end.
    #[must_use]
    pub fn at_rest(self, directory: AtRest) -> Self {
        Self { at_rest: Some(directory), ..self }
    }

    /// Where the log of the server that runs beside us was.
    pub fn lock_lsn(&self) -> Option<u64> {
        self.beside_server
    }

    /// Opens the files of a relation and of its TOAST relation, and reads the latter once, to index it.
    ///
    /// # Errors
    /// When one cannot be opened, or the TOAST relation is damaged.
    pub fn add(
        &mut self,
        new: &NewLeaf<'_>,
        options: &ReadOptions,
        oracle: Option<&Arc<dyn Oracle>>,
    ) -> Result<(), Failure> {
        let file = RelationFile::open_with_segment_size(new.path, self.segment_blocks)?;
        let toast = new.toast.map(|path| self.index_toast(path, options, oracle)).transpose()?;
        self.leaves.push(Leaf {
            path: new.path.as_os_str().as_bytes().to_vec(),
            fingerprint: self.beside_server.is_none().then_some(file.fingerprint().digest),
            blocks: file.total_blocks(),
            columns: new.desc.to_list(),
            column: new.column as u64,
            toast,
            sequence: None,
        });
        self.watch(file);
        Ok(())
    }

    /// Adds a sequence file.
    ///
    /// # Errors
    /// When it has more blocks than can be numbered.
    pub fn add_sequence(&mut self, file: SequenceFile, sequence: LeafSequence) -> Result<(), Failure> {
        let blocks = file.len().div_ceil(sequence.block_bytes);
        let blocks = u32::try_from(blocks).map_err(|_| {
            Failure::error(format!("file {:?}: expected fewer than 2^32 blocks, found {blocks}", file.path()))
        })?;
        self.leaves.push(Leaf {
            path: file.path().as_os_str().as_bytes().to_vec(),
            fingerprint: Some(file.fingerprint()),
            blocks,
            columns: String::new(),
            column: 0,
            toast: None,
            sequence: Some(sequence),
        });
        self.sequences.push(file);
        Ok(())
    }

    /// Adds an input of a stream: a file, packed or not, or standard input for none.
    pub fn add_input(&mut self, file: Option<SequenceFile>, text_bytes: u64) {
        let path = file.as_ref().map_or(STDIN.to_vec(), |file| file.path().as_os_str().as_bytes().to_vec());
        self.leaves.push(Leaf {
            path,
            fingerprint: file.as_ref().map(SequenceFile::fingerprint),
            blocks: 0,
            columns: String::new(),
            column: 0,
            toast: None,
            sequence: Some(LeafSequence { fastq: false, bytes: text_bytes, block_bytes: 1 }),
        });
        self.sequences.extend(file);
    }

    /// The index goes into the segment, so that it is built once.
    fn index_toast(
        &mut self,
        path: &Path,
        options: &ReadOptions,
        oracle: Option<&Arc<dyn Oracle>>,
    ) -> Result<LeafToast, Failure> {
        let file = RelationFile::open_with_segment_size(path, self.segment_blocks)?;
        let oracle = oracle.map_or(&HintBitsOnly as &dyn Oracle, |oracle| &**oracle);
        let index = ToastIndex::build_with(&file, options, oracle, &mut Err)?.to_bytes();
        let index_offset = self.toast_index.len() as u64;
        self.toast_index.extend_from_slice(&index);
        self.toast_bytes += u64::from(file.total_blocks()) * BLOCK_SIZE as u64;
        self.watch(file);
        let path = path.as_os_str().as_bytes().to_vec();
        Ok(LeafToast { path, index_offset, index_bytes: index.len() as u64 })
    }

    fn watch(&mut self, file: RelationFile) {
        if self.beside_server.is_none() {
            self.watched.push(file.into_watch());
        }
    }

    /// Looks whether all files are still what they were.
    ///
    /// # Errors
    /// Naming the first that is not.
    pub fn check_unchanged(&self) -> Result<(), Failure> {
        self.at_rest.iter().try_for_each(AtRest::check)?;
        self.sequences.iter().try_for_each(SequenceFile::check_unchanged).map_err(sequences::failure)?;
        Ok(self.watched.iter().try_for_each(Watch::check_unchanged)?)
    }
}

/// The source of a bare relation file.
///
/// # Errors
/// What is wrong with the file, the column list, or the TOAST relation.
pub fn from_file(args: &AnalysisArgs, options: &ReadOptions) -> Result<Source, Failure> {
    let path = args.relations.first().ok_or_else(|| Failure::usage("expected a relation file"))?;
    let relation = RelationFile::open(path)?;
    let sidecar = Sidecar::load(path)?;
    if args.row_per_file {
        let text = format!("--row-per-file: expected sequence files, found relation {path:?}");
        return Err(Failure::usage(text));
    }
    let desc = columns(args, sidecar.as_ref())?;
    let column = find_column(args, sidecar.as_ref(), &desc)?;
    let (name, dna) = (desc.attributes[column].name.clone(), desc.attributes[column].dna_type());
    let dna = dna.ok_or_else(|| {
        let found = &desc.attributes[column].type_name;
        Failure::error(format!("column {name:?}: expected type dna2, dna4 or bit varying, found {found}"))
    })?;
    let verify_checksums = !args.no_checksums
        && (args.checksums || sidecar.as_ref().is_some_and(|s| s.checksums) || relation.bears_checksums()?);
    let toast: Option<PathBuf> = args.toast.clone().or_else(|| sidecar.as_ref()?.toast_path(path));
    let mut warnings = Vec::new();
    if relation.total_blocks() == 0 && sidecar.is_none() && args.schema.is_none() {
        warnings.push(format!("file {path:?} is empty, and taken for a relation without rows"));
    }
    let mut leaves = Leaves::new(SEGMENT_BLOCKS);
    let new = NewLeaf { path, desc: &desc, column, toast: toast.as_deref() };
    leaves.add(&new, &ReadOptions { verify_checksums, ..*options }, None)?;
    Ok(Source {
        leaves,
        transactions: None,
        stream: None,
        long_rows: false,
        column: name,
        dna,
        verify_checksums,
        table: None,
        warnings,
    })
}

fn columns(args: &AnalysisArgs, sidecar: Option<&Sidecar>) -> Result<TupleDesc, Failure> {
    let list = match (&args.schema, sidecar) {
        (Some(list), _) => list.as_str(),
        (None, Some(sidecar)) => sidecar.columns.as_str(),
        (None, None) => "seq dna2",
    };
    TupleDesc::parse(list)
        .map_err(|e| Failure::from(e).hint("give the columns like --schema 'id int4, note text, seq dna2'"))
}

fn find_column(args: &AnalysisArgs, sidecar: Option<&Sidecar>, desc: &TupleDesc) -> Result<usize, Failure> {
    let typed = args.schema.is_some();
    let from_sidecar = sidecar.filter(|_| !typed).and_then(|s| s.column.as_deref());
    if let Some(name) = args.column.as_deref().or(from_sidecar) {
        return Ok(desc.column(name)?);
    }
    let dna: Vec<usize> =
        (0..desc.attributes.len()).filter(|i| desc.attributes[*i].dna_type().is_some()).collect();
    match dna[..] {
        [only] => Ok(only),
        [] if desc.attributes.len() == 1 => Ok(0),
        _ => {
            let found = if dna.is_empty() { "none".to_owned() } else { format!("{} of them", dna.len()) };
            Err(Failure::error(format!(
                "columns {:?}: expected one DNA column, found {found}",
                desc.to_list()
            ))
            .hint("name the column with --column"))
        }
    }
}
