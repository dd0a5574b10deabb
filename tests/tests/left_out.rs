//! Blocks that are given up with `--on-error skip` are left out whole: all rows that begin in them, in all passes, and nothing else. The result is that
//! of a file without these rows.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kmer_tests::data::Rng;
use kmer_tests::engine::{Ended, leader};
use kmer_tests::fault::{run, segments_of, within};
use tempfile::TempDir;

const SKIP: &str = "-k 21 --unit-blocks 1 --stripe-bits 3 --on-error skip --max-attempts 1";

struct Reads {
    dir: TempDir,
    /// Each record's text.
    records: Vec<String>,
}

impl Reads {
    fn new() -> Self {
        let (mut rng, mut records) = (Rng::new(91), Vec::new());
        let genome = rng.letters("ACGT", 3000);
        for i in 0..400 {
            let from = rng.below(2800);
            let mut text = String::new();
            let _ = write!(text, ">r{i}\n{}\n", &genome[from..from + 200]);
            records.push(text);
        }
        let reads = Self { dir: tempfile::tempdir().expect("a directory"), records };
        fs::write(reads.path(), reads.records.concat()).expect("written");
        reads
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("reads.fa")
    }

    /// What is counted without the records that begin in the ranges of bytes that `told` has.
    fn without(&self, told: &str, options: &str) -> Ended {
        let ranges: Vec<(usize, usize)> =
            told.lines().filter(|line| line.contains("skipped: ")).map(range).collect();
        assert!(!ranges.is_empty(), "{told}nothing was left out");
        let (mut at, mut text) = (0, String::new());
        for record in &self.records {
            if !ranges.iter().any(|(from, to)| (*from..*to).contains(&at)) {
                text.push_str(record);
            }
            at += record.len();
        }
        let rest = self.dir.path().join("rest.fa");
        fs::write(&rest, text).expect("written");
        leader().words("-q -k 21 -j 1").words(options).arg(rest).run().exits(0)
    }
}

/// `... "reads.fa": bytes 8192 to 16384: 1 workers died on them`.
fn range(line: &str) -> (usize, usize) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "bytes").unwrap_or_else(|| panic!("{line}: no range"));
    let number = |word: &str| word.trim_end_matches(':').parse().unwrap_or_else(|_| panic!("{line}: {word}"));
    (number(words[at + 1]), number(words[at + 3]))
}

fn rows(report: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(report);
    let wanted =
        |line: &&str| !line.starts_with('#') || line.contains("rows: ") || line.contains("threshold: ");
    text.lines().filter(wanted).map(str::to_owned).collect()
}

/// A unit that shares its block with others holds a part of every row's k-mers: with it the others have to go, and all its rows.
#[test]
fn rows_that_several_workers_share_are_left_out_whole() {
    let reads = Reads::new();
    for part_bits in [1, 2] {
        let words = format!("{SKIP} --all -j 1 --part-bits {part_bits} --max-respawns 3");
        let ended =
            leader().words(&words).words("--inject scan.claimed:worker=0:kill").arg(reads.path()).run();
        let ended = ended.exits(3);
        assert!(ended.stderr.contains("the run begins anew, each row a worker's own"), "{ended}");
        assert_eq!(rows(&ended.stdout), rows(&reads.without(&ended.stderr, "--all").stdout), "{ended}");
    }
    // What is there once cannot be counted again.
    let words =
        format!("{SKIP} --all -j 1 --part-bits 1 --max-respawns 3 --inject scan.claimed:worker=0:kill -");
    let ended = leader().words(&words).stdin(fs::File::open(reads.path()).expect("written")).run();
    let _ = ended.fails(4, &["others have counted their part of the same rows", "hint", "-j 1"]);
}

/// What the first pass gave up no later one counts; what a later one gives up the first has counted, and that is an error.
#[test]
fn all_passes_leave_out_the_same() {
    let reads = Reads::new();
    let dir = reads.dir.path();
    let options = "-R 0.05";
    let start = |inject: &str| {
        let words = format!(
            "{SKIP} {options} -j 1 --pass-bits 2 --resumable -o out --max-respawns 2 --inject pass.left:leader:kill {inject}"
        );
        let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        args.push(path_text(&reads.path()));
        let killed = run(dir, &args, |_| {});
        assert_eq!(killed.signal(), Some(9), "{}", killed.told);
        let left = || segments_of(killed.pid);
        assert!(within(Duration::from_secs(5), || left().len() == 1), "{}", killed.told);
        left().pop().expect("one")
    };
    let resume = |segment: &str, inject: &str| {
        let words = format!("resume {segment} {inject}");
        run(dir, &words.split_whitespace().collect::<Vec<_>>(), |_| {})
    };
    let segment = start("--inject scan.claimed:worker=0:kill");
    let ended = resume(&segment, "");
    assert_eq!(ended.code(), Some(3), "{}", ended.told);
    let expected = reads.without(&ended.told, options);
    let found = fs::read(dir.join("out")).expect("a result");
    assert_eq!(rows(&found), rows(&expected.stdout), "{}", ended.told);
    fs::remove_file(dir.join("out")).expect("ours");
    let segment = start("");
    let ended = resume(&segment, "--inject scan.claimed:worker=0:kill");
    assert_eq!(ended.code(), Some(4), "{}", ended.told);
    assert!(ended.told.contains("in pass 2, and the one before has counted them"), "{}", ended.told);
    assert!(!dir.join("out").exists());
    let ended = resume(&segment, "");
    assert_eq!(ended.code(), Some(0), "tried again: {}", ended.told);
}

fn path_text(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}
