//! Damaged relation files through the whole engine: an error or a right answer, never a crash, never a silent difference where checksums
//! or the file's own rules can tell.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use kmer_tests::case::Case;
use kmer_tests::data::{self, Rng};
use kmer_tests::engine::Ended;
use kmer_tests::oracle::Dna;
use kmer_tests::server::Server;

const PAGE: usize = 8192;

/// A relation with checksums and a TOAST file, and rows of many kinds.
fn good() -> &'static Case {
    static CASE: OnceLock<Case> = OnceLock::new();
    CASE.get_or_init(|| {
        let server = Server::shared_with_checksums();
        let mut rng = Rng::new(70);
        let long = [9000, 30_000].map(|length| Some(rng.letters("ACGT", length)));
        let packed = [Some(rng.letters("ACGT", 80).repeat(300))];
        let rows: Vec<Vec<Option<String>>> = data::all_dna2_bits(
            &data::rows(71, 400).into_iter().chain(long).chain(packed).collect::<Vec<_>>(),
        )
        .into_iter()
        .enumerate()
        .map(|(id, bits)| vec![Some(id.to_string()), Some("n".repeat(id % 40)), bits])
        .collect();
        server.sql(
            &("CREATE TABLE mutated (id int4, note text, seq dna2);\n".to_owned()
                + &data::copy("mutated", "id, note, seq", &rows)
                + "DELETE FROM mutated WHERE id % 9 = 1;
                   BEGIN; DELETE FROM mutated WHERE id % 9 = 2; ROLLBACK;"),
        );
        let mut case = Case::new(&server.table("mutated"), "seq", Dna::Dna2);
        case.checksums = true;
        case
    })
}

/// Neither a signal nor a panic nor a way to end that no rule knows.
fn ends_cleanly(ended: Ended) -> Ended {
    match ended.status.code() {
        Some(0 | 3) => ended,
        _ => ended.fails(1, &["relation"]),
    }
}

fn flip(bytes: &mut [u8], rng: &mut Rng, from: usize) -> (usize, usize) {
    let (byte, bit) = (from + rng.below(bytes.len() - from), rng.below(8));
    bytes[byte] ^= 1 << bit;
    (byte, bit)
}

fn run(file: &Path, options: &str) -> Ended {
    good().engine_on(file).words("--all").words(options).run()
}

#[test]
fn with_checksums_every_flipped_bit_of_a_page_is_an_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("flipped");
    let original = fs::read(&good().snapshot.heap).expect("the heap");
    let mut rng = Rng::new(72);
    for n in 0..100 {
        let mut bytes = original.clone();
        let (byte, bit) = flip(&mut bytes, &mut rng, 0);
        fs::write(&file, &bytes).expect("the file");
        let options = if n % 4 == 0 { "-j 2" } else { "-j 0" };
        let ended = run(&file, options).fails(1, &["relation"]);
        assert!(ended.stdout.is_empty(), "{ended}byte {byte}, bit {bit}: a result");
        // A flip in the first page's header may make it no heap relation at all.
        let block = format!("block {}", byte / PAGE);
        assert!(byte < 24 || ended.stderr.contains(&block), "{ended}byte {byte}, bit {bit}: no {block}");
    }
}

#[test]
fn without_checksums_flipped_bits_never_end_in_a_crash() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("flipped");
    let original = fs::read(&good().snapshot.heap).expect("the heap");
    let mut rng = Rng::new(73);
    let mut errors = 0;
    for n in 0..150 {
        let mut bytes = original.clone();
        let block = rng.below(bytes.len() / PAGE) * PAGE;
        // Half of them in a page's header and line pointers, where most harm is.
        let part = if n % 2 == 0 { &mut bytes[block..block + 200] } else { &mut bytes[block..block + PAGE] };
        for _ in 0..1 + n % 3 {
            flip(part, &mut rng, 0);
        }
        fs::write(&file, &bytes).expect("the file");
        let skip = if n % 3 == 0 { "--on-error skip" } else { "" };
        let workers = if n % 5 == 0 { "-j 2" } else { "-j 0" };
        let ended = ends_cleanly(run(&file, &format!("--no-checksums {skip} {workers}")));
        errors += usize::from(ended.status.code() != Some(0));
    }
    assert!(errors > 30, "only {errors} of 150 flips were noticed");
}

#[test]
fn a_damaged_toast_file_is_an_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let toast = dir.path().join("toast");
    let original = fs::read(good().snapshot.toast.as_ref().expect("a TOAST file")).expect("its bytes");
    let mut rng = Rng::new(74);
    let run = |options: &str| {
        let schema = &good().snapshot.schema;
        let engine =
            kmer_tests::engine::leader().args(["--schema", schema, "--column", "seq", "--all", "--toast"]);
        engine.arg(&toast).words(options).arg(&good().snapshot.heap).run()
    };
    for n in 0..60 {
        let mut bytes = original.clone();
        let (byte, bit) = flip(&mut bytes, &mut rng, 0);
        fs::write(&toast, &bytes).expect("the file");
        if n % 2 == 0 {
            let ended = run("-j 2").fails(1, &[]);
            assert!(ended.stdout.is_empty(), "{ended}byte {byte}, bit {bit}: a result");
        } else {
            let _ = ends_cleanly(run("--no-checksums -j 0"));
        }
    }
}

#[test]
fn a_truncated_file_is_read_up_to_its_last_whole_page_only_when_that_is_its_end() {
    // Whole pages that are gone cannot be noticed in a bare file; a part of a page must be.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("truncated");
    let original = fs::read(&good().snapshot.heap).expect("the heap");
    let mut rng = Rng::new(75);
    for _ in 0..20 {
        let length = rng.below(original.len());
        fs::write(&file, &original[..length]).expect("the file");
        let ended = run(&file, "-j 2");
        if length.is_multiple_of(PAGE) {
            let _ = ended.exits(0);
        } else {
            let _ = ended.fails(1, &["8192", &length.to_string()]);
        }
    }
}
