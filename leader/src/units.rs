//! How many blocks a unit has: what a worker claims at a time, and what is lost of its work when it dies.

use crate::memory::{self, Found};
use kmer::keys::{self, WINDOWS_BITS};
use kmer::params::Params;
use kmer_worker::job::Job;
use relation::BLOCK_SIZE;
use shm_layout::state::PARTS;

/// Blocks of a unit, when there are enough of them.
const UNIT_BLOCKS: u64 = 512;
/// The same of text, which has a base in a byte at the most.
const TEXT_UNIT_BLOCKS: u64 = 2048;
/// So many times as many where k-mers are counted directly: each unit writes a count for every key that it has.
const DIRECT_TIMES: u64 = 4;
/// Units that every worker should have at least.
const LEAST_EACH: u64 = 8;
/// The same where units are written as sums, which are the less the larger units are.
const LEAST_SUMMED: u64 = 4;
/// More units are not needed, so where units are sums the segment does not grow with the input any more.
const MOST_SUMMED: u64 = 32;
/// A unit of sums has so many k-mers for each key there can be, at the least: a quarter of what they would take as records.
const LEAST_A_KEY: u64 = 2;
/// So many if there are enough of them for all workers: a sixteenth of what they would take as records, and what it takes to write and to add up sums is
/// little beside what it takes to count.
const KMERS_A_KEY: u64 = 8;
/// No unit has more than so many, lest too much is lost with a worker.
const MOST_A_KEY: u64 = 32;
/// Where the fullest block has more than so many times the mean of k-mers, a unit may have most of them.
const MOST_UNEVEN: u64 = 2;

/// Units of fewer blocks are small enough for the end of a scan.
const RAMP_BLOCKS: u64 = 4 * PARTS;

/// How many units are parted towards the end, so that no worker waits long for the others: one for each worker.
pub fn ramp(unit_blocks: u64, workers: u16) -> u64 {
    if unit_blocks < RAMP_BLOCKS { 0 } else { workers.into() }
}

/// Blocks of a unit of `job`.
pub fn blocks(job: &Job, toast_bytes: u64, workers: u16) -> u64 {
    let heap_bytes = job.total_bytes();
    let most = if job.text_bytes() > 0 { TEXT_UNIT_BLOCKS } else { UNIT_BLOCKS };
    let most = if counts_directly(job) && !job.skip_damaged { DIRECT_TIMES * most } else { most };
    // Blocks that lead to much TOAST, or are whole files, are more work, and every worker should have several units.
    let whole = job.total_blocks() * BLOCK_SIZE as u64;
    let by_toast =
        (u128::from(most) * u128::from(whole) / u128::from(heap_bytes + toast_bytes).max(1)) as u64;
    let by_workers = job.total_blocks() / (u64::from(workers.max(1)) * LEAST_EACH);
    most.min(by_toast).min(by_workers)
}

/// Whether a unit writes a count for each key that it has: not if it sorts them.
fn counts_directly(job: &Job) -> bool {
    job.direct && job.params().is_ok_and(|params| !keys::suits(params))
}

/// Blocks of a unit when all units of a relation of so many `blocks`, whose keys are sorted, are better written as their sums, and the room for windows,
/// see [`WINDOWS_BITS`]; `None` when they are not. That takes large units, and memory of each worker's own. Few units are work for all only where one has as
/// much in it as another.
pub fn summed(
    blocks: u64,
    found: &Found,
    params: Params,
    memory: Option<u64>,
    workers: u16,
) -> Option<(u64, u32)> {
    let private = |bits| memory::private(workers, params, Some(bits));
    let workers = u64::from(workers.max(1));
    let of = |kmers_a_key: u64| found.kmers / (kmers_a_key << params.key_bits());
    let most = of(LEAST_A_KEY);
    let is_uneven = found.fullest.saturating_mul(blocks) > found.kmers.saturating_mul(MOST_UNEVEN);
    // A byte for each key is written for every unit.
    let sums_in = |memory: u64, bits| memory.saturating_sub(private(bits)) >> params.key_bits();
    let (least_bits, most_bits) = WINDOWS_BITS.into_inner();
    if memory.is_some_and(|memory| sums_in(memory, least_bits) == 0)
        || most < LEAST_SUMMED * workers
        || blocks < most
        || is_uneven
    {
        return None;
    }
    let mut units = of(KMERS_A_KEY).clamp(LEAST_SUMMED * workers, MOST_SUMMED * workers).max(of(MOST_A_KEY));
    let is_roomy = memory.is_none_or(|memory| sums_in(memory, most_bits) >= units);
    if let Some(memory) = memory {
        // Fewer of them need fewer passes.
        units = units.min(sums_in(memory, least_bits)).max(LEAST_SUMMED * workers);
    }
    // As many for one worker as for the other.
    Some((blocks.div_ceil(units / workers * workers), if is_roomy { most_bits } else { least_bits }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_units_are_parted_towards_the_end() {
        assert_eq!((ramp(512, 2), ramp(16, 8), ramp(15, 8)), (2, 8, 0));
    }

    #[test]
    fn large_relations_of_short_keys_are_summed() {
        let params = Params::new(12, 0).expect("in range");
        let units = |blocks: u64, workers, memory| {
            let found = Found { kmers: blocks * 14_000, fullest: 15_000, ..Found::default() };
            let (unit, windows_bits) = summed(blocks, &found, params, memory, workers)?;
            Some((blocks.div_ceil(unit), unit, windows_bits))
        };
        assert_eq!(units(40_000, 2, None), Some((8, 5000, 26)));
        assert_eq!(units(40_000, 4, None), Some((16, 2500, 26)));
        assert_eq!(units(40_000, 0, None), Some((4, 10_000, 26)));
        assert_eq!(units(40_000, 5, None), None, "units would be few");
        assert_eq!(units(40_000, 2, Some(159 << 20)), None, "there is not the memory");
        assert_eq!(units(40_000, 2, Some(160 << 20)), Some((8, 5000, 25)), "there is not the room");
        assert_eq!(units(40_000, 2, Some(335 << 20)), Some((8, 5000, 25)), "nor here");
        assert_eq!(units(40_000, 2, Some(336 << 20)), Some((8, 5000, 26)));
        assert_eq!(units(400_000, 2, Some(160 << 20)), Some((8, 50_000, 25)), "more would take more passes");
        assert_eq!(units(400_000, 2, None), Some((40, 10_000, 26)));
        assert_eq!(units(4_000_000, 2, None), Some((104, 38_462, 26)));
        assert_eq!(units(40_000_000, 2, None).map(|(units, ..)| units), Some(1042));
        let uneven = Found { kmers: 40_000 * 14_000, fullest: 30_000, ..Found::default() };
        assert_eq!(summed(40_000, &uneven, params, None, 2), None, "a part of it has most of the rows");
    }
}
