//! Counts the records of one stripe in private memory: equal records are found first, then their k-mers are counted once for all of them.
//!
//! Keeps its memory from stripe to stripe, and sizes its tables by what the stripes before came to, within reason: a stripe of a single k-mer, a million times,
//! must not get a table for a million. Tables grow where that is too little.

use kmer::line::Places;
use kmer::minimizer::Dealer;
use kmer::params::Params;
use kmer::record::Record;
use kmer::spelled::{Expanded, KeyBits, Speller, expand};
use kmer::tally::{Others, Tally};
use shm_layout::hash::counter::{Added, GroupCounter, Key};
use shm_layout::hash::table::Table;
use shm_layout::hash::weights::WeightCounter;

/// Counts records `R` whose k-mers are keys `K`.
pub(crate) struct Counting<R, K> {
    tally: Tally<R>,
    others: Others<R>,
    groups: GroupCounter<K>,
    weights: WeightCounter,
    /// Which of the two has what was counted last.
    is_weighed: bool,
    expanded: Expanded<K>,
    speller: Speller,
    seen: Seen,
    how: How,
}

/// The table that a stripe was counted in.
pub(crate) enum Counted<'a, K> {
    /// By whose keys they are.
    Groups(&'a GroupCounter<K>),
    /// By weights alone.
    Weights(&'a WeightCounter),
}

/// What counts.
#[derive(Clone, Copy)]
struct How {
    occurrences: bool,
    occur_bitlen: u32,
    key_bits: u32,
    /// A record that is added up has no k-mer twice, or one that comes twice counts twice.
    weighs: bool,
}

/// What the stripes so far came to.
#[derive(Clone, Copy)]
struct Seen {
    records: u64,
    distinct_records: u64,
    kmers: u64,
    distinct_kmers: u64,
    /// The most different records, and keys, of a stripe.
    most: (usize, usize),
}

/// Tables are made for so many at least, and at most for twice as many as a stripe had.
const LIKELY: usize = 1 << 19;

/// Stripes of which at most one record in so many is not added up are counted by weights.
const FEW: u64 = 8;

/// k-mers that are expanded at a time: what is needed of them fits the first cache.
const EXPANDED: usize = 1024;

impl<R: Places, K: Key + KeyBits> Counting<R, K> {
    /// For k-mers of `params` in `2^stripe_bits` stripes, with hashes drawn by `seed`. With `occurrences` every occurrence counts, not every row.
    pub(crate) fn new(params: Params, stripe_bits: u32, seed: u64, occurrences: bool) -> Self {
        // Other draws than the minimizers': the same bits there would be the same bits here.
        let draw = |turn: u32| seed.rotate_left(turn).wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self {
            tally: Tally::new(Dealer::new(params, stripe_bits, seed).form(), draw(11)),
            others: Others { records: Vec::new(), tags: Vec::new() },
            groups: GroupCounter::for_bits(0, draw(23), params.key_bits()),
            weights: WeightCounter::new(draw(23), params.key_bits()),
            is_weighed: false,
            expanded: Expanded::new(EXPANDED),
            speller: Speller::of(params, stripe_bits, seed),
            seen: Seen { records: 2, distinct_records: 1, kmers: 4, distinct_kmers: 1, most: (0, 0) },
            how: How {
                occurrences,
                occur_bitlen: params.occur_bitlen(),
                key_bits: params.key_bits(),
                weighs: params.occur_bitlen() == 0 && (occurrences || !params.canonical()),
            },
        }
    }

    /// The keys that were counted last.
    pub(crate) fn table(&self) -> Counted<'_, K> {
        if self.is_weighed { Counted::Weights(&self.weights) } else { Counted::Groups(&self.groups) }
    }

    /// Counts the k-mers of stripe `stripe`'s `records`, which are said to be `kmers`. Returns how many there were, and what was counted.
    ///
    /// # Errors
    /// What is wrong with the records.
    pub(crate) fn count(&mut self, stripe: u32, records: &[u8], kmers: u64) -> Result<(u64, Added), String> {
        let count = (records.len() / R::WIDTH.bytes()) as u64;
        let guess =
            |part: u64, whole: u64, of: u64| (u128::from(of) * u128::from(part) / u128::from(whole)) as usize;
        let most = |most: usize| (most * 2).max(LIKELY);
        let distinct = guess(self.seen.distinct_records, self.seen.records, count);
        self.tally.reset((distinct * 9 / 8).min(most(self.seen.most.0)));
        self.tally.sort_out(records, self.how.occurrences, &mut self.others).map_err(|left| {
            format!("expected whole records of {} bytes, found {left} bytes more", R::WIDTH.bytes())
        })?;
        let keys = guess(self.seen.distinct_kmers, self.seen.kmers, kmers);
        let keys = (keys * 9 / 8).min(most(self.seen.most.1)) + EXPANDED;
        let distinct = self.tally.distinct().0.len();
        self.speller.begin_stripe(stripe, distinct + self.others.records.len());
        let few_others = self.others.records.len() as u64 <= count / FEW;
        self.is_weighed = self.how.weighs && few_others && WeightCounter::suits(keys, self.how.key_bits);
        let total = if self.is_weighed { self.add_weights(keys)? } else { None };
        let total = match total {
            Some(total) => total,
            None => self.add_groups(keys)?,
        };
        let (kmers, distinct_kmers) = (
            self.expanded.weighed,
            match self.table() {
                Counted::Groups(table) => table.len(),
                Counted::Weights(table) => table.len(),
            },
        );
        self.seen.records += count;
        self.seen.distinct_records += distinct as u64;
        self.seen.kmers += kmers;
        self.seen.distinct_kmers += distinct_kmers as u64;
        self.seen.most = (self.seen.most.0.max(distinct), self.seen.most.1.max(distinct_kmers));
        Ok((kmers, total))
    }

    /// Counts what was sorted out by groups.
    fn add_groups(&mut self, keys: usize) -> Result<Added, String> {
        self.is_weighed = false;
        self.groups.reset(keys);
        self.expanded.weighed = 0;
        let (speller, how, expanded) = (&self.speller, self.how, &mut self.expanded);
        let mut total = Added::default();
        for (records, tags) in [self.tally.told(), (&self.others.records[..], &self.others.tags[..])] {
            total = sum(total, add_records(records, tags, speller, how, &mut self.groups, expanded)?);
        }
        Ok(total)
    }

    /// The same by weights: only the others need groups, and are added once they are counted. `None` when the table cannot tell all keys.
    fn add_weights(&mut self, keys: usize) -> Result<Option<Added>, String> {
        if !self.weights.reset(keys) {
            return Ok(None);
        }
        self.expanded.weighed = 0;
        let (speller, how, expanded) = (&self.speller, self.how, &mut self.expanded);
        let (mut total, weights) = (Added::default(), &mut self.weights);
        let (records, tags) = self.tally.told();
        let told = each_expanded(records, tags, speller, expanded, |keys, tags| {
            total = sum(total, weights.add_batch(keys, tags)?);
            Some(())
        })?;
        if told.is_none() {
            return Ok(None);
        }
        if self.others.records.is_empty() {
            return Ok(Some(total));
        }
        // A record has some k-mers, of which few come again.
        self.groups.reset((self.others.records.len() * 4).min(LIKELY) + EXPANDED);
        let Others { records, tags } = &self.others;
        let others = add_records(records, tags, speller, how, &mut self.groups, expanded)?;
        let (mut found, mut told) = (Added::default(), true);
        let (mut keys, mut tags) = (Vec::new(), Vec::new());
        self.groups.for_each_batch(|batch| {
            keys.clear();
            tags.clear();
            keys.extend(batch.iter().map(|(key, _)| K::narrow(*key)));
            tags.extend(batch.iter().map(|(_, count)| u64::from(*count) << 32));
            match weights.add_batch(&keys, &tags) {
                Some(added) => found = sum(found, added),
                None => told = false,
            }
        });
        if told && found.counted != others.counted {
            return Err(format!("expected row counts of {} in all, found {}", others.counted, found.counted));
        }
        Ok(told.then(|| sum(total, found)))
    }
}

/// Expands records and calls `each` with k-mers and tags, until that returns `None`: then `None`.
fn each_expanded<R: Record, K: Key + KeyBits>(
    records: &[R],
    tags: &[u64],
    speller: &Speller,
    expanded: &mut Expanded<K>,
    mut each: impl FnMut(&[K], &[u64]) -> Option<()>,
) -> Result<Option<()>, String> {
    let mut from = 0;
    while from < records.len() {
        expanded.len = 0;
        let taken = expand(&records[from..], &tags[from..], speller, expanded).map_err(|i| {
            format!("expected records of k-mers of this stripe, found {:?}", records[from + i])
        })?;
        from += taken;
        let (keys, tags) = expanded.pairs();
        if each(keys, tags).is_none() {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

fn add_records<R: Record, K: Key + KeyBits>(
    records: &[R],
    tags: &[u64],
    speller: &Speller,
    how: How,
    table: &mut GroupCounter<K>,
    expanded: &mut Expanded<K>,
) -> Result<Added, String> {
    let mut total = Added::default();
    each_expanded(records, tags, speller, expanded, |keys, tags| {
        let added = if how.occurrences {
            table.add_every(keys, tags)
        } else if how.occur_bitlen == 0 {
            table.add_batch(keys, tags)
        } else {
            let each = keys.iter().zip(tags).map(|(k, t)| table.add_nth(k.wide(), how.occur_bitlen, *t));
            each.fold(Added::default(), sum)
        };
        total = sum(total, added);
        Some(())
    })?;
    Ok(total)
}

fn sum(a: Added, b: Added) -> Added {
    Added { counted: a.counted + b.counted, key_sum: a.key_sum.wrapping_add(b.key_sum) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmer::bases::Bases;
    use kmer::record::{Eight, Six, Twelve};
    use kmer::superkmer::{Share, Splitter};
    use std::collections::BTreeMap;

    #[test]
    fn many_records_of_few_kmers_get_no_large_table() {
        let (params, stripe_bits) = (Params::new(16, 0).expect("as it should be"), 11);
        let mut bases = Bases::new(params);
        bases.push_dna2(1, 20, &[0x1b, 0x4e, 0xd2, 0x37, 0x81]);
        let mut splitter = Splitter::new(Dealer::new(params, stripe_bits, 1), stripe_bits);
        splitter.begin_unit(Share::default());
        let mut record = Vec::new();
        let sections = splitter.split(&bases, &mut record, 0).iter().enumerate();
        let (stripe, section) = sections.max_by_key(|(_, section)| section.kmers).expect("stripes");
        assert_eq!(section.bytes, 6);
        let rows = 1 << 22;
        let records = record[section.offset as usize..][..6].repeat(rows);
        let mut counting = Counting::<Six, u32>::new(params, stripe_bits, 1, false);
        let all = u64::from(section.kmers) * rows as u64;
        let (kmers, added) = counting.count(stripe as u32, &records, all).expect("whole records");
        assert_eq!((kmers, added.counted), (all, all));
        let (len, places) = match counting.table() {
            Counted::Groups(table) => (table.len(), table.places()),
            Counted::Weights(table) => (table.len(), table.places()),
        };
        assert_eq!(len, section.kmers as usize);
        assert!(places <= 4 * LIKELY, "{places} places");
        let last = counting.count(stripe as u32 ^ 1, &[0; 6], 0);
        assert!(last.expect_err("no record").contains("k-mers of this stripe"));
    }

    fn numbers() -> impl Iterator<Item = u64> {
        let mut x = 1u64;
        std::iter::from_fn(move || {
            x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(3);
            Some(x >> 33)
        })
    }

    /// Rows of `len` random bases each, and some that have several records, k-mers twice and rows before them.
    fn rows(count: usize, len: usize) -> Vec<Vec<u8>> {
        let mut numbers = numbers();
        let mut rows: Vec<Vec<u8>> = Vec::new();
        for i in 0..count {
            let mut row: Vec<u8> = numbers.by_ref().take(len).map(|n| b"ACGT"[n as usize % 4]).collect();
            if i % 200 == 0 && i > 0 {
                row = [&rows[(i / 2) | 1][..], &row[..], &row[..], &rows[(i / 3) | 1][..]].concat();
            }
            rows.push(row);
        }
        rows
    }

    /// The oracle: of each row the set of its k-mers, or all of them.
    fn naive(rows: &[Vec<u8>], params: Params, occurrences: bool) -> BTreeMap<u64, u32> {
        let mut counts = BTreeMap::new();
        for row in rows {
            let kmers =
                row.windows(params.k() as usize).map(|kmer| kmer::codec::parse_kmer(kmer).expect("letters"));
            let mut kmers: Vec<u64> = kmers.map(|kmer| params.counted_as(kmer)).collect();
            if !occurrences {
                kmers.sort_unstable();
                kmers.dedup();
            }
            kmers.into_iter().for_each(|kmer| *counts.entry(kmer).or_default() += 1);
        }
        counts
    }

    /// All keys with their counts, and the sum of numbers times counts.
    fn all<T: Table>(table: &T) -> (BTreeMap<u64, u32>, u64) {
        let (mut all, mut key_sum) = (BTreeMap::new(), 0u64);
        table.for_each_batch(|batch| {
            for (number, count) in batch {
                all.insert(table.key(*number), *count);
                key_sum = key_sum.wrapping_add(number.wrapping_mul(u64::from(*count)));
            }
        });
        assert_eq!(all.len(), table.len());
        (all, key_sum)
    }

    /// Counts rows in one stripe, twice, and says whether that was by weights.
    fn check<R: Places, K: Key + KeyBits>(rows: &[Vec<u8>], params: Params, occurrences: bool) -> bool {
        let mut bases = Bases::new(params);
        for (row, letters) in (1..).zip(rows) {
            let packed = kmer::codec::pack_dna2(letters).expect("letters");
            bases.push_dna2(row, letters.len() as u64, &packed);
        }
        let mut splitter = Splitter::new(Dealer::new(params, 0, 1), 0);
        splitter.begin_unit(Share::default());
        let mut records = Vec::new();
        let kmers = splitter.split(&bases, &mut records, 0)[0].kmers.into();
        let mut counting = Counting::<R, K>::new(params, 0, 1, occurrences);
        let want = naive(rows, params, occurrences);
        let mut weighed = Vec::new();
        for _ in 0..2 {
            let (found, added) = counting.count(0, &records, kmers).expect("whole records");
            assert_eq!(found, kmers);
            assert_eq!(added.counted, want.values().map(|count| u64::from(*count)).sum::<u64>());
            let (got, key_sum) = match counting.table() {
                Counted::Groups(table) => all(table),
                Counted::Weights(table) => all(table),
            };
            assert!(got == want, "{params:?} {occurrences}");
            assert_eq!(added.key_sum, key_sum);
            weighed.push(counting.is_weighed);
        }
        weighed[1]
    }

    #[test]
    fn counts_like_the_oracle_whether_by_weights_or_by_groups() {
        let params = |k| Params::new(k, 0).expect("as it should be");
        // Nearly all rows have one k-mer; or all have several records, for lack of other stripes, of different minimizers, or all of them twice.
        for (twice, count, add) in [(false, 30_000, 0), (false, 5_000, 30), (true, 2_000, 30)] {
            let repeated = |rows: Vec<Vec<u8>>| match twice {
                true => rows.iter().map(|row| row.repeat(2)).collect(),
                false => rows,
            };
            let (short, long) = (repeated(rows(count, 16 + add)), repeated(rows(count, 21 + add)));
            for occurrences in [false, true] {
                let weighs = !twice || occurrences;
                assert_eq!(check::<Eight, u32>(&short, params(16), occurrences), weighs);
                assert_eq!(check::<Twelve, u64>(&long, params(21), occurrences), weighs);
                let canonical = params(21).with_canonical(true);
                assert_eq!(check::<Twelve, u64>(&long, canonical, occurrences), occurrences);
            }
        }
    }
}
