//! A stream thread on Kafka and RocksDB: the platform that the algorithm in `stream` runs on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use events::{Codec, Millis};
use machines::topology::Processor;
use machines::{Call, PaymentCall, TaskId};
use stream::warm::{all_tasks, warm_up};
use stream::{CommitRule, Learned, Live, Observed, Platform, Stopped, StreamThread};
use tokio::runtime::Handle;
use wire::config::Registry;
use wire::registry::LearnError;

use crate::calls::{Calls, now};
use crate::changelog::Reader;
use crate::commit::TransactionalProducer;
use crate::config::Commit;
use crate::inbox::{GroupInboxes, Member};
use crate::observe::observe;
use crate::payments::Payments;
use crate::store::{RocksStore, Stores};

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
    /// Calls to payment providers.
    pub payments: Payments,
    /// Set to stop.
    pub stop: Arc<AtomicBool>,
    /// Which of the process' threads this is, and how many there are: the share of the stores that it
    /// brings forward before joining the group.
    pub share: (usize, usize),
    /// Where the process' threads wait for each other before they join.
    pub warmed: Arc<Barrier>,
    /// Set by the thread once it serves what it was assigned.
    pub ready: Arc<AtomicBool>,
}

/// Runs a stream thread until it is told to stop.
///
/// # Errors
/// Only what an operator must decide; Kafka may be down, at the start too.
pub fn run(setup: Setup) -> Result<()> {
    let Setup { member, processors, codec, partitions, commit, .. } = setup;
    let algorithm = stream::Setup {
        transactional_id: format!("{}.{}", member.group, member.instance),
        processors,
        codec,
        partitions,
        commit: CommitRule {
            idle: Duration::from_millis(commit.idle_ms),
            most: Duration::from_millis(commit.max_ms),
            max_bytes: commit.max_bytes,
            idle_positions: IDLE_POSITIONS,
        },
    };
    let platform = KafkaPlatform {
        member,
        stores: setup.stores,
        registry: setup.registry,
        runtime: setup.runtime,
        calls: setup.calls,
        payments: setup.payments,
        stop: setup.stop,
        ready: setup.ready,
        started: Instant::now(),
    };
    let warm = all_tasks(&algorithm.processors, partitions).into_iter().enumerate();
    let (number, threads) = setup.share;
    let share: Vec<_> =
        warm.filter_map(|(n, task)| (n % threads == number).then_some(task)).collect();
    // A thread that joined would be given tasks whose stores others still have open.
    let arrive = Arrive(setup.warmed);
    if let Err(error) = warm_up(&platform, &share) {
        tracing::warn!(error = format!("{error:#}"), "stores not brought forward");
    }
    drop(arrive);
    loop {
        match StreamThread::start(platform.clone(), algorithm.clone()) {
            Ok(thread) => return thread.run(),
            Err(_) if platform.stopping() => return Ok(()),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "not started yet: tried again");
                std::thread::sleep(START_RETRY);
            }
        }
    }
}

/// Waits for the other threads when it is dropped, by a panic too: nobody waits for a thread that died.
struct Arrive(Arc<Barrier>);

impl Drop for Arrive {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// How often positions of idle inboxes are moved past markers; inboxes are kept for 7 days.
const IDLE_POSITIONS: Duration = Duration::from_secs(60 * 60);

/// Between tries to start.
const START_RETRY: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct KafkaPlatform {
    member: Member,
    stores: Stores,
    registry: Registry,
    runtime: Handle,
    calls: Calls,
    payments: Payments,
    stop: Arc<AtomicBool>,
    ready: Arc<AtomicBool>,
    started: Instant,
}

impl Platform for KafkaPlatform {
    type Producer = TransactionalProducer;
    type Inboxes = GroupInboxes;
    type Changelogs = Reader;
    type Store = RocksStore;

    fn producer(&self, transactional_id: &str) -> Result<TransactionalProducer> {
        TransactionalProducer::connect(&self.member, transactional_id)
    }

    fn inboxes(&self, processors: &[Processor]) -> Result<GroupInboxes> {
        GroupInboxes::join(&self.member, processors)
    }

    fn changelogs(&self) -> Result<Reader> {
        Reader::connect(&self.member)
    }

    fn store(&self, task: TaskId) -> Result<RocksStore> {
        self.stores.open(&task.to_string())
    }

    fn store_id(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn learn(&self, codec: &mut Codec, schema_id: u32) -> Result<Learned> {
        let learned = wire::registry::learn(codec, &self.registry, schema_id);
        match self.runtime.block_on(learned) {
            Ok(()) => Ok(Learned::Known),
            Err(error @ LearnError::NeverRegistered(_)) => {
                Ok(Learned::NeverRegistered(error.to_string()))
            }
            // A type that this version does not know: consumers are deployed first.
            Err(error @ LearnError::Unusable { .. }) => bail!(Stopped(error.to_string())),
            Err(error @ LearnError::Unavailable { .. }) => Err(error.into()),
        }
    }

    fn call(&self, call: Call, live: &Live) {
        self.calls.make(call, live.clone());
    }

    fn pay(&self, call: PaymentCall, live: &Live) {
        self.payments.make(call, live.clone());
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn wall(&self) -> Millis {
        now()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn observe(&self, observed: Observed<'_>) {
        match observed {
            Observed::Ready => self.ready.store(true, Ordering::Release),
            Observed::Redone(..) => self.ready.store(false, Ordering::Release),
            _ => {}
        }
        observe(&observed);
    }
}
