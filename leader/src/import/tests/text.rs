//! Tests of what is taken for a letter, a line and a name.

use super::*;

#[test]
fn what_is_no_nucleotide_is_refused_wherever_it_stands() {
    for (dna_type, letters, position) in [
        (ImportType::Dna2, "ACGN-", 5),
        (ImportType::Dna2, "AC-GN", 3),
        (ImportType::Dna2, "NNNN\nACGT\rA", 9),
        (ImportType::Dna4, "ACGN\n-", 5),
    ] {
        let mut case = Case::new(format!(">a\nACGT\n>b\n{letters}\n>c\nGG\n").as_bytes());
        (case.args.skip_ambiguous, case.args.dna_type) = (true, dna_type);
        let (text, hint) = case.error();
        assert!(text.starts_with("file \"in\": record 2 \"b\": expected "), "{text}");
        assert!(text.ends_with(&format!(" (base {position})")) && hint.is_none(), "{text}");
        assert_eq!(case.files(), ["in"]);
    }
}

#[test]
fn a_carriage_return_belongs_to_a_line_feed_or_the_end_of_the_file() {
    for good in ["ACG\r\nT\r\n", "ACG\r\nT\r", "A\r\n\r\nCGT", "ACGT\r\n\r\n", "ACGT\r\n>b\r\n\r\n"] {
        let case = Case::new(format!(">a\r\n{good}").as_bytes());
        assert_eq!(case.run().bases, 4, "{good:?}");
    }
    for (bad, position) in [
        (">a\nACG\rTACG\n", 4),
        (">a\nACG\r\r\nT\n", 4),
        (">a\nACGT\r\r\n>b\nA\n", 5),
        (">a\nACGT\r\r", 5),
        (">a\n\rACGT\n", 1),
        (">a\nACGT\n\r>b\n", 5),
        ("@a\nACGT\rACGT\n+\nIIIIIIIII\n", 5),
        ("@a\n\rACG\r\n+\nIIII\n", 1),
    ] {
        for dna_type in [ImportType::Dna2, ImportType::Dna4] {
            let mut case = Case::new(bad.as_bytes());
            case.args.dna_type = dna_type;
            let text = case.error().0;
            let is_named = text.contains("record 1 \"a\": ") && text.contains("found '\\r'");
            assert!(is_named && text.ends_with(&format!("(base {position})")), "{bad:?}: {text}");
        }
    }
}

#[test]
fn empty_lines_mean_nothing_where_a_record_may_begin() {
    for blank in ["\n", "\r\n", "\n\n\r\n\n"] {
        let text = format!("@a\nAC\n+\nII\n{blank}@b\n\n+\n\n{blank}@c\nGGT\n+\nIII\n{blank}");
        let summary = Case::new(text.as_bytes()).run();
        assert_eq!((summary.rows, summary.bases), (3, 5), "{blank:?}");
    }
    let refused = |text: &str, expected: &str| {
        assert_eq!(Case::new(text.as_bytes()).error().0, format!("file \"in\": record {expected}"));
    };
    // The lines are those of the file.
    refused(
        "@a\nAC\n+\nII\n\n\n@b\nAC\n+\nI\n",
        "2: expected as many qualities as bases, found another number (line 7)",
    );
    refused("@a\nAC\n+\nII\n\n \n@b\n", "2: expected > or @ at its start, found something else (line 6)");
    refused(
        "@a\nAC\n\n+\nII\n",
        "1: expected a line with + behind the sequence, found something else (line 3)",
    );
    refused("@a\nAC\n+\n\nII\n", "1: expected as many qualities as bases, found another number (line 1)");
    for cut in ["@a", "@a\n", "@a\nAC\n", "@a\nAC\n+", "@a\n\n+"] {
        let text = Case::new(cut.as_bytes()).error().0;
        assert!(
            text.contains("record 1: expected a whole record, found the end of the file (line "),
            "{text}"
        );
    }
    assert_eq!(Case::new(b"@a\n\n+\n").run().rows, 1);
}

#[test]
fn any_name_is_read_back_or_refused() {
    let long = [b">a\n", &letters(b"ACGT", 20_000, 60, 0)[..]].concat();
    for name in [" out", "\t out ", "out ", "#out", "\"out\"", "a = b", "\u{a0}out", "./ out", "'"] {
        let mut case = Case::new(&long);
        case.args.output = case.directory.path().join(name);
        case.run();
        assert_eq!(read_back(&case.args.output).unwrap().len(), 1, "{name:?}");
    }
    for (name, expected) in
        [("o\nut", "of one line, found a line break"), ("out\r", "of one line, found a line break")]
    {
        let mut case = Case::new(&long);
        case.args.output = case.directory.path().join(name);
        let (text, hint) = case.error();
        assert!(text.ends_with(&format!("expected a name {expected}")) && hint.is_some(), "{text}");
        assert_eq!(case.files(), ["in"]);
    }
}
