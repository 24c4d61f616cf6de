//! A fixed scenario crashed at every call that leaves the core: each call is a moment before it and
//! one after it. Then pairs: a second crash while the first is being recovered from.

use crate::chance::Chance;
use crate::plan::Plan;
use crate::run::run;
use crate::sweep::{Report, sweep};

/// A second crash strikes within so many calls of the first.
const RECOVERY: u64 = 400;

/// Calls of the scenario when nothing crashes.
///
/// # Panics
/// When the scenario fails by itself.
pub fn calls() -> u64 {
    let outcome = run(Plan::scenario(vec![]), false);
    assert!(outcome.failures.is_empty(), "the scenario fails: {:?}", outcome.failures);
    outcome.steps
}

/// Crashes the scenario at each of its calls in turn.
pub fn singles(most_bad: usize) -> Report {
    sweep(1, calls(), most_bad, |call| Plan::scenario(vec![call]))
}

/// Crashes it at so many pairs of calls, the second soon after the first.
pub fn pairs(count: u64, most_bad: usize) -> Report {
    let calls = calls();
    sweep(0, count, most_bad, |number| Plan::scenario(pair(calls, number)))
}

/// The calls at which the pair of this number crashes.
pub fn pair(calls: u64, number: u64) -> Vec<u64> {
    let mut chance = Chance::new(number);
    let first = chance.between(1, calls);
    vec![first, first + chance.between(1, RECOVERY)]
}
