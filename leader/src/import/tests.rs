//! Tests of the import: the packing against strings of digits, and whole files in and out.

mod text;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use relation::{
    PageCounts, PageReader, ReadOptions, RelationFile, RowSink, Toast, ToastIndex, TupleDesc, Value,
};

use super::*;

/// Packs letter by letter into a string of 0 and 1 and that, eight by eight, into bytes.
fn naive(kind: ImportType, lines: &[u8]) -> (u32, Vec<u8>) {
    let mut digits = String::new();
    for letter in lines.to_ascii_uppercase().into_iter().filter(|letter| !b"\r\n".contains(letter)) {
        let bases = match letter {
            b'A' => "A",
            b'C' => "C",
            b'G' => "G",
            b'T' | b'U' => "T",
            b'M' => "AC",
            b'R' => "AG",
            b'W' => "AT",
            b'S' => "CG",
            b'Y' => "CT",
            b'K' => "GT",
            b'V' => "ACG",
            b'H' => "ACT",
            b'D' => "AGT",
            b'B' => "CGT",
            b'N' => "ACGT",
            other => panic!("letter {other}"),
        };
        digits += &match kind {
            ImportType::Dna2 => format!("{:02b}", "ACGT".find(bases).unwrap()),
            ImportType::Dna4 => {
                "TGCA".chars().map(|base| if bases.contains(base) { '1' } else { '0' }).collect()
            }
        };
    }
    let bits = digits.len() as u32;
    digits += &"0".repeat(digits.len().next_multiple_of(8) - digits.len());
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 8], 2).unwrap();
    (bits, (0..digits.len()).step_by(8).map(byte).collect())
}

/// `len` letters out of `alphabet`, in lines of `width`, different for each seed.
fn letters(alphabet: &[u8], len: usize, width: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15) | 1;
    let mut lines = Vec::new();
    for at in 0..len {
        if at > 0 && at % width == 0 {
            lines.extend_from_slice(if seed.is_multiple_of(2) { b"\n" } else { b"\r\n" });
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        lines.push(alphabet[(state >> 33) as usize % alphabet.len()]);
    }
    lines
}

#[test]
fn packing_equals_the_naive_one_at_every_length_and_line_width() {
    for (kind, alphabet) in
        [(ImportType::Dna2, &b"ACGTUacgtu"[..]), (ImportType::Dna4, b"ACGTUMRWSYKVHDBNacgtumrwsykvhdbn")]
    {
        let mut packer = Packer::new(kind);
        for len in 0..90 {
            for width in [1, 2, 3, 4, 5, 7, 8, 60] {
                let lines = letters(alphabet, len, width, (len * 64 + width) as u64);
                packer.pack(&lines).unwrap();
                let (bits, bytes) = naive(kind, &lines);
                assert_eq!(packer.value(), Some((bits, &bytes[..])), "{kind:?} {}", lines.escape_ascii());
                assert_eq!(packer.bases(), len as u64);
            }
        }
    }
}

#[test]
fn every_byte_is_a_code_a_line_end_or_refused_at_its_place() {
    for kind in [ImportType::Dna2, ImportType::Dna4] {
        let mut packer = Packer::new(kind);
        for letter in 0..=255u8 {
            let ambiguous = b"MRWSYKVHDBN".contains(&letter.to_ascii_uppercase());
            let good = b"ACGTU".contains(&letter.to_ascii_uppercase())
                || letter == b'\n'
                || kind == ImportType::Dna4 && ambiguous;
            for before in 0..6 {
                let mut lines = letters(b"ACGT", before, 3, 2);
                lines.extend([letter, b'A', b'C', b'G', b'T']);
                let refused = Refused { position: before as u64 + 1, letter, ambiguous, kind };
                assert_eq!(packer.pack(&lines), if good { Ok(()) } else { Err(refused) });
            }
        }
    }
}

/// A directory, an input file in it, and what an import of that file gave.
struct Case {
    directory: tempfile::TempDir,
    args: ImportArgs,
}

impl Case {
    fn new(input: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in");
        fs::write(&path, input).unwrap();
        let args = ImportArgs {
            inputs: vec![path],
            output: directory.path().join("out"),
            dna_type: ImportType::Dna2,
            skip_ambiguous: false,
            no_checksums: false,
            toast_relid: 0,
            first_value_id: FIRST_VALUE_ID,
            force: false,
        };
        Self { directory, args }
    }

    fn run(&self) -> ImportSummary {
        run(&self.args, &Signals::catch().unwrap()).unwrap()
    }

    /// The error's text without the directory, and its hint.
    fn error(&self) -> (String, Option<String>) {
        let error = run(&self.args, &Signals::catch().unwrap()).unwrap_err();
        let here = format!("{}/", self.directory.path().display());
        let hint = error.downcast_ref::<ImportError>().and_then(ImportError::hint);
        (format!("{error:#}").replace(&here, ""), hint.map(|hint| hint.replace(&here, "")))
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The output's bytes.
    fn output(&self) -> Vec<u8> {
        fs::read(&self.args.output).unwrap()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_same_records_make_the_same_file_in_every_format() {
    let fasta = Case::new(b">a first\nACGTAC\nGTA\n>b\n\n>c\n>d x\nTTTT\n>e\n");
    let summary = fasta.run();
    assert_eq!((summary.rows, summary.bases, summary.heap_blocks, summary.toast_blocks), (5, 13, 1, 0));
    assert_eq!(fasta.files(), ["in", "out", "out.schema"]);
    for (what, other) in [
        ("no last line end", b">a first\nACGTACGTA\n>b\n>c\n>d\nTTTT\n>e".to_vec()),
        ("crlf", b">a first\r\nACGTAC\r\nGTA\r\n>b\r\n>c\r\n\r\n>d x\r\nTTTT\r\n>e\r\n".to_vec()),
        ("lower case and U", b">a\nacguacgua\n>b\n>c\n>d\nuuuu\n>e\n".to_vec()),
        (
            "fastq",
            b"@a x\nACGTACGTA\n+\nIIIIIIIII\n@b\n\n+\n\n@c\n\n+b\n\n@d\nTTTT\n+\n@@@@\n@e\n\n+\n\n".to_vec(),
        ),
        ("gzip", gzip(b">a\nACGTACGTA\n>b\n>c\n>d\nTTTT\n>e\n")),
        ("two gzip members", [gzip(b">a\nACGTAC"), gzip(b"GTA\n>b\n>c\n>d\nTTTT\n>e\n")].concat()),
    ] {
        let other = Case::new(&other);
        assert_eq!(other.run().rows, 5, "{what}");
        assert!(other.output() == fasta.output(), "{what}: another file");
    }
}

#[test]
fn several_files_are_one_table() {
    let mut parts = Case::new(b">a\nAC");
    let second = parts.directory.path().join("second");
    fs::write(&second, b"@b\nGG\n+\nII").unwrap();
    parts.args.inputs.push(second);
    let whole = Case::new(b">a\nAC\n>b\nGG\n");
    assert_eq!((parts.run().rows, whole.run().rows), (2, 2));
    assert!(parts.output() == whole.output());
}

#[test]
fn ambiguous_bases_are_refused_skipped_or_stored() {
    let mut case = Case::new(b">a\nACGT\n>b second\nAC\nGNA\n>c\nGG\n");
    let hint = "use --type dna4 to store ambiguous bases, or --skip-ambiguous to leave such records out";
    let text = "file \"in\": record 2 \"b\": expected A, C, G or T, found 'N' (base 4)";
    assert_eq!(case.error(), (text.to_owned(), Some(hint.to_owned())));
    assert_eq!(case.files(), ["in"]);
    case.args.skip_ambiguous = true;
    let summary = case.run();
    assert_eq!((summary.rows, summary.bases, summary.skipped), (2, 6, 1));
    case.args.force = true;
    case.args.dna_type = ImportType::Dna4;
    let summary = case.run();
    assert_eq!((summary.rows, summary.bases, summary.skipped), (3, 11, 0));
}

#[test]
fn what_is_no_nucleotide_is_refused_even_when_skipping() {
    let mut case = Case::new(b">a\nAC-GT\n");
    case.args.skip_ambiguous = true;
    let text =
        |expected: &str| format!("file \"in\": record 1 \"a\": expected {expected}, found '-' (base 3)");
    assert_eq!(case.error(), (text("A, C, G or T"), None));
    case.args.dna_type = ImportType::Dna4;
    assert_eq!(case.error(), (text("an IUPAC nucleotide code"), None));
}

#[test]
fn damaged_input_says_what_and_where_and_leaves_nothing() {
    for (input, expected) in [
        (&b""[..], "expected FASTA or FASTQ, plain or packed, found an empty file"),
        (&gzip(b""), "expected FASTA or FASTQ, plain or packed, found an empty file"),
        (b"ACGT\n", "expected FASTA or FASTQ, plain or packed, found neither > nor @ at its start"),
        (b"BZh91AY", "expected FASTA or FASTQ, plain or packed, found a bzip2 file"),
        (
            b"@a\nACGT\n+\nIII\n",
            "record 1: expected as many qualities as bases, found another number (line 1)",
        ),
        (
            b"@a\nAC\n+\nII\nx\nAC\n+\nII\n",
            "record 2: expected > or @ at its start, found something else (line 5)",
        ),
        (
            b"@a\nAC\nAC\nII\n",
            "record 1: expected a line with + behind the sequence, found something else (line 3)",
        ),
        (b"@a\nAC\n+\nII\n@b\nAC", "record 2: expected a whole record, found the end of the file (line 6)"),
        (b">a\rACGT\r>b\rACGT\r", "record 1: expected a header line, found a carriage return in it"),
        (b">a\nAC\n>\xE9t\nAC", "record 2: expected a name in UTF-8, found \"\\xe9t\""),
        (b">a\0b\nAC\n", "record 1: expected a name in UTF-8, found \"a\\x00b\""),
        (b">a\nAC GT\n", "record 1 \"a\": expected A, C, G or T, found ' ' (base 3)"),
    ] {
        let case = Case::new(input);
        assert_eq!(case.error().0, format!("file \"in\": {expected}"));
        assert_eq!(case.files(), ["in"]);
    }
}

#[test]
fn a_cut_gzip_file_is_an_error() {
    let mut cut = gzip(&[b">a\n", &letters(b"ACGT", 50_000, 60, 0)[..]].concat());
    cut.truncate(cut.len() / 2);
    let case = Case::new(&cut);
    assert!(case.error().0.starts_with("file \"in\": could not read: "), "{:?}", case.error());
    assert_eq!(case.files(), ["in"]);
}

#[test]
fn output_is_replaced_only_when_forced() {
    let mut case = Case::new(&[b">a\n", &letters(b"ACGT", 20_000, 60, 0)[..]].concat());
    case.run();
    assert_eq!(case.files(), ["in", "out", "out.schema", "out.toast"]);
    let hint = Some("use --force to replace it".to_owned());
    assert_eq!(case.error(), ("file \"out\": exists already".to_owned(), hint));
    fs::write(&case.args.inputs[0], b">a\nAC").unwrap();
    case.args.force = true;
    case.run();
    assert_eq!(case.files(), ["in", "out", "out.schema"]);
    fs::remove_file(&case.args.output).unwrap();
    case.args.force = false;
    assert_eq!(case.error().0, "file \"out.schema\": exists already");
}

/// The column `seq` as read back by the sidecar's word.
#[derive(Default)]
struct Bits(Vec<(u32, Vec<u8>)>);

impl RowSink for Bits {
    fn row(&mut self, _item: u16, value: Value<'_>) -> Result<(), relation::Error> {
        let Value::Bits { bits, bytes } = value else { panic!("a null") };
        self.0.push((bits, bytes.to_vec()));
        Ok(())
    }

    fn damaged(&mut self, error: relation::Error) -> Result<(), relation::Error> {
        Err(error)
    }
}

fn read_back(path: &Path) -> relation::error::Result<Vec<(u32, Vec<u8>)>> {
    let sidecar = Sidecar::load(path)?.expect("a sidecar");
    let options = ReadOptions { verify_checksums: sidecar.checksums, ..Default::default() };
    let toast = match sidecar.toast_path(path) {
        Some(toast) => {
            let file = RelationFile::open(&toast)?;
            let index = ToastIndex::build(&file, &options)?;
            Some(Arc::new(Toast::new(file, index)?))
        }
        None => None,
    };
    let desc = TupleDesc::parse(&sidecar.columns)?;
    let column = desc.column(&sidecar.column.expect("a column"))?;
    let mut reader = PageReader::new(&desc, column, options, path, toast)?;
    let file = RelationFile::open(path)?;
    let (mut bits, mut page) = (Bits::default(), vec![0; 8192]);
    for block in 0..file.total_blocks() {
        file.read_blocks(block, &mut page)?;
        reader.read_page(&page, block, &mut PageCounts::default(), &mut bits)?;
    }
    Ok(bits.0)
}

#[test]
fn the_reader_finds_what_was_imported() {
    for (dna_type, alphabet) in
        [(ImportType::Dna2, &b"ACGTUacgt"[..]), (ImportType::Dna4, b"ACGTUMRWSYKVHDBNacgtn")]
    {
        let (mut input, mut expected, mut bases) = (Vec::new(), Vec::new(), 0);
        for record in 0..400 {
            // Short ones, empty ones, and some that go to the TOAST file in one or many chunks.
            let len = if record % 19 == 0 { record * 150 } else { record % 300 };
            let lines = letters(alphabet, len, 70, record as u64);
            input.extend_from_slice(format!(">record{record} of a test\n").as_bytes());
            input.extend_from_slice(&lines);
            input.push(b'\n');
            expected.push(naive(dna_type, &lines));
            bases += len as u64;
        }
        let mut case = Case::new(&input);
        case.args.dna_type = dna_type;
        for no_checksums in [false, true] {
            (case.args.no_checksums, case.args.force) = (no_checksums, true);
            let summary = case.run();
            assert_eq!((summary.rows, summary.bases), (400, bases));
            assert!(summary.heap_blocks > 1 && summary.toast_blocks > 1);
            assert!(read_back(&case.args.output).unwrap() == expected, "{dna_type:?} differs");
        }
    }
}

/// Counts the k-mers of 2-bit values by rows: how many there are, and how many occur in more than half of the rows.
fn kmers(rows: &[(u32, Vec<u8>)], k: usize) -> (usize, usize) {
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    for (bits, bytes) in rows {
        let base = |at: usize| bytes[at / 4] >> (6 - at % 4 * 2) & 3;
        let bases: Vec<u8> = (0..*bits as usize / 2).map(base).collect();
        let distinct: HashSet<&[u8]> = bases.windows(k).collect();
        for kmer in distinct {
            *counts.entry(kmer.to_vec()).or_default() += 1;
        }
    }
    (counts.len(), counts.values().filter(|&&count| count > rows.len() / 2).count())
}

#[test]
fn the_examples_are_what_their_readme_says() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let klebs = read_back(&examples.join("klebs")).unwrap();
    assert_eq!((klebs.len(), klebs.iter().map(|(bits, _)| bits / 2).sum::<u32>()), (4319, 4_277_556));
    let amplicons = read_back(&examples.join("amplicons")).unwrap();
    assert_eq!((amplicons.len(), kmers(&amplicons, 16)), (32, (593, 419)));

    let tiny = |name: &str| Case::new(&fs::read(examples.join(name)).unwrap());
    let fasta = tiny("tiny.fa");
    assert_eq!(fasta.run().rows, 5);
    assert_eq!(kmers(&read_back(&fasta.args.output).unwrap(), 16), (45, 6));
    let mut fastq = tiny("tiny.fq");
    assert!(fastq.error().0.contains("\"read2\""));
    fastq.args.skip_ambiguous = true;
    let summary = fastq.run();
    assert_eq!((summary.rows, summary.skipped), (1, 2));
}
