//! The small data directories that fuzzing begins with: every table is found in those that are kept, and they can be made anew from servers
//! (`KMER_FUZZ_DIRECTORIES=DIR cargo test -p kmer-tests --test catalogs`).

use std::fs;
use std::io::Write;
use std::path::Path;

use kmer_tests::fuzz::catalogs::{Directory, TABLES};
use kmer_tests::server::{Options, Server};
use relation::catalog::Major;

const TABLES_SQL: &str = r#"
CREATE TABLE altered (id int, gone text, first bit varying);
INSERT INTO altered VALUES (1, 'x', B'1010');
ALTER TABLE altered DROP COLUMN gone;
ALTER TABLE altered ADD note text DEFAULT 'a default';
ALTER TABLE altered ADD packed bit varying DEFAULT repeat('1000111001', 2000)::bit varying;
ALTER TABLE altered ADD plain bit varying DEFAULT B'100011100111';
CREATE TABLE parts (id int, kind text, seq dna2) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200) PARTITION BY LIST (kind);
CREATE TABLE parts_2a (seq dna2, junk int, kind text, id int);
ALTER TABLE parts_2a DROP COLUMN junk;
ALTER TABLE parts_2 ATTACH PARTITION parts_2a FOR VALUES IN ('a');
CREATE TABLE mother (id int, seq dna4);
CREATE TABLE daughter (note text) INHERITS (mother);
CREATE TABLE granddaughter () INHERITS (daughter);
CREATE DOMAIN code AS bit varying;
CREATE DOMAIN barcode AS code CHECK (length(value) > 3);
CREATE TABLE domains (id int, seq barcode, other code);
CREATE TABLE long_rows (id int, seq dna2);
CREATE SCHEMA "My Lab";
CREATE TABLE "My Lab"."Reads 1" ("Seq ""1""" dna2, "Seq ""2""" dna2);
CREATE VIEW a_view AS SELECT * FROM long_rows;
"#;

/// The relations whose rows are kept, as a condition on an oid.
const OURS: &str = "IN (SELECT oid FROM pg_class WHERE relnamespace IN ('public'::regnamespace, '\"My Lab\"'::regnamespace) OR oid IN
  (SELECT reltoastrelid FROM pg_class WHERE relnamespace IN ('public'::regnamespace, '\"My Lab\"'::regnamespace)) OR relname IN
  ('pg_database', 'pg_class', 'pg_attribute', 'pg_type', 'pg_namespace', 'pg_inherits'))";

/// The files of a server's data directory, its catalogs cut down to the pages that hold rows of ours.
fn small(server: &Server) -> Vec<(String, Vec<u8>)> {
    server.sql(TABLES_SQL);
    server.sql("VACUUM; CHECKPOINT;");
    let pages = |catalog: &str, of: &str| -> (String, Vec<usize>) {
        let rows = if of.is_empty() { "true".into() } else { format!("{of} {OURS}") };
        let pages = server.sql(&format!(
            "SELECT pg_relation_filepath('{catalog}'); SELECT DISTINCT (ctid::text::point)[0]::int FROM {catalog} WHERE {rows} ORDER BY 1;"
        ));
        let (path, pages) = pages.split_once('\n').expect("a path");
        (path.to_owned(), pages.lines().map(|page| page.parse().expect("a block")).collect())
    };
    let types = "typname IN ('varbit', 'dna2', 'dna4', 'code', 'barcode', 'int4', 'text') OR typrelid";
    let catalogs = [
        ("pg_database", ""),
        ("pg_class", "oid"),
        ("pg_namespace", ""),
        ("pg_attribute", "attnum > 0 AND attrelid"),
        ("pg_type", types),
        ("pg_inherits", ""),
    ]
    .map(|(catalog, of)| pages(catalog, of));
    let database = server.value::<u32>("SELECT oid FROM pg_database WHERE datname = 'postgres';");
    server.stop();
    let plain = [
        "PG_VERSION".into(),
        "global/pg_control".into(),
        "global/pg_filenode.map".into(),
        format!("base/{database}/pg_filenode.map"),
        "pg_xact/0000".into(),
    ];
    let read =
        |path: &str| fs::read(server.data_directory().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut files: Vec<_> = plain.into_iter().map(|path: String| (path.clone(), read(&path))).collect();
    for (path, blocks) in catalogs {
        let bytes = read(&path);
        let pages = blocks.iter().flat_map(|block| bytes[block * 8192..][..8192].to_vec());
        files.push((path, pages.collect()));
    }
    // A server's that died long ago.
    files.push(("postmaster.pid".into(), b"999999999\n/nowhere\n1700000000\n5432\n".to_vec()));
    files
}

fn pack(file: &Path, files: &[(String, Vec<u8>)]) {
    let file = fs::File::create(file).expect("created");
    let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    for part in files.iter().flat_map(|(path, bytes)| [path.as_bytes(), bytes]) {
        let len = u32::try_from(part.len()).expect("a short file");
        packer.write_all(&len.to_le_bytes()).and_then(|()| packer.write_all(part)).expect("written");
    }
    packer.finish().expect("written");
}

#[test]
fn every_table_is_found_in_the_small_directories() {
    if let Some(dir) = std::env::var_os("KMER_FUZZ_DIRECTORIES") {
        for major in Major::all().map(Major::number) {
            let server =
                Server::start_with(Options { major: (major != 15).then_some(major), checksums: major == 13 });
            pack(&Path::new(&dir).join(format!("{major}.gz")), &small(&server));
        }
    }
    let leaves = [1, 2, 3, 1, 1, 1];
    for major in Major::all() {
        let directory = Directory::unpack(major);
        for (number, (name, _)) in TABLES.iter().enumerate() {
            let found = directory.look_up(number);
            let what = format!("{name} of version {}: {found:?}", major.number());
            match leaves.get(number) {
                Some(leaves) => assert_eq!(found.expect(&what).leaves.len(), *leaves, "{what}"),
                None => assert!(found.is_err(), "{what}"),
            }
        }
        let missing = directory.look_up(0).expect("found").leaves.remove(0).desc.attributes[4].clone();
        assert_eq!((missing.name.as_str(), missing.missing.map(|bits| bits.len())), ("packed", Some(2504)));
    }
}
