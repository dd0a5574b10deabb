//! Chains, their chunks and the uses of these.

use super::*;
use crate::segment::Plan;
use crate::toc::TocEstimator;
use proptest::prelude::*;

const A: Owner = Owner { slot: 0, generation: 1 };
const B: Owner = Owner { slot: 1, generation: 4 };

fn arena(chunks: usize) -> Arena {
    dealt(chunks, 0)
}

/// Chunks as if they were dealt over objects beside a first one.
fn dealt(chunks: usize, beside: usize) -> Arena {
    let mut toc = TocEstimator::default();
    toc.estimate(Arena::estimate(chunks, chunks));
    let plan = Plan { toc_bytes: toc.total(), chunk_bytes: 4096, chunks, beside, build: 0 };
    let segment = Arc::new(Segment::create_private(&plan).expect("memory"));
    let area =
        segment.toc().expect("a table").allocate(1, Arena::estimate(chunks, chunks)).expect("estimated");
    Arena::attach(&segment, area).expect("estimated")
}

fn bytes(n: usize, salt: u8) -> Vec<u8> {
    (0..n).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt).collect()
}

#[test]
fn a_chain_gives_back_what_was_stored() {
    let arena = arena(8);
    for len in [0, 1, 4095, 4096, 4097, 12288, 20000] {
        let want = bytes(len, 7);
        let stored = arena.store(A, &want).expect("room");
        let chain = arena.open(stored.head()).expect("just stored");
        assert_eq!(chain.len(), len as u64);
        let (from, mut got) = (len / 3, Vec::new());
        arena.read(&chain, from as u64, len - from, &mut got).expect("inside");
        assert_eq!(got, want[from..]);
        assert!(arena.read(&chain, 1, len, &mut got).is_err(), "one byte past the end");
        arena.free(stored).expect("ours");
        assert_eq!(arena.allocated().expect("sound"), 0);
    }
}

#[test]
fn a_chain_grows_piece_by_piece() {
    let arena = arena(12);
    let (mut chain, mut want) = (arena.begin(), Vec::new());
    for (salt, len) in [(1, 5000), (2, 10), (3, 0), (4, 4096)] {
        arena.append(A, &mut chain, &bytes(len, salt)).expect("room");
        want.extend(bytes(len, salt));
    }
    let open = arena.open(chain.head()).expect("stored");
    for (from, len) in [(0, want.len()), (4999, 3), (5005, 10), (want.len(), 0)] {
        let mut got = Vec::new();
        arena.read(&open, from as u64, len, &mut got).expect("inside");
        assert_eq!(got, want[from..from + len]);
    }
    assert!(arena.append(A, &mut chain, &bytes(40000, 5)).is_err(), "no room");
    assert_eq!(arena.open(chain.head()).expect("as before"), open);
}

#[test]
fn a_full_arena_takes_nothing_and_says_so() {
    let arena = arena(3);
    let _first = arena.store(A, &bytes(5000, 1)).expect("room for two chunks");
    let error = arena.store(B, &bytes(5000, 2)).expect_err("one chunk is left");
    assert!(error.to_string().contains("expected 2 free chunks, found 1 of 3"), "{error}");
    assert_eq!(arena.allocated().expect("sound"), 2);
    let _second = arena.store(B, &bytes(4000, 2)).expect("the last chunk");
}

#[test]
fn a_sweep_frees_what_no_chain_reaches_and_only_of_the_dead() {
    let arena = arena(8);
    let committed = arena.store(A, &bytes(5000, 1)).expect("room");
    let _lost = arena.store(A, &bytes(5000, 2)).expect("room");
    let _other = arena.store(B, &bytes(100, 3)).expect("room");
    let reachable = [arena.open(committed.head()).expect("stored")];
    assert_eq!(arena.sweep(A, &reachable).expect("sound"), 2);
    assert_eq!(arena.sweep(A, &reachable).expect("sound"), 0, "again: nothing left to do");
    assert_eq!(arena.allocated().expect("sound"), 3);
    let mut got = Vec::new();
    arena.read(&reachable[0], 0, 5000, &mut got).expect("still there");
    assert_eq!(got, bytes(5000, 1));
}

#[test]
fn a_damaged_chain_is_an_error_and_never_a_loop() {
    let arena = arena(4);
    let stored = arena.store(A, &bytes(9000, 1)).expect("room");
    let head = stored.head();
    arena.link(head).expect("in range").store(u64::from(head) << 32 | 4096, Ordering::Relaxed);
    assert!(arena.open(head).expect_err("a circle").to_string().contains("a circle"));
    arena.link(head).expect("in range").store(99 << 32 | 4096, Ordering::Relaxed);
    assert!(arena.open(head).is_err(), "out of the arena");
    arena.link(head).expect("in range").store(u64::from(NO_NEXT) << 32 | 5000, Ordering::Relaxed);
    assert!(arena.open(head).is_err(), "more than a chunk");
    assert!(arena.open(3).is_err(), "a free chunk");
}

/// The numbers of a committed chain's chunks, as spent.
fn spent(chain: &Chain) -> std::vec::IntoIter<u32> {
    chain.chunks().to_vec().into_iter()
}

#[test]
fn spent_chunks_are_written_again_under_numbers_of_their_own() {
    let arena = arena(6);
    let records = arena.store(A, &bytes(9000, 1)).expect("three chunks");
    let old = arena.open(records.head()).expect("stored");
    let table = arena.store_over(B, &bytes(8000, 2), &mut spent(&old).skip(1)).expect("two spent chunks");
    let new = arena.open(table.head()).expect("stored");
    assert_eq!(new.chunks(), [old.chunks()[1] + 6, old.chunks()[2] + 6]);
    assert_eq!(arena.allocated().expect("sound"), 5);
    let read = |chain: &Chain, len| {
        let mut got = Vec::new();
        arena.read(chain, 0, len, &mut got).expect("inside");
        got
    };
    assert_eq!(read(&new, 8000), bytes(8000, 2));
    assert_eq!(arena.open(records.head()).expect("its words and links are as before"), old);
    assert_eq!(read(&old, 4096), bytes(9000, 1)[..4096], "the first chunk was not spent");
    assert_eq!(read(&old, 9000)[4096..8192], bytes(8000, 2)[..4096], "the others' bytes are the table's");
    // Not a second time, and not as a third use: what is missing comes from the free ones.
    let mut numbers = spent(&old).chain(spent(&new));
    let more = arena.store_over(A, &bytes(9000, 3), &mut numbers).expect("one spent, two free");
    let mut numbers = arena.open(more.head()).expect("stored").chunks().to_vec();
    numbers.sort_unstable();
    assert_eq!(numbers, [3, 4, 6]);
    assert_eq!(read(&new, 8000), bytes(8000, 2));
    arena.free(table).expect("ours");
    assert_eq!(arena.allocated().expect("sound"), 6);
    assert_eq!(arena.open(records.head()).expect("still there"), old);
}

#[test]
fn no_more_spent_chunks_are_asked_for_than_are_wanted() {
    let arena = arena(4);
    let records = arena.store(A, &bytes(12000, 1)).expect("three chunks");
    let mut numbers = spent(&arena.open(records.head()).expect("stored"));
    let _table = arena.store_over(B, &bytes(100, 2), &mut numbers).expect("room");
    assert_eq!(numbers.len(), 2);
    let error = arena.store_over(B, &bytes(20000, 3), &mut numbers).expect_err("two spent, one free");
    assert!(error.to_string().contains("expected 5 free chunks, found 3 of 4"), "{error}");
    assert_eq!(arena.allocated().expect("nothing of it stays"), 4);
}

#[test]
fn a_sweep_frees_second_uses_of_the_dead_alone() {
    frees_second_uses(&arena(4), A, B);
    // The first object, where it is looked for those that were handed out, has none here.
    frees_second_uses(&dealt(4, 2), B, A);
}

fn frees_second_uses(arena: &Arena, a: Owner, b: Owner) {
    let records = arena.store(a, &bytes(8192, 1)).expect("two chunks");
    let chain = arena.open(records.head()).expect("stored");
    let (mut numbers, reachable) = (spent(&chain), [chain.clone()]);
    let _lost = arena.store_over(b, &bytes(100, 2), &mut numbers).expect("spent");
    let table = arena.store_over(b, &bytes(100, 3), &mut numbers).expect("spent");
    let published = [chain.clone(), arena.open(table.head()).expect("stored")];
    assert_eq!(arena.owners().expect("sound"), BTreeSet::from([a, b]));
    assert_eq!(arena.sweep(a, &published).expect("sound"), 0, "the records' chain is reached");
    assert_eq!(arena.sweep(b, &published).expect("sound"), 1, "the table that was not published");
    let again = arena.store_over(a, &bytes(50, 4), &mut spent(&chain)).expect("the same chunk");
    assert_eq!(again.head(), chain.chunks()[0] + 4);
    assert_eq!(arena.sweep(b, &reachable).expect("sound"), 1);
    assert_eq!(arena.open(records.head()).expect("still there"), chain);
}

#[test]
fn pieces_are_where_the_bytes_are() {
    let arena = arena(12);
    let mut chain = arena.begin();
    for (salt, len) in [(1, 5000), (2, 0), (3, 4096)] {
        arena.append(A, &mut chain, &bytes(len, salt)).expect("room");
    }
    let open = arena.open(chain.head()).expect("stored");
    assert_eq!((0..4).map(|place| open.bytes_in(place)).collect::<Vec<_>>(), [4096, 904, 0, 4096]);
    for (offset, len) in
        [(0, 9096), (4000, 200), (4096, 1), (4999, 2), (5000, 4096), (9000, 500), (9096, 1), (7, 0)]
    {
        let mut left = offset..(offset + len).min(9096);
        for piece in open.pieces(offset, len) {
            let before: u64 = (0..piece.place).map(|place| open.bytes_in(place)).sum();
            assert_eq!((before + piece.from as u64, piece.chunk), (left.start, open.chunks()[piece.place]));
            left.start += piece.len as u64;
        }
        assert!(left.is_empty(), "{offset} {len}");
    }
}

proptest! {
    #[test]
    fn chains_never_share_a_chunk(
        steps in prop::collection::vec((0..3usize, 1..14000usize), 1..40),
        beside in 0..4usize,
    ) {
        let arena = dealt(11, beside);
        let mut held: Vec<(OwnedChain, Vec<u8>)> = Vec::new();
        for (i, (kind, len)) in steps.into_iter().enumerate() {
            if kind == 0 && !held.is_empty() {
                let (chain, _) = held.swap_remove(len % held.len());
                arena.free(chain).unwrap();
            } else if let Ok(chain) = arena.store(if kind == 1 { A } else { B }, &bytes(len, i as u8)) {
                held.push((chain, bytes(len, i as u8)));
            }
            for (chain, want) in &held {
                let mut got = Vec::new();
                let open = arena.open(chain.head()).unwrap();
                arena.read(&open, 0, want.len(), &mut got).unwrap();
                prop_assert_eq!(&got, want);
            }
        }
    }
}
