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
//! 80      8      flags: 1 pinned, 2 resumable            creator
//! 88      8      digest of the machine's boot            creator
//! 4096    ...    table of contents and what it leads to  (reserved before it is touched: I8)
//! arena   ...    chunks                                  (stored with pwrite, read through the mapping)
//! ```
//!
//! Promises: the name is 128 random bits below a fixed prefix, made with O_EXCL and mode 0600 whatever the umask; the segment becomes
//! readable last, by its magic; attaching checks owner, mode, size, magic, version and build, then every offset. Only the leader creates and
//! destroys (I1). Dropping the creator's handle removes the name unless it was pinned; a SIGKILL of the creator leaves it, and
//! [`sweep`] finds and removes it once its owner is proved dead by process id *and* start time (I9).
//!
//! Not promised: anything against a hostile process of the same user, which could trace us as well.

use crate::error::{Error, Result};
use crate::raw::Mapping;
use crate::sync::Ordering;
use crate::toc::{Area, Toc};
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat, umask};
use shared_memory::{ShmemConf, ShmemError};
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

/// Names of segments begin with this, below /dev/shm.
pub const NAME_PREFIX: &str = "kmer.";
/// Where Linux keeps named shared memory.
pub const SHM_DIR: &str = "/dev/shm";
/// Version of everything in a segment. Raised whenever a byte changes its meaning.
pub const LAYOUT_VERSION: u64 = 1;

const MAGIC: u64 = u64::from_le_bytes(*b"KMERSHM\x01");
const TOC_OFFSET: usize = 4096;
const MIN_BYTES: u64 = 8192;

const VERSION: usize = 8;
const BUILD: usize = 16;
const BYTES: usize = 24;
const TOC_BYTES: usize = 32;
const ARENA: usize = 40;
const CHUNK_BYTES: usize = 48;
const CHUNKS: usize = 56;
const CREATOR_PID: usize = 64;
const CREATOR_START: usize = 72;
const FLAGS: usize = 80;
const BOOT: usize = 88;
const FLAG_PINNED: u64 = 1;

/// How large a new segment is to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Bytes of the table of contents' area, from [`crate::toc::TocEstimator::total`].
    pub toc_bytes: usize,
    /// Bytes of a chunk; a multiple of 4096.
    pub chunk_bytes: usize,
    /// Chunks of the arena. They are address space until they are used.
    pub chunks: usize,
    /// Which build makes it; attachers of another build are refused.
    pub build: u64,
}

impl Plan {
    fn arena(&self) -> usize {
        (TOC_OFFSET + self.toc_bytes).div_ceil(4096) * 4096
    }

    /// Bytes of the whole segment.
    pub fn total(&self) -> usize {
        self.arena() + self.chunk_bytes * self.chunks
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
}

/// A mapped segment.
pub struct Segment {
    map: Mapping,
}

fn os(action: &'static str, name: &str, source: impl Into<std::io::Error>) -> Error {
    Error::Os { action, name: name.into(), source: source.into() }
}

fn random_name() -> Result<String> {
    let mut bits = [0u8; 16];
    let read = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bits));
    read.map_err(|e| os("draw a name for", "/dev/urandom", e))?;
    Ok(format!("{NAME_PREFIX}{:032x}", u128::from_ne_bytes(bits)))
}

fn open_by_name(name: &str) -> Result<File> {
    let fd = nix::sys::mman::shm_open(name, OFlag::O_RDWR | OFlag::O_NOFOLLOW, Mode::empty());
    fd.map(File::from).map_err(|e| os("open", name, e))
}

fn shmem_error(action: &'static str, name: &str, e: ShmemError) -> Error {
    let source = match e {
        ShmemError::MapCreateFailed(code)
        | ShmemError::MapOpenFailed(code)
        | ShmemError::UnknownOsError(code) => std::io::Error::from_raw_os_error(code as i32),
        other => std::io::Error::other(other.to_string()),
    };
    os(action, name, source)
}

impl Segment {
    /// Creates a segment after `plan` with a new name. It is not readable for others before [`Segment::publish`].
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the control area does not fit; [`Error::Os`].
    pub fn create(plan: &Plan) -> Result<Self> {
        let (name, shmem) = loop {
            let name = random_name()?;
            // shared_memory asks for 0600; our umask must not take the owner's rights from that.
            let old = umask(Mode::S_IRWXG | Mode::S_IRWXO);
            let made = ShmemConf::new().os_id(&name).size(plan.total()).create();
            umask(old);
            match made {
                Ok(shmem) => break (name, shmem),
                Err(ShmemError::MappingIdExists) => continue,
                Err(e) => return Err(shmem_error("create", &name, e)),
            }
        };
        let file = open_by_name(&name)?;
        let map = Mapping::shared(name, shmem, file)?;
        // The header first, so that a creator that dies from here on can be found out as dead.
        map.reserve(0, TOC_OFFSET)?;
        let segment = Self { map };
        segment.write_header(plan)?;
        segment.map.reserve(TOC_OFFSET, plan.arena() - TOC_OFFSET)?;
        segment.with_toc(plan)
    }

    /// A segment in private memory, for tests and for checkers that know no shared memory.
    ///
    /// # Errors
    /// As [`Segment::create`].
    pub fn create_private(plan: &Plan) -> Result<Self> {
        let segment = Self { map: Mapping::heap(plan.total()) };
        segment.write_header(plan)?;
        segment.with_toc(plan)
    }

    fn write_header(&self, plan: &Plan) -> Result<()> {
        let me = crate::process::Identity::current();
        for (at, value) in [
            (VERSION, LAYOUT_VERSION),
            (BUILD, plan.build),
            (BYTES, self.map.len() as u64),
            (TOC_BYTES, plan.toc_bytes as u64),
            (ARENA, plan.arena() as u64),
            (CHUNK_BYTES, plan.chunk_bytes as u64),
            (CHUNKS, plan.chunks as u64),
            (CREATOR_PID, me.pid as u64),
            (CREATOR_START, me.start_time),
            (FLAGS, 0),
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
        self.map.word(0)?.store(MAGIC, Ordering::Release);
        Ok(())
    }

    /// Attaches to the segment `name`, made by the build `build`.
    ///
    /// # Errors
    /// [`Error::Os`] when there is no such segment; [`Error::Damaged`] naming the first thing that is wrong with it.
    pub fn attach(name: &str, build: u64) -> Result<Arc<Self>> {
        let file = open_by_name(name)?;
        check_object(name, &file)?;
        let shmem = ShmemConf::new().os_id(name).open().map_err(|e| shmem_error("attach to", name, e))?;
        let segment = Self { map: Mapping::shared(name.into(), shmem, file)? };
        segment.check_header(Some(build))?;
        Ok(Arc::new(segment))
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
        let (expected, found) = (expected.to_string(), found.to_string());
        Err(Error::Damaged { name: self.name().into(), what, expected, found })
    }

    fn check_header(&self, build: Option<u64>) -> Result<()> {
        let magic = self.map.word(0)?.load(Ordering::Acquire);
        self.expect("magic", format!("{MAGIC:#x}"), format!("{magic:#x}"))?;
        self.expect("layout version", LAYOUT_VERSION, self.get(VERSION)?)?;
        if let Some(build) = build {
            self.expect("build", format!("{build:016x}"), format!("{:016x}", self.get(BUILD)?))?;
        }
        self.expect("size in bytes", self.map.len() as u64, self.get(BYTES)?)?;
        let toc_bytes = self.get(TOC_BYTES)?;
        let toc_end = (TOC_OFFSET as u64).checked_add(toc_bytes).filter(|end| *end <= self.map.len() as u64);
        let Some(toc_end) = toc_end else {
            let (offset, limit) = (TOC_OFFSET as u64, self.map.len() as u64);
            return Err(Error::OutOfBounds { name: self.name().into(), offset, len: toc_bytes, limit });
        };
        let place = self.arena_place()?;
        let plan = Plan {
            toc_bytes: toc_bytes as usize,
            chunk_bytes: place.chunk_bytes,
            chunks: place.chunks,
            build: 0,
        };
        self.expect("offset of the arena", plan.arena(), place.offset)?;
        let end = place.chunk_bytes.checked_mul(place.chunks).and_then(|b| b.checked_add(place.offset));
        if end.is_none_or(|end| end > self.map.len()) || place.offset < toc_end as usize {
            let (len, limit) = (place.chunks as u64, self.map.len() as u64);
            return Err(Error::OutOfBounds {
                name: self.name().into(),
                offset: place.offset as u64,
                len,
                limit,
            });
        }
        self.toc().map(drop)
    }

    /// The bytes.
    pub fn map(&self) -> &Mapping {
        &self.map
    }

    /// Name of the segment below [`SHM_DIR`].
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
        })
    }

    /// Keeps the segment when this handle goes: it outlives the run (Postgres: `dsm_pin_segment`).
    ///
    /// # Errors
    /// None for a mapped segment.
    pub fn pin(&mut self) -> Result<()> {
        self.map.word(FLAGS)?.fetch_or(FLAG_PINNED, Ordering::Relaxed);
        self.map.set_owner(false);
        Ok(())
    }

    /// Removes the name of a segment, whoever made it. Processes that have it mapped keep their memory.
    ///
    /// # Errors
    /// [`Error::Os`], but not when there is no such name.
    pub fn destroy(name: &str) -> Result<()> {
        match nix::sys::mman::shm_unlink(name) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(e) => Err(os("remove", name, e)),
        }
    }
}

/// Checks the object behind a name before a byte of it is read: a regular file of this user, mode 0600, large enough for a header.
fn check_object(name: &str, file: &File) -> Result<u64> {
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

/// Removes segments of this user whose creator is dead and that were not meant to stay. Returns their names.
///
/// Proof of death: the machine was booted since, or no process has the creator's id, or the one that has it started at another time.
/// An object without a header is a creation that was cut off, and is removed once it is a minute old; anything else is left alone.
///
/// # Errors
/// [`Error::Os`] when the directory cannot be read. A single object that cannot be removed is passed over.
pub fn sweep() -> Result<Vec<String>> {
    let dir = std::fs::read_dir(SHM_DIR).map_err(|e| os("list", SHM_DIR, e))?;
    let names = dir.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut removed = Vec::new();
    for name in names.filter(|name| name.starts_with(NAME_PREFIX)) {
        if is_orphan(&name).unwrap_or(false) && Segment::destroy(&name).is_ok() {
            removed.push(name);
        }
    }
    Ok(removed)
}

/// A creator writes its header microseconds after it made the object.
const HEADLESS_AGE_SECONDS: i64 = 60;

fn is_orphan(name: &str) -> Result<bool> {
    use std::os::unix::fs::FileExt;
    let file = open_by_name(name)?;
    let stat = fstat(&file).map_err(|e| os("look at", name, e))?;
    if stat.st_uid != nix::unistd::geteuid().as_raw() {
        return Ok(false);
    }
    let mut head = [0u8; BOOT + 8];
    let read = file.read_at(&mut head, 0).map_err(|e| os("read", name, e))?;
    let field = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
    if read < head.len() || head.iter().all(|b| *b == 0) {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        return Ok(now as i64 - stat.st_mtime > HEADLESS_AGE_SECONDS);
    }
    let ours = (field(0) == MAGIC || field(0) == 0) && field(VERSION) == LAYOUT_VERSION;
    let owner = crate::process::Identity { pid: field(CREATOR_PID) as u32, start_time: field(CREATOR_START) };
    let dead = field(BOOT) != crate::process::boot_digest() || !owner.is_alive();
    Ok(ours && dead && field(FLAGS) == 0)
}
