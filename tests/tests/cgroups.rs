//! Memory limits of control groups: past one the kernel kills, and what it kills are workers. The right result or an error that says why.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kmer_tests::data::Rng;
use kmer_tests::engine::{Ended, Engine, bin, leader};
use kmer_tests::fault::within;

/// Long rows: what workers hold for themselves is much more than the segment.
fn relation() -> &'static (tempfile::TempDir, Vec<u8>) {
    static RELATION: OnceLock<(tempfile::TempDir, Vec<u8>)> = OnceLock::new();
    RELATION.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let mut rng = Rng::new(80);
        let rows: Vec<String> =
            (0..8).map(|i| format!(">r{i}\n{}\n", rng.letters("ACGT", 300_000))).collect();
        fs::write(dir.path().join("rows.fa"), rows.concat()).expect("written");
        let import = Engine::new(bin("kmer-leader")).words("import").arg(dir.path().join("rows.fa"));
        let _ = import.arg("-o").arg(dir.path().join("rows")).run().exits(0);
        let peace = leader().words("-q --all -k 21 -j 1").arg(dir.path().join("rows")).run().exits(0).stdout;
        (dir, peace)
    })
}

/// A control group with a limit of memory, which goes when the test ends.
struct Group(PathBuf);

impl Group {
    /// `None` when none may be made here.
    fn new(bytes: u64) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kmer-test-{}-{number}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        // The first version's hierarchy of memory; the second version's, where groups below the root may limit memory.
        for (base, limit) in [("memory", "memory.limit_in_bytes"), ("", "memory.max")] {
            let path = root.join(base).join(&name);
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self(path);
            if fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                // Without swap space, where that is limited apart.
                let _ = fs::write(group.0.join("memory.memsw.limit_in_bytes"), bytes.to_string());
                let _ = fs::write(group.0.join("memory.swap.max"), "0");
                return Some(group);
            }
        }
        println!("skipped: control groups that limit memory cannot be made here");
        None
    }

    /// A run in it.
    fn run(&self, words: &str) -> Ended {
        let join = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.0.display());
        Engine::new(PathBuf::from("sh"))
            .args(["-c", &join, "sh"])
            .arg(bin("kmer-leader"))
            .words(words)
            .arg(relation().0.path().join("rows"))
            .words("-o out")
            .keeps("out")
            .run()
    }
}

/// What the run wrote, if it did: all of it or nothing.
fn result(ended: &Ended) -> Option<Vec<u8>> {
    fs::read(ended.dir.path().join("out")).ok()
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is empty a moment after its last process has ended.
        within(Duration::from_secs(5), || fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

#[test]
fn a_limit_that_is_enough_changes_nothing() {
    let Some(group) = Group::new(512 << 20) else { return };
    let ended = group.run("-q --all -k 21 -j 3").exits(0);
    assert!(result(&ended).as_ref() == Some(&relation().1), "{ended}other bytes");
}

/// A worker needs more than there is: the kernel kills one after the other, and the error names the blocks and the cause.
#[test]
fn a_limit_that_is_too_small_is_named() {
    let Some(group) = Group::new(10 << 20) else { return };
    for workers in [1, 4] {
        let ended = group.run(&format!("-q --all -k 21 -j {workers}"));
        let ended = ended.fails(4, &["memory ran out in the control group, and the kernel killed "]);
        assert!(result(&ended).is_none(), "{ended}an error with a result");
        assert!(ended.stderr.contains(" died on") || ended.stderr.contains("to be replaced"), "{ended}");
    }
}

/// From far too little to enough: right, or an error. Where it is only just too little the kernel may kill the leader as well: no result then.
#[test]
fn limits_in_between_give_the_right_result_or_an_error() {
    let (mut right, mut errors, mut killed) = (0, 0, 0);
    for megabytes in [32, 64, 96, 128, 256] {
        let Some(group) = Group::new(megabytes << 20) else { return };
        for more in ["-j 3 --on-worker-death abort", "-j 6 --max-respawns 2"] {
            let ended = group.run(&format!("-q --all -k 21 {more}"));
            match ended.status.code() {
                Some(0) => {
                    assert!(
                        result(&ended).as_ref() == Some(&relation().1),
                        "{ended}{megabytes} MB: other bytes"
                    );
                    right += 1;
                }
                Some(1 | 4) => {
                    assert!(result(&ended).is_none(), "{ended}{megabytes} MB: an error with a result");
                    assert!(ended.stderr.contains("kmer-leader: error: "), "{ended}{megabytes} MB");
                    errors += 1;
                }
                None if ended.status.signal() == Some(9) => {
                    assert!(result(&ended).is_none(), "{ended}{megabytes} MB: a part of a result");
                    killed += 1;
                }
                _ => panic!("{ended}{megabytes} MB: expected a result or an error"),
            }
        }
    }
    println!("{right} right, {errors} errors, {killed} leaders killed");
    assert!(right > 0 && errors > 0, "{right} right, {errors} errors: the test tests little");
}
