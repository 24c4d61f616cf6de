//! Kafka clients: every option that correctness depends on is set here, explicitly; and how records go into
//! a transaction and are waited for.
//!
//! `Producer::flush` and `poll` cost up to 100 ms as they stand, so draining is `flush(0)` once, which skips
//! the linger, then `poll(0)` until nothing is in flight.

use std::time::{Duration, Instant};

use events::topics;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

/// Longest a transaction may stay open; brokers end it after that.
const TRANSACTION_TIMEOUT_MS: u32 = 10_000;
/// Pause between two looks whether everything is acknowledged.
const DRAIN_POLL: Duration = Duration::from_micros(300);
/// How long a full queue is served before it is tried again.
const QUEUE_FULL_POLL: Duration = Duration::from_millis(5);

/// Options of every client.
fn base(brokers: &str, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", client_id)
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        // A broker that hangs is given up after that, and a new leader is heard of without an error
        // from the old one.
        .set("socket.timeout.ms", "10000")
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("log.connection.close", "false");
    config
}

/// An idempotent producer: acks=all, in order, lz4.
///
/// `message_timeout_ms` bounds how long a record may wait before its delivery report says failed.
pub fn producer(brokers: &str, client_id: &str, message_timeout_ms: u32) -> ClientConfig {
    let mut config = base(brokers, client_id);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "2")
        .set("message.max.bytes", topics::MAX_MESSAGE_BYTES.to_string())
        .set("message.timeout.ms", message_timeout_ms.to_string());
    config
}

/// A transactional producer. Its time-outs are the transaction's: a batch is redone, never retried
/// record by record.
pub fn transactional_producer(
    brokers: &str,
    client_id: &str,
    transactional_id: &str,
) -> ClientConfig {
    let mut config = producer(brokers, client_id, TRANSACTION_TIMEOUT_MS);
    config
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string())
        // A hidden retry of EndTxn waits at least 0.8 of this: a commit that took longer may have
        // been sent twice, and the producer is made anew (librdkafka speaks transactions v1 only).
        .set("retry.backoff.ms", "500")
        .set("retry.backoff.max.ms", "1000")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "1048576");
    config
}

/// Hands a record to a producer; waits while its queue is full.
///
/// # Errors
/// When librdkafka refuses the record for another reason.
pub fn send<C: ProducerContext, K: ToBytes + ?Sized, P: ToBytes + ?Sized>(
    producer: &BaseProducer<C>,
    mut record: BaseRecord<'_, K, P, C::DeliveryOpaque>,
) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(QUEUE_FULL_POLL);
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Lets go what lingers, without waiting for it.
pub fn hurry<C: ProducerContext>(producer: &BaseProducer<C>) {
    // That it is not done at once is no error.
    let _ = producer.flush(Duration::ZERO);
}

/// Serves delivery reports, and says whether there is one for every record. Does not wait.
pub fn drained<C: ProducerContext>(producer: &BaseProducer<C>) -> bool {
    producer.poll(Duration::ZERO);
    producer.in_flight_count() == 0
}

/// Waits until there is a delivery report for every record; `false` if that takes longer than `at_most`.
pub fn drain<C: ProducerContext>(producer: &BaseProducer<C>, at_most: Duration) -> bool {
    let began = Instant::now();
    hurry(producer);
    while !drained(producer) {
        if began.elapsed() >= at_most {
            return false;
        }
        std::thread::sleep(DRAIN_POLL);
    }
    true
}

/// A consumer of committed records that is assigned by hand and keeps its positions elsewhere.
pub fn assigned_consumer(brokers: &str, client_id: &str) -> ClientConfig {
    let mut config = base(brokers, client_id);
    config
        // librdkafka wants a group even where none is joined; nothing is ever committed under it.
        .set("group.id", format!("{client_id}-unused"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "50")
        .set("queued.min.messages", "20000")
        .set("queued.max.messages.kbytes", "16384");
    config
}

/// A static member of a consumer group (classic protocol, cooperative), committed records only.
///
/// `instance_id` must be unique among living members: without one the broker would accept
/// transactional offsets from anyone.
pub fn group_consumer(
    brokers: &str,
    client_id: &str,
    group: &str,
    instance_id: &str,
) -> ClientConfig {
    let mut config = assigned_consumer(brokers, client_id);
    config
        // Without this every small batch of ingest's wakes every reader and costs a fetch; with it
        // a slow topic is fetched 50 times a second, and each step of an idle pipeline takes up to
        // 20 ms longer.
        .set("fetch.min.bytes", "32768")
        .set("fetch.wait.max.ms", "20")
        .set("group.id", group)
        .set("group.instance.id", instance_id)
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500")
        .set("max.poll.interval.ms", "60000");
    config
}
