//! Records to Kafka: acknowledged, certainly not written, or unknown; never a guess between them.
//!
//! A record passes the [`door`] and is handed to an idempotent producer. Its delivery report settles
//! the [`outcome`] that its request, and every click that shares it, waits for. A watch thread closes
//! the loop: it finds out when Kafka can be reached again, and replaces a producer that reports a
//! fatal error.

mod door;
mod outcome;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use events::{Millis, topics};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{
    BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::types::RDKafkaErrorCode;
use wire::operator::Readiness;

pub use self::door::Refusal;
use self::door::{Door, Pass};
pub use self::outcome::{Outcome, Settled};
use crate::config::Config;

const WATCH_EVERY: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The readiness check that is fed from here.
pub(crate) const CHECK: &str = "kafka";

/// A topic that ingest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `orders`.
    Orders,
    /// `stock`.
    Stock,
    /// `order-outcomes`.
    Outcomes,
    /// `couriers`.
    Couriers,
    /// `reference`.
    Reference,
}

impl Target {
    const ALL: [Self; 5] =
        [Self::Orders, Self::Stock, Self::Outcomes, Self::Couriers, Self::Reference];

    fn topic(self) -> &'static str {
        match self {
            Self::Orders => topics::ORDERS.name,
            Self::Stock => topics::STOCK.name,
            Self::Outcomes => topics::ORDER_OUTCOMES.name,
            Self::Couriers => topics::COURIERS.name,
            Self::Reference => topics::REFERENCE.name,
        }
    }
}

/// A record to write.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where to.
    pub target: Target,
    /// The record's key.
    pub key: Vec<u8>,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Where the sender chooses; `None`: the key decides.
    pub partition: Option<i32>,
}

impl Outgoing {
    /// A record whose key decides its partition.
    pub fn keyed(target: Target, key: Vec<u8>, payload: Vec<u8>) -> Self {
        Self { target, key, payload, partition: None }
    }

    fn partition(&self, partitions: i32) -> i32 {
        self.partition.unwrap_or_else(|| topics::partition_for(&self.key, partitions))
    }
}

/// What a delivery report finds its way home by.
struct Ticket {
    pass: Pass,
    outcome: Arc<Outcome>,
}

/// Receives the producer's reports, on its polling thread.
struct Reports {
    door: Arc<Door>,
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.door.down();
        }
        // What it means for requests is told by the watch; librdkafka logs the rest.
        tracing::debug!(%error, reason, "producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let Ticket { pass, outcome } = *ticket;
        self.door.settle(pass, result.is_ok());
        match result {
            Ok(message) => {
                // Both are absent after a retry that the broker recognised as one.
                let offset = Some(message.offset()).filter(|offset| *offset >= 0);
                let at = message.timestamp().to_millis().filter(|_| offset.is_some());
                outcome.acknowledged(at.map(Millis), offset);
            }
            Err((error, _)) => {
                tracing::debug!(%error, "record given up on");
                outcome.unknown();
            }
        }
    }
}

type Producer = ThreadedProducer<Reports>;

struct Shared {
    door: Arc<Door>,
    producer: RwLock<Arc<Producer>>,
    settings: ClientConfig,
    partitions: i32,
    stop: AtomicBool,
}

/// Writes records; lives as long as the service.
pub struct Publisher {
    shared: Arc<Shared>,
    watch: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Connects a producer. `partitions` is that of every topic; readiness learns of Kafka's outages.
    ///
    /// # Errors
    /// When a setting is illegal; Kafka need not be there.
    pub fn start(config: &Config, partitions: i32, readiness: Readiness) -> Result<Self> {
        let limits = &config.limits;
        let client_id = format!("ingest-{}", config.instance);
        let mut settings =
            wire::client::producer(&config.kafka.brokers, &client_id, limits.message_timeout_ms);
        settings
            .set("linger.ms", limits.linger_ms.to_string())
            // The door refuses first; this only bounds what a fault of ours could pile up.
            .set("queue.buffering.max.messages", (2 * limits.queue_records).to_string())
            .set("queue.buffering.max.kbytes", (2 * limits.queue_bytes / 1024).to_string());
        let slots = usize::try_from(partitions).context("partitions are counted from 1")?;
        let door = Arc::new(Door::new(
            slots * Target::ALL.len(),
            limits.queue_records,
            limits.queue_bytes,
            limits.stalled_after(),
        ));
        let shared = Arc::new(Shared {
            producer: RwLock::new(Arc::new(producer(&settings, &door)?)),
            door,
            settings,
            partitions,
            stop: AtomicBool::new(false),
        });
        let watched = Arc::clone(&shared);
        let watch = std::thread::Builder::new()
            .name("producer-watch".into())
            .spawn(move || watched.watch(&readiness))
            .context("a thread cannot be started")?;
        Ok(Self { shared, watch: Some(watch) })
    }

    /// Hands all of these records to the producer, or none; the outcome must have been made for as
    /// many. Never waits: the outcome does.
    pub fn publish(&self, records: &[Outgoing], outcome: &Arc<Outcome>) {
        let shared = &self.shared;
        let slots: Vec<(usize, usize)> = records
            .iter()
            .map(|record| (shared.slot(record), record.key.len() + record.payload.len()))
            .collect();
        let passes = match shared.door.admit(&slots, Instant::now()) {
            Ok(passes) => passes,
            Err(refusal) => {
                records.iter().for_each(|_| outcome.refused(refusal));
                return;
            }
        };
        let producer = shared.producer();
        for (record, pass) in records.iter().zip(passes) {
            let ticket = Box::new(Ticket { pass, outcome: Arc::clone(outcome) });
            let partition = record.partition(shared.partitions);
            let message = BaseRecord::with_opaque_to(record.target.topic(), ticket)
                .partition(partition)
                .key(&record.key)
                .payload(&record.payload);
            if let Err((error, message)) = producer.send(message) {
                // Not taken, so it cannot leave.
                tracing::warn!(%error, "producer takes no record");
                shared.door.withdraw(message.delivery_opaque.pass);
                outcome.refused(match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) => Refusal::Busy,
                    _ => Refusal::Unavailable,
                });
            }
        }
    }

    /// Partitions of every topic.
    pub fn partitions(&self) -> i32 {
        self.shared.partitions
    }

    /// Waits until everything handed over is settled, at most this long; says how many are not.
    pub async fn flush(&self, within: Duration) -> usize {
        let until = Instant::now() + within;
        while self.shared.door.records() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.shared.door.records()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(watch) = self.watch.take() {
            watch.thread().unpark();
            // A panic there was reported when it happened.
            let _ = watch.join();
        }
    }
}

impl Shared {
    fn slot(&self, record: &Outgoing) -> usize {
        let partition = record.partition(self.partitions);
        let partition = usize::try_from(partition).expect("partitions are not negative");
        let partitions = usize::try_from(self.partitions).expect("checked at start");
        match record.target {
            Target::Orders => partition,
            Target::Stock => partitions + partition,
            Target::Outcomes => 2 * partitions + partition,
            Target::Couriers => 3 * partitions + partition,
            Target::Reference => 4 * partitions + partition,
        }
    }

    fn producer(&self) -> Arc<Producer> {
        Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn watch(&self, readiness: &Readiness) {
        // The slots of the orders topic come first.
        let orders = usize::try_from(self.partitions).expect("checked at start");
        let mut was_closed = None;
        while !self.stop.load(Ordering::Relaxed) {
            if let Some((code, reason)) = self.producer().client().fatal_error() {
                tracing::error!(%code, reason, "producer failed for good: a new one takes over");
                self.replace();
            }
            if self.door.awaits_proof() && self.kafka_is_there() {
                self.door.reopen();
            }
            let closed = self.door.closed_partitions(0..orders, Instant::now());
            if was_closed != Some(closed) {
                report(closed, orders, readiness);
                was_closed = Some(closed);
            }
            std::thread::park_timeout(WATCH_EVERY);
        }
    }

    /// Whether a broker answers and every partition we write has a leader.
    fn kafka_is_there(&self) -> bool {
        let producer = self.producer();
        Target::ALL.iter().all(|target| {
            let topic = target.topic();
            let Ok(metadata) = producer.client().fetch_metadata(Some(topic), PROBE_TIMEOUT) else {
                return false;
            };
            metadata.topics().iter().all(|topic| {
                topic.error().is_none()
                    && !topic.partitions().is_empty()
                    && topic.partitions().iter().all(|p| p.leader() >= 0)
            })
        })
    }

    fn replace(&self) {
        match producer(&self.settings, &self.door) {
            Ok(fresh) => {
                let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
                let old = std::mem::replace(&mut *current, Arc::new(fresh));
                drop(current);
                // Dropping it reports what it still held as unknown, which takes a moment.
                drop(old);
            }
            Err(error) => tracing::error!(%error, "no new producer: tried again"),
        }
    }
}

/// Tells the log and the readiness check how many partitions of the orders topic take no records.
fn report(closed: usize, all: usize, readiness: &Readiness) {
    match closed {
        0 => {
            tracing::info!("Kafka takes orders");
            readiness.ok(CHECK);
        }
        // One stalled partition is no reason to be taken out of service.
        some if some < all => {
            tracing::warn!(closed = some, of = all, "partitions stall");
            readiness.ok(CHECK);
        }
        _ => {
            tracing::warn!("Kafka takes no orders: they are refused until it does");
            readiness.fail(CHECK, "takes no orders: down or stalled");
        }
    }
}

fn producer(settings: &ClientConfig, door: &Arc<Door>) -> Result<Producer> {
    let reports = Reports { door: Arc::clone(door) };
    let producer: ThreadedProducer<Reports, NoCustomPartitioner> =
        ThreadedProducer::from_config_and_context(settings, reports)
            .context("producer cannot be made")?;
    Ok(producer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::RDKafkaApiKey;

    /// Kafka's own broker cannot be made to do this: the mock answers as if it had lost a record.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_producer_that_failed_for_good_is_replaced() {
        let kafka = MockCluster::new(1).unwrap();
        for target in Target::ALL {
            kafka.create_topic(target.topic(), 1, 1).unwrap();
        }
        let mut config = Config::load(None).unwrap();
        config.kafka.brokers = kafka.bootstrap_servers();
        let readiness = Readiness::starting(&[CHECK]);
        let publisher = Publisher::start(&config, 1, readiness.clone()).unwrap();
        let publish = async || {
            let outcome = Arc::new(Outcome::new(1, false));
            let key = vec![7; 16];
            let record = Outgoing::keyed(Target::Orders, key, b"order".to_vec());
            publisher.publish(&[record], &outcome);
            outcome.wait(Instant::now() + Duration::from_secs(10)).await
        };
        assert!(matches!(publish().await, Some(Settled::Acknowledged { .. })));
        let first = publisher.shared.producer();
        kafka.request_errors(
            RDKafkaApiKey::Produce,
            &[rdkafka::bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
        );
        assert_eq!(publish().await, Some(Settled::Unknown));
        assert!(first.client().fatal_error().is_some(), "the fault was fatal");
        let until = Instant::now() + Duration::from_secs(10);
        while !matches!(publish().await, Some(Settled::Acknowledged { .. })) {
            assert!(Instant::now() < until, "no record passes the new producer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!Arc::ptr_eq(&first, &publisher.shared.producer()));
        assert!(readiness.report().0);
        assert_eq!(publisher.flush(Duration::from_secs(1)).await, 0);
    }
}
