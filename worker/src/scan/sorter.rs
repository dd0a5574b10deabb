//! Takes rows of every kind as runs of bases, and turns them into batches by the job's method.
//!
//! Promises
//! - A batch's bases are bounded, however long a row is.
//! - Of rows that units share only the unit's portion is taken; a batch has no row beside a long one.

use super::unit::Unit;
use crate::error::WorkError;
use crate::job::Job;
use crate::letters::{Letters, Taken};
use crate::method::Method;
use crate::portion::Portion;
use crate::source::Rows;
use crate::spool::{NO_ROW, UnitSummary, index_bytes};
use kmer::bases::Bases;
use kmer::keys::KeySorter;
use kmer::params::Params;
use kmer::superkmer::{Section, Share};
use relation::{DnaType, RowSink, Value};
use sequence::{Part, RecordSink};
use shm_layout::arena::{Arena, OwnedChain};
use shm_layout::slots::Figure;
use shm_layout::words::Owner;
use std::ops::Range;
use std::path::Path;

/// Bytes of bases that are taken at a time where they make no batch: so many stay in a core's cache.
const BASES_BYTES: usize = 256 << 10;

/// Occurrences that are counted directly are stored after so many times a batch's bytes of k-mers: a unit may be a whole file, a count has 32 bits.
const COUNTED_BATCHES: u64 = 64;

/// Turns rows into batches in the arena.
pub(super) struct Sorter {
    params: Params,
    dna: DnaType,
    skip_damaged: bool,
    batch_bytes: usize,
    /// Bytes of bases that are taken at a time.
    bases_bytes: usize,
    pub(super) bases: Bases,
    letters: Letters,
    method: Method,
    stripe_bits: u32,
    batch: Vec<u8>,
    /// k-mers of the unit at hand that were counted directly and stored.
    counted: u64,
    pub(super) unit: Unit,
}

impl Sorter {
    pub(super) fn new(job: &Job) -> Result<Self, WorkError> {
        let params = job.params()?;
        let method = Method::new(job, params)?;
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
            unit: Unit::none(),
        })
    }

    pub(super) fn begin(
        &mut self,
        number: usize,
        owner: Owner,
        arena: &Arena,
        portion: Portion,
        share: Share,
    ) {
        self.bases.restart();
        self.letters.begin_unit(portion);
        self.counted = 0;
        match &mut self.method {
            Method::SuperKmers(splitter) => splitter.begin_unit(share),
            Method::Keys(sorter) => sorter.begin_unit(share),
            Method::Direct(counter) => drop(counter.take()),
        }
        self.unit.begin(number, owner, arena, portion);
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
        if portion.takes_at_once(windows) {
            return self.push(row, NO_ROW, bytes, 0..windows);
        }
        let is_long = portion.is_long(windows);
        let long_row = if is_long { item } else { NO_ROW };
        let mut pieces = portion.windows(item, 0..windows, is_long);
        pieces.try_for_each(|windows| self.push(row, long_row, bytes, windows))
    }

    /// Takes those windows of a row.
    #[inline]
    fn push(&mut self, row: u32, long_row: u64, bytes: &[u8], windows: Range<u64>) -> Result<(), WorkError> {
        self.begin_row(long_row)?;
        match self.dna {
            DnaType::Dna2 => self.bases.push_dna2_windows(row, bytes, windows),
            DnaType::Dna4 => self.bases.push_dna4_windows(row, bytes, windows),
        }
        self.store_if_large()
    }

    /// What follows is of this long row, or of rows that are not dealt out: a batch has no others.
    #[inline]
    fn begin_row(&mut self, long_row: u64) -> Result<(), WorkError> {
        if self.unit.long_row == long_row { Ok(()) } else { self.change_row(long_row) }
    }

    fn change_row(&mut self, long_row: u64) -> Result<(), WorkError> {
        if !self.bases.is_empty() {
            self.store_super_kmers()?;
            self.bases.clear();
        }
        self.unit.long_row = long_row;
        Ok(())
    }

    #[inline]
    fn store_if_large(&mut self) -> Result<(), WorkError> {
        if self.bases.len() < self.bases_bytes { Ok(()) } else { self.store_bases() }
    }

    fn store_bases(&mut self) -> Result<(), WorkError> {
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
    pub(super) fn finish(&mut self) -> Result<(OwnedChain, UnitSummary), WorkError> {
        self.store_rest()?;
        let (left_out, repeats) = match &self.method {
            Method::SuperKmers(splitter) => (splitter.left_out(), 0),
            Method::Keys(sorter) => (sorter.left_out(), sorter.repeats()),
            Method::Direct(_) => (0, 0),
        };
        let kmers = self.unit.sum_up(self.bases.counts(), &self.letters);
        if !matches!(self.method, Method::Direct(_)) {
            let accounted = self.unit.summary.delivered + left_out + repeats;
            equal("k-mers of a unit in its sections", kmers, accounted)?;
        }
        self.unit.end()
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

fn equal(what: &str, expected: u64, found: u64) -> Result<(), WorkError> {
    if expected == found {
        Ok(())
    } else {
        Err(WorkError::Conservation { what: what.into(), expected, found })
    }
}

impl Sorter {
    /// Remembers why the reading is to end; the reader is told that it ends.
    fn fail(&mut self, error: WorkError) -> String {
        let text = error.to_string();
        self.unit.failure = Some(error);
        text
    }
}

impl RecordSink for Sorter {
    fn part(&mut self, part: &Part<'_>) -> sequence::Result<()> {
        let begun = self.letters.long_row(part, self.unit.row).map_or(Ok(()), |row| self.begin_row(row));
        let taken = begun.and_then(|()| self.letters.take(part, &mut self.unit.row, &mut self.bases));
        let stored = taken.and_then(|taken| {
            if let Taken::Odd(letters) = taken {
                let name = String::from_utf8_lossy(part.name);
                self.unit.say(&format!(
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
        self.unit.say(&error);
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
        self.unit.say(&error);
        Ok(())
    }
}
