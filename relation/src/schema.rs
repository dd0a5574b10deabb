//! Describes the columns of a relation, as far as reading its tuples needs it.
//!
//! A column list is text: `id int4, note text, seq dna2`. Types may be written as in SQL ("character varying(20)",
//! "int[]"). A column may also be given by its layout alone: `raw(len,align)` for a type that is not known here (enums are
//! `raw(4,i)`), and `dropped(len,align)` for a dropped column, with len and align as in `pg_attribute` (len -1 a varlena,
//! -2 a cstring; align 1, 2, 4, 8 or c, s, i, d). `missing(hex)` behind a type is the value of rows that are older than
//! the column: the bytes of the value without a varlena header.
//!
//! Promise: [`TupleDesc::parse`] of [`TupleDesc::to_list`] gives the same description.

use std::fmt::Write as _;

use crate::error::{Error, ErrorKind, Result};
use crate::types;

/// The most columns a table can have (MaxHeapAttributeNumber).
pub const MAX_COLUMNS: usize = 1600;

/// How long a column's values are (`attlen`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttLen {
    /// Always so many bytes.
    Fixed(u16),
    /// A length word comes first (-1).
    Varlena,
    /// Ends with a zero byte (-2).
    CString,
}

/// To what a column's values are aligned (`attalign`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Align {
    /// 1 byte ('c').
    Byte,
    /// 2 bytes ('s').
    Short,
    /// 4 bytes ('i').
    Int,
    /// 8 bytes ('d').
    Double,
}

impl Align {
    /// The alignment in bytes: 1, 2, 4 or 8.
    #[inline]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Short => 2,
            Self::Int => 4,
            Self::Double => 8,
        }
    }
}

/// How the bits of a column's values stand for bases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnaType {
    /// 2 bits a base.
    Dna2,
    /// 4 bits a base.
    Dna4,
}

impl DnaType {
    /// Bits of a base: 2 or 4.
    #[inline]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Dna2 => 2,
            Self::Dna4 => 4,
        }
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name as stored, without quotes.
    pub name: String,
    /// Its type's internal name ("int4", "varbit", "_text"); "raw" or "dropped" where only the layout is known.
    pub type_name: String,
    /// How long its values are.
    pub len: AttLen,
    /// How its values are aligned.
    pub align: Align,
    /// Whether it was dropped; its values still take their space.
    pub dropped: bool,
    /// The value of rows from before the column was added, without a varlena header; `None` is NULL.
    pub missing: Option<Vec<u8>>,
}

impl Attribute {
    /// A column of a known type.
    ///
    /// # Errors
    /// [`ErrorKind::Columns`] if the type is not known.
    pub fn new(name: &str, type_text: &str) -> Result<Self> {
        let type_name = types::internal_name(type_text);
        let Some((len, align)) = types::layout(&type_name) else {
            let error = columns_error(format!("column {name:?}: unknown type {type_text:?}"));
            return Err(
                error.with_hint("give its layout as raw(len,align), with typlen and typalign of pg_type")
            );
        };
        Ok(Self { name: name.to_owned(), type_name, len, align, dropped: false, missing: None })
    }

    /// How its values hold DNA; `None` if they do not. A plain `varbit` is taken as `dna2`.
    pub fn dna_type(&self) -> Option<DnaType> {
        match self.type_name.as_str() {
            "dna2" | "varbit" => Some(DnaType::Dna2),
            "dna4" => Some(DnaType::Dna4),
            _ => None,
        }
    }

    fn write(&self, list: &mut String) {
        if self.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && self.name.starts_with(|c: char| !c.is_ascii_digit())
        {
            list.push_str(&self.name);
        } else {
            let _ = write!(list, "\"{}\"", self.name.replace('"', "\"\""));
        }
        if self.dropped || types::layout(&self.type_name) != Some((self.len, self.align)) {
            let word = if self.dropped { "dropped" } else { "raw" };
            let len = match self.len {
                AttLen::Fixed(n) => i32::from(n),
                AttLen::Varlena => -1,
                AttLen::CString => -2,
            };
            let _ = write!(list, " {word}({len},{})", self.align.bytes());
        } else if self.type_name == "char" {
            list.push_str(" \"char\"");
        } else if let Some(element) = self.type_name.strip_prefix('_') {
            let _ = write!(list, " {element}[]");
        } else {
            let _ = write!(list, " {}", self.type_name);
        }
        if let Some(missing) = &self.missing {
            list.push_str(" missing(");
            for byte in missing {
                let _ = write!(list, "{byte:02x}");
            }
            list.push(')');
        }
    }
}

/// The columns of a relation in their physical order (by attnum, dropped ones included).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TupleDesc {
    /// The columns.
    pub attributes: Vec<Attribute>,
}

impl TupleDesc {
    /// Reads a column list.
    ///
    /// # Errors
    /// [`ErrorKind::Columns`]: no column, a column without a type, an unknown type, a name twice, too many columns.
    pub fn parse(list: &str) -> Result<Self> {
        let mut attributes: Vec<Attribute> = Vec::new();
        for entry in split_entries(list)? {
            let attribute = parse_entry(entry.trim())?;
            if attributes.iter().any(|a| a.name == attribute.name) {
                return Err(columns_error(format!("column {:?} is listed twice", attribute.name)));
            }
            attributes.push(attribute);
        }
        if attributes.len() > MAX_COLUMNS {
            let found = attributes.len();
            return Err(columns_error(format!("expected at most {MAX_COLUMNS} columns, found {found}")));
        }
        Ok(Self { attributes })
    }

    /// The index (from 0) of the column with this name, or with this attnum (from 1). A name is taken as it is written
    /// first, then without its quotes if it has them, then with the letters of ASCII folded to lower case.
    ///
    /// # Errors
    /// [`ErrorKind::Columns`], listing the columns there are, if there is none or it was dropped.
    pub fn column(&self, name_or_attnum: &str) -> Result<usize> {
        let by_name = |name: &str| self.attributes.iter().position(|a| !a.dropped && a.name == name);
        let by_number = || name_or_attnum.parse::<usize>().ok()?.checked_sub(1);
        let found = by_name(name_or_attnum)
            .or_else(|| by_name(&unquoted(name_or_attnum)?))
            .or_else(|| by_name(&name_or_attnum.to_ascii_lowercase()))
            .or_else(|| by_number().filter(|&n| self.attributes.get(n).is_some_and(|a| !a.dropped)));
        found.ok_or_else(|| {
            let names: Vec<_> =
                self.attributes.iter().filter(|a| !a.dropped).map(|a| format!("{:?}", a.name)).collect();
            columns_error(format!(
                "column {name_or_attnum:?} does not exist; the columns are {}",
                names.join(", ")
            ))
        })
    }

    /// The column list as text that [`TupleDesc::parse`] reads.
    pub fn to_list(&self) -> String {
        let mut list = String::new();
        for (n, attribute) in self.attributes.iter().enumerate() {
            if n > 0 {
                list.push_str(", ");
            }
            attribute.write(&mut list);
        }
        list
    }
}

/// What a name in quotes stands for, as SQL has it; `None` when it has none.
pub fn unquoted(name: &str) -> Option<String> {
    let inner = name.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.replace("\"\"", "\""))
}

/// Cuts the list at the commas that stand outside of quotes and parentheses.
fn split_entries(list: &str) -> Result<Vec<&str>> {
    let (mut entries, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0u32, false);
    for (at, c) in list.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                entries.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if quoted || depth > 0 {
        let missing = if quoted { '"' } else { ')' };
        return Err(columns_error(format!("column list: expected a closing {missing}, found its end")));
    }
    entries.push(&list[start..]);
    Ok(entries)
}

fn parse_entry(entry: &str) -> Result<Attribute> {
    let (name, rest) = parse_name(entry)?;
    // One space between words, lower case, as the spellings are looked up.
    let mut text = rest.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let mut missing = None;
    if let Some(at) = text.find(" missing(") {
        let hex = text[at + " missing(".len()..].strip_suffix(')').unwrap_or("?");
        let bytes = parse_hex(hex).ok_or_else(|| {
            columns_error(format!(
                "column {name:?}: expected missing(hex digits), found {:?}",
                &text[at + 1..]
            ))
        })?;
        missing = Some(bytes);
        text.truncate(at);
    }
    let text = text.strip_suffix(" not null").unwrap_or(&text);
    if text.is_empty() {
        let error = columns_error(format!("column {name:?}: expected a type behind the name"));
        return Err(error.with_hint("write the columns as: id int4, seq dna2"));
    }
    let mut attribute = match parse_layout(&name, text)? {
        Some(attribute) => attribute,
        None => Attribute::new(&name, text)?,
    };
    attribute.missing = missing;
    Ok(attribute)
}

/// The name in front, quoted (kept as it is) or not (letters of ASCII folded to lower case, as in SQL), and the rest.
fn parse_name(entry: &str) -> Result<(String, &str)> {
    if let Some(inner) = entry.strip_prefix('"') {
        let mut name = String::new();
        let mut chars = inner.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c != '"' {
                name.push(c);
            } else if chars.next_if(|&(_, next)| next == '"').is_some() {
                name.push('"');
            } else if name.is_empty() {
                break;
            } else {
                return Ok((name, &inner[at + 1..]));
            }
        }
        return Err(columns_error(format!("column list: expected a quoted name, found {entry:?}")));
    }
    let end = entry.find(|c: char| c.is_whitespace()).unwrap_or(entry.len());
    if end == 0 {
        let error = columns_error("column list: expected a name and a type, found nothing");
        return Err(error.with_hint("write the columns as: id int4, seq dna2"));
    }
    Ok((entry[..end].to_ascii_lowercase(), &entry[end..]))
}

/// `raw(len,align)` or `dropped(len,align)`.
fn parse_layout(name: &str, text: &str) -> Result<Option<Attribute>> {
    let Some((word @ ("raw" | "dropped"), inside)) =
        text.split_once('(').map(|(word, rest)| (word.trim_end(), rest))
    else {
        return Ok(None);
    };
    let wrong = || {
        columns_error(format!("column {name:?}: expected {word}(len,align), found {text:?}"))
            .with_hint("len is -2, -1 or 1 to 32767, align 1, 2, 4, 8 or c, s, i, d")
    };
    let (len, align) = inside.strip_suffix(')').and_then(|i| i.split_once(',')).ok_or_else(wrong)?;
    let len = match len.trim().parse::<i16>() {
        Ok(-1) => AttLen::Varlena,
        Ok(-2) => AttLen::CString,
        Ok(n @ 1..) => AttLen::Fixed(n.unsigned_abs()),
        _ => return Err(wrong()),
    };
    let align = match align.trim() {
        "1" | "c" => Align::Byte,
        "2" | "s" => Align::Short,
        "4" | "i" => Align::Int,
        "8" | "d" => Align::Double,
        _ => return Err(wrong()),
    };
    Ok(Some(Attribute {
        name: name.to_owned(),
        type_name: word.to_owned(),
        len,
        align,
        dropped: word == "dropped",
        missing: None,
    }))
}

fn parse_hex(hex: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16);
    pairs.iter().map(|&[a, b]| Some((digit(a)? << 4 | digit(b)?) as u8)).collect()
}

fn columns_error(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Columns(text.into()))
}
