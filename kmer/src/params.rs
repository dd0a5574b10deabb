//! k and occur_bitlen, checked once.

/// Smallest k.
pub const MIN_K: u32 = 4;
/// Largest k: 64 bits hold 32 bases.
pub const MAX_K: u32 = 32;
/// Largest occur_bitlen.
pub const MAX_OCCUR_BITLEN: u32 = 16;

/// What is counted: k-mers of `k` bases, and of each k-mer in a row the first 2^occur_bitlen occurrences as keys of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    k: u32,
    occur_bitlen: u32,
    canonical: bool,
}

/// A parameter out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// k is not a k.
    #[error("k-mer size: expected {MIN_K} to {MAX_K}, found {0}")]
    KmerSize(u32),
    /// occur_bitlen is too large by itself.
    #[error("occur_bitlen: expected 0 to {MAX_OCCUR_BITLEN}, found {0}")]
    OccurBitlen(u32),
    /// Both together do not fit a key.
    #[error(
        "key: expected 2 * k + occur_bitlen to be at most 64 bits, found {bits} (k {k}, occur_bitlen {occur_bitlen})"
    )]
    KeyBits {
        /// k
        k: u32,
        /// occur_bitlen
        occur_bitlen: u32,
        /// Bits of a key.
        bits: u32,
    },
}

impl Params {
    /// Checks k in 4..=32, occur_bitlen in 0..=16, and that a key fits 64 bits.
    ///
    /// # Errors
    /// [`ParamsError`] naming the range and what was found.
    pub fn new(k: u32, occur_bitlen: u32) -> Result<Self, ParamsError> {
        if !(MIN_K..=MAX_K).contains(&k) {
            return Err(ParamsError::KmerSize(k));
        }
        if occur_bitlen > MAX_OCCUR_BITLEN {
            return Err(ParamsError::OccurBitlen(occur_bitlen));
        }
        let bits = 2 * k + occur_bitlen;
        if bits > 64 {
            return Err(ParamsError::KeyBits { k, occur_bitlen, bits });
        }
        Ok(Self { k, occur_bitlen, canonical: false })
    }

    /// The same, but a k-mer and its reverse complement count as one: the smaller of the two.
    #[must_use]
    pub const fn with_canonical(self, canonical: bool) -> Self {
        Self { canonical, ..self }
    }

    /// Whether a k-mer and its reverse complement count as one.
    pub const fn canonical(self) -> bool {
        self.canonical
    }

    /// What `kmer` counts as.
    #[inline(always)]
    pub fn counted_as(self, kmer: u64) -> u64 {
        if self.canonical { canonical(kmer, self.k) } else { kmer }
    }

    /// Bases of a k-mer.
    pub const fn k(self) -> u32 {
        self.k
    }

    /// Bits of a key that number the occurrence.
    pub const fn occur_bitlen(self) -> u32 {
        self.occur_bitlen
    }

    /// Bits of a key.
    pub const fn key_bits(self) -> u32 {
        2 * self.k + self.occur_bitlen
    }

    /// All ones in the low `2 * k` bits.
    pub const fn kmer_mask(self) -> u64 {
        u64::MAX >> (64 - 2 * self.k)
    }
}

/// The reverse complement of a k-mer of `k` bases, 1 to 32.
#[inline(always)]
pub const fn reverse_complement(kmer: u64, k: u32) -> u64 {
    let pairs = !kmer;
    let nibbles = (pairs >> 2 & 0x3333_3333_3333_3333) | (pairs & 0x3333_3333_3333_3333) << 2;
    let bytes = (nibbles >> 4 & 0x0f0f_0f0f_0f0f_0f0f) | (nibbles & 0x0f0f_0f0f_0f0f_0f0f) << 4;
    bytes.swap_bytes() >> (64 - 2 * k)
}

/// The smaller of a k-mer and its reverse complement.
#[inline(always)]
pub fn canonical(kmer: u64, k: u32) -> u64 {
    kmer.min(reverse_complement(kmer, k))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reverse_complement_is_read_from_the_end() {
        for letters in ["ACGT", "AAAA", "GATTACA", "ACGTTGCATTTGACCAGTACCAGTTTACCAGT"] {
            let other: String = letters
                .chars()
                .rev()
                .map(|c| match c {
                    'A' => 'T',
                    'C' => 'G',
                    'G' => 'C',
                    _ => 'A',
                })
                .collect();
            let kmer = |text: &str| crate::codec::parse_kmer(text.as_bytes()).expect("letters");
            assert_eq!(reverse_complement(kmer(letters), letters.len() as u32), kmer(&other));
            assert_eq!(canonical(kmer(letters), letters.len() as u32), kmer(letters).min(kmer(&other)));
        }
    }

    #[test]
    fn ranges() {
        for (k, b) in [(4, 0), (32, 0), (4, 16), (24, 16), (31, 2)] {
            assert!(Params::new(k, b).is_ok(), "{k} {b}");
        }
        let text = |k, b| Params::new(k, b).expect_err("out of range").to_string();
        assert_eq!(text(3, 0), "k-mer size: expected 4 to 32, found 3");
        assert_eq!(text(33, 0), "k-mer size: expected 4 to 32, found 33");
        assert_eq!(text(8, 17), "occur_bitlen: expected 0 to 16, found 17");
        assert!(text(32, 1).contains("at most 64 bits, found 65 (k 32, occur_bitlen 1)"));
    }
}
