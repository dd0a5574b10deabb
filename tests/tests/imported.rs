//! What an import leaves when it fails, is ended or is killed, and what it takes for FASTA and FASTQ: the same as who counts the files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use kmer_tests::engine::{Ended, Engine, bin, leader};
use kmer_tests::fault::within;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;

/// One long record, so that there is a TOAST file, and one short one.
fn fasta(letter: &str, length: usize) -> String {
    format!(">long\n{}\n>short\nACGT\n", letter.repeat(length))
}

/// A directory with `long.fa`, `other.fa` and `short.fa`.
fn inputs() -> TempDir {
    let dir = tempfile::Builder::new().prefix("ki").tempdir().expect("a directory");
    for (name, text) in [
        ("long.fa", fasta("AC", 20_000)),
        ("other.fa", fasta("GT", 30_000)),
        ("short.fa", ">short\nACGTAC\n".to_owned()),
    ] {
        fs::write(dir.path().join(name), text).expect("written");
    }
    dir
}

fn import(dir: &Path, input: &str, output: &str) -> Engine {
    leader().arg("import").arg(dir.join(input)).arg("-o").arg(dir.join(output))
}

/// All files but the inputs.
fn made(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("the directory").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let names = names.filter(|name| !name.ends_with(".fa") && !name.ends_with(".fq"));
    names.map(|name| (name.clone(), fs::read(dir.join(name)).unwrap_or_default())).collect()
}

/// The lines of a count of all 4-mers of a relation or a sequence file.
fn counted(path: &Path) -> Ended {
    leader().words("-q --all -k 4 -j 0").arg(path).run()
}

fn rows(ended: &Ended) -> String {
    ended.text().lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// Runs `kmer-leader` under strace, which sends it `signal` as it is about to change a name for the `nth` time. `None` without strace.
fn struck(signal: &str, nth: usize, args: &[&str], dir: &Path) -> Option<Engine> {
    let strace = Path::new("/usr/bin/strace");
    if !strace.exists() {
        eprintln!("not tested: there is no strace");
        return None;
    }
    let rule = format!("inject=linkat,rename,unlink:signal={signal}:when={nth}");
    let engine = Engine::new(strace.into()).words("-f -o /dev/null -e trace=linkat,rename,unlink -e");
    let script = "cd \"$1\"; shift; exec \"$@\"";
    let engine = engine.arg(rule).args(["sh", "-c", script, "sh"]).arg(dir).arg(bin("kmer-leader"));
    Some(engine.args(args))
}

#[test]
fn a_forced_import_that_is_refused_touches_nothing() {
    let dir = inputs();
    let _ = import(dir.path(), "long.fa", "out").run().exits(0);
    for stray in ["out.1", "out.3"] {
        fs::write(dir.path().join(stray), "stray\n").expect("written");
        let before = made(dir.path());
        let forced = import(dir.path(), "short.fa", "out").arg("--force").run();
        let _ = forced.fails(1, &[stray, "expected none behind", "hint: move it away"]);
        assert!(made(dir.path()) == before, "{stray}");
        fs::remove_file(dir.path().join(stray)).expect("removed");
    }
    fs::create_dir(dir.path().join("there")).expect("made");
    symlink("out", dir.path().join("link")).expect("made");
    let before = made(dir.path());
    for (output, word) in [("there", "name a file in it"), ("link", "a symbolic link")] {
        let _ = import(dir.path(), "short.fa", output).arg("--force").run().fails(1, &[output, word]);
    }
    assert!(made(dir.path()) == before);
    let _ = import(dir.path(), "short.fa", "out").arg("--force").run().exits(0);
    assert!(made(dir.path()).keys().eq(["link", "out", "out.schema", "there"].iter()));
}

#[test]
fn a_forced_import_that_finds_no_room_touches_nothing() {
    let dir = inputs();
    let _ = import(dir.path(), "long.fa", "out").run().exits(0);
    let before = made(dir.path());
    // No file may grow to more than 16 KiB.
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"";
    let engine =
        Engine::new("bash".into()).arg("-c").arg(script).arg(bin("kmer-leader")).words("import --type dna4");
    let engine = engine.arg(dir.path().join("other.fa")).arg("--force").arg("-o").arg(dir.path().join("out"));
    let _ = engine.run().fails(1, &["out.toast", "File too large"]);
    assert!(made(dir.path()) == before);
}

#[test]
fn a_signal_while_files_get_their_names_comes_too_late() {
    for force in [false, true] {
        for (signal, nth) in [("TERM", 1), ("INT", 2), ("HUP", 3), ("TERM", 5), ("HUP", 7)] {
            let dir = inputs();
            if force {
                let _ = import(dir.path(), "long.fa", "out").run().exits(0);
            }
            let mut args = vec!["import", "other.fa", "-o", "out"];
            args.extend(force.then_some("--force"));
            let Some(engine) = struck(signal, nth, &args, dir.path()) else { return };
            let _ = engine.run().exits(0);
            let whole = made(dir.path());
            let _ = import(dir.path(), "other.fa", "out").arg("--force").run().exits(0);
            assert!(made(dir.path()) == whole, "{signal} at {nth}");
        }
    }
}

#[test]
fn an_import_that_is_killed_leaves_the_old_relation_or_the_new_one_or_none() {
    let dir = inputs();
    let expected = ["long.fa", "other.fa"].map(|input| rows(&counted(&dir.path().join(input)).exits(0)));
    let mut ends = [0; 3];
    for force in [false, true] {
        for nth in 1.. {
            let dir = inputs();
            let mut old = BTreeMap::new();
            if force {
                let _ = import(dir.path(), "long.fa", "out").run().exits(0);
                old = made(dir.path());
            }
            let mut args = vec!["import", "other.fa", "-o", "out"];
            args.extend(force.then_some("--force"));
            let Some(engine) = struck("KILL", nth, &args, dir.path()) else { return };
            let ended = engine.run();
            if ended.status.success() {
                break;
            }
            let ended = ended.ends_by(Signal::SIGKILL);
            let counted = counted(&dir.path().join("out"));
            if counted.status.success() {
                let found = expected.iter().position(|rows_of| *rows_of == rows(&counted));
                ends[found.unwrap_or_else(|| panic!("{ended}{counted}another relation"))] += 1;
            } else {
                let _ = counted.fails(1, &["out", "No such file"]);
                ends[2] += 1;
            }
            // What is left is no obstacle, and the old one is back, or the new one stays.
            let next = import(dir.path(), "other.fa", "out").run();
            let files = made(dir.path());
            assert!(!files.keys().any(|name| name.starts_with('.')), "{nth}: {:?}", files.keys());
            if !next.status.success() {
                let _ = next.fails(1, &["\"", "out\": exists already", "use --force to replace it"]);
                let found = rows(&self::counted(&dir.path().join("out")).exits(0));
                assert!(files == old || found == expected[1], "{nth}");
            }
        }
    }
    assert!(ends.iter().all(|count| *count > 0), "{ends:?}");
}

/// Where the file system has no files without a name, as strace has it here, they have temporary ones while a signal is waited for.
#[test]
fn a_signal_leaves_nothing_where_files_have_names_from_the_start() {
    let (dir, out) = (inputs(), tempfile::tempdir().expect("a directory"));
    let strace = Path::new("/usr/bin/strace");
    if !strace.exists() {
        eprintln!("not tested: there is no strace");
        return;
    }
    let pipe = dir.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).expect("made");
    for is_written in [false, true] {
        let engine = Engine::new(strace.into()).words("-f -o /dev/null -P").arg(out.path());
        let engine =
            engine.words("-e trace=openat -e inject=openat:error=EOPNOTSUPP").arg(bin("kmer-leader"));
        let engine = engine.arg("import").arg(&pipe).arg("-o").arg(out.path().join("out"));
        let running = engine.spawn();
        let writer = is_written.then(|| {
            let writer = fs::OpenOptions::new().write(true).open(&pipe).expect("somebody reads");
            std::io::Write::write_all(&mut &writer, b">a\nACGT").expect("there is room");
            writer
        });
        let pid = || {
            let names = made(out.path());
            names.keys().next()?.strip_prefix(".out.")?.split('-').next()?.parse().ok()
        };
        assert!(within(Duration::from_secs(20), || pid().is_some()), "no temporary name");
        // So that it waits for input.
        sleep(Duration::from_millis(300));
        kill(Pid::from_raw(pid().expect("it was there")), Signal::SIGTERM).expect("it runs");
        let _ = running.wait().ends_by(Signal::SIGTERM);
        drop(writer);
        assert!(made(out.path()).is_empty());
    }
}

#[test]
fn who_may_read_the_old_files_may_read_the_new_ones() {
    let dir = inputs();
    let _ = import(dir.path(), "short.fa", "out").run().exits(0);
    for name in ["out", "out.schema"] {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o600)).expect("ours");
    }
    let _ = import(dir.path(), "long.fa", "out").arg("--force").run().exits(0);
    for name in ["out", "out.schema", "out.toast"] {
        let meta = fs::metadata(dir.path().join(name)).expect("it is there");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn what_is_counted_is_imported_and_what_is_refused_is_refused() {
    let dir = inputs();
    for (text, good) in [
        (">a\nACG\rTACG\n", false),
        (">a\nACGT\r\r\nACGT\r\n", false),
        ("@a\nACGT\rACGT\n+\nIIIIIIIII\n", false),
        (">a\nACGT\r\nACGT\r", true),
        ("@a\nACGT\n+\nIIII\n\n@b\nACGTT\n+\nIIIII\n\n\n\n", true),
        ("@a\nACGT\r\n+\r\nIIII\r\n\r\n@b\r\nACGTT\r\n+\r\nIIIII\r\n", true),
        ("@a\nACGT\n+\nIIII\n \n@b\nACGTT\n+\nIIIII\n", false),
        ("@a\nACGT\n\n+\nIIII\n", false),
    ] {
        let input = dir.path().join("x.fq");
        fs::write(&input, text).expect("written");
        let (counts, imported) = (counted(&input), import(dir.path(), "x.fq", "x").arg("--force").run());
        if good {
            let (counts, _) = (counts.exits(0), imported.exits(0));
            assert_eq!(rows(&counted(&dir.path().join("x")).exits(0)), rows(&counts), "{text:?}");
        } else {
            let _ = counts.fails(1, &["x.fq"]);
            let _ = imported.fails(1, &["x.fq", "record "]);
        }
    }
}

#[test]
fn a_record_with_an_invalid_letter_is_refused_wherever_that_stands() {
    let dir = inputs();
    for letters in ["ACGN-", "AC-GN", "NNNNNNNNN*"] {
        fs::write(dir.path().join("x.fa"), format!(">a\nACGT\n>b\n{letters}\n")).expect("written");
        let run = import(dir.path(), "x.fa", "x").arg("--skip-ambiguous").run();
        let _ = run.fails(1, &["record 2 \"b\"", "expected A, C, G or T, found"]);
    }
    assert!(made(dir.path()).is_empty());
}

#[test]
fn a_relation_of_any_name_is_counted() {
    let dir = inputs();
    let expected = rows(&counted(&dir.path().join("long.fa")).exits(0));
    for name in [" lead", "\tlead", "trail ", "#name", "a = b", "\"quoted\""] {
        let _ = import(dir.path(), "long.fa", name).run().exits(0);
        assert_eq!(rows(&counted(&dir.path().join(name)).exits(0)), expected, "{name:?}");
    }
    let before = made(dir.path());
    let _ = import(dir.path(), "long.fa", "two\nlines").run().fails(1, &["expected a name of one line"]);
    assert!(made(dir.path()) == before);
}

#[test]
fn standard_input_is_read_once() {
    let dir = inputs();
    let input = fs::File::open(dir.path().join("short.fa")).expect("it is there");
    let twice = leader().words("import - - -o").arg(dir.path().join("out")).stdin(input).run();
    let _ = twice.fails(2, &["-: expected standard input once, found it 2 times"]);
    let input = fs::File::open(dir.path().join("short.fa")).expect("it is there");
    let _ = leader().words("import - -o").arg(dir.path().join("out")).stdin(input).run().exits(0);
}
