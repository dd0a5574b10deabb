//! Tables of a data directory without its server, of every major version: found by name, all their files, every row that counts and no other.
//!
//! The engine reads first, while no hint bit is set by anybody's reading; then the server counts, by a query that splits the sequences into
//! k-mers, which sets hint bits; then the engine reads again.

use std::collections::BTreeMap;

use kmer_tests::engine::{Ended, Engine, leader};
use kmer_tests::oracle::Counts;
use kmer_tests::output::differences;
use kmer_tests::server::{Options, Server};
use relation::catalog::{Catalog, Major};

/// A table that is counted: its database, its name for the engine, the column; and for the server its name and the bits, 2 a base.
struct Counted {
    database: &'static str,
    table: &'static str,
    column: &'static str,
    in_sql: &'static str,
    bits: &'static str,
}

const fn table(table: &'static str, column: &'static str) -> Counted {
    Counted { database: "postgres", table, column, in_sql: table, bits: "" }
}

const TABLES: &[Counted] = &[
    table("neighbours", "seq"),
    table("altered", "first"),
    table("altered", "seq"),
    table("altered", "seq_null"),
    table("packed_since", "seq"),
    table("long_rows", "seq"),
    table("subs", "seq"),
    table("prepared", "seq"),
    table("locked", "seq"),
    table("frozen", "seq"),
    table("whole", "seq"),
    table("parts", "seq"),
    table("parts_2", "seq"),
    table("parts_2b", "seq"),
    table("mother", "seq"),
    table("view_of_stored", "seq"),
    table("unlogged", "seq"),
    table("domains", "seq"),
    table("left_open", "seq"),
    table("nothing", "seq"),
    table("no_parts", "seq"),
    table("in_space", "seq"),
    Counted {
        table: "\"My Lab\".\"Reads 1\"",
        column: "Seq \"2\"",
        bits: "\"Seq \"\"2\"\"\"",
        in_sql: "\"My Lab\".\"Reads 1\"",
        ..table("", "")
    },
    Counted {
        bits: "replace(replace(replace(replace(letters, 'A', '00'), 'C', '01'), 'G', '10'), 'T', '11')",
        ..table("letters4", "seq")
    },
    Counted { database: "lab", ..table("here", "seq") },
    Counted { database: "lab", ..table("there", "seq") },
];

const TABLES_SQL: &str = r#"
CREATE FUNCTION bases(seed int, n int) RETURNS bit varying LANGUAGE sql IMMUTABLE AS $$
  SELECT substring(string_agg((('x' || md5(seed || '.' || j))::bit(128))::text, '' ORDER BY j)::bit varying FROM 1 FOR 2 * n)
  FROM generate_series(0, n / 64) j $$;

CREATE TABLE neighbours (id bigint, note text, seq dna2, price numeric, tags text[], flag bool);
INSERT INTO neighbours SELECT i, CASE WHEN i % 3 > 0 THEN repeat('n', i % 200) END,
  CASE WHEN i % 7 > 0 THEN bases(i, 20 + i % 90)::text::dna2 END, CASE WHEN i % 4 > 0 THEN i * 1.5 END,
  CASE WHEN i % 5 > 0 THEN ARRAY['a', 'b'] END, i % 2 = 0 FROM generate_series(1, 400) i;
DELETE FROM neighbours WHERE id % 11 = 0;

CREATE TABLE altered (id int, gone text, first bit varying, also_gone int);
INSERT INTO altered SELECT i, 'x', bases(i, 30), i FROM generate_series(1, 150) i;
ALTER TABLE altered DROP COLUMN gone;
ALTER TABLE altered ADD note text DEFAULT 'a default';
ALTER TABLE altered ADD seq bit varying DEFAULT bases(-1, 40);
ALTER TABLE altered DROP COLUMN also_gone;
INSERT INTO altered (id, first, seq) SELECT i, bases(i, 30), CASE WHEN i % 5 > 0 THEN bases(i, 50) END FROM generate_series(151, 300) i;
UPDATE altered SET note = 'u' WHERE id % 10 = 0;
ALTER TABLE altered ADD seq_null bit varying;

CREATE TABLE packed_since AS SELECT i id FROM generate_series(1, 20) i;
ALTER TABLE packed_since ADD seq bit varying DEFAULT repeat(bases(-2, 10)::text, 2000)::bit varying;
INSERT INTO packed_since SELECT i, CASE WHEN i > 25 THEN bases(i, 50) END FROM generate_series(21, 30) i;

CREATE TABLE long_rows (id int, seq dna2);
INSERT INTO long_rows SELECT i, bases(i, 3000 * i)::text::dna2 FROM generate_series(1, 8) i;
INSERT INTO long_rows SELECT i, repeat(bases(i, 60)::text, 400)::dna2 FROM generate_series(9, 12) i;
DELETE FROM long_rows WHERE id IN (3, 10);

CREATE TABLE subs (id int, seq bit varying);
BEGIN;
INSERT INTO subs SELECT i, bases(i, 40) FROM generate_series(1, 20) i;
SAVEPOINT a;
INSERT INTO subs SELECT i, bases(i, 40) FROM generate_series(21, 40) i;
ROLLBACK TO a;
SAVEPOINT b;
INSERT INTO subs SELECT i, bases(i, 40) FROM generate_series(41, 60) i;
SAVEPOINT c;
DELETE FROM subs WHERE id < 5;
ROLLBACK TO c;
DELETE FROM subs WHERE id BETWEEN 5 AND 8;
RELEASE b;
COMMIT;
BEGIN; SAVEPOINT d; INSERT INTO subs SELECT i, bases(i, 40) FROM generate_series(61, 80) i; RELEASE d; ROLLBACK;
DO $$ BEGIN
  FOR i IN 100..400 LOOP
    BEGIN
      INSERT INTO subs VALUES (i, bases(i, 40));
      IF i % 3 = 0 THEN RAISE 'no'; END IF;
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
  END LOOP;
END $$;

CREATE TABLE frozen (id int, seq bit varying);
INSERT INTO frozen SELECT i, bases(i, 40) FROM generate_series(1, 300) i;
DELETE FROM frozen WHERE id % 9 = 0;
VACUUM (FREEZE) frozen;
DELETE FROM frozen WHERE id % 7 = 0;
BEGIN; DELETE FROM frozen WHERE id % 5 = 0; ROLLBACK;

CREATE TABLE whole (id int, seq bit varying);
INSERT INTO whole SELECT i, bases(i, 40 + i * 100) FROM generate_series(1, 100) i;
DELETE FROM whole WHERE id % 9 = 0;
VACUUM FULL whole;
UPDATE whole SET id = -id WHERE id % 4 = 0;

CREATE TABLE parts (id int, kind text, seq dna2) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200) PARTITION BY LIST (kind);
CREATE TABLE parts_2a PARTITION OF parts_2 FOR VALUES IN ('a') TABLESPACE space;
CREATE TABLE parts_2b (seq dna2, junk int, kind text, id int);
INSERT INTO parts_2b SELECT bases(i, 50)::text::dna2, i, 'b', i FROM generate_series(150, 160) i;
ALTER TABLE parts_2b DROP COLUMN junk;
ALTER TABLE parts_2 ATTACH PARTITION parts_2b FOR VALUES IN ('b');
CREATE TABLE parts_3 PARTITION OF parts DEFAULT;
CREATE TABLE parts_4 PARTITION OF parts FOR VALUES FROM (1000) TO (1001);
INSERT INTO parts SELECT i, (ARRAY['a', 'b'])[1 + i % 2], bases(i, CASE WHEN i % 17 = 0 THEN 12000 ELSE 30 + i % 50 END)::text::dna2
  FROM generate_series(0, 299) i;
DELETE FROM parts WHERE id % 13 = 0;
CREATE TABLE no_parts (id int, seq dna2) PARTITION BY RANGE (id);

CREATE TABLE mother (id int, seq bit varying);
CREATE TABLE daughter (extra text, more numeric) INHERITS (mother);
CREATE TABLE granddaughter (seq bit varying) INHERITS (daughter);
INSERT INTO mother SELECT i, bases(i, 40) FROM generate_series(1, 50) i;
INSERT INTO daughter SELECT i, bases(i, 40), 'e', i FROM generate_series(51, 80) i;
INSERT INTO granddaughter SELECT i, bases(i, 40), 'e', i FROM generate_series(81, 100) i;

CREATE MATERIALIZED VIEW view_of_stored AS SELECT id, seq FROM neighbours WHERE id < 200;
CREATE UNLOGGED TABLE unlogged AS SELECT i AS id, bases(i, 40) AS seq FROM generate_series(1, 90) i;
CREATE TABLE nothing (id int, seq dna2);
CREATE TABLE in_space (id int, seq bit varying) TABLESPACE space;
INSERT INTO in_space SELECT i, bases(i, 40 + i * 60) FROM generate_series(1, 90) i;

CREATE DOMAIN sequence AS dna2 CHECK (VALUE IS NOT NULL);
CREATE DOMAIN sequence_of_plasmid AS sequence;
CREATE TABLE domains (id int, seq sequence_of_plasmid);
INSERT INTO domains SELECT i, bases(i, 40)::text::sequence_of_plasmid FROM generate_series(1, 60) i;

CREATE TABLE letters4 (letters text, seq dna4);
INSERT INTO letters4 SELECT s, replace(replace(replace(replace(s, 'A', '0001'), 'C', '0010'), 'G', '0100'), 'T', '1000')::dna4
  FROM (SELECT translate(md5(i::text) || md5((-i)::text), '0123456789abcdef', 'ACGTACGTACGTACGT') s FROM generate_series(1, 90) i) l;

CREATE SCHEMA "My Lab";
CREATE TABLE "My Lab"."Reads 1" (id int, "Seq ""2""" bit varying);
INSERT INTO "My Lab"."Reads 1" SELECT i, bases(i, 44) FROM generate_series(1, 70) i;
CREATE TABLE left_open AS SELECT i AS id, bases(i, 40) AS seq FROM generate_series(1, 100) i;

CREATE TABLE prepared AS SELECT i AS id, bases(i, 40) AS seq FROM generate_series(1, 100) i;
BEGIN;
INSERT INTO prepared SELECT i, bases(i, 40) FROM generate_series(101, 120) i;
DELETE FROM prepared WHERE id <= 10;
SAVEPOINT s;
INSERT INTO prepared SELECT i, bases(i, 40) FROM generate_series(121, 140) i;
PREPARE TRANSACTION 'open';
BEGIN; DELETE FROM prepared WHERE id BETWEEN 11 AND 20; PREPARE TRANSACTION 'done'; COMMIT PREPARED 'done';
BEGIN; DELETE FROM prepared WHERE id BETWEEN 21 AND 30; PREPARE TRANSACTION 'undone'; ROLLBACK PREPARED 'undone';

CREATE TABLE locked (id int PRIMARY KEY, note text, seq bit varying);
INSERT INTO locked SELECT i, 'n', bases(i, 40) FROM generate_series(1, 100) i;
BEGIN; DO $$ BEGIN PERFORM FROM locked WHERE id <= 60 FOR KEY SHARE; END $$; PREPARE TRANSACTION 'locks';
BEGIN; DO $$ BEGIN PERFORM FROM locked WHERE id <= 20 FOR SHARE; END $$; COMMIT;
UPDATE locked SET note = 'u' WHERE id BETWEEN 21 AND 40;
BEGIN; UPDATE locked SET note = 'v' WHERE id BETWEEN 41 AND 60; ROLLBACK;
BEGIN; DO $$ BEGIN PERFORM FROM locked WHERE id BETWEEN 61 AND 70 FOR UPDATE; END $$; COMMIT;
BEGIN; SAVEPOINT s; DELETE FROM locked WHERE id BETWEEN 71 AND 80; ROLLBACK TO s;
DO $$ BEGIN PERFORM FROM locked WHERE id BETWEEN 75 AND 90 FOR NO KEY UPDATE; END $$; COMMIT;

CREATE DATABASE lab TABLESPACE other_space;
VACUUM FULL pg_class; VACUUM FULL pg_attribute; VACUUM FULL pg_namespace; VACUUM FULL pg_database; VACUUM FULL pg_inherits;
\c lab
CREATE TABLE here (id int, seq bit varying);
INSERT INTO here SELECT i, repeat('0110', i)::bit varying FROM generate_series(1, 90) i;
CREATE TABLE there (id int, seq bit varying) TABLESPACE pg_default;
INSERT INTO there SELECT i, repeat('01101', 2 * i)::bit varying FROM generate_series(1, 90) i;
VACUUM FULL pg_type;
"#;

impl Counted {
    fn engine(&self, server: &Server) -> Engine {
        let engine = leader().arg("-D").arg(server.data_directory()).args(["-d", self.database]);
        engine.args(["-t", self.table, "-c", self.column, "--all"])
    }

    /// Counts rows by a query that splits the sequences.
    fn in_sql(&self, server: &Server, k: usize) -> (String, Counts) {
        let Self { database, in_sql, column, bits, .. } = self;
        let bits = format!("({})::text::bit varying", if bits.is_empty() { column } else { bits });
        let rows = server.sql(&format!("\\c {database}\nSELECT count(*) FROM {in_sql};"));
        let counts = server.sql(&format!(
            "\\c {database}
             SELECT kmer::text, count(*) FROM (
               SELECT DISTINCT substring(bits FROM 2 * i + 1 FOR {width}) kmer, tableoid, ctid
               FROM (SELECT tableoid, ctid, {bits} bits FROM {in_sql} OFFSET 0) t, generate_series(0, length(bits) / 2 - {k}) i) d GROUP BY 1;",
            width = 2 * k,
        ));
        let parse = |line: &str| {
            let (bits, rows) = line.split_once('|')?;
            Some((u64::from_str_radix(bits, 2).ok()?, rows.parse().ok()?))
        };
        let counts = counts
            .lines()
            .map(|line| parse(line).unwrap_or_else(|| panic!("expected bits|rows, found {line:?}")));
        (rows.trim().to_owned(), counts.collect())
    }
}

/// Compares the engine's answer with the server's.
fn compare(ended: &Ended, k: usize, (rows, counts): &(String, Counts)) {
    let report = ended.report(k, 0);
    let told = differences(&report.counts, counts);
    assert!(told.is_none(), "{ended}{}", told.unwrap_or_default());
    assert_eq!(report.fact("total_rows"), rows, "{ended}");
    assert_eq!(report.fact("tuples_undecided"), "0", "{ended}");
}

fn every_table(options: Options) {
    let server = Server::start_with(options);
    let (space, other) = (server.make_dir("space"), server.make_dir("other"));
    server.sql(&format!(
        "CREATE TABLESPACE space LOCATION '{}';\nCREATE TABLESPACE other_space LOCATION '{}';\n{TABLES_SQL}",
        space.display(),
        other.display()
    ));
    // Still at work when the server is told to stop.
    let mut open = server.session();
    open.run("BEGIN; INSERT INTO left_open SELECT i, bases(i, 40) FROM generate_series(101, 120) i; DELETE FROM left_open WHERE id < 10;");
    let run = |words: &str| -> BTreeMap<usize, Ended> {
        let run = |counted: &Counted| counted.engine(&server).words(words).run().exits(0);
        TABLES.iter().map(run).enumerate().collect()
    };
    server.stop();
    drop(open);
    let unhinted = [(8, run("-k 8 -j 2")), (21, run("-k 21 -j 0 --read-method mmap --batch-size 1000"))];
    server.start_again();
    for (k, runs) in &unhinted {
        let counts = TABLES.iter().map(|counted| counted.in_sql(&server, *k));
        for (counts, ended) in counts.zip(runs.values()) {
            compare(ended, *k, &counts);
        }
    }
    the_catalogs_have_these_columns(&server);
    server.stop();
    for (again, first) in run("-k 8 -j 2 --batch-size 1000").values().zip(unhinted[0].1.values()) {
        assert!(again.stdout == first.stdout, "{again}{first}");
    }
}

/// The column lists of the catalogs are what the server itself says.
fn the_catalogs_have_these_columns(server: &Server) {
    let number: u8 = server
        .value::<u32>("SELECT current_setting('server_version_num')::int / 10000;")
        .try_into()
        .expect("a version");
    let major = Major::all().find(|major| major.number() == number).expect("a version that is read");
    for catalog in Catalog::ALL {
        let columns = server.sql(&format!(
            "SELECT attname, attlen, CASE attalign WHEN 'c' THEN 1 WHEN 's' THEN 2 WHEN 'i' THEN 4 ELSE 8 END
             FROM pg_attribute WHERE attrelid = '{}'::regclass AND attnum > 0 ORDER BY attnum;",
            catalog.name()
        ));
        let ours = major.columns(catalog).expect("a list").attributes.into_iter().map(|a| {
            let len = match a.len {
                relation::AttLen::Fixed(len) => i32::from(len),
                relation::AttLen::Varlena => -1,
                relation::AttLen::CString => -2,
            };
            format!("{}|{len}|{}\n", a.name, a.align.bytes())
        });
        assert_eq!(ours.collect::<String>(), columns, "{} of {number}", catalog.name());
    }
}

#[test]
fn tables_of_the_installed_server() {
    every_table(Options::default());
}

#[test]
fn tables_of_postgresql_13() {
    every_table(Options { major: Some(13), checksums: true });
}

#[test]
fn tables_of_postgresql_14() {
    every_table(Options { major: Some(14), checksums: false });
}

#[test]
fn tables_of_postgresql_16() {
    every_table(Options { major: Some(16), checksums: true });
}

#[test]
fn tables_of_postgresql_17() {
    every_table(Options { major: Some(17), checksums: false });
}

#[test]
fn tables_of_postgresql_18() {
    every_table(Options { major: Some(18), checksums: true });
}

#[test]
fn tables_of_postgresql_18_without_checksums() {
    every_table(Options { major: Some(18), checksums: false });
}
