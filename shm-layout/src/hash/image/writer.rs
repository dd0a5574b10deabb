//! Writes images with their empty places: for tables of which some entries are kept, and for those whose places are the keys.

use super::{FULL, HEADER, WITH_PLACES, home, write_header};
use crate::hash::entry::EntryKind;

/// Writes images behind what a buffer already holds.
pub struct ImageWriter {
    bytes: Vec<u8>,
    from: usize,
    kind: EntryKind,
    places: u64,
    entries: u64,
    multiplier: u64,
    base: u64,
    sum: u64,
}

impl ImageWriter {
    /// An image for exactly `entries` entries of kind `kind`, hashed.
    pub fn hashed(buffer: Vec<u8>, kind: EntryKind, entries: u64, multiplier: u64) -> Self {
        let places = entries * FULL.1 / FULL.0 + 1;
        Self::start(buffer, kind, places, multiplier, 0)
    }

    /// An image for the keys `base .. base + places`, each at its own place.
    pub fn identity(buffer: Vec<u8>, base: u64, places: u64) -> Self {
        Self::start(buffer, EntryKind::Identity, places, 0, base)
    }

    fn start(mut bytes: Vec<u8>, kind: EntryKind, places: u64, multiplier: u64, base: u64) -> Self {
        let from = bytes.len();
        bytes.resize(from + HEADER + places as usize * kind.bytes(), 0);
        Self { bytes, from, kind, places, entries: 0, multiplier, base, sum: 0 }
    }

    /// Puts an entry in. Each key once, count above zero; for an identity image the key lies in its range.
    ///
    /// # Panics
    /// When more entries come than were announced.
    pub fn put(&mut self, key: u64, count: u32) {
        self.put_all([(key, count)]);
    }

    /// Puts many entries in. In the order of a [`crate::hash::counter::GroupCounter`] of the same multiplier they go to neighbouring places.
    ///
    /// # Panics
    /// When more entries come than were announced.
    pub fn put_all(&mut self, entries: impl IntoIterator<Item = (u64, u32)>) {
        match self.kind {
            EntryKind::Identity => entries.into_iter().for_each(|(key, count)| self.put_at_home(key, count)),
            EntryKind::Kmer16 | EntryKind::Kmer32 => self.put_hashed::<8>(entries),
            EntryKind::Kmer64 => self.put_hashed::<12>(entries),
        }
    }

    fn put_at_home(&mut self, key: u64, count: u32) {
        let at = self.from + HEADER + (key - self.base) as usize * 4;
        self.bytes[at..at + 4].copy_from_slice(&count.to_le_bytes());
        (self.entries, self.sum) = (self.entries + 1, self.sum + u64::from(count));
    }

    /// Entries of `SIZE` bytes, the count in the last four.
    fn put_hashed<const SIZE: usize>(&mut self, entries: impl IntoIterator<Item = (u64, u32)>) {
        let (places, multiplier) = (self.places, self.multiplier);
        let (table, _) = self.bytes[self.from + HEADER..].as_chunks_mut::<SIZE>();
        for (key, count) in entries {
            assert!(self.entries < places, "expected at most {places} entries");
            let mut place = home(key, multiplier, places) as usize;
            while table[place][SIZE - 4..] != [0; 4] {
                place = if place + 1 == places as usize { 0 } else { place + 1 };
            }
            let entry = &mut table[place];
            entry[..SIZE - 4].copy_from_slice(&key.to_le_bytes()[..SIZE - 4]);
            entry[SIZE - 4..].copy_from_slice(&count.to_le_bytes());
            (self.entries, self.sum) = (self.entries + 1, self.sum + u64::from(count));
        }
    }

    /// The buffer, with the finished image behind what was in it.
    pub fn finish(mut self) -> Vec<u8> {
        let numbers = [self.places, self.entries, self.multiplier, self.base, self.sum, 0, 0];
        write_header(&mut self.bytes[self.from..], self.kind, WITH_PLACES, numbers);
        self.bytes
    }
}
