//! Results that were kept: pinned in shared memory, or in a file that `--dense` wrote. `kmer-leader dump` prints one in order.

use crate::dense::read::DenseFile;
use crate::failure::Failure;
use crate::output::Output;
use crate::output::same::{Input, refuse_same};
use crate::pin;
use crate::report::Entry;
use clap::Args;
use kmer::codec::write_kmer;
use kmer_pin::{Pinned, Spec, Writer};
use shm_layout::place::path_of;
use std::path::{Path, PathBuf};

/// Arguments of `kmer-leader dump`.
#[derive(Clone, Debug, Args)]
pub struct DumpArgs {
    /// A result kept with --pin, or a file made with --dense
    #[arg(value_name = "NAME|FILE")]
    pub book: String,
    /// Write to FILE, which appears whole or not at all [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A result that was kept.
pub enum Book {
    /// In shared memory.
    Pinned(Pinned),
    /// In a file.
    File(DenseFile),
}

/// Entries that are sorted at a time, more or less, as a power of two.
const RANGE_ENTRIES: u64 = 1 << 16;
const MAX_RANGE_BITS: u32 = 12;

impl Book {
    /// Opens what was pinned as `name`, else the file of that name.
    ///
    /// # Errors
    /// When there is neither, or it is damaged.
    pub fn open(name: &str) -> Result<Self, Failure> {
        if kmer_pin::exists(name) {
            return Pinned::open(name).map(Self::Pinned).map_err(pin::failure);
        }
        let path = Path::new(name);
        if !path.exists() {
            let text = format!("result {name:?}: expected a pinned one or a file, found neither");
            return Err(Failure::error(text).hint("kmer-leader segments lists what is pinned"));
        }
        DenseFile::open(path).map(Self::File)
    }

    /// Letters of a k-mer, and bits behind it in a key.
    pub fn shape(&self) -> (u32, u32) {
        match self {
            Self::Pinned(pinned) => (pinned.k(), pinned.occur_bitlen()),
            Self::File(file) => (file.params().k(), file.params().occur_bitlen()),
        }
    }

    fn facts(&self) -> &str {
        match self {
            Self::Pinned(pinned) => pinned.facts(),
            Self::File(file) => file.facts(),
        }
    }

    /// Calls `each` with every entry, in no order.
    ///
    /// # Errors
    /// A damaged result.
    pub fn entries(&self, each: impl FnMut(u64, u32)) -> Result<(), Failure> {
        match self {
            Self::Pinned(pinned) => pinned.entries(each).map_err(pin::failure),
            Self::File(file) => file.entries(each),
        }
    }

    /// The result for many look-ups: a file is laid out in private memory as a pinned one is.
    ///
    /// # Errors
    /// A damaged file; no memory.
    pub fn into_pinned(self) -> Result<Pinned, Failure> {
        let file = match self {
            Self::Pinned(pinned) => return Ok(pinned),
            Self::File(file) => file,
        };
        let mut count = 0;
        file.entries(|_, _| count += 1)?;
        let (k, bits) = (file.params().k(), file.params().occur_bitlen());
        let canonical = file.params().canonical();
        let spec = Spec { occur_bitlen: bits, canonical, entries: count, ..Spec::new(k) };
        let mut writer = Writer::private(&spec).map_err(pin::failure)?;
        let mut failed = None;
        file.entries(|key, count| {
            if let Err(e) = writer.put(key, count) {
                failed.get_or_insert(e);
            }
        })?;
        if let Some(e) = failed {
            return Err(pin::failure(e));
        }
        writer.finish().and_then(kmer_pin::Ready::into_private).map_err(pin::failure)
    }

    /// Writes all k-mers in order, as the report of the run would have been.
    ///
    /// # Errors
    /// A damaged result; what the output says.
    pub fn dump(&self, output: &mut Output) -> Result<(), Failure> {
        let (k, shift) = self.shape();
        let bits = 2 * k + shift;
        let mut count = 0u64;
        self.entries(|_, _| count += 1)?;
        let range_bits = (count / RANGE_ENTRIES).max(1).ilog2().min(MAX_RANGE_BITS).min(bits);
        let mut ranges: Vec<Vec<Entry>> = vec![Vec::new(); 1 << range_bits];
        let range =
            |key: u64| key.checked_shr(bits - range_bits).unwrap_or(0) as usize & ((1 << range_bits) - 1);
        self.entries(|key, count| ranges[range(key)].push((key, count)))?;
        output.write(self.facts().as_bytes())?;
        let mut text = Vec::new();
        for mut range in ranges {
            range.sort_unstable_by_key(|(key, _)| *key);
            text.clear();
            range.iter().for_each(|(key, count)| line(key >> shift, k, *key, *count, &mut text));
            output.write(&text)?;
        }
        Ok(())
    }
}

/// A line as in a report.
pub fn line(kmer: u64, k: u32, key: u64, count: u32, text: &mut Vec<u8>) {
    write_kmer(kmer, k, text);
    let mut digits = itoa::Buffer::new();
    text.push(b'\t');
    text.extend_from_slice(digits.format(key).as_bytes());
    text.push(b'\t');
    text.extend_from_slice(digits.format(count).as_bytes());
    text.push(b'\n');
}

/// `kmer-leader dump`.
///
/// # Errors
/// As [`Book::dump`].
pub fn dump(args: &DumpArgs) -> Result<(), Failure> {
    let book = Book::open(&args.book)?;
    let input = match &book {
        Book::File(_) => args.book.clone().into(),
        Book::Pinned(pinned) => path_of(pinned.segment().name()),
    };
    refuse_same(&[Input::File(input)], &[("-o", args.output.as_deref())])?;
    let mut output = Output::open(args.output.as_deref())?;
    book.dump(&mut output)?;
    output.finish()
}
