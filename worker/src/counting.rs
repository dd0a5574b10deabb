//! Counts the records of one stripe in private memory: equal records are found first, then their k-mers are counted once for all of them.
//!
//! Keeps its memory from stripe to stripe, and sizes its tables by what the stripes before came to, within reason: a stripe of a single k-mer, a million times,
//! must not get a table for a million. Tables grow where that is too little.

use kmer::line::Places;
use kmer::params::Params;
use kmer::record::Record;
use kmer::spelled::{Expanded, KeyBits, Speller, expand};
use kmer::tally::{Others, Tally};
use shm_layout::hash::counter::{Added, GroupCounter, Key};

/// Counts records `R` whose k-mers are keys `K`.
pub(crate) struct Counting<R, K> {
    tally: Tally<R>,
    others: Others<R>,
    table: GroupCounter<K>,
    expanded: Expanded<K>,
    speller: Speller,
    seen: Seen,
    how: How,
}

/// What counts.
#[derive(Clone, Copy)]
struct How {
    occurrences: bool,
    occur_bitlen: u32,
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

/// k-mers that are expanded at a time: what is needed of them fits the first cache.
const EXPANDED: usize = 1024;

impl<R: Places, K: Key + KeyBits> Counting<R, K> {
    /// For k-mers of `params` in `2^stripe_bits` stripes, with hashes drawn by `seed`. With `occurrences` every occurrence counts, not every row.
    pub(crate) fn new(params: Params, stripe_bits: u32, seed: u64, occurrences: bool) -> Self {
        // Other draws than the minimizers': the same bits there would be the same bits here.
        let draw = |turn: u32| seed.rotate_left(turn).wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self {
            tally: Tally::new(draw(11)),
            others: Others { records: Vec::new(), tags: Vec::new() },
            table: GroupCounter::for_bits(0, draw(23), params.key_bits()),
            expanded: Expanded::new(EXPANDED),
            speller: Speller::of(params, stripe_bits, seed),
            seen: Seen { records: 2, distinct_records: 1, kmers: 4, distinct_kmers: 1, most: (0, 0) },
            how: How { occurrences, occur_bitlen: params.occur_bitlen() },
        }
    }

    /// The keys that were counted last.
    pub(crate) fn table(&self) -> &GroupCounter<K> {
        &self.table
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
        self.table.reset((keys * 9 / 8).min(most(self.seen.most.1)) + EXPANDED);
        let (distinct, tags) = self.tally.distinct();
        self.speller.begin_stripe(stripe, distinct.len() + self.others.records.len());
        self.expanded.weighed = 0;
        let mut total = Added::default();
        for (records, tags) in [(distinct, tags), (&self.others.records[..], &self.others.tags[..])] {
            let added =
                add_records(records, tags, &self.speller, self.how, &mut self.table, &mut self.expanded)?;
            total = sum(total, added);
        }
        let kmers = self.expanded.weighed;
        self.seen.records += count;
        self.seen.distinct_records += distinct.len() as u64;
        self.seen.kmers += kmers;
        self.seen.distinct_kmers += self.table.len() as u64;
        self.seen.most = (self.seen.most.0.max(distinct.len()), self.seen.most.1.max(self.table.len()));
        Ok((kmers, total))
    }
}

fn add_records<R: Record, K: Key + KeyBits>(
    records: &[R],
    tags: &[u64],
    speller: &Speller,
    how: How,
    table: &mut GroupCounter<K>,
    expanded: &mut Expanded<K>,
) -> Result<Added, String> {
    let (mut from, mut total) = (0, Added::default());
    while from < records.len() {
        expanded.len = 0;
        let taken = expand(&records[from..], &tags[from..], speller, expanded).map_err(|i| {
            format!("expected records of k-mers of this stripe, found {:?}", records[from + i])
        })?;
        from += taken;
        let (keys, tags) = expanded.pairs();
        let added = if how.occurrences {
            table.add_every(keys, tags)
        } else if how.occur_bitlen == 0 {
            table.add_batch(keys, tags)
        } else {
            let each = keys.iter().zip(tags).map(|(k, t)| table.add_nth(k.wide(), how.occur_bitlen, *t));
            each.fold(Added::default(), sum)
        };
        total = sum(total, added);
    }
    Ok(total)
}

fn sum(a: Added, b: Added) -> Added {
    Added { counted: a.counted + b.counted, key_sum: a.key_sum.wrapping_add(b.key_sum) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmer::bases::Bases;
    use kmer::minimizer::Dealer;
    use kmer::record::Six;
    use kmer::superkmer::{Share, Splitter};

    #[test]
    fn many_records_of_few_kmers_get_no_large_table() {
        let (params, stripe_bits) = (Params::new(16, 0).expect("as it should be"), 11);
        let mut bases = Bases::new(params);
        bases.push_dna2(1, 20, &[0; 5], 0);
        let mut splitter = Splitter::new(Dealer::new(params, stripe_bits, 1), stripe_bits);
        splitter.begin_unit(Share::default());
        let mut record = Vec::new();
        let sections = splitter.split(&bases, &mut record, 0).iter().enumerate();
        let (stripe, section) = sections.max_by_key(|(_, section)| section.kmers).expect("stripes");
        assert_eq!((section.kmers, section.bytes), (5, 6));
        let rows = 1 << 22;
        let records = record[section.offset as usize..][..6].repeat(rows);
        let mut counting = Counting::<Six, u32>::new(params, stripe_bits, 1, false);
        let all = 5 * rows as u64;
        let (kmers, added) = counting.count(stripe as u32, &records, all).expect("whole records");
        assert_eq!((kmers, added.counted), (all, rows as u64));
        assert_eq!(counting.table().len(), 1);
        assert!(counting.table().places() <= 4 * LIKELY, "{} places", counting.table().places());
        let last = counting.count(stripe as u32 ^ 1, &[0; 6], 0);
        assert!(last.expect_err("no record").contains("k-mers of this stripe"));
    }
}
