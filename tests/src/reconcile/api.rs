//! What clients see: each order asked for by its id, refusals as they were answered, the clicks
//! that ingest answered at the door.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use events::{Merchant, OrderId};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::Value;

use super::{
    CAPTURED, Column, LINES, MONEY, ORDERS, PIECES, REFUNDED, REFUSED_RECORDED, REPEATS,
    STOCK_ALLOCATED,
};
use crate::invoices::{self, Fault, Invoice};
use crate::replay::Orders;
use crate::shop::Shop;

const CLIENTS: usize = 32;

/// An order as the API shows it; of the rest nothing is counted.
#[derive(Debug, Deserialize)]
struct Order {
    status: String,
    #[serde(default)]
    total_minor: i64,
    #[serde(default)]
    lines: Vec<Line>,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
struct Event {
    status: String,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Line {
    quantity: i64,
}

#[derive(Debug, Deserialize)]
struct Recorded {
    status: u16,
    answer: Value,
}

/// Asks ingest for every invoice of the file by the id it must have, and reads the recorded answers.
///
/// # Errors
/// When ingest does not answer.
pub async fn column(
    shop: &Shop,
    merchant: &Merchant,
    orders: &Orders,
    answers: &Path,
) -> Result<Column> {
    let mut column = Column::default();
    let rows = [ORDERS, LINES, PIECES, MONEY, REFUSED_RECORDED, STOCK_ALLOCATED];
    for row in rows.into_iter().chain([CAPTURED, REFUNDED]) {
        column.set(row, 0);
    }
    let seen = stream::iter(orders.read()?.enumerate())
        .map(async |(n, invoice)| {
            let Invoice { key, .. } = &invoice.as_ref().map_err(|e| anyhow::anyhow!("{e:#}"))?;
            let id = OrderId::derive(merchant, key);
            let answer = shop.get(n, &format!("/v1/orders/{id}")).await?;
            let order = match answer.status.as_u16() {
                404 => None,
                200 => Some(serde_json::from_value::<Order>(answer.body).context("an order")?),
                status => anyhow::bail!("GET of order {id} got {status}: {}", answer.body),
            };
            Ok((invoice?.faults().is_empty(), order))
        })
        .buffer_unordered(CLIENTS);
    seen.try_for_each(|(good, order)| {
        if let Some(order) = order {
            count(&mut column, good, &order);
        }
        std::future::ready(Ok(()))
    })
    .await?;
    column.set(REPEATS, shop.metric("tillroll_orders_replayed_total").await?);
    let file = File::open(answers)?;
    for line in BufReader::new(file).lines() {
        column.add_refused(&reason(&serde_json::from_str(&line?)?));
    }
    Ok(column)
}

fn count(column: &mut Column, good: bool, order: &Order) {
    if !good {
        column.add(REFUSED_RECORDED, 1);
        return;
    }
    let lines = i64::try_from(order.lines.len()).expect("a thousand lines at most");
    let pieces = order.lines.iter().map(|line| line.quantity).sum();
    column.add(ORDERS, 1);
    column.add(LINES, lines);
    column.add(PIECES, pieces);
    column.add(MONEY, order.total_minor);
    column.add_status(&order.status, 1, lines, order.total_minor);
    if order.status == "routed" {
        column.add(STOCK_ALLOCATED, pieces);
    }
    for event in &order.events {
        if event.status == "paid" {
            column.add(CAPTURED, order.total_minor);
        }
        if event.reason.as_deref() == Some("refunded") {
            column.add(REFUNDED, order.total_minor);
        }
    }
}

/// Why ingest refused, in the file's words: from the JSON pointers of its faults.
fn reason(recorded: &Recorded) -> String {
    let Recorded { status, answer } = recorded;
    let pointers = answer["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let faults: Result<BTreeSet<Fault>> =
        pointers.iter().map(|e| fault(e["pointer"].as_str().unwrap_or_default())).collect();
    match faults {
        Ok(faults) if (400..500).contains(status) && !faults.is_empty() => {
            invoices::reason(&faults)
        }
        Err(unexpected) => format!("{status} {unexpected}"),
        Ok(_) => format!("{status} {}", answer["code"].as_str().unwrap_or("without a code")),
    }
}

/// The fault at a JSON pointer of an order.
fn fault(pointer: &str) -> Result<Fault> {
    let known = match pointer.rsplit('/').next().unwrap_or_default() {
        "quantity" => Some(Fault::Quantity),
        "unit_price_minor" => Some(Fault::Price),
        "sku" => Some(Fault::Sku),
        "lines" => Some(Fault::Lines),
        "ordered_at" => Some(Fault::OrderedAt),
        _ => None,
    };
    ensure!(known.is_some(), "at {pointer:?}");
    known.context("checked above")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasons_come_from_the_pointers() {
        let errors = |pointers: &[&str]| {
            let errors: Vec<Value> = pointers.iter().map(|p| json!({ "pointer": p })).collect();
            reason(&Recorded { status: 422, answer: json!({ "errors": errors }) })
        };
        assert_eq!(errors(&["/lines/7/quantity", "/lines/9/quantity"]), "quantity");
        assert_eq!(errors(&["/lines/0/unit_price_minor", "/lines/0/quantity"]), "quantity + price");
        assert_eq!(errors(&["/currency"]), "422 at \"/currency\"");
        let accepted = Recorded { status: 202, answer: json!({ "order_id": "x" }) };
        assert_eq!(reason(&accepted), "202 without a code");
        let conflict = json!({ "code": "idempotency_key_conflict" });
        let conflict = Recorded { status: 422, answer: conflict };
        assert_eq!(reason(&conflict), "422 idempotency_key_conflict");
    }
}
