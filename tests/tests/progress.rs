//! How far a run is: on a terminal, in a file, and for somebody who looks from outside.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use kmer_tests::engine::{Ended, Engine, bin, leader};
use kmer_tests::fault::{Small, run, segments_of, within};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

/// Every block takes so many milliseconds, and every stripe.
fn slowly(block: u32, stripe: u32) -> String {
    format!(
        "--all -k 21 -j 2 --unit-blocks 1 --inject scan.block:nth=all:delay={block} --inject drain.claimed:nth=all:delay={stripe}"
    )
}

#[test]
fn plain_lines_come_late() {
    let relation = Small::new(45, 1500);
    let start = |more: &str| leader().words(&slowly(900, 60)).words(more).arg(relation.path()).spawn();
    let quiet = start("-q");
    let ended = start("").wait().exits(0);
    let lines: Vec<&str> = ended.stderr.lines().filter(|l| l.starts_with("kmer-leader: ")).collect();
    let right = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        line.starts_with("kmer-leader: collecting: ")
            && words[3..5] == ["of", words[4]]
            && line.contains(" blocks (")
            && line.contains("iB/s, ")
            && line.contains(" s left, ")
            && line.contains("k-mers, segment ")
    };
    assert!(!lines.is_empty() && lines.len() < 10 && right(&lines[0]), "{ended}");
    assert!(!ended.stderr.contains(['\r', '\x1b']), "{ended}");
    assert_eq!(quiet.wait().exits(0).stderr, "", "a quiet run");
    let short = leader().words("--all -k 21 -j 2").arg(relation.path()).run().exits(0);
    assert!(!short.stderr.contains("collecting"), "{short}");
}

/// A run with a terminal for standard error.
fn on_terminal(relation: &Small, words: &str) -> Ended {
    let leader = bin("kmer-leader");
    let script =
        format!("stty rows 24 cols 70; {} {words} -o out {}", leader.display(), relation.path().display());
    Engine::new(PathBuf::from("script"))
        .args(["-qec", &script, "typescript"])
        .keeps("typescript")
        .keeps("out")
        .env("TERM", "xterm")
        .run()
        .exits(0)
}

#[test]
fn a_terminal_gets_one_line_that_goes() {
    let relation = Small::new(45, 1500);
    let ended = on_terminal(&relation, &slowly(100, 30));
    let text = ended.text();
    let shown: Vec<&str> = text.split('\r').filter_map(|part| part.strip_suffix("\x1b[K")).collect();
    for phase in ["collecting: ", "draining: "] {
        assert!(shown.iter().any(|line| line.starts_with(phase)), "{ended}{phase}");
    }
    assert!(shown.iter().all(|line| line.len() < 70 && !line.contains('\n')), "{ended}");
    assert!(text.contains("\r\x1b[Ktotal_rows: 1500"), "{ended}");
    // Blocks that are done only grow.
    let done =
        shown.iter().filter_map(|line| line.strip_prefix("collecting: ")?.split(' ').next()?.parse().ok());
    let done: Vec<u32> = done.collect();
    assert!(done.is_sorted() && done.first() < done.last(), "{ended}");
    assert!(!on_terminal(&relation, &(slowly(30, 0) + " -q")).text().contains("collecting"));
}

/// The status of a segment as JSON.
fn status(segment: &str) -> Value {
    let ended = leader().args(["status", "--json", segment]).run().exits(0);
    serde_json::from_str(ended.text()).unwrap_or_else(|e| panic!("{ended}{e}"))
}

#[test]
fn status_shows_what_is_under_way() {
    let relation = Small::new(45, 1500);
    // The only worker stops when it has claimed its third unit, before it reads a block of it.
    let words = "--all -k 21 -j 1 --unit-blocks 2 --worker-timeout 0 --inject scan.claimed:nth=3:stop -o out";
    let running = leader().words(words).arg(relation.path()).keeps("out").spawn();
    let leader_pid = running.pid().as_raw() as u32;
    let mut seen = Value::Null;
    assert!(within(Duration::from_secs(20), || {
        let Some(name) = segments_of(leader_pid).pop() else { return false };
        seen = status(&name);
        seen["blocks_done"] == 4
    }));
    let blocks = std::fs::metadata(relation.path()).expect("there").len() / 8192;
    let worker = running.workers()[0];
    for (field, value) in [
        ("leader", leader_pid.into()),
        ("state", "running".into()),
        ("phase", "collecting".into()),
        ("blocks_total", blocks.into()),
        ("bytes_done", (4 * 8192).into()),
        ("stripes_total", Value::Null),
        ("workers_asked", 1.into()),
        ("workers_launched", 1.into()),
        ("error", Value::Null),
    ] {
        assert_eq!(seen[field], value, "{field} in {seen:#}");
    }
    assert!(seen["rows"].as_u64() > Some(0) && seen["kmers"].as_u64() > seen["rows"].as_u64(), "{seen:#}");
    assert!(seen["memory_bytes"].as_u64() > Some(8192), "{seen:#}");
    let look = &seen["workers"][0];
    let expected: [(&str, Value); 3] =
        [("worker", "0".into()), ("pid", worker.as_raw().into()), ("state", "running".into())];
    for (field, value) in expected.into_iter().chain([("units", 2.into()), ("generation", 1.into())]) {
        assert_eq!(look[field], value, "{field} in {seen:#}");
    }
    // As text, and again and again until the run is over.
    let name = segments_of(leader_pid).pop().expect("it stands still");
    let text = leader().args(["status", &format!("/dev/shm/{name}")]).run().exits(0);
    assert!(text.text().contains("blocks_done      | 4\n"), "{text}");
    assert!(text.text().contains("      0 | "), "{text}");
    let watch = leader().args(["status", "--json", "--watch=0.05", &name]).spawn();
    std::thread::sleep(Duration::from_millis(300));
    let _ = kill(worker, Signal::SIGCONT);
    let _ = running.wait().exits(0);
    let watch = watch.wait().exits(0);
    let looks: Vec<Value> =
        watch.text().lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect();
    assert!(looks.len() > 2, "{watch}");
    assert_eq!(looks[0]["phase"], "collecting", "{watch}");
    assert_eq!(looks[looks.len() - 1]["state"], "ended", "{watch}");
    assert_eq!(looks[looks.len() - 1]["blocks_done"], blocks, "{watch}");
}

#[test]
fn status_finds_the_run_by_itself() {
    let mount = "mount -t tmpfs -o size=64m tmpfs /dev/shm";
    let mut probe = Command::new("unshare");
    probe.args(["-m", "sh", "-c", mount]).stdout(Stdio::null()).stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        println!("skipped: a mount namespace of our own is not permitted here");
        return;
    }
    let relation = Small::new(41, 300);
    let script = r#"K=$1; R=$2
        run() { "$K" -q --all -k 21 -j 2 "$R" --resumable --inject "$1:leader:kill" >/dev/null; sleep 0.3; }
        "$K" status; echo "code $?"
        run drain.settled; "$K" status; echo "code $?"
        run collect.begin; "$K" status; echo "code $?"
        for S in /dev/shm/*; do "$K" status --watch "$S" | grep -c resumable; done
        "$K" segments --gc >/dev/null"#;
    let ended = Engine::new(PathBuf::from("unshare"))
        .args(["-m", "sh", "-c", &format!("{mount} && {script}"), "sh"])
        .arg(bin("kmer-leader"))
        .arg(relation.path())
        .run()
        .exits(0);
    let text = ended.text();
    assert!(
        ended.stderr.contains("kmer-leader: error: status: expected a run of yours, found none"),
        "{ended}"
    );
    let codes: Vec<&str> = text.lines().filter(|line| line.starts_with("code ")).collect();
    assert_eq!(codes, ["code 1", "code 0", "code 0"], "{ended}");
    assert!(text.contains("state            | resumable\nphase            | draining\n"), "{ended}");
    let (done, total) = (field(text, "stripes_done"), field(text, "stripes_total"));
    assert!(done == total && done > 0, "{ended}");
    // Two of them: a line each.
    assert!(text.contains("| resumable | draining   | 100 %\n"), "{ended}");
    assert!(text.contains("| resumable | collecting | 100 %\n"), "{ended}");
    assert!(text.ends_with("\n1\n1\n"), "{ended}watching what nobody leads ends");
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix("| "));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}

#[test]
fn status_of_what_is_none() {
    let _ = leader().args(["status", "kmer.nothing"]).run().fails(1, &["kmer.nothing", "No such file"]);
    let end = run(std::path::Path::new("/"), &["status", "/dev/null"], |_| ());
    assert_eq!(end.code(), Some(1), "{}", end.told);
}
