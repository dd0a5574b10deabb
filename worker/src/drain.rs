//! Drains a stripe: reads its sections out of every unit, counts in private memory, and writes the table that will be published.
//!
//! ```text
//! chain := summary image        summary: [`STRIPE_FIELDS`] numbers, u64 each; image: see `shm_layout::hash::image`
//! ```
//!
//! What is read is immutable (I4), so a stripe may be drained again after a death, to the same table. Every sum that can be checked is:
//! the k-mers of each section, the counts in the table against the pairs that were counted, and keys times counts likewise.

use crate::error::WorkError;
use crate::job::Job;
use crate::shared::{DrainOrder, Shared};
use crate::spool::{UnitResult, digest};
use kmer::direct::add_stripe;
use kmer::superkmer::{SECTION_PADDING, Section, read_section};
use shm_layout::hash::counter::{Added, GroupCounter, Key};
use shm_layout::hash::entry::EntryKind;
use shm_layout::hash::image::ImageWriter;
use shm_layout::words::Task;

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
}

impl StripeSummary {
    /// The summary as bytes, [`IMAGE_OFFSET`] of them.
    pub fn to_bytes(&self) -> [u8; IMAGE_OFFSET as usize] {
        let mut bytes = [0; IMAGE_OFFSET as usize];
        let fields = [self.delivered, self.digest, self.distinct, self.counted, self.kept, self.highest];
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
        }
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

/// Drains stripes of one run.
pub struct Drainer {
    units: Vec<(usize, UnitResult)>,
    order: DrainOrder,
    method: Method,
    sections: Vec<(usize, usize, Section)>,
    section: Vec<u8>,
    scratch: Vec<u8>,
    image: Vec<u8>,
}

enum Method {
    Narrow(Counting<u32>),
    Wide(Counting<u64>),
    Direct(Vec<u32>),
}

struct Counting<K> {
    table: GroupCounter<K>,
    keys: Vec<K>,
    rows: Vec<u32>,
    /// Different keys among the k-mers of the stripes so far, to size the next table by.
    distinct: u64,
    kmers: u64,
}

impl Drainer {
    /// Opens the results of all units, after the leader opened the drain.
    ///
    /// # Errors
    /// When a result is damaged.
    pub fn new(shared: &Shared) -> Result<Self, WorkError> {
        let job = &shared.job;
        let mut units = Vec::new();
        for unit in 0..shared.units.len() {
            if let Task::Done { head, .. } = shared.units.look(unit)? {
                units.push((unit, UnitResult::open(&shared.arena, head, job.stripes())?));
            }
        }
        let key_bits = job.params()?.key_bits();
        let method = match key_bits {
            _ if job.direct => Method::Direct(vec![0; 1 << (key_bits - job.stripe_bits)]),
            ..=32 => Method::Narrow(Counting::new(job.seed)),
            _ => Method::Wide(Counting::new(job.seed)),
        };
        let (sections, section, scratch, image) = Default::default();
        Ok(Self { units, order: shared.drain_order()?, method, sections, section, scratch, image })
    }

    /// The leader's decision.
    pub fn order(&self) -> &DrainOrder {
        &self.order
    }

    /// Drains stripe `stripe` into the bytes of its chain.
    ///
    /// # Errors
    /// When a section is damaged, or sums do not agree.
    pub fn drain(&mut self, shared: &Shared, stripe: usize) -> Result<(Vec<u8>, StripeSummary), WorkError> {
        let kmers = self.find_sections(shared, stripe)?;
        let mut summary = StripeSummary::default();
        let mut method = std::mem::replace(&mut self.method, Method::Direct(Vec::new()));
        let image = match &mut method {
            Method::Narrow(counting) => self.count(shared, stripe, kmers, counting, &mut summary),
            Method::Wide(counting) => self.count(shared, stripe, kmers, counting, &mut summary),
            Method::Direct(sums) => self.add_up(shared, stripe, sums, &mut summary),
        };
        self.method = method;
        let mut image = image?;
        image[..IMAGE_OFFSET as usize].copy_from_slice(&summary.to_bytes());
        Ok((image, summary))
    }

    /// Gives the memory of a stored image back for the next one.
    pub fn reuse(&mut self, image: Vec<u8>) {
        self.image = image;
    }

    /// An empty buffer with room for the summary, which is known last.
    fn front(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.image);
        buffer.clear();
        buffer.resize(IMAGE_OFFSET as usize, 0);
        buffer
    }

    fn find_sections(&mut self, shared: &Shared, stripe: usize) -> Result<u64, WorkError> {
        self.sections.clear();
        let mut kmers = 0;
        for (place, (_, result)) in self.units.iter().enumerate() {
            for batch in 0..result.batches() {
                let section = result.section(&shared.arena, batch, stripe, &mut self.scratch)?;
                if section.bytes > 0 {
                    kmers += u64::from(section.kmers);
                    self.sections.push((place, batch, section));
                }
            }
        }
        Ok(kmers)
    }

    /// Copies section `i` of the stripe into `self.section`; adds it to the sums. Returns its unit.
    fn load(
        &mut self,
        shared: &Shared,
        stripe: usize,
        i: usize,
        summary: &mut StripeSummary,
    ) -> Result<(usize, Section), WorkError> {
        let (place, batch, section) = self.sections[i];
        let (unit, result) = &self.units[place];
        result.read(
            &shared.arena,
            batch,
            shared.job.stripes(),
            &section,
            SECTION_PADDING,
            &mut self.section,
        )?;
        let sum = digest(*unit, stripe, &self.section[..section.bytes as usize]);
        summary.digest = summary.digest.wrapping_add(sum);
        summary.delivered += u64::from(section.kmers);
        Ok((*unit, section))
    }

    fn count<K: Key>(
        &mut self,
        shared: &Shared,
        stripe: usize,
        kmers: u64,
        counting: &mut Counting<K>,
        summary: &mut StripeSummary,
    ) -> Result<Vec<u8>, WorkError> {
        let job = &shared.job;
        counting.begin(kmers);
        let (mut row, mut total) = (0, Added::default());
        for i in 0..self.sections.len() {
            let (unit, section) = self.load(shared, stripe, i, summary)?;
            counting
                .decode(&self.section, section.bytes as usize, job, &mut row)
                .map_err(|what| WorkError::Section { unit, stripe, what })?;
            if counting.rows.len() as u64 != u64::from(section.kmers) {
                let what = format!("expected {} k-mers, found {}", section.kmers, counting.rows.len());
                return Err(WorkError::Section { unit, stripe, what });
            }
            let added = counting.count(job.occur_bitlen);
            total.counted += added.counted;
            total.key_sum = total.key_sum.wrapping_add(added.key_sum);
        }
        counting.end(kmers);
        let front = self.front();
        publish(
            &counting.table,
            total,
            &self.order,
            EntryKind::for_bits(job.params()?.key_bits()),
            front,
            summary,
        )
    }

    fn add_up(
        &mut self,
        shared: &Shared,
        stripe: usize,
        sums: &mut [u32],
        summary: &mut StripeSummary,
    ) -> Result<Vec<u8>, WorkError> {
        sums.fill(0);
        for i in 0..self.sections.len() {
            let (unit, section) = self.load(shared, stripe, i, summary)?;
            let read = add_stripe(&self.section[..section.bytes as usize], sums);
            if read != Some(u64::from(section.kmers)) {
                let what = format!("expected row counts of {} in all, found {read:?}", section.kmers);
                return Err(WorkError::Section { unit, stripe, what });
            }
        }
        summary.counted = sums.iter().map(|n| u64::from(*n)).sum();
        if summary.counted != summary.delivered {
            let what = format!("row counts of stripe {stripe}");
            return Err(WorkError::Conservation {
                what,
                expected: summary.delivered,
                found: summary.counted,
            });
        }
        let base = (stripe * sums.len()) as u64;
        let buffer = self.front();
        let keep = |count: u32| count > 0 && (self.order.all || u64::from(count) > self.order.threshold);
        summary.distinct = sums.iter().filter(|n| **n > 0).count() as u64;
        summary.kept = sums.iter().filter(|n| keep(**n)).count() as u64;
        summary.highest = sums.iter().copied().max().unwrap_or(0).into();
        let entry = EntryKind::for_bits(shared.job.params()?.key_bits());
        // Where most keys are kept, their places need no keys beside them.
        let mut image = if summary.kept as usize * entry.bytes() >= sums.len() * EntryKind::Identity.bytes() {
            ImageWriter::identity(buffer, base, sums.len() as u64)
        } else {
            ImageWriter::hashed(buffer, entry, summary.kept, shared.job.seed | 1)
        };
        for (key, count) in (base..).zip(sums.iter()).filter(|(_, n)| keep(**n)) {
            image.put(key, *count);
        }
        Ok(image.finish())
    }
}

impl<K: Key> Counting<K> {
    fn new(seed: u64) -> Self {
        // Another draw than the minimizers': the same bits there would be the same bits here.
        let multiplier = seed.rotate_left(23).wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self {
            table: GroupCounter::new(0, multiplier),
            keys: Vec::new(),
            rows: Vec::new(),
            distinct: 1,
            kmers: 2,
        }
    }

    /// Empties the table, sized for as many different keys as the stripes before suggest.
    fn begin(&mut self, kmers: u64) {
        let guess = (kmers as u128 * self.distinct as u128 / self.kmers as u128) as u64;
        self.table.reset((guess + guess / 8).min(kmers) as usize);
    }

    fn end(&mut self, kmers: u64) {
        self.distinct += self.table.len() as u64;
        self.kmers += kmers;
    }

    fn decode(&mut self, section: &[u8], bytes: usize, job: &Job, row: &mut u32) -> Result<(), String> {
        self.keys.clear();
        self.rows.clear();
        let (keys, rows) = (&mut self.keys, &mut self.rows);
        let read = read_section(section, bytes, job.k, row, |kmer, row| {
            keys.push(K::narrow(kmer));
            rows.push(row);
        });
        read.map_err(|e| e.to_string())
    }

    fn count(&mut self, occur_bitlen: u32) -> Added {
        if occur_bitlen == 0 {
            return self.table.add_batch(&self.keys, &self.rows);
        }
        let mut total = Added::default();
        for (kmer, row) in self.keys.iter().zip(&self.rows) {
            let added = self.table.add_nth(kmer.wide(), occur_bitlen, *row);
            total.counted += added.counted;
            total.key_sum = total.key_sum.wrapping_add(added.key_sum);
        }
        total
    }
}

/// Writes the image of the keys that are kept, and checks the table against what was counted.
fn publish<K: Key>(
    table: &GroupCounter<K>,
    total: Added,
    order: &DrainOrder,
    kind: EntryKind,
    buffer: Vec<u8>,
    summary: &mut StripeSummary,
) -> Result<Vec<u8>, WorkError> {
    let keep = |count: u32| order.all || u64::from(count) > order.threshold;
    let (mut counted, mut key_sum) = (0u64, 0u64);
    for (key, count) in table.iter() {
        counted += u64::from(count);
        key_sum = key_sum.wrapping_add(key.wide().wrapping_mul(count.into()));
        summary.kept += u64::from(keep(count));
        summary.highest = summary.highest.max(count.into());
    }
    for (what, expected, found) in
        [("row counts", total.counted, counted), ("keys times row counts", total.key_sum, key_sum)]
    {
        if expected != found {
            return Err(WorkError::Conservation { what: format!("{what} of a table"), expected, found });
        }
    }
    (summary.distinct, summary.counted) = (table.len() as u64, counted);
    let mut image = ImageWriter::hashed(buffer, kind, summary.kept, table.multiplier());
    for (key, count) in table.iter().filter(|(_, count)| keep(*count)) {
        image.put(key.wide(), count);
    }
    Ok(image.finish())
}
