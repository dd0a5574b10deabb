//! The segment of a run: header, table of contents, shared state, job, slots, units. Stripes and arena are in [`super::tables`].

use super::page::{Item, Page, Part, size, strip};
use super::tables;
use crate::failure::Failure;
use kmer_worker::job::path_of;
use kmer_worker::shared::{self, Shared};
use kmer_worker::spool::UnitResult;
use shm_layout::segment::Segment;
use shm_layout::slots::Figure;
use shm_layout::tasks::TaskWords;
use shm_layout::words::{SlotState, Task};

/// Cells of a strip at most.
pub(super) const CELLS: usize = 512;
/// Units that are listed one by one.
const LISTED: usize = 8;

/// The page of the run in segment `name`.
pub(super) fn page(name: &str, state: &str) -> Result<Page, Failure> {
    let shared = Shared::attach_to_read(name)?;
    let phase = shared.state.phase()?;
    let lead = format!(
        "{state}; phase {phase:?}; {}; led by process {}",
        size(shared.segment.map().len() as u64),
        shared.segment.leader()?
    );
    let mut parts = vec![header(&shared.segment)?, contents(&shared.segment)?, shared_state(&shared)?];
    parts.extend([job(&shared)?, slots(&shared)?, units(&shared)?]);
    parts.extend([tables::stripes(&shared)?, tables::arena(&shared)?]);
    Ok(Page { name: name.into(), lead, parts })
}

/// The segment as such.
pub(super) fn header(segment: &Segment) -> Result<Part, Failure> {
    let mut part = Part::new("header", "dsm_segment, dsm_control_item", "shm-layout/src/segment.rs");
    let place = segment.arena_place()?;
    part.field("name", segment.name(), "dsm_handle: /PostgreSQL.<number>");
    part.field("bytes of address space", size(segment.map().len() as u64), "dsm_segment.mapped_size");
    part.field("bytes of memory", size(segment.resident()?), "(all of it, by posix_fallocate)");
    part.field("leader", format!("process {}", segment.leader()?), "ParallelLeaderPid");
    let locked = if segment.is_led()? { "yes" } else { "no" };
    part.field("a process leads it", locked, "dsm_control_item.refcnt");
    part.field("resumable", segment.is_resumable()?, "(none: a crash restarts the server)");
    let objects = if place.beside > 0 { format!(", in {} objects", place.objects()) } else { String::new() };
    let arena = format!("{} chunks of {} bytes{objects}", place.chunks, place.chunk_bytes);
    part.field("arena", arena, "dsa_area");
    Ok(part)
}

/// The table of contents.
pub(super) fn contents(segment: &Segment) -> Result<Part, Failure> {
    let mut part = Part::new("table of contents", "shm_toc", "shm-layout/src/toc.rs");
    let mut entries = segment.toc()?.entries()?;
    entries.sort_by_key(|(_, area)| area.offset);
    let rows = entries.iter().map(|(key, area)| {
        let (what, postgres) = key_name(*key);
        let (offset, len) = (area.offset.to_string(), area.len.to_string());
        vec![format!("{key:#x}"), offset, len, what.into(), postgres.into()]
    });
    let head = vec!["key", "offset", "bytes", "structure", "PostgreSQL's key"];
    part.items.push(Item::Table(head, rows.collect()));
    Ok(part)
}

fn key_name(key: u64) -> (&'static str, &'static str) {
    match key {
        shared::KEY_STATE => ("shared state", "plan node id: ParallelBlockTableScanDesc"),
        shared::KEY_JOB => ("job", "PARALLEL_KEY_FIXED, PARALLEL_KEY_GUC, PARALLEL_KEY_TRANSACTION_SNAPSHOT"),
        shared::KEY_SLOTS => ("slots", "PARALLEL_KEY_ERROR_QUEUE"),
        shared::KEY_UNITS => ("unit words", "(none)"),
        shared::KEY_STRIPES => ("stripe words", "plan node id: dshash_table_handle"),
        shared::KEY_ARENA => ("chunk words and links", "PARALLEL_KEY_DSA"),
        shared::KEY_DRAIN => ("order of the drain", "(none)"),
        shared::KEY_BUNDLES => ("bundle words", "(none; transactions in pg_xact)"),
        shared::KEY_PARCELS => ("parcel words", "PARALLEL_KEY_TUPLE_QUEUE"),
        shared::KEY_TOAST => ("TOAST indexes", "(none)"),
        shared::KEY_COMMAND => ("command line", "PARALLEL_KEY_QUERY_TEXT"),
        shared::KEY_TRACE => ("trace: when each task was claimed and done", "(none)"),
        shared::KEY_CARRIED => ("what finished passes came to", "(none)"),
        shared::KEY_SEAL => ("seal: a digest of what does not change", "(none)"),
        0x4b50_0001 => ("head", "(none)"),
        0x4b50_0002 => ("facts", "(none)"),
        0x4b50_0003 => ("buckets", "dshash_table_control.buckets"),
        _ => ("(other)", "(none)"),
    }
}

fn shared_state(shared: &Shared) -> Result<Part, Failure> {
    let postgres = "ParallelBlockTableScanDescData, FixedParallelState";
    let (mut part, state) =
        (Part::new("shared state", postgres, "shm-layout/src/state/mod.rs"), &shared.state);
    let holder = match state.mutex_holder()? {
        0 => "free".into(),
        thread => format!("held by thread {thread}"),
    };
    part.field("mutex", holder, "FixedParallelState.mutex");
    part.field("next_block", state.next_block()?, "phs_nallocated");
    part.field("total_blocks", state.total_blocks()?, "phs_nblocks");
    part.field("blocks of a unit", state.units()?.unit_blocks, "phsw_chunk_size");
    part.field("next_stripe", state.stripes_handed_out()?, "ParallelHashJoinState.distributor");
    part.field("phase", format!("{:?}", state.phase()?), "Barrier.phase");
    part.field("all_processed", state.all_processed()?, "(phs_nallocated >= phs_nblocks)");
    part.field("worker_error_occurred", state.error_occurred()?, "ParallelMessagePending");
    let error = state.error()?.map_or("(none)".into(), |e| format!("worker {}: {}", e.slot, e.message));
    part.field("error_message", error, "ErrorResponse in an error queue (shm_mq)");
    part.field("workers asked for", state.workers_asked()?, "ParallelContext.nworkers");
    part.field("workers launched", state.workers_launched()?, "ParallelContext.nworkers_launched");
    part.field("recoveries", state.recoveries()?, "(none: HandleChildCrash restarts all)");
    Ok(part)
}

fn job(shared: &Shared) -> Result<Part, Failure> {
    let (job, postgres) = (&shared.job, "what InitializeParallelDSM serialises");
    let mut part = Part::new("job", postgres, "worker/src/job.rs");
    let first = job.leaves.first().map_or("(none)".into(), |leaf| path_of(&leaf.path).display().to_string());
    part.field("relation", format!("{first:?}"), "phs_relid, phs_locator");
    part.field("partitions", job.leaves.len(), "ParallelAppendState");
    part.field("k, occur_bitlen", format!("{}, {}", job.k, job.occur_bitlen), "(arguments of the query)");
    part.field("counted directly", job.direct, "(none)");
    part.field("stripes", job.stripes(), "DSHASH_NUM_PARTITIONS");
    let passes = if job.first_look { 1 } else { 1u32 << job.pass_bits };
    part.field("pass", format!("{} of {passes}", job.pass + 1), "ParallelHashJoinState.nbatch");
    if shared.state.all_processed()? {
        let order = shared.drain_order()?;
        let kept =
            if order.all { "every key".into() } else { format!("in more than {} rows", order.threshold) };
        part.field("kept", kept, "HAVING");
    }
    Ok(part)
}

fn slots(shared: &Shared) -> Result<Part, Failure> {
    let postgres = "ParallelWorkerInfo, BackgroundWorkerSlot";
    let (mut part, slots) = (Part::new("slots", postgres, "shm-layout/src/slots.rs"), &shared.slots);
    let mut rows = Vec::new();
    for number in 0..slots.len() as u16 {
        let slot = slots.look(number)?;
        if slot.state == SlotState::Empty && slot.generation == 0 {
            continue;
        }
        let get = |figure| slots.get(number, figure);
        let seconds = |figure| Ok::<_, Failure>(format!("{:.3}", get(figure)? as f64 / 1e9));
        let current = get(Figure::Current)?;
        let task = (current & 0xffff_ffff).wrapping_sub(1);
        let at = match current >> 32 {
            _ if slot.state != SlotState::Running => "-".into(),
            1 => format!("unit {task}"),
            2 => format!("stripe {task}"),
            _ => "-".into(),
        };
        let mut row = vec![number.to_string(), slot.generation.to_string(), format!("{:?}", slot.state)];
        for figure in [Figure::Units, Figure::Stripes, Figure::Blocks, Figure::Rows, Figure::Kmers] {
            row.push(get(figure)?.to_string());
        }
        row.extend([seconds(Figure::ScanNanos)?, seconds(Figure::DrainNanos)?, at]);
        row.push(slots.last_words(number)?.unwrap_or_else(|| "-".into()).replace('\n', " "));
        rows.push(row);
    }
    let head = vec![
        "slot",
        "generation",
        "state",
        "units",
        "stripes",
        "blocks",
        "rows",
        "k-mers",
        "scan s",
        "drain s",
        "at",
        "last words",
    ];
    part.items.push(Item::Table(head, rows));
    part.items.push(Item::Note(format!(
        "{} slots; slot and generation = ParallelWorkerNumber and BackgroundWorkerSlot.generation",
        slots.len()
    )));
    Ok(part)
}

/// Letters of task words.
pub(super) fn letters(tasks: &TaskWords) -> Result<Vec<u8>, Failure> {
    let letter = |task: usize| {
        Ok(match tasks.look(task)? {
            Task::Free { .. } => b'.',
            Task::Claimed { .. } => b'+',
            Task::Done { .. } | Task::Bundled { .. } => b'#',
            Task::Poison { .. } => b'!',
        })
    };
    (0..tasks.len()).map(letter).collect()
}

/// Adds how many tasks are in which state, and where.
pub(super) fn tasks(part: &mut Part, letters: &[u8]) {
    let count = |letter: u8| letters.iter().filter(|l| **l == letter).count();
    part.field("words", letters.len(), "(none: next_block is all there is)");
    part.field("free, claimed", format!("{}, {}", count(b'.'), count(b'+')), "(none)");
    part.field("done, given up", format!("{}, {}", count(b'#'), count(b'!')), "(none)");
    let legend = "each cell one word or several: . free  + claimed  # done  ! given up";
    part.items.push(Item::Strip(strip(letters, CELLS, b"!+.#"), legend));
}

fn units(shared: &Shared) -> Result<Part, Failure> {
    let postgres = "(none: a block is whose who drew it); spools: SharedTuplestore";
    let mut part = Part::new("units and spools", postgres, "shm-layout/src/tasks.rs, worker/src/spool.rs");
    let letters = letters(&shared.units)?;
    tasks(&mut part, &letters);
    let (mut rows, mut bytes, mut chunks, mut kmers) = (Vec::new(), 0u64, 0, 0u64);
    let results = shared.units.results()?;
    let unlisted = results.len().saturating_sub(LISTED);
    for (unit, head) in results {
        let result = UnitResult::open(&shared.arena, head, shared.job.stripes())?;
        let chain = result.chain();
        (bytes, chunks) = (bytes + chain.len(), chunks + chain.chunks().len());
        kmers = kmers.saturating_add(result.summary.delivered);
        if rows.len() < LISTED {
            let (unit, blocks) = if unit < shared.units.len() {
                let (first, count) = shared.unit_blocks(unit)?;
                (unit.to_string(), format!("{first}..{}", first + count))
            } else {
                (format!("bundle {}", unit - shared.units.len()), format!("{} in all", result.summary.blocks))
            };
            let numbers = [result.summary.rows, result.summary.kmers, result.summary.delivered, chain.len()];
            let mut row = vec![unit, blocks];
            row.extend(numbers.map(|n| n.to_string()));
            row.extend([chain.chunks().len().to_string(), result.batches().to_string()]);
            rows.push(row);
        }
    }
    part.field("bytes of spools", size(bytes), "SharedTuplestoreParticipant.npages");
    part.field("chunks of spools", chunks, "(files in base/pgsql_tmp)");
    part.field("records' k-mers", kmers, "SharedTuplestoreChunk.ntuples");
    let head = vec!["unit", "blocks", "rows", "k-mers", "in records", "bytes", "chunks", "batches"];
    part.items.push(Item::Table(head, rows));
    if unlisted > 0 {
        part.items.push(Item::Note(format!("... and {unlisted} more")));
    }
    Ok(part)
}
