//! The attribute walk against a plain encoder, and every way a tuple can lie.

use proptest::prelude::*;

use super::build::{FROZEN, HASVARWIDTH, long, short, tuple, tuple_with};
use crate::schema::{Align, AttLen, Attribute, TupleDesc};
use crate::tuple::{Datum, Walker};

/// How a value of a random table is stored.
#[derive(Debug, Clone)]
enum Stored {
    Null,
    Fixed(Vec<u8>),
    Short(Vec<u8>),
    Long(Vec<u8>),
    Text(Vec<u8>),
}

/// Lays values out as the server does: zero padding, none before a short varlena.
fn encode(columns: &[(Attribute, Stored)]) -> (Vec<u8>, Vec<Option<Vec<u8>>>) {
    let (mut data, mut expected) = (Vec::new(), Vec::new());
    for (attribute, stored) in columns {
        let (bytes, align) = match stored {
            Stored::Null => {
                expected.push(None);
                continue;
            }
            Stored::Fixed(bytes) => (bytes.clone(), attribute.align.bytes()),
            Stored::Short(payload) => (short(payload), 1),
            Stored::Long(payload) => (long(payload), attribute.align.bytes()),
            Stored::Text(text) => ([&text[..], &[0]].concat(), attribute.align.bytes()),
        };
        data.resize(data.len().next_multiple_of(align), 0);
        data.extend_from_slice(&bytes);
        expected.push(Some(bytes));
    }
    (data, expected)
}

/// The tuple of these values, and what each is in it.
fn encoded(columns: &[(Attribute, Stored)]) -> (Vec<u8>, Vec<Option<Vec<u8>>>) {
    let (data, expected) = encode(columns);
    let nulls: Vec<bool> = columns.iter().map(|(_, s)| matches!(s, Stored::Null)).collect();
    let nulls = if nulls.contains(&true) { nulls } else { Vec::new() };
    let varwidth =
        columns.iter().any(|(a, s)| !matches!(a.len, AttLen::Fixed(_)) && !matches!(s, Stored::Null));
    let infomask = FROZEN | if varwidth { HASVARWIDTH } else { 0 };
    (tuple_with(columns.len() as u16, infomask, 0, &nulls, &data), expected)
}

fn column() -> impl Strategy<Value = (Attribute, Stored)> {
    let attribute = |len, align| Attribute {
        name: String::new(),
        type_name: "raw".into(),
        len,
        align,
        dropped: false,
        missing: None,
    };
    let bytes = |range| proptest::collection::vec(any::<u8>(), range);
    let fixed = prop_oneof![
        Just((1, Align::Byte)),
        Just((2, Align::Short)),
        Just((4, Align::Int)),
        Just((6, Align::Int)),
        Just((8, Align::Double)),
        Just((16, Align::Byte)),
    ];
    let align = prop_oneof![Just(Align::Int), Just(Align::Double)];
    let value = prop_oneof![
        (fixed, bytes(16..17)).prop_map(move |((len, align), bytes)| {
            (attribute(AttLen::Fixed(len), align), Stored::Fixed(bytes[..usize::from(len)].to_vec()))
        }),
        (align.clone(), bytes(0..126))
            .prop_map(move |(align, bytes)| (attribute(AttLen::Varlena, align), Stored::Short(bytes))),
        (align, bytes(0..300))
            .prop_map(move |(align, bytes)| (attribute(AttLen::Varlena, align), Stored::Long(bytes))),
        proptest::collection::vec(1u8.., 0..9)
            .prop_map(move |text| (attribute(AttLen::CString, Align::Byte), Stored::Text(text))),
    ];
    (value, 0..4)
        .prop_map(|((attribute, stored), null)| (attribute, if null == 0 { Stored::Null } else { stored }))
}

proptest! {
    #[test]
    fn walk_finds_what_was_encoded(mut columns in proptest::collection::vec(column(), 1..20), later in 0usize..3) {
        let natts = columns.len() as u16;
        let (tuple, mut expected) = encoded(&columns);
        // Columns added after the tuple was written.
        for _ in 0..later {
            columns.push((Attribute::new("x", "int4").unwrap(), Stored::Null));
            expected.push(None);
        }
        for (n, (attribute, _)) in columns.iter_mut().enumerate() {
            attribute.name = format!("c{n}");
        }
        let desc = TupleDesc { attributes: columns.iter().map(|(a, _)| a.clone()).collect() };
        for (n, expected) in expected.iter().enumerate() {
            let datum = Walker::new(&desc, n).unwrap().datum(&tuple).unwrap();
            let wanted = match expected {
                Some(bytes) => Datum::Bytes(bytes),
                None if n < usize::from(natts) => Datum::Null,
                None => Datum::Missing,
            };
            prop_assert_eq!(datum, wanted, "column {}", n);
            // A tuple cut short or with a byte more does not fit any more.
            let longer = [&tuple[..], &[0]].concat();
            prop_assert!(Walker::new(&desc, n).unwrap().datum(&longer).is_err());
            prop_assert!(Walker::new(&desc, n).unwrap().datum(&tuple[..tuple.len() - 1]).is_err());
        }
    }
}

proptest! {
    #[test]
    fn the_short_way_finds_what_the_walk_finds(
        mut columns in proptest::collection::vec(column(), 1..5),
        plain in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => 0u8..4], 5),
        altered in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        for ((attribute, stored), plain) in columns.iter_mut().zip(plain) {
            // Most are of the kind that the short way takes.
            if plain == 0 && !matches!(stored, Stored::Fixed(_)) {
                (attribute.len, *stored) = (AttLen::Varlena, Stored::Short(vec![7; 9]));
            }
        }
        let (mut tuple, _) = encoded(&columns);
        if let Some((at, byte)) = altered {
            let at = at.index(tuple.len());
            tuple[at] = byte;
        }
        let desc = TupleDesc { attributes: columns.iter().map(|(a, _)| a.clone()).collect() };
        for (n, (attribute, stored)) in columns.iter().enumerate() {
            let walker = Walker::new(&desc, n).unwrap();
            let (short, walked) = (walker.short_value(&tuple), walker.datum(&tuple));
            if let Some(value) = short {
                let Ok(Datum::Bytes([header, bytes @ ..])) = walked else {
                    return Err(TestCaseError::fail(format!("{value:?} instead of {walked:?}")));
                };
                prop_assert!(header & 1 == 1 && *header != 1);
                prop_assert_eq!(value, bytes);
            }
            // Nothing less plain than this is needed.
            let is_plain = |(attribute, stored): &(Attribute, Stored)| match stored {
                Stored::Short(_) => attribute.len == AttLen::Varlena,
                Stored::Fixed(_) => true,
                _ => false,
            };
            let wanted = altered.is_none() && matches!(stored, Stored::Short(_)) && columns.iter().all(is_plain);
            prop_assert!(short.is_some() || !wanted, "column {} {:?}", n, attribute);
        }
    }
}

fn text(columns: &str, column: usize, tuple: &[u8]) -> String {
    let walker = Walker::new(&TupleDesc::parse(columns).unwrap(), column).unwrap();
    match walker.datum(tuple) {
        Ok(datum) => format!("{datum:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn headers_that_lie() {
    let good = tuple(2, &[&[1, 0, 0, 0][..], &short(&[9])].concat());
    let with = |at: usize, byte: u8| {
        let mut tuple = good.clone();
        tuple[at] = byte;
        text("id int4, seq varbit", 1, &tuple)
    };
    assert_eq!(with(0, 1), "Bytes([5, 9])");
    assert_eq!(with(18, 3), "tuple: expected at most 2 attributes, found 3");
    assert_eq!(with(18, 1), "tuple: expected 6 bytes of attributes, found 4");
    assert_eq!(with(22, 32), "t_hoff: expected 24, found 32");
    assert_eq!(with(22, 23), "t_hoff: expected 24, found 23");
    // The HASNULL bit: the bitmap byte says that all attributes are NULL, so nothing may follow.
    assert_eq!(with(20, 3), "tuple: expected 6 bytes of attributes, found 0");
    assert_eq!(with(20, 0), "tuple: expected none of variable length, found variable-length attributes");
    assert_eq!(text("id int4", 0, &good[..20]), "tuple: expected at least 24 bytes, found 20");
    let wide = tuple_with(64, FROZEN, 0, &[true; 64], &[]);
    let list = (0..64).map(|n| format!("c{n} int4")).collect::<Vec<_>>().join(",");
    assert_eq!(text(&list, 5, &wide), "Null");
    assert_eq!(text(&list, 5, &wide[..24]), "t_hoff: expected at most lp_len 24, found 32");
}

#[test]
fn values_that_lie() {
    let with = |value: &[u8]| text("id int4, seq varbit", 1, &tuple(2, &[&[1, 0, 0, 0][..], value].concat()));
    let wrong = |rest: &str| format!("{rest} (attribute \"seq\")");
    assert_eq!(with(&[]), wrong("varlena: expected a header, found the end of the tuple"));
    assert_eq!(with(&[9, 0]), wrong("varlena length: expected 1 to 2, found 4"));
    assert_eq!(with(&[4, 0, 0, 0]), wrong("varlena length: expected 4 to 4, found 1"));
    assert_eq!(with(&[0, 0, 0, 0]), wrong("varlena length: expected 4 to 4, found 0"));
    assert_eq!(with(&[0xfc, 0xff, 0xff, 0xff]), wrong("varlena length: expected 4 to 4, found 1073741823"));
    assert_eq!(with(&[18, 0, 0, 0]), wrong("varlena length: expected 8 to 4, found 4"));
    assert_eq!(with(&[1]), wrong("toast pointer: expected 18 bytes, found 1"));
    assert_eq!(with(&[1, 1, 0]), wrong("toast pointer tag: expected 18, found 1"));
    assert_eq!(with(&[1, 18, 0]), wrong("varlena length: expected 18 to 3, found 18"));
    let padded = tuple(2, &[&[1, 16][..], &long(&[9])].concat());
    assert_eq!(
        text("f bool, seq varbit", 1, &padded),
        wrong("varlena: expected a 4-byte header aligned to 4, found byte 1")
    );
    assert_eq!(
        text("name cstring, seq varbit", 1, &tuple(2, b"no end")),
        "cstring: expected a zero byte at its end, found the end of the tuple (attribute \"name\")"
    );
}

#[test]
fn a_wrong_column_list_is_found_out() {
    let tuple = tuple(3, &[&[1, 0, 0, 0][..], &short(b"note"), &short(&[8, 0, 0, 0, 0xff])].concat());
    assert_eq!(text("id int4, note text, seq varbit", 2, &tuple), "Bytes([13, 8, 0, 0, 0, 255])");
    // An int2 for the small int4 would not be: the bytes of one are those of the other and padding.
    for list in [
        "id int8, note text, seq varbit",
        "note text, id int4, seq varbit",
        "id int4, seq varbit",
        "id int4, note text, extra int4",
    ] {
        assert!(text(list, 0, &tuple).contains("expected"), "{list}");
    }
}
