//! A stream thread: its tasks, its one transactional producer, and when to commit.
//!
//! All tasks of a thread commit together. While one batch is being committed, the next is processed
//! into its own overlay. After anything but a clean commit the producer and all overlays are dropped
//! and the tasks taken over again from their changelogs: there is one path for every failure.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use events::{Codec, Millis};
use machines::footer::Run;
use machines::table::Backing;
use machines::topology::Processor;
use machines::{Source, Task, TaskId, Transaction};
use rdkafka::Timestamp;
use rdkafka::message::{BorrowedMessage, Message};
use tokio::runtime::Handle;
use wire::config::Registry;
use wire::registry::LearnError;
use wire::telemetry::{INVARIANT_VIOLATIONS, RECORDS_PROCESSED, RECORDS_REJECTED, TRANSACTIONS};

use crate::calls::{Calls, now};
use crate::commit::{Committed, Committer};
use crate::config::Commit;
use crate::inbox::{Inboxes, Member, Rebalance, STOP};
use crate::store::{Store, Stores};
use crate::takeover::{Takeover, meta};

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
/// Wait between recoveries: doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a stream thread needs.
pub struct Setup {
    /// Who it is to the group.
    pub member: Member,
    /// Processors to serve.
    pub processors: Vec<Processor>,
    /// State stores.
    pub stores: Stores,
    /// Schema ids.
    pub codec: Codec,
    /// Where to learn more of them.
    pub registry: Registry,
    /// For the few calls that are async.
    pub runtime: Handle,
    /// Partitions of every topic.
    pub partitions: i32,
    /// When to commit.
    pub commit: Commit,
    /// Calls to couriers.
    pub calls: Calls,
    /// Set to stop.
    pub stop: Arc<AtomicBool>,
    /// Set by the thread once it serves what it was assigned.
    pub ready: Arc<AtomicBool>,
}

struct Running {
    task: Task,
    store: Store,
    /// False once the task has moved on: its calls must not leave any more.
    live: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.live.store(false, Ordering::Release);
    }
}

type Key = (&'static str, i32);

/// A stream thread.
pub struct StreamThread {
    setup: Setup,
    inboxes: Inboxes,
    takeover: Takeover,
    committer: Committer,
    /// What the group assigned, whether it is running or not.
    assigned: Vec<TaskId>,
    /// Whose inboxes are being read.
    reading: Vec<TaskId>,
    tasks: BTreeMap<Key, Running>,
    last_commit: Instant,
    last_tick: Instant,
    last_touch: Instant,
}

fn key(task: TaskId) -> Key {
    (task.processor.name, task.partition)
}

impl StreamThread {
    /// Connects and joins the group.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn start(setup: Setup) -> Result<Self> {
        let committer = Committer::connect(&setup.member)?;
        let takeover = Takeover::connect(&setup.member, setup.stores.clone())?;
        let inboxes = Inboxes::join(&setup.member, &setup.processors)?;
        let now = Instant::now();
        Ok(Self {
            setup,
            inboxes,
            takeover,
            committer,
            assigned: vec![],
            reading: vec![],
            tasks: BTreeMap::new(),
            last_commit: now,
            last_tick: now,
            last_touch: now,
        })
    }

    /// Runs until told to stop, then hands everything over.
    ///
    /// # Errors
    /// Only what an operator must decide; everything else is recovered from.
    pub fn run(mut self) -> Result<()> {
        while !self.setup.stop.load(Ordering::Acquire) {
            if let Err(error) = self.turn() {
                self.recover(error)?;
            }
        }
        self.leave()
    }

    fn turn(&mut self) -> Result<()> {
        self.rebalance()?;
        let mut worked = 0;
        if self.staged_bytes() < self.setup.commit.max_bytes {
            worked += self.take(Inbox::Outcomes, OUTCOMES_PER_TURN)?;
            worked += self.take(Inbox::Commands, COMMANDS_PER_TURN)?;
        } else {
            // The group must still hear from us while a commit is waited for.
            worked += self.take(Inbox::Commands, 0)?;
        }
        self.tick();
        if let Some(committed) = self.committer.progress(&self.inboxes)? {
            self.apply(committed)?;
        }
        if !self.committer.busy() && self.due(worked == 0) {
            let transactions = self.seal(&[]);
            self.committer.begin(transactions)?;
            self.last_commit = Instant::now();
        }
        if worked == 0 {
            std::thread::sleep(IDLE);
        }
        Ok(())
    }

    fn due(&self, idle: bool) -> bool {
        if !self.tasks.values().any(|running| running.task.has_work()) {
            return false;
        }
        let rule = self.setup.commit;
        let since = self.last_commit.elapsed();
        (idle && since >= Duration::from_millis(rule.idle_ms))
            || since >= Duration::from_millis(rule.max_ms)
            || self.staged_bytes() >= rule.max_bytes
    }

    fn staged_bytes(&self) -> usize {
        self.tasks.values().map(|running| running.task.staged_bytes()).sum()
    }

    /// Processes up to `most` records at hand.
    fn take(&mut self, inbox: Inbox, most: usize) -> Result<usize> {
        let Self { inboxes, tasks, setup, .. } = self;
        for taken in 0..most.max(1) {
            let message = match inbox {
                Inbox::Outcomes => inboxes.outcome()?,
                Inbox::Commands => inboxes.command()?,
            };
            let Some(message) = message else { return Ok(taken) };
            process(&message, tasks, setup)?;
        }
        Ok(most)
    }

    fn tick(&mut self) {
        if self.last_tick.elapsed() < TICK {
            return;
        }
        self.last_tick = Instant::now();
        let wall = now();
        for running in self.tasks.values_mut() {
            running.task.tick(wall);
        }
        if self.last_touch.elapsed() >= TOUCH {
            self.last_touch = Instant::now();
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

    /// After the commit: the stores follow the log, then calls leave.
    fn apply(&mut self, committed: Vec<Committed>) -> Result<()> {
        for Committed { transaction, position } in committed {
            let Some(running) = self.tasks.get_mut(&key(transaction.task)) else { continue };
            let Transaction { footer, writes, fired, calls, violations, rejected, .. } =
                transaction;
            for run in &footer.runs {
                if let Run::Read(topic, from, to) = run {
                    let read = u64::try_from(to - from).unwrap_or_default();
                    RECORDS_PROCESSED.with_label_values(&[topic]).inc_by(read);
                }
            }
            for rejected in rejected {
                let (topic, stage) = (rejected.source.topic, rejected.stage);
                RECORDS_REJECTED.with_label_values(&[topic, stage]).inc();
                let (offset, reason) = (rejected.source.offset, rejected.reason);
                tracing::warn!(topic, offset, stage, reason, "record sent to the dead letters");
            }
            for violation in violations {
                INVARIANT_VIOLATIONS.with_label_values(&[violation.invariant]).inc();
                tracing::error!(
                    invariant = violation.invariant,
                    detail = violation.detail,
                    "invariant violated"
                );
            }
            running.store.apply(&writes, &fired, &meta(position, footer))?;
            running.task.committed();
            for call in calls {
                self.setup.calls.make(call, running.live.clone());
            }
        }
        Ok(())
    }

    /// Waits for the commit under way, then commits everything staged.
    fn commit_all(&mut self, released: &[TaskId]) -> Result<()> {
        let committed = self.committer.complete(&self.inboxes)?;
        self.apply(committed)?;
        let transactions = self.seal(released);
        if transactions.is_empty() {
            return Ok(());
        }
        self.committer.begin(transactions)?;
        let committed = self.committer.complete(&self.inboxes)?;
        self.last_commit = Instant::now();
        self.apply(committed)
    }

    fn rebalance(&mut self) -> Result<()> {
        for change in self.inboxes.rebalances() {
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

    /// Hands tasks over: commits with their `released` footers, closes, lets the group go on.
    fn revoke(&mut self, gone: &[TaskId]) -> Result<()> {
        self.assigned.retain(|task| !gone.contains(task));
        let committed = self.commit_all(gone);
        for task in gone {
            self.tasks.remove(&key(*task));
        }
        self.inboxes.unassign(self.reading.iter().filter(|task| gone.contains(task)).copied())?;
        self.reading.retain(|task| !gone.contains(task));
        tracing::info!(tasks = %names(gone), "tasks handed over");
        committed
    }

    /// Takes tasks over and starts reading their inboxes.
    fn open(&mut self, new: &[TaskId]) -> Result<()> {
        let began = Instant::now();
        let committed = self.committer.complete(&self.inboxes)?;
        self.apply(committed)?;
        for task in new {
            let (store, start) = self
                .takeover
                .take(*task, &self.inboxes)
                .with_context(|| format!("taking over {task}"))?;
            let backing: Rc<dyn Backing> = Rc::new(store.clone());
            let (codec, partitions) = (self.setup.codec.clone(), self.setup.partitions);
            let task = Task::new(*task, backing, codec, partitions, start);
            let live = Arc::new(AtomicBool::new(true));
            self.tasks.insert(key(task.id()), Running { task, store, live });
        }
        // From here on the log names us.
        self.commit_all(&[])?;
        let Self { inboxes, tasks, .. } = self;
        let opened = new.iter().filter_map(|id| tasks.get(&key(*id)).map(|r| (*id, r)));
        inboxes.assign(opened.map(|(id, running)| (id, running.task.positions())))?;
        self.reading.extend(new);
        if !new.is_empty() {
            let took_ms = began.elapsed().as_millis();
            tracing::info!(tasks = %names(new), took_ms, "tasks taken over");
        }
        self.setup.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Drops everything that is not committed and takes all tasks over again.
    fn recover(&mut self, error: anyhow::Error) -> Result<()> {
        let mut error = error;
        let mut wait = BACKOFF.0;
        loop {
            if error.chain().any(|cause| cause.to_string().starts_with(STOP)) {
                return Err(error);
            }
            TRANSACTIONS.with_label_values(&["redone"]).inc();
            tracing::warn!(error = format!("{error:#}"), "batch dropped, tasks restored");
            self.tasks.clear();
            if !self.reading.is_empty() {
                self.inboxes.unassign(self.reading.drain(..))?;
            }
            if self.setup.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(BACKOFF.1);
            match self.restart() {
                Ok(()) => return Ok(()),
                Err(next) => error = next,
            }
        }
    }

    fn restart(&mut self) -> Result<()> {
        self.committer = Committer::connect(&self.setup.member)?;
        // Serves the group, whose changes since the failure come first.
        let pending = self.inboxes.command()?.is_some();
        debug_assert!(!pending, "nothing is assigned");
        let assigned = self.assigned.clone();
        self.open(&assigned)?;
        self.rebalance()
    }

    /// Commits, releases every task and leaves the group.
    fn leave(mut self) -> Result<()> {
        let mine: Vec<TaskId> = self.assigned.clone();
        self.commit_all(&mine)?;
        self.tasks.clear();
        self.inboxes.unsubscribe();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            let _ = self.inboxes.command()?;
            for change in self.inboxes.rebalances() {
                if let Rebalance::Revoked(partitions) = change {
                    self.inboxes.unassign(task_ids(&partitions).into_iter())?;
                    return Ok(());
                }
            }
            std::thread::sleep(IDLE);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Inbox {
    Outcomes,
    Commands,
}

fn process(
    message: &BorrowedMessage<'_>,
    tasks: &mut BTreeMap<Key, Running>,
    setup: &mut Setup,
) -> Result<()> {
    let topic = message.topic();
    let processor = setup.processors.iter().find(|p| p.inboxes().any(|inbox| inbox == topic));
    let Some(processor) = processor else { return Ok(()) };
    let Some(running) = tasks.get_mut(&(processor.name, message.partition())) else {
        return Ok(());
    };
    let inbox = processor.inboxes().find(|inbox| *inbox == topic).context("found above")?;
    let appended_at = match message.timestamp() {
        Timestamp::LogAppendTime(at) | Timestamp::CreateTime(at) => Millis(at),
        Timestamp::NotAvailable => Millis(0),
    };
    let (partition, offset) = (message.partition(), message.offset());
    let source = Source { topic: inbox, partition, offset, appended_at };
    while let Err(id) = running.task.process(source, message.key(), message.payload()) {
        let learned = wire::registry::learn(&mut setup.codec, &setup.registry, id);
        match setup.runtime.block_on(learned) {
            Ok(()) => running.task.learn(setup.codec.clone()),
            Err(error @ LearnError::NeverRegistered(_)) => {
                let (key, value) = (message.key(), message.payload());
                running.task.reject(source, key, value, error.to_string());
                break;
            }
            // A type that this version does not know: consumers are deployed first.
            Err(error @ LearnError::Unusable { .. }) => {
                return Err(error).with_context(|| format!("{STOP}: {inbox} {offset}"));
            }
            Err(error @ LearnError::Unavailable { .. }) => return Err(error.into()),
        }
    }
    Ok(())
}

fn task_ids(partitions: &[(String, i32)]) -> Vec<TaskId> {
    let id = |(topic, partition): &(String, i32)| {
        let processor = Processor::by_commands(topic)?;
        Some(TaskId { processor, partition: *partition })
    };
    partitions.iter().filter_map(id).collect()
}

fn names(tasks: &[TaskId]) -> String {
    tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
