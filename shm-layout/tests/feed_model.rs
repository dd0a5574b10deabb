//! Explicit-state model of a stream: a feeder that publishes parcels in chunks of its own, workers that copy them, a leader that recovers.
//!
//! Every interleaving is visited, with feeders and workers killed, or wrongly believed dead, at any step; words are packed by production. Two
//! parcels of a chunk each go through two chunks, so that a chunk that was freed too early gets other bytes; a third parcel is the end of the text.
//!
//! ```text
//! feeder   claims parcel -> allocates chunk -> writes it -> commits -> ... its unit is done: word leads nowhere -> frees chunk
//! worker   claims unit -> sees the parcel's word -> copies the chunk -> looks at the word again -> commits what it copied
//! leader   takes claims back (of the dead, of the suspected); frees chunks of the dead that no word reaches; starts others
//! ```
//!
//! That a feeder commits by a compare-and-swap is not needed here, and no search can show it: there is one feeder at a time, since another is started
//! only when the death of the one before is confirmed.
#![cfg(not(loom))]
#![forbid(unsafe_code)]

#[path = "feed_model/search.rs"]
mod search;
#[path = "feed_model/state.rs"]
mod state;
#[path = "feed_model/steps.rs"]
mod steps;

use search::search;
use state::{Bug, Scope};

/// Steps that a search must take, or it shows less than it seems to.
const KINDS: [&str; 22] = [
    "feeder allocates",
    "feeder claims",
    "feeder commits",
    "feeder finds its claim gone",
    "feeder frees a parcel's chunk",
    "feeder gives its chunk back, and leaves",
    "feeder leaves",
    "feeder leaves a parcel out",
    "feeder makes a word lead nowhere",
    "feeder writes",
    "is killed",
    "is killed behind its fence",
    "is wrongly believed dead",
    "leader frees a chunk of the dead",
    "leader starts another",
    "leader takes a claim back",
    "worker claims",
    "worker commits",
    "worker copies",
    "worker finds its claim gone",
    "worker gives way",
    "worker looks again",
];

#[test]
fn a_stream_survives_deaths_and_false_suspicions_of_feeder_and_workers() {
    let found = search(&Scope { workers: 2, kills: 1, suspicions: 1, bug: Bug::None });
    found.show("two workers");
    assert!(found.wrong.is_none() && found.ends > 0, "see the trace above");
    let missing = found.missing(&KINDS);
    assert!(missing.is_empty(), "never taken: {missing:?}");
    let found = search(&Scope { workers: 1, kills: 2, suspicions: 1, bug: Bug::None });
    found.show("one worker, more faults");
    assert!(found.wrong.is_none() && found.ends > 0, "see the trace above");
}

#[test]
fn every_planted_bug_is_found() {
    for (bug, expected) in [
        (Bug::NoSecondLook, "a worker that takes other bytes for its parcel's"),
        (Bug::FreeThenConsume, "a parcel whose chunk is not its own"),
        (Bug::ConsumeOnClaim, "a parcel that is gone before its unit is done"),
        (Bug::SweepAll, "a parcel whose chunk is not its own"),
        (Bug::SkipClaimed, "stuck"),
    ] {
        let found = search(&Scope { workers: 2, kills: 1, suspicions: 1, bug });
        found.show(&format!("{bug:?}"));
        assert_eq!(found.wrong.map(|(wrong, _)| wrong), Some(expected), "{bug:?}");
    }
}
