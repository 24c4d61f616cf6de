//! Drift of stock is found by its kind and corrected by recorded events: a movement that nothing moved, a
//! row that somebody changed, pieces held for an order that nobody knows.

use anyhow::{Context as _, Result, ensure};
use events::{
    Merchant, Millis, MovementKind, OrderId, ReserveLine, ReserveLines, Sku, StockMoved,
    WarehouseCode, topics,
};
use serde_json::{Value, json};
use tests::reconcile::{clickhouse, postgres};
use tests::shop::Shop;
use tests::stack::{MERCHANT, System};
use uuid::Uuid;
use wire::config::Registry;

use super::{PARTITIONS, producer, send, tillroll, until};

const SKU: &str = "DRIFTS";

pub(super) async fn reconciled(system: &System) -> Result<()> {
    let shop = Shop::new(system.stack.ingest_urls(), &system.key)?;
    let receipt = json!({"lines": [{"sku": SKU, "quantity": 5}]});
    let answer = shop.post(0, "/v1/stock/receipts", "drifts", &receipt).await?;
    ensure!(answer.status == 202, "{answer:?}");
    until(system, &["lag", "--max-records", "0"], 0).await?;
    let everything = ["reconcile", "--json"];
    let looked = until(system, &everything, 0).await?.json()?;
    ensure!(looked["drift"] == json!([]), "{looked:#}");

    drift(system).await?;
    let found = tillroll(system, &["reconcile", "--sku", SKU, "--json"]).await?.ended(1)?.json()?;
    let kinds = [
        json!(["level", "allocated", 0, 3]),
        json!(["history", "on_hand", 5, 7]),
        json!(["unknown_order", "reserved", 1, 0]),
    ];
    ensure!(told(&found) == kinds, "{found:#}");
    let unsigned = tillroll(system, &["reconcile", "--apply"]).await?.ended(2)?;
    ensure!(unsigned.messages.contains("--because"), "{}", unsigned.messages);

    let apply = ["reconcile", "--apply", "--because", "a test", "--by", "ada@ops", "--json"];
    let applied = tillroll(system, &apply).await?.ended(0)?.json()?;
    ensure!(told(&applied) == kinds && applied["left"] == 0, "{applied:#}");
    tillroll(system, &everything).await?.ended(0)?;
    recorded(system).await
}

fn told(answer: &Value) -> Vec<Value> {
    let all = answer["drift"].as_array().into_iter().flatten();
    all.map(|d| json!([d["kind"], d["count"], d["expected"], d["found"]])).collect()
}

/// Makes all three.
async fn drift(system: &System) -> Result<()> {
    let registry = Registry { url: system.stack.registry_url() };
    let codec = wire::registry::codec(&registry).await?;
    let producer = producer(system)?;
    let (merchant, sku) = (Merchant::parse(MERCHANT)?, Sku::parse(SKU)?);
    let key = topics::stock_key(&merchant, &sku);
    let partition = topics::partition_for(key.as_bytes(), PARTITIONS);
    let held = ReserveLines {
        order_id: OrderId::derive(&merchant, "nobody's"),
        // Long enough ago that its record is gone.
        accepted_at: Millis(1_700_000_000_000),
        merchant: merchant.clone(),
        attempt: 1,
        warehouses: vec![WarehouseCode::MAIN],
        lines: vec![ReserveLine { line: 1, sku: sku.clone(), quantity: 1 }],
        customer_id: None,
    };
    let held = codec.to_bytes(&held.into());
    send(&producer, topics::STOCK.name, partition, key.as_bytes(), held, None).await?;
    let moved = StockMoved {
        movement_id: Uuid::from_u128(1),
        merchant,
        sku,
        warehouse: WarehouseCode::MAIN,
        kind: MovementKind::Adjustment,
        quantity: 2,
        on_hand: 7,
        source_id: Uuid::from_u128(2),
        reason: "never happened".into(),
        requested_by: "nobody".into(),
        moved_at: Millis(1_795_262_400_000),
    };
    let moved = codec.to_bytes(&moved.into());
    send(&producer, topics::STOCK_MOVEMENTS.name, partition, key.as_bytes(), moved, None).await?;
    until(system, &["lag", "--max-records", "0"], 0).await?;
    let tracking = postgres::connect(&system.stack.postgres_url()).await?;
    let changed = "UPDATE stock_levels SET allocated = 3 WHERE sku = 'DRIFTS' AND reserved = 1 AND on_hand = 5";
    ensure!(tracking.execute(changed, &[]).await? == 1, "no level to change");
    Ok(())
}

/// Both histories say what was set right, by whom and why.
async fn recorded(system: &System) -> Result<()> {
    let tracking = postgres::connect(&system.stack.postgres_url()).await?;
    let row = tracking
        .query_one(
            "SELECT quantity, reason, requested_by FROM stock_movements
             WHERE sku = 'DRIFTS' AND kind = 'reconciliation'",
            &[],
        )
        .await?;
    let signed: (i64, &str, &str) = (row.get(0), row.get(1), row.get(2));
    ensure!(signed == (-2, "a test", "ada@ops"), "{signed:?}");
    let sum = "SELECT sum(quantity) FROM v_stock_movements WHERE sku = 'DRIFTS'";
    let reports = clickhouse::client(&system.stack.clickhouse_url());
    let reported: i64 = reports.query(sum).fetch_one().await.context("ClickHouse")?;
    ensure!(reported == 5, "{reported} pieces in ClickHouse");
    Ok(())
}
