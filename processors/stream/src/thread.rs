//! A stream thread: its tasks, its one transactional producer, and when to commit.
//!
//! All tasks of a thread commit together. While one batch is being committed, the next is processed
//! into its own overlay. After anything but a clean commit the producer and all overlays are dropped
//! and the tasks taken over again from their changelogs: there is one path for every failure.

mod handover;
mod idle;
mod postponed;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use events::Codec;
use machines::task::Arrived;
use machines::topology::Processor;
use machines::{Source, Task, TaskId, Transaction, planted};

use crate::commit::{Committed, Committer};
use crate::io::{Inbox, Inboxes, Incoming, Learned, Live, Meta, Platform, Rebalance, Store};
use crate::observe::Observed;

use handover::PAUSE;
use idle::Idle;
use postponed::Postponed;

/// Outcome records taken before the thread looks at its commit again.
const OUTCOMES_PER_TURN: usize = 1_000;
/// Command records taken before outcomes are looked at again.
const COMMANDS_PER_TURN: usize = 200;
/// Sleep of a thread with nothing to do.
const IDLE: Duration = Duration::from_millis(1);
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often open stores are touched.
const TOUCH: Duration = Duration::from_secs(30);

/// When to commit.
#[derive(Debug, Clone, Copy)]
pub struct CommitRule {
    /// With empty inboxes, this long after the last commit.
    pub idle: Duration,
    /// Under load, this long after the last commit.
    pub most: Duration,
    /// At this many staged bytes.
    pub max_bytes: usize,
    /// How often the positions of idle inboxes are moved past transaction markers: well below the time
    /// for which inboxes are kept.
    pub idle_positions: Duration,
}

/// What a stream thread needs besides its platform.
#[derive(Clone)]
pub struct Setup {
    /// Its `transactional.id`: the same after a restart.
    pub transactional_id: String,
    /// Processors to serve.
    pub processors: Vec<Processor>,
    /// Schema ids.
    pub codec: Codec,
    /// Partitions of every topic.
    pub partitions: i32,
    /// When to commit.
    pub commit: CommitRule,
}

struct Running<S> {
    task: Task,
    store: S,
    /// False once the task has moved on: its calls must not leave any more.
    live: Live,
}

impl<S> Drop for Running<S> {
    fn drop(&mut self) {
        self.live.store(false, Ordering::Release);
    }
}

type Key = (&'static str, i32);
type Tasks<P> = BTreeMap<Key, Running<<P as Platform>::Store>>;

/// A stream thread.
pub struct StreamThread<P: Platform> {
    platform: P,
    setup: Setup,
    inboxes: P::Inboxes,
    logs: P::Changelogs,
    committer: Committer<P>,
    /// What the group changed and nobody acted on yet.
    changes: VecDeque<Rebalance>,
    /// What the group assigned, whether it is running or not.
    assigned: Vec<TaskId>,
    /// Whose inboxes are being read.
    reading: Vec<TaskId>,
    /// Assigned, but not to be taken over yet.
    postponed: Postponed,
    tasks: Tasks<P>,
    joined: Duration,
    /// Memberships in a row that were over soon.
    short_lives: u32,
    /// Before tasks are taken over again after the next failure.
    pause: Duration,
    last_commit: Duration,
    last_tick: Duration,
    last_touch: Duration,
    idle: Idle,
}

fn key(task: TaskId) -> Key {
    (task.processor.name, task.partition)
}

impl<P: Platform> StreamThread<P> {
    /// Connects and joins the group.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn start(platform: P, setup: Setup) -> Result<Self> {
        let committer = Committer::connect(&platform, &setup.transactional_id)?;
        let logs = platform.changelogs()?;
        let inboxes = platform.inboxes(&setup.processors)?;
        let now = platform.elapsed();
        Ok(Self {
            platform,
            setup,
            inboxes,
            logs,
            committer,
            changes: VecDeque::new(),
            assigned: vec![],
            reading: vec![],
            postponed: Postponed::default(),
            tasks: BTreeMap::new(),
            joined: now,
            short_lives: 0,
            pause: PAUSE.0,
            last_commit: now,
            last_tick: now,
            last_touch: now,
            idle: Idle::since(now),
        })
    }

    /// Runs until told to stop, then hands everything over.
    ///
    /// # Errors
    /// Only what an operator must decide; everything else is recovered from.
    pub fn run(mut self) -> Result<()> {
        while !self.platform.stopping() {
            if let Err(error) = self.turn() {
                self.recover(error)?;
            }
        }
        self.leave()
    }

    fn turn(&mut self) -> Result<()> {
        self.rebalance()?;
        self.retry()?;
        let mut worked = 0;
        if self.staged_bytes() < self.setup.commit.max_bytes {
            worked += self.take(Inbox::Outcomes, OUTCOMES_PER_TURN)?;
            worked += self.take(Inbox::Commands, COMMANDS_PER_TURN)?;
        } else {
            // The group must still hear from us while a commit is waited for.
            worked += self.take(Inbox::Commands, 0)?;
        }
        self.tick();
        self.pass_markers()?;
        // A generation that began meanwhile would refuse the batch under way.
        self.hear();
        if let Some(committed) = self.committer.progress(&self.platform, &self.inboxes)? {
            self.apply(committed)?;
        }
        if !self.committer.busy() && self.due(worked == 0) {
            let transactions = self.seal(&[]);
            self.write_early(&transactions)?;
            self.committer.begin(&self.platform, transactions)?;
            self.last_commit = self.platform.elapsed();
        }
        if worked == 0 {
            self.platform.sleep(IDLE);
        }
        Ok(())
    }

    fn due(&self, idle: bool) -> bool {
        if !self.tasks.values().any(|running| running.task.has_work()) {
            return false;
        }
        let rule = self.setup.commit;
        let since = self.platform.elapsed() - self.last_commit;
        (idle && since >= rule.idle) || since >= rule.most || self.staged_bytes() >= rule.max_bytes
    }

    fn staged_bytes(&self) -> usize {
        self.tasks.values().map(|running| running.task.staged_bytes()).sum()
    }

    /// Processes up to `most` records at hand.
    fn take(&mut self, inbox: Inbox, most: usize) -> Result<usize> {
        let Self { platform, inboxes, tasks, setup, .. } = self;
        for taken in 0..most.max(1) {
            if !inboxes.next(inbox, |record| process(record, tasks, setup, platform))? {
                return Ok(taken);
            }
        }
        Ok(most)
    }

    fn tick(&mut self) {
        let now = self.platform.elapsed();
        if now - self.last_tick < TICK {
            return;
        }
        self.last_tick = now;
        let wall = self.platform.wall();
        for running in self.tasks.values_mut() {
            running.task.tick(wall);
        }
        if now - self.last_touch >= TOUCH {
            self.last_touch = now;
            self.tasks.values().for_each(|running| running.store.touch());
        }
    }

    fn seal(&mut self, released: &[TaskId]) -> Vec<Transaction> {
        let mut transactions = Vec::new();
        for running in self.tasks.values_mut() {
            let release = released.contains(&running.task.id());
            if release || running.task.has_work() {
                transactions.push(running.task.seal(release));
            }
        }
        transactions
    }

    /// Nothing is written before the commit, unless a bug is planted.
    fn write_early(&self, transactions: &[Transaction]) -> Result<()> {
        let (early, timers) = (planted!(StoreBeforeCommit), planted!(TimerForgotten));
        if early || timers {
            for transaction in transactions {
                let Some(running) = self.tasks.get(&key(transaction.task)) else { continue };
                let Some(mut meta) = running.store.meta()? else { continue };
                let mut writes = &[][..];
                if early {
                    meta.footer = transaction.footer.clone();
                    writes = &transaction.writes;
                }
                running.store.apply(writes, &transaction.fired, &meta)?;
            }
        }
        Ok(())
    }

    /// After the commit: the stores follow the log, then calls leave.
    fn apply(&mut self, committed: Vec<Committed>) -> Result<()> {
        if !committed.is_empty() {
            self.pause = PAUSE.0;
        }
        for Committed { mut transaction, position } in committed {
            let Some(running) = self.tasks.get_mut(&key(transaction.task)) else { continue };
            let footer = transaction.footer.clone();
            let term = footer.term;
            let meta = Meta { position, footer, term, restoring: false };
            running.store.apply(&transaction.writes, &transaction.fired, &meta)?;
            running.task.committed();
            self.platform.observe(Observed::Applied(&transaction));
            for call in transaction.calls.drain(..) {
                self.platform.call(call, &running.live);
            }
            for call in transaction.payments.drain(..) {
                self.platform.pay(call, &running.live);
            }
        }
        Ok(())
    }

    /// Waits for the commit under way, then commits everything staged.
    fn commit_all(&mut self, released: &[TaskId]) -> Result<()> {
        let committed = self.committer.complete(&self.platform, &self.inboxes)?;
        self.apply(committed)?;
        let transactions = self.seal(released);
        if transactions.is_empty() {
            return Ok(());
        }
        self.committer.begin(&self.platform, transactions)?;
        let committed = self.committer.complete(&self.platform, &self.inboxes)?;
        self.last_commit = self.platform.elapsed();
        self.apply(committed)
    }
}

fn process<P: Platform>(
    record: Incoming<'_>,
    tasks: &mut Tasks<P>,
    setup: &mut Setup,
    platform: &P,
) -> Result<()> {
    let Incoming { topic, partition, offset, appended_at, key, value, headers } = record;
    let processor = setup.processors.iter().find(|p| p.inboxes().any(|inbox| inbox == topic));
    let Some(processor) = processor else { return Ok(()) };
    let Some(running) = tasks.get_mut(&(processor.name, partition)) else { return Ok(()) };
    let inbox = processor.inboxes().find(|inbox| *inbox == topic).context("found above")?;
    let source = Source { topic: inbox, partition, offset, appended_at };
    let arrived = Arrived { source, key, value, headers };
    while let Err(id) = running.task.process(arrived) {
        let learned = platform.learn(&mut setup.codec, id);
        match learned.with_context(|| format!("schema of {inbox} {offset}"))? {
            Learned::Known => running.task.learn(setup.codec.clone()),
            Learned::NeverRegistered(reason) => {
                running.task.reject(arrived, reason);
                break;
            }
        }
    }
    Ok(())
}

/// A handle by which a task's calls learn that it has moved on.
fn live() -> Live {
    Arc::new(true.into())
}
