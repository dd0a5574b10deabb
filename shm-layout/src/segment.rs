//! Creates, attaches to, pins, detaches from and destroys the named segment: the counterpart of Postgres's `dsm_segment`.
//!
//! ```text
//! offset  bytes  field (each a 64-bit word)              written by, when
//! 0       8      magic                                   creator, last of all, Release
//! 8       8      layout version                          creator
//! 16      8      build: which build wrote it             creator
//! 24      8      bytes of the segment                    creator
//! 32      8      bytes of the table of contents' area    creator
//! 40      8      offset of the arena                     creator
//! 48      8      bytes of a chunk                        creator
//! 56      8      chunks of the arena                     creator
//! 64      8      process id of the creator               creator; who takes the run over
//! 72      8      start time of that process              as above
//! 80      8      flags: 1 pinned (see `pin`), 2 resumable leader
//! 88      8      digest of the machine's boot            creator
//! 96      8      objects beside this one (see below)     creator
//! 4096    ...    table of contents and what it leads to  (reserved before it is touched: I8)
//! arena   ...    chunks                                  (stored with pwrite, read through the mapping)
//! ```
//!
//! **Objects.** The kernel lets one process at a time write to an object, and frees the pages of one after the other when nobody has it any more. So the arena
//! of a large segment lies in several: chunk *i* of *n* objects is the *i / n*-th of object *i mod n*. The first object is the one described
//! above and has the segment's name; the others hold nothing but chunks, and are called after it, with `.1`, `.2` and so on ([`place::beside`]). Offsets count
//! through all of them. They get their names after the first one and lose them after it, so what has such a name while the first has none is nobody's.
//!
//! Promises: a name that nobody can guess, and mode 0600 ([`crate::place`]); the segment becomes readable last, by its magic; attaching checks owner, mode, size, magic, version and build, then every offset. Only the leader creates and
//! destroys (I1). Dropping the leader's handle removes the name unless it was pinned or kept; a SIGKILL of the leader leaves it, and
//! [`crate::takeover`] tells whether anybody uses it still: the leader and every worker hold locks on it as long as they live.
//!
//! Not promised: anything against a hostile process of the same user, which could trace us as well.

use crate::error::{Error, Result};
use crate::inject::{Point, at};
use crate::place::{self, Access, Made};
use crate::raw::Mapping;
use crate::sync::Ordering;
use crate::toc::{Area, Toc};
use nix::sys::stat::fstat;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Names of segments begin with this, below /dev/shm.
pub const NAME_PREFIX: &str = "kmer.";
/// Where Linux keeps named shared memory.
pub const SHM_DIR: &str = "/dev/shm";
/// Version of everything in a segment. Raised whenever a byte changes its meaning.
pub const LAYOUT_VERSION: u64 = 1;

pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"KMERSHM\x01");
const TOC_OFFSET: usize = 4096;
const MIN_BYTES: u64 = 8192;

pub(crate) const VERSION: usize = 8;
const BUILD: usize = 16;
const BYTES: usize = 24;
const TOC_BYTES: usize = 32;
const ARENA: usize = 40;
const CHUNK_BYTES: usize = 48;
const CHUNKS: usize = 56;
pub(crate) const BESIDE: usize = 96;
pub(crate) const CREATOR_PID: usize = 64;
pub(crate) const CREATOR_START: usize = 72;
pub(crate) const FLAGS: usize = 80;
pub(crate) const BOOT: usize = 88;
/// Most objects beside the first one.
pub const MAX_BESIDE: usize = 7;
/// The segment is to stay when the run is over.
pub(crate) const FLAG_PINNED: u64 = 1;
/// The segment is to stay when its leader dies.
pub(crate) const FLAG_RESUMABLE: u64 = 2;

/// How large a new segment is to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Bytes of the table of contents' area, from [`crate::toc::TocEstimator::total`].
    pub toc_bytes: usize,
    /// Bytes of a chunk; a multiple of 4096.
    pub chunk_bytes: usize,
    /// Chunks of the arena. They are address space until they are used.
    pub chunks: usize,
    /// Objects beside the first one over which they are dealt, at most [`MAX_BESIDE`]; 0 for a segment in a file.
    pub beside: usize,
    /// Which build makes it; attachers of another build are refused.
    pub build: u64,
}

impl Plan {
    fn arena(&self) -> usize {
        (TOC_OFFSET + self.toc_bytes).div_ceil(4096) * 4096
    }

    fn place(&self) -> ArenaPlace {
        let (chunk_bytes, chunks, beside) = (self.chunk_bytes, self.chunks, self.beside);
        ArenaPlace { offset: self.arena(), chunk_bytes, chunks, beside }
    }

    /// Bytes of the whole segment.
    pub fn total(&self) -> usize {
        self.arena() + self.place().object_bytes() * (self.beside + 1)
    }
}

/// The arena's place, as the header states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaPlace {
    /// Offset of the first chunk.
    pub offset: usize,
    /// Bytes of a chunk.
    pub chunk_bytes: usize,
    /// Chunks.
    pub chunks: usize,
    /// Objects beside the first one over which they are dealt.
    pub beside: usize,
}

impl ArenaPlace {
    /// Objects over which chunks are dealt.
    pub const fn objects(&self) -> usize {
        self.beside.saturating_add(1)
    }

    /// Chunks of the object that has the most.
    pub const fn rows(&self) -> usize {
        self.chunks.div_ceil(self.objects())
    }

    /// Bytes of chunks in each object.
    const fn object_bytes(&self) -> usize {
        self.rows() * self.chunk_bytes
    }

    /// Offset of the chunk `i` in the segment.
    #[inline]
    pub const fn offset_of(&self, i: usize) -> usize {
        let (object, row) = (i % self.objects(), i / self.objects());
        self.offset + object * self.object_bytes() + row * self.chunk_bytes
    }
}

/// A mapped segment.
pub struct Segment {
    map: Mapping,
    /// Dropping this handle removes the name.
    removes: AtomicBool,
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.removes.load(Ordering::Relaxed) {
            let _ = Self::destroy(self.name());
            self.map.close_side_by_side();
        }
    }
}

pub(crate) fn os(action: &'static str, name: &str, source: impl Into<std::io::Error>) -> Error {
    Error::Os { action, name: name.into(), source: source.into() }
}

impl Segment {
    /// Creates a segment after `plan` with a new name, in `dir` or else below /dev/shm. It is not readable for others before
    /// [`Segment::publish`].
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the control area does not fit; [`Error::Os`].
    pub fn create(dir: Option<&Path>, plan: &Plan) -> Result<Self> {
        let each = plan.place().object_bytes();
        let Made { map, is_named } = place::create(dir, plan.arena() + each)?;
        let mut segment = Self { map, removes: AtomicBool::new(true) };
        segment.lock_as_leader()?;
        // The header first, so that a creator that dies from here on can be found out as dead.
        segment.map.reserve(0, TOC_OFFSET)?;
        segment.write_header(plan)?;
        at(Point::CreateHeader)?;
        if !is_named {
            place::give_name(&segment.map)?;
        }
        at(Point::CreateNamed)?;
        for i in 1..=plan.beside {
            place::create_beside(&mut segment.map, i, each)?;
            at(Point::CreateBeside)?;
        }
        segment.map.reserve(TOC_OFFSET, plan.arena() - TOC_OFFSET)?;
        segment.with_toc(plan)
    }

    /// A segment in private memory, for tests and for checkers that know no shared memory.
    ///
    /// # Errors
    /// As [`Segment::create`].
    pub fn create_private(plan: &Plan) -> Result<Self> {
        let segment = Self { map: Mapping::heap(plan.total()), removes: AtomicBool::new(false) };
        segment.write_header(plan)?;
        segment.with_toc(plan)
    }

    fn write_header(&self, plan: &Plan) -> Result<()> {
        for (at, value) in [
            (VERSION, LAYOUT_VERSION),
            (BUILD, plan.build),
            (BYTES, plan.total() as u64),
            (TOC_BYTES, plan.toc_bytes as u64),
            (ARENA, plan.arena() as u64),
            (CHUNK_BYTES, plan.chunk_bytes as u64),
            (CHUNKS, plan.chunks as u64),
            (FLAGS, 0),
            (BESIDE, plan.beside as u64),
        ] {
            self.map.word(at)?.store(value, Ordering::Relaxed);
        }
        self.write_identity()
    }

    /// Says in the header that this process leads.
    pub(crate) fn write_identity(&self) -> Result<()> {
        let me = crate::process::Identity::current();
        for (at, value) in [
            (CREATOR_PID, me.pid as u64),
            (CREATOR_START, me.start_time),
            (BOOT, crate::process::boot_digest()),
        ] {
            self.map.word(at)?.store(value, Ordering::Relaxed);
        }
        Ok(())
    }

    fn with_toc(self, plan: &Plan) -> Result<Self> {
        Toc::create_in(&self.map, self.toc_area(plan.toc_bytes))?;
        Ok(self)
    }

    fn toc_area(&self, len: usize) -> Area {
        Area { offset: TOC_OFFSET, len }
    }

    /// Makes the segment readable: the last step of its creation. Release; partner: the Acquire in [`Segment::attach`].
    ///
    /// # Errors
    /// None for a mapped segment.
    pub fn publish(&self) -> Result<()> {
        at(Point::CreateFilled)?;
        self.map.word(0)?.store(MAGIC, Ordering::Release);
        at(Point::CreatePublished)
    }

    /// Says that the segment is to outlive its leader's death, so that another can go on.
    ///
    /// # Errors
    /// None for a mapped segment.
    pub fn mark_resumable(&self) -> Result<()> {
        self.map.word(FLAGS)?.fetch_or(FLAG_RESUMABLE, Ordering::Relaxed);
        Ok(())
    }

    /// True when the segment is to outlive its leader's death.
    ///
    /// # Errors
    /// None for a mapped segment.
    pub fn is_resumable(&self) -> Result<bool> {
        Ok(self.get(FLAGS)? & FLAG_RESUMABLE != 0)
    }

    /// Says whether dropping this handle removes the name: the leader's job.
    pub fn set_removes(&self, removes: bool) {
        self.removes.store(removes, Ordering::Relaxed);
    }

    /// Attaches to the segment `name`, made by the build `build`.
    ///
    /// # Errors
    /// [`Error::Os`] when there is no such segment; [`Error::Damaged`] naming the first thing that is wrong with it.
    pub fn attach(name: &str, build: u64) -> Result<Arc<Self>> {
        Self::checked(place::attach(name)?, build, Access::ReadWrite)
    }

    fn checked(map: Mapping, build: u64, access: Access) -> Result<Arc<Self>> {
        let mut segment = Self { map, removes: AtomicBool::new(false) };
        segment.check_build(build)?;
        let place = segment.check_sizes()?;
        for i in 1..=place.beside {
            place::attach_beside(&mut segment.map, i, place.object_bytes(), access)?;
        }
        segment.toc()?;
        Ok(Arc::new(segment))
    }

    /// The same, for who only looks: the mapping cannot be written to, so words of it are loaded and never stored.
    ///
    /// # Errors
    /// As [`Segment::attach`].
    pub fn attach_to_read(name: &str, build: u64) -> Result<Arc<Self>> {
        Self::checked(place::attach_to_read(name)?, build, Access::Read)
    }

    /// The same, for who wants to know what a segment is and no more: its header and table of contents are a copy, and nothing is mapped that another
    /// process could cut off. Words beyond the first 64 KiB are out of bounds.
    ///
    /// # Errors
    /// As [`Segment::attach`]; also when the object became shorter meanwhile.
    pub fn attach_to_copy(name: &str, build: u64) -> Result<Arc<Self>> {
        Self::checked(place::copy_head(name)?, build, Access::Copy)
    }

    /// Process id of the leader, as the header has it; for people.
    ///
    /// # Errors
    /// None for a mapped segment.
    pub fn leader(&self) -> Result<u32> {
        Ok(self.get(CREATOR_PID)? as u32)
    }

    /// Bytes of memory, or of disk, that the segment takes now.
    ///
    /// # Errors
    /// [`Error::Os`].
    pub fn resident(&self) -> Result<u64> {
        if self.map.file().is_none() {
            return Ok(self.map.len() as u64);
        }
        self.map.files().try_fold(0, |bytes, file| {
            let stat = fstat(file).map_err(|e| os("look at", self.name(), e))?;
            Ok(bytes + stat.st_blocks as u64 * 512)
        })
    }

    fn get(&self, at: usize) -> Result<u64> {
        Ok(self.map.word(at)?.load(Ordering::Relaxed))
    }

    fn expect<T: PartialEq + std::fmt::Display>(
        &self,
        what: &'static str,
        expected: T,
        found: T,
    ) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        Err(self.damaged(what, expected.to_string(), found.to_string()))
    }

    fn check_build(&self, build: u64) -> Result<()> {
        let magic = self.map.word(0)?.load(Ordering::Acquire);
        self.expect("magic", format!("{MAGIC:#x}"), format!("{magic:#x}"))?;
        self.expect("layout version", LAYOUT_VERSION, self.get(VERSION)?)?;
        self.expect("build", format!("{build:016x}"), format!("{:016x}", self.get(BUILD)?))
    }

    /// Looks whether the sizes that the header states fit each other and the first object, which alone is mapped; says where the arena lies then.
    fn check_sizes(&self) -> Result<ArenaPlace> {
        let outside = |offset: usize, len: u64, limit: u64| Error::OutOfBounds {
            name: self.name().into(),
            offset: offset as u64,
            len,
            limit,
        };
        let (toc_bytes, bytes) = (self.get(TOC_BYTES)?, self.get(BYTES)?);
        let toc_end = (TOC_OFFSET as u64).checked_add(toc_bytes).filter(|end| *end <= self.map.len() as u64);
        let toc_end = toc_end.ok_or_else(|| outside(TOC_OFFSET, toc_bytes, self.map.len() as u64))?;
        let place = self.arena_place()?;
        if place.beside > MAX_BESIDE {
            let expected = format!("at most {MAX_BESIDE}");
            return Err(self.damaged("objects beside the first", expected, place.beside.to_string()));
        }
        if place.chunk_bytes == 0 || !place.chunk_bytes.is_multiple_of(4096) {
            let (expected, found) = ("a multiple of 4096".into(), place.chunk_bytes.to_string());
            return Err(self.damaged("bytes of a chunk", expected, found));
        }
        let ArenaPlace { chunk_bytes, chunks, beside, .. } = place;
        let plan = Plan { toc_bytes: toc_bytes as usize, chunk_bytes, chunks, beside, build: 0 };
        self.expect("offset of the arena", plan.arena(), place.offset)?;
        let each = chunk_bytes.checked_mul(place.rows());
        let total = each.and_then(|each| each.checked_mul(place.objects())?.checked_add(place.offset));
        let own = each.and_then(|each| each.checked_add(place.offset));
        let (Some(total), Some(own)) = (total, own) else {
            return Err(outside(place.offset, chunks as u64, bytes));
        };
        if place.offset < toc_end as usize {
            return Err(outside(place.offset, chunks as u64, toc_end));
        }
        self.expect("size in bytes", total as u64, bytes)?;
        self.expect("size of the first object", own, self.map.len())?;
        Ok(place)
    }

    fn damaged(&self, what: &'static str, expected: String, found: String) -> Error {
        Error::Damaged { name: self.name().into(), what, expected, found }
    }

    /// What the header says that does not change any more, for a digest: version, build and sizes.
    ///
    /// # Errors
    /// None for a mapped segment.
    pub fn constants(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.map.read_to_vec(VERSION, CREATOR_PID - VERSION, &mut bytes)?;
        self.map.read_to_vec(BESIDE, 8, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes.
    pub fn map(&self) -> &Mapping {
        &self.map
    }

    /// Name of the segment below [`SHM_DIR`], or the path of its file: see [`crate::place`].
    pub fn name(&self) -> &str {
        self.map.name()
    }

    /// The table of contents.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is.
    pub fn toc(&self) -> Result<Toc<'_>> {
        Toc::attach(&self.map, self.toc_area(self.get(TOC_BYTES)? as usize))
    }

    /// Where the arena lies.
    ///
    /// # Errors
    /// None for a mapped segment; the numbers were checked at attach.
    pub fn arena_place(&self) -> Result<ArenaPlace> {
        Ok(ArenaPlace {
            offset: self.get(ARENA)? as usize,
            chunk_bytes: self.get(CHUNK_BYTES)? as usize,
            chunks: self.get(CHUNKS)? as usize,
            beside: self.get(BESIDE)? as usize,
        })
    }

    /// Gives the memory of all chunks back to the system, for a leader that has taken out what it wanted. Nobody may read them any more.
    ///
    /// # Errors
    /// None for a mapped segment.
    pub fn give_up_arena(&self) -> Result<()> {
        let place = self.arena_place()?;
        for object in 0..place.objects() {
            let bytes = place.object_bytes();
            self.map.give_up(place.offset + object * bytes, bytes);
        }
        Ok(())
    }

    /// Removes the name of a segment, whoever made it. Processes that have it mapped keep their memory.
    ///
    /// # Errors
    /// [`Error::Os`], but not when there is no such name.
    pub fn destroy(name: &str) -> Result<()> {
        place::remove(name)
    }
}

/// Checks the object behind a name before a byte of it is read: a regular file of this user, mode 0600, large enough for a header.
pub(crate) fn check_object(name: &str, file: &File) -> Result<u64> {
    let stat = fstat(file).map_err(|e| os("look at", name, e))?;
    let damaged =
        |what, expected: String, found: String| Error::Damaged { name: name.into(), what, expected, found };
    let me = nix::unistd::geteuid().as_raw();
    if stat.st_uid != me {
        return Err(damaged("owner", format!("user {me}"), format!("user {}", stat.st_uid)));
    }
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG || stat.st_mode & 0o777 != 0o600 {
        return Err(damaged("mode", "a file of mode 600".into(), format!("{:o}", stat.st_mode)));
    }
    if (stat.st_size as u64) < MIN_BYTES {
        return Err(damaged("size in bytes", format!("at least {MIN_BYTES}"), stat.st_size.to_string()));
    }
    Ok(stat.st_size as u64)
}
