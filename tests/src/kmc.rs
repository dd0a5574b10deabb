//! Counts rows by KMC, a k-mer counter that nobody here wrote.
//!
//! KMC counts occurrences, not rows. So each row is reduced to its distinct k-mers, and each of those becomes a FASTA record of its own: what
//! KMC then counts is rows. It must be told not to add reverse complements (`-b`), and to cut nothing off at either end (`-ci1`, `-cx`, `-cs`).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::head;
use crate::oracle::Counts;

fn run(command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; install KMC with tests/install.sh"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        head(&String::from_utf8_lossy(&output.stdout), 40),
        head(&String::from_utf8_lossy(&output.stderr), 40)
    );
}

/// Counts in how many rows of letters (A, C, G, T only) each k-mer occurs; k from 8 to 32.
///
/// # Panics
/// When KMC is not there or fails.
#[must_use]
pub fn count_rows(rows: &[Option<String>], k: usize) -> Counts {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (input, base, dump) = (dir.path().join("in.fa"), dir.path().join("db"), dir.path().join("dump"));
    let mut fasta = String::new();
    for row in rows.iter().flatten() {
        let distinct: BTreeSet<&str> = (k..=row.len()).map(|end| &row[end - k..end]).collect();
        for kmer in distinct {
            let _ = writeln!(fasta, ">\n{kmer}");
        }
    }
    fs::write(&input, fasta).expect("the FASTA file");
    let most = u32::MAX.to_string();
    run(Command::new("kmc")
        .args([
            &format!("-k{k}"),
            "-b",
            "-ci1",
            &format!("-cs{most}"),
            &format!("-cx{most}"),
            "-fm",
            "-t1",
            "-m2",
        ])
        .args([&input, &base])
        .arg(dir.path()));
    run(Command::new("kmc_dump").args(["-ci1", &format!("-cx{most}")]).args([&base, &dump]));
    let text = fs::read_to_string(&dump).expect("KMC's dump");
    text.lines().map(|line| parse(line, '\t').unwrap_or_else(|| panic!("KMC's dump: {line:?}"))).collect()
}

/// How often each canonical k-mer occurs in a FASTA file, by KMC; k from 8 to 32.
///
/// # Panics
/// When KMC is not there or fails.
#[must_use]
pub fn count_canonical(file: &Path, k: usize) -> Counts {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (base, dump) = (dir.path().join("db"), dir.path().join("dump"));
    let most = u32::MAX.to_string();
    let (k, counter, cut) = (format!("-k{k}"), format!("-cs{most}"), format!("-cx{most}"));
    run(Command::new("kmc")
        .args([&k, "-ci1", &counter, &cut, "-fm", "-t1", "-m2"])
        .args([file, &base])
        .arg(dir.path()));
    run(Command::new("kmc_dump").args(["-ci1", &cut]).args([&base, &dump]));
    let text = fs::read_to_string(&dump).expect("KMC's dump");
    text.lines().map(|line| parse(line, '\t').unwrap_or_else(|| panic!("KMC's dump: {line:?}"))).collect()
}

/// The same by Jellyfish.
///
/// # Panics
/// When Jellyfish is not there or fails.
#[must_use]
pub fn count_canonical_by_jellyfish(file: &Path, k: usize) -> Counts {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (base, dump) = (dir.path().join("db"), dir.path().join("dump"));
    run(Command::new("jellyfish")
        .args(["count", "-C", "-s", "1M", "-t", "1", "-m", &k.to_string(), "-o"])
        .args([&base, file]));
    run(Command::new("jellyfish").args(["dump", "-c", "-o"]).args([&dump, &base]));
    let text = fs::read_to_string(&dump).expect("Jellyfish's dump");
    text.lines()
        .map(|line| parse(line, ' ').unwrap_or_else(|| panic!("Jellyfish's dump: {line:?}")))
        .collect()
}

fn parse(line: &str, between: char) -> Option<(u64, u64)> {
    let (letters, count) = line.split_once(between)?;
    let mut kmer = 0;
    for letter in letters.chars() {
        kmer = kmer << 2 | u64::try_from("ACGT".find(letter)?).ok()?;
    }
    Some((kmer, count.parse().ok()?))
}
