//! The order by count: sorted runs of entries, cut at the same places.
//!
//! Each thread sorts what it found, all threads at once. Every so many entries of a run one is taken for a place to cut; between two cuts each run
//! has a few entries, which one thread can merge without a look at others. Counts are anything but even, so ranges of counts would not do.

use super::Entry;
use super::top::{Place, by_count};

/// Sorted runs, and where they are cut.
#[derive(Default)]
pub struct Runs {
    runs: Vec<Vec<Entry>>,
    /// Of each run the ends of its pieces.
    cuts: Vec<Vec<usize>>,
    pieces: usize,
}

impl Runs {
    /// From runs that are each in the order of [`by_count`]; a piece has at most `size` entries of a run.
    pub fn new(runs: Vec<Vec<Entry>>, size: usize) -> Self {
        let mut places: Vec<_> =
            runs.iter().flat_map(|run| run.iter().skip(size - 1).step_by(size)).map(by_count).collect();
        places.sort_unstable();
        let cut = |run: &Vec<Entry>| {
            let at = |place: &Place| run.partition_point(|entry| by_count(entry) <= *place);
            places.iter().map(at).chain([run.len()]).collect()
        };
        Self { cuts: runs.iter().map(cut).collect(), pieces: places.len() + 1, runs }
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// The entries of a piece, in order.
    pub fn piece(&self, piece: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (run, cuts) in self.runs.iter().zip(&self.cuts) {
            let start = if piece == 0 { 0 } else { cuts[piece - 1] };
            entries.extend_from_slice(&run[start..cuts[piece]]);
        }
        // A stable sort finds the runs and merges them.
        entries.sort_by_key(by_count);
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other_and_none_is_large() {
        let mut runs: Vec<Vec<Entry>> = vec![Vec::new(); 4];
        for key in 0..5000u64 {
            // The last run stays empty, the first has half of all.
            let run = [0, 0, 1, 2][(key * 7 % 4) as usize];
            runs[run].push((key, (key * key % 11) as u32));
        }
        let mut expected: Vec<Entry> = runs.iter().flatten().copied().collect();
        expected.sort_by_key(by_count);
        runs.iter_mut().for_each(|run| run.sort_by_key(by_count));
        for size in [1, 7, 64, 10_000] {
            let runs = Runs::new(runs.clone(), size);
            let pieces: Vec<_> = (0..runs.pieces()).map(|piece| runs.piece(piece)).collect();
            assert!(pieces.iter().all(|piece| piece.len() <= size * 3), "{size}");
            assert_eq!(pieces.concat(), expected, "{size}");
        }
        let none = Runs::new(vec![Vec::new()], 3);
        assert_eq!((none.pieces(), none.piece(0)), (1, Vec::new()));
    }
}
