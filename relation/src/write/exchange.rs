//! Puts a relation's new files in the place of its old ones, so that whoever dies in between leaves nothing that is read wrongly.
//!
//! A relation is a set of files: FILE, its further segments, those of its TOAST file, its sidecar. Names change one at a time, but no reader reads
//! any of them where there is no FILE. So FILE is the first to go and the last to come, and before anything goes all that is new is on disk:
//!
//! | step | what happens | at FILE |
//! |---|---|---|
//! | 1 | the new files are called `.NAME.TAG.tmp`, the one for FILE first | the old relation |
//! | 2 | the old ones step aside as `.NAME.TAG.old`, FILE first | nothing |
//! | 3 | `.FILE.TAG.tmp` becomes `.FILE.TAG.new`: what has its name from now on is new | nothing |
//! | 4 | the new ones take their names, FILE last | nothing, then the new relation |
//! | 5 | the old ones are removed | the new relation |
//!
//! Until FILE has come all of it can be undone, and is: by who fails at a step, and where a process died, by the next writer of the same FILE
//! before it does anything else. Steps 2 to 4 are renames within a directory and nothing else.
//!
//! TAG is the process id and a number. The file for FILE is locked as long as its process lives: process ids come again, and are others in another
//! container. An undoing that is cut short is taken up again in the same way.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::error::WriteError;
use super::files::{Staged, directory_of, io_error};
use super::toast_path;
use crate::file::segment_path;
use crate::sidecar::Sidecar;

/// Tries to find a tag that no earlier process of the same number left behind.
const TAG_TRIES: usize = 100;

/// Tells writers of one process apart; Relaxed because only the uniqueness of the numbers matters.
static NEXT_WRITER: AtomicU32 = AtomicU32::new(0);

/// The passing names of one writer's files. When dropped it undoes what was not done to the end.
#[derive(Debug)]
pub(super) struct Names {
    first: PathBuf,
    tag: String,
}

impl Names {
    /// Names that nobody uses, for a writer of `first`. What writers that are dead left of it is undone.
    pub(super) fn choose(first: &Path) -> Result<Self, WriteError> {
        if first.file_name().is_none() {
            return Err(WriteError::NoFileName { path: first.to_path_buf() });
        }
        undo_the_dead(first);
        for _ in 0..TAG_TRIES {
            let number = NEXT_WRITER.fetch_add(1, Ordering::Relaxed);
            let names = Self { first: first.to_path_buf(), tag: format!("{}-{number}", std::process::id()) };
            if ["tmp", "new", "old"].iter().all(|end| !is_there(&names.passing(first, end))) {
                return Ok(names);
            }
            // They are somebody else's.
            std::mem::forget(names);
        }
        Err(io_error(first, "create", io::ErrorKind::AlreadyExists.into()))
    }

    /// What the file that is to become `target` is called until then.
    pub(super) fn temporary(&self, target: &Path) -> PathBuf {
        self.passing(target, "tmp")
    }

    fn chosen(&self) -> PathBuf {
        self.passing(&self.first, "new")
    }

    fn aside(&self, target: &Path) -> PathBuf {
        self.passing(target, "old")
    }

    fn passing(&self, target: &Path, end: &str) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".{}.{end}", self.tag));
        target.with_file_name(name)
    }

    /// Puts everything back, or, if the new relation is there already, removes the old one.
    fn undo(&self) -> io::Result<()> {
        let (temporary, chosen) = (self.temporary(&self.first), self.chosen());
        let mut members = self.members();
        // FILE comes back last, and of several segments the first: what is there is found by counting from it.
        members.reverse();
        let is_chosen = is_there(&chosen);
        let is_outdated = is_there(&self.first) && members.iter().any(|target| is_there(&self.aside(target)));
        if !is_outdated && is_chosen {
            for target in members.iter().filter(|target| **target != self.first) {
                if !is_there(&self.aside(target)) && !is_there(&self.temporary(target)) {
                    remove(target)?;
                }
            }
            fs::rename(&chosen, &temporary)?;
        }
        let is_undone = !is_outdated && is_there(&temporary);
        for target in &members {
            let aside = self.aside(target);
            if is_undone && is_there(&aside) {
                fs::rename(&aside, target)?;
            } else {
                remove(&aside)?;
            }
        }
        members.iter().try_for_each(|target| remove(&self.temporary(target)))?;
        remove(&chosen)
    }

    /// The files of the relation that there are under one of their names, FILE first.
    fn members(&self) -> Vec<PathBuf> {
        let mut members = vec![self.first.clone(), Sidecar::path_for(&self.first)];
        let is_any = |target: &PathBuf| {
            let (temporary, aside) = (self.temporary(target), self.aside(target));
            [target, &temporary, &aside].into_iter().any(|path| is_there(path))
        };
        members.extend((1..).map(|number| segment_path(&self.first, number)).take_while(is_any));
        let toast = toast_path(&self.first);
        members.extend((0..).map(|number| segment_path(&toast, number)).take_while(is_any));
        members
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure here; the next writer tries again.
        let _ = self.undo();
    }
}

/// New files, whole and on disk, and the old ones that they replace.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) names: Names,
    /// FILE is the first of them.
    pub(super) new: Vec<Staged>,
    /// If FILE is among them, it is the first.
    pub(super) old: Vec<PathBuf>,
}

/// A change of one name.
#[derive(Debug)]
pub(super) enum Step {
    /// The new file of this index gets its temporary name.
    Name(usize),
    /// A file gets another name.
    Rename(PathBuf, PathBuf),
}

impl Exchange {
    /// Takes all steps. What fails is undone.
    pub(super) fn publish(self) -> Result<(), WriteError> {
        self.steps().iter().try_for_each(|step| self.take(step))?;
        // The names are there; a directory that cannot be synced (some file systems) is not worth an error.
        let _ = File::open(directory_of(&self.names.first)).and_then(|directory| directory.sync_all());
        Ok(())
    }

    pub(super) fn steps(&self) -> Vec<Step> {
        let names = &self.names;
        let mut steps: Vec<_> = (0..self.new.len()).map(Step::Name).collect();
        steps.extend(self.old.iter().map(|old| Step::Rename(old.clone(), names.aside(old))));
        steps.push(Step::Rename(names.temporary(&names.first), names.chosen()));
        for staged in self.new.iter().skip(1).rev() {
            steps.push(Step::Rename(names.temporary(&staged.target), staged.target.clone()));
        }
        steps.push(Step::Rename(names.chosen(), names.first.clone()));
        steps
    }

    pub(super) fn take(&self, step: &Step) -> Result<(), WriteError> {
        match step {
            Step::Name(index) => self.new.get(*index).map_or(Ok(()), |staged| staged.name(&self.names)),
            Step::Rename(from, to) => {
                fs::rename(from, to).map_err(|cause| io_error(&self.names.first, "replace", cause))
            }
        }
    }
}

/// Undoes what writers of `first` that are dead did not do to the end.
fn undo_the_dead(first: &Path) {
    let mut tags: Vec<String> = Vec::new();
    for entry in fs::read_dir(directory_of(first)).into_iter().flatten().flatten() {
        let tag = tag_of(first, &entry.file_name());
        tags.extend(tag.filter(|tag| !tags.contains(tag)));
    }
    for tag in tags {
        let names = Names { first: first.to_path_buf(), tag };
        if names.is_used() {
            std::mem::forget(names);
        }
    }
}

impl Names {
    /// Whether their process lives, or may.
    fn is_used(&self) -> bool {
        let pid = self.tag.split('-').next().unwrap_or_default();
        let is_free = pid == std::process::id().to_string() || !Path::new("/proc").join(pid).exists();
        !is_free || [self.temporary(&self.first), self.chosen()].iter().any(|path| is_locked(path))
    }
}

/// The tag in a passing name of one of the files of `first`.
fn tag_of(first: &Path, name: &OsStr) -> Option<String> {
    let name = name.as_bytes().strip_prefix(b".")?.strip_prefix(first.file_name()?.as_bytes())?;
    let mut parts = std::str::from_utf8(name).ok()?.strip_prefix('.')?.rsplit('.');
    let (end, tag) = (parts.next()?, parts.next()?);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_tag = tag.split_once('-').is_some_and(|(pid, number)| is_number(pid) && is_number(number));
    let of: Vec<&str> = parts.collect();
    let is_member = match *of {
        [] | ["toast" | "schema"] => true,
        [number] | [number, "toast"] => is_number(number),
        _ => false,
    };
    (["tmp", "new", "old"].contains(&end) && is_tag && is_member).then(|| tag.to_owned())
}

pub(super) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Says that a process uses the file, as long as it lives. Where there are no such locks, it is not said.
pub(super) fn lock(file: &File) {
    let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file()));
}

/// Whether a process uses the file; one that is not there is used by none.
fn is_locked(path: &Path) -> bool {
    let mut found = whole_file();
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    match file {
        Ok(file) => {
            let looked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok();
            looked && i32::from(found.l_type) != libc::F_UNLCK
        }
        Err(cause) => cause.kind() != io::ErrorKind::NotFound,
    }
}
