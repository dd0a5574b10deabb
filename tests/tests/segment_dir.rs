//! Segments in files (`--segment-dir`), and what a run is said to need before it begins (`--dry-run`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, SystemTime};

use kmer_tests::data::Rng;
use kmer_tests::engine::{Engine, bin, leader};
use kmer_tests::fault::{Small, processes_with, run, segments_of, within};
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

/// A relation of some blocks, and its result by a run in /dev/shm.
fn relation() -> &'static (Small, Vec<u8>) {
    static RELATION: OnceLock<(Small, Vec<u8>)> = OnceLock::new();
    RELATION.get_or_init(|| {
        let small = Small::new(46, 2500);
        let peace = leader().words("-q --all -k 21 -j 1").arg(small.path()).run().exits(0).stdout;
        (small, peace)
    })
}

/// A directory for segments, on a disk wherever the system's temporary directory is.
fn place() -> TempDir {
    tempfile::Builder::new().prefix("kd").tempdir().expect("a directory")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("there").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn is_empty(dir: &Path) -> bool {
    within(Duration::from_secs(5), || names(dir).is_empty())
}

fn engine(dir: &Path, words: &str) -> Engine {
    leader().words("--all -k 21 --segment-dir").arg(dir).words(words).arg(relation().0.path())
}

#[test]
fn a_file_gives_the_same_bytes() {
    let dir = place();
    for words in ["-q -j 0", "-q -j 1", "-q -j 3 --unit-blocks 1", "-q -j 2 --pass-bits 1"] {
        let ended = engine(dir.path(), words).run().exits(0);
        assert!(ended.stdout == relation().1, "{ended}other bytes");
        assert!(is_empty(dir.path()), "{ended}left: {:?}", names(dir.path()));
    }
}

#[test]
fn it_is_ours_alone_and_not_in_shared_memory() {
    let dir = place();
    let words = "-j 1 --unit-blocks 1 --worker-timeout 0 --inject scan.claimed:nth=2:stop";
    let running = engine(dir.path(), words).spawn();
    assert!(within(Duration::from_secs(20), || running.workers().into_iter().any(is_stopped)));
    let found = names(dir.path());
    assert_eq!(found.len(), 1, "{found:?}");
    let meta = fs::metadata(dir.path().join(&found[0])).expect("there");
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert!(found[0].starts_with("kmer.") && found[0].len() == 5 + 32, "{found:?}");
    assert_eq!(segments_of(running.pid().as_raw() as u32), [""; 0], "one in shared memory");
    let listed = leader().args(["segments", "--segment-dir"]).arg(dir.path()).run().exits(0);
    assert!(listed.text().contains("running"), "{listed}");
    let status = leader().args(["status", "--segment-dir"]).arg(dir.path()).run().exits(0);
    assert!(status.text().contains("blocks_done      | 1\n"), "{status}");
    let worker = running.workers()[0];
    let _ = kill(worker, Signal::SIGCONT);
    assert!(running.wait().exits(0).stdout == relation().1);
}

/// True when the process is stopped; it stays so.
fn is_stopped(pid: nix::unistd::Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
}

#[test]
fn killed_workers_change_nothing() {
    let (dir, mut rng) = (place(), Rng::new(47));
    let dir_is_left = || assert!(is_empty(dir.path()), "left: {:?}", names(dir.path()));
    // At any moment of a run, as long as a run takes here: as often as it takes to hit some.
    let (mut runs, mut killed) = (0, 0);
    while killed < 6 && runs < 200 {
        runs += 1;
        let mut running = engine(dir.path(), "-q -j 3 --unit-blocks 1").spawn();
        let _ = within(Duration::from_secs(20), || running.has_ended() || !running.workers().is_empty());
        thread::sleep(Duration::from_micros(rng.below(10_000) as u64));
        let workers = if running.has_ended() { Vec::new() } else { running.workers() };
        if !workers.is_empty() {
            killed += usize::from(kill(workers[rng.below(workers.len())], Signal::SIGKILL).is_ok());
        }
        let ended = running.wait().exits(0);
        assert!(ended.stdout == relation().1, "{ended}other bytes");
        dir_is_left();
    }
    println!("{killed} killed in {runs} runs");
    assert!(killed > 0, "nobody was hit in {runs} runs");
    // Wherever they die, for sure: the one worker comes by every point.
    for point in ["scan.stored", "scan.committed", "drain.built", "drain.published"] {
        let words = format!("-j 1 --unit-blocks 1 --inject {point}:worker=0:kill");
        let ended = engine(dir.path(), &words).run().exits(0);
        assert!(ended.stdout == relation().1, "{ended}other bytes");
        assert!(ended.stderr.contains("killed by SIGKILL"), "{ended}nobody died at {point}");
        dir_is_left();
    }
}

/// The workers remove the file of a leader that was killed, at whatever point that was while they lived.
#[test]
fn a_killed_leader_leaves_no_file() {
    let dir = place();
    for point in ["launch.spawned", "leader.wait", "collect.begin", "drain.opened", "drain.settled"] {
        let words = format!("-q -j 2 --unit-blocks 1 --inject {point}:leader:kill");
        let ended = engine(dir.path(), &words).run().ends_by(Signal::SIGKILL);
        assert!(is_empty(dir.path()), "{ended}left: {:?}", names(dir.path()));
    }
    // Before there are workers nobody can: the next run does.
    let ended = engine(dir.path(), "-q -j 2 --inject create.published:leader:kill").run();
    let _ = ended.ends_by(Signal::SIGKILL);
    assert_eq!(names(dir.path()).len(), 1);
    let ended = engine(dir.path(), "-j 2").run().exits(0);
    assert!(ended.stderr.contains("removed shared-memory segment"), "{ended}");
    assert!(is_empty(dir.path()), "{ended}left: {:?}", names(dir.path()));
}

#[test]
fn a_resumable_file_is_resumed() {
    let (dir, home) = (place(), relation().0.path().parent().expect("a directory").to_owned());
    for (point, by_path) in [("scan.committed", true), ("drain.opened", false), ("report.begin", true)] {
        let path = relation().0.path().to_string_lossy().into_owned();
        let place = dir.path().to_string_lossy().into_owned();
        let who = if point.starts_with("scan") { "leader.wait" } else { point };
        let words =
            format!("--all -k 21 -j 2 -q --unit-blocks 1 --resumable -o resumed --inject {who}:leader:kill");
        let mut args: Vec<String> = words.split(' ').map(str::to_owned).collect();
        args.extend(["--segment-dir".into(), place.clone(), path]);
        let end = run(&home, &args, |_| ());
        assert_eq!(end.signal(), Some(9), "{}", end.told);
        let name = names(dir.path()).pop().unwrap_or_else(|| panic!("{}", end.told));
        let full = dir.path().join(&name).to_string_lossy().into_owned();
        assert!(within(Duration::from_secs(5), || processes_with(&full).is_empty()), "workers live on");
        let listed = leader().args(["segments", "--segment-dir", &place]).run().exits(0);
        assert!(listed.text().contains("resumable"), "{listed}");
        let gone = if by_path {
            leader().args(["resume", "-q", &full]).run()
        } else {
            leader().args(["resume", "-q", "--segment-dir", &place, &name]).run()
        };
        let gone = gone.exits(0);
        assert!(fs::read(home.join("resumed")).expect("a result") == relation().1, "{gone}other bytes");
        fs::remove_file(home.join("resumed")).expect("ours");
        assert!(is_empty(dir.path()), "left: {:?}", names(dir.path()));
    }
}

#[test]
fn what_lies_in_a_directory_and_is_no_segment() {
    let dir = place();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("kmer.text"), "text").expect("written");
    std::os::unix::fs::symlink("/etc/passwd", path("kmer.link")).expect("a link");
    nix::unistd::mkfifo(&path("kmer.pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    fs::create_dir(path("kmer.dir")).expect("a directory");
    let listed = leader().args(["segments", "--gc", "--segment-dir"]).arg(dir.path()).run().exits(0);
    assert_eq!(listed.text(), "", "{listed}");
    for name in ["kmer.text", "kmer.link", "kmer.pipe", "kmer.dir", "kmer.none"] {
        for command in ["resume", "status"] {
            let _ = leader().arg(command).arg(path(name)).run().fails(1, &[name]);
        }
    }
    assert_eq!(names(dir.path()).len(), 4);
    let _ = engine(&path("kmer.text"), "-j 1").run().fails(1, &["kmer.text", "expected a directory"]);
    let _ = engine(&path("nowhere"), "-j 1").run().fails(1, &["nowhere", "No such file"]);
}

/// What a creation leaves that was cut off has no header, so other people's files must be told from it by name and mode.
#[test]
fn files_of_others_are_left_alone() {
    let (dir, bits) = (place(), "0123456789abcdef0123456789abcdef");
    let write = |name: &str, bytes: usize, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, vec![0; bytes]).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        let file = fs::File::options().write(true).open(&path).expect("there");
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).expect("an old file");
    };
    let others = [
        ("kmer.log".to_owned(), 0, 0o600),
        ("kmer.bin".into(), 70_000, 0o600),
        (format!("kmer.{}", &bits[1..]), 70_000, 0o600),
        (format!("kmer.{bits}0"), 70_000, 0o600),
        (format!("kmer.{}", bits.to_uppercase()), 70_000, 0o600),
        (format!("kmer.{bits}"), 70_000, 0o644),
        ("kmer.pin.mine".into(), 70_000, 0o600),
    ];
    others.iter().for_each(|(name, bytes, mode)| write(name, *bytes, *mode));
    // And one that a creator left.
    let cut_off = format!("kmer.{}", bits.replace('0', "f"));
    write(&cut_off, 70_000, 0o600);
    let listed = leader().args(["segments", "--segment-dir"]).arg(dir.path()).run().exits(0);
    assert_eq!(listed.text().matches(" foreign ").count(), others.len(), "{listed}");
    let ended = engine(dir.path(), "-j 1").run().exits(0);
    assert_eq!(ended.stderr.matches("removed shared-memory segment").count(), 1, "{ended}");
    assert!(ended.stderr.contains(&cut_off), "{ended}");
    let _ = leader().args(["segments", "--gc", "--segment-dir"]).arg(dir.path()).run().exits(0);
    let (mut left, mut expected) = (names(dir.path()), others.map(|(name, ..)| name).to_vec());
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
}

/// A relation of reads without a pattern, of which each is there twice.
fn reads(home: &Path) -> PathBuf {
    let mut rng = Rng::new(48);
    let mut fasta = String::new();
    for read in 0..3000 {
        let bases: String = (0..150).map(|_| ['A', 'C', 'G', 'T'][rng.below(4)]).collect();
        fasta += &format!(">a{read}\n{bases}\n>b{read}\n{bases}\n");
    }
    fs::write(home.join("reads.fa"), fasta).expect("written");
    let mut import = Command::new(bin("kmer-leader"));
    import.args(["import", "reads.fa", "-o", "reads"]).current_dir(home).stderr(Stdio::null());
    assert!(import.status().expect("an import").success());
    home.join("reads")
}

fn mounted(script: &str, words: &str) -> Option<Engine> {
    let mut probe = Command::new("unshare");
    probe.args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /dev/shm"]);
    if !probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        println!("skipped: a mount namespace of our own is not permitted here");
        return None;
    }
    let engine = Engine::new(PathBuf::from("unshare"))
        .args(["-m", "sh", "-c", &format!("{script} && exec \"$@\""), "sh"])
        .arg(bin("kmer-leader"))
        .words(words);
    Some(engine)
}

#[test]
fn shared_memory_that_is_too_small_is_found_before_the_start() {
    let small = |size: &str| format!("mkdir d && mount -t tmpfs -o size={size} tmpfs /dev/shm");
    let home = place();
    let reads = reads(home.path());
    let run = |size: &str, words: &str, relation: &Path| {
        mounted(&small(size), words).map(|engine| engine.arg(relation).keeps("d").run())
    };
    // Less than one pass needs: several of them.
    let words = "-k 21 -j 2 --unit-blocks 16 --max-appearance-nrow 2 --stripe-bits 8";
    let peace = leader().words(words).arg("-q").arg(&reads).run().exits(0);
    let Some(ended) = run("800k", words, &reads) else { return };
    let ended = ended.exits(0);
    assert!(ended.stderr.contains("\"/dev/shm\" has 800 KiB free, and one pass needs about "), "{ended}");
    assert!(ended.stderr.contains("--segment-dir DIR takes one"), "{ended}");
    assert!(ended.stdout == peace.stdout, "{ended}other bytes");
    // Every stripe's result begins a page, which is as much here as the records.
    for size in ["500k", "900k", "1100k", "1500k"] {
        let Some(ended) = run(size, words, &reads) else { return };
        assert!(ended.exits(0).stdout == peace.stdout, "{size}: other bytes");
    }
    // So little that no number of passes helps: nothing is begun, neither a worker nor an output.
    for words in ["-k 21 -j 2 -o none", "-k 21 -j 2 --dry-run"] {
        let Some(ended) = run("64k", words, &relation().0.path()) else { return };
        let ended =
            ended.fails(1, &["no room in \"/dev/shm\": expected about ", "64.0 KiB", "--segment-dir DIR"]);
        assert!(!ended.stderr.contains("worker"), "{ended}");
    }
    // In a file it does not matter.
    let Some(ended) = run("64k", "-q --all -k 21 -j 2 --segment-dir d", &relation().0.path()) else { return };
    assert!(ended.exits(0).stdout == relation().1);
    // A run that may be resumed takes several passes as well, but not with a dense file, which would have to be carried from one to the next.
    let Some(ended) = run("800k", &format!("{words} --resumable"), &reads) else { return };
    let ended = ended.exits(0);
    assert!(ended.stderr.contains("one pass needs about ") && ended.stdout == peace.stdout, "{ended}");
    let Some(ended) = run("800k", "-q -k 21 -j 2 --dense none --resumable", &reads) else { return };
    let _ = ended.fails(1, &["--dense with --resumable: expected a run of one pass", "--segment-dir DIR"]);
}

#[test]
fn a_directory_that_is_full() {
    let script = "mkdir d && mount -t tmpfs -o size=300k tmpfs d";
    let words = "-q --all -k 21 -j 2 --segment-dir d --pass-bits 0";
    let Some(engine) = mounted(script, words) else { return };
    let ended = engine.arg(relation().0.path()).keeps("d").run();
    let ended = ended.fails(1, &["no room", "make room in the directory of the segment"]);
    assert!(ended.stdout.is_empty(), "{ended}a result");
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let number = line.and_then(|line| line.split(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{name} in {text}"))
}

/// A program without the worker beside it does it, so no worker can have been started.
#[test]
fn a_dry_run_tells_and_does_nothing() {
    let alone = place();
    let program = alone.path().join("kmer-leader");
    fs::copy(bin("kmer-leader"), &program).expect("a copy");
    let dry = |words: &str| {
        let engine = Engine::new(program.clone()).words("--dry-run -o never").words(words);
        engine.arg(relation().0.path()).run().exits(0)
    };
    for k in [16, 21, 31] {
        let told = dry(&format!("-k {k} -j 2"));
        // As many blocks as are looked at, so nothing is extrapolated.
        let text = told.text();
        assert_eq!(field(text, "blocks"), field(text, "blocks_sampled"), "{told}");
        assert_eq!(field(text, "rows"), 2500, "{told}");
        let words = format!("-j 2 -k {k} --resumable --inject collect.begin:leader:kill");
        let end = run(Path::new("/tmp"), &command(&words), |_| ());
        let segment = end.segments().pop().unwrap_or_else(|| panic!("{}", end.told));
        let seen = leader().args(["status", "--json", &segment]).run().exits(0);
        let seen: serde_json::Value = serde_json::from_str(seen.text()).expect("JSON");
        let _ = fs::remove_file(Path::new("/dev/shm").join(&segment));
        assert_eq!(seen["rows"], field(text, "rows"), "{told}");
        assert_eq!(seen["kmers"], field(text, "kmers"), "{told}");
        let (took, said) = (seen["memory_bytes"].as_u64().expect("bytes"), field(text, "segment_bytes"));
        assert!(took / 2 < said && said < took * 2, "took {took}{told}");
    }
    let told = dry("-k 21 -j 4 --memory 600K");
    assert!(
        field(told.text(), "passes") > 1 && told.text().contains("memory_limit: 614400 (600 KiB)"),
        "{told}"
    );
    assert_eq!(field(told.text(), "process_bytes"), 4 * (32 << 20), "{told}");
    let told = dry("--all -k 21 -j 4");
    assert_eq!(field(told.text(), "tables_bytes_at_most"), 13 * field(told.text(), "kmers"), "{told}");
    // What cannot be looked at is not guessed.
    let told = Engine::new(program.clone()).words("-n -").run().exits(0);
    assert!(told.text().contains("rows: unknown\n") && !told.text().contains("rows: 0"), "{told}");
    let told = Engine::new(program.clone()).words("-n -k 21 --segment-dir").arg(alone.path());
    let told = told.arg(relation().0.path()).run().exits(0);
    assert!(told.text().contains(&format!("segment_in: {}\n", alone.path().display())), "{told}");
}

fn command(words: &str) -> Vec<String> {
    let mut args: Vec<String> = words.split(' ').map(str::to_owned).collect();
    args.extend(["-o".into(), "/dev/null".into(), relation().0.path().to_string_lossy().into_owned()]);
    args
}
