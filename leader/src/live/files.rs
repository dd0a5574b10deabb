//! Where the table's files lie, and that they are those of the server that we talk to.
//!
//! A path that the server names may exist here and belong to another server: the port was forwarded from another machine, or two run in
//! containers. So the system identifier in `global/pg_control` and the start in `postmaster.pid` are compared with what the server says.

use super::Request;
use super::errors::failed;
use super::session::Session;
use super::table::{Column, Table};
use crate::failure::Failure;
use crate::source::{Leaves, NewLeaf, Source};
use kmer_worker::job::{Snapshot, Transactions};
use relation::{DnaType, ReadOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Seconds that the server's two notions of its start may differ.
const START_TOLERANCE: i64 = 10;

/// The data directory, which is here and the server's.
///
/// # Errors
/// When this user may not know where it is, it is not here, or may not be read.
pub fn directory(session: &mut Session) -> Result<PathBuf, Failure> {
    let directory: String =
        session.value("ask where the data directory is", "SELECT current_setting('data_directory')")?;
    let directory = PathBuf::from(directory);
    check_same_server(session, &directory)?;
    Ok(directory)
}

/// A table that is locked and written out.
pub struct Locked<'a> {
    /// The data directory.
    pub directory: PathBuf,
    /// The table.
    pub table: &'a Table,
    /// Its column.
    pub column: &'a Column,
    /// Where the log was between the lock and the checkpoint: what changes a page later gives it a later LSN.
    pub lsn: u64,
}

/// The source of the locked table.
///
/// # Errors
/// What is wrong with the files, or with who asks.
pub fn source(
    session: &mut Session,
    locked: Locked<'_>,
    request: &Request<'_>,
    say: &mut dyn FnMut(&str),
) -> Result<Source, Failure> {
    let Locked { directory, table, column, .. } = &locked;
    let segment_blocks: i32 = session.value(
        "ask for the size of segment files",
        "SELECT setting::int4 FROM pg_settings WHERE name = 'segment_size'",
    )?;
    let checksums: String = session.value("ask for checksums", "SELECT current_setting('data_checksums')")?;
    let verify_checksums = checksums == "on" && !request.no_checksums;
    // Circular, as in tuples. Taken under the lock: whoever wrote into the table and committed came before.
    let next: i64 = session.value(
        "ask for the next transaction",
        "SELECT (pg_snapshot_xmax(pg_current_snapshot())::text::numeric % 4294967296)::int8",
    )?;
    let transactions = Transactions {
        data_directory: directory.as_os_str().as_bytes().to_vec(),
        snapshot: Snapshot::Open { next_xid: u32::try_from(next).unwrap_or_default() },
    };
    let oracle: std::sync::Arc<dyn relation::visibility::Oracle> = std::sync::Arc::new(transactions.open()?);
    let options = ReadOptions { verify_checksums, unhinted: request.unhinted };
    let mut leaves = Leaves::new(segment_blocks.unsigned_abs()).beside_server(locked.lsn);
    let found = table.leaves(session, column)?;
    for leaf in &found {
        let path = directory.join(&leaf.path);
        readable(&path)?;
        let toast = leaf.toast.as_ref().map(|toast| directory.join(toast));
        let new = NewLeaf { path: &path, desc: &leaf.desc, column: leaf.column, toast: toast.as_deref() };
        leaves.add(&new, &options, Some(&oracle))?;
    }
    if found.is_empty() {
        say(&format!("table {} has no partitions", table.quoted));
    }
    let mut name = table.name.clone();
    name.attnum = column.attnum;
    Ok(Source {
        leaves,
        transactions: Some(transactions),
        stream: None,
        long_rows: false,
        column: column.name.clone(),
        dna: column.dna,
        verify_checksums,
        table: Some(name),
        warnings: Vec::new(),
    })
}

fn check_same_server(session: &mut Session, directory: &Path) -> Result<(), Failure> {
    let control = directory.join("global/pg_control");
    let bytes = std::fs::read(&control).map_err(|e| unreachable_file(directory, &control, &e))?;
    let here = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let action = "ask for the system identifier";
    let there: i64 = session.value(action, "SELECT system_identifier FROM pg_control_system()")?;
    let started: i64 = session.value(
        "ask for the server's start",
        "SELECT floor(extract(epoch FROM pg_postmaster_start_time()))::int8",
    )?;
    let lock = directory.join("postmaster.pid");
    let text = std::fs::read_to_string(&lock).map_err(|e| unreachable_file(directory, &lock, &e))?;
    let start_here = text.lines().nth(2).and_then(|line| line.trim().parse::<i64>().ok());
    let same_start = start_here.is_some_and(|here| (here - started).abs() <= START_TOLERANCE);
    if here != Some(there.cast_unsigned()) || !same_start {
        let text = format!(
            "data directory {directory:?}: it is here, but belongs to another server than the one that answers"
        );
        return Err(
            Failure::error(text).hint("run kmer-leader on the machine of the server, in the same container")
        );
    }
    Ok(())
}

/// Says before the start that a file cannot be read, and why.
fn readable(path: &Path) -> Result<(), Failure> {
    match std::fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(e) => Err(unreachable_file(path, path, &e)),
    }
}

fn unreachable_file(directory: &Path, file: &Path, e: &std::io::Error) -> Failure {
    let failure = Failure::io("read", file, e);
    match e.kind() {
        ErrorKind::PermissionDenied => failure.hint(
            "the server's files are for its own user: run kmer-leader as that user (sudo -u postgres kmer-leader ...) or as root",
        ),
        ErrorKind::NotFound => failure.hint(format!(
            "the server says that its files are in {directory:?}, and on this machine they are not: run kmer-leader where the server runs"
        )),
        _ => failure,
    }
}

/// The value of the DNA column in rows from before the column, as [`relation::Attribute::missing`] has it.
///
/// Types show their values as bits (bit varying, and types made like it) or as letters (pg_kmersearch's).
///
/// # Errors
/// What the server says; a value that is neither.
pub fn missing(
    session: &mut Session,
    oid: u32,
    column: usize,
    dna: DnaType,
    table: &str,
) -> Result<Option<Vec<u8>>, Failure> {
    const QUERY: &str = "SELECT (attmissingval::text::text[])[1] FROM pg_attribute
        WHERE attrelid = $1 AND attnum = $2 AND atthasmissing AND NOT attisdropped";
    let attnum = i16::try_from(column + 1).unwrap_or(i16::MAX);
    let action = format!("ask for the default of older rows of table {table}");
    let row = session.client().query_opt(QUERY, &[&oid, &attnum]).map_err(|e| failed(&action, &e))?;
    let Some(row) = row else { return Ok(None) };
    let Some(text) = row.try_get::<_, Option<String>>(0).map_err(|e| failed(&action, &e))? else {
        return Ok(None);
    };
    let value = value_bytes(&text, dna);
    value.map(Some).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        Failure::error(format!(
            "table {table}: default of older rows: expected bits or bases, found {shown:?}"
        ))
    })
}

fn value_bytes(text: &str, dna: DnaType) -> Option<Vec<u8>> {
    let (bits, packed) = if text.bytes().all(|b| matches!(b, b'0' | b'1')) {
        let mut packed = vec![0u8; text.len().div_ceil(8)];
        for (at, _) in text.bytes().enumerate().filter(|(_, bit)| *bit == b'1') {
            packed[at / 8] |= 0x80 >> (at % 8);
        }
        (text.len(), packed)
    } else {
        match dna {
            DnaType::Dna2 => (2 * text.len(), kmer::codec::pack_dna2(text.as_bytes())?),
            DnaType::Dna4 => (4 * text.len(), kmer::codec::pack_dna4(text.as_bytes())?),
        }
    };
    let bits = i32::try_from(bits).ok()?;
    Some([&bits.to_le_bytes()[..], &packed].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bits_or_letters() {
        let bits = [6, 0, 0, 0, 0b0001_1000];
        assert_eq!(value_bytes("000110", DnaType::Dna2).as_deref(), Some(&bits[..]));
        assert_eq!(value_bytes("ACG", DnaType::Dna2).as_deref(), Some(&bits[..]));
        assert_eq!(value_bytes("AN", DnaType::Dna4).as_deref(), Some(&[8, 0, 0, 0, 0x1f][..]));
        assert_eq!(value_bytes("", DnaType::Dna4).as_deref(), Some(&[0, 0, 0, 0][..]));
        assert_eq!(value_bytes("ACX", DnaType::Dna2), None);
    }
}
