//! Carriage returns in sequence files: a part of a line's end before LF and at a text's end, a letter that means nothing anywhere else.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use kmer_tests::engine::{Engine, leader};

/// Bytes of a text that are read at a time.
const BUFFER: usize = 1 << 20;

fn counted(text: &[u8], packed: bool, words: &str) -> Engine {
    let name = if packed { "in.fa.gz" } else { "in.fa" };
    let engine = leader().words("-k 6 --all").words(words).arg(name).keeps(name);
    write(&engine.dir().join(name), text, packed);
    engine
}

fn write(path: &Path, text: &[u8], packed: bool) {
    let bytes = if packed {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(text).expect("packed");
        packer.finish().expect("packed")
    } else {
        text.to_vec()
    };
    fs::write(path, bytes).expect("written");
}

/// A record of which `middle` stands around the place where the first buffer ends, `before` bytes before it.
fn around_the_border(middle: &str, before: usize) -> Vec<u8> {
    let mut text = b">a\n".to_vec();
    text.resize(BUFFER - before, b'A');
    text.extend(middle.as_bytes());
    text.extend(b"GGGGTTTT\n");
    text
}

#[test]
fn a_cr_is_no_letter_only_before_lf() {
    for packed in [false, true] {
        for workers in [0, 2] {
            let words = format!("-j {workers}");
            for before in 3..8 {
                let at = BUFFER - before + 4;
                let lone = around_the_border("CCCC\r", before);
                let expected = [format!("found '\\r' (byte {at})"), "record \"a\"".into()];
                let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
                let _ = counted(&lone, packed, &words).run().fails(1, &expected);
                let skipped = counted(&lone, packed, &words).words("--on-error skip").run().exits(3);
                let as_n = counted(&around_the_border("CCCCN", before), packed, &words).run().exits(0);
                assert_eq!(skipped.report(6, 0).counts, as_n.report(6, 0).counts, "{skipped}{as_n}");
                assert_eq!(skipped.report(6, 0).fact("tuples_skipped"), "1", "{skipped}");
                let ended = counted(&around_the_border("CCCC\r\n", before), packed, &words).run().exits(0);
                let whole = counted(&around_the_border("CCCC", before), packed, &words).run().exits(0);
                assert_eq!(ended.stdout, whole.stdout, "{ended}{whole}");
            }
        }
    }
}

#[test]
fn the_byte_is_that_of_the_cr_and_none_at_an_end() {
    for (text, at) in [
        (">a\r\nACGTACGT\r\nAC\rGTACGT\r\n", 16),
        (">a\nACGTACGT\r\r\n", 11),
        ("@a\r\nACGT\rACGT\r\n+\r\nIIIIIIIII\r\n", 8),
    ] {
        let expected = format!("found '\\r' (byte {at})");
        let _ = counted(text.as_bytes(), false, "-j 0").run().fails(1, &[&expected]);
        let skipped = counted(text.as_bytes(), false, "-j 0 --on-error skip").run().exits(3);
        assert!(skipped.stderr.contains("1 letters"), "{skipped}");
    }
    let expected = counted(b">a\nACGTACGT\n", false, "-j 0").run().exits(0);
    for text in [">a\r\nACGTACGT\r", ">a\r\nACGT\r\nACGT\r", ">a\nACGTACGT\r\n>b\r\nA\r\n"] {
        let ended = counted(text.as_bytes(), false, "-j 0").run().exits(0);
        assert_eq!(ended.report(6, 0).counts, expected.report(6, 0).counts, "{ended}{expected}");
    }
}
