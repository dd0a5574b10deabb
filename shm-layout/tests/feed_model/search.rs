//! Visits every state that can be reached.

use crate::state::{Scope, State};
use std::collections::{HashMap, VecDeque};

pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) transitions: u64,
    pub(crate) ends: u64,
    pub(crate) wrong: Option<(&'static str, Vec<String>)>,
    pub(crate) kinds: HashMap<&'static str, u64>,
}

impl Found {
    /// Prints how large the search was, and the way to what it found wrong.
    pub(crate) fn show(&self, name: &str) {
        println!("{name}: {} states, {} transitions, {} ends", self.states, self.transitions, self.ends);
        if let Some((wrong, trace)) = &self.wrong {
            println!("  {wrong} after {} steps", trace.len());
            trace.iter().for_each(|line| println!("    {line}"));
        }
    }

    /// The steps of `kinds` that were never taken: then a search shows less than it seems to.
    pub(crate) fn missing(&self, kinds: &[&'static str]) -> Vec<&'static str> {
        kinds.iter().filter(|kind| !self.kinds.contains_key(*kind)).copied().collect()
    }
}

pub(crate) fn search(scope: &Scope) -> Found {
    let start = State::new(scope);
    let mut from: HashMap<State, Option<(State, &'static str, usize)>> = HashMap::from([(start, None)]);
    let (mut queue, mut steps) = (VecDeque::from([start]), Vec::new());
    let mut found = Found { states: 0, transitions: 0, ends: 0, wrong: None, kinds: HashMap::new() };
    while let Some(state) = queue.pop_front() {
        state.steps(scope, &mut steps);
        let wrong = state.wrong().or_else(|| if steps.is_empty() { state.wrong_at_end() } else { None });
        if let Some(wrong) = wrong {
            let (mut trace, mut at) = (Vec::new(), state);
            while let Some((before, what, slot)) = from[&at] {
                trace.push(format!("{slot} {what}"));
                at = before;
            }
            trace.reverse();
            found.wrong = Some((wrong, trace));
            break;
        }
        found.ends += u64::from(steps.is_empty());
        for (what, slot, next) in &steps {
            found.transitions += 1;
            *found.kinds.entry(what).or_default() += 1;
            from.entry(*next).or_insert_with(|| {
                queue.push_back(*next);
                Some((state, what, *slot))
            });
        }
    }
    found.states = from.len();
    found
}
