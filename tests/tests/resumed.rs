//! Runs that are resumed under other circumstances than they began in: by other numbers of workers, with a pinned name that they had given
//! already, over numbers that were altered meanwhile. Runs that begin anew by themselves, since they had planned too few passes. And what a run leaves of several outputs when it fails at the last moment.

use std::fmt::Write;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use kmer_leader::totals::open_stripe;
use kmer_tests::data::Rng;
use kmer_tests::engine::{Engine, bin, leader};
use kmer_tests::fault::{End, Small, processes_with, run, segments_of, within};
use kmer_tests::pinned::PinName;
use kmer_worker::shared::Shared;
use nix::sys::signal::Signal;
use tempfile::TempDir;

fn relation() -> &'static Small {
    static RELATION: OnceLock<Small> = OnceLock::new();
    RELATION.get_or_init(|| Small::new(48, 600))
}

fn words(text: &str, path: &Path) -> Vec<String> {
    let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    words.push(path.to_str().expect("a plain path").to_owned());
    words
}

/// A run that dies by its rule; gives its segment, which nobody uses any more.
fn killed(dir: &Path, text: &str, path: &Path) -> (End, String) {
    let end = run(dir, &words(&format!("-q --resumable {text}"), path), |_| ());
    assert_eq!(end.signal(), Some(9), "{}", end.told);
    let segment = segments_of(end.pid).pop().unwrap_or_else(|| panic!("{}no segment", end.told));
    assert!(within(Duration::from_secs(5), || processes_with(&segment).is_empty()), "{}", end.told);
    (end, segment)
}

fn resume(dir: &Path, segment: &str, more: &str) -> End {
    let text = format!("resume {segment} -q {more}");
    run(dir, &text.split_whitespace().collect::<Vec<_>>(), |_| ())
}

/// Random letters, `lengths` of them in each record.
fn fasta(seed: u64, lengths: &[usize]) -> Vec<u8> {
    let (mut rng, mut text) = (Rng::new(seed), String::new());
    for (i, length) in lengths.iter().enumerate() {
        let bases = (0..*length).map(|_| char::from(b"ACGT"[rng.below(4)])).collect::<String>();
        writeln!(text, ">r{i}\n{bases}").expect("memory");
    }
    text.into_bytes()
}

fn packed(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("rows.fa.gz");
    let file = fs::File::create(&path).expect("made");
    let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    packer.write_all(&fasta(7, &[300; 2000])).expect("written");
    packer.finish().expect("written");
    path
}

#[test]
fn any_number_of_workers_goes_on_with_a_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let long = dir.path().join("long.fa");
    fs::write(&long, fasta(8, &[4_800_000])).expect("written");
    // Packed files and long records are parted by the number of workers; keys of this length are counted in a way that hangs on it.
    for (path, options, workers) in [
        (packed(&dir), "-k 21 --all", [(2, 1), (2, 3), (1, 4)]),
        (long, "-k 31 --all", [(2, 1), (4, 2), (1, 2)]),
        (relation().path(), "-k 11 --all", [(1, 4), (4, 1), (3, 0)]),
        (relation().path(), "-k 11 --all --summed", [(1, 4), (4, 1), (3, 0)]),
    ] {
        let peace = run(dir.path(), &words(&format!("-q {options} -o peace -j 2"), &path), |_| ());
        assert_eq!(peace.code(), Some(0), "{}", peace.told);
        for (before, after) in workers {
            for point in ["leader.wait", "collect.begin", "drain.opened"] {
                let text = format!("{options} -o out -j {before} --inject {point}:leader:kill");
                let (end, segment) = killed(dir.path(), &text, &path);
                let again = resume(dir.path(), &segment, &format!("-j {after}"));
                assert_eq!(again.code(), Some(0), "{}{}", end.told, again.told);
                let same = fs::read(dir.path().join("out")).ok() == fs::read(dir.path().join("peace")).ok();
                assert!(same, "{}{}other bytes", end.told, again.told);
                fs::remove_file(dir.path().join("out")).expect("there");
            }
        }
    }
}

/// With --count-only nobody reads the tables, so the numbers beside them must speak for themselves.
#[test]
fn an_altered_number_of_a_table_is_found_where_only_numbers_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    for number in 0..8 {
        let text = "--all --count-only -k 21 --stripe-bits 2 -j 1 -o out --inject drain.settled:leader:kill";
        let (_, segment) = killed(dir.path(), text, &relation().path());
        let numbers = {
            let shared = Shared::attach_to_read(&segment).expect("sound");
            open_stripe(&shared, 1).expect("sound").expect("not left out").0.to_bytes()
        };
        let path = Path::new("/dev/shm").join(&segment);
        let bytes = fs::read(&path).expect("there");
        let at = bytes.windows(numbers.len()).position(|found| found == numbers).expect("published");
        let at = at + 8 * number + 1;
        let file = fs::OpenOptions::new().write(true).open(&path).expect("ours");
        file.write_all_at(&[bytes[at] ^ 4], at as u64).expect("written");
        let again = resume(dir.path(), &segment, "");
        assert_eq!(again.code(), Some(1), "number {number}: {}", again.told);
        assert!(again.stderr.contains("seal of stripe 1"), "number {number}: {}", again.told);
        assert!(!dir.path().join("out").exists());
        let _ = leader().args(["segments", "--remove", &segment]).run();
    }
}

#[test]
fn a_name_that_the_run_itself_gave_is_no_hindrance_and_another_s_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let pin = PinName::new();
    let text =
        format!("--all --count-only -k 9 -j 2 -o out --pin {} --inject pin.named:leader:kill", pin.name());
    let (end, segment) = killed(dir.path(), &text, &relation().path());
    assert!(pin.path().exists(), "{}", end.told);
    let again = resume(dir.path(), &segment, "");
    assert_eq!(again.code(), Some(0), "{}{}", end.told, again.told);
    assert!(dir.path().join("out").exists() && pin.path().exists(), "{}", again.told);

    let other = PinName::new();
    let text = text.replace(pin.name(), other.name()).replace("pin.named", "collect.begin");
    let (_, segment) = killed(dir.path(), &text, &relation().path());
    let pinning = leader().words("-q --all --count-only -k 8 --pin").arg(other.name());
    let _ = pinning.arg(relation().path()).run().exits(0);
    let again = resume(dir.path(), &segment, "");
    assert_eq!(again.code(), Some(1), "{}", again.told);
    assert!(again.stderr.contains("segments --remove NAME, and resume again"), "{}", again.told);
    let _ = leader().args(["segments", "--remove", other.name()]).run().exits(0);
    assert_eq!(resume(dir.path(), &segment, "").code(), Some(0));
    assert!(other.path().exists());
}

#[test]
fn a_run_that_fails_at_the_end_leaves_the_pinned_result_that_it_was_to_replace() {
    let pin = PinName::new();
    let pinning = |k: &str, more: &str| {
        let engine =
            leader().words(&format!("-q --all --count-only -k {k} -j 2 {more} --pin")).arg(pin.name());
        engine.arg(relation().path()).run()
    };
    // Where there was none, none is left.
    let _ = pinning("9", "-o out --inject output.synced:leader:error").exits(1);
    assert!(!pin.path().exists());
    let _ = pinning("9", "").exits(0);
    let before = fs::read(pin.path()).expect("pinned");
    let _ = pinning("10", "--replace -o out --inject output.synced:leader:error").exits(1);
    assert!(fs::read(pin.path()).ok() == Some(before), "the old result is gone");
    let _ = pinning("10", "--replace").exits(0);
    let listed = leader().args(["segments"]).run().exits(0);
    assert!(listed.text().contains(&format!("kept by --pin {}", pin.name())), "{listed}");
    assert!(listed.text().contains(" of k=10"), "{listed}");
}

/// A part is the result of its run.
#[test]
fn a_part_may_be_written_elsewhere_by_who_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = &relation().path();
    let whole = run(dir.path(), &words("-q --partial whole -k 15 -j 2", path), |_| ());
    assert_eq!(whole.code(), Some(0), "{}", whole.told);
    let dies = "--partial part -k 15 -j 2 --inject drain.settled:leader:kill";
    let (_, segment) = killed(dir.path(), dies, path);
    let resumed = resume(dir.path(), &segment, "-o elsewhere");
    assert_eq!(resumed.code(), Some(0), "{}", resumed.told);
    assert!(!dir.path().join("part").exists());
    let read = |name: &str| fs::read(dir.path().join(name)).expect("a part");
    assert!(read("elsewhere") == read("whole"), "other bytes");
}

#[test]
fn of_several_files_none_appears_before_all_are_safe() {
    for nth in 1..=3 {
        let engine = leader().words("-q --all -k 9 -j 1 --summary-json summary --histogram histogram -o out");
        let engine = engine.words(&format!("--inject output.synced:leader:nth={nth}:kill"));
        let ended = engine.arg(relation().path()).run().ends_by(Signal::SIGKILL);
        let left: Vec<_> = fs::read_dir(ended.dir.path()).expect("there").flatten().collect();
        assert!(left.is_empty(), "{ended}{left:?}");
    }
}

/// The leader writes it while others drain, so everybody may die over it.
#[test]
fn a_dense_file_is_whole_whoever_dies_while_it_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = "--all -k 21 -j 2 --unit-blocks 1 --stripe-bits 6 --dense d";
    let peace = run(dir.path(), &words("-q --all -k 21 -j 2 -o peace", &relation().path()), |_| ());
    assert_eq!(peace.code(), Some(0), "{}", peace.told);
    let check = |what: &str| {
        let dumped = leader().arg("dump").arg(dir.path().join("d")).run().exits(0);
        assert!(dumped.stdout == fs::read(dir.path().join("peace")).expect("there"), "{what}: {dumped}");
        fs::remove_file(dir.path().join("d")).expect("there");
    };
    // The last of them is slow, so that the leader has written what it can by then; alone it has to drain as well.
    for faults in [
        "--inject drain.published:worker=0:nth=3:kill --inject drain.built:worker=1:nth=9:kill",
        "--inject drain.claimed:worker=0:nth=30:delay=100",
        "--on-worker-death degrade --inject drain.claimed:worker=0:nth=2:kill --inject drain.claimed:worker=1:nth=2:kill",
    ] {
        let end =
            run(dir.path(), &words(&format!("-q -o out {options} {faults}"), &relation().path()), |_| ());
        assert_eq!(end.code(), Some(0), "{}", end.told);
        check(faults);
    }
    for point in ["drain.opened", "leader.wait:nth=2", "drain.settled", "report.begin"] {
        let text =
            format!("-o out {options} --inject drain.published:nth=all:delay=2 --inject {point}:leader:kill");
        let (_, segment) = killed(dir.path(), &text, &relation().path());
        let left: Vec<_> =
            fs::read_dir(dir.path()).expect("there").flatten().map(|e| e.file_name()).collect();
        assert!(!left.iter().any(|name| name == "d"), "{left:?}");
        let again = resume(dir.path(), &segment, "");
        assert_eq!(again.code(), Some(0), "{}", again.told);
        check(point);
    }
    // A disk that is full is told at once.
    let full = run(
        dir.path(),
        &words(&format!("-q -o out {options}").replace("dense d", "dense /dev/full"), &relation().path()),
        |_| (),
    );
    assert_eq!(full.code(), Some(1), "{}", full.told);
    assert!(full.stderr.contains("could not write file \"/dev/full\""), "{}", full.told);
}

/// With --count-only nothing but a pass's own tables has to fit; where they do not after all, there are more passes.
#[test]
fn every_kmer_may_be_written_with_little_memory() {
    // No k-mer comes twice, so that tables are as large as can be.
    let dir = tempfile::tempdir().expect("a directory");
    let rows = dir.path().join("rows.fa");
    fs::write(&rows, fasta(9, &[300; 1500])).expect("written");
    let whole = leader().words("-q -k 21 -j 1 --all").arg(&rows).run().exits(0);
    let written = |options: &str| {
        let words = format!("-k 21 --all --count-only --dense d.kmd {options}");
        let ended = leader().words(&words).arg(&rows).keeps("d.kmd").run();
        if ended.status.code() == Some(1) {
            return Err(ended.fails(1, &[" is full: expected ", "--memory"]));
        }
        let ended = ended.exits(0);
        let dumped = leader().arg("dump").arg(ended.dir.path().join("d.kmd")).run().exits(0);
        assert!(dumped.stdout == whole.stdout, "{ended}{dumped}");
        Ok(ended)
    };
    assert!(written("-j 2 --pass-bits 2").is_ok());
    let sizes = [700, 1600, 2000, 3000, 4000, 6000, 8000, 12_000, 16_000];
    let ended: Vec<_> = sizes.iter().map(|size| written(&format!("-j 2 --memory {size}K"))).collect();
    let right = ended.iter().flatten().count();
    let anew =
        ended.iter().flatten().filter(|ended| ended.stderr.contains("the run begins anew, in ")).count();
    println!("{right} of {} right, of which {anew} began anew", ended.len());
    assert!(right >= 5 && anew > 0, "{right} right, {anew} began anew");
    // A pipe gets nothing before it is known that nothing has to be written anew.
    let script = "mkfifo pipe; cat pipe > d.kmd & \"$0\" -k 21 --all --count-only --dense pipe -j 2 --memory 3000K -o /dev/null \"$1\"; wait; rm pipe";
    let piped =
        Engine::new("sh".into()).arg("-c").arg(script).arg(bin("kmer-leader")).arg(&rows).keeps("d.kmd");
    let ended = piped.run().exits(0);
    println!("{ended}");
    let dumped = leader().arg("dump").arg(ended.dir.path().join("d.kmd")).run().exits(0);
    assert!(dumped.stdout == whole.stdout, "{ended}{dumped}");
    // What is there once is not read twice.
    let script = format!("\"$0\" -q -k 21 --all --count-only --memory 2M - < {}", rows.display());
    let once = Engine::new("sh".into()).arg("-c").arg(&script).arg(bin("kmer-leader")).run();
    let _ = once.fails(1, &["is full: expected", "or count a file: it can be read again"]);
}
