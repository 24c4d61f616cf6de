//! A check that cannot find a bug is no check: each planted bug must be found within 1,000 seeds, by
//! an invariant or the auditor.

use std::io::Write as _;

use machines::planted::{Bug, plant};
use simulation::plan::Plan;
use simulation::run::run;

/// Seeds within which a bug must be found.
const SEEDS: u64 = 1_000;

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    let mut table = String::from("| bug | seeds | what caught it |\n|---|---|---|\n");
    for bug in Bug::ALL {
        plant(Some(*bug));
        let found = (1..=SEEDS)
            .find_map(|seed| Some((seed, run(Plan::of(seed), false).failures.into_iter().next()?)));
        match found {
            Some((seed, failure)) => {
                let failure: String = failure.chars().take(100).collect();
                table += &format!("| {bug:?} | {seed} | {} |\n", failure.replace('|', "/"));
            }
            None => missed.push(*bug),
        }
    }
    plant(None);
    let _ = writeln!(std::io::stderr(), "{table}");
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
