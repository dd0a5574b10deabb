//! Reads pages of files that a running server may be writing to.
//!
//! The lock that the leader holds keeps rows as they are, but readers still set hint bits and prune, which moves tuples within their page, and the
//! server writes such pages when it likes. A page read while it is written may be half old and half new, since a file system may copy it in parts.
//!
//! The parts are copied in order by the writer and by the reader, so a torn page is one of two kinds:
//! - its first part is old and a later one new: the writer has passed us, and reading once more gives the new page;
//! - its first part is new and a later one old: the writer is under way. Then the page's LSN, which stands first, is newer than the lock.
//!
//! So every page is read twice, and one that differs, or has an LSN behind that of the lock, again after a pause until two reads agree. A page of
//! which only hint bits changed needs none of this, and no LSN; half of its hint bits are as good as all of them.
//!
//! Values in TOAST relations are read until two reads agree as well, see [`relation::Toast::beside_server`].

use crate::error::WorkError;
use relation::BLOCK_SIZE;
use std::time::Duration;

/// A writer that is interrupted between two parts of a page goes on in less time than that.
const PAUSE: Duration = Duration::from_millis(4);
/// Reads of a page that never agree.
const MAX_ROUNDS: u32 = 500;

/// Where pages are read from.
pub trait Source {
    /// Reads pages from page `at` on, counted from the first of the run.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read(&mut self, at: usize, pages: &mut [u8]) -> Result<(), WorkError>;

    /// Lets a writer finish.
    fn pause(&mut self) {
        std::thread::sleep(PAUSE);
    }
}

/// Fills `pages`; `again` is as long and of no meaning afterwards.
///
/// # Errors
/// When a page cannot be read, or changes all the time.
pub fn read(
    source: &mut dyn Source,
    lock_lsn: u64,
    pages: &mut [u8],
    again: &mut [u8],
) -> Result<(), WorkError> {
    source.read(0, pages)?;
    source.read(0, again)?;
    let mut open: Vec<usize> = Vec::new();
    for (at, (page, other)) in pages.chunks_exact(BLOCK_SIZE).zip(again.chunks_exact(BLOCK_SIZE)).enumerate()
    {
        // Both reads may be of one moment, so that they agree is enough only if nobody has written since the lock.
        if page != other || lsn(page) > lock_lsn {
            open.push(at);
        }
    }
    for _ in 0..MAX_ROUNDS {
        if open.is_empty() {
            return Ok(());
        }
        source.pause();
        let mut still = Vec::new();
        for at in open {
            let place = at * BLOCK_SIZE..(at + 1) * BLOCK_SIZE;
            let (page, other) = (&mut pages[place.clone()], &mut again[place]);
            page.copy_from_slice(other);
            source.read(at, other)?;
            if page != other {
                still.push(at);
            }
        }
        open = still;
    }
    Err(WorkError::Job(format!("page {} of a run of blocks: it changes all the time", open[0])))
}

/// The LSN of a page (`bufpage.h`: two words, the high one first).
fn lsn(page: &[u8]) -> u64 {
    let word = |at: usize| {
        page.get(at..at + 4).map_or(0, |b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
    };
    word(0) << 32 | word(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page whose first and second halves are of these versions; the version is the LSN too.
    fn page(first: u8, second: u8) -> Vec<u8> {
        let mut page = vec![first; BLOCK_SIZE / 2];
        page[..8].copy_from_slice(&[0, 0, 0, 0, first, 0, 0, 0]);
        page.extend(vec![second; BLOCK_SIZE / 2]);
        page
    }

    /// Gives what the second page is at each read; the last for ever.
    struct Script(Vec<Vec<u8>>, usize, u32);

    impl Source for Script {
        fn read(&mut self, at: usize, pages: &mut [u8]) -> Result<(), WorkError> {
            let now = self.0[self.1.min(self.0.len() - 1)].clone();
            self.1 += 1;
            let all = [page(1, 1), now];
            for (n, page) in pages.chunks_exact_mut(BLOCK_SIZE).enumerate() {
                page.copy_from_slice(&all[at + n]);
            }
            Ok(())
        }

        fn pause(&mut self) {
            self.2 += 1;
        }
    }

    fn after(reads: &[(u8, u8)]) -> (Vec<u8>, u32) {
        let mut script = Script(reads.iter().map(|(a, b)| page(*a, *b)).collect(), 0, 0);
        let (mut pages, mut again) = (vec![0; 2 * BLOCK_SIZE], vec![0; 2 * BLOCK_SIZE]);
        super::read(&mut script, 5, &mut pages, &mut again).expect("read");
        assert_eq!(pages[..BLOCK_SIZE], page(1, 1), "the first page is at rest");
        (pages.split_off(BLOCK_SIZE), script.2)
    }

    #[test]
    fn pages_at_rest_are_read_without_a_pause() {
        assert_eq!(after(&[(5, 5)]), (page(5, 5), 0));
    }

    #[test]
    fn a_torn_page_is_read_until_it_is_whole() {
        // The writer passed the reader.
        assert_eq!(after(&[(5, 6), (6, 6)]).0, page(6, 6));
        // The writer is slower than two reads.
        assert_eq!(after(&[(6, 5), (6, 5), (6, 6)]).0, page(6, 6));
        // It is written again meanwhile.
        assert_eq!(after(&[(5, 6), (6, 6), (7, 6), (7, 7)]).0, page(7, 7));
    }

    #[test]
    fn a_page_that_never_rests_is_an_error() {
        let mut script = Script((0..2000).map(|n| page((n % 200) as u8, 0)).collect(), 0, 0);
        let (mut pages, mut again) = (vec![0; 2 * BLOCK_SIZE], vec![0; 2 * BLOCK_SIZE]);
        let error = super::read(&mut script, 5, &mut pages, &mut again).expect_err("never the same twice");
        assert!(error.to_string().contains("changes all the time"));
    }
}
