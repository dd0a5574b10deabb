//! Standard input as a feeder reads it: it may keep a reader waiting, which is not hanging.

use shm_layout::slots::{Figure, Slots};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

/// Milliseconds between two signs of life.
const SIGN: u16 = 200;

/// A file that may have nothing to give for a while.
pub struct Patient {
    file: File,
    slots: Slots,
    slot: u16,
}

impl Patient {
    /// Reads `file` for the feeder in `slot`.
    pub fn new(file: File, slots: Slots, slot: u16) -> Self {
        Self { file, slots, slot }
    }
}

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        loop {
            let _ = self.slots.add(self.slot, Figure::Progress, 1);
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(SIGN)) {
                Ok(0) | Err(nix::Error::EINTR) => {}
                _ => return self.file.read(into),
            }
        }
    }
}
