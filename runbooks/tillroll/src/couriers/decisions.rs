//! Reads `courier-decisions` to its end, and shows what the lab makes of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use events::topics::COURIER_DECISIONS;
use events::{Codec, CourierCode, Record};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::lab::{History, Policy};
use crate::connection::Connection;
use crate::output;

/// Without a record for so long, Kafka is held to be gone.
const ANSWERS: Duration = Duration::from_secs(15);

pub(super) async fn league(connection: &Connection, json: bool) -> Result<()> {
    let table = read(connection).await?.league();
    if json {
        return output::data(&serde_json::to_string(&table)?);
    }
    output::data(&format!(
        "{:<12} {:<12} {:>8} {:>8} {:>10} {:>10} {:>10} {:>9} {:>8}",
        "lane", "courier", "judged", "on time", "price", "p50 h", "p90 h", "promises", "kept"
    ))?;
    for row in table {
        output::data(&row.to_string())?;
    }
    Ok(())
}

pub(super) async fn replay(connection: &Connection, policy: &str, json: bool) -> Result<()> {
    let policy = match policy {
        "cheapest" => Policy::Cheapest,
        "greedy" => Policy::Greedy,
        code => Policy::Always(CourierCode::parse(code)?),
    };
    let history = read(connection).await?;
    let estimate = history.replay(&policy);
    ensure!(estimate.decisions > 0, "no decision has an outcome yet: nothing to replay");
    if json {
        return output::data(&serde_json::to_string(&estimate)?);
    }
    output::data(&estimate.to_string())
}

async fn read(connection: &Connection) -> Result<History> {
    let (brokers, registry) = (connection.brokers()?, connection.registry()?);
    let codec = wire::registry::codec(&registry).await?;
    tokio::task::spawn_blocking(move || read_all(&brokers, &codec)).await?
}

/// Committed records only, from the beginning to what is the end now.
fn read_all(brokers: &str, codec: &Codec) -> Result<History> {
    let partitions = wire::admin::partitions(brokers)?;
    let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "tillroll").create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(COURIER_DECISIONS.name, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut history = History::default();
    let (mut open, mut heard, mut strange) = (partitions, Instant::now(), 0_u64);
    while open > 0 {
        ensure!(heard.elapsed() < ANSWERS, "Kafka does not answer: try again");
        match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Ok(message)) => match codec.decode(message.payload().unwrap_or_default()) {
                Ok(Record::CourierDecided(decided)) => history.decided(decided),
                Ok(Record::DeliveryJudged(judged)) => history.judged(judged),
                Ok(_) | Err(_) => strange += 1,
            },
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            // Brokers come and go; the silence above bounds it.
            Some(Err(_)) => continue,
        }
        heard = Instant::now();
    }
    if strange > 0 {
        output::message(&format!("tillroll: {strange} records of another version left out"));
    }
    Ok(history)
}
