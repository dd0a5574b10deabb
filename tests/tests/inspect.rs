//! `kmer-leader inspect`: the map of a live run's segment, of a crashed one's, of a pinned result; of altered ones an error.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use kmer_leader::inspect::{collect, html, text};
use kmer_tests::data::Rng;
use kmer_tests::engine::{bin, leader};
use kmer_tests::fault::{SMALL, Small, run, segments_of, within};
use kmer_tests::pinned::PinName;

/// Leaves the segment of a run whose leader was killed in `point`; `None` when another run has removed it already.
fn left(dir: &Path, small: &Small, words: &str, point: &str) -> Option<(String, u32)> {
    let words = format!("--all -k 21 -q -o out {words} --inject {point}:kill");
    let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    args.push(small.path().to_string_lossy().into_owned());
    let end = run(dir, &args, |_| ());
    assert_eq!(end.signal(), Some(9), "{}", end.told);
    Some((segments_of(end.pid).pop()?, end.pid))
}

/// The value of a field.
fn field<'a>(shown: &'a str, name: &str) -> Vec<&'a str> {
    let of = |line: &'a str| Some(line.strip_prefix(&format!("  {name} "))?.trim_start());
    shown.lines().filter_map(of).collect()
}

struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("/dev/shm/{}", self.0));
    }
}

#[test]
fn a_crashed_run_is_drawn_as_it_was_left() {
    let small = Small::new(80, 200);
    // Alone and not resumable: nobody is left who would remove the name. Three stripes are published, the fourth is claimed. Any other run that starts
    // meanwhile removes it, so it may take several tries to look at one.
    let looked = (0..50).find_map(|_| {
        let dir = tempfile::tempdir().expect("a directory");
        let (name, pid) = left(dir.path(), &small, &format!("-j 0 {SMALL}"), "drain.claimed:nth=4")?;
        let removed = Removed(name.clone());
        let before = fs::read(format!("/dev/shm/{name}")).ok()?;
        let shown = leader().arg("inspect").arg(&name).run();
        let by_path = leader().arg("inspect").arg(format!("/dev/shm/{name}")).run();
        let after = fs::read(format!("/dev/shm/{name}")).ok()?;
        // Nothing was changed by looking.
        assert!(before == after);
        assert!(by_path.exits(0).text() == shown.text());
        Some((name, pid, shown.exits(0), removed))
    });
    let (name, pid, shown, removed) = looked.expect("a segment that stays for a moment");
    let text = shown.text();
    assert!(text.starts_with(&format!("segment {name}\n orphan; phase Drain; ")), "{shown}");
    assert!(text.contains(&format!("led by process {pid}")), "{shown}");
    for (name, value) in [
        ("free, claimed", ["0, 0 ", "0, 1 "]),
        ("done, given up", ["", "3, 0 "]),
        ("a process leads it", ["no ", ""]),
        ("all_processed", ["true ", ""]),
        ("tables", ["3 ", ""]),
        ("stripes", ["4 ", ""]),
        ("kept", ["every key ", ""]),
        ("error_message", ["(none) ", ""]),
    ] {
        for (found, expected) in field(text, name).iter().zip(value) {
            assert!(found.starts_with(expected), "{name}: {found:?}, not {expected:?}: {shown}");
        }
        assert!(!field(text, name).is_empty(), "{name}: {shown}");
    }
    for line in ["= shm_toc (shm-layout/src/toc.rs)", "  0x4b4d0006 ", "stripe ", "dshash_table: "] {
        assert!(text.contains(line), "{line}: {shown}");
    }
    let cells =
        |letter| text.lines().filter(|l| l.starts_with("  |") && l.matches(letter).count() == 1).count();
    assert!(cells('+') == 1 && text.lines().any(|l| l.len() == 8 && l.matches('#').count() == 3), "{shown}");
    // Rows and k-mers are those of the run, and what is free and what is owned is all there is.
    let rows: u64 = text
        .lines()
        .filter(|line| line.contains(" Running "))
        .map(|line| line.split_whitespace().nth(6).expect("rows").parse::<u64>().expect("a number"))
        .sum();
    assert_eq!(rows, 200, "{shown}");
    let number = |name: &str| {
        let values = field(text, name);
        let value = values.iter().find(|value| value.starts_with(|c: char| c.is_ascii_digit())).expect(name);
        value.split([' ', ',']).next().expect("a number").parse::<u64>().expect("a number")
    };
    assert_eq!(number("owned") + number("free"), number("chunks"), "{shown}");
    drop(removed);
    let _ = leader().arg("inspect").arg(&name).run().fails(1, &[&name, "hint: kmer-leader segments"]);
}

#[test]
fn a_segment_that_has_no_head_yet_is_not_called_damaged() {
    let name = format!("kmer.{:032x}", (u128::from(std::process::id()) << 64) | 0x1d1e);
    let _removed = Removed(name.clone());
    let options =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(format!("/dev/shm/{name}"));
    options.and_then(|file| file.set_len(65536)).expect("made");
    let ended = leader().arg("inspect").arg(&name).run();
    let _ = ended.fails(1, &["found one that is being made or taken away", "look again in a moment"]);
}

#[test]
fn a_segment_in_a_file_is_drawn_too() {
    let (small, dir) = (Small::new(81, 200), tempfile::tempdir().expect("a directory"));
    let words = format!(
        "--all -k 21 -q -o out -j 0 {SMALL} --resumable --segment-dir . --inject drain.claimed:nth=4:kill"
    );
    let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    args.push(small.path().to_string_lossy().into_owned());
    run(dir.path(), &args, |_| ());
    let names = fs::read_dir(dir.path()).expect("readable").map(|entry| entry.expect("readable").file_name());
    let name = names.map(|name| name.to_string_lossy().into_owned()).find(|name| name.starts_with("kmer."));
    let name = name.expect("a segment");
    let shown = leader().args(["inspect", &name, "--segment-dir"]).arg(dir.path()).run().exits(0);
    let by_path = leader().arg("inspect").arg(dir.path().join(&name)).run().exits(0);
    assert!(shown.text() == by_path.text() && shown.text().contains("phase Drain"), "{shown}");
    assert_eq!(field(shown.text(), "free, claimed").len(), 2, "{shown}");
    let elsewhere = leader().args(["inspect", &name]).run().exits(1);
    assert!(elsewhere.stderr.contains(&name), "{elsewhere}");
}

#[test]
fn a_live_run_does_not_notice() {
    let small = Small::new(81, 300);
    let peace = leader().words("--all -k 21 -q").arg(small.path()).run().exits(0);
    let slow = "--inject scan.stored:delay=30 --inject drain.stored:delay=30";
    let running = leader().words(&format!("--all -k 21 -q -j 2 {SMALL} {slow}")).arg(small.path()).spawn();
    let pid = u32::try_from(running.pid().as_raw()).expect("a process id");
    assert!(within(Duration::from_secs(20), || !segments_of(pid).is_empty()), "no segment");
    let (mut looks, mut phases) = (0, std::collections::BTreeSet::new());
    while let Some(name) = segments_of(pid).pop() {
        // It may go, or be not yet whole, in between.
        if let Ok(page) = collect(&name) {
            looks += 1;
            phases.insert(page.lead.split("; ").nth(1).unwrap_or_default().to_owned());
            assert!(page.lead.starts_with("running; "), "{}", page.lead);
        }
    }
    let ended = running.wait().exits(0);
    assert!(ended.stdout == peace.stdout, "{ended}");
    assert!(looks > 10 && phases.len() >= 2, "{looks} looks: {phases:?}");
}

/// Units that were committed together have one result: of a bundle, and there are no others.
#[test]
fn a_bundle_of_units_is_drawn_as_one() {
    let (small, dir) = (Small::new(80, 2000), tempfile::tempdir().expect("a directory"));
    let words =
        "-j 1 -k 11 --summed --unit-blocks 1 --all -q -o out --resumable --inject order.written:leader:kill";
    let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    args.push(small.path().to_string_lossy().into_owned());
    let end = run(dir.path(), &args, |_| ());
    assert_eq!(end.signal(), Some(9), "{}", end.told);
    let removed = Removed(segments_of(end.pid).pop().expect("it stays"));
    let shown = leader().arg("inspect").arg(&removed.0).run().exits(0);
    let text = shown.text();
    assert!(text.contains("bundle words"), "{shown}");
    let units: u32 =
        field(text, "done, given up")[0].split(',').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(units > 3, "{shown}");
    let row = text.lines().find_map(|line| line.trim_start().strip_prefix("bundle 0 ")).expect("a row");
    assert!(row.trim_start().starts_with(&format!("{units} in all ")), "{shown}");
    assert!(!text.contains("bundle 1 ") && !text.contains("... and "), "{shown}");
}

#[test]
fn a_page_needs_nothing_else() {
    let (small, dir) = (Small::new(82, 200), tempfile::tempdir().expect("a directory"));
    let (name, _) = left(dir.path(), &small, "-j 2 --resumable", "drain.settled:leader").expect("it stays");
    let _removed = Removed(name.clone());
    let engine = leader().arg("inspect").arg(&name).words("--html -o page.html").keeps("page.html");
    let ended = engine.run().exits(0);
    let page = fs::read_to_string(ended.dir.path().join("page.html")).expect("the page");
    for part in ["<!doctype html>", "width=device-width", "color-scheme:light dark", "</html>", &name] {
        assert!(page.contains(part), "{part}");
    }
    for part in ["http:", "https:", "<script", "src=", "url(", "@import", "<link"] {
        assert!(!page.contains(part), "{part}");
    }
    for tag in ["section", "table", "tr", "td", "div", "b", "h2", "p"] {
        let open = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    // The same as the text has.
    let shown = leader().arg("inspect").arg(&name).run().exits(0);
    for name in ["bytes of spools", "keys", "places", "next_block", "owned"] {
        let value = field(shown.text(), name)[0].split("  ").next().expect("a value");
        let value = value.split(" (").next().expect("a value").split_whitespace().next().expect("a value");
        assert!(page.contains(&format!("<td>{name}</td><td>{value}")), "{name} {value}");
    }
}

#[test]
fn names_in_a_segment_cannot_become_markup() {
    let mut page = kmer_leader::inspect::page::Page { name: "<b>&\"".into(), ..Default::default() };
    let mut part = kmer_leader::inspect::page::Part::new("p", "q", "f");
    part.field("x", "<script>\u{1b}", "");
    page.parts.push(part);
    let shown = html::show(&page);
    assert!(
        shown.contains("<h1>Segment &lt;b&gt;&amp;&quot;</h1>") && shown.contains("&lt;script&gt;\u{fffd}")
    );
    assert!(!shown.contains("<script"));
}

#[test]
fn a_pinned_result_is_drawn() {
    let (small, pin) = (Small::new(83, 100), PinName::new());
    let ended = leader().words("-q --all -k 21 --pin").arg(pin.name()).arg(small.path()).run().exits(0);
    let kmers = ended.text().lines().filter(|line| !line.starts_with('#')).count();
    let shown = leader().arg("inspect").arg(pin.name()).run().exits(0);
    assert!(shown.text().contains(&format!(" pinned; {kmers} k-mers of k=21; ")), "{shown}");
    assert!(field(shown.text(), "keys")[0].starts_with(&kmers.to_string()), "{shown}");
}

#[test]
fn altered_segments_are_drawn_or_refused() {
    let (small, dir) = (Small::new(84, 200), tempfile::tempdir().expect("a directory"));
    let (name, _) =
        left(dir.path(), &small, &format!("-j 2 --resumable {SMALL} --memory 600K"), "drain.settled:leader")
            .expect("it stays");
    let removed = Removed(name.clone());
    let good = fs::read(format!("/dev/shm/{name}")).expect("the segment");
    drop(removed);
    let planted = Removed(format!("kmer.inspected-{}", std::process::id()));
    let path = format!("/dev/shm/{}", planted.0);
    let (mut rng, mut drawn, mut refused) = (Rng::new(85), 0, 0);
    let used: Vec<usize> = (0..good.len() / 8).filter(|i| good[8 * i..8 * i + 8] != [0; 8]).collect();
    for round in 0..600 {
        let mut altered = good.clone();
        for _ in 0..=rng.below(3) {
            let word = if rng.below(4) > 0 { used[rng.below(used.len().min(4000))] } else { rng.below(1500) };
            let old = u64::from_le_bytes(altered[8 * word..8 * word + 8].try_into().expect("8 bytes"));
            let new = match rng.below(5) {
                0 => rng.next_u64(),
                1 => old.wrapping_add(1),
                2 => u64::MAX,
                3 => 0,
                _ => old ^ 1 << rng.below(64),
            };
            altered[8 * word..8 * word + 8].copy_from_slice(&new.to_le_bytes());
        }
        if round % 10 == 0 {
            altered.truncate(rng.below(good.len()));
        }
        let _ = fs::remove_file(&path);
        fs::write(&path, &altered).expect("room");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
        match collect(&planted.0) {
            Ok(page) => {
                drawn += 1;
                let _ = (text::show(&page), html::show(&page));
            }
            Err(failure) => {
                refused += 1;
                assert!(failure.message().is_some_and(|m| !m.error.is_empty()));
            }
        }
    }
    println!("{drawn} drawn, {refused} refused");
    assert!(drawn > 20 && refused > 100, "{drawn} drawn, {refused} refused: the test tests little");
    // From the outside.
    for bytes in [&b"short"[..], &[0; 10_000]] {
        fs::write(&path, bytes).expect("room");
        let _ = leader().arg("inspect").arg(&planted.0).run().fails(1, &[&planted.0, "expected"]);
    }
}

/// What the tour shows was printed: every line of its blocks is one of a real run's, but for numbers and for chunks in use again.
#[test]
fn the_tour_shows_what_is_printed() {
    let top = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let tour = fs::read_to_string(format!("{top}/docs/segment-tour.md")).expect("the tour");
    let dir = tempfile::tempdir().expect("a directory");
    let blur = |line: &str| {
        let words = line.split_whitespace().map(|word| {
            let number = |c: char| c.is_ascii_digit();
            match word.chars().next() {
                Some('k') if word.starts_with("kmer.") => "NAME".into(),
                // Which chunks are in use again is another matter in each run.
                Some('|') => word.replace('a', "o"),
                _ => word.replace(number, "0"),
            }
        });
        let words: Vec<String> = words.collect();
        let mut line = words.join(" ");
        while line.contains("00") {
            line = line.replace("00", "0");
        }
        line
    };
    let args = [
        "-j",
        "2",
        "-q",
        "--all",
        "-k",
        "21",
        "--resumable",
        "-o",
        "out",
        "--inject",
        "drain.settled:leader:kill",
    ];
    let mut args: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
    fs::copy(format!("{top}/examples/klebs"), dir.path().join("klebs")).expect("a copy");
    for more in ["schema", "toast"] {
        fs::copy(format!("{top}/examples/klebs.{more}"), dir.path().join(format!("klebs.{more}")))
            .expect("a copy");
    }
    args.push("klebs".into());
    let end = run(dir.path(), &args, |_| ());
    let name = segments_of(end.pid).pop().unwrap_or_else(|| panic!("{}", end.told));
    let _removed = Removed(name.clone());
    let shown =
        std::process::Command::new(bin("kmer-leader")).args(["inspect", &name]).output().expect("runs");
    let printed: Vec<String> = String::from_utf8_lossy(&shown.stdout).lines().map(blur).collect();
    let blocks: Vec<&str> =
        tour.split("```inspect\n").skip(1).map(|rest| rest.split("```").next().expect("an end")).collect();
    assert!(blocks.len() >= 6, "{} blocks", blocks.len());
    for line in blocks.iter().flat_map(|block| block.lines()).filter(|line| *line != "...") {
        assert!(printed.contains(&blur(line)), "{line:?} is not printed; {printed:#?}");
    }
}
