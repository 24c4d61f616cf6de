//! A million rows of state, and what it costs to have them back: after a restart, from the changelogs
//! alone, and when another process comes or goes under load. `make bench`, parts `restore` and
//! `rebalance`.
//!
//! The rows are the stock processor's own: one receipt after the other is appended to its inbox, and it
//! writes a level and a received line for each SKU. No sinks run: nothing here is theirs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use events::topics::{self, PROCESSORS, STOCK};
use events::{Codec, Fingerprint, Merchant, OrderId, ReceiptId, Sku, StockReceived, WarehouseCode};
use local::{Component, Service, Stack};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use wire::config::Registry;

use crate::load::{self, Load, Target};
use crate::progress::say;
use crate::shop::Shop;
use crate::stack::{Instances, System};
use crate::watch::{Final, Seen, open};

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 0 };
/// Rows of state; two for each SKU, and one for each receipt and partition.
const KEYS: usize = 1_000_000;
/// SKUs of one receipt.
const LINES: usize = 100;
/// Orders per second while processes come and go.
const RATE: u32 = 300;
/// Of each stretch of the load: before, with both processes, after.
const STRETCH: Duration = Duration::from_secs(20);
/// How long after a process is ready, or gone, its coming or going counts as under way.
const SETTLING: Duration = Duration::from_secs(5);
/// Longest time that a partition's flow may stand still, milliseconds.
const LONGEST_GAP_MS: f64 = 3_000.0;
const PATIENCE: Duration = Duration::from_secs(300);

/// Results by dotted name, units in the names.
pub type Results = BTreeMap<String, f64>;

/// Starts a system of its own, fills it, and measures what is wanted.
///
/// # Errors
/// When the system does not start, a process does not come back, or orders are left over.
pub async fn measure(restore: bool, rebalance: bool, results: &mut Results) -> Result<()> {
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let brokers = system.stack.brokers();
    let codec = wire::registry::codec(&Registry { url: system.stack.registry_url() }).await?;
    say(&format!("{KEYS} rows of state"));
    let merchant = system.merchant.clone();
    let receipts = KEYS / 2 / LINES;
    let began = Instant::now();
    let (to, partitions) = (brokers.clone(), wire::admin::partitions);
    tokio::task::spawn_blocking(move || fill(&to, partitions(&to)?, &codec, &merchant, receipts))
        .await??;
    let processors = first(&system)?;
    taken(&processors, receipts * LINES).await?;
    let seconds = began.elapsed().as_secs_f64();
    let keys = tokio::task::spawn_blocking(move || keys(&brokers)).await??;
    ensure!(keys >= KEYS, "only {keys} rows in the changelogs");
    say(&format!("{keys} rows after {seconds:.0} s"));
    if restore {
        put_back(&system, &processors, keys, results).await?;
    }
    if rebalance {
        come_and_go(&system, keys, results).await?;
    }
    system.stack.shutdown().await
}

/// Faults of a rebalance that stopped the flow.
pub fn faults(results: &Results) -> Vec<String> {
    let stopped = ["starting", "stopping"].into_iter().filter_map(|phase| {
        let gap = *results.get(&format!("rebalance.{phase}_longest_gap_ms"))?;
        (gap > LONGEST_GAP_MS).then(|| format!("{phase} a process stopped a partition {gap:.0} ms"))
    });
    stopped.collect()
}

fn first(system: &System) -> Result<Arc<Component>> {
    let processors = system.stack.instances(Service::Processors);
    processors.into_iter().next().context("a processors process")
}

/// Appends receipts as ingest would.
fn fill(
    brokers: &str,
    partitions: i32,
    codec: &Codec,
    merchant: &Merchant,
    receipts: usize,
) -> Result<()> {
    let producer: BaseProducer =
        wire::client::producer(brokers, "fill", 60_000).set("linger.ms", "20").create()?;
    for receipt in 0..receipts {
        for line in 0..LINES {
            let sku = Sku::parse(&format!("ROW{:07}", receipt * LINES + line))?;
            let key = topics::stock_key(merchant, &sku);
            let record = StockReceived {
                receipt_id: ReceiptId::derive(merchant, &format!("fill-{receipt}")),
                merchant: merchant.clone(),
                warehouse: WarehouseCode::MAIN,
                sku,
                quantity: 5,
                fingerprint: Some(Fingerprint(uuid::Uuid::from_u128(receipt as u128))),
                reason: "".into(),
                requested_by: "".into(),
            };
            let value = codec.to_bytes(&record.into());
            let record = BaseRecord::to(STOCK.name)
                .partition(topics::partition_for(key.as_bytes(), partitions))
                .key(&key)
                .payload(&value);
            wire::client::send(&producer, record).context("receipts not written")?;
        }
    }
    Ok(producer.flush(Duration::from_secs(60))?)
}

/// Waits until the processors have taken this many commands to stock.
async fn taken(processors: &Component, records: usize) -> Result<()> {
    let began = Instant::now();
    let name = format!("tillroll_records_processed_total{{topic=\"{}\"}} ", STOCK.name);
    loop {
        let text = reqwest::get(format!("{}/metrics", processors.url())).await?.text().await?;
        let count = text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok());
        if count.is_some_and(|count| count >= records as f64) {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            bail!("the processors took {count:?} of {records} receipts in {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Rows that all changelogs hold together, footers not counted.
fn keys(brokers: &str) -> Result<usize> {
    let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "keys").create()?;
    let mut list = TopicPartitionList::new();
    for processor in PROCESSORS {
        for partition in 0..wire::admin::partitions(brokers)? {
            list.add_partition_offset(&topics::changelog(processor), partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&list)?;
    let (mut rows, mut left) = (HashSet::new(), list.count());
    let mut heard = Instant::now();
    while left > 0 {
        ensure!(heard.elapsed() < Duration::from_secs(30), "changelogs cannot be read");
        match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(_)) => continue,
            Some(Ok(message)) => {
                let mut hasher = DefaultHasher::new();
                (message.topic(), message.partition(), message.key()).hash(&mut hasher);
                match (message.key(), message.payload()) {
                    (Some([0]), _) => {}
                    (_, Some(_)) => drop(rows.insert(hasher.finish())),
                    (_, None) => drop(rows.remove(&hasher.finish())),
                }
            }
        }
        heard = Instant::now();
    }
    Ok(rows.len())
}

/// From the launch of a process until it serves every partition: with its stores after an orderly stop,
/// with them after kill -9, and without.
async fn put_back(
    system: &System,
    processors: &Component,
    keys: usize,
    results: &mut Results,
) -> Result<()> {
    let mut put = |name: &str, value: f64| results.insert(format!("restore.{name}"), value);
    put("keys", keys as f64);
    say("restore: the local stores intact");
    ensure!(processors.stop().await?, "SIGTERM did not end the processors");
    put("intact_s", processors.restart().await?.as_secs_f64());
    say("restore: after kill -9");
    processors.kill().await?;
    put("killed_s", processors.restart().await?.as_secs_f64());
    say("restore: from the changelogs alone");
    ensure!(processors.stop().await?, "SIGTERM did not end the processors");
    std::fs::remove_dir_all(system.stack.folder().join(processors.name()).join("state"))?;
    let seconds = processors.restart().await?.as_secs_f64();
    put("changelog_s", seconds);
    put("changelog_keys_per_s", keys as f64 / seconds);
    Ok(())
}

/// Phases of the load, each from a moment on.
type Phases = Vec<(&'static str, Instant)>;

/// A second process comes under load, and goes.
async fn come_and_go(system: &System, keys: usize, results: &mut Results) -> Result<()> {
    let urls = system.stack.ingest_urls();
    load::stock_up(&Shop::new(urls.clone(), &system.key)?).await?;
    let target = Target {
        address: urls[0].trim_start_matches("http://").to_owned(),
        merchant: system.merchant.clone(),
        key: system.key.clone(),
    };
    let warm_up = Load { per_second: Some(RATE), lasting: STRETCH, clients: 64, seed: 10 };
    say(&format!("rebalance: {RATE} orders/s; warming up"));
    load::send(&target, warm_up).await?;
    let seen = Seen::start(&system.stack).await?;
    let stop = Arc::new(tokio::sync::Notify::new());
    let sending = tokio::spawn(send_until(target, stop.clone()));
    let mut phases: Phases = vec![("before", Instant::now())];
    tokio::time::sleep(STRETCH).await;
    say("rebalance: a second process comes");
    let launched = Instant::now();
    phases.push(("starting", launched));
    let second = system.stack.start_service(Service::Processors, 1).await?;
    let second = second.first().context("one was asked for")?;
    let start_s = launched.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLING).await;
    phases.push(("shared", Instant::now()));
    tokio::time::sleep(STRETCH).await;
    say("rebalance: and goes");
    let stopping = Instant::now();
    phases.push(("stopping", stopping));
    ensure!(second.stop().await?, "SIGTERM did not end the second process");
    let stop_s = stopping.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLING).await;
    phases.push(("after", Instant::now()));
    tokio::time::sleep(STRETCH).await;
    stop.notify_one();
    let (began, refused) = sending.await??;
    let ended = Instant::now();
    while !began.keys().all(|id| open(&seen.finals).contains_key(id)) {
        ensure!(ended.elapsed() < PATIENCE, "orders are left over");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    seen.stop();
    let mut put = |name: String, value: f64| results.insert(format!("rebalance.{name}"), value);
    put("keys".into(), keys as f64);
    put("orders_per_s".into(), f64::from(RATE));
    put("refused".into(), refused as f64);
    put("start_s".into(), start_s);
    put("stop_s".into(), stop_s);
    let finals = open(&seen.finals).clone();
    for (index, (phase, from)) in phases.iter().enumerate() {
        let until = phases.get(index + 1).map_or(ended, |(_, next)| *next);
        let (p50, p99) = latencies(&began, &finals, *from, until);
        put(format!("{phase}_status_p50_ms"), p50);
        put(format!("{phase}_status_p99_ms"), p99);
        put(format!("{phase}_longest_gap_ms"), longest_gap(&finals, *from, until));
    }
    Ok(())
}

/// Sends second by second, each order due at its own moment, until told to stop.
async fn send_until(
    target: Target,
    stop: Arc<tokio::sync::Notify>,
) -> Result<(HashMap<OrderId, Instant>, u64)> {
    let (mut began, mut refused, mut seed) = (HashMap::new(), 0, 100);
    let stopped = stop.notified();
    tokio::pin!(stopped);
    loop {
        let lasting = Duration::from_secs(1);
        let load = Load { per_second: Some(RATE), lasting, clients: 64, seed };
        let sent = load::send(&target, load).await?;
        began.extend(sent.began);
        refused += sent.refused;
        seed += 1;
        if futures::poll!(&mut stopped).is_ready() {
            return Ok((began, refused));
        }
    }
}

/// Median and 99th percentile, ms, from due to the last status, of orders due in this stretch.
fn latencies(
    began: &HashMap<OrderId, Instant>,
    finals: &HashMap<OrderId, Final>,
    from: Instant,
    until: Instant,
) -> (f64, f64) {
    let due = began.iter().filter(|(_, due)| (from..until).contains(due));
    let mut latencies: Vec<f64> = due
        .filter_map(|(id, due)| Some(finals.get(id)?.seen.duration_since(*due).as_secs_f64()))
        .map(|seconds| seconds * 1_000.0)
        .collect();
    latencies.sort_unstable_by(f64::total_cmp);
    let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied();
    (at(50).unwrap_or(0.0), at(99).unwrap_or(0.0))
}

/// The longest time, ms, for which a partition of `order-status` showed no last status of any order.
fn longest_gap(finals: &HashMap<OrderId, Final>, from: Instant, until: Instant) -> f64 {
    let mut seen: BTreeMap<i32, Vec<Instant>> = BTreeMap::new();
    for last in finals.values() {
        seen.entry(last.partition).or_insert_with(|| vec![from, until]).push(last.seen);
    }
    let gap = |moments: &mut Vec<Instant>| {
        moments.retain(|moment| (from..=until).contains(moment));
        moments.sort_unstable();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    };
    let longest = seen.values_mut().map(gap).max().unwrap_or_default();
    longest.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_stands_still_is_seen_beside_one_that_flows() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let merchant = Merchant::parse("shop").unwrap();
        let last = |partition: i32, ms: u64| {
            let id = OrderId::derive(&merchant, &format!("{partition}-{ms}"));
            (id, Final { partition, offset: 0, seen: at(ms) })
        };
        let flowing = (0..100).map(|n| last(0, n * 100));
        let standing = [last(1, 100), last(1, 2_500), last(1, 9_900)];
        let finals: HashMap<_, _> = flowing.chain(standing).collect();
        assert_eq!(longest_gap(&finals, at(0), at(3_000)), 2_400.0);
        assert_eq!(longest_gap(&finals, at(3_000), at(9_950)), 6_900.0);
        let began = finals.keys().map(|id| (*id, at(0))).collect();
        assert_eq!(latencies(&began, &finals, at(0), at(1)).1, 9_900.0);
    }

    #[test]
    fn a_flow_that_stopped_is_told() {
        let results = |gap| Results::from([("rebalance.starting_longest_gap_ms".to_owned(), gap)]);
        assert!(faults(&results(2_900.0)).is_empty() && faults(&Results::new()).is_empty());
        assert_eq!(faults(&results(3_100.0)), ["starting a process stopped a partition 3100 ms"]);
    }
}
