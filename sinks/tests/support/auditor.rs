//! Second opinion: reads the topics from their beginning and the tables in full, and says where they
//! differ. It shares no code with the sinks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clickhouse::Row;
use events::{ORIGIN_HEADER, Origin, Record};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;
use uuid::Uuid;

use super::Bench;
use super::writer::PARTITIONS;

/// (order, accepted at in ms, version) → (status, reason, occurred at in ms, term, sequence).
type Events = BTreeMap<(Uuid, i64, i64), (String, String, i64, i64, i64)>;

/// What the sinks read.
const TOPICS: [&str; 4] = ["order-status", "stock-levels", "order-conflicts", "stock-movements"];

/// What the topics say.
#[derive(Default)]
pub(crate) struct Truth {
    pub(crate) events: Events,
    /// Lines of bodies and consignments, counted.
    lines: i64,
    consignments: i64,
    levels: BTreeMap<String, (i64, i64, i64)>,
    repeats: i64,
    movements: BTreeMap<Uuid, i64>,
    /// Offsets behind the last record, by topic and partition.
    ends: BTreeMap<(String, i32), i64>,
}

/// Reads the topics of the sinks to their ends.
pub(crate) fn truth(bench: &Bench) -> Result<Truth> {
    let consumer: BaseConsumer =
        wire::client::assigned_consumer(&bench.stack.brokers(), "auditor").create()?;
    let mut list = TopicPartitionList::new();
    for topic in TOPICS {
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&list)?;
    let mut truth = Truth::default();
    let mut ended = 0;
    while ended < TOPICS.len() * usize::try_from(PARTITIONS)? {
        let message = match consumer.poll(Duration::from_secs(10)).context("Kafka is silent")? {
            Ok(message) => message,
            Err(KafkaError::PartitionEOF(_)) => {
                ended += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let end = (message.topic().to_owned(), message.partition());
        truth.ends.insert(end, message.offset() + 1);
        let Ok(record) = bench.codec.decode(message.payload().unwrap_or_default()) else {
            continue;
        };
        let header = message.headers().and_then(|h| h.iter().find(|h| h.key == ORIGIN_HEADER));
        let origin: Origin = std::str::from_utf8(header.and_then(|h| h.value).unwrap_or_default())?
            .parse()
            .context("an origin")?;
        truth.take(&record, i64::try_from(origin.term)?, i64::try_from(origin.sequence)?);
    }
    Ok(truth)
}

impl Truth {
    fn take(&mut self, record: &Record, term: i64, sequence: i64) {
        match record {
            Record::OrderStatusChanged(s) => {
                let key = (s.order_id.0, s.accepted_at.0, i64::from(s.version));
                let status = s.status.as_str().to_owned();
                let event = (status, s.reason.to_string(), s.occurred_at.0, term, sequence);
                let known = self.events.insert(key, event.clone());
                match known {
                    None => {
                        self.lines += s.order.as_ref().map_or(0, |o| o.lines.len() as i64);
                        self.consignments += i64::from(s.consignment.is_some());
                    }
                    Some(known) if (known.3, known.4) > (term, sequence) => {
                        self.events.insert(key, known);
                    }
                    Some(_) => {}
                }
            }
            Record::StockLevelChanged(l) => {
                let level = (l.version, l.reserved, l.allocated);
                let slot = self.levels.entry(l.sku.to_string()).or_insert(level);
                *slot = (*slot).max(level);
            }
            Record::OrderRepeated(_) => self.repeats += 1,
            Record::StockMoved(m) => {
                self.movements.insert(m.movement_id, m.quantity);
            }
            _ => {}
        }
    }

    /// The events without those that became dead letters.
    pub(crate) fn without(mut self, orders: &[Uuid]) -> Self {
        self.events.retain(|(order, ..), _| !orders.contains(order));
        self
    }

    /// Compares with PostgreSQL, row by row.
    pub(crate) async fn check_postgres(&self, bench: &Bench) -> Result<()> {
        let client = bench.postgres().await?;
        let events = versions(&client, "order_events", "occurred_at").await?;
        same("order_events in postgres", &self.events, &events)?;
        let newest = versions(&client, "orders", "updated_at").await?;
        same("orders in postgres", &newest_only(&self.events), &newest)?;
        for (table, count) in [
            ("order_lines", self.lines),
            ("consignments", self.consignments),
            ("order_repeats", self.repeats),
            ("stock_levels", i64::try_from(self.levels.len())?),
            ("stock_movements", i64::try_from(self.movements.len())?),
        ] {
            let found = bench.number(&format!("SELECT count(*) FROM {table}")).await?;
            ensure!(found == count, "{table} holds {found} rows, the topics say {count}");
        }
        for row in
            client.query("SELECT sku, version, reserved, allocated FROM stock_levels", &[]).await?
        {
            let (sku, found): (String, _) = (row.get(0), (row.get(1), row.get(2), row.get(3)));
            let expected = self.levels.get(&sku);
            ensure!(expected == Some(&found), "{sku} is {found:?}, should be {expected:?}");
        }
        Ok(())
    }

    /// Whether `sink_offsets` has reached every record.
    pub(crate) async fn postgres_caught_up(&self, bench: &Bench) -> Result<bool> {
        let client = bench.postgres().await?;
        let written = "SELECT topic, \"partition\", next_offset FROM sink_offsets
            WHERE sink = 'tracking'";
        let rows = client.query(written, &[]).await?;
        let offsets: BTreeMap<(String, i32), i64> =
            rows.iter().map(|r| ((r.get(0), r.get(1)), r.get(2))).collect();
        Ok(self.ends.iter().all(|(place, end)| offsets.get(place) == Some(end)))
    }

    /// Whether ClickHouse shows as many versions as there are.
    pub(crate) async fn clickhouse_caught_up(&self, bench: &Bench) -> Result<bool> {
        let distinct = "SELECT uniqExact(order_id, accepted_at, version) FROM order_events";
        let found: u64 = bench.clickhouse().query(distinct).fetch_one().await?;
        let moved = "SELECT uniqExact(movement_id) FROM stock_movements";
        let moved: u64 = bench.clickhouse().query(moved).fetch_one().await?;
        Ok(usize::try_from(found)? >= self.events.len()
            && usize::try_from(moved)? >= self.movements.len())
    }

    /// Compares what analysts see in ClickHouse, row by row.
    pub(crate) async fn check_clickhouse(&self, bench: &Bench) -> Result<()> {
        #[derive(Row, Deserialize)]
        struct Event {
            #[serde(with = "clickhouse::serde::uuid")]
            order_id: Uuid,
            accepted_at: i64,
            version: u32,
            status: String,
            reason: String,
            occurred_at: i64,
            term: u64,
            sequence: u64,
        }
        let rows: Vec<Event> = bench
            .clickhouse()
            .query(
                "SELECT order_id, toUnixTimestamp64Milli(accepted_at) AS accepted_at, version,
                     toString(status) AS status, toString(reason) AS reason,
                     toUnixTimestamp64Milli(occurred_at) AS occurred_at, term, sequence
                 FROM order_events FINAL",
            )
            .fetch_all()
            .await?;
        let count = rows.len();
        let mut found = Events::new();
        for r in rows {
            let (term, sequence) = (i64::try_from(r.term)?, i64::try_from(r.sequence)?);
            let key = (r.order_id, r.accepted_at, i64::from(r.version));
            found.insert(key, (r.status, r.reason, r.occurred_at, term, sequence));
        }
        same("order_events in clickhouse", &self.events, &found)?;
        ensure!(count == found.len(), "{count} rows for {} versions: duplicates", found.len());
        let lines: u64 =
            bench.clickhouse().query("SELECT count() FROM v_order_lines").fetch_one().await?;
        ensure!(
            i64::try_from(lines)? == self.lines,
            "order_lines in clickhouse holds {lines} rows, the topics say {}",
            self.lines
        );
        let moved = "SELECT toInt64(count()), sum(quantity) FROM v_stock_movements";
        let moved: (i64, i64) = bench.clickhouse().query(moved).fetch_one().await?;
        let expected = (i64::try_from(self.movements.len())?, self.movements.values().sum::<i64>());
        ensure!(moved == expected, "movements and pieces in clickhouse {moved:?} of {expected:?}");
        self.check_orders(bench).await
    }

    /// Compares the analysts' view of orders with the newest version of each.
    async fn check_orders(&self, bench: &Bench) -> Result<()> {
        #[derive(Row, Deserialize)]
        struct Order {
            #[serde(with = "clickhouse::serde::uuid")]
            order_id: Uuid,
            accepted_at: i64,
            version: u32,
            status: String,
            reason: String,
            updated_at: i64,
        }
        let rows: Vec<Order> = bench
            .clickhouse()
            .query(
                "SELECT order_id, toUnixTimestamp64Milli(accepted_at) AS accepted_at, version,
                     status, reason, toUnixTimestamp64Milli(updated_at) AS updated_at
                 FROM v_orders",
            )
            .fetch_all()
            .await?;
        let expected = newest_only(&self.events);
        ensure!(
            rows.len() == expected.len(),
            "v_orders shows {} orders of {}",
            rows.len(),
            expected.len()
        );
        for r in rows {
            let of = (r.order_id, r.accepted_at, i64::from(r.version));
            let event = expected.get(&of).with_context(|| format!("{of:?} is not the newest"))?;
            let same = (&event.0, &event.1, event.2) == (&r.status, &r.reason, r.updated_at);
            ensure!(same, "v_orders shows {} {} for {event:?}", r.order_id, r.status);
        }
        Ok(())
    }
}

/// Rows of a table of PostgreSQL that has versions of orders; `time` is when each occurred.
async fn versions(client: &tokio_postgres::Client, table: &str, time: &str) -> Result<Events> {
    let query = format!(
        "SELECT order_id, (extract(epoch FROM accepted_at) * 1000)::bigint, version::bigint,
             status, reason, (extract(epoch FROM {time}) * 1000)::bigint, term, sequence
         FROM {table}"
    );
    let rows = client.query(&query, &[]).await?;
    let rows = rows.iter().map(|r| {
        ((r.get(0), r.get(1), r.get(2)), (r.get(3), r.get(4), r.get(5), r.get(6), r.get(7)))
    });
    Ok(rows.collect())
}

fn newest_only(events: &Events) -> Events {
    let mut newest: BTreeMap<(Uuid, i64), i64> = BTreeMap::new();
    for (order, at, version) in events.keys() {
        newest.insert((*order, *at), *version);
    }
    let keep = |(order, at, version): &(Uuid, i64, i64)| newest[&(*order, *at)] == *version;
    events.iter().filter(|(key, _)| keep(key)).map(|(k, v)| (*k, v.clone())).collect()
}

fn same(what: &str, expected: &Events, found: &Events) -> Result<()> {
    let missing = expected.keys().filter(|key| !found.contains_key(key)).count();
    let extra = found.keys().filter(|key| !expected.contains_key(key)).count();
    let differing =
        expected.iter().find(|(key, event)| found.get(key).is_some_and(|f| f != *event));
    ensure!(
        missing == 0 && extra == 0 && differing.is_none(),
        "{what}: of {} rows {missing} are missing, {extra} are too many, differing: {differing:?} \
         is {:?}",
        expected.len(),
        differing.and_then(|(key, _)| found.get(key))
    );
    Ok(())
}
