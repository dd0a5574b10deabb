//! Lays a row out as a heap tuple.
//!
//! Tuple header, 23 bytes (`htup_details.h`): t_xmin 0, t_xmax 4, t_cid 8, t_ctid 12 (block high, block low, item),
//! t_infomask2 18, t_infomask 20, t_hoff 22; then the null bitmap if a field is null, then padding to a multiple of 8.
//! Field alignment: int4 and long variable-length values at multiples of 4, short ones and TOAST pointers anywhere.

use super::error::WriteError;
use super::page::max_align;
use super::toast::{POINTER_LEN, ToastPointer};

/// Bytes of the fixed part of a tuple header.
pub(super) const TUPLE_HEADER: usize = 23;
/// The longest tuple that fits an empty page (MaxHeapTupleSize).
pub(super) const MAX_TUPLE: usize = 8160;
/// Tuples longer than this have values moved out (TOAST_TUPLE_THRESHOLD: a quarter of a page's room).
pub(super) const TOAST_THRESHOLD: usize = 2032;
/// The most columns a table can have (MaxHeapAttributeNumber).
pub(super) const MAX_COLUMNS: usize = 1600;
/// The most bits in a bit string (VARBITMAXLEN).
const MAX_BITS: u32 = 2_147_483_640;
/// The most bytes in a text: what a 4-byte header can count, less the header.
const MAX_TEXT: usize = 0x3FFF_FFFF - 4;
/// The longest variable-length value with a 1-byte header, header included.
const MAX_SHORT: usize = 127;

/// xmin of tuples from before every transaction.
const FROZEN_XID: u32 = 2;
const HEAP_HASNULL: u16 = 0x0001;
const HEAP_HASVARWIDTH: u16 = 0x0002;
const HEAP_HASEXTERNAL: u16 = 0x0004;
/// Both "xmin committed" and "xmin invalid": frozen.
const HEAP_XMIN_FROZEN: u16 = 0x0300;
const HEAP_XMAX_INVALID: u16 = 0x0800;

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// SQL NULL.
    Null,
    /// An `integer`.
    Int4(i32),
    /// A `text`, without zero bytes.
    Text(&'a str),
    /// A `bit varying`, or a type with its layout such as `dna2` and `dna4`.
    VarBit {
        /// Length in bits, at most 2147483640.
        bits: u32,
        /// The bits, most significant first; unused bits of the last byte are 0.
        bytes: &'a [u8],
    },
}

impl<'a> Field<'a> {
    /// Checks what the type asks of its values.
    pub(super) fn check(&self, row: u64, attribute: usize) -> Result<(), WriteError> {
        match *self {
            Field::Null | Field::Int4(_) => Ok(()),
            Field::Text(text) => check_text(text, row, attribute),
            Field::VarBit { bits, bytes } => check_bits(bits, bytes, row, attribute),
        }
    }

    /// The value of a variable-length field without its header: a fixed front part and the rest.
    pub(super) fn payload(&self) -> Option<([u8; 4], usize, &'a [u8])> {
        match *self {
            Field::Null | Field::Int4(_) => None,
            Field::Text(text) => Some(([0; 4], 0, text.as_bytes())),
            Field::VarBit { bits, bytes } => Some((bits.to_le_bytes(), 4, bytes)),
        }
    }

    /// Bytes of the payload, for variable-length fields.
    pub(super) fn payload_len(&self) -> Option<usize> {
        self.payload().map(|(_, front, rest)| front + rest.len())
    }

    /// Alignment and length that the field takes inside a tuple.
    fn place(&self, external: Option<&ToastPointer>) -> (usize, usize) {
        match (self.payload_len(), external) {
            (Some(_), Some(_)) => (1, POINTER_LEN),
            (Some(len), None) if len < MAX_SHORT => (1, len + 1),
            (Some(len), None) => (4, len + 4),
            (None, _) if matches!(self, Field::Int4(_)) => (4, 4),
            (None, _) => (1, 0),
        }
    }
}

fn check_text(text: &str, row: u64, attribute: usize) -> Result<(), WriteError> {
    if text.len() > MAX_TEXT {
        let (expected, found) = (MAX_TEXT as u64, text.len() as u64);
        return Err(WriteError::ValueTooLarge { row, attribute, expected, found, unit: "bytes" });
    }
    match text.bytes().position(|byte| byte == 0) {
        Some(at) => Err(WriteError::TextNul { row, attribute, at: at + 1 }),
        None => Ok(()),
    }
}

fn check_bits(bits: u32, bytes: &[u8], row: u64, attribute: usize) -> Result<(), WriteError> {
    if bits > MAX_BITS {
        let (expected, found) = (u64::from(MAX_BITS), u64::from(bits));
        return Err(WriteError::ValueTooLarge { row, attribute, expected, found, unit: "bits" });
    }
    let expected = bits.div_ceil(8) as usize;
    if bytes.len() != expected {
        return Err(WriteError::BitBytes { row, attribute, bits, expected, found: bytes.len() });
    }
    match bytes.last() {
        Some(&found) if !bits.is_multiple_of(8) && found & (0xFF >> (bits % 8)) != 0 => {
            Err(WriteError::BitPadding { row, attribute, bits, found })
        }
        _ => Ok(()),
    }
}

/// Offset of the first field: the header, the null bitmap if there is one, padding.
fn header_len(fields: &[Field<'_>]) -> usize {
    let bitmap = if fields.contains(&Field::Null) { fields.len().div_ceil(8) } else { 0 };
    max_align(TUPLE_HEADER + bitmap)
}

/// Length of the tuple that `form` would make.
pub(super) fn tuple_len(fields: &[Field<'_>], external: &[Option<ToastPointer>]) -> usize {
    fields.iter().zip(external).fold(header_len(fields), |at, (field, pointer)| {
        let (align, len) = field.place(pointer.as_ref());
        at.next_multiple_of(align) + len
    })
}

/// Index of the largest value that shrinks when a pointer takes its place.
pub(super) fn largest_movable(fields: &[Field<'_>], external: &[Option<ToastPointer>]) -> Option<usize> {
    let sizes = fields.iter().zip(external).enumerate().filter_map(|(index, (field, pointer))| {
        let len = field.payload_len().filter(|_| pointer.is_none())?;
        (len + 4 > max_align(POINTER_LEN)).then_some((len, index))
    });
    // Of equals, the first one, as the server takes it.
    sizes.max_by_key(|&(len, index)| (len, std::cmp::Reverse(index))).map(|(_, index)| index)
}

/// Makes the tuple in `out`, for the place `(block, item)`.
pub(super) fn form(
    fields: &[Field<'_>],
    external: &[Option<ToastPointer>],
    tid: (u32, u16),
    out: &mut Vec<u8>,
) {
    let mut mask = HEAP_XMIN_FROZEN | HEAP_XMAX_INVALID;
    if fields.contains(&Field::Null) {
        mask |= HEAP_HASNULL;
    }
    if fields.iter().any(|field| field.payload().is_some()) {
        mask |= HEAP_HASVARWIDTH;
    }
    if external.iter().any(Option::is_some) {
        mask |= HEAP_HASEXTERNAL;
    }
    let data = header_len(fields);
    header(tid, fields.len() as u16, mask, data as u8, out);
    if mask & HEAP_HASNULL != 0 {
        for group in fields.chunks(8) {
            let bits =
                group.iter().rev().fold(0u8, |bits, field| bits << 1 | u8::from(*field != Field::Null));
            out.push(bits);
        }
    }
    out.resize(data, 0);
    for (field, pointer) in fields.iter().zip(external) {
        put_field(field, pointer.as_ref(), out);
    }
}

/// Starts a frozen tuple in `out`: the 23 bytes of its header.
pub(super) fn header(tid: (u32, u16), columns: u16, mask: u16, data: u8, out: &mut Vec<u8>) {
    let (block, item) = tid;
    out.clear();
    out.extend_from_slice(&FROZEN_XID.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&((block >> 16) as u16).to_le_bytes());
    out.extend_from_slice(&(block as u16).to_le_bytes());
    out.extend_from_slice(&item.to_le_bytes());
    out.extend_from_slice(&columns.to_le_bytes());
    out.extend_from_slice(&mask.to_le_bytes());
    out.push(data);
}

/// Starts the header of a tuple of the TOAST table, which never has nulls, and pads it.
pub(super) fn toast_header(tid: (u32, u16), out: &mut Vec<u8>) {
    let data = max_align(TUPLE_HEADER);
    header(tid, 3, HEAP_XMIN_FROZEN | HEAP_XMAX_INVALID | HEAP_HASVARWIDTH, data as u8, out);
    out.resize(data, 0);
}

/// Appends one field with its padding.
fn put_field(field: &Field<'_>, external: Option<&ToastPointer>, out: &mut Vec<u8>) {
    let (align, len) = field.place(external);
    out.resize(out.len().next_multiple_of(align), 0);
    if let Some(pointer) = external {
        out.extend_from_slice(pointer);
        return;
    }
    if let Field::Int4(value) = field {
        out.extend_from_slice(&value.to_le_bytes());
    }
    if let Some((front, front_len, rest)) = field.payload() {
        if align == 1 {
            out.push((len as u8) << 1 | 1);
        } else {
            out.extend_from_slice(&((len as u32) << 2).to_le_bytes());
        }
        out.extend(front.iter().take(front_len));
        out.extend_from_slice(rest);
    }
}
