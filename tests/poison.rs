//! Poison in every topic that somebody reads: each piece goes to its topic's dead letter queue, with the
//! headers, key and time that it came with, and its reason; and every partition moves on.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use events::topics::{self, MAX_RECORD_BYTES, Topic};
use events::{Codec, RecordType};
use local::Stack;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use tests::lag::Lag;
use tests::load;
use tests::reconcile::{clickhouse, postgres};
use tests::shop::Shop;
use tests::stack::{Instances, System};
use wire::config::Registry;
use wire::dead_letter::{CUT_HEADER, MAX_VALUE_BYTES};

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
const PARTITIONS: i32 = 4;
/// Orders before and after the poison.
const ORDERS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(90);
/// What processors read; the rest is read by sinks.
const INBOXES: [&str; 4] = ["orders", "order-outcomes", "stock", "couriers"];

/// A piece of poison, and the start of the reason for which processors and sinks refuse it.
struct Poison {
    value: Vec<u8>,
    processors: String,
    sinks: String,
}

/// Garbage, a schema that was never registered, a record of another topic, and two that are too big: for
/// the processors, and (uncompressed) for any topic.
fn poisons(codec: &Codec, topic: &Topic) -> Vec<Poison> {
    let both = |value: Vec<u8>, reason: String| Poison {
        value,
        processors: reason.clone(),
        sinks: reason,
    };
    // Any record will do whose bytes are right and whose place is wrong.
    let stray = stray(codec, topic);
    let name = codec.decode(&stray).expect("encoded here").record_type().name();
    let stray = both(stray, format!("{name} does not belong on {}", topic.name));
    let mut poisons = vec![
        both(b"not a record".to_vec(), "not in Confluent wire format (12 bytes)".into()),
        both([&[0, 0, 0x0f, 0x42, 0x40][..], b"x"].concat(), "schema id 1000000".into()),
        stray,
    ];
    for size in [MAX_RECORD_BYTES + 1, topics::MAX_MESSAGE_BYTES + 1_000_000] {
        let with_key = size + b"key".len();
        poisons.push(Poison {
            value: vec![b'x'; size],
            processors: format!("record of {with_key} bytes: at most {MAX_RECORD_BYTES} are read"),
            sinks: format!("not in Confluent wire format ({size} bytes)"),
        });
    }
    poisons
}

fn stray(codec: &Codec, topic: &Topic) -> Vec<u8> {
    let merchant = events::Merchant::parse("shop").expect("legal");
    let order_id = events::OrderId::derive(&merchant, "poison");
    let accepted_at = events::Millis(1);
    if topic.record_types.contains(&RecordType::ReleaseLines) {
        let detail = "stray".into();
        codec.to_bytes(&events::ConsignmentFailed { order_id, accepted_at, detail }.into())
    } else {
        let stray = events::ReleaseLines { order_id, accepted_at, merchant, attempt: 1 };
        codec.to_bytes(&stray.into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_goes_to_the_dead_letters_and_its_partition_moves_on() -> Result<()> {
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let outcome = poison(&system).await;
    if outcome.is_err() {
        system.save_logs(Path::new("target/poison-logs"))?;
    }
    system.stack.shutdown().await?;
    outcome
}

async fn poison(system: &System) -> Result<()> {
    let brokers = system.stack.brokers();
    let codec = wire::registry::codec(&Registry { url: system.stack.registry_url() }).await?;
    let shop = Shop::new(system.stack.ingest_urls(), &system.key)?;
    load::stock_up(&shop).await?;
    order(&shop, "before").await?;
    flowing(system, 1).await?;
    let producer: FutureProducer = wire::client::producer(&brokers, "poison", 20_000)
        .set("message.max.bytes", (2 * topics::MAX_MESSAGE_BYTES).to_string())
        .create()?;
    // By topic, partition and offset: what was put there.
    let mut put: BTreeMap<(String, String, String), (Poison, bool)> = BTreeMap::new();
    // Decisions are read by an operator's command alone, which can be run again; reference data stands
    // in the inboxes that decide by it, too.
    let unread = [topics::COURIER_DECISIONS.name, topics::REFERENCE.name];
    let read = |topic: &&Topic| !unread.contains(&topic.name);
    for topic in topics::ALL.iter().filter(read) {
        for partition in 0..PARTITIONS {
            for poison in poisons(&codec, topic) {
                let offset = send(&producer, topic.name, partition, &poison.value).await?;
                let place = (topic.name.to_string(), partition.to_string(), offset.to_string());
                put.insert(place, (poison, INBOXES.contains(&topic.name)));
            }
        }
    }
    order(&shop, "after").await?;
    flowing(system, 2).await?;
    // Some have several readers, each of which refuses what is in them.
    let expected: usize = put.keys().map(|(topic, ..)| readers(topic)).sum();
    let letters = tokio::task::spawn_blocking(move || letters(&brokers, expected)).await??;
    let mut seen: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for letter in &letters {
        let header = |name: &str| {
            let found = letter.headers().and_then(|all| all.iter().find(|h| h.key == name));
            found.and_then(|h| Some(String::from_utf8_lossy(h.value?).into_owned()))
        };
        let error = |name: &str| header(&format!("__connect.errors.{name}")).context("an envelope");
        let place = (error("topic")?, error("partition")?, error("offset")?);
        let (poison, inbox) = put.get(&place).with_context(|| format!("{place:?} was fine"))?;
        let expected = if *inbox { &poison.processors } else { &poison.sinks };
        let reason = error("exception.message")?;
        ensure!(reason.starts_with(expected.as_str()), "{place:?}: {reason}, not {expected}");
        ensure!(error("stage")? == "decode" && letter.key() == Some(b"key"), "{place:?}");
        ensure!(header("trace").as_deref() == Some("7"), "{place:?} lost its headers");
        let kept = &poison.value[..poison.value.len().min(MAX_VALUE_BYTES)];
        ensure!(letter.payload() == Some(kept), "{place:?} was changed");
        ensure!(header(CUT_HEADER).is_some() == (kept.len() < poison.value.len()), "{place:?}");
        let age = chrono::Utc::now().timestamp_millis()
            - letter.timestamp().to_millis().context("a time")?;
        ensure!((0..600_000).contains(&age), "{place:?} is {age} ms old");
        *seen.entry(place).or_default() += 1;
    }
    for place in put.keys() {
        let copies = readers(&place.0);
        ensure!(seen.get(place) == Some(&copies), "{place:?}: {:?} letters", seen.get(place));
    }
    Ok(())
}

/// How many services read the topic.
fn readers(topic: &str) -> usize {
    match topic {
        topic if topic == topics::ORDER_STATUS.name => 3,
        topic if topic == topics::STOCK_MOVEMENTS.name => 2,
        _ => 1,
    }
}

async fn send(producer: &FutureProducer, topic: &str, partition: i32, value: &[u8]) -> Result<i64> {
    let header = Header { key: "trace", value: Some("7") };
    let record = FutureRecord::to(topic)
        .partition(partition)
        .key("key")
        .payload(value)
        .headers(OwnedHeaders::new().insert(header));
    let sent = producer.send(record, Duration::from_secs(10)).await;
    let delivery = sent.map_err(|(error, _)| error).with_context(|| format!("{topic} poisoned"))?;
    Ok(delivery.offset)
}

/// Places orders, as many as reach every partition.
async fn order(shop: &Shop, prefix: &str) -> Result<()> {
    let zipf = load::Zipf::new(load::SKUS);
    for n in 0..ORDERS {
        let body = load::order(&mut load::Random::new(n as u64), &zipf);
        let answer = shop.post(0, "/v1/orders", &format!("{prefix}-{n}"), &body).await?;
        ensure!(answer.status == 202, "order got {}: {}", answer.status, answer.body);
    }
    Ok(())
}

/// Waits until `rounds` rounds of orders are routed everywhere and no reader is behind.
async fn flowing(system: &System, rounds: usize) -> Result<()> {
    let brokers = system.stack.brokers();
    let lag = tokio::task::spawn_blocking(move || Lag::connect(&brokers)).await??;
    let tracking = postgres::connect(&system.stack.postgres_url()).await?;
    let reports = clickhouse::client(&system.stack.clickhouse_url());
    let began = Instant::now();
    loop {
        let routed = "SELECT count(*) FROM orders WHERE status = 'routed'";
        let in_postgres: i64 = tracking.query_one(routed, &[]).await?.get(0);
        let routed = "SELECT uniqExact(order_id) FROM order_events WHERE status = 'routed'";
        let in_clickhouse: u64 = reports.query(routed).fetch_one().await?;
        let behind = lag.of_processors().await?;
        let orders = rounds * ORDERS;
        let there = in_postgres == i64::try_from(orders)? && in_clickhouse == orders as u64;
        if there && behind == 0 {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            bail!(
                "of {orders} orders {in_postgres} are routed in Postgres and {in_clickhouse} in \
                 ClickHouse; {behind} records wait for processors"
            );
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Every dead letter there is, once there are `expected`, or no more come.
fn letters(brokers: &str, expected: usize) -> Result<Vec<OwnedMessage>> {
    let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "letters").create()?;
    let mut list = TopicPartitionList::new();
    for topic in topics::ALL {
        list.add_partition_offset(&topics::dead_letters(topic.name), 0, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut letters, began) = (Vec::new(), Instant::now());
    while letters.len() < expected && began.elapsed() < Duration::from_secs(60) {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            letters.push(message.detach());
        }
    }
    // One too many would be as wrong as one too few.
    while let Some(Ok(message)) = consumer.poll(Duration::from_secs(1)) {
        letters.push(message.detach());
    }
    Ok(letters)
}
