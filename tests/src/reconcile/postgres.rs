//! What Postgres holds.

use anyhow::{Context, Result};
use events::OrderId;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::{
    CAPTURED, CONFLICTS, Column, LINES, MONEY, ORDERS, PIECES, REFUNDED, REFUSED_RECORDED, REPEATS,
    STATUS_EVENTS, STOCK_ALLOCATED, STOCK_BELOW_ZERO, STOCK_RECEIVED, STOCK_RESERVED, UNSERVABLE,
    VERSION_GAPS,
};

/// One number each.
const NUMBERS: &[(&str, &str)] = &[
    (ORDERS, "SELECT count(*) FROM orders"),
    (LINES, "SELECT count(*) FROM order_lines"),
    (PIECES, "SELECT coalesce(sum(quantity), 0)::bigint FROM order_lines"),
    (MONEY, "SELECT coalesce(sum(quantity * unit_price_minor), 0)::bigint FROM order_lines"),
    (STATUS_EVENTS, "SELECT count(*) FROM order_events"),
    (
        VERSION_GAPS,
        "SELECT count(*) FROM (
             SELECT 1 FROM order_events GROUP BY order_id, accepted_at
             HAVING min(version) <> 1 OR max(version) <> count(*)) AS gaps",
    ),
    (
        UNSERVABLE,
        "SELECT count(*) FROM orders o WHERE status = 'rejected' AND EXISTS (
             SELECT 1 FROM order_lines l
             WHERE l.order_id = o.order_id AND l.accepted_at = o.accepted_at AND NOT EXISTS (
                 SELECT 1 FROM stock_levels s
                 WHERE s.merchant = o.merchant AND s.sku = l.sku AND s.on_hand > 0))",
    ),
    (REPEATS, "SELECT count(*) FROM order_repeats WHERE kind = 'duplicate'"),
    (CONFLICTS, "SELECT count(*) FROM order_repeats WHERE kind <> 'duplicate'"),
    (STOCK_RECEIVED, "SELECT coalesce(sum(on_hand), 0)::bigint FROM stock_levels"),
    (STOCK_RESERVED, "SELECT coalesce(sum(reserved), 0)::bigint FROM stock_levels"),
    (STOCK_ALLOCATED, "SELECT coalesce(sum(allocated), 0)::bigint FROM stock_levels"),
    (
        STOCK_BELOW_ZERO,
        "SELECT count(*) FROM stock_levels
         WHERE least(on_hand, reserved, allocated, on_hand - reserved - allocated) < 0",
    ),
    (
        CAPTURED,
        "SELECT coalesce(sum(amount_minor), 0)::bigint FROM ledger_entries WHERE kind = 'capture'",
    ),
    (
        REFUNDED,
        "SELECT coalesce(sum(amount_minor), 0)::bigint FROM ledger_entries WHERE kind = 'refund'",
    ),
];

const STATUSES: &str = "
    SELECT status, count(*), sum(line_count)::bigint, sum(total_minor)::bigint
    FROM orders GROUP BY status";

/// Connects.
///
/// # Errors
/// When Postgres cannot be reached.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("Postgres cannot be reached")?;
    // Ends with the client, whose calls say what went wrong.
    tokio::spawn(connection);
    Ok(client)
}

/// Queries the tables; `refused` are ids that no order may have.
///
/// # Errors
/// When a query fails.
pub async fn column(client: &Client, refused: &[OrderId]) -> Result<Column> {
    let mut column = Column::default();
    for (row, sql) in NUMBERS {
        let answer = client.query_one(*sql, &[]).await.with_context(|| (*sql).to_owned())?;
        column.set(*row, answer.try_get(0)?);
    }
    for row in client.query(STATUSES, &[]).await? {
        column.add_status(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    }
    let ids: Vec<Uuid> = refused.iter().map(|id| id.0).collect();
    let sql = "SELECT count(*) FROM orders WHERE order_id = ANY($1)";
    column.set(REFUSED_RECORDED, client.query_one(sql, &[&ids]).await?.try_get(0)?);
    Ok(column)
}
