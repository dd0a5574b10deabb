//! Checks one heap page and hands out its line pointers.
//!
//! Promises
//! - [`Page::check`] looks at the header and at every line pointer before any tuple is handed out: ranges, alignment, no
//!   two tuples share a byte, every redirect ends at a heap-only tuple of this page and no two at the same one.
//! - After a check, every [`Item`] lies inside the page, is at least [`MIN_TUPLE`] bytes long and starts at a multiple of 8.
//!
//! What it does not do: look into tuples (see [`crate::tuple`]) or know other pages.
//!
//! Source of the format: `bufpage.h` (PageHeaderData, flags, layout version), `itemid.h` (ItemIdData: lp_off 15 bits,
//! lp_flags 2, lp_len 15), `htup_details.h` (MaxHeapTuplesPerPage, HEAP_ONLY_TUPLE), `bufpage.c` (what makes a page valid).

use crate::bytes::u16_at;
use crate::checksum::page_checksum;
use crate::error::{Error, ErrorKind, Result, page_error};

/// Bytes of a page (BLCKSZ).
pub const BLOCK_SIZE: usize = 8192;
/// Bytes of the page header; line pointers begin here.
pub const HEADER_SIZE: usize = 24;
/// The most line pointers a heap page can have (MaxHeapTuplesPerPage).
pub const MAX_ITEMS: usize = 291;
/// The shortest tuple: its header, rounded up to 8 bytes.
pub const MIN_TUPLE: usize = 24;
/// `pd_flags` bit: every tuple of the page is visible to every transaction.
pub const PD_ALL_VISIBLE: u16 = 0x0004;

pub(crate) mod sniff;
#[cfg(test)]
mod tests;

pub(crate) const PD_CHECKSUM: usize = 8;
pub(crate) const PD_FLAGS: usize = 10;
pub(crate) const PD_LOWER: usize = 12;
pub(crate) const PD_UPPER: usize = 14;
pub(crate) const PD_SPECIAL: usize = 16;
pub(crate) const PD_PAGESIZE_VERSION: usize = 18;
/// Page size 8192 (in the upper bits) and layout version 4.
pub(crate) const PAGESIZE_VERSION: u16 = 0x2004;
const VALID_FLAGS: u16 = 0x0007;
const HEAP_ONLY_TUPLE: u16 = 0x8000;
const T_INFOMASK2: usize = 18;

const LP_UNUSED: u8 = 0;
const LP_NORMAL: u8 = 1;
const LP_REDIRECT: u8 = 2;

/// A line pointer, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LinePointer {
    off: usize,
    flags: u8,
    len: usize,
}

impl LinePointer {
    #[inline]
    fn unpack(raw: u32) -> Self {
        Self { off: (raw & 0x7fff) as usize, flags: (raw >> 15 & 3) as u8, len: (raw >> 17) as usize }
    }
}

/// A line pointer that bears a tuple.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Its number, from 1.
    pub number: u16,
    /// The tuple, header included.
    pub tuple: &'a [u8],
}

/// A page that passed all checks.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    bytes: &'a [u8; BLOCK_SIZE],
    items: u16,
    all_visible: bool,
}

/// The outcome of a good check.
#[derive(Debug, Clone, Copy)]
pub enum Checked<'a> {
    /// All bytes are zero: a page the relation was extended by and that was never written.
    Zero,
    /// A page with (perhaps no) line pointers.
    Page(Page<'a>),
}

impl<'a> Page<'a> {
    /// Checks a page and, when `verify_checksum` says so, its checksum as block `block`.
    ///
    /// # Errors
    /// [`ErrorKind::Page`] or [`ErrorKind::Checksum`], with the line pointer's number where there is one; the caller
    /// adds block and file.
    pub fn check(bytes: &'a [u8], block: u32, verify_checksum: bool) -> Result<Checked<'a>> {
        let Ok(bytes) = <&[u8; BLOCK_SIZE]>::try_from(bytes) else {
            return Err(page_error("page", "8192 bytes", bytes.len()));
        };
        if field(bytes, PD_UPPER) == 0 {
            return check_zero(bytes);
        }
        if verify_checksum {
            let (expected, found) = (page_checksum(bytes, block), field(bytes, PD_CHECKSUM));
            if expected != found {
                let hint = if found == 0 {
                    "a page without a checksum; where servers make none, use --no-checksums"
                } else {
                    "the page is damaged, or checksums were turned off since it was written (--no-checksums)"
                };
                return Err(Error::new(ErrorKind::Checksum { expected, found }).with_hint(hint));
            }
        }
        check_header(bytes)?;
        let page = Self {
            bytes,
            // pd_lower was checked: at least the header, and in steps of a line pointer.
            items: (field(bytes, PD_LOWER) - HEADER_SIZE as u16) / 4,
            all_visible: field(bytes, PD_FLAGS) & PD_ALL_VISIBLE != 0,
        };
        page.check_line_pointers()?;
        Ok(Checked::Page(page))
    }

    /// Whether the page says that every tuple on it is visible to everybody.
    pub fn all_visible(&self) -> bool {
        self.all_visible
    }

    /// The number of line pointers, at most [`MAX_ITEMS`].
    pub fn line_pointers(&self) -> u16 {
        self.items
    }

    /// The tuples in the order of their line pointers.
    #[inline]
    pub fn items(&self) -> impl Iterator<Item = Item<'a>> + use<'a> {
        let bytes = self.bytes;
        self.pointers().filter(|(_, pointer)| pointer.flags == LP_NORMAL).filter_map(
            move |(number, pointer)| {
                let tuple = bytes.get(pointer.off..pointer.off + pointer.len)?;
                Some(Item { number, tuple })
            },
        )
    }

    /// The tuple at line pointer `number` (from 1), if it bears one.
    pub fn item(&self, number: u16) -> Option<Item<'a>> {
        let pointer = self.pointer(number)?;
        let tuple = self.bytes.get(pointer.off..pointer.off + pointer.len)?;
        (pointer.flags == LP_NORMAL).then_some(Item { number, tuple })
    }

    fn pointer(&self, number: u16) -> Option<LinePointer> {
        if number == 0 || number > self.items {
            return None;
        }
        let at = HEADER_SIZE + (usize::from(number) - 1) * 4;
        let raw = self.bytes.get(at..)?.first_chunk()?;
        Some(LinePointer::unpack(u32::from_le_bytes(*raw)))
    }

    #[inline]
    fn pointers(&self) -> impl Iterator<Item = (u16, LinePointer)> + use<'a> {
        let end = HEADER_SIZE + usize::from(self.items) * 4;
        let raw = self.bytes.get(HEADER_SIZE..end).unwrap_or_default();
        (1..)
            .zip(raw.as_chunks().0)
            .map(|(number, bytes)| (number, LinePointer::unpack(u32::from_le_bytes(*bytes))))
    }

    fn check_line_pointers(&self) -> Result<()> {
        let upper = usize::from(field(self.bytes, PD_UPPER));
        let (mut lowest, mut ordered, mut redirects) = (BLOCK_SIZE, true, false);
        for (number, pointer) in self.pointers() {
            if pointer.flags == LP_NORMAL {
                check_normal(pointer, upper).map_err(|e| e.at_item(number))?;
                ordered &= pointer.off + pointer.len <= lowest;
                lowest = pointer.off;
            } else if pointer.flags == LP_REDIRECT {
                redirects = true;
                check_empty(pointer, false).map_err(|e| e.at_item(number))?;
            } else {
                check_empty(pointer, true).map_err(|e| e.at_item(number))?;
            }
        }
        if !ordered {
            self.check_overlap()?;
        }
        if redirects {
            self.check_redirects()?;
        }
        Ok(())
    }

    /// Marks the 8-byte units of every tuple; a unit marked twice is an overlap. Only pages whose tuples do not lie in
    /// falling order (after pruning) come here.
    #[cold]
    fn check_overlap(&self) -> Result<()> {
        let mut taken = [0u64; BLOCK_SIZE / 8 / 64];
        for (number, pointer) in self.pointers() {
            if pointer.flags != LP_NORMAL {
                continue;
            }
            for unit in pointer.off / 8..(pointer.off + pointer.len).div_ceil(8) {
                let bit = 1u64 << (unit % 64);
                match taken.get_mut(unit / 64) {
                    Some(word) if *word & bit == 0 => *word |= bit,
                    _ => {
                        let found = format!("byte {} in two tuples", unit * 8);
                        let error = page_error("line pointer", "tuples that do not overlap", found);
                        return Err(error.at_item(number));
                    }
                }
            }
        }
        Ok(())
    }

    #[cold]
    fn check_redirects(&self) -> Result<()> {
        let mut reached = [0u64; MAX_ITEMS / 64 + 1];
        for (number, pointer) in self.pointers() {
            if pointer.flags != LP_REDIRECT {
                continue;
            }
            let target = pointer.off;
            let word = reached.get_mut(target / 64);
            let problem = match (u16::try_from(target).ok().and_then(|t| self.item(t)), word) {
                (Some(item), Some(word)) => {
                    let again = *word >> (target % 64) & 1 == 1;
                    *word |= 1 << (target % 64);
                    let flags = u16_at(item.tuple, T_INFOMASK2).unwrap_or(0);
                    if again {
                        Some("a second redirect to it")
                    } else if flags & HEAP_ONLY_TUPLE == 0 {
                        Some("a tuple that is not heap-only")
                    } else {
                        None
                    }
                }
                _ => Some("no tuple there"),
            };
            if let Some(problem) = problem {
                let found = format!("{problem} (item {target})");
                let error = page_error("redirect", "a heap-only tuple of this page", found);
                return Err(error.at_item(number));
            }
        }
        Ok(())
    }
}

/// A header field; the offsets are constants inside the header.
#[inline(always)]
pub(crate) fn field(bytes: &[u8; BLOCK_SIZE], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn check_zero(bytes: &[u8; BLOCK_SIZE]) -> Result<Checked<'_>> {
    match bytes.iter().position(|&byte| byte != 0) {
        None => Ok(Checked::Zero),
        Some(at) => Err(page_error(
            "page header",
            "pd_upper > 0, or a page of zeros",
            format!("pd_upper 0 and a byte {:#04x} at {at}", bytes[at]),
        )),
    }
}

/// The server's rules for a page header, and those of a heap page: no special area.
fn check_header(bytes: &[u8; BLOCK_SIZE]) -> Result<()> {
    let [flags, lower, upper, special, version] =
        [PD_FLAGS, PD_LOWER, PD_UPPER, PD_SPECIAL, PD_PAGESIZE_VERSION].map(|at| field(bytes, at));
    let wrong = |expected: &str, found: String| Err(page_error("page header", expected, found));
    if version != PAGESIZE_VERSION {
        let found = format!("page size {} and version {}", version & 0xff00, version & 0xff);
        return wrong("page size 8192 and version 4", found);
    }
    if flags & !VALID_FLAGS != 0 {
        return wrong("pd_flags <= 0x0007", format!("{flags:#06x}"));
    }
    if usize::from(special) != BLOCK_SIZE {
        let error = page_error("page header", "pd_special = 8192", special);
        return Err(error
            .with_hint("this looks like an index page, or the page of a sequence: give the table's file"));
    }
    if usize::from(lower) < HEADER_SIZE || lower > upper || upper > special {
        let found = format!("pd_lower {lower}, pd_upper {upper}, pd_special {special}");
        return wrong("24 <= pd_lower <= pd_upper <= pd_special", found);
    }
    let bytes_of_pointers = usize::from(lower) - HEADER_SIZE;
    if !bytes_of_pointers.is_multiple_of(4) {
        return wrong("pd_lower = 24 + 4 * n", format!("{lower}"));
    }
    if bytes_of_pointers / 4 > MAX_ITEMS {
        return wrong("at most 291 line pointers", format!("{}", bytes_of_pointers / 4));
    }
    Ok(())
}

#[inline]
fn check_normal(pointer: LinePointer, upper: usize) -> Result<()> {
    let LinePointer { off, len, .. } = pointer;
    let good = off.is_multiple_of(8) && len >= MIN_TUPLE && off >= upper && off + len <= BLOCK_SIZE;
    if good { Ok(()) } else { Err(normal_error(pointer, upper)) }
}

#[cold]
fn normal_error(LinePointer { off, len, .. }: LinePointer, upper: usize) -> Error {
    if !off.is_multiple_of(8) {
        page_error("line pointer", "lp_off a multiple of 8", off)
    } else if len < MIN_TUPLE {
        page_error("line pointer", "lp_len >= 24", len)
    } else if off < upper {
        page_error("line pointer", format!("lp_off >= pd_upper {upper}"), off)
    } else {
        page_error("line pointer", "lp_off + lp_len <= 8192", off + len)
    }
}

/// A line pointer without a tuple has no length, and unless it is a redirect no offset; the server writes them so, and
/// a tuple lost by a damaged flag shows here.
#[inline]
fn check_empty(pointer: LinePointer, offset_too: bool) -> Result<()> {
    if pointer.len == 0 && (pointer.off == 0 || !offset_too) {
        return Ok(());
    }
    let name = match pointer.flags {
        LP_UNUSED => "unused line pointer",
        LP_REDIRECT => "redirect line pointer",
        _ => "dead line pointer",
    };
    let found = format!("lp_off {}, lp_len {}", pointer.off, pointer.len);
    Err(page_error(name, "no storage", found))
}
