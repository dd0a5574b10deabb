//! The real transitions of `shm_layout::words` under loom: every interleaving of a few threads, and every value that the memory
//! model lets them read.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p shm-layout --test loom --release`
//!
//! Data that is published is written and read with Relaxed atomics, so what a reader finds in it is decided by the words alone.
//! Workers are threads here; loom knows no processes, kills or mapped memory (`tests/model.rs` has the kills).
#![cfg(loom)]
#![forbid(unsafe_code)]

use loom::sync::Arc;
use loom::thread;
use shm_layout::sync::{AtomicU64, Ordering};
use shm_layout::words::{
    Chunk, Claim, Owner, Slot, SlotState, Task, allocate, bundle_seen, change_slot, claim, claim_seen,
    commit, give_back, look, owned_by, recover, release,
};

const A: Owner = Owner { slot: 0, generation: 1 };
const B: Owner = Owner { slot: 1, generation: 1 };
const LIMIT: u8 = 3;

/// One task, two chunks and their contents.
struct Shared {
    task: AtomicU64,
    chunks: [AtomicU64; 2],
    data: [AtomicU64; 2],
}

impl Shared {
    fn new() -> Arc<Self> {
        let chunk = || AtomicU64::new(Chunk::Free { seq: 0 }.pack());
        Arc::new(Self {
            task: AtomicU64::new(Task::Free { attempts: 0 }.pack()),
            chunks: [chunk(), chunk()],
            data: [AtomicU64::new(0), AtomicU64::new(0)],
        })
    }

    fn claim(&self, owner: Owner) -> Option<Claim> {
        claim(&self.task, owner).expect("sound word")
    }

    /// Allocates a chunk, writes `value` into it and commits it; gives the chunk back if the claim is gone.
    fn work(&self, owner: Owner, claimed: Claim, value: u64) -> bool {
        let taken = (0..2).find_map(|i| Some((i, allocate(&self.chunks[i], owner).expect("sound word")?)));
        let (chunk, owned) = taken.expect("a chunk for each of two workers");
        self.data[chunk].store(value, Ordering::Relaxed);
        let done = commit(&self.task, claimed, chunk as u32).is_ok();
        assert!(done || release(&self.chunks[chunk], owned), "nobody else may free it");
        done
    }

    /// The published value, if there is one.
    fn read(&self) -> Option<u64> {
        match look(&self.task).expect("sound word") {
            Task::Done { head, .. } => Some(self.data[head as usize].load(Ordering::Relaxed)),
            _ => None,
        }
    }

    fn owned_chunks(&self) -> usize {
        let owned = |word: &&AtomicU64| Chunk::unpack(word.load(Ordering::Relaxed)).is_ok_and(is_owned);
        self.chunks.iter().filter(owned).count()
    }
}

fn is_owned(chunk: Chunk) -> bool {
    matches!(chunk, Chunk::Owned { .. })
}

/// A commit as it must not be: nothing orders the data before the word.
fn commit_relaxed(word: &AtomicU64, owner: Owner, head: u32) {
    let claimed = Task::Claimed { owner, attempts: 0 }.pack();
    let done = Task::Done { head, attempts: 0 }.pack();
    let _ = word.compare_exchange(claimed, done, Ordering::Relaxed, Ordering::Relaxed);
}

fn publish_and_read(publish: impl Fn(&Shared, Claim) + Clone + Send + Sync + 'static) {
    loom::model(move || {
        let shared = Shared::new();
        let claimed = shared.claim(A).expect("free");
        let writer = {
            let (shared, publish) = (Arc::clone(&shared), publish.clone());
            thread::spawn(move || {
                shared.data[1].store(42, Ordering::Relaxed);
                publish(&shared, claimed);
            })
        };
        if let Some(value) = shared.read() {
            assert_eq!(value, 42, "a reader that sees DONE sees the data");
        }
        writer.join().expect("writer");
        assert_eq!(shared.read(), Some(42));
    });
}

#[test]
fn who_sees_done_sees_the_data() {
    publish_and_read(|shared, claimed| commit(&shared.task, claimed, 1).expect("nobody took the claim"));
}

/// Shows that the tests here would notice an ordering that is too weak.
#[test]
#[should_panic(expected = "a reader that sees DONE sees the data")]
fn a_relaxed_publication_is_caught() {
    publish_and_read(|shared, _| commit_relaxed(&shared.task, A, 1));
}

#[test]
fn one_of_two_claims_wins_and_its_data_is_what_is_read() {
    loom::model(|| {
        let shared = Shared::new();
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.claim(B).is_some_and(|claimed| shared.work(B, claimed, 2)))
        };
        let mine = shared.claim(A).is_some_and(|claimed| shared.work(A, claimed, 1));
        let seen = shared.read();
        let theirs = other.join().expect("other");
        assert!(mine ^ theirs, "exactly one commits");
        let value = if mine { 1 } else { 2 };
        assert!(seen.is_none_or(|seen| seen == value));
        assert_eq!(shared.read(), Some(value));
        assert_eq!(shared.owned_chunks(), 1);
    });
}

#[test]
fn recovery_or_commit_wins_and_never_both() {
    loom::model(|| {
        let shared = Shared::new();
        let claimed = shared.claim(A).expect("free");
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.work(A, claimed, 1))
        };
        let recovered = recover(&shared.task, A, LIMIT).expect("sound word").is_some();
        let seen = shared.read();
        let committed = worker.join().expect("worker");
        assert!(recovered ^ committed);
        assert!(seen.is_none_or(|seen| committed && seen == 1));
        assert_eq!(shared.read(), committed.then_some(1));
        assert_eq!(shared.owned_chunks(), usize::from(committed));
    });
}

/// A worker wrongly believed dead and the worker that got its task both try to commit.
#[test]
fn a_zombie_and_its_successor_publish_one_result() {
    loom::model(|| {
        let shared = Shared::new();
        let claimed = shared.claim(A).expect("free");
        let zombie = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.work(A, claimed, 1))
        };
        recover(&shared.task, A, LIMIT).expect("sound word");
        let mine = shared.claim(B).is_some_and(|claimed| shared.work(B, claimed, 2));
        let theirs = zombie.join().expect("zombie");
        assert!(mine ^ theirs);
        assert_eq!(shared.read(), Some(if mine { 2 } else { 1 }));
        assert_eq!(shared.owned_chunks(), 1, "the other's chunk is free again");
    });
}

#[test]
fn of_two_recoverers_one_says_that_it_did_it() {
    loom::model(|| {
        let shared = Shared::new();
        let _claimed = shared.claim(A).expect("free");
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || recover(&shared.task, A, LIMIT).expect("sound word").is_some())
        };
        let mine = recover(&shared.task, A, LIMIT).expect("sound word").is_some();
        let theirs = other.join().expect("other");
        assert!(mine ^ theirs);
        assert_eq!(look(&shared.task), Ok(Task::Free { attempts: 1 }), "one death, one attempt");
    });
}

fn free_and_claim_again(free: impl Fn(&Shared, Claim) + Clone + Send + Sync + 'static, attempts: u8) {
    loom::model(move || {
        let shared = Shared::new();
        let claimed = shared.claim(A).expect("free");
        let first = {
            let (shared, free) = (Arc::clone(&shared), free.clone());
            thread::spawn(move || {
                shared.data[0].store(7, Ordering::Relaxed);
                free(&shared, claimed);
            })
        };
        if let Some(again) = shared.claim(B) {
            assert_eq!(shared.data[0].load(Ordering::Relaxed), 7);
            assert_eq!(again.attempts(), attempts);
        }
        first.join().expect("first");
    });
}

#[test]
fn who_claims_a_task_given_back_comes_after_that() {
    free_and_claim_again(|shared, claimed| give_back(&shared.task, claimed), 0);
}

#[test]
fn who_claims_a_recovered_task_comes_after_its_recovery() {
    let recover =
        |shared: &Shared, _| assert!(recover(&shared.task, A, LIMIT).expect("sound word").is_some());
    free_and_claim_again(recover, 1);
}

#[test]
fn who_allocates_a_released_chunk_comes_after_its_last_owner() {
    loom::model(|| {
        let shared = Shared::new();
        let owned = allocate(&shared.chunks[0], A).expect("sound word").expect("free");
        let first = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.data[0].store(7, Ordering::Relaxed);
                assert!(release(&shared.chunks[0], owned));
            })
        };
        if let Some(again) = allocate(&shared.chunks[0], B).expect("sound word") {
            assert_eq!(shared.data[0].load(Ordering::Relaxed), 7, "the last owner's writes are over");
            assert!(!release(&shared.chunks[0], owned), "the old name does not fit the new life");
            assert!(release(&shared.chunks[0], again));
        }
        first.join().expect("first");
    });
}

/// The dead worker's chunk is found by two recoverers, while a third process waits for a free chunk.
#[test]
fn a_dead_workers_chunk_is_freed_once_and_its_next_owner_keeps_it() {
    loom::model(|| {
        let shared = Shared::new();
        let _dead = allocate(&shared.chunks[0], A).expect("sound word").expect("free");
        let reclaim = |shared: &Shared| {
            let found = owned_by(&shared.chunks[0], A).expect("sound word");
            found.is_some_and(|found| release(&shared.chunks[0], found))
        };
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || reclaim(&shared))
        };
        let next = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || allocate(&shared.chunks[0], B).expect("sound word").is_some())
        };
        let mine = reclaim(&shared);
        assert!(mine ^ other.join().expect("other"));
        let taken = next.join().expect("next");
        let now = Chunk::unpack(shared.chunks[0].load(Ordering::Relaxed)).expect("sound word");
        assert_eq!(now, if taken { Chunk::Owned { owner: B, seq: 2 } } else { Chunk::Free { seq: 1 } });
    });
}

/// A bundle with two tasks, and what is published of them.
struct Bundled {
    bundle: AtomicU64,
    tasks: [AtomicU64; 2],
    data: AtomicU64,
}

impl Bundled {
    /// Two tasks in the bundle, which is A's.
    fn new() -> (Arc<Self>, Claim) {
        let free = || AtomicU64::new(Task::Free { attempts: 0 }.pack());
        let shared = Self { bundle: free(), tasks: [free(), free()], data: AtomicU64::new(0) };
        let claimed = claim(&shared.bundle, A).expect("sound word").expect("free");
        for word in &shared.tasks {
            assert!(bundle_seen(word, Task::Free { attempts: 0 }, 0, 0));
        }
        (Arc::new(shared), claimed)
    }

    /// What a task's word says, and how it stands.
    fn see(&self, task: usize) -> (Task, Task) {
        let seen = look(&self.tasks[task]).expect("sound word");
        let bundle = look(&self.bundle).expect("sound word");
        (seen, seen.in_bundle(bundle).expect("a bundle that was claimed"))
    }

    /// Takes what is free, as B.
    fn take(&self, task: usize) -> bool {
        match self.see(task) {
            (seen, Task::Free { attempts }) => claim_seen(&self.tasks[task], seen, B, attempts).is_some(),
            _ => false,
        }
    }
}

#[test]
fn who_sees_a_task_done_with_its_bundle_sees_the_data() {
    loom::model(|| {
        let (shared, claimed) = Bundled::new();
        let writer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.data.store(42, Ordering::Relaxed);
                commit(&shared.bundle, claimed, 0).expect("nobody took the claim");
            })
        };
        if shared.see(1).1.is_settled() {
            assert_eq!(shared.data.load(Ordering::Relaxed), 42);
            assert!(shared.see(0).1.is_settled(), "both at once");
        }
        writer.join().expect("writer");
    });
}

/// The owner of a bundle, wrongly believed dead, commits it while another wants what is in it.
#[test]
fn a_bundle_is_committed_or_its_tasks_are_free_and_never_both() {
    loom::model(|| {
        let (shared, claimed) = Bundled::new();
        let zombie = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let committed = commit(&shared.bundle, claimed, 0).is_ok();
                // It may still want one of them by itself.
                if let (seen, Task::Free { attempts }) = shared.see(0) {
                    assert!(!bundle_seen(&shared.tasks[0], seen, 0, attempts), "not into the same bundle");
                }
                committed
            })
        };
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.take(0))
        };
        let ended = recover(&shared.bundle, A, 1).expect("sound word").is_some();
        let mine = shared.take(1);
        let committed = zombie.join().expect("zombie");
        let theirs = other.join().expect("other");
        assert!(ended ^ committed);
        assert!(!committed || !mine && !theirs, "what is done is not taken");
        assert_eq!(mine, ended, "what a dead owner had is free at once");
        assert_eq!(shared.see(1).1.is_settled(), committed);
    });
}

#[test]
fn a_fence_and_a_good_end_exclude_each_other() {
    loom::model(|| {
        let running = Slot { state: SlotState::Running, generation: 1 };
        let word = Arc::new(AtomicU64::new(running.pack()));
        let worker = {
            let word = Arc::clone(&word);
            thread::spawn(move || change_slot(&word, running, Slot { state: SlotState::Done, ..running }))
        };
        let fenced = change_slot(&word, running, Slot { state: SlotState::Fenced, ..running });
        assert!(fenced ^ worker.join().expect("worker"));
    });
}
