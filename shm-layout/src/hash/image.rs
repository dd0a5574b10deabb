//! A published stripe: bytes that are written once and probed by anybody.
//!
//! ```text
//! offset  bytes  field (little endian)
//! 0       4      entry kind: 16, 32, 64 or 1 (identity)
//! 4       4      zero
//! 8       8      places
//! 16      8      entries that are in use
//! 24      8      multiplier of the hash
//! 32      8      first key, for identity
//! 40      8      sum of all counts
//! 48      48     zero
//! 96      ...    places, `EntryKind::bytes` each
//! ```
//!
//! A key's home is `(key * multiplier mod 2^64) * places / 2^64`; from there on places are tried one by one, round the end, until the
//! key or an empty place is met. At most [`FULL`] of the places are in use, so an empty one is always met.
//!
//! The reader copies the header once and checks it against the chain's length (I6); after that no number out of the image is used as
//! an offset.

use super::entry::EntryKind;
use crate::arena::{Arena, Chain};
use crate::error::{Error, Result};

/// Bytes before the first place: a multiple of every entry's size, so that no entry straddles a border of chunks of 4096 * 3 bytes.
pub const HEADER: usize = 96;
/// Share of the places in use (numerator, denominator).
pub const FULL: (u64, u64) = (4, 5);

fn home(key: u64, multiplier: u64, places: u64) -> u64 {
    ((u128::from(key.wrapping_mul(multiplier)) * u128::from(places)) >> 64) as u64
}

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
        let size = self.kind.bytes();
        let mut place = match self.kind {
            EntryKind::Identity => key - self.base,
            _ => home(key, self.multiplier, self.places),
        };
        assert!(self.entries < self.places, "expected at most {} entries", self.places);
        loop {
            let at = self.from + HEADER + place as usize * size;
            let bytes = &mut self.bytes[at..at + size];
            if self.kind == EntryKind::Identity || self.kind.load(bytes, 0, 0).1 == 0 {
                self.kind.store(bytes, key, count);
                break;
            }
            place = if place + 1 == self.places { 0 } else { place + 1 };
        }
        self.entries += 1;
        self.sum += u64::from(count);
    }

    /// The buffer, with the finished image behind what was in it.
    pub fn finish(mut self) -> Vec<u8> {
        let head = &mut self.bytes[self.from..];
        head[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        for (at, value) in
            [(8, self.places), (16, self.entries), (24, self.multiplier), (32, self.base), (40, self.sum)]
        {
            head[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        self.bytes
    }
}

/// A published stripe, opened.
pub struct Image<'a> {
    arena: &'a Arena,
    chain: Chain,
    offset: u64,
    kind: EntryKind,
    places: u64,
    entries: u64,
    multiplier: u64,
    base: u64,
    sum: u64,
}

impl<'a> Image<'a> {
    /// Opens the image that begins `offset` bytes into a chain and ends with it.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its numbers contradict each other or the chain.
    pub fn open(arena: &'a Arena, chain: Chain, offset: u64) -> Result<Self> {
        let mut head = Vec::new();
        arena.read(&chain, offset, HEADER, &mut head)?;
        let field = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let damaged = |what, expected: String, found: u64| Error::Damaged {
            name: "(stripe)".into(),
            what,
            expected,
            found: found.to_string(),
        };
        let number = field(0);
        let kind = u32::try_from(number).ok().and_then(EntryKind::from_number);
        let kind = kind.ok_or_else(|| damaged("entry kind", "1, 16, 32 or 64".into(), number))?;
        let (places, entries) = (field(8), field(16));
        let room = (chain.len() - offset - HEADER as u64) / kind.bytes() as u64;
        if places > room || places == 0 {
            return Err(damaged("places", format!("1 to {room}"), places));
        }
        if entries > places || (kind != EntryKind::Identity && entries == places) {
            return Err(damaged("entries", format!("fewer than {places}"), entries));
        }
        let (multiplier, base, sum) = (field(24), field(32), field(40));
        Ok(Self { arena, chain, offset, kind, places, entries, multiplier, base, sum })
    }

    /// Entries in the image.
    pub fn len(&self) -> u64 {
        self.entries
    }

    /// True when it has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Sum of all counts.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How entries are stored.
    pub fn kind(&self) -> EntryKind {
        self.kind
    }

    /// Places, used or not.
    pub fn places(&self) -> u64 {
        self.places
    }

    fn entry(&self, place: u64) -> Result<(u64, u32)> {
        let mut bytes = Vec::with_capacity(16);
        let at = self.offset + HEADER as u64 + place * self.kind.bytes() as u64;
        self.arena.read(&self.chain, at, self.kind.bytes(), &mut bytes)?;
        Ok(self.kind.load(&bytes, self.base, place))
    }

    /// In how many groups `key` occurs; 0 when it is not in the image.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] for a damaged chain; [`Error::Damaged`] when there is no empty place.
    pub fn get(&self, key: u64) -> Result<u32> {
        if self.kind == EntryKind::Identity {
            let place = key.checked_sub(self.base).filter(|place| *place < self.places);
            return place.map_or(Ok(0), |place| Ok(self.entry(place)?.1));
        }
        let mut place = home(key, self.multiplier, self.places);
        for _ in 0..self.places {
            let (found, count) = self.entry(place)?;
            if count == 0 || found == key {
                return Ok(count);
            }
            place = if place + 1 == self.places { 0 } else { place + 1 };
        }
        let (expected, found) = ("an empty place".into(), "none".into());
        Err(Error::Damaged { name: "(stripe)".into(), what: "open addressing", expected, found })
    }

    /// Calls `each` with every key and count, in the order of the places. `buffer` is scratch.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] for a damaged chain; [`Error::Damaged`] when entries or counts do not add up to what the header states.
    pub fn for_each(&self, buffer: &mut Vec<u8>, mut each: impl FnMut(u64, u32)) -> Result<()> {
        const BATCH: u64 = 8192;
        let size = self.kind.bytes();
        let (mut entries, mut sum) = (0u64, 0u64);
        for first in (0..self.places).step_by(BATCH as usize) {
            let count = BATCH.min(self.places - first) as usize;
            buffer.clear();
            self.arena.read(
                &self.chain,
                self.offset + HEADER as u64 + first * size as u64,
                count * size,
                buffer,
            )?;
            for (i, bytes) in buffer.chunks_exact(size).enumerate() {
                let (key, count) = self.kind.load(bytes, self.base, first + i as u64);
                if count != 0 {
                    (entries, sum) = (entries + 1, sum.wrapping_add(u64::from(count)));
                    each(key, count);
                }
            }
        }
        if (entries, sum) == (self.entries, self.sum) {
            return Ok(());
        }
        let (expected, found) =
            (format!("{} entries, sum {}", self.entries, self.sum), format!("{entries} entries, sum {sum}"));
        Err(Error::Damaged { name: "(stripe)".into(), what: "published table", expected, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Plan, Segment};
    use crate::toc::TocEstimator;
    use crate::words::Owner;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const A: Owner = Owner { slot: 0, generation: 1 };

    fn arena() -> Arena {
        let mut toc = TocEstimator::default();
        toc.estimate(Arena::estimate(16));
        let plan = Plan { toc_bytes: toc.total(), chunk_bytes: 4096, chunks: 16, build: 0 };
        let segment = Arc::new(Segment::create_private(&plan).expect("memory"));
        let area = segment.toc().expect("a table").allocate(1, Arena::estimate(16)).expect("estimated");
        Arena::attach(&segment, area).expect("estimated")
    }

    fn publish(arena: &Arena, image: &[u8]) -> Chain {
        let mut bytes = vec![0xee; 24];
        bytes.extend_from_slice(image);
        let stored = arena.store(A, &bytes).expect("room");
        arena.open(stored.head()).expect("stored")
    }

    proptest! {
        #[test]
        fn finds_what_a_map_finds(map in prop::collection::btree_map(any::<u64>(), 1..u32::MAX, 0..300), odd in any::<u64>(), bits in prop::sample::select(&[16u32, 32, 64])) {
            let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            let map: BTreeMap<u64, u32> = map.into_iter().map(|(k, n)| (k & mask, n)).collect();
            let mut writer = ImageWriter::hashed(Vec::new(), EntryKind::for_bits(bits), map.len() as u64, odd | 1);
            map.iter().for_each(|(k, n)| writer.put(*k, *n));
            let arena = arena();
            let image = Image::open(&arena, publish(&arena, &writer.finish()), 24).unwrap();
            for key in map.keys().flat_map(|k| [*k, k.wrapping_add(1) & mask]) {
                prop_assert_eq!(image.get(key).unwrap(), map.get(&key).copied().unwrap_or(0));
            }
            let mut all = BTreeMap::new();
            image.for_each(&mut Vec::new(), |k, n| {
                all.insert(k, n);
            }).unwrap();
            prop_assert_eq!(all, map);
        }
    }

    #[test]
    fn an_identity_image_needs_no_keys() {
        let mut writer = ImageWriter::identity(Vec::new(), 100, 50);
        writer.put(100, 1);
        writer.put(149, 9);
        let arena = arena();
        let image = Image::open(&arena, publish(&arena, &writer.finish()), 24).expect("sound");
        let got = [99, 100, 101, 149, 150].map(|key| image.get(key).expect("sound"));
        assert_eq!(got, [0, 1, 0, 9, 0]);
        let mut all = Vec::new();
        image.for_each(&mut Vec::new(), |k, n| all.push((k, n))).expect("sound");
        assert_eq!(all, [(100, 1), (149, 9)]);
    }

    #[test]
    fn damaged_numbers_and_entries_are_found() {
        let mut writer = ImageWriter::hashed(Vec::new(), EntryKind::Kmer32, 3, 77);
        (1..=3).for_each(|k| writer.put(k, 5));
        let good = writer.finish();
        let arena = arena();
        for (at, value) in [(0, 7u8), (8, 0), (8, 200), (16, 250), (46, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            let chain = publish(&arena, &bad);
            let result = Image::open(&arena, chain, 24).and_then(|i| i.for_each(&mut Vec::new(), |_, _| ()));
            assert!(result.is_err(), "byte {at} = {value} passed");
        }
    }
}
