//! The oracles judged by one another: the plain count in Rust, KMC, and a query of the server. The engine has no part in this. And the audit of what runs
//! leave.

use kmer_tests::data::{self, Rng};
use kmer_tests::engine::leader;
use kmer_tests::fault::Small;
use kmer_tests::kmc;
use kmer_tests::oracle::{self, Dna, Params};
use kmer_tests::output::differences;
use kmer_tests::server::Server;
use nix::unistd::Pid;
use shm_layout::takeover::{self, Listed};

#[test]
fn the_plain_oracle_and_kmc_agree() {
    let rows = data::rows(1, 400);
    let bits = data::all_dna2_bits(&rows);
    for k in [8, 12, 16, 21, 31, 32] {
        let plain = oracle::count_rows(&bits, Params::dna2(k));
        assert!(plain.values().any(|&rows| rows > 20), "k {k}: no k-mer comes again");
        let told = differences(&kmc::count_rows(&rows, k), &plain);
        assert_eq!(told, None, "k {k}");
    }
}

#[test]
fn the_plain_oracle_and_the_server_agree() {
    let server = Server::shared();
    let bits = data::all_dna2_bits(&data::rows(2, 300));
    server.sql(
        &("CREATE TABLE sql_oracle (seq bit varying);\n".to_owned()
            + &data::copy_bits("sql_oracle", "seq", &bits)),
    );
    let table = server.table("sql_oracle");
    let stored = table.sequences("seq");
    assert_eq!(stored, bits, "the server gives back what was stored");
    for k in [4, 5, 16, 31, 32] {
        let plain = oracle::count_rows(&bits, Params::dna2(k));
        let told = differences(&oracle::sql_counts(server, &table, "seq", k), &plain);
        assert_eq!(told, None, "k {k}");
    }
}

#[test]
fn degenerate_windows_count_like_their_spelled_out_rows() {
    // A row with one degenerate letter in every window counts like the union of its plain spellings.
    let mut rng = Rng::new(3);
    for _ in 0..200 {
        let (left, right) = (rng.letters("ACGT", 7), rng.letters("ACGT", 7));
        let (letter, bases) =
            [("R", "AG"), ("Y", "CT"), ("M", "AC"), ("B", "CGT"), ("V", "ACG"), ("H", "ACT")][rng.below(6)];
        let row = Some(data::dna4_bits(&format!("{left}{letter}{right}")));
        let params = Params { dna: Dna::Dna4, k: 8, occur_bitlen: 0 };
        let expanded = oracle::count_rows(&[row], params);
        let mut union = oracle::Counts::new();
        for base in bases.chars() {
            let spelled = Some(data::dna2_bits(&format!("{left}{base}{right}")));
            union.append(&mut oracle::count_rows(&[spelled], Params::dna2(8)));
        }
        assert_eq!(expanded, union, "{left}{letter}{right}");
    }
}

#[test]
fn the_schema_names_every_attribute_and_dropped_ones() {
    let server = Server::shared();
    server.sql(
        "CREATE TABLE schema_list (\"the id\" int4, gone numeric, w float8, seq dna2, other dna4, flag bool, b bit varying(80));
         ALTER TABLE schema_list DROP COLUMN gone;
         ALTER TABLE schema_list DROP COLUMN w;",
    );
    assert_eq!(
        server.table("schema_list").schema(),
        "\"the id\" integer, \"........pg.dropped.2........\" dropped(-1,4), \
         \"........pg.dropped.3........\" dropped(8,8), \
         seq dna2, other dna4, flag boolean, b bit varying(80)"
    );
}

#[test]
fn a_snapshot_has_settled_hint_bits_and_all_pages() {
    let server = Server::shared();
    let bits = data::all_dna2_bits(&data::rows(4, 2000));
    server.sql(&("CREATE TABLE settled (id int4, seq bit varying);\nALTER TABLE settled ALTER seq SET STORAGE EXTERNAL;\n".to_owned()
        + &data::copy_bits("settled", "seq", &bits)
        + "INSERT INTO settled VALUES (1, repeat('01', 20000)::bit varying);
           DELETE FROM settled WHERE ctid = '(0,1)';
           BEGIN; INSERT INTO settled SELECT * FROM settled; ROLLBACK;"));
    let table = server.table("settled");
    let snapshot = table.snapshot();
    let size: u64 = server.value("SELECT pg_relation_size('settled');");
    assert_eq!(std::fs::metadata(&snapshot.heap).expect("the heap").len(), size);
    assert!(snapshot.toast.is_some(), "a row was to go to TOAST");
    let undecided: u64 = server.value(
        "SELECT count(*) FROM generate_series(0, pg_relation_size('settled') / 8192 - 1) page,
         LATERAL heap_page_items(get_raw_page('settled', page::int))
         WHERE lp_flags = 1 AND (t_infomask & 768 = 0 OR (t_infomask & 256 <> 0 AND t_xmax <> 0 AND t_infomask & 3072 = 0));",
    );
    assert_eq!(undecided, 0);
}

/// What another test's run has in shared memory meanwhile is nothing that a run left behind.
#[test]
fn a_run_is_not_taken_for_what_another_one_left() {
    let case = Small::new(40, 300);
    let slow = |delay: u32| {
        let words =
            format!("--all -k 21 -j 0 --unit-blocks 1 --inject scan.block:leader:nth=all:delay={delay}");
        leader().words(&words).arg(case.path()).spawn()
    };
    let first = slow(300);
    let second = slow(1500);
    let _ = first.wait().exits(0);
    let there = takeover::list(None).expect("a list");
    let is_second = |listed: &Listed| Pid::from_raw(listed.leader as i32) == second.pid();
    assert!(there.iter().any(is_second), "it waited until the second had gone");
    let _ = second.wait().exits(0);
}
