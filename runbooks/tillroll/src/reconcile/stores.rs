//! What PostgreSQL and ClickHouse say of stock.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use events::{Merchant, Millis, OrderId, OrderKey, Sku, WarehouseCode};
use machines::stock::{Books, HoldState, Level};
use machines::table::LevelKey;
use serde::Deserialize;
use uuid::Uuid;

use super::drift::Stores;
use crate::moment;
use crate::report::query::Database;
use crate::store::Store;

/// ClickHouse keeps movements for 1,096 days; what is older is not compared.
const REPORTED_MS: i64 = 1_000 * 24 * 60 * 60 * 1000;
/// Orders asked about at once.
const ORDERS: usize = 10_000;

const LEVELS: &str = "
    SELECT merchant, sku, warehouse, version, on_hand, reserved, allocated, set_aside, missing
    FROM stock_levels
    WHERE ($1 = '' OR merchant = $1) AND ($2 = '' OR sku = $2)";
const HISTORY: &str = "
    SELECT merchant, sku, warehouse, sum(quantity)::bigint,
           coalesce(sum(quantity) FILTER (WHERE moved_at >= $3), 0)::bigint
    FROM stock_movements WHERE ($1 = '' OR merchant = $1) AND ($2 = '' OR sku = $2)
    GROUP BY merchant, sku, warehouse";
const STATUSES: &str = "
    SELECT order_id, accepted_at, status FROM orders WHERE order_id = ANY($1)";
const REPORTS: &str = "
    SELECT merchant, sku, warehouse, sum(quantity) FROM v_stock_movements
    WHERE ({merchant:String} = '' OR merchant = {merchant:String})
      AND ({sku:String} = '' OR sku = {sku:String})
      AND moved_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    GROUP BY merchant, sku, warehouse
    FORMAT JSONCompact";

/// What is asked about; empty texts: all.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Scope {
    /// One merchant only
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) merchant: String,
    /// One SKU only
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) sku: String,
}

impl Scope {
    /// Takes everything else out of the books.
    pub(super) fn narrow(&self, books: &mut Books) {
        let wanted = |(merchant, sku, _): &LevelKey| {
            (self.merchant.is_empty() || merchant.as_str() == self.merchant)
                && (self.sku.is_empty() || sku.as_str() == self.sku)
        };
        books.levels.retain(|place, _| wanted(place));
        books.holds.retain(|_, hold| {
            hold.lines.retain(|line| {
                wanted(&(hold.merchant.clone(), line.sku.clone(), line.warehouse.clone()))
            });
            !hold.lines.is_empty()
        });
    }
}

/// Asks both databases.
///
/// # Errors
/// When one of them does not answer, or refuses.
pub(super) async fn ask(database: &Database, scope: &Scope, books: &Books) -> Result<Stores> {
    let store = Store::connect().await?;
    let since = moment::now().plus(-REPORTED_MS);
    let mut stores = Stores::default();
    for row in store.rows(LEVELS, &[&scope.merchant, &scope.sku]).await? {
        let level = Level {
            version: row.get(3),
            on_hand: row.get(4),
            reserved: row.get(5),
            allocated: row.get(6),
            set_aside: row.get(7),
            missing: row.get(8),
            ..Level::default()
        };
        stores.levels.insert(place(row.get(0), row.get(1), row.get(2))?, level);
    }
    let from = DateTime::<Utc>::from_timestamp_millis(since.0).context("a time")?;
    for row in store.rows(HISTORY, &[&scope.merchant, &scope.sku, &from]).await? {
        let sums = (row.get(3), row.get(4));
        stores.history.insert(place(row.get(0), row.get(1), row.get(2))?, sums);
    }
    stores.orders = statuses(&store, books).await?;
    stores.reports = reports(database, scope, since).await?;
    Ok(stores)
}

/// Statuses of the orders that hold something.
async fn statuses(store: &Store, books: &Books) -> Result<BTreeMap<OrderKey, String>> {
    let open = |state| matches!(state, HoldState::Reserved | HoldState::Allocated);
    let holding = books.holds.iter().filter(|(_, hold)| open(hold.state));
    let ids: Vec<Uuid> = holding.map(|((_, order), _)| order.order_id.0).collect();
    let mut statuses = BTreeMap::new();
    for some in ids.chunks(ORDERS) {
        for row in store.rows(STATUSES, &[&some]).await? {
            let accepted: DateTime<Utc> = row.get(1);
            let accepted_at = Millis(accepted.timestamp_millis());
            statuses.insert(OrderKey { order_id: OrderId(row.get(0)), accepted_at }, row.get(2));
        }
    }
    Ok(statuses)
}

#[derive(Deserialize)]
struct Document {
    data: Vec<(String, String, String, i64)>,
}

async fn reports(
    database: &Database,
    scope: &Scope,
    since: Millis,
) -> Result<BTreeMap<LevelKey, i64>> {
    let since = since.0.to_string();
    let parameters = [
        ("output_format_json_quote_64bit_integers", "0"),
        ("param_merchant", scope.merchant.as_str()),
        ("param_sku", &scope.sku),
        ("param_since", &since),
    ];
    let text = database.send(&parameters, REPORTS.to_owned()).await?;
    let answer: Document = serde_json::from_str(&text).context("ClickHouse's answer is no JSON")?;
    let sums = answer.data.into_iter();
    sums.map(|(merchant, sku, at, sum)| Ok((place(&merchant, &sku, &at)?, sum))).collect()
}

fn place(merchant: &str, sku: &str, warehouse: &str) -> Result<LevelKey> {
    let found = || -> Option<LevelKey> {
        let (merchant, sku) = (Merchant::parse(merchant).ok()?, Sku::parse(sku).ok()?);
        Some((merchant, sku, WarehouseCode::parse(warehouse).ok()?))
    };
    found().with_context(|| format!("{merchant}/{sku}/{warehouse} is no place of stock"))
}
