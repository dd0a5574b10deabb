//! Cuts the text of a FASTQ file into records of four lines.
//!
//! Promises: what makes no record of four lines is an error that names the record and the line. Empty lines mean nothing where a record may begin, as
//! they do to who counts the file. A record that is cut off is an error, but for a last line of qualities that is empty.

use std::io::{BufRead, BufReader};
use std::path::Path;

use sequence::unpack::Source;

use super::error::ImportError;
use super::input::Record;

/// Bytes that are read at a time.
const BUFFER: usize = 1 << 16;

/// A FASTQ file.
pub(super) struct Fastq {
    text: BufReader<Source>,
    /// The lines so far.
    lines: u64,
    /// The record's lines without their ends: the header, the letters, what separates, the qualities.
    record: [Vec<u8>; 4],
}

impl Fastq {
    pub(super) fn new(text: Source) -> Self {
        Self { text: BufReader::with_capacity(BUFFER, text), lines: 0, record: Default::default() }
    }

    /// The next record, which is number `record` of `path`.
    pub(super) fn next(&mut self, path: &Path, record: u64) -> Result<Option<Record<'_>>, ImportError> {
        loop {
            if !self.line(path, 0)? && self.record[0].is_empty() {
                return Ok(None);
            }
            if !self.record[0].is_empty() {
                break;
            }
        }
        let first = self.lines;
        let refuse = |problem: &str, line: u64| {
            let problem = format!("{problem} (line {line})");
            Err(ImportError::Record { path: path.to_path_buf(), record, problem })
        };
        if self.record[0][0] != b'@' {
            return refuse("expected > or @ at its start, found something else", first);
        }
        for line in 1..4 {
            // The line before has an end, so this one is there, if only as an empty last one.
            if !self.line(path, line)? && line < 3 {
                return refuse("expected a whole record, found the end of the file", self.lines);
            }
            if line == 2 && self.record[2].first() != Some(&b'+') {
                return refuse(
                    "expected a line with + behind the sequence, found something else",
                    self.lines,
                );
            }
        }
        let [header, letters, _, qualities] = &self.record;
        if letters.len() != qualities.len() {
            return refuse("expected as many qualities as bases, found another number", first);
        }
        Ok(Some(Record { header: &header[1..], lines: letters }))
    }

    /// Reads a line; says whether it has an end.
    fn line(&mut self, path: &Path, number: usize) -> Result<bool, ImportError> {
        let line = &mut self.record[number];
        line.clear();
        let read = self.text.read_until(b'\n', line);
        self.lines += u64::from(read.map_err(|cause| ImportError::io(path, "read", cause))? > 0);
        let has_end = line.pop_if(|byte| *byte == b'\n').is_some();
        // A carriage return belongs to the end of a line or of the file.
        let _ = line.pop_if(|byte| *byte == b'\r');
        Ok(has_end)
    }
}
