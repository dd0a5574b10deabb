//! A super-k-mer as one number, written around its minimizer: in 6, 8, 12 or 16 bytes.
//!
//! ```text
//! bits, the lowest first, for minimizers of m bases and windows of w = k - m + 1 of them
//! 1           the first record of its row in this stripe
//! 0 or 1      where k-mers are canonical: the minimizer stands there as its reverse complement
//! 2 w - 1     the bases right of the minimizer, 2 bits each, the last in the lowest; then a one
//! 2 w - 1     those left of it, likewise
//! the others  the bits of the minimizer's number that the stripe does not tell (`minimizer.rs`), then zeros
//! ```
//!
//! All k-mers of a super-k-mer have its minimizer in them, so at most w - 1 bases are left and right of it. What the stripe tells of the minimizer is not
//! stored: a record of k = 21 takes 8 bytes among 2048 stripes, where its bases alone would be up to 68 bits. [`Form::width`] is the narrowest
//! width that holds all records of a run. In memory the number is little endian. Two super-k-mers of a stripe are equal exactly when their numbers
//! are, but for bit 0, so a super-k-mer is looked up as a number; only different ones are spelled out ([`crate::spelled`]).

use crate::minimizer::Dealer;

/// Bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 6 bytes.
    Six = 6,
    /// 8 bytes.
    Eight = 8,
    /// 12 bytes.
    Twelve = 12,
    /// 16 bytes.
    Sixteen = 16,
}

impl Width {
    /// Bytes of a record.
    pub const fn bytes(self) -> usize {
        self as usize
    }
}

/// Says that a record is the first of its row in its stripe.
pub(crate) const NEW_ROW: u64 = 1;

/// Where the parts of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Bits before the bases: 1, or 2 where k-mers are canonical.
    flags: u32,
    /// Bits for the bases of a side and the one above them.
    side: u32,
    /// Bits of the minimizer.
    rest: u32,
    /// Bases of the longest super-k-mer.
    bases: u32,
}

/// Bases that a word has from wherever in a byte they begin.
const SHORT: u32 = 29;

impl Form {
    pub(crate) const fn new(dealer: &Dealer) -> Self {
        Self {
            flags: 1 + dealer.canonical as u32,
            side: 2 * dealer.window() as u32 - 1,
            rest: dealer.rest_bits,
            bases: 2 * dealer.k - dealer.m,
        }
    }

    /// The width for all records.
    pub const fn width(self) -> Width {
        match self.flags + 2 * self.side + self.rest {
            0..=48 if self.bases <= SHORT => Width::Six,
            0..=64 => Width::Eight,
            65..=96 => Width::Twelve,
            _ => Width::Sixteen,
        }
    }
}

/// The parts of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// [`NEW_ROW`] or 0, and 2 for a minimizer that is the other strand's.
    pub(crate) flags: u64,
    /// Bases right of the minimizer, with a one above them.
    pub(crate) right: u64,
    /// Bases left of it, likewise.
    pub(crate) left: u64,
    /// What the stripe does not tell of the minimizer.
    pub(crate) rest: u64,
}

/// A record as a number.
pub trait Record: Copy + Default + PartialEq + std::fmt::Debug {
    /// Its width.
    const WIDTH: Width;
    /// Whether all super-k-mers are so short that a word has their bases, from wherever in a byte they begin: 29 at most.
    const SHORT: bool;
    /// From its two words, low and high.
    fn from_words(low: u64, high: u64) -> Self;
    /// As two words.
    fn words(self) -> (u64, u64);
    /// From its bytes, of which there are [`Width::bytes`].
    fn load(bytes: &[u8]) -> Self;
    /// Into its bytes.
    fn store(self, bytes: &mut [u8]);
    /// Mixes all bits into the high bits of a word.
    fn hash(self, multiplier: u64) -> u64;
    /// Whether it is the first of its row in its stripe.
    fn is_marked(self) -> bool;
    /// The same with that mark.
    fn marked(self) -> Self;
    /// The same without that mark: what equal super-k-mers have in common.
    fn unmarked(self) -> Self;
}

/// Puts the parts together that [`parts`] takes apart.
#[inline(always)]
pub(crate) fn compose<R: Record>(form: Form, parts: Parts) -> R {
    let Parts { flags, right, left, rest } = parts;
    let low = right << form.flags | flags;
    let below = form.flags + form.side;
    if R::WIDTH.bytes() <= 8 {
        return R::from_words((rest << form.side | left) << below | low, 0);
    }
    // Left side and rest may have more than 64 bits; below them are 4 at least, and less than 64.
    let (high, above) = (rest << form.side | left, rest >> 1 >> (63 - form.side));
    R::from_words(high << below | low, above << below | high >> (64 - below))
}

/// Takes a record apart.
#[inline(always)]
pub(crate) fn parts<R: Record>(form: Form, record: R) -> Parts {
    let (low, high) = record.words();
    let (below, side) = (form.flags + form.side, !(u64::MAX << form.side));
    // Two shifts, since one of 64 bits is none.
    let (middle, above) = if R::WIDTH.bytes() <= 8 {
        (low >> below, 0)
    } else {
        (low >> below | high << (64 - below), high >> below)
    };
    Parts {
        flags: low & !(u64::MAX << form.flags),
        right: low >> form.flags & side,
        left: middle & side,
        rest: middle >> form.side | above << 1 << (63 - form.side),
    }
}

/// What the narrow widths do with their one word.
macro_rules! one_word {
    ($(#[$doc:meta])* $name:ident, $width:expr, $short:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct $name(u64);

        impl Record for $name {
            const WIDTH: Width = $width;
            const SHORT: bool = $short;

            #[inline(always)]
            fn from_words(low: u64, _: u64) -> Self {
                Self(low)
            }
            #[inline(always)]
            fn words(self) -> (u64, u64) {
                (self.0, 0)
            }
            #[inline(always)]
            fn load(bytes: &[u8]) -> Self {
                const BYTES: usize = $width.bytes();
                if BYTES == 8 {
                    return Self(u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")));
                }
                let low = u64::from(u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes")));
                // The last four bytes: the first two of them twice, if there are six.
                let last = u32::from_le_bytes(bytes[BYTES - 4..BYTES].try_into().expect("4 bytes"));
                Self(low | u64::from(last) << (8 * (BYTES - 4)))
            }
            #[inline(always)]
            fn store(self, bytes: &mut [u8]) {
                const BYTES: usize = $width.bytes();
                bytes[..BYTES].copy_from_slice(&self.0.to_le_bytes()[..BYTES]);
            }
            #[inline(always)]
            fn hash(self, multiplier: u64) -> u64 {
                (self.0 ^ self.0 >> 29).wrapping_mul(multiplier)
            }
            #[inline(always)]
            fn is_marked(self) -> bool {
                self.0 & NEW_ROW != 0
            }
            #[inline(always)]
            fn marked(self) -> Self {
                Self(self.0 | NEW_ROW)
            }
            #[inline(always)]
            fn unmarked(self) -> Self {
                Self(self.0 & !NEW_ROW)
            }
        }
    };
}

/// What the wide widths do with their two words: the low one, and the high one or half of it.
macro_rules! two_words {
    ($(#[$doc:meta])* $name:ident, $width:expr, $high:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct $name(u64, $high);

        impl Record for $name {
            const WIDTH: Width = $width;
            const SHORT: bool = false;

            #[inline(always)]
            fn from_words(low: u64, high: u64) -> Self {
                Self(low, high as $high)
            }
            #[inline(always)]
            fn words(self) -> (u64, u64) {
                (self.0, u64::from(self.1))
            }
            #[inline(always)]
            fn load(bytes: &[u8]) -> Self {
                const BYTES: usize = $width.bytes();
                let low = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
                Self(low, <$high>::from_le_bytes(bytes[8..BYTES].try_into().expect("the other bytes")))
            }
            #[inline(always)]
            fn store(self, bytes: &mut [u8]) {
                const BYTES: usize = $width.bytes();
                bytes[..8].copy_from_slice(&self.0.to_le_bytes());
                bytes[8..BYTES].copy_from_slice(&self.1.to_le_bytes());
            }
            #[inline(always)]
            fn hash(self, multiplier: u64) -> u64 {
                let high = u64::from(self.1);
                let high = (high ^ high >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (self.0 ^ self.0 >> 29 ^ high).wrapping_mul(multiplier)
            }
            #[inline(always)]
            fn is_marked(self) -> bool {
                self.0 & NEW_ROW != 0
            }
            #[inline(always)]
            fn marked(self) -> Self {
                Self(self.0 | NEW_ROW, self.1)
            }
            #[inline(always)]
            fn unmarked(self) -> Self {
                Self(self.0 & !NEW_ROW, self.1)
            }
        }
    };
}

one_word!(
    /// 6 bytes.
    Six,
    Width::Six,
    true
);
one_word!(
    /// 8 bytes.
    Eight,
    Width::Eight,
    false
);
two_words!(
    /// 12 bytes.
    Twelve,
    Width::Twelve,
    u32
);
two_words!(
    /// 16 bytes.
    Sixteen,
    Width::Sixteen,
    u64
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<R: Record>(form: Form, parts: Parts) {
        if form.width().bytes() > R::WIDTH.bytes() {
            return; // Some parts do not fit.
        }
        let record: R = compose(form, parts);
        assert_eq!(super::parts(form, record), parts);
        assert_eq!(record.is_marked(), parts.flags & NEW_ROW != 0);
        let unmarked = Parts { flags: parts.flags & !NEW_ROW, ..parts };
        assert_eq!(record.unmarked(), compose(form, unmarked));
        let mut bytes = vec![0xff; R::WIDTH.bytes() + 3];
        record.store(&mut bytes);
        assert_eq!((R::load(&bytes), &bytes[R::WIDTH.bytes()..]), (record, &[0xff; 3][..]));
        let (low, high) = record.words();
        assert_eq!(R::from_words(low, high), record);
    }

    proptest! {
        #[test]
        fn records_are_put_together_and_taken_apart(
            k in 4..=32u32, stripe_bits in 0..=16u32, canonical: bool, flags in 0..4u64, sides: (u64, u64), lens in (0..24u32, 0..24u32), rest: u64,
        ) {
            let params = crate::params::Params::new(k, 0).unwrap().with_canonical(canonical);
            let form = Dealer::new(params, stripe_bits, 1).form();
            let side = |bases: u64, len: u32| {
                let bits = 2 * (len % form.side.div_ceil(2));
                bases & !(u64::MAX << bits) | 1 << bits
            };
            let parts = Parts {
                flags: flags & !(u64::MAX << form.flags),
                right: side(sides.0, lens.0),
                left: side(sides.1, lens.1),
                rest: rest & !(u64::MAX << form.rest),
            };
            check::<Six>(form, parts);
            check::<Eight>(form, parts);
            check::<Twelve>(form, parts);
            check::<Sixteen>(form, parts);
        }
    }

    #[test]
    fn the_fullest_parts_of_every_run_fit() {
        for (k, stripe_bits, canonical) in (4..=32u32)
            .flat_map(|k| (0..=16).flat_map(move |bits| [false, true].map(|canonical| (k, bits, canonical))))
        {
            let params = crate::params::Params::new(k, 0).expect("in range").with_canonical(canonical);
            let form = Dealer::new(params, stripe_bits, 1).form();
            let [flags, side, rest] = [form.flags, form.side, form.rest].map(|bits| !(u64::MAX << bits));
            let parts = Parts { flags, right: side, left: side, rest };
            check::<Six>(form, parts);
            check::<Eight>(form, parts);
            check::<Twelve>(form, parts);
            check::<Sixteen>(form, parts);
        }
    }

    #[test]
    fn widths_of_a_run_with_2048_stripes() {
        let width = |k, canonical| {
            let params = crate::params::Params::new(k, 0).expect("in range").with_canonical(canonical);
            Dealer::new(params, 11, 7).form().width().bytes()
        };
        let found: Vec<_> =
            [13, 16, 17, 18, 21, 22, 23, 30, 31, 32].map(|k| (k, width(k, false), width(k, true))).into();
        let want = [
            (13, 6, 6),
            (16, 6, 6),
            (17, 6, 6),
            (18, 6, 8),
            (21, 8, 8),
            (22, 8, 8),
            (23, 12, 12),
            (30, 12, 12),
            (31, 12, 16),
            (32, 16, 16),
        ];
        assert_eq!(found, want);
    }
}
