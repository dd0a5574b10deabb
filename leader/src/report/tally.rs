//! How many k-mers are in how many rows.

use std::collections::BTreeMap;

/// Counts below this have a place of their own in a vector.
const DENSE: usize = 1 << 12;

/// Numbers of k-mers by number of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    dense: Vec<u64>,
    sparse: BTreeMap<u32, u64>,
}

impl Tally {
    /// Adds `kmers` k-mers that are in `rows` rows.
    pub fn add(&mut self, rows: u32, kmers: u64) {
        let at = rows as usize;
        if at >= DENSE {
            *self.sparse.entry(rows).or_default() += kmers;
            return;
        }
        if self.dense.len() <= at {
            self.dense.resize(at + 1, 0);
        }
        self.dense[at] += kmers;
    }

    /// Adds all of another tally.
    pub fn merge(&mut self, other: Self) {
        other.iter().for_each(|(rows, kmers)| self.add(rows, kmers));
    }

    /// Rows and k-mers, ascending, where there are any k-mers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        let dense = (0u32..).zip(self.dense.iter().copied()).filter(|(_, kmers)| *kmers > 0);
        dense.chain(self.sparse.iter().map(|(rows, kmers)| (*rows, *kmers)))
    }

    /// Lines of rows, a tab, and k-mers.
    pub fn to_text(&self) -> String {
        self.iter().map(|(rows, kmers)| format!("{rows}\t{kmers}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_ascend_and_none_is_clipped() {
        let mut tally = Tally::default();
        for rows in [1, 70_000, 3, 4095, 4096, 1, u32::MAX] {
            tally.add(rows, 1);
        }
        let mut all = Tally::default();
        all.add(3, 5);
        all.merge(tally);
        let text = "1\t2\n3\t6\n4095\t1\n4096\t1\n70000\t1\n4294967295\t1\n";
        assert_eq!(all.to_text(), text);
    }
}
