//! From what was typed to what will be done: opens the relation, finds the column, decides on units, stripes and memory.

use crate::cli::{AnalysisArgs, MAX_WORKERS, OnError, OnWorkerDeath, ReadMethod, UnhintedArg};
use crate::failure::Failure;
use crate::limits;
use kmer::direct;
use kmer::params::Params;
use kmer_worker::job::Job;
use kmer_worker::shared::Sizes;
use relation::{BLOCK_SIZE, DnaType, RelationFile, Sidecar, ToastIndex, TupleDesc};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes of a chunk of the arena.
const CHUNK_BYTES: usize = 64 << 10;
/// k-mers that a stripe should get: its table then fits a core's second cache, more or less.
const STRIPE_KMERS: u64 = 350_000;
/// Blocks of a unit, when there are enough of them.
const UNIT_BLOCKS: u64 = 128;
/// The same when k-mers are counted directly: a unit then publishes sums, which should be of many rows.
const DIRECT_UNIT_BLOCKS: u64 = 512;
/// Memory of /dev/shm that is left for others, in percent.
const SHM_SPARE: u64 = 2;

/// What the threshold is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThresholdRule {
    /// Share of all rows.
    pub rate: f64,
    /// Rows; 0 is no limit.
    pub nrow: u64,
}

impl ThresholdRule {
    /// k-mers in more rows than this are reported.
    pub fn threshold(&self, total_rows: u64) -> u64 {
        let by_rate = (total_rows as f64 * self.rate).floor() as u64;
        if self.nrow > 0 { by_rate.min(self.nrow) } else { by_rate }
    }
}

/// How workers are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerRule {
    /// How many.
    pub workers: u16,
    /// What to do when one dies.
    pub on_death: OnWorkerDeath,
    /// How often one may be replaced.
    pub max_respawns: u32,
    /// Seconds without progress; 0: for ever.
    pub timeout: u64,
}

/// A run, decided.
#[derive(Debug)]
pub struct Plan {
    /// What workers get.
    pub job: Job,
    /// Sizes of the segment.
    pub sizes: Sizes,
    /// The opened relation.
    pub relation: RelationFile,
    /// The TOAST relation and its index as bytes.
    pub toast: Option<(RelationFile, Vec<u8>)>,
    /// Threshold.
    pub rule: ThresholdRule,
    /// Report every k-mer.
    pub all: bool,
    /// Workers.
    pub workers: WorkerRule,
    /// k and occur_bitlen.
    pub params: Params,
    /// Name of the column.
    pub column: String,
}

/// Decides on a run.
///
/// # Errors
/// Exit code 2 for numbers out of range, 1 for what is wrong with the files.
pub fn plan(args: &AnalysisArgs) -> Result<Plan, Failure> {
    let params = Params::new(args.kmer_size, args.occur_bitlen).map_err(Failure::usage)?;
    let rule = threshold_rule(args)?;
    let workers = worker_rule(args)?;
    let path = args.relation.as_deref().ok_or_else(|| Failure::usage("expected a relation file"))?;
    let relation = RelationFile::open(path)?;
    let sidecar = Sidecar::load(path)?;
    let desc = columns(args, sidecar.as_ref())?;
    let column = find_column(args, sidecar.as_ref(), &desc)?;
    let dna = desc.attributes[column].dna_type();
    let name = desc.attributes[column].name.clone();
    let dna = dna.ok_or_else(|| {
        let found = &desc.attributes[column].type_name;
        Failure::error(format!("column {name:?}: expected type dna2, dna4 or bit varying, found {found}"))
    })?;
    let verify = !args.no_checksums
        && (args.checksums || sidecar.as_ref().is_some_and(|s| s.checksums) || relation.bears_checksums()?);
    let mut job = Job {
        relation: path.as_os_str().as_bytes().to_vec(),
        fingerprint: relation.fingerprint().digest,
        total_blocks: relation.total_blocks().into(),
        columns: desc.to_list(),
        column: column as u64,
        dna4: dna == DnaType::Dna4,
        toast: None,
        k: params.k(),
        occur_bitlen: params.occur_bitlen(),
        direct: params.key_bits() <= direct::MAX_KEY_BITS,
        stripe_bits: 0,
        seed: random_seed(),
        verify_checksums: verify,
        unhinted: match args.unhinted {
            UnhintedArg::Error => 0,
            UnhintedArg::Visible => 1,
            UnhintedArg::Skip => 2,
        },
        skip_damaged: args.on_error == OnError::Skip,
        mapped: args.read_method == ReadMethod::Mmap,
        max_attempts: args.max_attempts,
    };
    let toast = open_toast(args, sidecar.as_ref(), path, &job)?;
    job.toast = toast.as_ref().map(|(file, _)| file.path().as_os_str().as_bytes().to_vec());
    let toast_bytes =
        toast.as_ref().map_or(0, |(file, _)| u64::from(file.total_blocks()) * BLOCK_SIZE as u64);
    job.stripe_bits = stripe_bits(&job, toast_bytes, params);
    let sizes = sizes(&job, toast_bytes, workers.workers, args.memory)?;
    Ok(Plan { job, sizes, relation, toast, rule, all: args.all, workers, params, column: name })
}

fn threshold_rule(args: &AnalysisArgs) -> Result<ThresholdRule, Failure> {
    let rate = args.max_appearance_rate;
    if !(0.0..=1.0).contains(&rate) {
        return Err(Failure::usage(format!("--max-appearance-rate: expected 0 to 1, found {rate}")));
    }
    Ok(ThresholdRule { rate, nrow: args.max_appearance_nrow })
}

fn worker_rule(args: &AnalysisArgs) -> Result<WorkerRule, Failure> {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let asked = args.workers.unwrap_or(processors.min(MAX_WORKERS.into()));
    let workers = u16::try_from(asked).ok().filter(|n| *n <= MAX_WORKERS);
    let workers = workers
        .ok_or_else(|| Failure::usage(format!("--workers: expected 0 to {MAX_WORKERS}, found {asked}")))?;
    let max_respawns = args.max_respawns.unwrap_or_else(|| (4 * u32::from(workers)).max(16));
    Ok(WorkerRule { workers, on_death: args.on_worker_death, max_respawns, timeout: args.worker_timeout })
}

fn columns(args: &AnalysisArgs, sidecar: Option<&Sidecar>) -> Result<TupleDesc, Failure> {
    let list = match (&args.schema, sidecar) {
        (Some(list), _) => list.as_str(),
        (None, Some(sidecar)) => sidecar.columns.as_str(),
        (None, None) => "seq dna2",
    };
    TupleDesc::parse(list)
        .map_err(|e| Failure::from(e).hint("give the columns like --schema 'id int4, note text, seq dna2'"))
}

fn find_column(args: &AnalysisArgs, sidecar: Option<&Sidecar>, desc: &TupleDesc) -> Result<usize, Failure> {
    let typed = args.schema.is_some();
    let from_sidecar = sidecar.filter(|_| !typed).and_then(|s| s.column.as_deref());
    if let Some(name) = args.column.as_deref().or(from_sidecar) {
        return Ok(desc.column(name)?);
    }
    let dna: Vec<usize> =
        (0..desc.attributes.len()).filter(|i| desc.attributes[*i].dna_type().is_some()).collect();
    match dna[..] {
        [only] => Ok(only),
        [] if desc.attributes.len() == 1 => Ok(0),
        _ => {
            let found = if dna.is_empty() { "none".to_owned() } else { format!("{} of them", dna.len()) };
            Err(Failure::error(format!(
                "columns {:?}: expected one DNA column, found {found}",
                desc.to_list()
            ))
            .hint("name the column with --column"))
        }
    }
}

/// Opens the TOAST relation and builds its index; the index goes into the segment, so that it is built once.
fn open_toast(
    args: &AnalysisArgs,
    sidecar: Option<&Sidecar>,
    relation: &Path,
    job: &Job,
) -> Result<Option<(RelationFile, Vec<u8>)>, Failure> {
    let path: Option<PathBuf> = args.toast.clone().or_else(|| sidecar?.toast_path(relation));
    let Some(path) = path else { return Ok(None) };
    let file = RelationFile::open(&path)?;
    let index = ToastIndex::build(&file, &job.read_options())?;
    Ok(Some((file, index.to_bytes())))
}

fn stripe_bits(job: &Job, toast_bytes: u64, params: Params) -> u32 {
    if job.direct {
        return (params.key_bits() - 4).min(6);
    }
    let bases_a_byte = if job.dna4 { 2 } else { 4 };
    let kmers = (job.total_blocks * BLOCK_SIZE as u64 + toast_bytes) * bases_a_byte;
    (kmers / STRIPE_KMERS).max(1).ilog2().clamp(4, 13)
}

fn sizes(job: &Job, toast_bytes: u64, workers: u16, memory: Option<u64>) -> Result<Sizes, Failure> {
    let heap_bytes = job.total_blocks * BLOCK_SIZE as u64;
    let most = if job.direct { DIRECT_UNIT_BLOCKS } else { UNIT_BLOCKS };
    // Blocks that lead to much TOAST are more work, and every worker should have several units.
    let by_toast = most * heap_bytes / (heap_bytes + toast_bytes).max(1);
    let by_workers = job.total_blocks / (u64::from(workers.max(1)) * 8);
    let unit_blocks = most.min(by_toast).min(by_workers).max(1);
    let units = job.total_blocks.div_ceil(unit_blocks);
    // Chunks are address space until they are written, so there are enough for the worst case: every k-mer a record of its own, and
    // every key kept.
    let wanted = (heap_bytes + toast_bytes).saturating_mul(96) / CHUNK_BYTES as u64
        + 8 * units
        + 4 * job.stripes() as u64
        + 64;
    let mut allowed = memory.unwrap_or(u64::MAX);
    if let Some(left) = limits::cgroup_left() {
        allowed = allowed.min(left - left / 16);
    }
    if let Some((_, total)) = limits::shm_space() {
        allowed = allowed.min((total - total / 100 * SHM_SPARE).max(1 << 20) * 64);
    }
    let chunks = wanted.min(allowed / CHUNK_BYTES as u64).min(u64::from(u32::MAX / 2)) as usize;
    if chunks < 2 {
        let text = format!("memory: expected at least {} bytes, found {allowed}", 2 * CHUNK_BYTES);
        return Err(Failure::error(text).hint("allow more memory with --memory, or in the control group"));
    }
    Ok(Sizes {
        unit_blocks,
        slots: usize::from(workers) + 1,
        workers: workers.into(),
        chunk_bytes: CHUNK_BYTES,
        chunks,
    })
}

/// Draws the hashes of this run. The result does not depend on it.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_floored_and_lowered() {
        let rule = |rate, nrow| ThresholdRule { rate, nrow };
        assert_eq!(rule(0.5, 0).threshold(5), 2);
        assert_eq!(rule(0.5, 1).threshold(5), 1);
        assert_eq!(rule(0.5, 9).threshold(5), 2);
        assert_eq!(rule(0.0, 0).threshold(5), 0);
        assert_eq!(rule(1.0, 0).threshold(5), 5);
        assert_eq!(
            rule(0.29, 0).threshold(100),
            28,
            "0.29 * 100 is a little less than 29, as in the extension"
        );
    }
}
