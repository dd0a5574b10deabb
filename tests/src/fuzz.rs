//! What is fuzzed: functions that take any bytes and must come to an end without a panic.
//!
//! `fuzz/` runs them under libFuzzer; `tests/tests/fuzz.rs` runs them on the seeds and on simple mutations of them, with every run of the tests.

pub mod catalogs;

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use clap::Parser;
use kmer_leader::cli::Cli;
use kmer_worker::job::{Job, Leaf, build_id};
use kmer_worker::seal;
use kmer_worker::shared::{Given, Shared, Sizes};
use kmer_worker::spool::UnitResult;
use relation::tuple::Walker;
use relation::varlena::Compressed;
use relation::{
    BLOCK_SIZE, PageCounts, PageReader, ReadOptions, RelationFile, RowSink, ToastIndex, TupleDesc, Unhinted,
    Value,
};
use shm_layout::segment::Segment;
use shm_layout::words::{Owner, Task};

/// A body: its name, which is that of its directory of seeds, and the function.
pub type Body = (&'static str, fn(&[u8]));

/// All bodies.
pub const BODIES: &[Body] = &[
    ("page", page),
    ("tuple", tuple),
    ("varlena", varlena),
    ("pglz", pglz),
    ("lz4", lz4),
    ("toast", toast),
    ("catalogs", catalogs::catalogs),
    ("segment", segment),
    ("command_line", command_line),
];

const COLUMNS: [(&str, usize); 4] = [
    ("seq dna2", 0),
    ("id int4, seq dna4", 1),
    ("note text, n int8, seq dna2", 2),
    ("id int4, name text, seq dna2", 2),
];

fn desc(choice: u8) -> (TupleDesc, usize) {
    let (columns, column) = COLUMNS[usize::from(choice) % COLUMNS.len()];
    (TupleDesc::parse(columns).expect("a column list"), column)
}

/// Takes rows, and goes on at damage.
struct Taker(u64);

impl RowSink for Taker {
    fn row(&mut self, _item: u16, value: Value<'_>) -> Result<(), relation::Error> {
        if let Value::Bits { bits, bytes } = value {
            assert!(bytes.len() >= (bits as usize).div_ceil(8), "a value shorter than it says");
            self.0 += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        Ok(())
    }

    fn damaged(&mut self, error: relation::Error) -> Result<(), relation::Error> {
        assert!(!error.to_string().is_empty());
        Ok(())
    }
}

/// The first byte chooses columns and options, the rest is a page.
pub fn page(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let (desc, column) = desc(choice & 3);
    let unhinted = [Unhinted::Error, Unhinted::Visible, Unhinted::Skip][usize::from(choice >> 2) % 3];
    let options = ReadOptions { verify_checksums: choice & 128 != 0, unhinted };
    let mut page = rest[..rest.len().min(BLOCK_SIZE)].to_vec();
    page.resize(BLOCK_SIZE, 0);
    let mut reader = PageReader::new(&desc, column, options, Path::new("page"), None).expect("a DNA column");
    let _ = reader.read_page(&page, 0, &mut PageCounts::default(), &mut Taker(0));
}

/// The first byte chooses columns, the rest is a tuple.
pub fn tuple(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let (desc, column) = desc(*choice);
    let walker = Walker::new(&desc, column).expect("a column");
    let _ = walker.datum(rest);
    let _ = walker.all(rest, &mut Vec::new());
}

/// A value.
pub fn varlena(data: &[u8]) {
    if let Ok(size) = relation::varlena::size(data) {
        assert!(size <= data.len(), "a value longer than what it lies in");
    }
    let _ = relation::varlena::parse(data);
}

/// Two bytes of size, then what is to be unpacked.
pub fn pglz(data: &[u8]) {
    let Some((size, rest)) = data.split_first_chunk::<2>() else { return };
    let mut target = vec![0; usize::from(u16::from_le_bytes(*size))];
    let _ = relation::pglz::decompress(rest, &mut target);
}

/// The size and method of a compressed value, then what is to be unpacked.
pub fn lz4(data: &[u8]) {
    let mut body = data.to_vec();
    if let Some(info) = body.get_mut(..4) {
        // LZ4, and at most a mebibyte.
        info[3] = 0x40;
        info[2] &= 0x0f;
    }
    if let Ok(compressed) = Compressed::parse(&body) {
        let _ = relation::rows::decompress(&compressed, &mut Vec::new());
    }
}

/// An index of a TOAST relation, and a TOAST relation.
pub fn toast(data: &[u8]) {
    if let Ok(index) = ToastIndex::from_bytes(data) {
        assert!(ToastIndex::from_bytes(&index.to_bytes()).is_ok());
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("toast");
    let mut pages = data.to_vec();
    pages.resize(data.len().div_ceil(BLOCK_SIZE).clamp(1, 2) * BLOCK_SIZE, 0);
    std::fs::write(&path, pages).expect("written");
    let Ok(file) = RelationFile::open(&path) else { return };
    let options = ReadOptions { verify_checksums: false, unhinted: Unhinted::Visible };
    let _ = ToastIndex::build(&file, &options);
}

fn job() -> Job {
    let leaf = Leaf {
        path: b"none".to_vec(),
        fingerprint: Some(1),
        blocks: 4,
        columns: "seq dna2".into(),
        column: 0,
        toast: None,
        sequence: None,
    };
    Job {
        leaves: vec![leaf],
        segment_blocks: 131_072,
        range: None,
        transactions: None,
        lock_lsn: None,
        dna4: false,
        k: 21,
        occur_bitlen: 0,
        stream: None,
        canonical: false,
        occurrences: false,
        row_per_file: false,
        direct: false,
        windows_bits: None,
        stripe_bits: 1,
        seed: 1,
        verify_checksums: false,
        unhinted: 0,
        skip_damaged: false,
        mapped: false,
        max_attempts: 3,
        batch_bytes: 1000,
        part_bits: 0,
        stretch: 4,
        pass: 0,
        first_look: false,
        pass_bits: 0,
    }
}

/// The bytes of a segment in which a unit is done, another claimed, and the others free.
fn base() -> &'static [u8] {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    BASE.get_or_init(|| {
        let sizes = Sizes {
            unit_blocks: 1,
            ramp: 0,
            slots: 2,
            workers: 1,
            trace: 2,
            chunk_bytes: 4096,
            chunks: 6,
            twice: 3,
            beside: 0,
        };
        let given = Given { command: b"/\0kmer-leader\0none\0", ..Given::default() };
        let shared = Shared::create(None, job(), &sizes, &given).expect("a segment");
        let owner = Owner { slot: 0, generation: 1 };
        let chain = shared.arena.store(owner, &[0; 9000]).expect("room");
        let claim = shared.units.claim(0, owner).expect("sound").expect("free");
        shared.units.commit(0, claim, owner, chain.head()).expect("ours");
        let _claim = shared.units.claim(1, owner).expect("sound").expect("free");
        std::fs::read(format!("/dev/shm/{}", shared.segment.name())).expect("the segment")
    })
}

/// Patches of eleven bytes, three of place (in words) and eight of what is put there, in a good segment; one that is not attached to is an error.
pub fn segment(data: &[u8]) {
    let mut bytes = base().to_vec();
    let words = bytes.len() / 8;
    for patch in data.chunks_exact(11).take(64) {
        let place = u32::from_le_bytes([patch[0], patch[1], patch[2], 0]) as usize % words * 8;
        bytes[place..place + 8].copy_from_slice(&patch[3..]);
    }
    let name = format!("kmer.fuzz-{}", std::process::id());
    let path = format!("/dev/shm/{name}");
    let _ = std::fs::remove_file(&path);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).expect("made");
    file.write_all_at(&bytes, 0).expect("room");
    // Past the digest over what is asked for, which nearly every patch breaks: what lies behind it must hold by itself.
    if data.len() % 11 != 1 {
        let _ = Segment::attach(&name, build_id()).map(|segment| seal::write(&segment));
    }
    let attached = Shared::attach(&name);
    let _ = std::fs::remove_file(&path);
    let Ok(shared) = attached else { return };
    let stripes = shared.job.stripes();
    for unit in 0..shared.units.len() {
        if let Ok(Task::Done { head, .. }) = shared.units.look(unit) {
            let _ = UnitResult::open(&shared.arena, head, stripes);
        }
    }
    let _ = (shared.drain_order(), shared.command(), shared.state.error(), shared.state.check_mutex());
    for slot in 0..shared.slots.len().min(4096) as u16 {
        let _ = (shared.slots.look(slot), shared.slots.last_words(slot));
    }
    let owner = Owner { slot: 0, generation: 1 };
    let _ = (shared.units.recover(owner, 3), shared.arena.sweep(owner, &[]), shared.arena.allocated());
}

/// Words that end with NUL.
pub fn command_line(data: &[u8]) {
    let words = data.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let _ = Cli::try_parse_from(std::iter::once(OsStr::new("kmer-leader")).chain(words));
}
