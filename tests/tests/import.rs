//! Files the engine imports: a server reads them as tables of its own, and the engine counts in them what a server would.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use kmer_tests::case::Case;
use kmer_tests::data::{self, Rng};
use kmer_tests::engine::leader;
use kmer_tests::oracle::{Dna, Params, count_rows};
use kmer_tests::output::differences;
use kmer_tests::server::{Options, Server};

/// Sequences short and long; the long ones go to TOAST.
fn sequences(seed: u64, alphabet: &str) -> Vec<String> {
    let mut rng = Rng::new(seed);
    let genome = rng.letters("ACGT", 2000);
    let mut sequences: Vec<String> = (0..600)
        .map(|_| {
            let length = rng.below(400);
            let start = rng.below(genome.len() - length);
            genome[start..start + length].to_owned()
        })
        .collect();
    sequences.extend([7_000, 8_000, 30_000, 100_000].map(|length| rng.letters(alphabet, length)));
    sequences.push(String::new());
    sequences.push("A".to_owned());
    sequences
}

fn fasta(sequences: &[String]) -> String {
    let record = |(i, sequence): (usize, &String)| {
        let lines: Vec<&str> =
            sequence.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
        format!(">r{} a description\n{}\n", i + 1, lines.join("\n"))
    };
    sequences.iter().enumerate().map(record).collect()
}

/// Puts a file below a relation of a stopped server, with its owner and mode.
fn put_below(file: &Path, relation: &Path) {
    let owner = fs::metadata(relation).expect("the server's file");
    fs::copy(file, relation).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    chown(relation, Some(owner.uid()), Some(owner.gid())).expect("the server's ownership");
}

fn round_trip(server: &Server, dna: Dna) {
    let (type_name, alphabet) = match dna {
        Dna::Dna2 => ("dna2", "ACGT"),
        Dna::Dna4 => ("dna4", "ACGTACGTACGTACGTACGTMRWSYKVHDBN"),
    };
    let sequences = sequences(50, alphabet);
    let bits: Vec<Option<String>> = sequences
        .iter()
        .map(|letters| {
            Some(match dna {
                Dna::Dna2 => data::dna2_bits(letters),
                Dna::Dna4 => data::dna4_bits(letters),
            })
        })
        .collect();
    let dir = server.temp_dir();
    let (input, output) = (dir.path().join("in.fa"), dir.path().join("imported"));
    fs::write(&input, fasta(&sequences)).expect("the FASTA file");
    let table = format!("imported_{type_name}");
    server.sql(&format!("CREATE TABLE {table} (id int4, name text, seq {type_name});"));
    let toast_oid: u32 =
        server.value(&format!("SELECT reltoastrelid FROM pg_class WHERE relname = '{table}';"));
    let _ = leader()
        .arg("import")
        .arg(&input)
        .arg("-o")
        .arg(&output)
        .words(&format!("--type {type_name} --toast-relid {toast_oid}"))
        .run()
        .exits(0);

    // The engine on the file as it is: the file beside it tells columns and TOAST.
    for workers in [0, 2] {
        let ended = leader().words(&format!("--all -k 14 -j {workers}")).arg(&output).run().exits(0);
        let report = ended.report(14, 0);
        let expected = count_rows(&bits, Params { dna, k: 14, occur_bitlen: 0 });
        let told = differences(&report.counts, &expected);
        assert!(told.is_none(), "{ended}{}", told.unwrap_or_default());
        assert_eq!(report.fact("total_rows"), bits.len().to_string(), "{ended}");
    }

    // The server on the same file.
    let heap = server.table(&table).file();
    let toast_file: String = server.value(&format!("SELECT pg_relation_filepath({toast_oid});"));
    let toast_file = server.data_directory().join(toast_file);
    let schema =
        fs::read_to_string(dir.path().join("imported.schema")).expect("the file beside the relation");
    let toast = schema
        .lines()
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| key.trim() == "toast")
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
        .unwrap_or_else(|| panic!("no TOAST file is named:\n{schema}"));
    server.while_stopped(|| {
        put_below(&output, &heap);
        put_below(&dir.path().join(toast), &toast_file);
        server.check_program("pg_checksums", &["--check"]);
    });
    server.sql(&format!("REINDEX TABLE pg_toast.pg_toast_{};", {
        let oid: u32 = server.value(&format!("SELECT '{table}'::regclass::oid;"));
        oid
    }));
    assert_eq!(server.table(&table).sequences("seq"), bits);
    let names: Vec<String> =
        server.sql(&format!("SELECT id || name FROM {table};")).lines().map(str::to_owned).collect();
    let expected: Vec<String> = (1..=bits.len()).map(|id| format!("{id}r{id}")).collect();
    assert_eq!(names, expected);
    for relation in [table.clone(), format!("{toast_oid}::regclass")] {
        let relation = if relation == table { format!("'{table}'") } else { relation };
        let damage = server.sql(&format!("SELECT * FROM verify_heapam({relation}, check_toast => true);"));
        assert_eq!(damage, "", "amcheck on {relation}");
    }

    // And the engine on what the server now holds.
    let mut case = Case::new(&server.table(&table), "seq", dna);
    case.checksums = true;
    let _ = case.check(14, 0, 2);
    server.sql(&format!("DROP TABLE {table};"));
}

#[test]
fn imported_files_are_tables() {
    let server = Server::start_with(Options { checksums: true, ..Options::default() });
    round_trip(&server, Dna::Dna2);
    round_trip(&server, Dna::Dna4);
}

#[test]
fn an_import_that_fails_leaves_nothing() {
    let server = Server::shared();
    let dir = server.temp_dir();
    let input = dir.path().join("in.fa");
    fs::write(&input, ">good\nACGT\n>bad\nACGNT\n").expect("the FASTA file");
    let output = dir.path().join("imported");
    let import = || leader().arg("import").arg(&input).arg("-o").arg(&output);
    let _ = import().run().fails(1, &["\"bad\"", "N", "dna4", "--skip-ambiguous"]);
    let names: Vec<_> =
        fs::read_dir(dir.path()).expect("the directory").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["in.fa"], "only the input is there");
    let _ = import().arg("--skip-ambiguous").run().exits(0);
    let ended = leader().words("--all -k 4").arg(&output).run().exits(0);
    let report = ended.report(4, 0);
    assert_eq!(report.counts, [(0x1b, 1)].into(), "{ended}");
    assert_eq!(report.fact("total_rows"), "1", "{ended}");
    let _ = import().arg("--skip-ambiguous").run().fails(1, &["exists", "--force"]);
    let _ = leader()
        .words("import -o x")
        .arg(dir.path().join("missing.fa"))
        .run()
        .fails(1, &["missing.fa", "No such file"]);
}
