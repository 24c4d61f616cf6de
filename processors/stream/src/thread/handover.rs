//! Tasks come and go: rebalances, recovery after a failure, leaving the group.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use machines::table::Backing;
use machines::topology::Processor;
use machines::{Task, TaskId, planted};

use super::{IDLE, Running, StreamThread, key, live};
use crate::commit::Committer;
use crate::io::{Inbox, Inboxes, Platform, Rebalance, ShutOut, Stopped};
use crate::observe::Observed;
use crate::takeover::Takeover;

/// Pause before tasks are taken over again: doubles from the first to the last until a batch is committed.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A membership that ends sooner than this, …
const SHORT_LIFE: Duration = Duration::from_secs(30);
/// … so often in a row, is contested by another process.
const SHORT_LIVES: u32 = 5;
/// Time for taking tasks over before the group and the running ones are looked after again.
const TAKEOVERS: Duration = Duration::from_secs(2);
/// Longest wait for the group when leaving it.
const LEAVE: Duration = Duration::from_secs(5);

impl<P: Platform> StreamThread<P> {
    pub(super) fn rebalance(&mut self) -> Result<()> {
        self.hear();
        // One by one: what a failure leaves is acted on by the recovery.
        while let Some(change) = self.changes.pop_front() {
            match change {
                Rebalance::Revoked(partitions) => self.revoke(&task_ids(&partitions))?,
                Rebalance::Assigned(partitions) => {
                    let new = task_ids(&partitions);
                    self.assigned.extend(&new);
                    self.open(&new)?;
                }
            }
        }
        Ok(())
    }

    /// Notes what the group has changed. From here on commits are made as the member that it was changed for.
    pub(super) fn hear(&mut self) {
        self.changes.extend(self.inboxes.rebalances());
    }

    /// Hands tasks over: commits with their `released` footers, closes, lets the group go on.
    fn revoke(&mut self, gone: &[TaskId]) -> Result<()> {
        self.assigned.retain(|task| !gone.contains(task));
        gone.iter().for_each(|task| self.postponed.forget(*task));
        let committed = self.commit_all(gone);
        for task in gone {
            self.tasks.remove(&key(*task));
        }
        self.inboxes.unassign(self.reading.iter().filter(|task| gone.contains(task)).copied())?;
        self.reading.retain(|task| !gone.contains(task));
        self.platform.observe(Observed::HandedOver(gone));
        committed
    }

    /// Takes tasks over and starts reading their inboxes; those that cannot be had are postponed.
    fn open(&mut self, new: &[TaskId]) -> Result<()> {
        let began = self.platform.elapsed();
        let committed = self.committer.complete(&self.platform, &self.inboxes)?;
        self.apply(committed)?;
        let mut opened = Vec::with_capacity(new.len());
        for task in new {
            let now = self.platform.elapsed();
            if now - began > TAKEOVERS {
                self.postponed.until(*task, now);
                continue;
            }
            match self.take_over(*task) {
                Ok(()) => opened.push(*task),
                Err(error) if error.chain().any(|cause| cause.is::<Stopped>()) => {
                    return Err(error);
                }
                Err(error) => {
                    self.platform.observe(Observed::NotTakenOver(*task, &error));
                    self.postponed.after_failure(*task, self.platform.elapsed());
                }
            }
        }
        // From here on the log names us.
        self.commit_all(&[])?;
        let Self { inboxes, tasks, .. } = self;
        let running = opened.iter().filter_map(|id| tasks.get(&key(*id)).map(|r| (*id, r)));
        inboxes.assign(running.map(|(id, running)| (id, running.task.positions())))?;
        opened.iter().for_each(|task| self.postponed.forget(*task));
        if !opened.is_empty() {
            let took = self.platform.elapsed() - began;
            self.platform.observe(Observed::TakenOver(&opened, took));
        }
        self.reading.extend(opened);
        if self.postponed.is_empty() {
            self.platform.observe(Observed::Ready);
        }
        Ok(())
    }

    fn take_over(&mut self, task: TaskId) -> Result<()> {
        let takeover = Takeover {
            platform: &self.platform,
            logs: &self.logs,
            inboxes: &self.inboxes,
            owner: &self.setup.transactional_id,
        };
        let fenced = self.postponed.fenced(task);
        let (store, start) =
            takeover.take(task, fenced).with_context(|| format!("taking over {task}"))?;
        let backing: Rc<dyn Backing> = Rc::new(store.clone());
        let (codec, partitions) = (self.setup.codec.clone(), self.setup.partitions);
        let task = Task::new(task, backing, codec, partitions, start);
        self.tasks.insert(key(task.id()), Running { task, store, live: live() });
        Ok(())
    }

    /// Tries the postponed tasks again whose time has come.
    pub(super) fn retry(&mut self) -> Result<()> {
        let due = self.postponed.due(self.platform.elapsed());
        if due.is_empty() { Ok(()) } else { self.open(&due) }
    }

    /// Drops everything that is not committed; all tasks are to be taken over again, when the group has
    /// been heard: taking over what was lost meanwhile would only disturb its new owner.
    pub(super) fn recover(&mut self, error: Error) -> Result<()> {
        let mut error = error;
        loop {
            if error.chain().any(|cause| cause.is::<Stopped>()) {
                return Err(error);
            }
            self.platform.observe(Observed::Redone(&self.running(), &error));
            let wait = self.pause;
            self.pause = (wait * 2).min(PAUSE.1);
            if planted!(OverlaysKept) && !self.tasks.is_empty() {
                self.platform.sleep(wait);
                self.inboxes.assign([].into_iter())?;
                self.committer = Committer::connect(&self.platform, &self.setup.transactional_id)?;
                return Ok(());
            }
            self.tasks.clear();
            self.postponed.clear();
            let free = if error.chain().any(|cause| cause.is::<ShutOut>()) {
                self.join_again()
            } else if self.reading.is_empty() {
                Ok(())
            } else {
                self.inboxes.unassign(self.reading.drain(..))
            };
            if self.platform.stopping() {
                return Ok(());
            }
            match free.and_then(|()| self.restart(wait)) {
                Ok(()) => return Ok(()),
                Err(next) => error = next,
            }
            self.platform.sleep(wait);
        }
    }

    fn running(&self) -> Vec<TaskId> {
        self.tasks.values().map(|running| running.task.id()).collect()
    }

    /// Takes a new place in the group, unless somebody contests it.
    fn join_again(&mut self) -> Result<()> {
        let now = self.platform.elapsed();
        let short = now - self.joined < SHORT_LIFE;
        self.short_lives = if short { self.short_lives + 1 } else { 0 };
        if self.short_lives == SHORT_LIVES {
            return Err(Stopped("another process has this instance id".into()).into());
        }
        self.inboxes = self.platform.inboxes(&self.setup.processors)?;
        self.joined = now;
        self.reading.clear();
        self.postponed.forget_all();
        self.assigned.clear();
        self.changes.clear();
        Ok(())
    }

    fn restart(&mut self, wait: Duration) -> Result<()> {
        // Who was thrown out hears of it only while it asks.
        let pending = self.inboxes.next(Inbox::Commands, |_| Ok(()))?;
        debug_assert!(!pending, "nothing is assigned");
        self.committer = Committer::connect(&self.platform, &self.setup.transactional_id)?;
        // The answer to an assignment whose takeover failed: until then the group keeps a member
        // that was thrown out waiting, and nobody hears of it.
        self.inboxes.assign([].into_iter())?;
        let at = self.platform.elapsed() + wait;
        self.assigned.iter().for_each(|task| self.postponed.until(*task, at));
        Ok(())
    }

    /// Commits, releases every task and leaves the group.
    pub(super) fn leave(mut self) -> Result<()> {
        self.hear();
        let mine: Vec<TaskId> = self.assigned.clone();
        if let Err(error) = self.commit_all(&mine) {
            // The next owner does it again; the group is left all the same.
            self.platform.observe(Observed::Redone(&self.running(), &error));
        }
        self.tasks.clear();
        self.inboxes.unsubscribe();
        let began = self.platform.elapsed();
        while self.platform.elapsed() - began < LEAVE {
            self.inboxes.next(Inbox::Commands, |_| Ok(()))?;
            for change in self.inboxes.rebalances() {
                if let Rebalance::Revoked(partitions) = change {
                    self.inboxes.unassign(task_ids(&partitions).into_iter())?;
                    return Ok(());
                }
            }
            self.platform.sleep(IDLE);
        }
        Ok(())
    }
}

fn task_ids(partitions: &[(String, i32)]) -> Vec<TaskId> {
    let id = |(topic, partition): &(String, i32)| {
        let processor = Processor::by_commands(topic)?;
        Some(TaskId { processor, partition: *partition })
    };
    partitions.iter().filter_map(id).collect()
}
