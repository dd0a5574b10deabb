//! From rows to blocks: `--batch-size` counts rows, as the extension does, and units are of blocks.

use crate::failure::Failure;
use crate::sequences;
use kmer_worker::job::{Job, LeafSequence, path_of};
use relation::{BLOCK_SIZE, PageBuffer, RelationFile};
use sequence::SequenceFile;
use sequence::file::Text;
use std::path::Path;

/// Blocks that are looked at.
const LOOKS: u64 = 16;
/// A worker reads a unit at once.
const MAX_BLOCKS: u64 = 4096;
/// Bytes of a page's header and of a line pointer, and where the header says how far the line pointers go (`bufpage.h`).
const HEADER: u64 = 24;
const POINTER: u64 = 4;
const PD_LOWER: usize = 12;

/// Blocks with about `rows` rows.
///
/// # Errors
/// When the relation cannot be read.
pub fn blocks_of(job: &Job, rows: u64) -> Result<u64, Failure> {
    let Some(leaf) = job.leaves.iter().max_by_key(|leaf| leaf.blocks).filter(|leaf| leaf.blocks > 0) else {
        return Ok(1);
    };
    if let Some(sequence) = leaf.sequence {
        return blocks_of_text(path_of(&leaf.path), sequence, rows);
    }
    let file = RelationFile::open_with_segment_size(path_of(&leaf.path), job.segment_blocks)?;
    let (total, mut page, mut found) = (u64::from(leaf.blocks), PageBuffer::new(1), 0);
    let looks = LOOKS.min(total);
    for look in 0..looks {
        // Below the number of blocks, which is a u32.
        file.read_blocks((look * total / looks) as u32, page.blocks_mut(1))?;
        found += pointers(page.blocks(1));
    }
    Ok((rows * looks / found.max(1)).clamp(1, MAX_BLOCKS))
}

/// The same for a sequence file: records are counted in its first bytes.
fn blocks_of_text(path: &Path, sequence: LeafSequence, rows: u64) -> Result<u64, Failure> {
    let file = SequenceFile::open(path).map_err(sequences::failure)?;
    let mut head = vec![0; file.len().min(LOOKS * BLOCK_SIZE as u64) as usize];
    file.read_at(0, &mut head).map_err(sequences::failure)?;
    let lines = head.iter().filter(|byte| **byte == b'\n').count() as u64;
    let records =
        if sequence.fastq { lines / 4 } else { head.iter().filter(|byte| **byte == b'>').count() as u64 };
    let bytes = u128::from(rows) * head.len() as u128 / u128::from(records.max(1));
    Ok((bytes / u128::from(sequence.block_bytes.max(1))).clamp(1, MAX_BLOCKS.into()) as u64)
}

/// Line pointers of a page: about as many as rows.
fn pointers(page: &[u8]) -> u64 {
    let lower = page.get(PD_LOWER..PD_LOWER + 2).map_or(0, |b| u64::from(u16::from_le_bytes([b[0], b[1]])));
    if lower > BLOCK_SIZE as u64 { 0 } else { lower.saturating_sub(HEADER) / POINTER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_zeros_or_of_nonsense_has_no_rows() {
        let mut page = vec![0; BLOCK_SIZE];
        assert_eq!(pointers(&page), 0);
        page[PD_LOWER] = 24 + 40;
        assert_eq!(pointers(&page), 10);
        page[PD_LOWER + 1] = 0xff;
        assert_eq!(pointers(&page), 0);
    }
}
