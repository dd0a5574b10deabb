//! Explicit-state model of bundles: units that are committed, or lost, several at once.
//!
//! Every interleaving of two workers that scan three units is visited (of two, with more deaths), with workers killed, wrongly believed dead, or killed with their leader, at any step; words are
//! packed and read by production. A claim takes three steps here, as it takes three accesses there: the unit's word, its bundle's, the swap.
//!
//! ```text
//! worker   claims a bundle -> takes units into it, and scans them -> commits it, or abandons it
//!          where it may take none, or there is no bundle left: claims a unit by itself -> scans it -> commits it
//! leader   ends claims (of the dead, of the suspected), a word at a time; starts others
//! ```
#![cfg(not(loom))]
#![forbid(unsafe_code)]

#[path = "feed_model/search.rs"]
mod search;
#[path = "bundle_model/state.rs"]
mod state;
#[path = "bundle_model/steps.rs"]
mod steps;

use search::search;
use state::{Bug, Scope};

const PEACE: Scope =
    Scope { units: 2, kills: 0, suspicions: 0, disasters: 0, abandons: 0, deadly: None, bug: Bug::None };

/// Steps that the searches must take, or they show less than they seem to.
const KINDS: [&str; 19] = [
    "dies of the unit",
    "everybody dies with the leader",
    "is killed",
    "is killed behind its fence",
    "is wrongly believed dead",
    "leader ends a bundle",
    "leader starts another",
    "leader takes a claim back",
    "worker abandons its bundle",
    "worker claims a bundle",
    "worker claims a unit alone",
    "worker commits a unit alone",
    "worker commits its bundle",
    "worker finds its bundle gone, and leaves",
    "worker finds its claim gone, and leaves",
    "worker finds the unit taken",
    "worker looks at a unit",
    "worker scans the unit",
    "worker takes the unit into its bundle",
];

#[test]
fn bundles_survive_deaths_and_false_suspicions() {
    let mut all = search(&PEACE);
    for scope in [
        Scope { units: 3, kills: 1, ..PEACE },
        Scope { units: 3, suspicions: 1, ..PEACE },
        Scope { kills: 1, suspicions: 1, ..PEACE },
        Scope { kills: 1, abandons: 1, ..PEACE },
        Scope { kills: 2, ..PEACE },
        Scope { suspicions: 2, ..PEACE },
        Scope { suspicions: 1, disasters: 1, ..PEACE },
        Scope { units: 3, deadly: Some(1), ..PEACE },
        Scope { deadly: Some(0), abandons: 1, ..PEACE },
    ] {
        let found = search(&scope);
        found.show(&format!("{scope:?}"));
        assert!(found.wrong.is_none() && found.ends > 0, "see the trace above");
        all.kinds.extend(found.kinds);
    }
    let missing = all.missing(&KINDS);
    assert!(missing.is_empty(), "never taken: {missing:?}");
}

#[test]
fn every_planted_bug_is_found() {
    for (bug, expected) in [
        (Bug::UsedTwice, "a unit that counts as done, and is in no result"),
        (Bug::LateUnit, "a unit that counts as done, and is in no result"),
        (Bug::PlainCommit, "a unit in a result that does not count as done"),
        (Bug::UnitsFreed, "a unit in a result that does not count as done"),
        (Bug::NoSwap, "a unit in a result that does not count as done"),
    ] {
        let found = search(&Scope { kills: 1, suspicions: 1, bug, ..PEACE });
        found.show(&format!("{bug:?}"));
        assert_eq!(found.wrong.map(|(wrong, _)| wrong), Some(expected), "{bug:?}");
    }
    let found = search(&Scope { deadly: Some(1), bug: Bug::LastChanceTogether, ..PEACE });
    assert_eq!(found.wrong.map(|(wrong, _)| wrong), Some("a unit that is blamed with another"));
    let found = search(&Scope { kills: 1, suspicions: 1, bug: Bug::TakenAgain, ..PEACE });
    assert_eq!(found.wrong.map(|(wrong, _)| wrong), Some("the wrong unit is given up"));
}
