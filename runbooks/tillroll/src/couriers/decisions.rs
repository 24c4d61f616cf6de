//! Reads `courier-decisions` to its end, and shows what the lab makes of it.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use events::topics::COURIER_DECISIONS;
use events::{Codec, CourierCode, Record};
use rdkafka::message::Message as _;

use super::lab::{History, Policy};
use crate::connection::Connection;
use crate::log::{Log, Wanted};
use crate::output;

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
    let log = Log::connect(brokers)?;
    let topic = COURIER_DECISIONS.name;
    let mut ranges = BTreeMap::new();
    for partition in log.partitions(topic)? {
        ranges.insert(partition, log.bounds(topic, partition)?);
    }
    let (mut history, mut strange) = (History::default(), 0_u64);
    log.read(topic, &ranges, |message| {
        match codec.decode(message.payload().unwrap_or_default()) {
            Ok(Record::CourierDecided(decided)) => history.decided(decided),
            Ok(Record::DeliveryJudged(judged)) => history.judged(judged),
            Ok(_) | Err(_) => strange += 1,
        }
        Wanted::More
    })?;
    if strange > 0 {
        output::message(&format!("tillroll: {strange} records of another version left out"));
    }
    Ok(history)
}
