//! How many blocks a unit has: what a worker claims at a time, and what is lost of its work when it dies.

use crate::memory::{self, Found};
use kmer::params::Params;
use kmer_worker::job::Job;
use relation::BLOCK_SIZE;
use shm_layout::state::PARTS;

/// Blocks of a unit, when there are enough of them.
const UNIT_BLOCKS: u64 = 512;
/// The same of text, which has a base in a byte at the most.
const TEXT_UNIT_BLOCKS: u64 = 2048;
/// Units that every worker should have at least.
const LEAST_EACH: u64 = 8;
/// The same where units are written as sums, which are the less the larger units are.
const LEAST_SUMMED: u64 = 4;
/// More units are not needed, so where units are sums the segment does not grow with the input any more.
const MOST_SUMMED: u64 = 32;
/// A unit of sums has so many k-mers for each key there can be: a quarter of what they would take as records.
const KMERS_A_KEY: u64 = 2;
/// But no more than so many times as many, lest too much is lost with a worker.
const MOST_TIMES: u64 = 16;
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
    // Blocks that lead to much TOAST, or are whole files, are more work, and every worker should have several units.
    let whole = job.total_blocks() * BLOCK_SIZE as u64;
    let by_toast =
        (u128::from(most) * u128::from(whole) / u128::from(heap_bytes + toast_bytes).max(1)) as u64;
    let by_workers = job.total_blocks() / (u64::from(workers.max(1)) * LEAST_EACH);
    most.min(by_toast).min(by_workers)
}

/// Blocks of a unit when all units of a relation of so many `blocks`, whose keys are sorted, are better written as their sums; `None` when they are not.
/// That takes large units, and memory of each worker's own. Few units are work for all only where one has as much in it as another.
pub fn summed(blocks: u64, found: &Found, params: Params, memory: Option<u64>, workers: u16) -> Option<u64> {
    let private = memory::private(workers, Some(params));
    let workers = u64::from(workers.max(1));
    let small = found.kmers / (KMERS_A_KEY << params.key_bits());
    let is_uneven = found.fullest.saturating_mul(blocks) > found.kmers.saturating_mul(MOST_UNEVEN);
    if memory.is_some_and(|memory| memory < private + (1 << params.key_bits()))
        || small < LEAST_SUMMED * workers
        || blocks < small
        || is_uneven
    {
        return None;
    }
    let mut units = small.min(MOST_SUMMED * workers).max(small / MOST_TIMES);
    if let Some(memory) = memory {
        // A byte for each key is written for every unit: fewer of them need fewer passes.
        units = units.min((memory - private) >> params.key_bits()).max(LEAST_SUMMED * workers);
    }
    // As many for one worker as for the other.
    Some(blocks.div_ceil(units / workers * workers))
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
            let unit = summed(blocks, &found, params, memory, workers)?;
            Some((blocks.div_ceil(unit), unit))
        };
        assert_eq!(units(40_000, 2, None), Some((16, 2500)));
        assert_eq!(units(40_000, 4, None), Some((16, 2500)));
        assert_eq!(units(40_000, 0, None), Some((16, 2500)));
        assert_eq!(units(40_000, 5, None), None, "units would be few");
        assert_eq!(units(40_000, 2, Some(159 << 20)), None, "there is not the memory");
        assert_eq!(units(40_000, 2, Some(160 << 20)), Some((8, 5000)), "more of them would take more passes");
        assert_eq!(units(40_000, 2, Some(1 << 30)), Some((16, 2500)));
        assert_eq!(units(400_000, 2, None), Some((64, 6250)));
        assert_eq!(units(40_000_000, 2, None).map(|(units, _)| units), Some(1042));
        let uneven = Found { kmers: 40_000 * 14_000, fullest: 30_000, ..Found::default() };
        assert_eq!(summed(40_000, &uneven, params, None, 2), None, "a part of it has most of the rows");
    }
}
