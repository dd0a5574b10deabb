//! Reads what the writer made with this crate's reader.

use std::path::Path;
use std::sync::Arc;

use crate::{
    Error, PageCounts, PageReader, ReadOptions, RelationFile, RowSink, Toast, ToastIndex, TupleDesc, Value,
};

/// Length in bits and bytes of a value, unless it is NULL.
pub(super) type BitString = Option<(u32, Vec<u8>)>;

/// The values of one column, in order.
#[derive(Default)]
struct Column(Vec<BitString>);

impl RowSink for Column {
    fn row(&mut self, _item: u16, value: Value<'_>) -> Result<(), Error> {
        self.0.push(match value {
            Value::Null => None,
            Value::Bits { bits, bytes } => Some((bits, bytes.to_vec())),
        });
        Ok(())
    }

    fn damaged(&mut self, error: Error) -> Result<(), Error> {
        Err(error)
    }
}

/// Reads the column `seq` of a relation with these columns.
pub(super) fn bit_strings(
    path: &Path,
    columns: &str,
    blocks_per_segment: u32,
    verify_checksums: bool,
) -> Result<(Vec<BitString>, PageCounts), Error> {
    let options = ReadOptions { verify_checksums, ..Default::default() };
    let toast_path = super::toast_path(path);
    let toast = if toast_path.exists() {
        let file = RelationFile::open_with_segment_size(&toast_path, blocks_per_segment)?;
        let index = ToastIndex::build(&file, &options)?;
        Some(Arc::new(Toast::new(file, index)?))
    } else {
        None
    };
    let desc = TupleDesc::parse(columns)?;
    let mut reader = PageReader::new(&desc, desc.column("seq")?, options, path, toast)?;
    let file = RelationFile::open_with_segment_size(path, blocks_per_segment)?;
    let (mut column, mut counts) = (Column::default(), PageCounts::default());
    let mut page = vec![0; 8192];
    for block in 0..file.total_blocks() {
        file.read_blocks(block, &mut page)?;
        reader.read_page(&page, block, &mut counts, &mut column)?;
    }
    Ok((column.0, counts))
}
