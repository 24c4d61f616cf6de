//! Taking over a partition: fence the last owner, wait for what it left open, restore, find the
//! positions. What follows is the task's first transaction, which names the new owner in the log.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Error, Result, anyhow, bail, ensure};
use events::{Millis, topics};
use machines::footer::Footer;
use machines::task::Start;
use machines::{TaskId, planted};

use crate::io::{Changelog, Changelogs, Inboxes, Platform, Stopped, Store};
use crate::observe::Observed;
use crate::restore::{last_footer, make_usable, restore};

/// Longest wait for a transaction that nobody could be fenced out of: its time-out, the broker's
/// sweep interval, and room.
const OPEN_TRANSACTION: Duration = Duration::from_secs(30);

/// Takeovers of a stream thread.
pub struct Takeover<'a, P: Platform> {
    /// The world.
    pub platform: &'a P,
    /// Reader of changelogs.
    pub logs: &'a P::Changelogs,
    /// The thread's membership of the group.
    pub inboxes: &'a P::Inboxes,
    /// The thread's `transactional.id`.
    pub owner: &'a str,
}

impl<P: Platform> Takeover<'_, P> {
    /// Restores a task's state and says where it goes on. `fenced` is the footer whose owner was fenced
    /// for this task by an earlier try.
    ///
    /// # Errors
    /// [`Stopped`] when an operator must decide; any other is worth another try.
    pub fn take(&self, task: TaskId, fenced: &mut Option<i64>) -> Result<(P::Store, Start)> {
        let log = changelog(task);
        // First, since it can still belong to another thread of this process: then nobody is fenced.
        let store = self.platform.store(task)?;
        let footer = self.settled_footer(task, fenced)?;
        let positions = self.positions(task, footer.as_ref().map(|(_, f)| f))?;
        let bounds = self.logs.bounds(&log)?;
        make_usable(self.platform, task, &store, footer.as_ref().map(|(_, f)| f), bounds)?;
        let owner = self.owner.to_string();
        let Some(footer) = footer else {
            let start = Start {
                term: 0,
                sequence: 0,
                positions,
                now: Millis(0),
                store_id: self.platform.store_id(),
                owner,
                repairs: vec![],
            };
            return Ok((store, start));
        };
        let repairs = if planted!(StoreTrusted) && store.meta()?.is_some() {
            vec![]
        } else {
            restore(self.platform, self.logs, &log, &store, &footer)?
        };
        let Footer { term, sequence, now, store_id, .. } = footer.1;
        let start = Start { term, sequence, positions, now, store_id, owner, repairs };
        Ok((store, start))
    }

    /// The last footer, its owner fenced unless it released the task, and nothing open behind it.
    ///
    /// # Errors
    /// When there is a newer one by then: of a batch that had been begun, or of an owner who has not heard
    /// yet that it is none. To be tried again, when the group has been heard.
    fn settled_footer(
        &self,
        task: TaskId,
        fenced: &mut Option<i64>,
    ) -> Result<Option<(i64, Footer)>> {
        let log = changelog(task);
        let found = last_footer(self.logs, &log)?;
        if let Some((offset, footer)) = &found
            && !footer.released
            && footer.owner != self.owner
            && *fenced != Some(*offset)
            && !planted!(OpenTransactionsIgnored)
        {
            self.platform.observe(Observed::Fencing(task, &footer.owner));
            self.platform.producer(&footer.owner)?;
            *fenced = Some(*offset);
        }
        self.wait_until_stable(&log)?;
        let newest = last_footer(self.logs, &log)?;
        let at = |footer: &Option<(i64, Footer)>| footer.as_ref().map(|(offset, _)| *offset);
        ensure!(at(&newest) == at(&found), "{log} was written to meanwhile");
        Ok(newest)
    }

    fn wait_until_stable(&self, log: &Changelog) -> Result<()> {
        let end = self.logs.uncommitted_end(log)?;
        let began = self.platform.elapsed();
        loop {
            let (_, stable) = self.logs.bounds(log)?;
            if stable >= end || planted!(OpenTransactionsIgnored) {
                return Ok(());
            }
            ensure!(
                self.platform.elapsed() - began < OPEN_TRANSACTION,
                "{log} has an open transaction at {stable}"
            );
            self.platform.sleep(Duration::from_millis(50));
        }
    }

    fn positions(&self, task: TaskId, footer: Option<&Footer>) -> Result<BTreeMap<String, i64>> {
        let mut positions = BTreeMap::new();
        for inbox in task.processor.inboxes() {
            let log = Changelog { topic: inbox.to_string(), partition: task.partition };
            let (start, _) = self.logs.bounds(&log)?;
            let position = match footer.map(|footer| footer.positions.get(inbox)) {
                Some(Some(_)) if planted!(FooterIgnored) => start,
                Some(Some(position)) => *position,
                // A processor that gained an inbox reads it from its start.
                Some(None) => start,
                None if self.inboxes.committed(inbox, task.partition)?.is_some() => {
                    bail!(self.offsets_without_footer(task)?)
                }
                None => start,
            };
            if position < start {
                bail!(Stopped(format!(
                    "{log} begins at {start}, behind position {position}: records lost"
                )));
            }
            positions.insert(inbox.to_string(), position);
        }
        Ok(positions)
    }

    /// Offsets but no footer: the changelog is lost, or somebody began after the footer was looked
    /// for; then whoever of the two is no longer of the group finds that out when it commits.
    fn offsets_without_footer(&self, task: TaskId) -> Result<Error> {
        let log = changelog(task);
        self.wait_until_stable(&log)?;
        Ok(match last_footer(self.logs, &log)? {
            Some(_) => anyhow!("{task} was taken over by somebody else meanwhile"),
            None => anyhow!(Stopped(format!(
                "{task} has committed offsets but no changelog: its state is lost"
            ))),
        })
    }
}

/// The changelog of a task.
pub(crate) fn changelog(task: TaskId) -> Changelog {
    Changelog { topic: topics::changelog(task.processor.name), partition: task.partition }
}
