//! `kmer-leader lookup`: single k-mers of a result that was kept, or very many of them from standard input.
//!
//! Standard input is read in large pieces; the k-mers of a piece are looked up together, so that the memory they need is on its way at the same time.

use crate::book::{Book, line};
use crate::failure::Failure;
use crate::output::Output;
use crate::pin;
use crate::standard;
use clap::Args;
use kmer_pin::{Pinned, parse};
use std::io::Read;

/// Bytes of standard input that are read at a time.
const PIECE: usize = 1 << 18;
/// Keys that are looked up together, at most.
const BATCH: usize = 1 << 14;

/// Arguments of `kmer-leader lookup`.
#[derive(Clone, Debug, Args)]
pub struct LookupArgs {
    /// A result kept with --pin, or a file made with --dense
    #[arg(value_name = "NAME|FILE")]
    pub book: String,
    /// k-mers; '-' for standard input, one a line
    #[arg(value_name = "KMER", required = true)]
    pub kmers: Vec<String>,
}

/// Look-ups that are answered together.
struct Questions<'a> {
    pinned: &'a Pinned,
    keys: Vec<u64>,
    counts: Vec<u32>,
    text: Vec<u8>,
}

impl<'a> Questions<'a> {
    fn new(pinned: &'a Pinned) -> Self {
        let (keys, counts, text) = (Vec::new(), Vec::new(), Vec::new());
        Self { pinned, keys, counts, text }
    }

    /// A k-mer, for each of its occurrences in a row.
    fn ask(&mut self, letters: &str) -> Result<(), Failure> {
        let kmer = parse(letters, self.pinned.k()).map_err(pin::failure)?;
        let (first, bits) = (self.pinned.canonical_of(kmer), self.pinned.occur_bitlen());
        for n in 0..1u64 << bits {
            self.keys.push(first << bits | n);
        }
        Ok(())
    }

    /// Answers what was asked: lines as in a report, with 0 for a k-mer that is not there.
    fn answer(&mut self, output: &mut Output) -> Result<(), Failure> {
        self.pinned.count_all(&self.keys, &mut self.counts).map_err(pin::failure)?;
        let (k, bits) = (self.pinned.k(), self.pinned.occur_bitlen());
        self.text.clear();
        for (key, count) in self.keys.iter().zip(&self.counts) {
            if *count > 0 || key & ((1 << bits) - 1) == 0 {
                line(key >> bits, k, *key, *count, &mut self.text);
            }
        }
        self.keys.clear();
        output.write(&self.text)
    }

    /// All lines of standard input.
    fn ask_lines(&mut self, output: &mut Output) -> Result<(), Failure> {
        let unread = |e| Failure::error(format!("could not read standard input: {e}"));
        let mut input = standard::input().map_err(unread)?;
        let (mut piece, mut held, mut number) = (vec![0; PIECE], 0, 0u64);
        loop {
            let read = match input.read(&mut piece[held..]) {
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(unread(e)),
            };
            let end = held + read;
            let whole = match piece[..end].iter().rposition(|byte| *byte == b'\n') {
                _ if read == 0 => end,
                Some(at) => at + 1,
                None if end < PIECE => 0,
                None => {
                    return Err(Failure::error(
                        "standard input: expected one k-mer a line, found a line of more than 262144 bytes",
                    ));
                }
            };
            for line in piece[..whole].split_inclusive(|byte| *byte == b'\n') {
                number += 1;
                let letters = String::from_utf8_lossy(line.trim_ascii());
                if let Err(failure) = self.ask(&letters) {
                    self.answer(output)?;
                    return Err(failure.within(&format!("standard input, line {number}")));
                }
                if self.keys.len() >= BATCH {
                    self.answer(output)?;
                }
            }
            self.answer(output)?;
            piece.copy_within(whole..end, 0);
            held = end - whole;
            if read == 0 {
                return Ok(());
            }
        }
    }
}

/// Looks up what was typed.
///
/// # Errors
/// Letters that are no k-mer of this result's k; a damaged result.
pub fn lookup(args: &LookupArgs) -> Result<(), Failure> {
    let book = Book::open(&args.book)?;
    let mut output = Output::open(None)?;
    if let (Book::File(file), false) = (&book, args.kmers.iter().any(|kmer| kmer == "-")) {
        // A few tables of the file do.
        let mut text = Vec::new();
        args.kmers.iter().try_for_each(|kmer| file.lookup(kmer, &mut text))?;
        output.write(&text)?;
        return output.finish();
    }
    let pinned = book.into_pinned()?;
    let mut questions = Questions::new(&pinned);
    for word in &args.kmers {
        if word == "-" {
            questions.answer(&mut output)?;
            questions.ask_lines(&mut output)?;
        } else {
            questions.ask(word)?;
        }
    }
    questions.answer(&mut output)?;
    output.finish()
}
