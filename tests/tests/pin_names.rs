//! Who has the name of a pinned result: results that look alike, runs that replace each other and fail, and what is no result at all.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use kmer_pin::{Error, Spec, Writer};
use kmer_tests::data::Rng;
use kmer_tests::engine::{Engine, bin, leader};
use kmer_tests::fault::{run, segments_of};
use kmer_tests::pinned::PinName;

/// So many copies of one read.
fn copies(path: &Path, seed: u64) {
    let letters = Rng::new(seed).letters("ACGT", 60);
    fs::write(path, format!(">r\n{letters}\n").repeat(40)).expect("written");
}

/// Both results have equally many k-mers in equally many rows.
#[test]
fn a_resumed_run_knows_its_own_result_by_its_kmers() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mine, other) = (dir.path().join("a.fa"), dir.path().join("b.fa"));
    copies(&mine, 81);
    copies(&other, 82);
    let pin = PinName::new();
    let words =
        format!("-q -k 16 --top 30 --resumable -o out --pin {} --inject pin.filled:leader:kill", pin.name());
    let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    args.push(mine.to_string_lossy().into_owned());
    let end = run(dir.path(), &args, |_| ());
    let segment = segments_of(end.pid).pop().unwrap_or_else(|| panic!("{}", end.told));
    let _ = leader().words("-q -k 16 --top 30 --count-only --pin").arg(pin.name()).arg(&other).run().exits(0);
    let dump = || leader().arg("dump").arg(pin.name()).run().exits(0).stdout.clone();
    let theirs = dump();
    let again = run(dir.path(), &["resume", &segment, "-q"], |_| ());
    assert_eq!(again.code(), Some(1), "{}", again.told);
    assert!(again.told.contains("it is another result"), "{}", again.told);
    assert_eq!(dump(), theirs);
    // As the hint says.
    let _ = leader().words("segments --remove").arg(pin.name()).run().exits(0);
    let again = run(dir.path(), &["resume", &segment, "-q"], |_| ());
    assert_eq!(again.code(), Some(0), "{}", again.told);
    assert_eq!(dump(), fs::read(dir.path().join("out")).expect("the output"));
    assert_ne!(dump(), theirs);
}

#[test]
fn a_pinned_result_is_no_run() {
    let (dir, pin) = (tempfile::tempdir().expect("a directory"), PinName::new());
    let input = dir.path().join("a.fa");
    copies(&input, 86);
    let _ = leader().words("-q -k 16 --count-only --pin").arg(pin.name()).arg(&input).run().exits(0);
    let object = format!("kmer.pin.{}", pin.name());
    for name in [pin.name(), &object, &pin.path().to_string_lossy()] {
        for command in ["status", "resume"] {
            let ended = leader().arg(command).arg(name).run();
            let _ =
                ended.fails(1, &["expected one of a run, found a pinned result", "lookup, dump and inspect"]);
        }
    }
    // What cannot be said is not done either.
    let script = r#"exec "$1" segments --remove "$2" >&-"#;
    let shell =
        Engine::new("bash".into()).args(["-c", script, "bash"]).arg(bin("kmer-leader")).arg(pin.name());
    let _ = shell.run().fails(1, &["standard output: expected it to be open, found it closed"]);
    assert!(pin.path().exists(), "it was removed without a word");
}

/// The second takes the name while the first may still fail, as it does; whichever of them ends first.
#[test]
fn two_that_replace_a_result_and_fail_give_it_back() {
    for delays in [(1500, 2500), (2500, 700)] {
        let (dir, pin) = (tempfile::tempdir().expect("a directory"), PinName::new());
        let input = dir.path().join("a.fa");
        copies(&input, 83);
        let pins = |k: u32| {
            let words = format!("-q --all -k {k} --pin {} --replace", pin.name());
            leader().words(&words).arg(&input)
        };
        let _ = pins(12).arg("--count-only").run().exits(0);
        let dump = || leader().arg("dump").arg(pin.name()).run().exits(0).stdout.clone();
        let old = dump();
        let fails = |k: u32, delay: u32| {
            let engine = pins(k).words("-o out").keeps("out");
            fs::write(engine.dir().join("out"), "old").expect("written");
            let words =
                format!("--inject pin.named:leader:delay={delay} --inject output.linked:leader:error");
            engine.words(&words).spawn()
        };
        let first = fails(16, delays.0);
        thread::sleep(Duration::from_millis(500));
        let second = fails(21, delays.1);
        for run in [first, second] {
            let ended = run.wait().exits(1);
            assert!(ended.stderr.contains("output.linked"), "{ended}");
        }
        assert!(dump() == old, "{delays:?}: another result has the name");
    }
}

#[test]
fn what_is_no_result_is_not_replaced() {
    let (dir, pin) = (tempfile::tempdir().expect("a directory"), PinName::new());
    let input = dir.path().join("a.fa");
    copies(&input, 84);
    let pins =
        |more: &str| leader().words("-q --all -k 12 --pin").arg(pin.name()).words(more).arg(&input).run();
    fs::create_dir(pin.path()).expect("made");
    let _ = pins("")
        .fails(1, &["expected none of that name yet", "it is no segment of yours: choose another name"]);
    let _ = pins("--replace").fails(1, &["could not replace", pin.name(), "directory"]);
    assert!(pin.path().is_dir());
    fs::remove_dir(pin.path()).expect("empty");
    let ended = pins("--replace").exits(0);
    assert!(pin.path().is_file(), "{ended}");
}

/// Its own bytes would be gone before they are written.
#[test]
fn a_pinned_result_is_not_written_over_itself() {
    let (dir, pin) = (tempfile::tempdir().expect("a directory"), PinName::new());
    let input = dir.path().join("a.fa");
    copies(&input, 85);
    let _ = leader().words("-q --all -k 12 --count-only --pin").arg(pin.name()).arg(&input).run().exits(0);
    let before = fs::read(pin.path()).expect("there");
    for command in ["dump", "inspect"] {
        let ended = leader().arg(command).arg(pin.name()).arg("-o").arg(pin.path()).run();
        let _ = ended.fails(2, &["-o", "found that of the input"]);
    }
    assert!(fs::read(pin.path()).expect("there") == before);
    // All questions are answered, or none.
    let ended = leader().arg("lookup").arg(pin.name()).args(["ACGTACGTACGT", "ACGTACGTACGTA"]).run();
    assert!(ended.fails(1, &["ACGTACGTACGTA"]).stdout.is_empty());
    // Of standard input those before the one that is none.
    let asked = dir.path().join("asked");
    fs::write(&asked, "ACGTACGTACGT\nAAAAAAAAAAAA\nACGTACGTACGTA\n").expect("written");
    let ended =
        leader().arg("lookup").arg(pin.name()).arg("-").stdin(fs::File::open(&asked).expect("there")).run();
    assert_eq!(ended.fails(1, &["line 3"]).text().lines().count(), 2);
}

#[test]
fn names_that_others_would_misread_are_refused() {
    for name in ["-x", "kmer.pin.-x", "kmer.pin.kmer.pin.x", "kmer.pin.", "a/b"] {
        let ended = leader().arg(format!("--pin={name}")).arg("nofile").run();
        let _ = ended.fails(2, &["--pin", "letters, digits"]);
    }
}

#[test]
fn a_key_that_is_put_twice_is_an_error() {
    for k in [15, 31] {
        let spec = Spec { entries: 300, ..Spec::new(k) };
        let mut writer = Writer::private(&spec).expect("memory");
        let put = (0..299).try_for_each(|key| writer.put(key, 1)).and_then(|()| writer.put(77, 2));
        let found = put.and_then(|()| writer.finish().map(drop));
        assert!(matches!(found, Err(Error::Entries { .. })), "k {k}: {found:?}");
    }
}
