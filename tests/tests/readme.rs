//! What the documents show is what happens: every `console` block is run, and its output compared.
//!
//! A block has lines `$ command`, each followed by what the command prints, standard output and standard error together. The commands of a
//! document run one after the other in one directory with a copy of `examples/` in it. Times and what worker did what differ from run to
//! run: numbers with a decimal point are not compared, and none at all in lines that begin with a space. A line `...` stands
//! for any lines.

use std::fs;
use std::path::{Path, PathBuf};

use kmer_tests::case::Case;
use kmer_tests::data;
use kmer_tests::engine::{Engine, bin};
use kmer_tests::oracle::Dna;
use kmer_tests::server::Server;

struct Shown {
    command: String,
    lines: Vec<String>,
}

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commands of a document's `console` blocks.
fn shown(document: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        match (inside, line.strip_prefix("$ "), all.last_mut()) {
            (false, ..) => inside = line == "```console",
            (true, ..) if line == "```" => inside = false,
            (true, Some(command), _) => all.push(Shown { command: command.into(), lines: Vec::new() }),
            (true, None, Some(last)) => last.lines.push(line.into()),
            (true, None, None) => panic!("output before any command: {line}"),
        }
    }
    all
}

/// A line without what differs from run to run.
fn blurred(line: &str) -> String {
    let mut blurred = String::new();
    for word in line.split_whitespace() {
        let number = word.trim_end_matches([',', ')']).trim_start_matches('(');
        let digits = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.');
        let differs = digits && (number.contains('.') || line.starts_with(' '));
        blurred += if differs { "0" } else { word };
        blurred.push(' ');
    }
    blurred
}

fn matches(found: &[&str], expected: &[String]) -> bool {
    match (found, expected.split_first()) {
        (found, None) => found.is_empty(),
        (found, Some((first, rest))) if first == "..." => {
            (0..=found.len()).any(|skip| matches(&found[skip..], rest))
        }
        ([], Some(_)) => false,
        ([line, others @ ..], Some((first, rest))) => {
            (line == first || blurred(line) == blurred(first)) && matches(others, rest)
        }
    }
}

fn run_document(path: &Path) -> usize {
    let document = fs::read_to_string(path).expect("the document");
    let dir = tempfile::tempdir().expect("a directory");
    let examples = dir.path().join("examples");
    fs::create_dir(&examples).expect("a directory");
    for file in fs::read_dir(top().join("examples")).expect("the examples").flatten() {
        fs::copy(file.path(), examples.join(file.file_name())).expect("a copy of an example");
    }
    let all = shown(&document);
    let words = |command: &str| command.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let pinned: Vec<String> = all
        .iter()
        .map(|shown| words(&shown.command))
        .filter_map(|words| words.windows(2).find(|pair| pair[0] == "--pin").map(|pair| pair[1].clone()))
        .collect();
    // What an earlier test that failed left behind.
    pinned.iter().for_each(|name| kmer_pin::remove(name).expect("a name"));
    for Shown { command, lines } in &all {
        let script = format!(
            "exec 2>&1; cd '{}'; PATH='{}':\"$PATH\"; {command}",
            dir.path().display(),
            bin("kmer-leader").parent().expect("a directory").display()
        );
        let engine = Engine::new("sh".into()).arg("-c").arg(script);
        let ended = pinned.iter().fold(engine, |engine, name| engine.pins(name)).run();
        let found: Vec<&str> = ended.text().lines().collect();
        assert!(
            matches(&found, lines),
            "{}: {command}\nexpected:\n{}\n{ended}",
            path.display(),
            lines.join("\n")
        );
    }
    let left: Vec<&String> = pinned.iter().filter(|name| kmer_pin::exists(name)).collect();
    assert!(left.is_empty(), "{}: {left:?} is still pinned at the end", path.display());
    all.len()
}

#[test]
fn the_readme_shows_what_happens() {
    assert!(run_document(&top().join("README.md")) >= 6);
}

#[test]
fn the_documents_show_what_happens() {
    let documents = fs::read_dir(top().join("docs")).expect("docs").flatten();
    let markdown: Vec<PathBuf> =
        documents.map(|d| d.path()).filter(|p| p.extension().is_some_and(|e| e == "md")).collect();
    assert!(markdown.len() >= 3, "{markdown:?}");
    for path in markdown {
        let _ = run_document(&path);
    }
}

#[test]
fn the_first_command_of_the_readme_does_the_main_job() {
    let readme = fs::read_to_string(top().join("README.md")).expect("the readme");
    let block = readme.split("```sh\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("a block");
    let words =
        block.strip_prefix("cargo build --release && target/release/kmer-leader ").expect("the build");
    let words = words.replace("examples/", &format!("{}/examples/", top().display()));
    let ended = Engine::new(bin("kmer-leader")).words(&words).run().exits(0);
    assert_eq!(ended.report(16, 0).counts.len(), 1664, "{ended}");
}

#[test]
fn the_comparison_tells_differences() {
    let found = ["a 1.5 s", "  7 8", "end"];
    let lines = |text: &[&str]| text.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    assert!(matches(&found, &lines(&["a 2.5 s", "  9    9", "end"])));
    assert!(matches(&found, &lines(&["a 2.5 s", "..."])));
    assert!(matches(&found, &lines(&["...", "end"])));
    assert!(!matches(&found, &lines(&["a 1.5 s", "  7 8"])));
    assert!(!matches(&found, &lines(&["b 1.5 s", "  7 8", "end"])));
    assert!(!matches(&["total_rows: 3"], &lines(&["total_rows: 4"])));
}

#[test]
fn the_documented_query_tells_the_column_list() {
    let document = fs::read_to_string(top().join("docs/relation-files.md")).expect("the document");
    let query =
        document.split("```sql\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("a query");
    let server = Server::shared();
    let rows: Vec<Vec<Option<String>>> = data::all_dna2_bits(&data::rows(71, 100))
        .into_iter()
        .enumerate()
        .map(|(id, bits)| vec![Some(id.to_string()), Some("odd".repeat(id % 9)), Some("3.25".into()), bits])
        .collect();
    server.sql(
        &("CREATE TABLE documented (id int4, \"Other, name\" varchar(40), gone numeric, seq dna2);\n"
            .to_owned()
            + &data::copy("documented", "id, \"Other, name\", gone, seq", &rows)
            + "ALTER TABLE documented DROP COLUMN gone;
               ALTER TABLE documented ADD COLUMN tags text[], ADD COLUMN seen timestamptz;"),
    );
    let mut case = Case::new(&server.table("documented"), "seq", Dna::Dna2);
    case.snapshot.schema = server.value(&query.replace("'reads'", "'documented'"));
    assert!(case.snapshot.schema.contains("dropped(-1,i)"), "{}", case.snapshot.schema);
    let _ = case.check(16, 0, 2);
}
