//! Where a value lies and which rows count: other columns, NULLs, every way of the server to store a value, dead rows, changed tables.
//!
//! Each test first asks the server whether the table really holds what the test is about.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use kmer_tests::case::Case;
use kmer_tests::data::{self, Rng};
use kmer_tests::oracle::Dna;
use kmer_tests::server::{Server, Table, with_suffix};

fn case(table: &Table<'_>) -> Case {
    Case::new(table, "seq", Dna::Dna2)
}

/// Checks three sizes of k, alone and with two workers, and that both print the same bytes.
fn check(case: &Case) {
    for k in [5, 16, 29] {
        let alone = case.check(k, 0, 0);
        let shared = case.check(k, 0, 2);
        assert!(alone.stdout == shared.stdout, "{alone}{shared}");
    }
}

/// A query over the line pointers and tuple headers of all pages.
fn items(table: &str, what: &str) -> String {
    format!(
        "SELECT {what} FROM generate_series(0, pg_relation_size('{table}') / 8192 - 1) page,
         LATERAL heap_page_item_attrs(get_raw_page('{table}', page::int), '{table}'::regclass) ",
    )
}

/// Names the forms in which the n-th column's values are stored, told from their first bytes.
fn stored_forms(server: &Server, table: &str, column: usize) -> BTreeSet<String> {
    let query = items(table, &format!("DISTINCT encode(substring(t_attrs[{column}] FROM 1 FOR 10), 'hex')"))
        + "WHERE lp_flags = 1;";
    server
        .sql(&query)
        .lines()
        .map(|hex| {
            let bytes: Vec<u8> = (0..hex.len() / 2)
                .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex"))
                .collect();
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
            let method = |info: u32| ["pglz", "lz4"][(info >> 30) as usize];
            match bytes.first() {
                None => "null".to_owned(),
                Some(1) => {
                    // tag, then va_rawsize (with its header of 4 bytes) and va_extinfo (size and method)
                    let (raw, info) = (word(2), word(6));
                    if info & 0x3fff_ffff < raw - 4 {
                        format!("external {}", method(info))
                    } else {
                        "external".to_owned()
                    }
                }
                Some(first) if first & 1 == 1 => "short".to_owned(),
                Some(first) if first & 3 == 2 => format!("inline {}", method(word(4))),
                Some(_) => "plain".to_owned(),
            }
        })
        .collect()
}

/// Tries again for some seconds: another test's session may hold VACUUM back for a moment.
fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..100 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Sequences of all sizes: some compress, some do not.
fn sequences_of_all_sizes(rng: &mut Rng) -> Vec<Option<String>> {
    let repeated = |rng: &mut Rng, unit: usize, times: usize| rng.letters("ACGT", unit).repeat(times);
    let mut rows = data::rows(31, 60);
    for _ in 0..2 {
        rows.push(Some(rng.letters("ACGT", 5000))); // 1,250 bytes: plain
        rows.push(Some(rng.letters("ACGT", 20_000))); // does not compress: external
        rows.push(Some(repeated(rng, 60, 400))); // compresses to little: inline
        let parts: Vec<String> = (0..8).map(|_| repeated(rng, 1600, 3)).collect();
        rows.push(Some(parts.concat())); // 9,600 bytes, compress to a third: external, compressed
    }
    rows
}

fn random_neighbours(rng: &mut Rng, id: usize, bits: Option<String>) -> Vec<Option<String>> {
    let maybe = |rng: &mut Rng, text: String| (rng.below(4) > 0).then_some(text);
    let note_length = rng.below(200);
    let note = rng.letters("abcdefghij", note_length);
    let digits = 1 + rng.below(40);
    let price = rng.letters("123456789", digits);
    let flag = ["t", "f"][rng.below(2)].to_owned();
    let at = format!("2024-01-01 00:00:{:02}+00", rng.below(60));
    let bytes = rng.below(30) * 2;
    // In COPY's text a backslash is written twice.
    let blob = "\\\\x".to_owned() + &rng.letters("0123456789abcdef", bytes);
    let after = rng.letters("xyz", note_length / 2);
    let number = rng.next_u64() >> 2;
    vec![
        maybe(rng, id.to_string()),
        maybe(rng, note),
        maybe(rng, price),
        maybe(rng, flag),
        maybe(rng, at),
        maybe(rng, blob),
        bits,
        maybe(rng, after),
        maybe(rng, number.to_string()),
    ]
}

const WIDE: &str = "(id int4, note text, price numeric, flag bool, at timestamptz, blob bytea, seq bit varying, after text, big int8)";
const WIDE_COLUMNS: &str = "id, note, price, flag, at, blob, seq, after, big";

#[test]
fn values_stored_in_every_form_between_other_columns() {
    let server = Server::shared();
    let mut rng = Rng::new(30);
    let mut script = format!("CREATE TABLE wide {WIDE};\n");
    for setting in ["SET COMPRESSION pglz", "SET COMPRESSION lz4", "SET STORAGE EXTERNAL", "SET STORAGE MAIN"]
    {
        script += &format!("ALTER TABLE wide ALTER seq {setting};\n");
        let rows: Vec<Vec<Option<String>>> = data::all_dna2_bits(&sequences_of_all_sizes(&mut rng))
            .into_iter()
            .enumerate()
            .map(|(id, bits)| random_neighbours(&mut rng, id, bits))
            .collect();
        script += &data::copy("wide", WIDE_COLUMNS, &rows);
    }
    server.sql(&script);
    let forms = stored_forms(server, "wide", 7);
    for form in
        ["null", "short", "plain", "inline pglz", "inline lz4", "external", "external pglz", "external lz4"]
    {
        assert!(forms.contains(form), "no value is stored {form}: {forms:?}");
    }
    check(&case(&server.table("wide")));
}

#[test]
fn one_chunk_more_or_less() {
    // Around multiples of a TOAST chunk's 1,996 bytes, of which the bit length takes 4.
    let server = Server::shared();
    let mut rng = Rng::new(32);
    let mut bits = Vec::new();
    for chunks in [2, 3] {
        for bytes in chunks * 1996 - 6..chunks * 1996 + 3 {
            bits.push(Some(data::dna2_bits(&rng.letters("ACGT", 4 * bytes - 1))));
        }
    }
    server.sql(
        &("CREATE TABLE chunks (seq bit varying); ALTER TABLE chunks ALTER seq SET STORAGE EXTERNAL;\n"
            .to_owned()
            + &data::copy_bits("chunks", "seq", &bits)),
    );
    assert_eq!(stored_forms(server, "chunks", 1), BTreeSet::from(["external".to_owned()]));
    check(&case(&server.table("chunks")));
}

#[test]
fn only_committed_rows_that_nobody_deleted_count() {
    let server = Server::shared();
    let bits = data::all_dna2_bits(&data::rows(33, 800));
    let rows: Vec<Vec<Option<String>>> =
        bits.into_iter().enumerate().map(|(id, bits)| vec![Some(id.to_string()), bits]).collect();
    let held = server.hold_snapshot();
    server.sql(
        &("CREATE TABLE lives (id int4, seq bit varying) WITH (fillfactor = 70);\n".to_owned()
            + &data::copy("lives", "id, seq", &rows)
            + "DELETE FROM lives WHERE id % 7 = 1;
               UPDATE lives SET seq = seq || B'0011' WHERE id % 7 = 2;
               UPDATE lives SET id = -id WHERE id % 7 = 3;
               BEGIN; INSERT INTO lives SELECT * FROM lives; ROLLBACK;
               BEGIN; UPDATE lives SET seq = B'00000000000000000000' WHERE id % 7 = 4; ROLLBACK;
               BEGIN; DELETE FROM lives WHERE id % 7 = 5; ROLLBACK;
               BEGIN; INSERT INTO lives SELECT id + 10000, seq FROM lives WHERE id BETWEEN 1 AND 50;
               SAVEPOINT s; INSERT INTO lives SELECT id + 20000, seq FROM lives WHERE id BETWEEN 1 AND 50; ROLLBACK TO s;
               SAVEPOINT t; INSERT INTO lives SELECT id + 30000, seq FROM lives WHERE id BETWEEN 1 AND 50; RELEASE t; COMMIT;
               BEGIN; SELECT count(*) FROM (SELECT 1 FROM lives WHERE id % 7 = 6 FOR UPDATE) locked; COMMIT;
               BEGIN; SELECT count(*) FROM (SELECT 1 FROM lives WHERE id % 7 = 0 FOR KEY SHARE) locked; COMMIT;
               BEGIN; INSERT INTO lives VALUES (99999, B'1111111111111111111111111111111111111111'); DELETE FROM lives WHERE id = 99999; COMMIT;"),
    );
    let case = case(&server.table("lives"));
    drop(held);
    for (what, condition) in [
        ("deleted", "t_infomask & 1024 <> 0 AND t_infomask2 & 16384 = 0"),
        ("inserted by an aborted transaction", "t_infomask & 512 <> 0 AND t_infomask & 256 = 0"),
        ("deleted by an aborted transaction", "t_xmax <> 0 AND t_infomask & 2048 <> 0"),
        ("updated in the page (HOT)", "t_infomask2 & 16384 <> 0 AND t_infomask & 1024 <> 0"),
        ("only locked", "t_xmax <> 0 AND t_infomask & 128 <> 0"),
    ] {
        let query = items("lives", "count(*)") + &format!("WHERE lp_flags = 1 AND {condition};");
        let found: u64 = server.value(&query);
        assert!(found > 10, "{found} tuples are {what}");
    }
    check(&case);
}

#[test]
fn line_pointers_that_bear_no_tuple() {
    let server = Server::shared();
    let rows: Vec<Vec<Option<String>>> = data::all_dna2_bits(&data::rows(34, 5000))
        .into_iter()
        .enumerate()
        .map(|(id, bits)| vec![Some(id.to_string()), bits])
        .collect();
    server.sql(
        &("CREATE TABLE holes (id int4, seq bit varying) WITH (fillfactor = 60);
           CREATE INDEX ON holes (id);\n"
            .to_owned()
            + &data::copy("holes", "id, seq", &rows)
            + "UPDATE holes SET seq = seq || B'01' WHERE id % 5 = 0;
               UPDATE holes SET seq = seq || B'10' WHERE id % 5 = 0;
               DELETE FROM holes WHERE id % 3 = 1;"),
    );
    let count = |flags: u8| -> u64 {
        server.value(&(items("holes", "count(*)") + &format!("WHERE lp_flags = {flags};")))
    };
    until(|| {
        server.sql("VACUUM (INDEX_CLEANUP off) holes;");
        count(2) > 100 && count(3) > 100
    });
    assert!(count(2) > 100, "{} redirects", count(2));
    assert!(count(3) > 100, "{} dead line pointers", count(3));
    check(&case(&server.table("holes")));
    until(|| {
        server.sql("VACUUM (FREEZE, INDEX_CLEANUP on, TRUNCATE off) holes;");
        count(0) > 100 && count(3) == 0
    });
    assert!(count(0) > 100, "{} unused line pointers", count(0));
    let frozen = items("holes", "count(*)") + "WHERE lp_flags = 1 AND t_infomask & 768 = 768;";
    assert!(server.value::<u64>(&frozen) > 100, "no frozen tuples");
    let case = case(&server.table("holes"));
    assert!(fs::metadata(&case.snapshot.heap).expect("the heap").len() > 60 * 8192);
    check(&case);
}

#[test]
fn columns_added_and_dropped() {
    let server = Server::shared();
    let bits = |seed| data::all_dna2_bits(&data::rows(seed, 150));
    let copy = |seed: u64, columns: &str, left: &[&str], right: &[&str]| {
        let rows: Vec<Vec<Option<String>>> = bits(seed)
            .into_iter()
            .map(|bits| {
                let field = |text: &&str| (*text != "null").then(|| (*text).to_owned());
                let mut row: Vec<Option<String>> = left.iter().map(field).collect();
                row.push(bits);
                row.extend(right.iter().map(field));
                row
            })
            .collect();
        data::copy("changed", columns, &rows)
    };
    let steps = [
        "CREATE TABLE changed (a int2, fixed float8, b text, seq bit varying);\n".to_owned()
            + &copy(35, "a, fixed, b, seq", &["1", "2.5", "bb"], &[])
            + &copy(36, "a, fixed, b, seq", &["1", "null", "null"], &[]),
        "ALTER TABLE changed ADD COLUMN later int4;\n".to_owned()
            + &copy(37, "a, fixed, b, seq, later", &["3", "4", "a longer text than before"], &["9"]),
        "ALTER TABLE changed ADD COLUMN filled text DEFAULT 'some default';\n".to_owned()
            + &copy(38, "a, fixed, b, seq, filled", &["3", "4", ""], &["x"]),
        "ALTER TABLE changed DROP COLUMN fixed;\n".to_owned()
            + &copy(39, "a, b, seq", &["3", "odd"], &[])
            + &copy(40, "a, b, seq, later", &["null", "null"], &["null"]),
        "ALTER TABLE changed DROP COLUMN b;\n".to_owned() + &copy(41, "a, seq", &["7"], &[]),
        "ALTER TABLE changed DROP COLUMN a, DROP COLUMN filled;\n".to_owned() + &copy(42, "seq", &[], &[]),
        "ALTER TABLE changed ADD COLUMN last bool DEFAULT true;\n".to_owned()
            + &copy(43, "seq, last", &[], &["f"]),
    ];
    for step in steps {
        server.sql(&step);
        check(&case(&server.table("changed")));
    }
    assert_eq!(server.table("changed").schema().matches("dropped(").count(), 4);
}

#[test]
fn a_dna_column_added_later_is_null_in_older_rows() {
    let server = Server::shared();
    server.sql(
        &("CREATE TABLE younger (id int4);\nINSERT INTO younger SELECT generate_series(1, 500);
           ALTER TABLE younger ADD COLUMN seq dna2;\n"
            .to_owned()
            + &data::copy_bits("younger", "seq", &data::all_dna2_bits(&data::rows(44, 200)))),
    );
    check(&case(&server.table("younger")));
}

#[test]
fn a_dna_column_added_with_a_default_has_it_in_older_rows() {
    let server = Server::shared();
    let default = data::dna2_bits("GATTACAGATTACAGATTACAGATTACATTT");
    server.sql(&format!(
        "CREATE TABLE filled (id int4);\nINSERT INTO filled SELECT generate_series(1, 500);
         ALTER TABLE filled ADD COLUMN seq dna2 DEFAULT '{default}';\n{}INSERT INTO filled VALUES (7, DEFAULT), (8, NULL);",
        data::copy_bits("filled", "seq", &data::all_dna2_bits(&data::rows(44, 200)))
    ));
    let table = server.table("filled");
    assert_eq!(table.schema(), "id integer, seq dna2 missing(3e000000HEX)".replace("HEX", &hex(&default)));
    check(&case(&table));
}

/// The bytes of a text of bits in hexadecimal, the last one padded with zeros.
fn hex(bits: &str) -> String {
    let bytes = bits.as_bytes().chunks(8).map(|byte| {
        let text = std::str::from_utf8(byte).expect("ASCII");
        u32::from_str_radix(text, 2).expect("bits") << (8 - byte.len())
    });
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn tuples_whose_hint_bits_nobody_set() {
    let server = Server::shared();
    server.sql(
        &("CREATE TABLE unread (seq bit varying);\n".to_owned()
            + &data::copy_bits("unread", "seq", &data::all_dna2_bits(&data::rows(45, 300)))
            + "CHECKPOINT;"),
    );
    let file = server.table("unread").file();
    let dir = server.temp_dir();
    let copy = dir.path().join("unread");
    fs::copy(&file, &copy).expect("a copy before anybody reads");
    let case = case(&server.table("unread"));
    let undecided = case.engine_on(&copy).words("--all").run();
    let _ = undecided
        .fails(1, &["block 0, item 1", "kmer-leader: hint:", "SELECT count(*)", "CHECKPOINT", "--unhinted"]);
    let ended = case.engine_on(&copy).words("--all --unhinted visible").run().exits(0);
    case.check_report(&ended, 16, 0);
    let ended = case.engine_on(&copy).words("--all --unhinted skip -j 2").run().exits(0);
    let report = ended.report(16, 0);
    assert_eq!((report.fact("total_rows"), report.counts.len()), ("0", 0), "{ended}");
    // The same rows once the server has looked at them.
    check(&case);
}

#[test]
fn zero_pages_are_empty() {
    let server = Server::shared();
    server.sql(
        &("CREATE TABLE zeros (seq bit varying);\n".to_owned()
            + &data::copy_bits("zeros", "seq", &data::all_dna2_bits(&data::rows(46, 500)))),
    );
    let case = case(&server.table("zeros"));
    let file = fs::OpenOptions::new().write(true).open(&case.snapshot.heap).expect("the heap");
    let pages = file.metadata().expect("its size").len() / 8192;
    file.set_len((pages + 7) * 8192).expect("seven more pages");
    check(&case);
}

#[test]
fn a_relation_of_two_files() {
    // The first file of 1 GiB is a hole (all pages zero), the rows are in the second.
    let server = Server::shared();
    server.sql(
        &("CREATE TABLE second (seq bit varying);\n".to_owned()
            + &data::copy_bits("second", "seq", &data::all_dna2_bits(&data::rows(47, 500)))),
    );
    let case = case(&server.table("second"));
    let heap = &case.snapshot.heap;
    fs::rename(heap, with_suffix(heap, 1)).expect("the second file");
    let first = fs::File::create(heap).expect("the first file");
    first.set_len(1 << 30).expect("a hole of 1 GiB");
    let _ = case.check(16, 0, 2);
    // A first file that is not full, before one that is not empty, has lost its end.
    first.set_len((1 << 30) - 8192).expect("a page less");
    let _ = case.engine().words("--all").run().fails(1, &["131072", "131071"]);
}

#[test]
fn checksums_are_verified() {
    let server = Server::shared_with_checksums();
    server.sql(
        &("CREATE TABLE summed (id int4, seq bit varying);\n".to_owned()
            + &data::copy_bits("summed", "seq", &data::all_dna2_bits(&data::rows(48, 2000)))),
    );
    let mut case = case(&server.table("summed"));
    case.checksums = true;
    check(&case);
    let heap = fs::OpenOptions::new().read(true).write(true).open(&case.snapshot.heap).expect("the heap");
    let at = 3 * 8192 + 8000;
    let mut byte = [0];
    heap.read_exact_at(&mut byte, at).expect("a byte of block 3");
    heap.write_all_at(&[byte[0] ^ 4], at).expect("a flipped bit");
    let _ = case.engine().words("--all").run().fails(1, &["checksum", "block 3"]);
    let _ = case.engine().words("--all -j 3").run().fails(1, &["checksum", "block 3"]);
    // Skipping is asked for: the page's rows are missing, that is told, and the exit code says so.
    let skipped = case.engine().words("--all -j 2 --on-error skip").run().exits(3);
    assert!(skipped.stderr.contains("block 3"), "{skipped}");
    let rows: usize = skipped.report(16, 0).fact("total_rows").parse().expect("a number");
    assert!(0 < rows && rows < case.rows.len(), "{skipped}");
    case.checksums = false;
    let _ = case.engine().words("--all").run();
}
