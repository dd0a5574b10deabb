//! Reads `global/pg_control`: the state of the server, and how it was built.
//!
//! Promise: a file whose checksum is not that of its bytes is refused; so is one of a server that was built with other sizes than usual.
//! A running server writes the file in place, so it is read again a few times before it is called damaged.
//!
//! Source of the format: `pg_control.h` (ControlFileData and, at byte 40, CheckPoint); CRC-32C of all bytes before it.
//!
//! | byte | field |
//! |---|---|
//! | 8 | pg_control_version |
//! | 12 | catalog_version_no |
//! | 16 | state |
//! | 64 | checkPointCopy.nextXid |
//! | 204 | maxAlign |
//! | 216 | blcksz |
//! | 220 | relseg_size |
//! | 232 | nameDataLen |
//! | 240 | toast_max_chunk_size |
//! | 252 | data_checksum_version |

use std::path::Path;
use std::time::Duration;

use super::error::{Error, Result};
use super::major::Major;
use crate::bytes::u32_at;
use crate::page::BLOCK_SIZE;
use crate::toast::CHUNK_SIZE;

const READS: u32 = 5;

/// What the server last said it was doing (DBState).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Beginning to start.
    StartingUp,
    /// At rest.
    ShutDown,
    /// At rest, a standby.
    ShutDownInRecovery,
    /// On its way to rest.
    ShuttingDown,
    /// Starting after a crash.
    InCrashRecovery,
    /// A standby, or a backup that is recovered.
    InArchiveRecovery,
    /// At work.
    InProduction,
}

impl State {
    fn from_number(number: u32) -> Option<Self> {
        [
            Self::StartingUp,
            Self::ShutDown,
            Self::ShutDownInRecovery,
            Self::ShuttingDown,
            Self::InCrashRecovery,
            Self::InArchiveRecovery,
            Self::InProduction,
        ]
        .get(number as usize)
        .copied()
    }

    /// In words that follow "found one that".
    pub const fn words(self) -> &'static str {
        match self {
            Self::StartingUp => "was starting up",
            Self::ShutDown => "was shut down",
            Self::ShutDownInRecovery => "was shut down in recovery",
            Self::ShuttingDown => "was shutting down",
            Self::InCrashRecovery => "was recovering from a crash",
            Self::InArchiveRecovery => "was in archive recovery",
            Self::InProduction => "was in production",
        }
    }
}

/// The contents of `pg_control`, as far as they matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// The server's state.
    pub state: State,
    /// The transaction that came next at the last checkpoint, without its epoch.
    pub next_xid: u32,
    /// Blocks of a full segment file.
    pub segment_blocks: u32,
    /// Whether pages bear checksums.
    pub checksums: bool,
    /// The checksum of all that the file says: another one after every start and every checkpoint.
    pub stamp: u32,
}

impl Control {
    /// Reads the file below a data directory of this version.
    pub(crate) fn read(pgdata: &Path, major: Major) -> Result<Self> {
        let path = pgdata.join("global/pg_control");
        for _ in 1..READS {
            if let Ok(control) = Self::read_once(&path, major) {
                return Ok(control);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Self::read_once(&path, major)
    }

    fn read_once(path: &Path, major: Major) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("cannot read", path, e))?;
        Self::parse(&bytes, path, major)
    }

    fn parse(bytes: &[u8], path: &Path, major: Major) -> Result<Self> {
        let crc_at = major.control_crc_at();
        let (Some(body), Some(crc)) = (bytes.get(..crc_at), u32_at(bytes, crc_at)) else {
            return Err(Error::file(path, "size", format!("at least {} bytes", crc_at + 4), bytes.len()));
        };
        let field = |at: usize| u32_at(body, at).unwrap_or_default();
        let expect = |noun, at, expected: u32| match field(at) {
            found if found == expected => Ok(()),
            found => Err(Error::file(path, noun, expected, found)),
        };
        // The version comes first: the rest of the format hangs on it.
        expect("pg_control_version", 8, major.control_version())?;
        let sum = crc32c::crc32c(body);
        if sum != crc {
            return Err(Error::file(path, "checksum", format!("{sum:#010x}"), format!("{crc:#010x}")));
        }
        expect("catalog_version_no", 12, major.catalog_version())?;
        expect("maxAlign", 204, 8)?;
        expect("blcksz", 216, BLOCK_SIZE as u32)?;
        expect("nameDataLen", 232, 64)?;
        expect("toast_max_chunk_size", 240, CHUNK_SIZE as u32)?;
        let state =
            State::from_number(field(16)).ok_or_else(|| Error::file(path, "state", "0 to 6", field(16)))?;
        let segment_blocks = field(220);
        if segment_blocks == 0 {
            return Err(Error::file(path, "relseg_size", "at least 1", 0));
        }
        let next_xid = field(64);
        if next_xid < 3 {
            return Err(Error::file(path, "nextXid", "at least 3", next_xid));
        }
        Ok(Self { state, next_xid, segment_blocks, checksums: field(252) != 0, stamp: crc })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(major: Major) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        for (at, value) in [
            (8, major.control_version()),
            (12, major.catalog_version()),
            (16, 1),
            (64, 741),
            (204, 8),
            (216, 8192),
            (220, 131_072),
            (232, 64),
            (240, 1996),
            (252, 1),
        ] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        seal(bytes, major)
    }

    fn seal(mut bytes: Vec<u8>, major: Major) -> Vec<u8> {
        let at = major.control_crc_at();
        let sum = crc32c::crc32c(&bytes[..at]);
        bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn every_byte_counts() {
        for major in Major::all() {
            let path = Path::new("global/pg_control");
            let good = control(major);
            let stamp = u32_at(&good, major.control_crc_at()).expect("as long as that");
            let read = Control::parse(&good, path, major).unwrap();
            let expected = Control {
                state: State::ShutDown,
                next_xid: 741,
                segment_blocks: 131_072,
                checksums: true,
                stamp,
            };
            assert_eq!(read, expected);
            for at in 0..major.control_crc_at() + 4 {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                assert!(Control::parse(&bad, path, major).is_err(), "byte {at} of {major:?}");
            }
            for len in 0..major.control_crc_at() + 4 {
                assert!(Control::parse(&good[..len], path, major).is_err());
            }
        }
    }

    #[test]
    fn other_builds_are_refused_by_name() {
        let major = Major::all().last().unwrap();
        let refused = |at: usize, value: u32| {
            let mut bytes = control(major);
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            Control::parse(&seal(bytes, major), Path::new("c"), major).unwrap_err().to_string()
        };
        assert_eq!(refused(8, 1201), "file \"c\": pg_control_version: expected 1800, found 1201");
        assert_eq!(
            refused(12, 202_500_000),
            "file \"c\": catalog_version_no: expected 202506291, found 202500000"
        );
        assert_eq!(refused(216, 16384), "file \"c\": blcksz: expected 8192, found 16384");
        assert_eq!(refused(240, 2030), "file \"c\": toast_max_chunk_size: expected 1996, found 2030");
        assert_eq!(refused(16, 7), "file \"c\": state: expected 0 to 6, found 7");
        assert_eq!(refused(220, 0), "file \"c\": relseg_size: expected at least 1, found 0");
    }
}
