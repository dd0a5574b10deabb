//! Walks the attributes of a tuple to one of its columns.
//!
//! Promises
//! - Every attribute lies inside the tuple, and after the last one the tuple ends: a column list that does not match the
//!   table is found out wherever sizes differ, instead of giving wrong bytes.
//! - No allocation on the good path; leading fixed-width columns cost nothing while no NULL is among them, and tuples of the plainest kind, which
//!   most are, little.
//!
//! What it does not do: unpack values (see [`crate::varlena`], [`crate::toast`]) or judge visibility.
//!
//! Source of the format: `htup_details.h` (HeapTupleHeaderData: 23 bytes, then the null bitmap with 1 for "not null", padded
//! to t_hoff; natts in the low 11 bits of t_infomask2), `tupmacs.h` (alignment; a varlena whose first byte is not zero is
//! not padded), `heaptuple.c` (padding is zero, HEAP_HASVARWIDTH is set if any value has a length of its own).

use crate::bytes::u16_at;
use crate::error::{Error, Result, tuple_error, value_error};
use crate::schema::{AttLen, TupleDesc};
use crate::varlena;

const T_INFOMASK2: usize = 18;
const T_INFOMASK: usize = 20;
const T_HOFF: usize = 22;
const T_BITS: usize = 23;
const HASNULL: u16 = 0x0001;
const HASVARWIDTH: u16 = 0x0002;
const NATTS_MASK: u16 = 0x07ff;
/// `t_hoff` where there is no null bitmap.
const PLAIN_HOFF: usize = 24;

/// A column as a tuple has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datum<'a> {
    /// NULL.
    Null,
    /// The tuple is older than the column: its `missing` value holds.
    Missing,
    /// The bytes, with the varlena header if it has one.
    Bytes(&'a [u8]),
}

/// A column in the form the walk wants.
#[derive(Debug, Clone, Copy)]
struct Step {
    len: AttLen,
    align: usize,
}

/// Finds one column in tuples of one table.
#[derive(Debug, Clone)]
pub struct Walker {
    steps: Vec<Step>,
    names: Vec<String>,
    column: usize,
    /// The leading columns of fixed width before `column`, and where the next one can begin at the earliest.
    prefix: usize,
    prefix_end: usize,
}

/// A tuple's header, checked.
#[derive(Debug, Clone, Copy)]
struct Header<'a> {
    natts: usize,
    infomask: u16,
    nulls: Option<&'a [u8]>,
    data: &'a [u8],
}

impl Walker {
    /// A walker to the column with this index (from 0).
    ///
    /// # Errors
    /// [`crate::ErrorKind::Columns`] if there is no such column.
    pub fn new(desc: &TupleDesc, column: usize) -> Result<Self> {
        let steps: Vec<Step> =
            desc.attributes.iter().map(|a| Step { len: a.len, align: a.align.bytes() }).collect();
        if column >= steps.len() {
            let text = format!("column {}: the relation has {} columns", column + 1, steps.len());
            return Err(Error::new(crate::ErrorKind::Columns(text)));
        }
        let (mut prefix, mut prefix_end) = (0, 0);
        for step in steps.iter().take(column) {
            let AttLen::Fixed(len) = step.len else { break };
            prefix_end = aligned(prefix_end, step.align) + usize::from(len);
            prefix += 1;
        }
        let names = desc.attributes.iter().map(|a| a.name.clone()).collect();
        Ok(Self { steps, names, column, prefix, prefix_end })
    }

    /// The column's name.
    pub fn column_name(&self) -> &str {
        self.names.get(self.column).map_or("", String::as_str)
    }

    /// The column's value in `tuple` (header included).
    ///
    /// # Errors
    /// [`crate::ErrorKind::Tuple`] or [`crate::ErrorKind::Value`], naming the attribute where it is about one.
    #[inline]
    pub fn datum<'a>(&self, tuple: &'a [u8]) -> Result<Datum<'a>> {
        let header = self.header(tuple)?;
        let mut found = if self.column < header.natts { Datum::Null } else { Datum::Missing };
        let (first, mut at) = match header.nulls {
            None if header.natts >= self.prefix => (self.prefix, self.prefix_end),
            _ => (0, 0),
        };
        let steps = self.steps.get(first..header.natts).unwrap_or_default();
        let mut varwidth = false;
        for (step, number) in steps.iter().zip(first..) {
            if header.nulls.is_some_and(|bits| is_null(bits, number)) {
                continue;
            }
            varwidth |= !matches!(step.len, AttLen::Fixed(_));
            let (start, end) = self.extent(*step, header.data, at).map_err(|e| self.named(e, number))?;
            if number == self.column {
                found = Datum::Bytes(header.data.get(start..end).unwrap_or_default());
            }
            at = end;
        }
        if at != header.data.len() || varwidth != (header.infomask & HASVARWIDTH != 0) {
            return Err(self.mismatch(&header, at, varwidth));
        }
        Ok(found)
    }

    /// The values of all columns in `tuple`, into `values`. What [`Walker::datum`] checks is checked here too.
    ///
    /// # Errors
    /// As [`Walker::datum`].
    pub fn all<'a>(&self, tuple: &'a [u8], values: &mut Vec<Datum<'a>>) -> Result<()> {
        values.clear();
        let header = self.header(tuple)?;
        let (mut at, mut varwidth) = (0, false);
        for (step, number) in self.steps.iter().zip(0..) {
            if number >= header.natts {
                values.push(Datum::Missing);
                continue;
            }
            if header.nulls.is_some_and(|bits| is_null(bits, number)) {
                values.push(Datum::Null);
                continue;
            }
            varwidth |= !matches!(step.len, AttLen::Fixed(_));
            let (start, end) = self.extent(*step, header.data, at).map_err(|e| self.named(e, number))?;
            values.push(Datum::Bytes(header.data.get(start..end).unwrap_or_default()));
            at = end;
        }
        if at != header.data.len() || varwidth != (header.infomask & HASVARWIDTH != 0) {
            return Err(self.mismatch(&header, at, varwidth));
        }
        Ok(())
    }

    /// The column's bytes without their header in a tuple of the plainest kind: it has every column and no NULL, and what is of variable length has a
    /// header of one byte, which is never aligned. `None` for all others, damaged ones among them: those are [`Walker::datum`]'s, which finds the same.
    #[inline]
    pub(crate) fn short_value<'a>(&self, tuple: &'a [u8]) -> Option<&'a [u8]> {
        let (header, data) = tuple.split_first_chunk::<PLAIN_HOFF>()?;
        let field = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let is_plain = usize::from(field(T_INFOMASK2) & NATTS_MASK) == self.steps.len()
            && field(T_INFOMASK) & (HASNULL | HASVARWIDTH) == HASVARWIDTH
            && usize::from(header[T_HOFF]) == PLAIN_HOFF;
        if !is_plain {
            return None;
        }
        let (mut value, mut end) = (None, self.prefix_end);
        for (step, number) in self.steps.get(self.prefix..)?.iter().zip(self.prefix..) {
            match step.len {
                AttLen::Fixed(len) => end = aligned(end, step.align) + usize::from(len),
                AttLen::Varlena => {
                    let start = end;
                    end += varlena::short_size(*data.get(start)?)?;
                    if number == self.column {
                        value = data.get(start + 1..end);
                    }
                }
                AttLen::CString => return None,
            }
        }
        if end == data.len() { value } else { None }
    }

    #[inline]
    fn header<'a>(&self, tuple: &'a [u8]) -> Result<Header<'a>> {
        let short = || tuple_error("tuple", "at least 24 bytes", tuple.len());
        let infomask2 = u16_at(tuple, T_INFOMASK2).ok_or_else(short)?;
        let infomask = u16_at(tuple, T_INFOMASK).ok_or_else(short)?;
        let hoff = usize::from(*tuple.get(T_HOFF).ok_or_else(short)?);
        let natts = usize::from(infomask2 & NATTS_MASK);
        if natts > self.steps.len() {
            let expected = format!("at most {} attributes", self.steps.len());
            return Err(list_hint(tuple_error("tuple", expected, natts)));
        }
        let bitmap = if infomask & HASNULL != 0 { natts.div_ceil(8) } else { 0 };
        let expected = aligned(T_BITS + bitmap, 8);
        if hoff != expected {
            return Err(tuple_error("t_hoff", expected, hoff));
        }
        let Some(data) = tuple.get(hoff..) else {
            return Err(tuple_error("t_hoff", format!("at most lp_len {}", tuple.len()), hoff));
        };
        let nulls = if bitmap > 0 { tuple.get(T_BITS..T_BITS + bitmap) } else { None };
        Ok(Header { natts, infomask, nulls, data })
    }

    /// Where the attribute that comes next at `at` begins and ends.
    #[inline]
    fn extent(&self, step: Step, data: &[u8], at: usize) -> Result<(usize, usize)> {
        match step.len {
            AttLen::Fixed(len) => {
                let start = aligned(at, step.align);
                let end = start + usize::from(len);
                if end > data.len() {
                    return Err(list_hint(tuple_error(
                        "attribute",
                        format!("its end by byte {}", data.len()),
                        end,
                    )));
                }
                Ok((start, end))
            }
            AttLen::Varlena => {
                let start = varlena_start(data, at, step.align)?;
                let size = varlena::size(data.get(start..).unwrap_or_default()).map_err(list_hint)?;
                Ok((start, start + size))
            }
            AttLen::CString => {
                let start = aligned(at, step.align);
                let rest = data.get(start..).unwrap_or_default();
                match rest.iter().position(|&byte| byte == 0) {
                    Some(len) => Ok((start, start + len + 1)),
                    None => Err(tuple_error("cstring", "a zero byte at its end", "the end of the tuple")),
                }
            }
        }
    }

    #[cold]
    fn named(&self, error: Error, number: usize) -> Error {
        match self.names.get(number) {
            Some(name) => error.at_attribute(name),
            None => error,
        }
    }

    #[cold]
    fn mismatch(&self, header: &Header<'_>, end: usize, varwidth: bool) -> Error {
        let error = if end == header.data.len() {
            let text = |has| if has { "variable-length attributes" } else { "none of variable length" };
            tuple_error("tuple", text(header.infomask & HASVARWIDTH != 0), text(varwidth))
        } else {
            tuple_error("tuple", format!("{} bytes of attributes", header.data.len()), end)
        };
        list_hint(error)
    }
}

#[cold]
fn list_hint(error: Error) -> Error {
    error.with_hint("if this is so for every tuple, the column list (--schema) is not that of this table; dropped columns count too")
}

/// A zero byte is padding; anything else begins a value, and a 4-byte header only does so aligned.
#[inline]
fn varlena_start(data: &[u8], at: usize, align: usize) -> Result<usize> {
    let start = aligned(at, align);
    match data.get(at) {
        Some(0) | None => Ok(start),
        Some(&first) if first & 1 == 1 || start == at => Ok(at),
        Some(_) => {
            Err(value_error("varlena", format!("a 4-byte header aligned to {align}"), format!("byte {at}")))
        }
    }
}

#[inline]
fn is_null(bits: &[u8], number: usize) -> bool {
    bits.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 0)
}

#[inline(always)]
fn aligned(at: usize, align: usize) -> usize {
    (at + align - 1) & !(align - 1)
}
