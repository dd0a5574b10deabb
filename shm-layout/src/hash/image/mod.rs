//! A published stripe: bytes that are written once and probed by anybody.
//!
//! ```text
//! offset  bytes  field (little endian)
//! 0       4      entry kind: 16, 32, 64 or 1 (identity)
//! 4       4      form: 0 with its empty places, 1 squeezed, 2 squeezed with short entries
//! 8       8      places
//! 16      8      entries that are in use
//! 24      8      multiplier of the hash
//! 32      8      first key, for identity
//! 40      8      sum of all counts
//! 48      8      counts that are kept apart, for form 2
//! 56      8      places of a bucket, for forms 1 and 2: 4 or 8; 0 is 4, as older dense files have it
//! 64      32     zero
//! 96      ...    form 0: places, `EntryKind::bytes` each
//!                form 1: a bit a place, in words of 64: it is in use; for each word u32, rounded up to an even number of them: the places
//!                in use before it; then the entries of the places in use, in their order
//!                form 2: the same, with entries of n bytes: n - 2 of the hash, one of the distance from home, one of the count, 255 for
//!                counts above 254; these follow behind all entries, as pairs of u32: which entry, its count
//! ```
//!
//! The squeezed forms are for tables of which all is kept: empty places cost a bit, and the entries are written one behind the other. A short entry has
//! only what its place does not tell of the key: see `short`.
//!
//! A key's home is `(key * multiplier mod 2^64) * places / 2^64`; from there on places are tried one by one, round the end, until the
//! key or an empty place is met. At most [`FULL`] of the places are in use, so an empty one is always met. In the squeezed forms, whose places are those
//! of a [`crate::hash::counter`] or of [`crate::hash::weights`], it begins with the first place of its home's bucket: a multiple of a bucket's places.
//!
//! The reader copies the header once and checks it against the chain's length (I6); after that no number out of the image is used as
//! an offset.

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod eights;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod fours;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod lanes;
mod read_short;
mod short;
mod squeeze;
mod writer;

pub use squeeze::{Squeezed, squeeze};
pub use writer::ImageWriter;

use super::entry::EntryKind;
use crate::arena::{Arena, Chain};
use crate::error::{Error, Result};
use read_short::ShortEntries;
use short::Short;
pub(in crate::hash) use short::inverse;

/// Bytes before the first place: a multiple of every entry's size, so that no entry straddles a border of chunks of 4096 * 3 bytes.
pub const HEADER: usize = 96;
/// Share of the places in use (numerator, denominator).
pub const FULL: (u64, u64) = (4, 5);

fn home(key: u64, multiplier: u64, places: u64) -> u64 {
    ((u128::from(key.wrapping_mul(multiplier)) * u128::from(places)) >> 64) as u64
}

/// The form with empty places.
const WITH_PLACES: u32 = 0;
/// The squeezed form with whole entries.
const SQUEEZED: u32 = 1;
/// The squeezed form with short entries.
const SHORT: u32 = 2;

/// Writes a header: kind, form, then places, entries, multiplier, base, sum, counts kept apart and places of a bucket.
fn write_header(head: &mut [u8], kind: EntryKind, form: u32, numbers: [u64; 7]) {
    head[..4].copy_from_slice(&(kind as u32).to_le_bytes());
    head[4..8].copy_from_slice(&form.to_le_bytes());
    for (place, value) in head[8..HEADER].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// Bytes of the ranks of `words` words.
const fn ranks_bytes(words: usize) -> usize {
    words.div_ceil(2) * 8
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
    /// Places of a bucket; 1 where a key is looked for from its home on.
    bucket: u64,
    /// Where a squeezed image's ranks and entries begin, counted from the start of the chain.
    squeezed: Option<(u64, u64)>,
    /// How short entries are packed, and where their counts are.
    short: Option<ShortEntries>,
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
        let (number, form) = (field(0) as u32, (field(0) >> 32) as u32);
        let kind = EntryKind::from_number(number);
        let kind = kind.ok_or_else(|| damaged("entry kind", "1, 16, 32 or 64".into(), number.into()))?;
        let (places, entries) = (field(8), field(16));
        let bytes = chain.len() - offset - HEADER as u64;
        let (multiplier, base, sum, apart) = (field(24), field(32), field(40), field(48));
        let bucket = match (form, field(56)) {
            (WITH_PLACES, _) => 1,
            (_, 0) => 4,
            (_, places) => places,
        };
        let mut short = None;
        let squeezed = match form {
            WITH_PLACES => None,
            SQUEEZED | SHORT if !matches!(bucket, 4 | 8) => {
                return Err(damaged("places of a bucket", "4 or 8".into(), bucket));
            }
            SQUEEZED | SHORT if kind != EntryKind::Identity && places <= bytes * 8 => {
                let words = places.div_ceil(64);
                let ranks = offset + HEADER as u64 + words * 8;
                let first = ranks + ranks_bytes(words as usize) as u64;
                let size = if form == SHORT {
                    let packed = Short::of(places, bucket, multiplier)
                        .ok_or_else(|| damaged("places", "those of short entries".into(), places))?;
                    let apart_at = first.saturating_add(entries.saturating_mul(packed.bytes() as u64));
                    short = Some(ShortEntries { packed, apart_at, apart });
                    packed.bytes()
                } else {
                    kind.bytes()
                };
                let behind = if form == SHORT { apart.saturating_mul(8) } else { 0 };
                let end = first.checked_add(entries.saturating_mul(size as u64));
                if end.and_then(|end| end.checked_add(behind)).is_none_or(|end| end > chain.len()) {
                    return Err(damaged("entries", format!("at most {bytes} bytes of them"), entries));
                }
                Some((ranks, first))
            }
            _ => return Err(damaged("form", "0, 1 or 2".into(), form.into())),
        };
        let room = if squeezed.is_some() { places } else { bytes / kind.bytes() as u64 };
        if places > room || places == 0 {
            return Err(damaged("places", format!("1 to {room}"), places));
        }
        if entries > places || (kind != EntryKind::Identity && entries == places) {
            return Err(damaged("entries", format!("fewer than {places}"), entries));
        }
        Ok(Self {
            arena,
            chain,
            offset,
            kind,
            places,
            entries,
            multiplier,
            base,
            sum,
            bucket,
            squeezed,
            short,
        })
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

    /// Which entry a place of a squeezed image has; `None` when it is empty.
    fn rank(&self, place: u64, ranks: u64) -> Result<Option<u64>> {
        let (mut bytes, word) = (Vec::with_capacity(12), place / 64);
        self.arena.read(&self.chain, self.offset + HEADER as u64 + word * 8, 8, &mut bytes)?;
        self.arena.read(&self.chain, ranks + word * 4, 4, &mut bytes)?;
        let bits = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
        let rank = u32::from_le_bytes(bytes[8..].try_into().expect("4 bytes"));
        let before = (bits & !(!0 << (place % 64))).count_ones();
        Ok((bits >> (place % 64) & 1 == 1).then_some(u64::from(rank) + u64::from(before)))
    }

    /// The entry at a place; key and count 0 when it is empty.
    fn entry(&self, place: u64) -> Result<(u64, u32)> {
        let (first, entry) = match self.squeezed {
            None => (self.offset + HEADER as u64, place),
            Some((ranks, first)) => match self.rank(place, ranks)? {
                Some(rank) => (first, rank),
                None => return Ok((0, 0)),
            },
        };
        if let Some(short) = &self.short {
            let (unpacked, count) = self.short_entry(short, first, entry)?;
            return Ok((short.packed.key(place, unpacked), count));
        }
        let mut bytes = Vec::with_capacity(16);
        let at = first + entry * self.kind.bytes() as u64;
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
        if let (Some(short), Some((ranks, first))) = (&self.short, self.squeezed) {
            return self.get_short(short, (ranks, first), key);
        }
        let mut place = home(key, self.multiplier, self.places) & !(self.bucket - 1);
        for _ in 0..self.places {
            let (found, count) = self.entry(place)?;
            if count == 0 || found == key {
                return Ok(count);
            }
            place = if place + 1 == self.places { 0 } else { place + 1 };
        }
        Err(no_empty_place())
    }

    /// True when empty places are left out and a bit each says which they are.
    pub fn is_squeezed(&self) -> bool {
        self.squeezed.is_some()
    }

    /// How many entries are so many places from home, or from the first place of its bucket where the image is squeezed, by distance; for people.
    /// Those of an identity image are at home.
    ///
    /// # Errors
    /// As [`Image::for_each`].
    pub fn distances(&self) -> Result<Vec<u64>> {
        let mut distances = vec![0u64];
        if self.kind == EntryKind::Identity {
            distances[0] = self.entries;
            return Ok(distances);
        }
        let mut add = |place: u64, key: u64| {
            let home = home(key, self.multiplier, self.places) & !(self.bucket - 1);
            let distance = (if place < home { place + self.places } else { place } - home) as usize;
            if distances.len() <= distance {
                distances.resize(distance + 1, 0);
            }
            distances[distance] += 1;
        };
        let mut buffer = Vec::new();
        if self.squeezed.is_none() {
            self.for_each_place(&mut buffer, |place, key, _| add(place, key))?;
            return Ok(distances);
        }
        // A bit for each place that is used, in the order of the entries.
        let mut bits = Vec::new();
        let words = self.places.div_ceil(64) as usize;
        self.arena.read(&self.chain, self.offset + HEADER as u64, words * 8, &mut bits)?;
        let used = |place: &u64| bits[*place as usize / 8] >> (place % 8) & 1 == 1;
        let mut places = (0..self.places).filter(used);
        self.for_each(&mut buffer, |key, _| {
            if let Some(place) = places.next() {
                add(place, key);
            }
        })?;
        Ok(distances)
    }

    /// Calls `each` with every key and count, in the order of the places. `buffer` is scratch.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] for a damaged chain; [`Error::Damaged`] when entries or counts do not add up to what the header states.
    pub fn for_each(&self, buffer: &mut Vec<u8>, mut each: impl FnMut(u64, u32)) -> Result<()> {
        match (&self.short, self.squeezed) {
            (Some(short), Some((_, first))) => self.for_each_short(short, first, buffer, each),
            _ => self.for_each_place(buffer, |_, key, count| each(key, count)),
        }
    }

    /// The same for entries of whole keys, with their places, or, in a squeezed image, their numbers.
    fn for_each_place(&self, buffer: &mut Vec<u8>, mut each: impl FnMut(u64, u64, u32)) -> Result<()> {
        const BATCH: u64 = 8192;
        let size = self.kind.bytes();
        let (mut entries, mut sum) = (0u64, 0u64);
        let (at, places) = match self.squeezed {
            None => (self.offset + HEADER as u64, self.places),
            Some((_, first)) => (first, self.entries),
        };
        for first in (0..places).step_by(BATCH as usize) {
            let count = BATCH.min(places - first) as usize;
            buffer.clear();
            self.arena.read(&self.chain, at + first * size as u64, count * size, buffer)?;
            for (i, bytes) in buffer.chunks_exact(size).enumerate() {
                let (key, count) = self.kind.load(bytes, self.base, first + i as u64);
                if count != 0 {
                    (entries, sum) = (entries + 1, sum.wrapping_add(u64::from(count)));
                    each(first + i as u64, key, count);
                }
            }
        }
        self.check_sums(entries, sum)
    }

    fn check_sums(&self, entries: u64, sum: u64) -> Result<()> {
        if (entries, sum) == (self.entries, self.sum) {
            return Ok(());
        }
        let (expected, found) =
            (format!("{} entries, sum {}", self.entries, self.sum), format!("{entries} entries, sum {sum}"));
        Err(Error::Damaged { name: "(stripe)".into(), what: "published table", expected, found })
    }
}

fn no_empty_place() -> Error {
    let (expected, found) = ("an empty place".into(), "none".into());
    Error::Damaged { name: "(stripe)".into(), what: "open addressing", expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::counter::GroupCounter;
    use crate::hash::weights::WeightCounter;
    use crate::segment::{Plan, Segment};
    use crate::toc::TocEstimator;
    use crate::words::Owner;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const A: Owner = Owner { slot: 0, generation: 1 };

    fn arena() -> Arena {
        let mut toc = TocEstimator::default();
        toc.estimate(Arena::estimate(16, 0));
        let plan = Plan { toc_bytes: toc.total(), chunk_bytes: 4096, chunks: 16, beside: 0, build: 0 };
        let segment = Arc::new(Segment::create_private(&plan).expect("memory"));
        let area = segment.toc().expect("a table").allocate(1, Arena::estimate(16, 0)).expect("estimated");
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

    proptest! {
        #[test]
        fn a_squeezed_table_finds_what_a_map_finds(map in prop::collection::btree_map(any::<u32>(), 1..1000u32, 0..300), odd in any::<u64>(), bits in 32..=64u32) {
            let mut narrow = GroupCounter::<u32>::for_bits(0, odd, 32);
            let mut long = GroupCounter::<u64>::for_bits(0, odd, bits);
            for (group, (key, count)) in (1u64..).zip(&map) {
                narrow.add_batch(&[*key], &[u64::from(*count) << 32 | group]);
                long.add_batch(&[u64::from(*key)], &[u64::from(*count) << 32 | group]);
            }
            let (bytes, found) = if bits > 32 { squeeze(Vec::new(), EntryKind::Kmer64, &long) } else { squeeze(Vec::new(), EntryKind::Kmer32, &narrow) };
            check_squeezed(&map, &bytes, found)?;
            let mut weights = WeightCounter::new(odd, bits);
            if weights.reset(map.len()) {
                let (keys, tags): (Vec<u32>, Vec<u64>) = map.iter().map(|(key, count)| (*key, u64::from(*count) << 32)).unzip();
                if weights.add_batch(&keys, &tags).is_some() {
                    let (bytes, found) = squeeze(Vec::new(), EntryKind::for_bits(bits), &weights);
                    check_squeezed(&map, &bytes, found)?;
                }
            }
        }
    }

    fn check_squeezed(
        map: &BTreeMap<u32, u32>,
        bytes: &[u8],
        found: Squeezed,
    ) -> std::result::Result<(), TestCaseError> {
        prop_assert_eq!(found.sums.counted, map.values().map(|n| u64::from(*n)).sum::<u64>());
        prop_assert_eq!(found.highest, map.values().copied().max().unwrap_or(0));
        let arena = arena();
        let image = Image::open(&arena, publish(&arena, bytes), 24).unwrap();
        for key in map.keys().flat_map(|k| [*k, k.wrapping_add(1)]) {
            prop_assert_eq!(image.get(key.into()).unwrap(), map.get(&key).copied().unwrap_or(0));
        }
        let mut all = BTreeMap::new();
        image
            .for_each(&mut Vec::new(), |k, n| {
                all.insert(k as u32, n);
            })
            .unwrap();
        prop_assert_eq!(&all, map);
        let distances = image.distances().unwrap();
        prop_assert_eq!(distances, super::tests::distances(&image));
        Ok(())
    }

    fn squeezed(odd: u64, key_bits: u32, counts: &[(u64, u32)]) -> Vec<u8> {
        let mut table = GroupCounter::<u64>::for_bits(0, odd, key_bits);
        for (group, (key, count)) in (1u64..).zip(counts) {
            table.add_batch(&[*key], &[u64::from(*count) << 32 | group]);
        }
        squeeze(Vec::new(), EntryKind::Kmer64, &table).0
    }

    #[test]
    fn entries_are_whole_where_short_ones_would_not_do() {
        let counts: Vec<(u64, u32)> = (0..400).map(|key| (key, key as u32 + 1)).collect();
        // All at home in the first place; spread; keys that are too long.
        for (odd, key_bits, form) in
            [(1, 40, SQUEEZED), (0x9e37_79b9_7f4a_7c15, 40, SHORT), (1, 64, SQUEEZED)]
        {
            let bytes = squeezed(odd, key_bits, &counts);
            assert_eq!(bytes[4], form as u8, "{odd} {key_bits}");
            let arena = arena();
            let image = Image::open(&arena, publish(&arena, &bytes), 24).expect("sound");
            let mut all = Vec::new();
            image.for_each(&mut Vec::new(), |k, n| all.push((k, n))).expect("sound");
            all.sort_unstable();
            assert_eq!(all, counts);
            assert_eq!(image.get(1 << 40).expect("sound"), 0);
            assert_eq!(image.distances().expect("sound"), distances(&image));
        }
    }

    /// Place by place.
    fn distances(image: &Image<'_>) -> Vec<u64> {
        let mut found = vec![0];
        for place in 0..image.places {
            let (key, count) = image.entry(place).expect("sound");
            if count > 0 {
                let first = home(key, image.multiplier, image.places);
                let first = first & !(image.bucket - 1);
                let distance = ((place + image.places - first) % image.places) as usize;
                found.resize(found.len().max(distance + 1), 0);
                found[distance] += 1;
            }
        }
        found
    }

    #[test]
    fn distances_of_whole_tables() {
        for bits in [16, 32, 64] {
            let mut writer =
                ImageWriter::hashed(Vec::new(), EntryKind::for_bits(bits), 300, 0x9e37_79b9_7f4a_7c15);
            (0..300).for_each(|key| writer.put(key * 7, 1));
            let arena = arena();
            let image = Image::open(&arena, publish(&arena, &writer.finish()), 24).expect("sound");
            assert_eq!(image.distances().expect("sound"), distances(&image));
        }
    }

    #[test]
    fn damaged_short_entries_are_told_or_change_a_sum() {
        let counts: Vec<(u64, u32)> =
            (0..300).map(|key| (key * 77, if key % 9 == 0 { 300 } else { 2 })).collect();
        let sound = squeezed(0x9e37_79b9_7f4a_7c15, 40, &counts);
        assert_eq!(sound[4], SHORT as u8);
        let arena = arena();
        for at in (0..sound.len()).step_by(3) {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x41;
            let stored = arena.store(A, &[&[0xee; 24], &bytes[..]].concat()).expect("room");
            let chain = arena.open(stored.head()).expect("stored");
            let mut read = Vec::new();
            if let Ok(image) = Image::open(&arena, chain, 24) {
                let whole = image.for_each(&mut Vec::new(), |k, n| read.push((k, n)));
                let _ = (0..300).map(|key| image.get(key * 77)).collect::<Vec<_>>();
                let _ = image.distances();
                assert!(whole.is_err() || read.len() == counts.len(), "byte {at}");
            }
            arena.free(stored).expect("free");
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
