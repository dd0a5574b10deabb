//! What is typed and cannot be meant: options that would be passed over in silence, files that would take the place of what is read, inputs that are
//! nothing of what is read here. An error each, at once, and everything is as it was.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kmer_tests::engine::{Ended, Engine, bin, leader};
use kmer_tests::fault::Small;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

/// A directory with a relation, its TOAST relation and sidecar, and a FASTA file, and what is in all of them.
struct Files {
    dir: TempDir,
    before: Vec<(PathBuf, Vec<u8>)>,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["klebs", "klebs.schema", "klebs.toast", "tiny.fa"] {
            fs::copy(Path::new(EXAMPLES).join(name), dir.path().join(name)).expect("copied");
        }
        let before = contents(dir.path());
        Self { dir, before }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).expect("written");
        self.path(name)
    }

    /// Runs what a shell makes of `words` in this directory.
    fn shell(&self, words: &str) -> Ended {
        let script = format!("cd \"$1\"; exec \"$2\" {words}");
        let engine = Engine::new("bash".into()).args(["-c", &script, "bash"]);
        engine.arg(self.dir.path()).arg(bin("kmer-leader")).run()
    }

    fn are_as_before(&self, ended: &Ended) {
        assert!(contents(self.dir.path()) == self.before, "{ended}files were changed");
    }
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut all: Vec<_> = paths.map(|path| (path.clone(), fs::read(&path).expect("a file"))).collect();
    all.sort();
    all
}

#[test]
fn options_about_tables_are_not_for_files() {
    let files = Files::new();
    for option in ["--save", "--lock-wait-timeout 5s", "--type dna4"] {
        let name = option.split(' ').next().expect("a name");
        let words = [&format!("{name}: expected a table, found file \"klebs\""), "-t [SCHEMA.]TABLE"];
        let ended = files.shell(&format!("{option} klebs")).fails(2, &words);
        files.are_as_before(&ended);
    }
    // Where the table would be is not asked before it is known to be in vain.
    for words in ["-D nowhere -d x -t y", "-h 127.0.0.1 -p 1 -d x -t y"] {
        let expected = ["--row-per-file: expected sequence files, found table \"y\""];
        let _ = leader().words("--row-per-file").words(words).run().fails(2, &expected);
    }
}

#[test]
fn no_output_takes_the_place_of_what_is_read() {
    let files = Files::new();
    fs::create_dir(files.path("elsewhere")).expect("made");
    std::os::unix::fs::symlink("..", files.path("elsewhere/here")).expect("made");
    let outputs = ["-o", "--histogram", "--summary-json", "--dense", "--report", "--partial"];
    for option in outputs {
        for name in ["klebs", "klebs.toast", "klebs.schema", "klebs.1", "klebs_vm", "klebs.toast.1"] {
            let _ = files.shell(&format!("--all -k 9 klebs {option} {name}")).fails(
                2,
                &[option, &format!("\"{name}\": expected a file of its own, found one of relation")],
            );
        }
        let name = "elsewhere/here/tiny.fa";
        let ended = files.shell(&format!("--all -k 9 tiny.fa {option} {name}"));
        let _ = ended.fails(2, &[option, "expected a file of its own, found that of the input"]);
    }
    let _ = files
        .shell("--all -k 9 - -o tiny.fa < tiny.fa")
        .fails(2, &["-o \"tiny.fa\"", "found that of the input"]);
    fs::remove_file(files.path("elsewhere/here")).expect("made by us");
    fs::remove_dir(files.path("elsewhere")).expect("made by us");
    // Names that are like them, but none of theirs.
    let ended = files.shell("-q -k 9 klebs -o klebs.tsv --histogram klebs.1.txt").exits(0);
    for name in ["klebs.tsv", "klebs.1.txt"] {
        fs::remove_file(files.path(name)).expect("an output");
    }
    files.are_as_before(&ended);
}

#[test]
fn a_dash_is_standard_output_for_one_output() {
    let small = Small::new(86, 40);
    let run = |words: &str| leader().words("-q -k 9 --all -j 1").words(words).arg(small.path()).run();
    let expected = run("").exits(0);
    let dash = run("-o -").exits(0);
    assert_eq!(dash.stdout, expected.stdout, "{dash}");
    let saved = run("-o /dev/null --histogram -").exits(0);
    assert!(
        saved.text().lines().all(|line| line.split('\t').count() == 2) && !saved.stdout.is_empty(),
        "{saved}"
    );
    for words in ["--histogram -", "-o - --summary-json -", "--count-only --dense -"] {
        let _ = run(words).fails(2, &["\"-\": expected a file of its own, found that of"]);
    }
}

#[test]
fn nothing_is_made_in_the_place_of_what_it_is_made_of() {
    let files = Files::new();
    for (words, input) in [
        ("import tiny.fa -o tiny.fa --force", "tiny.fa"),
        ("import tiny.fa klebs.toast -o klebs --force", "klebs.toast"),
        ("import klebs.schema -o klebs", "klebs.schema"),
    ] {
        let found = format!("found input \"{input}\" among them");
        let ended = files.shell(words).fails(2, &["-o ", "expected files of its own", &found]);
        files.are_as_before(&ended);
    }
    let _ = files.shell("-q --all -k 9 klebs --dense d -o r").exits(0);
    let dense = fs::read(files.path("d")).expect("made");
    let _ = files.shell("dump d -o ./d").fails(2, &["-o \"./d\"", "found that of the input"]);
    assert!(fs::read(files.path("d")).expect("it is there") == dense, "it was replaced");
    let _ = files.shell("dump d -o e").exits(0);
    assert!(fs::read(files.path("e")).expect("made") == fs::read(files.path("r")).expect("made"));
    fs::create_dir(files.path("dir")).expect("made");
    let _ = files.shell("import tiny.fa -o dir --force").fails(1, &["exists already", "name a file in it"]);
}

#[test]
fn what_is_kept_goes_only_where_it_can_be_had_again() {
    let _ = leader().words("--all -k 9 --pin=-x klebs").run().fails(2, &["the first of them no '-'"]);
    let pinned = format!("torture {EXAMPLES}/amplicons --kills 1 -- --pin kmer-tests-torture");
    let _ = leader()
        .words(&pinned)
        .run()
        .fails(2, &["whose outcome is in one file, and segments in /dev/shm, found \"--pin\""]);
    assert!(!Path::new("/dev/shm/kmer.pin.kmer-tests-torture").exists());
}

/// What a shell closes with `>&-` or `<&-` is neither a place where a result may vanish nor an input without records.
#[test]
fn a_closed_stream_is_no_empty_one() {
    let files = Files::new();
    let _ = files.shell("-q --all -k 9 klebs --dense d -o r").exits(0);
    for words in
        ["-q --all -k 9 klebs", "-q --all -k 9 klebs -o -", "dump d", "lookup d ACGTACGTA", "segments"]
    {
        let ended = files.shell(&format!("{words} >&-"));
        let _ = ended.fails(1, &["standard output: expected it to be open, found it closed", "> FILE"]);
    }
    for words in ["-q --all -k 9 -", "lookup d -", "import - -o new"] {
        let _ = files.shell(&format!("{words} <&-")).fails(1, &["expected it to be open, found it closed"]);
    }
    assert!(!files.path("new").exists());
    let _ = files.shell("-q --all -k 9 klebs -o again >&- <&- 2>&-").exits(0);
    assert!(fs::read(files.path("again")).expect("made") == fs::read(files.path("r")).expect("made"));
}

/// Files that are nothing of what is read are named for what they are, alone or among others, and none of them is taken for a relation.
#[test]
fn what_is_read_nowhere_is_named() {
    let files = Files::new();
    let rest = [b'x'; 9000];
    let of = |magic: &[u8]| [magic, &rest].concat();
    let bam = {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &of(b"BAM\x01")).expect("memory");
        packed.finish().expect("memory")
    };
    for (bytes, what, command) in [
        (of(b"BZh9"), "a bzip2 file", "bzip2 -dc"),
        (of(b"PK\x03\x04"), "a zip file", "unzip -p"),
        (of(b"BAM\x01"), "a BAM file", "samtools fasta"),
        (bam, "a BAM file", "samtools fasta"),
        (of(b"CRAM"), "a CRAM file", "samtools fasta"),
        (of(b"@HD\tVN"), "a SAM file", "samtools fasta"),
    ] {
        files.write("in", &bytes);
        let found = format!("file \"in\": expected FASTA or FASTQ, plain or packed, found {what}");
        let hint = format!("hint: {command} \"in\" | kmer-leader -");
        let _ = files.shell("in").fails(1, &[&found, &hint]);
        let _ = files.shell("tiny.fa in").fails(1, &[&found, &hint]);
        let (command, dash) = if what == "a zip file" { ("funzip", "") } else { (command, " -") };
        let hint = format!("hint: ... | {command}{dash} | kmer-leader -");
        let _ = files.shell("- < in").fails(1, &[what, &hint]);
    }
}

/// A named pipe is not opened: that would wait for somebody who writes to it, and what that one writes would be read twice or not at all.
#[test]
fn a_named_pipe_is_no_input() {
    let files = Files::new();
    mkfifo(&files.path("pipe"), Mode::S_IRWXU).expect("a pipe");
    for words in ["pipe", "tiny.fa pipe", "--row-per-file pipe tiny.fa", "-j 0 pipe"] {
        let found = "file \"pipe\": expected FASTA or FASTQ, plain or packed, found no regular file";
        let _ = files.shell(words).fails(1, &[found, "hint: cat \"pipe\" | kmer-leader -"]);
    }
    let _ = files.shell("<(cat tiny.fa)").fails(1, &["found no regular file", "COMMAND | kmer-leader -"]);
    let _ = files.shell("-q --all -k 9 - < <(cat tiny.fa)").exits(0);
}

/// Every file of a run stays open, and shells let a process have 1024 of them where more are allowed.
#[test]
fn there_may_be_more_files_than_a_shell_allows() {
    let files = Files::new();
    fs::create_dir(files.path("many")).expect("made");
    let text = fs::read(files.path("tiny.fa")).expect("an example");
    for number in 0..150 {
        fs::write(files.path(&format!("many/{number}.fa")), &text).expect("written");
    }
    let run = |before: &str| {
        let script = format!("cd \"$1\"; ulimit {before}; exec \"$2\" -q -k 9 -j 2 --row-per-file many/*.fa");
        let engine = Engine::new("bash".into()).args(["-c", &script, "bash"]);
        engine.arg(files.dir.path()).arg(bin("kmer-leader")).run()
    };
    let ended = run("-Sn 100").exits(0);
    assert!(ended.text().contains("# total_rows: 150\n"), "{ended}");
    let _ = run("-n 100")
        .fails(1, &["Too many open files", "hint: allow this process more open files: ulimit -n"]);
}

#[test]
fn a_file_that_may_not_grow_is_an_error_of_every_command() {
    let files = Files::new();
    let _ = files.shell("-q --all -k 12 klebs --dense d --partial p").exits(0);
    for words in ["dump d -o out", "merge --all p -o out", "import tiny.fa -o out"] {
        let script =
            format!("cd \"$1\"; ulimit -f 4; exec \"$2\" {words} 2>&1 | cat; exit ${{PIPESTATUS[0]}}");
        let engine = Engine::new("bash".into()).args(["-c", &script, "bash"]);
        let ended = engine.arg(files.dir.path()).arg(bin("kmer-leader")).run().exits(1);
        assert!(ended.text().contains("File too large"), "{ended}");
        assert!(!files.path("out").exists(), "{ended}a part of a result");
    }
}

#[test]
fn standard_output_that_is_full_is_an_error_of_every_command() {
    for words in ["--help", "-V", "-Vv", "--inject list", "man", "completions bash", "segments"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let ended = leader().words(words).stdout(full).run();
        let _ = ended.fails(1, &["could not write to standard output", "No space left on device"]);
    }
}

#[test]
fn a_result_keeps_the_mode_of_the_one_before() {
    let files = Files::new();
    let out = files.write("out", b"old");
    fs::set_permissions(&out, fs::Permissions::from_mode(0o600)).expect("ours");
    let ended = files.shell("-q --all -k 9 tiny.fa -o out").exits(0);
    let meta = fs::metadata(out).expect("made");
    assert!(meta.len() > 3 && meta.permissions().mode() & 0o777 == 0o600, "{ended}{meta:?}");
}

#[test]
fn a_dry_run_says_when_memory_is_not_enough() {
    let files = Files::new();
    let last = |words: &str| {
        let ended = files.shell(&format!("-n -k 21 --all tiny.fa {words}")).exits(0);
        ended.text().lines().last().expect("lines").to_owned()
    };
    assert_eq!(last("-j 2 --memory 256M"), "enough: yes");
    let found = last("-j 8 --memory 10M");
    assert!(found.starts_with("enough: no: segment and processes take 268"), "{found}");
    let ended = files.shell("-k 21 --all tiny.fa -j 8 --memory 10M -o /dev/null").exits(0);
    let told = "8 processes may take 256 MiB besides the segment, and --memory allows 10.0 MiB: fewer (-j) take less";
    assert!(ended.stderr.contains(told), "{ended}");
}
