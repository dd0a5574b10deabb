//! A slow reader of what the writer made: it knows nothing of the writer's code and trusts nothing in the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::checksum::page_checksum;

/// A value read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// NULL.
    Null,
    /// A 4-byte integer.
    Int(i32),
    /// The payload of a variable-length value.
    Bytes(Vec<u8>),
    /// A TOAST pointer: raw size, external size, value id, TOAST relation.
    Pointer([u32; 4]),
}

/// All segments of a relation, one after the other.
pub(super) fn all_segments(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    for number in 1.. {
        let name = PathBuf::from(format!("{}.{number}", path.display()));
        let Ok(more) = std::fs::read(name) else { break };
        bytes.extend(more);
    }
    bytes
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The tuples of a relation in order, after every check of page and line pointers.
pub(super) fn tuples(bytes: &[u8], checksums: bool) -> Vec<Vec<u8>> {
    assert_eq!(bytes.len() % 8192, 0);
    let mut found = Vec::new();
    for (block, page) in bytes.chunks(8192).enumerate() {
        let sum = if checksums { page_checksum(page.try_into().unwrap(), block as u32) } else { 0 };
        assert_eq!(u16_at(page, 8), usize::from(sum), "checksum of block {block}");
        assert_eq!((u16_at(page, 10), u16_at(page, 16), u16_at(page, 18)), (0, 8192, 8196));
        let (lower, upper) = (u16_at(page, 12), u16_at(page, 14));
        assert!(24 < lower && lower <= upper && upper < 8192);
        let mut end = 8192;
        for item in 1..=(lower - 24) / 4 {
            let pointer = u32_at(page, 20 + 4 * item);
            let (at, flags, len) = ((pointer & 0x7FFF) as usize, pointer >> 15 & 3, (pointer >> 17) as usize);
            assert_eq!((flags, at % 8), (1, 0));
            assert!(at >= upper && at + len <= end, "tuples overlap in block {block}");
            assert!(page[at + len..end].iter().all(|&byte| byte == 0) && end - at - len < 8);
            end = at;
            let tuple = page[at..at + len].to_vec();
            assert_eq!((u16_at(&tuple, 12) << 16 | u16_at(&tuple, 14), u16_at(&tuple, 16)), (block, item));
            found.push(tuple);
        }
        assert_eq!(end, upper);
    }
    found
}

/// The values of a tuple whose columns are as `types` says: 'i' an integer, 'v' a variable-length value.
pub(super) fn values(tuple: &[u8], types: &str) -> Vec<Value> {
    let (mask, data) = (u16_at(tuple, 20), usize::from(tuple[22]));
    assert_eq!((u32_at(tuple, 0), u32_at(tuple, 4), u32_at(tuple, 8)), (2, 0, 0));
    assert_eq!((u16_at(tuple, 18), mask & !7, data % 8), (types.len(), 0x0B00, 0));
    let mut at = data;
    let mut row = Vec::new();
    for (index, kind) in types.chars().enumerate() {
        if mask & 1 != 0 && tuple[23 + index / 8] >> (index % 8) & 1 == 0 {
            row.push(Value::Null);
        } else if kind == 'i' || tuple[at] & 1 == 0 {
            while at % 4 != 0 {
                assert_eq!(tuple[at], 0, "padding");
                at += 1;
            }
            let word = u32_at(tuple, at);
            if kind == 'i' {
                row.push(Value::Int(word as i32));
                at += 4;
            } else {
                assert_eq!(word & 3, 0);
                row.push(Value::Bytes(tuple[at + 4..at + (word >> 2) as usize].to_vec()));
                at += (word >> 2) as usize;
            }
        } else if tuple[at] == 1 {
            assert_eq!(tuple[at + 1], 18);
            row.push(Value::Pointer([2, 6, 10, 14].map(|part| u32_at(tuple, at + part))));
            at += 18;
        } else {
            let len = usize::from(tuple[at] >> 1);
            row.push(Value::Bytes(tuple[at + 1..at + len].to_vec()));
            at += len;
        }
    }
    assert_eq!(at, tuple.len());
    let has = |wanted: fn(&Value) -> bool| row.iter().any(wanted);
    assert_eq!(mask & 1 != 0, has(|value| *value == Value::Null));
    assert_eq!(mask & 4 != 0, has(|value| matches!(value, Value::Pointer(_))));
    assert_eq!(mask & 2 != 0, has(|value| matches!(value, Value::Pointer(_) | Value::Bytes(_))));
    row
}

/// The values of a TOAST file by their ids.
pub(super) fn toasted(path: &Path, checksums: bool) -> BTreeMap<u32, Vec<u8>> {
    let mut found: BTreeMap<u32, BTreeMap<i32, Vec<u8>>> = BTreeMap::new();
    for tuple in tuples(&all_segments(path), checksums) {
        let row = values(&tuple, "iiv");
        let [Value::Int(id), Value::Int(seq), Value::Bytes(chunk)] = &row[..] else {
            panic!("chunk {row:?}")
        };
        assert!(found.entry(*id as u32).or_default().insert(*seq, chunk.clone()).is_none());
    }
    for chunks in found.values() {
        let last = chunks.len() as i32 - 1;
        assert!(chunks.keys().copied().eq(0..=last));
        assert!(chunks.iter().all(|(&seq, chunk)| chunk.len() == 1996 || seq == last && !chunk.is_empty()));
    }
    found.into_iter().map(|(id, chunks)| (id, chunks.into_values().flatten().collect())).collect()
}

/// The rows of a relation with its TOASTed values in place; also the number of values that were TOASTed.
pub(super) fn rows(path: &Path, types: &str, relid: u32, checksums: bool) -> (Vec<Vec<Value>>, usize) {
    let toast_path = PathBuf::from(format!("{}.toast", path.display()));
    let mut toast = if toast_path.exists() { toasted(&toast_path, checksums) } else { BTreeMap::new() };
    let stored = toast.len();
    let mut rows = Vec::new();
    for tuple in tuples(&all_segments(path), checksums) {
        let mut row = values(&tuple, types);
        assert!(
            tuple.len() <= 2032 || row.iter().all(|value| !large(value)),
            "tuple of {} bytes",
            tuple.len()
        );
        for value in &mut row {
            if let Value::Pointer([raw, external, id, table]) = *value {
                let bytes = toast.remove(&id).expect("a value that no other pointer names");
                assert_eq!((raw as usize, external as usize, table), (bytes.len() + 4, bytes.len(), relid));
                *value = Value::Bytes(bytes);
            }
        }
        rows.push(row);
    }
    assert!(toast.is_empty(), "values that no row names");
    (rows, stored)
}

fn large(value: &Value) -> bool {
    matches!(value, Value::Bytes(bytes) if bytes.len() + 4 > 24)
}
