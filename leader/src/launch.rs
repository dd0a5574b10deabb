//! One worker process: started with a slot and a generation, watched by a pidfd, recovered before it is reaped.
//!
//! A worker's standard input is the read end of a pipe whose write end only the leader has: its end of file is the leader's end, however that
//! came. Its standard output is the leader's ear: a byte there says that the worker found nothing to claim. Workers are in a process group
//! of their own, so a Ctrl-C at the terminal reaches the leader alone, which knows what to do.
//!
//! The binary is the one beside the leader's own, not one from PATH.

use crate::birth::watched;
use crate::failure::Failure;
use crate::standard;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use shm_layout::inject::{Point, at};
use shm_layout::process::pidfd_open;
use shm_layout::words::Owner;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Name of the worker's binary.
pub const WORKER_BINARY: &str = "kmer-worker";

/// The pipes between the leader and all of its workers.
pub struct Lines {
    /// Read end that workers get as standard input.
    life: OwnedFd,
    /// Write end of it; closed by the leader's end.
    _hold: OwnedFd,
    /// Write end that workers get as standard output.
    mouth: OwnedFd,
    /// Read end of it.
    ear: OwnedFd,
}

impl Lines {
    /// New pipes. None of the ends is inherited but through [`Launcher::launch`].
    ///
    /// # Errors
    /// When there are no file descriptors left.
    pub fn new() -> Result<Self, Failure> {
        use nix::fcntl::OFlag;
        let pipe = |flags| {
            nix::unistd::pipe2(flags).map_err(|e| Failure::error(format!("could not make a pipe: {e}")))
        };
        let (life, hold) = pipe(OFlag::O_CLOEXEC)?;
        let (ear, mouth) = pipe(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Self { life, _hold: hold, mouth, ear })
    }

    /// The leader's ear.
    pub fn ear(&self) -> BorrowedFd<'_> {
        self.ear.as_fd()
    }

    /// Empties the ear.
    pub fn listen(&self) {
        let mut bytes = [0; 512];
        while nix::unistd::read(&self.ear, &mut bytes).is_ok_and(|n| n == bytes.len()) {}
    }
}

/// A worker process that was not reaped yet.
pub struct Running {
    /// Who it is.
    pub owner: Owner,
    child: Child,
    pidfd: OwnedFd,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Exit(i32),
    /// It died by this signal.
    Killed(Signal),
    /// Somebody else reaped it.
    Unknown,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Killed(signal) => write!(f, "killed by {signal}"),
            Self::Unknown => write!(f, "status unknown"),
        }
    }
}

/// Starts workers for one segment.
pub struct Launcher {
    binary: PathBuf,
    segment: String,
    keep: bool,
    inject: Vec<String>,
    /// Slot of the feeder, if there is a stream.
    feeder: Option<u16>,
    /// What its input - stands for.
    input: Option<OwnedFd>,
    /// The pipes.
    pub lines: Lines,
}

impl Launcher {
    /// A launcher of the worker binary beside this program. With `keep` the workers leave the segment when the leader dies; `inject` are the
    /// rules that they obey.
    ///
    /// # Errors
    /// When the binary is not there or not to be executed.
    pub fn new(segment: &str, keep: bool, inject: Vec<String>) -> Result<Self, Failure> {
        Ok(Self {
            binary: find_binary()?,
            segment: segment.into(),
            keep,
            inject,
            feeder: None,
            input: None,
            lines: Lines::new()?,
        })
    }

    /// The same, where the worker in slot `feeder` is a feeder, which gets standard input if `stdin` says so.
    ///
    /// # Errors
    /// When there are no file descriptors left.
    pub fn with_feeder(mut self, feeder: Option<u16>, stdin: bool) -> Result<Self, Failure> {
        self.feeder = feeder;
        if stdin {
            let copy = standard::input();
            self.input =
                Some(copy.map_err(|e| Failure::error(format!("could not copy standard input: {e}")))?.into());
        }
        Ok(self)
    }

    /// Lets the next child have standard input, or no further one.
    fn pass_input(&self, pass: bool) -> std::io::Result<Option<i32>> {
        let Some(input) = &self.input else { return Ok(None) };
        let flags = if pass { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
        fcntl(input, FcntlArg::F_SETFD(flags))?;
        Ok(pass.then(|| input.as_raw_fd()))
    }

    /// The worker's binary.
    pub fn binary(&self) -> &std::path::Path {
        &self.binary
    }

    /// Starts a worker, or one in place of a dead one.
    ///
    /// # Errors
    /// When the system cannot start a process (any more), or not watch it. There is no process then, but there may have been one.
    pub fn launch(&self, owner: Owner, replacement: bool) -> std::io::Result<Running> {
        let feeds = self.feeder == Some(owner.slot);
        let input = if feeds { self.pass_input(true)? } else { None };
        let mut command = Command::new(&self.binary);
        command
            .args(["--segment", &self.segment])
            .args(["--slot", &owner.slot.to_string(), "--generation", &owner.generation.to_string()])
            .args(["--leader", &std::process::id().to_string()])
            .args(self.keep.then_some("--keep"))
            .args(replacement.then_some("--replacement"))
            .args(feeds.then_some("--feed"))
            .args(input.iter().flat_map(|number| ["--input".to_owned(), number.to_string()]))
            .args(self.inject.iter().flat_map(|rule| ["--inject", rule]))
            .stdin(Stdio::from(self.lines.life.try_clone()?))
            .stdout(Stdio::from(self.lines.mouth.try_clone()?))
            .process_group(0);
        let child = watched(|| command.spawn());
        let closed = self.pass_input(false);
        let mut child = child?;
        match closed.and_then(|_| watch(&child)) {
            Ok(pidfd) => Ok(Running { owner, child, pidfd }),
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(e)
            }
        }
    }
}

/// What the end of a new process will be seen by.
fn watch(child: &Child) -> std::io::Result<OwnedFd> {
    at(Point::LaunchForked).map_err(|_| std::io::Error::from_raw_os_error(nix::libc::EMFILE))?;
    pidfd_open(child.id())
}

/// Whether the system may start a process later: it has too many now, or too little memory or file descriptors.
pub fn no_room(e: &std::io::Error) -> bool {
    use nix::libc::{EAGAIN, EMFILE, ENFILE, ENOMEM};
    matches!(e.raw_os_error(), Some(EAGAIN | EMFILE | ENFILE | ENOMEM))
}

/// The error about a worker binary that cannot be executed.
pub fn cannot_execute(binary: &Path, e: &std::io::Error) -> Failure {
    Failure::error(format!("could not execute worker {binary:?}: {e}"))
        .hint("kmer-leader and kmer-worker belong into one directory")
}

/// Says before the start what is wrong with the worker's binary.
///
/// # Errors
/// When it is not there or not to be executed.
pub fn find_binary() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()
        .map_err(|e| Failure::error(format!("could not find the own program: {e}")))?;
    let binary = own.with_file_name(WORKER_BINARY);
    let failed = |e: std::io::Error| cannot_execute(&binary, &e);
    let meta = std::fs::metadata(&binary).map_err(failed)?;
    if !meta.is_file() {
        return Err(failed(std::io::Error::from_raw_os_error(nix::libc::EACCES)));
    }
    match nix::unistd::access(&binary, nix::unistd::AccessFlags::X_OK) {
        Ok(()) => Ok(binary),
        Err(e) => Err(failed(e.into())),
    }
}

impl Running {
    /// Becomes readable when the process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its process id, for people.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has; it is not reaped yet, so its id still stands for it alone.
    pub fn ended(&self) -> Option<End> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::PIDFd(self.pidfd.as_fd()), flags) {
            Ok(WaitStatus::Exited(_, code)) => Some(End::Exit(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(End::Killed(signal)),
            Ok(_) | Err(nix::Error::EINTR) => None,
            Err(_) => Some(End::Unknown),
        }
    }

    /// True when it was stopped since the last look.
    pub fn was_stopped(&self) -> bool {
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
        matches!(waitid(Id::PIDFd(self.pidfd.as_fd()), flags), Ok(WaitStatus::Stopped(..)))
    }

    /// Reaps it after recovery.
    pub fn reap(mut self) {
        let _ = self.child.wait();
    }

    /// Ends it for sure.
    pub fn kill(&self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
    }
}
