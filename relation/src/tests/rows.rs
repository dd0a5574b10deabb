//! Rows of hand-made pages: what comes out, what is counted, what is said about damage.

use std::sync::Arc;

use super::build::*;
use super::{Bits, Collect, file_of, pglz, read_page, reader, toast_of};
use crate::{DnaType, Extent, PageCounts, ReadOptions, RelationFile, Toast, ToastIndex, Unhinted};

const COLUMNS: &str = "id int4, seq varbit";

fn values(sink: &Collect) -> Vec<Bits> {
    sink.rows.iter().map(|(_, value)| value.clone()).collect()
}

fn options(unhinted: Unhinted) -> ReadOptions {
    ReadOptions { verify_checksums: true, unhinted }
}

/// A row whose `seq` is stored in these very bytes, aligned.
fn stored(bytes: &[u8]) -> Vec<u8> {
    tuple(2, &[&[1, 0, 0, 0][..], bytes].concat())
}

/// 8000 bits with a pattern, as the payload of a varbit.
fn pattern() -> Vec<u8> {
    varbit(8000, &[0x1b, 0x2c, 0x3d, 0x77].repeat(250))
}

#[test]
fn null_missing_empty_and_plain() {
    let page = TestPage::with(&[
        row(1, 8, &[0xaa]),
        tuple_with(2, FROZEN, 0, &[false, true], &[2, 0, 0, 0]),
        tuple_with(1, FROZEN, 0, &[], &[3, 0, 0, 0]),
        row(4, 0, &[]),
        stored(&long(&varbit(2, &[0xc0]))),
    ])
    .sealed(0);
    let (sink, counts) = read_page(COLUMNS, &page, options(Unhinted::Error));
    let bits = |bits, bytes: &[u8]| Some((bits, bytes.to_vec()));
    assert_eq!(values(&sink), [bits(8, &[0xaa]), None, None, bits(0, &[]), bits(2, &[0xc0])]);
    assert_eq!(sink.rows.iter().map(|r| r.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(counts, PageCounts { pages: 1, live: 5, nulls: 2, missing: 1, ..Default::default() });
    let (sink, counts) =
        read_page("id int4, seq varbit missing(02000000c0)", &page, options(Unhinted::Error));
    assert_eq!(values(&sink)[2], bits(2, &[0xc0]));
    assert_eq!((counts.nulls, counts.missing), (1, 1));
}

#[test]
fn compressed_values_come_out_plain() {
    let payload = pattern();
    let raw = payload.len() as u32;
    let page = TestPage::with(&[
        stored(&compressed(0, raw, &pglz::compress(&payload))),
        stored(&compressed(1, raw, &lz4_flex::block::compress(&payload))),
    ]);
    let (sink, counts) = read_page(COLUMNS, &page.sealed(0), options(Unhinted::Error));
    let value = Some((8000, payload[4..].to_vec()));
    assert_eq!(values(&sink), [value.clone(), value]);
    assert_eq!((counts.live, counts.compressed, counts.external), (2, 2, 0));
}

#[test]
fn compressed_values_that_lie() {
    let payload = pattern();
    let raw = payload.len() as u32;
    let (pglz, lz4) = (pglz::compress(&payload), lz4_flex::block::compress(&payload));
    let page = TestPage::with(&[
        stored(&compressed(0, raw + 1, &pglz)),
        stored(&compressed(1, raw + 1, &lz4)),
        stored(&compressed(1, raw - 1, &lz4)),
        stored(&compressed(2, raw, &pglz)),
        stored(&compressed(0, 0x3fff_fff0, &pglz)),
        stored(&compressed(1, 0x3fff_ffff, &lz4)),
        row(7, 8, &[1]),
    ]);
    let (sink, counts) = read_page(COLUMNS, &page.sealed(0), options(Unhinted::Error));
    let place = |item| format!(" (block 0, item {item}, attribute \"seq\")");
    let texts = sink.texts();
    assert_eq!(
        texts[0],
        format!("relation \"t\": pglz data: expected 1005 bytes of value, found 1004{}", place(1))
    );
    assert_eq!(
        texts[1],
        format!("relation \"t\": lz4 data: expected 1005 bytes of value, found 1004{}", place(2))
    );
    assert!(texts[2].starts_with("relation \"t\": lz4 data: expected 1003 bytes of value, found damage: "));
    assert_eq!(
        texts[3],
        format!("relation \"t\": compression method: expected 0 (pglz) or 1 (lz4), found 2{}", place(4))
    );
    assert_eq!(
        texts[4],
        format!(
            "relation \"t\": compressed value: expected enough data for 1073741808 bytes, found {} compressed ones{}",
            pglz.len(),
            place(5)
        )
    );
    assert_eq!(
        texts[5],
        format!("relation \"t\": value size: expected at most 1073741819, found 1073741823{}", place(6))
    );
    assert_eq!((counts.live, counts.damaged_tuples), (1, 6));
    assert!(sink.damage.iter().all(|e| e.extent() == Extent::Tuple));
}

#[test]
fn bit_strings_that_lie() {
    let page = TestPage::with(&[stored(&short(&[1, 2])), row(2, 9, &[0])]);
    let (sink, _) = read_page(COLUMNS, &page.sealed(0), options(Unhinted::Error));
    assert_eq!(
        sink.texts(),
        [
            "relation \"t\": bit string: expected at least 4 bytes, found 2 (block 0, item 1, attribute \"seq\")",
            "relation \"t\": bit string: expected 2 bytes for 9 bits, found 1 (block 0, item 2, attribute \"seq\")",
        ]
    );
}

#[test]
fn values_that_end_within_a_base_are_damaged() {
    let page = TestPage::with(&[row(1, 7, &[0xfe]), row(2, 6, &[0xfc]), row(3, 8, &[0xff])]).sealed(0);
    for (dna, good) in [(DnaType::Dna2, 2), (DnaType::Dna4, 1)] {
        let (mut sink, mut counts) = (Collect::default(), PageCounts::default());
        let mut reader = reader(COLUMNS, options(Unhinted::Error), None).with_bases(dna);
        reader.read_page(&page, 0, &mut counts, &mut sink).unwrap();
        assert_eq!((counts.live, counts.damaged_tuples), (good, 3 - good));
        let bits = dna.bits();
        let want =
            format!("expected a multiple of {bits} bits, as many as a base has, found 7 (block 0, item 1, ");
        assert!(sink.texts()[0].contains(&want), "{:?}", sink.texts());
    }
}

#[test]
fn toasted_values_come_out_whole() {
    let payload = varbit(48_000, &(0..6000u32).map(|n| ((n * n) >> 3) as u8).collect::<Vec<_>>());
    let packed = tcinfo(0, 1004, &pglz::compress(&pattern()));
    let chunks: Vec<_> = (0..).zip(payload.chunks(1996)).map(|(seq, data)| chunk(77, seq, data)).collect();
    // Out of order, with another value between and an aborted chunk of the same name.
    let mut aborted = chunk(77, 1, &[1, 2, 3]);
    aborted[21] = 0x0a;
    let mut order = vec![chunks[2].clone(), aborted, chunk(78, 0, &packed)];
    order.extend([chunks[3].clone(), chunks[0].clone(), chunks[1].clone()]);
    let toast = Arc::new(toast_of(&order));
    assert_eq!(toast.index.runs(), 4);
    let page = TestPage::with(&[
        stored(&external(payload.len() as u32, payload.len() as u32, 0, 77)),
        stored(&external(1004, packed.len() as u32, 0, 78)),
    ]);
    let (mut sink, mut counts) = (Collect::default(), PageCounts::default());
    let mut reader = reader(COLUMNS, options(Unhinted::Error), Some(toast));
    reader.read_page(&page.sealed(0), 0, &mut counts, &mut sink).unwrap();
    assert_eq!(sink.texts(), [""; 0]);
    assert_eq!(values(&sink), [Some((48_000, payload[4..].to_vec())), Some((8000, pattern()[4..].to_vec()))]);
    assert_eq!((counts.external, counts.compressed), (2, 1));
}

#[test]
fn a_toasted_value_without_its_relation() {
    let page = TestPage::with(&[stored(&external(9000, 9000, 0, 77))]);
    let (sink, _) = read_page(COLUMNS, &page.sealed(0), options(Unhinted::Error));
    assert_eq!(
        sink.texts(),
        [
            "relation \"t\": value 77 lies in a toast relation, which was not given (block 0, item 1, attribute \"seq\")"
        ]
    );
    assert_eq!(
        sink.damage[0].hint(),
        Some("give the file of the toast relation, oid 4711, with --toast FILE")
    );
}

#[test]
fn toast_trouble_has_the_place_of_the_row() {
    let chunks: Vec<_> = (0..9).map(|seq| chunk(77, seq, &[0x11; 1996])).collect();
    let pages = pages_of(&chunks);
    let (_dir, path) = file_of(&pages);
    let file = RelationFile::open(&path).unwrap();
    let index = ToastIndex::build(&file, &options(Unhinted::Error)).unwrap();
    let toast = Arc::new(Toast::new(file, index).unwrap());
    let read = |size| {
        let page = TestPage::with(&[row(0, 8, &[1]), stored(&external(size, size, 0, 77))]).sealed(5);
        let (mut sink, mut counts) = (Collect::default(), PageCounts::default());
        let mut reader = reader(COLUMNS, options(Unhinted::Error), Some(toast.clone()));
        let result = reader.read_page(&page, 5, &mut counts, &mut sink);
        result.map(|()| sink.texts()).map_err(|error| error.to_string())
    };
    let text = |cause: &str| {
        format!("relation \"t\": value 77: relation {path:?}: {cause} (block 5, item 2, attribute \"seq\")")
    };
    assert_eq!(read(19_000), Ok(vec![text("toast value: expected chunk 9 of 10, found none")]));
    assert_eq!(
        read(17_000),
        Ok(vec![text("toast value: expected 1032 bytes in chunk 8, found 1996 (block 2, item 1)")])
    );
    // A TOAST relation that shrinks ends the reading: no other value can be trusted to be there.
    std::fs::write(&path, &pages[0]).unwrap();
    assert_eq!(read(17_964), Err(text("file shrank: size: expected 24576 bytes, found 8192 (block 1)")));
}

#[test]
fn visibility_is_counted() {
    let with = |infomask: u16| {
        let mut tuple = row(1, 8, &[0xaa]);
        tuple[20..22].copy_from_slice(&(infomask | HASVARWIDTH).to_le_bytes());
        tuple
    };
    let tuples = [with(0x0900), with(0x0a00), with(0x0800), with(0x0500), with(FROZEN)];
    let counts = |unhinted| {
        let (sink, counts) = read_page(COLUMNS, &TestPage::with(&tuples).sealed(0), options(unhinted));
        (counts.live, counts.dead, counts.undecided, sink.texts())
    };
    let text =
        "relation \"t\": tuple: hint bits do not say whether transaction 700 committed (block 0, item 3)";
    assert_eq!(counts(Unhinted::Error), (2, 2, 1, vec![text.to_owned()]));
    assert_eq!(counts(Unhinted::Visible), (3, 2, 1, vec![]));
    assert_eq!(counts(Unhinted::Skip), (2, 2, 1, vec![]));
    // A page that is visible to everybody says so for its tuples.
    let mut page = TestPage::with(&tuples);
    page.put(10, &4u16.to_le_bytes());
    let (_, counts) = read_page(COLUMNS, &page.sealed(0), options(Unhinted::Error));
    assert_eq!((counts.live, counts.dead, counts.undecided), (3, 2, 0));
}

#[test]
fn an_oracle_leaves_nothing_undecided() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("pg_xact")).unwrap();
    let mut log = vec![0; 8192];
    // 700 committed, 701 aborted.
    log[175] = 0b10_01;
    std::fs::write(dir.path().join("pg_xact/0000"), log).unwrap();
    let with = |xmin: u32| {
        let mut tuple = row(1, 8, &[0xaa]);
        tuple[0..4].copy_from_slice(&xmin.to_le_bytes());
        tuple[20..22].copy_from_slice(&(0x0800 | HASVARWIDTH).to_le_bytes());
        tuple
    };
    let page = TestPage::with(&[700, 701, 702, 40_000].map(with)).sealed(0);
    let oracle = Arc::new(crate::PgXact::open(dir.path()).unwrap());
    let (mut sink, mut counts) = (Collect::default(), PageCounts::default());
    let mut reader = reader(COLUMNS, options(Unhinted::Error), None).with_oracle(oracle);
    reader.read_page(&page, 0, &mut counts, &mut sink).unwrap();
    assert_eq!((counts.live, counts.dead, counts.undecided), (1, 2, 1));
    assert!(sink.texts()[0].ends_with("whether transaction 40000 committed (block 0, item 4)"));
}

#[test]
fn checksums_are_asked_for_or_not() {
    let mut page = TestPage::with(&[row(1, 8, &[0xaa])]).sealed(0);
    page[8] ^= 1;
    let (sink, counts) = read_page(COLUMNS, &page, options(Unhinted::Error));
    assert!(sink.texts()[0].starts_with("relation \"t\": checksum: expected 0x"), "{:?}", sink.texts());
    assert!(sink.texts()[0].ends_with(" (block 0)"));
    assert_eq!((counts.live, counts.damaged_pages, sink.damage[0].extent()), (0, 1, Extent::Page));
    let (_, counts) = read_page(COLUMNS, &page, ReadOptions::default());
    assert_eq!(counts.live, 1);
}

#[test]
fn a_zero_page_is_counted() {
    let (sink, counts) = read_page(COLUMNS, &[0; 8192], options(Unhinted::Error));
    assert_eq!(counts, PageCounts { pages: 1, zero_pages: 1, ..Default::default() });
    assert!(sink.rows.is_empty() && sink.damage.is_empty());
}
