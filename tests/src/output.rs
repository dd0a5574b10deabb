//! Reads what the engine prints on standard output, and checks its form while reading.
//!
//! Form: header lines `# key: value`, each key once, then a line a k-mer: `kmer<TAB>uintkey<TAB>appearance_nrow`, in ascending order of
//! `uintkey` as an unsigned number, each once, with no other byte anywhere.

use std::collections::BTreeMap;

use crate::oracle::{Counts, spell};

/// What a run reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The header's facts.
    pub header: BTreeMap<String, String>,
    /// Row counts by key.
    pub counts: Counts,
}

impl Report {
    /// Reads the report of a run with k-mers of `k` bases and `occur_bitlen` bits of occurrence number.
    ///
    /// # Errors
    /// Tells the first line that breaks the form.
    pub fn parse(text: &str, k: usize, occur_bitlen: u32) -> Result<Self, String> {
        let mut report = Self::default();
        if !text.is_empty() && !text.ends_with('\n') {
            return Err("the last line has no end".to_owned());
        }
        let mut last = None;
        for (number, line) in text.lines().enumerate() {
            let result = match line.strip_prefix("# ") {
                Some(_) if last.is_some() => Err("a header line after the first k-mer"),
                Some(fact) => report.add_fact(fact),
                None => report.add_kmer(line, k, occur_bitlen, &mut last),
            };
            result.map_err(|what| format!("line {}: {what}: {line:?}", number + 1))?;
        }
        Ok(report)
    }

    fn add_fact(&mut self, fact: &str) -> Result<(), &'static str> {
        let (key, value) = fact.split_once(": ").ok_or("expected \"# key: value\"")?;
        match self.header.insert(key.to_owned(), value.to_owned()) {
            None => Ok(()),
            Some(_) => Err("a key comes twice"),
        }
    }

    fn add_kmer(&mut self, line: &str, k: usize, b: u32, last: &mut Option<u64>) -> Result<(), &'static str> {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[letters, key_text, rows_text] = fields.as_slice() else {
            return Err("expected three fields");
        };
        let key: u64 = key_text.parse().map_err(|_| "expected an unsigned key")?;
        let rows: u64 = rows_text.parse().map_err(|_| "expected a row count")?;
        if key.to_string() != key_text || rows.to_string() != rows_text {
            return Err("a number is not written plainly");
        }
        if rows == 0 {
            return Err("a k-mer of no row");
        }
        if spell(key.checked_shr(b).unwrap_or(0), k) != letters {
            return Err("the letters and the key differ");
        }
        if last.is_some_and(|last| last >= key) {
            return Err("the keys do not ascend");
        }
        *last = Some(key);
        self.counts.insert(key, rows);
        Ok(())
    }

    /// Gives a fact of the header.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn fact(&self, key: &str) -> &str {
        self.header.get(key).unwrap_or_else(|| panic!("no fact {key:?} in the header: {:#?}", self.header))
    }
}

/// Tells the first few differences of two counts, or nothing.
#[must_use]
pub fn differences(found: &Counts, expected: &Counts) -> Option<String> {
    if found == expected {
        return None;
    }
    let keys: std::collections::BTreeSet<&u64> = found.keys().chain(expected.keys()).collect();
    let differing: Vec<String> = keys
        .into_iter()
        .filter(|&key| found.get(key) != expected.get(key))
        .map(|key| format!("key {key}: found {:?}, expected {:?}", found.get(key), expected.get(key)))
        .collect();
    Some(format!(
        "{} of {} keys differ:\n{}",
        differing.len(),
        expected.len(),
        differing[..differing.len().min(10)].join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_report_is_read() {
        let report = Report::parse("# total_rows: 3\nACGT\t27\t2\nTTTT\t255\t1\n", 4, 0).expect("good");
        assert_eq!(report.fact("total_rows"), "3");
        assert_eq!(report.counts, Counts::from([(27, 2), (255, 1)]));
        let report = Report::parse("ACGT\t55\t2\n", 4, 1).expect("good with occurrence numbers");
        assert_eq!(report.counts, Counts::from([(55, 2)]));
    }

    #[test]
    fn every_broken_form_is_told() {
        for (text, what) in [
            ("ACGT\t27\t2", "no end"),
            ("ACGT\t27\n", "three fields"),
            ("ACGT\t-27\t2\n", "unsigned key"),
            ("ACGT\t027\t2\n", "plainly"),
            ("ACGT\t27\t0\n", "no row"),
            ("ACGA\t27\t2\n", "differ"),
            ("ACGT\t27\t2\nACGT\t27\t2\n", "ascend"),
            ("ACGT\t27\t2\nAAAA\t0\t2\n", "ascend"),
            ("ACGT\t27\t2\n# a: b\n", "after the first"),
            ("# a\n", "key: value"),
            ("# a: b\n# a: c\n", "twice"),
        ] {
            let error = Report::parse(text, 4, 0).expect_err(text);
            assert!(error.contains(what), "{text:?}: {error}");
        }
    }

    #[test]
    fn differences_are_told() {
        assert_eq!(differences(&Counts::from([(1, 1)]), &Counts::from([(1, 1)])), None);
        let told = differences(&Counts::from([(1, 1)]), &Counts::from([(1, 2), (2, 2)])).expect("two");
        assert!(told.starts_with("2 of 2 keys differ:\nkey 1: found Some(1), expected Some(2)"), "{told}");
    }
}
