//! Looks up in a data directory whether transactions committed: `pg_xact` and `pg_multixact`.
//!
//! An [`Oracle`] for [`crate::PageReader::with_oracle`]: with it, tuples need no hint bits. Workers may share one or open
//! their own; it holds a small cache of pages.
//!
//! Promises: what the files do not say is [`XidStatus::Unknown`], never a guess: a missing file (older than the server keeps),
//! a short or unreadable one, a sub-transaction whose parent is still open.
//!
//! What it does not do: replay WAL or look at a running server's memory. The directory has to be one of a server that was
//! shut down, or checkpointed after the transactions in question; who opens it checks that. A transaction without an
//! entry there had not committed, so its work does not count.
//!
//! Source of the formats: `clog.c` (2 bits a transaction, lowest first), `multixact.c` (offsets of 4 bytes; members in groups
//! of four flag bytes and four xids, 409 groups a page), `multixact.h` (member states above 3 update), `slru.c` (32 pages a
//! file, its number in at least four hexadecimal digits).

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bytes::u32_at;
use crate::error::Result;
use crate::file::io_error;
use crate::page::BLOCK_SIZE;
use crate::visibility::{Oracle, XidStatus};

const PAGES_PER_FILE: u32 = 32;
const XIDS_PER_PAGE: u32 = 4 * BLOCK_SIZE as u32;
const OFFSETS_PER_PAGE: u32 = BLOCK_SIZE as u32 / 4;
const GROUP_MEMBERS: u32 = 4;
const GROUP_BYTES: usize = 20;
const MEMBERS_PER_PAGE: u32 = (BLOCK_SIZE / GROUP_BYTES) as u32 * GROUP_MEMBERS;
const HIGHEST_LOCK: u8 = 3;
/// More members than a multixact of any real load has; a damaged offset must not keep us busy.
const MAX_MEMBERS: u32 = 1 << 16;
/// 8 MB of each kind.
const CACHED_PAGES: usize = 1024;

/// The transaction logs of a data directory.
#[derive(Debug)]
pub struct PgXact {
    xact: Slru,
    offsets: Slru,
    members: Slru,
}

impl PgXact {
    /// Opens the logs below a data directory.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] if `pg_xact` is not there or cannot be read.
    pub fn open(data_directory: &Path) -> Result<Self> {
        let xact = data_directory.join("pg_xact");
        std::fs::read_dir(&xact).map_err(|e| io_error("cannot read the directory", e).in_file(&xact))?;
        let multixact = data_directory.join("pg_multixact");
        Ok(Self {
            xact: Slru::new(xact),
            offsets: Slru::new(multixact.join("offsets")),
            members: Slru::new(multixact.join("members")),
        })
    }

    /// The updating member of a multixact; `Some(0)` if all members only lock.
    fn updater(&self, multi: u32) -> Option<u32> {
        let first = self.offset(multi).filter(|&offset| offset != 0)?;
        // 0 is never a multixact and the newest one has no successor yet: its members end where nothing was written.
        let next = self.offset(multi.wrapping_add(1).max(1)).unwrap_or(0);
        let count = if next == 0 { MAX_MEMBERS } else { next.wrapping_sub(first) };
        if count > MAX_MEMBERS {
            return None;
        }
        for n in 0..count {
            let (flags, xid) = self.member(first.wrapping_add(n))?;
            match xid {
                // Offset 0 is skipped when the offsets wrap around.
                0 if first.wrapping_add(n) == 0 => {}
                0 if next == 0 && n > 0 => return Some(0),
                0 => return None,
                xid if flags > HIGHEST_LOCK => return Some(xid),
                _ => {}
            }
        }
        Some(0)
    }

    fn offset(&self, multi: u32) -> Option<u32> {
        let page = self.offsets.page(multi / OFFSETS_PER_PAGE)?;
        u32_at(&page[..], (multi % OFFSETS_PER_PAGE) as usize * 4)
    }

    /// State and xid of a member.
    fn member(&self, offset: u32) -> Option<(u8, u32)> {
        let page = self.members.page(offset / MEMBERS_PER_PAGE)?;
        let in_page = offset % MEMBERS_PER_PAGE;
        let (group, member) = (in_page / GROUP_MEMBERS, (in_page % GROUP_MEMBERS) as usize);
        let at = group as usize * GROUP_BYTES;
        Some((*page.get(at + member)?, u32_at(&page[..], at + 4 + member * 4)?))
    }
}

impl Oracle for PgXact {
    fn transaction(&self, xid: u32) -> XidStatus {
        let Some(page) = self.xact.page(xid / XIDS_PER_PAGE) else { return XidStatus::Unknown };
        let in_page = xid % XIDS_PER_PAGE;
        let byte = page.get((in_page / 4) as usize).copied().unwrap_or(3);
        match byte >> (in_page % 4 * 2) & 3 {
            0 => XidStatus::InProgress,
            1 => XidStatus::Committed,
            2 => XidStatus::Aborted,
            _ => XidStatus::Unknown,
        }
    }

    fn multixact_updater(&self, multi: u32) -> XidStatus {
        match self.updater(multi) {
            None => XidStatus::Unknown,
            Some(0) => XidStatus::Aborted,
            Some(xid) => self.transaction(xid),
        }
    }
}

type LogPage = Arc<[u8; BLOCK_SIZE]>;

/// A directory of numbered files of 32 pages each; pages are kept once read.
#[derive(Debug)]
struct Slru {
    dir: PathBuf,
    cache: Mutex<HashMap<u32, Option<LogPage>>>,
}

impl Slru {
    fn new(dir: PathBuf) -> Self {
        Self { dir, cache: Mutex::default() }
    }

    fn page(&self, number: u32) -> Option<LogPage> {
        // The cache holds whole pages or nothing, whatever happened to the last owner of the lock.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = cache.get(&number) {
            return page.clone();
        }
        if cache.len() >= CACHED_PAGES {
            cache.clear();
        }
        let page = self.read(number).map(Arc::new);
        cache.insert(number, page.clone());
        page
    }

    fn read(&self, number: u32) -> Option<[u8; BLOCK_SIZE]> {
        let file = File::open(self.dir.join(format!("{:04X}", number / PAGES_PER_FILE))).ok()?;
        let mut page = [0; BLOCK_SIZE];
        let start = u64::from(number % PAGES_PER_FILE) * BLOCK_SIZE as u64;
        // Retries when interrupted.
        file.read_exact_at(&mut page, start).ok()?;
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use XidStatus::{Aborted, Committed, InProgress, Unknown};

    /// A data directory with `pages` written at the start of each file named.
    fn directory(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["pg_xact", "pg_multixact/offsets", "pg_multixact/members"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    #[test]
    fn transactions_are_two_bits_each() {
        let mut log = vec![0; 2 * BLOCK_SIZE];
        log[0] = 0b11_10_01_00;
        log[BLOCK_SIZE] = 0b01;
        let dir = directory(&[("pg_xact/0000", log), ("pg_xact/0FFF", vec![0x55; 100])]);
        let logs = PgXact::open(dir.path()).unwrap();
        let status = |xid| logs.transaction(xid);
        assert_eq!([0, 1, 2, 3].map(status), [InProgress, Committed, Aborted, Unknown]);
        assert_eq!([32768, 32769].map(status), [Committed, InProgress]);
        // Behind the file's end, no file, a file too short for a page.
        assert_eq!([65536, 32 * 32768, u32::MAX].map(status), [Unknown; 3]);
        let text = PgXact::open(&dir.path().join("no")).unwrap_err().to_string();
        assert!(text.contains("pg_xact\": cannot read the directory: No such file"), "{text}");
    }

    #[test]
    fn a_multixact_deletes_if_its_updater_committed() {
        let mut log = vec![0; BLOCK_SIZE];
        // 100 committed, 101 aborted.
        log[25] = 0b10_01;
        let mut offsets = vec![0; BLOCK_SIZE];
        for (multi, offset) in [(1u32, 1u32), (2, 3), (3, 5), (4, 1637), (5, 1 << 20), (6, 2)] {
            offsets[multi as usize * 4..][..4].copy_from_slice(&offset.to_le_bytes());
        }
        let mut members = vec![0; 2 * BLOCK_SIZE];
        for (offset, state, xid) in [
            (1usize, 0u8, 100u32),
            (2, 5, 101),
            (3, 4, 100),
            (4, 1, 102),
            (5, 3, 100),
            (6, 1, 101),
            (1637, 5, 100),
        ] {
            let (page, slot) = (offset / 1636, offset % 1636);
            let at = page * BLOCK_SIZE + slot / 4 * 20;
            members[at + slot % 4] = state;
            members[at + 4 + slot % 4 * 4..][..4].copy_from_slice(&xid.to_le_bytes());
        }
        let dir = directory(&[
            ("pg_xact/0000", log),
            ("pg_multixact/offsets/0000", offsets),
            ("pg_multixact/members/0000", members),
        ]);
        let logs = PgXact::open(dir.path()).unwrap();
        let status = |multi| logs.multixact_updater(multi);
        assert_eq!(status(1), Aborted);
        assert_eq!(status(2), Committed);
        // Two locks and then nothing, though the next offset lies further on: damaged.
        assert_eq!(status(3), Unknown);
        // Of the second page; and where offsets run backwards or were never written.
        assert_eq!([4, 5, 7, 100_000].map(status), [Unknown; 4]);
        // The newest, ended by what was never written; its updater 101 aborted.
        assert_eq!(status(6), Aborted);
    }
}
