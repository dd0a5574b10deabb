//! How a job is laid out: how many stripes, how many units share a block, how large chunks are and how many of them the segment has.

use crate::debug::DebugArgs;
use crate::failure::Failure;
use crate::memory::Need;
use crate::units;
use kmer::keys;
use kmer::params::Params;
use kmer_worker::job::Job;
use kmer_worker::shared::Sizes;
use shm_layout::segment::MAX_BESIDE;
use shm_layout::state::Units;

/// So many chunks may all be used twice.
const FEW_CHUNKS: u64 = 1 << 12;
/// Bytes of records and results from which on a segment has several objects: their pages take hundredths of a second.
const MUCH: u64 = 64 << 20;
/// Bytes of a chunk of the arena.
const CHUNK_BYTES: usize = 64 << 10;
/// Bases that a stripe should get: were all its k-mers different, its table would fit a core's second cache.
const STRIPE_BASES: u64 = 1 << 14;
/// The same where there are very many: most of them are then copies.
const LARGE_STRIPE_BASES: u64 = 1 << 20;
/// Windows of a long row that a unit takes at a time, at least: their records fill a chunk or two, and what each unit has of the row ends with one that is
/// half empty.
const LEAST_STRETCH: u64 = 1 << 17;
/// The same for each stripe.
const WINDOWS_A_STRIPE: u64 = 128;
/// Bytes of TOAST from which on sharing a block is worth reading it several times.
const LONG_ROWS: u64 = 1 << 20;

/// As many stripes as make their tables fit a core's second cache, but not so many that what a unit has for each is not worth reading.
pub(crate) fn stripe_bits(job: &Job, bases: u64, params: Params) -> u32 {
    if job.direct {
        return (params.key_bits() - 4).min(6);
    }
    let bits = |bases_each: u64| (bases / bases_each).max(1).ilog2();
    bits(STRIPE_BASES).clamp(4, 11).max(bits(LARGE_STRIPE_BASES).min(14))
}

/// Stripes of keys that are sorted: no more than records want, and no fewer than keep many workers busy.
pub(crate) fn key_stripe_bits(params: Params, asked: Option<u32>) -> u32 {
    let least = keys::least_stripe_bits(params);
    asked.map_or(least, |bits| bits.clamp(least, 14))
}

/// Few blocks whose rows are long are shared: every unit takes a portion of its block's rows, so a row of a whole chromosome keeps all workers at
/// work.
pub(crate) fn part_bits(job: &Job, toast_bytes: u64, long_rows: bool, workers: u16) -> u32 {
    let few = long_rows
        || job.total_blocks() < 4 * u64::from(workers) && toast_bytes + job.text_bytes() >= LONG_ROWS;
    if job.direct || !few { 0 } else { u32::from(workers.clamp(1, 16)).next_power_of_two().ilog2() }
}

/// Windows of a long row that a unit takes at a time. A row is dealt out when there is more for each: its records then take several times as
/// many bytes as the index of a batch of their own, an entry for each stripe.
pub(crate) fn stretch(job: &Job) -> u64 {
    LEAST_STRETCH.max(WINDOWS_A_STRIPE << job.stripe_bits)
}

/// Small chunks where there is little memory, so that half-filled ones do not take all of it.
fn chunk_bytes(allowed: u64) -> usize {
    let bits = (allowed / 2048).max(1).ilog2();
    (1usize << bits.min(30)).clamp(4096, CHUNK_BYTES)
}

/// The segment's sizes for a job that may use `allowed` bytes of shared memory; `unit_blocks`, if that was decided already.
///
/// # Errors
/// When the memory is too little for an arena.
pub(crate) fn sizes(
    job: &Job,
    toast_bytes: u64,
    workers: u16,
    allowed: u64,
    unit_blocks: Option<u64>,
    debug: &DebugArgs,
) -> Result<Sizes, Failure> {
    let heap_bytes = job.total_bytes();
    let asked = unit_blocks.is_some();
    let unit_blocks = unit_blocks.unwrap_or_else(|| units::blocks(job, toast_bytes, workers)).max(1);
    let ramp = if asked { 0 } else { units::ramp(unit_blocks, workers) };
    let units = Units { total_blocks: job.blocks_to_claim(), unit_blocks, ramp }.count();
    let chunk_bytes = debug.chunk_bytes.unwrap_or_else(|| chunk_bytes(allowed));
    // Chunks are address space until they are written, so there are enough for the worst case: every k-mer a record of its own, and
    // every key kept. Sums have a byte for each key, however few k-mers there are: of a bundle of units most of the time, of each unit at the worst.
    let sums = if job.is_summed() { (units + u64::from(workers)) << (2 * job.k) } else { 0 };
    let wanted = (heap_bytes + toast_bytes).saturating_mul(96).saturating_add(sums) / chunk_bytes as u64
        + 8 * units
        + 4 * job.stripes() as u64
        + 64;
    let chunks = wanted.min(allowed / chunk_bytes as u64).min(u64::from(u32::MAX / 2)) as usize;
    if chunks < 2 {
        let text = format!("memory: expected at least {} bytes, found {allowed}", 2 * chunk_bytes);
        return Err(Failure::error(text).hint("allow more memory with --memory, or in the control group"));
    }
    // Records lie in the first chunks, and are far less than the worst case.
    let twice = chunks.min((wanted / 8).max(FEW_CHUNKS) as usize);
    let slots = usize::from(workers) + 1 + usize::from(job.stream.is_some());
    Ok(Sizes {
        unit_blocks,
        ramp,
        slots,
        workers: workers.into(),
        trace: 0,
        chunk_bytes,
        chunks,
        twice,
        beside: 0,
    })
}

/// Objects over which a segment's chunks are dealt: one for each worker where there is much to write, and to give back at the end.
pub(crate) fn objects(need: &Need, workers: u16) -> usize {
    if need.records + need.results < MUCH { 1 } else { usize::from(workers).clamp(1, MAX_BESIDE + 1) }
}
