//! Short keys whose large units are written as sums: the same counts as without, whoever asks for whatever of them.

use std::fs;
use std::path::{Path, PathBuf};

use kmer_tests::data::Rng;
use kmer_tests::engine::{Engine, leader};

/// Reads of a small genome, among them some with many repeats, as FASTA.
fn reads(dir: &Path, count: usize) -> PathBuf {
    let mut rng = Rng::new(77);
    let genome = rng.letters("ACGT", 40_000);
    let mut text = String::with_capacity(count * 160);
    for read in 0..count {
        let from = rng.below(genome.len() - 150);
        let letters = match read % 50 {
            0 => "A".repeat(150),
            1 => genome[from..from + 30].repeat(5),
            2 => format!("{}N{}", &genome[from..from + 70], &genome[from..from + 90]),
            _ => genome[from..from + 150].to_owned(),
        };
        text += &format!(">{read}\n{letters}\n");
    }
    let path = dir.join("reads.fa");
    fs::write(&path, text).expect("written");
    path
}

/// 250,000 of them as a relation, without checksums, enough for sums at k = 11.
fn imported(dir: &Path) -> PathBuf {
    let relation = dir.join("relation");
    let import = leader().words("import --skip-ambiguous --no-checksums").arg(reads(dir, 250_000));
    let _ = import.arg("-o").arg(&relation).run().exits(0);
    relation
}

fn engine(words: &str, path: &Path) -> Engine {
    leader().words(words).arg(path)
}

#[test]
fn sums_give_the_bytes_that_records_give() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = reads(dir.path(), 3000);
    let (wide, mut rng) = (dir.path().join("wide.fa"), Rng::new(5));
    let records = [400_000, 90, 70_000].map(|letters| format!(">\n{}\n", rng.letters("ACGT", letters)));
    fs::write(&wide, records.concat()).expect("written");
    for path in [&path, &wide] {
        for options in [
            "-k 11 -j 2 --unit-blocks 4",
            "-k 12 -j 1",
            "-k 12 -j 0 --canonical",
            "-k 11 -j 3 --unit-blocks 8 --count occurrences",
            "-k 12 -j 1 --count occurrences --canonical --stripe-bits 9",
            "-k 11 -j 2 --batch-bytes 3000 --stripe-bits 7",
            "-k 11 -j 1 --row-per-file",
            "-k 10 -j 2 --unit-blocks 4",
            "-k 10 -j 1 --canonical",
        ] {
            let plain = engine(&format!("-q --all {options}"), path).run().exits(0);
            let summed = engine(&format!("-q --all --summed {options}"), path).run().exits(0);
            assert!(plain.stdout.len() > 100_000, "{plain}");
            assert!(plain.stdout == summed.stdout, "{options}\n{plain}{summed}");
        }
    }
}

/// A section of sums takes a byte for each key of its stripe, so what a pass may write is known.
#[test]
fn little_memory_means_several_passes_over_sums() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = reads(dir.path(), 3000);
    let plain = engine("-q --all -k 12 -j 1", &path).run().exits(0);
    let planned =
        engine("--all --summed -k 12 -j 1 --unit-blocks 64 --memory 40M --dry-run", &path).run().exits(0);
    assert!(planned.text().contains("passes: 4"), "{planned}");
    let summed = engine("-q --all --summed -k 12 -j 1 --unit-blocks 64 --memory 40M", &path).run().exits(0);
    assert!(plain.stdout == summed.stdout, "{plain}{summed}");
}

/// Without being told to: where every worker has four units with twice as many k-mers as there are keys.
#[test]
fn large_relations_are_summed() {
    let dir = tempfile::tempdir().expect("a directory");
    let relation = imported(dir.path());
    let units = |options: &str| -> u32 {
        let words = format!("--all -k 11 -j 1 --dry-run {options}");
        let planned = engine(&words, &relation).run().exits(0);
        let line = planned.text().lines().find_map(|line| line.strip_prefix("units: "));
        line.and_then(|units| units.parse().ok()).unwrap_or_else(|| panic!("{planned}"))
    };
    assert_eq!(units(""), 4);
    // Where a unit may be left out it is small.
    assert!(units("--on-error skip") > 4);
    let summed = engine("-q --all -k 11 -j 1", &relation).run().exits(0);
    let plain = engine("-q --all -k 11 -j 1 --on-error skip", &relation).run().exits(0);
    assert!(plain.stdout.len() > 100_000, "{plain}");
    assert!(plain.stdout == summed.stdout, "{plain}{summed}");
}

/// A few units are work for one worker only, where a part of the relation has all the rows.
#[test]
fn uneven_relations_are_not_summed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (relation, uneven) = (imported(dir.path()), dir.path().join("uneven"));
    let schema = |of: &Path| of.with_extension("schema");
    fs::copy(schema(&relation), schema(&uneven)).expect("copied");
    // Pages of zeros before them, three times as many.
    let pages = fs::read(&relation).expect("the relation");
    let mut zeros = vec![0; 3 * pages.len()];
    zeros.extend(pages);
    fs::write(&uneven, zeros).expect("written");
    for (relation, summed) in [(&relation, true), (&uneven, false)] {
        let ended = engine("--all -k 11 -j 1 -v --count-only", relation).run().exits(0);
        assert_eq!(ended.stderr.contains("summed in each unit"), summed, "{ended}");
    }
}

/// Where k-mers are counted directly a unit writes a count for each key, so units are larger; not where one may be left out.
#[test]
fn units_that_are_counted_directly_are_large() {
    let dir = tempfile::tempdir().expect("a directory");
    let (relation, large) = (imported(dir.path()), dir.path().join("large"));
    fs::copy(relation.with_extension("schema"), large.with_extension("schema")).expect("copied");
    // Pages of zeros, which take no room on most disks, so that there are enough.
    let file = fs::File::create(&large).expect("a file");
    file.set_len(20_480 * 8192).expect("its length");
    let units = |options: &str| -> u32 {
        let planned = engine(&format!("--all -j 1 --dry-run {options}"), &large).run().exits(0);
        let line = planned.text().lines().find_map(|line| line.strip_prefix("units: "));
        line.and_then(|units| units.parse().ok()).unwrap_or_else(|| panic!("{planned}"))
    };
    // One unit is parted into four at the end.
    for k in [8, 9, 10] {
        assert_eq!(units(&format!("-k {k}")), 20_480 / 2048 + 3, "k = {k}");
        assert_eq!(units(&format!("-k {k} --on-error skip")), 20_480 / 512 + 3, "k = {k}");
    }
    for k in [11, 12, 16, 31] {
        assert_eq!(units(&format!("-k {k}")), 20_480 / 512 + 3, "k = {k}");
    }
}
