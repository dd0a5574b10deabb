//! Cuts runs into super-k-mers, sorts them by stripe, and reads them back.
//!
//! A super-k-mer is a stretch of a run whose k-mers all belong to one stripe. Its record:
//!
//! ```text
//! 0       1      bit 7: the first record of its row in this stripe; bits 0..7: k-mers less one (1 to 128 k-mers)
//! 1       ...    its k-mers + k - 1 bases, 2 bits each, the first in the high bits, the last byte zero-padded or not
//! ```
//!
//! Records of one stripe make a *section*: they follow each other without a gap, and [`SECTION_PADDING`] bytes follow the last one. A row
//! begins with a marked record, and unmarked ones belong to the row before them, so a reader who numbers marks knows which k-mers are of one
//! row without a row number in each record.
//!
//! Cutting and sorting are two passes: first a list of (stripe, where, how many), from which the size of each section is known, then the copies
//! into place. So nothing grows while records are written, and a section is never moved.

use crate::bases::{Bases, Run};
use crate::minimizer::{Dealer, TILE, Tile};

/// Bytes behind a section's last record, which a writer may spoil and a reader may load.
pub const SECTION_PADDING: usize = 8;
/// Most k-mers of a record.
pub const MAX_KMERS: u32 = 128;
const NEW_ROW: u8 = 0x80;

/// Where a section lies in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// First byte, from the start of the batch's sections.
    pub offset: u32,
    /// Bytes of records, without the padding.
    pub bytes: u32,
    /// k-mers in the records.
    pub kmers: u32,
}

#[derive(Clone, Copy)]
struct Piece {
    start: u32,
    stripe: u16,
    kmers: u8,
    marked: bool,
}

/// Cuts and sorts; keeps its memory from batch to batch, and the last row of each stripe from batch to batch of a unit.
pub struct Splitter {
    dealer: Dealer,
    k: u32,
    tile: Tile,
    pieces: Vec<Piece>,
    sections: Vec<Section>,
    cursors: Vec<u32>,
    last_row: Vec<u32>,
}

/// Rows are numbered below this; it stands for "none yet".
pub const NO_ROW: u32 = u32::MAX;

impl Splitter {
    /// A splitter for `2^stripe_bits` stripes.
    pub fn new(dealer: Dealer, stripe_bits: u32) -> Self {
        let stripes = 1 << stripe_bits;
        Self {
            dealer,
            k: dealer.k,
            tile: Tile::default(),
            pieces: Vec::new(),
            sections: vec![Section::default(); stripes],
            cursors: vec![0; stripes],
            last_row: vec![NO_ROW; stripes],
        }
    }

    /// Begins a unit: the first record of every stripe is marked again.
    pub fn begin_unit(&mut self) {
        self.last_row.fill(NO_ROW);
    }

    /// Cuts the runs of `bases` and writes their records behind what `out` has, sorted by stripe. The sections, one a stripe, say where; their
    /// offsets count from the old end of `out`.
    pub fn split(&mut self, bases: &Bases, out: &mut Vec<u8>) -> &[Section] {
        self.pieces.clear();
        self.sections.fill(Section::default());
        self.cut(bases);
        let total = self.place();
        let from = out.len();
        out.resize(from + total as usize, 0);
        self.copy(bases.packed(), &mut out[from..]);
        &self.sections
    }

    /// First pass: minimizers tile by tile, runs cut where the stripe changes.
    fn cut(&mut self, bases: &Bases) {
        let runs = bases.runs();
        let mut next = 0;
        let mut tile_start = 0;
        while next < runs.len() {
            // A tile begins with a run, or within a run that is longer than a tile.
            let run = &runs[next];
            tile_start = tile_start.max(run.start as usize);
            let last = run.start as usize + (run.len - self.k) as usize;
            let mut end = tile_start + TILE;
            if last >= end {
                self.minimizers(bases, tile_start, TILE);
                self.cut_range(run, tile_start, tile_start, end);
                tile_start = end;
                continue;
            }
            // As many whole runs as the tile holds.
            let first = next;
            let mut stop = last + 1;
            next += 1;
            while next < runs.len() {
                let run = &runs[next];
                let run_stop = (run.start + run.len - self.k + 1) as usize;
                if run_stop > end {
                    break;
                }
                (stop, next) = (run_stop, next + 1);
            }
            end = stop;
            self.minimizers(bases, tile_start, end - tile_start);
            for run in &runs[first..next] {
                let from = tile_start.max(run.start as usize);
                self.cut_range(run, tile_start, from, (run.start + run.len - self.k + 1) as usize);
            }
            tile_start = end.next_multiple_of(4);
        }
    }

    fn minimizers(&mut self, bases: &Bases, first: usize, count: usize) {
        self.dealer.minimizers(bases.packed(), first, count, &mut self.tile);
    }

    /// Cuts the k-mers that start in `from..to`, all of `run`, with the minimizers of the tile that starts at `tile_start`.
    #[inline]
    fn cut_range(&mut self, run: &Run, tile_start: usize, from: usize, to: usize) {
        let minima = &self.tile.minima[from - tile_start..to - tile_start];
        let mut begin = 0;
        while begin < minima.len() {
            let minimizer = minima[begin];
            let longest = minima.len().min(begin + MAX_KMERS as usize);
            let mut end = begin + 1;
            while end < longest && minima[end] == minimizer {
                end += 1;
            }
            let stripe = self.dealer.stripe_of(minimizer) as usize;
            let kmers = (end - begin) as u32;
            let section = &mut self.sections[stripe];
            section.bytes += record_bytes(kmers, self.k);
            section.kmers += kmers;
            let marked = self.last_row[stripe] != run.row;
            self.last_row[stripe] = run.row;
            self.pieces.push(Piece {
                start: (from + begin) as u32,
                stripe: stripe as u16,
                kmers: kmers as u8,
                marked,
            });
            begin = end;
        }
    }

    /// Between the passes: where each section begins. Returns the bytes of all.
    fn place(&mut self) -> u32 {
        let mut offset = 0;
        for (section, cursor) in self.sections.iter_mut().zip(&mut self.cursors) {
            section.offset = offset;
            *cursor = offset;
            offset += if section.bytes == 0 { 0 } else { section.bytes + SECTION_PADDING as u32 };
        }
        offset
    }

    /// Second pass: every record to its place.
    fn copy(&mut self, packed: &[u8], out: &mut [u8]) {
        for piece in &self.pieces {
            let cursor = &mut self.cursors[piece.stripe as usize];
            let kmers = u32::from(piece.kmers);
            let bytes = record_bytes(kmers, self.k) as usize;
            let record = &mut out[*cursor as usize..*cursor as usize + bytes + SECTION_PADDING];
            record[0] = (piece.kmers - 1) | if piece.marked { NEW_ROW } else { 0 };
            copy_bases(packed, piece.start as usize, bytes - 1, &mut record[1..]);
            *cursor += bytes as u32;
        }
    }
}

/// Bytes of a record of `kmers` k-mers.
#[inline(always)]
const fn record_bytes(kmers: u32, k: u32) -> u32 {
    1 + (kmers + k - 1).div_ceil(4)
}

/// Copies `bytes` bytes of bases from base `start` on to the front of `out`, which has 7 bytes more that may be spoilt.
#[inline(always)]
fn copy_bases(packed: &[u8], start: usize, bytes: usize, out: &mut [u8]) {
    let (first, shift) = (start / 4, 2 * (start % 4) as u32);
    for at in (0..bytes).step_by(8) {
        let word = &packed[first + at..first + at + 9];
        let high = u64::from_be_bytes(word[..8].try_into().expect("8 bytes"));
        let bases = (high << shift) | u64::from(word[8]) >> (8 - shift);
        out[at..at + 8].copy_from_slice(&bases.to_be_bytes());
    }
}

/// A section that does not hold what its index says: damaged memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("section of super-k-mers: expected {expected} bytes, found a record that ends at {found}")]
pub struct BadSection {
    /// Bytes of the section.
    pub expected: usize,
    /// Where a record would end.
    pub found: usize,
}

/// Reads the records of a section: every k-mer with the number of its row.
///
/// `section` is the records and then at least [`SECTION_PADDING`] bytes that mean nothing; `bytes` says how many are records. Rows are numbered
/// on from `row`, which marks raise by one. `emit` gets the k-mer and its row's number.
///
/// # Errors
/// [`BadSection`] when the records do not end where the section does.
///
/// # Panics
/// When the padding is missing.
#[inline]
pub fn read_section(
    section: &[u8],
    bytes: usize,
    k: u32,
    row: &mut u32,
    mut emit: impl FnMut(u64, u32),
) -> Result<(), BadSection> {
    let mask = u64::MAX >> (64 - 2 * k);
    let bases = &section[..bytes + SECTION_PADDING];
    let mut at = 0;
    while at < bytes {
        let head = bases[at];
        *row += u32::from(head >> 7);
        let kmers = u32::from(head & !NEW_ROW) + 1;
        let end = at + record_bytes(kmers, k) as usize;
        if end > bytes {
            return Err(BadSection { expected: bytes, found: end });
        }
        let load = |from: usize| u64::from_be_bytes(bases[from..from + 8].try_into().expect("8 bytes"));
        let word = load(at + 1);
        // `kmer` has the first k - 1 bases; `queue` has those that follow, from the top.
        let mut kmer = word >> 1 >> (65 - 2 * k);
        let (mut next, mut queue, mut left) = (at + 9, word << (2 * k - 2), 33 - k);
        for _ in 0..kmers {
            if left == 0 {
                // What lies behind the section's padding is not needed: a record never reaches it.
                let from = next.min(bases.len() - 8);
                queue = load(from) << (8 * (next - from).min(7));
                (next, left) = (next + 8, 32);
            }
            kmer = (kmer << 2 | queue >> 62) & mask;
            (queue, left) = (queue << 2, left - 1);
            emit(kmer, *row);
        }
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bases::kmers_of;
    use crate::codec::pack_dna2;
    use crate::params::Params;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// What sections say: for every row of the unit (found by its first k-mers' order) its k-mers, and each k-mer's stripe.
    fn by_sections(
        rows: &[Vec<u8>],
        k: u32,
        stripe_bits: u32,
        batches: usize,
    ) -> (Vec<Vec<u64>>, BTreeMap<u64, usize>) {
        let params = Params::new(k, 0).expect("in range");
        let mut splitter = Splitter::new(Dealer::new(params, stripe_bits, 7), stripe_bits);
        splitter.begin_unit();
        let mut groups: BTreeMap<(usize, u32), Vec<u64>> = BTreeMap::new();
        let mut stripe_of = BTreeMap::new();
        let mut numbers = vec![0u32; 1 << stripe_bits];
        for (batch, chunk) in rows.chunks(rows.len().div_ceil(batches).max(1)).enumerate() {
            let mut bases = Bases::new(params);
            for (i, row) in chunk.iter().enumerate() {
                bases.push_dna2(
                    (batch * 1000 + i) as u32,
                    row.len() as u64,
                    &pack_dna2(row).expect("ACGT"),
                    0,
                );
            }
            let mut out = vec![1, 2, 3];
            let sections = splitter.split(&bases, &mut out).to_vec();
            for (stripe, section) in sections.iter().enumerate().filter(|(_, s)| s.bytes > 0) {
                let from = 3 + section.offset as usize;
                let mut kmers = 0;
                read_section(&out[from..], section.bytes as usize, k, &mut numbers[stripe], |kmer, row| {
                    groups.entry((stripe, row)).or_default().push(kmer);
                    let before = stripe_of.insert(kmer, stripe);
                    assert!(before.is_none_or(|b| b == stripe), "a k-mer in two stripes");
                    kmers += 1;
                })
                .expect("sound");
                assert_eq!(kmers, section.kmers);
            }
        }
        (groups.into_values().collect(), stripe_of)
    }

    fn naive_groups(rows: &[Vec<u8>], k: u32, stripe_of: &BTreeMap<u64, usize>) -> Vec<Vec<u64>> {
        let params = Params::new(k, 0).expect("in range");
        let mut groups: BTreeMap<(usize, usize), Vec<u64>> = BTreeMap::new();
        for (i, row) in rows.iter().enumerate().filter(|(_, row)| row.len() >= k as usize) {
            let packed = pack_dna2(row).expect("ACGT");
            let run = Run { start: 0, len: row.len() as u32, row: 0 };
            kmers_of(&packed, &run, params)
                .for_each(|kmer| groups.entry((stripe_of[&kmer], i)).or_default().push(kmer));
        }
        groups.into_values().collect()
    }

    proptest! {
        #[test]
        fn sections_hold_every_kmer_of_every_row(
            rows in prop::collection::vec(prop::collection::vec(prop::sample::select(&b"ACGT"[..]), 0..200), 1..30),
            k in 4..=32u32, stripe_bits in 0..8u32, batches in 1..4usize,
        ) {
            let (got, stripe_of) = by_sections(&rows, k, stripe_bits, batches);
            prop_assert_eq!(got, naive_groups(&rows, k, &stripe_of));
        }

        #[test]
        fn low_complexity_and_long_rows(repeat in 1..7usize, len in 0..9000usize, k in 4..=32u32) {
            let rows = vec![(0..len).map(|i| b"ACGTTGA"[i % repeat]).collect::<Vec<u8>>(), b"ACGTACGTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT".to_vec()];
            let (got, stripe_of) = by_sections(&rows, k, 5, 1);
            prop_assert_eq!(got, naive_groups(&rows, k, &stripe_of));
        }

        #[test]
        fn damaged_sections_end_in_an_error_or_at_the_end(bytes in prop::collection::vec(any::<u8>(), 0..200), k in 4..=32u32) {
            let len = bytes.len();
            let mut padded = bytes;
            padded.extend([0; SECTION_PADDING]);
            let _ = read_section(&padded, len, k, &mut 0, |_, _| ());
        }
    }

    #[test]
    fn a_row_shorter_than_k_leaves_nothing() {
        assert!(by_sections(&[b"ACG".to_vec()], 4, 3, 1).0.is_empty());
    }
}
