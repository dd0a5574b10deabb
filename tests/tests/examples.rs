//! What `examples/README.md` promises about the files there. Its figures were counted with a dictionary in another language.

use std::path::PathBuf;

use kmer_tests::engine::leader;

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// The number of k-mers a run reports, the same for any number of workers.
fn reported(options: &str, name: &str) -> usize {
    let run = |workers: &str| leader().words(options).words(workers).arg(example(name)).run().exits(0);
    let (alone, shared) = (run("-j 0"), run("-j 2"));
    assert!(alone.stdout == shared.stdout, "{alone}{shared}");
    alone.report(16, 0).counts.len()
}

#[test]
fn amplicons() {
    assert_eq!(reported("", "amplicons"), 419);
    assert_eq!(reported("--all", "amplicons"), 593);
}

#[test]
fn klebsiella() {
    assert_eq!(reported("", "klebs"), 0);
    assert_eq!(reported("--max-appearance-rate 0.001", "klebs"), 1664);
    let ended = leader().words("--all -j 2").arg(example("klebs")).run().exits(0);
    let report = ended.report(16, 0);
    assert_eq!((report.fact("total_rows"), report.counts.len()), ("4319", 3_468_812), "{ended}");
}

#[test]
fn tiny() {
    let import = leader().arg("import").arg(example("tiny.fa")).words("-o tiny");
    let imported = import.keeps("tiny").keeps("tiny.schema").run().exits(0);
    let tiny = imported.dir.path().join("tiny");
    let common = leader().arg(&tiny).run().exits(0);
    let report = common.report(16, 0);
    assert_eq!(report.counts.values().copied().collect::<Vec<_>>(), [3; 6], "{common}");
    assert_eq!(report.fact("total_rows"), "5", "{common}");
    let all = leader().arg("--all").arg(&tiny).run().exits(0);
    assert_eq!(all.report(16, 0).counts.len(), 45, "{all}");
}
