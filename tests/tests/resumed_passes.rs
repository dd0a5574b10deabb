//! Runs of several passes whose leader dies at every point that it comes by, in the first pass, between two, and in later ones: what is left is
//! resumed to the same bytes, by whichever segment is taken, and then nothing is left.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kmer_tests::engine::{bin, leader};
use kmer_tests::fault::{End, Small, in_parallel, processes_with, run, segments_of, within};

/// Four passes of two stripes; the default threshold leaves k-mers in all of them, with the tally and the top of a page beside them.
const PASSES: &str = "--unit-blocks 1 --chunk-bytes 4096 --stripe-bits 3 --batch-bytes 8000 --pass-bits 2";
const OPTIONS: &str = "-q --all -k 21 -o out --histogram h.txt";

fn relation() -> &'static Small {
    static RELATION: OnceLock<Small> = OnceLock::new();
    RELATION.get_or_init(|| Small::new(43, 300))
}

/// The result and the histogram of a run of one pass.
fn reference() -> &'static (Vec<u8>, Vec<u8>) {
    static REFERENCE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let words = format!("{OPTIONS} -j 1");
        assert_eq!(run(dir.path(), &args(&words), |_| ()).code(), Some(0));
        result(dir.path()).expect("a result")
    })
}

fn args(words: &str) -> Vec<String> {
    let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    args.push(relation().path().to_str().expect("a plain path").to_owned());
    args
}

fn result(dir: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
    Some((fs::read(dir.join("out")).ok()?, fs::read(dir.join("h.txt")).ok()?))
}

fn killed_at(dir: &Path, rule: &str) -> End {
    let words = format!("{OPTIONS} {PASSES} -j 2 --resumable --inject {rule}:kill");
    run(dir, &args(&words), |_| ())
}

fn resume(dir: &Path, segment: &str, more: &str) -> End {
    let words = format!("resume {segment} -q {more}");
    run(dir, &words.split_whitespace().collect::<Vec<_>>(), |_| ())
}

/// How often the leader comes by each point.
fn visits() -> BTreeMap<String, usize> {
    let dir = tempfile::tempdir().expect("a directory");
    let words = format!("{OPTIONS} {PASSES} -j 2 --resumable --inject trace=trace");
    let end = run(dir.path(), &args(&words), |_| ());
    assert_eq!(end.code(), Some(0), "{}", end.told);
    assert!(result(dir.path()).as_ref() == Some(reference()), "{}other bytes", end.told);
    let trace = fs::read_to_string(dir.path().join("trace")).expect("a trace");
    let mut visits = BTreeMap::new();
    for point in trace.lines().filter_map(|line| line.strip_prefix("leader ")) {
        *visits.entry(point.to_owned()).or_default() += 1;
    }
    visits
}

/// Resumes one of the segments after the other until one of them ends with the result, and wants nothing to be left then.
fn resume_any(dir: &Path, end: &End, segments: &[String]) {
    let mut told = end.told.clone();
    for segment in segments {
        let alone = within(Duration::from_secs(2), || processes_with(segment).is_empty());
        assert!(alone, "{told}workers live on");
        let again = resume(dir, segment, "");
        told.push_str(&again.told);
        if again.code() != Some(0) {
            continue;
        }
        assert!(result(dir).as_ref() == Some(reference()), "{told}other bytes");
        let mut left = segments_of(end.pid);
        left.extend(segments_of(again.pid));
        assert_eq!(left, Vec::<String>::new(), "{told}left behind");
        return;
    }
    panic!("{told}none of {segments:?} was resumed");
}

#[test]
fn a_leader_that_dies_in_or_between_passes_is_resumed() {
    let mut cases = Vec::new();
    for (point, visits) in visits() {
        assert!(!point.starts_with("pass.") || visits == 3, "{visits} visits of {point}");
        for nth in [1, 2, 3, visits] {
            // Without a segment there is nothing to go on from.
            if nth <= visits
                && !(point.starts_with("create.") && nth == 1)
                && !cases.contains(&(point.clone(), nth))
            {
                cases.push((point.clone(), nth));
            }
        }
    }
    let (died, two) = (AtomicUsize::new(0), AtomicUsize::new(0));
    in_parallel(6, &cases, |(point, nth)| {
        let dir = tempfile::tempdir().expect("a directory");
        let end = killed_at(dir.path(), &format!("{point}:leader:nth={nth}"));
        if end.signal() != Some(9) {
            // How often it waits is up to the machine.
            assert!(result(dir.path()).as_ref() == Some(reference()), "{}other bytes", end.told);
            return;
        }
        died.fetch_add(1, Ordering::Relaxed);
        let mut segments = segments_of(end.pid);
        two.fetch_add(usize::from(segments.len() > 1), Ordering::Relaxed);
        segments.sort();
        resume_any(dir.path(), &end, &segments);
    });
    let (died, two) = (died.into_inner(), two.into_inner());
    println!("{} deaths of the leader, {two} of them with two segments", died);
    assert!(died * 2 > cases.len() && two > 0, "{died} of {} died, {two} with two segments", cases.len());
}

/// A pass that a leader made who resumed an earlier one is resumed like any other.
#[test]
fn a_leader_that_resumes_and_dies_in_a_later_pass_is_resumed() {
    for point in ["pass.begin", "pass.made", "pass.left", "collect.begin", "finished"] {
        let dir = tempfile::tempdir().expect("a directory");
        let end = killed_at(dir.path(), "collect.begin:leader:nth=2");
        let segment = segments_of(end.pid).pop().expect("a segment");
        let again = resume(dir.path(), &segment, &format!("--inject {point}:leader:nth=2:kill"));
        assert_eq!(again.signal(), Some(9), "{}", again.told);
        resume_any(dir.path(), &again, &segments_of(again.pid));
    }
}

/// Of the two segments that a death between two passes leaves, either leads to the result.
#[test]
fn either_of_two_segments_is_enough() {
    for first in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let end = killed_at(dir.path(), "pass.made:leader:nth=2");
        let mut segments = segments_of(end.pid);
        assert_eq!(segments.len(), 2, "{}", end.told);
        // The finished one says so.
        segments.sort_by_key(|name| {
            !leader().arg("inspect").arg(name).run().exits(0).text().contains("phase Finished")
        });
        let taken = segments[usize::from(!first)].clone();
        resume_any(dir.path(), &end, &[taken]);
    }
}

fn spawn(dir: &Path, words: &str) -> Child {
    let mut command = Command::new(bin("kmer-leader"));
    command.args(words.split_whitespace()).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("kmer-leader starts")
}

/// Two that take one of them each do not remove what the other works with.
#[test]
fn two_that_resume_one_each_see_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let end = killed_at(dir.path(), "pass.made:leader:nth=1");
    let segments = segments_of(end.pid);
    assert_eq!(segments.len(), 2, "{}", end.told);
    let mut slow =
        spawn(dir.path(), &format!("resume {} -q --inject resume.taken:leader:delay=6000", segments[0]));
    std::thread::sleep(Duration::from_millis(700));
    let other = resume(dir.path(), &segments[1], "");
    assert_eq!(other.code(), Some(1), "{}", other.told);
    assert!(other.stderr.contains("expected to be the only one of its run, found"), "{}", other.told);
    assert!(slow.wait().expect("our child").success(), "{}the slow one", other.told);
    assert!(result(dir.path()).as_ref() == Some(reference()), "{}other bytes", other.told);
    let left: Vec<String> =
        segments.iter().filter(|name| Path::new("/dev/shm").join(name).exists()).cloned().collect();
    assert_eq!(left, Vec::<String>::new(), "left behind");
}

/// Workers that die in a later pass, and a leader that is killed while it recovers from one.
#[test]
fn deaths_in_a_later_pass_change_nothing() {
    let cases = [
        ("--inject scan.stored:worker=0:nth=1:kill --inject drain.stored:worker=1:kill", None),
        ("--inject scan.stored:worker=0:kill", Some("recover.begin:leader:nth=3")),
        ("--inject drain.built:worker=0:kill", Some("recover.chunk:leader:nth=2")),
    ];
    in_parallel(3, &cases, |(options, death)| {
        let dir = tempfile::tempdir().expect("a directory");
        let death = death.map(|rule| format!("--inject {rule}:kill")).unwrap_or_default();
        let words = format!("{OPTIONS} {PASSES} -j 2 --resumable --worker-timeout 2 {options} {death}");
        let end = run(dir.path(), &args(&words), |_| ());
        if death.is_empty() {
            assert_eq!(end.code(), Some(0), "{}", end.told);
            assert!(result(dir.path()).as_ref() == Some(reference()), "{}other bytes", end.told);
        } else if end.signal() == Some(9) {
            resume_any(dir.path(), &end, &segments_of(end.pid));
        }
    });
}
