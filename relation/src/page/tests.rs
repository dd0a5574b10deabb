//! One page for each rule, and the text each gives.

use super::*;
use crate::tests::build::{LP_DEAD, LP_NORMAL, LP_REDIRECT, LP_UNUSED, TestPage, row, tuple_with};

fn text(page: TestPage) -> String {
    match Page::check(&page.plain(), 0, false) {
        Ok(_) => "good".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn good() -> TestPage {
    TestPage::with(&[row(1, 8, &[0xaa]), row(2, 4, &[0xf0]), row(3, 0, &[])])
}

fn with_field(at: usize, value: u16) -> String {
    let mut page = good();
    page.put(at, &value.to_le_bytes());
    text(page)
}

#[test]
fn a_good_page_gives_its_tuples() {
    let bytes = good().plain();
    let Ok(Checked::Page(page)) = Page::check(&bytes, 0, false) else { panic!("refused") };
    let numbers: Vec<_> = page.items().map(|item| (item.number, item.tuple.len())).collect();
    assert_eq!(numbers, [(1, 34), (2, 34), (3, 33)]);
    assert_eq!(page.item(2).unwrap().tuple, row(2, 4, &[0xf0]));
    assert!(page.item(0).is_none() && page.item(4).is_none());
}

#[test]
fn zero_pages_are_good_and_almost_zero_ones_are_not() {
    assert!(matches!(Page::check(&[0; BLOCK_SIZE], 0, true), Ok(Checked::Zero)));
    let mut page = [0; BLOCK_SIZE];
    page[5000] = 7;
    assert_eq!(
        Page::check(&page, 0, true).unwrap_err().to_string(),
        "page header: expected pd_upper > 0, or a page of zeros, found pd_upper 0 and a byte 0x07 at 5000"
    );
    assert_eq!(
        Page::check(&page[..100], 0, true).unwrap_err().to_string(),
        "page: expected 8192 bytes, found 100"
    );
}

#[test]
fn header_rules() {
    assert_eq!(
        with_field(PD_PAGESIZE_VERSION, 0x2003),
        "page header: expected page size 8192 and version 4, found page size 8192 and version 3"
    );
    assert_eq!(with_field(PD_FLAGS, 8), "page header: expected pd_flags <= 0x0007, found 0x0008");
    assert_eq!(with_field(PD_SPECIAL, 8176), "page header: expected pd_special = 8192, found 8176");
    let bounds =
        |found| format!("page header: expected 24 <= pd_lower <= pd_upper <= pd_special, found {found}");
    assert_eq!(with_field(PD_LOWER, 20), bounds("pd_lower 20, pd_upper 8072, pd_special 8192"));
    assert_eq!(with_field(PD_LOWER, 8076), bounds("pd_lower 8076, pd_upper 8072, pd_special 8192"));
    assert_eq!(with_field(PD_UPPER, 8200), bounds("pd_lower 36, pd_upper 8200, pd_special 8192"));
    assert_eq!(with_field(PD_LOWER, 38), "page header: expected pd_lower = 24 + 4 * n, found 38");
    assert_eq!(
        with_field(PD_LOWER, 24 + 4 * 292),
        "page header: expected at most 291 line pointers, found 292"
    );
}

#[test]
fn an_index_page_gets_a_hint() {
    let mut page = good();
    page.put(PD_SPECIAL, &8176u16.to_le_bytes());
    let error = Page::check(&page.plain(), 0, false).unwrap_err();
    assert!(error.hint().unwrap().contains("index page"));
}

#[test]
fn line_pointer_rules() {
    let with = |off, flags, len| {
        let mut page = good();
        page.pointer(off, flags, len);
        text(page)
    };
    let wrong = |rest: &str| format!("{rest} (item 4)");
    assert_eq!(with(8076, LP_NORMAL, 24), wrong("line pointer: expected lp_off a multiple of 8, found 8076"));
    assert_eq!(with(8072, LP_NORMAL, 23), wrong("line pointer: expected lp_len >= 24, found 23"));
    assert_eq!(
        with(8000, LP_NORMAL, 24),
        wrong("line pointer: expected lp_off >= pd_upper 8072, found 8000")
    );
    assert_eq!(
        with(8072, LP_NORMAL, 900),
        wrong("line pointer: expected lp_off + lp_len <= 8192, found 8972")
    );
    assert_eq!(
        with(32760, LP_NORMAL, 32767),
        wrong("line pointer: expected lp_off + lp_len <= 8192, found 65527")
    );
    assert_eq!(
        with(8072, LP_NORMAL, 24),
        wrong("line pointer: expected tuples that do not overlap, found byte 8072 in two tuples")
    );
    assert_eq!(with(0, LP_UNUSED, 0), "good");
    assert_eq!(with(0, LP_DEAD, 0), "good");
    assert_eq!(
        with(8072, LP_DEAD, 24),
        wrong("dead line pointer: expected no storage, found lp_off 8072, lp_len 24")
    );
    assert_eq!(
        with(8072, LP_UNUSED, 24),
        wrong("unused line pointer: expected no storage, found lp_off 8072, lp_len 24")
    );
    assert_eq!(
        with(1, LP_REDIRECT, 24),
        wrong("redirect line pointer: expected no storage, found lp_off 1, lp_len 24")
    );
}

#[test]
fn redirects_end_at_heap_only_tuples_once() {
    let page = || {
        let mut page = good();
        let heap_only = tuple_with(1, crate::tests::build::FROZEN, 0x8000, &[], &[1, 0, 0, 0]);
        page.tuple(&heap_only);
        page
    };
    let with = |targets: &[u32]| {
        let mut page = page();
        for &target in targets {
            page.pointer(target, LP_REDIRECT, 0);
        }
        text(page)
    };
    let wrong = |found: &str, item: u16| {
        format!("redirect: expected a heap-only tuple of this page, found {found} (item {item})")
    };
    assert_eq!(with(&[4]), "good");
    assert_eq!(with(&[0]), wrong("no tuple there (item 0)", 5));
    assert_eq!(with(&[9]), wrong("no tuple there (item 9)", 5));
    assert_eq!(with(&[400]), wrong("no tuple there (item 400)", 5));
    assert_eq!(with(&[32767]), wrong("no tuple there (item 32767)", 5));
    assert_eq!(with(&[5]), wrong("no tuple there (item 5)", 5));
    assert_eq!(with(&[1]), wrong("a tuple that is not heap-only (item 1)", 5));
    assert_eq!(with(&[4, 4]), wrong("a second redirect to it (item 4)", 6));
}

/// The overlap check of one byte at a time.
fn overlaps(pointers: &[(u32, u32)]) -> bool {
    let mut taken = vec![false; BLOCK_SIZE];
    pointers.iter().any(|&(off, len)| {
        let range = off as usize..(off + len).next_multiple_of(8) as usize;
        taken[range].iter_mut().any(|byte| std::mem::replace(byte, true))
    })
}

proptest::proptest! {
    #[test]
    fn overlap_is_found_as_byte_by_byte(slots in proptest::collection::vec((512u32..1000, 24u32..70), 1..12)) {
        let mut page = TestPage::new();
        let slots: Vec<_> = slots.into_iter().map(|(unit, len)| (unit * 8, len)).collect();
        for &(off, len) in &slots {
            page.pointer(off, LP_NORMAL, len);
        }
        page.put(PD_UPPER, &4096u16.to_le_bytes());
        let refused = Page::check(&page.plain(), 0, false).is_err();
        proptest::prop_assert_eq!(refused, overlaps(&slots));
    }
}
