//! The numbers that a stripe's result begins with, before its image: what its drain came to, under a seal of their own.

use crate::digest::digest;

/// Numbers of a stripe's summary.
pub const STRIPE_FIELDS: usize = 12;
/// Bytes before a stripe's image.
pub const IMAGE_OFFSET: u64 = 8 * STRIPE_FIELDS as u64;

/// What a stripe's drain came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StripeSummary {
    /// k-mers (or row counts, when counted directly) read from sections.
    pub delivered: u64,
    /// Sum of the digests of the sections.
    pub digest: u64,
    /// Different keys, before the threshold.
    pub distinct: u64,
    /// Sum of the row counts of all keys.
    pub counted: u64,
    /// Keys that were kept.
    pub kept: u64,
    /// The highest row count.
    pub highest: u64,
    /// Digest of the image's bytes; of no meaning in a sum of stripes.
    pub image: u64,
    /// Digest of the numbers above, which are thereby known to be the drain's without reading the image; of no meaning in a sum of stripes.
    pub seal: u64,
}

impl StripeSummary {
    /// The summary as bytes, [`IMAGE_OFFSET`] of them.
    pub fn to_bytes(&self) -> [u8; IMAGE_OFFSET as usize] {
        let mut bytes = [0; IMAGE_OFFSET as usize];
        let Self { delivered, digest, distinct, counted, kept, highest, image, seal } = *self;
        let fields = [delivered, digest, distinct, counted, kept, highest, image, seal];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// The summary from its bytes.
    pub fn from_bytes(bytes: &[u8; IMAGE_OFFSET as usize]) -> Self {
        let field = |i: usize| u64::from_le_bytes(bytes[8 * i..8 * i + 8].try_into().expect("8 bytes"));
        Self {
            delivered: field(0),
            digest: field(1),
            distinct: field(2),
            counted: field(3),
            kept: field(4),
            highest: field(5),
            image: field(6),
            seal: field(7),
        }
    }

    /// The same, sealed as those of stripe `stripe`.
    #[must_use]
    pub fn sealed(self, stripe: usize) -> Self {
        let numbers = Self { seal: 0, ..self }.to_bytes();
        Self { seal: digest(stripe, usize::MAX, &numbers), ..self }
    }

    /// Adds another stripe's numbers.
    pub fn add(&mut self, other: &Self) {
        self.delivered = self.delivered.wrapping_add(other.delivered);
        self.digest = self.digest.wrapping_add(other.digest);
        self.distinct += other.distinct;
        self.counted += other.counted;
        self.kept += other.kept;
        self.highest = self.highest.max(other.highest);
    }
}

/// The digest of a published image, which whoever reads all of it checks.
pub fn image_digest(stripe: usize, image: &[u8]) -> u64 {
    digest(usize::MAX, stripe, image)
}
