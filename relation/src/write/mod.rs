//! Writes heap relations: the very files a PostgreSQL server would read as a table and its TOAST table.
//!
//! A [`HeapWriter`] takes rows one by one and leaves, once [`HeapWriter::finish`] returned, `FILE`, `FILE.1`, ... (one
//! for each GiB), if any row was too large to stay whole `FILE.toast`, `FILE.toast.1`, ... beside it, and if asked for the
//! sidecar `FILE.schema`.
//!
//! Promises:
//! - Every page passes the server's own checks (`pg_checksums`, `amcheck`), every tuple is frozen, so that each
//!   transaction of each server sees it, and its `t_ctid` points to itself.
//! - Memory is constant: a page and a write buffer for each of the two files, whatever the number and size of rows.
//! - Files appear under their names complete and synced, the heap's first segment last. A writer dropped before
//!   `finish`, or whose `finish` failed, removes all it wrote, and an older relation of that name is as it was.
//! - All that can be known to fail (files in the way, a full disk) fails before any name changes. When a process dies while
//!   names change, no reader finds a mixture of two relations: see `exchange.rs`.
//!
//! What it does not do: compress values, write a visibility map, a free space map, indexes or WAL, or the catalog rows
//! that would name the columns. A row's fields carry their types; the writer only holds all rows to the same number.
//!
//! A SIGKILL leaves nothing either where the file system has files without names (O_TMPFILE), but for the moment in which
//! names change; there and elsewhere it leaves files called `.FILE.PID-N.tmp` and the like in the same directory. The next
//! writer of the same FILE puts back what belonged to an older relation, and removes the rest.
//!
//! Sources: page header `bufpage.h`, line pointer `itemid.h`, tuple header `htup_details.h`, alignment and size
//! limits `heaptoast.h` and `c.h`, variable-length values `varatt.h`, bit strings `varbit.h`, segments `md.c`.

mod error;
mod exchange;
mod files;
mod page;
#[cfg(test)]
mod tests;
mod toast;
mod tuple;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use error::WriteError;
pub use tuple::Field;

use crate::sidecar::Sidecar;
use exchange::{Exchange, Names};
use files::{Making, SegmentedFile};
use page::PageBuilder;
use toast::{ToastPointer, ToastWriter};
use tuple::{MAX_TUPLE, TOAST_THRESHOLD, TUPLE_HEADER};

/// Blocks in a full segment: 1 GiB of 8 KiB pages, as servers are built by default.
pub const BLOCKS_PER_SEGMENT: u32 = 131_072;

/// The value id that the first TOASTed value gets by default: the first OID outside the range that initdb uses.
pub const FIRST_VALUE_ID: u32 = 16_384;

/// How a relation is to be written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Put a checksum into every page. Servers with data checksums refuse pages without one; servers without data
    /// checksums do not look.
    pub checksums: bool,
    /// The OID of the TOAST table that the pointers in the heap name. 0 says "the file beside this one", which is
    /// enough for every reader but a server.
    pub toast_relid: u32,
    /// The id of the first TOASTed value, 1 or more; the next ones follow.
    pub first_value_id: u32,
    /// Replace a relation of the same name instead of refusing to write: all its segments, its TOAST file and its sidecar.
    /// The new files get the modes of those that they replace.
    pub overwrite: bool,
    /// Keep the files without a name while they are written, where the file system can.
    pub unnamed: bool,
    /// Blocks after which a new segment file begins, 1 or more. Servers expect [`BLOCKS_PER_SEGMENT`]; tests do not
    /// want to write a GiB.
    pub blocks_per_segment: u32,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            checksums: true,
            toast_relid: 0,
            first_value_id: FIRST_VALUE_ID,
            overwrite: false,
            unnamed: true,
            blocks_per_segment: BLOCKS_PER_SEGMENT,
        }
    }
}

/// What [`HeapWriter::finish`] left on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteSummary {
    /// Rows inserted.
    pub rows: u64,
    /// Blocks of the heap, over all its segments.
    pub heap_blocks: u32,
    /// Blocks of the TOAST file, over all its segments; 0 if there is none.
    pub toast_blocks: u32,
    /// The first segment of the TOAST file, if a row needed one.
    pub toast_path: Option<PathBuf>,
}

/// Returns where the writer puts the TOAST file of the relation file `path`: the same name with `.toast` behind it.
pub fn toast_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".toast");
    PathBuf::from(name)
}

/// Writes one heap relation and, where rows ask for it, its TOAST relation.
#[derive(Debug)]
pub struct HeapWriter {
    path: PathBuf,
    options: WriteOptions,
    names: Names,
    making: Making,
    heap: SegmentedFile,
    toast: Option<ToastWriter>,
    page: PageBuilder,
    tuple: Vec<u8>,
    /// For each field of the row at hand, the pointer that stands for it once it went to the TOAST file.
    external: Vec<Option<ToastPointer>>,
    columns: Option<usize>,
    rows: u64,
}

impl HeapWriter {
    /// Begins the relation file `path`. Nothing appears under that name before [`finish`](Self::finish).
    ///
    /// # Errors
    /// [`WriteError::Exists`] if the relation, its TOAST file or its sidecar is there and `options.overwrite` is not set;
    /// [`WriteError::NoFile`] and [`WriteError::Stray`] for what cannot be replaced; [`WriteError::Option`] for an option out
    /// of its range; [`WriteError::Io`] if the directory cannot be written to.
    pub fn create(path: &Path, options: &WriteOptions) -> Result<Self, WriteError> {
        if options.first_value_id == 0 {
            return Err(WriteError::Option { name: "first_value_id" });
        }
        if options.blocks_per_segment == 0 {
            return Err(WriteError::Option { name: "blocks_per_segment" });
        }
        let names = Names::choose(path)?;
        let making = Making::new(path, options);
        let heap = SegmentedFile::create(path, options, &making, &names)?;
        for beside in [toast_path(path), Sidecar::path_for(path)] {
            files::replaceable(&beside, options.overwrite)?;
        }
        Ok(Self {
            path: path.to_path_buf(),
            names,
            making,
            heap,
            options: options.clone(),
            toast: None,
            page: PageBuilder::new(),
            tuple: Vec::with_capacity(MAX_TUPLE),
            external: Vec::new(),
            columns: None,
            rows: 0,
        })
    }

    /// Appends one row. Rows end up in the file in the order of the calls.
    ///
    /// A row that would make a tuple of more than 2032 bytes has its largest values moved to the TOAST file,
    /// uncompressed, until it fits or nothing is left to move; that is the server's own rule less compression.
    ///
    /// # Errors
    /// Typed by what is wrong with the row (see [`WriteError`]), or [`WriteError::Io`]. After an I/O error the
    /// writer is of no more use; after an error about the row it is as before, except that a value of the refused row
    /// may already stand in the TOAST file, where no row refers to it.
    pub fn insert(&mut self, fields: &[Field<'_>]) -> Result<(), WriteError> {
        let row = self.rows + 1;
        self.check_columns(row, fields.len())?;
        for (index, field) in fields.iter().enumerate() {
            field.check(row, index + 1)?;
        }
        self.external.clear();
        self.external.resize(fields.len(), None);
        let len = self.move_large_values(row, fields)?;
        if len > MAX_TUPLE {
            return Err(WriteError::TupleTooLarge { row, found: len });
        }
        if !self.page.fits(len) {
            self.heap.append(&mut self.page, &self.names)?;
        }
        let tid = (self.heap.blocks(), self.page.next_item());
        tuple::form(fields, &self.external, tid, &mut self.tuple);
        debug_assert_eq!(self.tuple.len(), len);
        self.page.add(&self.tuple);
        self.columns = Some(fields.len());
        self.rows = row;
        Ok(())
    }

    /// The number of rows inserted so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether files have temporary names already, which the death of the process would leave.
    pub fn has_names(&self) -> bool {
        !self.making.is_unnamed()
    }

    /// Whether a row was so large that there will be a TOAST file.
    pub fn has_toast(&self) -> bool {
        self.toast.is_some()
    }

    /// Writes what is buffered, syncs the files and gives them their names.
    ///
    /// # Errors
    /// Those of [`ready`](Self::ready) and of [`Ready::publish`].
    pub fn finish(self) -> Result<WriteSummary, WriteError> {
        self.ready::<WriteError>(|_| Ok(None))?.publish()
    }

    /// Does all of what [`finish`](Self::finish) does that takes time or room, and changes no name. `sidecar` says what the
    /// sidecar shall hold, if there is to be one.
    ///
    /// # Errors
    /// [`WriteError::Io`] naming the file, [`WriteError::Exists`] if somebody made a file of that name meanwhile; those of
    /// `sidecar`. What was written is removed then.
    pub fn ready<E: From<WriteError>>(
        mut self,
        sidecar: impl FnOnce(&WriteSummary) -> Result<Option<Sidecar>, E>,
    ) -> Result<Ready, E> {
        let summary = self.sync()?;
        let sidecar = sidecar(&summary)?;
        let Self { path, options, names, making, heap, toast, .. } = self;
        let (toast_path, sidecar_path) = (toast_path(&path), Sidecar::path_for(&path));
        let mut new = heap.into_files();
        let mut old = files::old_segments(&path, new.len(), &options)?;
        if files::replaceable(&sidecar_path, options.overwrite)? {
            old.push(sidecar_path.clone());
        }
        let toast = toast.map_or_else(Vec::new, ToastWriter::into_files);
        old.extend(files::old_segments(&toast_path, toast.len(), &options)?);
        new.extend(toast);
        if let Some(sidecar) = sidecar {
            let text = sidecar.to_text().map_err(|error| WriteError::from(error.in_file(&sidecar_path)))?;
            let mut staged = making.make(&sidecar_path, &names)?;
            staged.fill(text.as_bytes())?;
            new.push(staged);
        }
        Ok(Ready { summary, exchange: Exchange { names, new, old } })
    }

    /// Brings all pages to the disk.
    fn sync(&mut self) -> Result<WriteSummary, WriteError> {
        if !self.page.is_empty() {
            self.heap.append(&mut self.page, &self.names)?;
        }
        self.heap.sync()?;
        let toast_blocks = self.toast.as_mut().map_or(Ok(0), |toast| toast.sync(&self.names))?;
        Ok(WriteSummary {
            rows: self.rows,
            heap_blocks: self.heap.blocks(),
            toast_blocks,
            toast_path: self.toast.is_some().then(|| toast_path(&self.path)),
        })
    }

    /// Holds every row to the number of columns of the first one, and that to what a tuple can have.
    fn check_columns(&self, row: u64, found: usize) -> Result<(), WriteError> {
        match self.columns {
            Some(expected) if expected != found => Err(WriteError::ColumnCount { row, expected, found }),
            None if !(1..=tuple::MAX_COLUMNS).contains(&found) => {
                Err(WriteError::ColumnRange { row, expected: tuple::MAX_COLUMNS, found })
            }
            _ => Ok(()),
        }
    }

    /// Moves the largest value to the TOAST file until the tuple is small enough. Returns the tuple's length.
    fn move_large_values(&mut self, row: u64, fields: &[Field<'_>]) -> Result<usize, WriteError> {
        loop {
            let len = tuple::tuple_len(fields, &self.external);
            if len <= TOAST_THRESHOLD {
                return Ok(len);
            }
            let Some(index) = tuple::largest_movable(fields, &self.external) else {
                return Ok(len);
            };
            let Some((field, slot)) = fields.get(index).zip(self.external.get_mut(index)) else {
                return Ok(len);
            };
            let (names, making, path) = (&self.names, &self.making, toast_path(&self.path));
            let toast = match &mut self.toast {
                Some(toast) => toast,
                none => none.insert(ToastWriter::create(&path, &self.options, making, names)?),
            };
            *slot = Some(toast.store(row, field, names)?);
        }
    }
}

/// A relation that is whole and on disk, and has no name yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Ready {
    summary: WriteSummary,
    exchange: Exchange,
}

impl Ready {
    /// Gives the files their names, in the place of those that they replace.
    ///
    /// # Errors
    /// [`WriteError::Io`] naming the file. All names are as they were then.
    pub fn publish(self) -> Result<WriteSummary, WriteError> {
        self.exchange.publish()?;
        Ok(self.summary)
    }
}

const _: () = assert!(TUPLE_HEADER == 23);
