//! Reads the header of a variable-length value.
//!
//! Source of the format: `varatt.h` (little endian: low bits 00 a 4-byte header, 10 the same with compressed data, 1 a
//! 1-byte header, the single byte 0x01 a TOAST pointer whose next byte is its tag; 18 is the tag of a pointer to disk),
//! `toast_compression.h` (method numbers), `toast_internals.h`.

use crate::bytes::u32_at;
use crate::error::{Error, Result, value_error};

/// The largest value the server can make, in bytes without the header.
pub const MAX_SIZE: u32 = 0x3fff_ffff - 4;
/// Bytes of an on-disk TOAST pointer with its header byte and tag.
pub const POINTER_SIZE: usize = 18;
const TAG_ONDISK: u8 = 18;

/// How a value is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// PostgreSQL's own.
    Pglz,
    /// A bare LZ4 block.
    Lz4,
}

impl Method {
    fn from_bits(bits: u32) -> Result<Self> {
        match bits {
            0 => Ok(Self::Pglz),
            1 => Ok(Self::Lz4),
            other => Err(value_error("compression method", "0 (pglz) or 1 (lz4)", other)),
        }
    }
}

/// A pointer to a value in a TOAST relation (`varatt_external`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pointer {
    /// Bytes of the value once unpacked, without a header.
    pub raw_size: u32,
    /// Bytes of it as they lie in the chunks.
    pub stored_size: u32,
    /// How it is compressed, if it is.
    pub method: Option<Method>,
    /// `va_valueid`, the chunks' `chunk_id`.
    pub value_id: u32,
    /// `va_toastrelid`, the oid of the TOAST relation.
    pub toast_relid: u32,
}

/// A value as it lies in a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Varlena<'a> {
    /// The bytes themselves, without their header.
    Plain(&'a [u8]),
    /// Compressed bytes.
    Compressed(Compressed<'a>),
    /// Somewhere else.
    External(Pointer),
}

/// Compressed bytes with what their header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed<'a> {
    /// How.
    pub method: Method,
    /// Bytes of the value once unpacked, without a header.
    pub raw_size: u32,
    /// The compressed bytes.
    pub data: &'a [u8],
}

impl<'a> Compressed<'a> {
    /// Reads `va_tcinfo` and takes the rest as data; `body` is what follows the 4-byte length word.
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        let Some((info, data)) = body.split_first_chunk() else {
            return Err(value_error("compressed value", "at least 4 bytes", body.len()));
        };
        let info = u32::from_le_bytes(*info);
        let (method, raw_size) = (Method::from_bits(info >> 30)?, info & 0x3fff_ffff);
        check_raw_size(raw_size)?;
        Ok(Self { method, raw_size, data })
    }
}

fn check_raw_size(raw_size: u32) -> Result<()> {
    if raw_size > MAX_SIZE {
        return Err(value_error("value size", format!("at most {MAX_SIZE}"), raw_size));
    }
    Ok(())
}

/// Bytes the value at the start of `data` takes, header included. It lies inside `data`.
///
/// # Errors
/// [`crate::ErrorKind::Value`]: a length below the header's own, past the end of `data`, or an unknown tag.
#[inline]
pub fn size(data: &[u8]) -> Result<usize> {
    let Some(&first) = data.first() else {
        return Err(value_error("varlena", "a header", "the end of the tuple"));
    };
    let (size, least) = if first & 1 == 1 {
        if first == 1 {
            match data.get(1) {
                Some(&TAG_ONDISK) => (POINTER_SIZE, POINTER_SIZE),
                tag => return Err(tag_error(tag)),
            }
        } else {
            (usize::from(first >> 1), 1)
        }
    } else {
        let word = u32_at(data, 0).unwrap_or(0);
        ((word >> 2) as usize, if first & 2 == 0 { 4 } else { 8 })
    };
    if size < least || size > data.len() {
        return Err(size_error(size, least, data.len()));
    }
    Ok(size)
}

/// Bytes of a value that begins with the byte `first`, this one included, if that is a header of one byte.
#[inline]
pub(crate) fn short_size(first: u8) -> Option<usize> {
    (first & 1 == 1 && first != 1).then_some(usize::from(first >> 1))
}

#[cold]
fn size_error(size: usize, least: usize, most: usize) -> Error {
    value_error("varlena length", format!("{least} to {most}"), size)
}

#[cold]
fn tag_error(tag: Option<&u8>) -> Error {
    match tag {
        Some(tag) => value_error("toast pointer tag", TAG_ONDISK, tag),
        None => value_error("toast pointer", "18 bytes", 1),
    }
}

/// Reads the value that is exactly `data` (as cut out by [`size`]).
///
/// # Errors
/// [`crate::ErrorKind::Value`] as for [`size`], and for an unknown compression method or impossible sizes.
#[inline]
pub fn parse(data: &[u8]) -> Result<Varlena<'_>> {
    let size = size(data)?;
    let (Some(data), Some(&first)) = (data.get(..size), data.first()) else {
        return Err(size_error(size, 1, data.len()));
    };
    match first & 3 {
        0 => Ok(Varlena::Plain(data.get(4..).unwrap_or_default())),
        2 => Ok(Varlena::Compressed(Compressed::parse(data.get(4..).unwrap_or_default())?)),
        _ if first == 1 => Ok(Varlena::External(pointer(data)?)),
        _ => Ok(Varlena::Plain(data.get(1..).unwrap_or_default())),
    }
}

fn pointer(data: &[u8]) -> Result<Pointer> {
    let field = |n: usize| {
        u32_at(data, 2 + 4 * n).ok_or_else(|| value_error("toast pointer", "18 bytes", data.len()))
    };
    let (raw, info, value_id, toast_relid) = (field(0)?, field(1)?, field(2)?, field(3)?);
    // va_rawsize counts a 4-byte header that is not stored.
    let Some(raw_size) = raw.checked_sub(4) else {
        return Err(value_error("toast pointer", "va_rawsize >= 4", raw));
    };
    check_raw_size(raw_size)?;
    let stored_size = info & 0x3fff_ffff;
    let method = if stored_size < raw_size { Some(Method::from_bits(info >> 30)?) } else { None };
    if stored_size > raw_size {
        let expected = format!("a stored size of at most {raw_size}");
        return Err(value_error("toast pointer", expected, stored_size));
    }
    Ok(Pointer { raw_size, stored_size, method, value_id, toast_relid })
}
