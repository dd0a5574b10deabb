use super::*;
use proptest::prelude::*;

fn owner() -> impl Strategy<Value = Owner> {
    (0..MAX_SLOTS, 0..MAX_GENERATION).prop_map(|(slot, generation)| Owner { slot, generation })
}

fn task() -> impl Strategy<Value = Task> {
    let attempts = 0..=MAX_ATTEMPTS;
    prop_oneof![
        attempts.clone().prop_map(|attempts| Task::Free { attempts }),
        (owner(), attempts.clone()).prop_map(|(owner, attempts)| Task::Claimed { owner, attempts }),
        (any::<u32>(), attempts.clone()).prop_map(|(head, attempts)| Task::Done { head, attempts }),
        (any::<u32>(), attempts.clone()).prop_map(|(bundle, attempts)| Task::Bundled { bundle, attempts }),
        attempts.prop_map(|attempts| Task::Poison { attempts }),
    ]
}

proptest! {
    #[test]
    fn every_task_survives_its_word(task in task()) {
        prop_assert_eq!(Task::unpack(task.pack()), Ok(task));
    }

    #[test]
    fn a_word_that_decodes_encodes_to_itself(bits in any::<u64>()) {
        if let Ok(task) = Task::unpack(bits) { prop_assert_eq!(task.pack(), bits); }
        if let Ok(chunk) = Chunk::unpack(bits) { prop_assert_eq!(chunk.pack(), bits); }
        if let Ok(slot) = Slot::unpack(bits) { prop_assert_eq!(slot.pack(), bits); }
    }

    #[test]
    fn recovery_touches_only_the_dead(task in task(), dead in owner(), limit in 1..MAX_ATTEMPTS) {
        let word = AtomicU64::new(task.pack());
        let changed = recover(&word, dead, limit).unwrap();
        let now = look(&word).unwrap();
        match task {
            Task::Claimed { owner, .. } if owner == dead => prop_assert_eq!(changed, Some(now)),
            _ => { prop_assert_eq!(changed, None); prop_assert_eq!(now, task); }
        }
        prop_assert_eq!(recover(&word, dead, limit).unwrap(), None, "a second recovery changes nothing");
    }
}

const A: Owner = Owner { slot: 1, generation: 1 };
const B: Owner = Owner { slot: 2, generation: 7 };

#[test]
fn a_claim_excludes_others_and_a_commit_ends_it() {
    let word = AtomicU64::new(Task::Free { attempts: 0 }.pack());
    let mine = claim(&word, A).unwrap().expect("free");
    assert_eq!(claim(&word, B), Ok(None));
    commit(&word, mine, 9).expect("still mine");
    assert_eq!(look(&word), Ok(Task::Done { head: 9, attempts: 0 }));
    assert_eq!(commit(&word, mine, 10), Err(Fenced), "a second commit must not replace the first");
}

#[test]
fn a_zombie_cannot_commit_what_was_taken_from_it() {
    let word = AtomicU64::new(Task::Free { attempts: 0 }.pack());
    let zombie = claim(&word, A).unwrap().expect("free");
    assert_eq!(recover(&word, A, 3), Ok(Some(Task::Free { attempts: 1 })));
    assert_eq!(commit(&word, zombie, 4), Err(Fenced));
    let again = claim(&word, A).unwrap().expect("free again");
    assert_eq!(
        commit(&word, zombie, 4),
        Err(Fenced),
        "the attempt count tells the two claims of one owner apart"
    );
    commit(&word, again, 5).expect("mine");
}

#[test]
fn poison_after_the_last_attempt() {
    let word = AtomicU64::new(Task::Free { attempts: 2 }.pack());
    let _claim = claim(&word, A).unwrap().expect("free");
    assert_eq!(recover(&word, A, 3), Ok(Some(Task::Poison { attempts: 3 })));
    assert_eq!(claim(&word, B), Ok(None));
}

#[test]
fn one_word_decides_over_all_tasks_of_a_bundle() {
    let bundle = AtomicU64::new(Task::Free { attempts: 0 }.pack());
    let words = [0, 1].map(|attempts| AtomicU64::new(Task::Free { attempts }.pack()));
    let stand = |word: &AtomicU64| look(word).unwrap().in_bundle(look(&bundle).unwrap());
    let claim = claim(&bundle, A).unwrap().expect("free");
    for (word, attempts) in words.iter().zip([0, 1]) {
        assert!(bundle_seen(word, Task::Free { attempts }, 7, attempts));
        assert!(!bundle_seen(word, Task::Free { attempts }, 8, attempts), "taken");
        assert_eq!(super::claim(word, B), Ok(None), "by itself it is nobody's to claim");
        assert_eq!(stand(word), Some(Task::Claimed { owner: A, attempts }));
    }
    commit(&bundle, claim, 5).expect("mine");
    for (word, attempts) in words.iter().zip([0, 1]) {
        assert_eq!(stand(word), Some(Task::Bundled { bundle: 7, attempts }), "done with it");
    }
}

#[test]
fn what_a_bundle_had_is_free_when_its_owner_died_or_gave_up() {
    for died in [true, false] {
        let bundle = AtomicU64::new(Task::Free { attempts: 0 }.pack());
        let word = AtomicU64::new(Task::Free { attempts: 1 }.pack());
        let zombie = claim(&bundle, A).unwrap().expect("free");
        assert!(bundle_seen(&word, Task::Free { attempts: 1 }, 7, 1));
        if died {
            recover(&bundle, A, 1).unwrap();
        } else {
            assert_eq!(abandon_of(&bundle, A), Ok(true));
            assert_eq!(abandon_of(&bundle, A), Ok(false));
        }
        abandon(&bundle, zombie);
        let seen = look(&word).unwrap();
        let attempts = 1 + u8::from(died);
        assert_eq!(seen.in_bundle(look(&bundle).unwrap()), Some(Task::Free { attempts }));
        assert!(!bundle_seen(&word, seen, 7, attempts), "its owner does not find it free once more");
        let claim = claim_seen(&word, seen, B, attempts).expect("free");
        assert_eq!(commit(&bundle, zombie, 4), Err(Fenced), "nor does it come back");
        assert_eq!(super::claim(&bundle, B), Ok(None), "nobody uses a bundle twice");
        commit(&word, claim, 9).expect("mine");
    }
    assert_eq!(
        [(0, 1), (0, 2), (1, 2), (1, 3), (255, 255)].map(|(n, most)| may_be_bundled(n, most)),
        [false, true, false, true, false]
    );
}

#[test]
fn a_chunk_released_late_is_not_taken_from_its_next_life() {
    let word = AtomicU64::new(Chunk::Free { seq: 0 }.pack());
    let first = allocate(&word, A).unwrap().expect("free");
    assert!(release(&word, first));
    let second = allocate(&word, A).unwrap().expect("free");
    assert!(!release(&word, first), "same owner, other sequence number");
    assert!(release(&word, second));
}

#[test]
fn a_chunk_allocated_too_often_is_never_handed_out() {
    let word = AtomicU64::new(Chunk::Free { seq: MAX_SEQ - 1 }.pack());
    assert_eq!(allocate(&word, A), Ok(None));
}
