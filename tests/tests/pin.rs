//! Pinned results: what they answer, who may have the name, what deaths leave, and what altered bytes do.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use kmer_pin::{Pinned, Spec, Writer};
use kmer_tests::data::Rng;
use kmer_tests::engine::{Ended, Engine, bin, leader};
use kmer_tests::fault::{Small, run, segments_of};
use kmer_tests::oracle::spell;
use kmer_tests::pinned::PinName;

/// The lines of a report that are k-mers: letters, and the whole line.
fn kmers(ended: &Ended) -> Vec<(String, String)> {
    let lines = ended.text().lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| (line.split('\t').next().expect("letters").to_owned(), line.to_owned())).collect()
}

fn ask(book: &str, questions: &str) -> Engine {
    let engine = Engine::new("sh".into()).arg("-c").arg("\"$0\" lookup \"$1\" - < questions");
    let engine = engine.arg(bin("kmer-leader")).arg(book).keeps("questions");
    fs::write(engine.dir().join("questions"), questions).expect("written");
    engine
}

#[test]
fn a_pinned_result_answers_as_the_report_says() {
    let small = Small::new(60, 400);
    for (k, options) in [
        (7, "--all"),
        (16, "--all --pass-bits 1"),
        (14, "--all -b 4"),
        (21, "--all -b 2"),
        (32, "--all"),
        (16, "-R 0.01"),
        (12, "--top 50 --sort count"),
    ] {
        let (pin, words) = (PinName::new(), format!("{options} -k {k} -j 2"));
        let printed = leader().words(&words).arg(small.path()).run().exits(0);
        let engine = leader().words(&words).arg(small.path()).arg("--pin").arg(pin.name());
        // A dense file is of every k-mer over the threshold.
        let dense = if options.contains("--top") { "" } else { "--dense d.kmd" };
        let pinned = engine.words(dense).keeps("d.kmd").run().exits(0);
        assert!(pinned.stdout == printed.stdout, "{printed}{pinned}");
        let mode = fs::metadata(pin.path()).expect("the segment").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        if !options.contains("--sort") {
            let dumped = leader().words("dump").arg(pin.name()).run().exits(0);
            assert!(dumped.stdout == printed.stdout, "{printed}{dumped}");
        }
        let there = kmers(&printed);
        let mut rng = Rng::new(k);
        let mut questions: Vec<String> = there.iter().map(|(letters, _)| letters.clone()).collect();
        questions.dedup();
        questions.extend((0..500).map(|_| spell(rng.next_u64() & (!0 >> (64 - 2 * k)), k as usize)));
        let mut expected: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        there.iter().for_each(|(letters, line)| expected.entry(letters).or_default().push(line));
        let bits = if options.contains("-b 4") { 4 } else { 2 * u32::from(options.contains("-b 2")) };
        let opened = Pinned::open(pin.name()).expect("pinned");
        assert_eq!((opened.len(), opened.k()), (there.len() as u64, k as u32));
        let mut lines = String::new();
        for letters in &questions {
            let found = expected.get(letters.as_str());
            let absent = vec![format!(
                "{letters}\t{}\t0",
                kmer_pin::parse(letters, k as u32).expect("letters") << bits
            )];
            let found = found.map_or(absent, |lines| lines.iter().map(|line| (*line).to_owned()).collect());
            let count = found[0].rsplit('\t').next().expect("a count");
            assert_eq!(opened.count(letters).expect("sound").to_string(), count, "{letters}");
            found.iter().for_each(|line| lines += &format!("{line}\n"));
        }
        let answer = ask(pin.name(), &(questions.join("\n") + "\n")).run().exits(0);
        assert!(answer.text() == lines, "{words}{answer}");
        if !options.contains("--top") {
            // The file has the same answers, and takes lower case, blanks and a missing line end.
            let file = pinned.dir.path().join("d.kmd");
            let lower = questions.join(" \r\n").to_lowercase();
            let answer = ask(file.to_str().expect("plain"), &lower).run().exits(0);
            assert!(answer.text() == lines, "{words}{answer}");
        }
    }
}

#[test]
fn a_name_is_kept_until_it_is_removed() {
    let small = Small::new(61, 60);
    let (pin, words) = (PinName::new(), "-q --all --count-only -k 9");
    let pinning = || leader().words(words).arg(small.path()).arg("--pin").arg(pin.name());
    let _ = pinning().run().exits(0);
    let _ = pinning().words("-o out").run().fails(
        1,
        &[
            pin.name(),
            "expected none of that name yet, found one",
            "hint: ",
            "--replace",
            "segments --remove",
        ],
    );
    let (old, first) = (Pinned::open(pin.name()).expect("there"), fs::read(pin.path()).expect("bytes"));
    let rows = old.total_rows();
    // Another result in its place: who has the old one open keeps it.
    let _ = pinning().words("--replace --min-rows 2").run().exits(0);
    let new = Pinned::open(pin.name()).expect("there");
    assert!(new.len() < old.len() && new.threshold() == Some(1) && old.threshold().is_none());
    assert_eq!((old.total_rows(), new.total_rows()), (rows, rows));
    old.entries(|_, count| assert!(count > 0)).expect("still whole");
    assert!(first != fs::read(pin.path()).expect("bytes"));

    // It is listed, and no sweep takes it.
    let _ = leader().words("segments --gc").run().exits(0);
    let listed = leader().arg("segments").run().exits(0);
    let told = format!("{} k-mers of k=9, kept by --pin {}", new.len(), pin.name());
    assert!(listed.text().contains(&told), "{listed}");
    let removed = leader().words("segments --remove").arg(pin.name()).run().exits(0);
    assert_eq!(removed.text(), format!("removed kmer.pin.{}\n", pin.name()));
    new.entries(|_, _| ()).expect("who has it open keeps it");
    let _ = leader().arg("lookup").arg(pin.name()).arg("ACGTACGTA").run().fails(
        1,
        &[pin.name(), "expected a pinned one or a file, found neither", "hint: kmer-leader segments lists"],
    );
    let _ = leader()
        .words("segments --remove")
        .arg(pin.name())
        .run()
        .fails(1, &["expected one of yours, found none"]);

    for bad in ["a/b", "", "x y"] {
        let _ = leader()
            .words(words)
            .arg(small.path())
            .arg("--pin")
            .arg(bad)
            .run()
            .fails(2, &["--pin", "letters, digits"]);
    }
    let _ = leader()
        .words(words)
        .arg(small.path())
        .arg("--replace")
        .run()
        .fails(2, &["--replace", "--save or --pin"]);
}

/// Who takes a name back must find it his own.
#[test]
fn a_name_that_another_took_meanwhile_stays_the_other_s() {
    let ready = |k: u32, count: u32| {
        let mut writer = Writer::create(&Spec { entries: 1, ..Spec::new(k) }).expect("room");
        writer.put(5, count).expect("announced");
        writer.finish().expect("whole")
    };
    for there_before in [false, true] {
        let pin = PinName::new();
        if there_before {
            ready(9, 1).pin(pin.name(), false).expect("free");
        }
        let mine = ready(9, 2).pin_for_now(pin.name(), there_before).expect("free, or to be replaced");
        ready(9, 3).pin(pin.name(), true).expect("to be replaced");
        drop(mine);
        let left = Pinned::open(pin.name()).and_then(|pinned| pinned.count_key(5));
        assert_eq!(left.ok(), Some(3), "there before: {there_before}");
        // Without another it is as before.
        drop(ready(9, 4).pin_for_now(pin.name(), true).expect("to be replaced"));
        let left = Pinned::open(pin.name()).and_then(|pinned| pinned.count_key(5));
        assert_eq!(left.ok(), Some(3), "there before: {there_before}");
    }
}

/// The list is what people ask for when something went wrong: what others do to a file at this moment must not end it.
#[test]
fn a_file_that_is_cut_off_meanwhile_does_not_end_the_list() {
    let (pin, (good, _)) = (PinName::new(), made(31, 3000));
    pin.plant(&good);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                pin.plant(&good);
            }
        });
        for _ in 0..200 {
            let listed = Command::new(bin("kmer-leader")).arg("segments").output().expect("started");
            if !listed.status.success() {
                done.store(true, Ordering::Relaxed);
                panic!("ended by {}", listed.status);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn questions_that_are_none() {
    let small = Small::new(62, 30);
    let pin = PinName::new();
    let _ =
        leader().words("-q --all -k 9 --count-only --pin").arg(pin.name()).arg(small.path()).run().exits(0);
    for (letters, words) in [
        ("ACGT", "expected 9 letters of A, C, G, T, found 4 letters"),
        ("ACGTACGTN", "expected 9 letters of A, C, G, T, found 'N' at 9"),
        ("ACGT\u{e9}CGTA", "found '\u{e9}' at 5"),
    ] {
        let _ = leader().arg("lookup").arg(pin.name()).arg(letters).run().fails(1, &[words]);
        let _ = ask(pin.name(), &format!("ACGTACGTA\n{letters}\n")).run().fails(1, &[words]);
    }
    let long = "A".repeat(300_000);
    let _ = ask(pin.name(), &long).run().fails(1, &["one k-mer a line"]);
    assert_eq!(ask(pin.name(), "").run().exits(0).text(), "");
}

#[test]
fn either_strand_may_be_asked_for() {
    let small = Small::new(68, 100);
    let pin = PinName::new();
    let counted = leader().words("-q --all -k 12 --canonical --count occurrences --pin").arg(pin.name());
    let counted = counted.arg(small.path()).run().exits(0);
    let dumped = leader().arg("dump").arg(pin.name()).run().exits(0);
    assert!(dumped.stdout == counted.stdout, "{counted}{dumped}");
    let opened = Pinned::open(pin.name()).expect("pinned");
    assert!(opened.canonical());
    for (letters, line) in kmers(&counted).iter().step_by(7) {
        let other: String = letters
            .chars()
            .rev()
            .map(|c| match c {
                'A' => 'T',
                'C' => 'G',
                'G' => 'C',
                _ => 'A',
            })
            .collect();
        let count: u32 = line.rsplit('\t').next().expect("a count").parse().expect("a number");
        assert_eq!(opened.count(letters).expect("sound"), count);
        assert_eq!(opened.count(&other).expect("sound"), count);
    }
}

/// Several processes at once read one segment; all get the same.
#[test]
fn several_processes_share_one_result() {
    let small = Small::new(63, 300);
    let pin = PinName::new();
    let printed = leader().words("-q --all -k 16 --pin").arg(pin.name()).arg(small.path()).run().exits(0);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let questions: String = kmers(&printed).iter().map(|(letters, _)| format!("{letters}\n")).collect();
    fs::write(file.path(), questions).expect("written");
    let asking = || {
        let mut command = Command::new(bin("kmer-leader"));
        command.arg("lookup").arg(pin.name()).arg("-").stdin(fs::File::open(file.path()).expect("a file"));
        command.stdout(Stdio::piped()).spawn().expect("kmer-leader starts")
    };
    let expected: String = kmers(&printed).iter().map(|(_, line)| format!("{line}\n")).collect();
    let all: Vec<_> = (0..4).map(|_| asking()).collect();
    for child in all {
        let Output { status, stdout, .. } = child.wait_with_output().expect("ended");
        assert!(status.success() && stdout == expected.as_bytes());
    }
}

/// Objects in shared memory that a process made.
fn made_by(pid: u32) -> Vec<String> {
    let listed = shm_layout::takeover::list(None).expect("shared memory");
    listed.into_iter().filter(|found| found.leader == pid).map(|found| found.name).collect()
}

#[test]
fn a_leader_that_dies_while_it_pins_leaves_nothing_that_can_be_opened() {
    let small = Small::new(64, 60);
    let dir = tempfile::tempdir().expect("a directory");
    let pinning = |pin: &PinName, rule: &str| {
        let words = format!("-q -j 0 --all -k 11 -o out --pin {} --inject {rule}", pin.name());
        let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        args.push(small.path().to_string_lossy().into_owned());
        run(dir.path(), &args, |_| ())
    };
    // The second segment that a leader makes is the one to be pinned.
    for point in [
        "create.header:nth=2",
        "create.named:nth=2",
        "create.filled:nth=2",
        "create.published:nth=2",
        "pin.filled",
    ] {
        let pin = PinName::new();
        let end = pinning(&pin, &format!("{point}:kill"));
        assert_eq!(end.signal(), Some(9), "{}", end.told);
        assert!(!pin.path().exists() && !dir.path().join("out").exists(), "{}", end.told);
        assert!(Pinned::open(pin.name()).is_err());
        let left = made_by(end.pid);
        // It gets its name when its header is whole; from then on another run may sweep it.
        assert!(left.len() <= usize::from(!point.starts_with("create.header")), "{left:?} {}", end.told);
        for name in &left {
            let asked = leader().arg("lookup").arg(name).arg("ACGTACGTACG").run();
            let _ = asked.fails(1, &["found neither"]);
        }
        // The next run with that name removes what was left and has it.
        let end = pinning(&pin, "finished:leader:delay=1");
        assert_eq!(end.code(), Some(0), "{}", end.told);
        assert!(left.iter().all(|name| !PathBuf::from(format!("/dev/shm/{name}")).exists()), "{left:?}");
        assert!(Pinned::open(pin.name()).is_ok());
        fs::remove_file(dir.path().join("out")).expect("the output");
    }
    // Errors take it away again; behind its renaming it is whole, whatever becomes of its leader.
    for (rule, pinned) in [
        ("pin.filled:error", false),
        ("pin.named:error", false),
        ("output.synced:error", false),
        ("pin.named:kill", true),
    ] {
        let pin = PinName::new();
        let end = pinning(&pin, rule);
        assert_eq!(end.code().is_none(), pinned, "{}", end.told);
        assert_eq!(Pinned::open(pin.name()).is_ok(), pinned, "{rule}");
        assert!(!dir.path().join("out").exists(), "{}", end.told);
        assert!(
            made_by(end.pid).iter().all(|name| *name == format!("kmer.pin.{}", pin.name())),
            "{}",
            end.told
        );
    }
}

#[test]
fn a_run_that_pins_is_resumed() {
    let small = Small::new(65, 60);
    let dir = tempfile::tempdir().expect("a directory");
    for point in ["collect.begin", "pin.filled", "pin.named"] {
        let pin = PinName::new();
        let words = format!(
            "-q -j 1 --all -k 11 --resumable -o out --replace --pin {} --inject {point}:leader:kill",
            pin.name()
        );
        let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        args.push(small.path().to_string_lossy().into_owned());
        let end = run(dir.path(), &args, |_| ());
        let segment = segments_of(end.pid).pop().unwrap_or_else(|| panic!("{}", end.told));
        let again = run(dir.path(), &["resume", &segment, "-q"], |_| ());
        assert_eq!(again.code(), Some(0), "{point}: {}", again.told);
        let dumped = leader().arg("dump").arg(pin.name()).run().exits(0);
        assert!(dumped.stdout == fs::read(dir.path().join("out")).expect("the output"), "{point}");
        assert!(made_by(end.pid).iter().all(|name| name.starts_with("kmer.pin.")), "{point}");
        let _ = leader().words("segments --gc").run().exits(0);
    }
}

/// A result of `n` random keys, its bytes and what is in it.
fn made(k: u32, n: u64) -> (Vec<u8>, BTreeMap<u64, u32>) {
    let mut rng = Rng::new(u64::from(k));
    let mask = !0 >> (64 - 2 * k);
    let entries: BTreeMap<u64, u32> =
        (0..n).map(|_| (rng.next_u64() & mask, 1 + rng.below(1000) as u32)).collect();
    let spec = Spec { entries: entries.len() as u64, facts: "# k\n".into(), ..Spec::new(k) };
    let mut writer = Writer::create(&spec).expect("room");
    entries.iter().for_each(|(key, count)| writer.put(*key, *count).expect("announced"));
    let pin = PinName::new();
    writer.finish().expect("whole").pin(pin.name(), false).expect("pinned");
    (fs::read(pin.path()).expect("bytes"), entries)
}

/// Opens and asks for everything: an error, or what is right.
fn right_or_error(pin: &PinName, entries: &BTreeMap<u64, u32>) -> Result<(), kmer_pin::Error> {
    let opened = Pinned::open(pin.name())?;
    let keys: Vec<u64> = entries.keys().flat_map(|key| [*key, key ^ 1]).collect();
    let mut first = None;
    for key in &keys {
        match opened.count_key(*key) {
            Ok(count) => assert_eq!(count, entries.get(key).copied().unwrap_or(0), "key {key}"),
            Err(e) => first = first.or(Some(e)),
        }
    }
    let mut counts = Vec::new();
    opened.count_all(&keys, &mut counts)?;
    let mut found = BTreeMap::new();
    opened.entries(|key, count| {
        found.insert(key, count);
    })?;
    assert!(first.is_none(), "one key alone is wrong: {first:?}");
    assert_eq!(&found, entries);
    Ok(())
}

#[test]
fn every_altered_byte_is_an_error() {
    let pin = PinName::new();
    for (k, n) in [(15, 200), (31, 200)] {
        let (good, entries) = made(k, n);
        pin.plant(&good);
        right_or_error(&pin, &entries).expect("as it was written");
        let mut rng = Rng::new(66);
        for at in 0..good.len() {
            let mut altered = good.clone();
            altered[at] ^= 1 << rng.below(8);
            pin.plant(&altered);
            assert!(right_or_error(&pin, &entries).is_err(), "k {k}: byte {at} of {} passed", good.len());
        }
        println!("k {k}: {} bytes", good.len());
    }
}

#[test]
fn other_bytes_are_an_error() {
    let pin = PinName::new();
    let (good, entries) = made(31, 3000);
    let mut rng = Rng::new(67);
    for round in 0..400 {
        let mut bytes = good.clone();
        match round % 4 {
            0 => bytes.truncate(rng.below(good.len())),
            1 => (0..50).for_each(|_| bytes[rng.below(good.len())] = rng.next_u64() as u8),
            2 => {
                // A word of the header or the table of contents, with a number that somebody might like.
                let at = 8 * rng.below(520);
                let word = [0, 1, u64::MAX, 1 << 63, good.len() as u64, rng.next_u64()][rng.below(6)];
                bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
            }
            _ => {
                // Two buckets in each other's place.
                let (a, b) =
                    (good.len() - 64 * (1 + rng.below(500)), good.len() - 64 * (501 + rng.below(200)));
                bytes.copy_within(a..a + 64, b);
                bytes[a..a + 64].copy_from_slice(&good[b..b + 64]);
            }
        }
        pin.plant(&bytes);
        assert!(bytes == good || right_or_error(&pin, &entries).is_err(), "round {round} passed");
    }
    // From the outside: an error of the usual form, no crash.
    let letters = spell(*entries.keys().next().expect("a key"), 31);
    let lookup = || leader().arg("lookup").arg(pin.name()).arg(&letters).run();
    for bytes in [&good[..9000], b"not a segment", &[0u8; 20_000]] {
        pin.plant(bytes);
        let _ = lookup().fails(1, &["kmer.pin.", "expected"]);
        let listed = leader().arg("segments").run().exits(0);
        assert!(listed.text().contains(pin.name()), "{listed}");
    }
    pin.plant(&good);
    fs::set_permissions(pin.path(), PermissionsExt::from_mode(0o644)).expect("ours");
    let _ = lookup().fails(1, &["mode", "expected a file of mode 600"]);
    let removed = leader().words("segments --remove").arg(pin.name()).run();
    assert_eq!(removed.exits(0).text(), format!("removed kmer.pin.{}\n", pin.name()));
}
