//! A table of a running server by its name: what is counted, beside whom, and what is refused.

use std::thread;
use std::time::Duration;

use kmer_tests::data::{self, Rng};
use kmer_tests::engine::{Ended, Engine, leader};
use kmer_tests::fault::within;
use kmer_tests::oracle::{Counts, Dna, Params, count_rows, sql_counts};
use kmer_tests::output::differences;
use kmer_tests::server::{Options, Server, Session};
use nix::sys::signal::Signal;

/// A run over a table, as the superuser.
fn live(server: &Server, table: &str) -> Engine {
    live_as(server, "postgres", table)
}

fn live_as(server: &Server, user: &str, table: &str) -> Engine {
    leader().arg("-d").arg(server.conninfo(user)).arg("-t").arg(table)
}

/// Compares a run over every k-mer of 9 bases with counts, and its rows with their number.
fn compare(ended: &Ended, expected: &Counts, rows: usize) {
    let report = ended.report(9, 0);
    let told = differences(&report.counts, expected);
    assert!(told.is_none(), "{ended}{}", told.unwrap_or_default());
    assert_eq!(report.fact("total_rows"), rows.to_string(), "{ended}");
}

/// Counts a table with the engine and with SQL, and with an oracle of rows if it is `dna4`.
fn check(server: &Server, name: &str, column: &str, dna: Dna) {
    let table = server.table(name);
    let rows = table.sequences(column);
    let params = Params { dna, k: 9, occur_bitlen: 0 };
    let expected = count_rows(&rows, params);
    if dna == Dna::Dna2 {
        let text = format!("(SELECT tableoid, ctid, {column}::text::varbit AS v FROM {name})");
        assert_eq!(differences(&sql_counts(server, &server.table(&text), "v", 9), &expected), None);
    }
    for workers in [0, 2] {
        let options = format!("--all -k 9 -j {workers}");
        let ended = live(server, name).arg("-c").arg(column).words(&options).run().exits(0);
        compare(&ended, &expected, rows.len());
    }
}

/// Waits until the engine waits for a lock on the table.
fn until_waiting(server: &Server, table: &str) {
    let query = format!(
        "SELECT count(*) > 0 FROM pg_locks WHERE relation = '{table}'::regclass AND mode = 'ShareLock' AND NOT granted;"
    );
    server.until(&query);
}

#[test]
fn fresh_rows_changed_tables_and_odd_names() {
    let server = Server::shared();
    server.sql("CREATE SCHEMA \"Lab 1\";");
    let name = "\"Lab 1\".\"Reads, new\"";
    server.fill(
        name,
        "id serial, gone text DEFAULT repeat('x', 9), seq dna2, note text DEFAULT 'n'",
        1,
        1500,
    );
    // Nobody has read the table yet, so no hint bit says what committed.
    check(server, name, "seq", Dna::Dna2);
    server.sql(&format!(
        "ALTER TABLE {name} DROP COLUMN gone;
         ALTER TABLE {name} ADD COLUMN \"Other, seq\" bit varying DEFAULT B'000110110001101100011011';
         UPDATE {name} SET note = 'u' WHERE id % 7 = 0;
         DELETE FROM {name} WHERE id % 5 = 0;
         BEGIN; DELETE FROM {name} WHERE id % 3 = 0; ROLLBACK;
         BEGIN; SAVEPOINT a; UPDATE {name} SET note = 's' WHERE id % 11 = 1; RELEASE a; COMMIT;
         BEGIN; SELECT count(*) FROM (SELECT FROM {name} WHERE id % 2 = 0 FOR SHARE) x; COMMIT;"
    ));
    check(server, name, "seq", Dna::Dna2);
    check(server, name, "\"Other, seq\"", Dna::Dna2);
    // By numbers, and the column by itself once it is the only one.
    let oid: String = server.value(&format!("SELECT '{name}'::regclass::oid;"));
    let expected = sql_counts(
        server,
        &server.table(&format!("(SELECT tableoid, ctid, seq::text::varbit AS v FROM {name})")),
        "v",
        9,
    );
    let rows: usize = server.value(&format!("SELECT count(*) FROM {name};"));
    compare(&live(server, &oid).words("-c 3 --all -k 9").run().exits(0), &expected, rows);
    let _ = live(server, &oid).words("-k 9").run().fails(1, &["\"seq\", \"Other, seq\"", "hint", "--column"]);
    server.sql(&format!("ALTER TABLE {name} DROP COLUMN \"Other, seq\";"));
    compare(&live(server, &oid).words("--all -k 9").run().exits(0), &expected, rows);
}

#[test]
fn toasted_values_with_checksums_and_dna4() {
    let server = Server::shared_with_checksums();
    let mut rng = Rng::new(5);
    let long: Vec<Option<String>> =
        (0..60).map(|n| Some(rng.letters("ACGTRYN", [40, 9000, 30_000][n % 3]))).collect();
    let bits = data::all_dna4_bits(&long);
    server.sql(
        &("CREATE TABLE long (seq dna4);\nALTER TABLE long ALTER seq SET STORAGE EXTERNAL;\n".to_owned()
            + &data::copy_bits("long", "seq", &bits)),
    );
    server.sql("DELETE FROM long WHERE ctid IN (SELECT ctid FROM long LIMIT 7);");
    check(server, "long", "seq", Dna::Dna4);
    server.sql("CREATE TABLE plain4 AS SELECT seq::text::varbit AS seq FROM long;");
    let rows = server.table("plain4").sequences("seq");
    let expected = count_rows(&rows, Params { dna: Dna::Dna4, k: 9, occur_bitlen: 0 });
    compare(&live(server, "plain4").words("--type dna4 --all -k 9").run().exits(0), &expected, rows.len());
    server.sql("CREATE DOMAIN sequence AS bit varying CHECK (length(VALUE) > 3);");
    server.fill("typed", "seq sequence", 3, 0);
    server.sql("INSERT INTO typed SELECT B'0001101100011011000110110001101111';");
    check(server, "typed", "seq", Dna::Dna2);
}

#[test]
fn partitions_are_one_table() {
    let server = Server::shared();
    server.sql(
        "CREATE TABLE parts (id int, seq dna2, note text) PARTITION BY RANGE (id);
         CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM (0) TO (500);
         CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM (500) TO (2000) PARTITION BY HASH (id);
         CREATE TABLE parts_b0 PARTITION OF parts_b FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE parts_b1 (note text, gone int, seq dna2, id int);
         ALTER TABLE parts_b1 DROP COLUMN gone;
         ALTER TABLE parts_b ATTACH PARTITION parts_b1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE TABLE parts_none PARTITION OF parts DEFAULT;
         ALTER TABLE parts_a ALTER seq SET STORAGE EXTERNAL;",
    );
    // Without rows there is nothing, and that is an answer.
    compare(&live(server, "parts").words("--all -k 9").run().exits(0), &Counts::new(), 0);
    let mut rng = Rng::new(8);
    let long = data::dna2_bits(&rng.letters("ACGT", 10_000));
    let rows: Vec<Vec<Option<String>>> = data::all_dna2_bits(&data::rows(9, 1400))
        .into_iter()
        .enumerate()
        .map(|(id, bits)| vec![Some(id.to_string()), if id % 400 == 3 { Some(long.clone()) } else { bits }])
        .collect();
    server.sql(&data::copy("parts", "id, seq", &rows));
    server.sql("DELETE FROM parts WHERE id % 13 = 0;");
    check(server, "parts", "seq", Dna::Dna2);
    check(server, "parts_b", "seq", Dna::Dna2);
    check(server, "parts_b1", "seq", Dna::Dna2);
    server.sql("CREATE TABLE childless (id int, seq dna2) PARTITION BY RANGE (id);");
    let ended = live(server, "childless").words("--all -k 9").run().exits(0);
    compare(&ended, &Counts::new(), 0);
    server.sql("ALTER TABLE parts_b0 SET UNLOGGED;");
    let _ = live(server, "parts").run().fails(1, &["parts_b0", "unlogged", "hint"]);
}

#[test]
fn writers_are_waited_for_and_vacuum_full_waits() {
    let server = Server::shared();
    server.fill("busy", "id serial, seq dna2", 20, 800);
    let file = || server.value::<String>("SELECT pg_relation_filenode('busy');");
    let before = file();
    let mut writer = server.session();
    writer.run("BEGIN; INSERT INTO busy (seq) SELECT seq FROM busy WHERE id < 300;");
    let run = live(server, "busy").words("--all -k 9 -j 2").spawn();
    until_waiting(server, "busy");
    let mut vacuum = server.session();
    vacuum.send("VACUUM FULL busy;");
    server.until("SELECT count(*) > 0 FROM pg_locks WHERE relation = 'busy'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted;");
    assert_eq!(file(), before);
    thread::sleep(Duration::from_millis(1200));
    writer.run("COMMIT;");
    let ended = run.wait().exits(0);
    assert!(ended.stderr.contains("waiting for a lock on table public.busy"), "{ended}");
    vacuum.run("SELECT 1;");
    assert_ne!(file(), before, "VACUUM FULL did nothing");
    let rows = server.table("busy").sequences("seq");
    compare(&ended, &count_rows(&rows, Params::dna2(9)), rows.len());
    check(server, "busy", "seq", Dna::Dna2);
}

fn locker(server: &Server, table: &str) -> Session {
    let mut session = server.session();
    session.run(&format!("BEGIN; LOCK TABLE {table} IN ROW EXCLUSIVE MODE;"));
    session
}

#[test]
fn a_lock_that_is_not_to_be_had() {
    let server = Server::shared();
    server.fill("taken", "seq dna2", 21, 50);
    let session = locker(server, "taken");
    let ended = live(server, "taken").words("--lock-wait-timeout 300ms -o out").run();
    let _ = ended.fails(1, &["could not lock table public.taken", "hint", "--lock-wait-timeout"]);
    let _ = live(server, "taken")
        .words("--lock-wait-timeout soon")
        .run()
        .fails(2, &["--lock-wait-timeout", "soon"]);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut run = live(server, "taken").spawn();
        until_waiting(server, "taken");
        run.signal(signal);
        let _ = run.wait().ends_by(signal);
        server.until(
            "SELECT count(*) = 0 FROM pg_locks WHERE relation = 'taken'::regclass AND mode = 'ShareLock';",
        );
    }
    let run = live(server, "taken").spawn();
    until_waiting(server, "taken");
    server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'taken'::regclass AND NOT granted;",
    );
    let _ = run.wait().fails(1, &["could not lock table public.taken", "connection"]);
    // It vanishes while it is waited for.
    let run = live(server, "taken").spawn();
    until_waiting(server, "taken");
    let mut session = session;
    session.run("DROP TABLE taken; COMMIT;");
    let _ = run.wait().fails(1, &["taken"]);
}

#[test]
fn a_connection_that_is_lost_while_the_table_is_read() {
    let server = Server::shared();
    server.fill("lost", "seq dna2", 22, 60_000);
    let slow = "--all -k 31 -j 1 -o out --unit-blocks 8 --inject scan.block:worker=0:nth=all:delay=5";
    let mut run = live(server, "lost").words(slow).spawn();
    // A worker means that the table is being read.
    assert!(within(Duration::from_secs(30), || !run.workers().is_empty()), "no worker was started");
    run.signal(Signal::SIGSTOP);
    assert!(!run.has_ended(), "the table is too small");
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'lost'::regclass AND mode = 'ShareLock';");
    run.signal(Signal::SIGCONT);
    let _ = run.wait().fails(1, &["connection was lost while the table was read", "nothing was written"]);
}

/// Our lock is on the table, not on its TOAST relation, whose end VACUUM may cut off while we read.
#[test]
fn beside_vacuum_of_the_toast_relation_values_are_read() {
    let server = Server::shared();
    server.sql(
        "CREATE TABLE long (id serial, seq bit varying);
         ALTER TABLE long ALTER seq SET STORAGE EXTERNAL;
         INSERT INTO long (seq) SELECT (SELECT string_agg(CASE WHEN random() < 0.5 THEN '0' ELSE '1' END, '') FROM generate_series(i, i + 23999))::bit varying
           FROM generate_series(1, 24) i;
         DELETE FROM long WHERE id > 6;",
    );
    let toast: String = server.value("SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'long';");
    let size = || server.value::<u64>(&format!("SELECT pg_relation_size('{toast}');"));
    let before = size();
    let words = "--all -k 21 -c seq -j 1 --inject worker.running:worker=0:delay=3000";
    let mut run = live(server, "long").words(words).spawn();
    assert!(within(Duration::from_secs(30), || !run.workers().is_empty()), "no worker was started");
    server.sql(&format!("VACUUM {toast};"));
    assert!(size() < before && !run.has_ended(), "nothing was cut off while it was read");
    let ended = run.wait().exits(0);
    assert_eq!(ended.report(21, 0).fact("total_rows"), "6", "{ended}");
    check(server, "long", "seq", Dna::Dna2);
}

#[test]
fn beside_writers_the_count_is_that_of_a_snapshot() {
    let server = Server::shared();
    server.sql(
        "CREATE TABLE hot (id serial, seq bit varying, note int DEFAULT 0) WITH (fillfactor = 60);
         INSERT INTO hot (seq) SELECT B'11111111111111111111' FROM generate_series(1, 300);",
    );
    // Every transaction adds as many rows of A as of C, or none; and old rows get new versions, in the same page or another.
    let script = "\\set id random(1, 300)
        \\set abort random(0, 1)
        BEGIN;
        INSERT INTO hot (seq) VALUES (B'00000000000000000000');
        UPDATE hot SET note = note + 1 WHERE id = :id;
        INSERT INTO hot (seq) VALUES (B'01010101010101010101');
        \\if :abort
        ROLLBACK;
        \\else
        COMMIT;
        \\endif";
    let mut bench = server.pgbench(script, &["-c", "4", "-T", "4"]);
    // Readers prune pages and set hint bits while the lock is held.
    let mut readers = server.pgbench("SELECT count(*), sum(note) FROM hot;", &["-c", "2", "-T", "4"]);
    let (mut last, mut runs) = (0, 0);
    server.until("SELECT count(*) > 320 FROM hot;");
    while bench.try_wait().is_ok_and(|status| status.is_none()) {
        let before: u64 = server.value("SELECT count(*) FROM hot;");
        let ended = live(server, "hot").words("--all -k 9 -c seq -j 2").run().exits(0);
        let after: u64 = server.value("SELECT count(*) FROM hot;");
        let report = ended.report(9, 0);
        let rows: u64 = report.fact("total_rows").parse().expect("a number");
        let count = |letters: u64| report.counts.get(&letters).copied().unwrap_or(0);
        let (a, c, t) = (count(0), count(0x1_5555), count(0x3_ffff));
        assert_eq!((a, t, rows), (c, 300, 300 + 2 * a), "{ended}");
        assert!((before..=after).contains(&rows) && rows >= last, "{before} {rows} {after} {ended}");
        (last, runs) = (rows, runs + 1);
    }
    assert!(readers.wait().is_ok_and(|status| status.success()));
    let output = bench.wait_with_output().expect("pgbench");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("number of failed transactions: 0"), "{text}");
    assert!(runs > 0 && last > 300, "{runs} runs, {last} rows at last");
    check(server, "hot", "seq", Dna::Dna2);
}

#[test]
fn what_is_no_table_of_rows_is_named() {
    let server = Server::shared();
    server.fill("plain", "id int PRIMARY KEY, seq dna2, word text", 30, 0);
    server.sql(
        "CREATE VIEW a_view AS TABLE plain;
         CREATE MATERIALIZED VIEW a_matview AS TABLE plain;
         CREATE UNLOGGED TABLE an_unlogged (seq dna2);
         CREATE SEQUENCE a_sequence;
         CREATE TABLE wordless (id int);
         CREATE TABLE child () INHERITS (plain);
         CREATE EXTENSION postgres_fdw;
         CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
         CREATE FOREIGN TABLE a_foreign (seq bit varying) SERVER far;",
    );
    for (table, options, words) in [
        ("a_view", "", &["a_view", "a view", "hint"][..]),
        ("a_matview", "", &["a materialized view"]),
        ("a_foreign", "", &["a foreign table"]),
        ("a_sequence", "", &["a sequence"]),
        ("plain_pkey", "", &["an index"]),
        ("an_unlogged", "", &["an_unlogged", "unlogged", "checkpoint", "-D"]),
        ("plain", "", &["plain", "inherit"]),
        ("nothing", "", &["\"nothing\" does not exist", "hint"]),
        ("nowhere.nothing", "", &["does not exist"]),
        ("4000000000", "", &["\"4000000000\" does not exist"]),
        ("a..b", "", &["a..b"]),
        ("child", "-c nothing", &["child", "\"nothing\" does not exist", "\"seq\""]),
        ("child", "-c word", &["\"word\"", "dna2, dna4 or bit varying", "text"]),
        ("wordless", "", &["wordless", "found none"]),
    ] {
        let _ = live(server, table).words(options).run().fails(1, words);
    }
    let mut session = server.session();
    session.run("CREATE TEMPORARY TABLE fleeting (seq bit varying);");
    let oid: String = server.value("SELECT oid FROM pg_class WHERE relname = 'fleeting';");
    let _ = live(server, &oid).run().fails(1, &["fleeting", "temporary"]);
}

#[test]
fn servers_that_do_not_answer() {
    let server = Server::shared();
    let nowhere = server.temp_dir();
    let engine = |info: &str| leader().arg("-d").arg(info).words("-t reads").run();
    let _ = engine(&format!("host={} user=postgres", nowhere.path().display()))
        .fails(1, &["could not connect to the server at", "No such file", "hint", "--host"]);
    let _ = engine("host=127.0.0.1 port=1 user=x dbname=x").fails(1, &["127.0.0.1", "refused", "hint"]);
    let _ = engine(&format!("{} dbname=none", server.conninfo("postgres")))
        .fails(1, &["\"none\"", "hint", "--dbname"]);
    let _ = engine(&server.conninfo("nobody_here")).fails(1, &["nobody_here"]);
    let _ = engine("host=/tmp sslmode=require").fails(2, &["TLS", "hint"]);
    let _ = engine("host=/tmp speed=high").fails(2, &["--dbname", "speed"]);
    let _ = leader().arg("-d").arg("postgres").run().fails(2, &["--table"]);
    let _ = leader().words("-t a somefile").run().fails(2, &["--table"]);
    let _ = leader().words("-t a --resumable").run().fails(2, &["--resumable"]);
}

#[test]
fn options_and_variables_say_where_to_connect() {
    let server = Server::shared();
    server.fill("found", "seq dna2", 31, 100);
    let host = server.socket_directory().display().to_string();
    let bits = server.table("found").sequences("seq");
    let expected = count_rows(&bits, Params::dna2(9));
    let by_options =
        leader().arg("-h").arg(&host).words("-U postgres -d postgres -p 5432 -t found --all -k 9");
    compare(&by_options.run().exits(0), &expected, bits.len());
    let by_variables = leader().words("-t found --all -k 9").env("PGHOST", &host).env("PGUSER", "postgres");
    compare(&by_variables.run().exits(0), &expected, bits.len());
    let uri = format!("postgresql://postgres@{}/postgres", host.replace('/', "%2F"));
    compare(&leader().arg("-d").arg(uri).words("-t found --all -k 9").run().exits(0), &expected, bits.len());
    let help = leader().arg("-?").run().exits(0);
    assert!(help.text().contains("--lock-wait-timeout"), "{help}");
}

/// Every version that there is: catalogs and settings differ, what is counted does not.
#[test]
fn every_major_version() {
    for major in [13, 14, 16, 17, 18] {
        let server = Server::start_with(Options { major: Some(major), checksums: major % 2 == 0 });
        server.fill("reads", "id serial, gone text DEFAULT 'x', seq dna2", 40 + u64::from(major), 700);
        server.sql(
            "ALTER TABLE reads DROP COLUMN gone;
             ALTER TABLE reads ADD COLUMN later bit varying DEFAULT B'000110110001101100011011';
             DELETE FROM reads WHERE id % 3 = 0;
             BEGIN; DELETE FROM reads; ROLLBACK;
             CREATE TABLE parts (LIKE reads) PARTITION BY HASH (id);
             CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             ALTER TABLE parts_0 ALTER seq SET STORAGE EXTERNAL;
             INSERT INTO parts TABLE reads;
             INSERT INTO parts SELECT 1, string_agg(seq::text, '')::dna2 FROM reads WHERE id < 200;",
        );
        check(&server, "reads", "seq", Dna::Dna2);
        check(&server, "reads", "later", Dna::Dna2);
        check(&server, "parts", "seq", Dna::Dna2);
        let save = || live(&server, "reads").words("-c seq -k 9 -R 0 --save --lock-wait-timeout 5s").run();
        let ended = save().exits(0);
        let kmers = count_rows(&server.table("reads").sequences("seq"), Params::dna2(9)).len();
        let saved: usize = server.value("SELECT count(*) FROM kmersearch_highfreq_kmer;");
        assert_eq!(saved, kmers, "{ended}");
        let _ = save().fails(1, &["already"]);
        let undo = leader()
            .arg("undo")
            .arg("-d")
            .arg(server.conninfo("postgres"))
            .words("-t reads -c seq")
            .run()
            .exits(0);
        assert!(undo.text().contains(&format!("dropped_highfreq_kmers: {kmers}\n")), "{undo}");
    }
}
