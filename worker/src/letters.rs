//! Rows that come as letters: records of sequence files, whole or in parts.
//!
//! Windows do not cross the parts' borders by themselves, so the last k - 1 letters of a part stand before the next one: every window is then in
//! exactly one piece, whatever the letters are. A row is a record, or with `--row-per-file` all records of a file, between which there are no
//! windows.
//!
//! Of rows that units share only the unit's portion is added, but each unit reads all of them: it knows how long a record was and, where letters that
//! mean nothing are passed over, how many there were.

use crate::error::WorkError;
use crate::portion::Portion;
use crate::spool::NO_ROW;
use kmer::bases::{Bases, odd_letter};
use kmer::codec::dna4_code;
use sequence::Part;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of lines that are looked at together where rows are shared: what is not in the unit's portion is passed over.
const STEP: usize = 1 << 16;

/// What is known of the row at hand, and the letters that are not counted yet.
#[derive(Default)]
pub(crate) struct Letters {
    k: usize,
    path: PathBuf,
    row_per_file: bool,
    lenient: bool,
    /// The last letters of the record, without line ends, and behind them those of the part at hand.
    held: Vec<u8>,
    /// The part before this one ended with a CR; it belongs to a line's end if this one begins with LF.
    open_cr: bool,
    /// Letters of the record so far.
    length: u64,
    /// Letters of the row before this record.
    before: u64,
    portion: Portion,
    /// The file has a record that is not too short.
    long_enough: bool,
    /// Rows of the unit so far.
    pub(crate) rows: u64,
    /// Rows without a k-mer, being too short.
    pub(crate) short: u64,
    /// Records with letters that mean nothing, or otherwise damaged.
    pub(crate) damaged: u64,
    odd: u64,
}

/// What became of a part.
pub(crate) enum Taken {
    /// It is counted.
    Whole,
    /// This record ended, and so many of its letters mean nothing and were taken for N.
    Odd(u64),
}

impl Letters {
    pub(crate) fn new(k: u32, row_per_file: bool, lenient: bool) -> Self {
        Self { k: k as usize, row_per_file, lenient, ..Self::default() }
    }

    /// The file at hand.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn begin_unit(&mut self, portion: Portion) {
        (self.rows, self.short, self.damaged, self.portion) = (0, 0, 0, portion);
    }

    /// The row that `part` is of, after row `row`, if units share it: [`NO_ROW`] if it is not long. `None` where rows are not shared.
    pub(crate) fn long_row(&self, part: &Part<'_>, row: u32) -> Option<u64> {
        let begun = row.wrapping_add(u32::from(part.first && !self.row_per_file));
        let is_long = self.is_long(part);
        (!self.portion.is_whole()).then_some(if is_long { begun.into() } else { NO_ROW })
    }

    /// Whether the row that `part` is of is dealt out: of a file, or of a record that comes in pieces.
    fn is_long(&self, part: &Part<'_>) -> bool {
        self.row_per_file || !(part.first && part.last)
    }

    /// A file begins, or a run of its blocks; `row` is the number of the last row.
    pub(crate) fn begin_file(&mut self, path: &Path, row: &mut u32) {
        path.clone_into(&mut self.path);
        if self.row_per_file {
            (*row, self.rows, self.long_enough) = (*row + 1, self.rows + 1, false);
            (self.before, self.length) = (0, 0);
        }
    }

    pub(crate) fn end_file(&mut self) {
        self.short += u64::from(self.row_per_file && !self.long_enough);
    }

    /// Adds a part to `bases`, as of row `row` or, if a row begins with it, of the next.
    pub(crate) fn take(
        &mut self,
        part: &Part<'_>,
        row: &mut u32,
        bases: &mut Bases,
    ) -> Result<Taken, WorkError> {
        if part.first {
            if !self.row_per_file {
                (*row, self.rows) = (*row + 1, self.rows + 1);
            } else {
                self.before += self.length;
            }
            (self.length, self.odd, self.open_cr) = (0, 0, false);
            self.held.clear();
        }
        let (letters, is_long) = (without_line_end(part.letters), self.is_long(part));
        let plain = memchr::memchr(b'\n', letters).is_none();
        if plain && part.first && part.last {
            let odd = self.push(*row, letters, is_long, bases);
            self.length = letters.len() as u64;
            self.count_odd(odd.map_err(|letter| self.refuse(part, letter, false))?, part, false);
        } else {
            let lone_cr = self.is_lone_cr(part.letters);
            let step = if self.portion.is_whole() { usize::MAX } else { STEP };
            let mut odd = false;
            for piece in part.letters.chunks(step) {
                let taken = self.take_piece(*row, piece, is_long, bases);
                odd |= taken.map_err(|letter| self.refuse(part, letter, lone_cr))?;
            }
            self.count_odd(odd, part, lone_cr);
        }
        if !part.last {
            return Ok(Taken::Whole);
        }
        let is_short = self.length < self.k as u64;
        self.short += u64::from(is_short && !self.row_per_file);
        self.long_enough |= !is_short;
        self.damaged += u64::from(self.odd > 0);
        Ok(if self.odd > 0 { Taken::Odd(self.odd) } else { Taken::Whole })
    }

    /// Whether a CR that ended what came before `lines` ended no line.
    fn is_lone_cr(&self, lines: &[u8]) -> bool {
        self.open_cr && lines.first().is_some_and(|byte| *byte != b'\n')
    }

    /// Adds a piece of a record, some of its lines, and whatever was held of the one before it. Returns as [`Self::push`].
    fn take_piece(&mut self, row: u32, lines: &[u8], is_long: bool, bases: &mut Bases) -> Result<bool, u8> {
        if self.passes_over(row, lines, is_long) {
            return Ok(false);
        }
        let held = self.held.len();
        self.held.extend(self.is_lone_cr(lines).then_some(b'\r'));
        append_lines(lines, &mut self.held);
        self.open_cr = lines.ends_with(b"\r");
        self.length -= held as u64;
        let odd = self.push(row, &self.held, is_long, bases)?;
        self.length += self.held.len() as u64;
        let counted = (self.held.len() + 1).saturating_sub(self.k);
        self.held.drain(..counted);
        Ok(odd)
    }

    /// Where nothing of a piece is in the unit's portion its letters are only counted, which is several times faster; false where that cannot be done.
    fn passes_over(&mut self, row: u32, lines: &[u8], is_long: bool) -> bool {
        let is_plain = || !self.open_cr && memchr::memchr(b'\r', lines).is_none();
        if self.portion.is_whole() || self.lenient || !is_plain() {
            return false;
        }
        let from = self.before + self.length - self.held.len() as u64;
        let windows = from..from + (self.held.len() + lines.len()) as u64;
        if self.portion.windows(row.into(), windows, is_long).next().is_some() {
            return false;
        }
        self.length += (lines.len() - memchr::memchr_iter(b'\n', lines).count()) as u64;
        // Windows that begin in it are others', also those that end in the next piece.
        self.held.clear();
        true
    }

    /// Adds the unit's portion of `letters`, the first of which comes after [`Self::length`] of the record. Returns whether any of them means nothing.
    ///
    /// # Errors
    /// A letter of this portion that means nothing, unless they are taken for N; nothing more is added then.
    fn push(&self, row: u32, letters: &[u8], is_long: bool, bases: &mut Bases) -> Result<bool, u8> {
        if self.portion.is_whole() {
            let odd = bases.push_letters(row, letters, self.lenient);
            return odd.map(|odd| odd > 0).map_err(|at| letters[at]);
        }
        let from = self.before + self.length;
        let windows = from..from + (letters.len() as u64 + 1).saturating_sub(self.k as u64);
        for Range { start, end } in self.portion.windows(row.into(), windows, is_long) {
            let taken = &letters[(start - from) as usize..(end - from) as usize + self.k - 1];
            bases.push_letters(row, taken, self.lenient).map_err(|at| taken[at])?;
        }
        // What is in no window is in nobody's portion; who takes letters for N tells of all of them.
        let is_looked_at = self.lenient || letters.len() < self.k;
        let odd = if is_looked_at { odd_letter(letters) } else { None };
        odd.filter(|_| !self.lenient).map_or(Ok(odd.is_some()), |at| Err(letters[at]))
    }

    /// Letters that mean nothing, if any were `found`, are counted in this part; in what was held of the last one they were, but for a CR that ended it.
    fn count_odd(&mut self, found: bool, part: &Part<'_>, lone_cr: bool) {
        if found {
            let means_nothing = |(_, letter): &(usize, u8)| dna4_code(*letter).is_none();
            self.odd += u64::from(lone_cr) + letters_of(part.letters).filter(means_nothing).count() as u64;
        }
    }

    fn refuse(&self, part: &Part<'_>, letter: u8, lone_cr: bool) -> WorkError {
        // The first of its kind in this part: the ones before it would have been refused.
        let at = letters_of(part.letters).find(|(_, other)| *other == letter).map_or(0, |(at, _)| at as u64);
        let offset =
            if lone_cr && letter == b'\r' { part.offset.saturating_sub(1) } else { part.offset + at };
        let (path, name) = (self.path.clone(), String::from_utf8_lossy(part.name).into_owned());
        WorkError::Letter { path, name, offset, found: char::from(letter) }
    }
}

/// What is no end of a line, with where it is. A CR is one before LF, and at the end.
fn letters_of(bytes: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let ends_line = |at: usize| bytes.get(at + 1).is_none_or(|next| *next == b'\n');
    let all = bytes.iter().copied().enumerate();
    all.filter(move |(at, byte)| *byte != b'\n' && !(*byte == b'\r' && ends_line(*at)))
}

fn without_line_end(letters: &[u8]) -> &[u8] {
    let letters = letters.strip_suffix(b"\n").unwrap_or(letters);
    letters.strip_suffix(b"\r").unwrap_or(letters)
}

/// Appends `lines` without their ends.
fn append_lines(lines: &[u8], letters: &mut Vec<u8>) {
    for line in lines.split(|byte| *byte == b'\n') {
        letters.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
    }
}
