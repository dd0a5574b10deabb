//! Bundles of tasks in a segment of its own: many owners that die, and at the end each task is in one result.
#![cfg(not(loom))]
#![forbid(unsafe_code)]

use proptest::prelude::*;
use shm_layout::arena::NOTHING;
use shm_layout::segment::{Plan, Segment};
use shm_layout::sync::Ordering;
use shm_layout::tasks::{Bundle, TaskWords};
use shm_layout::toc::TocEstimator;
use shm_layout::words::{Owner, Task};
use std::collections::BTreeMap;
use std::sync::Arc;

const LIMIT: u8 = 3;

/// `tasks` tasks, of which some may be in `bundles` bundles.
fn words(tasks: usize, bundles: usize) -> TaskWords {
    let mut toc = TocEstimator::default();
    toc.estimate(TaskWords::estimate(tasks)).estimate(TaskWords::estimate(bundles));
    let plan = Plan { toc_bytes: toc.total(), chunk_bytes: 4096, chunks: 1, beside: 0, build: 7 };
    let segment = Arc::new(Segment::create(None, &plan).expect("a segment"));
    let toc = segment.toc().expect("a table of contents");
    let area = toc.allocate(1, TaskWords::estimate(tasks)).expect("room");
    let words = TaskWords::create_in(&segment, area, tasks).expect("room");
    let area = toc.allocate(2, TaskWords::estimate(bundles)).expect("room");
    words.with_bundles(TaskWords::create_in(&segment, area, bundles).expect("room"))
}

/// An owner at work: its bundle, and what it has scanned into it.
struct Worker {
    owner: Owner,
    bundle: Option<Bundle>,
    has: Vec<usize>,
}

impl Worker {
    fn new(slot: u16, generation: u32) -> Self {
        Self { owner: Owner { slot, generation }, bundle: None, has: Vec::new() }
    }

    /// Publishes what it has. The result's chain is known by a number of its own.
    fn commit(&mut self, words: &TaskWords, results: &mut BTreeMap<u32, Vec<usize>>) {
        let Some(bundle) = self.bundle.take_if(|_| !self.has.is_empty()) else { return };
        let head = results.len() as u32;
        if words.commit_bundle(&bundle, self.owner, head).is_ok() {
            results.insert(head, std::mem::take(&mut self.has));
        }
    }

    /// Takes the next task; true when it died of it.
    fn step(
        &mut self,
        words: &TaskWords,
        deadly: Option<usize>,
        results: &mut BTreeMap<u32, Vec<usize>>,
    ) -> bool {
        if self.bundle.is_none() {
            self.bundle = words.begin_bundle(self.owner).expect("sound words");
        }
        if let Some(bundle) = &self.bundle {
            let taken = words.first(|task| Ok(words.bundle(task, bundle, LIMIT)?.then_some(())));
            if let Some((task, ())) = taken.expect("sound words") {
                self.has.push(task);
                return deadly == Some(task);
            }
        }
        self.commit(words, results);
        let Some((task, claim)) = words.first(|task| words.claim(task, self.owner)).expect("sound words")
        else {
            return false;
        };
        if deadly == Some(task) {
            return true;
        }
        let head = results.len() as u32;
        words.commit(task, claim, self.owner, head).expect("ours");
        results.insert(head, vec![task]);
        false
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A task that kills whoever has it is given up, and no other; all others are in one result each, that of a bundle or their own.
    #[test]
    fn every_task_is_in_one_result_and_the_deadly_one_in_none(
        tasks in 1..12usize,
        bundles in 1..40usize,
        deadly in proptest::option::of(0..12usize),
        // Which worker goes on, and whether it commits, abandons or dies without a fault of its own.
        moves in proptest::collection::vec((0..3usize, 0..12u8), 0..60),
    ) {
        let (words, deadly) = (words(tasks, bundles), deadly.filter(|task| *task < tasks));
        let mut workers: Vec<Worker> = (0..3).map(|slot| Worker::new(slot, 1)).collect();
        let mut results = BTreeMap::new();
        // One death that is nobody's fault: with more an innocent task could be given up.
        let mut may_die = true;
        let moves = moves.into_iter().chain((0..).map(|at| (at % 3, 9)));
        for (slot, what) in moves {
            if words.all_settled().expect("sound words") {
                break;
            }
            let worker = &mut workers[slot];
            let died = match what {
                0 => { worker.commit(&words, &mut results); false }
                1 => {
                    if let Some(bundle) = worker.bundle.take() {
                        words.abandon(&bundle).expect("a bundle");
                    }
                    worker.has.clear();
                    false
                }
                2 => std::mem::take(&mut may_die),
                _ => worker.step(&words, deadly, &mut results),
            };
            if died {
                let owner = worker.owner;
                words.recover(owner, LIMIT).expect("sound words");
                words.recover(owner, LIMIT).expect("a second time changes nothing");
                *worker = Worker::new(owner.slot, owner.generation + 1);
            }
        }
        let mut times = vec![0; tasks];
        for (number, head) in words.results().expect("sound words") {
            prop_assert!(head != NOTHING);
            let of = &results[&head];
            prop_assert!(number >= tasks || *of == [number], "a task's own result has its number");
            of.iter().for_each(|task| times[*task] += 1);
        }
        for (task, times) in times.into_iter().enumerate() {
            let stands = words.look(task).expect("sound words");
            if deadly == Some(task) {
                prop_assert!(matches!(stands, Task::Poison { attempts: LIMIT }), "{stands:?}");
                prop_assert_eq!(times, 0);
            } else {
                prop_assert!(matches!(stands, Task::Done { .. } | Task::Bundled { .. }), "{:?}", stands);
                prop_assert_eq!(times, 1);
            }
        }
        prop_assert!(words.owners().expect("sound words").iter().all(|owner| owner.generation > 0));
    }
}

/// A leader that takes over from a dead one counts no attempt, and what was bundled by the dead is free.
#[test]
fn those_who_died_with_their_leader_are_at_no_fault() {
    let words = words(3, 2);
    let dead = Owner { slot: 1, generation: 1 };
    let bundle = words.begin_bundle(dead).expect("sound words").expect("one");
    assert!(words.bundle(0, &bundle, LIMIT).expect("sound words"));
    assert!(words.bundle(2, &bundle, LIMIT).expect("sound words"));
    assert_eq!(words.look(0).expect("sound"), Task::Claimed { owner: dead, attempts: 0 });
    assert_eq!(words.settled().expect("sound"), 0);
    assert_eq!(words.owners().expect("sound").into_iter().collect::<Vec<_>>(), [dead]);
    words.take_back(dead).expect("sound words");
    for task in 0..3 {
        assert_eq!(words.look(task).expect("sound"), Task::Free { attempts: 0 });
    }
    assert!(words.owners().expect("sound").is_empty());
    // Nobody ever has that bundle again; the other one is the last.
    let again = words.begin_bundle(dead).expect("sound words").expect("another");
    assert_ne!(again, bundle);
    assert!(words.begin_bundle(dead).expect("sound words").is_none());
}

/// A word that names a bundle which nobody has claimed, or that is none, is damage.
#[test]
fn words_of_bundles_that_are_none_are_damage() {
    let plan = Plan { toc_bytes: 4096, chunk_bytes: 4096, chunks: 1, beside: 0, build: 7 };
    let segment = Arc::new(Segment::create(None, &plan).expect("a segment"));
    let toc = segment.toc().expect("a table of contents");
    let [tasks, bundles] = [1, 2].map(|key| toc.allocate(key, 16).expect("room"));
    let alone = TaskWords::create_in(&segment, tasks, 2).expect("room");
    let words = alone.clone().with_bundles(TaskWords::create_in(&segment, bundles, 2).expect("room"));
    let bundle = words.begin_bundle(Owner { slot: 1, generation: 1 }).expect("sound words").expect("one");
    assert!(words.bundle(0, &bundle, LIMIT).expect("sound words"));
    assert!(alone.look(0).is_err(), "tasks that have no bundles");
    for none in [1, 2, u32::MAX] {
        let bits = Task::Bundled { bundle: none, attempts: 0 }.pack();
        segment.map().word(tasks.offset).expect("there").store(bits, Ordering::Relaxed);
        assert!(words.look(0).is_err() && words.all_settled().is_err() && words.results().is_err(), "{none}");
    }
}
