//! Counts weights a key, where whose they are does not matter: the private table of a stripe whose equal records are known beforehand.
//!
//! A power of two of *lines* of [`BUCKET`] places, each a line of the processor's cache. A key's hash is its product with a random odd number modulo 2^n, n
//! the bits of a key, which is a permutation of the keys: its high bits say in which line it is at home, so a place keeps only the other bits, the *rest*, and
//! how many lines from home it is above them. 32 bits hold that where there are enough lines ([`WeightCounter::suits`]), so all eight places of a line
//! are compared at once, and a table takes half as much of the caches as one of whole keys and groups ([`super::counter`]).
//!
//! As there, places are filled from a line's first on, of the place that has a key and the first free one the first is taken, and lines of a batch are
//! prefetched. A line that is full leads to the next, but no further than a place can tell: then the table grows, and if that does not help, the caller is told.

#[cfg(test)]
mod tests;

use super::counter::{AHEAD, Added, Key, MAX_LOAD};
use super::image::inverse;
use super::table::{self, Table};
use crate::raw::prefetch;

/// Places of a line.
pub const BUCKET: usize = 8;
/// Fewest and most bits of a place that say how far from home it is. Of random keys hardly any is eight lines away in a table that is half full, but four lines some
/// are; with more than the most an entry of an image could not tell it ([`super::image`]).
const FAR_BITS: (u32, u32) = (3, 4);
/// Bits of a line's number, at least: 64 places.
const MIN_LINE_BITS: u32 = 3;
/// So many bits more may the number of a line have than the keys need, where a place could not hold the rest otherwise.
const MORE_BITS: u32 = 2;
/// A table with more than so many places a key is not made larger.
const ROOMY: usize = 32;
/// Pairs that are hashed at a time.
const BATCH: usize = 1024;

/// All zeros is a line of free places.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Line {
    /// Lines from home, then the rest of the hash.
    pub(super) rests: [u32; BUCKET],
    /// Weights; 0 is a free place.
    pub(super) weights: [u32; BUCKET],
}

impl Line {
    /// Bit i: place i has this rest or is free. Behind the first free place there are only free ones.
    #[inline(always)]
    fn find(&self, rest: u32) -> u32 {
        let mut found = 0;
        for i in 0..BUCKET {
            found |= u32::from((self.rests[i] == rest) | (self.weights[i] == 0)) << i;
        }
        found
    }

    /// The same, all at once.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[target_feature(enable = "avx2")]
    #[inline]
    fn find_avx2(&self, rest: u32) -> u32 {
        use std::arch::x86_64::{
            _mm256_castsi256_ps, _mm256_cmpeq_epi32, _mm256_movemask_ps, _mm256_or_si256, _mm256_set1_epi32,
            _mm256_setzero_si256,
        };
        let same = _mm256_cmpeq_epi32(eight(&self.rests), _mm256_set1_epi32(rest as i32));
        let free = _mm256_cmpeq_epi32(eight(&self.weights), _mm256_setzero_si256());
        _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_or_si256(same, free))) as u32
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx2")]
#[inline]
fn eight(lanes: &[u32; BUCKET]) -> std::arch::x86_64::__m256i {
    #[allow(unsafe_code, reason = "the corner for SIMD")]
    // SAFETY: there are eight lanes of four bytes, as many as are read; the load asks for no alignment.
    unsafe {
        std::arch::x86_64::_mm256_loadu_si256(lanes.as_ptr().cast())
    }
}

/// How a hash is parted in a table of so many lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parting {
    line_bits: u32,
    rest_bits: u32,
    /// The most lines from home.
    furthest: u32,
}

impl Parting {
    /// For keys of `key_bits` bits; `None` when a place cannot hold the rest.
    fn of(line_bits: u32, key_bits: u32) -> Option<Self> {
        let rest_bits = key_bits.checked_sub(line_bits)?;
        let far_bits = 32u32.checked_sub(rest_bits)?.min(FAR_BITS.1);
        // The places of a line are told by three bits of the rest.
        let is_one =
            (MIN_LINE_BITS..29).contains(&line_bits) && rest_bits >= BUCKET.ilog2() && far_bits >= FAR_BITS.0;
        is_one.then(|| Self { line_bits, rest_bits, furthest: (1 << far_bits) - 1 })
    }

    /// Line and rest of a hash, whose bits are the highest of `hash`.
    #[inline(always)]
    fn part(self, hash: u64) -> (u32, u32) {
        ((hash >> (64 - self.line_bits)) as u32, (hash << self.line_bits >> (64 - self.rest_bits)) as u32)
    }

    /// What [`Parting::part`] makes a rest of, in the low bits, from what is kept in a place of line `line`.
    #[inline(always)]
    fn number(self, line: u32, kept: u32) -> u64 {
        let home = line.wrapping_sub(kept >> self.rest_bits) & !(u32::MAX << self.line_bits);
        u64::from(home) << self.rest_bits | u64::from(kept & !(u32::MAX << self.rest_bits))
    }
}

/// Adds weights a key; see the module.
pub struct WeightCounter {
    lines: Vec<Line>,
    parting: Parting,
    key_bits: u32,
    multiplier: u64,
    /// What the multiplier is undone by, modulo 2^n.
    inverse: u64,
    used: usize,
    batch: Box<Batch>,
}

/// Pairs of a batch, hashed.
struct Batch {
    /// And behind the last ones that may be asked for.
    homes: [u32; BATCH + AHEAD],
    rests: [u32; BATCH],
}

/// Why a pair was not added: its place would be too far from home.
struct TooFar;

impl WeightCounter {
    /// Whether a table for about `keys` keys of `key_bits` bits has room for the rests of their hashes.
    pub fn suits(keys: usize, key_bits: u32) -> bool {
        Parting::of(line_bits(keys, key_bits), key_bits).is_some()
    }

    /// A table for keys of up to `key_bits` bits, 6 to 64, to be [reset](Self::reset). `multiplier` is drawn for each run; its lowest bit is taken as 1.
    pub fn new(multiplier: u64, key_bits: u32) -> Self {
        let (multiplier, inverse) = ((multiplier | 1) << (64 - key_bits), inverse(multiplier | 1));
        let batch = Box::new(Batch { homes: [0; BATCH + AHEAD], rests: [0; BATCH] });
        let parting = Parting { line_bits: 0, rest_bits: 0, furthest: 0 };
        Self { lines: Vec::new(), parting, key_bits, multiplier, inverse, used: 0, batch }
    }

    /// Empties the table and fits it to about `keys` keys, using its memory again. False when it does not [suit](Self::suits) so many; it is of no use then.
    pub fn reset(&mut self, keys: usize) -> bool {
        self.used = 0;
        self.lines.clear();
        let line_bits = line_bits(keys, self.key_bits);
        let Some(parting) = Parting::of(line_bits, self.key_bits) else { return false };
        self.parting = parting;
        self.lines.resize(1 << line_bits, Line::default());
        true
    }

    /// Adds to the weight of each `keys[i]` the high half of `tags[i]`. The sum of keys times weights that is returned is that of the keys' *numbers*: their
    /// hashes, in the low bits. `None` when the table cannot tell them all: then it is of no use.
    ///
    /// # Panics
    /// When the slices differ in length.
    pub fn add_batch<K: Key>(&mut self, keys: &[K], tags: &[u64]) -> Option<Added> {
        assert_eq!(keys.len(), tags.len());
        let mut total = Added::default();
        for (keys, tags) in keys.chunks(BATCH).zip(tags.chunks(BATCH)) {
            if (self.used + keys.len()) * MAX_LOAD.1 > self.places() * MAX_LOAD.0 {
                self.grow(self.used + keys.len())?;
            }
            let added = self.hash(keys, tags);
            total.counted += added.counted;
            total.key_sum = total.key_sum.wrapping_add(added.key_sum);
            let mut from = self.add_hashed(0, tags);
            while from < tags.len() {
                self.grow(self.places())?;
                self.hash(keys, tags);
                from = self.add_hashed(from, tags);
            }
        }
        Some(total)
    }

    /// Hashes up to [`BATCH`] pairs side by side, and adds them up.
    fn hash<K: Key>(&mut self, keys: &[K], tags: &[u64]) -> Added {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            #[allow(unsafe_code, reason = "the corner for SIMD")]
            // SAFETY: the processor has all that the function asks for.
            return unsafe { self.hash_avx512(keys, tags) };
        } else if is_x86_feature_detected!("avx2") {
            #[allow(unsafe_code, reason = "the corner for SIMD")]
            // SAFETY: the processor has AVX2, all that the function asks for.
            return unsafe { self.hash_avx2(keys, tags) };
        }
        self.hash_any(keys, tags)
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    fn hash_avx512<K: Key>(&mut self, keys: &[K], tags: &[u64]) -> Added {
        self.hash_any(keys, tags)
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[target_feature(enable = "avx2")]
    fn hash_avx2<K: Key>(&mut self, keys: &[K], tags: &[u64]) -> Added {
        self.hash_any(keys, tags)
    }

    #[inline(always)]
    fn hash_any<K: Key>(&mut self, keys: &[K], tags: &[u64]) -> Added {
        let (parting, multiplier, down) = (self.parting, self.multiplier, 64 - self.key_bits);
        let mut added = Added::default();
        let places = self.batch.homes.iter_mut().zip(&mut self.batch.rests);
        for ((key, tag), (home, rest)) in keys.iter().zip(tags).zip(places) {
            let (hash, weight) = (key.wide().wrapping_mul(multiplier), *tag >> 32);
            (*home, *rest) = parting.part(hash);
            added.counted += weight;
            added.key_sum = added.key_sum.wrapping_add((hash >> down).wrapping_mul(weight));
        }
        added
    }

    /// Adds the pairs of the batch from number `from` on, and returns how many are done then: all, or those before one that would be too far from home.
    fn add_hashed(&mut self, from: usize, tags: &[u64]) -> usize {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
        {
            #[allow(unsafe_code, reason = "the corner for SIMD")]
            // SAFETY: the processor has AVX2, BMI1 and BMI2, all that the function asks for.
            return unsafe { self.add_hashed_avx2(from, tags) };
        }
        self.add_hashed_any(from, tags, Line::find)
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn add_hashed_avx2(&mut self, from: usize, tags: &[u64]) -> usize {
        self.add_hashed_any(from, tags, |line, rest| line.find_avx2(rest))
    }

    #[inline(always)]
    fn add_hashed_any(&mut self, from: usize, tags: &[u64], find: impl Fn(&Line, u32) -> u32) -> usize {
        let lines = &mut self.lines[..];
        let mask = lines.len() - 1;
        let Batch { homes, rests } = &*self.batch;
        for &home in &homes[from..from + AHEAD] {
            prefetch(std::ptr::from_ref(&lines[home as usize & mask]));
        }
        let mut used = 0;
        for (i, &tag) in tags.iter().enumerate().skip(from) {
            prefetch(std::ptr::from_ref(&lines[homes[i + AHEAD] as usize & mask]));
            let (mut at, mut rest) = (homes[i] as usize & mask, rests[i]);
            let mut found = find(&lines[at], rest);
            if found == 0 {
                match further(lines, at, rest, self.parting) {
                    Ok(there) => (at, rest, found) = there,
                    Err(TooFar) => {
                        self.used += used;
                        return i;
                    }
                }
            }
            let (line, place) = (&mut lines[at & mask], found.trailing_zeros() as usize % BUCKET);
            used += usize::from(line.weights[place] == 0);
            line.rests[place] = rest;
            line.weights[place] = line.weights[place].wrapping_add((tag >> 32) as u32);
        }
        self.used += used;
        tags.len()
    }

    /// Numbers and weights of all keys.
    fn pairs(&self) -> impl Iterator<Item = (u64, u32)> {
        let kept = self.lines.iter().zip(0u32..).flat_map(|(line, at)| {
            line.rests.into_iter().zip(line.weights).map(move |(kept, weight)| (at, kept, weight))
        });
        kept.filter(|(.., weight)| *weight != 0)
            .map(|(at, kept, weight)| (self.parting.number(at, kept), weight))
    }

    /// Makes the table larger, for `keys` keys at least.
    #[cold]
    fn grow(&mut self, keys: usize) -> Option<()> {
        let mut larger = Self::new(self.multiplier >> (64 - self.key_bits), self.key_bits);
        let mut keys = keys * 2;
        'larger: while keys <= (self.used + BATCH) * ROOMY {
            if !larger.reset(keys) {
                return None;
            }
            keys *= 2;
            let (mask, up) = (larger.lines.len() - 1, 64 - self.key_bits);
            for (number, weight) in self.pairs() {
                let (home, rest) = larger.parting.part(number << up);
                let home = home as usize & mask;
                let (mut at, mut rest, mut found) = (home, rest, larger.lines[home].find(rest));
                if found == 0 {
                    match further(&larger.lines, at, rest, larger.parting) {
                        Ok(there) => (at, rest, found) = there,
                        Err(TooFar) => continue 'larger,
                    }
                }
                let (line, place) = (&mut larger.lines[at], found.trailing_zeros() as usize % BUCKET);
                (line.rests[place], line.weights[place]) = (rest, weight);
                larger.used += 1;
            }
            std::mem::swap(self, &mut larger);
            return Some(());
        }
        None
    }
}

/// Numbers are hashes, in the low bits.
impl Table for WeightCounter {
    const BUCKET: usize = BUCKET;
    type Places<'a> = Places<'a>;

    fn len(&self) -> usize {
        self.used
    }
    fn places(&self) -> usize {
        self.lines.len() * BUCKET
    }
    fn multiplier(&self) -> u64 {
        self.multiplier
    }
    fn number_multiplier(&self) -> u64 {
        1 << (64 - self.key_bits)
    }
    fn key(&self, number: u64) -> u64 {
        number.wrapping_mul(self.inverse) & (u64::MAX >> (64 - self.key_bits))
    }
    fn lines(&self) -> Option<Lines<'_>> {
        Some(Lines { lines: &self.lines, parting: self.parting })
    }
    #[inline(always)]
    fn by_64(&self) -> impl Iterator<Item = Places<'_>> {
        let parting = self.parting;
        let lines = self.lines.as_chunks().0.iter().zip((0u32..).step_by(64 / BUCKET));
        lines.map(move |(lines, first)| Places { lines, first, parting })
    }
}

/// The lines of a table, as they are.
pub struct Lines<'a> {
    lines: &'a [Line],
    parting: Parting,
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
impl Lines<'_> {
    /// All of them, a power of two, at least eight.
    pub(super) fn all(&self) -> &[Line] {
        self.lines
    }

    /// Bits of a hash that a place keeps, below how many lines from home it is: at least three.
    pub(super) fn rest_bits(&self) -> u32 {
        self.parting.rest_bits
    }
}

/// 64 places of a table.
pub struct Places<'a> {
    lines: &'a [Line; 64 / BUCKET],
    first: u32,
    parting: Parting,
}

impl table::Places for Places<'_> {
    #[inline(always)]
    fn get(&self, i: usize) -> (u64, u32) {
        let (at, place) = (i / BUCKET % (64 / BUCKET), i % BUCKET);
        let line = &self.lines[at];
        (self.parting.number(self.first + at as u32, line.rests[place]), line.weights[place])
    }
}

/// Bits of the number of a line, where there are about `keys` keys of `key_bits` bits: so many that a place can hold the rest, if these are not too many.
fn line_bits(keys: usize, key_bits: u32) -> u32 {
    let places = (keys * MAX_LOAD.1 / MAX_LOAD.0 + 1).next_power_of_two();
    let needed = (places / BUCKET).max(1 << MIN_LINE_BITS).ilog2();
    needed.max((key_bits + FAR_BITS.0).saturating_sub(u32::BITS)).min(needed + MORE_BITS)
}

/// Of a rest that is not in its home line `home`, which is full, and could not be put there: line, what is kept of it there, and the places.
#[cold]
fn further(lines: &[Line], home: usize, rest: u32, parting: Parting) -> Result<(usize, u32, u32), TooFar> {
    for far in 1..=parting.furthest {
        let (at, kept) = ((home + far as usize) & (lines.len() - 1), rest | far << parting.rest_bits);
        let found = lines[at].find(kept);
        if found != 0 {
            return Ok((at, kept, found));
        }
    }
    Err(TooFar)
}
