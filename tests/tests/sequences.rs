//! FASTA and FASTQ files as relations: every form of the same records gives the same counts, which are those of the plainest code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kmer_tests::data::{self, Rng};
use kmer_tests::engine::{Ended, leader};
use kmer_tests::kmc;
use kmer_tests::oracle::{Counts, Dna, Params, count_rows};
use kmer_tests::output::differences;
use tempfile::TempDir;

/// Records of letters with degenerate ones and N, in a directory with their files.
struct Reads {
    dir: TempDir,
    records: Vec<String>,
}

/// So small that every unit is a few records, every batch several chunks, every stripe has several records.
const SMALL: &str = "--unit-blocks 1 --chunk-bytes 4096 --stripe-bits 2 --batch-bytes 3000";

impl Reads {
    fn new(seed: u64, records: usize) -> Self {
        let mut rng = Rng::new(seed);
        let rows = data::rows(seed, records);
        let degenerate =
            |row: String| if rng.below(3) == 0 { data::degenerate(&mut rng, &row, 30) } else { row };
        let records = rows.into_iter().map(Option::unwrap_or_default).map(degenerate).collect();
        Self { dir: tempfile::tempdir().expect("a directory"), records }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    fn fasta(&self, width: usize, end: &str) -> String {
        let mut text = String::new();
        for (i, letters) in self.records.iter().enumerate() {
            let _ = write!(text, ">r{i} some words{end}");
            for line in letters.as_bytes().chunks(width) {
                let _ = write!(text, "{}{end}", String::from_utf8_lossy(line));
            }
        }
        text
    }

    fn fastq(&self, end: &str) -> String {
        let mut text = String::new();
        for (i, letters) in self.records.iter().enumerate() {
            // Qualities that look like other lines.
            let qualities: String = "@+>I".chars().cycle().skip(i).take(letters.len()).collect();
            let _ = write!(text, "@r{i}{end}{letters}{end}+{end}{qualities}{end}");
        }
        text
    }

    fn expected(&self, k: usize) -> Counts {
        rows_of(&self.records, k)
    }
}

fn rows_of(records: &[String], k: usize) -> Counts {
    let bits: Vec<Option<String>> = records.iter().map(|row| Some(data::dna4_bits(row))).collect();
    count_rows(&bits, Params { dna: Dna::Dna4, k, occur_bitlen: 0 })
}

fn check(ended: &Ended, k: usize, expected: &Counts) {
    let told = differences(&ended.report(k, 0).counts, expected);
    assert!(told.is_none(), "{ended}{}", told.unwrap_or_default());
}

fn counted(files: &[&Path], options: &str) -> Ended {
    leader().words("--all -q").words(options).args(files).run().exits(0)
}

#[test]
fn every_form_of_the_records_counts_the_same() {
    let reads = Reads::new(31, 900);
    let lower = reads.fasta(1000, "\n").replace("\nACG", "\nacg").replace('T', "U");
    let files = [
        reads.write("lines.fa", &reads.fasta(1000, "\n")),
        reads.write("wrapped.fa", &reads.fasta(61, "\n")),
        reads.write("crlf.fa", &reads.fasta(70, "\r\n")),
        reads.write("lower", &lower),
        reads.write("named.fa", &reads.fastq("\n")),
        reads.write("crlf.fq", &reads.fastq("\r\n")),
        reads.write("no-end.fq", reads.fastq("\n").trim_end()),
        reads.write("blank-lines.fq", &(reads.fastq("\n") + "\n\n")),
    ];
    for k in [5, 16, 31] {
        let expected = reads.expected(k);
        for file in &files {
            for options in ["-j 2".to_owned(), format!("-j 3 {SMALL}")] {
                let ended = counted(&[file], &format!("-k {k} {options}"));
                check(&ended, k, &expected);
                let report = ended.report(k, 0);
                assert_eq!(report.fact("total_rows"), "900", "{ended}");
                let short = reads.records.iter().filter(|row| row.len() < k).count();
                assert_eq!(report.fact("rows_short"), short.to_string(), "{ended}");
            }
        }
    }
}

#[test]
fn a_file_counts_like_its_import() {
    let reads = Reads::new(32, 500);
    let file = reads.write("reads", &reads.fasta(50, "\n"));
    let relation = reads.dir.path().join("relation");
    let _ = leader().args(["import", "--type", "dna4", "-o"]).arg(&relation).arg(&file).run().exits(0);
    for options in ["-k 21 --max-appearance-rate 0.01", "-k 8 -b 3 --all", "-k 11 --top 9", "-k 16"] {
        let text = |path: &Path| {
            let text = leader().words("-q -j 2").words(options).arg(path).run().exits(0).text().to_owned();
            text.lines().filter(|line| !line.starts_with("# column: ")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(text(&file), text(&relation), "{options}");
    }
}

#[test]
fn files_are_one_set_of_rows_or_a_row_each() {
    let reads = Reads::new(33, 300);
    let files: Vec<PathBuf> = reads
        .records
        .chunks(50)
        .enumerate()
        .map(|(i, records)| {
            let text: String = records.iter().map(|row| format!(">x\n{row}\n")).collect();
            reads.write(&format!("genome{i}"), &text)
        })
        .collect();
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    for k in [9, 21] {
        let mut in_files = Counts::new();
        for records in reads.records.chunks(50) {
            rows_of(records, k).keys().for_each(|key| *in_files.entry(*key).or_default() += 1);
        }
        for options in ["-j 2".to_owned(), format!("-j 3 {SMALL}"), "-j 2 --part-bits 1".to_owned()] {
            check(&counted(&paths, &format!("-k {k} {options}")), k, &reads.expected(k));
            let ended = counted(&paths, &format!("-k {k} --row-per-file {options}"));
            check(&ended, k, &in_files);
            assert_eq!(ended.report(k, 0).fact("total_rows"), "6", "{ended}");
        }
    }
}

/// Where keys are counted directly, more stripes than keys are asked for in vain.
#[test]
fn a_stripe_has_one_key_at_least() {
    let reads = Reads::new(42, 60);
    let file = reads.write("reads", &reads.fasta(50, "\n"));
    for k in [4, 5, 10, 12] {
        let run = |more: &str| counted(&[&file], &format!("-k {k} -j 2 {more}"));
        check(&run("--stripe-bits 13"), k, &reads.expected(k));
        assert!(run("--stripe-bits 13").stdout == run("").stdout, "k {k}: other bytes");
    }
}

/// A chromosome is shared by all workers, and is read in pieces.
#[test]
fn one_long_record_keeps_all_workers_busy() {
    let mut rng = Rng::new(34);
    let chromosome = data::degenerate(&mut rng, &Rng::new(5).letters("ACGT", 5_000_000), 200_000);
    let reads = Reads { dir: tempfile::tempdir().expect("a directory"), records: vec![chromosome] };
    let file = reads.write("chromosome.fa", &reads.fasta(80, "\n"));
    let ended = leader().words("-k 12 --all -j 2").arg(&file).run().exits(0);
    check(&ended, 12, &reads.expected(12));
    assert_eq!(ended.busy_workers(), 2, "{ended}");
}

fn reverse_complement(kmer: u64, k: usize) -> u64 {
    (0..k).fold(0, |other, i| other << 2 | (3 - (kmer >> (2 * i) & 3)))
}

/// How often each k-mer occurs, as both strands together if `canonical` says so: every window by itself.
fn occurrences(records: &[String], k: usize, canonical: bool) -> Counts {
    let mut counts = Counts::new();
    for letters in records.iter().flat_map(|record| windows(record, k)) {
        let letters = if canonical { letters.min(reverse_complement(letters, k)) } else { letters };
        *counts.entry(letters).or_default() += 1;
    }
    counts
}

fn windows(record: &str, k: usize) -> Vec<u64> {
    let codes: Vec<Option<usize>> = record.chars().map(|letter| "ACGT".find(letter)).collect();
    let kmer = |window: &[Option<usize>]| {
        window.iter().try_fold(0, |kmer, code| Some(kmer << 2 | u64::try_from((*code)?).ok()?))
    };
    codes.windows(k).filter_map(kmer).collect()
}

fn plain_reads(seed: u64, records: usize) -> Reads {
    let mut reads = Reads::new(seed, records);
    reads.records = data::rows(seed, records).into_iter().map(Option::unwrap_or_default).collect();
    // Rows of one strand and of the other.
    for row in reads.records.iter_mut().step_by(2) {
        *row =
            row.chars().rev().map(|c| "TGCA".as_bytes()["ACGT".find(c).expect("a base")] as char).collect();
    }
    reads
}

#[test]
fn rows_and_occurrences_as_they_stand_and_canonical() {
    let reads = plain_reads(35, 700);
    let file = reads.write("reads.fa", &reads.fasta(100, "\n"));
    for k in [4, 8, 12, 16, 21, 31, 32] {
        let mut rows = Counts::new();
        for record in &reads.records {
            let kmers: BTreeSet<u64> =
                windows(record, k).into_iter().map(|kmer| kmer.min(reverse_complement(kmer, k))).collect();
            kmers.into_iter().for_each(|kmer| *rows.entry(kmer).or_default() += 1);
        }
        for options in ["-j 2".to_owned(), format!("-j 3 {SMALL}"), format!("-j 2 {SMALL} --part-bits 1")] {
            let run = |more: &str| counted(&[&file], &format!("-k {k} {options} {more}"));
            check(&run("--canonical"), k, &rows);
            let every = run("--count occurrences");
            check(&every, k, &occurrences(&reads.records, k, false));
            check(&run("--count occurrences --canonical"), k, &occurrences(&reads.records, k, true));
            assert_eq!(every.report(k, 0).fact("count"), "occurrences");
        }
    }
}

/// What every other counter counts.
#[test]
fn canonical_occurrences_are_those_of_kmc_and_jellyfish() {
    let reads = plain_reads(36, 1500);
    let file = reads.write("reads.fa", &reads.fasta(1000, "\n"));
    for k in [9, 16, 21, 31] {
        let ended = counted(&[&file], &format!("-k {k} --count occurrences --canonical -j 2"));
        check(&ended, k, &kmc::count_canonical(&file, k));
        check(&ended, k, &kmc::count_canonical_by_jellyfish(&file, k));
    }
}

#[test]
fn a_dense_file_of_canonical_kmers_knows_both_strands() {
    let reads = plain_reads(37, 200);
    let file = reads.write("reads.fa", &reads.fasta(1000, "\n"));
    for k in [9, 21] {
        let dense = reads.dir.path().join(format!("dense{k}"));
        let ended =
            counted(&[&file], &format!("-k {k} --canonical --count occurrences --dense {}", dense.display()));
        let expected = occurrences(&reads.records, k, true);
        let spelled = |kmer: u64| kmer_tests::oracle::spell(kmer, k);
        for (kmer, count) in expected.iter().take(20) {
            let text = leader()
                .arg("lookup")
                .arg(&dense)
                .args([spelled(*kmer), spelled(reverse_complement(*kmer, k))])
                .run()
                .exits(0);
            let line = format!("{}\t{kmer}\t{count}\n", spelled(*kmer));
            assert_eq!(text.text(), line.repeat(2), "{text}");
        }
        let dumped = leader().arg("dump").arg(&dense).run().exits(0);
        assert_eq!(dumped.text(), ended.text());
    }
}

/// A file is one unit, whatever it has: its counts are stored before they could be too large for their 32 bits.
#[test]
fn occurrences_counted_directly_are_stored_again_and_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut rng = Rng::new(93);
    let letters: Vec<u8> = (0..400_000).map(|_| b"ACGT"[rng.below(4)]).collect();
    let path = dir.path().join("one.fa");
    fs::write(&path, [b">one\n", &letters[..], b"\n"].concat()).expect("written");
    let mut expected: BTreeMap<&[u8], u64> = BTreeMap::new();
    letters.windows(5).for_each(|kmer| *expected.entry(kmer).or_default() += 1);
    for workers in 1..=2 {
        let words = format!("--all -k 5 --count occurrences --batch-bytes 1000 -j {workers}");
        let ended = leader().words(&words).arg(&path).run().exits(0);
        let lines = ended.text().lines().filter(|line| !line.starts_with('#'));
        let found = lines.map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            (fields[0].as_bytes(), fields[2].parse().expect("a count"))
        });
        assert!(found.collect::<BTreeMap<&[u8], u64>>() == expected, "{ended}");
    }
}

#[test]
fn what_has_no_meaning_is_refused() {
    let reads = plain_reads(38, 5);
    let file = reads.write("reads.fa", &reads.fasta(1000, "\n"));
    for (options, words) in [
        ("--count occurrences -R 0.1", "--max-appearance-rate: expected --count rows"),
        ("--count occurrences -N 5", "--max-appearance-nrow: expected --count rows"),
        ("--count occurrences -k 8 -b 4", "--occur-bitlen: expected --count rows"),
        ("--canonical --format sql --table-oid 5", "--format: expected counts of rows"),
        ("--schema seq,dna2", "--schema: expected a heap relation, found sequence file"),
        ("--column seq", "--column: expected a heap relation"),
    ] {
        let _ = leader().words(options).arg(&file).run().fails(2, &[words]);
    }
    let relation = reads.dir.path().join("relation");
    let _ = leader().args(["import", "-o"]).arg(&relation).arg(&file).run().exits(0);
    let _ = leader()
        .arg("--row-per-file")
        .arg(&relation)
        .run()
        .fails(2, &["--row-per-file: expected sequence files"]);
    let _ = leader().arg(&file).arg(&relation).run().fails(1, &["expected FASTA or FASTQ"]);
    let bad = reads.write("bad", "no sequence\n");
    let _ = leader().arg(&file).arg(&bad).run().fails(1, &["bad", "found neither > nor @ at its start"]);
    let _ = leader().arg(&file).arg(reads.dir.path()).run().fails(1, &["found a directory"]);
}

#[test]
fn damage_is_named_or_skipped_and_counted() {
    let mut reads = plain_reads(39, 400);
    let good = reads.fastq("\n");
    let at = good.match_indices("@r200\n").next().expect("a record").0;
    let damaged = [
        // A quality too few, a letter that means nothing, a line too many, a record cut off.
        (good[..at].to_owned() + "@odd\nACGT\n+\nIII\n" + &good[at..], "record at byte", 0),
        (
            good[..at].to_owned()
                + "@odd\nACGTAC-TACGTACGTACGTACGT\n+\nIIIIIIIIIIIIIIIIIIIIIIII\n"
                + &good[at..],
            "record \"odd\": expected an IUPAC nucleotide code, found '-'",
            1,
        ),
        (good[..at].to_owned() + "@odd\nACGT\nACGT\n+\nIIIIIIII\n" + &good[at..], "record at byte", 0),
        (good.clone() + "@odd\nACGTACGT\n+", "expected a whole record, found the end of the file", 0),
    ];
    for (i, (text, words, rows)) in damaged.iter().enumerate() {
        let file = reads.write(&format!("damaged{i}"), text);
        for options in ["-j 2".to_owned(), format!("-j 2 {SMALL}")] {
            let _ = leader().words("--all -k 9").words(&options).arg(&file).run().fails(1, &[words]);
            let ended =
                leader().words("--all -k 9 --on-error skip").words(&options).arg(&file).run().exits(3);
            let report = ended.report(9, 0);
            assert_eq!(report.fact("tuples_skipped"), "1", "{ended}");
            assert_eq!(report.fact("total_rows"), (400 + rows).to_string(), "{ended}");
            if *rows == 0 {
                check(&ended, 9, &reads.expected(9));
            }
        }
    }
    // Taken for N, so the windows without it count.
    reads.records.push("ACGTACNTACGTACGTACGTACGT".into());
    let file = reads.dir.path().join("damaged1");
    let ended = leader().words("--all -k 9 --on-error skip").arg(&file).run().exits(3);
    check(&ended, 9, &reads.expected(9));
}

/// Wherever a unit begins, a damaged record is never left out in silence.
#[test]
fn no_damage_is_passed_over_between_units() {
    let reads = plain_reads(40, 300);
    let good = reads.fastq("\n");
    for i in (13..300).step_by(13) {
        let header = format!("@r{i}\n");
        let at = good.find(&header).expect("a record");
        // Without its mark it is no record, wherever the search for one begins.
        let text = good[..at].to_owned() + &good[at + 1..];
        let file = reads.write("unmarked", &text);
        let _ = leader().words("--all -k 9 -j 2").words(SMALL).arg(&file).run().fails(1, &["expected"]);
        let ended = leader().words("--all -k 9 -j 2 --on-error skip").words(SMALL).arg(&file).run().exits(3);
        assert_eq!(ended.report(9, 0).fact("total_rows"), "299", "{ended}");
    }
}

/// Counts by name of the file, so that a map of expectations is built once.
#[test]
fn workers_die_over_sequence_files_and_nothing_changes() {
    let reads = plain_reads(41, 300);
    let file = reads.write("reads.fq", &reads.fastq("\n"));
    let mut results = BTreeMap::new();
    for inject in
        ["", "--inject scan.block:nth=3:kill", "--inject scan.stored:nth=2:segv", "--inject drain.built:kill"]
    {
        let ended = counted(&[&file], &format!("-k 21 -j 2 {SMALL} {inject}"));
        check(&ended, 21, &reads.expected(21));
        results.insert(ended.stdout.clone(), inject);
    }
    assert_eq!(results.len(), 1);
}

/// Where damage is passed over, the reader begins anew at places that the text alone decides on.
/// 250 batches of 8192 stripes: more entries than a drainer keeps, so it asks every batch's index for one stripe after the other.
#[test]
fn very_many_sections_are_found_one_stripe_at_a_time() {
    let letters = Rng::new(77).letters("ACGT", 2_040_000);
    let records: Vec<String> =
        letters.as_bytes().chunks(500).map(|record| String::from_utf8_lossy(record).into_owned()).collect();
    let reads = Reads { dir: tempfile::tempdir().expect("a directory"), records };
    let file = reads.write("long.fa", &reads.fasta(100, "\n"));
    let expected = counted(&[&file], "-k 21 -j 1").stdout;
    let capacities = "-k 21 --unit-blocks 1 --stripe-bits 13";
    for more in ["-j 2", "-j 0", "-j 2 --inject drain.claimed:worker=0:nth=2:kill", "-j 2 --pass-bits 1"] {
        let ended = counted(&[&file], &format!("{capacities} {more}"));
        assert!(ended.stdout == expected, "{ended}other bytes");
    }
}

#[test]
fn what_is_left_of_damaged_text_does_not_depend_on_the_workers() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut rng = kmer_tests::data::Rng::new(77);
    for round in 0..4 {
        let mut lines = Vec::new();
        for i in 0..3000 {
            let length = 20 + rng.below(80);
            let bases: String = (0..length).map(|_| char::from(b"ACGT"[rng.below(4)])).collect();
            // Qualities that look like headers.
            let qualities: String = (0..length).map(|_| char::from(b"@+I"[rng.below(3)])).collect();
            lines.extend([format!("@r{i}"), bases, "+".into(), qualities]);
        }
        for _ in 0..200 {
            let at = 4 + rng.below(lines.len() - 4);
            lines.remove(at);
        }
        let path = dir.path().join(format!("{round}.fq"));
        std::fs::write(&path, lines.join("\n") + "\n").expect("written");
        let count = |options: &str| {
            leader().words(&format!("-q --all -k 11 --on-error skip {options}")).arg(&path).run()
        };
        let one = count("-j 1").exits(3).stdout;
        for options in ["-j 0", "-j 4", "-j 7"] {
            let ended = count(options).exits(3);
            assert!(ended.stdout == one, "{ended}other bytes than one worker's");
        }
    }
}

#[test]
fn an_output_takes_no_input_s_place_and_no_other_output_s() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("t.fa");
    std::fs::write(&input, ">a\nACGTACGTACGT\n").expect("written");
    let (path, link) = (input.display(), dir.path().join("link"));
    std::os::unix::fs::symlink(&input, &link).expect("made");
    let fails = |words: &str| leader().words(words).run().fails(2, &["expected a file of its own"]);
    let _ = fails(&format!("-q -k 9 --all {path} -o {path}"));
    let _ = fails(&format!("-q -k 9 --all {path} -o {}", link.display()));
    let _ = fails(&format!("-q -k 9 --all {path} --histogram same -o same"));
    let _ = fails(&format!("-q -k 9 --all {path} --dense ./same -o same"));
    assert_eq!(std::fs::read(&input).expect("there"), b">a\nACGTACGTACGT\n");
    // A dense file and a report of it are of the same k-mers.
    let _ = leader()
        .words(&format!("-q -k 9 {path} --top 2 --dense d"))
        .run()
        .fails(2, &["--dense: expected every k-mer"]);
    let _ = leader()
        .words(&format!("-q -k 9 {path} -N 5 --histogram h --dense d"))
        .run()
        .fails(2, &["--dense: expected --all"]);
}
