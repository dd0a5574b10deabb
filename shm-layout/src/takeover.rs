//! Tells whether anybody uses a segment, removes what nobody owns, and takes a run over after its leader's death.
//!
//! The leader holds a write lock on byte 0 of the segment's file, every worker a read lock on byte 1, as long as they live: open-file-description
//! locks (fcntl(2)), which the kernel releases with the process and which no process id can fake. Whoever takes over must get the lock of
//! byte 0, find byte 1 unlocked, and find that the creator in the header is dead by process id *and* start time. Of two that try, one gets the lock.
//!
//! Whoever removes a segment holds the lock of byte 0 as well while it judges it and takes its name away. So a run that is being taken over is not removed,
//! and who gets the lock of one that was removed meanwhile sees that it has no name any more.
//!
//! What a death in here leaves: the locks go with the process; the creator's identity in the header is written after the locks are had, word by
//! word, and a half-written one names no living process. So the next one takes over just the same (I5).

use crate::error::{Error, Result};
use crate::inject::{Point, at};
use crate::pin::{PIN_PREFIX, exists, pin_name};
use crate::place::{self, first_of, is_drawn, open_by_name, path_of};
use crate::process::{Identity, boot_digest, pidfd_open, pidfd_send};
use crate::segment::{
    BESIDE, BOOT, CREATOR_PID, CREATOR_START, FLAG_PINNED, FLAG_RESUMABLE, FLAGS, LAYOUT_VERSION, MAGIC,
    MAX_BESIDE, NAME_PREFIX, SHM_DIR, Segment, VERSION, check_object, os,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const LEADER_BYTE: i64 = 0;
const WORKER_BYTE: i64 = 1;

/// Proof that this process is the only one that uses a segment, and leads it.
#[derive(Debug)]
pub struct SoleUser(());

fn range(kind: i32, byte: i64) -> libc::flock {
    libc::flock { l_type: kind as _, l_whence: libc::SEEK_SET as _, l_start: byte, l_len: 1, l_pid: 0 }
}

/// Tries to get a lock; false when another process has one that excludes it.
fn try_lock(file: &File, kind: i32, byte: i64) -> std::io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range(kind, byte))) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// True when another process holds a lock on the byte.
fn is_locked(file: &File, byte: i64) -> std::io::Result<bool> {
    let mut found = range(libc::F_WRLCK, byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

/// Holds the object `name` as one that is in use, until the file is dropped; `None` when it cannot be.
pub(crate) fn in_use(name: &str) -> Option<File> {
    let file = open_by_name(name, OFlag::O_RDWR).ok()?;
    try_lock(&file, libc::F_RDLCK, WORKER_BYTE).ok().filter(|got| *got).map(|_| file)
}

impl Segment {
    /// Locks the segment as its leader; false when it has one.
    pub(crate) fn lock_as_leader(&self) -> Result<bool> {
        let Some(file) = self.map().file() else { return Ok(true) };
        try_lock(file, libc::F_WRLCK, LEADER_BYTE).map_err(|e| os("lock", self.name(), e))
    }

    /// Locks the segment as one of its workers; false when somebody is taking it over.
    ///
    /// # Errors
    /// [`Error::Os`].
    pub fn lock_as_worker(&self) -> Result<bool> {
        let Some(file) = self.map().file() else { return Ok(true) };
        try_lock(file, libc::F_RDLCK, WORKER_BYTE).map_err(|e| os("lock", self.name(), e))
    }

    /// True while a process leads it.
    ///
    /// # Errors
    /// [`Error::Os`].
    pub fn is_led(&self) -> Result<bool> {
        let Some(file) = self.map().file() else { return Ok(false) };
        is_locked(file, LEADER_BYTE).map_err(|e| os("look at", self.name(), e))
    }

    /// Lets stopped processes that use the segment of a dead leader go on, so that they see its death and leave. Workers hear of it even when they are
    /// stopped; one that was stopped between fork and exec does not yet, and has its leader's lock.
    ///
    /// # Errors
    /// [`Error::Os`].
    pub fn wake_users(&self) -> Result<()> {
        let Some(file) = self.map().file() else { return Ok(()) };
        if Head::read(self.name(), file)?.creator_is_alive() {
            return Ok(());
        }
        for pid in users_of(self.name()).into_iter().filter(|pid| is_stopped(*pid)) {
            let _ = pidfd_open(pid).and_then(|process| pidfd_send(&process, Signal::SIGCONT));
        }
        Ok(())
    }

    /// Becomes the leader of an attached segment whose leader and workers are dead; `None` while one of them lives.
    ///
    /// # Errors
    /// [`Error::Removed`] when somebody removed it first; [`Error::Os`].
    pub fn take_over(self: &Arc<Self>) -> Result<Option<SoleUser>> {
        if !self.lock_as_leader()? {
            return Ok(None);
        }
        let Some(file) = self.map().file() else { return Ok(None) };
        if file.metadata().map_err(|e| os("look at", self.name(), e))?.nlink() == 0 {
            return Err(Error::Removed { name: self.name().into() });
        }
        let head = Head::read(self.name(), file)?;
        if is_locked(file, WORKER_BYTE).map_err(|e| os("lock", self.name(), e))? || head.creator_is_alive() {
            return Ok(None);
        }
        at(Point::ResumeLocked)?;
        self.write_identity()?;
        at(Point::ResumeTaken)?;
        Ok(Some(SoleUser(())))
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}

/// Processes that have the segment mapped, this one excepted, as far as /proc tells.
pub fn users_of(name: &str) -> Vec<u32> {
    let path = path_of(name);
    let number = std::fs::metadata(&path).map(|meta| (meta.dev(), meta.ino())).ok();
    let path = path.to_string_lossy().into_owned();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| *pid != std::process::id())
        .filter(|pid| {
            let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"));
            maps.is_ok_and(|maps| maps.lines().any(|line| line.ends_with(&path) || is_of(line, number)))
        })
        .collect()
}

/// Whether a line of /proc/PID/maps is of the file with this device and inode. Who made the segment mapped it before it had a name, and has it under
/// another one there.
fn is_of(line: &str, number: Option<(u64, u64)>) -> bool {
    let Some((device, inode)) = number else { return false };
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (Some(of_device), Some(of_inode)) = (fields.next(), fields.next()) else { return false };
    let device = format!("{:02x}:{:02x}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    of_device == device && of_inode.parse() == Ok(inode)
}

/// The words of a header that tell whose it is.
struct Head {
    magic: u64,
    version: u64,
    creator: Identity,
    boot: u64,
    flags: u64,
    /// Objects beside the first one.
    beside: usize,
}

impl Head {
    fn read(name: &str, file: &File) -> Result<Self> {
        let mut head = [0u8; BESIDE + 8];
        let mut at = 0;
        while at < head.len() {
            match file.read_at(&mut head[at..], at as u64).map_err(|e| os("read", name, e))? {
                0 => break,
                n => at += n,
            }
        }
        let field = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let creator = Identity { pid: field(CREATOR_PID) as u32, start_time: field(CREATOR_START) };
        let (magic, version, boot, flags) = (field(0), field(VERSION), field(BOOT), field(FLAGS));
        let beside = field(BESIDE).min(MAX_BESIDE as u64) as usize;
        Ok(Self { magic, version, creator, boot, flags, beside })
    }

    fn creator_is_alive(&self) -> bool {
        self.boot == boot_digest() && self.creator.pid != std::process::id() && self.creator.is_alive()
    }
}

/// What is known of a segment without attaching to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Bytes of its address space.
    pub bytes: u64,
    /// Bytes of memory that it takes.
    pub resident: u64,
    /// Process that leads or led it.
    pub leader: u32,
    /// What is to become of it.
    pub state: State,
}

/// Whose a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A leader or a worker uses it.
    Running,
    /// Nobody uses it; another leader may go on with it.
    Resumable,
    /// It was meant to stay.
    Pinned,
    /// Nobody owns it.
    Orphan,
    /// It bears a name of ours, and is none.
    Foreign,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Resumable => "resumable",
            Self::Pinned => "pinned",
            Self::Orphan => "orphan",
            Self::Foreign => "foreign",
        })
    }
}

/// Lists this user's objects that bear a name of ours: in `dir`, or else in shared memory.
///
/// # Errors
/// [`Error::Os`] when the directory cannot be read. Objects that cannot be opened are passed over.
pub fn list(dir: Option<&Path>) -> Result<Vec<Listed>> {
    let dir = dir.map(place::directory).transpose()?;
    let from = dir.as_deref().unwrap_or(Path::new(SHM_DIR));
    let entries = std::fs::read_dir(from).map_err(|e| os("list", &from.to_string_lossy(), e))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let place = |name: String| match from.join(&name).to_str() {
        Some(path) if dir.is_some() => path.to_owned(),
        _ => name,
    };
    // An object beside the first one of a segment is part of that; alone it is what a death left.
    let is_part = |name: &String| first_of(name).is_some_and(exists);
    let names = names.filter(|name| name.starts_with(NAME_PREFIX) && !is_part(name)).map(place);
    let mut listed: Vec<Listed> = names.filter_map(|name| look(&name).ok()).collect();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}

/// A creator writes its header microseconds after it made the object, where it cannot write it before.
const HEADLESS_AGE_SECONDS: u64 = 5;

/// What is known of the segment `name` without attaching to it.
///
/// # Errors
/// [`Error::Os`] when there is none; [`Error::Damaged`] when it is not ours.
pub fn look(name: &str) -> Result<Listed> {
    look_at(name, &open_by_name(name, OFlag::O_RDWR)?)
}

fn look_at(name: &str, file: &File) -> Result<Listed> {
    let meta = file.metadata().map_err(|e| os("look at", name, e))?;
    let me = nix::unistd::geteuid().as_raw();
    if !meta.is_file() {
        let (expected, found) = ("a file".into(), "something else".into());
        return Err(Error::Damaged { name: name.into(), what: "object", expected, found });
    }
    if meta.uid() != me {
        let (expected, found) = (format!("a file of user {me}"), format!("one of user {}", meta.uid()));
        return Err(Error::Damaged { name: name.into(), what: "owner", expected, found });
    }
    // In this order: who has a lock may be writing the header.
    let is_used = [LEADER_BYTE, WORKER_BYTE].into_iter().any(|byte| is_locked(file, byte).unwrap_or(true));
    let head = Head::read(name, file)?;
    let state = judge(name, file, &meta, (is_used, &head));
    let (mut bytes, mut resident, leader) = (meta.len(), meta.blocks() * 512, head.creator.pid);
    for part in (1..=head.beside).map_while(|i| path_of(&place::beside(name, i)).symlink_metadata().ok()) {
        (bytes, resident) = (bytes + part.len(), resident + part.blocks() * 512);
    }
    Ok(Listed { name: name.into(), bytes, resident, leader, state })
}

/// Whose the object is. Only what has a name that we give and the mode that we give is ours to judge; a pinned segment gets its name when it is whole.
fn judge(name: &str, file: &File, meta: &Metadata, (is_used, head): (bool, &Head)) -> State {
    let is_pin = name.starts_with(PIN_PREFIX) && pin_name(name).is_ok();
    let first = first_of(name).filter(|_| !is_pin);
    if !(is_pin || first.is_some() || is_drawn(name)) || meta.mode() & 0o777 != 0o600 {
        return State::Foreign;
    }
    if is_used || first.is_some_and(exists) {
        return State::Running;
    }
    if first.is_some() {
        return State::Orphan;
    }
    let is_whole = head.magic == MAGIC && head.version == LAYOUT_VERSION;
    if is_pin {
        let is_pinned = is_whole && head.flags & FLAG_PINNED != 0;
        return if is_pinned { State::Pinned } else { State::Foreign };
    }
    if head.version == 0 && head.magic == 0 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let is_old = now.saturating_sub(meta.mtime().max(0) as u64) > HEADLESS_AGE_SECONDS;
        // Without a header and a lock it is a creation that was cut off, unless it was made this very moment.
        return if is_old { State::Orphan } else { State::Running };
    }
    if (head.magic != MAGIC && head.magic != 0) || head.version != LAYOUT_VERSION {
        State::Foreign
    } else if head.creator_is_alive() {
        State::Running
    } else if head.flags & FLAG_RESUMABLE != 0 && is_whole && check_object(name, file).is_ok() {
        State::Resumable
    } else {
        State::Orphan
    }
}

/// Removes the segment `name` if it is in a state that may go; else says in which it is. The look is taken under the leader's lock.
///
/// # Errors
/// [`Error::Os`] when there is none any more, or it cannot be removed; [`Error::Damaged`] when it is not ours.
pub fn remove(name: &str, may_go: impl Fn(State) -> bool) -> Result<Option<State>> {
    let file = open_by_name(name, OFlag::O_RDWR)?;
    if !try_lock(&file, libc::F_WRLCK, LEADER_BYTE).map_err(|e| os("lock", name, e))? {
        return Ok(Some(State::Running));
    }
    let found = look_at(name, &file)?.state;
    if !may_go(found) {
        return Ok(Some(found));
    }
    if !is_named(name, &file).map_err(|e| os("look at", name, e))? {
        // Another got the name meanwhile.
        return Ok(Some(State::Running));
    }
    place::remove(name).map(|()| None)
}

/// Whether the name is this object's.
pub(crate) fn is_named(name: &str, file: &File) -> std::io::Result<bool> {
    let (named, own) = (std::fs::symlink_metadata(path_of(name))?, file.metadata()?);
    Ok((named.dev(), named.ino()) == (own.dev(), own.ino()))
}

/// Removes segments that nobody owns, and with `resumable` also those that somebody might have gone on with. Returns their names.
///
/// Proof that nobody does: no process holds a lock on it, and its creator is dead by process id and start time, or of another boot of the
/// machine. An object without a header is a creation that was cut off, and is removed once it is some seconds old; anything else is left alone, above all
/// what has not a name of the form that segments get, or another mode.
///
/// # Errors
/// As [`list`]. A single object that cannot be removed is passed over.
pub fn sweep(dir: Option<&Path>, resumable: bool) -> Result<Vec<String>> {
    let is_left = |state| state == State::Orphan || (resumable && state == State::Resumable);
    let left = list(dir)?.into_iter().filter(|found| is_left(found.state));
    let is_removed = |found: &Listed| matches!(remove(&found.name, is_left), Ok(None));
    Ok(left.filter(is_removed).map(|found| found.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Plan;
    use std::path::PathBuf;

    const BUILD: u64 = 7;

    /// A directory that goes when the test ends.
    struct Place(PathBuf);

    impl Place {
        fn new(test: &str) -> Self {
            let place = std::env::temp_dir().join(format!("takeover-{}-{test}", std::process::id()));
            std::fs::create_dir(&place).expect("a directory");
            Self(place)
        }

        /// A resumable segment that its leader left; this process counts as dead where it asks itself.
        fn left(&self) -> String {
            let plan = Plan { toc_bytes: 4096, chunk_bytes: 4096, chunks: 1, beside: 0, build: BUILD };
            let segment = Segment::create(Some(&self.0), &plan).expect("made");
            segment.publish().and_then(|()| segment.mark_resumable()).expect("mapped");
            segment.set_removes(false);
            segment.name().into()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs files that are shared")]
    fn a_segment_that_was_taken_over_since_is_not_removed() {
        let place = Place::new("taken");
        let name = place.left();
        // This is what a sweep has seen, and here somebody comes before it acts.
        assert_eq!(list(Some(&place.0)).expect("listed")[0].state, State::Resumable);
        let segment = Segment::attach(&name, BUILD).expect("sound");
        assert!(segment.take_over().expect("ours").is_some());
        assert_eq!(remove(&name, |_| true).expect("a look"), Some(State::Running));
        assert!(path_of(&name).exists(), "a run lost its segment");
        drop(segment);
        assert_eq!(remove(&name, |state| state == State::Orphan).expect("a look"), Some(State::Resumable));
        assert_eq!(remove(&name, |state| state == State::Resumable).expect("removed"), None);
        assert!(!path_of(&name).exists() && remove(&name, |_| true).is_err());
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs files that are shared")]
    fn a_segment_that_was_removed_since_is_not_taken_over() {
        let place = Place::new("removed");
        let name = place.left();
        let segment = Segment::attach(&name, BUILD).expect("sound");
        assert_eq!(sweep(Some(&place.0), true).expect("swept"), [name.as_str()]);
        let taken = segment.take_over();
        assert!(matches!(taken, Err(Error::Removed { name: of }) if of == name));
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs files that are shared")]
    fn while_it_is_judged_nobody_takes_it_over() {
        let place = Place::new("judged");
        let name = place.left();
        let segment = Segment::attach(&name, BUILD).expect("sound");
        let tries = |_| {
            assert!(segment.take_over().expect("a try").is_none());
            false
        };
        assert_eq!(remove(&name, tries).expect("a look"), Some(State::Resumable));
        assert!(segment.take_over().expect("ours").is_some());
    }
}
