//! Stores large values in the TOAST file, cut into chunks, and makes the pointers that stand for them.
//!
//! A TOAST table has the columns chunk_id oid, chunk_seq int4 and chunk_data bytea (`heaptoast.h`). All three have plain
//! storage there, so chunk_data always has the 4-byte header. A chunk holds up to 1996 bytes, four to a page. The pointer
//! (`varatt.h`, varatt_external) is 18 bytes: 0x01, tag 18, va_rawsize (with a 4-byte header), va_extinfo (without it; top
//! two bits 0: not compressed), va_valueid, va_toastrelid.

use std::path::Path;

use super::WriteOptions;
use super::error::WriteError;
use super::exchange::Names;
use super::files::{Making, SegmentedFile, Staged};
use super::page::PageBuilder;
use super::tuple::{self, Field};

/// Bytes of a pointer to a TOASTed value.
pub(super) const POINTER_LEN: usize = 18;
/// The most value bytes in one chunk (TOAST_MAX_CHUNK_SIZE).
const CHUNK: usize = 1996;

/// What stands in the tuple for a value in the TOAST file.
pub(super) type ToastPointer = [u8; POINTER_LEN];

/// Writes one TOAST relation.
#[derive(Debug)]
pub(super) struct ToastWriter {
    file: SegmentedFile,
    page: PageBuilder,
    tuple: Vec<u8>,
    next_id: Option<u32>,
    relid: u32,
}

impl ToastWriter {
    /// Begins the TOAST file `path`.
    pub(super) fn create(
        path: &Path,
        options: &WriteOptions,
        making: &Making,
        names: &Names,
    ) -> Result<Self, WriteError> {
        Ok(Self {
            file: SegmentedFile::create(path, options, making, names)?,
            page: PageBuilder::new(),
            tuple: Vec::new(),
            next_id: Some(options.first_value_id),
            relid: options.toast_relid,
        })
    }

    /// Stores the value of a variable-length field and returns the pointer to it.
    pub(super) fn store(
        &mut self,
        row: u64,
        field: &Field<'_>,
        names: &Names,
    ) -> Result<ToastPointer, WriteError> {
        let (front, front_len, rest) = field.payload().unwrap_or(([0; 4], 0, &[]));
        let id = self.next_id.ok_or(WriteError::ValueIds { row })?;
        self.next_id = id.checked_add(1);
        let front = front.get(..front_len).unwrap_or_default();
        // The first chunk bears the front part, so the others are plain cuts of the rest.
        let (first, others) = rest.split_at(rest.len().min(CHUNK - front.len()));
        self.put_chunk(id, 0, [front, first], names)?;
        for (seq, chunk) in (1u32..).zip(others.chunks(CHUNK)) {
            self.put_chunk(id, seq, [&[], chunk], names)?;
        }
        Ok(pointer(front.len() + rest.len(), id, self.relid))
    }

    fn put_chunk(
        &mut self,
        id: u32,
        seq: u32,
        [front, rest]: [&[u8]; 2],
        names: &Names,
    ) -> Result<(), WriteError> {
        let len = 24 + 12 + front.len() + rest.len();
        if !self.page.fits(len) {
            self.file.append(&mut self.page, names)?;
        }
        let tid = (self.file.blocks(), self.page.next_item());
        tuple::toast_header(tid, &mut self.tuple);
        let header = ((front.len() + rest.len() + 4) as u32) << 2;
        for word in [id, seq, header] {
            self.tuple.extend_from_slice(&word.to_le_bytes());
        }
        self.tuple.extend_from_slice(front);
        self.tuple.extend_from_slice(rest);
        self.page.add(&self.tuple);
        Ok(())
    }

    /// Writes the rest and waits until all is on disk. Returns the number of blocks.
    pub(super) fn sync(&mut self, names: &Names) -> Result<u32, WriteError> {
        if !self.page.is_empty() {
            self.file.append(&mut self.page, names)?;
        }
        self.file.sync()?;
        Ok(self.file.blocks())
    }

    /// The segments, the first one first.
    pub(super) fn into_files(self) -> Vec<Staged> {
        self.file.into_files()
    }
}

fn pointer(len: usize, id: u32, relid: u32) -> ToastPointer {
    let mut bytes = [0; POINTER_LEN];
    bytes[0] = 0x01;
    bytes[1] = 18;
    for (at, word) in [(2, len as u32 + 4), (6, len as u32), (10, id), (14, relid)] {
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
