//! Decides which tuples count as rows: those whose insertion committed and whose deletion did not.
//!
//! With a bare file there are only the hint bits, and they may leave it open ([`Verdict::Undecided`]); an [`Oracle`] that
//! knows transactions (from `pg_xact`) can be put in the place of [`HintBitsOnly`]. In-progress counts as not committed:
//! the file is taken as a copy that nobody will go on with.
//!
//! What it does not do: compare with a snapshot. Locks, and multixacts that only lock, delete nothing.
//!
//! Source of the rules: `htup_details.h` (t_infomask), `heapam_visibility.c` (their order), `transam.h` (reserved xids).

use crate::bytes::{u16_at, u32_at};

const XMAX_KEYSHR_LOCK: u16 = 0x0010;
const XMAX_EXCL_LOCK: u16 = 0x0040;
const XMAX_LOCK_ONLY: u16 = 0x0080;
const XMIN_COMMITTED: u16 = 0x0100;
const XMIN_INVALID: u16 = 0x0200;
const XMIN_FROZEN: u16 = XMIN_COMMITTED | XMIN_INVALID;
const XMAX_COMMITTED: u16 = 0x0400;
const XMAX_INVALID: u16 = 0x0800;
const XMAX_IS_MULTI: u16 = 0x1000;
const MOVED_OFF: u16 = 0x4000;
const MOVED_IN: u16 = 0x8000;

const BOOTSTRAP_XID: u32 = 1;
const FROZEN_XID: u32 = 2;

/// Whether a tuple counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Committed and not deleted.
    Visible,
    /// Never committed, or deleted by a transaction that committed.
    Invisible,
    /// The hint bits leave it open.
    Undecided,
}

/// What to do with an undecided tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unhinted {
    /// Report it as an error of that tuple.
    #[default]
    Error,
    /// Take it as a row.
    Visible,
    /// Leave it out (it is counted).
    Skip,
}

/// The fate of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XidStatus {
    /// It committed.
    Committed,
    /// It rolled back, or crashed.
    Aborted,
    /// It had not ended when the files were copied; its work does not count.
    InProgress,
    /// This oracle cannot tell.
    Unknown,
}

/// What [`HintBitsOnly`] asks.
pub const HINT_BITS: &str = "hint bits";

/// Knows transactions.
pub trait Oracle: std::fmt::Debug + Send + Sync {
    /// The fate of an ordinary transaction (its xid is at least 3).
    fn transaction(&self, xid: u32) -> XidStatus;
    /// The fate of the updating member of a multixact; [`XidStatus::Aborted`] if none of its members updates.
    fn multixact_updater(&self, multi: u32) -> XidStatus;
    /// What it asks, for messages.
    fn witness(&self) -> &'static str {
        HINT_BITS
    }
}

/// The oracle of a bare file: knows nothing beyond the hint bits.
#[derive(Debug, Clone, Copy, Default)]
pub struct HintBitsOnly;

impl Oracle for HintBitsOnly {
    fn transaction(&self, _xid: u32) -> XidStatus {
        XidStatus::Unknown
    }

    fn multixact_updater(&self, _multi: u32) -> XidStatus {
        XidStatus::Unknown
    }
}

/// The fields of a tuple header that visibility depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamps {
    /// The inserting transaction (`t_xmin`).
    pub xmin: u32,
    /// The deleting or locking transaction or multixact (`t_xmax`).
    pub xmax: u32,
    /// Command ids, or `t_xvac` under the HEAP_MOVED bits (`t_field3`).
    pub field3: u32,
    /// `t_infomask`.
    pub infomask: u16,
}

impl Stamps {
    /// Reads them from a tuple of at least 23 bytes.
    #[inline]
    pub fn read(tuple: &[u8]) -> Option<Self> {
        Some(Self {
            xmin: u32_at(tuple, 0)?,
            xmax: u32_at(tuple, 4)?,
            field3: u32_at(tuple, 8)?,
            infomask: u16_at(tuple, 20)?,
        })
    }

    fn has(self, bits: u16) -> bool {
        self.infomask & bits != 0
    }

    fn locked_only(self) -> bool {
        // Before 9.3 an exclusive lock was this bit alone.
        let old = self.infomask & (XMAX_IS_MULTI | XMAX_EXCL_LOCK | XMAX_KEYSHR_LOCK) == XMAX_EXCL_LOCK;
        self.has(XMAX_LOCK_ONLY) || old
    }

    /// Whether the insertion committed.
    fn inserted(self, oracle: &dyn Oracle) -> Option<bool> {
        if self.has(XMIN_COMMITTED) {
            // With XMIN_INVALID beside it: frozen.
            return Some(true);
        }
        if self.has(XMIN_INVALID) {
            return Some(false);
        }
        // Moved by a VACUUM FULL of before 9.0: off is gone if that committed, in is there if it did.
        if self.has(MOVED_OFF) {
            return committed(oracle, self.field3).map(|yes| !yes);
        }
        if self.has(MOVED_IN) {
            return committed(oracle, self.field3);
        }
        committed(oracle, self.xmin)
    }

    /// Whether a deletion committed.
    fn deleted(self, oracle: &dyn Oracle) -> Option<bool> {
        if self.has(XMAX_INVALID) || self.locked_only() {
            return Some(false);
        }
        if self.has(XMAX_IS_MULTI) {
            return known(oracle.multixact_updater(self.xmax));
        }
        if self.has(XMAX_COMMITTED) {
            return Some(true);
        }
        committed(oracle, self.xmax)
    }

    /// Whether the tuple counts.
    #[inline]
    pub fn judge(self, oracle: &dyn Oracle) -> Verdict {
        const PLAIN: u16 = XMIN_COMMITTED | XMAX_INVALID;
        if self.infomask & PLAIN == PLAIN {
            return Verdict::Visible;
        }
        match (self.inserted(oracle), self.deleted(oracle)) {
            (Some(false), _) | (_, Some(true)) => Verdict::Invisible,
            (Some(true), Some(false)) => Verdict::Visible,
            (None, _) | (_, None) => Verdict::Undecided,
        }
    }

    /// The transaction that an undecided verdict hangs on.
    pub fn open_xid(self, oracle: &dyn Oracle) -> u32 {
        match self.inserted(oracle) {
            None if self.has(MOVED_OFF | MOVED_IN) => self.field3,
            None => self.xmin,
            Some(_) => self.xmax,
        }
    }

    /// Whether the insertion is marked as frozen.
    pub fn frozen(self) -> bool {
        self.infomask & XMIN_FROZEN == XMIN_FROZEN
    }
}

fn committed(oracle: &dyn Oracle, xid: u32) -> Option<bool> {
    match xid {
        0 => Some(false),
        BOOTSTRAP_XID | FROZEN_XID => Some(true),
        xid => known(oracle.transaction(xid)),
    }
}

fn known(status: XidStatus) -> Option<bool> {
    match status {
        XidStatus::Committed => Some(true),
        XidStatus::Aborted | XidStatus::InProgress => Some(false),
        XidStatus::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Invisible, Undecided, Visible};

    fn judge(infomask: u16, xmin: u32, xmax: u32) -> Verdict {
        Stamps { xmin, xmax, field3: 9, infomask }.judge(&HintBitsOnly)
    }

    #[test]
    fn hint_bits_decide_as_the_server_does() {
        for (infomask, xmin, xmax, verdict) in [
            (XMIN_COMMITTED | XMAX_INVALID, 700, 0, Visible),
            (XMIN_FROZEN | XMAX_INVALID, 700, 0, Visible),
            (XMIN_INVALID | XMAX_INVALID, 700, 0, Invisible),
            (XMIN_COMMITTED | XMAX_COMMITTED, 700, 701, Invisible),
            (XMIN_FROZEN | XMAX_COMMITTED, 700, 701, Invisible),
            (XMIN_COMMITTED | XMAX_LOCK_ONLY | XMAX_EXCL_LOCK, 700, 701, Visible),
            (XMIN_COMMITTED | XMAX_EXCL_LOCK, 700, 701, Visible),
            (XMIN_COMMITTED | XMAX_LOCK_ONLY | XMAX_IS_MULTI, 700, 5, Visible),
            (XMIN_COMMITTED | XMAX_IS_MULTI, 700, 5, Undecided),
            // An exclusive lock bit does not make an updating multixact a lock.
            (XMIN_COMMITTED | XMAX_IS_MULTI | XMAX_EXCL_LOCK, 700, 5, Undecided),
            (XMIN_COMMITTED, 700, 701, Undecided),
            (XMIN_COMMITTED, 700, 0, Visible),
            (XMAX_INVALID, 700, 0, Undecided),
            (XMAX_INVALID, 2, 0, Visible),
            (XMAX_INVALID, 0, 0, Invisible),
            (XMAX_COMMITTED, 700, 701, Invisible),
            (MOVED_OFF | XMAX_INVALID, 700, 0, Undecided),
            (MOVED_OFF | XMIN_COMMITTED | XMAX_INVALID, 700, 0, Visible),
            (MOVED_IN | XMIN_INVALID | XMAX_INVALID, 700, 0, Invisible),
        ] {
            assert_eq!(judge(infomask, xmin, xmax), verdict, "{infomask:#06x} {xmin} {xmax}");
        }
    }

    #[derive(Debug)]
    struct Known(XidStatus);

    impl Oracle for Known {
        fn transaction(&self, xid: u32) -> XidStatus {
            if xid == 9 { self.0 } else { XidStatus::Committed }
        }
        fn multixact_updater(&self, _multi: u32) -> XidStatus {
            self.0
        }
    }

    #[test]
    fn an_oracle_closes_what_hint_bits_leave_open() {
        let judge =
            |infomask, xmax, status| Stamps { xmin: 700, xmax, field3: 9, infomask }.judge(&Known(status));
        assert_eq!(judge(XMAX_INVALID, 0, XidStatus::Aborted), Visible);
        assert_eq!(judge(0, 9, XidStatus::Committed), Invisible);
        assert_eq!(judge(0, 9, XidStatus::InProgress), Visible);
        assert_eq!(judge(XMAX_IS_MULTI, 5, XidStatus::Committed), Invisible);
        assert_eq!(judge(XMAX_IS_MULTI, 5, XidStatus::Aborted), Visible);
        assert_eq!(judge(MOVED_OFF | XMAX_INVALID, 0, XidStatus::Committed), Invisible);
        assert_eq!(judge(MOVED_OFF | XMAX_INVALID, 0, XidStatus::Aborted), Visible);
        assert_eq!(judge(MOVED_IN | XMAX_INVALID, 0, XidStatus::Committed), Visible);
        assert_eq!(judge(MOVED_IN | XMAX_INVALID, 0, XidStatus::Aborted), Invisible);
    }

    #[test]
    fn the_open_transaction_is_the_one_named() {
        let open = |infomask| Stamps { xmin: 700, xmax: 701, field3: 9, infomask }.open_xid(&HintBitsOnly);
        assert_eq!(open(XMAX_INVALID), 700);
        assert_eq!(open(XMIN_COMMITTED), 701);
        assert_eq!(open(MOVED_OFF | XMAX_INVALID), 9);
    }
}
