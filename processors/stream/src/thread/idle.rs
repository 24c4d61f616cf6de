//! Positions of idle inboxes. A position rises with the records that are read; markers of transactions
//! have offsets too, and a partition where nothing else comes would fall behind what retention keeps:
//! its next owner could not tell that nothing was lost.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use machines::planted;

use super::{Key, StreamThread, key};
use crate::io::{Changelog, Changelogs, Platform};
use crate::observe::Observed;

/// What was seen at the last look.
pub(super) struct Idle {
    looked: Duration,
    positions: BTreeMap<(Key, String), i64>,
}

impl Idle {
    pub(super) fn since(now: Duration) -> Self {
        Self { looked: now, positions: BTreeMap::new() }
    }
}

impl<P: Platform> StreamThread<P> {
    /// Every [`super::CommitRule::idle_positions`]: an inbox whose position has not moved since the last
    /// look, and which holds nothing but markers and aborted records up to its last stable offset, is
    /// taken to stand there. The next commit says so, without records if there are none.
    ///
    /// # Errors
    /// When a broker does not answer.
    pub(super) fn pass_markers(&mut self) -> Result<()> {
        let now = self.platform.elapsed();
        if now - self.idle.looked < self.setup.commit.idle_positions {
            return Ok(());
        }
        self.idle.looked = now;
        let before = std::mem::take(&mut self.idle.positions);
        for running in self.tasks.values_mut() {
            let task = running.task.id();
            for inbox in task.processor.inboxes() {
                let Some(position) = running.task.positions().get(inbox).copied() else { continue };
                let known = (key(task), inbox.to_string());
                if before.get(&known) == Some(&position) {
                    let log = Changelog { topic: known.1.clone(), partition: task.partition };
                    // Everything before the last stable offset has its final fate.
                    let (start, stable) = self.logs.bounds(&log)?;
                    let behind = start <= position && position < stable;
                    if behind
                        && (empty(&self.logs, &log, position, stable)? || planted!(UnreadPassed))
                    {
                        running.task.pass(inbox, stable);
                        self.platform.observe(Observed::Passed(task, inbox, stable));
                    }
                }
                let position = running.task.positions().get(inbox).copied().unwrap_or(position);
                self.idle.positions.insert(known, position);
            }
        }
        Ok(())
    }
}

/// There is a record where none was expected.
#[derive(Debug, thiserror::Error)]
#[error("not empty")]
struct Occupied;

/// Whether `from..end` holds no committed record; reads up to the first.
fn empty(logs: &impl Changelogs, log: &Changelog, from: i64, end: i64) -> Result<bool> {
    match logs.read(log, from, end, |_| bail!(Occupied)) {
        Ok(()) => Ok(true),
        Err(error) if error.is::<Occupied>() => Ok(false),
        Err(error) => Err(error),
    }
}
