//! Cuts runs into super-k-mers and sorts their records by stripe.
//!
//! A super-k-mer is a stretch of a run whose k-mers all have one minimizer, at one place, and so belong to one stripe; its record is a number of 6 to 16
//! bytes, see [`crate::record`]. Records of one stripe make a *section*, one behind the other. A row begins with a marked record, and unmarked
//! ones belong to the row before them, so a reader knows which k-mers are of one row without a row number in each record.
//!
//! Cutting and sorting are two passes: first a list of (where, stripe, how many), from which the size of each section is known, then the records
//! into place. So nothing grows while records are written, and a section is never moved. The list is made without questions to which the
//! processor could guess the answer wrong: where super-k-mers end is known beforehand (`stretches.rs`), and one that is not to be written is
//! overwritten by the next.

use crate::bases::{Bases, Run};
use crate::minimizer::{Dealer, TILE, Tile, place_of};
use crate::record::{Eight, NEW_ROW, Six, Sixteen, Twelve, Width};
use crate::simd;
use crate::stretches::{AGAIN, Stretch, Stretches, around};
use std::ops::Range;

/// Where a section lies in a batch, and what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// First byte, from the start of the batch's sections.
    pub offset: u32,
    /// Bytes of records.
    pub bytes: u32,
    /// k-mers in the records.
    pub kmers: u32,
    /// Rows that have a record here, those aside that have one in an earlier batch of the unit.
    pub rows: u32,
}

/// Rows of a stripe while a batch is cut.
#[derive(Clone, Copy)]
struct Rows {
    /// The row of the last record, from batch to batch of a unit.
    last: u32,
    /// Of this batch, rows in the low half and records to be written in the high one: both are added to at once.
    found: u64,
}

impl Rows {
    const NONE: Self = Self { last: NO_ROW, found: 0 };
}

/// A super-k-mer that was found.
///
/// ```text
/// 0..10, 12..32   where it is around its minimizer, and the number of that: see [`around`]
/// 10              the first of its row in its stripe
/// 11              [`AGAIN`]: it is several, and of the others only the first base means anything; never in one that is written
/// 32..64          first base
/// ```
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(crate) struct Piece(u64);

impl Piece {
    #[inline(always)]
    pub(crate) fn new(start: u32, around: u32) -> Self {
        Self(u64::from(start) << 32 | u64::from(around))
    }
    #[inline(always)]
    fn marked(self, is_new: bool) -> Self {
        Self(self.0 | u64::from(is_new) << 10)
    }
    #[inline(always)]
    fn is_several(self) -> bool {
        self.0 as u32 & AGAIN != 0
    }
    #[inline(always)]
    pub(crate) fn start(self) -> usize {
        (self.0 >> 32) as usize
    }
    #[inline(always)]
    pub(crate) fn number(self) -> u32 {
        self.0 as u32 >> 12
    }
    /// [`NEW_ROW`] or 0.
    #[inline(always)]
    pub(crate) fn mark(self) -> u64 {
        self.0 >> 10 & NEW_ROW
    }
    #[inline(always)]
    pub(crate) fn kmers(self) -> u32 {
        self.0 as u32 >> 5 & 31
    }
    #[inline(always)]
    pub(crate) fn before(self) -> u32 {
        self.0 as u32 & 31
    }
}

/// Which stripes a splitter is to write: those with `stripe & mask == pass`. Of the others only the rows are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// 2^pass_bits passes over the rows take a part of the stripes each.
    pub pass_bits: u32,
    /// Which of them.
    pub pass: u32,
}

impl Share {
    /// Whether a stripe is written in a pass.
    #[inline(always)]
    pub const fn writes(self, stripe: u32) -> bool {
        stripe & ((1 << self.pass_bits) - 1) == self.pass
    }
}

/// Cuts and sorts; keeps its memory from batch to batch, and the last row of each stripe from batch to batch of a unit.
pub struct Splitter {
    dealer: Dealer,
    k: u32,
    width: Width,
    tile: Tile,
    stretches: Stretches,
    /// The first `found` are of this batch.
    pieces: Vec<Piece>,
    found: usize,
    rows: Vec<Rows>,
    sections: Vec<Section>,
    /// Where the next record of a stripe goes, and in the high half the k-mers of those before it.
    cursors: Vec<u64>,
    share: Share,
    left_out: u64,
    occurrences: bool,
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
            width: dealer.form().width(),
            tile: Tile::default(),
            stretches: Stretches::default(),
            pieces: Vec::new(),
            found: 0,
            rows: vec![Rows::NONE; stripes],
            sections: vec![Section::default(); stripes],
            cursors: vec![0; stripes],
            share: Share::default(),
            left_out: 0,
            occurrences: false,
        }
    }

    /// The same where occurrences are counted, not rows: a section's rows, by which counts are bounded, are then its k-mers.
    #[must_use]
    pub fn of_occurrences(self, occurrences: bool) -> Self {
        Self { occurrences, ..self }
    }

    /// Begins a unit, of which `share` is to be written: the first record of every stripe is marked again.
    pub fn begin_unit(&mut self, share: Share) {
        (self.share, self.left_out) = (share, 0);
        self.rows.fill(Rows::NONE);
    }

    /// k-mers of this unit so far that were not written, being of another pass.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Cuts the runs of `bases` and writes their records to `out` from byte `from` on, sorted by stripe. The sections, one a stripe, say where; their
    /// offsets count from there. `out` grows if it has to; what it has behind the last section is of no meaning: to clear it, only to write over
    /// it, would take time.
    pub fn split(&mut self, bases: &Bases, out: &mut Vec<u8>, from: usize) -> &[Section] {
        self.found = 0;
        self.cut(bases);
        let total = self.place();
        let end = from + total as usize;
        if out.len() < end {
            out.resize(end, 0);
        }
        // Second pass: every record to its place.
        let (pieces, packed) = (&self.pieces[..self.found], bases.packed());
        let (cursors, out) = (&mut self.cursors[..], &mut out[from..end]);
        let dealer = &self.dealer;
        match self.width {
            Width::Six => simd::write_records::<Six>(pieces, packed, dealer, cursors, out),
            Width::Eight => simd::write_records::<Eight>(pieces, packed, dealer, cursors, out),
            Width::Twelve => simd::write_records::<Twelve>(pieces, packed, dealer, cursors, out),
            Width::Sixteen => simd::write_records::<Sixteen>(pieces, packed, dealer, cursors, out),
        }
        for (section, cursor) in self.sections.iter_mut().zip(&self.cursors) {
            section.kmers = (cursor >> 32) as u32;
        }
        // In a single pass nothing is left out, and whoever adds up sees it if something is missing.
        if self.share.pass_bits > 0 {
            let all: usize = bases.runs().iter().map(|run| self.kmers(run).len()).sum();
            let written: u64 = self.sections.iter().map(|section| u64::from(section.kmers)).sum();
            self.left_out += (all as u64).wrapping_sub(written);
        }
        &self.sections
    }

    /// First pass: minimizers tile by tile, runs cut where they change.
    fn cut(&mut self, bases: &Bases) {
        match self.occurrences {
            false => self.cut_as::<false>(bases),
            true => self.cut_as::<true>(bases),
        }
    }

    fn cut_as<const OCCURRENCES: bool>(&mut self, bases: &Bases) {
        let runs = bases.runs();
        let mut next = 0;
        let mut tile_start = 0;
        while next < runs.len() {
            // A tile begins with a run, or within a run that is longer than a tile.
            tile_start = tile_start.max(runs[next].start as usize);
            let end = tile_start + TILE;
            if self.kmers(&runs[next]).end > end {
                self.cut_tile::<OCCURRENCES>(bases, &runs[next..=next], tile_start..end);
                tile_start = end;
                continue;
            }
            // As many whole runs as the tile holds.
            let whole = runs[next..].iter().take_while(|run| self.kmers(run).end <= end).count();
            let end = self.kmers(&runs[next + whole - 1]).end;
            self.cut_tile::<OCCURRENCES>(bases, &runs[next..next + whole], tile_start..end);
            next += whole;
            tile_start = end.next_multiple_of(4);
        }
    }

    /// Where the k-mers of a run start.
    #[inline(always)]
    fn kmers(&self, run: &Run) -> Range<usize> {
        run.start as usize..(run.start + run.len - self.k + 1) as usize
    }

    /// Cuts what `runs` have in a tile, at least one k-mer each.
    #[inline]
    fn cut_tile<const OCCURRENCES: bool>(&mut self, bases: &Bases, runs: &[Run], tile: Range<usize>) {
        self.dealer.minimizers(bases.packed(), tile.start, tile.len(), &mut self.tile);
        // A tile has no more super-k-mers than positions.
        if self.pieces.len() < self.found + tile.len() {
            self.pieces.resize((self.found + tile.len()) * 2, Piece::default());
        }
        let k = self.k;
        let within = |run: &Run| {
            let stop = (run.start + run.len - k + 1) as usize;
            (run.start as usize).max(tile.start) - tile.start..stop.min(tile.end) - tile.start
        };
        let runs_within = runs.iter().map(within);
        let found = self.stretches.find(&self.dealer, &self.tile, (tile.start, tile.len()), runs_within);
        let mut sink = Sink {
            rows: &mut self.rows,
            pieces: &mut self.pieces[self.found..],
            found: 0,
            row: 0,
            share: self.share,
            rest_bits: self.dealer.rest_bits,
            lanes: self.tile.minimizers(),
            first: tile.start,
            window: self.dealer.window() as u32,
        };
        let mut at = 0;
        for run in runs {
            let Range { start: begin, end } = within(run);
            let behind = found.up_to(end - 1);
            let (list, pieces) = (&found.list[at..behind], &found.pieces[at..behind]);
            sink.row = run.row;
            let mut stretches = list.iter().zip(pieces);
            // The one before it may have ended before the run began.
            if let Some((stretch, _)) = stretches.next() {
                let how = around(*stretch, begin as u32, found.minimizers[at], sink.window);
                sink.take::<OCCURRENCES>(Piece::new((tile.start + begin) as u32, how), *stretch);
            }
            for (stretch, piece) in stretches {
                sink.take::<OCCURRENCES>(*piece, *stretch);
            }
            at = behind;
        }
        self.found += sink.found;
    }

    /// Between the passes: where each section begins; its k-mers are added up in the second. Returns the bytes of all.
    fn place(&mut self) -> u32 {
        let mut offset = 0;
        for (rows, (section, cursor)) in
            self.rows.iter_mut().zip(self.sections.iter_mut().zip(&mut self.cursors))
        {
            let bytes = (rows.found >> 32) as u32 * self.width.bytes() as u32;
            *section = Section { offset, bytes, kmers: 0, rows: rows.found as u32 };
            (*cursor, rows.found) = (u64::from(offset), 0);
            offset += bytes;
        }
        offset
    }
}

/// The super-k-mers of a stretch that begins at `begin`, whose minimizer comes again and again: of each the first k-mer, and how it lies around the one that
/// all its k-mers have. They may have a k-mer twice, so they are two at least: a record that is alone in its row has none twice.
#[cold]
fn repeats(
    lanes: &[u32],
    mut begin: usize,
    stretch: Stretch,
    window: u32,
) -> impl Iterator<Item = (usize, u32)> {
    let start = begin;
    std::iter::from_fn(move || {
        let first = begin;
        if first > stretch.last() {
            return None;
        }
        let minimizer = place_of(lanes[first]);
        // As its minimizer comes again, the stretch has two k-mers.
        let most = if first == start { stretch.last() - 1 } else { stretch.last() };
        let piece = Stretch::new(most.min(minimizer) as u32, stretch.number());
        begin = piece.last() + 1;
        Some((first, around(piece, first as u32, minimizer as u32, window)))
    })
}

/// Takes the super-k-mers of a tile.
struct Sink<'a> {
    rows: &'a mut [Rows],
    /// The first `found` are of this tile.
    pieces: &'a mut [Piece],
    found: usize,
    row: u32,
    share: Share,
    rest_bits: u32,
    lanes: &'a [u32],
    /// The tile's first base.
    first: usize,
    window: u32,
}

impl Sink<'_> {
    /// Takes a stretch, and what it is as one piece.
    #[inline(always)]
    fn take<const OCCURRENCES: bool>(&mut self, piece: Piece, stretch: Stretch) {
        let stripe = stretch.number() >> self.rest_bits;
        if piece.is_several() {
            for (first, how) in repeats(self.lanes, piece.start() - self.first, stretch, self.window) {
                self.found::<OCCURRENCES>(Piece::new((self.first + first) as u32, how), stripe);
            }
        } else {
            self.found::<OCCURRENCES>(piece, stripe);
        }
    }

    #[inline(always)]
    fn found<const OCCURRENCES: bool>(&mut self, piece: Piece, stripe: u32) {
        let rows = &mut self.rows[stripe as usize];
        let new = rows.last != self.row;
        rows.last = self.row;
        // Whether it is to be written is not asked but counted with: there is nothing to guess.
        let is_written = self.share.writes(stripe);
        rows.found +=
            u64::from(is_written) << 32 | if OCCURRENCES { u64::from(piece.kmers()) } else { u64::from(new) };
        self.pieces[self.found] = piece.marked(new);
        self.found += usize::from(is_written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bases::kmers_of;
    use crate::codec::pack_dna2;
    use crate::params::Params;
    use crate::record::Record;
    use crate::spelled::{Expanded, Speller, expand};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Every k-mer of a stripe's records, with the number of its row: marks counted on from `row`.
    fn read<R: Record>(records: &[u8], speller: &Speller, row: &mut u32, each: &mut impl FnMut(u64, u32)) {
        for bytes in records.chunks_exact(R::WIDTH.bytes()) {
            let record = R::load(bytes);
            *row += u32::from(record.is_marked());
            let mut expanded = Expanded::<u64>::new(64);
            assert_eq!(expand(&[record], &[1 << 32], speller, &mut expanded), Ok(1));
            assert_eq!(expanded.weighed, expanded.len as u64);
            expanded.pairs().0.iter().for_each(|kmer| each(*kmer, *row));
        }
    }

    /// What sections say: for every row of the unit (found by its first k-mers' order) its k-mers, and each k-mer's stripe.
    fn by_sections(
        rows: &[Vec<u8>],
        params: Params,
        stripe_bits: u32,
        batches: usize,
    ) -> (Vec<Vec<u64>>, BTreeMap<u64, usize>) {
        let mut splitter = Splitter::new(Dealer::new(params, stripe_bits, 7), stripe_bits);
        let mut speller = Speller::new(Dealer::new(params, stripe_bits, 7));
        splitter.begin_unit(Share::default());
        let mut groups: BTreeMap<(usize, u32), Vec<u64>> = BTreeMap::new();
        let mut stripe_of = BTreeMap::new();
        let mut numbers = vec![0u32; 1 << stripe_bits];
        for (batch, chunk) in rows.chunks(rows.len().div_ceil(batches).max(1)).enumerate() {
            let mut bases = Bases::new(params);
            for (i, row) in chunk.iter().enumerate() {
                let packed = pack_dna2(row).expect("ACGT");
                bases.push_dna2((batch * 1000 + i) as u32, row.len() as u64, &packed);
            }
            let mut out = vec![1, 2, 3];
            let sections = splitter.split(&bases, &mut out, 3).to_vec();
            for (stripe, section) in sections.iter().enumerate() {
                let from = 3 + section.offset as usize;
                let records = &out[from..from + section.bytes as usize];
                let (mut kmers, first) = (0, numbers[stripe]);
                let mut each = |kmer, row| {
                    groups.entry((stripe, row)).or_default().push(kmer);
                    let before = stripe_of.insert(kmer, stripe);
                    assert!(before.is_none_or(|b| b == stripe), "a k-mer in two stripes");
                    kmers += 1;
                };
                speller.begin_stripe(stripe as u32, section.bytes as usize / splitter.width.bytes());
                let (speller, row) = (&speller, &mut numbers[stripe]);
                match splitter.width {
                    Width::Six => read::<Six>(records, speller, row, &mut each),
                    Width::Eight => read::<Eight>(records, speller, row, &mut each),
                    Width::Twelve => read::<Twelve>(records, speller, row, &mut each),
                    Width::Sixteen => read::<Sixteen>(records, speller, row, &mut each),
                }
                assert_eq!((kmers, numbers[stripe] - first), (section.kmers, section.rows));
            }
        }
        (groups.into_values().collect(), stripe_of)
    }

    fn naive_groups(rows: &[Vec<u8>], params: Params, stripe_of: &BTreeMap<u64, usize>) -> Vec<Vec<u64>> {
        let mut groups: BTreeMap<(usize, usize), Vec<u64>> = BTreeMap::new();
        for (i, row) in rows.iter().enumerate().filter(|(_, row)| row.len() >= params.k() as usize) {
            let packed = pack_dna2(row).expect("ACGT");
            let run = Run { start: 0, len: row.len() as u32, row: 0 };
            kmers_of(&packed, &run, params)
                .map(|kmer| params.counted_as(kmer))
                .for_each(|kmer| groups.entry((stripe_of[&kmer], i)).or_default().push(kmer));
        }
        groups.into_values().collect()
    }

    proptest! {
        #[test]
        fn sections_hold_every_kmer_of_every_row(
            rows in prop::collection::vec(prop::collection::vec(prop::sample::select(&b"ACGT"[..]), 0..200), 1..30),
            k in 4..=32u32, canonical: bool, stripe_bits in 0..12u32, batches in 1..4usize,
        ) {
            let params = Params::new(k, 0).unwrap().with_canonical(canonical);
            let (got, stripe_of) = by_sections(&rows, params, stripe_bits, batches);
            prop_assert_eq!(got, naive_groups(&rows, params, &stripe_of));
        }

        #[test]
        fn low_complexity_and_long_rows(repeat in 1..7usize, len in 0..9000usize, k in 4..=32u32, canonical: bool) {
            let params = Params::new(k, 0).unwrap().with_canonical(canonical);
            let rows = vec![(0..len).map(|i| b"ACGTTGA"[i % repeat]).collect::<Vec<u8>>(), b"ACGTACGTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT".to_vec()];
            let (got, stripe_of) = by_sections(&rows, params, 5, 1);
            prop_assert_eq!(got, naive_groups(&rows, params, &stripe_of));
        }
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_whole(
            rows in prop::collection::vec(prop::collection::vec(prop::sample::select(&b"ACGT"[..]), 0..300), 1..20),
            k in 4..=32u32, pass_bits in 0..3u32,
        ) {
            let params = Params::new(k, 0).unwrap();
            let mut bases = Bases::new(params);
            for (i, row) in rows.iter().enumerate() {
                bases.push_dna2(i as u32, row.len() as u64, &pack_dna2(row).unwrap());
            }
            let mut splitter = Splitter::new(Dealer::new(params, 5, 3), 5);
            let mut split = |share| {
                splitter.begin_unit(share);
                // Of earlier use, and too short.
                let mut out = vec![0xff; 100];
                let sections = splitter.split(&bases, &mut out, 0).to_vec();
                let records = sections.iter().map(|s| out[s.offset as usize..][..s.bytes as usize].to_vec()).collect::<Vec<_>>();
                (sections, records, splitter.left_out())
            };
            let (whole, want, _) = split(Share::default());
            for pass in 0..1 << pass_bits {
                let share = Share { pass_bits, pass };
                let (sections, records, left_out) = split(share);
                let mut kmers = left_out;
                for stripe in 0..32u32 {
                    let (i, writes) = (stripe as usize, share.writes(stripe));
                    prop_assert_eq!(&records[i], if writes { &want[i] } else { &want[0][..0] });
                    prop_assert_eq!(sections[i].rows, whole[i].rows);
                    kmers += u64::from(sections[i].kmers);
                }
                prop_assert_eq!(kmers, bases.counts().kmers);
            }
        }
    }

    proptest! {
        #[test]
        fn a_record_that_is_alone_in_its_row_has_no_kmer_twice(
            letters in prop::collection::vec(prop::sample::select(&b"AAAC"[..]), 1..9), times in 1..12usize, k in 4..=32u32, seed: u64,
        ) {
            let params = Params::new(k, 0).unwrap();
            let mut bases = Bases::new(params);
            let row = letters.repeat(times);
            bases.push_dna2(1, row.len() as u64, &pack_dna2(&row).unwrap());
            let mut splitter = Splitter::new(Dealer::new(params, 4, seed), 4);
            splitter.begin_unit(Share::default());
            let mut out = Vec::new();
            let sections = splitter.split(&bases, &mut out, 0).to_vec();
            let mut speller = Speller::new(Dealer::new(params, 4, seed));
            let size = splitter.width.bytes();
            for (stripe, section) in sections.iter().enumerate().filter(|(_, section)| section.bytes as usize == size) {
                speller.begin_stripe(stripe as u32, 1);
                let (record, mut kmers) = (&out[section.offset as usize..][..size], Vec::new());
                let mut each = |kmer, _| kmers.push(kmer);
                match splitter.width {
                    Width::Six => read::<Six>(record, &speller, &mut 0, &mut each),
                    Width::Eight => read::<Eight>(record, &speller, &mut 0, &mut each),
                    Width::Twelve => read::<Twelve>(record, &speller, &mut 0, &mut each),
                    Width::Sixteen => read::<Sixteen>(record, &speller, &mut 0, &mut each),
                }
                let found = kmers.len();
                kmers.sort_unstable();
                kmers.dedup();
                prop_assert_eq!(kmers.len(), found);
            }
        }
    }

    #[test]
    fn a_row_shorter_than_k_leaves_nothing() {
        let params = Params::new(4, 0).expect("in range");
        assert!(by_sections(&[b"ACG".to_vec()], params, 3, 1).0.is_empty());
    }
}
