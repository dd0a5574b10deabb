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
            (self.length, self.odd) = (0, 0);
            self.held.clear();
        }
        let letters = without_line_end(part.letters);
        let plain = memchr::memchr(b'\n', letters).is_none();
        if plain && part.first && part.last {
            self.length = letters.len() as u64;
            let odd = bases.push_letters(*row, letters, self.lenient);
            self.count_odd(odd.map_err(|at| self.refuse(part, letters[at]))?, part);
        } else {
            let held = self.held.len();
            append_lines(part.letters, &mut self.held);
            self.length += (self.held.len() - held) as u64;
            let odd = bases.push_letters(*row, &self.held, self.lenient);
            self.count_odd(odd.map_err(|at| self.refuse(part, self.held[at]))?, part);
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

    /// `found` letters that mean nothing were found in this part and in what was held of the last one, where they were counted already.
    fn count_odd(&mut self, found: u64, part: &Part<'_>) {
        if found > 0 {
            let means_nothing =
                |letter: &&u8| !matches!(letter, b'\n' | b'\r') && dna4_code(**letter).is_none();
            self.odd += part.letters.iter().filter(means_nothing).count() as u64;
        }
    }

    fn refuse(&self, part: &Part<'_>, letter: u8) -> WorkError {
        // The first of its kind in this part: the ones before it would have been refused.
        let at = part.letters.iter().position(|other| *other == letter).unwrap_or(0);
        let (path, name) = (self.path.clone(), String::from_utf8_lossy(part.name).into_owned());
        WorkError::Letter { path, name, offset: part.offset + at as u64, found: char::from(letter) }
    }
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
