//! Builds pages, tuples and values for tests, field by field, with no use of the code under test.

use crate::page::BLOCK_SIZE;

pub(crate) const LP_UNUSED: u32 = 0;
pub(crate) const LP_NORMAL: u32 = 1;
pub(crate) const LP_REDIRECT: u32 = 2;
pub(crate) const LP_DEAD: u32 = 3;

/// Frozen, never deleted.
pub(crate) const FROZEN: u16 = 0x0b00;
pub(crate) const HASNULL: u16 = 0x0001;
pub(crate) const HASVARWIDTH: u16 = 0x0002;

/// A page under construction; line pointers grow up, tuples grow down.
pub(crate) struct TestPage {
    pub(crate) bytes: Box<[u8; BLOCK_SIZE]>,
    lower: usize,
    upper: usize,
}

impl TestPage {
    pub(crate) fn new() -> Self {
        let mut page = Self { bytes: Box::new([0; BLOCK_SIZE]), lower: 24, upper: BLOCK_SIZE };
        page.put(16, &8192u16.to_le_bytes());
        page.put(18, &0x2004u16.to_le_bytes());
        page.bounds();
        page
    }

    pub(crate) fn with(tuples: &[Vec<u8>]) -> Self {
        let mut page = Self::new();
        for tuple in tuples {
            page.tuple(tuple);
        }
        page
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn fits(&self, tuple: &[u8]) -> bool {
        self.lower + 4 + tuple.len().next_multiple_of(8) <= self.upper
    }

    pub(crate) fn tuple(&mut self, tuple: &[u8]) -> u16 {
        let off = self.upper - tuple.len().next_multiple_of(8);
        self.put(off, tuple);
        self.upper = off;
        self.pointer(off as u32, LP_NORMAL, tuple.len() as u32)
    }

    pub(crate) fn pointer(&mut self, off: u32, flags: u32, len: u32) -> u16 {
        self.put(self.lower, &(off | flags << 15 | len << 17).to_le_bytes());
        self.lower += 4;
        self.bounds();
        ((self.lower - 24) / 4) as u16
    }

    fn bounds(&mut self) {
        self.put(12, &(self.lower as u16).to_le_bytes());
        self.put(14, &(self.upper as u16).to_le_bytes());
    }

    /// The page with the checksum it has as this block.
    pub(crate) fn sealed(mut self, block: u32) -> Vec<u8> {
        let sum = crate::checksum::page_checksum(&self.bytes, block);
        self.put(8, &sum.to_le_bytes());
        self.bytes.to_vec()
    }

    pub(crate) fn plain(self) -> Vec<u8> {
        self.bytes.to_vec()
    }
}

/// A tuple of `natts` attributes; `nulls` has `true` for NULL and may be empty.
pub(crate) fn tuple_with(natts: u16, infomask: u16, infomask2: u16, nulls: &[bool], data: &[u8]) -> Vec<u8> {
    let bitmap = nulls.len().div_ceil(8);
    let hoff = (23 + bitmap).next_multiple_of(8);
    let mut tuple = vec![0; hoff];
    tuple[0..4].copy_from_slice(&700u32.to_le_bytes());
    tuple[18..20].copy_from_slice(&(natts | infomask2).to_le_bytes());
    let infomask = if nulls.is_empty() { infomask } else { infomask | HASNULL };
    tuple[20..22].copy_from_slice(&infomask.to_le_bytes());
    tuple[22] = hoff as u8;
    for (n, _) in nulls.iter().enumerate().filter(|(_, null)| !**null) {
        tuple[23 + n / 8] |= 1 << (n % 8);
    }
    tuple.extend_from_slice(data);
    tuple
}

/// A frozen tuple without NULLs that has variable-length attributes.
pub(crate) fn tuple(natts: u16, data: &[u8]) -> Vec<u8> {
    tuple_with(natts, FROZEN | HASVARWIDTH, 0, &[], data)
}

/// `id int4, seq varbit` with a short varlena.
pub(crate) fn row(id: i32, bits: u32, bytes: &[u8]) -> Vec<u8> {
    tuple(2, &[&id.to_le_bytes()[..], &short(&varbit(bits, bytes))].concat())
}

pub(crate) fn varbit(bits: u32, bytes: &[u8]) -> Vec<u8> {
    [&bits.to_le_bytes()[..], bytes].concat()
}

/// With a 1-byte header.
pub(crate) fn short(payload: &[u8]) -> Vec<u8> {
    [&[(payload.len() as u8 + 1) << 1 | 1][..], payload].concat()
}

/// With a 4-byte header.
pub(crate) fn long(payload: &[u8]) -> Vec<u8> {
    [&((payload.len() as u32 + 4) << 2).to_le_bytes()[..], payload].concat()
}

/// `va_tcinfo` and the compressed bytes.
pub(crate) fn tcinfo(method: u32, raw_size: u32, data: &[u8]) -> Vec<u8> {
    [&(raw_size | method << 30).to_le_bytes()[..], data].concat()
}

/// A value compressed in its tuple.
pub(crate) fn compressed(method: u32, raw_size: u32, data: &[u8]) -> Vec<u8> {
    let size = data.len() as u32 + 8;
    [&(size << 2 | 2).to_le_bytes()[..], &tcinfo(method, raw_size, data)].concat()
}

/// A pointer to the TOAST relation; `raw` is the value's size without a header.
pub(crate) fn external(raw: u32, stored: u32, method: u32, value_id: u32) -> Vec<u8> {
    let mut pointer = vec![0x01, 18];
    for field in [raw + 4, stored | method << 30, value_id, 4711] {
        pointer.extend_from_slice(&field.to_le_bytes());
    }
    pointer
}

/// A TOAST tuple.
pub(crate) fn chunk(value_id: u32, seq: u32, data: &[u8]) -> Vec<u8> {
    tuple(3, &[&value_id.to_le_bytes()[..], &seq.to_le_bytes(), &long(data)].concat())
}

/// Pages full of tuples, in order, sealed from block 0 on.
pub(crate) fn pages_of(tuples: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut pages = vec![TestPage::new()];
    for tuple in tuples {
        if !pages.last().unwrap().fits(tuple) {
            pages.push(TestPage::new());
        }
        pages.last_mut().unwrap().tuple(tuple);
    }
    (0..).zip(pages).map(|(block, page)| page.sealed(block)).collect()
}
