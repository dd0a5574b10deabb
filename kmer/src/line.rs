//! A cache line of a [`crate::tally::Tally`]: places of records, looked at all at once.
//!
//! ```text
//! word      0     1     2     3     4     5     6     7
//! 6, 8      r0    r1    r2    r3    r4    w0 w1 w2 w3 w4 -      r: low word of a record, s: the high one, w: weight, how often it came
//! 12        r0    r1    r2    r3    w0 s0 w1 s1 w2 s2 w3 s3     (halves of a word: low one first)
//! 16        r0    r1    r2    s0    s1    s2    w0 w1 w2 -
//! ```
//!
//! A place of weight 0 is free, and behind the first free one there are only free ones. Of the place that has a record and the first free one the first
//! is taken, so whether the record is new need not be guessed; that a line is full is rare.

use crate::record::Record;

/// Eight words of two halves each, the low one first: 64 bytes; all zeros is a line of free places.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Line(pub(crate) [u32; 16]);

/// What all words of a line are like, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// Equal to the first word that is looked for.
    pub first: u32,
    /// Equal to the second.
    pub second: u32,
    /// The high half is equal to that of the second.
    pub high: u32,
    /// The low half is zero.
    pub low_zero: u32,
    /// Half `i` is zero, low halves first: 16 bits.
    pub half_zero: u32,
}

const HIGH: u64 = !0 << 32;

impl Line {
    /// Compares all words with these two.
    #[inline(always)]
    pub(crate) fn masks(&self, first: u64, second: u64) -> Masks {
        let mut masks = Masks::default();
        for i in 0..8 {
            let word = self.word(i);
            masks.first |= u32::from(word == first) << i;
            masks.second |= u32::from(word == second) << i;
            masks.high |= u32::from(word & HIGH == second & HIGH) << i;
            masks.low_zero |= u32::from(word as u32 == 0) << i;
            masks.half_zero |=
                u32::from(word as u32 == 0) << (2 * i) | u32::from(word >> 32 == 0) << (2 * i + 1);
        }
        masks
    }

    #[inline(always)]
    fn word(&self, i: usize) -> u64 {
        u64::from(self.0[2 * i % 16]) | u64::from(self.0[(2 * i + 1) % 16]) << 32
    }

    #[inline(always)]
    fn set_word(&mut self, i: usize, word: u64) {
        (self.0[2 * i % 16], self.0[(2 * i + 1) % 16]) = (word as u32, (word >> 32) as u32);
    }

    /// Adds to the half word `half`; returns what it was.
    #[inline(always)]
    fn add_to_half(&mut self, half: usize, more: u32) -> u32 {
        let half = &mut self.0[half % 16];
        let before = *half;
        // No weight goes over its end: there are fewer records than that.
        *half = before.wrapping_add(more);
        before
    }

    #[inline(always)]
    fn half(&self, half: usize) -> u32 {
        self.0[half % 16]
    }
}

/// How records of a width lie in a line.
pub trait Places: Record {
    /// Places of a line.
    const PLACES: usize;
    /// The record's words as they stand in a line.
    #[inline(always)]
    fn sought(self) -> (u64, u64) {
        self.words()
    }
    /// Bit i: place i has the record, or is free.
    fn found(masks: Masks) -> u32;
    /// Adds to the weight of the record in a place, or puts it there if that is free: then true.
    fn add(self, line: &mut Line, place: usize, weight: u32) -> bool;
    /// What is in a place; of weight 0 is nothing.
    fn get(line: &Line, place: usize) -> (Self, u32);
}

/// Both narrow widths have one word.
macro_rules! one_word {
    ($record:ty) => {
        impl Places for $record {
            const PLACES: usize = 5;

            #[inline(always)]
            fn found(masks: Masks) -> u32 {
                (masks.first | masks.half_zero >> 10) & 31
            }

            #[inline(always)]
            fn add(self, line: &mut Line, place: usize, weight: u32) -> bool {
                line.set_word(place, self.words().0);
                line.add_to_half(10 + place, weight) == 0
            }

            #[inline(always)]
            fn get(line: &Line, place: usize) -> (Self, u32) {
                (Self::from_words(line.word(place), 0), line.half(10 + place))
            }
        }
    };
}
one_word!(crate::record::Six);
one_word!(crate::record::Eight);

impl Places for crate::record::Twelve {
    const PLACES: usize = 4;

    #[inline(always)]
    fn sought(self) -> (u64, u64) {
        let (low, high) = self.words();
        (low, high << 32)
    }

    #[inline(always)]
    fn found(masks: Masks) -> u32 {
        (masks.first & masks.high >> 4 | masks.low_zero >> 4) & 15
    }

    #[inline(always)]
    fn add(self, line: &mut Line, place: usize, weight: u32) -> bool {
        let (first, second) = self.sought();
        let before = line.half(8 + 2 * place);
        line.set_word(place, first);
        line.set_word(4 + place, second | u64::from(before + weight));
        before == 0
    }

    #[inline(always)]
    fn get(line: &Line, place: usize) -> (Self, u32) {
        let rest = line.word(4 + place);
        (Self::from_words(line.word(place), rest >> 32), rest as u32)
    }
}

impl Places for crate::record::Sixteen {
    const PLACES: usize = 3;

    #[inline(always)]
    fn found(masks: Masks) -> u32 {
        (masks.first & masks.second >> 3 | masks.half_zero >> 12) & 7
    }

    #[inline(always)]
    fn add(self, line: &mut Line, place: usize, weight: u32) -> bool {
        let (low, high) = self.words();
        line.set_word(place, low);
        line.set_word(3 + place, high);
        line.add_to_half(12 + place, weight) == 0
    }

    #[inline(always)]
    fn get(line: &Line, place: usize) -> (Self, u32) {
        (Self::from_words(line.word(place), line.word(3 + place)), line.half(12 + place))
    }
}
