//! Where the segment lies, and whether it has room there: in /dev/shm, or with `--segment-dir` in a file, as Postgres's
//! `dynamic_shared_memory_type = mmap` has it.
//!
//! What a run needs is estimated before it begins ([`crate::memory`]). Where there is less, it takes several passes; where that does not help, it
//! does not begin. The estimate may be wrong, and others may take room meanwhile: a file system that is full after all is an error of the worker
//! that meets it, never a bus error (I8).

use crate::failure::Failure;
use crate::limits::{cgroup_left, space};
use crate::memory::Need;
use crate::progress::figures::bytes;
use clap::Args;
use shm_layout::place;
use shm_layout::segment::SHM_DIR;
use std::path::{Path, PathBuf};

/// What is left for others, in percent of the file system.
const SPARE: u64 = 2;
/// Address space of a file: some file systems have no larger ones.
const MAX_FILE: u64 = 8 << 40;

/// Options about the segment's place.
#[derive(Clone, Debug, Default, Args)]
pub struct RoomArgs {
    /// Lay the segment in a file in DIR, which takes disk instead of memory, where /dev/shm is too small [default: /dev/shm]
    #[arg(long, value_name = "DIR", help_heading = "Processes")]
    pub segment_dir: Option<PathBuf>,
    /// Print what the run would read and need, from a look at some blocks, and do nothing
    #[arg(short = 'n', long, help_heading = "Processes")]
    pub dry_run: bool,
}

/// The file system that the segment will lie in.
#[derive(Clone, Debug)]
pub struct Room {
    /// The directory, if it is not /dev/shm.
    pub dir: Option<PathBuf>,
    /// Bytes that are free; `None`: it does not tell.
    pub free: Option<u64>,
    /// Bytes in all.
    pub total: u64,
}

impl Room {
    /// Looks at the place.
    ///
    /// # Errors
    /// When the directory is none.
    pub fn look(dir: Option<&Path>) -> Result<Self, Failure> {
        let dir = dir.map(place::directory).transpose()?;
        let found = space(dir.as_deref().unwrap_or(Path::new(SHM_DIR)));
        Ok(Self { dir, free: found.map(|f| f.0), total: found.map_or(0, |f| f.1) })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.as_deref().unwrap_or(Path::new(SHM_DIR))
    }

    /// Bytes that a segment may take there, where `memory` is all that the processes may take, and they have `private` besides: who writes sums
    /// takes that in earnest, others a part of it.
    pub fn allowed(&self, memory: Option<u64>, private: u64, summed: bool) -> u64 {
        let allowed = memory.map_or(u64::MAX, |memory| of_memory(memory, private));
        // Pages of a file can be written to it and given back.
        let left = cgroup_left().filter(|_| self.dir.is_none());
        let left = left.map_or(u64::MAX, |left| of_group(left, private, summed));
        allowed.min(left).min(self.address_space())
    }

    /// Address space that is worth having there: memory is not taken before it is written.
    pub fn address_space(&self) -> u64 {
        match (self.free, &self.dir) {
            (None, _) => u64::MAX,
            (Some(_), None) => (self.total - self.total / 100 * SPARE).max(1 << 20).saturating_mul(64),
            (Some(free), Some(_)) => free.max(1 << 20).saturating_mul(4).min(MAX_FILE),
        }
    }

    /// Bytes that the records of a pass may take: some is for tables, and stripes are not all alike.
    pub fn for_records(&self, need: &Need) -> u64 {
        let free = self.free.map_or(u64::MAX, |free| free.saturating_sub(self.total / 100 * SPARE));
        free.saturating_sub(need.control + need.unit_bytes) / 4 * 3
    }

    /// Says that there is not enough, however many passes are taken.
    pub fn too_small(&self, need: &Need, passes: u64) -> Failure {
        let wanted = need.segment(passes) + need.results / passes;
        let free = bytes(self.free.unwrap_or(0));
        let text = format!(
            "no room in {:?}: expected about {} for the segment, found {free} free of {}",
            self.path(),
            bytes(wanted),
            bytes(self.total)
        );
        Failure::error(text).hint(self.way_out())
    }

    /// What helps.
    pub fn way_out(&self) -> &'static str {
        match self.dir {
            Some(_) => "make room there, or name another directory",
            None => {
                "make it larger (mount -o remount,size=... /dev/shm, docker run --shm-size=...), or lay the segment in a directory on a disk: --segment-dir DIR"
            }
        }
    }

    /// What a user should know who has to wait for several passes because of it.
    pub fn note(&self, need: &Need, passes: u64) -> String {
        let (path, free, wanted) =
            (self.path(), bytes(self.free.unwrap_or(0)), bytes(need.segment(1) + need.results));
        let way = if self.dir.is_none() { "; --segment-dir DIR takes one" } else { "" };
        format!("{path:?} has {free} free, and one pass needs about {wanted}: up to {passes} passes{way}")
    }
}

/// What `memory`, which is said of all processes, leaves for the segment: they have `private` besides.
pub fn of_memory(memory: u64, private: u64) -> u64 {
    memory.saturating_sub(private).max(memory / 4)
}

/// The same of what is left in a control group.
fn of_group(left: u64, private: u64, summed: bool) -> u64 {
    of_memory(left - left / 16, if summed { private } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn a_group_leaves_what_is_not_private() {
        // A sixteenth of what is left is nobody's.
        assert_eq!(of_group(400 * MB, 128 * MB, false), 375 * MB, "private memory that is hardly touched");
        assert_eq!(of_group(400 * MB, 128 * MB, true), 247 * MB);
        assert_eq!(of_group(160 * MB, 128 * MB, true), 150 * MB / 4, "a quarter at the least");
        assert_eq!(of_group(0, 128 * MB, true), 0);
    }

    #[test]
    fn memory_is_said_of_all_processes() {
        assert_eq!(of_memory(400 * MB, 128 * MB), 272 * MB);
        assert_eq!(of_memory(100 * MB, 128 * MB), 25 * MB, "a quarter at the least");
    }
}
