//! Reads a squeezed image whose entries are short.

use super::short::{APART, Short, Unpacked};
use super::{HEADER, Image, no_empty_place};
use crate::error::{Error, Result};

/// What an image with short entries has besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShortEntries {
    pub(super) packed: Short,
    /// Where the counts that are kept apart begin, from the start of the chain.
    pub(super) apart_at: u64,
    /// How many they are.
    pub(super) apart: u64,
}

/// Bytes of a count that is kept apart, and of the number of its entry.
const APART_BYTES: u64 = 8;
/// Words of bits that are read at a time.
const WORDS: u64 = 128;

impl Image<'_> {
    /// Entry number `rank`, and its count. Entries begin `first` bytes into the chain.
    pub(super) fn short_entry(&self, short: &ShortEntries, first: u64, rank: u64) -> Result<(Unpacked, u32)> {
        if rank >= self.entries {
            return Err(damaged("entries", format!("fewer than {}", self.entries), rank));
        }
        let (mut bytes, size) = (Vec::with_capacity(8), short.packed.bytes());
        self.arena.read(&self.chain, first + rank * size as u64, size, &mut bytes)?;
        let unpacked = short.packed.unpack(number(&bytes));
        if unpacked.count != APART {
            return Ok((unpacked, unpacked.count));
        }
        let (mut low, mut high) = (0, short.apart);
        while low < high {
            let middle = low + (high - low) / 2;
            let (found, count) = self.apart(short, middle)?;
            if found == rank {
                return Ok((unpacked, count));
            }
            if found < rank { low = middle + 1 } else { high = middle }
        }
        Err(damaged("counts kept apart", format!("one of entry {rank}"), 0))
    }

    /// A count that is kept apart: of which entry, and the count.
    fn apart(&self, short: &ShortEntries, at: u64) -> Result<(u64, u32)> {
        let mut bytes = Vec::with_capacity(8);
        let from = short.apart_at + at * APART_BYTES;
        self.arena.read(&self.chain, from, APART_BYTES as usize, &mut bytes)?;
        let both = number(&bytes);
        Ok((both & 0xffff_ffff, (both >> 32) as u32))
    }

    /// As [`Image::get`].
    pub(super) fn get_short(
        &self,
        short: &ShortEntries,
        (ranks, first): (u64, u64),
        key: u64,
    ) -> Result<u32> {
        let Some((home, rest)) = short.packed.of_key(key) else { return Ok(0) };
        let before = short.packed.before();
        let first_place = home & !before;
        for further in 0..self.places {
            let place = (first_place + further) & (self.places - 1);
            let distance = first_place + further + before - home;
            let Some(rank) = self.rank(place, ranks)? else { return Ok(0) };
            let (entry, count) = self.short_entry(short, first, rank)?;
            if entry.rest == rest && entry.distance == distance {
                return Ok(count);
            }
        }
        Err(no_empty_place())
    }

    /// As [`Image::for_each`].
    pub(super) fn for_each_short(
        &self,
        short: &ShortEntries,
        first: u64,
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(u64, u32),
    ) -> Result<()> {
        let (size, words) = (short.packed.bytes(), self.places / 64);
        let (mut bits, mut entries, mut sum, mut apart) = (Vec::new(), 0u64, 0u64, 0);
        for word in (0..words).step_by(WORDS as usize) {
            bits.clear();
            let some = WORDS.min(words - word) as usize * 8;
            self.arena.read(&self.chain, self.offset + HEADER as u64 + word * 8, some, &mut bits)?;
            let bits = bits.as_chunks::<8>().0.iter().map(|bits| u64::from_le_bytes(*bits));
            let used: u64 = bits.clone().map(|bits| u64::from(bits.count_ones())).sum();
            if used > self.entries - entries {
                return Err(damaged("entries", format!("at most {}", self.entries), entries + used));
            }
            buffer.clear();
            self.arena.read(&self.chain, first + entries * size as u64, used as usize * size, buffer)?;
            let places = (word..).zip(bits).flat_map(|(word, bits)| places(word, bits));
            for (place, bytes) in places.zip(buffer.chunks_exact(size)) {
                let entry = short.packed.unpack(number(bytes));
                let mut count = entry.count;
                if count == APART {
                    let (rank, large) =
                        if apart < short.apart { self.apart(short, apart)? } else { (u64::MAX, 0) };
                    if rank != entries {
                        return Err(damaged("counts kept apart", format!("one of entry {entries}"), rank));
                    }
                    (count, apart) = (large, apart + 1);
                }
                (entries, sum) = (entries + 1, sum.wrapping_add(u64::from(count)));
                each(short.packed.key(place, entry), count);
            }
        }
        self.check_sums(entries, sum)
    }
}

/// The places in use of a word of bits.
fn places(word: u64, mut bits: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| bits.trailing_zeros())?;
        bits &= bits - 1;
        Some(word * 64 + u64::from(bit))
    })
}

/// Up to 8 bytes as a number.
fn number(bytes: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

fn damaged(what: &'static str, expected: String, found: u64) -> Error {
    Error::Damaged { name: "(stripe)".into(), what, expected, found: found.to_string() }
}
