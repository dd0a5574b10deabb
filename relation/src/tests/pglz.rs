//! Round trips through a small compressor, and every way a stream can lie.

use crate::pglz::{MAX_RATIO, decompress};

/// A greedy compressor: the longest match among the last 4095 bytes, searched one by one.
pub(crate) fn compress(value: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < value.len() {
        let control = out.len();
        out.push(0);
        for bit in 0..8 {
            if at == value.len() {
                break;
            }
            match longest_match(value, at) {
                Some((distance, length)) => {
                    out[control] |= 1 << bit;
                    out.push((distance >> 4 & 0xf0) as u8 | (length.min(18) - 3) as u8);
                    out.push(distance as u8);
                    if length >= 18 {
                        out.push((length - 18) as u8);
                    }
                    at += length;
                }
                None => {
                    out.push(value[at]);
                    at += 1;
                }
            }
        }
    }
    out
}

fn longest_match(value: &[u8], at: usize) -> Option<(usize, usize)> {
    (1..=at.min(4095))
        .map(|distance| {
            let length = (0..273.min(value.len() - at))
                .take_while(|n| value[at + n] == value[at + n - distance])
                .count();
            (distance, length)
        })
        .max_by_key(|&(distance, length)| (length, usize::MAX - distance))
        .filter(|&(_, length)| length >= 3)
}

fn text(source: &[u8], size: usize) -> String {
    match decompress(source, &mut vec![0; size]) {
        Ok(()) => "good".to_owned(),
        Err(error) => error.to_string(),
    }
}

proptest::proptest! {
    #[test]
    fn round_trip(pattern in proptest::collection::vec(0u8..4, 1..40), repeats in 1usize..60, noise in proptest::collection::vec(0u8..4, 0..100)) {
        let value = [pattern.repeat(repeats), noise.clone(), pattern.repeat(2), noise].concat();
        let packed = compress(&value);
        let mut back = vec![0xee; value.len()];
        decompress(&packed, &mut back).unwrap();
        proptest::prop_assert_eq!(&back, &value);
        proptest::prop_assert!(value.len() <= packed.len() * MAX_RATIO);
        // One byte less or more on either side is an error, never a shorter value.
        proptest::prop_assert!(decompress(&packed, &mut vec![0; value.len() - 1]).is_err());
        proptest::prop_assert!(decompress(&packed, &mut vec![0; value.len() + 1]).is_err());
        proptest::prop_assert!(decompress(&packed[..packed.len() - 1], &mut back).is_err());
    }

    #[test]
    fn any_bytes_end(source in proptest::collection::vec(proptest::num::u8::ANY, 0..300), size in 0usize..2000) {
        let _ = decompress(&source, &mut vec![0; size]);
    }
}

#[test]
fn a_run_is_the_highest_ratio() {
    let value = vec![7; 100_000];
    assert!(compress(&value).len() * MAX_RATIO >= value.len());
}

#[test]
fn lies_are_named() {
    assert_eq!(text(&[], 0), "good");
    assert_eq!(
        text(&[0b10, b'a', 0x00, 0x00], 5),
        "pglz data: expected a distance of 1 to 1, found 0 at byte 2"
    );
    assert_eq!(
        text(&[0b10, b'a', 0x00, 0x02], 5),
        "pglz data: expected a distance of 1 to 1, found 2 at byte 2"
    );
    assert_eq!(
        text(&[0b10, b'a', 0x05, 0x01], 5),
        "pglz data: expected a copy of at most 4 bytes, found 8 at byte 2"
    );
    assert_eq!(
        text(&[0b10, b'a', 0x00], 5),
        "pglz data: expected a whole copy item, found its end at byte 3"
    );
    assert_eq!(
        text(&[0b10, b'a', 0x0f, 0x01], 90),
        "pglz data: expected a whole copy item, found its end at byte 4"
    );
    assert_eq!(text(&[0, b'a'], 2), "pglz data: expected 2 bytes of value, found 1");
    assert_eq!(
        text(&[0, b'a', b'b'], 1),
        "pglz data: expected an end with the value, found 1 bytes left over"
    );
}
