//! Reads the rows of a catalog from its file, with the same pages, tuples and visibility as any table.
//!
//! Promise: every row is one that is committed and not deleted; a row whose state is open, or that is damaged, ends the reading.

use std::path::Path;

use super::error::{Error, Result};
use super::major::{Catalog, Major};
use crate::buffer::PageBuffer;
use crate::bytes::{u16_at, u32_at};
use crate::error::{Error as RelationError, Result as RelationResult, value_error};
use crate::file::RelationFile;
use crate::page::{BLOCK_SIZE, Checked, Page};
use crate::rows::undecided_error;
use crate::schema::TupleDesc;
use crate::tuple::{Datum, Walker};
use crate::visibility::{Oracle, Stamps, Verdict};

const BATCH_BLOCKS: usize = 64;

/// How catalogs are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan<'a> {
    pub(crate) major: Major,
    pub(crate) segment_blocks: u32,
    pub(crate) verify_checksums: bool,
    pub(crate) oracle: &'a dyn Oracle,
}

/// The value of a column in a row of a catalog.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    column: &'static str,
    datum: Datum<'a>,
}

impl Scan<'_> {
    /// Hands the named columns of every row to `visit`.
    pub(crate) fn rows<const N: usize>(
        &self,
        catalog: Catalog,
        path: &Path,
        columns: [&'static str; N],
        visit: impl FnMut([Field<'_>; N]) -> RelationResult<()>,
    ) -> Result<()> {
        self.read(catalog, path, columns, visit).map_err(|e| Error::in_catalog(catalog, e))
    }

    fn read<const N: usize>(
        &self,
        catalog: Catalog,
        path: &Path,
        columns: [&'static str; N],
        mut visit: impl FnMut([Field<'_>; N]) -> RelationResult<()>,
    ) -> RelationResult<()> {
        let desc = self.major.columns(catalog)?;
        let index = columns.map(|name| index_of(&desc, name));
        let walker = Walker::new(&desc, 0)?;
        let file = RelationFile::open_with_segment_size(path, self.segment_blocks)?;
        let mut pages = PageBuffer::new(BATCH_BLOCKS);
        let mut block = 0;
        while block < file.total_blocks() {
            let blocks = (file.total_blocks() - block).min(BATCH_BLOCKS as u32);
            let pages = pages.blocks_mut(blocks as usize);
            file.read_blocks(block, pages)?;
            for page in pages.chunks_exact(BLOCK_SIZE) {
                let mut row = |values: &[Datum<'_>]| {
                    let datum = |at: Option<usize>| at.and_then(|at| values.get(at)).copied();
                    visit(std::array::from_fn(|n| Field {
                        column: columns[n],
                        datum: datum(index[n]).unwrap_or(Datum::Missing),
                    }))
                };
                self.page(page, block, &walker, &mut row).map_err(|e| e.at_block(block).in_file(path))?;
                block += 1;
            }
        }
        Ok(())
    }

    fn page(
        &self,
        bytes: &[u8],
        block: u32,
        walker: &Walker,
        row: &mut dyn FnMut(&[Datum<'_>]) -> RelationResult<()>,
    ) -> RelationResult<()> {
        let Checked::Page(page) = Page::check(bytes, block, self.verify_checksums)? else { return Ok(()) };
        let mut values = Vec::new();
        for item in page.items() {
            let Some(stamps) = Stamps::read(item.tuple) else { continue };
            let visible = match stamps.judge(self.oracle) {
                Verdict::Visible => true,
                Verdict::Invisible => false,
                Verdict::Undecided if page.all_visible() => true,
                Verdict::Undecided => {
                    return Err(undecided_error(stamps, self.oracle).at_item(item.number));
                }
            };
            if visible {
                let read = walker.all(item.tuple, &mut values).and_then(|()| row(&values));
                read.map_err(|e| e.at_item(item.number))?;
            }
        }
        Ok(())
    }
}

fn index_of(desc: &TupleDesc, name: &str) -> Option<usize> {
    desc.attributes.iter().position(|a| a.name == name)
}

impl<'a> Field<'a> {
    /// The bytes of a value of `len` bytes that must be there.
    fn fixed(self, len: usize) -> RelationResult<&'a [u8]> {
        match self.datum {
            Datum::Bytes(bytes) if bytes.len() == len => Ok(bytes),
            Datum::Bytes(bytes) => Err(self.wrong(format!("{len} bytes"), bytes.len())),
            Datum::Null | Datum::Missing => Err(self.wrong("a value".into(), "NULL")),
        }
    }

    fn wrong(self, expected: String, found: impl std::fmt::Display) -> RelationError {
        value_error("catalog value", expected, found).at_attribute(self.column)
    }

    /// An oid.
    pub(crate) fn oid(self) -> RelationResult<u32> {
        Ok(u32_at(self.fixed(4)?, 0).unwrap_or_default())
    }

    /// A 2-byte integer.
    pub(crate) fn int2(self) -> RelationResult<i16> {
        Ok(u16_at(self.fixed(2)?, 0).unwrap_or_default().cast_signed())
    }

    /// A 4-byte integer.
    pub(crate) fn int4(self) -> RelationResult<i32> {
        Ok(self.oid()?.cast_signed())
    }

    /// A `"char"`.
    pub(crate) fn char(self) -> RelationResult<u8> {
        Ok(self.fixed(1)?.first().copied().unwrap_or_default())
    }

    /// A boolean.
    pub(crate) fn bool(self) -> RelationResult<bool> {
        match self.char()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(self.wrong("0 or 1".into(), found)),
        }
    }

    /// A boolean of a column that not every version has.
    pub(crate) fn bool_or_absent(self) -> RelationResult<bool> {
        if self.datum == Datum::Missing { Ok(false) } else { self.bool() }
    }

    /// A name: up to its zero byte. What is not UTF-8 is taken as Latin-1, so that different names stay different.
    pub(crate) fn name(self) -> RelationResult<String> {
        let bytes = self.fixed(64)?;
        let end =
            bytes.iter().position(|&b| b == 0).ok_or_else(|| self.wrong("a zero byte".into(), "none"))?;
        let bytes = bytes.get(..end).unwrap_or_default();
        Ok(match std::str::from_utf8(bytes) {
            Ok(name) => name.to_owned(),
            Err(_) => bytes.iter().map(|&b| char::from(b)).collect(),
        })
    }

    /// A value of variable length with its header; `None` for NULL.
    pub(crate) fn varlena(self) -> Option<&'a [u8]> {
        match self.datum {
            Datum::Bytes(bytes) => Some(bytes),
            Datum::Null | Datum::Missing => None,
        }
    }
}
