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
use crate::inject::{Point, at};
use crate::raw::Mapping;
use crate::segment::{MAX_BESIDE, NAME_PREFIX, SHM_DIR, check_object, os};
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

/// The paths at which the segment `name` and its objects beside the first one have their names, if there are so many of them.
pub fn paths_of(name: &str) -> Vec<PathBuf> {
    let beside_it = if is_drawn(name) && !is_path(name) { MAX_BESIDE } else { 0 };
    let others = (1..=beside_it).map(|i| path_of(&beside(name, i)));
    [path_of(name)].into_iter().chain(others).collect()
}

/// Removes the name of a segment, and those of its objects beside the first one; it is no error when there is none.
pub(crate) fn remove(name: &str) -> Result<()> {
    remove_one(name)?;
    for i in 1..paths_of(name).len() {
        let other = beside(name, i);
        if path_of(&other).symlink_metadata().is_ok() {
            at(Point::RemoveBeside)?;
            remove_one(&other)?;
        }
    }
    Ok(())
}

fn remove_one(name: &str) -> Result<()> {
    let removed = if is_path(name) { nix::unistd::unlink(name) } else { shm_unlink(name) };
    match removed {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(os("remove", name, e)),
    }
}

/// The name of the object `i`, from 1, beside the first one of the segment `name`.
pub fn beside(name: &str, i: usize) -> String {
    format!("{name}.{i}")
}

/// The name of the segment whose object beside the first one may be called `name`.
pub(crate) fn first_of(name: &str) -> Option<&str> {
    let (first, i) = name.rsplit_once('.')?;
    let is_one = i.parse().is_ok_and(|n: usize| (1..=MAX_BESIDE).contains(&n) && i.len() == 1);
    (is_one && !is_path(name) && is_drawn(first)).then_some(first)
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
    if let Some(file) = nameless(place) {
        file.set_len(bytes as u64).map_err(|e| os("create", &name, e))?;
        return Ok(Made { map: map_file(name, file)?, is_named: false });
    }
    let map = if dir.is_some() { create_file(name, bytes) } else { create_object(name, bytes) };
    Ok(Made { map: map?, is_named: true })
}

/// A new file without a name, of length 0, where the file system knows such files.
fn nameless(place: &Path) -> Option<File> {
    let flags = OFlag::O_RDWR | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
    nix::fcntl::open(place, flags, Mode::S_IRUSR | Mode::S_IWUSR).ok().map(File::from)
}

/// Makes the object `i` beside the first one, of `bytes` bytes, gives it its name, and maps it.
pub(crate) fn create_beside(map: &mut Mapping, i: usize, bytes: usize) -> Result<()> {
    let name = beside(map.name(), i);
    let old = umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let (made, is_named) = match nameless(Path::new(SHM_DIR)) {
        Some(file) => (Ok(file), false),
        None => (create_named(&name), true),
    };
    umask(old);
    let file = made?;
    file.set_len(bytes as u64).map_err(|e| os("create", &name, e))?;
    if !is_named {
        link(&file, &name)?;
    }
    let mapped = MmapOptions::new().map_raw(&file).map_err(|e| os("map", &name, e))?;
    map.add(Some(mapped), file, bytes);
    Ok(())
}

/// Gives a new object its name: the link is made in one step, and fails where there is such a name.
pub(crate) fn give_name(map: &Mapping) -> Result<()> {
    map.file().map_or(Ok(()), |file| link(file, map.name()))
}

fn link(file: &File, name: &str) -> Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, &*open, AT_FDCWD, &path_of(name), AtFlags::AT_SYMLINK_FOLLOW)
        .map_err(|e| os("name", name, e))
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
    let file = create_named(&name)?;
    let mapped = file.set_len(bytes as u64).map_err(|e| os("create", &name, e));
    let mapped = mapped.and_then(|()| map_file(name.clone(), file));
    if mapped.is_err() {
        let _ = remove(&name);
    }
    mapped
}

/// A new file with a name, of length 0.
fn create_named(name: &str) -> Result<File> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = nix::fcntl::open(&path_of(name), flags, Mode::S_IRUSR | Mode::S_IWUSR);
    made.map(File::from).map_err(|e| os("create", name, e))
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

/// How a segment is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// [`attach`].
    ReadWrite,
    /// [`attach_to_read`].
    Read,
    /// [`copy_head`].
    Copy,
}

/// Attaches to the object `i` beside the first one, which is to have `bytes` bytes, after a look at whose it is.
pub(crate) fn attach_beside(map: &mut Mapping, i: usize, bytes: usize, access: Access) -> Result<()> {
    let name = beside(map.name(), i);
    let flags = if access == Access::ReadWrite { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let file = open_by_name(&name, flags)?;
    let found = check_object(&name, &file)?;
    if found != bytes as u64 {
        let (expected, found) = (bytes.to_string(), found.to_string());
        return Err(Error::Damaged { name, what: "size in bytes", expected, found });
    }
    let mapped = match access {
        Access::ReadWrite => Some(MmapOptions::new().map_raw(&file)),
        Access::Read => Some(MmapOptions::new().map_raw_read_only(&file)),
        Access::Copy => None,
    };
    let mapped = mapped.transpose().map_err(|e| os("map", &name, e))?;
    map.add(mapped, file, bytes);
    Ok(())
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
