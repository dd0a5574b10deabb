//! Tests that need more than one module, and the builders they share.

pub(crate) mod build;
mod files;
mod mutation;
mod pglz;
mod rows;
mod schema;
mod tuples;

use std::path::Path;
use std::sync::Arc;

use crate::{
    Error, PageCounts, PageReader, ReadOptions, RelationFile, RowSink, Toast, ToastIndex, TupleDesc, Value,
};

/// A value of a row, NULL as `None`: the number of bits, and their bytes.
pub(crate) type Bits = Option<(u32, Vec<u8>)>;

/// Keeps all rows and all damage.
#[derive(Debug, Default)]
pub(crate) struct Collect {
    pub(crate) rows: Vec<(u16, Bits)>,
    pub(crate) damage: Vec<Error>,
}

impl RowSink for Collect {
    fn row(&mut self, item: u16, value: Value<'_>) -> Result<(), Error> {
        let value = match value {
            Value::Null => None,
            Value::Bits { bits, bytes } => Some((bits, bytes.to_vec())),
        };
        self.rows.push((item, value));
        Ok(())
    }

    fn damaged(&mut self, error: Error) -> Result<(), Error> {
        self.damage.push(error);
        Ok(())
    }
}

impl Collect {
    pub(crate) fn texts(&self) -> Vec<String> {
        self.damage.iter().map(Error::to_string).collect()
    }
}

pub(crate) fn reader(columns: &str, options: ReadOptions, toast: Option<Arc<Toast>>) -> PageReader {
    let desc = TupleDesc::parse(columns).unwrap();
    let column = desc.column("seq").unwrap();
    PageReader::new(&desc, column, options, Path::new("t"), toast).unwrap()
}

/// Reads one page as block 0.
pub(crate) fn read_page(columns: &str, page: &[u8], options: ReadOptions) -> (Collect, PageCounts) {
    let (mut sink, mut counts) = (Collect::default(), PageCounts::default());
    reader(columns, options, None).read_page(page, 0, &mut counts, &mut sink).unwrap();
    (sink, counts)
}

/// Writes pages to a file of a directory that lives as long as what is given back first.
pub(crate) fn file_of(pages: &[Vec<u8>]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rel");
    std::fs::write(&path, pages.concat()).unwrap();
    (dir, path)
}

/// A TOAST relation of these tuples; the file is already unlinked.
pub(crate) fn toast_of(tuples: &[Vec<u8>]) -> Toast {
    let (_dir, path) = file_of(&build::pages_of(tuples));
    let file = RelationFile::open(&path).unwrap();
    let index =
        ToastIndex::build(&file, &ReadOptions { verify_checksums: true, ..Default::default() }).unwrap();
    Toast::new(file, index).unwrap()
}
