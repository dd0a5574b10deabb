//! Results into the database and out of it, and what a user must be allowed to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use kmer_tests::data;
use kmer_tests::engine::{Ended, Engine, bin, leader};
use kmer_tests::fault::Small;
use kmer_tests::oracle::{Counts, Params, above, count_rows, threshold};
use kmer_tests::output::differences;
use kmer_tests::server::Server;

/// A run over a table of a database of its own.
fn run(server: &Server, database: &str, options: &str) -> Ended {
    live(server, "postgres", database).words(options).run()
}

fn live(server: &Server, user: &str, database: &str) -> Engine {
    leader().arg("-d").arg(format!("{} dbname={database}", server.conninfo(user)))
}

/// A database with a table `reads`, and the rows in it.
fn database(server: &Server, name: &str) -> Vec<Option<String>> {
    server.sql(&format!("CREATE DATABASE {name};"));
    let bits = data::all_dna2_bits(&data::rows(90, 700));
    server.sql_in(
        name,
        &("CREATE TABLE reads (id serial, seq bit varying);\n".to_owned()
            + &data::copy_bits("reads", "seq", &bits)),
    );
    bits
}

/// The k-mers that the table holds for k, with unsigned keys.
fn saved(server: &Server, database: &str, condition: &str) -> Counts {
    let query = format!(
        "SELECT uintkey, appearance_nrow FROM kmersearch_highfreq_kmer WHERE detection_reason = 'threshold' AND {condition};"
    );
    let read = |line: &str| {
        let (key, rows) = line.split_once('|').expect("two columns");
        (key.parse::<i64>().expect("a bigint").cast_unsigned(), rows.parse().expect("rows"))
    };
    server.sql_in(database, &query).lines().map(read).collect()
}

fn meta(server: &Server, database: &str) -> String {
    server.sql_in(
        database,
        "SELECT table_oid::regclass, column_name, kmer_size, occur_bitlen, max_appearance_rate, max_appearance_nrow
         FROM kmersearch_highfreq_kmer_meta ORDER BY kmer_size, occur_bitlen, table_oid;",
    )
}

fn same(ended: &Ended, found: &Counts, expected: &Counts) {
    assert!(!expected.is_empty());
    let told = differences(found, expected);
    assert!(told.is_none(), "{ended}{}", told.unwrap_or_default());
}

#[test]
fn a_result_is_saved_once_replaced_and_removed() {
    let server = Server::shared();
    let rows = database(server, "saved");
    let run = |options: &str| run(server, "saved", options);
    let counted = |k: usize, b: u32| count_rows(&rows, Params { occur_bitlen: b, ..Params::dna2(k) });
    // Keys of 64 bits, in a database that has none of the tables.
    let ended = run("-t reads -c seq -k 32 -R 0 --save -j 2").exits(0);
    assert_eq!(ended.text(), "", "{ended}");
    same(&ended, &saved(server, "saved", "kmer_size = 32"), &counted(32, 0));
    assert!(counted(32, 0).keys().any(|key| *key > i64::MAX as u64));
    let both = live(server, "postgres", "saved").words("-t reads -c 2 -k 8 -b 3 -R 0.2 -N 90 --save -o out");
    let ended = both.keeps("out").run().exits(0);
    let printed = run("-t reads -c 2 -k 8 -b 3 -R 0.2 -N 90").exits(0);
    assert_eq!(fs::read(ended.dir.path().join("out")).expect("the file"), printed.stdout, "{ended}");
    let limit = threshold(rows.len(), 0.2, 90);
    same(
        &ended,
        &saved(server, "saved", "kmer_size = 8 AND occur_bitlen = 3"),
        &above(&counted(8, 3), limit),
    );
    assert_eq!(meta(server, "saved"), "reads|seq|8|3|0.2|90\nreads|seq|32|0|0|0\n");
    // A second time it is refused before anything is counted, and nothing is changed.
    let again = run("-t reads -c seq -k 32 --save -o out")
        .fails(1, &["reads", "k 32", "already", "hint", "--replace", "undo"]);
    assert!(!again.stderr.contains("total_rows"), "{again}");
    same(&again, &saved(server, "saved", "kmer_size = 32"), &counted(32, 0));
    let ended = run("-t reads -c seq -k 32 -R 0 -N 4 --save --replace").exits(0);
    same(&ended, &saved(server, "saved", "kmer_size = 32"), &counted(32, 0));
    let ended = run("-t reads -c seq -k 32 -R 1 -N 4 --save --replace").exits(0);
    same(&ended, &saved(server, "saved", "kmer_size = 32"), &above(&counted(32, 0), 4));
    assert_eq!(meta(server, "saved"), "reads|seq|8|3|0.2|90\nreads|seq|32|0|1|4\n");
    // Another column is another analysis, and so is another table's column of that name.
    server.sql_in("saved", "CREATE TABLE more AS TABLE reads;");
    let _ = run("-t more -k 8 -b 3 --save").exits(0);

    let bytes: String = server.sql_in(
        "saved",
        "SELECT sum(n) FROM (SELECT pg_column_size(t.*) FROM kmersearch_highfreq_kmer t WHERE table_oid = 'reads'::regclass AND kmer_size = 32
           UNION ALL SELECT pg_column_size(t.*) FROM kmersearch_highfreq_kmer_meta t WHERE table_oid = 'reads'::regclass AND kmer_size = 32) x(n);",
    );
    let undone = run_undo(server, "-t reads -c seq -k 32");
    let kmers = above(&counted(32, 0), 4).len();
    let expected =
        format!("dropped_analyses: 1\ndropped_highfreq_kmers: {kmers}\nfreed_storage_bytes: {bytes}");
    assert_eq!(undone.text(), expected, "{undone}");
    assert_eq!(meta(server, "saved"), "reads|seq|8|3|0.2|90\nmore|seq|8|3|0.5|0\n");
    let undone = run_undo(server, "-t reads -c 2");
    assert!(undone.text().starts_with("dropped_analyses: 1\n"), "{undone}");
    assert_eq!(saved(server, "saved", "table_oid = 'reads'::regclass"), Counts::new());
    let undone = run_undo(server, "-t reads -c seq");
    assert_eq!(undone.text(), "dropped_analyses: 0\ndropped_highfreq_kmers: 0\nfreed_storage_bytes: 0\n");
    // A table that is gone is named by its OID.
    let oid = server.sql_in("saved", "SELECT 'more'::regclass::oid; DROP TABLE more;");
    let undone = run_undo(server, &format!("-t {} -c seq", oid.trim()));
    assert!(undone.text().starts_with("dropped_analyses: 1\n"), "{undone}");
    let gone = leader().arg("undo").arg("-d").arg(format!("{} dbname=saved", server.conninfo("postgres")));
    let _ = gone.words("-t more -c seq").run().fails(1, &["\"more\" does not exist", "hint"]);
}

fn run_undo(server: &Server, options: &str) -> Ended {
    let engine = leader().arg("undo").arg("-d").arg(format!("{} dbname=saved", server.conninfo("postgres")));
    engine.words(options).run().exits(0)
}

/// The tables as early versions of the extension had them: no k among the k-mers, and keys without it.
#[test]
fn tables_of_older_versions_are_filled_as_they_are() {
    let server = Server::shared();
    let rows = database(server, "older");
    server.sql_in(
        "older",
        "CREATE SCHEMA ext;
         CREATE TABLE ext.kmersearch_highfreq_kmer (table_oid oid NOT NULL, column_name name NOT NULL, uintkey bigint NOT NULL,
           appearance_nrow bigint NOT NULL, detection_reason text, PRIMARY KEY (table_oid, column_name, uintkey));
         CREATE TABLE ext.kmersearch_highfreq_kmer_meta (table_oid oid NOT NULL, column_name name NOT NULL, kmer_size integer NOT NULL,
           occur_bitlen integer NOT NULL, max_appearance_rate real NOT NULL, max_appearance_nrow integer NOT NULL,
           PRIMARY KEY (table_oid, column_name, kmer_size));
         ALTER DATABASE older SET search_path = public, ext;",
    );
    let ended = run(server, "older", "-t reads -k 9 -R 0 --save").exits(0);
    same(&ended, &saved(server, "older", "true"), &count_rows(&rows, Params::dna2(9)));
    let _ = run(server, "older", "-t reads -k 10 --save").fails(1, &["already"]);
    let ended = run(server, "older", "-t reads -k 10 -R 0 --save --replace").exits(0);
    same(&ended, &saved(server, "older", "true"), &count_rows(&rows, Params::dna2(10)));
    assert_eq!(meta(server, "older"), "reads|seq|10|0|0|0\n");
    server.sql_in("older", "ALTER TABLE ext.kmersearch_highfreq_kmer RENAME uintkey TO ngram_key;");
    let _ = run(server, "older", "-t reads -k 11 --save --replace")
        .fails(1, &["kmersearch_highfreq_kmer", "\"uintkey\"", "hint"]);
}

#[test]
fn options_that_make_no_sense_together() {
    for (options, words) in [
        ("-t reads --save --all", &["--save", "--all"][..]),
        ("-t reads --save --top 5", &["--save", "--top"]),
        ("--save", &["--table"]),
        ("-t reads --replace", &["--save"]),
        ("-t reads --read-method mmap", &["mmap", "hint"]),
        ("-t reads --lock-wait-timeout 5s -D /nowhere -d x", &["--lock-wait-timeout", "--pgdata"]),
    ] {
        let _ = leader().words(options).run().fails(2, words);
    }
}

/// What the columns of an analysis cannot hold is refused before the work, and their bounds are what they say.
#[test]
fn a_threshold_that_the_tables_cannot_hold() {
    let server = Server::shared();
    let (_, small) = (database(server, "bounds"), Small::new(92, 20));
    let refused = |options: &str, words: &[&str]| {
        let _ = run(server, "bounds", &format!("-t reads -c seq -k 5 {options} --save")).fails(2, words);
        let script = leader().words("-k 5 --table-oid 1 -F sql").words(options).arg(small.path());
        let _ = script.run().fails(2, words);
    };
    refused("-R 1e-60", &["--max-appearance-rate", "at least 1e-45", "found 1e-60"]);
    refused("-N 2147483648", &["--max-appearance-nrow", "0 to 2147483647", "2147483648"]);
    assert_eq!(server.sql_in("bounds", "SELECT to_regclass('kmersearch_highfreq_kmer_meta');"), "\n");
    let _ = run(server, "bounds", "-t reads -c seq -k 5 -R 1e-45 -N 2147483647 --save").exits(0);
    assert_eq!(meta(server, "bounds"), "reads|seq|5|0|1e-45|2147483647\n");
}

/// Each privilege that is missing is named; with all of them a user who is no superuser gets the same.
#[test]
fn privileges() {
    let server = Server::shared();
    let rows = database(server, "guarded");
    server.sql("CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN BYPASSRLS;");
    let run = |options: &str| {
        live(server, "ann", "guarded").words("-t reads -c seq --all -k 9").words(options).run()
    };
    let grant = |statement: &str| server.sql_in("guarded", statement);
    let _ = run("").fails(1, &["data directory", "hint", "pg_read_all_settings"]);
    grant("GRANT pg_read_all_settings TO ann;");
    let _ = run("").fails(1, &["could not lock table public.reads", "permission denied", "hint", "UPDATE"]);
    grant("GRANT UPDATE ON reads TO ann;");
    let _ = run("").fails(1, &["\"seq\"", "permission denied", "hint", "SELECT"]);
    grant("GRANT SELECT (seq) ON reads TO ann;");
    let _ = run("").fails(1, &["could not write out the table's pages", "hint", "pg_checkpoint"]);
    grant("GRANT pg_checkpoint TO ann;");
    let ended = run("").exits(0);
    same(&ended, &ended.report(9, 0).counts, &count_rows(&rows, Params::dna2(9)));
    // From 15 on nobody but its owner makes tables in the schema public.
    let save = |options: &str| {
        live(server, "ann", "guarded").words("-t reads -c seq -k 9 -R 0 --save").words(options).run()
    };
    grant("REVOKE CREATE ON SCHEMA public FROM PUBLIC;");
    let _ = save("").fails(1, &["may not be made", "hint", "GRANT CREATE"]);
    grant("CREATE SCHEMA ann AUTHORIZATION ann;");
    let ended = save("").exits(0);
    assert_eq!(grant("SELECT count(*) FROM ann.kmersearch_highfreq_kmer_meta;"), "1\n", "{ended}");
    grant("REVOKE ALL ON ann.kmersearch_highfreq_kmer FROM ann;");
    let _ = save("--replace").fails(1, &["expected the right to SELECT, found none", "hint", "GRANT SELECT"]);
    grant("GRANT SELECT ON ann.kmersearch_highfreq_kmer TO ann;");
    let _ = save("--replace").fails(1, &["expected the right to INSERT, found none"]);
    grant("REVOKE TEMPORARY ON DATABASE guarded FROM PUBLIC;");
    let _ = save("--replace").fails(1, &["expected the right to make temporary tables", "hint"]);
    assert_eq!(grant("SELECT count(*) FROM ann.kmersearch_highfreq_kmer_meta;"), "1\n");
    // Files would show rows that a policy hides.
    grant("ALTER TABLE reads ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON reads USING (id < 5);");
    let _ = run("").fails(1, &["row security", "hint", "BYPASSRLS"]);
    grant("GRANT SELECT, UPDATE ON reads TO bob; GRANT pg_checkpoint, pg_read_all_settings TO bob;");
    let ended = live(server, "bob", "guarded").words("-t reads -c seq --all -k 9").run().exits(0);
    same(&ended, &ended.report(9, 0).counts, &count_rows(&rows, Params::dna2(9)));
}

/// The engine's programs where every user may run them.
fn public_leader() -> &'static PathBuf {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let dir = Server::shared().temp_dir().keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("our own directory");
        for name in ["kmer-leader", "kmer-worker"] {
            fs::copy(bin(name), dir.join(name)).expect("a copy of the program");
        }
        dir.join("kmer-leader")
    })
}

#[test]
fn a_data_directory_that_others_may_not_read() {
    if !nix::unistd::Uid::effective().is_root() {
        // Who is not root owns the server, and may read its files.
        return;
    }
    let server = Server::shared();
    let _ = database(server, "private");
    let engine = Engine::new("/usr/bin/setpriv".into()).words("--reuid=65534 --regid=65534 --clear-groups");
    let engine =
        engine.arg(public_leader()).arg("-d").arg(format!("{} dbname=private", server.conninfo("postgres")));
    let ended = engine.words("-t reads -k 9").run();
    let _ = ended.fails(1, &["pg_control", "Permission denied", "hint", "sudo -u postgres"]);
}

#[test]
fn files_of_another_server_are_not_taken_for_its_own() {
    let server = Server::start();
    server.sql("CREATE TABLE reads (seq bit varying);");
    let run = || leader().arg("-d").arg(server.conninfo("postgres")).words("-t reads").run();
    let lock = server.data_directory().join("postmaster.pid");
    let text = fs::read_to_string(&lock).expect("the server's lock file");
    let started: i64 = text.lines().nth(2).and_then(|line| line.parse().ok()).expect("its start");
    fs::write(&lock, text.replace(&started.to_string(), &(started - 100).to_string()))
        .expect("its lock file");
    let _ = run().fails(1, &["data directory", "another server", "hint"]);
    fs::write(&lock, &text).expect("its lock file");
    let _ = run().exits(0);
    // The directory has another name where the server sees it.
    let (data, hidden) = (server.data_directory(), server.data_directory().with_extension("hidden"));
    fs::rename(&data, &hidden).expect("to rename it");
    let ended = run();
    fs::rename(&hidden, &data).expect("to rename it back");
    let _ = ended.fails(1, &["No such file", "hint", "where the server runs"]);
}

/// Whoever may make functions in a schema of `search_path` could have one called with the rights of the user who counts.
#[test]
fn functions_of_others_are_not_called() {
    let server = Server::shared();
    let rows = database(server, "others");
    let raises = |head: &str| {
        format!(
            "CREATE FUNCTION public.{head} LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'called'; END $$;\n"
        )
    };
    let functions: String = [
        "format(text, name, name) RETURNS text",
        "format(text, text, text) RETURNS text",
        "quote_ident(name) RETURNS text",
        "floor(numeric) RETURNS numeric",
    ]
    .iter()
    .map(|head| raises(head))
    .collect();
    let operators = raises("minus(pg_lsn, text) RETURNS numeric")
        + "CREATE OPERATOR public.- (LEFTARG = pg_lsn, RIGHTARG = text, FUNCTION = public.minus);\n"
        + &raises("equal(name, text) RETURNS boolean")
        + "CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.equal);\n";
    server.sql_in("others", &(functions + &operators));
    let ended = run(server, "others", "-t reads -c seq -k 9 -R 0 --save").exits(0);
    let expected = count_rows(&rows, Params::dna2(9));
    same(&ended, &saved(server, "others", "kmer_size = 9"), &expected);
    let words = ["undo", "-d", &format!("{} dbname=others", server.conninfo("postgres"))].map(str::to_owned);
    let _ = leader().args(words).words("-t reads -c seq").run().exits(0);
}

/// Columns are named for `undo` as they are for the run.
#[test]
fn the_analysis_of_the_column_that_is_meant_is_removed() {
    let server = Server::shared();
    server.sql("CREATE DATABASE named;");
    server.sql_in(
        "named",
        "CREATE TABLE reads (a bit varying, \"3\" bit varying, \"SEQ\" bit varying, seq bit varying);
         INSERT INTO reads SELECT b, b, b, b FROM (SELECT ('x' || md5(i::text))::bit(128)::bit varying AS b FROM generate_series(1, 9) i) rows;",
    );
    let columns = ["3", "SEQ", "Seq", "a"];
    for column in columns {
        let _ = run(server, "named", &format!("-t reads -c {column} -k 5 -R 0 --save")).exits(0);
    }
    let left = || server.sql_in("named", "SELECT column_name FROM kmersearch_highfreq_kmer_meta ORDER BY 1;");
    assert_eq!(left(), "3\nSEQ\na\nseq\n");
    let undo = |column: &str| {
        let words = [
            "undo",
            "-d",
            &format!("{} dbname=named", server.conninfo("postgres")),
            "-t",
            "reads",
            "-c",
            column,
        ];
        leader().args(words).run()
    };
    for (column, expected) in [("3", "SEQ\na\nseq\n"), ("\"SEQ\"", "a\nseq\n"), ("Seq", "a\n"), ("1", "")] {
        let ended = undo(column).exits(0);
        assert!(ended.text().starts_with("dropped_analyses: 1\n"), "{ended}");
        assert_eq!(left(), expected, "{ended}");
    }
    let ended = undo("SEQ").exits(0);
    assert!(ended.text().starts_with("dropped_analyses: 0\n"), "{ended}");
    let _ = undo("nosuch").fails(1, &["column \"nosuch\" does not exist, and has no analysis"]);
}

/// Older tables know less of k: what they do not tell apart is not taken for another.
#[test]
fn what_a_table_does_not_tell_apart_is_one_analysis() {
    let server = Server::shared();
    let _ = database(server, "apart");
    let meta = "CREATE TABLE kmersearch_highfreq_kmer_meta (table_oid oid, column_name name, kmer_size integer, occur_bitlen integer,
        max_appearance_rate real, max_appearance_nrow integer, PRIMARY KEY (table_oid, column_name, kmer_size, occur_bitlen));\n";
    // Its key has no k, though it has a column for it.
    let kmers = "CREATE TABLE kmersearch_highfreq_kmer (table_oid oid, column_name name, kmer_size integer, occur_bitlen integer,
        uintkey bigint, appearance_nrow bigint, detection_reason text, PRIMARY KEY (table_oid, column_name, uintkey));\n";
    server.sql_in("apart", &(meta.to_owned() + kmers));
    let _ = run(server, "apart", "-t reads -c seq -k 5 -R 0 --save").exits(0);
    let five = saved(server, "apart", "kmer_size = 5");
    let _ =
        run(server, "apart", "-t reads -c seq -k 6 -R 0 --save").fails(1, &["is there already", "--replace"]);
    assert!(saved(server, "apart", "kmer_size = 5") == five && !five.is_empty());
    let _ = run(server, "apart", "-t reads -c seq -k 6 -R 0 --save --replace").exits(0);
    assert!(
        saved(server, "apart", "kmer_size = 5").is_empty()
            && !saved(server, "apart", "kmer_size = 6").is_empty()
    );
    // One without k in it at all: the k-mers of k = 6 are not those of k = 9.
    server.sql_in(
        "apart",
        "ALTER TABLE kmersearch_highfreq_kmer DROP COLUMN kmer_size, DROP COLUMN occur_bitlen;",
    );
    let undo = |options: &str| {
        let words =
            ["undo", "-d", &format!("{} dbname=apart", server.conninfo("postgres"))].map(str::to_owned);
        leader().args(words).words(&format!("-t reads -c seq {options}")).run()
    };
    let six = saved(server, "apart", "true");
    let _ = undo("-k 9").fails(1, &["found no such analysis"]);
    assert!(saved(server, "apart", "true") == six && !six.is_empty());
    let _ = undo("-k 6").exits(0);
    assert!(saved(server, "apart", "true").is_empty());
}
