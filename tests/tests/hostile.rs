//! Segments of random and of altered bytes: worker, leader and onlooker attach to them, and come to an error or to the right end, never to a crash or a hang.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use kmer_tests::data::Rng;
use kmer_tests::engine::{bin, leader};
use kmer_tests::fault::{SMALL, Small, in_parallel, run, segments_of, within};
use kmer_worker::job::{Job, build_id};
use kmer_worker::seal;
use kmer_worker::shared::Shared;
use shm_layout::segment::Segment;

/// A segment of ours in /dev/shm that goes when the test ends.
struct Planted(String);

impl Planted {
    fn new(bytes: &[u8]) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let planted = Self(format!("kmer.hostile-{}-{number}", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(planted.path()).expect("made");
        file.write_all_at(bytes, 0).expect("room");
        planted
    }

    /// Writes the digest over what is asked for anew, so that the damage gets past it; true if that can be done.
    fn seal(&self) -> bool {
        Segment::attach(&self.0, build_id()).is_ok_and(|segment| seal::write(&segment).is_ok())
    }

    fn path(&self) -> String {
        format!("/dev/shm/{}", self.0)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

/// Attaches a worker as slot 0 of generation `generation`; gives its exit code, or fails if it dies by a signal or hangs.
fn worker(segment: &str, generation: &str) -> i32 {
    let pid = std::process::id().to_string();
    let mut child = Command::new(bin("kmer-worker"))
        .args(["--segment", segment, "--slot", "0", "--generation", generation, "--leader", &pid, "--keep"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("kmer-worker starts");
    // A worker with nothing to do waits for its leader: the end of the pipe sends it home.
    let mut status = None;
    let ended = within(Duration::from_millis(400), || {
        status = child.try_wait().expect("our child");
        status.is_some()
    });
    if !ended {
        drop(child.stdin.take());
        assert!(
            within(Duration::from_secs(20), || {
                status = child.try_wait().expect("our child");
                status.is_some()
            }),
            "a worker hangs in {segment}"
        );
    }
    let status = status.expect("ended");
    status.code().unwrap_or_else(|| panic!("a worker died in {segment}: {status}"))
}

/// What came of a resumption.
#[derive(Debug, PartialEq, Eq)]
enum Resumed {
    Refused,
    Same,
    Other,
}

/// Resumes the segment; anything but an error and a result fails the test.
fn resume(segment: &str, peace: &[u8], told: &str) -> Resumed {
    let dir = tempfile::tempdir().expect("a directory");
    let args = ["resume", segment, "-q", "-j", "1", "-o", "altered", "--worker-timeout", "5"];
    let end = run(dir.path(), &args, |_| ());
    match end.code() {
        Some(0) => {
            let out = fs::read(dir.path().join("altered")).expect("a result");
            if out == peace { Resumed::Same } else { Resumed::Other }
        }
        Some(1 | 2 | 4) => {
            assert!(end.stderr.contains("kmer-leader: error: "), "{told}: {}", end.told);
            Resumed::Refused
        }
        _ => panic!("{told}: {}", end.told),
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Where the table of contents, at 4096, says that the chunk of `key` is: offset and length.
fn chunk(bytes: &[u8], key: u64) -> (usize, usize) {
    let entries = (0..16).map(|i| 4096 + 32 + 24 * i);
    let entry = entries.into_iter().find(|at| word(bytes, *at) == key).expect("the key");
    (word(bytes, entry + 8) as usize, word(bytes, entry + 16) as usize)
}

/// The bytes of a segment whose leader was killed in `point`, and the relation and result of its run.
fn left(small: &Small, point: &str) -> Vec<u8> {
    left_of(small, point, SMALL)
}

/// The same of a run with these capacities.
fn left_of(small: &Small, point: &str, capacities: &str) -> Vec<u8> {
    // Resuming goes to the directory of the run, so it is one that stays.
    let dir = small.path().parent().expect("a directory").to_owned();
    let words = format!(
        "--all -k 21 -j 2 -q {capacities} --memory 600K --resumable -o out --inject {point}:leader:kill"
    );
    let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    args.push(small.path().to_string_lossy().into_owned());
    let end = run(&dir, &args, |_| ());
    let name = segments_of(end.pid).pop().unwrap_or_else(|| panic!("{}", end.told));
    let bytes = fs::read(format!("/dev/shm/{name}")).expect("the segment");
    fs::remove_file(format!("/dev/shm/{name}")).expect("ours");
    bytes
}

#[test]
fn random_bytes_are_refused() {
    let mut rng = Rng::new(50);
    for len in [0, 3, 8191, 8192, 100_000] {
        let bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
        let planted = Planted::new(&bytes);
        assert_eq!(worker(&planted.0, "1"), 7, "{len} bytes");
        let ended = leader().args(["resume", &planted.0]).run().fails(1, &[&planted.0]);
        assert!(ended.stdout.is_empty());
        assert!(leader().args(["segments"]).run().exits(0).text().contains(&planted.0) || len == 0);
    }
}

#[test]
fn altered_segments_end_in_an_error_or_in_the_right_result() {
    let small = Small::new(44, 200);
    let peace = leader().words("-q --all -k 21 -j 1").arg(small.path()).run().exits(0).stdout;
    let mut rng = Rng::new(51);
    let (mut refused, mut right, mut other) = (0, 0, 0);
    for point in ["collect.begin", "drain.opened", "finished"] {
        let bytes = left(&small, point);
        let used: Vec<usize> = (0..bytes.len() / 8).filter(|i| word(&bytes, 8 * i) != 0).collect();
        for round in 0..50 {
            let mut altered = bytes.clone();
            for _ in 0..=rng.below(3) {
                // Where something is, or anywhere in the control area; one bit, or a word of its own.
                let place =
                    if rng.below(3) > 0 { used[rng.below(used.len())] } else { rng.below(bytes.len() / 8) };
                let old = word(&altered, 8 * place);
                let new = match rng.below(4) {
                    0 => rng.next_u64(),
                    1 => old.wrapping_add(1),
                    2 => u64::MAX,
                    _ => old ^ 1 << rng.below(64),
                };
                altered[8 * place..8 * place + 8].copy_from_slice(&new.to_le_bytes());
            }
            let planted = Planted::new(&altered);
            // With the digest over what is asked for written anew it may be another question, and have another answer.
            let sealed = round % 2 == 0 && planted.seal();
            if round % 4 == 0 {
                worker(&planted.0, "9");
            }
            let look = run(std::path::Path::new("/"), &["status", &planted.0], |_| ());
            let refused_to_show = look.stderr.contains("kmer-leader: error: ");
            assert_eq!(look.code(), Some(refused_to_show.into()), "{point}, round {round}: {}", look.told);
            match resume(&planted.0, &peace, &format!("{point}, round {round}")) {
                Resumed::Refused => refused += 1,
                Resumed::Same => right += 1,
                Resumed::Other => {
                    assert!(sealed, "{point}, round {round}: other bytes");
                    other += 1;
                }
            }
        }
    }
    println!("{refused} refused, {right} right, {other} other questions");
    assert!(refused > 10 && right > 10, "{refused} refused, {right} right: the test tests little");
    assert!(other <= 3, "{other} results are of other bytes");
}

/// A single word that is another: what is asked for, what the units' numbers say, and the tables, each in every phase in which a leader may find it.
/// With `KMER_HOSTILE=all` every word.
#[test]
fn a_single_altered_word_gives_no_other_answer() {
    let small = Small::new(44, 200);
    let peace = leader().words("-q --all -k 21 -j 1").arg(small.path()).run().exits(0).stdout;
    let every = std::env::var_os("KMER_HOSTILE").is_some_and(|how| how == "all");
    let mut cases = Vec::new();
    let shared = format!("{SMALL} --part-bits 1 --stretch 16");
    let (whole, dealt) = (
        ["collect.begin", "drain.opened", "finished"].map(|point| (point, SMALL)),
        ("drain.opened", &*shared),
    );
    for (point, capacities) in whole.into_iter().chain([dealt]) {
        let bytes = left_of(&small, point, capacities);
        // The job, the command line, the drain's order: all of it, 1 bit in every word; of the rest every so many.
        let asked: Vec<usize> = [0x4b4d_0002, 0x4b4d_0009, 0x4b4d_0007]
            .map(|key| chunk(&bytes, key))
            .iter()
            .flat_map(|(at, len)| (at / 8..(at + len) / 8).collect::<Vec<_>>())
            .collect();
        let used = (0..bytes.len() / 8).filter(|i| word(&bytes, 8 * i) != 0);
        let rest = used.filter(|i| !asked.contains(i)).step_by(if every { 1 } else { 29 });
        let asked = asked.iter().filter(|i| word(&bytes, 8 * **i) != 0).copied();
        cases.extend(asked.chain(rest).map(|at| (point, bytes.clone(), at)));
    }
    let counts = std::sync::Mutex::new([0, 0]);
    in_parallel(3, &cases, |(point, bytes, at)| {
        let mut altered = bytes.clone();
        altered[8 * at] ^= 1;
        let planted = Planted::new(&altered);
        let told = format!("{point}, word {at} of {}: {:#x}", bytes.len() / 8, word(bytes, 8 * at));
        let found = resume(&planted.0, &peace, &told);
        assert!(found != Resumed::Other, "{told}: other bytes");
        counts.lock().expect("no panic")[usize::from(found == Resumed::Same)] += 1;
    });
    let [refused, same] = counts.into_inner().expect("no panic");
    println!("{refused} refused, {same} right");
    assert!(refused > 100, "{refused} refused: the test tests little");
}

/// Numbers that others are computed from, with the digest over them written anew.
#[test]
fn numbers_that_nobody_can_work_with_are_refused() {
    let small = Small::new(44, 200);
    let bytes = left_of(&small, "drain.opened", &SMALL.replace("--stripe-bits 2", "--stripe-bits 9"));
    let entry = |key: u64| {
        let mut entries = (0..16).map(|i| 4096 + 32 + 24 * i);
        entries.find(|at| word(&bytes, *at) == key).expect("the key")
    };
    let put = |at: usize, new: u64| {
        let mut altered = bytes.clone();
        altered[at..at + 8].copy_from_slice(&new.to_le_bytes());
        altered
    };
    // A job of other numbers, as long as that of the run.
    let job = |change: fn(&mut Job)| {
        let (at, len) = chunk(&bytes, 0x4b4d_0002);
        let mut job = Job::decode(&bytes[at..at + len]).expect("the run's");
        change(&mut job);
        let encoded = job.encode().expect("a job");
        let mut altered = bytes.clone();
        altered[at..at + encoded.len()].copy_from_slice(&encoded);
        altered
    };
    let cases = [
        ("chunks without bytes", put(48, 0)),
        ("chunks of one byte", put(48, 1)),
        ("no slots", put(entry(0x4b4d_0003) + 16, 0)),
        ("more stripes than keys", job(|job| (job.direct, job.k, job.stripe_bits) = (true, 4, 9))),
        ("too many keys", job(|job| job.direct = true)),
    ];
    for (what, altered) in cases {
        let planted = Planted::new(&altered);
        planted.seal();
        assert!(Shared::attach(&planted.0).is_err(), "{what}: attached to");
        worker(&planted.0, "9");
        for workers in ["0", "1"] {
            let dir = tempfile::tempdir().expect("a directory");
            let end = run(dir.path(), &["resume", &planted.0, "-q", "-j", workers, "-o", "altered"], |_| ());
            assert_eq!(end.code(), Some(1), "{what}: {}", end.told);
            assert!(end.stderr.contains("kmer-leader: error: "), "{what}: {}", end.told);
        }
    }
}

/// What the sums over units and stripes see by themselves: a unit that is lost, twice there, or another.
#[test]
fn the_sums_alone_see_a_lost_or_doubled_unit() {
    let small = Small::new(44, 200);
    let bytes = left(&small, "drain.opened");
    let (units, len) = chunk(&bytes, 0x4b4d_0004);
    let len = len / 8;
    assert!(len >= 2, "{len} units");
    // Workers add up the units once more when they drain, so what is altered behind their backs shows: the leader has added up before.
    for (what, from, to) in [("lost", None, 0), ("doubled", Some(1), 0), ("doubled", Some(0), 1)] {
        let mut altered = bytes.clone();
        // DONE with no attempts and head chunk in the high half; poison is 3.
        let new = from.map_or(3, |unit: usize| word(&bytes, units + 8 * unit));
        altered[units + 8 * to..units + 8 * to + 8].copy_from_slice(&u64::to_le_bytes(new));
        let planted = Planted::new(&altered);
        let dir = tempfile::tempdir().expect("a directory");
        let end = run(dir.path(), &["resume", &planted.0, "-q", "-j", "1", "-o", "altered"], |_| ());
        assert!(matches!(end.code(), Some(1 | 4)), "a unit is {what}: {}", end.told);
        assert!(!dir.path().join("altered").exists(), "a unit is {what}: {}", end.told);
    }
}
