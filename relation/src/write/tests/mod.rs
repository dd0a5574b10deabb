//! Tests of the writer against a naive reader, and of what it leaves behind when it fails.

mod exchange;
mod naive;
mod reader;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use naive::Value;
use proptest::prelude::*;

use super::*;

/// A field that owns its bytes.
#[derive(Debug, Clone)]
enum Owned {
    Null,
    Int(i32),
    Text(String),
    Bits(u32, Vec<u8>),
}

impl Owned {
    fn field(&self) -> Field<'_> {
        match self {
            Owned::Null => Field::Null,
            Owned::Int(value) => Field::Int4(*value),
            Owned::Text(text) => Field::Text(text),
            Owned::Bits(bits, bytes) => Field::VarBit { bits: *bits, bytes },
        }
    }

    fn value(&self) -> Value {
        match self {
            Owned::Null => Value::Null,
            Owned::Int(value) => Value::Int(*value),
            Owned::Text(text) => Value::Bytes(text.as_bytes().to_vec()),
            Owned::Bits(bits, bytes) => Value::Bytes([&bits.to_le_bytes()[..], bytes].concat()),
        }
    }
}

/// A bit string of `bits` bits whose bytes depend on `seed`.
fn bit_string(bits: u32, seed: u8) -> Owned {
    let mut bytes: Vec<u8> = (0..bits.div_ceil(8)).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect();
    if let Some(last) = bytes.last_mut().filter(|_| !bits.is_multiple_of(8)) {
        *last &= !(0xFF >> (bits % 8));
    }
    Owned::Bits(bits, bytes)
}

fn write(path: &Path, options: &WriteOptions, rows: &[Vec<Owned>]) -> WriteSummary {
    let mut writer = HeapWriter::create(path, options).unwrap();
    for row in rows {
        writer.insert(&row.iter().map(Owned::field).collect::<Vec<_>>()).unwrap();
    }
    writer.finish().unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn any_row() -> impl Strategy<Value = Vec<Owned>> {
    let bits = prop_oneof![
        4 => 0u32..1200,
        2 => 15_000u32..17_000,
        1 => 60_000u32..200_000,
    ];
    let text = prop_oneof![4 => "[a-z]{0,140}", 1 => "[a-z]{1990,2040}"];
    let value = (bits, any::<u8>());
    let null = || prop::bool::weighted(0.1);
    (any::<i32>(), text, value, [null(), null(), null()]).prop_map(|(id, name, (bits, seed), nulls)| {
        let row = [Owned::Int(id), Owned::Text(name), bit_string(bits, seed)];
        row.into_iter().zip(nulls).map(|(field, null)| if null { Owned::Null } else { field }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]
    #[test]
    fn a_naive_reader_finds_the_same_rows(
        rows in prop::collection::vec(any_row(), 0..60),
        blocks_per_segment in 1u32..9,
        checksums: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rel");
        let options = WriteOptions { checksums, blocks_per_segment, toast_relid: 777, ..Default::default() };
        let summary = write(&path, &options, &rows);
        let (found, stored) = naive::rows(&path, "ivv", 777, checksums);
        let expected: Vec<Vec<Value>> = rows.iter().map(|row| row.iter().map(Owned::value).collect()).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(summary.rows, rows.len() as u64);
        prop_assert_eq!(summary.toast_path.is_some(), stored > 0);
        prop_assert_eq!(naive::all_segments(&path).len(), summary.heap_blocks as usize * 8192);
        let segments = summary.heap_blocks.div_ceil(blocks_per_segment).max(1)
            + summary.toast_blocks.div_ceil(blocks_per_segment);
        prop_assert_eq!(names(directory.path()).len(), segments as usize);
    }

    #[test]
    fn the_crates_reader_finds_the_same_bit_strings(
        rows in prop::collection::vec(any_row(), 0..60),
        blocks_per_segment in 1u32..9,
        checksums: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rel");
        let options = WriteOptions { checksums, blocks_per_segment, toast_relid: 777, ..Default::default() };
        write(&path, &options, &rows);
        let columns = "id int4, name text, seq varbit";
        let (found, counts) = reader::bit_strings(&path, columns, blocks_per_segment, checksums).unwrap();
        let expected: Vec<_> = rows.iter().map(|row| match &row[2] {
            Owned::Bits(bits, bytes) => Some((*bits, bytes.clone())),
            _ => None,
        }).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!((counts.dead, counts.undecided, counts.compressed, counts.missing), (0, 0, 0, 0));
    }
}

#[test]
fn the_threshold_decides_to_the_byte() {
    let directory = tempfile::tempdir().unwrap();
    for (bytes, toasted) in [(2000, false), (2001, true)] {
        // 24 header + 4 varlena header + 4 bit length + bytes = 2032 at the threshold.
        let path = directory.path().join(format!("rel{bytes}"));
        let summary = write(&path, &WriteOptions::default(), &[vec![bit_string(bytes * 8, 1)]]);
        assert_eq!(summary.toast_path.is_some(), toasted, "{bytes} bytes");
    }
}

#[test]
fn pages_hold_as_many_tuples_as_the_server_puts() {
    let directory = tempfile::tempdir().unwrap();
    // (8192 - 24) / (24 + 8 + 4) = 226 one-integer tuples, and 4 chunks a TOAST page.
    let rows = vec![vec![Owned::Int(1)]; 227];
    assert_eq!(write(&directory.path().join("ints"), &WriteOptions::default(), &rows).heap_blocks, 2);
    let rows = vec![vec![bit_string((1996 * 8 - 4) * 8, 3)]];
    assert_eq!(write(&directory.path().join("bits"), &WriteOptions::default(), &rows).toast_blocks, 2);
}

/// Inserts rows enough for several segments of heap and TOAST.
fn write_much(path: &Path, unnamed: bool) -> HeapWriter {
    let options = WriteOptions { unnamed, blocks_per_segment: 1, ..Default::default() };
    let mut writer = HeapWriter::create(path, &options).unwrap();
    for seed in 0..60 {
        writer.insert(&[bit_string(40_000, seed).field(), Field::Text(&"x".repeat(1900))]).unwrap();
    }
    writer
}

#[test]
fn a_writer_dropped_unfinished_leaves_nothing() {
    for unnamed in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let writer = write_much(&directory.path().join("rel"), unnamed);
        assert!(unnamed || names(directory.path()).len() > 30);
        drop(writer);
        assert_eq!(names(directory.path()), [""; 0]);
    }
}

#[test]
fn named_and_unnamed_files_end_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let [named, unnamed] = [false, true].map(|unnamed| {
        let path = directory.path().join(unnamed.to_string());
        let summary = write_much(&path, unnamed).finish().unwrap();
        let left = names(directory.path()).iter().filter(|name| name.starts_with('.')).count();
        assert_eq!((left, std::fs::metadata(&path).unwrap().permissions().mode() & 0o7133), (0, 0));
        (summary.heap_blocks, naive::all_segments(&path), naive::all_segments(&toast_path(&path)))
    });
    assert!(named == unnamed);
}

/// Runs this test program again, only `test`, by a line of shell in which `$0 --exact $1` stands for it; `directory` is
/// in its environment. Returns whether the test passed there, and what was said.
fn again(test: &str, shell: &str, directory: &Path) -> (bool, String) {
    let output = Command::new("bash")
        .args(["-c", shell])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("write::tests::{test}"))
        .env(AGAIN, directory)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success() && said.contains("1 passed"), format!("{output:?}"))
}

/// The variable that tells the program started by `again` its directory.
const AGAIN: &str = "WRITE_TEST_DIRECTORY";

#[test]
fn a_killed_writer_leaves_nothing() {
    if let Ok(directory) = std::env::var(AGAIN) {
        let _writer = write_much(&Path::new(&directory).join("rel"), true);
        std::fs::write(Path::new(&directory).join("reached"), "").unwrap();
        std::process::abort();
    }
    let directory = tempfile::tempdir().unwrap();
    if !files::can_be_unnamed(directory.path()) {
        // The promise is made only for file systems with O_TMPFILE.
        return;
    }
    let (passed, said) = again("a_killed_writer_leaves_nothing", "\"$0\" --exact \"$1\"", directory.path());
    assert!(!passed, "{said}");
    assert_eq!(names(directory.path()), ["reached"]);
}

#[test]
fn without_a_sidecar_nothing_appears() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rel");
    let mut writer = HeapWriter::create(&path, &WriteOptions::default()).unwrap();
    writer.insert(&[bit_string(40_000, 1).field()]).unwrap();
    let failed = writer.ready(|summary| {
        assert_eq!(names(directory.path()), [""; 0]);
        Err(WriteError::ValueIds { row: summary.rows })
    });
    assert!(matches!(failed, Err(WriteError::ValueIds { row: 1 })));
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn existing_files_are_refused_or_replaced_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rel");
    let mut options = WriteOptions { blocks_per_segment: 1, ..Default::default() };
    let large: Vec<_> =
        (0..40).map(|seed| vec![Owned::Text("y".repeat(1500)), bit_string(40_000, seed)]).collect();
    write(&path, &options, &large);
    assert!(names(directory.path()).len() > 4);

    let refused = HeapWriter::create(&path, &options).unwrap_err();
    assert_eq!(refused.to_string(), format!("file \"{}\": exists already", path.display()));
    options.overwrite = true;
    write(&path, &options, &[vec![Owned::Int(7)]]);
    assert_eq!(names(directory.path()), ["rel"]);
    assert_eq!(naive::rows(&path, "i", 0, true).0, [[Value::Int(7)]]);
}

#[test]
fn a_file_that_appears_meanwhile_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rel");
    let mut writer = HeapWriter::create(&path, &WriteOptions::default()).unwrap();
    writer.insert(&[bit_string(40_000, 1).field()]).unwrap();
    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(writer.finish(), Err(WriteError::Exists { .. })));
    assert_eq!(names(directory.path()), ["rel"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_file_that_is_no_segment_is_neither_removed_nor_taken_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rel");
    let foreign = directory.path().join("rel.1");
    let mut options = WriteOptions { overwrite: true, ..Default::default() };
    write(&path, &options, &[vec![Owned::Int(7)]]);
    std::fs::write(&foreign, "mine").unwrap();
    for overwrite in [true, false] {
        options.overwrite = overwrite;
        std::fs::remove_file(&path).unwrap_or_default();
        let refused = HeapWriter::create(&path, &options).and_then(HeapWriter::finish).unwrap_err();
        assert!(matches!(refused, WriteError::Stray { path } if path == foreign));
        assert_eq!(std::fs::read(&foreign).unwrap(), b"mine");
    }
}

#[test]
fn wrong_rows_are_refused_and_the_writer_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rel");
    let mut writer = HeapWriter::create(&path, &WriteOptions::default()).unwrap();
    let mut refuse = |fields: &[Field<'_>], text: &str| {
        assert_eq!(writer.insert(fields).unwrap_err().to_string(), text);
    };
    refuse(&[], "row 1: expected 1 to 1600 columns, found 0");
    refuse(
        &[Field::VarBit { bits: 9, bytes: &[1] }],
        "row 1: expected 2 bytes for 9 bits, found 1 (attribute 1)",
    );
    refuse(
        &[Field::Null, Field::VarBit { bits: 9, bytes: &[1, 0x40] }],
        "row 1: expected zero bits behind bit 9, found last byte 0x40 (attribute 2)",
    );
    refuse(
        &[Field::VarBit { bits: u32::MAX, bytes: &[] }],
        "row 1: expected at most 2147483640 bits, found 4294967295 (attribute 1)",
    );
    refuse(
        &[Field::Text("a\0")],
        "row 1: expected text without zero bytes, found one at byte 2 (attribute 1)",
    );
    refuse(&[Field::Text("0123456789"); 1600], "row 1: expected a tuple of at most 8160 bytes, found 17624");
    writer.insert(&[Field::Int4(5), Field::Null]).unwrap();
    let wrong = writer.insert(&[Field::Int4(6)]).unwrap_err();
    assert_eq!(wrong.to_string(), "row 2: expected 2 columns, found 1");
    writer.finish().unwrap();
    assert_eq!(naive::rows(&path, "iv", 0, true).0, [[Value::Int(5), Value::Null]]);
}

#[test]
fn a_file_size_limit_is_an_error_that_names_the_file_and_leaves_nothing() {
    if let Ok(directory) = std::env::var(AGAIN) {
        // The limited process: 4 MiB of rows into files of at most 1 MiB.
        let path = Path::new(&directory).join("rel");
        let mut writer = HeapWriter::create(&path, &WriteOptions::default()).unwrap();
        let row = bit_string(8000, 1);
        let failed = (0..4200).find_map(|_| writer.insert(&[row.field()]).err()).unwrap();
        assert!(failed.to_string().starts_with(&format!("file {path:?}: could not write: File too large")));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (passed, said) = again(
        "a_file_size_limit_is_an_error_that_names_the_file_and_leaves_nothing",
        "trap '' XFSZ; ulimit -f 1024; exec \"$0\" --exact \"$1\"",
        directory.path(),
    );
    assert!(passed, "{said}");
    assert_eq!(names(directory.path()), [""; 0]);
}
