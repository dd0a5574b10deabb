//! What a pinned result is about: the head of the segment, as numbers.

use crate::bucket::Form;
use crate::{Error, Result};
use kmer::params::Params;

pub(crate) const KEY_HEAD: u64 = 0x4b50_0001;
pub(crate) const KEY_FACTS: u64 = 0x4b50_0002;
pub(crate) const KEY_BUCKETS: u64 = 0x4b50_0003;
/// "kmer-pin", and a number for each layout there ever was.
pub(crate) const BUILD: u64 = 0x6b6d_6572_7069_6e01;

pub(crate) const HEAD_WORDS: usize = 16;
pub(crate) const HEAD_BYTES: usize = HEAD_WORDS * 8;
pub(crate) const DIGEST_AT: usize = 120;
const VERSION: u64 = 1;
const CANONICAL: u64 = 1;

/// What a result is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// k.
    pub k: u32,
    /// Bits behind the k-mer in a key, which number its occurrences in a row.
    pub occur_bitlen: u32,
    /// A k-mer and its reverse complement are one, under the smaller key.
    pub canonical: bool,
    /// How many keys there are.
    pub entries: u64,
    /// Rows that were counted.
    pub total_rows: u64,
    /// What is here has a higher count than this, and what is not is answered with 0; `None`: every key that was counted is here. A report of the most
    /// frequent only, or of those up to a count, has not all with a higher count: its facts say so.
    pub threshold: Option<u64>,
    /// The lines that a report begins with.
    pub facts: String,
}

impl Spec {
    /// A result of no k-mers, with this k.
    pub fn new(k: u32) -> Self {
        let facts = String::new();
        Self { k, occur_bitlen: 0, canonical: false, entries: 0, total_rows: 0, threshold: None, facts }
    }

    /// Bytes that the segment will take, more or less.
    pub fn bytes(&self) -> u64 {
        let form = Form::for_bits(2 * self.k + self.occur_bitlen);
        form.buckets(self.entries).saturating_mul(64).saturating_add(8192 + self.facts.len() as u64)
    }

    pub(crate) fn params(&self) -> Result<Params> {
        let params = Params::new(self.k, self.occur_bitlen).map_err(|e| Error::Params(e.to_string()))?;
        Ok(params.with_canonical(self.canonical))
    }
}

/// The head: the spec without its facts, and how the buckets are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) params: Params,
    pub(crate) form: Form,
    pub(crate) buckets: u64,
    pub(crate) entries: u64,
    pub(crate) multiplier: u64,
    pub(crate) sum: u64,
    pub(crate) threshold: Option<u64>,
    pub(crate) total_rows: u64,
    pub(crate) reach: u64,
}

impl Head {
    /// The words, without the digest.
    pub(crate) fn to_words(self) -> [u64; HEAD_WORDS - 1] {
        let (k, bits) = (self.params.k().into(), self.params.occur_bitlen().into());
        let threshold = self.threshold.unwrap_or(u64::MAX);
        let flags = if self.params.canonical() { CANONICAL } else { 0 };
        let slots = self.form.slots() as u64;
        let (sum, rows, reach) = (self.sum, self.total_rows, self.reach);
        let (buckets, entries, multiplier) = (self.buckets, self.entries, self.multiplier);
        [VERSION, k, bits, flags, slots, buckets, entries, multiplier, sum, threshold, rows, reach, 0, 0, 0]
    }

    /// The head from its words, for `room` bytes of buckets.
    ///
    /// # Errors
    /// What is wrong, expected and found.
    pub(crate) fn from_words(
        words: &[u64; HEAD_WORDS],
        room: u64,
    ) -> std::result::Result<Self, (&'static str, String, u64)> {
        let [
            version,
            k,
            bits,
            flags,
            slots,
            buckets,
            entries,
            multiplier,
            sum,
            threshold,
            total_rows,
            reach,
            ..,
        ] = *words;
        let wrong = |what, expected: &str, found| Err((what, expected.to_owned(), found));
        if version != VERSION {
            return wrong("layout version", &VERSION.to_string(), version);
        }
        let params = match (u32::try_from(k), u32::try_from(bits)) {
            (Ok(k), Ok(bits)) => Params::new(k, bits).ok(),
            _ => None,
        };
        let Some(params) = params else { return wrong("k", "4 to 32, with occur_bitlen", k) };
        let form = Form::for_bits(params.key_bits());
        if slots != form.slots() as u64 {
            return wrong("entries of a bucket", &form.slots().to_string(), slots);
        }
        if buckets == 0 || buckets.checked_mul(64) != Some(room) {
            return wrong("buckets", &(room / 64).to_string(), buckets);
        }
        if entries > buckets * slots {
            return wrong("entries", "as many as the buckets hold", entries);
        }
        if reach >= buckets {
            return wrong("reach", "fewer than the buckets", reach);
        }
        let threshold = Some(threshold).filter(|t| *t != u64::MAX);
        let params = params.with_canonical(flags & CANONICAL != 0);
        Ok(Self { params, form, buckets, entries, multiplier, sum, threshold, total_rows, reach })
    }
}

/// The digest of `bytes`, which are whole words, added to `sum`.
pub(crate) fn digest(sum: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(sum, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mixed = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    })
}
