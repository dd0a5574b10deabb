//! Short keys whose large units are written as sums: the same counts as without, whoever asks for whatever of them.

use std::fs;
use std::path::{Path, PathBuf};

use kmer_tests::data::Rng;
use kmer_tests::engine::{Ended, Engine, leader};

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

/// The lines of k-mers.
fn kmers(ended: &Ended) -> Vec<&[u8]> {
    let lines: Vec<&[u8]> =
        ended.stdout.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#")).collect();
    assert!(lines.len() > 10_000, "{ended}");
    lines
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
    assert!(planned.text().contains("passes: 8"), "{planned}");
    let summed = engine("-q --all --summed -k 12 -j 1 --unit-blocks 64 --memory 40M", &path).run().exits(0);
    assert!(plain.stdout == summed.stdout, "{plain}{summed}");
}

/// Without being told to: where there are as many k-mers for each worker as there are keys.
#[test]
fn large_relations_are_summed() {
    let dir = tempfile::tempdir().expect("a directory");
    let relation = imported(dir.path());
    let plain = engine("-q --all -k 11 -j 1 --unit-blocks 512", &relation).run().exits(0);
    assert!(plain.stdout.len() > 100_000, "{plain}");
    // 34 million k-mers, 4 million keys.
    for (options, is_summed) in
        [("-j 1", true), ("-j 8", true), ("-j 9", false), ("-j 2 --on-error skip", true)]
    {
        let ended = engine(&format!("-v --all -k 11 {options}"), &relation).run().exits(0);
        assert_eq!(ended.stderr.contains("summed by each worker"), is_summed, "{ended}");
        assert!(plain.stdout == ended.stdout, "{options}\n{plain}{ended}");
    }
}

/// Units of sums are as small as others, so it is no matter where in the relation the rows are.
#[test]
fn uneven_relations_are_summed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (relation, uneven) = (imported(dir.path()), dir.path().join("uneven"));
    fs::copy(relation.with_extension("schema"), uneven.with_extension("schema")).expect("copied");
    // Pages of zeros before them, three times as many.
    let pages = fs::read(&relation).expect("the relation");
    let mut zeros = vec![0; 3 * pages.len()];
    zeros.extend(pages);
    fs::write(&uneven, zeros).expect("written");
    let [even, uneven] =
        [&relation, &uneven].map(|relation| engine("-v --all -k 11 -j 2", relation).run().exits(0));
    assert!(uneven.stderr.contains("summed by each worker"), "{uneven}");
    assert!(uneven.stdout.len() > 100_000 && kmers(&even) == kmers(&uneven), "{even}{uneven}");
}

/// Units whose sums a worker writes as one are committed at once: one commit of a worker that is alone, though it scans many units.
#[test]
fn units_are_committed_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, trace) = (reads(dir.path(), 3000), dir.path().join("trace"));
    let words = format!("-q --all --summed -k 11 -j 1 --unit-blocks 4 --inject trace={}", trace.display());
    let _ = engine(&words, &path).run().exits(0);
    let told = fs::read_to_string(&trace).expect("a trace");
    let came_by = |point: &str| told.lines().filter(|line| *line == format!("worker {point}")).count();
    assert!(came_by("scan.bundled") > 10, "{told}");
    assert_eq!(came_by("scan.bundled"), came_by("scan.claimed"));
    assert_eq!([came_by("scan.stored"), came_by("scan.committed")], [1, 1]);
}

/// A result of many units tells as much as theirs would.
#[test]
fn what_is_skipped_is_told_of_every_unit() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("odd.fa");
    let letters = Rng::new(3).letters("ACGT", 150);
    let records = (0..2000).map(|record| format!(">record-{record}\n{letters}!{letters}\n"));
    fs::write(&path, records.collect::<String>()).expect("written");
    let told = |options: &str| {
        let words = format!("-q --all -k 11 -j 1 --unit-blocks 4 --on-error skip {options}");
        let ended = engine(&words, &path).run().exits(3);
        ended.stderr.lines().filter(|line| line.contains("no nucleotide code")).count()
    };
    assert_eq!([told(""), told("--summed")], [2000, 2000]);
}

/// Whoever dies, and when: what it had scanned is scanned again, once.
#[test]
fn what_a_dead_worker_had_bundled_is_counted_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = reads(dir.path(), 3000);
    let run = |options: &str| {
        let words = format!("-q --all --summed -k 11 --unit-blocks 2 {options}");
        engine(&words, &path).run().exits(0)
    };
    let plain = run("-j 1");
    for options in [
        "-j 1 --inject scan.bundled:nth=7:kill",
        "-j 2 --inject scan.bundled:nth=5:again:kill --max-respawns 100 --max-attempts 60",
        "-j 2 --inject scan.bundled:worker=1:nth=9:exit --inject scan.stored:worker=0:kill",
        "-j 3 --inject scan.claimed:nth=4:segv",
        "-j 1 --inject scan.committed:kill",
        // Nobody may be taken up with others then.
        "-j 2 --max-attempts 1",
        "-j 2 --on-worker-death degrade --inject scan.bundled:worker=0:nth=3:kill",
        // Believed dead while it has units, and then comes back.
        "-j 2 --worker-timeout 0.4 --inject scan.bundled:worker=0:nth=3:stop",
        "-j 2 --worker-timeout 0.4 --inject leader.hung:error --inject scan.bundled:worker=0:nth=3:delay=900 --inject finished:leader:delay=900",
        "-j 2 --worker-timeout 0.4 --inject leader.hung:error --inject scan.stored:worker=0:delay=900 --inject finished:leader:delay=900",
    ] {
        let ended = run(options);
        assert!(kmers(&plain) == kmers(&ended), "{options}\n{plain}{ended}");
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
