//! The stock API of `api.rs`: what its POSTs record, and how often.

use anyhow::Result;
use chrono::{TimeDelta, Utc};
use events::Record;
use serde_json::{Value, json};

use crate::support::{PARTITIONS, World};

pub(crate) async fn receipts(world: &World) -> Result<()> {
    let body = json!({"lines": [
        {"sku": "85123A", "quantity": 10}, {"sku": "71053", "quantity": 5},
        {"sku": "85123A", "quantity": 2},
    ], "reason": "purchase order 4711"});
    let accepted = world.post(0, "/v1/stock/receipts", "r1", &body).await?;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!((&accepted.body["warehouse"], &accepted.body["skus"]), (&json!("main"), &json!(2)));
    let again = world.post(0, "/v1/stock/receipts", "r1", &body).await?;
    assert_eq!((again.status, again.replayed()), (202, true));
    assert_eq!(again.body, accepted.body);
    let other = json!({"lines": [{"sku": "85123A", "quantity": 1}]});
    let refused = world.post(0, "/v1/stock/receipts", "r1", &other).await?;
    assert_eq!((refused.status, refused.code()), (422, "idempotency_key_conflict"));
    let mut pieces: Vec<(String, i32)> = world
        .records("stock")?
        .into_iter()
        .map(|record| match record {
            Record::StockReceived(received) => {
                assert_eq!(received.reason, "purchase order 4711");
                assert!(!received.requested_by.is_empty(), "who");
                (received.sku.to_string(), received.quantity)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    pieces.sort();
    assert_eq!(pieces, [("71053".into(), 5), ("85123A".into(), 12)]);
    // The largest receipt there is.
    let lines: Vec<Value> =
        (0..1000).map(|n| json!({"sku": format!("SKU{n}"), "quantity": 1})).collect();
    let largest = world.post(1, "/v1/stock/receipts", "r2", &json!({"lines": lines})).await?;
    assert_eq!((largest.status, &largest.body["skus"]), (202, &json!(1000)), "{largest:?}");
    assert_eq!(world.records("stock")?.len(), 1002);
    Ok(())
}

/// Every other POST of the stock API: once per key, another body under it is a conflict, and the records say whose
/// request they are.
pub(crate) async fn requests(world: &World) -> Result<()> {
    let hours = |hours| (Utc::now() + TimeDelta::hours(hours)).to_rfc3339();
    let sale = json!({"sku": "85123A", "quantity": 5, "starts_at": hours(1), "ends_at": hours(2)});
    let count = json!({"lines": [{"sku": "85123A", "quantity": 9}]});
    let east = json!({"warehouse": "east"});
    for (path, body, changed) in [
        ("/v1/stock/counts", &count, ("warehouse", json!("east"))),
        ("/v1/stock/flash-sales", &sale, ("quantity", json!(6))),
        ("/v1/warehouses", &east, ("online", json!(false))),
    ] {
        let accepted = world.post(0, path, "s1", body).await?;
        assert_eq!(
            (accepted.status, &accepted.body["status"]),
            (202, &json!("recorded")),
            "{path}"
        );
        let again = world.post(0, path, "s1", body).await?;
        assert_eq!((again.status, again.replayed(), &again.body), (202, true, &accepted.body));
        let mut other = body.clone();
        other[changed.0] = changed.1;
        let refused = world.post(0, path, "s1", &other).await?;
        let told = (refused.status, refused.code());
        assert_eq!(told, (422, "idempotency_key_conflict"), "{path}");
    }
    let (mut sales, mut listings) = (0, 0);
    for record in world.records("stock")? {
        match record {
            Record::FlashSaleScheduled(sale) => {
                assert!(!sale.requested_by.is_empty());
                assert_eq!((sale.quantity, sale.per_customer), (5, 0));
                sales += 1;
            }
            Record::WarehouseListed(listed) => {
                assert!(listed.online && listed.listed_at.0 > 0 && !listed.requested_by.is_empty());
                listings += 1;
            }
            _ => {}
        }
    }
    assert_eq!((sales, listings), (1, PARTITIONS));
    Ok(())
}
