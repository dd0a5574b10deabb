//! Every way of cutting a text gives the records that a parser of whole files gives.

use super::*;
use crate::file::InMemory;
use proptest::prelude::*;
use std::path::Path;

/// Names and letters without line ends.
#[derive(Default)]
struct Records {
    found: Vec<(String, Vec<u8>)>,
    open: bool,
    errors: Vec<String>,
    stops: bool,
}

impl RecordSink for Records {
    fn part(&mut self, part: &Part<'_>) -> Result<()> {
        assert_eq!(part.first, !self.open, "parts of a record follow each other");
        if part.first {
            self.found.push((String::from_utf8_lossy(part.name).into_owned(), Vec::new()));
        }
        let letters = part.letters.iter().filter(|letter| !matches!(letter, b'\n' | b'\r'));
        self.found.last_mut().expect("begun").1.extend(letters);
        self.open = !part.last;
        Ok(())
    }

    fn damaged(&mut self, error: Error) -> Result<()> {
        self.errors.push(error.to_string());
        if self.stops { Err(error) } else { Ok(()) }
    }
}

/// Reads `text` in runs that end at `cuts`.
fn in_runs(text: &[u8], format: Format, cuts: &[u64]) -> Records {
    let text = InMemory { text, path: Path::new("text") };
    let (mut records, mut from, mut joined) = (Records::default(), 0, 0);
    for to in cuts.iter().copied().chain([text.len()]) {
        let stretch = read(&text, format, (from, to), &mut records).expect("in memory");
        assert_eq!(stretch.first, joined, "runs join");
        (from, joined) = (to, stretch.end);
    }
    assert_eq!(joined, text.len());
    assert!(!records.open);
    records
}

/// The oracle: a crate that parses whole files.
fn whole(text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut padded = text.to_vec();
    // Its parser of FASTA takes an empty last record for an unfinished one.
    if text.starts_with(b">") {
        padded.extend(b"\n\n");
    }
    let mut reader = needletail::parse_fastx_reader(std::io::Cursor::new(padded)).expect("a format");
    let mut records = Vec::new();
    while let Some(record) = reader.next() {
        let record = record.expect("a record");
        let name = record.id().split(u8::is_ascii_whitespace).next().unwrap_or_default();
        records.push((String::from_utf8_lossy(name).into_owned(), record.seq().into_owned()));
    }
    records
}

/// A record's lines of letters, and a line of qualities with the characters that mislead.
fn record() -> impl Strategy<Value = (String, Vec<u8>, Vec<u8>)> {
    let letters = prop::collection::vec(prop::sample::select(&b"ACGTNacgt"[..]), 1..40);
    let qualities = prop::collection::vec(prop::sample::select(&b"@+>I#"[..]), 40);
    ("[a-z>@+]{1,6}( [a-z>@+]{0,5})?", letters, qualities)
}

fn fasta(records: &[(String, Vec<u8>, Vec<u8>)], width: usize, end: &str, last_end: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, letters, _) in records {
        text.extend(format!(">{name}{end}").bytes());
        for line in letters.chunks(width) {
            text.extend(line);
            text.extend(end.bytes());
        }
    }
    text.truncate(text.len() - if last_end { 0 } else { end.len() });
    text
}

fn fastq(records: &[(String, Vec<u8>, Vec<u8>)], end: &str, last_end: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, letters, qualities) in records {
        text.extend(format!("@{name}{end}").bytes());
        text.extend(letters);
        text.extend(format!("{end}+{end}").bytes());
        text.extend(&qualities[..letters.len()]);
        text.extend(end.bytes());
    }
    text.truncate(text.len() - if last_end { 0 } else { end.len() });
    text
}

proptest! {
    #[test]
    fn runs_have_the_records_of_the_whole(
        records in prop::collection::vec(record(), 1..12), width in 1..50usize, crlf: bool, last_end: bool, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        for (format, text) in [(Format::Fasta, fasta(&records, width, end, last_end)), (Format::Fastq, fastq(&records, end, last_end))] {
            let mut cuts: Vec<u64> = cuts.iter().map(|cut| cut.index(text.len() + 1) as u64).collect();
            cuts.sort_unstable();
            let found = in_runs(&text, format, &cuts);
            prop_assert_eq!(&found.errors, &Vec::<String>::new());
            prop_assert_eq!(found.found, whole(&text));
        }
    }

    #[test]
    fn whatever_the_bytes_are_runs_end(text in prop::collection::vec(prop::sample::select(&b"@+>AC\n\n\r"[..]), 1..200), cut in 0..200u64) {
        let memory = InMemory { text: &text, path: Path::new("text") };
        for format in [Format::Fasta, Format::Fastq] {
            let mut records = Records::default();
            read(&memory, format, (0, cut), &mut records).expect("in memory");
            read(&memory, format, (cut, 200), &mut records).expect("in memory");
        }
    }
}

#[test]
fn records_longer_than_the_buffer_come_in_parts() {
    let long: Vec<u8> = (0..BUFFER * 5 / 2).map(|i| b"ACGT"[i * i / 7 % 4]).collect();
    let records = [
        ("a".to_owned(), b"ACGT".to_vec(), Vec::new()),
        ("b".to_owned(), long.clone(), Vec::new()),
        ("c".to_owned(), b"GG".to_vec(), Vec::new()),
    ];
    let text = fasta(&records, 61, "\n", true);
    let found = in_runs(&text, Format::Fasta, &[1, 3, BUFFER as u64]);
    let want: Vec<(String, Vec<u8>)> =
        records.iter().map(|(name, letters, _)| (name.clone(), letters.clone())).collect();
    assert!(found.found == want);
    let qualities = vec![b'@'; long.len()];
    let text = fastq(&[("q".to_owned(), long.clone(), qualities)], "\n", true);
    assert!(in_runs(&text, Format::Fastq, &[7]).found == [("q".to_owned(), long)]);
}

#[test]
fn empty_records_are_records() {
    let found = in_runs(b">a\n>b\n\n>c\nAC\n\n>d", Format::Fasta, &[3, 4, 5]);
    let names: Vec<&str> = found.found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names, found.found[2].1.as_slice()), (vec!["a", "b", "c", "d"], &b"AC"[..]));
    let found = in_runs(b"@a\n\n+\n\n@b\nA\n+\nI\n\n\n", Format::Fastq, &[4]);
    assert_eq!(found.found, [("a".to_owned(), Vec::new()), ("b".to_owned(), b"A".to_vec())]);
}

#[test]
fn damage_names_the_record_and_the_next_one_is_found() {
    for (text, words) in [
        (
            &b"@a\nACGT\n+\nIIII\n@b\nACGT\n+\nIII\n@c\nAC\n+\nII\n"[..],
            "byte 15 (\"b\"): expected as many qualities as letters",
        ),
        (
            b"@a\nACGT\n+\nIIII\n@b\nAC\nGT\n+\nIIII\n@c\nAC\n+\nII\n",
            "byte 15 (\"b\"): expected a line with + behind one line of letters",
        ),
        (b"@a\nACGT\n+\nIIII\nb\nACGT\n+\nIIII\n@c\nAC\n+\nII\n", "byte 15 (\"\"): expected @ at its start"),
    ] {
        let found = in_runs(text, Format::Fastq, &[]);
        assert!(found.errors[0].contains(words), "{:?}", found.errors);
        let names: Vec<&str> = found.found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        let memory = InMemory { text, path: Path::new("text") };
        let mut sink = Records { stops: true, ..Records::default() };
        assert!(matches!(
            read(&memory, Format::Fastq, (0, 99), &mut sink),
            Err(Error::Record { offset: 15, .. })
        ));
    }
    let found = in_runs(b"@a\nACGT\n+\nII", Format::Fastq, &[]);
    assert!(found.errors[0].contains("as many qualities"), "{:?}", found.errors);
    let found = in_runs(b"@a\nACGT\n+", Format::Fastq, &[]);
    assert!(
        found.errors[0].contains("expected a whole record, found the end of the file"),
        "{:?}",
        found.errors
    );
    let found = in_runs(b">a\rACGT\r>b\rACGT", Format::Fasta, &[]);
    assert!(found.errors[0].contains("found a carriage return in it"), "{:?}", found.errors);
}
