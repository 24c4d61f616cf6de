//! Reads of the tracking store. Its tables are the sinks'; nothing here writes.

mod history;
mod list;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use events::{Merchant, OrderId, Sku};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_postgres::{NoTls, Row};
use wire::config::Postgres;

use crate::config::Tracking;
pub(crate) use history::History;
pub(crate) use list::{Filter, Key, Listed};

const ORDER: &str = "
    SELECT accepted_at, status, reason, version, currency, total_minor, customer_id, ordered_at,
           updated_at, destination, attributes
    FROM orders WHERE order_id = $1 AND merchant = $2 ORDER BY accepted_at DESC LIMIT 1";
const STATUS: &str = "
    SELECT status FROM orders WHERE order_id = $1 AND merchant = $2 ORDER BY accepted_at DESC LIMIT 1";
const LINES: &str = "
    SELECT line, sku, quantity, unit_price_minor
    FROM order_lines WHERE order_id = $1 AND accepted_at = $2 ORDER BY line";
const EVENTS: &str = "
    SELECT version, status, reason, occurred_at, refusals, accepted_at
    FROM order_events WHERE order_id = $1 AND accepted_at = $2 ORDER BY version";
const CONSIGNMENT: &str = "
    SELECT courier, consignment_id, tracking_number, price_minor, currency, promised_at, attempt
    FROM consignments WHERE order_id = $1 AND accepted_at = $2 ORDER BY version DESC LIMIT 1";
const STOCK: &str = "
    SELECT warehouse, on_hand, reserved, allocated, changed_at, set_aside, missing
    FROM stock_levels WHERE merchant = $1 AND sku = $2 ORDER BY warehouse";

/// The store did not answer; says why, for the log.
#[derive(Debug, thiserror::Error)]
#[error("tracking store does not answer: {0}")]
pub(crate) struct Unavailable(String);

/// An order as its customer sees it.
#[derive(Debug, Serialize)]
pub(crate) struct Order {
    pub(crate) order_id: String,
    status: String,
    reason: Option<String>,
    version: i32,
    accepted_at: String,
    ordered_at: String,
    updated_at: String,
    customer_id: Option<String>,
    currency: String,
    total_minor: i64,
    destination: Option<Value>,
    attributes: Option<Value>,
    lines: Vec<Line>,
    consignment: Option<Consignment>,
    events: Vec<Event>,
}

#[derive(Debug, Serialize)]
struct Line {
    line: i32,
    sku: String,
    quantity: i32,
    unit_price_minor: i64,
}

/// A change of an order's status.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) version: i32,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) occurred_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusals: Option<Value>,
    /// Of its order: tells it from an earlier one with the same id, whose key has expired.
    #[serde(skip)]
    pub(crate) accepted_at: DateTime<Utc>,
}

#[derive(Debug, Serialize)]
struct Consignment {
    courier: String,
    consignment_id: String,
    tracking_number: String,
    price_minor: i64,
    currency: String,
    promised_at: String,
    attempt: i32,
}

/// Stock of a SKU in one warehouse.
#[derive(Debug, Serialize)]
pub(crate) struct Level {
    warehouse: String,
    pub(crate) on_hand: i64,
    pub(crate) reserved: i64,
    pub(crate) allocated: i64,
    pub(crate) available: i64,
    pub(crate) set_aside: i64,
    pub(crate) missing: i64,
    changed_at: String,
}

/// A pool of connections.
#[derive(Clone)]
pub(crate) struct Database {
    pool: Pool,
    /// Reads for event streams take one: thousands of streams that come back at once leave connections to others.
    turns: Arc<Semaphore>,
    timeout: Duration,
}

impl Database {
    /// Makes the pool; connects when first asked.
    pub(crate) fn new(postgres: &Postgres, reads: &Tracking) -> Result<Self> {
        let timeout = Duration::from_millis(reads.timeout_ms);
        // The URL may hold a password, so an error must not quote it.
        let mut address: tokio_postgres::Config =
            postgres.url.parse().ok().context("postgres.url is not a PostgreSQL URL")?;
        address.application_name("tillroll-ingest").connect_timeout(timeout);
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(address, NoTls, manager))
            .max_size(reads.connections)
            .runtime(Runtime::Tokio1)
            .build()
            .context("connection pool cannot be made")?;
        let turns = Arc::new(Semaphore::new(reads.connections.div_ceil(2)));
        Ok(Self { pool, turns, timeout })
    }

    /// A merchant's order.
    pub(crate) async fn order(
        &self,
        merchant: &Merchant,
        order_id: OrderId,
    ) -> Result<Option<Order>, Unavailable> {
        self.with_connection(async |connection| read_order(connection, merchant, order_id).await)
            .await
    }

    /// Where a merchant's order stands; `None` if the sinks have not seen it.
    pub(crate) async fn status(
        &self,
        merchant: &Merchant,
        order_id: OrderId,
    ) -> Result<Option<String>, Unavailable> {
        self.with_connection(async |connection| {
            let statement = connection.prepare_cached(STATUS).await?;
            let row = connection.query_opt(&statement, &[&order_id.0, &merchant.as_str()]).await?;
            row.map(|row| row.try_get(0)).transpose()
        })
        .await
    }

    /// A merchant's stock of a SKU by warehouse; empty if it has never received it.
    pub(crate) async fn stock(
        &self,
        merchant: &Merchant,
        sku: &Sku,
    ) -> Result<Vec<Level>, Unavailable> {
        self.with_connection(async |connection| {
            let statement = connection.prepare_cached(STOCK).await?;
            let rows = connection.query(&statement, &[&merchant.as_str(), &sku.as_str()]).await?;
            rows.iter().map(level).collect()
        })
        .await
    }

    /// Runs a read on a connection, within the time-out. One that didn't answer is not used again.
    async fn with_connection<T>(
        &self,
        read: impl AsyncFnOnce(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Unavailable> {
        let get = tokio::time::timeout(self.timeout, self.pool.get()).await;
        let connection = get
            .map_err(|_| Unavailable("no connection in time".into()))?
            .map_err(|error| Unavailable(describe(&error)))?;
        match tokio::time::timeout(self.timeout, read(&connection)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Unavailable(describe(&error))),
            Err(_) => {
                drop(Object::take(connection));
                Err(Unavailable("no answer in time".into()))
            }
        }
    }
}

/// The error and what caused it: the outermost alone says "db error".
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

async fn read_order(
    connection: &Object,
    merchant: &Merchant,
    order_id: OrderId,
) -> Result<Option<Order>, tokio_postgres::Error> {
    let statement = connection.prepare_cached(ORDER).await?;
    let found = connection.query_opt(&statement, &[&order_id.0, &merchant.as_str()]).await?;
    let Some(row) = found else { return Ok(None) };
    let accepted_at: DateTime<Utc> = row.try_get(0)?;
    let (lines, events, consignment) = futures::try_join!(
        connection.prepare_cached(LINES),
        connection.prepare_cached(EVENTS),
        connection.prepare_cached(CONSIGNMENT),
    )?;
    let key: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&order_id.0, &accepted_at];
    // Sent together, so this is one round trip.
    let (lines, events, consignment) = futures::try_join!(
        connection.query(&lines, &key),
        connection.query(&events, &key),
        connection.query_opt(&consignment, &key),
    )?;
    Ok(Some(Order {
        order_id: order_id.to_string(),
        accepted_at: time(accepted_at),
        status: row.try_get(1)?,
        reason: non_empty(row.try_get(2)?),
        version: row.try_get(3)?,
        currency: row.try_get(4)?,
        total_minor: row.try_get(5)?,
        customer_id: row.try_get(6)?,
        ordered_at: time(row.try_get(7)?),
        updated_at: time(row.try_get(8)?),
        destination: row.try_get(9)?,
        attributes: row.try_get(10)?,
        lines: lines.iter().map(line).collect::<Result<_, _>>()?,
        events: events.iter().map(event).collect::<Result<_, _>>()?,
        consignment: consignment.as_ref().map(read_consignment).transpose()?,
    }))
}

fn line(row: &Row) -> Result<Line, tokio_postgres::Error> {
    Ok(Line {
        line: row.try_get(0)?,
        sku: row.try_get(1)?,
        quantity: row.try_get(2)?,
        unit_price_minor: row.try_get(3)?,
    })
}

fn event(row: &Row) -> Result<Event, tokio_postgres::Error> {
    Ok(Event {
        version: row.try_get(0)?,
        status: row.try_get(1)?,
        reason: non_empty(row.try_get(2)?),
        occurred_at: time(row.try_get(3)?),
        refusals: row.try_get(4)?,
        accepted_at: row.try_get(5)?,
    })
}

fn read_consignment(row: &Row) -> Result<Consignment, tokio_postgres::Error> {
    Ok(Consignment {
        courier: row.try_get(0)?,
        consignment_id: row.try_get(1)?,
        tracking_number: row.try_get(2)?,
        price_minor: row.try_get(3)?,
        currency: row.try_get(4)?,
        promised_at: time(row.try_get(5)?),
        attempt: row.try_get(6)?,
    })
}

fn level(row: &Row) -> Result<Level, tokio_postgres::Error> {
    let (on_hand, reserved, allocated): (i64, i64, i64) =
        (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let (set_aside, missing): (i64, i64) = (row.try_get(5)?, row.try_get(6)?);
    let promised = [reserved, allocated, set_aside, missing];
    Ok(Level {
        warehouse: row.try_get(0)?,
        on_hand,
        reserved,
        allocated,
        // More may be promised than a count has found.
        available: promised.into_iter().fold(on_hand, i64::saturating_sub).max(0),
        set_aside,
        missing,
        changed_at: time(row.try_get(4)?),
    })
}

fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
