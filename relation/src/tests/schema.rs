//! Column lists: what is understood, what comes back, what is refused.

use crate::{Align, AttLen, DnaType, TupleDesc};

fn text(list: &str) -> String {
    TupleDesc::parse(list).unwrap_err().to_string()
}

#[test]
fn lists_come_back() {
    for list in [
        "id int4, note text, seq dna2",
        "a bool, b \"char\", c _int4_is_no_type",
        "\"My \"\"odd\"\" name, really\" varbit, \"1\" uuid, _x timestamptz[]",
        "a raw(4,4), b dropped(-1,4), c raw(-2,1), d raw(7,2), e dropped(16,8)",
        "seq varbit missing(05000000b0), n numeric missing()",
    ] {
        match TupleDesc::parse(list) {
            Ok(desc) => assert_eq!(desc.to_list(), list),
            Err(error) => assert!(list.contains("_is_no_type"), "{error}"),
        }
    }
}

#[test]
fn sql_spellings_are_taken() {
    let desc = TupleDesc::parse(
        "ID integer NOT NULL, price numeric(10, 2), at timestamp (3) with time zone , s public.DNA4, \
         k bit  varying(20), tags text[]",
    )
    .unwrap();
    assert_eq!(desc.to_list(), "id int4, price numeric, at timestamptz, s dna4, k varbit, tags text[]");
    let dna: Vec<_> = desc.attributes.iter().map(|a| a.dna_type()).collect();
    assert_eq!(dna, [None, None, None, Some(DnaType::Dna4), Some(DnaType::Dna2), None]);
    let (len, align) = (desc.attributes[2].len, desc.attributes[2].align);
    assert_eq!((len, align), (AttLen::Fixed(8), Align::Double));
}

#[test]
fn columns_are_found_by_name_and_number() {
    let desc = TupleDesc::parse("id int4, gone dropped(4,i), \"Seq\" dna2, seq dna2, \"2\" int4").unwrap();
    for (wanted, index) in [("id", 0), ("ID", 0), ("Seq", 2), ("SEQ", 3), ("3", 2), ("2", 4)] {
        assert_eq!(desc.column(wanted).unwrap(), index, "{wanted}");
    }
    for wanted in ["gone", "0", "6", "-1", "", "99999999999999999999"] {
        assert_eq!(
            desc.column(wanted).unwrap_err().to_string(),
            format!("column {wanted:?} does not exist; the columns are \"id\", \"Seq\", \"seq\", \"2\"")
        );
    }
    let desc = TupleDesc::parse("a dropped(4,i), b int4").unwrap();
    assert!(desc.column("1").is_err());
}

#[test]
fn mistakes_are_named() {
    assert_eq!(text(""), "column list: expected a name and a type, found nothing");
    assert_eq!(text("id int4,"), "column list: expected a name and a type, found nothing");
    assert_eq!(text("id"), "column \"id\": expected a type behind the name");
    assert_eq!(text("id mood"), "column \"id\": unknown type \"mood\"");
    assert_eq!(text("id int4, id int8"), "column \"id\" is listed twice");
    assert_eq!(text("\"id int4"), "column list: expected a closing \", found its end");
    assert_eq!(text("id numeric(10"), "column list: expected a closing ), found its end");
    assert_eq!(text("\"\" int4"), "column list: expected a quoted name, found \"\\\"\\\" int4\"");
    assert_eq!(text("a raw(0,4)"), "column \"a\": expected raw(len,align), found \"raw(0,4)\"");
    assert_eq!(text("a dropped(4,3)"), "column \"a\": expected dropped(len,align), found \"dropped(4,3)\"");
    assert_eq!(
        text("a varbit missing(0x)"),
        "column \"a\": expected missing(hex digits), found \"missing(0x)\""
    );
    let many = (0..1601).map(|n| format!("c{n} int4")).collect::<Vec<_>>().join(",");
    assert_eq!(text(&many), "expected at most 1600 columns, found 1601");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(list in "[a-c\"(),.\\[\\] \u{e9}0-9int-]{0,60}") {
        if let Ok(desc) = TupleDesc::parse(&list) {
            proptest::prop_assert_eq!(TupleDesc::parse(&desc.to_list()).unwrap(), desc);
        }
    }
}
