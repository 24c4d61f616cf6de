//! The raw ceiling: what librdkafka and the broker alone carry, with as many records of the same
//! sizes per order as the pipeline writes, in the same transactions.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, error::KafkaError, types::RDKafkaErrorCode};

use crate::load::Random;

/// Records that a routed one-line order writes besides its own: status 3, stock commands 2, answers
/// 2, courier records 2, and changelog rows 10 (`ARCHITECTURE.md`, "How an order walks").
const RECORDS_PER_ORDER: usize = 19;
/// Their mean size, key included.
const BYTES: usize = 180;
/// A transaction every this long.
const COMMIT_EVERY: Duration = Duration::from_millis(100);
const LASTING: Duration = Duration::from_secs(15);
const PARTITIONS: i32 = 12;

/// Orders per second whose records one transactional producer can write.
///
/// # Errors
/// When the broker refuses.
pub fn copy(brokers: &str) -> Result<f64> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let topic = NewTopic::new("raw-ceiling", PARTITIONS, TopicReplication::Fixed(1));
    let created = admin.create_topics([&topic], &AdminOptions::new());
    let created = tokio::runtime::Handle::current().block_on(created)?;
    ensure!(created.iter().all(Result::is_ok), "raw topic: {created:?}");
    let producer: BaseProducer<DefaultProducerContext> =
        wire::client::transactional_producer(brokers, "raw", "raw").create()?;
    producer.init_transactions(Duration::from_secs(30))?;
    let mut random = Random::new(9);
    let mut record = vec![0u8; BYTES];
    let (began, mut orders) = (Instant::now(), 0u64);
    while began.elapsed() < LASTING {
        producer.begin_transaction()?;
        let batch = Instant::now();
        while batch.elapsed() < COMMIT_EVERY {
            for n in 0..RECORDS_PER_ORDER {
                // Half of a record is ids and names that do not compress away.
                for eight in record[..BYTES / 2].chunks_mut(8) {
                    let bytes = random.bits().to_le_bytes();
                    eight.copy_from_slice(&bytes[..eight.len()]);
                }
                let partition = i32::try_from(n)? % PARTITIONS;
                send(&producer, &record, partition)?;
            }
            orders += 1;
            producer.poll(Duration::ZERO);
        }
        let _ = producer.flush(Duration::ZERO);
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::ZERO);
            std::thread::sleep(Duration::from_micros(300));
        }
        producer.commit_transaction(Timeout::Never)?;
    }
    Ok(orders as f64 / began.elapsed().as_secs_f64())
}

fn send(
    producer: &BaseProducer<DefaultProducerContext>,
    bytes: &[u8],
    partition: i32,
) -> Result<()> {
    let mut record =
        BaseRecord::<[u8], [u8]>::to("raw-ceiling").partition(partition).payload(bytes);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}
