//! Partial results and their merge: the bytes of the one run over everything, or an error.

use std::fs;
use std::path::{Path, PathBuf};

use kmer_leader::partial::read::Part;
use kmer_tests::data::{self, Rng};
use kmer_tests::engine::{Ended, Engine, leader};
use tempfile::TempDir;

const KLEBS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/klebs");
/// Its blocks, in three uneven parts.
const RANGES: [&str; 3] = ["0..1", "1..34", "34..57"];

/// Runs a part into a file of `dir`: a stream if its name ends with arrow.
fn part(dir: &TempDir, name: &str, words: &str, inputs: &[&Path]) -> PathBuf {
    let path = dir.path().join(name);
    let engine = leader().words("-q").words(words).args(inputs);
    let engine = if name.ends_with("arrow") {
        engine.words("--partial -").stdout(fs::File::create(&path).expect("a file"))
    } else {
        engine.arg("--partial").arg(&path)
    };
    let _ = engine.run().exits(0);
    path
}

fn merge(parts: &[PathBuf], words: &str) -> Engine {
    leader().arg("merge").args(parts).words(words)
}

fn same(found: &Ended, expected: &Ended) {
    assert!(found.stdout == expected.stdout, "{expected}{found}");
    assert!(!found.stdout.is_empty(), "{found}nothing was compared");
}

#[test]
fn merged_parts_are_the_bytes_of_one_run() {
    let klebs = Path::new(KLEBS);
    for counted in ["-k 16", "-k 9", "-k 21 -b 2", "-k 31 --canonical", "-k 16 --pass-bits 1"] {
        let dir = tempfile::tempdir().expect("a directory");
        let parts: Vec<PathBuf> = RANGES
            .iter()
            .zip(["a.arrow", "b.parquet", "c.parquet"])
            .map(|(range, name)| part(&dir, name, &format!("{counted} --blocks {range}"), &[klebs]))
            .rev()
            .collect();
        for (asked, form) in [
            ("-R 0.001", ""),
            ("-R 0.001 -N 3", "-F json"),
            ("--all", ""),
            ("--min-rows 4 --max-rows 9 --sort count", "-F csv"),
            ("--top 100", "-F jsonl"),
            ("-R 0.0005", "-F parquet"),
            ("", "-F fasta"),
        ] {
            let (words, options) = (format!("{asked} {form}"), format!("-q -j 2 {counted} {asked} {form}"));
            let whole = leader().words(&options).arg(klebs).run().exits(0);
            let merged = merge(&parts, &words).run().exits(0);
            assert!(merged.stdout == whole.stdout, "{options}{whole}{merged}");
            assert!(merged.stderr.is_empty(), "{merged}");
        }
        // A part may be everything, and merging it alone is the run.
        let all = part(&dir, "all.parquet", counted, &[klebs]);
        let whole = leader()
            .words(&format!("-q -R 0.002 {counted} --histogram h"))
            .arg(klebs)
            .keeps("h")
            .run()
            .exits(0);
        let merged = merge(&[all], "-R 0.002 --histogram h").keeps("h").run().exits(0);
        same(&merged, &whole);
        let histogram = |ended: &Ended| fs::read(ended.dir.path().join("h")).expect("a histogram");
        assert!(histogram(&merged) == histogram(&whole));
    }
}

#[test]
fn parts_of_sequence_files_are_some_of_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let files: Vec<PathBuf> = (0..3)
        .map(|number| {
            let path = dir.path().join(format!("{number}.fa"));
            let rows = data::rows(90 + number, 80);
            let records =
                rows.iter().enumerate().map(|(i, row)| format!(">{i}\n{}\n", row.as_deref().unwrap_or("")));
            fs::write(&path, records.collect::<String>()).expect("written");
            path
        })
        .collect();
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    for (counted, asked) in [
        ("-k 12", "-R 0.01"),
        ("-k 12 --count occurrences --canonical", ""),
        ("-k 21 --row-per-file", "--all"),
    ] {
        let first = part(&dir, "first.arrow", counted, &paths[..2]);
        let second = part(&dir, "second.parquet", counted, &paths[2..]);
        let whole = leader().words(&format!("-q {counted} {asked}")).args(&paths).run().exits(0);
        same(&merge(&[first.clone(), second], asked).run().exits(0), &whole);
        let again = part(&dir, "again.parquet", counted, &paths[1..]);
        let _ = merge(&[first, again], asked)
            .run()
            .fails(1, &["again.parquet", "1.fa", "in part", "first.arrow"]);
    }
    let refused = leader().words("-k 12 --blocks 0..1 --partial x").arg(paths[0]).run();
    let _ = refused.fails(2, &["--blocks: expected a heap relation", "0.fa", "hint"]);
}

/// Between two parts a file may become another. Its size tells, or its time does.
#[test]
fn a_file_that_was_written_to_between_parts_is_doubted() {
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("klebs");
    for suffix in ["", ".schema", ".toast"] {
        fs::copy(format!("{KLEBS}{suffix}"), format!("{}{suffix}", copy.display())).expect("copied");
    }
    let made = |name: &str, blocks: &str| part(&dir, name, &format!("-k 16 --blocks {blocks}"), &[&copy]);
    let parts = |last: &Path| [made("a", "0..20"), made("b", "20..40"), last.to_owned()];
    let last = made("c", "40..57");
    let ended = merge(&parts(&last), "-R 0.001").run().exits(0);
    assert!(!ended.stderr.contains("modification"), "{ended}");
    let file = fs::File::options().write(true).open(&copy).expect("ours");
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(5)).expect("ours");
    let again = merge(&parts(&last), "-R 0.001").run().exits(0);
    let told = again.stderr.lines().filter(|line| line.contains("its time of modification in part")).count();
    assert!(told == 1 && again.stdout == ended.stdout, "{again}");
    assert!(
        again.stderr.contains("warning: file ") && again.stderr.contains("the sum is of neither"),
        "{again}"
    );
    // What counts is when it was opened, whatever happens while the part is written.
    let slow = dir.path().join("slow");
    let engine = leader().words("-q -k 16 --blocks 40..57 --inject report.begin:leader:delay=1500 --partial");
    let running = engine.arg(&slow).arg(&copy).spawn();
    std::thread::sleep(std::time::Duration::from_millis(700));
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(9)).expect("ours");
    let _ = running.wait().exits(0);
    let after = merge(&[made("a", "0..20"), made("b", "20..40"), slow], "-R 0.001").run().exits(0);
    assert!(after.stderr.contains("its time of modification in part"), "{after}");
    // One block more is no longer a matter of doubt.
    file.set_len(58 * 8192).expect("ours");
    let _ = merge(&parts(&last), "-R 0.001").run().fails(1, &["expected 58 blocks", "found 57"]);
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let (dir, klebs) = (tempfile::tempdir().expect("a directory"), Path::new(KLEBS));
    let made = |name: &str, words: &str| part(&dir, name, words, &[klebs]);
    let first = made("first.parquet", "-k 16 --blocks 0..20");
    for (name, words, told) in [
        ("k.parquet", "-k 17 --blocks 20..57", "k: expected 16, as in the first part, found 17"),
        ("b.parquet", "-k 16 -b 1 --blocks 20..57", "occur_bitlen: expected 0"),
        ("c.parquet", "-k 16 --canonical --blocks 20..57", "canonical: expected false"),
        ("o.parquet", "-k 16 --count occurrences --blocks 20..57", "counts: expected \"appearance_nrow\""),
        ("x.parquet", "-k 16 --blocks 19..57", "found 19 to 19 in part"),
        ("y.arrow", "-k 16", "found 0 to 19 in part"),
    ] {
        let other = made(name, words);
        let _ = merge(&[first.clone(), other], "--all -o out").run().fails(1, &[name, told]);
    }
    let _ = merge(&[first.clone(), first.clone()], "--all").run().fails(1, &["in no other part"]);
    for (words, told) in [
        ("--all -o x --histogram x", "--histogram \"x\": expected a file of its own, found that of -o"),
        (&format!("--all -o {}", first.display()), "found that of the input"),
    ] {
        let _ = merge(std::slice::from_ref(&first), words).run().fails(2, &[told]);
    }
    // What is missing is said; it may be meant.
    let last = made("last.parquet", "-k 16 --blocks 30..50");
    let ended = merge(&[last, first.clone()], "-R 0.9").run().exits(0);
    for told in ["klebs\": blocks 20 to 29 are in no part", "blocks 50 to 56 are in no part"] {
        assert!(ended.stderr.contains(told), "{ended}");
    }
    let _ = merge(&[first.clone(), PathBuf::from(KLEBS)], "")
        .run()
        .fails(1, &["klebs", "Parquet or an Arrow IPC stream"]);
    let _ = merge(&[first], "-F sql").run().fails(2, &["--format"]);
    // Parquet of ours, but no part.
    let engine =
        leader().words("-q -R 0.01 -F parquet -o whole.parquet").arg(klebs).keeps("whole.parquet").run();
    let whole = engine.exits(0).dir.path().join("whole.parquet");
    let _ = whole;
    for (words, told) in [
        ("--blocks 0..1", "--partial"),
        ("--blocks 5..5 --partial x", "the second greater"),
        ("--blocks 0..58 --partial x", "expected blocks before 57, found 0..58"),
        ("--partial x -R 0.1", "--max-appearance-rate"),
        ("--partial x -o y", "--output"),
    ] {
        let _ = leader().words(words).arg(klebs).run().fails(2, &[told]);
    }
}

#[test]
fn a_part_is_the_same_whatever_happens_to_its_workers() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["x.arrow", "x.parquet"] {
        let words = "-k 21 --blocks 3..40";
        let peace = fs::read(part(&dir, name, words, &[Path::new(KLEBS)])).expect("a part");
        for faults in [
            "-j 3 --inject scan.stored:worker=0:kill --inject drain.stored:worker=1:nth=2:kill",
            "-j 0 --unit-blocks 1",
        ] {
            let again =
                part(&dir, &format!("again-{name}"), &format!("{words} {faults}"), &[Path::new(KLEBS)]);
            assert!(fs::read(again).expect("a part") == peace, "{name} {faults}");
        }
    }
}

/// Reads all of a part.
fn read(path: &Path) -> Result<(String, Vec<(u64, u32)>), String> {
    let text = |failure: kmer_leader::failure::Failure| {
        failure.message().map_or_else(String::new, |m| m.error.clone())
    };
    let mut part = Part::open(path).map_err(text)?;
    let mut entries = Vec::new();
    while let Some(entry) = part.next_entry().map_err(text)? {
        entries.push(entry);
    }
    Ok((format!("{:?}", part.meta), entries))
}

/// Every bit and every length of a small part, and some of a large one.
#[test]
fn altered_parts_are_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let small = dir.path().join("small.fa");
    fs::write(&small, ">a\nACGTTGCAACG\n>b\nTTGCAACGT\n").expect("written");
    for name in ["x.arrow", "x.parquet", "small.arrow", "small.parquet"] {
        let is_small = name.starts_with("small");
        let path = match is_small {
            true => part(&dir, name, "-k 5", &[&small]),
            false => part(&dir, name, "-k 16 --blocks 0..2", &[Path::new(KLEBS)]),
        };
        let (good, whole) = (fs::read(&path).expect("a part"), read(&path).expect("whole"));
        assert!(whole.1.len() > if is_small { 5 } else { 10_000 });
        let (mut rng, mut tried, mut refused) = (Rng::new(91), 0, 0);
        let mut check = |bytes: &[u8], what: &str| {
            fs::write(&path, bytes).expect("written");
            tried += 1;
            match read(&path) {
                Ok(found) => assert!(found == whole, "{name}, {what}: another part passed"),
                Err(told) => {
                    assert!(!told.is_empty());
                    refused += 1;
                }
            }
        };
        let lengths: Vec<usize> = if is_small {
            (0..good.len()).collect()
        } else {
            (0..100).map(|_| rng.below(good.len())).collect()
        };
        lengths.into_iter().for_each(|length| check(&good[..length], &format!("cut to {length}")));
        let bits: Vec<usize> = match is_small {
            true => (0..good.len() * 8).collect(),
            // Where the meta data is, and anywhere.
            false => (0..200)
                .map(|round| match round % 4 {
                    0 => rng.below(3000 * 8),
                    1 => (good.len() - 3000) * 8 + rng.below(3000 * 8),
                    _ => rng.below(good.len() * 8),
                })
                .collect(),
        };
        let mut bytes = good.clone();
        for bit in bits {
            bytes[bit / 8] ^= 1 << (bit % 8);
            check(&bytes, &format!("byte {}, bit {}", bit / 8, bit % 8));
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        println!("{name}: {refused} of {tried} refused");
        assert!(refused * 3 > tried * 2, "{name}: only {refused} of {tried} refused");
        fs::write(&path, &good[..good.len() - 200]).expect("written");
        let _ = merge(&[path], "--all").run().fails(1, &[name]);
    }
}

/// As a run counts it twice.
#[test]
fn a_file_may_be_named_twice_for_one_part() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, second) = (dir.path().join("a.fa"), dir.path().join("b.fa"));
    fs::write(&first, ">a\nACGTTGCAACG\n").expect("written");
    fs::write(&second, ">b\nTTGCAACGTAA\n").expect("written");
    let files = [first.as_path(), &second, &first];
    let twice = part(&dir, "twice.parquet", "-k 5", &files);
    let whole = leader().words("-k 5 --all").args(files).run().exits(0);
    let merged = merge(std::slice::from_ref(&twice), "--all").run().exits(0);
    assert_eq!(merged.stdout, whole.stdout, "{merged}{whole}");
    let once = part(&dir, "once.parquet", "-k 5", &[&first]);
    let _ = merge(&[once, twice], "--all").run().fails(1, &["in no other part, found 0 to 0 in part"]);
}
