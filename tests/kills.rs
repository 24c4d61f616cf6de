//! kill -9 of processors and sinks while there is work: nothing lost, nothing twice.
//!
//! The real stack replays the real invoices several times over (under keys of their own) while its
//! processors and, independently, its sinks are killed, each only while it has records to take. At
//! the end the reconciliation table agrees, no order has two live consignments at couriers, and
//! records of cut-off transactions stand in the log that no reader of committed records ever sees.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use local::{Service, Stack};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tests::couriers;
use tests::lag::Lag;
use tests::reconcile::{self, clickhouse, postgres};
use tests::replay::{self, Orders};
use tests::settle::settle;
use tests::shop::Shop;
use tests::stack::{Instances, System};

const INSTANCES: Instances = Instances { ingest: 2, processors: 1, sinks: 1 };
/// Copies of the file's invoices.
const COPIES: usize = 8;
/// Kills of each service that hit work in progress.
const KILLS: usize = 10;
/// Longest killing.
const LASTING: Duration = Duration::from_secs(300);
/// How long nothing may move before the wait for the end is given up.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_processors_and_sinks_loses_and_doubles_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let orders = Orders { file: copies(folder.path())?, sample: None, paid: false };
    let survey = orders.survey()?;
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let shop = Shop::new(system.stack.ingest_urls(), &system.key)?;
    replay::receive(&shop, &survey.receipts()).await?;

    let answers = folder.path().join("answers.jsonl");
    let (processors, sinks) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let enough = || processors.load(Relaxed) >= KILLS && sinks.load(Relaxed) >= KILLS;
    tokio::try_join!(
        replay::send(&shop, &system.merchant, &orders, &answers, || {}),
        kill(&system, Service::Processors, &processors, enough),
        kill(&system, Service::Sinks, &sinks, enough),
    )?;
    ensure!(
        enough(),
        "{processors:?} kills of processors and {sinks:?} of sinks hit work in progress: send more orders"
    );

    if let Some(left) = settle(&system, survey.orders, PATIENCE, |_| {}).await? {
        system.save_logs(Path::new("target/kills-logs"))?;
        anyhow::bail!("nothing moves any more: {left}");
    }
    let table = reconcile::everything(&system, &shop, &orders, survey.receipts(), &answers).await?;
    assert!(table.agrees(), "{}", table.text());
    assert_eq!(couriers::booked_twice(&system.stack, PATIENCE).await?, 0, "orders at two couriers");

    let brokers = system.stack.brokers();
    let (all, committed) = tokio::task::spawn_blocking(move || {
        Ok::<_, anyhow::Error>((
            count(&brokers, "read_uncommitted")?,
            count(&brokers, "read_committed")?,
        ))
    })
    .await??;
    assert!(all > committed, "no transaction was cut off: {all} records, {committed} committed");
    system.stack.shutdown().await
}

/// Kills every process of a service again and again, counting the kills with records that it had yet to
/// take before and after it died. Whoever has enough of them goes on: processors that are left in peace
/// would be done before the sinks, on a slow machine, were killed often enough.
async fn kill(
    system: &System,
    service: Service,
    kills: &AtomicUsize,
    enough: impl Fn() -> bool,
) -> Result<()> {
    let brokers = system.stack.brokers();
    let lag = tokio::task::spawn_blocking(move || Lag::connect(&brokers)).await??;
    let postgres = postgres::connect(&system.stack.postgres_url()).await?;
    let reports = clickhouse::client(&system.stack.clickhouse_url());
    let behind = async || match service {
        Service::Processors => lag.of_processors().await,
        _ => lag.of_sinks(&postgres, &reports).await,
    };
    let began = Instant::now();
    while !enough() && began.elapsed() < LASTING {
        // At another moment of its life each time.
        let moment = kills.load(Relaxed) as u64 % 5;
        tokio::time::sleep(Duration::from_millis(100 + 90 * moment)).await;
        if behind().await? == 0 {
            continue;
        }
        let instances = system.stack.instances(service);
        for instance in &instances {
            instance.kill().await?;
        }
        // What it died over is left to be done.
        let cut_off = behind().await? > 0;
        for instance in &instances {
            instance.restart().await?;
        }
        kills.fetch_add(usize::from(cut_off), Relaxed);
    }
    Ok(())
}

/// The invoices, [`COPIES`] times, each copy under invoice numbers of its own.
fn copies(folder: &Path) -> Result<PathBuf> {
    let shipped = "data/online-retail-2010-12.csv.gz";
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(shipped)?).read_to_string(&mut text)?;
    let path = folder.join("copies.csv");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    let (header, lines) = text.split_once('\n').context("the file has a header")?;
    writeln!(file, "{header}")?;
    for copy in 1..=COPIES {
        for line in lines.lines() {
            let (number, rest) = line.split_once(',').context("a line has columns")?;
            writeln!(file, "\"{}-{copy}\",{rest}", number.trim_matches('"'))?;
        }
    }
    Ok(path)
}

/// Records in the processors' output topics, as a reader of this isolation level sees them.
fn count(brokers: &str, isolation: &str) -> Result<u64> {
    let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "count")
        .set("isolation.level", isolation)
        .create()?;
    let partitions = wire::admin::partitions(brokers)?;
    let mut list = TopicPartitionList::new();
    for topic in ["order-status", "stock", "order-outcomes", "orders-changelog"] {
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&list)?;
    let (mut records, mut open) = (0, list.count());
    let began = Instant::now();
    while open > 0 {
        ensure!(began.elapsed() < Duration::from_secs(60), "topics have no end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(_)) => records += 1,
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            _ => {}
        }
    }
    Ok(records)
}
