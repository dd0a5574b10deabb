//! Reads a partial result, some keys at a time, and proves that it is whole: keys ascend, and they and their counts are those that were written.

use super::meta::{Conserved, Digest, Meta, SCHEMA_VERSION};
use super::pages::Pages;
use super::stream;
use super::{META_KEY, PAGES_KEY, SUM_KEY, sum_of};
use crate::failure::Failure;
use crate::report::Entry;
use arrow_array::{Array, RecordBatch, UInt32Array, UInt64Array};
use arrow_ipc::reader::StreamReader;
use kmer::params::Params;
use parquet::column::reader::ColumnReader;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

/// A partial result, open.
pub struct Part {
    name: String,
    /// What it says of itself.
    pub meta: Meta,
    source: Source,
    /// Entries that are at hand, the last one first.
    waiting: Vec<Entry>,
    read: u64,
    last: Option<u64>,
    /// The largest key of so many bits, and the largest count there can be.
    last_key: u64,
    most: u64,
    digest: Digest,
    conserved: Conserved,
}

enum Source {
    Stream(Box<StreamReader<BufReader<File>>>),
    Parquet { reader: Box<SerializedFileReader<File>>, next: usize },
}

impl Part {
    /// Opens the file at `path`, an Arrow IPC stream or Parquet.
    ///
    /// # Errors
    /// When it is neither, or no partial result of this version's.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let bad = |e: &dyn Display| bad(&name, e);
        let mut file = File::open(path).map_err(|e| Failure::io("open", path, &e))?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic).map_err(|e| bad(&e))?;
        file.rewind().map_err(|e| Failure::io("read", path, &e))?;
        let (source, pairs) = if &magic == b"PAR1" {
            let mut pages = file.try_clone().map_err(|e| Failure::io("read", path, &e))?;
            let reader = SerializedFileReader::new(file).map_err(|e| bad(&e))?;
            let pairs = pairs_of(&reader);
            if pairs.contains_key(META_KEY) {
                let sum = pairs.get(PAGES_KEY);
                let sum = sum.ok_or_else(|| bad(&format!("expected metadata {PAGES_KEY:?}, found none")))?;
                pages.rewind().map_err(|e| Failure::io("read", path, &e))?;
                let bytes = Pages::check(sum, &mut pages).map_err(|e| bad(&e))?;
                check_places(&reader, bytes).map_err(|e| bad(&e))?;
            }
            (Source::Parquet { reader: Box::new(reader), next: 0 }, pairs)
        } else if magic == [0xff; 4] {
            stream::check(&file).map_err(|e| bad(&e))?;
            let reader = StreamReader::try_new_buffered(file, None).map_err(|e| bad(&e))?;
            let schema = reader.schema();
            let pairs = schema.metadata().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            (Source::Stream(Box::new(reader)), pairs)
        } else {
            return Err(bad(&"expected Parquet or an Arrow IPC stream, found something else"));
        };
        let value =
            |key: &str| pairs.get(key).ok_or_else(|| bad(&format!("expected metadata {key:?}, found none")));
        let json = value(META_KEY)?;
        let (expected, found) = (value(SUM_KEY)?, sum_of(json));
        if *expected != found {
            return Err(bad(&format!("check sum of its metadata: expected {expected}, found {found}")));
        }
        let meta: Meta = serde_json::from_str(json).map_err(|e| bad(&e))?;
        if meta.schema_version != SCHEMA_VERSION {
            let text = format!("schema_version: expected {SCHEMA_VERSION}, found {}", meta.schema_version);
            return Err(bad(&text));
        }
        let params = Params::new(meta.k, meta.occur_bitlen).map_err(|e| bad(&e))?;
        let last_key = u64::MAX >> (64 - params.key_bits());
        let most = if meta.counts_rows() { meta.total_rows } else { u64::MAX };
        let (digest, conserved) = (Digest::default(), Conserved::default());
        Ok(Self {
            name,
            meta,
            source,
            waiting: Vec::new(),
            read: 0,
            last: None,
            last_key,
            most,
            digest,
            conserved,
        })
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next entry; `None` behind the last, and then the part was whole.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Failure> {
        while self.waiting.is_empty() {
            if !self.fill()? {
                return self.check_end().map(|()| None);
            }
        }
        let Some(entry) = self.waiting.pop() else { return Ok(None) };
        if self.last.is_some_and(|last| last >= entry.0) {
            return Err(bad(
                &self.name,
                &format!("expected keys in ascending order, found {} too late", entry.0),
            ));
        }
        if entry.0 > self.last_key || entry.1 == 0 || u64::from(entry.1) > self.most {
            let (key, count) = entry;
            let text = format!(
                "expected keys to {} and counts from 1 to {}, found key {key} with {count}",
                self.last_key, self.most
            );
            return Err(bad(&self.name, &text));
        }
        self.last = Some(entry.0);
        self.read += 1;
        self.digest.add(entry);
        self.conserved.add(entry);
        Ok(Some(entry))
    }

    fn check_end(&self) -> Result<(), Failure> {
        let (expected, found) = (&self.meta.digest, self.digest.text());
        if self.read == self.meta.keys && *expected == found {
            let (expected, found) = (&self.meta.conserved, self.conserved.text());
            if *expected == found {
                return Ok(());
            }
            return Err(bad(&self.name, &format!("conserved sum: expected {expected}, found {found}")));
        }
        let (keys, read) = (self.meta.keys, self.read);
        Err(bad(&self.name, &format!("expected {keys} keys of digest {expected}, found {read} of {found}")))
    }

    /// Reads some more entries; false when there are none.
    fn fill(&mut self) -> Result<bool, Failure> {
        let name = &self.name;
        let (keys, counts) = match &mut self.source {
            Source::Stream(reader) => match reader.next() {
                None => return Ok(false),
                Some(batch) => columns_of(name, &batch.map_err(|e| bad(name, &e))?)?,
            },
            Source::Parquet { reader, next } => {
                if *next >= reader.num_row_groups() {
                    return Ok(false);
                }
                let group = reader.get_row_group(*next).map_err(|e| bad(name, &e))?;
                *next += 1;
                let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
                if group.num_columns() != 2 || rows > 1 << 26 {
                    return Err(bad(name, &"expected two columns in groups of rows, found others"));
                }
                let keys = read_column(group.get_column_reader(0), rows).map_err(|e| bad(name, &e))?;
                (keys, read_column(group.get_column_reader(1), rows).map_err(|e| bad(name, &e))?)
            }
        };
        if keys.len() != counts.len() {
            return Err(bad(name, &"expected as many counts as keys"));
        }
        let entries = keys.into_iter().zip(counts).rev();
        for (key, count) in entries {
            let count = u32::try_from(count).map_err(|e| bad(name, &e))?;
            self.waiting.push((key, count));
        }
        Ok(true)
    }
}

fn pairs_of(reader: &SerializedFileReader<File>) -> HashMap<String, String> {
    let pairs = reader.metadata().file_metadata().key_value_metadata();
    pairs.into_iter().flatten().filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?))).collect()
}

/// The library trusts the places of the pages, which a damaged footer may put anywhere; they are within the first `bytes`.
fn check_places(reader: &SerializedFileReader<File>, bytes: u64) -> Result<(), String> {
    for group in reader.metadata().row_groups() {
        for column in group.columns() {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let place = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
            let end = place.and_then(|(start, size)| start.checked_add(size));
            if column.data_page_offset() < start || end.is_none_or(|end| end > bytes) {
                let size = column.compressed_size();
                return Err(format!(
                    "pages: expected them within {bytes} bytes, found {size} from {start} on"
                ));
            }
        }
    }
    Ok(())
}

fn bad(name: &str, what: &dyn Display) -> Failure {
    Failure::error(format!("partial result {name:?}: {what}"))
}

fn columns_of(name: &str, batch: &RecordBatch) -> Result<(Vec<u64>, Vec<u64>), Failure> {
    let column = |number: usize| batch.columns().get(number).map(|column| column.as_any());
    let keys = column(0).and_then(|column| column.downcast_ref::<UInt64Array>());
    let counts = column(1).and_then(|column| column.downcast_ref::<UInt32Array>());
    match (keys, counts) {
        (Some(keys), Some(counts)) if keys.null_count() == 0 && counts.null_count() == 0 => {
            Ok((keys.values().to_vec(), counts.values().iter().map(|count| u64::from(*count)).collect()))
        }
        _ => Err(bad(name, &"expected columns uint64 and uint32 without nulls, found others")),
    }
}

fn read_column(
    reader: parquet::errors::Result<ColumnReader>,
    rows: usize,
) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    match reader? {
        ColumnReader::Int64ColumnReader(mut reader) => {
            let mut values = Vec::new();
            while reader.read_records(rows, None, None, &mut values)?.1 > 0 {}
            Ok(values.into_iter().map(i64::cast_unsigned).collect())
        }
        ColumnReader::Int32ColumnReader(mut reader) => {
            let mut values = Vec::new();
            while reader.read_records(rows, None, None, &mut values)?.1 > 0 {}
            Ok(values.into_iter().map(|value: i32| u64::from(value.cast_unsigned())).collect())
        }
        _ => Err("expected columns of int64 and int32, found others".into()),
    }
}
