//! A segment whose arena is dealt over several objects of shared memory: every way to attach sees the same bytes, and the names come and go together.

#![cfg(not(any(miri, loom)))]

use shm_layout::Error;
use shm_layout::arena::Arena;
use shm_layout::place::{beside, path_of};
use shm_layout::raw::MANY_WRITERS;
use shm_layout::segment::{Plan, Segment};
use shm_layout::takeover::{State, look, remove};
use shm_layout::toc::TocEstimator;
use shm_layout::words::Owner;
use std::fs::{self, OpenOptions};
use std::sync::Arc;

const BUILD: u64 = 11;
const KEY: u64 = 1;
const CHUNKS: usize = 10;
const CHUNK_BYTES: usize = 4096;
const BESIDE: usize = 2;

fn owner(slot: u16) -> Owner {
    Owner { slot, generation: 1 }
}

fn create() -> (Arc<Segment>, Arena) {
    let mut toc = TocEstimator::default();
    toc.estimate(Arena::estimate(CHUNKS, CHUNKS));
    let toc_bytes = toc.total();
    let plan = Plan { toc_bytes, chunk_bytes: CHUNK_BYTES, chunks: CHUNKS, beside: BESIDE, build: BUILD };
    let segment = Arc::new(Segment::create(None, &plan).expect("room"));
    let area = segment.toc().expect("a table").allocate(KEY, Arena::estimate(CHUNKS, CHUNKS));
    let arena = Arena::attach(&segment, area.expect("estimated")).expect("estimated");
    segment.publish().expect("mapped");
    (segment, arena)
}

fn arena_of(segment: &Arc<Segment>) -> Arena {
    let area = segment.toc().expect("a table").lookup(KEY).expect("there");
    Arena::attach(segment, area).expect("sound")
}

fn names(segment: &Segment) -> Vec<String> {
    let others = (1..=BESIDE).map(|i| beside(segment.name(), i));
    [segment.name().to_owned()].into_iter().chain(others).collect()
}

fn blocks(name: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path_of(name)).expect("there").blocks() * 512
}

#[test]
fn every_way_to_attach_sees_what_was_stored_in_each_object() {
    let (segment, arena) = create();
    let names = names(&segment);
    // Ten chunks over three objects: four rows each, of which two objects lack the last.
    let place = segment.arena_place().expect("mapped");
    assert_eq!((place.objects(), place.rows()), (3, 4));
    let want: Vec<u8> = (0..CHUNKS * CHUNK_BYTES - 100).map(|i| (i * 7 + i / 4096) as u8).collect();
    let before: Vec<u64> = names.iter().map(|name| blocks(name)).collect();
    let stored = arena.store(owner(1), &want).expect("room for all");
    let grown: Vec<u64> = names.iter().zip(&before).map(|(name, before)| blocks(name) - before).collect();
    let chunks = |n: usize| (n * CHUNK_BYTES) as u64;
    assert_eq!(grown, [chunks(4), chunks(3), chunks(3)]);
    let listed = look(segment.name()).expect("ours");
    assert_eq!(listed.resident, segment.resident().expect("a file"));
    assert_eq!(listed.resident, names.iter().map(|name| blocks(name)).sum::<u64>());
    assert_eq!(listed.bytes, segment.map().len() as u64);

    let attach = [Segment::attach, Segment::attach_to_read, Segment::attach_to_copy];
    for attached in attach.map(|attach| attach(segment.name(), BUILD).expect("sound")) {
        let mut got = Vec::new();
        let arena = arena_of(&attached);
        let chain = arena.open(stored.head()).expect("stored");
        arena.read(&chain, 0, want.len(), &mut got).expect("inside");
        assert!(got == want, "other bytes");
    }
    // The same by the file of each object, where all is mapped.
    segment.map().read_file();
    let (mut got, chain) = (Vec::new(), arena.open(stored.head()).expect("stored"));
    arena.read(&chain, 0, want.len(), &mut got).expect("inside");
    assert!(got == want, "other bytes");

    arena.free(stored).expect("ours");
    assert!(names.iter().zip(&before).all(|(name, before)| blocks(name) == *before), "memory is kept");
}

#[test]
fn many_writers_write_through_the_mapping_of_each_object() {
    let (segment, arena) = create();
    segment.map().expect_writers(MANY_WRITERS);
    let want: Vec<u8> = (0..CHUNKS * CHUNK_BYTES).map(|i| (i * 11 + i / 4096) as u8).collect();
    let stored = arena.store(owner(2), &want).expect("room for all");
    // From the file, what was written through the mapping.
    let attached = Segment::attach_to_copy(segment.name(), BUILD).expect("sound");
    let (arena, mut got) = (arena_of(&attached), Vec::new());
    arena.read(&arena.open(stored.head()).expect("stored"), 0, want.len(), &mut got).expect("inside");
    assert!(got == want, "other bytes");
}

#[test]
fn each_slot_begins_in_an_object_of_its_own() {
    let (segment, arena) = create();
    let names = names(&segment);
    let before: Vec<u64> = names.iter().map(|name| blocks(name)).collect();
    for slot in 0..3 {
        let _ = arena.store(owner(slot), &[slot as u8 + 1; 2 * CHUNK_BYTES]).expect("room");
        let grown = names.iter().zip(&before).map(|(name, before)| (blocks(name) - before) / 4096);
        let want: Vec<u64> = (0..3).map(|object| if object <= slot.into() { 2 } else { 0 }).collect();
        assert!(grown.eq(want), "slot {slot}");
    }
    assert_eq!(arena.allocated().expect("sound"), 6);
    // Where its own is full it goes on in the others.
    let _ = arena.store(owner(0), &[9; 4 * CHUNK_BYTES]).expect("room");
    assert!(arena.store(owner(0), &[9]).is_err(), "there are ten");
}

#[test]
fn names_go_together_and_pages_with_the_last_user() {
    let (segment, arena) = create();
    let names = names(&segment);
    let want = [5; 3 * CHUNK_BYTES];
    let stored = arena.store(owner(0), &want).expect("room");
    let attached = Segment::attach(segment.name(), BUILD).expect("sound");
    // As long as the first one has its name the others are not for themselves.
    assert_eq!(look(&names[1]).expect("ours").state, State::Running);
    let is_orphan = |state| state == State::Orphan;
    assert_eq!(remove(&names[1], is_orphan).expect("a look"), Some(State::Running));
    assert!(path_of(&names[1]).exists());
    drop((segment, arena));
    assert!(names.iter().all(|name| !path_of(name).exists()), "a name is left");
    // Who is attached still has all of it.
    let (arena, mut got) = (arena_of(&attached), Vec::new());
    arena.read(&arena.open(stored.head()).expect("stored"), 0, want.len(), &mut got).expect("inside");
    assert_eq!(got, want);
    let kept = attached.resident().expect("a file");
    assert!(kept >= want.len() as u64 + 4096, "{kept} bytes of all objects");
}

#[test]
fn an_object_that_is_cut_off_or_gone_is_named() {
    let (segment, _arena) = create();
    let second = beside(segment.name(), 2);
    let file = OpenOptions::new().write(true).open(path_of(&second)).expect("there");
    let bytes = file.metadata().expect("a file").len();
    file.set_len(bytes - 4096).expect("shorter");
    match Segment::attach(segment.name(), BUILD).map(drop) {
        Err(Error::Damaged { name, expected, found, .. }) => {
            assert_eq!(
                (name, expected, found),
                (second.clone(), bytes.to_string(), (bytes - 4096).to_string())
            );
        }
        other => panic!("{other:?}"),
    }
    fs::remove_file(path_of(&second)).expect("ours");
    let gone = Segment::attach(segment.name(), BUILD).map(drop);
    assert!(matches!(&gone, Err(Error::Os { name, .. }) if *name == second), "{gone:?}");
}

#[test]
fn sizes_that_do_not_fit_the_objects_are_found() {
    let (segment, _arena) = create();
    let word = |at| segment.map().word(at).expect("in the header");
    // Bytes of all, chunks, objects: see the header.
    for (at, wrong) in [(24, 4096), (56, 13), (96, 0), (96, 3), (96, 8), (96, u64::MAX)] {
        use std::sync::atomic::Ordering::Relaxed;
        let good = word(at).swap(wrong, Relaxed);
        let found = Segment::attach(segment.name(), BUILD).map(drop);
        assert!(
            matches!(found, Err(Error::Damaged { .. } | Error::OutOfBounds { .. })),
            "{at} {wrong}: {found:?}"
        );
        word(at).store(good, Relaxed);
    }
    assert!(Segment::attach(segment.name(), BUILD).is_ok());
}
