//! Where the result goes: a file that appears whole or not at all, or standard output.
//!
//! While it is written the file has no name (O_TMPFILE), so that it goes with this process whatever becomes of that; where the file system cannot do
//! that it is called `.FILE.PID.tmp`, as it is for the moment between `linkat` and `rename` when it replaces a file. It is locked as long as its
//! process lives, so that the next run with the same output knows what a process that was killed left under such a name, and removes it: process
//! ids come again, and are others in another container.
//!
//! Where a run writes several files all of them are synced before the first one appears. Then they appear one after the other, the result last.
//!
//! A name that stands for something else than a file (a device, a named pipe) is written to and stays what it is.

use crate::cli::AnalysisArgs;
use crate::dense::write::Writer;
use crate::failure::Failure;
use crate::format::Form;
use crate::format::facts::Facts;
use crate::lead::Outcome;
use crate::partial::meta::Meta;
use crate::plan::Plan;
use crate::report::Entries;
use crate::signals::Signals;
use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};
use nix::libc;
use nix::sys::signal::Signal;
use shm_layout::inject::{Point, at};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A result being written.
pub enum Output {
    /// Standard output.
    Stdout,
    /// A device or a named pipe.
    Special(File, PathBuf),
    /// A file beside the one that it will become.
    Aside(Aside),
}

/// A file that is not yet where it belongs; removed when dropped.
pub struct Aside {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    /// The file has the temporary name.
    named: bool,
    synced: bool,
}

/// Everything that a run writes. All of it is opened before the work begins, and none of it appears before all of it is written.
pub struct Outputs {
    /// None when it goes into the database alone.
    result: Option<Output>,
    histogram: Option<Output>,
    summary: Option<Output>,
    dense: Option<Output>,
    page: Option<Output>,
    partial: Option<Output>,
}

impl Outputs {
    /// Opens what was asked for. A named pipe is waited for, until somebody reads it or one of `signals` comes.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn open(args: &AnalysisArgs, signals: &Signals) -> Result<Self, Failure> {
        refuse_same(args)?;
        let open = |path: Option<&Path>| Output::open_unless(path, &|| signals.caught());
        let file = |path: &Option<PathBuf>| path.as_deref().map(|p| open(Some(p))).transpose();
        Ok(Self {
            result: match args.output.as_deref() {
                None if args.database.save || args.partial.partial.is_some() => None,
                target => Some(open(target)?),
            },
            histogram: file(&args.select.histogram)?,
            summary: file(&args.format.summary_json)?,
            dense: file(&args.dense)?,
            page: file(&args.page.report)?,
            partial: match args.partial.partial.as_deref() {
                Some(path) if path == Path::new("-") => Some(open(None)?),
                path => path.map(|path| open(Some(path))).transpose()?,
            },
        })
    }

    /// True when nothing would be left of all this if this process ended now.
    pub fn leave_nothing(&self) -> bool {
        let all = [&self.summary, &self.histogram, &self.dense, &self.page, &self.partial, &self.result];
        all.into_iter().flatten().all(Output::leaves_nothing)
    }

    /// Writes the result and the histogram, and tells `written` how many k-mers of how many it has.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn write(
        &mut self,
        form: &Form,
        facts: &Facts,
        entries: &Entries,
        written: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Failure> {
        if let Some(result) = &mut self.result {
            form.write(facts, entries, result, written)?;
        }
        match (&mut self.histogram, &entries.histogram) {
            (Some(output), Some(tally)) => output.write(tally.to_text().as_bytes()),
            _ => Ok(()),
        }
    }

    /// The dense file, if it was asked for, for its writer; it comes back by [`Outputs::put_dense`].
    pub fn take_dense(&mut self) -> Option<Writer> {
        self.dense.take().map(Writer::new)
    }

    /// Takes the dense file back, which is written.
    pub fn put_dense(&mut self, output: Output) {
        self.dense = Some(output);
    }

    /// Writes the counts of a part, if they were asked for.
    ///
    /// # Errors
    /// As [`crate::partial::write::write`].
    pub fn write_partial(
        &mut self,
        plan: &Plan,
        outcome: &Outcome,
        facts: &Facts,
        entries: &Entries,
    ) -> Result<(), Failure> {
        let Some(output) = &mut self.partial else { return Ok(()) };
        crate::partial::write::write(&Meta::new(plan, outcome, facts)?, entries, output)
    }

    /// Writes the summary, if it was asked for.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn write_summary(&mut self, text: impl FnOnce() -> Result<String, Failure>) -> Result<(), Failure> {
        self.summary.as_mut().map_or(Ok(()), |output| output.write(text()?.as_bytes()))
    }

    /// Writes the page about the run, if it was asked for.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn write_page(&mut self, text: impl FnOnce() -> Result<String, Failure>) -> Result<(), Failure> {
        self.page.as_mut().map_or(Ok(()), |output| output.write(text()?.as_bytes()))
    }

    /// Makes all of it stay: what can fail for lack of room fails before anything appears.
    ///
    /// # Errors
    /// As [`Output::finish`].
    pub fn finish(self) -> Result<(), Failure> {
        let all = [self.summary, self.histogram, self.dense, self.page, self.partial, self.result];
        let mut all: Vec<Output> = all.into_iter().flatten().collect();
        all.iter_mut().try_for_each(Output::sync)?;
        all.into_iter().try_for_each(Output::finish)
    }
}

fn open_special(target: &Path) -> Result<File, Failure> {
    OpenOptions::new().write(true).open(target).map_err(|e| Failure::io("open", target, &e))
}

/// How often a reader of a named pipe, or a signal, is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// Opens a named pipe as soon as somebody reads it. To open it at once would wait for that too, and not be heard to end while signals are caught.
fn open_pipe(target: &Path, caught: &dyn Fn() -> Option<Signal>) -> Result<File, Failure> {
    loop {
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(target);
        match opened {
            Ok(file) => {
                let blocks = fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()));
                return blocks.map(|_| file).map_err(|e| Failure::io("open", target, &e.into()));
            }
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => match caught() {
                Some(signal) => return Err(Failure::Signal(signal)),
                None => std::thread::sleep(LOOK),
            },
            Err(e) => return Err(Failure::io("open", target, &e)),
        }
    }
}

/// How an input is called.
const INPUT: &str = "the input";

/// Refuses two outputs in one file, and an output that would take the place of what is read.
fn refuse_same(args: &AnalysisArgs) -> Result<(), Failure> {
    let outputs = [
        ("-o", args.output.as_deref()),
        ("--histogram", args.select.histogram.as_deref()),
        ("--summary-json", args.format.summary_json.as_deref()),
        ("--dense", args.dense.as_deref()),
        ("--report", args.page.report.as_deref()),
        ("--partial", args.partial.partial.as_deref()),
    ];
    let inputs = args.relations.iter().map(|path| (INPUT, path.as_path()));
    let mut seen: Vec<(&str, PathBuf)> = Vec::new();
    for (option, path) in inputs.chain(outputs.iter().filter_map(|(option, path)| Some((*option, (*path)?))))
    {
        // A device may be written to twice.
        let is_special = std::fs::metadata(path).is_ok_and(|meta| !meta.is_file());
        if is_special || path == Path::new("-") {
            continue;
        }
        let full = path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.into());
        if let Some((other, _)) =
            seen.iter().find(|(other, known)| *known == full && (*other, option) != (INPUT, INPUT))
        {
            let text = format!("{option} {path:?}: expected a file of its own, found that of {other}");
            return Err(Failure::usage(text));
        }
        seen.push((option, full));
    }
    Ok(())
}

impl Output {
    /// Opens the output: standard output, or a new file beside `target`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(target: Option<&Path>) -> Result<Self, Failure> {
        Self::open_unless(target, &|| None)
    }

    /// The same, unless a signal is `caught` while a named pipe is waited for.
    fn open_unless(target: Option<&Path>, caught: &dyn Fn() -> Option<Signal>) -> Result<Self, Failure> {
        let Some(target) = target else { return Ok(Self::Stdout) };
        if let Ok(meta) = std::fs::metadata(target) {
            if meta.is_dir() {
                return Err(Failure::error(format!("could not create file {target:?}: it is a directory")));
            }
            if !meta.is_file() {
                let is_pipe = meta.file_type().is_fifo();
                let file = if is_pipe { open_pipe(target, caught) } else { open_special(target) }?;
                return Ok(Self::Special(file, target.into()));
            }
        }
        // Behind a symbolic link it is the file that is replaced, not the link.
        let target = &target.canonicalize().unwrap_or_else(|_| target.into());
        let name = target
            .file_name()
            .ok_or_else(|| Failure::error(format!("output {target:?}: expected a file name")))?;
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
        Ok(Self::Aside(Aside { file, temporary, target: target.into(), named, synced: false }))
    }

    /// True when nothing would be left of the result if this process ended now.
    pub fn leaves_nothing(&self) -> bool {
        !matches!(self, Self::Aside(aside) if aside.named)
    }

    /// True for a file, which nobody sees before it is finished.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::Aside(_))
    }

    /// Takes back all that was written.
    ///
    /// # Errors
    /// When that is no file, or cannot be changed.
    pub fn restart(&mut self) -> Result<(), Failure> {
        let Self::Aside(Aside { file, target, .. }) = self else {
            return Err(Failure::error(
                "output: expected a file, which can be written anew, found another thing",
            ));
        };
        file.set_len(0).and_then(|()| file.rewind()).map_err(|e| Failure::io("write", target, &e))
    }

    /// Lets the disk begin with bytes that were written, as far as it is known how.
    pub fn send_on(&self, from: u64, len: u64) {
        if let (Self::Aside(aside), Ok(from), Ok(len)) = (self, from.try_into(), len.try_into()) {
            // Linux begins to write what is dirty, and forgets what is not.
            let _ = posix_fadvise(&aside.file, from, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// A full disk, or a reader that is gone: that one ends the program as SIGPIPE would have.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout => std::io::stdout().write_all(bytes).map_err(|e| stdout_error(&e)),
            Self::Special(file, path) => match file.write_all(bytes) {
                Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Failure::Signal(Signal::SIGPIPE)),
                other => other.map_err(|e| Failure::io("write", path, &e)),
            },
            Self::Aside(aside) => {
                aside.synced = false;
                aside.file.write_all(bytes).map_err(|e| Failure::io("write", &aside.target, &e))
            }
        }
    }

    /// Lets a reader see what was written so far, where there can be one.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Self::Stdout => std::io::stdout().flush().map_err(|e| stdout_error(&e)),
            _ => Ok(()),
        }
    }

    /// Brings what was written to where it can be lost no more.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn sync(&mut self) -> Result<(), Failure> {
        match self {
            Self::Aside(aside) => aside.sync(),
            _ => self.flush(),
        }
    }

    /// Makes the result stay: flushed, or synced and renamed.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn finish(mut self) -> Result<(), Failure> {
        self.sync()?;
        match self {
            Self::Stdout | Self::Special(..) => Ok(()),
            Self::Aside(aside) => aside.publish(),
        }
    }
}

impl Aside {
    fn sync(&mut self) -> Result<(), Failure> {
        if !self.synced {
            self.file.sync_all().map_err(|e| Failure::io("sync", &self.target, &e))?;
            at(Point::OutputSynced)?;
            self.synced = true;
        }
        Ok(())
    }

    fn publish(mut self) -> Result<(), Failure> {
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

fn temporary_name(name: &OsStr, pid: u32) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{pid}.tmp"));
    temporary
}

/// A file without a name where `target` is to be; `None` when it could not be given one later.
fn open_nameless(target: &Path) -> Option<File> {
    let flags = libc::O_TMPFILE;
    let file = OpenOptions::new().write(true).custom_flags(flags).mode(0o666).open(directory(target)).ok()?;
    Path::new(&path_of(&file)).exists().then_some(file)
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

fn stdout_error(e: &std::io::Error) -> Failure {
    if e.kind() == ErrorKind::BrokenPipe {
        return Failure::Signal(Signal::SIGPIPE);
    }
    Failure::error(format!("could not write to standard output: {e}"))
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

    #[test]
    fn a_file_appears_at_the_end_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("out.tsv");
        let mut output = Output::open(Some(&target)).expect("made");
        output.write(b"half").expect("room");
        assert!(!target.exists());
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0, "something was left");
        let mut output = Output::open(Some(&target)).expect("made");
        output.write(b"whole").expect("room");
        output.finish().expect("renamed");
        assert_eq!(std::fs::read(&target).expect("there"), b"whole");
        // Again, over the file that is there now, and with something of a dead process beside it.
        let left = dir.path().join(".out.tsv.4194305.tmp");
        std::fs::write(&left, "left").expect("written");
        let mut output = Output::open(Some(&target)).expect("made");
        assert!(!left.exists(), "no process has that number");
        output.write(b"new").expect("room");
        assert_eq!(std::fs::read(&target).expect("there"), b"whole");
        output.finish().expect("renamed");
        assert_eq!(std::fs::read(&target).expect("there"), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1, "something was left");
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
