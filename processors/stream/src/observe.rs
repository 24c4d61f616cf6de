//! What a stream thread tells metrics and logs. Deciding nothing: a platform may ignore it all.

use std::time::Duration;

use machines::{TaskId, Transaction};

use crate::io::Changelog;

/// Something that happened in a stream thread.
#[derive(Debug)]
pub enum Observed<'a> {
    /// A batch is committed in Kafka and in its store.
    Applied(&'a Transaction),
    /// A transaction was committed: time from begin to drained, and from there to committed.
    Committed {
        /// From begin to drained.
        drain: Duration,
        /// From drained to committed.
        commit: Duration,
    },
    /// A commit took so long that it may have been sent twice: the producer is made anew.
    SlowCommit(Duration),
    /// Everything uncommitted was dropped, for this reason, and with it these tasks: they are to be taken over again, here or
    /// elsewhere.
    Redone(&'a [TaskId], &'a anyhow::Error),
    /// A task could not be taken over, for this reason; it is tried again, the others go on.
    NotTakenOver(TaskId, &'a anyhow::Error),
    /// The last owner of a task is being fenced.
    Fencing(TaskId, &'a str),
    /// A store did not fit its changelog and was emptied.
    Emptied(TaskId),
    /// Changelog records were applied to a store.
    RestoredRows(&'a Changelog, usize),
    /// A store stands at its last footer: rows applied, and the time that took.
    Restored(&'a Changelog, usize, Duration),
    /// Tasks were taken over.
    TakenOver(&'a [TaskId], Duration),
    /// An idle inbox of a task was found to hold nothing up to this offset.
    Passed(TaskId, &'a str, i64),
    /// Stores were brought forward before their tasks were assigned: how many, and the time it took.
    Warmed(usize, Duration),
    /// A store could not be brought forward early, for this reason; its takeover will do it.
    NotWarmed(TaskId, &'a anyhow::Error),
    /// Tasks were handed over.
    HandedOver(&'a [TaskId]),
    /// The thread serves what it was assigned.
    Ready,
}
