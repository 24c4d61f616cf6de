//! The raw ceiling: what librdkafka and the broker alone carry. A copy: consume orders, write as many
//! records of the same sizes for each as the pipeline wrote, send offsets, commit; one producer, one
//! thread, no state, no calls, no databases.
//!
//! What the pipeline writes per order is measured in its own topics, from the first order on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use events::topics;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const IN: &str = "raw-in";
const OUT: &str = "raw-out";
/// Orders to copy; fewer if [`LASTING`] ends first.
const ORDERS: usize = 300_000;
/// Longest copying.
const LASTING: Duration = Duration::from_secs(15);
/// A transaction every this long, as the pipeline commits under load.
const COMMIT_EVERY: Duration = Duration::from_millis(100);
/// Records are counted over this long from the first order on: warm-up and sustained load.
const MEASURED_MS: i64 = 60_000;
/// Real records of a topic that are kept to be written again.
const SAMPLES: usize = 5_000;
const ANSWERS: Duration = Duration::from_secs(15);

/// What a copier reached.
#[derive(Debug, Clone, Copy)]
pub struct Ceiling {
    /// Orders copied per second.
    pub orders_per_s: f64,
    /// Records written for each, besides its own.
    pub records_per_order: f64,
    /// Their bytes: keys, values and origin headers.
    pub bytes_per_order: f64,
}

/// One topic's part of an order.
struct Flow {
    per_order: f64,
    bytes_per_order: f64,
    samples: Vec<Sample>,
    written: usize,
    due: f64,
}

/// A real record.
struct Sample {
    key: Vec<u8>,
    value: Vec<u8>,
}

/// Measures what the pipeline wrote per order into this broker, then copies. Blocks.
///
/// # Errors
/// When no order was ever processed there, or the broker refuses.
pub fn copy(brokers: &str) -> Result<Ceiling> {
    let partitions = wire::admin::partitions(brokers)?;
    let (orders, mut flows) = measure(brokers, partitions)?;
    create(brokers, partitions, flows.len())?;
    fill(brokers, partitions, &orders)?;
    let orders_per_s = run(brokers, partitions, &mut flows)?;
    let sum = |of: fn(&Flow) -> f64| flows.iter().map(of).sum();
    Ok(Ceiling {
        orders_per_s,
        records_per_order: sum(|flow| flow.per_order),
        bytes_per_order: sum(|flow| flow.bytes_per_order),
    })
}

/// Real orders, and what follows from one by topic.
fn measure(brokers: &str, partitions: i32) -> Result<(Vec<Sample>, Vec<Flow>)> {
    let orders = read(brokers, topics::ORDERS.name, partitions, 0)?;
    ensure!(orders.records > 0, "no order was ever placed: nothing to measure");
    let changelogs = topics::PROCESSORS.iter().map(|processor| topics::changelog(processor));
    let outputs = topics::ALL.iter().map(|topic| topic.name.to_owned()).chain(changelogs);
    let mut flows = Vec::new();
    for topic in outputs.filter(|topic| topic != topics::ORDERS.name) {
        let counted = read(brokers, &topic, partitions, orders.first_ms)?;
        if counted.records > 0 {
            flows.push(Flow {
                per_order: counted.records as f64 / orders.records as f64,
                bytes_per_order: counted.bytes as f64 / orders.records as f64,
                samples: counted.samples,
                written: 0,
                due: 0.0,
            });
        }
    }
    ensure!(!flows.is_empty(), "no order was ever processed: nothing to measure");
    Ok((orders.samples, flows))
}

#[derive(Default)]
struct Counted {
    records: u64,
    bytes: usize,
    /// Append time of the first record.
    first_ms: i64,
    samples: Vec<Sample>,
}

/// Counts a topic's committed records of [`MEASURED_MS`] from `since_ms` on; 0 is its beginning.
fn read(brokers: &str, topic: &str, partitions: i32, since_ms: i64) -> Result<Counted> {
    let consumer: BaseConsumer =
        wire::client::assigned_consumer(brokers, "raw-measure").create()?;
    let mut times = TopicPartitionList::new();
    for partition in 0..partitions {
        times.add_partition_offset(topic, partition, Offset::Offset(since_ms))?;
    }
    let starts = consumer.offsets_for_times(times, ANSWERS)?;
    for partition in 0..partitions {
        let mut start =
            starts.find_partition(topic, partition).context("one that was asked for")?;
        if start.offset() == Offset::Invalid {
            start.set_offset(Offset::End)?;
        }
    }
    consumer.assign(&starts)?;
    let mut counted = Counted { first_ms: i64::MAX, ..Counted::default() };
    let mut open: Vec<i32> = (0..partitions).collect();
    let mut heard = Instant::now();
    while !open.is_empty() {
        ensure!(heard.elapsed() < ANSWERS, "{topic} cannot be read to its end");
        let message = match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.retain(|p| *p != partition);
                continue;
            }
            Some(message) => message.with_context(|| format!("reading {topic}"))?,
        };
        heard = Instant::now();
        let at_ms = message.timestamp().to_millis().unwrap_or_default();
        counted.first_ms = counted.first_ms.min(at_ms);
        if at_ms > since_ms.max(counted.first_ms) + MEASURED_MS {
            let partition = message.partition();
            let mut done = TopicPartitionList::new();
            done.add_partition(topic, partition);
            consumer.pause(&done)?;
            open.retain(|p| *p != partition);
            continue;
        }
        let (key, value) = (message.key().unwrap_or(b""), message.payload().unwrap_or(b""));
        counted.records += 1;
        counted.bytes += key.len() + value.len() + ORIGIN.len();
        if counted.samples.len() < SAMPLES {
            counted.samples.push(Sample { key: key.to_vec(), value: value.to_vec() });
        }
    }
    Ok(counted)
}

/// As long as the origins of real records.
const ORIGIN: &str = "orders-0/1/12345";

fn create(brokers: &str, partitions: i32, flows: usize) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let topic = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let new = [topic(IN, partitions), topic(OUT, partitions * i32::try_from(flows)?)];
    let created = admin.create_topics(&new, &AdminOptions::new());
    let created = tokio::runtime::Handle::current().block_on(created)?;
    ensure!(created.iter().all(Result::is_ok), "raw topics: {created:?}");
    Ok(())
}

/// Writes the orders to be copied.
fn fill(brokers: &str, partitions: i32, orders: &[Sample]) -> Result<()> {
    let producer: BaseProducer = wire::client::producer(brokers, "raw-fill", 60_000).create()?;
    for (n, order) in orders.iter().cycle().take(ORDERS).enumerate() {
        let partition = i32::try_from(n)? % partitions;
        send(&producer, IN, partition, order)?;
    }
    drain(&producer)?;
    Ok(())
}

/// Copies until the orders or the time are used up; orders per second.
fn run(brokers: &str, partitions: i32, flows: &mut [Flow]) -> Result<f64> {
    let consumer: BaseConsumer = wire::client::group_consumer(brokers, "raw", "raw", "raw")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "false")
        .create()?;
    consumer.subscribe(&[IN])?;
    let producer: BaseProducer<DefaultProducerContext> =
        wire::client::transactional_producer(brokers, "raw", "raw").create()?;
    producer.init_transactions(ANSWERS)?;
    let asked = Instant::now();
    let mut first = loop {
        ensure!(asked.elapsed() < ANSWERS * 2, "the group never started");
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            break Some(position(&message?));
        }
    };
    let (began, mut orders) = (Instant::now(), 0);
    while orders < ORDERS && began.elapsed() < LASTING {
        producer.begin_transaction()?;
        let batch = Instant::now();
        let mut next = TopicPartitionList::new();
        let mut positions = vec![0; usize::try_from(partitions)?];
        while batch.elapsed() < COMMIT_EVERY && orders < ORDERS {
            let read = match first.take() {
                Some(read) => Some(read),
                None => consumer.poll(Duration::ZERO).transpose()?.map(|m| position(&m)),
            };
            let Some((partition, offset)) = read else { continue };
            positions[usize::try_from(partition)?] = offset + 1;
            write(&producer, partition, partitions, flows)?;
            orders += 1;
            producer.poll(Duration::ZERO);
        }
        drain(&producer)?;
        for (partition, position) in positions.iter().enumerate().filter(|(_, p)| **p > 0) {
            let offset = Offset::Offset(*position);
            next.add_partition_offset(IN, i32::try_from(partition)?, offset)?;
        }
        let group = consumer.group_metadata().context("not a member of the group")?;
        producer.send_offsets_to_transaction(&next, &group, Timeout::Never)?;
        producer.commit_transaction(Timeout::Never)?;
    }
    Ok(orders as f64 / began.elapsed().as_secs_f64())
}

fn position(message: &impl Message) -> (i32, i64) {
    (message.partition(), message.offset())
}

/// What follows from one order, into the partitions of its own task.
fn write(
    producer: &BaseProducer<DefaultProducerContext>,
    partition: i32,
    partitions: i32,
    flows: &mut [Flow],
) -> Result<()> {
    for (flow, n) in flows.iter_mut().zip(0..) {
        flow.due += flow.per_order;
        while flow.due >= 1.0 {
            flow.due -= 1.0;
            let sample = &flow.samples[flow.written % flow.samples.len()];
            flow.written += 1;
            send(producer, OUT, n * partitions + partition, sample)?;
        }
    }
    Ok(())
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, sample: &Sample) -> Result<()> {
    let origin = Header { key: events::ORIGIN_HEADER, value: Some(ORIGIN) };
    let record = BaseRecord::to(topic)
        .partition(partition)
        .key(&sample.key)
        .payload(&sample.value)
        .headers(OwnedHeaders::new_with_capacity(1).insert(origin));
    Ok(wire::client::send(producer, record)?)
}

fn drain(producer: &BaseProducer) -> Result<()> {
    ensure!(wire::client::drain(producer, ANSWERS * 4), "Kafka acknowledges nothing");
    Ok(())
}
