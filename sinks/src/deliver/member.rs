//! One static member of a sink's consumer group, on a thread of its own.
//!
//! The thread only polls the group. On an assignment it starts a worker per partition and tells the
//! group at once that it is content; the partition itself is fetched from when its worker has found
//! out where to start (its database may be down), at exactly that offset. On a revocation it stops
//! the workers, which finish the batch at hand, and gives the partitions back. A static member sends
//! no LeaveGroup when it is closed, so shutting down unsubscribes and polls until all is given back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use events::Codec;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{ClientConfig, ClientContext};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use wire::config::Registry;

use super::dead_letters::DeadLetters;
use super::health::{Health, Progress};
use super::intake::Intake;
use super::log::Log;
use super::positions::Positions;
use super::worker::{self, Task};
use super::{Place, Sink, now};

const POLL: Duration = Duration::from_millis(25);
/// How long a worker may take to finish its batch when its partition is revoked.
const FINISH: Duration = Duration::from_secs(5);
/// A membership that ends sooner than this, …
const SHORT_LIFE: Duration = Duration::from_secs(30);
/// … so often in a row, is contested by another process.
const SHORT_LIVES: u32 = 5;
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(10);
const LAG_INTERVAL: Duration = Duration::from_secs(5);
/// Fetched ahead per partition, KiB: with a worker that stands still, that is all it holds.
const FETCHED_AHEAD_KIB: &str = "8192";
/// A fetch is answered at once when there is this much.
const FETCH_BYTES: &str = "262144";
/// How long it waits for that, at most.
const LONGEST_FETCH: Duration = Duration::from_millis(500);

/// A consumer whose rebalances are noted, then handled by the thread that polls it.
pub(crate) type GroupConsumer = BaseConsumer<Context>;

/// What rebalances have brought since they were last handled.
#[derive(Default)]
pub(crate) struct Context {
    changes: Mutex<Vec<Change>>,
    closing: AtomicBool,
}

enum Change {
    Assigned(Vec<(String, i32)>),
    Revoked(Vec<(String, i32)>),
}

impl ClientContext for Context {}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let list = partitions.elements();
        let list = list.iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // Ends the rebalance: partitions join the assignment one by one, when they can start.
            if let Err(error) = consumer.incremental_assign(&TopicPartitionList::new()) {
                tracing::error!(%error, "an assignment could not be confirmed");
            }
            changes.push(Change::Assigned(list));
        } else if self.closing.load(Ordering::Relaxed) {
            let all = consumer.assignment().unwrap_or_else(|_| TopicPartitionList::new());
            let _ = consumer.incremental_unassign(&all);
        } else {
            changes.push(Change::Revoked(list));
        }
    }
}

/// What a member needs to know.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) brokers: String,
    pub(crate) registry: Registry,
    pub(crate) instance: String,
    pub(crate) codec: Codec,
}

/// A worker asks for the records of its partition from an offset on.
pub(crate) struct Start {
    pub(crate) place: Place,
    pub(crate) offset: i64,
    pub(crate) reply: oneshot::Sender<Intake>,
}

struct Running {
    stop: watch::Sender<bool>,
    join: JoinHandle<()>,
    progress: Arc<Progress>,
    /// Whether the partition is in the consumer's assignment.
    fetching: bool,
}

struct Member<S: Sink> {
    sink: Arc<S>,
    settings: Settings,
    health: Health,
    runtime: Handle,
    consumer: Arc<GroupConsumer>,
    dead_letters: DeadLetters,
    starts: (mpsc::Sender<Start>, mpsc::Receiver<Start>),
    running: BTreeMap<Place, Running>,
    positions: Positions,
}

/// How a membership ended.
enum End {
    /// In order.
    Left,
    /// Kafka gave its place to another client with its instance name. That may be another process; or
    /// itself, when a coordinator that failed or stalled never answered its request to join.
    ShutOut(RDKafkaErrorCode),
}

/// Is a member of the sink's group until `shutdown` says true; blocks its thread. Shut out by Kafka it
/// joins anew, unless that happens again and again.
///
/// # Errors
/// When the client cannot be made, or another process has the same instance name.
pub(crate) fn run<S: Sink>(
    sink: &Arc<S>,
    settings: &Settings,
    health: &Health,
    runtime: &Handle,
    shutdown: &watch::Receiver<bool>,
) -> Result<()> {
    let mut short_lives = 0;
    loop {
        let joined = Instant::now();
        let member = Member::join(sink.clone(), settings.clone(), health.clone(), runtime.clone())?;
        let End::ShutOut(code) = member.until(shutdown)? else { return Ok(()) };
        short_lives = if joined.elapsed() < SHORT_LIFE { short_lives + 1 } else { 0 };
        if short_lives == SHORT_LIVES {
            bail!(
                "kafka shuts this member out again and again ({code}): is `instance` used twice?"
            );
        }
        tracing::warn!(sink = sink.name(), %code, "shut out of the group: joining again");
        health.problem("group", "joining again");
    }
}

/// A fetch waits for a good part of a batch: answering each of a processor's many small commits
/// would cost the broker and us more than the records in them.
fn configuration(brokers: &str, client_id: &str, group: &str, interval: Duration) -> ClientConfig {
    let mut config = wire::client::group_consumer(brokers, client_id, group, client_id);
    let wait = (interval / 2).min(LONGEST_FETCH).as_millis();
    config
        .set("queued.max.messages.kbytes", FETCHED_AHEAD_KIB)
        .set("fetch.min.bytes", FETCH_BYTES)
        .set("fetch.wait.max.ms", wait.to_string());
    config
}

impl<S: Sink> Member<S> {
    fn join(sink: Arc<S>, settings: Settings, health: Health, runtime: Handle) -> Result<Self> {
        let name = sink.name();
        let client_id = format!("{}.{name}", settings.instance);
        let interval = sink.limits().interval;
        let config = configuration(&settings.brokers, &client_id, name, interval);
        let consumer: GroupConsumer = config.create_with_context(Context::default())?;
        let topics: Vec<&str> = sink.topics().iter().map(|t| t.name).collect();
        consumer.subscribe(&topics)?;
        let dead_letters = DeadLetters::new(&settings.brokers, &client_id, name);
        Ok(Self {
            sink,
            settings,
            health,
            runtime,
            consumer: Arc::new(consumer),
            dead_letters,
            starts: mpsc::channel(),
            running: BTreeMap::new(),
            positions: Positions::of(name),
        })
    }

    fn until(mut self, shutdown: &watch::Receiver<bool>) -> Result<End> {
        let lag = self.sample_lag();
        let end = self.serve(shutdown);
        lag.abort();
        self.stop_all();
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        end
    }

    fn serve(&mut self, shutdown: &watch::Receiver<bool>) -> Result<End> {
        let mut leaving: Option<Instant> = None;
        loop {
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(_)) => bail!("a record came past its partition's queue: a bug"),
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    return Ok(End::ShutOut(code));
                }
                Some(Err(error)) => {
                    tracing::warn!(sink = self.sink.name(), %error, "kafka is disturbed");
                }
            }
            let given_back = self.apply_changes()?;
            while let Ok(start) = self.starts.1.try_recv() {
                self.start(start)?;
            }
            if *shutdown.borrow() && leaving.is_none() {
                self.consumer.unsubscribe();
                leaving = Some(Instant::now());
            }
            if let Some(since) = leaving {
                // The last poll served the revocation; one that had nothing to revoke has none.
                let nothing = self.running.is_empty() && since.elapsed() > FINISH / 5;
                if given_back || nothing || since.elapsed() > LEAVE {
                    // Lets the request to leave go out.
                    let _ = self.consumer.poll(POLL * 4);
                    return Ok(End::Left);
                }
            }
        }
    }

    /// Handles what rebalances have brought; returns whether partitions were given back.
    fn apply_changes(&mut self) -> Result<bool> {
        let mut given_back = false;
        loop {
            let context = self.consumer.context();
            let changes = std::mem::take(
                &mut *context.changes.lock().unwrap_or_else(PoisonError::into_inner),
            );
            if changes.is_empty() {
                return Ok(given_back);
            }
            for change in changes {
                match change {
                    Change::Assigned(list) => {
                        self.health.solved("group");
                        for place in self.places(&list) {
                            self.launch(place);
                        }
                    }
                    Change::Revoked(list) => {
                        let places = self.places(&list);
                        self.give_back(&places)?;
                        given_back = true;
                    }
                }
            }
        }
    }

    fn places(&self, list: &[(String, i32)]) -> Vec<Place> {
        let topics = self.sink.topics();
        let find = |(name, partition): &(String, i32)| {
            let topic = topics.iter().find(|topic| topic.name == name)?;
            Some(Place { topic, partition: *partition })
        };
        list.iter().filter_map(find).collect()
    }

    fn launch(&mut self, place: Place) {
        tracing::info!(sink = self.sink.name(), %place, "assigned");
        let (stop, stopped) = watch::channel(false);
        let progress = Arc::new(Progress::assigned(now()));
        let task = Task {
            sink: self.sink.name(),
            place,
            log: Log::new(self.consumer.clone()),
            dead_letters: self.dead_letters.clone(),
            health: self.health.clone(),
            progress: progress.clone(),
            starts: self.starts.0.clone(),
            stop: stopped,
        };
        let join = self.runtime.spawn(worker::serve(self.sink.clone(), task));
        self.positions.insert(place, progress.clone());
        self.running.insert(place, Running { stop, join, progress, fetching: false });
    }

    /// A worker knows where to start: fetches from there, into a queue of its own.
    fn start(&mut self, start: Start) -> Result<()> {
        let Start { place, offset, reply } = start;
        let Some(running) = self.running.get_mut(&place) else {
            return Ok(());
        };
        // Before the assignment, or the first records would come to the member's own queue.
        let queue = self
            .consumer
            .split_partition_queue(place.topic.name, place.partition)
            .with_context(|| format!("{place} is no partition"))?;
        let Settings { codec, registry, .. } = &self.settings;
        let intake = Intake::new(place, queue, codec.clone(), registry.clone(), offset);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(place.topic.name, place.partition, Offset::Offset(offset))?;
        self.consumer.incremental_assign(&list).with_context(|| format!("assigning {place}"))?;
        running.fetching = true;
        running.progress.written(offset);
        let _ = reply.send(intake);
        Ok(())
    }

    fn give_back(&mut self, places: &[Place]) -> Result<()> {
        let mut stopping = Vec::new();
        for place in places {
            if let Some(running) = self.running.remove(place) {
                let _ = running.stop.send(true);
                stopping.push((*place, running));
            }
        }
        let deadline = Instant::now() + FINISH;
        let mut list = TopicPartitionList::new();
        for (place, running) in stopping {
            if running.fetching {
                list.add_partition(place.topic.name, place.partition);
            }
            self.finish(place, running, deadline);
        }
        self.consumer.incremental_unassign(&list).context("giving partitions back")
    }

    /// Compares each partition's position with the end of its log, now and then; by that it also
    /// finds out whether Kafka answers.
    fn sample_lag(&self) -> JoinHandle<()> {
        let (log, positions) = (Log::new(self.consumer.clone()), self.positions.clone());
        let health = self.health.clone();
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(LAG_INTERVAL).await;
                // Age needs no answer from Kafka, which may be what is down.
                positions.export_seconds(now());
                let places = positions.places();
                if places.is_empty() {
                    // Nothing waits for Kafka, and nobody asks whether it answers again.
                    health.solved("kafka");
                }
                for place in places {
                    let end = match log.bounds(place).await {
                        Ok((_, end)) => end,
                        Err(failure) => {
                            health.problem("kafka", &failure.reason);
                            break;
                        }
                    };
                    health.solved("kafka");
                    positions.export_records(place, end);
                }
            }
        })
    }

    fn stop_all(&mut self) {
        for running in self.running.values() {
            let _ = running.stop.send(true);
        }
        let deadline = Instant::now() + FINISH;
        for (place, running) in std::mem::take(&mut self.running) {
            self.finish(place, running, deadline);
        }
    }

    /// Waits for a worker that was told to stop; ends it at the deadline. What it was writing then
    /// is either whole or not there: its next owner finds out.
    fn finish(&self, place: Place, running: Running, deadline: Instant) {
        let Running { mut join, .. } = running;
        let left = deadline.saturating_duration_since(Instant::now());
        self.runtime.block_on(async {
            if tokio::time::timeout(left, &mut join).await.is_err() {
                tracing::warn!(sink = self.sink.name(), %place, "its batch was not finished in time");
                join.abort();
                let _ = join.await;
            }
        });
        self.health.solved(&place.to_string());
        self.positions.remove(place);
        tracing::info!(sink = self.sink.name(), %place, "given back");
    }
}
