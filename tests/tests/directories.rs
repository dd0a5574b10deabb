//! Data directories that are not at rest, not whole or not as usual, and names of things that are no tables: each its own error and hint.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use kmer_tests::data::{self, Rng};
use kmer_tests::engine::{Ended, Engine, leader};
use kmer_tests::fault::{self, within};
use kmer_tests::oracle::{Counts, sql_counts};
use kmer_tests::output::differences;
use kmer_tests::server::{Options, Server};
use tempfile::TempDir;

fn engine(pgdata: &Path, table: &str) -> Engine {
    leader().arg("-D").arg(pgdata).args(["-d", "postgres", "-t", table, "--all", "-k", "8", "-j", "0"])
}

fn fails(pgdata: &Path, table: &str, words: &[&str]) {
    let ended = engine(pgdata, table).run().fails(1, words);
    assert!(ended.stdout.is_empty(), "{ended}a result");
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(status.success(), "cp -a {} {}: {status}", from.display(), to.display());
}

/// Writes numbers into `pg_control` and gives it its checksum again; of versions before 18.
fn patch_control(pgdata: &Path, numbers: &[(usize, u32)]) {
    let file = pgdata.join("global/pg_control");
    let mut bytes = fs::read(&file).expect("pg_control");
    for (at, number) in numbers {
        bytes[*at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    let sum = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&sum.to_le_bytes());
    fs::write(&file, bytes).expect("pg_control");
}

fn same(ended: &Ended, expected: &Counts, rows: &str) {
    let report = ended.report(8, 0);
    let told = differences(&report.counts, expected);
    assert!(told.is_none(), "{ended}{}", told.unwrap_or_default());
    assert_eq!(report.fact("total_rows"), rows, "{ended}");
}

const READS: &str = "
CREATE TABLE reads AS SELECT i AS id, ((('x' || md5(i::text))::bit(128))::text || '0110')::bit varying AS seq FROM generate_series(1, 500) i;
CREATE UNLOGGED TABLE unlogged AS SELECT * FROM reads;
CREATE TABLE parts (id int, seq bit varying) PARTITION BY RANGE (id);
CREATE UNLOGGED TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
";

#[test]
fn directories_that_are_not_at_rest() {
    let server = Server::start();
    server.sql(&(READS.to_owned() + "DELETE FROM reads WHERE id % 7 = 0; CHECKPOINT;"));
    let (pgdata, reads) = (&server.data_directory(), server.table("reads"));
    let expected = sql_counts(&server, &reads, "seq", 8);
    let rows: String = server.value("SELECT count(*) FROM reads;");

    fails(
        pgdata,
        "reads",
        &["data directory", "its server is running (process ", "hint: ", "leave -D away", "--force"],
    );
    let forced = engine(pgdata, "reads").arg("--force").run().exits(0);
    same(&forced, &expected, &rows);
    assert!(forced.stderr.contains("kmer-leader: warning: data directory"), "{forced}");

    let backup = server.base_backup("backup");
    fails(
        &backup,
        "reads",
        &["a base backup that was never recovered", "backup_label", "hint: start a server on a copy"],
    );

    // On disk and not committed; committed, and in the WAL alone.
    let mut open = server.session();
    open.run("BEGIN; INSERT INTO reads SELECT id + 1000, seq FROM reads; DELETE FROM reads WHERE id < 100;");
    server.sql("CHECKPOINT; INSERT INTO reads SELECT id + 2000, seq FROM reads WHERE id < 50;");
    server.crash();
    drop(open);
    let words = [
        "was in production and has no process: it crashed, or runs elsewhere",
        "hint: start the server and stop it",
    ];
    fails(pgdata, "reads", &words);
    let forced = engine(pgdata, "reads").arg("--force").run().exits(0);
    same(&forced, &expected, &rows);
    for table in ["unlogged", "parts"] {
        let unlogged = engine(pgdata, table).arg("--force").run();
        let _ =
            unlogged.fails(1, &["expected a table, found an unlogged one", "empties it when it recovers"]);
    }

    server.start_again();
    let space = server.make_dir("space");
    server.sql(&format!(
        "CREATE TABLESPACE space LOCATION '{}';\nCREATE TABLE in_space (seq bit varying) TABLESPACE space;",
        space.display()
    ));
    let (expected, rows) =
        (sql_counts(&server, &reads, "seq", 8), server.value::<String>("SELECT count(*) FROM reads;"));
    server.stop();
    same(&engine(pgdata, "reads").run().exits(0), &expected, &rows);
    let standby = server.temp_dir();
    let standby = standby.path().join("standby");
    copy(pgdata, &standby);
    let link = fs::read_dir(standby.join("pg_tblspc")).expect("pg_tblspc").flatten().next().expect("a link");
    fs::remove_file(link.path()).expect("a link");
    fails(&standby, "in_space", &["No such file", "hint: the table is in a tablespace"]);
    patch_control(&standby, &[(16, 2)]);
    fails(&standby, "reads", &["found a standby that was", "hint: promote it"]);
    patch_control(&standby, &[(16, 5)]);
    fails(&standby, "reads", &["was in archive recovery"]);
    patch_control(&standby, &[(16, 1), (12, 202_209_062)]);
    fails(&standby, "reads", &["pg_control", "catalog_version_no: expected 202209061, found 202209062"]);
    fs::write(standby.join("PG_VERSION"), "12\n").expect("PG_VERSION");
    fails(&standby, "reads", &["server version: expected 13 to 18, found \"12\"", "hint: versions 13 to 18"]);
    fails(&pgdata.join("base"), "reads", &["expected a data directory with the file PG_VERSION, found none"]);
    fails(Path::new("/nowhere"), "reads", &["expected a data directory"]);
    server.start_again();
}

/// A server that starts while its files are read changes what is committed without a change to the table's files.
#[test]
fn a_server_that_starts_meanwhile() {
    let server = Server::start();
    server.sql(&(READS.to_owned() + "VACUUM FREEZE reads;"));
    let pgdata = server.data_directory();
    server.stop();
    let late = "--inject worker.running:worker=0:delay=6000";
    let run = |words: &str| {
        leader()
            .arg("-D")
            .arg(&pgdata)
            .args(["-d", "postgres", "-t", "reads", "--all", "-k", "8", "-j", "1"])
            .words(words)
    };
    let mut running = run(late).spawn();
    assert!(within(Duration::from_secs(30), || !running.workers().is_empty()), "no worker was started");
    server.start_again();
    assert!(!running.has_ended(), "it was too fast");
    let ended = running.wait().fails(1, &["expected it at rest until the end", "is running", "hint"]);
    assert!(ended.stdout.is_empty(), "{ended}a result");
    server.stop();
    let running = run(late).spawn();
    server.start_again();
    server.stop();
    let _ = running.wait().fails(1, &["expected it at rest until the end", "was started meanwhile"]);
    // Between the death of a leader and the next.
    let dir = tempfile::tempdir().expect("a directory");
    let words = "-d postgres -t reads --all -k 8 -j 1 --resumable -o out --inject drain.opened:leader:kill";
    let mut args: Vec<&str> = words.split(' ').collect();
    args.extend(["-D", pgdata.to_str().expect("a plain path")]);
    let killed = fault::run(dir.path(), &args, |_| {});
    assert_eq!(killed.signal(), Some(9), "{}", killed.told);
    let segment = fault::segments_of(killed.pid).pop().unwrap_or_else(|| panic!("{}no segment", killed.told));
    server.start_again();
    server.stop();
    let resumed = fault::run(dir.path(), &["resume", &segment], |_| {});
    assert_eq!(resumed.code(), Some(1), "{}", resumed.told);
    assert!(resumed.told.contains("expected it as it was when the run began"), "{}", resumed.told);
    let _ = leader().args(["segments", "--remove", &segment]).run().exits(0);
}

#[test]
fn names_of_what_is_no_table() {
    let server = Server::start();
    server.sql(
        "CREATE TABLE reads (id int PRIMARY KEY, seq dna2, other dna4, note text, gone dna2);
         ALTER TABLE reads DROP COLUMN gone;
         CREATE VIEW looks AS SELECT * FROM reads;
         CREATE MATERIALIZED VIEW empty_view AS SELECT * FROM reads WITH NO DATA;
         CREATE SEQUENCE numbers; CREATE TYPE pair AS (a int, b int);
         CREATE SCHEMA lab; CREATE TABLE lab.plasmids (seq dna2); CREATE TABLE lab.without (id int);
         CREATE TABLE many (id int, seq dna2) PARTITION BY RANGE (id); CREATE INDEX many_id ON many (id);
         CREATE FOREIGN DATA WRAPPER far; CREATE SERVER away FOREIGN DATA WRAPPER far;
         CREATE FOREIGN TABLE abroad (id int, seq dna2) SERVER away;
         CREATE TABLE mixed (id int, seq dna2) PARTITION BY RANGE (id);
         CREATE FOREIGN TABLE mixed_1 PARTITION OF mixed FOR VALUES FROM (0) TO (9) SERVER away;",
    );
    let mut open = server.session();
    open.run("CREATE TEMP TABLE fleeting (seq dna2);");
    let (oid, toast, fleeting): (String, String, String) = (
        server.value("SELECT 'lab.plasmids'::regclass::oid;"),
        server.value("SELECT relname FROM pg_class WHERE oid = (SELECT reltoastrelid FROM pg_class WHERE relname = 'reads');"),
        server.value("SELECT oid FROM pg_class WHERE relname = 'fleeting';"),
    );
    // Only a crash leaves temporary tables behind.
    server.sql("CHECKPOINT;");
    server.crash();
    drop(open);
    let pgdata = server.data_directory();
    let tries = |table: &str, more: &[&str], words: &[&str]| {
        let ended =
            leader().arg("-D").arg(&pgdata).args(["--force", "-d", "postgres", "-t", table]).args(more).run();
        let _ = ended.fails(1, words);
    };
    for (table, words) in [
        ("looks", "table \"public.looks\": expected a table, found a view"),
        ("empty_view", "found a materialized view without data"),
        ("numbers", "found a sequence"),
        ("pair", "found a composite type"),
        ("reads_pkey", "found an index"),
        ("many_id", "found an index"),
        ("abroad", "table \"public.abroad\": expected a table, found a foreign table"),
        ("mixed", "table \"public.mixed_1\": expected a table, found a foreign table"),
        (&format!("pg_toast.{toast}"), "found a toast table"),
        (&fleeting, "found a temporary one"),
        (
            "plasmids",
            "table \"plasmids\" does not exist in schema \"public\" kmer-leader: hint: there is one in \"lab\"; write it as schema.table",
        ),
        ("Reads2", "table \"Reads2\" does not exist in schema \"public\""),
        ("\"Reads\"", "table \"Reads\" does not exist in schema \"public\""),
        (
            "Nowhere.reads",
            "schema \"Nowhere\" does not exist kmer-leader: hint: the schemas are \"information_schema\", \"lab\", \"public\"",
        ),
        ("4000000000", "table with oid 4000000000 does not exist in database \"postgres\""),
        ("lab.without", "table \"lab.without\": expected one DNA column, found none"),
        (
            "reads",
            "expected one DNA column, found \"seq\", \"other\" kmer-leader: hint: name the column with --column",
        ),
    ] {
        tries(table, &[], &[words]);
    }
    for (column, words) in [
        ("note", "column \"note\": expected type dna2, dna4 or bit varying, found text"),
        ("4", "column \"note\": expected type dna2, dna4 or bit varying, found text"),
        ("5", "column \"5\" does not exist; the columns are \"id\", \"seq\", \"other\", \"note\""),
        ("gone", "column \"gone\" does not exist"),
    ] {
        tries("reads", &["-c", column], &[words]);
    }
    tries("reads", &["-c", "other", "--type", "dna2"], &["--type is for bit varying columns"]);
    let elsewhere = leader().arg("-D").arg(&pgdata).args(["--force", "-d", "nowhere", "-t", "reads"]).run();
    let _ = elsewhere.fails(
        1,
        &[
            "database \"nowhere\" does not exist",
            "hint: the databases are \"postgres\", \"template0\", \"template1\"",
        ],
    );
    let wrong = leader().arg("-D").arg(&pgdata).args(["--force", "-d", "postgres", "-t", "a.b.c"]).run();
    let _ = wrong.fails(2, &["--table: expected at most a schema and a table", "found \"a.b.c\""]);
    let found =
        leader().arg("-D").arg(&pgdata).args(["--force", "-d", "postgres", "-t", &oid]).run().exits(0);
    assert_eq!(found.report(16, 0).fact("total_rows"), "0", "{found}");
    server.start_again();
}

/// A data directory at rest, with checksums, and what the engine says about its table: partitions, TOAST, a column added later.
struct Good {
    _server: Server,
    pgdata: PathBuf,
    files: Vec<(&'static str, PathBuf)>,
    stdout: Vec<u8>,
}

fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let server = Server::start_with(Options { checksums: true, ..Options::default() });
        let mut rng = Rng::new(90);
        let long: Vec<Option<String>> = (0..24).map(|n| Some(rng.letters("ACGT", 2000 * n))).collect();
        let rows = data::all_dna2_bits(&data::rows(91, 3000).into_iter().chain(long).collect::<Vec<_>>());
        let rows: Vec<_> =
            rows.into_iter().enumerate().map(|(id, bits)| vec![Some(id.to_string()), bits]).collect();
        server.sql(
            &("CREATE TABLE reads (id int, seq dna2) PARTITION BY RANGE (id);
               CREATE TABLE reads_1 PARTITION OF reads FOR VALUES FROM (0) TO (1000);
               CREATE TABLE reads_2 PARTITION OF reads FOR VALUES FROM (1000) TO (9999);\n"
                .to_owned()
                + &data::copy("reads", "id, seq", &rows)
                + "DELETE FROM reads WHERE id % 9 = 1; ALTER TABLE reads ADD note text DEFAULT 'n';"),
        );
        let global = server.value::<String>("SELECT pg_relation_filepath('pg_database');");
        let names =
            ["pg_class", "pg_attribute", "pg_type", "pg_namespace", "pg_inherits", "reads_1", "reads_2"];
        let mut files: Vec<(&str, PathBuf)> = vec![
            ("pg_control", "global/pg_control".into()),
            ("pg_filenode.map", "global/pg_filenode.map".into()),
            ("pg_database", global.into()),
            ("pg_xact", "pg_xact/0000".into()),
        ];
        let path = |name| server.value::<String>(&format!("SELECT pg_relation_filepath('{name}');"));
        files.extend(names.map(|name| (name, path(name).into())));
        let map = Path::new(&path("pg_class")).with_file_name("pg_filenode.map");
        files.push(("pg_filenode.map", map));
        server.stop();
        let pgdata = server.data_directory();
        let stdout = engine(&pgdata, "reads").run().exits(0).stdout;
        Good { _server: server, pgdata, files, stdout }
    })
}

fn writable_copy() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pgdata = dir.path().join("data");
    copy(&good().pgdata, &pgdata);
    (dir, pgdata)
}

#[test]
fn damage_anywhere_is_an_error_or_without_effect() {
    let (_dir, pgdata) = writable_copy();
    let mut rng = Rng::new(92);
    let mut errors = 0;
    for (name, file) in &good().files {
        let file = pgdata.join(file);
        let original = fs::read(&file).expect("a file");
        for n in 0..24 {
            let mut bytes = original.clone();
            let from = if *name == "pg_control" { 300 } else { bytes.len() };
            bytes[rng.below(from.min(original.len()))] ^= 1 << rng.below(8);
            if n % 3 == 2 {
                bytes.truncate(rng.below(original.len()));
            }
            fs::write(&file, &bytes).expect("the file");
            let options = if n % 2 == 0 { "" } else { "--no-checksums" };
            let ended = engine(&pgdata, "reads").words(options).run();
            errors += usize::from(ended.status.code() != Some(0));
            if ended.status.code() != Some(0) {
                let ended = ended.fails(1, &[]);
                assert!(ended.stdout.is_empty(), "{ended}{name}: a result");
            } else if n % 2 == 0 && n % 3 < 2 && *name != "pg_xact" {
                // Checksums cover all that counts; pg_xact has none.
                assert!(ended.stdout == good().stdout, "{ended}{name}: another result");
            }
        }
        fs::remove_file(&file).expect("the file");
        let _ = engine(&pgdata, "reads").run().fails(1, &[]);
        fs::write(&file, &original).expect("the file");
    }
    assert!(errors > 50, "only {errors} damages were noticed");
    assert!(engine(&pgdata, "reads").run().exits(0).stdout == good().stdout);
}

/// Whether a file is the first of a relation.
fn is_relation(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
}

#[test]
fn relations_of_many_files() {
    // As a server would lay it out that was built with small segments: of 4 blocks, catalogs too.
    const SEGMENT: usize = 4 * 8192;
    let (_dir, pgdata) = writable_copy();
    let mut most = 0;
    for dir in fs::read_dir(pgdata.join("base"))
        .expect("base")
        .flatten()
        .map(|d| d.path())
        .chain([pgdata.join("global")])
    {
        for file in
            fs::read_dir(&dir).expect("a directory").flatten().map(|f| f.path()).filter(|f| is_relation(f))
        {
            let bytes = fs::read(&file).expect("a file");
            for (number, part) in bytes.chunks(SEGMENT).enumerate() {
                let mut name = file.clone().into_os_string();
                if number > 0 {
                    name.push(format!(".{number}"));
                }
                fs::write(name, part).expect("a segment");
                most = most.max(number);
            }
        }
    }
    assert!(most > 2, "no relation has several segments");
    patch_control(&pgdata, &[(220, 4)]);
    for words in ["-k 8", "-k 8 --read-method mmap"] {
        let ended = leader()
            .arg("-D")
            .arg(&pgdata)
            .words("-d postgres -t reads --all -j 2")
            .words(words)
            .run()
            .exits(0);
        assert!(ended.stdout == good().stdout, "{ended}");
    }
    let second = good().files.iter().find(|(name, _)| *name == "reads_2").expect("its file");
    fs::remove_file(pgdata.join(&second.1).with_extension("1")).expect("a segment");
    fails(&pgdata, "reads", &["is missing", "is there"]);
}
