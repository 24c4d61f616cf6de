//! Many runs on all cores: each run is one thread's, so a seed means the same wherever it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::coverage::Coverage;
use crate::plan::Plan;
use crate::run::run;

/// What came of many runs.
#[derive(Debug, Default)]
pub struct Report {
    /// Runs.
    pub runs: u64,
    /// What was met in all of them.
    pub coverage: Coverage,
    /// Number of each bad run, with what was wrong; by number.
    pub bad: Vec<(u64, Vec<String>)>,
}

/// Runs `plan(number)` for `first..first + count`; gives up after `most_bad` bad ones.
pub fn sweep(first: u64, count: u64, most_bad: usize, plan: impl Fn(u64) -> Plan + Sync) -> Report {
    let next = AtomicU64::new(first);
    let report = Mutex::new(Report::default());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= first + count {
                return;
            }
            let outcome = run(plan(number), false);
            let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
            report.runs += 1;
            report.coverage.merge(&outcome.coverage);
            if !outcome.failures.is_empty() {
                report.bad.push((number, outcome.failures));
                if report.bad.len() >= most_bad {
                    next.store(first + count, Ordering::Relaxed);
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.bad.sort();
    report
}
