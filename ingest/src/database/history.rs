//! What has happened to an order, and how far in the log the store has it.

use chrono::{DateTime, Utc};
use events::{Merchant, Millis, OrderId, OrderStatusChanged};

use super::{Database, EVENTS, Event, Unavailable, event, non_empty, time};

/// With the offset before which the store has the order's partition. It is read before the events are, so they have at
/// least what it promises.
const FOUND: &str = "
    SELECT accepted_at, (SELECT next_offset FROM sink_offsets
                         WHERE sink = 'tracking' AND topic = 'order-status' AND \"partition\" = $3)
    FROM orders WHERE order_id = $1 AND merchant = $2 ORDER BY accepted_at DESC LIMIT 1";
const STORED: &str = "
    SELECT \"partition\", next_offset FROM sink_offsets WHERE sink = 'tracking' AND topic = 'order-status'";

/// An order's history as far as the store has it.
pub(crate) struct History {
    /// In versions from 1.
    pub(crate) events: Vec<Event>,
    /// Everything before this offset of the order's partition is among them.
    pub(crate) stored: i64,
}

impl Database {
    /// The history of a merchant's order, whose events stand in this partition; for event streams, which share half of
    /// the connections.
    pub(crate) async fn history(
        &self,
        merchant: &Merchant,
        order_id: OrderId,
        partition: i32,
    ) -> Result<Option<History>, Unavailable> {
        let turn = tokio::time::timeout(self.timeout, self.turns.acquire()).await;
        let turn = turn.map_err(|_| Unavailable("too many event streams read at once".into()))?;
        let _turn = turn.expect("the semaphore is never closed");
        self.with_connection(async |connection| {
            let found = connection.prepare_cached(FOUND).await?;
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                [&order_id.0, &merchant.as_str(), &partition];
            let Some(row) = connection.query_opt(&found, &parameters).await? else {
                return Ok(None);
            };
            let accepted_at: DateTime<Utc> = row.try_get(0)?;
            let stored: Option<i64> = row.try_get(1)?;
            let events = connection.prepare_cached(EVENTS).await?;
            let rows = connection.query(&events, &[&order_id.0, &accepted_at]).await?;
            let events = rows.iter().map(event).collect::<Result<_, _>>()?;
            Ok(Some(History { events, stored: stored.unwrap_or(0) }))
        })
        .await
    }

    /// By partition of `order-status`: what is before this offset is in the store.
    pub(crate) async fn stored(&self) -> Result<Vec<i64>, Unavailable> {
        self.with_connection(async |connection| {
            let statement = connection.prepare_cached(STORED).await?;
            let mut offsets = Vec::new();
            for row in connection.query(&statement, &[]).await? {
                let (partition, next): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
                let partition = usize::try_from(partition).unwrap_or_default();
                if offsets.len() <= partition {
                    offsets.resize(partition + 1, 0);
                }
                offsets[partition] = next;
            }
            Ok(offsets)
        })
        .await
    }
}

impl From<&OrderStatusChanged> for Event {
    /// A change as the store will show it.
    fn from(changed: &OrderStatusChanged) -> Self {
        let refusals = (!changed.refusals.is_empty()).then(|| {
            serde_json::to_value(&changed.refusals)
                .expect("refusals are made of strings and numbers")
        });
        Self {
            version: changed.version,
            status: changed.status.as_str().to_owned(),
            reason: non_empty(changed.reason.to_string()),
            occurred_at: time(moment(changed.occurred_at)),
            refusals,
            accepted_at: moment(changed.accepted_at),
        }
    }
}

fn moment(at: Millis) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at.0).unwrap_or_default()
}

#[cfg(test)]
impl Event {
    /// An event of a made-up order.
    pub(crate) fn sample(version: i32, status: &str, reason: &str) -> Self {
        let at = moment(Millis(1_795_305_600_000));
        Self {
            version,
            status: status.to_owned(),
            reason: non_empty(reason.to_owned()),
            occurred_at: time(at),
            refusals: None,
            accepted_at: at,
        }
    }
}
