//! Windows of four k-mers: out of packed bases, into buckets, and counted; for [`crate::keys`].
//!
//! ```text
//! bases of a window   k + 3: three, then those of the bucket, then the others
//! k-mer 0             |.........|
//! k-mer 3                |.........|         all four have the bucket's bases, and a place of their own for the others
//! record              bits 0..21 the bases that the bucket does not tell; bits 30..32 how many of the k-mers count, from the first on, less 1
//! a bucket's counts   for each of the four a table with a byte for each of the 2^15 k-mers that it can be
//! ```
//!
//! A bucket's bits need not be whole bases: where one of the four k-mers has a bit, another one has it two bits on.

use super::{LINE, copies, prefetch};
use crate::keys::buckets::Buckets;
use crate::params::Params;

/// k-mers of a window, and bases from one window to the next: those of a byte.
pub(crate) const WINDOW: usize = 4;
/// Windows that are looked at together: those of a chunk, and one for the end of its last k-mer.
const WINDOWS: usize = crate::keys::CHUNK / WINDOW + 1;
/// Bits of the bases before those that all k-mers of a window have, and of those behind them.
const SIDE_BITS: u32 = 2 * (WINDOW as u32 - 1);
/// Bits of a window below its bucket: those of the bases behind, and of four more, so that a bucket's cells lie by whole lines of the cache.
const LOW_BITS: u32 = SIDE_BITS + 9;
/// Bits of a k-mer that its bucket does not tell.
const CELL_BITS: u32 = LOW_BITS;
/// Cells of a bucket for the k-mers at one place of its windows.
pub(crate) const CELLS: usize = 1 << CELL_BITS;
/// Where a record has how many k-mers it stands for, less 1.
const COUNT_SHIFT: u32 = 30;
/// Pieces of cells that are asked for ahead, where they are no longer than these bytes: in longer ones the processor sees by itself what comes next.
const PIECES_AHEAD: usize = 4;
const FAR_APART: usize = 2048;

/// Bases that such a stretch has in its middle, at the least: it is of an even number of them, and longer than k.
const MIRRORED: u32 = 12;
/// Bits of the numbers that parts of windows are told apart by.
pub(crate) const PART_BITS: u32 = 15;

/// What the scan looks at of some k-mers.
pub(crate) struct Look {
    /// How many windows were looked at.
    pub(crate) windows: usize,
    /// 16 bases, the first in the highest bits.
    words: [u32; WINDOWS],
    /// The records of whole windows, and their buckets.
    records: [u32; WINDOWS],
    buckets: [u16; WINDOWS],
    /// Of the k - 3 bases from each of the first three on a number of [`PART_BITS`] bits.
    pub(crate) parts: [[u16; WINDOWS]; 3],
    /// Where k-mers are canonical: there is a stretch that is its own reverse complement, so that one of its k-mers may be that of another.
    pub(crate) mirrored: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            windows: 0,
            words: [0; WINDOWS],
            records: [0; WINDOWS],
            buckets: [0; WINDOWS],
            parts: [[0; WINDOWS]; 3],
            mirrored: false,
        }
    }
}

/// Counts of the k-mers of one bucket's windows, of those at each place by themselves.
pub(crate) type BucketCells = [[u8; CELLS]; WINDOW];

/// Bits of a bucket's number.
pub(crate) const fn bucket_bits(k: u32) -> u32 {
    2 * k - CELL_BITS
}

copies! {
    /// Looks at the first `kmers` k-mers of `packed`, a chunk at most.
    ///
    /// # Panics
    /// When there are not two bytes behind their last base.
    pub(crate) fn look(packed: &[u8], params: Params, kmers: usize, look: &mut Look) = look_any
}

#[inline(always)]
fn look_any(packed: &[u8], params: Params, kmers: usize, look: &mut Look) {
    // The last k-mer's parts begin up to three places behind it.
    look.windows = (kmers + WINDOW - 1).div_ceil(WINDOW);
    let words = &mut look.words[..look.windows];
    // Each byte by itself, so that many words are put together side by side.
    let bytes = packed.iter().zip(&packed[1..]).zip(&packed[2..]).zip(&packed[3..look.windows + 3]);
    for (word, (((first, second), third), last)) in words.iter_mut().zip(bytes) {
        *word =
            u32::from(*first) << 24 | u32::from(*second) << 16 | u32::from(*third) << 8 | u32::from(*last);
    }
    for ((record, bucket), word) in look.records.iter_mut().zip(&mut look.buckets).zip(&*words) {
        (*bucket, *record) = record_of(*word, WINDOW as u32, params.k());
    }
    let bases = params.k() - (WINDOW as u32 - 1);
    look.mirrored = false;
    for (at, parts) in (0..).zip(&mut look.parts) {
        for (part, word) in parts.iter_mut().zip(&*words) {
            let mut letters = stretch(*word, at, bases);
            if params.canonical() {
                letters = letters.min(stretch(reversed(*word), 16 - at - bases, bases));
            }
            *part = (letters.wrapping_mul(0x9e37_79b1) >> (32 - PART_BITS)) as u16;
        }
    }
    if params.canonical() {
        for word in &*words {
            let (word, other) = (*word, reversed(*word));
            for at in 0..WINDOW as u32 {
                look.mirrored |= stretch(word, at, MIRRORED) == stretch(other, 16 - at - MIRRORED, MIRRORED);
            }
        }
    }
}

/// So many bases of 16 from base `at` on.
#[inline(always)]
fn stretch(word: u32, at: u32, bases: u32) -> u32 {
    word << (2 * at) >> (32 - 2 * bases)
}

/// The reverse complement of 16 bases.
#[inline(always)]
fn reversed(word: u32) -> u32 {
    let pairs = (word >> 2 & 0x3333_3333) | (word & 0x3333_3333) << 2;
    let fours = (pairs >> 4 & 0x0f0f_0f0f) | (pairs & 0x0f0f_0f0f) << 4;
    !fours.swap_bytes()
}

copies! {
    /// Puts records of the first `kmers` k-mers of `look` into their buckets.
    pub(crate) fn put_windows(look: &Look, kmers: usize, k: u32, buckets: &mut Buckets<u32>) = put_windows_any
}

#[inline(always)]
fn put_windows_any(look: &Look, kmers: usize, k: u32, buckets: &mut Buckets<u32>) {
    let (whole, rest) = (kmers / WINDOW, kmers % WINDOW);
    let whole_ones = look.buckets[..whole].iter().zip(&look.records[..whole]);
    buckets.put(whole_ones.map(|(bucket, record)| (usize::from(*bucket), *record)));
    if rest > 0 {
        put(look.words[whole], rest as u32, k, buckets);
    }
}

/// The bucket of the window of the first k + 3 bases of a word, of which the first `kmers` k-mers count, and its record: the bases before and behind those
/// of the bucket, and how many.
#[inline(always)]
fn record_of(word: u32, kmers: u32, k: u32) -> (u16, u32) {
    let window = word >> (32 - 2 * k - SIDE_BITS);
    let bucket = window >> LOW_BITS & ((1 << bucket_bits(k)) - 1);
    let sides = window >> (LOW_BITS + bucket_bits(k)) << LOW_BITS | window & ((1 << LOW_BITS) - 1);
    (bucket as u16, (kmers - 1) << COUNT_SHIFT | sides)
}

/// Puts a window into its bucket.
#[inline(always)]
fn put(word: u32, kmers: u32, k: u32, buckets: &mut Buckets<u32>) {
    let (bucket, record) = record_of(word, kmers, k);
    buckets.put(std::iter::once((bucket.into(), record)));
}

/// The same for those of the first `kmers` k-mers that are not left out: `left_out` tells of which four in a row, from the given place on, which are,
/// a bit each.
pub(crate) fn put_some(
    look: &Look,
    kmers: usize,
    k: u32,
    left_out: impl Fn(usize) -> u64,
    buckets: &mut Buckets<u32>,
) {
    for (first, word) in (0..kmers).step_by(WINDOW).zip(&look.words) {
        let (out, count) = (left_out(first), (kmers - first).min(WINDOW) as u32);
        if out == 0 {
            put(*word, count, k, buckets);
            continue;
        }
        for at in (0..count).filter(|at| out >> at & 1 == 0) {
            // A window of which only the first k-mer counts.
            put(word << (2 * at), 1, k, buckets);
        }
    }
}

copies! {
    /// Counts the k-mers of the records of bucket `bucket`, and adds those whose cell came to 256 to `wrapped`.
    pub(crate) fn count_windows(
        records: &[u32], bucket: u32, k: u32, cells: &mut BucketCells, wrapped: &mut Vec<u32>
    ) = count_windows_any
}

#[inline(always)]
fn count_windows_any(records: &[u32], bucket: u32, k: u32, cells: &mut BucketCells, wrapped: &mut Vec<u32>) {
    for record in records {
        let place = |at: u32| (record >> (SIDE_BITS - 2 * at)) as usize % CELLS;
        if record >> COUNT_SHIFT != WINDOW as u32 - 1 {
            count_some(*record, bucket, k, cells, wrapped);
            continue;
        }
        let mut any = 0;
        for (at, cells) in (0..).zip(&mut *cells) {
            let cell = &mut cells[place(at)];
            let count = u32::from(*cell) + 1;
            *cell = count as u8;
            any |= count;
        }
        if any > u8::MAX.into() {
            // A cell that was just added to and is zero.
            let cells = (0..).zip(&*cells).filter(|(at, cells)| cells[place(*at)] == 0);
            wrapped.extend(cells.map(|(at, _)| kmer(bucket, at, place(at) as u32, k)));
        }
    }
}

/// The same for a record that does not stand for all of its k-mers: few are such.
#[cold]
fn count_some(record: u32, bucket: u32, k: u32, cells: &mut BucketCells, wrapped: &mut Vec<u32>) {
    for (at, cells) in (0..=record >> COUNT_SHIFT).zip(cells) {
        let place = (record >> (SIDE_BITS - 2 * at)) as usize % CELLS;
        cells[place] = cells[place].wrapping_add(1);
        if cells[place] == 0 {
            wrapped.push(kmer(bucket, at, place as u32, k));
        }
    }
}

/// The k-mer at place `at` of a bucket's windows that has this cell.
#[inline(always)]
fn kmer(bucket: u32, at: u32, cell: u32, k: u32) -> u32 {
    let low = CELL_BITS - SIDE_BITS + 2 * at;
    (cell >> low << bucket_bits(k) | bucket) << low | cell & ((1 << low) - 1)
}

copies! {
    /// Adds the counts of bucket `bucket` to those of all k-mers, and adds those whose cell came to 256 to `wrapped`. Of the bucket's nothing is left.
    pub(crate) fn add_bucket(
        bucket: u32, k: u32, from: &mut BucketCells, cells: &mut [u8], wrapped: &mut Vec<u32>
    ) = add_bucket_any
}

#[inline(always)]
fn add_bucket_any(bucket: u32, k: u32, from: &mut BucketCells, cells: &mut [u8], wrapped: &mut Vec<u32>) {
    for (at, from) in (0..).zip(from) {
        // K-mers lie side by side as far as they differ behind the bucket's bases.
        let piece = 1usize << (CELL_BITS - SIDE_BITS + 2 * at);
        for first in (0..CELLS).step_by(piece) {
            let later = first + PIECES_AHEAD * piece;
            if piece <= FAR_APART && later < CELLS {
                let later = kmer(bucket, at, later as u32, k) as usize;
                cells[later..later + piece].chunks(LINE).for_each(|line| prefetch(&line[0]));
            }
            let kmer = kmer(bucket, at, first as u32, k);
            let cells = &mut cells[kmer as usize..kmer as usize + piece];
            let from = from[first..first + piece].as_chunks_mut::<LINE>().0;
            for (line, (from, cells)) in from.iter_mut().zip(cells.as_chunks_mut::<LINE>().0).enumerate() {
                add_line(kmer + (line * LINE) as u32, from, cells, wrapped);
            }
        }
    }
}

#[inline(always)]
fn add_line(kmer: u32, from: &mut [u8; LINE], cells: &mut [u8; LINE], wrapped: &mut Vec<u32>) {
    let mut over = false;
    for (cell, from) in cells.iter_mut().zip(&*from) {
        *cell = cell.wrapping_add(*from);
        over |= *cell < *from;
    }
    if over {
        let cells = (kmer..).zip(&*cells).zip(&*from);
        wrapped.extend(cells.filter(|((_, cell), from)| *cell < *from).map(|((kmer, _), _)| kmer));
    }
    *from = [0; LINE];
}
