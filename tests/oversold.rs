//! A flash sale on the real stack, with a processor killed in the middle: what is set aside is sold, to
//! the last piece and not one more, and nobody gets more than the limit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::{SecondsFormat, TimeDelta, Utc};
use futures::future::try_join_all;
use local::{Service, Stack};
use serde_json::{Value, json};
use tests::reconcile::postgres;
use tests::settle::settle;
use tests::shop::Shop;
use tests::stack::{Instances, System};

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
const ORDERS: usize = 50_000;
const PIECES: i64 = 10_000;
const CLIENTS: usize = 64;
/// Every so many orders are clicked twice.
const REPEATED: usize = 5;
/// How many pieces a customer may have. The first orders are of customers who try for one more than that,
/// so that the limit refuses before the sale is sold out.
const LIMIT: i64 = 2;
const GREEDY: usize = 4_000;
const GREEDY_ORDERS: usize = 3 * GREEDY;
const CUSTOMERS: usize = 20_000;
/// Orders placed before each kill.
const KILLS: [usize; 3] = [3_000, 9_000, 30_000];
const SKU: &str = "CONSOLE";
/// How long nothing may move before the wait for the end is given up.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_flash_sale_sells_exactly_what_there_is() -> Result<()> {
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let shop = Shop::new(system.stack.ingest_urls(), &system.key)?;
    stock(&shop).await?;
    let next = AtomicUsize::new(0);
    let clients = (0..CLIENTS).map(|_| client(&shop, &next));
    let (accepted, ()) = tokio::try_join!(try_join_all(clients), kill(&system, &next))?;
    let accepted: BTreeSet<String> = accepted.into_iter().flatten().collect();
    assert_eq!(accepted.len(), ORDERS, "orders answered 202, repeats under the same id");
    if let Some(left) = settle(&system, u64::try_from(ORDERS)?, PATIENCE, |_| {}).await? {
        system.save_logs(Path::new("target/oversold-logs"))?;
        anyhow::bail!("nothing moves any more: {left}");
    }
    let database = postgres::connect(&system.stack.postgres_url()).await?;
    let rows = database
        .query("SELECT status, reason, customer_id, order_id::text FROM orders", &[])
        .await?;
    let (mut sold, mut reasons) = (BTreeMap::<String, i64>::new(), BTreeMap::<String, i64>::new());
    for row in &rows {
        let (status, reason, id): (&str, &str, String) = (row.get(0), row.get(1), row.get(3));
        ensure!(accepted.contains(&id), "order {id} was never accepted");
        match status {
            "routed" => *sold.entry(row.get(2)).or_default() += 1,
            "rejected" => *reasons.entry(reason.to_owned()).or_default() += 1,
            other => anyhow::bail!("order {id} is {other}"),
        }
    }
    assert_eq!(rows.len(), ORDERS);
    assert_eq!(sold.values().sum::<i64>(), PIECES, "sold; refused: {reasons:?}");
    let most = sold.values().copied().max().unwrap_or_default();
    assert!(most <= LIMIT, "a customer has {most} pieces");
    let refused: i64 = reasons.values().sum();
    assert_eq!(refused, i64::try_from(ORDERS)? - PIECES, "{reasons:?}");
    assert!(reasons.contains_key("customer_limit"), "the limit never mattered: {reasons:?}");
    let level = database
        .query_one("SELECT on_hand, reserved, allocated, set_aside FROM stock_levels", &[])
        .await?;
    let level: [i64; 4] = [level.get(0), level.get(1), level.get(2), level.get(3)];
    assert_eq!(level, [PIECES, 0, PIECES, 0]);
    system.stack.shutdown().await
}

/// The pieces arrive and are set aside for a sale that is on from now on.
async fn stock(shop: &Shop) -> Result<()> {
    let receipt = json!({"lines": [{"sku": SKU, "quantity": PIECES}]});
    let answer = shop.post(0, "/v1/stock/receipts", "receipt", &receipt).await?;
    ensure!(answer.status == 202, "{answer:?}");
    let text = |minutes| {
        (Utc::now() + TimeDelta::minutes(minutes)).to_rfc3339_opts(SecondsFormat::Millis, true)
    };
    let sale = json!({"sku": SKU, "quantity": PIECES, "per_customer": LIMIT,
        "starts_at": text(-1), "ends_at": text(600)});
    let answer = shop.post(0, "/v1/stock/flash-sales", "sale", &sale).await?;
    ensure!(answer.status == 202, "{answer:?}");
    Ok(())
}

/// Places orders until there are enough; the ids that were answered.
async fn client(shop: &Shop, next: &AtomicUsize) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= ORDERS {
            return Ok(ids);
        }
        let clicks = 1 + usize::from(number.is_multiple_of(REPEATED));
        for _ in 0..clicks {
            let key = format!("order-{number}");
            let answer = shop.post(0, "/v1/orders", &key, &order(number)).await?;
            ensure!(answer.status == 202, "{answer:?}");
            ids.push(answer.body["order_id"].as_str().context("an id")?.to_owned());
        }
    }
}

fn order(number: usize) -> Value {
    json!({
        "customer_id": customer(number),
        "currency": "GBP",
        "destination": {
            "name": "A. Buyer", "street": "1 High Street", "city": "Leeds", "postcode": "LS1",
            "country": "GB"
        },
        "lines": [{"sku": SKU, "quantity": 1, "unit_price_minor": 49_900}],
        "ordered_at": "2026-11-27T09:00:00Z",
    })
}

fn customer(number: usize) -> String {
    if number < GREEDY_ORDERS {
        format!("greedy-{}", number % GREEDY)
    } else {
        format!("customer-{}", number % CUSTOMERS)
    }
}

/// kill -9 of the processors while orders come in.
async fn kill(system: &System, next: &AtomicUsize) -> Result<()> {
    for after in KILLS {
        while next.load(Ordering::Relaxed) < after {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for instance in system.stack.instances(Service::Processors) {
            instance.kill().await?;
            instance.restart().await?;
        }
    }
    Ok(())
}
