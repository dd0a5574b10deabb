//! Fills one heap page: header, line pointers from the front, tuples from the back.
//!
//! Page header, 24 bytes (`bufpage.h`): pd_lsn 0..8, pd_checksum 8, pd_flags 10, pd_lower 12, pd_upper 14, pd_special
//! 16, pd_pagesize_version 18, pd_prune_xid 20. The LSN stays 0 (written without WAL, older than any backup), so do the
//! flags: no free line pointers, no hint that the page is full, and "all visible" is left to the first VACUUM.

/// Bytes of a page.
pub(super) const PAGE: usize = 8192;
/// Bytes of the page header.
const HEADER: usize = 24;
/// Bytes of a line pointer.
const LINE_POINTER: usize = 4;
/// The most tuples a heap page may hold (MaxHeapTuplesPerPage).
const MAX_ITEMS: u16 = 291;
/// Page layout version 4, with the page size in the high byte.
const SIZE_AND_VERSION: u16 = PAGE as u16 | 4;
/// lp_flags of a line pointer that bears a tuple.
const LP_NORMAL: u32 = 1;

/// Rounds up to the strictest alignment, 8 bytes.
pub(super) const fn max_align(len: usize) -> usize {
    (len + 7) & !7
}

/// A page being filled.
#[derive(Debug)]
pub(super) struct PageBuilder {
    bytes: Box<[u8; PAGE]>,
    items: u16,
    /// Offset of the lowest tuple so far; a multiple of 8.
    upper: usize,
}

impl PageBuilder {
    /// Returns an empty page.
    pub(super) fn new() -> Self {
        Self { bytes: Box::new([0; PAGE]), items: 0, upper: PAGE }
    }

    /// Says whether the page has no tuple.
    pub(super) fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// The item number, from 1, that the next tuple gets.
    pub(super) fn next_item(&self) -> u16 {
        self.items + 1
    }

    /// Says whether a tuple of `len` bytes has room here.
    pub(super) fn fits(&self, len: usize) -> bool {
        let lower = HEADER + LINE_POINTER * usize::from(self.next_item());
        self.items < MAX_ITEMS && lower + max_align(len) <= self.upper
    }

    /// Puts a tuple in; the caller has asked [`fits`](Self::fits).
    pub(super) fn add(&mut self, tuple: &[u8]) {
        assert!(self.fits(tuple.len()), "tuple added to a page that it does not fit");
        self.upper -= max_align(tuple.len());
        self.bytes[self.upper..self.upper + tuple.len()].copy_from_slice(tuple);
        let pointer = self.upper as u32 | LP_NORMAL << 15 | (tuple.len() as u32) << 17;
        let at = HEADER + LINE_POINTER * usize::from(self.items);
        self.bytes[at..at + LINE_POINTER].copy_from_slice(&pointer.to_le_bytes());
        self.items += 1;
    }

    /// Fills in the header, but for the checksum, and lends the bytes.
    pub(super) fn seal(&mut self) -> &mut [u8; PAGE] {
        let lower = HEADER + LINE_POINTER * usize::from(self.items);
        for (at, value) in
            [(12, lower as u16), (14, self.upper as u16), (16, PAGE as u16), (18, SIZE_AND_VERSION)]
        {
            self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        &mut self.bytes
    }

    /// Makes the page empty again.
    pub(super) fn clear(&mut self) {
        self.bytes.fill(0);
        self.items = 0;
        self.upper = PAGE;
    }
}
