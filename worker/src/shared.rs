//! The segment of a run: which structures it holds, under which keys, created by the leader or attached to by a worker.
//!
//! | key | chunk |
//! |---|---|
//! | [`KEY_STATE`] | shared state |
//! | [`KEY_JOB`] | the encoded job |
//! | [`KEY_SLOTS`] | slots |
//! | [`KEY_UNITS`] | unit words |
//! | [`KEY_STRIPES`] | stripe words |
//! | [`KEY_ARENA`] | chunk words and links |
//! | [`KEY_DRAIN`] | what the leader decides when it opens the drain, see [`DrainOrder`] |
//! | [`KEY_TOAST`] | index of the TOAST relation, when there is one |

use crate::error::WorkError;
use crate::job::{Job, build_id};
use shm_layout::arena::Arena;
use shm_layout::segment::{Plan, Segment};
use shm_layout::slots::Slots;
use shm_layout::state::SharedState;
use shm_layout::tasks::TaskWords;
use shm_layout::toc::{Area, TocEstimator};
use std::sync::Arc;

/// Shared state.
pub const KEY_STATE: u64 = 0x4b4d_0001;
/// The job.
pub const KEY_JOB: u64 = 0x4b4d_0002;
/// Slots.
pub const KEY_SLOTS: u64 = 0x4b4d_0003;
/// Unit words.
pub const KEY_UNITS: u64 = 0x4b4d_0004;
/// Stripe words.
pub const KEY_STRIPES: u64 = 0x4b4d_0005;
/// Chunk words and links.
pub const KEY_ARENA: u64 = 0x4b4d_0006;
/// What the leader decides when it opens the drain.
pub const KEY_DRAIN: u64 = 0x4b4d_0007;
/// TOAST index.
pub const KEY_TOAST: u64 = 0x4b4d_0008;

/// How large the parts of a segment are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Blocks of a unit.
    pub unit_blocks: u64,
    /// Slots.
    pub slots: usize,
    /// Workers that were asked for.
    pub workers: u64,
    /// Bytes of a chunk.
    pub chunk_bytes: usize,
    /// Chunks of the arena.
    pub chunks: usize,
}

/// What is decided once all units are settled: written by the leader before it opens the drain, read by workers after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOrder {
    /// Keys in more rows than this are kept.
    pub threshold: u64,
    /// Keep every key.
    pub all: bool,
    /// The stripes, fullest first.
    pub order: Vec<u32>,
}

/// A run's segment and everything in it.
pub struct Shared {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Shared state.
    pub state: SharedState,
    /// Slots.
    pub slots: Slots,
    /// Unit words.
    pub units: TaskWords,
    /// Stripe words.
    pub stripes: TaskWords,
    /// The arena.
    pub arena: Arena,
    /// The job.
    pub job: Job,
    drain: Area,
    toast: Option<Area>,
}

impl DrainOrder {
    const fn estimate(stripes: usize) -> usize {
        16 + stripes * 4
    }
}

impl Shared {
    /// Creates the segment of a run and publishes it. Leader only (I1).
    ///
    /// # Errors
    /// No room, or what the system says.
    pub fn create(job: Job, sizes: &Sizes, toast_index: Option<&[u8]>) -> Result<Self, WorkError> {
        let encoded = job.encode()?;
        let units = job.total_blocks.div_ceil(sizes.unit_blocks) as usize;
        let stripes = job.stripes();
        let mut toc = TocEstimator::default();
        toc.estimate(SharedState::estimate())
            .estimate(encoded.len())
            .estimate(Slots::estimate(sizes.slots))
            .estimate(TaskWords::estimate(units))
            .estimate(TaskWords::estimate(stripes))
            .estimate(Arena::estimate(sizes.chunks))
            .estimate(DrainOrder::estimate(stripes));
        toast_index.map(|bytes| toc.estimate(bytes.len()));
        let (chunk_bytes, chunks) = (sizes.chunk_bytes, sizes.chunks);
        let plan = Plan { toc_bytes: toc.total(), chunk_bytes, chunks, build: build_id() };
        let segment = Arc::new(Segment::create(&plan)?);

        let toc = segment.toc()?;
        let state = toc.allocate(KEY_STATE, SharedState::estimate())?;
        let state =
            SharedState::create_in(&segment, state, job.total_blocks, sizes.unit_blocks, sizes.workers)?;
        let area = toc.allocate(KEY_JOB, encoded.len())?;
        segment.map().write(area.offset, &encoded)?;
        let slots = Slots::attach(&segment, toc.allocate(KEY_SLOTS, Slots::estimate(sizes.slots))?)?;
        let area = toc.allocate(KEY_UNITS, TaskWords::estimate(units))?;
        let units = TaskWords::create_in(&segment, area, units)?;
        let area = toc.allocate(KEY_STRIPES, TaskWords::estimate(stripes))?;
        let words = TaskWords::create_in(&segment, area, stripes)?;
        let arena = Arena::attach(&segment, toc.allocate(KEY_ARENA, Arena::estimate(chunks))?)?;
        let drain = toc.allocate(KEY_DRAIN, DrainOrder::estimate(stripes))?;
        let mut toast = None;
        if let Some(bytes) = toast_index {
            let area = toc.allocate(KEY_TOAST, bytes.len())?;
            segment.map().write(area.offset, bytes)?;
            toast = Some(area);
        }
        segment.publish()?;
        Ok(Self {
            state,
            slots,
            units,
            stripes: words,
            arena,
            job,
            drain,
            toast,
            segment: Arc::clone(&segment),
        })
    }

    /// Attaches to the segment `name`.
    ///
    /// # Errors
    /// When there is none, it is of another build, or damaged.
    pub fn attach(name: &str) -> Result<Self, WorkError> {
        let segment = Segment::attach(name, build_id())?;
        let toc = segment.toc()?;
        let area = toc.lookup(KEY_JOB)?;
        let mut encoded = Vec::new();
        segment.map().read_to_vec(area.offset, area.len, &mut encoded)?;
        let job = Job::decode(&encoded)?;
        job.params()?;
        let shared = Self {
            state: SharedState::attach(&segment, toc.lookup(KEY_STATE)?)?,
            slots: Slots::attach(&segment, toc.lookup(KEY_SLOTS)?)?,
            units: TaskWords::attach(&segment, toc.lookup(KEY_UNITS)?)?,
            stripes: TaskWords::attach(&segment, toc.lookup(KEY_STRIPES)?)?,
            arena: Arena::attach(&segment, toc.lookup(KEY_ARENA)?)?,
            drain: toc.lookup(KEY_DRAIN)?,
            toast: toc.lookup(KEY_TOAST).ok(),
            job,
            segment: Arc::clone(&segment),
        };
        shared.check()?;
        Ok(shared)
    }

    /// The numbers in the segment must fit each other before anything is computed from them (I6).
    fn check(&self) -> Result<(), WorkError> {
        let (blocks, unit_blocks) = (self.state.total_blocks()?, self.state.unit_blocks()?);
        let fits = self.job.stripe_bits <= 16
            && self.stripes.len() == self.job.stripes()
            && self.units.len() as u64 == blocks.div_ceil(unit_blocks)
            && blocks == self.job.total_blocks
            && unit_blocks <= 1 << 20
            && self.drain.len >= DrainOrder::estimate(self.job.stripes());
        if fits { Ok(()) } else { Err(WorkError::Job("its sizes do not fit the segment's".into())) }
    }

    /// The blocks of a unit: first, and how many.
    ///
    /// # Errors
    /// None for a checked segment.
    pub fn unit_blocks(&self, unit: usize) -> Result<(u64, u64), WorkError> {
        let (total, size) = (self.state.total_blocks()?, self.state.unit_blocks()?);
        let first = unit as u64 * size;
        Ok((first, size.min(total.saturating_sub(first))))
    }

    /// The bytes of the TOAST index, if there is one.
    ///
    /// # Errors
    /// None for a checked segment.
    pub fn toast_index(&self) -> Result<Option<Vec<u8>>, WorkError> {
        let Some(area) = self.toast else { return Ok(None) };
        let mut bytes = Vec::new();
        self.segment.map().read_to_vec(area.offset, area.len, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Writes the leader's decision, before the drain is opened.
    ///
    /// # Errors
    /// None for a checked segment.
    pub fn set_drain_order(&self, order: &DrainOrder) -> Result<(), WorkError> {
        let mut bytes = order.threshold.to_le_bytes().to_vec();
        bytes.extend(u64::from(order.all).to_le_bytes());
        order.order.iter().for_each(|stripe| bytes.extend(stripe.to_le_bytes()));
        Ok(self.segment.map().write(self.drain.offset, &bytes)?)
    }

    /// Reads the leader's decision, after the drain was opened.
    ///
    /// # Errors
    /// [`WorkError::Job`] when it names a stripe that is none.
    pub fn drain_order(&self) -> Result<DrainOrder, WorkError> {
        let mut bytes = Vec::new();
        let stripes = self.stripes.len();
        self.segment.map().read_to_vec(self.drain.offset, DrainOrder::estimate(stripes), &mut bytes)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let numbers = bytes[16..].chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("4 bytes")));
        let order: Vec<u32> = numbers.collect();
        if order.iter().any(|stripe| *stripe as usize >= stripes) {
            return Err(WorkError::Job("the drain's order names a stripe that is none".into()));
        }
        Ok(DrainOrder { threshold: word(0), all: word(8) != 0, order })
    }
}
