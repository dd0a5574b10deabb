//! Explicit-state model of tables that are written over spent records: chunks' second uses.
//!
//! Every interleaving of two workers that drain three stripes is visited, with workers killed, or wrongly believed dead, at any step; words are packed by
//! production. Two chunks hold the records, one of them those of two stripes; two more are free, so one table of three at least is written over records, or over
//! what a dead worker left.
//!
//! ```text
//! worker   claims stripe -> copies its records -> allocates a free chunk, or a spent one again -> writes its table -> commits
//! leader   takes claims back (of the dead, of the suspected); frees chunks of the dead that no word reaches; starts others
//! ```
#![cfg(not(loom))]
#![forbid(unsafe_code)]

#[path = "feed_model/search.rs"]
mod search;
#[path = "spent_model/state.rs"]
mod state;
#[path = "spent_model/steps.rs"]
mod steps;

use search::search;
use state::{Bug, Scope};

/// Steps that a search must take, or it shows less than it seems to.
const KINDS: [&str; 15] = [
    "is killed",
    "is killed behind its fence",
    "is wrongly believed dead",
    "leader frees a chunk of the dead",
    "leader starts another",
    "leader takes a claim back",
    "worker allocates a free chunk",
    "worker allocates a spent chunk",
    "worker claims",
    "worker commits",
    "worker copies records",
    "worker finds its claim gone",
    "worker finds its records gone",
    "worker gives its chunk back, and leaves",
    "worker writes its table",
];

#[test]
fn tables_over_records_survive_deaths_and_false_suspicions() {
    for (kills, suspicions) in [(1, 1), (2, 0), (0, 2)] {
        let found = search(&Scope { kills, suspicions, bug: Bug::None });
        found.show(&format!("{kills} kills, {suspicions} suspicions"));
        assert!(found.wrong.is_none() && found.ends > 0, "see the trace above");
        if (kills, suspicions) == (1, 1) {
            let missing = found.missing(&KINDS);
            assert!(missing.is_empty(), "never taken: {missing:?}");
        }
    }
}

#[test]
fn every_planted_bug_is_found() {
    for (bug, expected) in [
        (Bug::SpentByOne, "records that are gone before they are counted"),
        (Bug::SpentByClaim, "records that are gone before they are counted"),
        (Bug::NoWord, "a table that is not in its chunk"),
        (Bug::SweepAll, "a table that is not in its chunk"),
        (Bug::PlainCommit, "an error of the run that is none"),
        (Bug::NoFenceLook, "an error of the run that is none"),
    ] {
        let found = search(&Scope { kills: 1, suspicions: 1, bug });
        found.show(&format!("{bug:?}"));
        assert_eq!(found.wrong.map(|(wrong, _)| wrong), Some(expected), "{bug:?}");
    }
}
