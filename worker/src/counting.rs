//! Counts the records of one stripe in private memory: equal records are found first, then their k-mers are counted once for all of them.
//!
//! Keeps its memory from stripe to stripe, and sizes its tables by what the stripes before came to, within reason: a stripe of a single k-mer, a million times,
//! must not get a table for a million. Tables grow where that is too little.

use kmer::line::Places;
use kmer::params::Params;
use kmer::record::{Expanded, KeyBits, Record, expand};
use kmer::tally::{Others, Tally};
use shm_layout::hash::counter::{Added, GroupCounter, Key};

/// Counts records `R` whose k-mers are keys `K`.
pub(crate) struct Counting<R, K> {
    tally: Tally<R>,
    others: Others<R>,
    table: GroupCounter<K>,
    expanded: Expanded<K>,
    seen: Seen,
    occurrences: bool,
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
    /// For keys of `key_bits` bits, with hashes drawn by `seed`. With `occurrences` every occurrence counts, not every row.
    pub(crate) fn new(seed: u64, key_bits: u32, occurrences: bool) -> Self {
        // Other draws than the minimizers': the same bits there would be the same bits here.
        let draw = |turn: u32| seed.rotate_left(turn).wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self {
            tally: Tally::new(draw(11)),
            others: Others { records: Vec::new(), tags: Vec::new() },
            table: GroupCounter::for_bits(0, draw(23), key_bits),
            expanded: Expanded::new(EXPANDED),
            seen: Seen { records: 2, distinct_records: 1, kmers: 4, distinct_kmers: 1, most: (0, 0) },
            occurrences,
        }
    }

    /// The keys that were counted last.
    pub(crate) fn table(&self) -> &GroupCounter<K> {
        &self.table
    }

    /// Counts the k-mers of `records`. Returns how many there were, by the records' headers, and what was counted.
    ///
    /// # Errors
    /// What is wrong with the records.
    pub(crate) fn count(&mut self, records: &[u8], params: Params) -> Result<(u64, Added), String> {
        let count = (records.len() / R::WIDTH.bytes()) as u64;
        let guess =
            |part: u64, whole: u64, of: u64| (u128::from(of) * u128::from(part) / u128::from(whole)) as usize;
        let most = |most: usize| (most * 2).max(LIKELY);
        let distinct = guess(self.seen.distinct_records, self.seen.records, count);
        self.tally.reset((distinct * 9 / 8).min(most(self.seen.most.0)));
        let sorted = self.tally.sort_out(records, self.occurrences, &mut self.others).map_err(|left| {
            format!("expected whole records of {} bytes, found {left} bytes more", R::WIDTH.bytes())
        })?;
        let keys = guess(self.seen.distinct_kmers, self.seen.kmers, sorted.kmers);
        self.table.reset((keys * 9 / 8).min(most(self.seen.most.1)) + EXPANDED);
        let (distinct, tags) = self.tally.distinct();
        let mut total = Added::default();
        for (records, tags) in [(distinct, tags), (&self.others.records[..], &self.others.tags[..])] {
            let how = (params, self.occurrences);
            let added = add_records(records, tags, how, &mut self.table, &mut self.expanded)?;
            total = sum(total, added);
        }
        self.seen.records += sorted.records;
        self.seen.distinct_records += distinct.len() as u64;
        self.seen.kmers += sorted.kmers;
        self.seen.distinct_kmers += self.table.len() as u64;
        self.seen.most = (self.seen.most.0.max(distinct.len()), self.seen.most.1.max(self.table.len()));
        Ok((sorted.kmers, total))
    }
}

fn add_records<R: Record, K: Key + KeyBits>(
    records: &[R],
    tags: &[u64],
    (params, occurrences): (Params, bool),
    table: &mut GroupCounter<K>,
    expanded: &mut Expanded<K>,
) -> Result<Added, String> {
    let (mut from, mut total) = (0, Added::default());
    while from < records.len() {
        expanded.len = 0;
        let taken = expand(&records[from..], &tags[from..], params, expanded)
            .map_err(|i| format!("expected records with k-mers, found {:?}", records[from + i]))?;
        from += taken;
        let (keys, tags) = expanded.pairs();
        let added = if occurrences {
            table.add_every(keys, tags)
        } else if params.occur_bitlen() == 0 {
            table.add_batch(keys, tags)
        } else {
            let each = keys.iter().zip(tags).map(|(k, t)| table.add_nth(k.wide(), params.occur_bitlen(), *t));
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
    use kmer::record::{NEW_ROW, Narrow};

    #[test]
    fn many_records_of_few_kmers_get_no_large_table() {
        let params = Params::new(16, 0).expect("as it should be");
        let record = Narrow::cut(&[0; 16], 0, 20).with_header(5 | NEW_ROW);
        let rows = 1 << 22;
        let mut records = vec![0; rows * Narrow::WIDTH.bytes()];
        records.chunks_exact_mut(Narrow::WIDTH.bytes()).for_each(|bytes| record.store(bytes));
        let mut counting = Counting::<Narrow, u32>::new(1, params.key_bits(), false);
        let (kmers, added) = counting.count(&records, params).expect("whole records");
        assert_eq!((kmers, added.counted), (5 * rows as u64, rows as u64));
        assert_eq!(counting.table().len(), 1);
        assert!(counting.table().places() <= 4 * LIKELY, "{} places", counting.table().places());
    }
}
