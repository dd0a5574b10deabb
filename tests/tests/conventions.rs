//! What people expect of any program: version, help, completions, manual pages, colours, suggestions.

use kmer_tests::engine::{Engine, leader};

#[test]
fn the_version_alone_and_with_details() {
    let short = leader().arg("-V").run().exits(0);
    assert!(short.text().starts_with("kmer-leader ") && short.text().lines().count() == 1, "{short}");
    for words in ["-V -v", "-v -V", "-Vv", "--version --verbose"] {
        let long = leader().words(words).run().exits(0);
        for part in ["build: ", "segment: layout ", "vector instructions in use: ", "PostgreSQL 13 to 18"] {
            assert!(long.text().contains(part), "{long}{words}: expected {part:?}");
        }
        assert!(long.text().starts_with(short.text().trim_end()), "{long}");
    }
}

#[test]
fn help_has_exit_codes_and_examples_and_no_line_is_too_wide() {
    for words in ["--help", "-?", "import --help"] {
        let help = leader().words(words).run().exits(0);
        let widest = help.text().lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{help}{words}: {widest:?}");
    }
    let help = leader().arg("--help").run().exits(0);
    let examples = help.text().split("Examples:").nth(1).unwrap_or_default();
    assert!(help.text().contains("Exit codes:") && examples.matches("kmer-leader ").count() >= 3, "{help}");
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = leader().args(["completions", shell]).run().exits(0);
        for word in ["max-appearance-rate", "import"] {
            assert!(script.text().contains(word), "{script}{shell}: expected {word:?}");
        }
    }
    for (typed, expected) in [
        ("--cou", "--count --count-only"),
        ("segments --", "--segment-dir"),
        ("merge --form", "--format"),
        ("torture --le", "--leader"),
        ("inspect --h", "--html"),
    ] {
        let script = leader().words("completions bash").run().exits(0);
        let words: Vec<&str> = typed.split(' ').collect();
        let typed_at = words.len();
        let more = format!(
            "{}\nCOMP_WORDS=(kmer-leader {typed}); COMP_CWORD={typed_at}; $(complete -p kmer-leader | sed 's/.*-F \\([^ ]*\\).*/\\1/') kmer-leader {} {}; echo ${{COMPREPLY[@]}}",
            script.text(),
            words[typed_at - 1],
            if typed_at > 1 { words[typed_at - 2] } else { "kmer-leader" }
        );
        let shell = Engine::new("bash".into()).arg("-c").arg(more).run().exits(0);
        assert!(shell.text().contains(expected), "{typed}: {}", shell.text());
    }
    let _ = leader().words("completions tcsh").run().fails(2, &["tcsh", "bash"]);
}

#[test]
fn manual_pages() {
    let page = leader().arg("man").run().exits(0);
    for part in [".TH kmer-leader 1", "\\-\\-kmer\\-size", "Exit codes"] {
        assert!(page.text().contains(part), "{page}expected {part:?}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let _ = leader().arg("man").arg(dir.path()).run().exits(0);
    assert!(dir.path().join("kmer-leader.1").exists() && dir.path().join("kmer-leader-import.1").exists());
    let _ = leader().words("man /nonexistent/pages").run().fails(1, &["/nonexistent/pages"]);
}

#[test]
fn colours_only_when_asked_for_where_nobody_looks() {
    let escape = "\u{1b}[";
    for (words, coloured) in [("", false), ("--color=never", false), ("--color always", true)] {
        let ended = leader().words(words).arg("/nonexistent").run().exits(1);
        assert_eq!(ended.stderr.contains(escape), coloured, "{ended}{words}");
        let help = leader().words(words).arg("--help").run().exits(0);
        assert_eq!(help.text().contains(escape), coloured, "{help}{words}");
    }
    let _ = leader().words("--color sometimes x").run().fails(2, &["sometimes", "always"]);
}

#[test]
fn a_misspelt_option_is_told_the_right_one() {
    let _ = leader().words("--worker 2 x").run().fails(2, &["'--worker'", "'--workers'"]);
    let _ = leader().words("--max-apearance-rate 0.1 x").run().fails(2, &["'--max-appearance-rate'"]);
}

#[test]
fn verbose_says_how_the_work_is_laid_out() {
    let relation = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/klebs");
    let ended = leader().words("-v -j 2").arg(relation).run().exits(0);
    assert!(
        ended.stderr.contains("57 blocks in units of ") && ended.stderr.contains(" stripes, "),
        "{ended}"
    );
    let _ = leader().words("-v -q").arg(relation).run().fails(2, &["--verbose", "--quiet"]);
}
