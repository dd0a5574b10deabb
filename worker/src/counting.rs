//! Counts the records of one stripe in private memory: equal records are found first, then their k-mers are counted once for all of them.
//!
//! Keeps its memory from stripe to stripe, and sizes its tables by what the stripes before came to.

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
}

/// k-mers that are expanded at a time: what is needed of them fits the first cache.
const EXPANDED: usize = 1024;

impl<R: Record, K: Key + KeyBits> Counting<R, K> {
    /// For keys of `key_bits` bits, with hashes drawn by `seed`. With `occurrences` every occurrence counts, not every row.
    pub(crate) fn new(seed: u64, key_bits: u32, occurrences: bool) -> Self {
        // Other draws than the minimizers': the same bits there would be the same bits here.
        let draw = |turn: u32| seed.rotate_left(turn).wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self {
            tally: Tally::new(draw(11)),
            others: Others { records: Vec::new(), tags: Vec::new() },
            table: GroupCounter::for_bits(0, draw(23), key_bits),
            expanded: Expanded::new(EXPANDED),
            seen: Seen { records: 2, distinct_records: 1, kmers: 4, distinct_kmers: 1 },
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
        self.tally.reset(guess(self.seen.distinct_records, self.seen.records, count) * 9 / 8);
        let sorted = self.tally.sort_out(records, self.occurrences, &mut self.others).map_err(|left| {
            format!("expected whole records of {} bytes, found {left} bytes more", R::WIDTH.bytes())
        })?;
        let keys = guess(self.seen.distinct_kmers, self.seen.kmers, sorted.kmers);
        self.table.reset(keys * 9 / 8 + EXPANDED);
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
