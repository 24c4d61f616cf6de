//! What keeps a sink from being ready, and how far each partition is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use events::Millis;
use wire::operator::Readiness;

/// The readiness check of one sink: ok while no part of it has a problem.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    readiness: Readiness,
    check: &'static str,
    problems: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Health {
    /// A check that fails as "starting" until [`Health::solved`] clears that.
    pub(crate) fn starting(readiness: Readiness, check: &'static str) -> Self {
        let health = Self { readiness, check, problems: Arc::default() };
        health.problem("group", "starting");
        health
    }

    /// Notes what is wrong with `part`.
    pub(crate) fn problem(&self, part: &str, reason: &str) {
        self.change(|problems| {
            problems.insert(part.to_owned(), reason.to_owned());
        });
    }

    /// `part` has no problem (any more).
    pub(crate) fn solved(&self, part: &str) {
        self.change(|problems| {
            problems.remove(part);
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut problems);
        if problems.is_empty() {
            self.readiness.ok(self.check);
        } else {
            let lines: Vec<String> = problems.iter().map(|(p, r)| format!("{p}: {r}")).collect();
            self.readiness.fail(self.check, &lines.join("; "));
        }
    }
}

/// How far a partition is written; read by the sampling of lag.
#[derive(Debug)]
pub(crate) struct Progress {
    next: AtomicI64,
    caught_up: AtomicBool,
    waiting_since: AtomicI64,
}

impl Progress {
    /// Nothing is known yet of a partition that was assigned now.
    pub(crate) fn assigned(now: Millis) -> Self {
        let (next, caught_up) = (AtomicI64::new(0), AtomicBool::new(false));
        Self { next, caught_up, waiting_since: AtomicI64::new(now.0) }
    }

    /// Everything before `next` is written.
    pub(crate) fn written(&self, next: i64) {
        self.next.store(next, Ordering::Relaxed);
    }

    /// Whether everything in the log is written.
    pub(crate) fn caught_up(&self, caught_up: bool) {
        self.caught_up.store(caught_up, Ordering::Relaxed);
    }

    /// Records not yet written, given the end of the log. Markers of transactions count as records
    /// until the end is reached.
    pub(crate) fn lag(&self, end: i64) -> i64 {
        if self.caught_up.load(Ordering::Relaxed) {
            return 0;
        }
        (end - self.next.load(Ordering::Relaxed)).max(0)
    }

    /// The oldest record that is not written stands in the log since then, or a little later.
    pub(crate) fn waiting_since(&self, at: Millis) {
        self.waiting_since.store(at.0, Ordering::Relaxed);
    }

    /// Whole seconds for which the oldest record has waited to be written; 0 when all are.
    pub(crate) fn lag_seconds(&self, now: Millis) -> i64 {
        if self.caught_up.load(Ordering::Relaxed) {
            return 0;
        }
        ((now.0 - self.waiting_since.load(Ordering::Relaxed)) / 1000).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_problem_is_solved() {
        let readiness = Readiness::starting(&["reports"]);
        let health = Health::starting(readiness.clone(), "reports");
        health.problem("order-status-0", "down");
        health.solved("group");
        assert_eq!(readiness.report(), (false, "[-]reports order-status-0: down\n".into()));
        health.solved("order-status-0");
        assert_eq!(readiness.report(), (true, "[+]reports ok\n".into()));
    }

    #[test]
    fn a_partition_is_behind_from_its_assignment_until_its_end_is_reached() {
        let progress = Progress::assigned(Millis(10_000));
        assert_eq!((progress.lag(7), progress.lag_seconds(Millis(12_500))), (7, 2));
        progress.waiting_since(Millis(3_000));
        progress.written(5);
        assert_eq!((progress.lag(7), progress.lag_seconds(Millis(12_500))), (2, 9));
        // The broker's clock is ahead of ours.
        assert_eq!(progress.lag_seconds(Millis(1_000)), 0);
        progress.caught_up(true);
        assert_eq!((progress.lag(7), progress.lag_seconds(Millis(99_000))), (0, 0));
    }
}
