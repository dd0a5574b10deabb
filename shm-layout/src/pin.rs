//! Keeps a segment beyond its run, under a name that a user chose (Postgres: `dsm_pin_segment`, and `dsm_registry` for the name).
//!
//! The segment is made like any other, under a random name that a sweep removes when its maker dies; it is filled, published and marked as pinned,
//! and then *renamed* to [`PIN_PREFIX`] and the name. That one step makes it a pinned segment: the mark alone does not, so whatever kills the
//! maker before it leaves an orphan, and after it a whole result. Who replaces a pinned segment does so in the same step; those who are
//! attached to the old one keep it until they let go.

use crate::error::{Error, Result};
use crate::inject::{Point, at};
use crate::place::path_of;
use crate::segment::{FLAG_PINNED, FLAGS, Segment, os};
use crate::sync::Ordering;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Names of pinned segments begin with this, below /dev/shm.
pub const PIN_PREFIX: &str = "kmer.pin.";
/// Longest name that a user may choose.
pub const MAX_PIN_NAME: usize = 200;

/// The name in shared memory of what a user calls `name`, with or without [`PIN_PREFIX`].
///
/// # Errors
/// [`Error::PinName`] when it is empty, too long, or has other characters than letters, digits, `.`, `_` and `-`.
pub fn pin_name(name: &str) -> Result<String> {
    let bare = name.strip_prefix(PIN_PREFIX).unwrap_or(name);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if bare.is_empty() || bare.len() > MAX_PIN_NAME || !bare.chars().all(plain) {
        return Err(Error::PinName { name: name.into() });
    }
    Ok(format!("{PIN_PREFIX}{bare}"))
}

/// True when there is an object of that name, whatever it is.
pub fn exists(name: &str) -> bool {
    std::fs::symlink_metadata(path_of(name)).is_ok()
}

impl Segment {
    /// Marks the segment as pinned, before the last of its bytes is written. It is not pinned before [`Segment::pin`].
    ///
    /// # Errors
    /// None for a mapped segment.
    pub fn mark_pinned(&self) -> Result<()> {
        self.map().word(FLAGS)?.fetch_or(FLAG_PINNED, Ordering::Relaxed);
        Ok(())
    }

    /// Pins the segment, which is published and marked, as `name` (see [`pin_name`]). It stays when this handle goes.
    ///
    /// # Errors
    /// [`Error::PinExists`] when there is one of that name and it is not to be replaced.
    pub fn pin(&self, name: &str, replace: bool) -> Result<()> {
        at(Point::PinFilled)?;
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::RENAME_NOREPLACE };
        match renameat2(AT_FDCWD, &path_of(self.name()), AT_FDCWD, &path_of(name), flags) {
            Ok(()) => {
                self.set_removes(false);
                Ok(())
            }
            Err(Errno::EEXIST) => Err(Error::PinExists { name: name.into() }),
            Err(e) => Err(os("pin", name, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(pin_name("genomes21").expect("plain"), "kmer.pin.genomes21");
        assert_eq!(pin_name("kmer.pin.a-b_c.d").expect("plain"), "kmer.pin.a-b_c.d");
        for bad in ["", "kmer.pin.", "a/b", "a b", "\u{e4}", "..\0", &"x".repeat(201)] {
            assert!(pin_name(bad).is_err(), "{bad:?}");
        }
    }
}
