//! Counts in how many rows each k-mer occurs, by the plainest code that can be: text in, a map out, one window after the other.
//!
//! Source of the meaning: pg_kmersearch. A row is `None` (NULL) or the text of the bits of its value.
//!
//! * k bases a window, the first base the most significant, A=0, C=1, G=2, T=3;
//! * the key is `kmer << b | (n-1)` for the n-th occurrence of the k-mer in the row, n from 1 to 2^b (b is `occur_bitlen`);
//! * each key counts once a row;
//! * `dna4`: a window with one letter of 2 or 3 bases stands for its 2 or 3 k-mers; one with two such letters, with N or with the invalid
//!   code 0 for none.

use std::collections::{BTreeMap, HashMap};

use crate::server::{Server, Table};

/// Row counts by key.
pub type Counts = BTreeMap<u64, u64>;

/// How bases lie in the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dna {
    /// 2 bits a base.
    Dna2,
    /// 4 bits a letter, one bit for each base it may be.
    Dna4,
}

/// What to count.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// How bases lie in the bits.
    pub dna: Dna,
    /// Bases a k-mer, 4 to 32.
    pub k: usize,
    /// Bits for the number of the occurrence, 0 to 16; 2k + b is at most 64.
    pub occur_bitlen: u32,
}

impl Params {
    /// Names a count of `dna2` without occurrence numbers.
    #[must_use]
    pub fn dna2(k: usize) -> Self {
        Self { dna: Dna::Dna2, k, occur_bitlen: 0 }
    }
}

/// Gives each letter as a set of bases: bit 0 for A, 1 for C, 2 for G, 3 for T.
fn letters(bits: &str, dna: Dna) -> Vec<u8> {
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | (bit - b'0'));
    match dna {
        Dna::Dna2 => bits.as_bytes().chunks_exact(2).map(|pair| 1 << number(pair)).collect(),
        Dna::Dna4 => bits.as_bytes().chunks_exact(4).map(number).collect(),
    }
}

/// Gives the k-mers one window stands for.
fn kmers(window: &[u8]) -> Vec<u64> {
    let mut degenerate = window.iter().filter(|letter| letter.count_ones() > 1);
    let choices = degenerate.next().copied().unwrap_or(0b0001);
    let invalid = window.iter().any(|&letter| letter == 0 || letter == 0b1111);
    if invalid || degenerate.next().is_some() {
        return Vec::new();
    }
    let spelled = |choice: u32| {
        window.iter().fold(0, |kmer, letter| {
            let code = if letter.count_ones() == 1 { letter.trailing_zeros() } else { choice };
            kmer << 2 | u64::from(code)
        })
    };
    (0..4).filter(|choice| choices >> choice & 1 == 1).map(spelled).collect()
}

/// Counts in how many rows each key occurs.
#[must_use]
pub fn count_rows(rows: &[Option<String>], params: Params) -> Counts {
    let mut counts = Counts::new();
    for bits in rows.iter().flatten() {
        let mut occurrences: HashMap<u64, u64> = HashMap::new();
        for window in letters(bits, params.dna).windows(params.k) {
            for kmer in kmers(window) {
                let n = occurrences.entry(kmer).or_default();
                *n += 1;
                if *n <= 1 << params.occur_bitlen {
                    let key =
                        if params.occur_bitlen == 0 { kmer } else { kmer << params.occur_bitlen | (*n - 1) };
                    *counts.entry(key).or_default() += 1;
                }
            }
        }
    }
    counts
}

/// Gives the row count that a k-mer must exceed to be reported: floor(rows * rate), or `nrow` if that is above 0 and smaller.
#[must_use]
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn threshold(total_rows: usize, rate: f64, nrow: u64) -> u64 {
    let by_rate = (total_rows as f64 * rate).floor() as u64;
    if nrow > 0 && nrow < by_rate { nrow } else { by_rate }
}

/// Keeps the keys whose row count is strictly greater than `threshold`.
#[must_use]
pub fn above(counts: &Counts, threshold: u64) -> Counts {
    counts.iter().filter(|&(_, &rows)| rows > threshold).map(|(&key, &rows)| (key, rows)).collect()
}

/// Spells a k-mer with letters.
#[must_use]
pub fn spell(kmer: u64, k: usize) -> String {
    (0..k)
        .rev()
        .map(|place| match kmer >> (2 * place) & 3 {
            0 => 'A',
            1 => 'C',
            2 => 'G',
            _ => 'T',
        })
        .collect()
}

/// Counts rows by a query of the server over a `dna2` column, without occurrence numbers.
///
/// # Panics
/// When the server's answer is not as asked for.
#[must_use]
pub fn sql_counts(server: &Server, table: &Table<'_>, column: &str, k: usize) -> Counts {
    let query = format!(
        "SELECT substring({column} FROM 2 * i + 1 FOR {bits})::text, count(DISTINCT (t.tableoid, t.ctid))
         FROM {name} t, generate_series(0, length({column}) / 2 - {k}) i GROUP BY 1;",
        bits = 2 * k,
        name = table.name(),
    );
    let parse = |line: &str| {
        let (bits, rows) = line.split_once('|')?;
        Some((u64::from_str_radix(bits, 2).ok()?, rows.parse().ok()?))
    };
    server
        .sql(&query)
        .lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("expected bits|rows, found {line:?}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{dna2_bits, dna4_bits};

    fn counted(rows: &[&str], dna: Dna, k: usize, b: u32) -> Vec<(u64, u64)> {
        let rows: Vec<Option<String>> = rows
            .iter()
            .map(|row| {
                Some(match dna {
                    Dna::Dna2 => dna2_bits(row),
                    Dna::Dna4 => dna4_bits(row),
                })
            })
            .collect();
        let params = Params { dna, k, occur_bitlen: b };
        count_rows(&rows, params).into_iter().collect()
    }

    #[test]
    fn a_row_counts_a_kmer_once() {
        // ACGT = 00 01 10 11; AAAA = 0, twice in the second row
        assert_eq!(counted(&["ACGT", "AAAAA", "ACGT"], Dna::Dna2, 4, 0), [(0, 1), (0x1b, 2)]);
    }

    #[test]
    fn occurrences_are_numbered_up_to_their_width() {
        let keys = counted(&["AAAAAAAAA"], Dna::Dna2, 4, 2);
        assert_eq!(keys, [(0, 1), (1, 1), (2, 1), (3, 1)]);
        assert_eq!(counted(&["AAAAT"], Dna::Dna2, 4, 1), [(0, 1), (3 << 1, 1)]);
    }

    #[test]
    fn one_degenerate_letter_expands_and_more_skip() {
        assert_eq!(counted(&["AAAR"], Dna::Dna4, 4, 0), [(0, 1), (2, 1)]);
        assert_eq!(counted(&["AAAV"], Dna::Dna4, 4, 0), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(counted(&["AARR", "NAAA"], Dna::Dna4, 4, 0), []);
    }

    #[test]
    fn thresholds_are_floors_and_the_smaller_wins() {
        assert_eq!(threshold(7, 0.5, 0), 3);
        assert_eq!(threshold(7, 0.5, 2), 2);
        assert_eq!(threshold(7, 0.5, 100), 3);
        assert_eq!(above(&Counts::from([(1, 3), (2, 4)]), 3), Counts::from([(2, 4)]));
    }

    #[test]
    fn kmers_are_spelled_first_base_first() {
        assert_eq!(spell(0x1b, 4), "ACGT");
    }
}
