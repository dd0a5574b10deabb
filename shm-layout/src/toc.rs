//! Finds the structures of a segment by key: the table of contents, after Postgres's `shm_toc`.
//!
//! ```text
//! offset  bytes  field
//! 0       8      magic
//! 8       8      bytes of the area that the table manages, itself included
//! 16      8      bytes allocated, counted from the end of the area
//! 24      8      entries
//! 32      24 * n entries: key, offset in the segment, length in bytes
//! ```
//!
//! Chunks are cut from the end of the area, entries grow from its start; where they would meet, [`Error::TocFull`] names the key, what was
//! wanted and what is left. An estimator adds up what a creator is going to ask for, each chunk on its own, so the area is neither
//! too small nor guessed.
//!
//! Who writes: the creator only, before the segment becomes readable; so there is no lock (Postgres has a spinlock, since its table may
//! grow while others read). A reader copies an entry once, checks it, then uses it (I6).

use crate::error::{Error, Result};
use crate::raw::Mapping;
use crate::sync::Ordering;

/// Chunks start at multiples of this, so that hot words of different structures never share a cache line.
pub const ALIGN: usize = 64;

const MAGIC: u64 = 0x4b4d_4552_5f54_4f43;
const HEADER: usize = 32;
const ENTRY: usize = 24;

/// A structure's place in a segment: offset and length in bytes, checked against the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Offset from the start of the segment.
    pub offset: usize,
    /// Length.
    pub len: usize,
}

/// Adds up what a table of contents will need.
#[derive(Clone, Copy, Debug, Default)]
pub struct TocEstimator {
    chunk_bytes: usize,
    keys: usize,
}

const fn aligned(bytes: usize) -> usize {
    bytes.div_ceil(ALIGN) * ALIGN
}

impl TocEstimator {
    /// Counts one chunk of `bytes` under a key of its own.
    pub fn estimate(&mut self, bytes: usize) -> &mut Self {
        self.chunk_bytes += aligned(bytes);
        self.keys += 1;
        self
    }

    /// Bytes that the area needs for all that was counted.
    pub fn total(&self) -> usize {
        aligned(HEADER + self.keys * ENTRY) + self.chunk_bytes
    }
}

/// The table of contents in `area` of a mapped segment.
#[derive(Clone, Copy)]
pub struct Toc<'m> {
    map: &'m Mapping,
    area: Area,
}

impl<'m> Toc<'m> {
    /// Makes an empty table in `area`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] when the area is not in the mapping.
    pub fn create_in(map: &'m Mapping, area: Area) -> Result<Self> {
        let toc = Self { map, area };
        toc.set(8, area.len as u64)?;
        toc.set(16, 0)?;
        toc.set(24, 0)?;
        toc.set(0, MAGIC)?;
        Ok(toc)
    }

    /// Uses the table that is in `area`.
    ///
    /// # Errors
    /// [`Error::Damaged`] when there is none, or when its numbers contradict each other.
    pub fn attach(map: &'m Mapping, area: Area) -> Result<Self> {
        let toc = Self { map, area };
        let magic = toc.get(0)?;
        toc.expect(
            "magic of the table of contents",
            magic == MAGIC,
            format!("{MAGIC:#x}"),
            format!("{magic:#x}"),
        )?;
        let total = toc.get(8)?;
        toc.expect(
            "bytes of the table of contents",
            total == area.len as u64,
            area.len.to_string(),
            total.to_string(),
        )?;
        let (allocated, entries) = (toc.get(16)?, toc.get(24)?);
        let table = entries.checked_mul(ENTRY as u64).and_then(|e| e.checked_add(HEADER as u64));
        let used = table.and_then(|table| table.checked_add(allocated));
        let fits = used.is_some_and(|used| used <= total);
        toc.expect(
            "use of the table of contents",
            fits,
            format!("at most {total} bytes"),
            format!("{entries} entries, {allocated} bytes"),
        )?;
        Ok(toc)
    }

    fn get(&self, at: usize) -> Result<u64> {
        Ok(self.map.word(self.area.offset + at)?.load(Ordering::Relaxed))
    }

    fn set(&self, at: usize, value: u64) -> Result<()> {
        self.map.word(self.area.offset + at)?.store(value, Ordering::Relaxed);
        Ok(())
    }

    fn expect(&self, what: &'static str, right: bool, expected: String, found: String) -> Result<()> {
        if right {
            Ok(())
        } else {
            Err(Error::Damaged { name: self.map.name().into(), what, expected, found })
        }
    }

    /// Allocates a zeroed chunk of `bytes` and enters it under `key`.
    ///
    /// # Errors
    /// [`Error::TocFull`] when entries and chunks would meet.
    pub fn allocate(&self, key: u64, bytes: usize) -> Result<Area> {
        let (allocated, entries) = (self.get(16)? as usize, self.get(24)? as usize);
        let table = HEADER + (entries + 1) * ENTRY;
        let left = self.area.len.saturating_sub(allocated + table);
        let len = aligned(bytes);
        if len > left {
            return Err(Error::TocFull { key, wanted: len, left });
        }
        let offset = self.area.offset + self.area.len - allocated - len;
        let at = HEADER + entries * ENTRY;
        self.set(at, key)?;
        self.set(at + 8, offset as u64)?;
        self.set(at + 16, bytes as u64)?;
        self.set(16, (allocated + len) as u64)?;
        self.set(24, entries as u64 + 1)?;
        Ok(Area { offset, len: bytes })
    }

    /// The bytes of the table that are in use, for a digest.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] when it claims more entries than its area holds.
    pub fn used(&self) -> Result<Vec<u8>> {
        let entries = (self.get(24)? as usize).min(self.area.len / ENTRY);
        let mut bytes = Vec::new();
        self.map.read_to_vec(self.area.offset, HEADER + entries * ENTRY, &mut bytes)?;
        Ok(bytes)
    }

    /// The chunk under `key`.
    ///
    /// # Errors
    /// [`Error::TocMissing`] when there is none; [`Error::OutOfBounds`] when its entry points outside of the area.
    pub fn lookup(&self, key: u64) -> Result<Area> {
        self.entries()?
            .into_iter()
            .find(|(k, _)| *k == key)
            .map(|(_, area)| area)
            .ok_or(Error::TocMissing { key })
    }

    /// Every key with its chunk, in the order of insertion.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] when an entry points outside of the area.
    pub fn entries(&self) -> Result<Vec<(u64, Area)>> {
        let count = (self.get(24)? as usize).min(self.area.len / ENTRY);
        let end = (self.area.offset + self.area.len) as u64;
        (0..count)
            .map(|i| {
                let at = HEADER + i * ENTRY;
                let (key, offset, len) = (self.get(at)?, self.get(at + 8)?, self.get(at + 16)?);
                let inside = offset >= self.area.offset as u64
                    && offset.is_multiple_of(ALIGN as u64)
                    && offset.checked_add(len).is_some_and(|e| e <= end);
                if !inside {
                    let name = self.map.name().into();
                    return Err(Error::OutOfBounds { name, offset, len, limit: end });
                }
                Ok((key, Area { offset: offset as usize, len: len as usize }))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_exactly_enough() {
        let sizes = [1, 64, 65, 1000, 0];
        let mut estimator = TocEstimator::default();
        for size in sizes {
            estimator.estimate(size);
        }
        let map = Mapping::heap(4096);
        let toc = Toc::create_in(&map, Area { offset: 128, len: estimator.total() }).expect("in range");
        let made: Vec<Area> =
            (0..5).map(|i| toc.allocate(i, sizes[i as usize]).expect("estimated")).collect();
        let again = Toc::attach(&map, Area { offset: 128, len: estimator.total() }).expect("a table");
        for (i, area) in made.iter().enumerate() {
            assert_eq!(again.lookup(i as u64).expect("inserted"), *area);
            assert!(made.iter().skip(i + 1).all(|b| b.offset + b.len <= area.offset), "chunks overlap");
        }
        let full = toc.allocate(77, 64).expect_err("full");
        assert_eq!(full.to_string(), "table of contents: key 0x4d: expected room for 64 bytes, found 16");
        assert_eq!(
            toc.lookup(9).expect_err("never inserted").to_string(),
            "table of contents: expected key 0x9, found none"
        );
    }

    #[test]
    fn a_lying_entry_is_an_error() {
        let map = Mapping::heap(1024);
        let area = Area { offset: 0, len: 1024 };
        let toc = Toc::create_in(&map, area).expect("in range");
        toc.allocate(1, 100).expect("room");
        map.word(HEADER + 16).expect("in range").store(u64::MAX, Ordering::Relaxed);
        assert!(matches!(toc.lookup(1), Err(Error::OutOfBounds { .. })));
        for field in [16, 24] {
            let word = map.word(field).expect("in range");
            let old = word.swap(u64::MAX, Ordering::Relaxed);
            assert!(matches!(Toc::attach(&map, area), Err(Error::Damaged { .. })), "offset {field}");
            word.store(old, Ordering::Relaxed);
        }
    }
}
