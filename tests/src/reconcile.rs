//! The reconciliation table: what the file, the API, Kafka, Postgres and ClickHouse each say.
//!
//! Every column is computed by its own query of its own system, in a file of its own:
//! [`file`], [`api`], [`topics`], [`postgres`], [`clickhouse`], [`providers`]. A column knows some rows; a row
//! agrees when all that know it say the same.

pub mod api;
pub mod clickhouse;
pub mod file;
pub mod postgres;
pub mod providers;
pub mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::payments;
use crate::replay::Orders;
use crate::shop::Shop;
use crate::stack::System;

/// The columns, in the order they are printed.
pub const COLUMNS: [&str; WIDTH] =
    ["file", "HTTP API", "orders topic", "Postgres", "ClickHouse", "providers"];
const WIDTH: usize = 6;

/// Distinct orders.
pub const ORDERS: &str = "orders";
/// Their lines.
pub const LINES: &str = "lines";
/// Their pieces.
pub const PIECES: &str = "pieces";
/// Their totals, minor units.
pub const MONEY: &str = "money_minor";
/// Changes of status, all orders together.
pub const STATUS_EVENTS: &str = "status_events";
/// Orders whose versions are not 1, 2, 3, …
pub const VERSION_GAPS: &str = "version_gaps";
/// Orders with a SKU that was never received; in every column but the file's: that are rejected.
pub const UNSERVABLE: &str = "unservable_orders_rejected";
/// Clicks beyond an order's first.
pub const REPEATS: &str = "clicks_repeated";
/// Later records with another payload under an order's key.
pub const CONFLICTS: &str = "conflicts";
/// Bad invoices that are recorded all the same.
pub const REFUSED_RECORDED: &str = "refused_but_recorded";
/// Pieces received.
pub const STOCK_RECEIVED: &str = "stock_received";
/// Pieces bound to orders: those of routed orders.
pub const STOCK_ALLOCATED: &str = "stock_allocated";
/// Pieces still held: none, once every order is routed or rejected.
pub const STOCK_RESERVED: &str = "stock_reserved";
/// SKUs of which more was promised than there is.
pub const STOCK_BELOW_ZERO: &str = "stock_below_zero";
/// Totals of the orders that name payment methods, minor units.
pub const ASKED: &str = "payments_asked_money_minor";
/// Payments that a provider held, minor units.
pub const AUTHORIZED: &str = "payments_authorized_money_minor";
/// Payments that a provider took, given back later or not, minor units.
pub const CAPTURED: &str = "payments_captured_money_minor";
/// Payments that a provider gave back, minor units.
pub const REFUNDED: &str = "payments_refunded_money_minor";

const STATUS: &str = "status.";
const REFUSED: &str = "refused.";

/// Asks every system and compares: `receipts` is what was received of each SKU, `answers` the file
/// that [`crate::replay::send`] wrote.
///
/// # Errors
/// When a system does not answer.
pub async fn everything(
    system: &System,
    shop: &Shop,
    orders: &Orders,
    receipts: BTreeMap<String, i64>,
    answers: &Path,
) -> Result<Table> {
    let (stack, merchant) = (&system.stack, &system.merchant);
    let (read, of_merchant) = (orders.clone(), merchant.clone());
    let (file, refused) = tokio::task::spawn_blocking(move || {
        let column = file::column(&read, &receipts)?;
        Ok::<_, anyhow::Error>((column, file::refused(&read, &of_merchant)?))
    })
    .await??;
    let registry = wire::config::Registry { url: stack.registry_url() };
    let codec = wire::registry::codec(&registry).await?;
    let (brokers, ids) = (stack.brokers(), refused.clone());
    let topics = tokio::task::spawn_blocking(move || topics::column(&brokers, &codec, &ids));
    let client = postgres::connect(&stack.postgres_url()).await?;
    let postgres = postgres::column(&client, &refused).await?;
    let clickhouse = clickhouse::column(&clickhouse::client(&stack.clickhouse_url())).await?;
    let api = api::column(shop, merchant, orders, answers).await?;
    let providers = providers::column(&payments::ledger(stack).await?);
    let columns = [file, api, topics.await??, postgres, clickhouse, providers];
    Ok(Table::new(&columns, shop.doubts()))
}

/// What one system says, by row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column(BTreeMap<String, i64>);

impl Column {
    /// Sets a row.
    pub fn set(&mut self, row: impl Into<String>, value: i64) {
        self.0.insert(row.into(), value);
    }

    /// Adds to a row, which begins at 0.
    pub fn add(&mut self, row: impl Into<String>, value: i64) {
        *self.0.entry(row.into()).or_default() += value;
    }

    /// Adds orders in this status.
    pub fn add_status(&mut self, status: &str, orders: i64, lines: i64, money: i64) {
        self.add(format!("{STATUS}{status}.{ORDERS}"), orders);
        self.add(format!("{STATUS}{status}.{LINES}"), lines);
        self.add(format!("{STATUS}{status}.{MONEY}"), money);
    }

    /// Adds an invoice refused for this reason.
    pub fn add_refused(&mut self, reason: &str) {
        self.add(format!("{REFUSED}{reason}"), 1);
    }

    /// What it says of a row.
    pub fn get(&self, row: &str) -> Option<i64> {
        self.0.get(row).copied()
    }

    /// A column that knows a kind of rows knows those that it doesn't mention: there are none.
    fn cell(&self, row: &str) -> Option<i64> {
        let family = [STATUS, REFUSED].into_iter().find(|prefix| row.starts_with(prefix));
        let knows = |prefix: &str| self.0.keys().any(|key| key.starts_with(prefix));
        self.get(row).or_else(|| family.filter(|prefix| knows(prefix)).map(|_| 0))
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its stable name.
    pub key: String,
    /// What each column says; none where it cannot know.
    pub cells: [Option<i64>; WIDTH],
    /// Whether they say the same.
    pub agrees: bool,
}

/// The whole table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its rows, as printed.
    pub rows: Vec<Row>,
    doubts: i64,
}

impl Table {
    /// Puts columns side by side, in the order of [`COLUMNS`]. `doubts` is how many requests were
    /// repeated because nobody knew whether the first was recorded: each may have made a record.
    pub fn new(columns: &[Column; WIDTH], doubts: u64) -> Self {
        let doubts = i64::try_from(doubts).unwrap_or(i64::MAX);
        let rows = keys(columns)
            .into_iter()
            .map(|key| {
                let cells = columns.each_ref().map(|column| column.cell(&key));
                let agrees = agree(&key, &cells, doubts);
                Row { key, cells, agrees }
            })
            .collect();
        Self { rows, doubts }
    }

    /// Whether every row agrees.
    pub fn agrees(&self) -> bool {
        self.rows.iter().all(|row| row.agrees)
    }

    /// The table as text.
    pub fn text(&self) -> String {
        let header = [&[""], COLUMNS.as_slice(), &[""]].concat();
        let mut lines = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
        for row in &self.rows {
            let cell = |cell: &Option<i64>| match cell {
                None => "–".to_owned(),
                Some(value) if row.key.ends_with(MONEY) => money(*value),
                Some(value) => grouped(*value),
            };
            let mut line = vec![label(&row.key)];
            line.extend(row.cells.iter().map(cell));
            line.push(if row.agrees { "ok" } else { "DIFFERS" }.to_owned());
            lines.push(line);
        }
        let width = |column: usize| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
        let mut text = String::new();
        for line in &lines {
            let first = format!("{:<1$}", line[0], widths[0]);
            let rest: Vec<String> = line[1..]
                .iter()
                .zip(&widths[1..])
                .map(|(cell, width)| format!("{cell:>width$}"))
                .collect();
            let joined = format!("{first}  {}", rest.join("  "));
            text.push_str(joined.trim_end());
            text.push('\n');
        }
        text + &self.notes()
    }

    fn notes(&self) -> String {
        let mut text = String::from(
            "\norders topic: rows by status come from order-status, stock from stock-levels\n\
             clicks beyond the first: in the file = answered at the door (HTTP API) + recorded again\n\
             (orders topic), and each of these is known to Postgres as a duplicate\n\
             payments: the log tells them one by one, API and databases whole orders; providers = their own ledger\n",
        );
        if self.doubts > 0 {
            let _ = writeln!(
                text,
                "{} requests were repeated because their outcome was unknown: each may add a click",
                self.doubts
            );
        }
        text
    }

    /// The table as JSON.
    pub fn json(&self) -> Value {
        const NAMES: [&str; WIDTH] =
            ["file", "http_api", "orders_topic", "postgres", "clickhouse", "providers"];
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let mut object = json!({ "row": row.key });
                for (name, cell) in NAMES.iter().zip(&row.cells) {
                    object[name] = json!(cell);
                }
                object["agrees"] = json!(row.agrees);
                object
            })
            .collect();
        json!({ "agrees": self.agrees(), "outcomes_unknown": self.doubts, "rows": rows })
    }
}

fn agree(key: &str, cells: &[Option<i64>; WIDTH], doubts: i64) -> bool {
    if key == REPEATS {
        let [Some(file), Some(door), Some(topic), Some(postgres), ..] = *cells else {
            return false;
        };
        let known = door + topic;
        return (file..=file.saturating_add(doubts)).contains(&known) && postgres == topic;
    }
    let known: Vec<i64> = cells.iter().flatten().copied().collect();
    // A row that one column alone knows is compared with nothing.
    known.len() >= 2 && known.iter().all(|value| *value == known[0])
}

/// Every row that a column knows, in the order of the table.
fn keys(columns: &[Column; WIDTH]) -> Vec<String> {
    let of_kind = |prefix: &str| {
        let keys = columns.iter().flat_map(|column| column.0.keys());
        keys.filter(|key| key.starts_with(prefix)).cloned().collect::<BTreeSet<String>>()
    };
    let mut keys: Vec<String> = [ORDERS, LINES, PIECES, MONEY].map(str::to_owned).into();
    let statuses: BTreeSet<String> = of_kind(STATUS)
        .iter()
        .filter_map(|key| key.strip_prefix(STATUS)?.split('.').next().map(str::to_owned))
        .collect();
    for status in statuses.iter().rev() {
        for what in [ORDERS, LINES, MONEY] {
            keys.push(format!("{STATUS}{status}.{what}"));
        }
    }
    keys.extend([UNSERVABLE, STATUS_EVENTS, VERSION_GAPS, REPEATS, CONFLICTS].map(str::to_owned));
    keys.extend(of_kind(REFUSED));
    keys.push(REFUSED_RECORDED.to_owned());
    let stock = [STOCK_RECEIVED, STOCK_ALLOCATED, STOCK_RESERVED, STOCK_BELOW_ZERO];
    keys.extend(stock.map(str::to_owned));
    keys.extend([ASKED, AUTHORIZED, CAPTURED, REFUNDED].map(str::to_owned));
    keys
}

fn label(key: &str) -> String {
    let money = |text: &str| text.replace(MONEY, "money, GBP");
    if let Some((status, what)) = key.strip_prefix(STATUS).and_then(|k| k.split_once('.')) {
        return format!("  {status}: {}", money(what));
    }
    if let Some(reason) = key.strip_prefix(REFUSED) {
        return format!("refused: {reason}");
    }
    match key {
        UNSERVABLE => "rejected: a SKU never received",
        STATUS_EVENTS => "changes of status",
        VERSION_GAPS => "orders with a gap in versions",
        REPEATS => "clicks beyond the first",
        CONFLICTS => "same key, other payload",
        REFUSED_RECORDED => "refused but recorded",
        STOCK_RECEIVED => "stock: pieces received",
        STOCK_ALLOCATED => "stock: pieces of routed orders",
        STOCK_RESERVED => "stock: pieces still reserved",
        STOCK_BELOW_ZERO => "stock: SKUs below zero",
        ASKED => "payments: asked for, GBP",
        AUTHORIZED => "payments: authorized, GBP",
        CAPTURED => "payments: captured, GBP",
        REFUNDED => "payments: refunded, GBP",
        other => return money(other),
    }
    .to_owned()
}

/// 1234567 → 1,234,567.
fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

/// Pence → pounds.
fn money(minor: i64) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let minor = minor.unsigned_abs();
    let pounds = grouped(i64::try_from(minor / 100).expect("a hundredth fits"));
    format!("{sign}{pounds}.{:02}", minor % 100)
}

#[cfg(test)]
#[path = "reconcile/table_tests.rs"]
mod tests;
