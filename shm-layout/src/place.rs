//! Where segments lie, and how they are opened: below /dev/shm by a name, or as a file in a directory by its path.
//!
//! | the segment's name | it is | Postgres (`dynamic_shared_memory_type`) |
//! |---|---|---|
//! | `kmer.0123...` | an object of `shm_open`, in memory | `posix` |
//! | `/some/dir/kmer.0123...` | a file in that directory, mapped | `mmap` |
//!
//! Everything else is the same for both: the name says which it is, so whoever has it (a worker, another leader) needs nothing more. The kernel may
//! write the pages of a file to its disk at any time, so a run with one is slower; what it needs is disk and not memory.
//!
//! Promises: 128 random bits in every name, never one that is there already, mode 0600 whatever the umask; symbolic links are not followed at the last
//! step; an object is made without a name (O_TMPFILE) and gets it when its header is whole, but for file systems that know no such files, where
//! it has it from the start.

use crate::error::{Error, Result};
use crate::raw::Mapping;
use crate::segment::{NAME_PREFIX, SHM_DIR, check_object, os};
use memmap2::MmapOptions;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::{Mode, umask};
use nix::unistd::linkat;
use shared_memory::{ShmemConf, ShmemError};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The path at which the segment `name` has its name.
pub fn path_of(name: &str) -> PathBuf {
    // Joining an absolute path gives that path.
    Path::new(SHM_DIR).join(name)
}

/// The name of the segment that somebody calls `typed`: a path, or a name in `dir` or else below /dev/shm.
///
/// # Errors
/// As [`directory`].
pub fn name_in(dir: Option<&Path>, typed: &str) -> Result<String> {
    if let Some(name) = typed.strip_prefix(SHM_DIR).and_then(|rest| rest.strip_prefix('/')) {
        return Ok(name.into());
    }
    let path = match (dir, typed.contains('/')) {
        (_, true) => std::path::absolute(typed).map_err(|e| os("find", typed, e))?,
        (Some(dir), false) => directory(dir)?.join(typed),
        (None, false) => return Ok(typed.into()),
    };
    Ok(path.to_string_lossy().into_owned())
}

/// The directory as segments in it are named after it.
///
/// # Errors
/// [`Error::Os`] when it is not there; [`Error::Damaged`] when it is none, or its path is not UTF-8.
pub fn directory(dir: &Path) -> Result<PathBuf> {
    let name = dir.to_string_lossy();
    let path = dir.canonicalize().map_err(|e| os("find the directory of", &name, e))?;
    let wrong = |expected: &str, found: &str| Error::Damaged {
        name: name.clone().into_owned(),
        what: "directory",
        expected: expected.into(),
        found: found.into(),
    };
    if !path.is_dir() {
        return Err(wrong("a directory", "something else"));
    }
    match path.to_str() {
        Some(_) => Ok(path),
        None => Err(wrong("a path of UTF-8", "another")),
    }
}

fn random_name() -> Result<String> {
    let mut bits = [0u8; 16];
    let read = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bits));
    read.map_err(|e| os("draw a name for", "/dev/urandom", e))?;
    Ok(format!("{NAME_PREFIX}{:032x}", u128::from_ne_bytes(bits)))
}

/// True when a segment may have got this name, or this path, from [`create`].
pub(crate) fn is_drawn(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    let is_digit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    file.strip_prefix(NAME_PREFIX).is_some_and(|bits| bits.len() == 32 && bits.bytes().all(is_digit))
}

fn is_path(name: &str) -> bool {
    name.starts_with('/')
}

/// Opens the object of a segment, whoever made it; a pipe in its place does not block.
pub(crate) fn open_by_name(name: &str, access: OFlag) -> Result<File> {
    let flags = access | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let fd = if is_path(name) {
        nix::fcntl::open(name, flags, Mode::empty())
    } else {
        shm_open(name, flags, Mode::empty())
    };
    fd.map(File::from).map_err(|e| os("open", name, e))
}

/// Removes the name of a segment; it is no error when there is none.
pub(crate) fn remove(name: &str) -> Result<()> {
    let removed = if is_path(name) { nix::unistd::unlink(name) } else { shm_unlink(name) };
    match removed {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(os("remove", name, e)),
    }
}

/// A new object, mapped.
pub(crate) struct Made {
    pub(crate) map: Mapping,
    /// It has its name already, because the file system knows no files without one.
    pub(crate) is_named: bool,
}

/// Makes a new object of `bytes` bytes and maps it: in `dir`, or else below /dev/shm. Its name is drawn; where the file system allows it, it gets
/// that by [`give_name`] only, so that a creator that dies before it leaves nothing at all.
pub(crate) fn create(dir: Option<&Path>, bytes: usize) -> Result<Made> {
    // 0600 is what is asked for; our umask must not take the owner's rights from that.
    let old = umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let made = create_in(dir, bytes);
    umask(old);
    made
}

fn create_in(dir: Option<&Path>, bytes: usize) -> Result<Made> {
    let dir = dir.map(directory).transpose()?;
    let (place, name) = (dir.as_deref().unwrap_or(Path::new(SHM_DIR)), random_name()?);
    let name = dir.as_ref().map_or(name.clone(), |dir| dir.join(name).to_string_lossy().into_owned());
    let flags = OFlag::O_RDWR | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
    if let Ok(fd) = nix::fcntl::open(place, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
        let file = File::from(fd);
        file.set_len(bytes as u64).map_err(|e| os("create", &name, e))?;
        return Ok(Made { map: map_file(name, file)?, is_named: false });
    }
    let map = if dir.is_some() { create_file(name, bytes) } else { create_object(name, bytes) };
    Ok(Made { map: map?, is_named: true })
}

/// Gives a new object its name: the link is made in one step, and fails where there is such a name.
pub(crate) fn give_name(map: &Mapping) -> Result<()> {
    let Some(file) = map.file() else { return Ok(()) };
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, &*open, AT_FDCWD, &path_of(map.name()), AtFlags::AT_SYMLINK_FOLLOW)
        .map_err(|e| os("name", map.name(), e))
}

fn create_object(name: String, bytes: usize) -> Result<Mapping> {
    match ShmemConf::new().os_id(&name).size(bytes).create() {
        Ok(mut shmem) => {
            // The segment's own handle decides that.
            shmem.set_owner(false);
            let file = open_by_name(&name, OFlag::O_RDWR)?;
            Mapping::shared(name, shmem, file)
        }
        Err(e) => Err(shmem_error("create", &name, e)),
    }
}

fn create_file(name: String, bytes: usize) -> Result<Mapping> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = nix::fcntl::open(&*name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
    let file = File::from(made.map_err(|e| os("create", &name, e))?);
    let mapped = file.set_len(bytes as u64).map_err(|e| os("create", &name, e));
    let mapped = mapped.and_then(|()| map_file(name.clone(), file));
    if mapped.is_err() {
        let _ = remove(&name);
    }
    mapped
}

fn map_file(name: String, file: File) -> Result<Mapping> {
    let map = MmapOptions::new().map_raw(&file).map_err(|e| os("map", &name, e))?;
    Ok(Mapping::mapped(name, map, file, true))
}

/// Maps the object `name`, after a look at whose it is.
pub(crate) fn attach(name: &str) -> Result<Mapping> {
    let file = open_by_name(name, OFlag::O_RDWR)?;
    check_object(name, &file)?;
    if is_path(name) {
        return map_file(name.into(), file);
    }
    let shmem = ShmemConf::new().os_id(name).open().map_err(|e| shmem_error("attach to", name, e))?;
    Mapping::shared(name.into(), shmem, file)
}

/// The same, to be read only: nothing that is done through the mapping can change the segment.
pub(crate) fn attach_to_read(name: &str) -> Result<Mapping> {
    let file = open_by_name(name, OFlag::O_RDONLY)?;
    check_object(name, &file)?;
    let map = MmapOptions::new().map_raw_read_only(&file).map_err(|e| os("map", name, e))?;
    Ok(Mapping::mapped(name.into(), map, file, false))
}

/// So much of an object is copied by [`copy_head`]: a header, a table of contents, and what its first entries lead to.
const HEAD_COPIED: u64 = 64 << 10;

/// The object `name` with a copy of its first [`HEAD_COPIED`] bytes, which alone have words that can be loaded; bytes are read from the file. Nothing of it is
/// mapped, so whoever cuts it off meanwhile does not kill by SIGBUS who only looks.
pub(crate) fn copy_head(name: &str) -> Result<Mapping> {
    let file = open_by_name(name, OFlag::O_RDONLY)?;
    let bytes = check_object(name, &file)?;
    let mut head = vec![0; bytes.min(HEAD_COPIED) as usize];
    file.read_exact_at(&mut head, 0).map_err(|e| os("read", name, e))?;
    Ok(Mapping::copied(name.into(), &head, bytes as usize, file))
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
