//! Keeps a segment beyond its run, under a name that a user chose (Postgres: `dsm_pin_segment`, and `dsm_registry` for the name).
//!
//! The segment is made like any other, under a random name that a sweep removes when its maker dies; it is filled, published and marked as pinned,
//! and then *renamed* to [`PIN_PREFIX`] and the name. That one step makes it a pinned segment: the mark alone does not, so whatever kills the
//! maker before it leaves an orphan, and after it a whole result. Who replaces a pinned segment exchanges the two names in the same step, so that
//! the old one can be put back while something else may fail still; those who are attached to it keep it until they let go.

use crate::error::{Error, Result};
use crate::inject::{Point, at};
use crate::place::{is_drawn, path_of};
use crate::segment::{FLAG_PINNED, FLAGS, Segment, os};
use crate::sync::Ordering;
use crate::takeover::{in_use, is_named, list};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs::File;
use std::time::{Duration, Instant};

/// Names of pinned segments begin with this, below /dev/shm.
pub const PIN_PREFIX: &str = "kmer.pin.";
/// Longest name that a user may choose.
pub const MAX_PIN_NAME: usize = 200;

/// The name in shared memory of what a user calls `name`, with or without [`PIN_PREFIX`].
///
/// # Errors
/// [`Error::PinName`] when it is empty, too long, or has other characters than letters, digits, `.`, `_` and `-`, the first of them no `-`; when it has
/// the prefix twice.
pub fn pin_name(name: &str) -> Result<String> {
    let bare = name.strip_prefix(PIN_PREFIX).unwrap_or(name);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    // One with the prefix twice would be taken for another's name, one that began with a dash for an option.
    let apart = !bare.starts_with(PIN_PREFIX) && !bare.starts_with('-');
    if bare.is_empty() || bare.len() > MAX_PIN_NAME || !bare.chars().all(plain) || !apart {
        return Err(Error::PinName { name: name.into() });
    }
    Ok(format!("{PIN_PREFIX}{bare}"))
}

/// A pinned segment whose name another one took. While this is there nobody sweeps it.
#[derive(Debug)]
pub struct Replaced(Option<File>);

impl Replaced {
    /// Waits as long as the segment is under somebody's passing name: only our lock keeps it from being swept. Whoever took the name either gives it back or is done, soon.
    fn keep_while_at(&self, place: &str) {
        let end = Instant::now() + PATIENCE;
        let is_there = || self.0.as_ref().is_some_and(|file| is_named(place, file).unwrap_or(false));
        while is_drawn(place) && is_there() && Instant::now() < end {
            std::thread::sleep(LOOK);
        }
    }
}

/// How long a result that was replaced is kept for another run that may still give it back, and how often it is looked.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

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

    /// Pins the segment, which is published and marked, as `name` (see [`pin_name`]). It stays when this handle goes. Where it took the place of
    /// another one, that has this one's passing name: [`Segment::unpin`] gives it back its own, and the end of this handle removes it.
    ///
    /// # Errors
    /// [`Error::PinExists`] when there is one of that name and it is not to be replaced.
    pub fn pin(&self, name: &str, replace: bool) -> Result<Option<Replaced>> {
        at(Point::PinFilled)?;
        let rename = |flags| renameat2(AT_FDCWD, &path_of(self.name()), AT_FDCWD, &path_of(name), flags);
        loop {
            if replace {
                // Under its passing name it would be an orphan for others.
                let held = in_use(name);
                if std::fs::symlink_metadata(path_of(name)).is_ok_and(|found| found.is_dir()) {
                    return Err(os("replace", name, Errno::EISDIR));
                }
                match rename(RenameFlags::RENAME_EXCHANGE) {
                    Ok(()) => return Ok(Some(Replaced(held))),
                    Err(Errno::ENOENT) => {}
                    Err(e) => return Err(os("pin", name, e)),
                }
            }
            match rename(RenameFlags::RENAME_NOREPLACE) {
                Ok(()) => {
                    self.set_removes(false);
                    return Ok(None);
                }
                // It came at this moment.
                Err(Errno::EEXIST) if replace => {}
                Err(Errno::EEXIST) => return Err(Error::PinExists { name: name.into() }),
                Err(e) => return Err(os("pin", name, e)),
            }
        }
    }

    /// Takes back what [`Segment::pin`] did: `name` is the replaced one's again, or nobody's. Where somebody else's segment has the name meanwhile it
    /// stays; if that one keeps ours, to give it the name back, it keeps the one that we replaced instead.
    ///
    /// # Errors
    /// [`Error::Os`] when that cannot be.
    pub fn unpin(&self, name: &str, replaced: Option<&Replaced>) -> Result<()> {
        let Some(file) = self.map().file() else { return Ok(()) };
        let is_ours = |name: &str| is_named(name, file).unwrap_or(false);
        if replaced.is_none() {
            return if is_ours(name) { Self::destroy(name) } else { Ok(()) };
        }
        loop {
            // Whoever replaced ours may give the name back, or be done, at any moment.
            let place = if is_ours(name) {
                name.to_owned()
            } else {
                let passing = list(None)?.into_iter().map(|listed| listed.name).filter(|name| is_drawn(name));
                match passing.into_iter().find(|other| other != self.name() && is_ours(other)) {
                    Some(kept) => kept,
                    None => return Ok(()),
                }
            };
            let (mine, at) = (path_of(self.name()), path_of(&place));
            match renameat2(AT_FDCWD, &mine, AT_FDCWD, &at, RenameFlags::RENAME_EXCHANGE) {
                Err(Errno::ENOENT) if exists(self.name()) => {}
                Err(e) => return Err(os("give back", name, e)),
                Ok(()) => break replaced.iter().for_each(|replaced| replaced.keep_while_at(&place)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(pin_name("genomes21").expect("plain"), "kmer.pin.genomes21");
        assert_eq!(pin_name("kmer.pin.a-b_c.d").expect("plain"), "kmer.pin.a-b_c.d");
        for bad in [
            "",
            "kmer.pin.",
            "-a",
            "kmer.pin.-a",
            "kmer.pin.kmer.pin.a",
            "a/b",
            "a b",
            "\u{e4}",
            "..\0",
            &"x".repeat(201),
        ] {
            assert!(pin_name(bad).is_err(), "{bad:?}");
        }
    }
}
