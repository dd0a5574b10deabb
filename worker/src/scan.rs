//! Scans a unit: reads its blocks, takes the column out of every visible row, and stores the k-mers sorted by stripe.
//!
//! A unit is whole pages, a row lies in one page, and a k-mer in one value, so units have nothing to do with each other. Long values
//! are taken in batches: what a unit needs at a time is bounded, however large its rows are.

use crate::error::WorkError;
use crate::job::Job;
use crate::shared::Shared;
use crate::spool::{UnitSummary, digest, index_bytes, tail, write_index};
use kmer::bases::Bases;
use kmer::direct::DirectCounter;
use kmer::minimizer::Dealer;
use kmer::params::Params;
use kmer::superkmer::{Section, Splitter};
use relation::{
    BLOCK_SIZE, DnaType, MappedRelation, PageCounts, PageReader, RelationFile, RowSink, Toast, ToastIndex,
    Value,
};
use shm_layout::arena::{Arena, OwnedChain};
use shm_layout::words::Owner;
use std::sync::Arc;

/// Bytes of bases after which a batch is stored.
const BATCH_BYTES: usize = 4 << 20;
/// Messages about skipped tuples that a unit keeps, in bytes; the rest is counted only.
const MESSAGE_BYTES: usize = 64 << 10;

enum Source {
    Pread { file: RelationFile, buffer: Vec<u8> },
    Mapped(MappedRelation),
}

/// Scans units of one relation.
pub struct Scanner {
    source: Source,
    reader: PageReader,
    sorter: Sorter,
}

/// Turns rows into batches in the arena.
struct Sorter {
    params: Params,
    dna: DnaType,
    skip_damaged: bool,
    bases: Bases,
    method: Method,
    stripe_bits: u32,
    batch: Vec<u8>,
    unit: Unit,
}

enum Method {
    SuperKmers(Box<Splitter>),
    Direct(Box<DirectCounter>),
}

/// What belongs to the unit at hand.
struct Unit {
    number: usize,
    owner: Owner,
    arena: Option<Arena>,
    chain: Option<OwnedChain>,
    chain_bytes: u64,
    batches: Vec<u64>,
    row: u32,
    messages: String,
    summary: UnitSummary,
    failure: Option<WorkError>,
}

impl Scanner {
    /// Opens the job's files. The relation must be what it was when the leader looked.
    ///
    /// # Errors
    /// When a file cannot be opened, or has changed since.
    pub fn new(shared: &Shared) -> Result<Self, WorkError> {
        let job = &shared.job;
        let desc = job.tuple_desc()?;
        let toast = match (job.toast_path(), shared.toast_index()?) {
            (Some(path), Some(bytes)) => {
                Some(Arc::new(Toast::new(RelationFile::open(path)?, ToastIndex::from_bytes(&bytes)?)?))
            }
            _ => None,
        };
        let file = RelationFile::open(job.relation_path())?;
        if file.fingerprint().digest != job.fingerprint {
            return Err(WorkError::Job(format!(
                "relation {:?}: changed since the start",
                job.relation_path()
            )));
        }
        let reader =
            PageReader::new(&desc, job.column as usize, job.read_options(), job.relation_path(), toast)?;
        let source = if job.mapped {
            Source::Mapped(MappedRelation::open(job.relation_path())?)
        } else {
            Source::Pread { file, buffer: Vec::new() }
        };
        Ok(Self { source, reader, sorter: Sorter::new(job)? })
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
        let (first, blocks) = shared.unit_blocks(unit)?;
        self.sorter.begin(unit, owner, &shared.arena);
        let mut counts = PageCounts::default();
        let scanned = self.read_blocks(first as u32, blocks as usize, &mut counts);
        let scanned = self.sorter.unit.failure.take().map_or(scanned, Err);
        let result = scanned.and_then(|()| self.sorter.finish(&counts, blocks));
        if result.is_err()
            && let Some(chain) = self.sorter.unit.chain.take()
        {
            shared.arena.free(chain)?;
        }
        result
    }

    fn read_blocks(&mut self, first: u32, blocks: usize, counts: &mut PageCounts) -> Result<(), WorkError> {
        let Self { source, reader, sorter } = self;
        match source {
            Source::Pread { file, buffer } => {
                buffer.resize(blocks * BLOCK_SIZE, 0);
                file.read_blocks(first, buffer)?;
                for (page, block) in buffer.chunks_exact(BLOCK_SIZE).zip(first..) {
                    reader.read_page(page, block, counts, sorter)?;
                }
            }
            Source::Mapped(mapped) => {
                for block in first..first + blocks as u32 {
                    reader.read_page(mapped.page(block)?, block, counts, sorter)?;
                }
            }
        }
        Ok(())
    }
}

impl Sorter {
    fn new(job: &Job) -> Result<Self, WorkError> {
        let params = job.params()?;
        let method = if job.direct {
            let counter = DirectCounter::new(params);
            Method::Direct(Box::new(
                counter.ok_or_else(|| WorkError::Job("keys are too long to be counted directly".into()))?,
            ))
        } else {
            Method::SuperKmers(Box::new(Splitter::new(
                Dealer::new(params, job.stripe_bits, job.seed),
                job.stripe_bits,
            )))
        };
        let unit = Unit {
            number: 0,
            owner: Owner { slot: 0, generation: 0 },
            arena: None,
            chain: None,
            chain_bytes: 0,
            batches: Vec::new(),
            row: 0,
            messages: String::new(),
            summary: UnitSummary::default(),
            failure: None,
        };
        let (dna, skip_damaged, stripe_bits) = (job.dna_type(), job.skip_damaged, job.stripe_bits);
        Ok(Self {
            params,
            dna,
            skip_damaged,
            bases: Bases::new(params),
            method,
            stripe_bits,
            batch: Vec::new(),
            unit,
        })
    }

    fn begin(&mut self, number: usize, owner: Owner, arena: &Arena) {
        self.bases.restart();
        match &mut self.method {
            Method::SuperKmers(splitter) => splitter.begin_unit(),
            Method::Direct(counter) => drop(counter.take()),
        }
        let unit = &mut self.unit;
        (unit.number, unit.owner, unit.arena, unit.chain) =
            (number, owner, Some(arena.clone()), Some(arena.begin()));
        (unit.chain_bytes, unit.row, unit.summary, unit.failure) = (0, 0, UnitSummary::default(), None);
        unit.batches.clear();
        unit.messages.clear();
    }

    /// Takes a row of `bits` bits.
    fn take(&mut self, bits: u32, bytes: &[u8]) -> Result<(), WorkError> {
        self.unit.row += 1;
        let row = self.unit.row;
        let bases = u64::from(bits) / if self.dna == DnaType::Dna2 { 2 } else { 4 };
        if bases < u64::from(self.params.k()) {
            self.unit.summary.short += 1;
            return Ok(());
        }
        if self.dna == DnaType::Dna4 {
            self.bases.push_dna4(row, bases, bytes);
            return self.store_if_large();
        }
        for piece in 0..Bases::pieces(bases) {
            self.bases.push_dna2(row, bases, bytes, piece);
            self.store_if_large()?;
        }
        Ok(())
    }

    fn store_if_large(&mut self) -> Result<(), WorkError> {
        if self.bases.len() < BATCH_BYTES {
            return Ok(());
        }
        match &mut self.method {
            Method::SuperKmers(_) => self.store_super_kmers()?,
            Method::Direct(counter) => counter.add(&self.bases),
        }
        self.bases.clear();
        Ok(())
    }

    /// Sorts what the buffer holds by stripe and stores it as a batch.
    fn store_super_kmers(&mut self) -> Result<(), WorkError> {
        let Method::SuperKmers(splitter) = &mut self.method else { return Ok(()) };
        let index = index_bytes(1 << self.stripe_bits);
        self.batch.clear();
        self.batch.resize(index, 0);
        let sections = splitter.split(&self.bases, &mut self.batch);
        self.unit.store(&mut self.batch, sections)
    }

    fn store_direct(&mut self) -> Result<(), WorkError> {
        let Method::Direct(counter) = &mut self.method else { return Ok(()) };
        counter.add(&self.bases);
        let stripes = 1usize << self.stripe_bits;
        let index = index_bytes(stripes);
        self.batch.clear();
        self.batch.resize(index, 0);
        let mut sections = vec![Section::default(); stripes];
        for (stripe, section) in sections.iter_mut().enumerate() {
            let from = self.batch.len();
            let (_, sum) = counter.write_stripe(stripe, self.stripe_bits, &mut self.batch);
            let (offset, bytes) = ((from - index) as u32, (self.batch.len() - from) as u32);
            *section = Section { offset, bytes, kmers: u32::try_from(sum).unwrap_or(u32::MAX) };
        }
        let (counted, pushed) = (counter.take(), self.bases.counts().kmers);
        equal("k-mers of a unit counted directly", pushed, counted)?;
        self.unit.store(&mut self.batch, &sections)
    }

    /// Stores what is left and the tail. The counts must agree with each other before anybody may see the result.
    fn finish(&mut self, counts: &PageCounts, blocks: u64) -> Result<(OwnedChain, UnitSummary), WorkError> {
        match &self.method {
            Method::SuperKmers(_) if !self.bases.is_empty() => self.store_super_kmers()?,
            Method::SuperKmers(_) => {}
            Method::Direct(_) => self.store_direct()?,
        }
        let windows = self.bases.counts();
        let unit = &mut self.unit;
        let summary = &mut unit.summary;
        (summary.rows, summary.nulls, summary.missing) = (counts.live, counts.nulls, counts.missing);
        (summary.compressed, summary.external) = (counts.compressed, counts.external);
        (summary.dead, summary.undecided, summary.zero_pages) =
            (counts.dead, counts.undecided, counts.zero_pages);
        (summary.damaged_pages, summary.damaged_tuples) = (counts.damaged_pages, counts.damaged_tuples);
        (summary.kmers, summary.expanded, summary.skipped) =
            (windows.kmers, windows.expanded, windows.skipped);
        (summary.messages, summary.batches, summary.blocks) =
            (unit.messages.len() as u64, unit.batches.len() as u64, blocks);
        if matches!(self.method, Method::SuperKmers(_)) {
            equal("k-mers of a unit in its sections", summary.kmers, summary.delivered)?;
        }
        let tail = tail(&unit.messages, &unit.batches, summary);
        let summary = *summary;
        unit.append(&tail)?;
        let chain = unit.chain.take().expect("begun with the unit");
        Ok((chain, summary))
    }
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
        let index = index_bytes(sections.len());
        for (stripe, section) in sections.iter().enumerate().filter(|(_, s)| s.bytes > 0) {
            let from = index + section.offset as usize;
            let sum = digest(self.number, stripe, &batch[from..from + section.bytes as usize]);
            self.summary.digest = self.summary.digest.wrapping_add(sum);
            self.summary.delivered += u64::from(section.kmers);
        }
        write_index(sections, &mut batch[..index]);
        self.batches.push(self.chain_bytes);
        self.append(batch)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), WorkError> {
        let (Some(arena), Some(chain)) = (&self.arena, &mut self.chain) else { return Ok(()) };
        arena.append(self.owner, chain, bytes)?;
        self.chain_bytes += bytes.len() as u64;
        Ok(())
    }
}

impl RowSink for Sorter {
    fn row(&mut self, _item: u16, value: Value<'_>) -> Result<(), relation::Error> {
        let Value::Bits { bits, bytes } = value else { return Ok(()) };
        self.take(bits, bytes).map_err(|e| {
            let stop = relation::Error::from_sink(e.to_string());
            self.unit.failure = Some(e);
            stop
        })
    }

    fn damaged(&mut self, error: relation::Error) -> Result<(), relation::Error> {
        if !self.skip_damaged || error.extent() == relation::Extent::Relation {
            return Err(error);
        }
        if self.unit.messages.len() < MESSAGE_BYTES {
            self.unit.messages.push_str(&error.to_string());
            self.unit.messages.push('\n');
        }
        Ok(())
    }
}
