//! Guesses what a file is that is no heap relation, from a few of its pages.
//!
//! It only speaks when it is sure: a heap relation with some damaged pages must still open, so that the damage can be
//! reported block by block. Source of the formats: `bufpage.h`, `xlog_internal.h` (xlp_magic 0xd0xx and 0xd1xx).

use super::{BLOCK_SIZE, PAGESIZE_VERSION, PD_PAGESIZE_VERSION, PD_SPECIAL, field};

/// What the file seems to be, and what to do; `None` if it may be a heap relation.
pub(crate) fn foreign(pages: &[Vec<u8>]) -> Option<(String, &'static str)> {
    let pages: Vec<&[u8; BLOCK_SIZE]> = pages
        .iter()
        .filter_map(|page| page.as_slice().try_into().ok())
        .filter(|page: &&[u8; BLOCK_SIZE]| page.iter().any(|&byte| byte != 0))
        .collect();
    let first = pages.first()?;
    let version = field(first, PD_PAGESIZE_VERSION);
    if pages.iter().all(|page| field(page, PD_PAGESIZE_VERSION) != PAGESIZE_VERSION) {
        return Some(not_pages(first, version));
    }
    let special = |page: &&[u8; BLOCK_SIZE]| {
        field(page, PD_PAGESIZE_VERSION) == PAGESIZE_VERSION
            && usize::from(field(page, PD_SPECIAL)) < BLOCK_SIZE
    };
    if pages.iter().all(special) {
        let size = BLOCK_SIZE - usize::from(field(first, PD_SPECIAL));
        let what = match size {
            16 => "an index (btree, hash or gist)",
            8 => "an index (gin, brin or spgist) or a sequence",
            _ => "pages with a special area",
        };
        return Some((
            format!("expected a heap relation, found {what}"),
            "give the file of the table itself: select pg_relation_filepath('table')",
        ));
    }
    None
}

fn not_pages(first: &[u8; BLOCK_SIZE], version: u16) -> (String, &'static str) {
    const HINT: &str = "give the file of a table: select pg_relation_filepath('table')";
    let (size, layout) = (version & 0xff00, version & 0x00ff);
    let text = match first {
        _ if matches!(first[1], 0xd0 | 0xd1) && first[2] < 8 => "a WAL segment".to_owned(),
        [0x1f, 0x8b, ..] => "gzip data".to_owned(),
        [b'P', b'G', b'D', b'M', b'P', ..] => "an archive of pg_dump".to_owned(),
        [b'>' | b'@', next, ..] if next.is_ascii_graphic() => "text (FASTA or FASTQ?)".to_owned(),
        _ if first.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => "text".to_owned(),
        _ if layout == 4 && size.is_power_of_two() && size >= 1024 => {
            return (
                format!("expected pages of 8192 bytes, found pages of {size} bytes"),
                "relations of a server built with another block size cannot be read",
            );
        }
        _ if version == PAGESIZE_VERSION.swap_bytes() => {
            return (
                "expected a little-endian relation, found a big-endian one".to_owned(),
                "copy the table to a server on a little-endian machine",
            );
        }
        _ => format!("no page header (page size and version {version:#06x} instead of 0x2004)"),
    };
    (format!("expected a heap relation, found {text}"), HINT)
}
