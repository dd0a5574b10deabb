//! Values that lie in chunks, and every way the chunks can lie.

use super::*;
use crate::tests::build::chunk;
use crate::tests::toast_of;
use crate::{ErrorKind, Extent};

fn pointer(stored_size: u32) -> Pointer {
    Pointer { raw_size: stored_size, stored_size, method: None, value_id: 77, toast_relid: 1 }
}

fn value(size: usize) -> Vec<u8> {
    (0..size).map(|n| ((n * 31) >> 3) as u8).collect()
}

fn chunks(value: &[u8]) -> Vec<Vec<u8>> {
    (0..).zip(value.chunks(CHUNK_SIZE)).map(|(seq, data)| chunk(77, seq, data)).collect()
}

fn fetch(toast: &Toast, size: u32) -> Result<Vec<u8>> {
    let (mut pages, mut into) = (PageBuffer::new(READ_AHEAD), vec![1, 2, 3]);
    toast.fetch(&pointer(size), true, &mut pages, &mut into)?;
    Ok(into)
}

/// The cause alone.
fn text(tuples: &[Vec<u8>], size: u32) -> String {
    let toast = toast_of(tuples);
    let error = fetch(&toast, size).unwrap_err();
    assert_eq!(error.extent(), Extent::Tuple);
    let text = error.to_string();
    let path = format!("value 77: relation {:?}: ", toast.file.path());
    text.strip_prefix(&path).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn values_of_every_size_come_back() {
    for size in [1, 1995, 1996, 1997, 3992, 3993, 50_000, 400_001] {
        let value = value(size);
        let toast = toast_of(&chunks(&value));
        assert_eq!(toast.index.runs(), 1, "{size}");
        assert!(fetch(&toast, size as u32).unwrap() == value, "{size}");
    }
}

proptest::proptest! {
    #[test]
    fn order_does_not_matter(size in 1usize..30_000, seed: u64) {
        let value = value(size);
        let mut tuples = chunks(&value);
        tuples.extend((0..5).map(|seq| chunk(seed as u32 | 128, seq, &[9; 1996])));
        // A shuffle by sorting on a keyed hash.
        tuples.sort_by_key(|tuple| crate::bytes::fnv1a64(seed, tuple));
        proptest::prop_assert!(fetch(&toast_of(&tuples), size as u32).unwrap() == value);
    }
}

#[test]
fn chunks_that_do_not_fit() {
    let value = value(5000);
    let whole = chunks(&value);
    let [first, second, third] = [0, 1, 2].map(|n: usize| whole[n].clone());
    assert_eq!(text(&[], 5000), "toast value: expected chunk 0 of 3, found none");
    assert_eq!(text(&[first.clone(), third.clone()], 5000), "toast value: expected chunk 1 of 3, found none");
    assert_eq!(
        text(&[first.clone(), second.clone()], 5000),
        "toast value: expected chunk 2 of 3, found none"
    );
    let twice = [first.clone(), second.clone(), third.clone(), second.clone()];
    assert_eq!(text(&twice, 5000), "toast value: expected chunk 1 once, found it twice");
    assert_eq!(text(&whole, 3992), "toast value: expected 2 chunks, found 3");
    assert_eq!(
        text(&whole, 4999),
        "toast value: expected 1007 bytes in chunk 2, found 1008 (block 0, item 3)"
    );
    let short = [first, chunk(77, 1, &[5; 1995]), third];
    assert_eq!(
        text(&short, 5000),
        "toast value: expected 1996 bytes in chunk 1, found 1995 (block 0, item 2)"
    );
    assert_eq!(text(&whole, 0x3fff_ff00), "toast value: expected chunk 3 of 537947, found none");
}

/// An index may promise a gigabyte; memory follows the chunks that are there.
#[test]
fn lying_sizes_take_no_memory() {
    let real = toast_of(&chunks(&value(5000)));
    let mut bytes = real.index.to_bytes();
    let end = bytes.len() - 8;
    bytes[40..44].copy_from_slice(&537_000u32.to_le_bytes());
    let sum = crate::bytes::fnv1a64(0, &bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    let toast =
        Toast { index: ToastIndex::from_bytes(&bytes).unwrap(), file: real.file, beside_server: false };
    let (mut pages, mut into) = (PageBuffer::new(1), Vec::new());
    let error = toast.fetch(&pointer(537_000 * 1996), true, &mut pages, &mut into).unwrap_err();
    assert!(error.to_string().contains("expected 1996 bytes in chunk 2, found 1008"), "{error}");
    assert!(into.capacity() < 100_000);
}

#[test]
fn tuples_that_are_no_chunks() {
    let error = |tuple: &[u8]| Chunk::parse(tuple).unwrap_err().to_string();
    assert_eq!(error(&chunk(77, u32::MAX, &[1])), "toast tuple: expected chunk_seq >= 0, found -1");
    assert_eq!(error(&chunk(77, 0, &[])), "toast tuple: expected 1 to 1996 bytes of chunk_data, found 0");
    assert_eq!(
        error(&chunk(77, 0, &[0; 1997])),
        "toast tuple: expected 1 to 1996 bytes of chunk_data, found 1997"
    );
    let ids = [77u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
    let packed = [ids, crate::tests::build::compressed(0, 9, &[1, 2])].concat();
    assert_eq!(
        error(&crate::tests::build::tuple(3, &packed)),
        "toast tuple: expected plain chunk_data, found a compressed or external one"
    );
    let null = crate::tests::build::tuple_with(3, 0x0b00, 0, &[false, false, true], &packed[..8]);
    assert_eq!(error(&null), "toast tuple: expected chunk_id, chunk_seq and chunk_data, found a NULL");
}

#[test]
fn a_page_that_changed_is_seen_by_its_checksum() {
    let pages = crate::tests::build::pages_of(&chunks(&value(20_000)));
    let (_dir, path) = crate::tests::file_of(&pages);
    let open = || RelationFile::open(&path).unwrap();
    let options = crate::ReadOptions { verify_checksums: true, ..Default::default() };
    let toast = Toast::new(open(), ToastIndex::build(&open(), &options).unwrap()).unwrap();
    let mut bytes = pages.concat();
    bytes[8192 + 5000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = fetch(&toast, 20_000).unwrap_err();
    let ErrorKind::Detoast { value_id: 77, cause } = error.kind() else { panic!("{error}") };
    assert!(matches!(cause.kind(), ErrorKind::Checksum { .. }));
    assert_eq!((cause.block(), error.block(), error.extent()), (Some(1), None, Extent::Tuple));
    // Built again it refuses, or leaves the page out.
    assert_eq!(ToastIndex::build(&open(), &options).unwrap_err().block(), Some(1));
    let mut seen = 0;
    let keep = &mut |_| {
        seen += 1;
        Ok(())
    };
    let oracle = &crate::visibility::HintBitsOnly;
    let index = ToastIndex::build_with(&open(), &options, oracle, keep).unwrap();
    assert_eq!((seen, index.runs()), (1, 2));
    assert!(Toast::new(open(), ToastIndex::from_bytes(&index.to_bytes()).unwrap()).is_ok());
    std::fs::write(&path, &bytes[..8192]).unwrap();
    assert!(
        Toast::new(open(), index)
            .unwrap_err()
            .to_string()
            .ends_with("expected 3 blocks, as when its index was built, found 1")
    );
}

#[test]
fn an_index_with_a_good_sum_is_still_checked() {
    let index = toast_of(&chunks(&value(5000))).index;
    let with = |at: usize, bytes: &[u8]| {
        let mut all = index.to_bytes();
        all[at..at + bytes.len()].copy_from_slice(bytes);
        let end = all.len() - 8;
        let sum = crate::bytes::fnv1a64(0, &all[..end]);
        all[end..].copy_from_slice(&sum.to_le_bytes());
        ToastIndex::from_bytes(&all).map_err(|e| e.to_string())
    };
    assert_eq!(with(0, b"toastix1").as_ref(), Ok(&index));
    assert!(with(0, b"toastix2").unwrap_err().contains("magic"));
    assert!(with(12, &[1]).unwrap_err().contains("fewer than 2^32 blocks"));
    assert!(with(16, &[0xff; 8]).unwrap_err().contains("the size of 18446744073709551615 runs"));
    for (at, bytes) in [
        (32, [1, 0, 0, 0]),
        (36, [0, 0, 0, 0]),
        (36, [0x24, 1, 0, 0]),
        (38, [1, 0, 0, 0]),
        (40, [0; 4]),
        (40, [0xff; 4]),
    ] {
        assert!(with(at, &bytes).unwrap_err().contains("runs inside the relation"), "{at}");
    }
}

#[test]
fn beside_a_server_a_value_is_read_until_two_reads_agree() {
    // What each read gives; `None` is an error. The last comes again for ever.
    let read = |script: &[Option<u8>]| {
        let (mut at, mut pauses, mut into) = (0, 0, Vec::new());
        let mut one = |into: &mut Vec<u8>| {
            let now = script[at.min(script.len() - 1)];
            at += 1;
            into.clear();
            into.extend(now);
            now.map(|_| ()).ok_or_else(|| toast_error("chunk", "whole", "torn"))
        };
        let done = until_two_agree(&mut one, &mut || pauses += 1, &mut into);
        (done.map(|()| into[0]).map_err(|e| e.to_string()), pauses)
    };
    assert_eq!(read(&[Some(7)]), (Ok(7), 0));
    assert_eq!(read(&[Some(1), Some(7)]), (Ok(7), 1));
    assert_eq!(read(&[None, Some(7)]), (Ok(7), 1));
    assert_eq!(read(&[Some(1), None, Some(2), Some(7)]).0, Ok(7));
    assert!(read(&[None]).0.is_err_and(|e| e.contains("torn")), "damage stays an error");
    let changing: Vec<Option<u8>> = (0..99).map(Some).collect();
    assert!(read(&changing).0.is_err_and(|e| e.contains("two reads")));
}
