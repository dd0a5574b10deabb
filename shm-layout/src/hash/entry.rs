//! Entries of a published stripe, by the width of their keys.
//!
//! ```text
//! KmerEntry16  8 bytes: key u16, zero u16, count u32
//! KmerEntry32  8 bytes: key u32, count u32
//! KmerEntry64 12 bytes: key u64, count u32        (4-aligned: two words would waste a quarter)
//! identity     4 bytes: count u32                 (the entry's place is its key)
//! ```
//!
//! All numbers are little endian. A count of zero marks an empty place.

/// How entries are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryKind {
    /// [`KmerEntry16`].
    Kmer16 = 16,
    /// [`KmerEntry32`].
    Kmer32 = 32,
    /// [`KmerEntry64`].
    Kmer64 = 64,
    /// Counts only; the place is the key.
    Identity = 1,
}

impl EntryKind {
    /// The narrowest entry for keys of `bits` bits.
    pub const fn for_bits(bits: u32) -> Self {
        match bits {
            0..=16 => Self::Kmer16,
            17..=32 => Self::Kmer32,
            _ => Self::Kmer64,
        }
    }

    /// Bytes of an entry.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Identity => 4,
            Self::Kmer16 => size_of::<KmerEntry16>(),
            Self::Kmer32 => size_of::<KmerEntry32>(),
            Self::Kmer64 => size_of::<KmerEntry64>(),
        }
    }

    /// The kind from its number in an image.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Identity),
            16 => Some(Self::Kmer16),
            32 => Some(Self::Kmer32),
            64 => Some(Self::Kmer64),
            _ => None,
        }
    }

    /// Writes an entry at the start of `place`, which has [`EntryKind::bytes`] bytes.
    pub fn store(self, place: &mut [u8], key: u64, count: u32) {
        let count = count.to_le_bytes();
        match self {
            Self::Identity => place.copy_from_slice(&count),
            Self::Kmer16 => {
                place[..2].copy_from_slice(&(key as u16).to_le_bytes());
                place[4..].copy_from_slice(&count);
            }
            Self::Kmer32 => {
                place[..4].copy_from_slice(&(key as u32).to_le_bytes());
                place[4..].copy_from_slice(&count);
            }
            Self::Kmer64 => {
                place[..8].copy_from_slice(&key.to_le_bytes());
                place[8..].copy_from_slice(&count);
            }
        }
    }

    /// Reads the entry at the start of `place`, number `index` of its stripe, whose keys start at `base` when they are not stored.
    pub fn load(self, place: &[u8], base: u64, index: u64) -> (u64, u32) {
        let number = |from: usize| {
            u32::from_le_bytes([place[from], place[from + 1], place[from + 2], place[from + 3]])
        };
        match self {
            Self::Identity => (base + index, number(0)),
            Self::Kmer16 => (u64::from(number(0)) & 0xffff, number(4)),
            Self::Kmer32 => (u64::from(number(0)), number(4)),
            Self::Kmer64 => (u64::from(number(0)) | u64::from(number(4)) << 32, number(8)),
        }
    }
}

/// An entry whose key has up to 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct KmerEntry16 {
    /// The key.
    pub key: u16,
    /// Zero.
    pub reserved: u16,
    /// In how many groups it occurs; 0 is an empty place.
    pub count: u32,
}

/// An entry whose key has up to 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct KmerEntry32 {
    /// The key.
    pub key: u32,
    /// In how many groups it occurs; 0 is an empty place.
    pub count: u32,
}

/// An entry whose key has up to 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct KmerEntry64 {
    /// The key, low half first.
    pub key: [u32; 2],
    /// In how many groups it occurs; 0 is an empty place.
    pub count: u32,
}

const _: () = assert!(size_of::<KmerEntry16>() == 8 && std::mem::offset_of!(KmerEntry16, count) == 4);
const _: () = assert!(size_of::<KmerEntry32>() == 8 && std::mem::offset_of!(KmerEntry32, count) == 4);
const _: () = assert!(size_of::<KmerEntry64>() == 12 && std::mem::offset_of!(KmerEntry64, count) == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_gives_back_what_it_stored() {
        for (kind, key) in [
            (EntryKind::Kmer16, 0xfedc),
            (EntryKind::Kmer32, 0xfedc_ba98),
            (EntryKind::Kmer64, 0xfedc_ba98_7654_3210),
        ] {
            let mut place = vec![0; kind.bytes()];
            kind.store(&mut place, key, 77);
            assert_eq!(kind.load(&place, 5, 6), (key, 77), "{kind:?}");
            assert_eq!(EntryKind::from_number(kind as u32), Some(kind));
        }
        let mut place = [0; 4];
        EntryKind::Identity.store(&mut place, 11, 9);
        assert_eq!(EntryKind::Identity.load(&place, 5, 6), (11, 9));
    }
}
