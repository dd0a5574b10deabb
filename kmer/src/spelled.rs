//! Spells records out: the super-k-mer's bases again, and its k-mers, which are shifts of them that do not wait for each other.
//!
//! What a record does not have of its minimizer the stripe tells. Where a stripe has more records than minimizers a [`Speller`] lists these once, so that each
//! record finds its own by number. Groups of records are spelled side by side, so that the processor has other work while one waits.

use crate::minimizer::Dealer;
use crate::params::Params;
use crate::record::{Form, Parts, Record, parts};
use crate::simd;

/// Spells out records of one stripe.
#[derive(Debug)]
pub struct Speller {
    dealer: Dealer,
    form: Form,
    pub(crate) k: u32,
    pub(crate) canonical: bool,
    stripe: u32,
    /// The stripe's minimizers, in the order of what a record has of their numbers, the first base in the highest bits; where k-mers are canonical
    /// each with its reverse complement behind it. Or nothing.
    listed: Vec<u64>,
}

/// Super-k-mers that are spelled side by side: their bases, the first in the highest bits of the first word, and how many k-mers they have, which is
/// 0 for what no writer leaves.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spelled {
    pub(crate) first: [u64; GROUP],
    pub(crate) second: [u64; GROUP],
    pub(crate) kmers: [u64; GROUP],
}

/// Records that are spelled at a time.
pub(crate) const GROUP: usize = 16;

impl Speller {
    /// For k-mers that `dealer` deals out. [`Speller::begin_stripe`] comes first.
    pub fn new(dealer: Dealer) -> Self {
        let (k, canonical) = (dealer.k, dealer.canonical);
        Self { dealer, form: dealer.form(), k, canonical, stripe: 0, listed: Vec::new() }
    }

    /// For k-mers of `params` in `2^stripe_bits` stripes, dealt out by `seed`.
    pub fn of(params: Params, stripe_bits: u32, seed: u64) -> Self {
        Self::new(Dealer::new(params, stripe_bits, seed))
    }

    /// From now on records are of this stripe, about so many.
    pub fn begin_stripe(&mut self, stripe: u32, records: usize) {
        self.stripe = stripe;
        let mut listed = std::mem::take(&mut self.listed);
        listed.clear();
        if records as u64 > self.numbers() {
            listed.extend((0..self.numbers()).filter_map(|number| self.minimizer(number)));
        }
        self.listed = listed;
    }

    /// How many minimizers of a stripe are told apart: those of both strands, where k-mers are canonical.
    fn numbers(&self) -> u64 {
        1 << (self.dealer.rest_bits + u32::from(self.canonical))
    }

    /// The stripe's minimizer of that number, if there is one: its first base in the highest bits.
    #[inline(always)]
    fn minimizer(&self, number: u64) -> Option<u64> {
        let (rest, is_other) = match self.canonical {
            true => (number >> 1, number & 1 == 1),
            false => (number, false),
        };
        // Of stripes without minimizers there are no records.
        let named = (self.stripe << self.dealer.rest_bits | rest as u32) & self.dealer.mask;
        let mmer = self.dealer.mmer(named);
        let mmer = if is_other { self.dealer.other_strand(mmer) } else { mmer };
        (number < self.numbers()).then_some(u64::from(mmer) << (64 - 2 * self.dealer.m))
    }

    /// Spells out up to [`GROUP`] records.
    #[inline(always)]
    pub(crate) fn spell<R: Record>(&self, records: &[R], spelled: &mut Spelled) {
        let records = &records[..records.len().min(GROUP)];
        let [mut lefts, mut rights, mut numbers, mut minimizers] = [[0; GROUP]; 4];
        for (i, record) in records.iter().enumerate() {
            let Parts { flags, right, left, rest } = parts(self.form, *record);
            let strand = if self.canonical { flags >> 1 } else { 0 };
            (lefts[i], rights[i]) = (left, right);
            numbers[i] = rest << u32::from(self.canonical) | strand;
        }
        // No minimizer is all ones.
        let of = |number: u64| match self.listed.is_empty() {
            true => self.minimizer(number),
            false => self.listed.get(number as usize).copied(),
        };
        for (minimizer, number) in minimizers.iter_mut().zip(&numbers[..records.len()]) {
            *minimizer = of(*number).unwrap_or(u64::MAX);
        }
        let (m, most) = (2 * u64::from(self.dealer.m), self.dealer.window() as u64);
        let fewer = u64::from(self.k) - 1;
        for i in 0..GROUP {
            let (left, right, minimizer) = (lefts[i], rights[i], minimizers[i]);
            // A side's one is shifted out at the top, and its bases stand there.
            let (above_left, above_right) =
                (u64::from(left.leading_zeros()), u64::from(right.leading_zeros()));
            let left = left << (above_left & 63) << 1;
            let right = right << (above_right & 63) << 1;
            let (left_bits, right_bits) = (63 - (above_left & 63), 63 - (above_right & 63));
            // Left side and minimizer are of one k-mer and fit the first word.
            let before_right = left_bits + m;
            spelled.first[i] =
                left | minimizer >> (left_bits & 63) | right >> 1 >> (before_right.wrapping_sub(1) & 63);
            if !R::SHORT {
                spelled.second[i] = right << (64u64.wrapping_sub(before_right) & 63);
            }
            let kmers = ((before_right + right_bits) / 2).wrapping_sub(fewer);
            // Nothing is sound without the ones of both sides, which have two bits a base below them.
            let odd = (left_bits | right_bits) & 1 | (above_left | above_right) >> 6;
            let is_sound = odd == 0 && kmers.wrapping_sub(1) < most && minimizer != u64::MAX;
            spelled.kmers[i] = if is_sound { kmers } else { 0 };
        }
    }
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
    /// How many there were in all since this was set to 0, each as often as the high half of its tag says.
    pub weighed: u64,
}

/// k-mers that are written at a time, wanted or not.
pub(crate) const LANES: usize = 8;
/// Places that [`Expanded`] has behind its limit, so that whole groups can be written.
pub(crate) const SLACK: usize = 64;

impl<K: Copy + Default> Expanded<K> {
    /// Room for `limit` k-mers.
    pub fn new(limit: usize) -> Self {
        Self { keys: vec![K::default(); limit + SLACK], tags: vec![0; limit + SLACK], len: 0, weighed: 0 }
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
/// The number of a record that no writer leaves: no k-mers, or more than have one minimizer, or another stripe's minimizer.
pub fn expand<R: Record, K: KeyBits>(
    records: &[R],
    tags: &[u64],
    speller: &Speller,
    into: &mut Expanded<K>,
) -> Result<usize, usize> {
    simd::expand(records, tags, speller, into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Eight, Six, Sixteen, Twelve, compose};
    use proptest::prelude::*;

    /// A record of any m-mer and any sides, in all widths that hold it, leads back to them: base by base.
    fn check<R: Record>(dealer: Dealer, record: Parts, letters: &[u8], stripe: u32, records: usize) {
        if dealer.form().width().bytes() > R::WIDTH.bytes() || (R::SHORT && letters.len() > 29) {
            return;
        }
        let (params, mut expanded) = (
            Params::new(dealer.k, 0).expect("in range").with_canonical(dealer.canonical),
            Expanded::<u64>::new(64),
        );
        let mut speller = Speller::new(dealer);
        speller.begin_stripe(stripe, records);
        let number = |bases: &[u8]| bases.iter().fold(0, |kmer, base| kmer << 2 | u64::from(*base));
        let want: Vec<_> =
            letters.windows(dealer.k as usize).map(|bases| params.counted_as(number(bases))).collect();
        let record: R = compose(dealer.form(), record);
        assert_eq!(expand(&[record], &[7 << 32 | 5], &speller, &mut expanded), Ok(1));
        assert_eq!(expanded.pairs(), (&want[..], &vec![7 << 32 | 5; want.len()][..]));
        assert_eq!(expanded.weighed, 7 * want.len() as u64);
    }

    proptest! {
        #[test]
        fn records_lead_back_to_their_bases(
            k in 4..=32u32, stripe_bits in 0..=16u32, seed: u64, canonical: bool, other_strand: bool, lens in (0..24usize, 0..24usize),
            bases in prop::collection::vec(0..4u8, 60), marked: bool, listed: bool,
        ) {
            let params = Params::new(k, 0).unwrap().with_canonical(canonical);
            let dealer = Dealer::new(params, stripe_bits, seed);
            let (m, most) = (dealer.m as usize, (k - dealer.m) as usize);
            // As long as a k-mer at least.
            let left = lens.0 % (most + 1);
            let right = most - left + lens.1 % (left + 1);
            let letters = &bases[..left + m + right];
            let number = |bases: &[u8]| bases.iter().fold(0, |kmer, base| kmer << 2 | u64::from(*base));
            let mmer = number(&letters[left..left + m]) as u32;
            let is_other = canonical && other_strand;
            let named = dealer.number(dealer.hash(if is_other { dealer.other_strand(mmer) } else { mmer }));
            let record = Parts {
                flags: u64::from(marked) | u64::from(is_other) << 1,
                right: number(&letters[left + m..]) | 1 << (2 * right),
                left: number(&letters[..left]) | 1 << (2 * left),
                rest: u64::from(named & !(u32::MAX << dealer.rest_bits)),
            };
            let (stripe, records) = (dealer.stripe(named), if listed { usize::MAX } else { 1 });
            check::<Six>(dealer, record, letters, stripe, records);
            check::<Eight>(dealer, record, letters, stripe, records);
            check::<Twelve>(dealer, record, letters, stripe, records);
            check::<Sixteen>(dealer, record, letters, stripe, records);
        }
    }

    #[test]
    fn a_full_buffer_takes_no_more_and_a_bad_record_is_named() {
        let dealer = Dealer::new(Params::new(16, 0).expect("in range"), 11, 1);
        let mut speller = Speller::new(dealer);
        let sound = Parts { flags: 1, right: 1 << 18, left: 1 << 8, rest: 5 };
        let record = |parts| compose::<Six>(dealer.form(), parts);
        speller.begin_stripe(3, 1);
        let mut into = Expanded::<u32>::new(12);
        assert_eq!(expand(&[record(sound); 40], &[1 << 32; 40], &speller, &mut into), Ok(2));
        assert_eq!((into.len, into.weighed), (10, 10));
        let bad = [
            Parts { right: 0, ..sound },
            Parts { left: 0, ..sound },
            Parts { left: 1 << 7, ..sound },
            // Not a k-mer, and another stripe's minimizer.
            Parts { right: 1 << 8, ..sound },
            Parts { rest: 8, ..sound },
        ];
        for (bad, listed) in bad.into_iter().flat_map(|bad| [(bad, 1), (bad, 1000)]) {
            speller.begin_stripe(3, listed);
            let records: Vec<_> = (0..40).map(|i| record(if i == 33 { bad } else { sound })).collect();
            let mut into = Expanded::<u32>::new(1000);
            assert_eq!(expand(&records, &[1; 40], &speller, &mut into), Err(33), "{bad:?}");
        }
    }
}
