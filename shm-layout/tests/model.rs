//! Explicit-state model of the protocol's words (`docs/crash-safety.md`).
//!
//! Every interleaving of two workers, a leader and a second recoverer is visited, with workers killed and wrongly believed dead
//! at any step. `KMER_MODEL=large` makes the exhaustive searches larger.
#![cfg(not(loom))]
#![forbid(unsafe_code)]

#[path = "model/canonical.rs"]
mod canonical;
#[path = "model/recovery.rs"]
mod recovery;
#[path = "model/search.rs"]
mod search;
#[path = "model/state.rs"]
mod state;
#[path = "model/steps.rs"]
mod steps;

use search::{Report, Violation, has_circle, images, search};
use state::{Bug, Scope};

/// One unit and one stripe, a chunk each, and a chunk to spare: enough for most bugs.
const SMALL: Scope = Scope {
    workers: 2,
    units: &[1],
    stripes: 1,
    passes: 1,
    chunks: 3,
    kills: 1,
    suspicions: 1,
    max_attempts: 9,
    bug: Bug::None,
    reduce: true,
};
/// Takes minutes.
const LARGE: Scope = Scope { units: &[1, 1], stripes: 2, chunks: 4, kills: 3, suspicions: 2, ..SMALL };
const NO_FAULT: Scope = Scope { kills: 0, suspicions: 0, ..SMALL };
const TWO_PASSES: Scope = Scope { passes: 2, chunks: 4, ..SMALL };
const TWO_STRIPES: Scope = Scope { stripes: 2, chunks: 3, ..NO_FAULT };

fn is_large() -> bool {
    std::env::var_os("KMER_MODEL").is_some_and(|size| size == "large")
}

fn show(name: &str, scope: &Scope, report: &Report) {
    println!(
        "{name}: {} states, {} transitions, depth {}, {} ends, {:.1?}; {scope:?}",
        report.states, report.transitions, report.depth, report.ends, report.time
    );
    let Some((wrong, trace)) = &report.violation else { return };
    println!("  {wrong:?} after {} steps:", trace.len());
    trace.iter().enumerate().for_each(|(i, line)| println!("  {:>3} {line}", i + 1));
}

/// Searches all of `scope`; fails on any violation, and when the run never came to an end.
fn holds(name: &str, scope: &Scope) -> Report {
    let report = search(scope);
    show(name, scope, &report);
    assert!(report.violation.is_none(), "{name}: see the trace above");
    assert!(report.ends > 0, "{name}: no run ended");
    report
}

/// Steps of the protocol as it is; a search that never takes one of them shows less than it seems to.
const KINDS: [&str; 27] = [
    "is killed",
    "is killed by the leader after its fence",
    "is wrongly believed dead: fenced",
    "starts",
    "is not fenced",
    "claims",
    "allocates",
    "gives up for the full arena, and gives back",
    "reads unit",
    "writes chunk",
    "commits",
    "finds its claim gone from",
    "gives back chunk",
    "exits, all is done",
    "exits, it is fenced",
    "exits after its chunks are back",
    "takes back",
    "reclaims chunk",
    "opens phase",
    "sees the death of worker",
    "starts a worker in slot",
    "reads",
    "reads chunk",
    "swaps what it read of",
    "swaps what it read of chunk",
    "frees chunk of the last pass",
    "reads sealed chunk",
];

fn takes_every_step(report: &Report, kinds: &[&str]) {
    for kind in kinds {
        assert!(report.kinds.iter().any(|(what, _)| what == kind), "no worker or leader ever \"{kind}\"");
    }
}

#[test]
fn two_kills_and_a_false_suspicion_change_nothing() {
    let scope = Scope { units: &[1, 1], stripes: 2, chunks: 4, kills: 2, ..SMALL };
    let report = holds("exact", if is_large() { &LARGE } else { &scope });
    assert!(report.states > 1_000_000, "the search is smaller than it says");
    assert_eq!(report.errors, 0);
    takes_every_step(&report, &KINDS[..25]);
}

#[test]
fn chains_of_chunks_are_published_whole() {
    let scope = Scope { units: &[2, 1], chunks: 4, ..SMALL };
    holds("chains", &if is_large() { Scope { stripes: 2, chunks: 5, kills: 2, ..scope } } else { scope });
}

#[test]
fn a_task_that_kills_its_workers_ends_the_run_with_nothing_left() {
    let report = holds("poison", &Scope { kills: 2, max_attempts: 2, ..SMALL });
    assert!(report.errors > 0, "no task was given up");
    assert!(report.errors < report.ends, "every run failed");
    takes_every_step(&report, &["ends the run with an error in phase"]);
}

#[test]
fn three_workers_are_no_different() {
    let scope = Scope { workers: 3, ..SMALL };
    let large = Scope { units: &[1, 1], chunks: 4, kills: 2, ..scope };
    let report = holds("three", if is_large() { &large } else { &scope });
    takes_every_step(&report, &KINDS[..25]);
}

#[test]
fn two_passes_give_back_what_the_first_one_held() {
    let fewer = Scope { kills: 0, ..TWO_PASSES };
    let report = holds("passes", if is_large() { &TWO_PASSES } else { &fewer });
    takes_every_step(&report, &KINDS[25..]);
}

#[test]
fn no_run_goes_round_in_a_circle() {
    for scope in [SMALL, TWO_STRIPES, Scope { suspicions: 0, ..TWO_PASSES }] {
        assert!(!has_circle(&scope), "{scope:?}");
    }
}

/// The searches take states for one that differ only in names. Visited one by one, they are as many as the search says, and a
/// planted bug is as many steps away.
#[test]
fn forgetting_names_hides_nothing() {
    let passes = Scope { kills: 0, suspicions: 0, ..TWO_PASSES };
    for scope in [NO_FAULT, TWO_STRIPES, passes, Scope { chunks: 2, ..SMALL }] {
        let (raw, kept) = images(&scope);
        let reduced = search(&scope).states;
        println!("{raw} states, {kept} alike, {reduced} searched; {scope:?}");
        assert_eq!(kept, reduced, "{scope:?}");
    }
    let distance = |scope: &Scope| search(scope).violation.map(|(wrong, trace)| (wrong, trace.len()));
    for (bug, scope, _) in PLANTED {
        let (reduced, raw) = (Scope { bug, ..scope }, Scope { bug, reduce: false, ..scope });
        assert_eq!(distance(&reduced), distance(&raw), "{bug:?}");
    }
}

/// Every planted bug, a scope in which the protocol is sound without it, and what the search must find.
const PLANTED: [(Bug, Scope, Violation); 14] = [
    (Bug::PlainCommit, SMALL, Violation::Overwritten),
    (Bug::DrainUnchecked, SMALL, Violation::Overwritten),
    (Bug::ReclaimOnSuspicion, SMALL, Violation::Freed),
    (Bug::ReachBeforeDeath, SMALL, Violation::Freed),
    (Bug::NoSequence, Scope { kills: 0, suspicions: 0, ..TWO_PASSES }, Violation::Freed),
    (Bug::StaleRecovery, SMALL, Violation::Overwritten),
    (Bug::TwoStepClaim, SMALL, Violation::Stuck),
    (Bug::TwoWordPublish, SMALL, Violation::Lost),
    (Bug::FreeAfterFirstStripe, TWO_STRIPES, Violation::Freed),
    (Bug::SameGeneration, SMALL, Violation::Freed),
    (Bug::DrainInPlace, SMALL, Violation::Doubled),
    (Bug::AllocateThenNote, SMALL, Violation::Leak),
    (Bug::HintIsDone, SMALL, Violation::Lost),
    (Bug::RetireByHead, Scope { kills: 0, suspicions: 0, ..TWO_PASSES }, Violation::Freed),
];

#[test]
fn every_planted_bug_is_found() {
    for (bug, scope, expected) in PLANTED {
        holds("sound", &scope);
        let planted = Scope { bug, ..scope };
        let report = search(&planted);
        show("planted", &planted, &report);
        let found = report.violation.as_ref().map(|(wrong, _)| *wrong);
        assert_eq!(found, Some(expected), "{bug:?}");
    }
}
