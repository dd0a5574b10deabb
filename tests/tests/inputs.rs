//! Inputs that are not what they should be, and places where the output cannot go: each with its exit code and its message.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use kmer_tests::case::Case;
use kmer_tests::data::{self, Rng};
use kmer_tests::engine::{Engine, bin, leader};
use kmer_tests::oracle::Dna;
use kmer_tests::server::Server;

/// A good relation of some pages to be spoiled.
fn good() -> &'static Case {
    static CASE: OnceLock<Case> = OnceLock::new();
    CASE.get_or_init(|| {
        let server = Server::shared();
        let rows: Vec<Vec<Option<String>>> = data::all_dna2_bits(&data::rows(60, 2000))
            .into_iter()
            .enumerate()
            .map(|(id, bits)| vec![Some(id.to_string()), Some("note".repeat(id % 30)), bits])
            .collect();
        server.sql(
            &("CREATE TABLE good (id int4, note text, seq dna2);
               CREATE INDEX good_id ON good (id);\n"
                .to_owned()
                + &data::copy("good", "id, note, seq", &rows)),
        );
        Case::new(&server.table("good"), "seq", Dna::Dna2)
    })
}

/// A run on a file with these bytes; with and without workers the message must be the same.
fn fails_on_bytes(bytes: &[u8], code: i32, words: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("spoiled");
    fs::write(&file, bytes).expect("the file");
    let words: Vec<&str> = words.iter().copied().chain(["spoiled"]).collect();
    for workers in ["-j 0", "-j 2"] {
        let ended = good().engine_on(&file).words(workers).run().fails(code, &words);
        assert!(ended.stdout.is_empty(), "{ended}an error with a result");
    }
}

fn fails_with(options: &str, code: i32, words: &[&str]) {
    let _ = good().engine().words(options).run().fails(code, words);
}

#[test]
fn the_good_relation_is_good() {
    let _ = good().check(16, 0, 0);
    let _ = good().check(16, 0, 2);
}

#[test]
fn a_file_that_is_not_there() {
    let missing = PathBuf::from("/nonexistent/relation");
    let _ = good()
        .engine_on(&missing)
        .run()
        .fails(1, &["\"/nonexistent/relation\"", "No such file or directory"]);
}

#[test]
fn a_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let _ = good().engine_on(dir.path()).run().fails(1, &["directory"]);
}

#[test]
fn an_empty_file_is_a_relation_of_no_rows() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("empty");
    fs::write(&file, "").expect("the file");
    for workers in ["-j 0", "-j 2"] {
        let ended = good().engine_on(&file).words(workers).run().exits(0);
        let report = ended.report(16, 0);
        assert_eq!((report.fact("total_rows"), report.counts.len()), ("0", 0), "{ended}");
    }
}

#[test]
fn a_part_of_a_page() {
    let bytes = fs::read(&good().snapshot.heap).expect("the heap");
    fails_on_bytes(&bytes[..100], 1, &["8192", "100"]);
    fails_on_bytes(&bytes[..3 * 8192 + 4096], 1, &["8192", "28672"]);
}

#[test]
fn random_bytes() {
    let mut rng = Rng::new(61);
    let bytes: Vec<u8> = (0..16 * 1024).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    fails_on_bytes(&bytes, 1, &["expected a heap relation, found no page header"]);
}

#[test]
fn a_text_file() {
    fails_on_bytes(&b"r1: ACGTACGTACGTAC\n".repeat(8192), 1, &["expected a heap relation, found text"]);
}

#[test]
fn a_wal_file() {
    let wal = Server::shared().data_directory().join("pg_wal");
    let segment = fs::read_dir(wal)
        .expect("pg_wal")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.len() == 24))
        .expect("a WAL segment");
    let bytes = fs::read(segment).expect("the segment");
    fails_on_bytes(&bytes[..64 * 8192], 1, &["expected a heap relation, found a WAL segment"]);
}

#[test]
fn an_index() {
    let file = Server::shared().table("good_id");
    let _ = good();
    let bytes = fs::read(file.file()).expect("the index");
    fails_on_bytes(&bytes, 1, &["expected a heap relation, found an index"]);
}

#[test]
fn a_page_cut_out_in_the_middle() {
    // Half of block 2 is lost and all behind it moved up.
    let mut bytes = fs::read(&good().snapshot.heap).expect("the heap");
    bytes.drain(2 * 8192 + 4096..3 * 8192 + 4096);
    fails_on_bytes(&bytes, 1, &["block 2"]);
}

#[test]
fn k_out_of_range() {
    for k in ["3", "33", "0", "-1", "x", "99999999999999999999"] {
        fails_with(&format!("-k {k}"), 2, &["4", "32"]);
    }
}

#[test]
fn keys_wider_than_64_bits() {
    fails_with("-k 32 --occur-bitlen 1", 2, &["64", "65"]);
    fails_with("-k 25 --occur-bitlen 15", 2, &["64", "65"]);
    fails_with("-k 4 --occur-bitlen 17", 2, &["16"]);
}

#[test]
fn other_options_out_of_range() {
    fails_with("--workers 100000", 2, &["workers", "100000"]);
    fails_with("--max-appearance-rate 1.5", 2, &["rate"]);
    fails_with("--max-appearance-rate -0.1", 2, &["rate"]);
    fails_with("--max-appearance-rate nan", 2, &["rate"]);
    fails_with("--max-appearance-nrow -1", 2, &["nrow"]);
    fails_with("--no-such-option", 2, &["--no-such-option"]);
    let _ = leader().run().fails(2, &["<FILE>"]);
}

fn with_schema(schema: &str, column: &str) -> Engine {
    leader()
        .args(["--schema", schema, "--column", column, "--no-checksums", "-j0"])
        .arg(&good().snapshot.heap)
}

#[test]
fn columns_that_do_not_fit() {
    let schema = "id int4, note text, seq dna2";
    let _ = with_schema(schema, "dna").run().fails(1, &["\"dna\"", "\"id\", \"note\", \"seq\""]);
    let _ = with_schema(schema, "id")
        .run()
        .fails(1, &["column \"id\": expected type dna2, dna4 or bit varying, found int4"]);
    let _ =
        with_schema("id int4, note sometype, seq dna2", "seq").run().fails(1, &["\"sometype\"", "\"note\""]);
    let _ = with_schema("", "seq").run().fails(1, &["column"]);
    // Fewer columns than the tuples have.
    let _ = with_schema("id int4, seq dna2", "seq").run().fails(1, &["block 0, item 1", "column"]);
    let _ = with_schema("seq dna2", "seq").run().fails(1, &["block 0, item 1", "column"]);
    // As many columns, but other ones.
    let _ = with_schema("id int8, note text, seq dna2", "seq").run().fails(1, &["block 0"]);
    let _ = with_schema("note text, id int4, seq dna2", "seq").run().fails(1, &["block 0"]);
    let _ = with_schema("id int4, seq dna2, note text", "seq").run().fails(1, &["block 0", "\"seq\""]);
}

#[test]
fn a_relation_that_tells_no_columns() {
    // Three columns in the tuples and no list: this cannot be guessed.
    let ended = leader().words("--no-checksums -j 0").arg(&good().snapshot.heap).run();
    let _ = ended.fails(1, &["block 0, item 1", "--schema"]);
}

#[test]
fn a_toast_file_that_is_missing_or_another() {
    let server = Server::shared();
    let mut rng = Rng::new(62);
    let bits: Vec<Option<String>> =
        (0..20).map(|_| Some(data::dna2_bits(&rng.letters("ACGT", 12_000)))).collect();
    server
        .sql(&("CREATE TABLE toasted (seq dna2);\n".to_owned() + &data::copy_bits("toasted", "seq", &bits)));
    let mut case = Case::new(&server.table("toasted"), "seq", Dna::Dna2);
    let _ = case.check(16, 0, 2);
    let toast = case.snapshot.toast.take().expect("a TOAST file");
    let _ = case
        .engine()
        .run()
        .fails(1, &["toast relation", "not given", "--toast", "block 0, item 1, attribute \"seq\""]);
    case.snapshot.toast = Some(good().snapshot.heap.clone());
    let _ = case.engine().run().fails(1, &["error:"]);
    let cut = case.snapshot.dir().join("cut");
    let bytes = fs::read(&toast).expect("the TOAST file");
    fs::write(&cut, &bytes[..bytes.len() - 2 * 8192]).expect("a shorter TOAST file");
    case.snapshot.toast = Some(cut);
    let _ = case.engine().run().fails(1, &["chunk"]);
}

/// The two programs in a directory of their own, where one may be spoiled.
fn installed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["kmer-leader", "kmer-worker"] {
        fs::copy(bin(name), dir.path().join(name)).expect("a copy of a program");
    }
    dir
}

fn run_installed(dir: &tempfile::TempDir, words: &[&str]) {
    let case = good();
    let run = |workers: &str| {
        Engine::new(dir.path().join("kmer-leader"))
            .args(["--schema", &case.snapshot.schema, "--column", "seq", "--no-checksums", "-j", workers])
            .arg(&case.snapshot.heap)
            .run()
    };
    let _ = run("3").fails(1, words);
    // Without workers the worker's program is of no use.
    let _ = run("0").exits(0);
}

#[test]
fn a_worker_program_that_is_missing() {
    let dir = installed();
    let worker = dir.path().join("kmer-worker");
    fs::remove_file(&worker).expect("the worker's program");
    run_installed(&dir, &["kmer-worker", "No such file or directory"]);
}

#[test]
fn a_worker_program_that_is_another() {
    let dir = installed();
    let worker = dir.path().join("kmer-worker");
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o644)).expect("no permission to execute");
    run_installed(&dir, &["kmer-worker", "Permission denied"]);
    fs::write(&worker, "no program at all").expect("some text");
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).expect("permission to execute");
    run_installed(&dir, &["kmer-worker"]);
    for script in ["#!/bin/sh\nexit 0\n", "#!/bin/sh\nexit 7\n", "#!/bin/sh\nkill -9 $$\n"] {
        fs::write(&worker, script).expect("a script");
        let ended = Engine::new(dir.path().join("kmer-leader"))
            .args(["--schema", &good().snapshot.schema, "--column", "seq", "--no-checksums", "-j3"])
            .arg(&good().snapshot.heap)
            .run();
        let code = ended.status.code();
        assert!(matches!(code, Some(1 | 4)), "{ended}{script:?}");
        let _ = ended.fails(code.unwrap_or(1), &["worker"]);
    }
}

#[test]
fn a_worker_program_of_another_version() {
    // Between leader and worker stands a script that makes the segment one of another build.
    let dir = installed();
    let (worker, real) = (dir.path().join("kmer-worker"), dir.path().join("real-worker"));
    fs::rename(&worker, &real).expect("the worker's program");
    let script = format!(
        "#!/bin/sh\nprintf '\\377' | dd of=\"/dev/shm/$2\" bs=1 seek=16 conv=notrunc 2>/dev/null\nexec '{}' \"$@\"\n",
        real.display()
    );
    fs::write(&worker, script).expect("a script");
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).expect("permission to execute");
    run_installed(&dir, &["build: expected", "kmer-leader and kmer-worker must be of one version"]);
}

#[test]
fn shared_memory_that_is_full() {
    let case = good();
    let script = "mount -t tmpfs -o size=1m tmpfs /dev/shm && exec \"$@\"";
    let possible = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /dev/shm"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        println!("skipped: a mount namespace of our own is not permitted here");
        return;
    }
    for workers in ["0", "3"] {
        let ended = Engine::new(PathBuf::from("unshare"))
            .args(["-m", "sh", "-c", script, "sh"])
            .arg(bin("kmer-leader"))
            .args(["--schema", &case.snapshot.schema, "--column", "seq", "--no-checksums"])
            .args(["--all", "-j", workers])
            .arg(&case.snapshot.heap)
            .run();
        // Memory that does not count against /dev/shm is as good as a clear error.
        if ended.status.code() == Some(0) {
            case.check_report(&ended, 16, 0);
        } else {
            let _ = ended.fails(1, &["/dev/shm"]);
        }
    }
}

#[test]
fn output_that_cannot_be_written() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let ended = good().engine().words("--all").stdout(full).run();
    let _ = ended.fails(1, &["No space left on device"]);
    let _ =
        good().engine().words("--all -o /dev/full").run().fails(1, &["/dev/full", "No space left on device"]);
    let _ = good()
        .engine()
        .words("--all -o /nonexistent/out")
        .run()
        .fails(1, &["/nonexistent/out", "No such file or directory"]);
}

#[test]
fn a_reader_that_leaves_early() {
    // As a shell's pipe into head: no error that anybody sees, and no panic.
    let engine = good().engine().words("--all -k 9 -j 2");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let head = Command::new("head").arg("-1").stdin(reader).stdout(Stdio::piped()).spawn().expect("head");
    let ended = engine.stdout(fs::File::from(std::os::fd::OwnedFd::from(writer))).run();
    let first = head.wait_with_output().expect("head's output").stdout;
    assert!(first.starts_with(b"# "), "{ended}{:?}", String::from_utf8_lossy(&first));
    assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("error"), "{ended}");
}
