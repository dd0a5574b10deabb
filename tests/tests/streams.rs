//! Packed sequence files and standard input: a feeder unpacks, and whatever dies, the counts are those of the files as they are.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kmer_tests::data;
use kmer_tests::engine::{Ended, Engine, leader};
use kmer_tests::fault::{self, segments_of};
use tempfile::TempDir;

/// A parcel of two blocks' bytes, and everything else as small.
const SMALL: &str = "--unit-blocks 2 --chunk-bytes 4096 --stripe-bits 2 --batch-bytes 3000";
const K: &str = "--all -k 21";

struct Reads {
    dir: TempDir,
    text: String,
}

impl Reads {
    fn new(seed: u64, records: usize) -> Self {
        let rows = data::rows(seed, records);
        let record = |(i, row): (usize, &Option<String>)| {
            let letters = row.as_deref().unwrap_or_default();
            format!("@r{i}\n{letters}\n+\n{}\n", "@".repeat(letters.len()))
        };
        let text = rows.iter().enumerate().map(record).collect();
        Self { dir: tempfile::tempdir().expect("a directory"), text }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    }

    fn plain(&self) -> PathBuf {
        self.write("plain.fq", self.text.as_bytes())
    }

    fn packed(&self) -> PathBuf {
        self.write("reads.fq.gz", &gzip(self.text.as_bytes()))
    }

    /// What is counted of the file as it is.
    fn expected(&self, options: &str) -> Vec<u8> {
        leader().words("-q -j 1").words(options).arg(self.plain()).run().exits(0).stdout
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(bytes).and_then(|()| packed.finish()).expect("in memory")
}

/// gzip in blocks of few bytes, whose extra field has their size, and an empty one at the end, as bgzip makes them.
fn bgzf(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(3000).chain([&b""[..]]).flat_map(bgzf_block).collect()
}

fn bgzf_block(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    let packed = packed.write_all(bytes).and_then(|()| packed.finish()).expect("in memory");
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    let size = u16::try_from(packed.len() + 25).expect("a small block");
    let mut block = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, b'B', b'C', 2, 0];
    block.extend(size.to_le_bytes());
    block.extend(&packed);
    block.extend(sum.sum().to_le_bytes());
    block.extend(sum.amount().to_le_bytes());
    block
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = liblzma::write::XzEncoder::new(Vec::new(), 1);
    packed.write_all(bytes).and_then(|()| packed.finish()).expect("in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("in memory")
}

fn run(options: &str, file: &Path) -> Ended {
    leader().words(options).arg(file).run()
}

#[test]
fn every_packing_counts_like_the_file_as_it_is() {
    let reads = Reads::new(51, 1500);
    for options in [K, "--all -k 9", "-k 12 -R 0.01", "--all -k 31 --canonical --count occurrences"] {
        let expected = reads.expected(options);
        for (name, pack) in [("gz", gzip as fn(&[u8]) -> Vec<u8>), ("bgz", bgzf), ("xz", xz), ("zst", zstd)] {
            let file = reads.write(name, &pack(reads.text.as_bytes()));
            for more in ["-j 2", "-j 0", "-j 3 --resumable", "-j 2 --pass-bits 1"] {
                if more.contains("pass") && options.contains("-k 9") {
                    continue;
                }
                let ended = run(&format!("{options} {more} {SMALL}"), &file).exits(0);
                assert!(ended.stdout == expected, "{ended}other bytes");
            }
            let ended = run(&format!("{options} -j 2"), &file).exits(0);
            assert!(ended.stdout == expected, "{ended}other bytes");
        }
    }
}

/// A stream may have thousands of parcels, and how long standard input is nobody knows: neither takes memory before it is met.
#[test]
fn a_small_stream_needs_little_memory() {
    let reads = Reads::new(54, 3000);
    let packed = reads.packed();
    for k in ["-k 12", "-k 21", "-k 31 --canonical"] {
        let options = format!("--all {k} --memory 40M -j 2");
        let plan = run(&format!("{options} --dry-run"), &packed).exits(0);
        for fact in ["units: 1\n", "passes: 1\n"] {
            assert!(plan.stdout.windows(fact.len()).any(|part| part == fact.as_bytes()), "{plan}");
        }
        let expected = reads.expected(&format!("--all {k}"));
        for ended in [run(&options, &packed), slow_pipe(&packed).words(&options).run()] {
            let ended = ended.exits(0);
            assert!(ended.stdout == expected, "{ended}other bytes");
        }
    }
}

/// A small file is unpacked whole; of a large one the beginning, and the rest is taken to be like it.
#[test]
fn a_dry_run_looks_into_packed_files() {
    let (small, large) = (Reads::new(11, 300), Reads::new(12, 30_000));
    for (reads, slack, pack) in
        [(&small, 0, gzip as fn(&[u8]) -> Vec<u8>), (&small, 0, zstd), (&large, 10, gzip), (&large, 10, xz)]
    {
        let packed = reads.write("reads.packed", &pack(reads.text.as_bytes()));
        let lines: Vec<&str> = reads.text.lines().collect();
        let rows = lines.len() as u64 / 4;
        let bases: usize = lines.iter().skip(1).step_by(4).map(|letters| letters.len()).sum();
        let told = leader().words("--dry-run -k 21").arg(&packed).run().exits(0);
        for (name, want) in [("rows", rows), ("bases", bases as u64)] {
            let line = told.text().lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            let found: u64 = line.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{name} in {told}"));
            assert!(
                found.abs_diff(want) * 100 <= want * slack,
                "{name}: expected {want}, found {found}{told}"
            );
        }
    }
}

#[test]
fn every_packing_is_imported_like_the_file_as_it_is() {
    let reads = Reads::new(61, 400);
    let import = |input: &Path| {
        let relation = reads.dir.path().join("relation");
        let done = leader().words("import --force -o").arg(&relation).arg(input).run().exits(0);
        assert!(done.stderr.contains("400 rows"), "{done}");
        fs::read(relation).expect("a relation")
    };
    let expected = import(&reads.plain());
    for (name, pack) in [("gz", gzip as fn(&[u8]) -> Vec<u8>), ("bgz", bgzf), ("xz", xz), ("zst", zstd)] {
        let file = reads.write(name, &pack(reads.text.as_bytes()));
        assert!(import(&file) == expected, "{name}: another relation");
        let cut = reads.write("cut", &fs::read(&file).expect("the file")[..500]);
        let _ = leader().words("import -o never").arg(cut).run().fails(1, &["cut"]);
    }
}

#[test]
fn packed_and_plain_files_and_standard_input_are_one_set_of_rows() {
    let reads = Reads::new(52, 900);
    let cuts: Vec<usize> =
        ["@r300\n", "@r600\n"].iter().map(|mark| reads.text.find(mark).expect("a record")).collect();
    let (first, second, third) =
        (&reads.text[..cuts[0]], &reads.text[cuts[0]..cuts[1]], &reads.text[cuts[1]..]);
    let first = reads.write("first.gz", &gzip(first.as_bytes()));
    let fasta: String = second
        .lines()
        .collect::<Vec<_>>()
        .chunks(4)
        .map(|record| format!(">{}\n{}\n", &record[0][1..], record[1]))
        .collect();
    let second = reads.write("second", fasta.as_bytes());
    for stdin in [third.as_bytes().to_vec(), zstd(third.as_bytes())] {
        let piped = reads.write("third", &stdin);
        let engine = leader().words(K).words(SMALL).words("-q -j 2").arg(&first).arg("-").arg(&second);
        let ended = engine.stdin(fs::File::open(piped).expect("written")).run().exits(0);
        assert!(ended.stdout == reads.expected(K), "{ended}other bytes");
    }
}

/// A pipe into which somebody writes now and then.
fn slow_pipe(file: &Path) -> Engine {
    let script = "head -c 20000; sleep 0.7; head -c 30000; sleep 0.3; cat";
    let mut writer = Command::new("sh");
    writer.args(["-c", script]).stdin(fs::File::open(file).expect("a file")).stdout(Stdio::piped());
    let mut writer = writer.spawn().expect("a shell");
    let pipe = writer.stdout.take().expect("a pipe");
    std::thread::spawn(move || writer.wait());
    leader().stdin(pipe).arg("-")
}

#[test]
fn standard_input_may_be_slow_and_is_there_once() {
    let reads = Reads::new(53, 900);
    let (plain, expected) = (reads.plain(), reads.expected(K));
    for options in ["-j 2 --worker-timeout 0.5", "-j 1", "-j 0", "-j 2 --inject scan.stored:worker=0:kill"] {
        let ended = slow_pipe(&plain).words(&format!("{K} {SMALL} {options}")).run().exits(0);
        assert!(ended.stdout == expected, "{ended}other bytes");
    }
    // The feeder is in the slot behind the workers'.
    let killed = slow_pipe(&plain).words(&format!("{K} {SMALL} -j 2 --inject feed.committed:worker=2:kill"));
    let _ = killed.run().fails(4, &["standard input", "gone"]);
    let undead =
        "--worker-timeout 0.4 --inject leader.hung:error --inject feed.committed:worker=2:delay=9000";
    let undead = slow_pipe(&plain).words(&format!("{K} {SMALL} -j 2 {undead}"));
    let _ = undead.run().fails(4, &["standard input", "does not die", "gone"]);
    // When all of it is in parcels nothing is lost.
    for point in ["worker.leaving", "worker.done"] {
        let killed = slow_pipe(&plain).words(&format!("{K} {SMALL} -j 2 --inject {point}:worker=2:kill"));
        let ended = killed.run().exits(0);
        assert!(ended.stdout == expected, "{ended}other bytes");
        assert!(ended.stderr.contains("worker 2 ended too early"), "{ended}");
    }
    let _ = slow_pipe(&plain).words("--resumable").run().fails(2, &["--resumable", "standard input"]);
    let _ = slow_pipe(&plain).arg("-").run().fails(2, &["expected standard input once, found it 2 times"]);
    let _ = slow_pipe(&plain)
        .words(&format!("{K} --pass-bits 1 {SMALL}"))
        .run()
        .fails(1, &["expected one pass over standard input, found 2 passes"]);
    let empty = leader().arg("-").run();
    let _ = empty.fails(1, &["file \"-\": expected FASTA or FASTQ, plain or packed, found an empty file"]);
}

#[test]
fn packed_genomes_are_a_row_each() {
    let reads = Reads::new(54, 120);
    let records: Vec<&str> = reads.text.split_inclusive('\n').collect();
    let files: Vec<(PathBuf, PathBuf)> = records
        .chunks(80)
        .enumerate()
        .map(|(i, records)| {
            let text = records.concat();
            (
                reads.write(&format!("{i}.fq"), text.as_bytes()),
                reads.write(&format!("{i}.gz"), &gzip(text.as_bytes())),
            )
        })
        .collect();
    for options in ["-k 9", "-k 21 -j 2", &format!("-k 21 -j 3 {SMALL}"), "-k 21 -j 2 --part-bits 1"] {
        let count = |packed: bool| {
            let files = files.iter().map(|(plain, gz)| if packed { gz } else { plain });
            leader().words("-q --all --row-per-file").words(options).args(files).run().exits(0)
        };
        let (plain, packed) = (count(false), count(true));
        assert!(plain.stdout == packed.stdout, "{packed}other bytes");
        assert!(packed.text().contains("# total_rows: 6\n"), "{packed}");
    }
}

/// A chromosome in a packed file is shared by all workers.
#[test]
fn a_long_packed_record_keeps_all_workers_busy() {
    let letters = data::Rng::new(55).letters("ACGT", 3_000_000);
    let reads = Reads::new(55, 1);
    let plain = reads.write("long.fa", format!(">chromosome\n{letters}\n").as_bytes());
    let packed = reads.write("long.fa.gz", &gzip(format!(">chromosome\n{letters}\n").as_bytes()));
    let expected = leader().words("-q --all -k 13 -j 1").arg(plain).run().exits(0).stdout;
    let ended = run("--all -k 13 -j 2", &packed).exits(0);
    assert!(ended.stdout == expected, "{ended}other bytes");
    assert_eq!(ended.busy_workers(), 2, "{ended}");
}

#[test]
fn whoever_dies_the_counts_are_the_same() {
    let reads = Reads::new(56, 900);
    let (packed, expected) = (reads.packed(), reads.expected(K));
    let points = [
        "worker.armed",
        "worker.running",
        "feed.claimed",
        "feed.stored",
        "feed.committed",
        "feed.consumed",
        "feed.ended",
        "chunk.written",
    ];
    let mut cases: Vec<String> = points
        .iter()
        .flat_map(|point| ["kill", "segv", "stop"].map(|what| format!("--inject {point}:worker=2:{what}")))
        .collect();
    cases.extend(["nth=2", "nth=3"].map(|nth| format!("--inject feed.stored:worker=2:{nth}:kill")));
    cases.extend(
        ["scan.claimed", "scan.block", "scan.stored"]
            .map(|point| format!("--inject {point}:worker=0:nth=2:kill")),
    );
    // Nobody in its place: the leader feeds, and at last does everything.
    cases.push("--inject feed.committed:worker=2:kill --on-worker-death degrade".into());
    cases.push("--inject feed.committed:worker=2:kill --inject scan.stored:worker=0:kill --inject scan.stored:worker=1:kill --on-worker-death degrade".into());
    cases.push("--inject feed.stored:worker=2:again:nth=2:kill --max-attempts 60 --max-respawns 60".into());
    // The leader recovers from a worker while the feeder frees parcels: what it knew of them is not true any more when it looks.
    cases.push(
        "--inject scan.stored:worker=0:kill --inject scan.block:worker=1:nth=all:delay=5 --inject recover.chain:leader:nth=all:delay=20".into(),
    );
    // A worker that is believed dead reads a parcel that is freed meanwhile.
    cases.push("--inject leader.hung:error --inject scan.block:worker=0:delay=1500".into());
    // It comes to one that was freed before it looked, while the leader is at its recovery.
    cases.push("--inject recover.stripes:leader:delay=3000 --inject scan.block:worker=0:delay=1500".into());
    // A feeder that is not dead when it should be: the leader feeds, with workers or alone, until the other comes back and leaves.
    let undead = "--inject leader.hung:error --inject feed.claimed:worker=2:nth=3";
    cases.push(format!("{undead}:delay=5000"));
    cases.push(format!("{undead}:delay=5000 --inject scan.stored:worker=0:kill --inject scan.stored:worker=1:kill --on-worker-death degrade"));
    cases.push("--inject feed.claimed:worker=2:nth=3:stop --inject scan.stored:worker=0:kill --inject scan.stored:worker=1:kill --on-worker-death degrade".into());
    for case in cases {
        let ended = run(&format!("{K} {SMALL} -j 2 --worker-timeout 0.4 {case}"), &packed).exits(0);
        assert!(ended.stdout == expected, "{ended}other bytes");
    }
    // The same while the others are at the drain.
    let drains =
        SMALL.replace("--stripe-bits 2", "--stripe-bits 4 --inject drain.claimed:worker=1:nth=all:delay=200");
    let case = "--worker-timeout 0.4 --inject leader.hung:error --inject scan.block:worker=0:delay=1500";
    let ended = run(&format!("{K} {drains} -j 2 {case}"), &packed).exits(0);
    assert!(ended.stdout == expected, "{ended}other bytes");
    let again = format!("{K} {SMALL} -j 2 --inject feed.stored:worker=2:again:kill");
    let _ = run(&again, &packed).fails(4, &["parcel 0 of the input: 3 workers died on it"]);
}

/// The feeder has nothing to do in the drain, and may end at any moment of it, before the leader has seen its end and after.
#[test]
fn a_leader_that_drains_alone_does_not_mind_when_the_feeder_ends() {
    let reads = Reads::new(58, 300);
    let (plain, packed, expected) = (reads.plain(), reads.packed(), reads.expected(K));
    let late = "--inject drain.opened:leader:delay";
    for ends in [format!("{late}=300"), format!("--inject worker.leaving:delay=100 {late}=400")] {
        let piped =
            leader().words(K).words(&ends).words("-j 0 -").stdin(fs::File::open(&plain).expect("a file"));
        let ended = piped.run().exits(0);
        assert!(ended.stdout == expected, "{ended}other bytes");
        for rule in ["--on-worker-death degrade", "--max-respawns 0"] {
            let died = format!("-j 1 {rule} --inject scan.claimed:worker=0:kill {ends}");
            let ended = run(&format!("{K} {died}"), &packed).exits(0);
            assert!(ended.stdout == expected, "{ended}other bytes");
        }
    }
}

#[test]
fn another_leader_goes_on_with_a_stream() {
    let reads = Reads::new(57, 900);
    let (packed, expected) = (reads.packed(), reads.expected(K));
    // In the third of them some parcels are there and some are not: the feeder dies, and the leader when it sees that.
    let fed = "feed.committed:worker=2:nth=5:kill --inject recover.begin";
    for point in ["launch.spawned:nth=3", "leader.wait", fed, "collect.begin", "drain.opened"] {
        let dir = tempfile::tempdir().expect("a directory");
        let words = format!(
            "{K} {SMALL} -j 2 --resumable -o out --inject feed.committed:nth=all:delay=3 --inject {point}:leader:kill"
        );
        let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        args.push(packed.to_str().expect("a plain path").to_owned());
        let killed = fault::run(dir.path(), &args, |_| {});
        assert_eq!(killed.signal(), Some(9), "{}", killed.told);
        let segment = segments_of(killed.pid).pop().unwrap_or_else(|| panic!("{}no segment", killed.told));
        let resumed = fault::run(dir.path(), &["resume", &segment], |_| {});
        assert_eq!(resumed.code(), Some(0), "{}", resumed.told);
        assert!(fs::read(dir.path().join("out")).expect("a result") == expected, "{point}: other bytes");
    }
}

/// A leader recovers from a worker while the feeder frees parcels, and whatever else comes at a bad moment.
#[test]
fn deaths_at_random_change_nothing() {
    let reads = Reads::new(60, 300);
    for (seed, more) in [("1", "--leader -j 8"), ("2", "-j 3")] {
        let torture =
            leader().args(["torture", "--kills", "120", "--seed", seed]).words(more).arg(reads.packed());
        let ended = torture.words("-- --all -k 21").run().exits(0);
        assert!(ended.text().contains("every result was the same"), "{ended}");
    }
}

#[test]
fn damage_in_a_packed_file_is_an_error() {
    let reads = Reads::new(58, 2000);
    let good = gzip(reads.text.as_bytes());
    let cut = reads.write("cut.gz", &good[..good.len() / 2]);
    let mut bytes = good.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    let altered = reads.write("altered.gz", &bytes);
    let mut bytes = good;
    let end = bytes.len() - 6;
    bytes[end] ^= 1;
    let sum = reads.write("sum.gz", &bytes);
    // Blocks of bgzf are whole files, so one that is cut between two of them unpacks without complaint.
    let blocks: Vec<u8> = reads.text.as_bytes().chunks(3000).take(20).flat_map(bgzf_block).collect();
    let blocks = reads.write("blocks.gz", &blocks);
    for file in [cut, altered, sum, blocks] {
        for options in ["-j 2", "-j 0", "-j 2 --on-error skip"] {
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            let _ = run(&format!("{K} {options} {SMALL}"), &file).fails(1, &[&name, "could not unpack"]);
        }
    }
    // A damaged record within is skipped as anywhere, and its place is that in the unpacked text.
    let at = reads.text.find("@r700\n").expect("a record");
    let text = reads.text[..at].to_owned() + "@odd\nACGT\n+\nIII\n" + &reads.text[at..];
    let file = reads.write("odd.gz", &gzip(text.as_bytes()));
    let place = format!("record at byte {at} (\"odd\"): expected as many qualities");
    let _ = run(&format!("{K} -j 2 {SMALL}"), &file).fails(1, &[&place]);
    let ended = run(&format!("{K} -j 2 --on-error skip {SMALL}"), &file).exits(3);
    let body = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(body(&ended.stdout), body(&reads.expected(K)));
}

#[test]
fn a_record_that_memory_has_no_room_for_is_an_error() {
    let reads = Reads::new(78, 1);
    let letters = "ACGTTGCA".repeat(5 << 20);
    let file = reads.write("long.fa.gz", &gzip(format!(">a\nACGT\n>chr1 of many\n{letters}\n").as_bytes()));
    let plain = reads.write("long.fa", format!(">a\nACGT\n>chr1\n{letters}\n").as_bytes());
    let counted = run("-q -k 21 -j 1 --all", &file).exits(0).stdout;
    assert_eq!(counted, run("-q -k 21 -j 1 --all --memory 96M", &plain).exits(0).stdout);
    for (options, what) in
        [("", "record at byte 22 (\"chr1\")"), ("--row-per-file", "all records, being one row")]
    {
        let what = format!("{what}: expected at most 16777216 bytes of unpacked text, found more");
        let hint = "hint: count the unpacked text as a file";
        let _ = run(&format!("-k 21 -j 1 --all --memory 96M {options}"), &file).fails(1, &[&what, hint]);
    }
}

/// Memory is bounded: what waits for slow workers is a few parcels.
#[test]
fn a_feeder_waits_for_the_workers() {
    let reads = Reads::new(59, 1000);
    let ended = run(&format!("{K} -j 1 {SMALL} --inject scan.block:nth=all:delay=10"), &reads.packed());
    let ended = ended.exits(0);
    assert!(ended.stdout == reads.expected(K), "{ended}other bytes");
}
