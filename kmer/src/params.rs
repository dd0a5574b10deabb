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
        Ok(Self { k, occur_bitlen })
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

#[cfg(test)]
mod tests {
    use super::*;

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
