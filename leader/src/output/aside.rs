//! A file that has another name, or none, until it is whole; see [`crate::output`].

use crate::failure::Failure;
use nix::fcntl::{FcntlArg, PosixFadviseAdvice, fcntl, posix_fadvise};
use nix::libc;
use shm_layout::inject::{Point, at};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that is not yet where it belongs; removed when dropped.
pub struct Aside {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    /// The file has the temporary name.
    named: bool,
    synced: bool,
}

impl Aside {
    /// A new file that is to become `target`.
    pub(super) fn create(target: &Path) -> Result<Self, Failure> {
        // Behind a symbolic link it is the file that is replaced, not the link.
        let target = &target.canonicalize().unwrap_or_else(|_| target.into());
        let name = target
            .file_name()
            .ok_or_else(|| Failure::error(format!("output {target:?}: expected a file name")))?;
        if is_mount_point(target) {
            let text = format!(
                "could not create file {target:?}: expected one that can be replaced, found a mount point"
            );
            return Err(Failure::error(text).hint("mount its directory, or write to standard output"));
        }
        let temporary = target.with_file_name(temporary_name(name, std::process::id()));
        remove_left(target, name);
        let (file, named) = match open_nameless(target) {
            Some(file) => (file, false),
            None => {
                let made = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&temporary);
                (made.map_err(|e| Failure::io("create", target, &e))?, true)
            }
        };
        lock(&file);
        if let Ok(old) = std::fs::metadata(target) {
            // Who may read the one that is replaced may read the new one. Where that cannot be had (some file systems have no modes) it is as any new file.
            let _ = file.set_permissions(old.permissions());
        }
        Ok(Self { file, temporary, target: target.into(), named, synced: false })
    }

    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    pub(super) fn restart(&mut self) -> Result<(), Failure> {
        let anew = self.file.set_len(0).and_then(|()| self.file.rewind());
        anew.map_err(|e| Failure::io("write", &self.target, &e))
    }

    pub(super) fn send_on(&self, from: u64, len: u64) {
        if let (Ok(from), Ok(len)) = (from.try_into(), len.try_into()) {
            // Linux begins to write what is dirty, and forgets what is not.
            let _ = posix_fadvise(&self.file, from, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.synced = false;
        self.file.write_all(bytes).map_err(|e| Failure::io("write", &self.target, &e))
    }

    pub(super) fn sync(&mut self) -> Result<(), Failure> {
        if !self.synced {
            self.file.sync_all().map_err(|e| Failure::io("sync", &self.target, &e))?;
            at(Point::OutputSynced)?;
            self.synced = true;
        }
        Ok(())
    }

    pub(super) fn publish(mut self) -> Result<(), Failure> {
        // Where nothing is to be replaced there is no moment with another name.
        if self.named || link(&self.file, &self.target).is_err() {
            if !self.named {
                link(&self.file, &self.temporary).map_err(|e| Failure::io("create", &self.target, &e))?;
                self.named = true;
            }
            at(Point::OutputLinked)?;
            let renamed = std::fs::rename(&self.temporary, &self.target);
            renamed.map_err(|e| Failure::io("rename to", &self.target, &e))?;
            self.named = false;
        }
        // The name is there; a directory that cannot be synced (some file systems) is not worth an error.
        let _ = File::open(directory(&self.target)).and_then(|d| d.sync_all());
        Ok(())
    }
}

fn directory(target: &Path) -> &Path {
    target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// So many bytes of a file's name are in that of the temporary one: names have 255 at most.
const KEPT_NAME: usize = 239;

fn temporary_name(name: &OsStr, pid: u32) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(OsStr::from_bytes(&name.as_bytes()[..name.len().min(KEPT_NAME)]));
    temporary.push(format!(".{pid}.tmp"));
    temporary
}

/// A file without a name where `target` is to be; `None` when it could not be given one later.
fn open_nameless(target: &Path) -> Option<File> {
    let flags = libc::O_TMPFILE;
    let file = OpenOptions::new().write(true).custom_flags(flags).mode(0o666).open(directory(target)).ok()?;
    Path::new(&path_of(&file)).exists().then_some(file)
}

/// Whether something is mounted on the file itself, as containers do: it can be written to and not replaced.
fn is_mount_point(target: &Path) -> bool {
    let mounts = std::fs::read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let points =
        mounts.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    // A blank in a path is written as \040, and so on.
    points.into_iter().any(|point| unescaped(point) == target.as_os_str().as_bytes())
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let digits = text.get(at + 1..at + 4).filter(|_| text[at] == b'\\');
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(code.unwrap_or(text[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    out
}

fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn link(file: &File, name: &Path) -> std::io::Result<()> {
    use nix::fcntl::{AT_FDCWD, AtFlags};
    let from = path_of(file);
    Ok(nix::unistd::linkat(AT_FDCWD, from.as_str(), AT_FDCWD, name, AtFlags::AT_SYMLINK_FOLLOW)?)
}

/// Removes what processes that are dead left beside `target`.
fn remove_left(target: &Path, name: &OsStr) {
    for entry in std::fs::read_dir(directory(target)).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let pid =
            found.to_str().and_then(|f| f.strip_suffix(".tmp")?.rsplit_once('.')?.1.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        let is_free = pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists();
        if found == temporary_name(name, pid) && is_free && !is_locked(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Says that a process uses the file, as long as it lives. Where there are no such locks, it is not said.
fn lock(file: &File) {
    let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file()));
}

/// Whether a process uses the file, or may.
fn is_locked(path: &Path) -> bool {
    let mut found = whole_file();
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let looked = file.is_ok_and(|file| fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok());
    !looked || i32::from(found.l_type) != libc::F_UNLCK
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.named {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_long_name_that_is_there_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("x".repeat(255));
        std::fs::write(&target, "old").expect("written");
        let left = dir.path().join(temporary_name(&OsString::from("x".repeat(255)), 4_194_305));
        std::fs::write(&left, "left").expect("written");
        let mut output = Output::open(Some(&target)).expect("made");
        output.write(b"new").expect("room");
        output.finish().expect("nothing is in the way");
        assert_eq!(std::fs::read(&target).expect("there"), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1, "something was left");
    }

    #[test]
    fn who_may_read_the_old_one_may_read_the_new_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("out.tsv");
        std::fs::write(&target, "old").expect("written");
        std::fs::set_permissions(&target, Permissions::from_mode(0o600)).expect("ours");
        Output::open(Some(&target)).and_then(Output::finish).expect("made");
        let meta = std::fs::metadata(&target).expect("it is there");
        assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (0, 0o600));
    }

    #[test]
    fn mount_points_are_known() {
        assert!(is_mount_point(Path::new("/proc")) && !is_mount_point(Path::new("/proc/self")));
        assert_eq!(unescaped(b"/a\\040b\\134\\01"), b"/a b\\\\01");
    }

    /// Process ids come again, those of containers at every start.
    #[test]
    fn what_a_process_of_the_same_number_left_is_removed_and_what_one_uses_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("out.tsv");
        let left = dir.path().join(format!(".out.tsv.{}.tmp", std::process::id()));
        let elsewhere = dir.path().join(".out.tsv.4194305.tmp");
        std::fs::write(&target, "old").expect("written");
        std::fs::write(&left, "left").expect("written");
        let used = File::create(&elsewhere).expect("made");
        lock(&used);
        let mut output = Output::open(Some(&target)).expect("made");
        output.write(b"new").expect("room");
        output.finish().expect("nothing is in the way");
        assert_eq!(std::fs::read(&target).expect("there"), b"new");
        assert!(!left.exists() && elsewhere.exists());
    }
}
