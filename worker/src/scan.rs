//! Scans a unit: reads its blocks, takes the column out of every visible row, and stores the k-mers sorted by stripe.
//!
//! A unit is whole pages, a row lies in one page, and a k-mer in one value, so units have nothing to do with each other. Long values
//! are taken in batches: what a unit needs at a time is bounded, however large its rows are.

use crate::error::WorkError;
use crate::job::Job;
use crate::letters::{Letters, Taken};
use crate::method::Method;
use crate::portion::Portion;
use crate::shared::Shared;
use crate::source::{Blocks, Rows};
use crate::spool::{
    Batch, Indexed, NO_ROW, UnitSummary, add_index, index_bytes, section_digest, tail, write_index,
};
use kmer::bases::Bases;
use kmer::keys::KeySorter;
use kmer::params::Params;
use kmer::superkmer::{Section, Share};
use relation::{DnaType, PageCounts, RowSink, Value};
use sequence::{Part, RecordSink};
use shm_layout::arena::{Arena, OwnedChain};
use shm_layout::slots::{Figure, Slots};
use shm_layout::words::Owner;
use std::path::Path;

/// Messages about skipped tuples that a result keeps for each of its units, in bytes; the rest is counted only.
const MESSAGE_BYTES: usize = 64 << 10;

/// Bytes of bases that are taken at a time where they make no batch: so many stay in a core's cache.
const BASES_BYTES: usize = 256 << 10;

/// Occurrences that are counted directly are stored after so many times a batch's bytes of k-mers: a unit may be a whole file, a count has 32 bits.
const COUNTED_BATCHES: u64 = 64;

/// Scans units of one job.
pub struct Scanner {
    blocks: Blocks,
    sorter: Sorter,
}

/// Turns rows into batches in the arena.
struct Sorter {
    params: Params,
    dna: DnaType,
    skip_damaged: bool,
    batch_bytes: usize,
    /// Bytes of bases that are taken at a time.
    bases_bytes: usize,
    bases: Bases,
    letters: Letters,
    method: Method,
    stripe_bits: u32,
    batch: Vec<u8>,
    /// k-mers of the unit at hand that were counted directly and stored.
    counted: u64,
    unit: Unit,
}

/// What belongs to the result at hand: of a unit, or of several.
struct Unit {
    number: usize,
    portion: Portion,
    owner: Owner,
    arena: Option<Arena>,
    /// Where progress is counted.
    slots: Option<Slots>,
    chain: Option<OwnedChain>,
    chain_bytes: u64,
    batches: Vec<Batch>,
    /// The long row that what is not stored yet is from, or [`NO_ROW`].
    long_row: u64,
    /// Digest of the batches' indexes.
    indexes: u64,
    row: u32,
    messages: String,
    /// Bytes of messages that it may have.
    most_messages: usize,
    counts: PageCounts,
    summary: UnitSummary,
    failure: Option<WorkError>,
}

impl Scanner {
    /// Gets ready to scan for the worker in `slot`, through mappings if `mapped` says so.
    ///
    /// # Errors
    /// When the transaction logs cannot be opened, or the job's numbers are out of range.
    pub fn new(shared: &Shared, slot: u16, mapped: bool) -> Result<Self, WorkError> {
        Ok(Self { blocks: Blocks::new(shared, slot, mapped)?, sorter: Sorter::new(&shared.job)? })
    }

    /// Scans unit `unit` and stores its result in chunks of `owner`. Nothing of it is published.
    ///
    /// # Errors
    /// Damage in the relation, no room in the arena. What was stored is freed again.
    pub fn scan(
        &mut self,
        shared: &Shared,
        unit: usize,
        owner: Owner,
    ) -> Result<(OwnedChain, UnitSummary), WorkError> {
        self.begin(shared, unit, Portion::of(&shared.job, unit), owner);
        self.take(shared, unit)?;
        self.finish(shared)
    }

    /// Begins a result, which will be known as `number`, of `owner`'s: of each unit that it takes, `portion`.
    pub(crate) fn begin(&mut self, shared: &Shared, number: usize, portion: Portion, owner: Owner) {
        self.sorter.begin(number, owner, &shared.arena, portion, shared.share());
        self.sorter.unit.slots = Some(shared.slots.clone());
    }

    /// Takes the rows of unit `unit` into the result that was begun.
    ///
    /// # Errors
    /// Damage in the relation, no room in the arena. What was stored is freed again, and the result is lost.
    pub fn take(&mut self, shared: &Shared, unit: usize) -> Result<(), WorkError> {
        let (first, blocks) = shared.unit_blocks(unit)?;
        self.sorter.unit.most_messages = self.sorter.unit.messages.len() + MESSAGE_BYTES;
        let mut counts = self.sorter.unit.counts;
        let scanned = match shared.parcel_of(unit) {
            Some(parcel) => self.blocks.read_parcel(shared, parcel, self.sorter.unit.owner, &mut self.sorter),
            None => self.blocks.read(shared, first, blocks, &mut counts, &mut self.sorter),
        };
        match self.sorter.unit.failure.take().map_or(scanned, Err) {
            Ok(text) => {
                let unit = &mut self.sorter.unit;
                unit.counts = counts;
                unit.summary.blocks += blocks;
                unit.summary.text += text;
                Ok(())
            }
            Err(e) => self.lose(shared, e),
        }
    }

    /// k-mers of the result that was begun so far.
    pub fn kmers(&self) -> u64 {
        self.sorter.bases.counts().kmers
    }

    /// Stores what the result still lacks.
    ///
    /// # Errors
    /// As [`Scanner::take`].
    pub fn finish(&mut self, shared: &Shared) -> Result<(OwnedChain, UnitSummary), WorkError> {
        self.sorter.finish().or_else(|e| self.lose(shared, e))
    }

    /// Frees what was stored of the result.
    fn lose<T>(&mut self, shared: &Shared, error: WorkError) -> Result<T, WorkError> {
        if let Some(chain) = self.sorter.unit.chain.take() {
            shared.arena.free(chain)?;
        }
        Err(error)
    }
}

impl Sorter {
    fn new(job: &Job) -> Result<Self, WorkError> {
        let params = job.params()?;
        let method = Method::new(job, params)?;
        let unit = Unit {
            number: 0,
            portion: Portion::default(),
            owner: Owner { slot: 0, generation: 0 },
            arena: None,
            slots: None,
            chain: None,
            chain_bytes: 0,
            batches: Vec::new(),
            long_row: NO_ROW,
            indexes: 0,
            row: 0,
            messages: String::new(),
            most_messages: 0,
            counts: PageCounts::default(),
            summary: UnitSummary::default(),
            failure: None,
        };
        let (dna, skip_damaged, stripe_bits) = (job.dna_type(), job.skip_damaged, job.stripe_bits);
        let batch_bytes = job.batch_bytes as usize;
        let bases_bytes = match method {
            Method::SuperKmers(_) => batch_bytes,
            Method::Keys(_) | Method::Direct(_) => batch_bytes.min(BASES_BYTES),
        };
        Ok(Self {
            params,
            dna,
            skip_damaged,
            batch_bytes,
            bases_bytes,
            bases: Bases::new(params),
            letters: Letters::new(params.k(), job.row_per_file, skip_damaged),
            method,
            stripe_bits,
            batch: Vec::new(),
            counted: 0,
            unit,
        })
    }

    fn begin(&mut self, number: usize, owner: Owner, arena: &Arena, portion: Portion, share: Share) {
        self.bases.restart();
        self.letters.begin_unit(portion);
        self.counted = 0;
        match &mut self.method {
            Method::SuperKmers(splitter) => splitter.begin_unit(share),
            Method::Keys(sorter) => sorter.begin_unit(share),
            Method::Direct(counter) => drop(counter.take()),
        }
        let unit = &mut self.unit;
        (unit.number, unit.owner, unit.arena, unit.chain) =
            (number, owner, Some(arena.clone()), Some(arena.begin()));
        (unit.portion, unit.long_row) = (portion, NO_ROW);
        (unit.chain_bytes, unit.row, unit.summary, unit.failure) = (0, 0, UnitSummary::default(), None);
        unit.batches.clear();
        (unit.indexes, unit.counts) = (0, PageCounts::default());
        unit.messages.clear();
        unit.most_messages = 0;
    }

    /// Takes its portion of row `item` of the block, of `bits` bits.
    fn take(&mut self, item: u16, bits: u32, bytes: &[u8]) -> Result<(), WorkError> {
        self.unit.row += 1;
        let row = self.unit.row;
        let bases = u64::from(bits / self.dna.bits());
        if bases < u64::from(self.params.k()) {
            self.unit.summary.short += 1;
            return Ok(());
        }
        let (item, windows) = (u64::from(item), bases - u64::from(self.params.k()) + 1);
        let portion = self.unit.portion;
        let is_long = portion.is_long(windows);
        for windows in portion.windows(item, 0..windows, is_long) {
            self.begin_row(if is_long { item } else { NO_ROW })?;
            match self.dna {
                DnaType::Dna2 => self.bases.push_dna2_windows(row, bytes, windows),
                DnaType::Dna4 => self.bases.push_dna4_windows(row, bytes, windows),
            }
            self.store_if_large()?;
        }
        Ok(())
    }

    /// What follows is of this long row, or of rows that are not dealt out: a batch has no others.
    fn begin_row(&mut self, long_row: u64) -> Result<(), WorkError> {
        if self.unit.long_row != long_row {
            if !self.bases.is_empty() {
                self.store_super_kmers()?;
                self.bases.clear();
            }
            self.unit.long_row = long_row;
        }
        Ok(())
    }

    fn store_if_large(&mut self) -> Result<(), WorkError> {
        if self.bases.len() < self.bases_bytes {
            return Ok(());
        }
        match &mut self.method {
            Method::SuperKmers(_) => self.store_super_kmers()?,
            Method::Keys(_) => self.sort_keys()?,
            Method::Direct(counter) => {
                counter.add(&self.bases);
                let most = self.batch_bytes as u64 * COUNTED_BATCHES;
                if counter.counts_all() && counter.kmers() >= most {
                    self.store_counts()?;
                }
            }
        }
        self.bases.clear();
        // A block may be a whole file.
        match &self.unit.slots {
            Some(slots) => Ok(slots.add(self.unit.owner.slot, Figure::Progress, 1)?),
            None => Ok(()),
        }
    }

    /// Sorts what the buffer holds by stripe and stores it as a batch.
    fn store_super_kmers(&mut self) -> Result<(), WorkError> {
        let Method::SuperKmers(splitter) = &mut self.method else { return Ok(()) };
        let index = index_bytes(1 << self.stripe_bits);
        let sections = splitter.split(&self.bases, &mut self.batch, index);
        let end = sections.last().map_or(0, |last| (last.offset + last.bytes) as usize);
        self.unit.store(&mut self.batch[..index + end], sections)
    }

    /// Takes the keys of what the buffer holds, and stores them as batches whenever there are enough.
    fn sort_keys(&mut self) -> Result<(), WorkError> {
        let Method::Keys(sorter) = &mut self.method else { return Ok(()) };
        let (batch, unit, index) = (&mut self.batch, &mut self.unit, index_bytes(1 << self.stripe_bits));
        sorter.add(&self.bases, |sorter| store_keys(sorter, batch, index, unit))
    }

    fn store_direct(&mut self) -> Result<(), WorkError> {
        let Method::Direct(counter) = &mut self.method else { return Ok(()) };
        counter.add(&self.bases);
        self.store_counts()?;
        equal("k-mers of a unit counted directly", self.bases.counts().kmers, self.counted)
    }

    /// Stores the counts so far as a batch. Where rows are counted that must be all of the unit: the counter knows by a row's number what it has seen of it.
    fn store_counts(&mut self) -> Result<(), WorkError> {
        let Method::Direct(counter) = &mut self.method else { return Ok(()) };
        let stripes = 1usize << self.stripe_bits;
        let index = index_bytes(stripes);
        self.batch.clear();
        self.batch.resize(index, 0);
        let (mut sections, mut told) = (vec![Section::default(); stripes], 0);
        for (stripe, section) in sections.iter_mut().enumerate() {
            let from = self.batch.len();
            let (_, sum) = counter.write_stripe(stripe, self.stripe_bits, &mut self.batch);
            let (offset, bytes) = ((from - index) as u32, (self.batch.len() - from) as u32);
            told += sum;
            // Rows are not bounded by stripe here: counting directly is cheap, and so is the drain.
            let kmers = u32::try_from(sum).unwrap_or(u32::MAX);
            *section = Section { offset, bytes, kmers, rows: u32::MAX };
        }
        if counter.counts_all() {
            equal("k-mers in the cells of a unit counted directly", counter.kmers(), told)?;
        }
        self.counted += counter.take();
        self.unit.store(&mut self.batch, &sections)
    }

    /// Stores what the buffer and the method still hold.
    fn store_rest(&mut self) -> Result<(), WorkError> {
        match &self.method {
            Method::SuperKmers(_) if self.bases.is_empty() => return Ok(()),
            Method::SuperKmers(_) => return self.store_super_kmers(),
            Method::Direct(_) => return self.store_direct(),
            Method::Keys(_) => self.sort_keys()?,
        }
        let Method::Keys(sorter) = &mut self.method else { return Ok(()) };
        if sorter.is_empty() {
            return Ok(());
        }
        store_keys(sorter, &mut self.batch, index_bytes(1 << self.stripe_bits), &mut self.unit)
    }

    /// Stores what is left and the tail. The counts must agree with each other before anybody may see the result.
    fn finish(&mut self) -> Result<(OwnedChain, UnitSummary), WorkError> {
        self.store_rest()?;
        let (left_out, repeats) = match &self.method {
            Method::SuperKmers(splitter) => (splitter.left_out(), 0),
            Method::Keys(sorter) => (sorter.left_out(), sorter.repeats()),
            Method::Direct(_) => (0, 0),
        };
        let windows = self.bases.counts();
        let unit = &mut self.unit;
        if unit.portion.tells() {
            count_rows(&mut unit.summary, &unit.counts);
            unit.summary.rows += self.letters.rows;
            unit.summary.short += self.letters.short;
            unit.summary.damaged_tuples += self.letters.damaged;
        } else {
            unit.messages.clear();
            (unit.summary.short, unit.summary.text, unit.summary.blocks) = (0, 0, 0);
        }
        let summary = &mut unit.summary;
        (summary.kmers, summary.expanded, summary.skipped) =
            (windows.kmers, windows.expanded, windows.skipped);
        (summary.messages, summary.batches) = (unit.messages.len() as u64, unit.batches.len() as u64);
        if !matches!(self.method, Method::Direct(_)) {
            let accounted = summary.delivered + left_out + repeats;
            equal("k-mers of a unit in its sections", summary.kmers, accounted)?;
        }
        let tail = tail(unit.number, &unit.messages, &unit.batches, summary, unit.indexes);
        let summary = *summary;
        unit.append(&tail)?;
        let chain = unit.chain.take().expect("begun with the unit");
        Ok((chain, summary))
    }
}

fn store_keys(
    sorter: &mut KeySorter,
    batch: &mut Vec<u8>,
    index: usize,
    unit: &mut Unit,
) -> Result<(), WorkError> {
    batch.clear();
    batch.resize(index, 0);
    let sections = sorter.write(batch);
    unit.store(batch, sections)
}

fn count_rows(summary: &mut UnitSummary, counts: &PageCounts) {
    (summary.rows, summary.nulls, summary.missing) = (counts.live, counts.nulls, counts.missing);
    (summary.compressed, summary.external) = (counts.compressed, counts.external);
    (summary.dead, summary.undecided, summary.zero_pages) =
        (counts.dead, counts.undecided, counts.zero_pages);
    (summary.damaged_pages, summary.damaged_tuples) = (counts.damaged_pages, counts.damaged_tuples);
}

fn equal(what: &str, expected: u64, found: u64) -> Result<(), WorkError> {
    if expected == found {
        Ok(())
    } else {
        Err(WorkError::Conservation { what: what.into(), expected, found })
    }
}

impl Unit {
    /// Stores a batch: room for the index, then the sections that `sections` describes.
    fn store(&mut self, batch: &mut [u8], sections: &[Section]) -> Result<(), WorkError> {
        let (index, records) = batch.split_at_mut(index_bytes(sections.len()));
        let (number, long_row, summary) = (self.number, self.long_row, &mut self.summary);
        let indexed = sections.iter().enumerate().map(|(stripe, section)| {
            if section.bytes == 0 {
                return Indexed { section: *section, digest: 0 };
            }
            let from = section.offset as usize;
            let records = &records[from..from + section.bytes as usize];
            let digest = section_digest(number, long_row, stripe, records);
            summary.digest = summary.digest.wrapping_add(digest);
            summary.delivered += u64::from(section.kmers);
            Indexed { section: *section, digest }
        });
        write_index(indexed, index);
        self.indexes = add_index(self.indexes, self.batches.len(), index);
        self.batches.push(Batch { begin: self.chain_bytes, long_row: self.long_row });
        self.append(batch)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), WorkError> {
        let (Some(arena), Some(chain)) = (&self.arena, &mut self.chain) else { return Ok(()) };
        arena.append(self.owner, chain, bytes)?;
        self.chain_bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Sorter {
    /// Remembers why the reading is to end; the reader is told that it ends.
    fn fail(&mut self, error: WorkError) -> String {
        let text = error.to_string();
        self.unit.failure = Some(error);
        text
    }

    fn say(&mut self, message: &dyn std::fmt::Display) {
        if self.unit.messages.len() < self.unit.most_messages {
            self.unit.messages.push_str(&message.to_string());
            self.unit.messages.push('\n');
        }
    }
}

impl RecordSink for Sorter {
    fn part(&mut self, part: &Part<'_>) -> sequence::Result<()> {
        let begun = self.letters.long_row(part, self.unit.row).map_or(Ok(()), |row| self.begin_row(row));
        let taken = begun.and_then(|()| self.letters.take(part, &mut self.unit.row, &mut self.bases));
        let stored = taken.and_then(|taken| {
            if let Taken::Odd(letters) = taken {
                let name = String::from_utf8_lossy(part.name);
                self.say(&format!(
                    "file {:?}: record {name:?}: {letters} letters that are no nucleotide code, taken for N",
                    self.letters.path()
                ));
            }
            self.store_if_large()
        });
        stored.map_err(|e| sequence::Error::Stopped(self.fail(e)))
    }

    fn damaged(&mut self, error: sequence::Error) -> sequence::Result<()> {
        if !self.skip_damaged {
            return Err(error);
        }
        self.letters.damaged += 1;
        self.say(&error);
        Ok(())
    }
}

impl Rows for Sorter {
    fn begin_file(&mut self, path: &Path) {
        self.letters.begin_file(path, &mut self.unit.row);
    }

    fn end_file(&mut self) {
        self.letters.end_file();
    }
}

impl RowSink for Sorter {
    fn row(&mut self, item: u16, value: Value<'_>) -> Result<(), relation::Error> {
        let Value::Bits { bits, bytes } = value else { return Ok(()) };
        self.take(item, bits, bytes).map_err(|e| relation::Error::from_sink(self.fail(e)))
    }

    fn damaged(&mut self, error: relation::Error) -> Result<(), relation::Error> {
        if !self.skip_damaged || error.extent() == relation::Extent::Relation {
            return Err(error);
        }
        self.say(&error);
        Ok(())
    }
}
