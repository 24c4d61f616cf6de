//! A merchant's orders, newest first, page by page.
//!
//! Pages follow keys, (accepted_at, order_id) downwards, so whatever is inserted meanwhile, no order comes twice and none
//! that was there is left out. Filters that no index serves are answered within [`LOOKED_AT`] orders per page: such a
//! page may be short, or empty, and still have a next one. That bounds what one request costs.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use events::Merchant;
use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Database, Unavailable, non_empty, time};

/// Most orders that are looked at for one page.
const LOOKED_AT: i64 = 10_000;

/// Where the page ends at the latest, if [`LOOKED_AT`] orders lie in its range.
static BOUNDARIES: LazyLock<[String; 2]> = LazyLock::new(|| {
    [false, true].map(|customer| {
        let range = range(customer);
        let skipped = LOOKED_AT - 1;
        format!(
            "SELECT accepted_at, order_id {range}
             ORDER BY accepted_at DESC, order_id DESC OFFSET {skipped} LIMIT 1"
        )
    })
});

static PAGES: LazyLock<[String; 2]> = LazyLock::new(|| {
    [false, true].map(|customer| {
        let range = range(customer);
        format!(
            "SELECT accepted_at, order_id, status, reason, version, currency, total_minor, line_count,
                 customer_id, ordered_at, updated_at {range}
               AND ($7::text[] IS NULL OR status = ANY ($7))
               AND ordered_at >= $8 AND ordered_at < $9
             ORDER BY accepted_at DESC, order_id DESC LIMIT $10"
        )
    })
});

/// Orders of a merchant, or of one of its customers, between two keys. Both take the same parameters.
fn range(customer: bool) -> String {
    let customer = if customer { "customer_id = $6" } else { "$6::text IS NULL" };
    format!(
        "FROM orders WHERE merchant = $1 AND {customer}
           AND (accepted_at, order_id) < ($2, $3) AND (accepted_at, order_id) >= ($4, $5)"
    )
}

/// Where an order stands in the list.
pub(crate) type Key = (DateTime<Utc>, Uuid);

/// Which orders, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Before this one.
    pub(crate) upper: Key,
    /// From this one on.
    pub(crate) lower: Key,
    pub(crate) customer_id: Option<String>,
    /// In one of these; all if empty.
    pub(crate) statuses: Vec<&'static str>,
    /// The shop's time: from, and before.
    pub(crate) ordered: (DateTime<Utc>, DateTime<Utc>),
    /// Whether times of the shop bound the list.
    pub(crate) by_ordered: bool,
    /// 1 or more.
    pub(crate) limit: u16,
}

/// A page.
pub(crate) struct Page {
    pub(crate) orders: Vec<Listed>,
    /// Where the next one begins, if there is one.
    pub(crate) next: Option<Key>,
}

/// An order in a list: `GET /v1/orders/{id}` has the rest.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    order_id: String,
    status: String,
    reason: Option<String>,
    version: i32,
    accepted_at: String,
    ordered_at: String,
    updated_at: String,
    customer_id: Option<String>,
    currency: String,
    total_minor: i64,
    line_count: i32,
}

impl Database {
    /// A page of a merchant's orders.
    pub(crate) async fn list(
        &self,
        merchant: &Merchant,
        filter: &Filter,
    ) -> Result<Page, Unavailable> {
        self.with_connection(async |connection| {
            let by_customer = usize::from(filter.customer_id.is_some());
            let merchant = merchant.as_str();
            let mut lower = filter.lower;
            let mut cut = None;
            if !filter.statuses.is_empty() || filter.by_ordered {
                let statement = connection.prepare_cached(&BOUNDARIES[by_customer]).await?;
                let range = bounds(&merchant, filter, &lower);
                cut = connection
                    .query_opt(&statement, &range)
                    .await?
                    .map(|row| key(&row))
                    .transpose()?;
                lower = cut.unwrap_or(lower);
            }
            let statement = connection.prepare_cached(&PAGES[by_customer]).await?;
            let statuses = Some(&filter.statuses).filter(|statuses| !statuses.is_empty());
            let most = i64::from(filter.limit) + 1;
            let (from, to) = filter.ordered;
            let rest: [&(dyn ToSql + Sync); 4] = [&statuses, &from, &to, &most];
            let parameters = [&bounds(&merchant, filter, &lower)[..], &rest[..]].concat();
            let mut rows = connection.query(&statement, &parameters).await?;
            let more = rows.len() > usize::from(filter.limit);
            rows.truncate(usize::from(filter.limit));
            let next = if more { rows.last().map(key).transpose()? } else { cut };
            Ok(Page { orders: rows.iter().map(listed).collect::<Result<_, _>>()?, next })
        })
        .await
    }
}

fn bounds<'a>(
    merchant: &'a &'a str,
    filter: &'a Filter,
    lower: &'a Key,
) -> [&'a (dyn ToSql + Sync); 6] {
    [merchant, &filter.upper.0, &filter.upper.1, &lower.0, &lower.1, &filter.customer_id]
}

fn key(row: &Row) -> Result<Key, tokio_postgres::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn listed(row: &Row) -> Result<Listed, tokio_postgres::Error> {
    Ok(Listed {
        accepted_at: time(row.try_get(0)?),
        order_id: row.try_get::<_, Uuid>(1)?.to_string(),
        status: row.try_get(2)?,
        reason: non_empty(row.try_get(3)?),
        version: row.try_get(4)?,
        currency: row.try_get(5)?,
        total_minor: row.try_get(6)?,
        line_count: row.try_get(7)?,
        customer_id: row.try_get(8)?,
        ordered_at: time(row.try_get(9)?),
        updated_at: time(row.try_get(10)?),
    })
}
