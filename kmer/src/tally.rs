//! Finds equal super-k-mers and says how often each came, so that its k-mers are counted once for all of them.
//!
//! Reads of the same place share most of their super-k-mers: at 27-fold coverage and half a percent of errors two in three are copies. A row
//! that has one record in a stripe has all its k-mers of that stripe in that record, so such records may be added up. So may those of a row with several,
//! if no two have the same minimizer, since a k-mer has the same one wherever it is. Other rows must be taken as they are: a k-mer of two of their records
//! counts once. [`Tally::sort_out`] parts the two.
//!
//! Open addressing over cache lines ([`crate::line`]), as many as it takes, of whose places at most five in eight are in use. The records of a stride are
//! loaded and hashed side by side, then added up one by one.

use crate::line::{Line, Masks, Places};
use crate::record::{Form, Record, parts};
use crate::simd;
use std::ops::Range;

/// Different records of a stripe, each with how often it came.
pub struct Tally<R> {
    form: Form,
    lines: Vec<Line>,
    hash: Hash,
    used: usize,
    records: Vec<R>,
    tags: Vec<u64>,
    told: usize,
    looked: Box<Looked<R>>,
}

/// Records that must be counted one by one, since others of their rows may have the same k-mers.
#[derive(Debug, Default, PartialEq)]
pub struct Others<R> {
    /// The records, marks and all.
    pub records: Vec<R>,
    /// For each the group that its row is, in the low half, and weight 1 in the high half. Groups are numbered down from the highest.
    pub tags: Vec<u64>,
}

/// How many records ahead lines are prefetched.
const AHEAD: usize = 8;
/// A table is made larger when more than this share of its places would be in use (numerator, denominator).
const MAX_LOAD: (usize, usize) = (5, 8);
/// Records between two looks at how full the table is.
const STRIDE: usize = 1024;

impl<R: Places> Tally<R> {
    /// An empty tally of records of this form, whose hash is drawn by `multiplier`.
    pub fn new(form: Form, multiplier: u64) -> Self {
        let (lines, records, tags) = (Vec::new(), Vec::new(), Vec::new());
        let hash = Hash { multiplier: multiplier | 1, lines: 1 };
        let mut tally = Self { form, lines, hash, used: 0, records, tags, told: 0, looked: Box::default() };
        tally.reset(0);
        tally
    }

    /// Empties the tally and fits it to about `records` different records, using its memory again.
    pub fn reset(&mut self, records: usize) {
        let places = (records + STRIDE) * MAX_LOAD.1 / MAX_LOAD.0;
        let lines = places.div_ceil(R::PLACES);
        self.lines.clear();
        self.lines.resize(lines, Line::default());
        self.hash.lines = u32::try_from(lines).expect("fewer lines than a stripe has bytes");
        (self.used, self.told) = (0, 0);
    }

    /// Takes the records in `bytes`, all of a stripe in their order: those that have no k-mer of another record of their row are added up here, the
    /// others go to `others`, which are emptied before. Where occurrences are counted and not rows, all are added up.
    ///
    /// # Errors
    /// What `bytes` has behind its last whole record, in bytes.
    pub fn sort_out(&mut self, bytes: &[u8], occurrences: bool, others: &mut Others<R>) -> Result<(), usize> {
        let size = R::WIDTH.bytes();
        let left = bytes.len() % size;
        if left != 0 {
            return Err(left);
        }
        others.records.clear();
        others.tags.clear();
        let count = bytes.len() / size;
        let mut course = Course { group: u32::MAX, used: self.used };
        for stride in (0..count).step_by(STRIDE) {
            self.make_room();
            course.used = self.used;
            let records = stride..count.min(stride + STRIDE);
            let (form, hash, lines, course) = (self.form, self.hash, &mut self.lines[..], &mut course);
            let looked = &mut *self.looked;
            simd::sort_out(Stride { bytes, records, occurrences, form, hash, lines, looked, others, course });
            self.used = course.used;
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if (self.used + STRIDE) * MAX_LOAD.1 > self.lines.len() * R::PLACES * MAX_LOAD.0 {
            let old = std::mem::take(&mut self.lines);
            self.reset(self.used * 2 + STRIDE);
            let places = old.iter().flat_map(|line| (0..R::PLACES).map(|place| R::get(line, place)));
            for (record, weight) in places.filter(|(_, weight)| *weight != 0) {
                let line = self.hash.line(record) as usize;
                self.used += usize::from(add(line, &mut self.lines, record, weight, Line::masks));
            }
        }
    }

    /// The different records, in no order that means anything, and for each a tag: a group of its own, from 1, in the low half, and how often
    /// the record came in the high half.
    pub fn distinct(&mut self) -> (&[R], &[u64]) {
        self.records.resize(self.used + 1, R::default());
        self.tags.resize(self.used + 1, 0);
        let mut filled = 0;
        for line in &self.lines {
            for (record, weight) in (0..R::PLACES).map(|place| R::get(line, place)) {
                // Written whether it is one or not, so that there is nothing to guess.
                self.records[filled] = record;
                self.tags[filled] = u64::from(weight) << 32 | (filled as u64 + 1);
                filled += usize::from(weight != 0);
            }
        }
        self.told = filled;
        self.told()
    }

    /// What [`Tally::distinct`] found last.
    pub fn told(&self) -> (&[R], &[u64]) {
        (&self.records[..self.told], &self.tags[..self.told])
    }
}

/// Where a record's search begins.
#[derive(Clone, Copy)]
pub(crate) struct Hash {
    multiplier: u64,
    lines: u32,
}

impl Hash {
    /// Less than there are lines.
    #[inline(always)]
    fn line<R: Record>(self, record: R) -> u32 {
        // The high half as a share of all lines.
        (((record.hash(self.multiplier) >> 32) * u64::from(self.lines)) >> 32) as u32
    }
}

/// Adds to the record's weight, in line `at` or the next ones. True when the record is new; if it has no weight it is not, and is not put anywhere.
#[inline(always)]
fn add<R: Places>(
    mut at: usize,
    lines: &mut [Line],
    record: R,
    weight: u32,
    masks: impl Fn(&Line, u64, u64) -> Masks,
) -> bool {
    let (first, second) = record.sought();
    loop {
        let line = &mut lines[at];
        let found = R::found(masks(line, first, second));
        if found != 0 {
            // A record without weight may stand in a place that is free, which stays free.
            return record.add(line, found.trailing_zeros() as usize, weight) & (weight != 0);
        }
        at = if at + 1 == lines.len() { 0 } else { at + 1 };
    }
}

/// How far a stripe has been sorted out.
pub(crate) struct Course {
    /// The group of the last row with several records.
    group: u32,
    used: usize,
}

/// Some of the records in `bytes`, for which there is room, and what they are sorted out into.
pub(crate) struct Stride<'a, R> {
    bytes: &'a [u8],
    records: Range<usize>,
    occurrences: bool,
    form: Form,
    hash: Hash,
    lines: &'a mut [Line],
    looked: &'a mut Looked<R>,
    others: &'a mut Others<R>,
    course: &'a mut Course,
}

/// The records of a stride, as they are looked at side by side before they are added up one by one.
pub(crate) struct Looked<R> {
    /// Without their marks.
    records: [R; STRIDE],
    /// Their lines, and behind the last ones that may be asked for.
    lines: [u32; STRIDE + AHEAD],
    /// Whether the record begins a row; behind the last whether the row ends there.
    begins: [bool; STRIDE + 1],
    /// 1 for those that are added up, 0 for those that go to the others.
    weights: [u32; STRIDE],
}

impl<R: Record> Default for Looked<R> {
    fn default() -> Self {
        let (records, lines) = ([R::default(); STRIDE], [0; STRIDE + AHEAD]);
        Self { records, lines, begins: [false; STRIDE + 1], weights: [0; STRIDE] }
    }
}

impl<R: Record> Looked<R> {
    /// Looks at as many records as there are room for; the first `bytes` are theirs, and what is behind is the next stride's.
    #[inline(always)]
    fn look(&mut self, bytes: &[u8], count: usize, occurrences: bool, hash: Hash) {
        let size = R::WIDTH.bytes();
        let places = self.records.iter_mut().zip(&mut self.lines).zip(&mut self.begins);
        for (((record, line), begins), bytes) in places.zip(bytes[..count * size].chunks_exact(size)) {
            let found = R::load(bytes);
            (*record, *begins) = (found.unmarked(), found.is_marked());
            *line = hash.line(*record);
        }
        let next = bytes.get(count * size..(count + 1) * size);
        self.begins[count] = next.is_none_or(|bytes| R::load(bytes).is_marked());
        let pairs = self.begins.iter().zip(&self.begins[1..]);
        for (weight, (begins, ends)) in self.weights[..count].iter_mut().zip(pairs) {
            *weight = u32::from(occurrences | (begins & ends));
        }
    }

    /// Weighs those rows among the first `count` records that have several, but none with the minimizer of another, and gives the records that are left
    /// without weight to the others. True when these are not all.
    #[inline(always)]
    fn part(&mut self, count: usize, form: Form, group: &mut u32, others: &mut Others<R>) -> bool {
        let (before, mut from) = (others.records.len(), 0);
        while let Some(first) = self.next_weightless(from, count) {
            let next = self.begins[first + 1..=count].iter().position(|begins| *begins);
            from = next.map_or(count, |next| first + 1 + next);
            let row = first..from;
            // A row that began before, or goes on, is not seen whole.
            if self.begins[first] && next.is_some() && have_own_minimizers(&self.records[row.clone()], form) {
                self.weights[row].fill(1);
                continue;
            }
            for i in row {
                let (record, begins) = (self.records[i], self.begins[i]);
                *group = group.wrapping_sub(u32::from(begins));
                others.records.push(if begins { record.marked() } else { record });
                others.tags.push(1 << 32 | u64::from(*group));
            }
        }
        others.records.len() - before < count
    }

    /// The first record from `from` on, of `count`, that has no weight.
    #[inline(always)]
    fn next_weightless(&self, from: usize, count: usize) -> Option<usize> {
        const AT_A_TIME: usize = 16;
        let weights = &self.weights[from..count];
        // Mostly it is none of them.
        let all = weights.chunks_exact(AT_A_TIME).take_while(|w| w.iter().sum::<u32>() as usize == AT_A_TIME);
        let passed = all.count() * AT_A_TIME;
        weights[passed..].iter().position(|weight| *weight == 0).map(|at| from + passed + at)
    }
}

/// Whether each of a row's records in this stripe has another minimizer: then no k-mer is in two of them. Rows with many records are not looked at.
#[inline(always)]
fn have_own_minimizers<R: Record>(row: &[R], form: Form) -> bool {
    const MOST: usize = 16;
    let rest = |record: &R| parts(form, *record).rest;
    let is_first = |(i, record): (usize, &R)| row[..i].iter().all(|other| rest(other) != rest(record));
    row.len() <= MOST && row.iter().enumerate().all(is_first)
}

/// [`Tally::sort_out`] for a stride, by [`Line::masks`] or instructions for it.
#[inline(always)]
pub(crate) fn sort_out_any<R: Places>(
    stride: Stride<'_, R>,
    masks: impl Fn(&Line, u64, u64) -> Masks + Copy,
) {
    let Stride { bytes, records, occurrences, form, hash, lines, looked, others, course } = stride;
    let count = records.len();
    looked.look(&bytes[records.start * R::WIDTH.bytes()..], count, occurrences, hash);
    if !looked.part(count, form, &mut course.group, others) {
        // As where rows are whole genomes.
        return;
    }
    for line in &looked.lines[..AHEAD] {
        simd::prefetch_behind(&lines[0], *line as usize * size_of::<Line>());
    }
    let mut used = course.used;
    let places = looked.lines[..count].iter().zip(&looked.lines[AHEAD..]);
    let weighed = looked.records[..count].iter().zip(&looked.weights);
    for ((line, later), (record, weight)) in places.zip(weighed) {
        simd::prefetch_behind(&lines[0], *later as usize * size_of::<Line>());
        used += usize::from(add(*line as usize, lines, *record, *weight, masks));
    }
    course.used = used;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minimizer::Dealer;
    use crate::params::Params;
    use crate::record::{Eight, Six, Sixteen, Twelve};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Kinds that are 64 apart differ in their last bytes only, which wide records have in their second word.
    fn record<R: Record>(kind: usize, marked: bool) -> R {
        let mut bytes: Vec<u8> =
            (0..R::WIDTH.bytes()).map(|i| (kind % 64 * 37 + i * (kind % 64)) as u8).collect();
        bytes[R::WIDTH.bytes() - 1] ^= (kind / 64) as u8;
        bytes[0] = bytes[0] & !1 | u8::from(marked);
        R::load(&bytes)
    }

    /// The form of records of that width with 2048 stripes.
    fn form<R: Record>() -> Form {
        let k = match R::WIDTH.bytes() {
            6 => 16,
            8 => 21,
            12 => 31,
            _ => 32,
        };
        let form = Dealer::new(Params::new(k, 0).expect("in range"), 11, 7).form();
        assert_eq!(form.width(), R::WIDTH);
        form
    }

    /// Whether the records of a row, of which so many others come before it, may be added up.
    fn is_weighed<R: Record>(row: &[usize], before: usize) -> bool {
        let rest = |kind: &usize| parts(form::<R>(), record::<R>(*kind, false)).rest;
        let rests: BTreeSet<u64> = row.iter().map(rest).collect();
        let is_in_a_stride = before / STRIDE == (before + row.len() - 1) / STRIDE;
        row.len() == 1 || row.len() <= 16 && rests.len() == row.len() && is_in_a_stride
    }

    /// Returns how many rows with several records were added up, and how many were not.
    fn check<R: Places>(rows: &[Vec<usize>], multiplier: u64) -> (usize, usize) {
        let marked = |row: &Vec<usize>| {
            row.iter().enumerate().map(|(i, kind)| record::<R>(*kind, i == 0)).collect::<Vec<_>>()
        };
        let stream: Vec<R> = rows.iter().flat_map(marked).collect();
        let size = R::WIDTH.bytes();
        let mut bytes = vec![0; stream.len() * size];
        stream.iter().zip(bytes.chunks_exact_mut(size)).for_each(|(r, b)| r.store(b));
        let (mut tally, mut others) = (Tally::<R>::new(form::<R>(), multiplier), Others::default());
        assert_eq!(tally.sort_out(&bytes, false, &mut others), Ok(()));
        let named = |record: &R| format!("{record:?}");
        let (mut weighed, mut several, mut before) = (Vec::new(), Vec::new(), 0);
        for row in rows {
            let to = if is_weighed::<R>(row, before) { &mut weighed } else { &mut several };
            to.push(row);
            before += row.len();
        }
        let mut want: BTreeMap<String, u32> = BTreeMap::new();
        for kind in weighed.iter().copied().flatten() {
            *want.entry(named(&record(*kind, false))).or_default() += 1;
        }
        let used = tally.used;
        let (records, tags) = tally.distinct();
        assert_eq!(used, records.len());
        let groups: Vec<u32> = tags.iter().map(|t| *t as u32).collect();
        assert_eq!(groups, (1..=records.len() as u32).collect::<Vec<_>>());
        let got: BTreeMap<String, u32> =
            records.iter().map(named).zip(tags.iter().map(|t| (t >> 32) as u32)).collect();
        assert_eq!((got.len(), got), (records.len(), want));
        assert_eq!(others.records, several.iter().flat_map(|r| marked(r)).collect::<Vec<_>>());
        let tags = several
            .iter()
            .enumerate()
            .flat_map(|(i, r)| vec![1 << 32 | u64::from(u32::MAX - 1 - i as u32); r.len()]);
        assert_eq!(others.tags, tags.collect::<Vec<_>>());
        (weighed.iter().filter(|row| row.len() > 1).count(), several.len())
    }

    #[test]
    fn rows_of_several_minimizers_are_added_up_where_they_are_seen_whole() {
        // Rows of three, of which one in the stride's middle has a kind twice; the last of the first stride goes on in the next. One has too many.
        let mut rows: Vec<Vec<usize>> = (0..700).map(|i| vec![i % 60, i % 60 + 1, i % 60 + 2]).collect();
        rows[100][2] = rows[100][0];
        rows.push((0..17).collect());
        let (weighed, left) = check::<Twelve>(&rows, 5);
        assert!(weighed > 500 && left > 2, "{weighed} {left}");
        check::<Sixteen>(&rows, 5);
        check::<Eight>(&rows, 5);
        check::<Six>(&rows, 5);
    }

    proptest! {
        #[test]
        fn rows_without_a_minimizer_twice_are_added_up_and_others_left(
            rows in prop::collection::vec(prop::collection::vec(0..200usize, 1..4), 0..2000), multiplier in any::<u64>(),
        ) {
            check::<Six>(&rows, multiplier);
            check::<Eight>(&rows, multiplier);
            check::<Twelve>(&rows, multiplier);
            check::<Sixteen>(&rows, multiplier);
        }
    }

    /// More records than a small table has places for, and all of them at home in its first line.
    #[test]
    fn full_lines_lead_to_the_next_and_tables_grow() {
        fn check<R: Places>() {
            let (mut tally, mut others) = (Tally::<R>::new(form::<R>(), 0), Others::default());
            tally.hash.multiplier = 0;
            let (kinds, size) = (3000u32, R::WIDTH.bytes());
            let one = |kind: u32| {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&(kind << 1 | 1).to_le_bytes());
                R::load(&bytes)
            };
            let mut bytes = vec![0; 2 * kinds as usize * size];
            (0..2 * kinds).zip(bytes.chunks_exact_mut(size)).for_each(|(i, b)| one(i % kinds).store(b));
            tally.sort_out(&bytes, false, &mut others).expect("whole records");
            let (records, tags) = tally.distinct();
            assert_eq!(records.len(), kinds as usize);
            assert!(tags.iter().all(|tag| tag >> 32 == 2));
        }
        check::<Six>();
        check::<Eight>();
        check::<Twelve>();
        check::<Sixteen>();
    }

    #[test]
    fn a_part_of_a_record_is_an_error() {
        assert_eq!(
            Tally::<Eight>::new(form::<Eight>(), 1).sort_out(&[0; 11], false, &mut Others::default()),
            Err(3)
        );
    }
}
