//! Looks up in a data directory whether transactions committed: `pg_xact`, `pg_subtrans` and `pg_multixact`.
//!
//! An [`Oracle`] for [`crate::PageReader::with_oracle`]: with it, tuples need no hint bits. Workers may share one or open
//! their own; it holds a small cache of pages.
//!
//! Promises: what the files do not say is [`XidStatus::Unknown`], never a guess: a missing file (older than the server keeps),
//! a short or unreadable one.
//!
//! What it does not do: replay WAL or look at a running server's memory. The directory has to be one of a server that was
//! shut down, or checkpointed after the transactions in question; who opens it checks that. A transaction without an
//! entry there had not committed, so its work does not count: one that was in progress, or prepared and not yet committed.
//!
//! Source of the formats: `clog.c` (2 bits a transaction, lowest first), `subtrans.c` (the parent's xid, 4 bytes a transaction),
//! `transam.c` (a sub-committed transaction did what its parent did, and without a parent it was lost in a crash), `multixact.c`
//! (offsets of 4 bytes; members in groups
//! of four flag bytes and four xids, 409 groups a page), `multixact.h` (member states above 3 update), `slru.c` (32 pages a
//! file, its number in at least four hexadecimal digits).

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bytes::u32_at;
use crate::error::Result;
use crate::file::io_error;
use crate::page::BLOCK_SIZE;
use crate::visibility::{Oracle, XidStatus};

const FROZEN_XID: u32 = 2;
const PAGES_PER_FILE: u32 = 32;
const XIDS_PER_PAGE: u32 = 4 * BLOCK_SIZE as u32;
const PARENTS_PER_PAGE: u32 = BLOCK_SIZE as u32 / 4;
const OFFSETS_PER_PAGE: u32 = BLOCK_SIZE as u32 / 4;
const GROUP_MEMBERS: u32 = 4;
const GROUP_BYTES: usize = 20;
const MEMBERS_PER_PAGE: u32 = (BLOCK_SIZE / GROUP_BYTES) as u32 * GROUP_MEMBERS;
const HIGHEST_LOCK: u8 = 3;
/// More members than a multixact of any real load has; a damaged offset must not keep us busy.
const MAX_MEMBERS: u32 = 1 << 16;
/// Of a transaction that was not asked about: no status.
const NOBODY: u64 = u64::MAX;
const STATUSES: [XidStatus; 4] =
    [XidStatus::Unknown, XidStatus::Committed, XidStatus::Aborted, XidStatus::InProgress];
/// 8 MB of each kind.
const CACHED_PAGES: usize = 1024;

/// The transaction logs of a data directory.
#[derive(Debug)]
pub struct PgXact {
    xact: Slru,
    parents: Slru,
    offsets: Slru,
    members: Slru,
    end: End,
    /// The transaction asked about last and its status: neighbouring tuples mostly have the same.
    last: AtomicU64,
}

/// Where the logs end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Not known.
    Unknown,
    /// There are no transactions from this one on.
    Before(u32),
    /// Those from this one on are in progress if the logs do not reach them.
    Open(u32),
}

/// Transaction ids run in a circle; `xid` is at or behind `end` on it.
fn is_from(xid: u32, end: u32) -> bool {
    xid.wrapping_sub(end) < 1 << 31
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
            parents: Slru::new(data_directory.join("pg_subtrans")),
            offsets: Slru::new(multixact.join("offsets")),
            members: Slru::new(multixact.join("members")),
            end: End::Unknown,
            last: AtomicU64::new(NOBODY),
        })
    }

    /// The same logs of a server that was shut down before transaction `next`: whatever names one from there on is damaged, and
    /// such a transaction is [`XidStatus::Unknown`].
    #[must_use]
    pub fn until(self, next: u32) -> Self {
        Self { end: End::Before(next), last: AtomicU64::new(NOBODY), ..self }
    }

    /// The same logs of a server that may have begun `next` and later transactions since it wrote them: those that they do not
    /// reach are [`XidStatus::InProgress`].
    #[must_use]
    pub fn open_from(self, next: u32) -> Self {
        Self { end: End::Open(next), last: AtomicU64::new(NOBODY), ..self }
    }

    /// The two bits of a transaction; `None` if the log does not reach it.
    fn bits(&self, xid: u32) -> Option<u8> {
        let page = self.xact.page(xid / XIDS_PER_PAGE)?;
        let in_page = xid % XIDS_PER_PAGE;
        let byte = page.get((in_page / 4) as usize).copied()?;
        Some(byte >> (in_page % 4 * 2) & 3)
    }

    /// The transaction that this one is a part of; 0 if it is not known to be one.
    fn parent(&self, xid: u32) -> u32 {
        let page = self.parents.page(xid / PARENTS_PER_PAGE);
        page.and_then(|page| u32_at(&page[..], (xid % PARENTS_PER_PAGE) as usize * 4)).unwrap_or(0)
    }

    /// The parent of a sub-transaction, which always began before it; and before `first`, where the search for parents began, so that no
    /// circle of damaged ones keeps us.
    fn older_parent(&self, xid: u32, first: u32) -> Option<u32> {
        let older = |parent: u32| !is_from(parent, xid) && !is_from(parent, first);
        Some(self.parent(xid)).filter(|&parent| parent > FROZEN_XID && older(parent))
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
    #[inline]
    fn transaction(&self, xid: u32) -> XidStatus {
        // One word holds both, so they belong together.
        let last = self.last.load(Relaxed);
        if (last >> 32) as u32 == xid
            && let Some(status) = STATUSES.get(last as u32 as usize)
        {
            return *status;
        }
        let status = self.look_up(xid);
        let number = STATUSES.iter().position(|known| *known == status).unwrap_or(0);
        self.last.store(u64::from(xid) << 32 | number as u64, Relaxed);
        status
    }

    fn witness(&self) -> &'static str {
        "transaction logs"
    }

    fn multixact_updater(&self, multi: u32) -> XidStatus {
        match self.updater(multi) {
            None => XidStatus::Unknown,
            Some(0) => XidStatus::Aborted,
            Some(xid) => self.transaction(xid),
        }
    }
}

impl PgXact {
    fn look_up(&self, xid: u32) -> XidStatus {
        if matches!(self.end, End::Before(end) if is_from(xid, end)) {
            return XidStatus::Unknown;
        }
        let (first, mut xid) = (xid, xid);
        loop {
            return match (self.bits(xid), self.end) {
                (Some(0), _) => XidStatus::InProgress,
                (Some(1), _) => XidStatus::Committed,
                (Some(2), _) => XidStatus::Aborted,
                (Some(_), _) => match self.older_parent(xid, first) {
                    Some(parent) => {
                        xid = parent;
                        continue;
                    }
                    None => XidStatus::Aborted,
                },
                (None, End::Open(end)) if is_from(xid, end) => XidStatus::InProgress,
                (None, _) => XidStatus::Unknown,
            };
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
        for sub in ["pg_xact", "pg_subtrans", "pg_multixact/offsets", "pg_multixact/members"] {
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
        // A sub-transaction that never heard of its parent's commit was lost in a crash.
        assert_eq!([0, 1, 2, 3].map(status), [InProgress, Committed, Aborted, Aborted]);
        assert_eq!([32768, 32769].map(status), [Committed, InProgress]);
        // Behind the file's end, no file, a file too short for a page.
        assert_eq!([65536, 32 * 32768, u32::MAX].map(status), [Unknown; 3]);
        let text = PgXact::open(&dir.path().join("no")).unwrap_err().to_string();
        assert!(text.contains("pg_xact\": cannot read the directory: No such file"), "{text}");
    }

    #[test]
    fn sub_transactions_follow_their_parents() {
        let mut log = vec![0; BLOCK_SIZE];
        // 100 committed, 101 aborted, 102 in progress, 103 to 107 sub-committed.
        (log[25], log[26]) = (0b11_00_10_01, 0xff);
        let mut parents = vec![0; BLOCK_SIZE];
        for (xid, parent) in
            [(103u32, 100u32), (104, 101), (105, 102), (106, 103), (107, 107), (108, 2_000_000_108)]
        {
            parents[xid as usize * 4..][..4].copy_from_slice(&parent.to_le_bytes());
        }
        let dir = directory(&[("pg_xact/0000", log), ("pg_subtrans/0000", parents)]);
        let logs = PgXact::open(dir.path()).unwrap();
        let status = |xid| logs.transaction(xid);
        assert_eq!([103, 104, 105, 106].map(status), [Committed, Aborted, InProgress, Committed]);
        // Its own parent: damaged, and not an endless search.
        assert_eq!(status(107), Aborted);
    }

    #[test]
    fn the_end_of_the_logs_decides_about_what_they_do_not_reach() {
        let dir = directory(&[("pg_xact/0000", vec![0x55; BLOCK_SIZE])]);
        let open = || PgXact::open(dir.path()).unwrap();
        let (shut, running) = (open().until(40_000), open().open_from(40_000));
        assert_eq!([700, 39_999, 40_000].map(|xid| shut.transaction(xid)), [Committed, Unknown, Unknown]);
        assert_eq!(open().until(700).transaction(700), Unknown);
        assert_eq!(open().until(701).transaction(700), Committed);
        assert_eq!([39_999, 40_000].map(|xid| running.transaction(xid)), [Unknown, InProgress]);
        // Far behind on the circle is before.
        assert_eq!(running.transaction(3_000_000_000), Unknown);
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
