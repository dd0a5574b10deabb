//! From what was typed to what will be done: decides on units, stripes and memory.

use crate::batch;
use crate::cli::{AnalysisArgs, Count, MAX_WORKERS, OnError, OnWorkerDeath, ReadMethod, UnhintedArg};
use crate::combinations;
use crate::debug::DebugArgs;
use crate::failure::Failure;
use crate::limits;
use crate::memory::{self, Found, Need};
use crate::partial::meta::modified;
use crate::pgdata;
use crate::room::{self, Room};
use crate::select::Selection;
use crate::sequences;
use crate::sizes::{key_stripe_bits, objects, part_bits, sizes, stretch, stripe_bits};
use crate::source::{self, Source};
use crate::threshold::ThresholdRule;
use crate::units;
use kmer::params::Params;
use kmer::{direct, keys};
use kmer_worker::job::Job;
use kmer_worker::shared::Sizes;
use kmer_worker::trace;
use relation::{DnaType, ReadOptions, Unhinted};
use std::time::Duration;

/// A record of a stream may take this part of the memory: its feeder, the arena and the worker that counts it have a copy each.
const LONGEST_SHARE: u64 = 4;
/// Bytes of bases after which a unit stores a batch.
const BATCH_BYTES: u64 = 4 << 20;

/// How workers are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerRule {
    /// How many.
    pub workers: u16,
    /// What to do when one dies.
    pub on_death: OnWorkerDeath,
    /// How often one may be replaced.
    pub max_respawns: u32,
    /// Time without progress; 0: for ever.
    pub timeout: Duration,
}

/// A run, decided.
#[derive(Debug)]
pub struct Plan {
    /// What workers get.
    pub job: Job,
    /// Sizes of the segment.
    pub sizes: Sizes,
    /// The relations; their leaves are in the job.
    pub source: Source,
    /// Threshold.
    pub rule: ThresholdRule,
    /// The threshold is not applied.
    pub all: bool,
    /// Further conditions, and the order.
    pub select: Selection,
    /// A saved analysis may be replaced.
    pub replace: bool,
    /// Write the header only.
    pub count_only: bool,
    /// The result is kept in shared memory.
    pub pins: bool,
    /// A page about the run is written.
    pub page: bool,
    /// The tables themselves are written.
    pub dense: bool,
    /// Bytes that the run may use, if that was said.
    pub memory: Option<u64>,
    /// Where the segment will lie.
    pub room: Room,
    /// What the relation has in it, more or less.
    pub found: Found,
    /// What the segment needs, more or less.
    pub need: Need,
    /// What the user should know before it begins.
    pub note: Option<String>,
    /// Workers.
    pub workers: WorkerRule,
    /// k and occur_bitlen.
    pub params: Params,
    /// The segment stays until the result is whole, for another leader to go on with.
    pub resumable: bool,
    /// Units that an earlier pass gave up.
    pub left_out: Vec<usize>,
    /// What was typed, for that leader: see [`crate::resume`].
    pub command: Vec<u8>,
    /// When each leaf was last written to, see [`crate::partial::meta::modified`].
    pub modified: Vec<Option<i64>>,
    /// Options for tests.
    pub debug: DebugArgs,
}

impl Plan {
    /// Whether the k-mers are wanted even if none is listed.
    pub fn needs_entries(&self) -> bool {
        self.pins || self.select.needs_entries()
    }

    /// How the work is laid out, in a line.
    pub fn describe(&self) -> String {
        let (blocks, sizes) = (self.job.total_blocks(), &self.sizes);
        let how = match (self.job.is_summed(), self.job.direct) {
            (true, _) => "summed by each worker",
            (_, true) => "counted directly",
            _ => "as super-k-mers",
        };
        format!(
            "{blocks} blocks in units of {}{}, {} stripes, k-mers {how}, at most {} chunks of {} KiB{}, vector instructions: {}",
            sizes.unit_blocks,
            if sizes.ramp > 0 { ", smaller towards the end" } else { "" },
            self.job.stripes(),
            sizes.chunks,
            sizes.chunk_bytes >> 10,
            if sizes.beside > 0 { format!(" in {} objects", sizes.beside + 1) } else { String::new() },
            kmer::vector_level()
        )
    }

    /// OID of the table, where a database told it.
    pub fn table_oid(&self) -> Option<u32> {
        self.source.table.as_ref().map(|table| table.oid)
    }

    /// k-mers in more rows than this are reported, if they pass the other conditions.
    pub fn threshold(&self, total_rows: u64) -> u64 {
        let by_rule = if self.all { 0 } else { self.rule.threshold(total_rows) };
        self.select.threshold(by_rule)
    }

    /// Whether the drain must keep every k-mer.
    pub fn keeps_all(&self, threshold: u64) -> bool {
        threshold == 0 || self.select.histogram
    }
}

/// The source of files that nobody else uses: those of a data directory, or one that was named.
fn resting(args: &AnalysisArgs, options: &ReadOptions, workers: u16) -> Result<Source, Failure> {
    match (&args.pgdata.pgdata, &args.database.connect.dbname, &args.database.table) {
        (Some(pgdata), Some(dbname), Some(table)) => pgdata::open(pgdata, dbname, table, args, options),
        _ if sequences::are_sequences(&args.relations) => sequences::from_files(args, workers),
        _ => source::from_file(args, options),
    }
}

/// What to do with rows whose state is not known.
pub fn unhinted(args: &AnalysisArgs) -> Unhinted {
    match args.unhinted {
        UnhintedArg::Error => Unhinted::Error,
        UnhintedArg::Visible => Unhinted::Visible,
        UnhintedArg::Skip => Unhinted::Skip,
    }
}

/// Decides on a run over the source that was found, or else over the relation file that was named. A run that is `resumed` has its segment already.
///
/// # Errors
/// Exit code 2 for numbers out of range, 1 for what is wrong with the files.
pub fn plan(args: &AnalysisArgs, given: Option<Source>, resumed: bool) -> Result<Plan, Failure> {
    let params = Params::new(args.kmer_size, args.occur_bitlen).map_err(Failure::usage)?;
    let params = params.with_canonical(args.canonical);
    let occurrences = args.count == Count::Occurrences;
    let rule = ThresholdRule::typed(args.max_appearance_rate, args.max_appearance_nrow, &args.select);
    let mut select = Selection::new(&args.select)?;
    let typed = args.max_appearance_rate.is_some() || args.max_appearance_nrow.is_some();
    let all = args.all || args.partial.partial.is_some() || occurrences || (select.narrows() && !typed);
    let workers = worker_rule(args)?;
    let unhinted = unhinted(args);
    let mut source = match given {
        Some(source) => source,
        None => resting(args, &ReadOptions { verify_checksums: false, unhinted }, workers.workers)?,
    };
    let mut job = Job {
        leaves: std::mem::take(&mut source.leaves.leaves),
        segment_blocks: source.leaves.segment_blocks,
        range: args.partial.blocks.map(|range| (range.from, range.to)),
        transactions: source.transactions.clone(),
        lock_lsn: source.leaves.lock_lsn(),
        dna4: source.dna == DnaType::Dna4,
        k: params.k(),
        occur_bitlen: params.occur_bitlen(),
        stream: source.stream,
        canonical: args.canonical,
        occurrences,
        row_per_file: args.row_per_file,
        direct: params.key_bits() <= direct::MAX_KEY_BITS,
        windows_bits: None,
        stripe_bits: 0,
        part_bits: 0,
        stretch: 0,
        pass_bits: 0,
        pass: 0,
        first_look: false,
        seed: random_seed(),
        verify_checksums: source.verify_checksums,
        unhinted: Job::unhinted_number(unhinted),
        skip_damaged: args.on_error == OnError::Skip,
        mapped: args.read_method == ReadMethod::Mmap,
        max_attempts: args.max_attempts,
        batch_bytes: args.debug.batch_bytes.unwrap_or(BATCH_BYTES),
    };
    args.partial.check(&job)?;
    let page = args.page.report.is_some();
    combinations::check_dense(args, &select, all)?;
    // The spectrum is of all k-mers.
    select.histogram |= page;
    let toast_bytes = source.leaves.toast_bytes;
    let found = memory::sample(&job, toast_bytes);
    let bases = found.bases;
    let mut room = Room::look(args.room.segment_dir.as_deref())?;
    if resumed {
        room.free = None;
    }
    job.stripe_bits = args.debug.stripe_bits.unwrap_or_else(|| stripe_bits(&job, bases, params));
    // A stripe has one key at least.
    job.stripe_bits = job.stripe_bits.min(if job.direct { params.key_bits() } else { u32::MAX });
    job.part_bits = args
        .debug
        .part_bits
        .unwrap_or_else(|| part_bits(&job, toast_bytes, source.long_rows, workers.workers));
    job.part_bits = if job.direct { 0 } else { job.part_bits };
    job.stretch = args.debug.stretch.unwrap_or_else(|| stretch(&job)).next_multiple_of(4);
    let all_kept = all || args.dense.is_some() || args.pin.pin.is_some() || select.histogram;
    if all_kept && job.part_bits == 0 && keys::suits(params) {
        (job.direct, job.stripe_bits) = (true, key_stripe_bits(params, args.debug.stripe_bits));
    }
    let batch = args
        .batch_size
        .filter(|_| job.stream.is_none())
        .map(|rows| batch::blocks_of(&job, rows.into()))
        .transpose()?;
    let asked =
        if job.part_bits > 0 || job.stream.is_some() { Some(1) } else { args.debug.unit_blocks.or(batch) };
    let by_keys = job.direct && keys::can_be_summed(params);
    if by_keys && args.debug.unit_blocks.is_none() && job.stream.is_none() && job.part_bits == 0 {
        // Who takes more than a control group has is killed, so of that less is relied on.
        let memory =
            [args.memory, limits::cgroup_left().map(|left| left / 4 * 3)].into_iter().flatten().min();
        job.windows_bits = units::summed(&found, params, memory, workers.workers);
    }
    if by_keys && args.debug.summed {
        job.windows_bits = job.windows_bits.or(Some(*keys::WINDOWS_BITS.start()));
    }
    if job.is_summed() {
        job.stripe_bits = job.stripe_bits.max(keys::least_stripe_bits(params));
    }
    let private = memory::private(workers.workers, params, job.windows_bits);
    // What a resumed run has it has: how much memory is left beside it is no matter.
    let allowed = if resumed { u64::MAX } else { room.allowed(args.memory, private, job.is_summed()) };
    if let (Some(stream), Some(memory)) = (&mut job.stream, args.memory) {
        stream.longest = room::of_memory(memory, private) / LONGEST_SHARE;
    }
    let mut sizes = sizes(&job, toast_bytes, workers.workers, allowed, asked, &args.debug)?;
    if !all_kept {
        sizes.twice = 0;
    }
    if page {
        sizes.trace =
            (sizes.units(job.blocks_to_claim()).count() as usize + job.stripes()).min(trace::MAX_EVENTS);
    }
    let need = Need::of(&job, &found, params, &sizes, source.leaves.toast_index.len());
    let objects = args.debug.objects.map_or_else(|| objects(&need, workers.workers), usize::from);
    sizes.beside = if room.dir.is_none() { objects - 1 } else { 0 };
    job.pass_bits = match args.debug.pass_bits {
        Some(_) if job.direct => 0,
        Some(bits) => bits.min(job.stripe_bits),
        None if resumed => 0,
        // There is one pass over it, and nobody knows how much it is.
        None if job.reads_stdin() => 0,
        None => memory::pass_bits(&job, &need, all_kept, &sizes, &room)?,
    };
    let crowded = need.records + need.results > room.for_records(&need);
    if job.pass_bits > 0 && job.reads_stdin() {
        let text = format!("expected one pass over standard input, found {} passes", 1 << job.pass_bits);
        return Err(Failure::error(text).hint("count a file: it can be read again"));
    }
    if job.pass_bits > 0 && args.dense.is_some() && args.resumable {
        let text =
            format!("--dense with --resumable: expected a run of one pass, found {}", 1 << job.pass_bits);
        let hint = if crowded {
            room.way_out()
        } else {
            "allow more memory with --memory, or do without --resumable"
        };
        return Err(Failure::error(text).hint(hint));
    }
    let note = (crowded && job.pass_bits > 0).then(|| room.note(&need, 1 << job.pass_bits));
    let note = note.or_else(|| memory::note(args.memory?, workers.workers, private));
    let modified = job.leaves.iter().map(modified).collect();
    Ok(Plan {
        job,
        sizes,
        source,
        rule,
        all,
        select,
        replace: args.database.replace,
        count_only: args.count_only,
        pins: args.pin.pin.is_some(),
        page,
        dense: args.dense.is_some(),
        memory: args.memory,
        room,
        found,
        need,
        note,
        workers,
        params,
        resumable: args.resumable,
        left_out: Vec::new(),
        command: crate::resume::command()?,
        modified,
        debug: args.debug.clone(),
    })
}

fn worker_rule(args: &AnalysisArgs) -> Result<WorkerRule, Failure> {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let asked = args.workers.unwrap_or(processors.min(MAX_WORKERS.into()));
    let workers = u16::try_from(asked).ok().filter(|n| *n <= MAX_WORKERS);
    let workers = workers
        .ok_or_else(|| Failure::usage(format!("--workers: expected 0 to {MAX_WORKERS}, found {asked}")))?;
    let max_respawns = args.max_respawns.unwrap_or_else(|| (4 * u32::from(workers)).max(16));
    Ok(WorkerRule { workers, on_death: args.on_worker_death, max_respawns, timeout: args.worker_timeout.0 })
}

/// Draws the hashes of this run. The result does not depend on it.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
