//! How much memory the records of a run will need, and so how many passes it takes.
//!
//! Bases are estimated from some blocks of the largest leaf, TOAST relations are taken for full of bases. A super-k-mer has about (w + 1) / 2
//! k-mers, with w m-mers in a k-mer, so records take `width * 2 / (w + 1)` bytes a base.

use crate::failure::Failure;
use crate::packed;
use crate::progress::figures::bytes;
use crate::room::Room;
use crate::units;
use kmer::keys;
use kmer::minimizer::{Dealer, minimizer_size};
use kmer::params::Params;
use kmer_worker::job::{Job, Leaf, LeafSequence, Stream, path_of};
use kmer_worker::shared::Sizes;
use relation::{
    BLOCK_SIZE, PageBuffer, PageCounts, PageReader, ReadOptions, RelationFile, RowSink, Unhinted, Value,
};
use sequence::SequenceFile;
use sequence::file::Text;
use shm_layout::arena::Arena;
use shm_layout::slots::Slots;
use std::path::Path;

/// Blocks that are looked at.
const LOOKS: u32 = 32;
/// Private memory of a process that works: its buffers, tables and indexes.
const PRIVATE: u64 = 32 << 20;
/// The same of one that writes sums, which has [`keys::summed_bytes`] besides.
const BESIDE_SUMS: u64 = 8 << 20;
/// Bytes of a sum in a unit that counts directly.
const SUM_BYTES: u64 = 2;
/// Bytes of a stripe in a unit's index.
const INDEX_BYTES: u64 = 24;
const PAGE: u64 = 4096;
/// Bytes of a header, the job, the command line and what rounding takes.
const FRAME: u64 = 32 << 10;
/// More passes than these do not help.
const MAX_PASS_BITS: u32 = 8;

/// Private memory of all processes that work, more or less; those that write sums of units have room of `windows_bits` for it.
pub fn private(workers: u16, params: Params, windows_bits: Option<u32>) -> u64 {
    let each = windows_bits.map_or(PRIVATE, |bits| BESIDE_SUMS + keys::summed_bytes(params, bits));
    each * u64::from(workers.max(1))
}

/// What those should know who allow less memory than the processes may take alone, `private`.
pub fn note(memory: u64, workers: u16, private: u64) -> Option<String> {
    (private >= memory).then(|| {
        let (private, memory) = (bytes(private), bytes(memory));
        format!("{workers} processes may take {private} besides the segment, and --memory allows {memory}: fewer (-j) take less")
    })
}

/// What a relation has in it, more or less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Blocks that were looked at.
    pub looked: u64,
    /// Visible rows.
    pub rows: u64,
    /// Bases of all of them.
    pub bases: u64,
    /// Their k-mers.
    pub kmers: u64,
    /// k-mers in the fullest of the blocks that were looked at; 0: it was not looked block by block.
    pub fullest: u64,
    /// Bytes of text, where it is read as text.
    pub text: u64,
}

struct Look {
    bits_each: u64,
    k: u64,
    found: Found,
}

impl RowSink for Look {
    fn row(&mut self, _item: u16, value: Value<'_>) -> Result<(), relation::Error> {
        if let Value::Bits { bits, .. } = value {
            let bases = u64::from(bits) / self.bits_each;
            self.found.bases += bases;
            self.found.kmers += (bases + 1).saturating_sub(self.k);
        }
        Ok(())
    }

    fn damaged(&mut self, _error: relation::Error) -> Result<(), relation::Error> {
        // What lies in a TOAST relation is added for the whole of it; damage is for the run to find.
        self.found.rows += 1;
        Ok(())
    }
}

/// What the job has to read: looked at in some blocks, and extrapolated.
pub fn sample(job: &Job, toast_bytes: u64) -> Found {
    if let Some(found) = packed::look(job).or_else(|| sample_text(job)) {
        return found;
    }
    let bits = if job.dna4 { 4 } else { 2 };
    let full = |bytes: u64| bytes * 8 / bits;
    let total = job.total_blocks();
    let largest = job.leaves.iter().max_by_key(|leaf| leaf.blocks);
    let found = match largest.and_then(|leaf| look(job, leaf, bits)) {
        Some(seen) => {
            let all = |n: u64| (u128::from(n) * u128::from(total) / u128::from(seen.looked.max(1))) as u64;
            Found { rows: all(seen.rows), bases: all(seen.bases), kmers: all(seen.kmers), ..seen }
        }
        None => {
            let bases = full(total * BLOCK_SIZE as u64);
            Found { bases, kmers: bases, ..Found::default() }
        }
    };
    let outside = full(toast_bytes);
    Found { bases: found.bases + outside, kmers: found.kmers + outside, ..found }
}

/// The same of sequence files, with a look at places all over the largest; `None` when there are none.
fn sample_text(job: &Job) -> Option<Found> {
    let text = job.leaves.iter().filter_map(|leaf| leaf.sequence);
    // A letter of FASTQ has a quality beside it.
    let bases: u64 = text.map(|file| if file.fastq { file.bytes / 2 } else { file.bytes }).sum();
    let (leaf, sequence) = job
        .leaves
        .iter()
        .filter_map(|leaf| Some((leaf, leaf.sequence?)))
        .max_by_key(|(_, file)| file.bytes)?;
    let records = records(path_of(&leaf.path), sequence).unwrap_or((0, 1));
    let rows = if job.row_per_file {
        job.leaves.len() as u64
    } else {
        (u128::from(records.0) * u128::from(job.text_bytes()) / u128::from(records.1.max(1))) as u64
    };
    let kmers = bases.saturating_sub(rows.saturating_mul(u64::from(job.k) - 1));
    let looked = u64::from(LOOKS.min(leaf.blocks));
    Some(Found { looked, rows, bases, kmers, fullest: 0, text: job.text_bytes() })
}

/// Records that begin in some bytes of a sequence file, and how many bytes these are.
fn records(path: &Path, sequence: LeafSequence) -> Option<(u64, u64)> {
    let file = SequenceFile::open(path).ok()?;
    let (mut found, mut bytes, mut window) = (0, 0, vec![0; BLOCK_SIZE]);
    // Windows that do not overlap, however short the file is.
    let looks = (file.len() / BLOCK_SIZE as u64).clamp(1, LOOKS.into());
    for look in 0..looks {
        let from = look * (file.len() / looks);
        let len = (file.len() - from).min(BLOCK_SIZE as u64) as usize;
        file.read_at(from, &mut window[..len]).ok()?;
        let mark = if sequence.fastq { b'\n' } else { b'>' };
        found += window[..len].iter().filter(|byte| **byte == mark).count() as u64;
        bytes += len as u64;
    }
    Some((if sequence.fastq { found / 4 } else { found }, bytes))
}

/// Looks at some blocks of a leaf.
fn look(job: &Job, leaf: &Leaf, bits_each: u64) -> Option<Found> {
    let path = path_of(&leaf.path);
    let file = RelationFile::open_with_segment_size(path, job.segment_blocks).ok()?;
    let options = ReadOptions { verify_checksums: false, unhinted: Unhinted::Visible };
    let mut reader =
        PageReader::new(&leaf.tuple_desc().ok()?, leaf.column as usize, options, path, None).ok()?;
    let (mut page, mut counts) = (PageBuffer::new(1), PageCounts::default());
    let mut seen = Look { bits_each, k: job.k.into(), found: Found::default() };
    let looks = LOOKS.min(leaf.blocks);
    for look in 0..looks {
        let block = (u64::from(look) * u64::from(leaf.blocks) / u64::from(looks)) as u32;
        file.read_blocks(block, page.blocks_mut(1)).ok()?;
        let before = seen.found.kmers;
        let _ = reader.read_page(page.blocks(1), block, &mut counts, &mut seen);
        seen.found.fullest = seen.found.fullest.max(seen.found.kmers - before);
    }
    Some(Found { looked: looks.into(), rows: seen.found.rows + counts.live, ..seen.found })
}

/// Bytes that the records of all stripes take.
fn record_bytes(job: &Job, bases: u64, params: Params) -> u64 {
    let k = params.k();
    let window = u64::from(k - minimizer_size(k) + 1);
    let width = Dealer::new(params, job.stripe_bits, job.seed).form().width().bytes() as u64;
    let records = u128::from(bases) * 2 * u128::from(width) / u128::from(window + 1);
    // That is as chance has it; turns make super-k-mers a sixth longer, of canonical k-mers half as much so. And a little more than the mean: rows end,
    // and repeats are unevenly spread.
    (records * if params.canonical() { 17 } else { 16 } / 16) as u64
}

/// Bytes that so many different keys take in published tables: what their place does not tell of them, a distance and a count, and what their share of the places takes.
fn table_bytes(keys: u64, key_bits: u32) -> u64 {
    /// Bits of a key that its place in a table for a core's cache tells.
    const TOLD: u32 = 16;
    let entry = u64::from(key_bits.saturating_sub(TOLD).div_ceil(8)) + 2;
    keys * entry + keys / 2
}

/// Units that `job` will have in a segment of these `sizes`: of a stream, which may have as many parcels as there are words for, about so many as its
/// text takes.
pub fn units(job: &Job, found: &Found, sizes: &Sizes) -> u64 {
    let most = sizes.units(job.blocks_to_claim()).count();
    let parcels = |stream: Stream| found.text / stream.parcel_bytes + job.leaves.len() as u64;
    job.stream.map_or(most, |stream| most.min(parcels(stream)))
}

/// What a segment needs, more or less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes of all records, over all passes.
    pub records: u64,
    /// Bytes of the pages in which results of stripes begin, over all passes: nothing where all is kept, since they are written over records then.
    pub results: u64,
    /// Bytes of all tables if no k-mer of super-k-mers came twice.
    pub tables: u64,
    /// Units, see [`units()`].
    pub units: u64,
    /// Results of the scan: one of each unit, or fewer where they are committed in bundles.
    pub chains: u64,
    /// Bytes that these take in every pass, whatever is in them: their indexes, and the pages that they fill half.
    pub unit_bytes: u64,
    /// Bytes that are there from the start.
    pub control: u64,
}

impl Need {
    /// What `job` needs in a segment of these `sizes`, with `toast_index` bytes of indexes in it.
    pub fn of(job: &Job, found: &Found, params: Params, sizes: &Sizes, toast_index: usize) -> Self {
        let units = units(job, found, sizes);
        let chains = if job.bundles_units() { units::bundles(found.kmers, sizes.workers) } else { units };
        let words =
            8 * (sizes.units(job.blocks_to_claim()).count() + (job.stripes() + sizes.bundles(job)) as u64);
        let fixed = Arena::estimate(sizes.chunks, sizes.twice) + Slots::estimate(sizes.slots);
        let records = if job.is_summed() {
            // A byte for each key.
            chains << params.key_bits()
        } else if job.direct && keys::suits(params) {
            found.kmers * keys::RECORD_BYTES as u64
        } else if job.direct {
            // Sums of a unit: no more of them than there are keys or k-mers in it.
            let each = (found.kmers / units.max(1)).min(1 << params.key_bits());
            units * each * SUM_BYTES
        } else {
            record_bytes(job, found.bases, params)
        };
        let tables = if job.direct { 0 } else { table_bytes(found.kmers, params.key_bits()) };
        let each = job.stripes() as u64 * INDEX_BYTES + PAGE;
        let control = words + toast_index as u64 + fixed as u64 + FRAME;
        let results = if sizes.twice > 0 { 0 } else { job.stripes() as u64 * PAGE };
        Self { records, results, tables, units, chains, unit_bytes: chains * each, control }
    }

    /// Bytes of chunks that all passes fill together. Where every k-mer is kept (`all`) the tables are written over the records. They are taken to be as much as these
    /// and a quarter more, since they fill their last chunks by half, and as if two k-mers in nine were different; twice as much, and three in five, where rows are
    /// long: a genome's k-mers come once. How much they are is not known before.
    fn in_arena(&self, all: bool, long_rows: bool) -> u64 {
        let (quarters, tables) = match (all, long_rows) {
            (false, _) => (4, 0),
            (true, false) => (5, self.tables / 9 * 2),
            (true, true) => (8, self.tables / 5 * 3),
        };
        (self.records / 4).saturating_mul(quarters).max(tables)
    }
}

/// No more than 2^this passes can be taken: each has a stripe at least.
pub fn most_pass_bits(job: &Job, params: Params) -> u32 {
    let in_place = job.direct && !keys::suits(params);
    if in_place { 0 } else { MAX_PASS_BITS.min(job.stripe_bits) }
}

/// 2^this passes are needed so that records and tables fit the arena of `sizes`, and the room that there is.
///
/// # Errors
/// When they do not fit the room however many passes are taken.
pub fn pass_bits(job: &Job, need: &Need, all: bool, sizes: &Sizes, room: &Room) -> Result<u32, Failure> {
    let most = most_pass_bits(job, job.params()?);
    let within = |bytes: u64, usable: u64| {
        let passes = bytes.div_ceil(usable.max(1)).max(1);
        passes.checked_next_power_of_two().map_or(u32::MAX, u64::ilog2)
    };
    let arena = sizes.chunks as u64 * sizes.chunk_bytes as u64;
    // Chunks are filled to the half at the end of a unit, and the tables want their part.
    let usable = (arena / 8 * 7).saturating_sub(need.chains * sizes.chunk_bytes as u64 + need.unit_bytes);
    let by_arena = within(need.in_arena(all, job.part_bits > 0), usable);
    let by_room = within(need.records + need.results, room.for_records(need));
    if by_room > most {
        return Err(room.too_small(need, 1 << most));
    }
    Ok(by_arena.min(most).max(by_room))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As docs/performance.md has them of real tables.
    #[test]
    fn tables_are_reckoned_by_their_entries() {
        for (k, bytes) in [(16, 4.5), (21, 6.5), (31, 8.5)] {
            assert_eq!(table_bytes(1_000_000, 2 * k), (bytes * 1e6) as u64, "k {k}");
        }
    }

    /// Four genomes of *Klebsiella*, k = 16: of 22 million k-mers 57 in 100 are different.
    #[test]
    fn tables_larger_than_the_records_are_planned_for() {
        let (kmers, different) = (22_236_353, 12_569_769);
        // Two records for eleven k-mers, six bytes each.
        let need = Need { records: kmers * 12 / 11, tables: table_bytes(kmers, 32), ..Need::default() };
        assert!(need.in_arena(true, true) > table_bytes(different, 32));
        assert!(need.records * 2 < table_bytes(different, 32), "twice the records were too little");
        assert_eq!(need.in_arena(false, true), need.records / 4 * 4);
    }
}
