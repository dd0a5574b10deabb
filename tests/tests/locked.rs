//! From the wait for a table's lock to the last statement of a run: what changes meanwhile, who waits for whom, and signals, which the server hears of.

use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kmer_tests::engine::{Engine, leader};
use kmer_tests::fault::within;
use kmer_tests::server::{Server, Session};
use nix::sys::signal::Signal;

fn live(server: &Server, user: &str, table: &str) -> Engine {
    leader().arg("-d").arg(server.conninfo(user)).args(["-t", table, "-c", "seq"])
}

/// A role that may count tables that it is given, and no more.
fn counter(server: &Server, role: &str, table: &str) {
    server.sql(&format!(
        "CREATE ROLE {role} LOGIN; GRANT pg_checkpoint, pg_read_all_settings TO {role}; GRANT SELECT, UPDATE ON {table} TO {role};"
    ));
}

/// Waits until a session of ours waits for a lock, of the table or another.
fn until_waiting(server: &Server, user: &str) {
    server.until(&format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = '{user}' AND application_name = 'kmer-leader' AND wait_event_type = 'Lock';"
        ),
    );
}

fn none_holds(server: &Server, table: &str) {
    server.until(&format!(
        "SELECT count(*) = 0 FROM pg_locks WHERE relation = '{table}'::regclass AND mode = 'ShareLock';"
    ));
}

fn holder(server: &Server, statements: &str) -> Session {
    let mut session = server.session();
    session.run(&format!("BEGIN; {statements}"));
    session
}

#[test]
fn what_came_while_the_lock_was_waited_for_is_seen() {
    let server = Server::shared();
    server.fill("grew", "id serial, seq bit varying", 71, 50);
    counter(server, "grew_counter", "grew");
    for (change, expected) in [
        ("CREATE TABLE grew_child () INHERITS (grew);", "expected a table without children"),
        (
            "ALTER TABLE grew ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON grew USING (id < 5);",
            "row security hides rows",
        ),
        ("ALTER TABLE grew SET UNLOGGED;", "expected a permanent table"),
    ] {
        let mut session = holder(server, &format!("LOCK TABLE grew; {change}"));
        let run = live(server, "grew_counter", "grew").words("--all -k 9").spawn();
        until_waiting(server, "grew_counter");
        session.run("COMMIT;");
        let ended = run.wait().fails(1, &[expected]);
        assert!(ended.stdout.is_empty(), "{ended}");
        server.sql("DROP TABLE IF EXISTS grew_child; ALTER TABLE grew DISABLE ROW LEVEL SECURITY;");
    }
}

/// `lock_timeout` of a role is for short statements; what is typed is for all partitions together.
#[test]
fn how_long_is_waited_is_what_was_typed() {
    let server = Server::shared();
    server.fill("patient", "seq bit varying", 71, 20);
    counter(server, "hasty", "patient");
    server.sql("ALTER ROLE hasty SET lock_timeout = '100ms';");
    let mut session = holder(server, "LOCK TABLE patient IN ROW EXCLUSIVE MODE;");
    let run = live(server, "hasty", "patient").words("--all -k 9").spawn();
    until_waiting(server, "hasty");
    thread::sleep(Duration::from_millis(500));
    session.run("COMMIT;");
    let _ = run.wait().exits(0);
    server.sql(
        "CREATE TABLE many (id int, seq bit varying) PARTITION BY RANGE (id);
         CREATE TABLE many_1 PARTITION OF many FOR VALUES FROM (0) TO (10);
         CREATE TABLE many_2 PARTITION OF many FOR VALUES FROM (10) TO (20);
         CREATE TABLE many_3 PARTITION OF many FOR VALUES FROM (20) TO (30);",
    );
    let mut holders: Vec<Session> = (1..=3)
        .map(|part| holder(server, &format!("LOCK TABLE many_{part} IN ROW EXCLUSIVE MODE;")))
        .collect();
    let run = live(server, "postgres", "many").words("--all -k 9 --lock-wait-timeout 900ms").spawn();
    // None of them holds its partition for so long, but together they do.
    for holder in &mut holders {
        thread::sleep(Duration::from_millis(600));
        holder.run("COMMIT;");
    }
    let _ = run.wait().fails(1, &["could not lock table public.many", "hint", "--lock-wait-timeout"]);
    let _ = live(server, "postgres", "many").words("--all -k 9 --lock-wait-timeout 900ms").run().exits(0);
}

/// Whoever waits behind our lock goes on as soon as everything was read, whatever becomes of the report.
#[test]
fn a_slow_reader_of_the_report_keeps_nobody_waiting() {
    let server = Server::shared();
    server.fill("paged", "seq bit varying", 71, 3000);
    let program = kmer_tests::engine::bin("kmer-leader");
    let mut run = Command::new(program)
        .args([
            "-q",
            "-d",
            &server.conninfo("postgres"),
            "-t",
            "paged",
            "-c",
            "seq",
            "--all",
            "-k",
            "15",
            "-j",
            "1",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    server.until("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'kmer-leader' AND query ILIKE '%paged%' AND state <> 'idle';");
    server.sql("SET lock_timeout = '20s'; INSERT INTO paged VALUES (B'01');");
    assert!(run.try_wait().expect("ours").is_none(), "the report fits a pipe");
    drop(run.stdout.take());
    let _ = run.wait();
}

#[test]
fn a_lock_that_was_lost_leaves_no_report() {
    let server = Server::shared();
    server.fill("cut", "seq bit varying", 71, 60_000);
    let slow = "--all -k 31 -j 1 --unit-blocks 8 --inject scan.block:worker=0:nth=all:delay=5";
    let mut run = live(server, "postgres", "cut").words(slow).spawn();
    assert!(within(Duration::from_secs(30), || !run.workers().is_empty()), "no worker was started");
    run.signal(Signal::SIGSTOP);
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'cut'::regclass AND mode = 'ShareLock';");
    run.signal(Signal::SIGCONT);
    let ended = run.wait().fails(1, &["connection was lost while the table was read", "nothing was written"]);
    assert!(ended.stdout.is_empty(), "{ended}a report");
}

/// Wherever a run waits in the server, a signal ends it there as well, and gives back what it holds.
#[test]
fn signals_are_heard_behind_every_lock() {
    let server = Server::shared();
    server.fill("wanted", "seq bit varying", 71, 50);
    let save = "--save --replace -k 9 -R 0";
    let _ = live(server, "postgres", "wanted").words(save).run().exits(0);
    let undo = || {
        let words = ["undo", "-t", "wanted", "-c", "seq", "-d"];
        leader().args(words).arg(server.conninfo("postgres"))
    };
    let meta = "kmersearch_highfreq_kmer_meta";
    for (held, what) in [
        ("LOCK TABLE kmersearch_highfreq_kmer IN SHARE MODE;", Some(save)),
        ("LOCK TABLE kmersearch_highfreq_kmer_meta;", Some(save)),
        ("SELECT pg_advisory_xact_lock(hashtext('kmersearch_highfreq_kmer_meta'));", Some(save)),
        ("LOCK TABLE kmersearch_highfreq_kmer_meta;", None),
    ] {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut session = holder(server, held);
            let engine = what.map_or_else(undo, |words| live(server, "postgres", "wanted").words(words));
            let mut run = engine.spawn();
            until_waiting(server, "postgres");
            run.signal(signal);
            let _ = run.wait().ends_by(signal);
            none_holds(server, "wanted");
            session.run("COMMIT;");
            let analyses: u32 =
                server.value(&format!("SELECT count(*) FROM {meta} WHERE table_oid = 'wanted'::regclass;"));
            assert_eq!(analyses, 1, "behind {held}");
        }
    }
}

/// A commit that waits for a standby is one: a signal ends the waiting, and the result is saved.
#[test]
fn a_commit_without_a_standby_is_heard_to_end() {
    let server = Server::start();
    server.fill("synced", "seq bit varying", 71, 50);
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf();");
    let mut run = live(&server, "postgres", "synced").words("--save -k 9 -R 0").spawn();
    server.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'kmer-leader' AND wait_event = 'SyncRep';");
    run.signal(Signal::SIGINT);
    let _ = run.wait().exits(0);
    none_holds(&server, "synced");
    assert_eq!(server.value::<u32>("SELECT count(*) FROM kmersearch_highfreq_kmer_meta;"), 1);
}

/// Something that takes connections and says nothing.
#[test]
fn a_server_that_says_nothing_is_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let _mute = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).expect("a socket");
    let engine = |more: &str| {
        let conninfo = format!("host={} port=5432 user=x dbname=x{more}", dir.path().display());
        leader().arg("-d").arg(conninfo).args(["-t", "x"])
    };
    let expected = ["could not connect to the server at", "expected an answer within 1 s, found none"];
    let _ = engine(" connect_timeout=1").run().fails(1, &expected);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut run = engine("").spawn();
        thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        run.signal(signal);
        let ended = run.wait().ends_by(signal);
        assert!(start.elapsed() < Duration::from_secs(20), "{ended}");
    }
}
