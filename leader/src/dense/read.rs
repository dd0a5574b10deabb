//! Reads the file: all of it in order, or single k-mers. Every number out of it is checked before it is used as a place.

use super::{ENTRY, FOOT, HEAD, MAGIC, OLDER};
use crate::book::line;
use crate::failure::Failure;
use kmer::codec::{pack_dna2, parse_kmer, why_no_kmer};
use kmer::minimizer::{Dealer, Tile};
use kmer::params::Params;
use kmer_worker::spool::digest;
use shm_layout::arena::{Arena, OwnedChain};
use shm_layout::hash::image::Image;
use shm_layout::segment::{Plan, Segment};
use shm_layout::toc::TocEstimator;
use shm_layout::words::Owner;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An opened file.
pub struct DenseFile {
    file: File,
    path: PathBuf,
    params: Params,
    stripe_bits: u32,
    direct: bool,
    /// Unless keys were counted directly.
    dealer: Dealer,
    directory: Vec<[u64; 3]>,
    facts: String,
}

/// Bytes as text for a message.
fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

impl DenseFile {
    /// Opens and checks `path`.
    ///
    /// # Errors
    /// When it cannot be read, or is not what [`super`] describes.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let io = |e: std::io::Error| Failure::io("read", path, &e);
        let file = File::open(path).map_err(|e| Failure::io("open", path, &e))?;
        let size = file.metadata().map_err(io)?.len();
        let bad = |what: &str, expected: String, found: String| {
            Failure::error(format!("dense file {path:?}: {what}: expected {expected}, found {found}"))
        };
        let least = (HEAD + FOOT) as u64;
        if size < least {
            return Err(bad("size", format!("at least {least} bytes"), size.to_string()));
        }
        let (mut head, mut foot) = ([0; HEAD], [0; FOOT]);
        file.read_exact_at(&mut head, 0).map_err(io)?;
        file.read_exact_at(&mut foot, size - FOOT as u64).map_err(io)?;
        let older = OLDER.iter().find(|older| head[..8] == older[..]).copied();
        let expected = older.unwrap_or(MAGIC);
        for (what, magic) in [("beginning", &head[..8]), ("end", &foot[24..])] {
            if magic != expected {
                let (expected, found) = (quoted(expected), quoted(magic));
                let failure = bad(what, expected, found);
                let other = magic[..7] == MAGIC[..7];
                let hint = "another version of kmer-leader wrote it: count again with this one, or read it with that";
                return Err(if other { failure.hint(hint) } else { failure });
            }
        }
        let word =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let half = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        let params = Params::new(half(8), half(12))
            .map_err(|e| bad("head", "k and occur_bitlen".into(), e.to_string()))?;
        let (stripe_bits, flags, seed) = (half(16), half(20), word(&head, 24));
        let (params, direct) = (params.with_canonical(flags & 2 != 0), flags & 1 != 0);
        if stripe_bits > 16 || stripe_bits > params.key_bits() {
            return Err(bad("stripe_bits", "at most 16".into(), stripe_bits.to_string()));
        }
        let (at, facts) = (word(&foot, 0), word(&foot, 8));
        let stripes = 1usize << stripe_bits;
        let end = (stripes * ENTRY) as u64;
        if at.checked_add(end).and_then(|e| e.checked_add(facts)) != Some(size - FOOT as u64) {
            return Err(bad(
                "directory",
                format!("{stripes} stripes before {size}"),
                format!("{at} and {facts}"),
            ));
        }
        let mut bytes = vec![0; (end + facts) as usize];
        file.read_exact_at(&mut bytes, at).map_err(io)?;
        let sum = digest(1, 0, &[&head[..], &bytes].concat());
        if sum != word(&foot, 16) {
            return Err(bad(
                "digest of head and directory",
                format!("{:016x}", word(&foot, 16)),
                format!("{sum:016x}"),
            ));
        }
        let facts = String::from_utf8_lossy(&bytes[end as usize..]).into_owned();
        let directory =
            bytes[..end as usize].chunks_exact(ENTRY).map(|e| [word(e, 0), word(e, 8), word(e, 16)]);
        let directory: Vec<[u64; 3]> = directory.collect();
        if let Some(entry) =
            directory.iter().find(|[from, len, _]| from.checked_add(*len).is_none_or(|e| e > at))
        {
            return Err(bad(
                "stripe",
                format!("bytes before {at}"),
                format!("{} from {}", entry[1], entry[0]),
            ));
        }
        let dealing = if older.is_some() { Dealer::of_older_rule } else { Dealer::new };
        let dealer = dealing(params, stripe_bits, seed);
        Ok(Self { file, path: path.into(), params, stripe_bits, direct, dealer, directory, facts })
    }

    /// The table of a stripe, in private memory; `None` when it has no k-mers.
    fn stripe(&self, stripe: usize) -> Result<Option<Table>, Failure> {
        let [from, len, sum] = self.directory[stripe];
        if len == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, from).map_err(|e| Failure::io("read", &self.path, &e))?;
        let found = digest(0, stripe, &bytes);
        if found != sum {
            let path = &self.path;
            return Err(Failure::error(format!(
                "dense file {path:?}: digest of stripe {stripe}: expected {sum:016x}, found {found:016x}"
            )));
        }
        Table::new(&bytes).map(Some)
    }

    /// Calls `each` with every entry, stripe by stripe.
    ///
    /// # Errors
    /// A damaged file.
    pub fn entries(&self, mut each: impl FnMut(u64, u32)) -> Result<(), Failure> {
        let mut scratch = Vec::new();
        for stripe in 0..self.directory.len() {
            if let Some(table) = self.stripe(stripe)? {
                table.image()?.for_each(&mut scratch, &mut each)?;
            }
        }
        Ok(())
    }

    /// k, `occur_bitlen`, and whether a k-mer and its reverse complement are one.
    pub const fn params(&self) -> Params {
        self.params
    }

    /// The lines that a report begins with.
    pub fn facts(&self) -> &str {
        &self.facts
    }

    /// Which stripe a k-mer's keys are in.
    fn stripe_of(&self, letters: &[u8], key: u64) -> usize {
        if self.direct {
            return (key >> (self.params.key_bits() - self.stripe_bits)) as usize;
        }
        let mut packed = pack_dna2(letters).unwrap_or_default();
        packed.resize(packed.len() + kmer::bases::PADDING, 0);
        let mut tile = Tile::default();
        self.dealer.minimizers(&packed, 0, 1, &mut tile);
        self.dealer.stripe_of(tile.minimizers()[0]) as usize
    }

    /// In how many rows a k-mer occurs, for its n-th occurrence in a row from the first on: lines as in a report, with 0 where it does not.
    ///
    /// # Errors
    /// Letters that are no k-mer of this file's k; a damaged file.
    pub fn lookup(&self, letters: &str, text: &mut Vec<u8>) -> Result<(), Failure> {
        let k = self.params.k() as usize;
        let kmer = parse_kmer(letters.as_bytes()).filter(|_| letters.len() == k);
        let kmer = kmer.ok_or_else(|| {
            Failure::error(format!(
                "k-mer {letters:?}: expected {k} letters of A, C, G, T, found {}",
                why_no_kmer(letters, k)
            ))
        })?;
        let bits = self.params.occur_bitlen();
        let mut open: Option<(usize, Option<Table>)> = None;
        for n in 0..1u64 << bits {
            let key = self.params.counted_as(kmer) << bits | n;
            let stripe = self.stripe_of(letters.as_bytes(), key);
            let same = open.take_if(|(at, _)| *at == stripe);
            let (_, table) = open.insert(match same {
                Some(same) => same,
                None => (stripe, self.stripe(stripe)?),
            });
            let count =
                table.as_ref().map_or(Ok(0), |table| table.image()?.get(key).map_err(Failure::from))?;
            if count > 0 || n == 0 {
                line(key >> bits, self.params.k(), key, count, text);
            }
        }
        Ok(())
    }
}

/// A stripe's bytes where an [`Image`] can be opened: a private arena that holds nothing else.
struct Table {
    arena: Arena,
    chain: OwnedChain,
}

impl Table {
    fn new(bytes: &[u8]) -> Result<Self, Failure> {
        let mut toc = TocEstimator::default();
        toc.estimate(Arena::estimate(1, 0));
        let chunk_bytes = bytes.len().next_multiple_of(4096);
        let plan = Plan { toc_bytes: toc.total(), chunk_bytes, chunks: 1, beside: 0, build: 0 };
        let segment = Arc::new(Segment::create_private(&plan)?);
        let area = segment.toc()?.allocate(1, Arena::estimate(1, 0))?;
        let arena = Arena::attach(&segment, area)?;
        let chain = arena.store(Owner { slot: 0, generation: 1 }, bytes)?;
        Ok(Self { arena, chain })
    }

    fn image(&self) -> Result<Image<'_>, Failure> {
        Ok(Image::open(&self.arena, self.arena.open(self.chain.head())?, 0)?)
    }
}
