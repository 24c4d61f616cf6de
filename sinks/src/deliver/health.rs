//! What keeps a sink from being ready, and how far each partition is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
#[derive(Debug, Default)]
pub(crate) struct Progress {
    next: AtomicI64,
    caught_up: AtomicBool,
}

impl Progress {
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
}
