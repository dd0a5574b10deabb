//! What is counted: every k, every number of workers, occurrence numbers, degenerate letters, thresholds.

use std::path::Path;
use std::sync::OnceLock;

use kmer_tests::case::Case;
use kmer_tests::data::{self, Rng};
use kmer_tests::engine::leader;
use kmer_tests::kmc;
use kmer_tests::oracle::{self, Dna};
use kmer_tests::output::differences;
use kmer_tests::server::Server;

/// Some fifty pages of short `dna2` rows.
fn reads() -> &'static Case {
    static CASE: OnceLock<Case> = OnceLock::new();
    CASE.get_or_init(|| {
        let server = Server::shared();
        let rows: Vec<Vec<Option<String>>> = data::all_dna2_bits(&data::rows(10, 3000))
            .into_iter()
            .enumerate()
            .map(|(id, bits)| vec![Some(id.to_string()), bits])
            .collect();
        server.sql(
            &("CREATE TABLE reads (id int4, seq dna2);\n".to_owned()
                + &data::copy("reads", "id, seq", &rows)),
        );
        Case::new(&server.table("reads"), "seq", Dna::Dna2)
    })
}

/// Rows of `dna4` with few or many degenerate letters.
fn degenerate() -> &'static Case {
    static CASE: OnceLock<Case> = OnceLock::new();
    CASE.get_or_init(|| {
        let server = Server::shared();
        let mut rng = Rng::new(11);
        let rows: Vec<Option<String>> = data::rows(12, 1000)
            .into_iter()
            .map(|row| {
                let every = [5, 20, 60, 1000][rng.below(4)];
                row.map(|letters| data::degenerate(&mut rng, &letters, every))
            })
            .chain(["R".repeat(40), "NA".repeat(30), "ACGTR".repeat(30)].map(Some))
            .collect();
        let mut bits = data::all_dna4_bits(&rows);
        // The code 0 is no base.
        bits.push(Some("0001".repeat(20) + "0000" + &"0010".repeat(20)));
        server.sql(
            &("CREATE TABLE degenerate (seq dna4);\n".to_owned()
                + &data::copy_bits("degenerate", "seq", &bits)),
        );
        Case::new(&server.table("degenerate"), "seq", Dna::Dna4)
    })
}

fn same_for_every_worker_count(case: &Case, k: usize, workers: &[usize]) {
    let alone = case.check(k, 0, 0);
    for &workers in workers {
        let options = format!("--all -k {k} -j {workers}");
        let ended = case.engine().words(&options).run().exits(0);
        assert!(
            ended.stdout == alone.stdout,
            "{alone}{ended}k {k}: {workers} workers print other bytes than none"
        );
    }
}

#[test]
fn small_k_with_any_number_of_workers() {
    for k in [4, 8, 12] {
        same_for_every_worker_count(reads(), k, &[1, 2, 4, 8]);
    }
}

#[test]
fn large_k_with_any_number_of_workers() {
    for k in [21, 31, 32] {
        same_for_every_worker_count(reads(), k, &[1, 2, 4, 8]);
    }
}

#[test]
fn the_default_k_with_any_number_of_workers() {
    same_for_every_worker_count(reads(), 16, &[1, 2, 3, 4, 8, 64]);
}

#[test]
fn shared_blocks_and_several_passes_change_nothing() {
    for (case, k) in [(reads(), 11), (reads(), 16), (reads(), 31), (degenerate(), 20)] {
        let alone = case.check(k, 0, 0);
        for options in [
            "--part-bits 2 -j 2",
            "--part-bits 1 --stretch 64 --chunk-bytes 4096 -j 2",
            "--pass-bits 2 -j 2",
            "--pass-bits 1 --part-bits 1 -j 3",
            "--pass-bits 3 -j 0",
            "--pass-bits 1 --occur-bitlen 0 --histogram h.txt",
        ] {
            let engine = case.engine().words(&format!("--all -k {k} {options}"));
            let engine = if options.contains("histogram") { engine.keeps("h.txt") } else { engine };
            let ended = engine.run().exits(0);
            assert!(ended.stdout == alone.stdout, "{alone}{ended}{options} prints other bytes");
        }
    }
}

#[test]
fn passes_without_a_kmer_over_the_threshold_are_left_out() {
    let case = reads();
    let whole = case.engine().words("-k 16 -j 2 --max-appearance-nrow 60").run().exits(0);
    for options in ["--pass-bits 2", "--pass-bits 4 --top 7", "--top 7"] {
        let ended = case.engine().words("-k 16 -j 2 --max-appearance-nrow 60").words(options).run().exits(0);
        let lines = |text: &[u8]| {
            let text = String::from_utf8_lossy(text).into_owned();
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        if options.contains("top") {
            assert!(lines(&ended.stdout).len() <= 7, "{ended}");
            assert!(lines(&ended.stdout).iter().all(|line| lines(&whole.stdout).contains(line)), "{ended}");
        } else {
            assert!(ended.stdout == whole.stdout, "{whole}{ended}");
        }
    }
}

#[test]
fn little_memory_means_several_passes_and_the_same_bytes() {
    let case = reads();
    let whole = case.engine().words("-k 21 -j 1 --max-appearance-nrow 60").run().exits(0);
    for memory in ["12M", "40M"] {
        let words = format!("-k 21 -j 1 --max-appearance-nrow 60 --memory {memory}");
        let ended = case.engine().words(&words).run().exits(0);
        assert!(ended.stdout == whole.stdout, "{whole}{ended}");
    }
    let engine = case.engine().words("-k 21 -j 1 --pass-bits 1 --dense d.kmd --resumable");
    let expected = ["--dense with --resumable: expected a run of one pass, found 2", "--memory"];
    let _ = engine.run().fails(1, &expected);
}

#[test]
fn a_dense_file_holds_what_would_be_printed() {
    for (case, options) in [
        (reads(), "--all -k 7"),
        (reads(), "--all -k 16"),
        (reads(), "--all -k 16 --occur-bitlen 2"),
        (reads(), "--all -k 21"),
        (reads(), "-k 31 --max-appearance-nrow 60"),
        (degenerate(), "--all -k 32"),
    ] {
        let printed = case.engine().words(options).words("-j 2 --dense d.kmd").keeps("d.kmd").run().exits(0);
        let file = printed.dir.path().join("d.kmd");
        let dumped = leader().arg("dump").arg(&file).run().exits(0);
        assert!(dumped.stdout == printed.stdout, "{printed}{dumped}");
        let text = printed.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).step_by(97).collect();
        for line in lines.iter().take(20) {
            let kmer = line.split('\t').next().expect("a k-mer");
            let found = leader().arg("lookup").arg(&file).arg(kmer).run().exits(0);
            assert!(found.text().lines().any(|found| found == *line), "{line}{found}");
        }
        damaged_dense_files_are_refused(&file);
    }
}

fn damaged_dense_files_are_refused(file: &std::path::Path) {
    let good = std::fs::read(file).expect("the file");
    let bad = file.with_extension("bad");
    let mut rng = Rng::new(77);
    for _ in 0..20 {
        let mut bytes = good.clone();
        if rng.below(3) == 0 {
            bytes.truncate(rng.below(good.len()));
        } else {
            bytes[rng.below(good.len())] ^= 1 << rng.below(8);
        }
        std::fs::write(&bad, &bytes).expect("written");
        let ended = leader().arg("dump").arg(&bad).run();
        let _ = ended.fails(1, &["dense file"]);
    }
    let mut other = good;
    other[7] = b'2';
    std::fs::write(&bad, &other).expect("written");
    let ended = leader().arg("dump").arg(&bad).run();
    let _ = ended.fails(
        1,
        &["beginning: expected \"KMERDNS6\", found \"KMERDNS2\"", "another version of kmer-leader"],
    );
}

/// Those that builds wrote which dealt k-mers out by hashes alone, and of which the first's tables all had buckets of four places.
#[test]
fn dense_files_of_the_versions_before_are_read() {
    for (file, magic) in [("older.kmd", b"KMERDNS4"), ("before.kmd", b"KMERDNS5")] {
        let older = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(file);
        assert_eq!(std::fs::read(&older).expect("there")[..8], *magic);
        a_dense_file_of_two_rows_is_read(&older);
    }
}

fn a_dense_file_of_two_rows_is_read(older: &Path) {
    let dir = tempfile::tempdir().expect("a folder");
    let fasta = dir.path().join("t.fa");
    let text = ">a\nACGTTGCATTGACCAGTACCAGTTTACCAGTACGGATCA\n>b\nTTGACCAGTACCAGTTTACCAGTACGGATCATTTTTTTTT\n";
    std::fs::write(&fasta, text).expect("written");
    let counted = leader().words("-k 21 --all").arg(&fasta).run().exits(0);
    let dumped = leader().arg("dump").arg(older).run().exits(0);
    assert!(dumped.stdout == counted.stdout, "{counted}{dumped}");
    // Each is looked for where that build put it.
    let kmers =
        text.lines().filter(|line| !line.starts_with('>')).flat_map(|line| line.as_bytes().windows(21));
    for kmer in kmers.map(|kmer| String::from_utf8_lossy(kmer).into_owned()) {
        let found = leader().arg("lookup").arg(older).arg(&kmer).run().exits(0);
        let rows = text.lines().filter(|line| line.contains(&kmer)).count();
        let text = found.text();
        let (first, last) = (text.split_whitespace().next(), text.split_whitespace().last());
        assert_eq!((first, last), (Some(&kmer[..]), Some(&rows.to_string()[..])), "{found}");
    }
}

#[test]
fn counts_alone_list_no_kmer() {
    let (case, listed) = (reads(), reads().engine().words("--all -k 11").run().exits(0));
    let facts: String = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    let ended = case.engine().words("--all -k 11 --count-only").run().exits(0);
    assert_eq!(String::from_utf8_lossy(&ended.stdout), facts, "{ended}");
}

#[test]
fn every_other_k() {
    for k in (4..=32).filter(|k| ![4, 8, 12, 16, 21, 31, 32].contains(k)) {
        let _ = reads().check(k, 0, k % 4);
    }
}

#[test]
fn the_engine_and_kmc_agree() {
    let letters: Vec<Option<String>> = data::rows(10, 3000);
    for k in [4, 8, 12, 16, 21, 27, 31, 32] {
        let options = format!("--all -j 2 -k {k}");
        let ended = reads().engine().words(&options).run().exits(0);
        let told = differences(&ended.report(k, 0).counts, &kmc::count_rows(&letters, k));
        assert!(told.is_none(), "{ended}{}", told.unwrap_or_default());
    }
}

#[test]
fn occurrence_numbers() {
    for (k, b) in [
        (4, 1),
        (4, 3),
        (4, 8),
        (4, 16),
        (8, 3),
        (16, 1),
        (16, 16),
        (21, 8),
        (24, 16),
        (28, 8),
        (31, 1),
        (31, 2),
    ] {
        let alone = reads().check(k, b, 0);
        let shared = reads().check(k, b, 3);
        assert!(alone.stdout == shared.stdout, "{alone}{shared}k {k}, occur_bitlen {b}");
    }
}

#[test]
fn degenerate_letters() {
    for k in [4, 8, 12, 16, 21, 31, 32] {
        same_for_every_worker_count(degenerate(), k, &[2, 5]);
    }
    for (k, b) in [(4, 1), (4, 8), (12, 3), (16, 16), (31, 2)] {
        let _ = degenerate().check(k, b, 0);
        let _ = degenerate().check(k, b, 2);
    }
}

#[test]
fn the_column_list_decides_how_bits_are_read() {
    let server = Server::shared();
    let bits = data::all_dna4_bits(&data::rows(13, 200));
    server.sql(
        &("CREATE TABLE either (id int4, seq bit varying);\n".to_owned()
            + &data::copy_bits("either", "seq", &bits)),
    );
    // The server calls it "bit varying": two bits a base, and the list may say otherwise.
    let mut case = Case::new(&server.table("either"), "seq", Dna::Dna2);
    assert!(case.snapshot.schema.contains("seq bit varying"));
    let _ = case.check(9, 0, 2);
    case.snapshot.schema = case.snapshot.schema.replace("bit varying", "dna4");
    case.dna = Dna::Dna4;
    let _ = case.check(9, 0, 2);
}

#[test]
fn thresholds() {
    let case = reads();
    let rows = case.rows.len();
    for (rate, nrow) in [
        ("0.5", 0),
        ("0.01", 0),
        ("0.02", 1_000_000),
        ("0.3333333", 7),
        ("0.0", 0),
        ("0.0", 9),
        ("1.0", 0),
        ("1.0", 3),
        ("0.001", 5),
    ] {
        let options = format!("-k 12 -j 2 --max-appearance-rate {rate} --max-appearance-nrow {nrow}");
        let ended = case.engine().words(&options).run().exits(0);
        let report = ended.report(12, 0);
        let threshold = oracle::threshold(rows, rate.parse().expect("a rate"), nrow);
        let expected = oracle::above(&case.expected(12, 0), threshold);
        let told = differences(&report.counts, &expected);
        assert!(told.is_none(), "{ended}threshold {threshold}: {}", told.unwrap_or_default());
        assert_eq!(report.fact("kmers_reported"), expected.len().to_string(), "{ended}");
        assert_eq!(report.fact("total_rows"), rows.to_string(), "{ended}");
    }
}

#[test]
fn a_threshold_is_rounded_down_and_must_be_exceeded() {
    let server = Server::shared();
    // AAAAAAAA in 3 of 7 rows, CCCCCCCC in 4 of 7, CCCCCCCA in 1: floor(7 / 2) = 3, so only the second is above.
    let rows = ["AAAAAAAA", "AAAAAAAAAAA", "AAAAAAAA", "CCCCCCCCA", "CCCCCCCC", "CCCCCCCCC", "CCCCCCCC"];
    let bits = data::all_dna2_bits(&rows.map(|row| Some(row.to_owned())));
    server.sql(
        &("CREATE TABLE seven (seq bit varying);\n".to_owned() + &data::copy_bits("seven", "seq", &bits)),
    );
    let case = Case::new(&server.table("seven"), "seq", Dna::Dna2);
    let ended = case.engine().words("-k 8").run().exits(0);
    let report = ended.report(8, 0);
    assert_eq!(report.counts, oracle::Counts::from([(0x5555, 4)]), "{ended}");
    // One more NULL row and one more short row: floor(9 / 2) = 4, and nothing is above.
    server.sql("INSERT INTO seven VALUES (NULL), (B'0001');");
    let case = Case::new(&server.table("seven"), "seq", Dna::Dna2);
    let ended = case.engine().words("-k 8").run().exits(0);
    let report = ended.report(8, 0);
    assert_eq!(report.counts, oracle::Counts::new(), "{ended}");
    assert_eq!(report.fact("total_rows"), "9", "{ended}");
}

#[test]
fn a_single_column_needs_no_column_list() {
    let server = Server::shared();
    let bits = data::all_dna2_bits(&data::rows(14, 500));
    server
        .sql(&("CREATE TABLE lone (seq bit varying);\n".to_owned() + &data::copy_bits("lone", "seq", &bits)));
    let case = Case::new(&server.table("lone"), "seq", Dna::Dna2);
    let bare = kmer_tests::engine::leader().words("--all --no-checksums").arg(&case.snapshot.heap);
    case.check_report(&bare.run().exits(0), 16, 0);
}

#[test]
fn the_defaults_are_those_of_the_extension() {
    let case = reads();
    let bare = case.engine().run().exits(0);
    let spelled =
        case.engine().words("-k 16 --occur-bitlen 0 --max-appearance-rate 0.5 --max-appearance-nrow 0");
    let spelled = spelled.run().exits(0);
    assert!(bare.stdout == spelled.stdout, "{bare}{spelled}");
}

#[test]
fn batches_of_rows() {
    let case = reads();
    let claimed = |options: &str| {
        let engine = case.engine().words("--all -k 11 -j 1 --summary-json s.json").words(options);
        let ended = engine.keeps("s.json").run().exits(0);
        case.check_report(&ended, 11, 0);
        let text = std::fs::read_to_string(ended.dir.path().join("s.json")).expect("the summary");
        let summary: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        (summary["units"].as_u64().expect("units"), summary["relation"]["blocks"].as_u64().expect("blocks"))
    };
    // 3000 rows: three batches of a thousand, more or less, or one.
    let (units, blocks) = claimed("--batch-size 1000");
    assert!((2..=5).contains(&units), "{units} units of {blocks} blocks");
    assert_eq!(claimed("--batch-size 1000000").0, 1);
}

#[test]
fn an_output_file_holds_what_would_be_printed() {
    let case = reads();
    let printed = case.engine().words("--all -k 11").run().exits(0);
    let written = case.engine().words("--all -k 11 -j 2 -o out.tsv").keeps("out.tsv").run().exits(0);
    let file = std::fs::read(written.dir.path().join("out.tsv")).expect("the output file");
    assert!(file == printed.stdout, "{printed}{written}the file differs from standard output");
    assert_eq!(written.text(), "", "{written}");
}
