//! Names for pinned segments of tests, which go when the test ends.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What tests pin begins with this below /dev/shm; the audit of [`crate::engine`] leaves it to the guard here.
pub const PREFIX: &str = "kmer.pin.t-";

/// A name for a pinned segment.
#[derive(Debug)]
pub struct PinName(String);

impl PinName {
    /// A name that nobody else has.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "every one is another")]
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        Self(format!("t-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    /// As a user types it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The object.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm/kmer.pin.{}", self.0))
    }

    /// Puts these bytes in its place.
    ///
    /// # Panics
    /// When there is no room.
    pub fn plant(&self, bytes: &[u8]) {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(self.path()).expect("a file in shared memory");
        file.write_all_at(bytes, 0).expect("room");
    }
}

impl Drop for PinName {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}
