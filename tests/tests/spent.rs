//! Tables that are written over records which nobody will read any more: that it is done, that it saves memory, and that it takes nothing from anybody.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use kmer_leader::totals::open_stripe;
use kmer_tests::data::Rng;
use kmer_tests::fault::{End, processes_with, run, segments_of, within};
use kmer_worker::WorkError;
use kmer_worker::drain::{Drainer, StripeSummary};
use kmer_worker::shared::Shared;
use kmer_worker::spool::UnitResult;
use shm_layout::words::{Chunk, Owner, SlotState, Task};
use tempfile::TempDir;

/// Sections of several chunks each, in few units.
const OPTIONS: &str = "-q -k 21 --all --chunk-bytes 4096 --stripe-bits 5 --unit-blocks 64";

/// Six-fold coverage, so that tables take less than records.
fn reads() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut rng, mut text) = (Rng::new(50), String::new());
    let genome: String = (0..300_000).map(|_| char::from(b"ACGT"[rng.below(4)])).collect();
    for i in 0..6000 {
        let from = rng.below(genome.len() - 300);
        writeln!(text, ">r{i}\n{}", &genome[from..from + 300]).expect("memory");
    }
    fs::write(dir.path().join("reads.fa"), text).expect("written");
    dir
}

fn lead(dir: &Path, more: &str) -> End {
    run(dir, &format!("{OPTIONS} {more} reads.fa").split_whitespace().collect::<Vec<_>>(), |_| ())
}

/// What a run without faults gives.
fn peace(dir: &Path) -> Vec<u8> {
    let end = lead(dir, "-j 2 -o peace");
    assert_eq!(end.code(), Some(0), "{}", end.told);
    fs::read(dir.join("peace")).expect("a result")
}

/// A run that was killed when the order of the drain was written; nobody uses its segment any more.
fn scanned(dir: &Path, workers: usize) -> (String, Shared) {
    let end = lead(dir, &format!("-j {workers} --resumable -o out --inject order.written:leader:kill"));
    assert_eq!(end.signal(), Some(9), "{}", end.told);
    let segment = segments_of(end.pid).pop().unwrap_or_else(|| panic!("{}no segment", end.told));
    assert!(within(Duration::from_secs(5), || processes_with(&segment).is_empty()), "{}", end.told);
    let shared = Shared::attach(&segment).expect("a sound segment");
    (segment, shared)
}

fn start(shared: &Shared, slot: u16) -> Owner {
    for state in [SlotState::Starting, SlotState::Running, SlotState::Done] {
        let generation = shared.slots.look(slot).expect("a slot").generation;
        shared.slots.change(Owner { slot, generation }, state, SlotState::Dead).expect("a slot");
    }
    let owner = shared.slots.start(slot).expect("a free slot");
    assert!(shared.slots.change(owner, SlotState::Starting, SlotState::Running).expect("a slot"));
    owner
}

/// Drains a stripe and publishes it, as a worker does; gives the bytes of its table, and what it came to.
fn drain(
    shared: &Shared,
    drainer: &mut Drainer,
    owner: Owner,
    stripe: u32,
) -> Result<(u64, StripeSummary), WorkError> {
    let claim = shared.stripes.claim(stripe as usize, owner)?.expect("free");
    let (image, summary) = drainer.drain(shared, stripe as usize)?;
    let chain = drainer.store(shared, owner, &image)?;
    shared.stripes.commit(stripe as usize, claim, owner, chain.head())?;
    Ok((image.len() as u64, summary))
}

/// What does not hang on the order in which a table was filled.
fn numbers(summary: &StripeSummary) -> [u64; 5] {
    [summary.delivered, summary.digest, summary.distinct, summary.counted, summary.highest]
}

/// Chunks in use, and how many of them a second time.
fn in_use(shared: &Shared) -> (usize, usize) {
    let owned = |number: u32| matches!(shared.arena.look(number), Ok(Chunk::Owned { .. }));
    let numbers = 0..shared.arena.chunks() as u32;
    let again = numbers.clone().filter(|n| shared.arena.again(*n).is_some_and(owned));
    (numbers.clone().filter(|n| owned(*n)).count(), again.count())
}

fn bytes_of(segment: &str) -> u64 {
    fs::metadata(Path::new("/dev/shm").join(segment)).expect("a segment").blocks() * 512
}

fn resume(dir: &Path, segment: &str, expected: &[u8]) {
    let end = run(dir, &["resume", segment, "-q"], |_| ());
    assert_eq!(end.code(), Some(0), "{}", end.told);
    assert!(fs::read(dir.join("out")).expect("a result") == expected, "{}other bytes", end.told);
    assert!(!Path::new("/dev/shm").join(segment).exists());
}

#[test]
fn tables_take_the_place_of_records() {
    let dir = reads();
    let expected = peace(dir.path());
    let (segment, shared) = scanned(dir.path(), 1);
    let (before, order) = (bytes_of(&segment), shared.drain_order().expect("written").order);
    assert_eq!(order.len(), 32);
    let owner = start(&shared, 0);
    let mut drainer = Drainer::new(&shared, 0).expect("sound units");
    let (mut images, mut seen) = (0, vec![0]);
    for stripe in &order {
        images += drain(&shared, &mut drainer, owner, *stripe).expect("sound records").0;
        seen.push(in_use(&shared).1);
    }
    let grown = bytes_of(&segment) - before;
    println!(
        "{before} bytes before the drain, {images} of tables, {grown} more after it; chunks used again: {seen:?}"
    );
    assert_eq!(seen[1], 0, "the first table has no spent records to be written over");
    assert!(seen.is_sorted());
    assert!(grown < images / 4, "{grown} bytes more for tables of {images}");
    // Every table is whole, whatever was written behind it, and every chain of a unit can be walked.
    for stripe in 0..32 {
        let (summary, image) = open_stripe(&shared, stripe).expect("published").expect("a table");
        let mut sum = 0;
        image.for_each(&mut Vec::new(), |_, count| sum += u64::from(count)).expect("a sound image");
        assert_eq!(sum, summary.counted, "stripe {stripe}");
    }
    for unit in 0..shared.units.len() {
        let Ok(Task::Done { head, .. }) = shared.units.look(unit) else { panic!("unit {unit} is not done") };
        UnitResult::open(&shared.arena, head, 32).expect("its chain, indexes and tail are whole");
    }
    drop((drainer, shared));
    resume(dir.path(), &segment, &expected);
}

/// It is fenced, its claim is taken back, and its records are written over while it sleeps. What it then reads is an error that is not the run's.
#[test]
fn a_worker_that_was_believed_dead_finds_out_that_its_records_are_gone() {
    let dir = reads();
    let expected = peace(dir.path());
    let (segment, shared) = scanned(dir.path(), 2);
    let order = shared.drain_order().expect("written").order;
    let (sleeper, other) = (start(&shared, 0), start(&shared, 1));
    let (first, claim) = (order[0] as usize, shared.stripes.claim(order[0] as usize, sleeper));
    let claim = claim.expect("sound").expect("free");
    let mut sleeping = Drainer::new(&shared, 0).expect("sound units");
    let (mut drainers, mut undisturbed) =
        ([Drainer::new(&shared, 0), Drainer::new(&shared, 1)].map(|d| d.expect("sound")), 0);
    let (_, right) = sleeping.drain(&shared, first).expect("its records are there");
    // While it has its claim, its records stay as they are, whatever is drained.
    for (i, stripe) in order[1..].iter().enumerate() {
        drain(&shared, &mut drainers[i % 2], other, *stripe).expect("sound records");
        let (_, again) = sleeping.drain(&shared, first).expect("its records are there");
        undisturbed += usize::from(numbers(&again) == numbers(&right));
    }
    assert_eq!(undisturbed, 31);
    // One late stripe keeps back the chunks around it and no others.
    let again = in_use(&shared).1;
    assert!(again > 300, "{again} chunks are in use again");
    // The last stripe comes back and is drained before the others store theirs: again, over what was spent.
    assert!(shared.slots.change(sleeper, SlotState::Running, SlotState::Fenced).expect("a slot"));
    assert_eq!(shared.stripes.recover(sleeper, 3).expect("sound").len(), 1);
    let (_, done) = drain(&shared, &mut drainers[0], other, order[0]).expect("sound records");
    assert_eq!(numbers(&done), numbers(&right));
    for drainer in &mut drainers {
        // A table that nobody will publish takes all that is spent.
        let _unpublished = drainer.store(&shared, other, &vec![0xa5; 4096 * 4000]).expect("room");
    }
    assert!(in_use(&shared).1 > 0);
    let error = sleeping.drain(&shared, first).expect_err("its records are gone");
    assert!(error.to_string().contains("digest"), "{error}");
    assert!(shared.slots.is_fenced(sleeper).expect("a slot"), "so it leaves without a word");
    assert!(shared.stripes.commit(first, claim, sleeper, 0).is_err(), "nor could it publish anything");
    drop((drainers, sleeping, shared));
    resume(dir.path(), &segment, &expected);
}

/// Of the units that fall to a drainer that is not there: nobody takes their chunks, until there is no room.
#[test]
fn who_has_no_room_takes_what_others_leave() {
    let dir = reads();
    let (segment, shared) = scanned(dir.path(), 2);
    let order = shared.drain_order().expect("written").order;
    let owner = start(&shared, 0);
    let mut drainer = Drainer::new(&shared, 0).expect("sound units");
    for stripe in &order[..28] {
        drain(&shared, &mut drainer, owner, *stripe).expect("sound records");
    }
    // All that is free and all that is spent of its own units.
    let (used, again) = in_use(&shared);
    let free = shared.arena.chunks() - used;
    let _free = shared.arena.store(owner, &vec![0xa5; free * 4096]).expect("as much as is free");
    let mut more = 0;
    while more < 1000 && drainer.store(&shared, owner, &[0xa5; 4096]).is_ok() {
        more += 1;
    }
    let in_all = again + more;
    println!(
        "{again} chunks were used again, {more} more could be; records take {used} less {again} or more"
    );
    assert_eq!(in_use(&shared).1, in_all);
    // Half of the records is the other one's.
    let records = used - again;
    assert!(4 * in_all > 3 * records, "of 28 in 32 parts of {records} chunks of records: {in_all} chunks");
    // The other one finds nothing any more, and the stripes that are left are whole.
    let mut other = Drainer::new(&shared, 1).expect("sound units");
    let error = other.store(&shared, owner, &[0xa5; 4096]).expect_err("no room");
    assert!(error.is_no_room(), "{error}");
    for stripe in &order[28..] {
        let _ = other.drain(&shared, *stripe as usize).expect("its records are there");
    }
    drop((drainer, other, shared));
    fs::remove_file(Path::new("/dev/shm").join(segment)).expect("still there");
}
