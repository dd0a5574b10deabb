//! The signals by which users end a run. They are caught by a file descriptor, so that a leader hears of them where it waits for its workers.

use crate::failure::Failure;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGINT, SIGTERM and SIGHUP, as long as they are caught.
pub struct Signals(pub(crate) SignalFd);

impl Signals {
    /// Blocks SIGINT, SIGTERM and SIGHUP and catches them; SIGCHLD gets its default back, in case it was ignored by whoever started us.
    ///
    /// # Errors
    /// When there are no file descriptors left.
    #[allow(clippy::missing_panics_doc, reason = "does not panic")]
    pub fn catch() -> Result<Self, Failure> {
        let failed = |e: nix::Error| Failure::error(format!("could not catch signals: {e}"));
        shm_layout::process::default_sigchld()
            .map_err(|e| Failure::error(format!("could not catch signals: {e}")))?;
        shm_layout::process::ignore_file_size_signal()
            .map_err(|e| Failure::error(format!("could not catch signals: {e}")))?;
        let set = Self::set();
        set.thread_block().map_err(failed)?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self).map_err(failed)
    }

    /// Lets signals end the process from now on: nothing has to be cleaned up.
    pub fn release(&self) {
        let _ = Self::set().thread_unblock();
    }

    /// Catches signals again.
    pub fn hold(&self) {
        let _ = Self::set().thread_block();
    }

    fn set() -> SigSet {
        let mut set = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].iter().for_each(|s| set.add(*s));
        set
    }

    /// The signal that came, if one did.
    pub fn caught(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok()??;
        Signal::try_from(info.ssi_signo as i32).ok()
    }
}
