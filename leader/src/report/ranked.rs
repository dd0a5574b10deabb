//! The most frequent k-mers, and an order by count.

use super::Entry;
use crate::select::Sort;
use std::cmp::Reverse;

/// All entries, or the `top` most frequent of them, in order. Among equal counts the smaller key comes first, so the choice does not depend
/// on how the entries were dealt.
pub fn rank(dealt: Vec<Vec<Vec<Entry>>>, top: Option<u64>, sort: Sort) -> Vec<Entry> {
    let by_count = |entry: &Entry| (Reverse(entry.1), entry.0);
    let mut entries: Vec<Entry> = dealt.into_iter().flatten().flatten().collect();
    if let Some(top) = top.map(|n| usize::try_from(n).unwrap_or(usize::MAX)).filter(|n| *n < entries.len()) {
        entries.select_nth_unstable_by_key(top, by_count);
        entries.truncate(top);
        entries.shrink_to_fit();
    }
    match sort {
        Sort::Kmer => entries.sort_unstable_by_key(|(key, _)| *key),
        Sort::Count => entries.sort_unstable_by_key(by_count),
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_and_among_equals_the_first() {
        let dealt = || vec![vec![vec![(9, 1), (1, 3)], vec![(7, 2)]], vec![vec![(2, 2)], vec![(8, 3)]]];
        let ranked = |top, sort| rank(dealt(), top, sort);
        assert_eq!(ranked(None, Sort::Count), [(1, 3), (8, 3), (2, 2), (7, 2), (9, 1)]);
        assert_eq!(ranked(Some(3), Sort::Count), [(1, 3), (8, 3), (2, 2)]);
        assert_eq!(ranked(Some(3), Sort::Kmer), [(1, 3), (2, 2), (8, 3)]);
        assert_eq!(ranked(Some(5), Sort::Kmer), ranked(None, Sort::Kmer));
        assert_eq!(ranked(Some(u64::MAX), Sort::Count).len(), 5);
    }
}
