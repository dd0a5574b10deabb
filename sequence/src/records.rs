//! Cuts a run of bytes into the records that begin in it.
//!
//! Where a record begins
//! - FASTA: at `>` at the start of a line. No letter is `>`, and a header ends with its line, so there is no doubt.
//! - FASTQ: at a line that begins with `@` whose next line but one begins with `+`. A line of qualities may begin with `@`, but the next line but
//!   one behind it is a line of letters, which does not begin with `+`. Records are of four lines; letters broken over lines are refused.
//!
//! Promises
//! - Runs of bytes side by side hand out every record exactly once, in order, wherever they are cut: judged by a parser of whole files.
//! - A record that does not fit the buffer is handed out in parts if it is FASTA, so memory is bounded however long a chromosome is.
//! - A record that is not built as its format asks is told to the sink with its place, and reading goes on behind it only if the sink says so.
//!
//! Line ends may be LF or CR LF; lines without letters and a missing last line end mean nothing.

use crate::error::{Error, Result};
use crate::file::Text;
use crate::format::Format;
use memchr::memchr;

/// Bytes that are read at a time.
const BUFFER: usize = 1 << 20;
/// A record of FASTQ, or a header, longer than that is refused.
const LONGEST: usize = 1 << 28;

/// A piece of a record.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The first word of the header.
    pub name: &'a [u8],
    /// Letters, with the line ends between them if there are several lines.
    pub letters: &'a [u8],
    /// Where in the text the letters begin.
    pub offset: u64,
    /// The record begins here.
    pub first: bool,
    /// The record ends here.
    pub last: bool,
}

/// Takes records.
pub trait RecordSink {
    /// A piece of a record; the pieces of a record come in order, and nothing between them.
    ///
    /// # Errors
    /// Whatever shall end the reading.
    fn part(&mut self, part: &Part<'_>) -> Result<()>;

    /// A record is not built as it should be. `Ok` goes on behind it.
    ///
    /// # Errors
    /// As for [`RecordSink::part`]; mostly the error itself.
    fn damaged(&mut self, error: Error) -> Result<()>;
}

/// The stretch of a text whose records were handed out: from the first one's begin to the last one's end. Stretches of runs that lie side by side
/// join without a gap, which whoever adds them up can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where the first record begins.
    pub first: u64,
    /// Where the last one ends.
    pub end: u64,
}

/// Hands out the records of `text` that begin in `from..to`.
///
/// # Errors
/// When the text cannot be read, and what the sink gives.
pub fn read(
    text: &dyn Text,
    format: Format,
    (from, to): (u64, u64),
    sink: &mut dyn RecordSink,
) -> Result<Stretch> {
    let mut reader = Reader::new(text, format);
    let end = to.min(text.len());
    // A text begins with a record, whether that is well built or not.
    let first = if from <= text.begin() { text.begin() } else { reader.first_record(from)? };
    let mut at = first;
    while at < end {
        at = match format {
            Format::Fasta => reader.fasta(at, sink)?,
            Format::Fastq => reader.fastq(at, sink)?,
        };
    }
    Ok(Stretch { first, end: at })
}

/// Where the first record begins at or behind `from`; the end of the text if there is none.
///
/// # Errors
/// When the text cannot be read.
pub fn first_record(text: &dyn Text, format: Format, from: u64) -> Result<u64> {
    Reader::new(text, format).first_record(from)
}

/// A window on the text.
struct Reader<'a> {
    text: &'a dyn Text,
    format: Format,
    buffer: Vec<u8>,
    /// Where in the text the buffer begins.
    start: u64,
    name: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a dyn Text, format: Format) -> Self {
        Self { text, format, buffer: Vec::new(), start: 0, name: Vec::new() }
    }

    /// The buffer's bytes from `at` on: at least one, if the text has any there.
    fn view(&mut self, at: u64) -> Result<&[u8]> {
        let inside = at.checked_sub(self.start).is_some_and(|from| from < self.buffer.len() as u64);
        if !inside {
            self.load(at, BUFFER)?;
        }
        Ok(&self.buffer[(at - self.start) as usize..])
    }

    /// Fills the buffer with `bytes` bytes from `at` on, or as many as there are.
    fn load(&mut self, at: u64, bytes: usize) -> Result<()> {
        let there = self.text.len().saturating_sub(at).min(bytes as u64) as usize;
        self.buffer.resize(there, 0);
        self.start = at;
        self.text.read_at(at, &mut self.buffer)
    }

    /// Gets more of the text from `at` on into the buffer than it has now. False when it has all.
    fn more(&mut self, at: u64) -> Result<bool> {
        if self.is_at_end() {
            return Ok(false);
        }
        let held = (self.start + self.buffer.len() as u64).saturating_sub(at) as usize;
        self.load(at, (held * 2).max(BUFFER))?;
        Ok(true)
    }

    /// True when nothing is behind the buffer.
    fn is_at_end(&self) -> bool {
        self.start + self.buffer.len() as u64 >= self.text.len()
    }

    /// The end of the line that begins at `at`: behind its line end, or the end of the text.
    fn line_end(&mut self, at: u64) -> Result<u64> {
        let mut from = at;
        while from < self.text.len() {
            let view = self.view(from)?;
            if let Some(end) = memchr(b'\n', view) {
                return Ok(from + end as u64 + 1);
            }
            from += view.len() as u64;
        }
        Ok(self.text.len())
    }

    fn byte(&mut self, at: u64) -> Result<Option<u8>> {
        if at >= self.text.len() { Ok(None) } else { Ok(self.view(at)?.first().copied()) }
    }

    fn first_record(&mut self, from: u64) -> Result<u64> {
        // The first line that begins at or behind `from`.
        let mut line = if from == 0 { 0 } else { self.line_end(from - 1)? };
        loop {
            match (self.format, self.byte(line)?) {
                (_, None) => return Ok(self.text.len()),
                (Format::Fasta, Some(b'>')) => return Ok(line),
                (Format::Fastq, Some(b'@')) => {
                    let letters = self.line_end(line)?;
                    let plus = self.line_end(letters)?;
                    if self.byte(plus)? == Some(b'+') {
                        return Ok(line);
                    }
                }
                _ => {}
            }
            line = self.line_end(line)?;
        }
    }

    /// Tells the sink what is wrong with the record at `at`; if that does not end the reading, gives where the next one begins.
    fn damaged(&mut self, at: u64, wrong: (&str, &str), sink: &mut dyn RecordSink) -> Result<u64> {
        let (end, text) = (self.line_end(at)?, self.text);
        let view = self.view(at)?;
        let header = &view[..view.len().min((end - at) as usize)];
        let error = Error::Record {
            path: text.path().to_path_buf(),
            offset: at,
            name: String::from_utf8_lossy(name_of(header)).into_owned(),
            expected: wrong.0.to_owned(),
            found: wrong.1.to_owned(),
        };
        sink.damaged(error)?;
        self.first_record(end)
    }

    /// Hands out the record of FASTA at `at`; gives where the next one begins.
    fn fasta(&mut self, at: u64, sink: &mut dyn RecordSink) -> Result<u64> {
        let header = loop {
            let view = self.view(at)?;
            match memchr(b'\n', view) {
                Some(end) => break end + 1,
                None if view.len() > LONGEST => {
                    return self.damaged(at, ("a header line", "one that does not end"), sink);
                }
                None if !self.more(at)? => break self.view(at)?.len(),
                None => {}
            }
        };
        let line = &self.buffer[(at - self.start) as usize..][..header];
        if has_odd_end(line) {
            return self.damaged(at, ODD_HEADER, sink);
        }
        self.name.clear();
        self.name.extend_from_slice(name_of(line));
        self.fasta_letters(at + header as u64, sink)
    }

    /// Hands out the letters from `at` on up to the next header, in parts if they do not fit the buffer.
    fn fasta_letters(&mut self, mut at: u64, sink: &mut dyn RecordSink) -> Result<u64> {
        let (mut first, mut after_line_end) = (true, true);
        loop {
            let from = if at < self.text.len() {
                self.view(at)?;
                (at - self.start) as usize
            } else {
                self.buffer.len()
            };
            let next = next_header(&self.buffer[from..], after_line_end);
            if next.is_none() && !self.is_at_end() && first && from > 0 {
                // Rather whole than in parts.
                self.load(at, BUFFER)?;
                continue;
            }
            let view = &self.buffer[from..];
            let last = next.is_some() || self.is_at_end();
            let letters = &view[..next.unwrap_or(view.len())];
            sink.part(&Part { name: &self.name, letters, offset: at, first, last })?;
            at += letters.len() as u64;
            if last {
                return Ok(at);
            }
            (first, after_line_end) = (false, letters.last() == Some(&b'\n'));
        }
    }

    /// Hands out the record of FASTQ at `at`; gives where the next one begins.
    fn fastq(&mut self, at: u64, sink: &mut dyn RecordSink) -> Result<u64> {
        let lines = loop {
            let view = self.view(at)?;
            match Lines::find(view) {
                Some(lines) => break lines,
                None if view.len() > LONGEST => {
                    return self.damaged(at, ("a record", "one that does not end"), sink);
                }
                None if !self.more(at)? => match Lines::find_last(&self.buffer[(at - self.start) as usize..])
                {
                    Some(lines) => break lines,
                    None => return self.fastq_end(at, sink),
                },
                None => {}
            }
        };
        let view = &self.buffer[(at - self.start) as usize..];
        let (header, letters) = (&view[..lines.header], trimmed(&view[lines.header..lines.letters]));
        let qualities = trimmed(&view[lines.plus..lines.end]);
        let wrong = if header[0] != b'@' {
            if trimmed(header).is_empty() {
                return Ok(at + lines.header as u64);
            }
            Some(("@ at its start", "something else"))
        } else if view[lines.letters] != b'+' {
            Some(("a line with + behind one line of letters", "something else"))
        } else if letters.len() != qualities.len() {
            Some(("as many qualities as letters", "another number"))
        } else {
            has_odd_end(header).then_some(ODD_HEADER)
        };
        if let Some(wrong) = wrong {
            return self.damaged(at, wrong, sink);
        }
        let offset = at + lines.header as u64;
        sink.part(&Part { name: name_of(header), letters, offset, first: true, last: true })?;
        Ok(at + lines.end as u64)
    }

    /// What is behind the last whole record: lines without letters, or a part of a record.
    fn fastq_end(&mut self, at: u64, sink: &mut dyn RecordSink) -> Result<u64> {
        let rest = &self.buffer[(at - self.start) as usize..];
        if rest.iter().all(|byte| matches!(byte, b'\n' | b'\r')) {
            return Ok(self.text.len());
        }
        let _ = self.damaged(at, ("a whole record", "the end of the file"), sink)?;
        Ok(self.text.len())
    }
}

const ODD_HEADER: (&str, &str) = ("a header line", "a carriage return in it");

/// Where the lines of a record end, from its begin.
struct Lines {
    header: usize,
    letters: usize,
    plus: usize,
    end: usize,
}

impl Lines {
    fn find(view: &[u8]) -> Option<Self> {
        let after = |from: usize| memchr(b'\n', &view[from..]).map(|end| from + end + 1);
        let header = after(0)?;
        let letters = after(header)?;
        let plus = after(letters)?;
        Some(Self { header, letters, plus, end: after(plus)? })
    }

    /// The same at the end of the text, where the last line need not end.
    fn find_last(view: &[u8]) -> Option<Self> {
        let after = |from: usize| memchr(b'\n', &view[from..]).map(|end| from + end + 1);
        let header = after(0)?;
        let letters = after(header)?;
        let plus = after(letters)?;
        Some(Self { header, letters, plus, end: view.len() })
    }
}

/// Where the next header begins.
fn next_header(view: &[u8], after_line_end: bool) -> Option<usize> {
    memchr::memchr_iter(b'>', view).find(|at| if *at == 0 { after_line_end } else { view[*at - 1] == b'\n' })
}

/// The line without its end.
fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A file whose lines end with carriage returns alone would be one header: its letters must not vanish.
fn has_odd_end(header: &[u8]) -> bool {
    memchr(b'\r', trimmed(header)).is_some()
}

/// The first word of a header line, without its mark.
fn name_of(header: &[u8]) -> &[u8] {
    let line = trimmed(header).get(1..).unwrap_or_default();
    line.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
