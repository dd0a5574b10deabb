//! Every injection point, in every role that comes by it, with a death by SIGKILL, a death by SIGSEGV and a stop.
//!
//! A first pass traces which points the scenarios come by, so that none can be missed. In the second each of them gets a fault at its first and at
//! its third visit. A worker's fault must change nothing; a leader's death leaves a segment that `resume` ends with the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kmer_tests::engine::{bin, leader};
use kmer_tests::fault::{self, End, SMALL, Small, in_parallel, processes_with, run, segments_of, within};
use tempfile::TempDir;

/// The second worker comes late, so that the first has something to do however few rows there are.
const SLOW_SECOND: &str = "--inject worker.running:worker=1:delay=50 --inject drain.number:worker=1:delay=50";
const OLD: &[u8] = b"what was there before\n";

/// A run that comes by some of the points.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    /// Options beside the common ones.
    options: &'static str,
    /// The leader is killed at this point first, and what is traced is `resume`.
    resumes: Option<&'static str>,
    /// It ends with an error that has these words, or, when the fault prevents that, with the right result.
    fails: Option<&'static str>,
}

const fn plain(name: &'static str, options: &'static str) -> Scenario {
    Scenario { name, options, resumes: None, fails: None }
}

const fn failing(name: &'static str, options: &'static str, words: &'static str) -> Scenario {
    Scenario { name, options, resumes: None, fails: Some(words) }
}

const SCENARIOS: &[Scenario] = &[
    plain("two workers", "-j 2"),
    plain("the leader alone", "-j 0"),
    plain("counted directly", "-j 2 -k 6"),
    plain("summed", "-j 2 -k 11 --summed"),
    plain("over several objects", "-j 2 --objects 3"),
    plain("a worker dies in the scan", "-j 2 --inject scan.stored:worker=0:kill"),
    plain("a worker dies in the drain", "-j 2 --inject drain.stored:worker=0:kill"),
    plain("pinned", "-j 2 --pin t-inject --replace"),
    plain("degraded to the leader", "-j 1 --on-worker-death degrade --inject scan.stored:worker=0:kill"),
    plain("a worker is stopped", "-j 2 --inject scan.claimed:worker=0:stop"),
    plain(
        "a worker that cannot be killed goes on in the scan",
        "-j 2 --inject leader.hung:error --inject scan.stored:worker=0:delay=900 --inject finished:leader:delay=900",
    ),
    plain(
        "a worker that cannot be killed goes on in the drain",
        "-j 2 --inject leader.hung:error --inject drain.stored:worker=0:delay=900 --inject finished:leader:delay=900",
    ),
    plain("several passes", "-j 2 --pass-bits 1 --resumable"),
    plain("a stream", "-j 2"),
    plain("a stream by the leader alone", "-j 0"),
    plain("a stream whose feeder dies", "-j 2 --inject feed.stored:worker=2:kill"),
    failing("an error", "-j 2 --inject drain.claimed:worker=0:error", "injected error at drain.claimed"),
    failing("no room", "-j 2 --memory 40K", "arena of segment"),
    Scenario { resumes: Some("collect.begin"), ..plain("resumed before the drain", "-j 2") },
    Scenario { resumes: Some("drain.opened"), ..plain("resumed over several objects", "-j 2 --objects 2") },
    Scenario {
        resumes: Some("recover.begin"),
        ..plain("resumed within a recovery", "-j 2 --inject scan.stored:worker=0:kill")
    },
];

fn relation() -> &'static Small {
    static RELATION: OnceLock<Small> = OnceLock::new();
    RELATION.get_or_init(|| Small::new(40, 300))
}

/// The lengths that scenarios count.
const KS: [&str; 3] = ["21", "6", "11"];

/// The result without faults.
fn reference(k: &str) -> &'static [u8] {
    static REFERENCE: OnceLock<[Vec<u8>; KS.len()]> = OnceLock::new();
    let made = REFERENCE.get_or_init(|| {
        KS.map(|k| leader().words("--all -j 1 -k").arg(k).arg(relation().path()).run().exits(0).stdout)
    });
    &made[KS.iter().position(|known| *known == k).expect("known")]
}

/// The rows as a packed sequence file.
fn packed() -> PathBuf {
    static PACKED: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let plain = fs::read(relation().path().with_extension("fa")).expect("the file that was imported");
        let path = relation().path().with_extension("fa.gz");
        let mut packed = flate2::write::GzEncoder::new(
            fs::File::create(&path).expect("created"),
            flate2::Compression::fast(),
        );
        packed.write_all(&plain).and_then(|()| packed.finish()).expect("written");
        path
    };
    PACKED.get_or_init(make).clone()
}

/// The same for k of 21 over the packed file.
fn stream_reference() -> &'static [u8] {
    static REFERENCE: OnceLock<Vec<u8>> = OnceLock::new();
    REFERENCE.get_or_init(|| leader().words("--all -j 1 -k 21").arg(packed()).run().exits(0).stdout)
}

impl Scenario {
    fn is_resumable(&self) -> bool {
        self.options.contains("--resumable")
    }

    fn k(&self) -> &'static str {
        let mut words = self.options.split(' ').skip_while(|word| *word != "-k");
        words.nth(1).unwrap_or("21")
    }

    fn is_stream(&self) -> bool {
        self.name.starts_with("a stream")
    }

    fn expected(&self) -> &'static [u8] {
        if self.is_stream() {
            return stream_reference();
        }
        reference(self.k())
    }

    fn args(&self, more: &str) -> Vec<String> {
        let k = if self.options.contains("-k ") { "" } else { "-k 21" };
        let two = if self.options.contains("-j 2") { SLOW_SECOND } else { "" };
        let more = if self.is_resumable() { more.replace("--resumable", "") } else { more.into() };
        let words = format!(
            "--all {k} {SMALL} {two} --worker-timeout 0.4 --max-respawns 50 -o out {} {more}",
            self.options
        );
        let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let file = if self.is_stream() { packed() } else { relation().path() };
        args.push(file.to_str().expect("a plain path").to_owned());
        args
    }

    /// Runs it with `rule`, up to and with the first end of what the rule is for. Gives that end, and whether there is a run to resume.
    fn run(&self, dir: &Path, rule: &str, more: &str) -> End {
        fs::write(dir.join("out"), OLD).expect("written");
        let rule = if rule.is_empty() { String::new() } else { format!("--inject {rule}") };
        let wake = |pid| {
            fault::wake(pid);
        };
        let Some(point) = self.resumes else { return run(dir, &self.args(&format!("{rule} {more}")), wake) };
        let killed = run(dir, &self.args(&format!("--resumable --inject {point}:leader:kill")), wake);
        assert_eq!(killed.signal(), Some(9), "{}", killed.told);
        let segment = segments_of(killed.pid).pop().unwrap_or_else(|| panic!("{}no segment", killed.told));
        let args = format!("resume {segment} {rule}");
        let end = run(dir, &args.split_whitespace().collect::<Vec<_>>(), wake);
        End { resumed: Some(segment), ..end }
    }

    fn check(&self, dir: &Path, end: &End, case: &str) {
        let told = format!("{} with {case}: {}", self.name, end.told);
        let out = fs::read(dir.join("out")).expect("the result");
        match (end.code(), self.fails) {
            (Some(0), _) => assert!(out == self.expected(), "{told}other bytes"),
            (Some(1), Some(words)) => {
                assert!(end.stderr.contains(words), "{told}expected {words:?}");
                assert_eq!(out, OLD, "{told}an error with a result");
            }
            _ => panic!("{told}expected exit code 0"),
        }
        no_temporary_file(dir, &told);
        gone(end, &told);
    }
}

fn no_temporary_file(dir: &Path, told: &str) {
    let names: Vec<_> = fs::read_dir(dir).expect("a directory").flatten().map(|e| e.file_name()).collect();
    assert!(names.iter().all(|name| name == "out" || name == "trace"), "{told}left behind: {names:?}");
}

/// Nothing of the run is left: no segment, no worker.
fn gone(end: &End, told: &str) {
    let _ = kmer_pin::remove("t-inject");
    assert_eq!(end.segments(), Vec::<String>::new(), "{told}a segment is there");
    let pid = end.pid.to_string();
    let ended = || processes_with("--leader").iter().all(|w| !processes_with(&pid).contains(w));
    assert!(within(Duration::from_secs(3), ended), "{told}a worker of process {pid} lives");
}

/// Which points each scenario comes by, as (role, point) -> the first scenario that does.
fn visited() -> &'static BTreeMap<(String, String), usize> {
    static VISITED: OnceLock<BTreeMap<(String, String), usize>> = OnceLock::new();
    VISITED.get_or_init(|| {
        let mut visited = BTreeMap::new();
        for (number, scenario) in SCENARIOS.iter().enumerate() {
            let dir = tempfile::tempdir().expect("a directory");
            let end = scenario.run(dir.path(), "trace=trace", "");
            scenario.check(dir.path(), &end, "a trace");
            let trace = fs::read_to_string(dir.path().join("trace")).expect("a trace");
            for line in trace.lines() {
                let (role, point) = line.split_once(' ').expect("role and point");
                visited.entry((role.to_owned(), point.to_owned())).or_insert(number);
            }
        }
        visited
    })
}

/// Every point of `--inject list` with the role that it names, if it names one.
fn listed() -> Vec<(String, Option<String>)> {
    let list = leader().words("--inject list x").run().exits(0);
    let lines = list.text().lines().map(|line| {
        let (point, what) = line.split_once(' ').expect("a point and what happens there");
        let role = what.trim().split_once(": ").map(|(role, _)| role.to_owned());
        (point.to_owned(), role.filter(|role| role == "leader" || role == "worker"))
    });
    lines.collect()
}

#[test]
fn every_point_is_come_by() {
    let visited = visited();
    let missed: Vec<String> = listed()
        .into_iter()
        .flat_map(|(point, role)| {
            let roles = role.map_or_else(|| vec!["worker".to_owned()], |role| vec![role]);
            roles.into_iter().map(move |role| (role, point.clone()))
        })
        .filter(|place| !visited.contains_key(place))
        .map(|(role, point)| format!("{role} {point}"))
        .collect();
    println!("{} points, {} places in a role", listed().len(), visited.len());
    assert!(missed.is_empty(), "no scenario comes by {missed:?}");
}

/// What a death leaves at each point is told in the documentation.
#[test]
fn every_point_is_in_the_documentation() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("docs/crash-safety.md");
    let text = fs::read_to_string(path).expect("the documentation");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let points: Vec<String> = listed().into_iter().map(|(point, _)| point).collect();
    let told = |point: &&String| rows.iter().any(|row| row.contains(&format!("`{point}`")));
    let missing: Vec<_> = points.iter().filter(|point| !told(point)).collect();
    assert!(missing.is_empty(), "no row tells of {missing:?}");
    let first = |row: &&str| row.split('|').nth(1).unwrap_or_default().to_owned();
    let names = rows.iter().map(first).filter(|cell| cell.contains('.'));
    for name in
        names.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
    {
        let is_point = name
            .split_once('.')
            .is_some_and(|(a, b)| [a, b].iter().all(|p| p.chars().all(|c| c.is_ascii_lowercase())));
        assert!(!is_point || points.contains(&name), "{name} is no point");
    }
}

/// Every place with each fault, as (scenario, role, point, nth, action).
fn cases(role: &str, actions: &[&'static str]) -> Vec<(usize, String, u32, &'static str)> {
    let mut cases = Vec::new();
    for ((found, point), scenario) in visited() {
        for (nth, action) in actions.iter().flat_map(|action| [(1, *action), (3, *action)]) {
            if found == role {
                cases.push((*scenario, point.clone(), nth, action));
            }
        }
    }
    cases
}

fn faults_of_workers(actions: &[&'static str]) {
    let (cases, struck) = (cases("worker", actions), AtomicUsize::new(0));
    in_parallel(8, &cases, |(scenario, point, nth, action)| {
        let (scenario, dir) = (&SCENARIOS[*scenario], tempfile::tempdir().expect("a directory"));
        let rule = format!("{point}:worker=0:nth={nth}:{action}");
        let end = scenario.run(dir.path(), &rule, "");
        scenario.check(dir.path(), &end, &rule);
        let first = *nth == 1 && end.stderr.contains("kmer-leader: worker 0 ");
        struck.fetch_add(usize::from(first), Ordering::Relaxed);
    });
    let (struck, all) = (struck.into_inner(), cases.len() / 2);
    println!("{} faults of workers; {struck} of {all} struck at the first visit", cases.len());
    // Which worker comes by a point first is up to the machine.
    assert!(struck * 3 > all, "only {struck} of {all} faults struck: the test tests little");
}

#[test]
fn workers_that_die_change_nothing() {
    faults_of_workers(&["kill", "segv", "exit"]);
}

#[test]
fn workers_that_stop_change_nothing() {
    faults_of_workers(&["stop"]);
}

#[test]
fn a_leader_that_stops_and_goes_on_changes_nothing() {
    in_parallel(8, &cases("leader", &["stop"]), |(scenario, point, nth, action)| {
        let (scenario, dir) = (&SCENARIOS[*scenario], tempfile::tempdir().expect("a directory"));
        let rule = format!("{point}:leader:nth={nth}:{action}");
        let end = scenario.run(dir.path(), &rule, "");
        scenario.check(dir.path(), &end, &rule);
    });
}

/// What a dead leader left is resumed to the same bytes.
#[test]
fn a_leader_that_dies_is_resumed() {
    let cases = cases("leader", &["kill", "segv"]);
    in_parallel(6, &cases, |(scenario, point, nth, action)| {
        let (scenario, dir) = (&SCENARIOS[*scenario], tempfile::tempdir().expect("a directory"));
        let rule = format!("{point}:leader:nth={nth}:{action}");
        let end = scenario.run(dir.path(), &rule, "--resumable");
        if end.signal().is_none() {
            // It did not come by so often.
            return if scenario.fails.is_none() {
                scenario.check(dir.path(), &end, &rule)
            } else {
                tidy(&end)
            };
        }
        let told = format!("{} with {rule}: {}", scenario.name, end.told);
        let out = fs::read(dir.path().join("out")).expect("a file");
        assert!(out == OLD || out == scenario.expected(), "{told}half a result");
        let Some(segment) = end.segments().pop() else {
            if point == "remove.beside" {
                // All is done; what has a name still goes with the next start.
                assert!(out == scenario.expected(), "{told}no result, and nothing to resume");
                let next = scenario.run(dir.path(), "", "");
                return scenario.check(dir.path(), &next, "");
            }
            assert!(point.starts_with("create."), "{told}nothing to resume");
            return;
        };
        let late = within(Duration::from_secs(1), || processes_with(&segment).is_empty());
        assert!(late, "{told}workers live on");
        let again = run(dir.path(), &["resume", &segment], |pid| {
            fault::wake(pid);
        });
        if point.starts_with("create.") && again.code() == Some(1) {
            // Not a whole segment yet: nothing was done that could be lost, and the next start removes it.
            let next = scenario.run(dir.path(), "", "");
            assert!(within(Duration::from_secs(2), || end.segments().is_empty()), "{told}{}", next.told);
            return;
        }
        assert_eq!(again.code(), Some(0), "{told}then {}", again.told);
        assert!(
            fs::read(dir.path().join("out")).expect("a result") == scenario.expected(),
            "{told}other bytes"
        );
        gone(&end, &told);
        gone(&again, &told);
        let next = scenario.run(dir.path(), "", "");
        no_temporary_file(dir.path(), &format!("{told}{}", next.told));
    });
    println!("{} deaths of the leader", cases.len());
}

/// Removes the segment that a resumable run with an error keeps.
fn tidy(end: &End) {
    for name in end.segments() {
        let removed =
            std::process::Command::new(bin("kmer-leader")).args(["segments", "--remove", &name]).output();
        assert!(removed.is_ok_and(|out| out.status.success()), "{}", end.told);
    }
}

/// A dead leader of a run that nobody shall resume leaves nothing, and that within a second.
#[test]
fn a_leader_that_dies_leaves_nothing() {
    in_parallel(6, &cases("leader", &["kill"]), |(scenario, point, nth, action)| {
        let scenario = &SCENARIOS[*scenario];
        if scenario.resumes.is_some()
            || scenario.is_resumable()
            || point.starts_with("create.")
            || point == "launch.slot"
        {
            return; // Without a worker there is nobody to remove the segment: the next start does.
        }
        if scenario.options.contains("-j 0") || scenario.options.contains("-j 1") {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let rule = format!("{point}:leader:nth={nth}:{action}");
        let end = scenario.run(dir.path(), &rule, "");
        let told = format!("{} with {rule}: {}", scenario.name, end.told);
        let _ = kmer_pin::remove("t-inject");
        if end.signal() == Some(9) {
            assert!(
                within(Duration::from_secs(1), || end.segments().is_empty()),
                "{told}the segment is there"
            );
        }
    });
}

#[test]
fn errors_end_a_run_with_their_text() {
    let places: Vec<_> = visited().iter().filter(|(_, scenario)| **scenario <= 2).collect();
    in_parallel(6, &places, |((role, point), scenario)| {
        let dir: TempDir = tempfile::tempdir().expect("a directory");
        let who = if role == "leader" { "leader" } else { "worker=0" };
        let scenario = &SCENARIOS[**scenario];
        let end = scenario.run(dir.path(), &format!("{point}:{who}:error"), "");
        let told = format!("{} with {point}:{who}:error: {}", scenario.name, end.told);
        if end.code() == Some(0) {
            // What a worker meets before it is attached only keeps it from working.
            assert!(
                fs::read(dir.path().join("out")).expect("a result") == scenario.expected(),
                "{told}other bytes"
            );
        } else {
            assert_eq!(end.code(), Some(1), "{told}");
            assert!(
                end.stderr.contains("injected error at") || end.stderr.contains("failed to initialise"),
                "{told}"
            );
            let out = fs::read(dir.path().join("out")).expect("a file");
            assert!(out == OLD || point == "output.renamed", "{told}an error with a result");
        }
        within(Duration::from_secs(1), || end.segments().is_empty());
        gone(&end, &told);
        no_temporary_file(dir.path(), &told);
    });
}

/// A worker that ran for a moment before it was killed may have claimed a unit.
#[test]
fn a_worker_that_cannot_be_watched_is_recovered_from() {
    let dir = tempfile::tempdir().expect("a directory");
    let forked = "--inject launch.forked:leader:nth=2";
    let words = format!(
        "--all -k 21 {SMALL} -j 2 -o out --inject worker.running:worker=0:delay=2000 {forked}:delay=1000 {forked}:error --inject scan.claimed:worker=1:delay=30000"
    );
    let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    args.push(relation().path().to_str().expect("a plain path").to_owned());
    let end = run(dir.path(), &args, |_| ());
    assert_eq!(end.code(), Some(0), "{}", end.told);
    assert!(end.stderr.contains("could start only 1 of 2 workers"), "{}", end.told);
    assert!(fs::read(dir.path().join("out")).expect("a result") == reference("21"), "{}", end.told);
}
