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
//! | [`KEY_COMMAND`] | what the leader's user typed, for another leader that goes on |
//! | [`KEY_SEAL`] | a digest over all of this that does not change, see [`crate::seal`] |
//! | [`KEY_BUNDLES`] | bundle words, when units are committed several at a time, see [`Job::bundles_units`] |
//! | [`KEY_PARCELS`] | parcel words, when there is a stream, see [`crate::feed`] |
//! | [`KEY_TOAST`] | indexes of the TOAST relations, one behind the other, when there are any |
//! | [`KEY_CARRIED`] | what finished passes of the run came to, for its leader: it has a digest of its own |
//! | [`KEY_TRACE`] | when each task was claimed and done, if that is asked for, see [`crate::trace`] |

use crate::error::WorkError;
use crate::job::{Job, build_id};
use crate::method;
use crate::seal;
use crate::spool::digest;
use crate::trace::Trace;
use kmer::superkmer::Share;
use shm_layout::arena::Arena;
use shm_layout::segment::{Plan, Segment};
use shm_layout::slots::Slots;
use shm_layout::state::{SharedState, Units};
use shm_layout::tasks::TaskWords;
use shm_layout::toc::{Area, TocEstimator};
use shm_layout::words::Task;
use std::path::Path;
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
/// The leader's command line.
pub const KEY_COMMAND: u64 = 0x4b4d_0009;
/// The seal.
pub const KEY_SEAL: u64 = 0x4b4d_000a;
/// Bundle words.
pub const KEY_BUNDLES: u64 = 0x4b4d_000e;
/// Parcel words.
pub const KEY_PARCELS: u64 = 0x4b4d_000b;
/// TOAST indexes.
pub const KEY_TOAST: u64 = 0x4b4d_0008;
/// The trace.
pub const KEY_TRACE: u64 = 0x4b4d_000c;
/// What finished passes came to.
pub const KEY_CARRIED: u64 = 0x4b4d_000d;

/// Bundles besides one for each unit and slot.
const SPARE_BUNDLES: usize = 64;

/// How large the parts of a segment are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Blocks of a unit.
    pub unit_blocks: u64,
    /// How many of the last ones are parted, see [`Units`].
    pub ramp: u64,
    /// Slots.
    pub slots: usize,
    /// Workers that were asked for.
    pub workers: u64,
    /// Events of each slot that are traced; 0: none.
    pub trace: usize,
    /// Bytes of a chunk.
    pub chunk_bytes: usize,
    /// Chunks of the arena.
    pub chunks: usize,
    /// How many of them, the first ones, may be used twice.
    pub twice: usize,
    /// Objects beside the first one over which they are dealt.
    pub beside: usize,
}

impl Sizes {
    /// How so many blocks are parted into units.
    pub const fn units(&self, total_blocks: u64) -> Units {
        Units { total_blocks, unit_blocks: self.unit_blocks, ramp: self.ramp }
    }

    /// Bundles that units may be in: as many as there are of these, and more, since each that dies takes one with it that nobody uses again.
    pub fn bundles(&self, job: &Job) -> usize {
        let units = self.units(job.blocks_to_claim()).count() as usize;
        if job.bundles_units() { units + self.slots + SPARE_BUNDLES } else { 0 }
    }
}

/// What is decided once all units are settled: written by the leader before it opens the drain, read by workers after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOrder {
    /// Keys in more rows than this are kept.
    pub threshold: u64,
    /// Keep every key.
    pub all: bool,
    /// The stripes that are to be drained, fullest first.
    pub order: Vec<u32>,
}

/// What a new segment is to hold beside the job, as bytes; what is empty gets no chunk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// Indexes of the TOAST relations.
    pub toast_index: &'a [u8],
    /// What the leader's user typed.
    pub command: &'a [u8],
    /// What finished passes of the run came to.
    pub carried: &'a [u8],
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
    /// Parcel words; none without a stream.
    pub parcels: TaskWords,
    /// The arena.
    pub arena: Arena,
    /// The job.
    pub job: Job,
    drain: Area,
    toast: Option<Area>,
    /// When each task was claimed and done, if that is asked for.
    pub trace: Option<Trace>,
}

impl DrainOrder {
    const fn estimate(stripes: usize) -> usize {
        32 + stripes * 4
    }

    /// `digest threshold all n` and the n stripes: u64 each, but for the stripes, which are u32.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        bytes.extend(self.threshold.to_le_bytes());
        bytes.extend(u64::from(self.all).to_le_bytes());
        bytes.extend((self.order.len() as u64).to_le_bytes());
        self.order.iter().for_each(|stripe| bytes.extend(stripe.to_le_bytes()));
        let sum = digest(0, 0, &bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The order of `stripes` stripes at most that `bytes` begin with.
    fn from_bytes(bytes: &[u8], stripes: usize) -> Result<Self, WorkError> {
        let wrong = |what: &str| WorkError::Job(format!("the drain's order {what}"));
        let (words, numbers) = bytes.split_at_checked(32).ok_or_else(|| wrong("is cut off"))?;
        let word = |i: usize| u64::from_le_bytes(words[8 * i..8 * i + 8].try_into().expect("8 bytes"));
        let n = usize::try_from(word(3)).ok().filter(|n| *n <= stripes);
        let numbers = n.and_then(|n| numbers.get(..4 * n)).ok_or_else(|| wrong("has too many stripes"))?;
        let (expected, found) = (word(0), digest(0, 0, &bytes[8..32 + numbers.len()]));
        if expected != found {
            return Err(wrong(&format!(
                "has the wrong digest: expected {expected:016x}, found {found:016x}"
            )));
        }
        let order: Vec<u32> = numbers.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        if order.iter().any(|stripe| *stripe as usize >= stripes) {
            return Err(wrong("names a stripe that is none"));
        }
        Ok(Self { threshold: word(1), all: word(2) != 0, order })
    }
}

impl Shared {
    /// Creates the segment of a run, in `dir` or else in /dev/shm, and publishes it. Leader only (I1).
    ///
    /// # Errors
    /// No room, or what the system says.
    pub fn create(dir: Option<&Path>, job: Job, sizes: &Sizes, given: &Given<'_>) -> Result<Self, WorkError> {
        let Given { toast_index, command, carried } = *given;
        let encoded = job.encode()?;
        let parted = sizes.units(job.blocks_to_claim());
        let units = parted.count() as usize;
        let stripes = job.stripes();
        let mut toc = TocEstimator::default();
        toc.estimate(SharedState::estimate())
            .estimate(encoded.len())
            .estimate(Slots::estimate(sizes.slots))
            .estimate(TaskWords::estimate(units))
            .estimate(TaskWords::estimate(stripes))
            .estimate(Arena::estimate(sizes.chunks, sizes.twice))
            .estimate(DrainOrder::estimate(stripes))
            .estimate(command.len())
            .estimate(seal::SEAL_BYTES);
        for bytes in [toast_index, carried].into_iter().filter(|bytes| !bytes.is_empty()) {
            toc.estimate(bytes.len());
        }
        let bundles = sizes.bundles(&job);
        if bundles > 0 {
            toc.estimate(TaskWords::estimate(bundles));
        }
        let parcels = job.stream.map_or(0, |stream| stream.parcels as usize);
        if parcels > 0 {
            toc.estimate(TaskWords::estimate(parcels));
        }
        if sizes.trace > 0 {
            toc.estimate(Trace::estimate(sizes.slots, sizes.trace));
        }
        let (chunk_bytes, chunks) = (sizes.chunk_bytes, sizes.chunks);
        let plan =
            Plan { toc_bytes: toc.total(), chunk_bytes, chunks, beside: sizes.beside, build: build_id() };
        let segment = Arc::new(Segment::create(dir, &plan)?);

        let toc = segment.toc()?;
        let state = toc.allocate(KEY_STATE, SharedState::estimate())?;
        let state = SharedState::create_in(&segment, state, parted, sizes.workers)?;
        let area = toc.allocate(KEY_JOB, encoded.len())?;
        segment.map().write(area.offset, &encoded)?;
        let slots = Slots::attach(&segment, toc.allocate(KEY_SLOTS, Slots::estimate(sizes.slots))?)?;
        let area = toc.allocate(KEY_UNITS, TaskWords::estimate(units))?;
        let mut units = TaskWords::create_in(&segment, area, units)?;
        if bundles > 0 {
            let area = toc.allocate(KEY_BUNDLES, TaskWords::estimate(bundles))?;
            units = units.with_bundles(TaskWords::create_in(&segment, area, bundles)?);
        }
        let area = toc.allocate(KEY_STRIPES, TaskWords::estimate(stripes))?;
        let words = TaskWords::create_in(&segment, area, stripes)?;
        let arena = Arena::attach(&segment, toc.allocate(KEY_ARENA, Arena::estimate(chunks, sizes.twice))?)?;
        let drain = toc.allocate(KEY_DRAIN, DrainOrder::estimate(stripes))?;
        let area = toc.allocate(KEY_COMMAND, command.len())?;
        segment.map().write(area.offset, command)?;
        let mut toast = None;
        if !toast_index.is_empty() {
            let area = toc.allocate(KEY_TOAST, toast_index.len())?;
            segment.map().write(area.offset, toast_index)?;
            toast = Some(area);
        }
        if !carried.is_empty() {
            let area = toc.allocate(KEY_CARRIED, carried.len())?;
            segment.map().write(area.offset, carried)?;
        }
        let mut parcel_words = TaskWords::attach(&segment, Area { offset: 0, len: 0 })?;
        if parcels > 0 {
            let area = toc.allocate(KEY_PARCELS, TaskWords::estimate(parcels))?;
            parcel_words = TaskWords::create_in(&segment, area, parcels)?;
        }
        let mut trace = None;
        if sizes.trace > 0 {
            let area = toc.allocate(KEY_TRACE, Trace::estimate(sizes.slots, sizes.trace))?;
            trace = Trace::attach(&segment, area, slots.len());
        }
        toc.allocate(KEY_SEAL, seal::SEAL_BYTES)?;
        seal::write(&segment)?;
        segment.publish()?;
        Ok(Self {
            state,
            slots,
            units,
            stripes: words,
            parcels: parcel_words,
            arena,
            job,
            drain,
            toast,
            trace,
            segment: Arc::clone(&segment),
        })
    }

    /// Attaches to the segment `name`.
    ///
    /// # Errors
    /// When there is none, it is of another build, or damaged.
    pub fn attach(name: &str) -> Result<Self, WorkError> {
        Self::of(Segment::attach(name, build_id())?)
    }

    /// Attaches to the segment `name` only to look at it.
    ///
    /// # Errors
    /// As [`Shared::attach`].
    pub fn attach_to_read(name: &str) -> Result<Self, WorkError> {
        Self::of(Segment::attach_to_read(name, build_id())?)
    }

    fn of(segment: Arc<Segment>) -> Result<Self, WorkError> {
        seal::check(&segment)?;
        let toc = segment.toc()?;
        let area = toc.lookup(KEY_JOB)?;
        let mut encoded = Vec::new();
        segment.map().read_to_vec(area.offset, area.len, &mut encoded)?;
        let job = Job::decode(&encoded)?;
        job.params()?;
        let slots = Slots::attach(&segment, toc.lookup(KEY_SLOTS)?)?;
        let units = TaskWords::attach(&segment, toc.lookup(KEY_UNITS)?)?;
        let trace = toc.lookup(KEY_TRACE).ok();
        let shared = Self {
            trace: trace.and_then(|area| Trace::attach(&segment, area, slots.len())),
            slots,
            state: SharedState::attach(&segment, toc.lookup(KEY_STATE)?)?,
            units: match toc.lookup(KEY_BUNDLES) {
                Ok(bundles) => units.with_bundles(TaskWords::attach(&segment, bundles)?),
                Err(_) => units,
            },
            stripes: TaskWords::attach(&segment, toc.lookup(KEY_STRIPES)?)?,
            parcels: match job.stream {
                Some(_) => TaskWords::attach(&segment, toc.lookup(KEY_PARCELS)?)?,
                None => TaskWords::attach(&segment, Area { offset: 0, len: 0 })?,
            },
            arena: Arena::attach(&segment, toc.lookup(KEY_ARENA)?)?,
            drain: toc.lookup(KEY_DRAIN)?,
            toast: toc.lookup(KEY_TOAST).ok(),
            job,
            segment: Arc::clone(&segment),
        };
        shared.check()?;
        let objects = segment.arena_place()?.objects() as u64;
        segment.map().expect_writers(shared.state.workers_asked()?.div_ceil(objects));
        Ok(shared)
    }

    /// The numbers in the segment must fit each other before anything is computed from them (I6).
    fn check(&self) -> Result<(), WorkError> {
        let units = self.state.units()?;
        let (blocks, unit_blocks) = (units.total_blocks, units.unit_blocks);
        let (slots, feeders) = (self.slots.len(), usize::from(self.job.stream.is_some()));
        let fits = self.job.stripe_bits <= 16
            && method::suits(&self.job, self.job.params()?)
            && slots > feeders
            && slots <= usize::from(u16::MAX)
            && self.stripes.len() == self.job.stripes()
            && self.units.len() as u64 == units.count()
            && self.job.pass_bits <= self.job.stripe_bits
            && self.job.is_dealt_well()
            && self.job.pass < 1 << self.job.pass_bits
            && (self.job.part_bits == 0 || unit_blocks == 1)
            && self.job.range.is_none_or(|(from, to)| from <= to && to <= self.job.all_blocks())
            && blocks == self.job.blocks_to_claim()
            && unit_blocks <= 1 << 20
            && self.parcels.len() == self.job.stream.map_or(0, |stream| stream.parcels as usize)
            && (self.job.stream.is_none() || unit_blocks == 1)
            && self.drain.len >= DrainOrder::estimate(self.job.stripes());
        if fits { Ok(()) } else { Err(WorkError::Job("its sizes do not fit the segment's".into())) }
    }

    /// The blocks of a unit: first, and how many.
    ///
    /// # Errors
    /// None for a checked segment.
    pub fn unit_blocks(&self, unit: usize) -> Result<(u64, u64), WorkError> {
        if self.job.part_bits > 0 {
            return Ok((self.job.first_block() + (unit as u64 >> self.job.part_bits), 1));
        }
        let blocks = self.state.units()?.blocks(unit as u64);
        Ok((self.job.first_block() + blocks.start, blocks.end - blocks.start))
    }

    /// The parcel that a unit takes, if there is a stream.
    pub fn parcel_of(&self, unit: usize) -> Option<usize> {
        self.job.stream.map(|_| unit >> self.job.part_bits)
    }

    /// True when all units that take the parcel are done or, unless `done` says otherwise, given up.
    ///
    /// # Errors
    /// When a word is damaged.
    pub fn is_parcel_settled(&self, parcel: usize, done: bool) -> Result<bool, WorkError> {
        let bits = self.job.part_bits;
        for unit in parcel << bits..(parcel + 1) << bits {
            let task = self.units.look(unit)?;
            if !task.is_settled() || (done && !matches!(task, Task::Done { .. })) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Slots for workers, a feeder's and the leader's own left out: as many as the run was to have at first.
    ///
    /// # Errors
    /// When there are fewer slots than a run has.
    pub fn worker_slots(&self) -> Result<u16, WorkError> {
        let others = 1 + usize::from(self.job.stream.is_some());
        let workers = self.slots.len().checked_sub(others).and_then(|n| u16::try_from(n).ok());
        workers.ok_or_else(|| WorkError::Job(format!("found {} slots", self.slots.len())))
    }

    /// Slot of the feeder: behind the workers', before the leader's own.
    pub fn feeder_slot(&self) -> Option<u16> {
        self.job.stream.map(|_| (self.slots.len() - 2) as u16)
    }

    /// Of which stripes k-mers are to be written.
    pub fn share(&self) -> Share {
        let Job { pass_bits, pass, .. } = self.job;
        Share { pass_bits, pass }
    }

    /// What the leader's user typed.
    ///
    /// # Errors
    /// When the segment does not have it.
    pub fn command(&self) -> Result<Vec<u8>, WorkError> {
        let area = self.segment.toc()?.lookup(KEY_COMMAND)?;
        let mut bytes = Vec::new();
        self.segment.map().read_to_vec(area.offset, area.len, &mut bytes)?;
        Ok(bytes)
    }

    /// What finished passes of the run came to, if any went before.
    ///
    /// # Errors
    /// None for a checked segment.
    pub fn carried(&self) -> Result<Option<Vec<u8>>, WorkError> {
        let Ok(area) = self.segment.toc()?.lookup(KEY_CARRIED) else { return Ok(None) };
        let mut bytes = Vec::new();
        self.segment.map().read_to_vec(area.offset, area.len, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// A part of the TOAST chunk: the bytes of one index.
    ///
    /// # Errors
    /// [`WorkError::Job`] when the chunk has no such part.
    pub fn toast_index(&self, offset: u64, len: u64) -> Result<Vec<u8>, WorkError> {
        let wrong = || WorkError::Job("a toast index lies outside of its chunk".into());
        let area = self.toast.ok_or_else(wrong)?;
        let (offset, len) = (usize::try_from(offset), usize::try_from(len));
        let (Ok(offset), Ok(len)) = (offset, len) else { return Err(wrong()) };
        if offset.checked_add(len).is_none_or(|end| end > area.len) {
            return Err(wrong());
        }
        let mut bytes = Vec::new();
        self.segment.map().read_to_vec(area.offset + offset, len, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes the leader's decision, before the drain is opened.
    ///
    /// # Errors
    /// None for a checked segment.
    pub fn set_drain_order(&self, order: &DrainOrder) -> Result<(), WorkError> {
        Ok(self.segment.map().write(self.drain.offset, &order.to_bytes())?)
    }

    /// Reads the leader's decision, after the drain was opened.
    ///
    /// # Errors
    /// [`WorkError::Job`] when it is not what was written.
    pub fn drain_order(&self) -> Result<DrainOrder, WorkError> {
        let mut bytes = Vec::new();
        let stripes = self.stripes.len();
        self.segment.map().read_to_vec(self.drain.offset, DrainOrder::estimate(stripes), &mut bytes)?;
        DrainOrder::from_bytes(&bytes, stripes)
    }
}
