//! A copied table together with the rows that the server says are in it: what the engine reads, and what it shall find there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::engine::{Ended, Engine, leader};
use crate::oracle::{Counts, Dna, Params, count_rows};
use crate::output::{Report, differences};
use crate::server::{Snapshot, Table};

/// A copied table and its rows.
#[derive(Debug)]
pub struct Case {
    /// The copied files.
    pub snapshot: Snapshot,
    /// The DNA column.
    pub column: String,
    /// How bases lie in its bits.
    pub dna: Dna,
    /// The bits of the DNA column in every visible row.
    pub rows: Vec<Option<String>>,
    /// Whether the pages bear checksums.
    pub checksums: bool,
    counted: Mutex<BTreeMap<(bool, usize, u32), Arc<Counts>>>,
}

impl Case {
    /// Copies a table of a server without data checksums.
    #[must_use]
    pub fn new(table: &Table<'_>, column: &str, dna: Dna) -> Self {
        let rows = table.sequences(column);
        Self {
            snapshot: table.snapshot(),
            column: column.to_owned(),
            dna,
            rows,
            checksums: false,
            counted: Mutex::default(),
        }
    }

    /// Starts to describe a run of the engine on another file with the same columns; the file is not yet among the arguments.
    #[must_use]
    pub fn engine_without_file(&self) -> Engine {
        let engine = leader().arg("--schema").arg(&self.snapshot.schema);
        let engine = engine.arg("--column").arg(&self.column);
        let engine = match &self.snapshot.toast {
            Some(toast) => engine.arg("--toast").arg(toast),
            None => engine,
        };
        if self.checksums { engine } else { engine.arg("--no-checksums") }
    }

    /// Starts to describe a run of the engine on the copy.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine_without_file().arg(&self.snapshot.heap)
    }

    /// Starts to describe a run of the engine on another file with the same columns.
    #[must_use]
    pub fn engine_on(&self, file: &Path) -> Engine {
        self.engine_without_file().arg(file)
    }

    /// Gives what the oracle counts; it is asked once for each k and `occur_bitlen`.
    ///
    /// # Panics
    /// When the oracle did.
    #[must_use]
    pub fn expected(&self, k: usize, occur_bitlen: u32) -> Arc<Counts> {
        let dna = self.dna;
        let mut counted = self.counted.lock().expect("an oracle that did not panic");
        let counts = counted
            .entry((dna == Dna::Dna2, k, occur_bitlen))
            .or_insert_with(|| Arc::new(count_rows(&self.rows, Params { dna, k, occur_bitlen })));
        Arc::clone(counts)
    }

    /// Asks the engine for every k-mer and compares the answer with the oracle.
    ///
    /// # Panics
    /// When they differ.
    #[must_use]
    pub fn check(&self, k: usize, occur_bitlen: u32, workers: usize) -> Ended {
        let options = format!("--all -k {k} --occur-bitlen {occur_bitlen} -j {workers}");
        let ended = self.engine().words(&options).run().exits(0);
        self.check_report(&ended, k, occur_bitlen);
        ended
    }

    /// Compares a run's report of every k-mer with the oracle.
    ///
    /// # Panics
    /// When they differ.
    pub fn check_report(&self, ended: &Ended, k: usize, occur_bitlen: u32) {
        let report: Report = ended.report(k, occur_bitlen);
        let told = differences(&report.counts, &self.expected(k, occur_bitlen));
        assert!(told.is_none(), "{ended}{}", told.unwrap_or_default());
        assert_eq!(report.fact("total_rows"), self.rows.len().to_string(), "{ended}");
    }
}
