//! How far a run is, read out of its segment: what PostgreSQL has `pg_stat_progress_*` views for.
//!
//! Nothing is counted for it: unit words, stripe words and the figures in the slots are there anyway, and workers do not know that somebody looks.
//! So whoever attached may look as often as they like, the leader in its wait as well as another process ([`crate::status`]), at a live run as
//! well as at a dead one. No decision rests on what is seen here.
//!
//! | phase | it is | `blocks_done` | `stripes_done` |
//! |---|---|---|---|
//! | `collecting` | units of blocks are read | grows | unknown |
//! | `draining` | stripes are counted | all | grows |
//! | `writing` | all is counted; the leader writes the result | all | all |
//! | `stopping` | the run failed or was interrupted | | |

pub mod figures;
pub mod line;

use crate::failure::Failure;
use kmer_worker::shared::Shared;
use serde::Serialize;
use shm_layout::slots::Figure;
use shm_layout::state::Phase;
use shm_layout::words::SlotState;

/// A look at a run.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// What all are doing.
    pub phase: &'static str,
    /// Which of the passes over the relation this is, from 1.
    pub pass: u32,
    /// How many there may be.
    pub passes: u32,
    /// Blocks of the relation; 0 while a stream is read whose end is not known.
    pub blocks_total: u64,
    /// Of these, blocks in units that are committed or given up.
    pub blocks_done: u64,
    /// Bytes of all blocks.
    pub bytes_total: u64,
    /// Bytes of those that are done.
    pub bytes_done: u64,
    /// Stripes that are to be drained; not known before all units are settled.
    pub stripes_total: Option<u64>,
    /// Of these, stripes that are published.
    pub stripes_done: Option<u64>,
    /// Rows seen in committed units.
    pub rows: u64,
    /// k-mers in them.
    pub kmers: u64,
    /// Bytes that the segment takes.
    pub memory_bytes: u64,
    /// Workers that were asked for.
    pub workers_asked: u64,
    /// Workers that were started, replacements included.
    pub workers_launched: u64,
    /// Deaths that were recovered from.
    pub recoveries: u64,
    /// The run's first error.
    pub error: Option<String>,
}

/// A look at a worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerLook {
    /// Its slot, or `leader` for the leader's own.
    pub worker: String,
    /// Its process id; 0 before it attached.
    pub pid: u64,
    /// State of its slot.
    pub state: &'static str,
    /// How many workers the slot has had.
    pub generation: u32,
    /// The unit or stripe that it took last.
    pub at: Option<String>,
    /// The block that it took last.
    pub block: Option<u64>,
    /// Units committed.
    pub units: u64,
    /// Stripes published.
    pub stripes: u64,
    /// Blocks read.
    pub blocks: u64,
    /// Rows seen.
    pub rows: u64,
    /// k-mers extracted.
    pub kmers: u64,
    /// Seconds at work on units.
    pub scan_seconds: f64,
    /// Seconds at work on stripes.
    pub drain_seconds: f64,
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Scan => "collecting",
        Phase::Drain => "draining",
        Phase::Finished => "writing",
        Phase::Aborted => "stopping",
    }
}

fn state_name(state: SlotState) -> &'static str {
    match state {
        SlotState::Empty => "empty",
        SlotState::Starting => "starting",
        SlotState::Running => "running",
        SlotState::Fenced => "fenced",
        SlotState::Done => "done",
        SlotState::Dead => "dead",
    }
}

impl Snapshot {
    /// Looks at a run.
    ///
    /// # Errors
    /// When the segment is damaged.
    pub fn take(shared: &Shared) -> Result<Self, Failure> {
        let (state, job) = (&shared.state, &shared.job);
        let phase = state.phase()?;
        // Units that share their blocks are each of them a part of the work.
        let blocks_done = blocks_done(shared)? >> job.part_bits;
        // How many parcels a stream has is not known before its end.
        let blocks_total = if job.stream.is_some() && phase == Phase::Scan { 0 } else { job.total_blocks() };
        let bytes_total = job.total_bytes();
        let (stripes_total, stripes_done) = match phase {
            Phase::Drain | Phase::Finished => stripes(shared)?,
            Phase::Scan | Phase::Aborted => (None, None),
        };
        let sum = |figure| sum(shared, figure);
        Ok(Self {
            phase: phase_name(phase),
            pass: job.pass.saturating_add(1),
            passes: if job.first_look { 1 } else { 1 << job.pass_bits },
            blocks_total,
            blocks_done,
            bytes_total,
            bytes_done: (u128::from(bytes_total) * u128::from(blocks_done.min(blocks_total)))
                .checked_div(blocks_total.into())
                .unwrap_or(0) as u64,
            stripes_total,
            stripes_done,
            rows: sum(Figure::Rows)?,
            kmers: sum(Figure::Kmers)?,
            memory_bytes: shared.segment.resident()?,
            workers_asked: state.workers_asked()?,
            workers_launched: state.workers_launched()?,
            recoveries: state.recoveries()?,
            error: state.error()?.map(|error| error.message),
        })
    }
}

fn blocks_done(shared: &Shared) -> Result<u64, Failure> {
    let (mut done, whole) = (0u64, shared.job.part_bits > 0);
    for unit in 0..shared.units.len() {
        if shared.units.look(unit)?.is_settled() {
            done += if whole { 1 } else { shared.unit_blocks(unit)?.1 };
        }
    }
    Ok(done)
}

/// Stripes in the drain's order, and how many of them are settled.
fn stripes(shared: &Shared) -> Result<(Option<u64>, Option<u64>), Failure> {
    let (order, mut done) = (shared.drain_order()?.order, 0);
    for stripe in &order {
        done += u64::from(shared.stripes.look(*stripe as usize)?.is_settled());
    }
    Ok((Some(order.len() as u64), Some(done)))
}

fn sum(shared: &Shared, figure: Figure) -> Result<u64, Failure> {
    (0..shared.slots.len() as u16)
        .try_fold(0u64, |sum, slot| Ok(sum.saturating_add(shared.slots.get(slot, figure)?)))
}

/// Looks at everybody who was ever at work.
///
/// # Errors
/// When the segment is damaged.
pub fn workers(shared: &Shared) -> Result<Vec<WorkerLook>, Failure> {
    let mut looks = Vec::new();
    for slot in 0..shared.slots.len() as u16 {
        let word = shared.slots.look(slot)?;
        if word.state != SlotState::Empty {
            looks.push(worker(shared, slot, word.state, word.generation)?);
        }
    }
    Ok(looks)
}

fn worker(shared: &Shared, slot: u16, state: SlotState, generation: u32) -> Result<WorkerLook, Failure> {
    let get = |figure| shared.slots.get(slot, figure);
    let leader = usize::from(slot) + 1 == shared.slots.len();
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    Ok(WorkerLook {
        worker: if leader {
            "leader".into()
        } else if Some(slot) == shared.feeder_slot() {
            "feeder".into()
        } else {
            slot.to_string()
        },
        pid: get(Figure::Pid)?,
        state: state_name(state),
        generation,
        at: current(get(Figure::Current)?),
        block: get(Figure::Block)?.checked_sub(1),
        units: get(Figure::Units)?,
        stripes: get(Figure::Stripes)?,
        blocks: get(Figure::Blocks)?,
        rows: get(Figure::Rows)?,
        kmers: get(Figure::Kmers)?,
        scan_seconds: seconds(get(Figure::ScanNanos)?),
        drain_seconds: seconds(get(Figure::DrainNanos)?),
    })
}

/// What the figure says: task number + 1 in the low half, 1 unit 2 stripe in the high half.
fn current(figure: u64) -> Option<String> {
    let task = (figure & u64::from(u32::MAX)).checked_sub(1)?;
    match figure >> 32 {
        1 => Some(format!("unit {task}")),
        2 => Some(format!("stripe {task}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_is_at() {
        assert_eq!(current(0), None);
        assert_eq!(current(1 << 32 | 8).as_deref(), Some("unit 7"));
        assert_eq!(current(2 << 32 | 1).as_deref(), Some("stripe 0"));
        assert_eq!(current(u64::MAX), None);
        assert_eq!(current(1 << 32), None);
    }
}
