//! How many blocks a unit has: what a worker claims at a time, and what is lost of its work when it dies.

use crate::memory::{self, Found};
use kmer::keys::{self, WINDOWS_BITS};
use kmer::params::Params;
use kmer_worker::engine::BUNDLE_KMERS;
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
/// Sums of a worker's units want so many k-mers for each key there can be, at the least: with fewer it takes less to sort them.
const LEAST_A_KEY: u64 = 1;

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

/// Whether a unit writes a count for each key that it has: not if it sorts them, nor if they are summed.
fn counts_directly(job: &Job) -> bool {
    job.direct && !job.is_summed() && job.params().is_ok_and(|params| !keys::suits(params))
}

/// Results of the scan where units are summed and committed in bundles: one of each worker, one more for each [`BUNDLE_KMERS`], and as many as there
/// are workers for units that come back.
pub fn bundles(kmers: u64, workers: u64) -> u64 {
    2 * workers.max(1) + kmers / BUNDLE_KMERS
}

/// Room for windows, see [`WINDOWS_BITS`], when what a relation has, whose keys are sorted, is better written as sums; `None` when it is not. That takes
/// many k-mers, and memory of each worker's own.
pub fn summed(found: &Found, params: Params, memory: Option<u64>, workers: u16) -> Option<u32> {
    let each = found.kmers / u64::from(workers.max(1));
    if each >> params.key_bits() < LEAST_A_KEY {
        return None;
    }
    // A byte for each key is written for every result.
    let results = |memory: u64, bits| {
        memory.saturating_sub(memory::private(workers, params, Some(bits))) >> params.key_bits()
    };
    let (least_bits, most_bits) = WINDOWS_BITS.into_inner();
    let Some(memory) = memory else { return Some(most_bits) };
    if results(memory, most_bits) >= bundles(found.kmers, workers.into()) {
        return Some(most_bits);
    }
    (results(memory, least_bits) > 0).then_some(least_bits)
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
        let windows = |kmers: u64, workers, memory: Option<u64>| {
            summed(&Found { kmers, ..Found::default() }, params, memory.map(|mb| mb << 20), workers)
        };
        assert_eq!(windows(1 << 25, 2, None), Some(26), "one for each key and worker");
        assert_eq!(windows((1 << 25) - 1, 2, None), None, "too few");
        assert_eq!(windows(1 << 24, 0, None), Some(26));
        assert_eq!(windows(1 << 25, 3, None), None);
        // Two processes take 144 MB with the least room, 208 with the most, and four results 64.
        assert_eq!(windows(1 << 29, 2, Some(159)), None, "there is not the memory");
        assert_eq!(windows(1 << 29, 2, Some(160)), Some(25), "there is not the room");
        assert_eq!(windows(1 << 28, 2, Some(271)), Some(25), "nor here");
        assert_eq!(windows(1 << 28, 2, Some(272)), Some(26));
        assert_eq!(windows(1 << 29, 2, Some(272)), Some(25), "one result more");
        assert_eq!(windows(1 << 29, 2, Some(288)), Some(26));
        assert_eq!(bundles(1 << 40, 64), 128 + 2048);
    }
}
