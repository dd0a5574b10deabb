//! Takes the default of an added column out of `pg_attribute.attmissingval`.
//!
//! Source of the format: `array.h` (ArrayType: number of dimensions, offset of the data if there is a null bitmap, oid of the element type, then
//! for each dimension its length, and for each its lower bound), `heap.c` (an array of one element).

use crate::bytes::u32_at;
use crate::error::{Result, value_error};
use crate::rows::decompress;
use crate::varlena::{self, Varlena};

/// Bytes of the array's header without the length word: three words, the length of its only dimension and its lower bound.
const HEADER: usize = 20;

/// The only element of the array, a value of variable length, without its header.
pub(crate) fn missing_value(array: &[u8]) -> Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let array = plain(array, &mut unpacked)?;
    let field = |n: usize| u32_at(array, n * 4);
    let shape = [field(0), field(1), field(3)];
    if shape != [Some(1), Some(0), Some(1)] {
        let found = format!("{shape:?} as dimensions, null bitmap and length");
        return Err(value_error("missing value", "an array of one element", found));
    }
    // An element is aligned to at most 8 bytes from the start of the array, which begins with its length word.
    let element = array.get(HEADER..).unwrap_or_default();
    let size = varlena::size(element)?;
    let mut unpacked = Vec::new();
    Ok(plain(element.get(..size).unwrap_or_default(), &mut unpacked)?.to_vec())
}

fn plain<'a>(value: &'a [u8], unpacked: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    match varlena::parse(value)? {
        Varlena::Plain(payload) => Ok(payload),
        Varlena::Compressed(compressed) => decompress(&compressed, unpacked),
        Varlena::External(_) => Err(value_error("missing value", "a value in its tuple", "a toast pointer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(words: &[u32], element: &[u8]) -> Vec<u8> {
        let len = (4 + words.len() * 4 + element.len()) as u32;
        let mut bytes = (len << 2).to_le_bytes().to_vec();
        words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        bytes.extend(element);
        bytes
    }

    #[test]
    fn the_only_element_of_an_array() {
        // 4 bits, 1010: a varlena of 9 bytes.
        let element = [9 << 2, 0, 0, 0, 4, 0, 0, 0, 0xa0];
        let good = array(&[1, 0, 1562, 1, 1], &element);
        assert_eq!(missing_value(&good).unwrap(), [4, 0, 0, 0, 0xa0]);
        let short = array(&[1, 0, 1562, 1, 1], &[6 << 1 | 1, 4, 0, 0, 0, 0xa0]);
        assert_eq!(missing_value(&short).unwrap(), [4, 0, 0, 0, 0xa0]);
        for words in [[2, 0, 1562, 1, 1], [1, 24, 1562, 1, 1], [1, 0, 1562, 2, 1], [0, 0, 1562, 1, 1]] {
            assert!(missing_value(&array(&words, &element)).is_err(), "{words:?}");
        }
        for len in 0..good.len() {
            assert!(missing_value(&good[..len]).is_err(), "{len}");
        }
    }
}
