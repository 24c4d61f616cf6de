//! What ClickHouse holds, through the views that analysts use.

use anyhow::{Context, Result};
use clickhouse::{Client, Row};
use serde::Deserialize;

use super::{
    CAPTURED, Column, LINES, MONEY, ORDERS, PIECES, REFUNDED, STATUS_EVENTS, STOCK_ALLOCATED,
    VERSION_GAPS,
};

/// Database of the reports.
pub const DATABASE: &str = "tillroll";

const STATUSES: &str = "
    SELECT toString(status) AS status, count() AS orders, sum(line_count) AS lines,
           sum(pieces) AS pieces, sum(total_minor) AS money, countIf(version != events) AS gaps,
           sum(events) AS changes
    FROM v_orders GROUP BY status ORDER BY status";

/// Minor units each; a time of 1970 was not reached.
const PAID: &[(&str, &str)] = &[
    (CAPTURED, "SELECT sum(total_minor) FROM v_orders WHERE toYear(paid_at) > 1970"),
    (REFUNDED, "SELECT sum(total_minor) FROM v_order_events WHERE reason = 'refunded'"),
];

#[derive(Debug, Row, Deserialize)]
struct ByStatus {
    status: String,
    orders: u64,
    lines: u64,
    pieces: u64,
    money: i64,
    gaps: u64,
    changes: u64,
}

/// A client of the reports' database.
pub fn client(url: &str) -> Client {
    Client::default()
        .with_url(url)
        .with_user(local::clickhouse::READER)
        .with_password(local::clickhouse::READER_PASSWORD)
        .with_database(DATABASE)
}

/// Queries the views.
///
/// # Errors
/// When the query fails.
pub async fn column(client: &Client) -> Result<Column> {
    let mut column = Column::default();
    let rows = [ORDERS, LINES, PIECES, MONEY, STATUS_EVENTS, VERSION_GAPS, STOCK_ALLOCATED];
    for row in rows {
        column.set(row, 0);
    }
    let statuses: Vec<ByStatus> =
        client.query(STATUSES).fetch_all().await.context("ClickHouse does not answer")?;
    for by in statuses {
        let [orders, lines, pieces, gaps, changes] =
            [by.orders, by.lines, by.pieces, by.gaps, by.changes].map(i64::try_from);
        let (orders, lines, pieces) = (orders?, lines?, pieces?);
        column.add(ORDERS, orders);
        column.add(LINES, lines);
        column.add(PIECES, pieces);
        column.add(MONEY, by.money);
        column.add(STATUS_EVENTS, changes?);
        column.add(VERSION_GAPS, gaps?);
        column.add_status(&by.status, orders, lines, by.money);
        if by.status == "routed" {
            column.add(STOCK_ALLOCATED, pieces);
        }
    }
    for (row, sql) in PAID {
        column.set(*row, client.query(sql).fetch_one().await.context(*sql)?);
    }
    Ok(column)
}
