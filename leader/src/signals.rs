//! The signals by which users end a run. They are caught by a file descriptor, so that a leader hears of them where it waits for its workers.
//!
//! Promises: a signal that whoever started us had us ignore (`nohup`, a shell's `&`) stays ignored. Where nothing has to be cleaned up signals are let
//! through ([`Signals::let_through`]): so they end the process also where it waits for its input. That holds for process 1 of a container as well.

use crate::failure::Failure;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use shm_layout::process::{default_action, exit_on, is_ignored};
use std::os::fd::{AsFd, BorrowedFd};

/// SIGINT, SIGTERM and SIGHUP, as long as they are caught.
pub struct Signals {
    /// Readable when one came.
    pub(crate) descriptor: SignalFd,
    /// Those that are not ignored.
    set: SigSet,
}

impl Signals {
    /// Blocks SIGINT, SIGTERM and SIGHUP and catches them, as far as they are not ignored; SIGCHLD gets its default back, in case it was ignored by whoever
    /// started us.
    ///
    /// # Errors
    /// When there are no file descriptors left.
    #[allow(clippy::missing_panics_doc, reason = "does not panic")]
    pub fn catch() -> Result<Self, Failure> {
        default_action(Signal::SIGCHLD).map_err(|e| not_caught(&e))?;
        let mut set = SigSet::empty();
        let ends = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
        ends.into_iter().filter(|signal| !is_ignored(*signal)).for_each(|signal| set.add(signal));
        set.thread_block().map_err(|e| not_caught(&e.into()))?;
        if std::process::id() == 1 {
            set.iter().try_for_each(exit_on).map_err(|e| not_caught(&e))?;
        }
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let descriptor = SignalFd::with_flags(&set, flags).map_err(|e| not_caught(&e.into()))?;
        Ok(Self { descriptor, set })
    }

    /// The same signals, heard in another place: each is heard once, by who asks first.
    ///
    /// # Errors
    /// When there are no file descriptors left.
    pub fn again(&self) -> Result<Self, Failure> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let descriptor = SignalFd::with_flags(&self.set, flags);
        Ok(Self { descriptor: descriptor.map_err(|e| not_caught(&e.into()))?, set: self.set })
    }

    /// Lets signals end the process from now on: nothing has to be cleaned up.
    pub fn release(&self) {
        let _ = self.set.thread_unblock();
    }

    /// Catches signals again.
    pub fn hold(&self) {
        let _ = self.set.thread_block();
    }

    /// Whether this thread catches them.
    pub fn are_caught(&self) -> bool {
        SigSet::thread_get_mask().is_ok_and(|mask| self.set.iter().all(|signal| mask.contains(signal)))
    }

    /// Does something during which signals may end the process, as nothing has to be cleaned up yet.
    pub fn let_through<T>(&self, work: impl FnOnce() -> T) -> T {
        self.release();
        let done = work();
        self.hold();
        done
    }

    /// The signal that came, if one did.
    pub fn caught(&self) -> Option<Signal> {
        let info = self.descriptor.read_signal().ok()??;
        Signal::try_from(info.ssi_signo as i32).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn not_caught(e: &std::io::Error) -> Failure {
    Failure::error(format!("could not catch signals: {e}"))
}
