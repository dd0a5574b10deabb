//! Long rows, of which several units take a portion each: the counts are those of rows that one worker takes whole.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kmer_tests::data::{self, Rng};
use kmer_tests::engine::{Ended, leader};
use kmer_tests::oracle::{Dna, Params, count_rows};
use kmer_tests::output::differences;

/// Rows that have each other's k-mers and their own again, far apart, and short ones between them.
fn rows(alphabet: &str) -> Vec<String> {
    let mut rng = Rng::new(101);
    let genome = rng.letters("ACGT", 9_000);
    let mut rows = vec![
        genome.clone(),
        format!("{}{}{}", &genome[4_000..8_000], &genome[..5_000], &genome[4_100..4_900]),
        genome[100..250].to_owned(),
        "A".repeat(3_000),
        format!("{}{}", "ACGTTGA".repeat(300), &genome[7_000..]),
        genome[..40].to_owned(),
        String::new(),
        "ACG".to_owned(),
    ];
    rows.extend((0..20).map(|_| rng.letters("ACGT", 90)));
    if alphabet.len() > 4 {
        rows.iter_mut().for_each(|row| *row = data::degenerate(&mut rng, row, 60));
    }
    rows
}

fn fasta(rows: &[String], width: usize, end: &str) -> String {
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        let _ = write!(text, ">row{i}{end}");
        for line in row.as_bytes().chunks(width) {
            let _ = write!(text, "{}{end}", String::from_utf8_lossy(line));
        }
    }
    text
}

fn imported(dir: &Path, name: &str, rows: &[String]) -> PathBuf {
    let (text, relation) = (dir.join("rows.fa"), dir.join(name));
    fs::write(&text, fasta(rows, 1 << 20, "\n")).expect("written");
    let _ = leader().words("import --type").arg(name).arg("-o").args([&relation, &text]).run().exits(0);
    relation
}

fn count(path: &Path, options: &str) -> Ended {
    leader().words("-q --all").words(options).arg(path).run()
}

const DEALT: [&str; 6] = [
    "-j 2 --part-bits 1 --stretch 64",
    "-j 3 --part-bits 2 --stretch 4",
    "-j 0 --part-bits 3 --stretch 300",
    "-j 2 --part-bits 4 --stretch 100 --batch-bytes 900 --stripe-bits 2",
    "-j 2 --part-bits 1 --stretch 32 --pass-bits 2",
    "-j 2 --part-bits 2 --stretch 64 --inject scan.stored:worker=0:kill --inject drain.stored:worker=1:kill",
];

#[test]
fn rows_of_a_relation_that_are_dealt_out_count_as_they_stand() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, dna, alphabet) in [("dna2", Dna::Dna2, "ACGT"), ("dna4", Dna::Dna4, "ACGTN")] {
        let rows = rows(alphabet);
        let relation = imported(dir.path(), name, &rows);
        let bits = if dna == Dna::Dna2 { data::dna2_bits } else { data::dna4_bits };
        let bits: Vec<Option<String>> = rows.iter().map(|row| Some(bits(row))).collect();
        for (k, occur_bitlen) in [(11, 0), (16, 2), (21, 0), (31, 0)] {
            let expected = count_rows(&bits, Params { dna, k, occur_bitlen });
            let k = format!("-k {k} -b {occur_bitlen}");
            let whole = count(&relation, &format!("{k} -j 1")).exits(0);
            for dealt in DEALT {
                let ended = count(&relation, &format!("{k} {dealt}")).exits(0);
                assert!(ended.stdout == whole.stdout, "{whole}{ended}{dealt}: other bytes");
            }
            let k = k.split(' ').nth(1).and_then(|k| k.parse().ok()).expect("a number");
            let told = differences(&whole.report(k, occur_bitlen).counts, &expected);
            assert!(told.is_none(), "{whole}{}", told.unwrap_or_default());
        }
        for more in
            ["-k 21 --count occurrences", "-k 16 --canonical", "-k 31 --canonical --count occurrences"]
        {
            let whole = count(&relation, &format!("{more} -j 1")).exits(0);
            for dealt in DEALT {
                let ended = count(&relation, &format!("{more} {dealt}")).exits(0);
                assert!(ended.stdout == whole.stdout, "{whole}{ended}{dealt}: other bytes");
            }
        }
    }
}

/// A stripe's rows are bounded from above by what units tell of it: none that has a k-mer over the threshold is left out.
#[test]
fn a_threshold_is_that_of_whole_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let relation = imported(dir.path(), "dna2", &rows("ACGT"));
    for rows in 1..5 {
        let options = format!("-q -k 16 --max-appearance-nrow {rows}");
        let whole = leader().words(&options).words("-j 1").arg(&relation).run().exits(0);
        for dealt in DEALT {
            let ended = leader().words(&options).words(dealt).arg(&relation).run().exits(0);
            assert!(ended.stdout == whole.stdout, "{whole}{ended}{dealt}: other bytes");
        }
        assert_eq!(whole.text().lines().any(|line| !line.starts_with('#')), rows < 3, "{whole}");
    }
}

/// Two chromosomes, between them short records; in each the same letters far apart.
fn chromosomes() -> Vec<String> {
    let mut rng = Rng::new(102);
    let genome = rng.letters("ACGT", 1_400_000);
    let mut rows = vec![genome.clone(), genome[10..200].to_owned(), rng.letters("ACGT", 1000)];
    rows.push(format!("{}{}", &genome[700_000..], &genome[600_000..1_300_000]));
    rows
}

#[test]
fn records_of_a_file_that_come_in_pieces_are_dealt_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let rows = chromosomes();
    for (width, end) in [(61, "\r\n"), (80, "\n"), (3, "\n"), (1 << 30, "\n")] {
        let file = &dir.path().join(format!("{width}.fa"));
        fs::write(file, fasta(&rows, width, end)).expect("written");
        for what in ["-k 16", "-k 31 --count occurrences", "-k 21 --row-per-file"] {
            let whole = count(file, &format!("{what} -j 1")).exits(0);
            for dealt in ["-j 2", "-j 3 --part-bits 2 --stretch 1000", "-j 2 --part-bits 1 --stretch 300000"]
            {
                let ended = count(file, &format!("{what} {dealt}")).exits(0);
                assert!(ended.stdout == whole.stdout, "{}{}other bytes", ended.command, ended.stderr);
            }
        }
    }
}

#[test]
fn odd_letters_are_told_once_whoever_has_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut rows = chromosomes();
    for (row, at) in [(0, 3), (0, 600_000), (0, 1_200_000), (1, 50), (3, 900_001)] {
        rows[row].replace_range(at..=at, "?");
    }
    rows.push("AC?".to_owned());
    let file = dir.path().join("odd.fa");
    fs::write(&file, fasta(&rows, 70, "\n")).expect("written");
    let run = |options: &str| leader().words("--all -k 21").words(options).arg(&file).run();
    let told = |ended: &Ended| {
        let skipped = |line: &&str| line.contains("taken for N");
        ended.stderr.lines().filter(skipped).map(str::to_owned).collect::<Vec<_>>()
    };
    let whole = run("-j 1 --on-error skip").exits(3);
    assert_eq!(told(&whole).len(), 4, "{}", whole.stderr);
    for dealt in ["-j 2", "-j 2 --part-bits 2 --stretch 5000", "-j 1 --part-bits 1 --stretch 100000"] {
        let ended = run(&format!("{dealt} --on-error skip")).exits(3);
        assert!(ended.stdout == whole.stdout, "{}{}other bytes", ended.command, ended.stderr);
        assert_eq!(told(&ended), told(&whole), "{}", ended.command);
        // Whichever of them is found first.
        let refused = run(dealt);
        let _ = refused.fails(1, &["odd.fa", "record \"row", "'?'"]);
    }
}

/// A record too short for any window is in nobody's portion.
#[test]
fn an_odd_letter_in_a_short_record_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut rows, file) = (rows("ACGT"), dir.path().join("odd.fa"));
    rows.push("AC?".to_owned());
    fs::write(&file, fasta(&rows, 70, "\n")).expect("written");
    let ended = count(&file, "-k 21 -j 2 --part-bits 1 --stretch 64 --unit-blocks 1");
    let _ = ended.fails(1, &["odd.fa", "record \"row28\"", "'?'"]);
}

#[test]
fn a_row_keeps_both_workers_busy() {
    let dir = tempfile::tempdir().expect("a directory");
    let rows = vec![Rng::new(103).letters("ACGT", 5_000_000)];
    let relation = imported(dir.path(), "dna2", &rows);
    let ended = leader().words("--all --count-only -k 21 -j 2").arg(&relation).run().exits(0);
    assert_eq!(ended.busy_workers(), 2, "{ended}");
    assert!(ended.stdout == count(&relation, "--count-only -k 21 -j 1").exits(0).stdout, "{ended}");
}
