//! The page of `--report` in a real browser: it loads, says what the summary says, and can be read on a phone and in the dark.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kmer_tests::engine::{Ended, leader};
use kmer_tests::fault::Small;
use serde_json::Value;
use tempfile::TempDir;

/// Runs Chromium without a window, in a home of its own.
fn chromium(home: &Path, args: &[&str], page: &Path) -> (String, String) {
    let binary = ["chromium", "chromium-browser", "google-chrome"];
    let binary =
        binary.into_iter().find(|name| which(name)).expect("chromium (tests/install.sh installs it)");
    let output = Command::new(binary)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"])
        .args(["--allow-file-access-from-files", "--enable-logging=stderr", "--timeout=20000"])
        .arg(format!("--user-data-dir={}", home.join("profile").display()))
        .args(args)
        .arg(format!("file://{}", page.display()))
        .env("HOME", home)
        .output()
        .expect("chromium starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

fn which(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// A run with a page and a summary; `words` are its options.
fn run(words: &str, relation: &Path) -> Ended {
    let engine =
        leader().words("--report page.html --summary-json summary.json --histogram histogram -o out");
    engine
        .words(words)
        .arg(relation)
        .keeps("page.html")
        .keeps("summary.json")
        .keeps("histogram")
        .keeps("out")
        .run()
}

fn home() -> TempDir {
    tempfile::Builder::new().prefix("kp").tempdir().expect("a directory")
}

/// The text of the cell that is called `field`, as the browser has it.
fn cell(dom: &str, field: &str) -> String {
    let mark = format!("data-field=\"{field}\">");
    let from = dom.find(&mark).unwrap_or_else(|| panic!("{field} is not on the page")) + mark.len();
    dom[from..from + dom[from..].find('<').expect("an end")].to_owned()
}

fn number(dom: &str, field: &str) -> u64 {
    let text = cell(dom, field);
    text.parse().unwrap_or_else(|_| panic!("{field}: {text:?}"))
}

fn flatten(path: &str, value: &Value, into: &mut Vec<(String, String)>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| flatten(&join(name), value, into)),
        Value::Array(items) => {
            (0..).zip(items).for_each(|(at, value): (u32, _)| flatten(&join(&at.to_string()), value, into))
        }
        Value::String(text) => into.push((path.into(), text.clone())),
        other => into.push((path.into(), other.to_string())),
    }
}

fn quoted(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[test]
fn the_page_says_what_the_summary_says() {
    let (relation, home) = (Small::new(50, 3000), home());
    let words = "-k 21 -j 3 -N 4 --unit-blocks 1 --inject scan.stored:nth=3:kill";
    let ended = run(words, &relation.path()).exits(0);
    let page = ended.dir.path().join("page.html");
    let (dom, log) = chromium(home.path(), &["--dump-dom"], &page);
    assert!(!log.contains("CONSOLE"), "{log}");
    let summary = fs::read_to_string(ended.dir.path().join("summary.json")).expect("written");
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    let mut fields = Vec::new();
    flatten("", &summary, &mut fields);
    assert!(fields.len() > 40, "{fields:?}");
    for (field, value) in &fields {
        assert_eq!(cell(&dom, field), quoted(value), "{field}");
    }
    // What is drawn adds up to what is said.
    let histogram = fs::read_to_string(ended.dir.path().join("histogram")).expect("written");
    let lines = histogram.lines().map(|line| line.split_once('\t').expect("two columns"));
    let lines: Vec<(u32, u64)> =
        lines.map(|(r, k)| (r.parse().expect("rows"), k.parse().expect("k-mers"))).collect();
    for power in 0..12 {
        let (from, to) = (1 << power, 2 << power);
        let kmers: u64 =
            lines.iter().filter(|(rows, _)| (from..to).contains(rows)).map(|(_, kmers)| kmers).sum();
        if kmers > 0 {
            assert_eq!(number(&dom, &format!("spectrum.{from}")), kmers, "{from} rows");
        }
    }
    // A worker that did nothing is not in the table.
    let all: Vec<u16> = (0..4).filter(|slot| dom.contains(&format!("data-field=\"units.{slot}\""))).collect();
    let units: u64 = all.iter().map(|slot| number(&dom, &format!("units.{slot}"))).sum();
    assert_eq!(Some(units), summary["units"].as_u64(), "every unit was committed once");
    assert_eq!(number(&dom, "claims.units"), units);
    assert_eq!(Some(number(&dom, "stripes.sum")), summary["relation"]["kmers"].as_u64());
    let (all, largest) = (number(&dom, "stripes.sum"), number(&dom, "stripes.largest"));
    assert!(all > largest && largest >= number(&dom, "stripes.median"));
    assert!(number(&dom, "stripes.median") >= number(&dom, "stripes.least"));
    assert!(number(&dom, "memory.segment") > 8192);
    // 29 units are too many for three workers that die of their third.
    let (deaths, respawns) = (&summary["worker_deaths"], &summary["worker_respawns"]);
    assert!(deaths.as_u64() > Some(0), "{summary}");
    assert!(
        dom.contains(&format!("Workers that died: {deaths}; started in their place: {respawns}.")),
        "{dom}"
    );
    assert_eq!(Some(dom.matches("killed by SIGKILL</td>").count() as u64), deaths.as_u64());
    // The most frequent of all is that of the result.
    let highest = summary["relation"]["highest_appearance_nrow"].as_u64().expect("some over the threshold");
    let first =
        dom.split("<th scope=\"row\">").find(|part| part.starts_with(['A', 'C', 'G', 'T'])).expect("a k-mer");
    assert!(first.contains(&format!("<td>{highest}</td>")), "{first}");
    let out = fs::read_to_string(ended.dir.path().join("out")).expect("written");
    let kmer = first.split('<').next().expect("letters");
    assert!(out.contains(&format!("{kmer}\t")) && out.contains(&format!("\t{highest}\n")), "{kmer}");
}

/// Only data: nothing is loaded, nothing runs, and names of files and columns stay text.
#[test]
fn nothing_from_outside_gets_into_the_page() {
    let (relation, home) = (Small::new(51, 200), home());
    let evil = relation.path().with_file_name("<img src=x onerror=alert(1)>&\"'");
    fs::rename(relation.path(), &evil).expect("renamed");
    let words = ["--schema", "id int4, name text, \"<script>alert(1)</script>\" dna2", "-k", "11", "-j", "1"];
    let ended = leader().args(words).words("--report page.html --all -o out").arg(&evil);
    let ended = ended.keeps("page.html").keeps("out").run().exits(0);
    let path = ended.dir.path().join("page.html");
    let html = fs::read_to_string(&path).expect("written");
    for word in ["<script", "<img", "http://", "https://", "url(", "@import", "javascript:"] {
        assert!(!html.contains(word), "{word} is in the page");
    }
    assert!(html.contains("default-src 'none'"));
    let (dom, log) = chromium(home.path(), &["--dump-dom"], &path);
    assert!(!log.contains("CONSOLE"), "{log}");
    assert!(!dom.contains("<img") && !dom.contains("<script"), "{dom}");
    assert_eq!(cell(&dom, "facts.column"), "&lt;script&gt;alert(1)&lt;/script&gt;");
    assert!(cell(&dom, "relation.paths.0").ends_with("&lt;img src=x onerror=alert(1)&gt;&amp;\"'"));
}

/// Mean brightness of a picture of the page, 0 to 255.
fn brightness(home: &Path, page: &Path, dark: bool) -> f64 {
    let shot = home.join("shot.png");
    let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!dark));
    let _ = chromium(
        home,
        &[&scheme, &format!("--screenshot={}", shot.display()), "--window-size=800,900"],
        page,
    );
    let file = std::io::BufReader::new(fs::File::open(&shot).expect("a picture"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut bytes).expect("pixels");
    let pixels = &bytes[..info.buffer_size()];
    pixels.iter().map(|byte| f64::from(*byte)).sum::<f64>() / pixels.len() as f64
}

#[test]
fn it_can_be_read_on_a_phone_and_in_the_dark() {
    let (relation, home) = (Small::new(52, 1500), home());
    let ended = run("-k 31 -j 2 --all", &relation.path()).exits(0);
    let page = ended.dir.path().join("page.html");
    let (light, dark) = (brightness(home.path(), &page, false), brightness(home.path(), &page, true));
    assert!(light > 200.0 && dark < 80.0, "brightness {light} and {dark}");
    // In frames of several widths: nothing sticks out, and one picture of each pair is shown, with letters of their size.
    let probe = home.path().join("probe.html");
    fs::copy(&page, home.path().join("page.html")).expect("copied");
    let script = "onload = () => { document.body.append([...document.querySelectorAll('iframe')].map(f => { \
        const d = f.contentDocument, all = s => [...d.querySelectorAll(s)].filter(e => e.getBoundingClientRect().width > 0); \
        const letters = Math.min(...all('svg text').map(t => t.getBoundingClientRect().height)); \
        return [f.width, d.documentElement.scrollWidth, all('svg[role=img]').length, Math.round(letters)].join(' '); }).join(';')); }";
    let frames: String = [320, 390, 1000]
        .iter()
        .map(|w| format!("<iframe width={w} height=900 src=page.html></iframe>"))
        .collect();
    fs::write(&probe, format!("<!DOCTYPE html><body>{frames}<script>{script}</script>")).expect("written");
    let (dom, _) = chromium(home.path(), &["--dump-dom", "--window-size=1200,1000"], &probe);
    let found = dom
        .rsplit("</script>")
        .next()
        .and_then(|rest| rest.split('<').next())
        .expect("what was measured")
        .trim()
        .to_owned();
    let frames: Vec<Vec<u32>> = found
        .split(';')
        .map(|frame| frame.split(' ').map(|n| n.parse().unwrap_or_else(|_| panic!("{found}"))).collect())
        .collect();
    assert_eq!(frames.len(), 3, "{found}");
    for frame in frames {
        let [width, needed, pictures, letters] = frame[..] else { panic!("{found}") };
        assert!(needed <= width, "{needed} pixels in {width}: {found}");
        assert_eq!(pictures, 4, "spectrum, timeline, stripes, memory: {found}");
        assert!(letters >= 11, "letters of {letters} pixels: {found}");
    }
}

#[test]
fn other_kinds_of_runs_have_a_page_too() {
    let relation = Small::new(53, 400);
    for words in [
        "-k 8 -j 0",
        "-k 21 -j 2 --pass-bits 2",
        "-k 12 -b 4 -j 1",
        "-k 32 -j 2 --count-only",
        "-k 21 -j 2 --segment-dir .",
    ] {
        let ended = run(words, &relation.path()).exits(0);
        let html = fs::read_to_string(ended.dir.path().join("page.html")).expect("written");
        let summary = fs::read_to_string(ended.dir.path().join("summary.json")).expect("written");
        let summary: Value = serde_json::from_str(&summary).expect("JSON");
        assert_eq!(
            number(&html, "relation.kmers"),
            summary["relation"]["kmers"].as_u64().expect("a number"),
            "{words}"
        );
        assert!(!html.contains("NaN") && !html.contains("inf"), "{words}");
        // The other outputs are what they are without a page.
        let plain = leader().words(words).arg(relation.path()).run().exits(0);
        assert!(fs::read(ended.dir.path().join("out")).expect("written") == plain.stdout, "{ended}{words}");
    }
    let empty = home();
    fs::write(empty.path().join("empty"), "").expect("written");
    let ended = run("-j 1", &empty.path().join("empty")).exits(0);
    assert!(
        fs::read_to_string(ended.dir.path().join("page.html"))
            .expect("written")
            .contains("There are no k-mers."),
        "{ended}"
    );
    // A run that fails leaves none.
    let ended =
        leader().words("--report page.html -j 1 --inject collect.begin:error").arg(relation.path()).run();
    let _ = ended.fails(1, &["injected"]);
    let missing: PathBuf = "nowhere/page.html".into();
    let ended = leader().arg("--report").arg(missing).arg(relation.path()).run();
    let _ = ended.fails(1, &["nowhere/page.html"]);
}
