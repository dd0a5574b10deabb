//! A result as a Parquet file: columns `kmer` (text), `uintkey` (unsigned, 64 bits) and `appearance_nrow`; the facts as JSON under the key
//! `kmer-leader` of its metadata.
//!
//! Keys ascend, so they are stored as differences, and k-mers as what they do not share with the one before; there is no compression beside.
//! Row groups are cut at fixed numbers of k-mers, so the bytes do not depend on how the k-mers were dealt.

use super::facts::{Facts, ROWS};
use crate::failure::Failure;
use crate::output::Output;
use crate::report::{Entries, Entry, EntryText};
use bytes::Bytes;
use kmer::codec::write_kmer;
use kmer::params::Params;
use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::io;
use std::sync::Arc;

/// k-mers of a row group.
const GROUP: usize = 1 << 20;
/// Bytes of an entry on its way to the writer.
const ENTRY: usize = 12;
const SCHEMA: &str = "message kmers {
    required binary kmer (UTF8);
    required int64 uintkey (INTEGER(64, false));
    required int64 appearance_nrow;
}";

/// Entries as they are; what makes columns of them is the writer.
struct Raw;

impl EntryText for Raw {
    fn append(&self, entries: &[Entry], text: &mut Vec<u8>) {
        text.reserve(entries.len() * ENTRY);
        for (key, rows) in entries {
            text.extend_from_slice(&key.to_le_bytes());
            text.extend_from_slice(&rows.to_le_bytes());
        }
    }
}

/// The output as the library wants it; keeps what went wrong.
pub(crate) struct Sink<'a> {
    /// Where bytes go.
    pub(crate) output: &'a mut Output,
    /// What went wrong.
    pub(crate) failure: &'a mut Option<Failure>,
}

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.output.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(failure) => {
                *self.failure = Some(failure);
                Err(io::Error::other("the output cannot be written"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A row group that is being filled.
#[derive(Default)]
struct Group {
    keys: Vec<i64>,
    rows: Vec<i64>,
}

/// Writes the whole file.
///
/// # Errors
/// As [`Output::write`].
pub fn write(
    entries: &Entries,
    facts: &Facts,
    params: Params,
    output: &mut Output,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<(), Failure> {
    let mut failure = None;
    let sink = Sink { output, failure: &mut failure };
    let written = write_to(sink, entries, facts, params, watch);
    match (failure, written) {
        (Some(failure), _) => Err(failure),
        (None, written) => written,
    }
}

fn failed(e: &ParquetError) -> Failure {
    Failure::error(format!("could not write the result as Parquet: {e}"))
}

fn write_to(
    sink: Sink<'_>,
    entries: &Entries,
    facts: &Facts,
    params: Params,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<(), Failure> {
    let schema = parse_message_type(&SCHEMA.replace(ROWS, facts.counts())).map_err(|e| failed(&e))?;
    let properties = WriterProperties::builder()
        .set_created_by(concat!("kmer-leader ", env!("CARGO_PKG_VERSION")).into())
        .set_dictionary_enabled(false)
        .set_column_encoding("kmer".into(), Encoding::DELTA_BYTE_ARRAY)
        .set_column_encoding("uintkey".into(), Encoding::DELTA_BINARY_PACKED)
        .set_column_encoding(facts.counts().into(), Encoding::DELTA_BINARY_PACKED)
        .build();
    let mut writer =
        SerializedFileWriter::new(sink, Arc::new(schema), Arc::new(properties)).map_err(|e| failed(&e))?;
    let mut group = Group::default();
    entries.stream_watched(
        &Raw,
        &mut |bytes| {
            for entry in bytes.as_chunks::<ENTRY>().0 {
                let (key, rows) = entry.split_at(8);
                group.keys.push(i64::from_le_bytes(key.try_into().expect("8 bytes")));
                group.rows.push(u32::from_le_bytes(rows.try_into().expect("4 bytes")).into());
                if group.keys.len() == GROUP {
                    group.write(&mut writer, params).map_err(|e| failed(&e))?;
                }
            }
            Ok(())
        },
        watch,
    )?;
    if !group.keys.is_empty() {
        group.write(&mut writer, params).map_err(|e| failed(&e))?;
    }
    let facts = serde_json::to_string(facts)
        .map_err(|e| Failure::error(format!("could not write the facts as JSON: {e}")))?;
    writer.append_key_value_metadata(KeyValue::new("kmer-leader".into(), facts));
    writer.close().map_err(|e| failed(&e))?;
    Ok(())
}

impl Group {
    fn write(
        &mut self,
        writer: &mut SerializedFileWriter<Sink<'_>>,
        params: Params,
    ) -> Result<(), ParquetError> {
        let mut group = writer.next_row_group()?;
        let mut column = 0;
        while let Some(mut next) = group.next_column()? {
            match column {
                0 => next.typed::<ByteArrayType>().write_batch(&self.kmers(params), None, None)?,
                1 => next.typed::<Int64Type>().write_batch(&self.keys, None, None)?,
                _ => next.typed::<Int64Type>().write_batch(&self.rows, None, None)?,
            };
            next.close()?;
            column += 1;
        }
        group.close()?;
        self.keys.clear();
        self.rows.clear();
        Ok(())
    }

    fn kmers(&self, params: Params) -> Vec<ByteArray> {
        let k = params.k() as usize;
        let mut letters = Vec::with_capacity(self.keys.len() * k);
        for key in &self.keys {
            write_kmer(key.cast_unsigned() >> params.occur_bitlen(), params.k(), &mut letters);
        }
        let letters = Bytes::from(letters);
        (0..self.keys.len()).map(|n| letters.slice(n * k..(n + 1) * k).into()).collect()
    }
}
