//! Tasks that could not be taken over yet: a partition without a leader, a store that is still
//! locked, a failure that cost the thread all its tasks. The group and the thread's other tasks come
//! first.

use std::collections::BTreeMap;
use std::time::Duration;

use machines::TaskId;

use super::{Key, key};

/// Wait before another try: doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What waits, and whom its takeover has fenced.
#[derive(Default)]
pub(super) struct Postponed {
    waiting: BTreeMap<Key, Waiting>,
    /// Offset of the footer whose owner was fenced. Once per footer is enough: fencing ends what the owner
    /// had begun, and what it begins afterwards it can commit only until it hears that the task is no longer
    /// its own; then there is a newer footer. Fencing at every try would stop its other tasks for as long as
    /// this one cannot be had.
    fenced: BTreeMap<Key, Option<i64>>,
}

struct Waiting {
    task: TaskId,
    due: Duration,
    wait: Duration,
}

impl Postponed {
    /// Tries again later, and later still after every failure.
    pub(super) fn after_failure(&mut self, task: TaskId, now: Duration) {
        let last = self.waiting.get(&key(task)).map(|waiting| waiting.wait);
        let wait = last.map_or(BACKOFF.0, |wait| (wait * 2).clamp(BACKOFF.0, BACKOFF.1));
        self.waiting.insert(key(task), Waiting { task, due: now + wait, wait });
    }

    /// Tries at this time.
    pub(super) fn until(&mut self, task: TaskId, due: Duration) {
        let wait = self.waiting.get(&key(task)).map_or(Duration::ZERO, |waiting| waiting.wait);
        self.waiting.insert(key(task), Waiting { task, due, wait });
    }

    /// The tasks whose time has come, those that have waited longest first.
    pub(super) fn due(&self, now: Duration) -> Vec<TaskId> {
        let mut due: Vec<_> = self.waiting.values().filter(|waiting| waiting.due <= now).collect();
        due.sort_by_key(|waiting| waiting.due);
        due.into_iter().map(|waiting| waiting.task).collect()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The task runs, or belongs to somebody else.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.waiting.remove(&key(task));
        self.fenced.remove(&key(task));
    }

    /// Everything is taken over anew.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Nothing is known of the group any more.
    pub(super) fn forget_all(&mut self) {
        self.waiting.clear();
        self.fenced.clear();
    }

    /// The footer whose owner was fenced for this task.
    pub(super) fn fenced(&mut self, task: TaskId) -> &mut Option<i64> {
        self.fenced.entry(key(task)).or_default()
    }
}
