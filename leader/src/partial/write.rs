//! Writes a partial result: an Arrow IPC stream to standard output, Parquet to a file. Its bytes do not depend on how the keys were dealt.

use super::meta::{Conserved, Digest, Meta};
use super::pages::Pages;
use super::{META_KEY, PAGES_KEY, SUM_KEY, sum_of};
use crate::failure::Failure;
use crate::format::parquet::Sink;
use crate::output::Output;
use crate::report::Entries;
use arrow_array::{ArrayRef, RecordBatch, UInt32Array, UInt64Array};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema};
use parquet::basic::Encoding;
use parquet::data_type::{Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Keys of a batch.
const BATCH: usize = 1 << 16;
/// Keys of a row group.
const GROUP: usize = 1 << 20;

/// Keys and counts that wait to be written.
#[derive(Default)]
struct Columns {
    keys: Vec<u64>,
    counts: Vec<u32>,
}

/// Writes all of `entries`, with what `meta` says.
///
/// # Errors
/// As [`Output::write`].
pub fn write(meta: &Meta, entries: &Entries, output: &mut Output) -> Result<(), Failure> {
    let (mut digest, mut conserved) = (Digest::default(), Conserved::default());
    entries.each(&mut |some| {
        for entry in some {
            digest.add(*entry);
            conserved.add(*entry);
        }
        Ok(())
    })?;
    let (digest, conserved) = (digest.text(), conserved.text());
    let meta = Meta { keys: entries.count, digest, conserved, ..meta.clone() };
    let json = serde_json::to_string(&meta).map_err(failed)?;
    let stream = output.is_stdout();
    let mut failure = None;
    let sink = Sink { output, failure: &mut failure };
    let written = if stream {
        write_stream(sink, &meta, json, entries)
    } else {
        write_parquet(sink, &meta, json, entries)
    };
    match (failure, written) {
        (Some(failure), _) => Err(failure),
        (None, written) => written,
    }
}

fn failed(e: impl Display) -> Failure {
    Failure::error(format!("could not write the partial result: {e}"))
}

/// Hands the entries to `sink`, `size` at a time.
fn in_columns(
    entries: &Entries,
    size: usize,
    mut sink: impl FnMut(&mut Columns) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut columns = Columns::default();
    entries.each(&mut |some| {
        for (key, count) in some {
            columns.keys.push(*key);
            columns.counts.push(*count);
            if columns.keys.len() == size {
                sink(&mut columns)?;
                columns = Columns::default();
            }
        }
        Ok(())
    })?;
    if columns.keys.is_empty() { Ok(()) } else { sink(&mut columns) }
}

fn write_stream(sink: Sink<'_>, meta: &Meta, json: String, entries: &Entries) -> Result<(), Failure> {
    let fields = vec![
        Field::new("uintkey", DataType::UInt64, false),
        Field::new(&meta.counts, DataType::UInt32, false),
    ];
    let pairs = [(SUM_KEY.to_owned(), sum_of(&json)), (META_KEY.to_owned(), json)];
    let schema = Arc::new(Schema::new_with_metadata(fields, HashMap::from(pairs)));
    let mut writer = StreamWriter::try_new(sink, &schema).map_err(failed)?;
    in_columns(entries, BATCH, |columns| {
        let keys: ArrayRef = Arc::new(UInt64Array::from(std::mem::take(&mut columns.keys)));
        let counts: ArrayRef = Arc::new(UInt32Array::from(std::mem::take(&mut columns.counts)));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![keys, counts]).map_err(failed)?;
        writer.write(&batch).map_err(failed)
    })?;
    writer.finish().map_err(failed)
}

fn write_parquet(sink: Sink<'_>, meta: &Meta, json: String, entries: &Entries) -> Result<(), Failure> {
    let counts = &meta.counts;
    let text = format!(
        "message partial {{ required int64 uintkey (INTEGER(64, false)); required int32 {counts} (INTEGER(32, false)); }}"
    );
    let schema = parse_message_type(&text).map_err(failed)?;
    let properties = WriterProperties::builder()
        .set_created_by(concat!("kmer-leader ", env!("CARGO_PKG_VERSION")).into())
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::DELTA_BINARY_PACKED)
        .build();
    let seen = Arc::default();
    let sink = Checked { sink, seen: Arc::clone(&seen) };
    let mut writer =
        SerializedFileWriter::new(sink, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
    writer.append_key_value_metadata(KeyValue::new(SUM_KEY.into(), sum_of(&json)));
    writer.append_key_value_metadata(KeyValue::new(META_KEY.into(), json));
    in_columns(entries, GROUP, |columns| write_group(&mut writer, columns).map_err(failed))?;
    writer.flush().map_err(failed)?;
    let pages = seen.lock().unwrap_or_else(PoisonError::into_inner).text();
    writer.append_key_value_metadata(KeyValue::new(PAGES_KEY.into(), pages));
    writer.close().map_err(failed)?;
    Ok(())
}

/// Checks what goes through it.
struct Checked<'a> {
    sink: Sink<'a>,
    seen: Arc<Mutex<Pages>>,
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

fn write_group(
    writer: &mut SerializedFileWriter<Checked<'_>>,
    columns: &Columns,
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    if let Some(mut column) = group.next_column()? {
        let keys: Vec<i64> = columns.keys.iter().map(|key| key.cast_signed()).collect();
        column.typed::<Int64Type>().write_batch(&keys, None, None)?;
        column.close()?;
    }
    if let Some(mut column) = group.next_column()? {
        let counts: Vec<i32> = columns.counts.iter().map(|count| count.cast_signed()).collect();
        column.typed::<Int32Type>().write_batch(&counts, None, None)?;
        column.close()?;
    }
    group.close()?;
    Ok(())
}
