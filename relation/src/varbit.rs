//! Reads the payload of a `varbit` value: a bit count and the bits.
//!
//! Source of the format: `varbit.h` (an int32 bit length, then the bits, the first in the highest bit of a byte, the last
//! byte filled up with zeros).

use crate::bytes::u32_at;
use crate::error::{Result, value_error};

/// Splits the payload (the value without its varlena header) into the bit length and the bytes that hold the bits.
///
/// # Errors
/// [`crate::ErrorKind::Value`]: fewer than 4 bytes, a negative length, too few or too many bytes for it, or bits set
/// behind the last one.
#[inline]
pub fn parse(payload: &[u8]) -> Result<(u32, &[u8])> {
    let Some(bits) = u32_at(payload, 0) else {
        return Err(value_error("bit string", "at least 4 bytes", payload.len()));
    };
    let bytes = payload.get(4..).unwrap_or_default();
    if bits > i32::MAX as u32 {
        return Err(value_error("bit string", "a length >= 0", bits as i32));
    }
    if bytes.len() != (bits as usize).div_ceil(8) {
        let expected = format!("{} bytes for {bits} bits", bits.div_ceil(8));
        return Err(value_error("bit string", expected, bytes.len()));
    }
    if let (Some(&last), used @ 1..) = (bytes.last(), bits % 8)
        && last & (0xff >> used) != 0
    {
        let found = format!("{last:#04x} with {used} bits in use");
        return Err(value_error("bit string", "zero bits behind the last", found));
    }
    Ok((bits, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(bits: u32, bytes: &[u8]) -> Vec<u8> {
        [&bits.to_le_bytes()[..], bytes].concat()
    }

    #[test]
    fn reads_what_the_server_writes() {
        assert_eq!(parse(&payload(0, &[])).unwrap(), (0, &[][..]));
        assert_eq!(parse(&payload(8, &[0xff])).unwrap(), (8, &[0xff][..]));
        assert_eq!(parse(&payload(10, &[1, 0xc0])).unwrap(), (10, &[1, 0xc0][..]));
    }

    #[test]
    fn refuses_what_it_would_not() {
        let text = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        assert_eq!(text(&[1, 2]), "bit string: expected at least 4 bytes, found 2");
        assert_eq!(text(&payload(u32::MAX, &[])), "bit string: expected a length >= 0, found -1");
        assert_eq!(text(&payload(9, &[0])), "bit string: expected 2 bytes for 9 bits, found 1");
        assert_eq!(text(&payload(0, &[0])), "bit string: expected 0 bytes for 0 bits, found 1");
        assert_eq!(
            text(&payload(2, &[0xe0])),
            "bit string: expected zero bits behind the last, found 0xe0 with 2 bits in use"
        );
    }
}
