//! The first look at stripes' rows: enough where no stripe has many, and whatever the sample said, the result is that of a run without it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use kmer_tests::data::Rng;
use kmer_tests::engine::leader;

/// Bytes between two places that the sample looks at, of which it sees less than a third.
const REGION: usize = 64 << 10;
const SEEN: usize = 18 << 10;

/// Records of random bases; where the sample does not look, or everywhere, they have a motif in common.
fn records(motif_from: usize) -> String {
    let (mut rng, mut text) = (Rng::new(61), String::new());
    let motif = rng.letters("ACGT", 30);
    for region in 0..64 {
        while text.len() < (region + 1) * REGION {
            let letters = rng.letters("ACGT", 100);
            let motif = if text.len() % REGION >= motif_from { motif.as_str() } else { "" };
            let _ = write!(text, ">r\n{letters}{motif}{}\n", rng.letters("ACGT", 20));
        }
    }
    text
}

/// The result, and how many segments were made for it.
fn run(file: &Path, options: &str) -> (Vec<u8>, usize) {
    let engine = leader().words("-q -k 21 -j 2 --inject trace=trace").words(options).arg(file).keeps("trace");
    let ended = engine.run().exits(0);
    let trace = fs::read_to_string(ended.dir.path().join("trace")).expect("a trace");
    (ended.stdout.clone(), trace.lines().filter(|line| line.ends_with(" create.published")).count())
}

#[test]
fn one_look_or_two_runs_the_result_is_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, motif_from, segments, reported) in [
        ("nothing in common", usize::MAX, 1, false),
        ("a motif that is not seen", SEEN, 2, true),
        ("a motif everywhere", 0, 1, true),
    ] {
        let file = dir.path().join("records.fa");
        fs::write(&file, records(motif_from)).expect("written");
        for options in ["", "--canonical", "-R 0.6"] {
            let (found, made) = run(&file, options);
            assert_eq!(made, segments, "{name} {options}");
            // As many stripes as it would have, but given: then there is no first look.
            let (plain, made) = run(&file, &format!("{options} --stripe-bits 8"));
            assert_eq!(made, 1, "{name} {options}");
            assert!(found == plain, "{name} {options}: other bytes");
            let kmers = String::from_utf8_lossy(&found).lines().filter(|line| !line.starts_with('#')).count();
            assert_eq!(kmers > 0, reported, "{name} {options}");
        }
    }
}

/// What asks for every k-mer, or for a segment that stays, gets no first look.
#[test]
fn what_needs_all_stripes_is_done_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("records.fa");
    fs::write(&file, records(SEEN)).expect("written");
    for options in ["--all --count-only", "--histogram h", "--dense d", "-N 5", "--resumable"] {
        let engine = leader().words("-q -k 21 -j 2 --inject trace=trace").words(options).arg(&file);
        let ended = engine.keeps("trace").keeps("h").keeps("d").run().exits(0);
        let trace = fs::read_to_string(ended.dir.path().join("trace")).expect("a trace");
        let made = trace.lines().filter(|line| line.ends_with(" create.published")).count();
        assert_eq!(made, 1, "{options}");
    }
}
