//! A super-k-mer as one number: its bases and a header, in 8, 12 or 16 bytes.
//!
//! ```text
//! high bits   n bases, 2 bits each, the first in the highest bits, then zeros down to bit 8
//! bit 7       the first record of its row in this stripe
//! bits 0..7   k-mers (n = k-mers + k - 1)
//! ```
//!
//! In memory the number is little endian. Two super-k-mers are equal exactly when their numbers are, but for bit 7, so a super-k-mer is looked
//! up as a number, and its k-mers are shifts of it that do not wait for each other. [`Width::for_kmers`] picks the narrowest width that holds
//! the longest super-k-mer without repeats; longer ones (the same m-mer is the minimizer again and again) are cut.

use crate::params::Params;
use crate::simd;

/// Bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bytes, up to 28 bases.
    Narrow = 8,
    /// 12 bytes, up to 44 bases.
    Middle = 12,
    /// 16 bytes, up to 60 bases.
    Wide = 16,
}

/// Says that a record is the first of its row in its stripe.
pub const NEW_ROW: u8 = 0x80;

impl Width {
    /// The width for k-mers of `k` bases whose minimizers have `m`.
    pub const fn for_kmers(k: u32, m: u32) -> Self {
        match 2 * k - m {
            0..=28 => Self::Narrow,
            29..=44 => Self::Middle,
            _ => Self::Wide,
        }
    }

    /// Bytes of a record.
    pub const fn bytes(self) -> usize {
        self as usize
    }

    /// Bases that fit a record.
    pub const fn bases(self) -> u32 {
        (self as u32 - 1) * 4
    }

    /// Most k-mers of `k` bases in a record: as many as fit, and at most 32.
    pub const fn max_kmers(self, k: u32) -> u32 {
        let fit = self.bases() - k + 1;
        if fit < 32 { fit } else { 32 }
    }
}

/// A record as a number.
pub trait Record: Copy + Default + PartialEq + std::fmt::Debug {
    /// Its width.
    const WIDTH: Width;
    /// `n` bases of `packed` from base `start` on, header zero. `packed` has 16 bytes from there on.
    fn cut(packed: &[u8], start: usize, n: u32) -> Self;
    /// The same with a header.
    fn with_header(self, header: u8) -> Self;
    /// The low byte.
    fn header(self) -> u8;
    /// The same without the mark of a new row: what equal super-k-mers have in common.
    fn unmarked(self) -> Self;
    /// From its bytes, of which there are [`Width::bytes`].
    fn load(bytes: &[u8]) -> Self;
    /// Into its bytes.
    fn store(self, bytes: &mut [u8]);
    /// 64 bits of bases from base `i` on, `i` below 32.
    fn window(self, i: u32) -> u64;
    /// Mixes all bits into the high bits of a word.
    fn hash(self, multiplier: u64) -> u64;
    /// As two words.
    fn words(self) -> (u64, u64);
    /// From its two words.
    fn from_words(first: u64, second: u64) -> Self;
}

/// 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Narrow(u64);
/// 12 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Middle(u64, u64);
/// 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wide(u64, u64);

#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("8 bytes"))
}

impl Record for Narrow {
    const WIDTH: Width = Width::Narrow;

    #[inline(always)]
    fn cut(packed: &[u8], start: usize, n: u32) -> Self {
        // 28 bases and up to 3 before them fit a word.
        let bases = word(&packed[start / 4..start / 4 + 8]) << (2 * (start % 4));
        Self(bases & (!0 << (64 - 2 * n)))
    }
    #[inline(always)]
    fn with_header(self, header: u8) -> Self {
        Self(self.0 | u64::from(header))
    }
    #[inline(always)]
    fn header(self) -> u8 {
        self.0 as u8
    }
    #[inline(always)]
    fn unmarked(self) -> Self {
        Self(self.0 & !u64::from(NEW_ROW))
    }
    #[inline(always)]
    fn load(bytes: &[u8]) -> Self {
        Self(u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")))
    }
    #[inline(always)]
    fn store(self, bytes: &mut [u8]) {
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
    }
    #[inline(always)]
    fn window(self, i: u32) -> u64 {
        self.0 << (2 * i)
    }
    #[inline(always)]
    fn hash(self, multiplier: u64) -> u64 {
        (self.0 ^ self.0 >> 29).wrapping_mul(multiplier)
    }
    #[inline(always)]
    fn words(self) -> (u64, u64) {
        (self.0, 0)
    }
    #[inline(always)]
    fn from_words(first: u64, _: u64) -> Self {
        Self(first)
    }
}

/// The bits of so many bases in two words, high word first.
static KEPT: [(u64, u64); 64] = {
    let (mut kept, mut n) = ([(0, 0); 64], 1);
    while n < 64 {
        let bits = u128::MAX << (128 - 2 * n);
        kept[n] = ((bits >> 64) as u64, bits as u64);
        n += 1;
    }
    kept
};

/// What both long widths do with their two words, high word first.
macro_rules! two_words {
    ($name:ident, $width:expr, $load:expr, $store:expr) => {
        impl Record for $name {
            const WIDTH: Width = $width;

            #[inline(always)]
            fn cut(packed: &[u8], start: usize, n: u32) -> Self {
                let bytes = &packed[start / 4..start / 4 + 16];
                let shift = 2 * (start % 4) as u32;
                // The low bits of the second word, which none of up to 60 bases needs, are zeros.
                let high = word(bytes) << shift | u64::from(bytes[8]) >> (8 - shift);
                let low = word(&bytes[8..]) << shift;
                let (kept_high, kept_low) = KEPT[n as usize & 63];
                Self(high & kept_high, low & kept_low)
            }
            #[inline(always)]
            fn with_header(self, header: u8) -> Self {
                Self(self.0, self.1 | u64::from(header) << (128 - 8 * Self::WIDTH.bytes()))
            }
            #[inline(always)]
            fn header(self) -> u8 {
                (self.1 >> (128 - 8 * Self::WIDTH.bytes())) as u8
            }
            #[inline(always)]
            fn unmarked(self) -> Self {
                Self(self.0, self.1 & !(u64::from(NEW_ROW) << (128 - 8 * Self::WIDTH.bytes())))
            }
            #[inline(always)]
            fn load(bytes: &[u8]) -> Self {
                $load(bytes)
            }
            #[inline(always)]
            fn store(self, bytes: &mut [u8]) {
                $store(self, bytes)
            }
            #[inline(always)]
            fn window(self, i: u32) -> u64 {
                // Two shifts, since one of 64 bits is none.
                self.0 << (2 * i) | self.1 >> 1 >> (63 - 2 * i)
            }
            #[inline(always)]
            fn hash(self, multiplier: u64) -> u64 {
                let low = (self.1 ^ self.1 >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (self.0 ^ self.0 >> 29 ^ low).wrapping_mul(multiplier)
            }
            #[inline(always)]
            fn words(self) -> (u64, u64) {
                (self.0, self.1)
            }
            #[inline(always)]
            fn from_words(first: u64, second: u64) -> Self {
                Self(first, second)
            }
        }
    };
}

two_words!(
    Middle,
    Width::Middle,
    |bytes: &[u8]| {
        let low = u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"));
        Self(u64::from_le_bytes(bytes[4..12].try_into().expect("8 bytes")), u64::from(low) << 32)
    },
    |record: Self, bytes: &mut [u8]| {
        bytes[..4].copy_from_slice(&((record.1 >> 32) as u32).to_le_bytes());
        bytes[4..12].copy_from_slice(&record.0.to_le_bytes());
    }
);
two_words!(
    Wide,
    Width::Wide,
    |bytes: &[u8]| {
        let half = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Self(half(8), half(0))
    },
    |record: Self, bytes: &mut [u8]| {
        bytes[..8].copy_from_slice(&record.1.to_le_bytes());
        bytes[8..16].copy_from_slice(&record.0.to_le_bytes());
    }
);

/// How many k-mers a record says it has.
#[inline(always)]
pub fn kmers<R: Record>(record: R) -> u32 {
    u32::from(record.header() & !NEW_ROW)
}

/// k-mers of a batch of records, and whose they are, for a counter to take.
#[derive(Default)]
pub struct Expanded<K> {
    /// k-mers, then some that mean nothing.
    pub keys: Vec<K>,
    /// What was given with each k-mer's record.
    pub tags: Vec<u64>,
    /// How many k-mers there are.
    pub len: usize,
}

/// k-mers that are written at a time, wanted or not.
pub(crate) const LANES: usize = 8;
/// Places that [`Expanded`] has behind its limit, so that whole groups can be written.
pub(crate) const SLACK: usize = 64;

impl<K: Copy + Default> Expanded<K> {
    /// Room for `limit` k-mers.
    pub fn new(limit: usize) -> Self {
        Self { keys: vec![K::default(); limit + SLACK], tags: vec![0; limit + SLACK], len: 0 }
    }

    /// How many k-mers there is room for.
    pub fn limit(&self) -> usize {
        self.keys.len() - SLACK
    }

    /// The k-mers and their tags.
    pub fn pairs(&self) -> (&[K], &[u64]) {
        (&self.keys[..self.len], &self.tags[..self.len])
    }
}

/// A k-mer as a counter takes it.
pub trait KeyBits: Copy + Default {
    /// From the low bits of a word.
    fn from_word(word: u64) -> Self;
}

impl KeyBits for u32 {
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        word as u32
    }
}

impl KeyBits for u64 {
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        word
    }
}

/// Appends the k-mers of as many `records` as there is room for, each with its record's tag, and says how many records that were.
///
/// # Errors
/// The number of a record whose header no writer leaves: no k-mers, or more than fit.
pub fn expand<R: Record, K: KeyBits>(
    records: &[R],
    tags: &[u64],
    params: Params,
    into: &mut Expanded<K>,
) -> Result<usize, usize> {
    simd::expand(records, tags, params, into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bases::{Run, kmers_of};
    use proptest::prelude::*;

    fn check<R: Record>(packed: &[u8], start: usize, n: u32, k: u32) {
        let params = Params::new(k, 0).expect("in range");
        let count = n - k + 1;
        let plain = R::cut(packed, start, n).with_header(count as u8);
        let marked = R::cut(packed, start, n).with_header(count as u8 | NEW_ROW);
        assert_eq!((kmers(plain), marked.unmarked(), marked.header()), (count, plain, count as u8 | NEW_ROW));
        let mut bytes = vec![0; R::WIDTH.bytes()];
        marked.store(&mut bytes);
        assert_eq!(R::load(&bytes), marked);
        let run = Run { start: start as u32, len: n, row: 0 };
        let want: Vec<u64> = kmers_of(packed, &run, params).collect();
        let mut got = Expanded::<u64>::new(100);
        assert_eq!(expand(&[plain], &[7 << 32 | 5], params, &mut got), Ok(1));
        assert_eq!(got.pairs(), (&want[..], &vec![7 << 32 | 5; want.len()][..]));
        let (params, mut got) = (params.with_canonical(true), Expanded::<u64>::new(100));
        assert_eq!(expand(&[plain], &[1], params, &mut got), Ok(1));
        assert_eq!(got.pairs().0, want.iter().map(|kmer| params.counted_as(*kmer)).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn records_hold_their_kmers(bytes in prop::collection::vec(any::<u8>(), 80), start in 0..200usize, k in 4..=32u32, more in 0..60u32) {
            if k <= 28 { check::<Narrow>(&bytes, start, k + more % Width::Narrow.max_kmers(k), k); }
            check::<Middle>(&bytes, start, k + more % Width::Middle.max_kmers(k), k);
            check::<Wide>(&bytes, start, k + more % Width::Wide.max_kmers(k), k);
        }
    }

    #[test]
    fn a_full_buffer_takes_no_more_and_a_bad_header_is_named() {
        let params = Params::new(16, 0).expect("in range");
        let record = Narrow::cut(&[0x1b; 16], 0, 20).with_header(5);
        let mut into = Expanded::<u32>::new(12);
        assert_eq!(expand(&[record; 4], &[1; 4], params, &mut into), Ok(2));
        assert_eq!(into.len, 10);
        let bad = Narrow::cut(&[0x1b; 16], 0, 20).with_header(14);
        assert_eq!(expand(&[record, bad], &[1; 2], params, &mut Expanded::<u32>::new(64)), Err(1));
        let none = Narrow::cut(&[0x1b; 16], 0, 20);
        assert_eq!(expand(&[none], &[1], params, &mut Expanded::<u32>::new(64)), Err(0));
    }
}
