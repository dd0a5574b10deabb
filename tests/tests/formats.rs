//! The forms of a result, read by libraries and by a server, and which k-mers are in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use kmer_tests::case::Case;
use kmer_tests::data;
use kmer_tests::engine::{Ended, leader};
use kmer_tests::oracle::{Counts, Dna, above, spell, threshold};
use kmer_tests::output::differences;
use kmer_tests::server::Server;
use serde_json::Value;

/// Rows whose k-mers of 32 bases fill all 64 bits of a key.
fn reads() -> &'static Case {
    static CASE: OnceLock<Case> = OnceLock::new();
    CASE.get_or_init(|| {
        let server = Server::shared();
        let bits = data::all_dna2_bits(&data::rows(70, 900));
        server.sql(
            &("CREATE TABLE reads (seq bit varying);\n".to_owned() + &data::copy_bits("reads", "seq", &bits)),
        );
        Case::new(&server.table("reads"), "seq", Dna::Dna2)
    })
}

fn run(options: &str) -> Ended {
    reads().engine().words(options).run().exits(0)
}

fn same(ended: &Ended, found: &Counts, expected: &Counts) {
    let told = differences(found, expected);
    assert!(told.is_none(), "{ended}{}", told.unwrap_or_default());
}

/// Adds a k-mer that was read somehow; the letters must be those of the key.
fn put(counts: &mut Counts, k: usize, letters: &str, key: u64, rows: u64) {
    assert_eq!(letters, spell(key, k));
    assert_eq!(counts.insert(key, rows), None, "{letters} twice");
}

fn json_kmer(counts: &mut Counts, k: usize, kmer: &Value) {
    assert_eq!(kmer.as_object().map(serde_json::Map::len), Some(3), "{kmer}");
    let number = |name: &str| kmer[name].as_u64().unwrap_or_else(|| panic!("{name} of {kmer}"));
    put(counts, k, kmer["kmer"].as_str().expect("letters"), number("uintkey"), number("appearance_nrow"));
}

#[test]
fn csv() {
    let ended = run("--all -k 32 --format csv -j 2");
    let mut reader = csv::Reader::from_reader(&ended.stdout[..]);
    assert_eq!(reader.headers().expect("a header"), ["kmer", "uintkey", "appearance_nrow"].as_slice());
    let mut counts = Counts::new();
    for record in reader.records() {
        let record = record.expect("a record");
        put(&mut counts, 32, &record[0], record[1].parse().expect("a key"), record[2].parse().expect("rows"));
    }
    same(&ended, &counts, &reads().expected(32, 0));
}

#[test]
fn json_and_its_lines() {
    for k in [9, 32] {
        let ended = run(&format!("--all -k {k} -F json -j 2"));
        let document: Value = serde_json::from_slice(&ended.stdout).expect("a document");
        let mut counts = Counts::new();
        document["kmers"].as_array().expect("k-mers").iter().for_each(|kmer| json_kmer(&mut counts, k, kmer));
        same(&ended, &counts, &reads().expected(k, 0));
        let tsv = run(&format!("--all -k {k}")).report(k, 0);
        let facts = document["facts"].as_object().expect("facts");
        assert_eq!(facts["threshold"], Value::Null);
        assert_eq!(facts["canonical"], Value::Bool(false));
        for name in ["k", "total_rows", "rows_null", "rows_short", "kmers_reported", "type", "column"] {
            let text = facts[name].as_str().map_or_else(|| facts[name].to_string(), str::to_owned);
            assert_eq!(text, tsv.fact(name), "{name}");
        }

        let ended = run(&format!("--all -k {k} -F jsonl -j 1"));
        let mut counts = Counts::new();
        for line in ended.text().lines() {
            json_kmer(&mut counts, k, &serde_json::from_str(line).expect("a line"));
        }
        same(&ended, &counts, &reads().expected(k, 0));
    }
    // Nothing above the threshold is a document too.
    let ended = run("-k 32 --max-appearance-rate 1 -F json");
    let document: Value = serde_json::from_slice(&ended.stdout).expect("a document");
    assert_eq!(document["kmers"], Value::Array(Vec::new()), "{ended}");
    assert_eq!(document["facts"]["threshold"], reads().rows.len(), "{ended}");
}

#[test]
fn parquet() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    for (k, b) in [(32, 0), (9, 2)] {
        let engine = reads().engine().words(&format!("--all -k {k} -b {b} -F parquet -o k.parquet -j 2"));
        let ended = engine.keeps("k.parquet").run().exits(0);
        let file = std::fs::File::open(ended.dir.path().join("k.parquet")).expect("the file");
        let reader = SerializedFileReader::new(file).expect("a Parquet file");
        let mut counts = Counts::new();
        for row in reader.get_row_iter(None).expect("rows") {
            let fields: Vec<_> = row.expect("a row").into_columns();
            let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["kmer", "uintkey", "appearance_nrow"]);
            let text: Vec<String> = fields.iter().map(|(_, field)| field.to_string()).collect();
            let (key, rows): (u64, u64) = (text[1].parse().expect("a key"), text[2].parse().expect("rows"));
            assert_eq!(text[0].trim_matches('"'), spell(key >> b, k));
            counts.insert(key, rows);
        }
        same(&ended, &counts, &reads().expected(k, b));
        let metadata = reader.metadata().file_metadata().key_value_metadata().cloned().expect("facts");
        let facts =
            metadata.iter().find(|pair| pair.key == "kmer-leader").and_then(|pair| pair.value.clone());
        let facts: Value = serde_json::from_str(&facts.expect("facts")).expect("JSON");
        assert_eq!(facts["kmers_reported"], counts.len());
    }
}

#[test]
fn fasta() {
    let ended = run("--all -k 31 -F fasta -j 2");
    let mut counts = Counts::new();
    for record in ended.text().split('>').skip(1) {
        let (rows, kmer) = record.split_once('\n').expect("a header");
        let key = kmer.trim_end().bytes().fold(0, |key, letter| {
            key << 2 | "ACGT".bytes().position(|base| base == letter).expect("a base") as u64
        });
        assert_eq!(kmer.len(), 32, "{record:?}");
        counts.insert(key, rows.parse().expect("rows"));
    }
    same(&ended, &counts, &reads().expected(31, 0));
}

/// Reads the table of k-mers back; `fields` must be those of every row.
fn loaded(schema: &str, fields: &str) -> Counts {
    let query = format!(
        "SELECT uintkey, appearance_nrow, concat_ws(' ', table_oid, column_name, kmer_size, occur_bitlen, detection_reason)
         FROM {schema}.kmersearch_highfreq_kmer;"
    );
    let rows = Server::shared().sql(&query);
    let mut counts = Counts::new();
    for row in rows.lines() {
        let parts: Vec<&str> = row.split('|').collect();
        assert_eq!(parts[2], fields);
        let key: i64 = parts[0].parse().expect("a bigint");
        counts.insert(key.cast_unsigned(), parts[1].parse().expect("rows"));
    }
    assert_eq!(rows.lines().count(), counts.len());
    counts
}

#[test]
fn the_script_fills_the_tables_and_may_run_again() {
    let server = Server::shared();
    server.sql("CREATE SCHEMA script;");
    let load = |ended: &Ended| server.sql(&format!("SET search_path = script;\n{}", ended.text()));
    let rate = run("-k 32 --table-oid 4711 --max-appearance-rate 0 --max-appearance-nrow 9 -F sql -j 2");
    for _ in 0..2 {
        assert_eq!(load(&rate), "");
        same(&rate, &loaded("script", "4711 seq 32 0 threshold"), &reads().expected(32, 0));
    }
    assert!(reads().expected(32, 0).keys().any(|key| *key > i64::MAX as u64), "no key is negative there");
    // Another threshold replaces the rows and the row of the analysis.
    let other = run("-k 32 --table-oid 4711 --max-appearance-rate 0.02 -F sql");
    load(&other);
    let expected = above(&reads().expected(32, 0), threshold(reads().rows.len(), 0.02, 0));
    assert!(!expected.is_empty() && expected.len() < reads().expected(32, 0).len());
    same(&other, &loaded("script", "4711 seq 32 0 threshold"), &expected);
    // Another k is another analysis.
    load(&run("-k 5 --occur-bitlen 3 --table-oid 4711 -F sql"));
    let meta =
        "SELECT table_oid, column_name, kmer_size, occur_bitlen, max_appearance_rate, max_appearance_nrow
        FROM script.kmersearch_highfreq_kmer_meta ORDER BY kmer_size;";
    assert_eq!(server.sql(meta), "4711|seq|5|3|0.5|0\n4711|seq|32|0|0.02|0\n");
}

#[test]
fn rows_for_copy() {
    let server = Server::shared();
    let ended = run("--all -k 12 --occur-bitlen 2 --table-oid 4294967295 -F copy -j 2");
    // The script makes the tables; the rows of its own are few.
    let tables = run("-k 4 --table-oid 1 --max-appearance-rate 1 -F sql");
    let script = format!(
        "CREATE SCHEMA copied; SET search_path = copied;\n{}COPY kmersearch_highfreq_kmer (table_oid, column_name, kmer_size, \
         occur_bitlen, uintkey, appearance_nrow, detection_reason) FROM STDIN;\n{}\\.\n",
        tables.text(),
        ended.text()
    );
    server.sql(&script);
    let counts = loaded("copied", "4294967295 seq 12 2 threshold");
    same(&ended, &counts, &reads().expected(12, 2));
}

fn select(counts: &Counts, keep: impl Fn(u64) -> bool) -> Counts {
    counts.iter().filter(|(_, rows)| keep(**rows)).map(|(key, rows)| (*key, *rows)).collect()
}

#[test]
fn ranges_of_rows() {
    for (k, options, keep) in [
        (11, "--min-rows 7", (|n| n >= 7) as fn(u64) -> bool),
        (11, "--max-rows 7", |n| n <= 7),
        (11, "--min-rows 3 --max-rows 3", |n| n == 3),
        (32, "--min-rows 2 --max-rows 40", |n| (2..=40).contains(&n)),
        (11, "--max-rows 60 --max-appearance-nrow 5", |n| n > 5 && n <= 60),
        (11, "--min-rows 8 --max-appearance-nrow 5", |n| n >= 8),
        (11, "--min-rows 2 --max-appearance-rate 0.02", |n| n > 18),
        (11, "--all --max-rows 1", |n| n == 1),
        (4, "--all --min-rows 300", |n| n >= 300),
    ] {
        let ended = run(&format!("-k {k} -j 2 {options}"));
        let report = ended.report(k, 0);
        let expected = select(&reads().expected(k, 0), keep);
        assert!(!expected.is_empty(), "{options}");
        same(&ended, &report.counts, &expected);
        assert_eq!(report.fact("kmers_reported"), expected.len().to_string(), "{ended}");
    }
}

/// k-mers by rows, most first, then by key.
fn ranked(counts: &Counts) -> Vec<(u64, u64)> {
    let mut ranked: Vec<(u64, u64)> = counts.iter().map(|(key, rows)| (*key, *rows)).collect();
    ranked.sort_by_key(|(key, rows)| (u64::MAX - rows, *key));
    ranked
}

#[test]
fn the_most_frequent_and_the_order_by_count() {
    let expected = ranked(&reads().expected(13, 0));
    let in_order = |ended: &Ended| -> Vec<(u64, u64)> {
        let lines = ended.text().lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
        lines.map(|f| (f[1].parse().expect("a key"), f[2].parse().expect("rows"))).collect()
    };
    // The limits fall among many equal counts.
    for top in [1, 10, 777, 5000, usize::MAX] {
        let best = &expected[..top.min(expected.len())];
        let by_count = run(&format!("-k 13 --top {top} --sort count -F csv -j 2"));
        assert!(in_order(&by_count) == best, "{by_count}");
        let by_kmer = run(&format!("-k 13 --top {top} -j 1"));
        same(&by_kmer, &by_kmer.report(13, 0).counts, &best.iter().copied().collect());
    }
    for passes in ["", "--pass-bits 2"] {
        let all = run(&format!("--all -k 13 --sort count -F csv -j 2 {passes}"));
        assert!(in_order(&all) == expected, "{all}");
        let best = run(&format!("--all -k 13 --top 4000 --sort count -F csv -j 2 {passes}"));
        assert!(in_order(&best) == expected[..4000], "{best}");
    }
    let few = run("-k 13 --sort count --max-appearance-nrow 30 --max-rows 90 --top 50 -F csv");
    let expected: Vec<_> = expected.into_iter().filter(|(_, n)| (31..=90).contains(n)).take(50).collect();
    assert!(in_order(&few) == expected && !expected.is_empty(), "{few}");
}

fn histogram(counts: &Counts) -> String {
    let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
    counts.values().for_each(|rows| *numbers.entry(*rows).or_default() += 1);
    numbers.iter().map(|(rows, kmers)| format!("{rows}\t{kmers}\n")).collect()
}

fn kept(ended: &Ended, name: &str) -> String {
    let file: PathBuf = ended.dir.path().join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{ended}{}: {error}", file.display()))
}

#[test]
fn a_histogram_is_of_all_kmers_and_changes_no_report() {
    for (k, options) in
        [(4, "-j 2"), (11, "-j 0"), (32, "-j 2 --max-appearance-nrow 3"), (11, "--min-rows 5 -j 1")]
    {
        let plain = run(&format!("-k {k} {options}"));
        let engine = reads().engine().words(&format!("-k {k} {options} --histogram h.txt"));
        let ended = engine.keeps("h.txt").run().exits(0);
        assert!(plain.stdout == ended.stdout, "{plain}{ended}");
        assert_eq!(kept(&ended, "h.txt"), histogram(&reads().expected(k, 0)), "{ended}");
    }
}

#[test]
fn what_is_not_listed_takes_no_memory() {
    let mut rng = data::Rng::new(71);
    let text: String = (0..3000).map(|id| format!(">{id}\n{}\n", rng.letters("ACGT", 150))).collect();
    let counted = |words: &str| {
        let engine = leader().words("-k 31 --all -j 1 reads.fa").words(words).keeps("reads.fa");
        std::fs::write(engine.dir().join("reads.fa"), &text).expect("written");
        engine
    };
    // 360,000 k-mers of 16 bytes each.
    let little = "--memory 2M";
    let listed = counted(little).run();
    let _ =
        listed.fails(1, &["memory: expected the result to fit 2097152 bytes", "--dense FILE --count-only"]);
    for words in ["--top 300", "--histogram h.txt --count-only"] {
        let files = |engine: kmer_tests::engine::Engine| match words.contains("h.txt") {
            true => engine.keeps("h.txt"),
            false => engine,
        };
        let whole = files(counted(words)).run().exits(0);
        let ended = files(counted(words).words(little)).run().exits(0);
        assert!(ended.stdout == whole.stdout, "{whole}{ended}");
        if words.contains("h.txt") {
            assert_eq!(kept(&ended, "h.txt"), kept(&whole, "h.txt"), "{ended}");
        }
    }
}

#[test]
fn every_form_is_the_same_for_every_number_of_workers() {
    for options in ["-F json", "-F sql --max-appearance-rate 0", "--top 300", "--sort count --all", "-F copy"]
    {
        let options = format!("-k 11 --table-oid 7 {options}");
        let alone = run(&format!("{options} -j 0"));
        for workers in [1, 3] {
            let ended = run(&format!("{options} -j {workers}"));
            assert!(ended.stdout == alone.stdout, "{ended}{alone}");
        }
    }
}

#[test]
fn the_summary_as_json() {
    let engine = reads().engine().words("-k 11 -j 2 --max-appearance-nrow 30 --summary-json s.json -o out");
    let ended = engine.keeps("s.json").keeps("out").run().exits(0);
    let summary: Value = serde_json::from_str(&kept(&ended, "s.json")).expect("a document");
    let expected = above(&reads().expected(11, 0), 30);
    assert_eq!(summary["schema_version"], 1);
    let result = &summary["result"];
    assert_eq!(result["total_rows"], reads().rows.len());
    assert_eq!(result["highfreq_kmers_count"], expected.len());
    assert_eq!(result["parallel_workers_used"], 2);
    assert_eq!(result["max_appearance_rate_used"], 0.5);
    assert_eq!(result["max_appearance_nrow_used"], 30);
    assert_eq!(summary["facts"].get("kmers_distinct"), None, "those under the threshold need not be counted");
    let highest = reads().expected(11, 0).values().max().copied();
    assert_eq!(summary["relation"]["highest_appearance_nrow"].as_u64(), highest);
    let workers = summary["workers"].as_array().expect("workers");
    let blocks: u64 = workers.iter().filter_map(|w| w["blocks"].as_u64()).sum();
    assert_eq!(summary["relation"]["blocks"].as_u64(), Some(blocks), "{summary}");
}

#[test]
fn what_cannot_be_is_refused_with_its_range() {
    for (options, words) in [
        ("--max-appearance-rate 1.01", &["--max-appearance-rate", "0 to 1", "1.01"][..]),
        ("--max-appearance-rate nan", &["--max-appearance-rate", "0 to 1"]),
        ("--max-appearance-nrow -1", &["--max-appearance-nrow", "0 to 2147483647", "-1"]),
        ("--max-appearance-nrow 2147483648", &["--max-appearance-nrow", "0 to 2147483647"]),
        ("-k 33", &["--kmer-size", "4 to 32", "33"]),
        ("-k 3", &["4 to 32"]),
        ("--batch-size 999", &["--batch-size", "1000 to 1000000", "999"]),
        ("--occur-bitlen 17", &["--occur-bitlen", "0 to 16", "17"]),
        ("-k 30 --occur-bitlen 8", &["64"]),
        ("--min-rows 0", &["--min-rows", "0"]),
        ("--top 0", &["--top", "0"]),
        ("--min-rows 5 --max-rows 4", &["--max-rows", "at least", "5", "4"]),
        ("--format sql", &["--table-oid", "hint", "regclass"]),
        ("--format copy", &["--table-oid"]),
        ("--format sql --table-oid 5 --all", &["sql", "hint", "--max-appearance-rate 0"]),
        ("--format sql --table-oid 5 --top 3", &["sql"]),
        ("--all --max-appearance-rate 0.5", &["--all", "--max-appearance-rate"]),
    ] {
        let ended = leader().arg(&reads().snapshot.heap).words(options).run();
        let _ = ended.fails(2, words);
    }
}
