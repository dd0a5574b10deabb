//! Reads `pg_filenode.map`: in which files the catalogs lie whose place `pg_class` cannot tell, since it is one of them.
//!
//! Source of the format: `relmapper.c` (RelMapFile: magic 0x592717, the number of mappings, room for 62 or, from version 16 on, 64 pairs of oid
//! and file number, CRC-32C of all that).

use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::major::Major;
use crate::bytes::u32_at;

const MAGIC: u32 = 0x0059_2717;

/// The mapped catalogs of a database, or of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilenodeMap {
    path: PathBuf,
    pairs: Vec<(u32, u32)>,
}

impl FilenodeMap {
    /// Reads the map in `dir`.
    pub(crate) fn read(dir: &Path, major: Major) -> Result<Self> {
        let path = dir.join("pg_filenode.map");
        let bytes = std::fs::read(&path).map_err(|e| Error::io("cannot read", &path, e))?;
        Self::parse(&bytes, path, major)
    }

    fn parse(bytes: &[u8], path: PathBuf, major: Major) -> Result<Self> {
        let crc_at = major.filenode_map_bytes();
        let (Some(body), Some(crc)) = (bytes.get(..crc_at), u32_at(bytes, crc_at)) else {
            return Err(Error::file(&path, "size", format!("at least {} bytes", crc_at + 4), bytes.len()));
        };
        let field = |at: usize| u32_at(body, at).unwrap_or_default();
        if field(0) != MAGIC {
            return Err(Error::file(&path, "magic", format!("{MAGIC:#x}"), format!("{:#x}", field(0))));
        }
        let sum = crc32c::crc32c(body);
        if sum != crc {
            return Err(Error::file(&path, "checksum", format!("{sum:#010x}"), format!("{crc:#010x}")));
        }
        let (count, most) = (field(4), (crc_at - 8) as u32 / 8);
        if count > most {
            return Err(Error::file(&path, "num_mappings", format!("at most {most}"), count));
        }
        let pairs = (0..count as usize).map(|n| (field(8 + n * 8), field(12 + n * 8))).collect();
        Ok(Self { path, pairs })
    }

    /// The file number of a catalog.
    pub(crate) fn get(&self, oid: u32) -> Result<u32> {
        let found = self.pairs.iter().find(|(mapped, file)| *mapped == oid && *file != 0);
        let missing = || Error::file(&self.path, "mapping", format!("one of relation {oid}"), "none");
        found.map(|(_, file)| *file).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        for major in Major::all() {
            let len = major.filenode_map_bytes();
            let mut good = vec![0; len + 4];
            for (at, value) in [(0, MAGIC), (4, 2), (8, 1259), (12, 16_400), (16, 1249), (20, 0)] {
                good[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            let sum = crc32c::crc32c(&good[..len]);
            good[len..].copy_from_slice(&sum.to_le_bytes());
            let parse = |bytes: &[u8]| FilenodeMap::parse(bytes, "m".into(), major);
            let map = parse(&good).unwrap();
            assert_eq!(map.get(1259).unwrap(), 16_400);
            for absent in [1249, 1262] {
                let text = map.get(absent).unwrap_err().to_string();
                assert_eq!(
                    text,
                    format!("file \"m\": mapping: expected one of relation {absent}, found none")
                );
            }
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 0x80;
                assert!(parse(&bad).is_err(), "byte {at} of {major:?}");
                assert!(parse(&good[..at]).is_err());
            }
        }
    }
}
