//! Damage at random places: nothing may panic, and with checksums nothing may go unseen.

use std::sync::{Arc, OnceLock};

use proptest::prelude::*;

use super::build::*;
use super::{Collect, file_of, pglz, reader, toast_of};
use crate::{PageCounts, ReadOptions, RelationFile, Toast, ToastIndex, Unhinted};

const COLUMNS: &str = "id int4, seq varbit, tail int8";

/// A page with every form of value, a redirect, NULLs and an old tuple.
fn page() -> Vec<u8> {
    let payload = varbit(8000, &[0x1b, 0x2c, 0x3d, 0x77].repeat(250));
    let (raw, lz4) = (payload.len() as u32, lz4_flex::block::compress(&payload));
    let with = |value: &[u8]| {
        let mut data = [&[1, 0, 0, 0][..], value].concat();
        data.resize(data.len().next_multiple_of(8), 0);
        tuple(3, &[&data[..], &[7; 8]].concat())
    };
    let mut page = TestPage::with(&[
        with(&short(&varbit(300, &[[0xaa; 37].as_slice(), &[0xa0]].concat()))),
        with(&long(&payload)),
        with(&compressed(0, raw, &pglz::compress(&payload))),
        with(&compressed(1, raw, &lz4)),
        with(&external(6004, 6004, 0, 77)),
        tuple_with(3, FROZEN, 0, &[false, true, false], &[[1, 0, 0, 0].as_slice(), &[0; 12]].concat()),
        tuple_with(1, FROZEN, 0x8000, &[], &[3, 0, 0, 0]),
    ]);
    page.pointer(7, LP_REDIRECT, 0);
    page.pointer(0, LP_DEAD, 0);
    page.sealed(0)
}

fn toast_tuples() -> Vec<Vec<u8>> {
    let payload = varbit(48_000, &[0x5a; 6000]);
    (0..).zip(payload.chunks(1996)).map(|(seq, data)| chunk(77, seq, data)).collect()
}

fn read(page: &[u8], verify_checksums: bool, toast: &Arc<Toast>) -> (Collect, PageCounts) {
    let (mut sink, mut counts) = (Collect::default(), PageCounts::default());
    let options = ReadOptions { verify_checksums, unhinted: Unhinted::Error };
    let result = reader(COLUMNS, options, Some(toast.clone())).read_page(page, 0, &mut counts, &mut sink);
    result.unwrap();
    (sink, counts)
}

/// The TOAST relation and the page, made once.
fn good() -> (&'static Arc<Toast>, Vec<u8>) {
    static GOOD: OnceLock<(Arc<Toast>, Vec<u8>)> = OnceLock::new();
    let (toast, page) = GOOD.get_or_init(|| (Arc::new(toast_of(&toast_tuples())), page()));
    (toast, page.clone())
}

#[test]
fn the_undamaged_page_is_good() {
    let (toast, page) = good();
    let (sink, counts) = read(&page, true, toast);
    assert_eq!(sink.texts(), [""; 0]);
    assert_eq!((counts.live, counts.external, counts.compressed, counts.nulls), (7, 1, 2, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn damaged_pages_never_panic_and_checksums_see_all(
        flips in proptest::collection::vec((0usize..8192, 1u8..), 1..4),
        head in proptest::collection::vec((0usize..64, 1u8..), 0..2),
    ) {
        let (toast, good) = good();
        let mut bad = good.clone();
        for (at, flip) in flips.into_iter().chain(head) {
            bad[at] ^= flip;
        }
        let (sink, counts) = read(&bad, false, toast);
        prop_assert_eq!(counts.live, sink.rows.len() as u64);
        prop_assert_eq!(counts.damaged_tuples + counts.damaged_pages, sink.damage.len() as u64);
        if bad != good {
            let (sink, counts) = read(&bad, true, toast);
            prop_assert_eq!((counts.live, counts.damaged_pages, sink.damage.len()), (0, 1, 1));
        }
    }

    #[test]
    fn index_bytes_are_ours_or_refused(at in 0usize..1000, flip in 1u8..) {
        let (toast, _) = good();
        let mut bytes = toast.index.to_bytes();
        prop_assert_eq!(&ToastIndex::from_bytes(&bytes).unwrap(), &toast.index);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        prop_assert!(ToastIndex::from_bytes(&bytes).is_err());
        prop_assert!(ToastIndex::from_bytes(&bytes[..at]).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn damaged_toast_gives_the_value_or_an_error(
        flips in proptest::collection::vec((0usize..16384, 1u8..), 1..4),
        after in any::<bool>(),
    ) {
        let pages = pages_of(&toast_tuples());
        let (_dir, path) = file_of(&pages);
        let mut bytes = pages.concat();
        for (at, flip) in flips {
            let at = at % bytes.len();
            bytes[at] ^= flip;
        }
        let open = || RelationFile::open(&path).unwrap();
        let options = ReadOptions::default();
        let keep = &mut |_| Ok(());
        // Damaged before or after the index was built.
        let toast = if after {
            let index = ToastIndex::build(&open(), &options).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            RelationFile::open(&path).ok().map(|file| Toast { file, index, beside_server: false })
        } else {
            std::fs::write(&path, &bytes).unwrap();
            RelationFile::open(&path).ok().map(|file| {
                let index = ToastIndex::build_with(&file, &options, &crate::visibility::HintBitsOnly, keep).unwrap();
                Toast { file, index, beside_server: false }
            })
        };
        if let Some(toast) = toast {
            let (sink, counts) = read(&page(), false, &Arc::new(toast));
            prop_assert_eq!(counts.live + counts.damaged_tuples, 7);
            prop_assert!(sink.rows.len() >= 6);
        }
    }
}
