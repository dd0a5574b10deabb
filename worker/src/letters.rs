//! Rows that come as letters: records of sequence files, whole or in parts.
//!
//! Windows do not cross the parts' borders by themselves, so the last k - 1 letters of a part stand before the next one: every window is then in
//! exactly one piece, whatever the letters are. A row is a record, or with `--row-per-file` all records of a file, between which there are no
//! windows.

use crate::error::WorkError;
use kmer::bases::Bases;
use kmer::codec::dna4_code;
use sequence::Part;
use std::path::{Path, PathBuf};

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

    pub(crate) fn begin_unit(&mut self) {
        (self.rows, self.short, self.damaged) = (0, 0, 0);
    }

    /// A file begins, or a run of its blocks; `row` is the number of the last row.
    pub(crate) fn begin_file(&mut self, path: &Path, row: &mut u32) {
        path.clone_into(&mut self.path);
        if self.row_per_file {
            (*row, self.rows, self.long_enough) = (*row + 1, self.rows + 1, false);
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
            }
            (self.length, self.odd, self.open_cr) = (0, 0, false);
            self.held.clear();
        }
        let letters = without_line_end(part.letters);
        let plain = memchr::memchr(b'\n', letters).is_none();
        if plain && part.first && part.last {
            self.length = letters.len() as u64;
            let odd = bases.push_letters(*row, letters, self.lenient);
            self.count_odd(odd.map_err(|at| self.refuse(part, letters[at], false))?, part, false);
        } else {
            let held = self.held.len();
            let lone_cr = self.open_cr && part.letters.first().is_some_and(|byte| *byte != b'\n');
            self.held.extend(lone_cr.then_some(b'\r'));
            append_lines(part.letters, &mut self.held);
            self.open_cr = match part.letters {
                [] => self.open_cr,
                letters => letters.ends_with(b"\r"),
            };
            self.length += (self.held.len() - held) as u64;
            let odd = bases.push_letters(*row, &self.held, self.lenient);
            self.count_odd(odd.map_err(|at| self.refuse(part, self.held[at], lone_cr))?, part, lone_cr);
            let counted = (self.held.len() + 1).saturating_sub(self.k);
            self.held.drain(..counted);
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

    /// `found` letters that mean nothing were found in this part and in what was held of the last one, where they were counted already, but for a
    /// CR that ended it.
    fn count_odd(&mut self, found: u64, part: &Part<'_>, lone_cr: bool) {
        if found > 0 {
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
