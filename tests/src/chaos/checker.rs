//! After the storm: ledger, topics, Postgres, ClickHouse, stock and couriers say the same, record by
//! record. Shares no code with the machines.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use events::{Merchant, OrderId, OrderStatus, Record, topics};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde::Deserialize;

use super::ledger::{self, Told};
use crate::reconcile::topics::Log;
use crate::reconcile::{clickhouse as reports, postgres};
use crate::stack::System;

/// Examples given of a difference.
const EXAMPLES: usize = 3;
const KAFKA_ANSWERS: Duration = Duration::from_secs(10);

/// What a run came to.
#[derive(Debug, Default)]
pub struct Findings {
    /// Orders by what their client was told.
    pub told: BTreeMap<Told, u64>,
    /// Orders by their last status.
    pub statuses: BTreeMap<&'static str, u64>,
    /// What differs; empty after a good run.
    pub differences: Vec<String>,
}

impl Findings {
    fn differ<T: std::fmt::Display>(&mut self, what: &str, cases: impl IntoIterator<Item = T>) {
        let mut cases = cases.into_iter();
        let examples: Vec<String> = cases.by_ref().take(EXAMPLES).map(|c| c.to_string()).collect();
        if !examples.is_empty() {
            let all = examples.len() + cases.count();
            self.differences.push(format!("{what}: {all}, e.g. {}", examples.join(", ")));
        }
    }
}

/// An event's identity and content, as every store must have it.
type Event = (OrderId, i64, i32, String);

/// What the topics hold.
struct Topics {
    /// Records of `orders` by order.
    placed: HashMap<OrderId, u64>,
    /// `order-status`, in log order.
    events: Vec<Event>,
    /// Newest on hand, reserved, allocated by SKU.
    levels: BTreeMap<String, (i64, i64, i64)>,
    /// SKUs that were below zero at some version.
    below_zero: BTreeSet<String>,
    /// Pieces of orders by SKU.
    pieces: HashMap<OrderId, BTreeMap<String, i64>>,
}

/// Compares everything; `receipts` is what was received.
///
/// # Errors
/// When a system does not answer.
pub async fn check(system: &System, ledger: &Path, receipts: &[(String, i64)]) -> Result<Findings> {
    let told = ledger::read(ledger)?;
    let registry = wire::config::Registry { url: system.stack.registry_url() };
    let codec = wire::registry::codec(&registry).await?;
    let brokers = system.stack.brokers();
    let (topics, hanging) = tokio::task::spawn_blocking(move || {
        let log = Log::new(&brokers, &codec)?;
        Ok::<_, anyhow::Error>((read(&log)?, hanging(&brokers, log.partitions)?))
    })
    .await??;
    let mut findings = Findings::default();
    findings.differ("partitions with an open transaction", hanging);
    for told in told.values() {
        *findings.told.entry(*told).or_default() += 1;
    }
    let newest = chains(&topics, &mut findings);
    against_ledger(&told, &system.merchant, &topics, &newest, &mut findings);
    stock(&topics, &newest, receipts, &mut findings);
    let in_topic: BTreeSet<Event> = topics.events.iter().cloned().collect();
    for (name, rows) in [
        ("Postgres", postgres_events(system).await?),
        ("ClickHouse", clickhouse_events(system).await?),
    ] {
        let stored: BTreeSet<Event> = rows.iter().cloned().collect();
        let tell = |(order, _, version, status): &Event| format!("{order} v{version} {status}");
        findings
            .differ(&format!("events that {name} lacks"), in_topic.difference(&stored).map(tell));
        findings.differ(
            &format!("events that only {name} has"),
            stored.difference(&in_topic).map(tell),
        );
        findings.differ(
            &format!("events that {name} has twice"),
            (rows.len() > stored.len()).then(|| rows.len() - stored.len()),
        );
    }
    current_state(system, &newest, &mut findings).await?;
    couriers(system, &mut findings).await?;
    Ok(findings)
}

/// Partitions whose last stable offset is before their end.
fn hanging(brokers: &str, partitions: i32) -> Result<Vec<String>> {
    let ends = |isolation: &str| {
        let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "chaos")
            .set("isolation.level", isolation)
            .create()?;
        let mut ends = BTreeMap::new();
        let changelogs = topics::PROCESSORS.iter().map(|processor| topics::changelog(processor));
        let declared = topics::ALL.iter().map(|topic| topic.name.to_owned());
        for topic in declared.chain(changelogs) {
            for partition in 0..partitions {
                let (_, end) = consumer.fetch_watermarks(&topic, partition, KAFKA_ANSWERS)?;
                ends.insert(format!("{topic}-{partition}"), end);
            }
        }
        Ok::<_, anyhow::Error>(ends)
    };
    let (stable, all) = (ends("read_committed")?, ends("read_uncommitted")?);
    let open = all.into_iter().filter(|(name, end)| stable.get(name) != Some(end));
    Ok(open.map(|(name, _)| name).collect())
}

fn read(log: &Log<'_>) -> Result<Topics> {
    let mut topics = Topics {
        placed: HashMap::new(),
        events: vec![],
        levels: BTreeMap::new(),
        below_zero: BTreeSet::new(),
        pieces: HashMap::new(),
    };
    log.read(&topics::ORDERS, |record| {
        if let Record::OrderPlaced(placed) = record {
            *topics.placed.entry(placed.order_id).or_default() += 1;
            let pieces = topics.pieces.entry(placed.order_id).or_default();
            if pieces.is_empty() {
                for line in &placed.lines {
                    *pieces.entry(line.sku.to_string()).or_default() += i64::from(line.quantity);
                }
            }
        }
        Ok(())
    })?;
    log.read(&topics::ORDER_STATUS, |record| {
        if let Record::OrderStatusChanged(event) = record {
            let status = event.status.as_str().to_owned();
            topics.events.push((event.order_id, event.accepted_at.0, event.version, status));
        }
        Ok(())
    })?;
    log.read(&topics::STOCK_LEVELS, |record| {
        if let Record::StockLevelChanged(level) = record {
            let (on_hand, reserved, allocated) = (level.on_hand, level.reserved, level.allocated);
            let free = on_hand - reserved - allocated;
            let sku = level.sku.to_string();
            if [on_hand, reserved, allocated, free].iter().any(|pieces| *pieces < 0) {
                topics.below_zero.insert(sku.clone());
            }
            topics.levels.insert(sku, (on_hand, reserved, allocated));
        }
        Ok(())
    })?;
    Ok(topics)
}

/// Every order's last status, once its versions are seen to be 1, 2, 3, … of one acceptance.
fn chains(topics: &Topics, findings: &mut Findings) -> HashMap<OrderId, (i32, String)> {
    let mut newest: HashMap<OrderId, (i64, i32, String)> = HashMap::new();
    let mut broken = BTreeSet::new();
    for (order, accepted_at, version, status) in &topics.events {
        let last = newest.entry(*order).or_insert((*accepted_at, 0, String::new()));
        if last.0 != *accepted_at || last.1 + 1 != *version {
            broken.insert(*order);
        }
        *last = (*accepted_at, *version, status.clone());
    }
    findings.differ("orders whose versions are not 1, 2, 3, …", broken);
    let open = newest.iter().filter(|(_, (_, _, status))| !is_final(status));
    findings.differ(
        "orders that are not final",
        open.map(|(order, last)| format!("{order} {}", last.2)),
    );
    for status in [OrderStatus::Routed, OrderStatus::Rejected] {
        let of = newest.values().filter(|(_, _, last)| last == status.as_str()).count();
        findings.statuses.insert(status.as_str(), of as u64);
    }
    newest.into_iter().map(|(order, (_, version, status))| (order, (version, status))).collect()
}

fn is_final(status: &str) -> bool {
    [OrderStatus::Routed, OrderStatus::Rejected].iter().any(|end| end.as_str() == status)
}

fn against_ledger(
    told: &BTreeMap<String, Told>,
    merchant: &Merchant,
    topics: &Topics,
    newest: &HashMap<OrderId, (i32, String)>,
    findings: &mut Findings,
) {
    let orders: HashMap<OrderId, (&String, Told)> =
        told.iter().map(|(key, told)| (OrderId::derive(merchant, key), (key, *told))).collect();
    let of = |wanted: Told| orders.iter().filter(move |(_, (_, told))| *told == wanted);
    let name = |(order, (key, _)): (&OrderId, &(&String, Told))| format!("{key} ({order})");
    findings.differ(
        "acknowledged orders that are lost",
        of(Told::Acknowledged).filter(|(order, _)| !newest.contains_key(order)).map(name),
    );
    findings.differ(
        "refused orders that were recorded",
        of(Told::Refused).filter(|(order, _)| topics.placed.contains_key(order)).map(name),
    );
    findings.differ(
        "orders without a request",
        topics.placed.keys().filter(|order| !orders.contains_key(order)),
    );
    findings.differ(
        "recorded orders without a status",
        topics.placed.keys().filter(|order| !newest.contains_key(order)),
    );
}

/// Received = free + what routed orders took, SKU by SKU.
fn stock(
    topics: &Topics,
    newest: &HashMap<OrderId, (i32, String)>,
    receipts: &[(String, i64)],
    findings: &mut Findings,
) {
    findings.differ("SKUs below zero at some moment", &topics.below_zero);
    let mut routed: BTreeMap<&str, i64> = BTreeMap::new();
    for (order, pieces) in &topics.pieces {
        let last = newest.get(order).map(|(_, status)| status.as_str());
        if last == Some(OrderStatus::Routed.as_str()) {
            for (sku, pieces) in pieces {
                *routed.entry(sku.as_str()).or_default() += pieces;
            }
        }
    }
    let wrong = receipts.iter().filter_map(|(sku, received)| {
        let taken = routed.get(sku.as_str()).copied().unwrap_or(0);
        let expected = (*received, 0, taken);
        let level = topics.levels.get(sku).copied().unwrap_or_default();
        (level != expected).then(|| format!("{sku}: {level:?} should be {expected:?}"))
    });
    findings.differ("SKUs whose on hand, reserved, allocated are wrong", wrong);
}

async fn postgres_events(system: &System) -> Result<Vec<Event>> {
    let client = postgres::connect(&system.stack.postgres_url()).await?;
    let query = "SELECT order_id, (extract(epoch FROM accepted_at) * 1000)::bigint, version, status
                 FROM order_events";
    let rows = client.query(query, &[]).await?;
    Ok(rows.iter().map(|row| (OrderId(row.get(0)), row.get(1), row.get(2), row.get(3))).collect())
}

#[derive(clickhouse::Row, Deserialize)]
struct EventRow {
    #[serde(with = "clickhouse::serde::uuid")]
    order_id: uuid::Uuid,
    accepted_at: i64,
    version: i32,
    status: String,
}

async fn clickhouse_events(system: &System) -> Result<Vec<Event>> {
    let client = reports::client(&system.stack.clickhouse_url());
    let query = "SELECT order_id, toUnixTimestamp64Milli(accepted_at) AS accepted_at,
                        toInt32(version) AS version, toString(status) AS status
                 FROM v_order_events";
    let rows: Vec<EventRow> = client.query(query).fetch_all().await?;
    let event = |row: EventRow| (OrderId(row.order_id), row.accepted_at, row.version, row.status);
    Ok(rows.into_iter().map(event).collect())
}

/// Postgres' current state is the last event of every order.
async fn current_state(
    system: &System,
    newest: &HashMap<OrderId, (i32, String)>,
    findings: &mut Findings,
) -> Result<()> {
    let client = postgres::connect(&system.stack.postgres_url()).await?;
    let rows = client.query("SELECT order_id, version, status FROM orders", &[]).await?;
    let stored: HashMap<OrderId, (i32, String)> =
        rows.iter().map(|row| (OrderId(row.get(0)), (row.get(1), row.get(2)))).collect();
    findings.differ(
        "orders whose state in Postgres is not their last event",
        newest
            .iter()
            .filter(|(order, last)| stored.get(order) != Some(last))
            .map(|(order, _)| order),
    );
    findings.differ(
        "orders that only Postgres has",
        stored.keys().filter(|order| !newest.contains_key(order)),
    );
    Ok(())
}

/// No order may have two live consignments.
async fn couriers(system: &System, findings: &mut Findings) -> Result<()> {
    let twice = crate::couriers::booked_twice(&system.stack, Duration::ZERO).await?;
    findings.differ("orders with two live consignments", (twice > 0).then_some(twice));
    Ok(())
}
