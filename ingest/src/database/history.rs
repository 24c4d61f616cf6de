//! What has happened to an order, and how far in the log the store has it.

use chrono::{DateTime, Utc};
use deadpool_postgres::Object;
use events::{Merchant, Millis, OrderId, OrderStatusChanged};

use super::{Database, EVENTS, Event, Unavailable, event, non_empty, time};

const ACCEPTED: &str = "
    SELECT accepted_at FROM orders WHERE order_id = $1 AND merchant = $2 ORDER BY accepted_at DESC LIMIT 1";
const STORED_IN: &str = "
    SELECT next_offset FROM sink_offsets
    WHERE sink = 'tracking' AND topic = 'order-status' AND \"partition\" = $1";
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
    /// The events of a merchant's order in versions from 1; `None` if the sinks have not seen it.
    pub(crate) async fn events(
        &self,
        merchant: &Merchant,
        order_id: OrderId,
    ) -> Result<Option<Vec<Event>>, Unavailable> {
        self.with_connection(async |connection| events(connection, merchant, order_id).await).await
    }

    /// The same, and how far the store has this partition of the log, in which they stand; for event streams, which share
    /// half of the connections.
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
            // Before the events are read, so that they have at least what it promises.
            let statement = connection.prepare_cached(STORED_IN).await?;
            let stored = connection.query_opt(&statement, &[&partition]).await?;
            let stored = stored.map_or(Ok(0), |row| row.try_get(0))?;
            let events = events(connection, merchant, order_id).await?;
            Ok(events.map(|events| History { events, stored }))
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

async fn events(
    connection: &Object,
    merchant: &Merchant,
    order_id: OrderId,
) -> Result<Option<Vec<Event>>, tokio_postgres::Error> {
    let accepted = connection.prepare_cached(ACCEPTED).await?;
    let found = connection.query_opt(&accepted, &[&order_id.0, &merchant.as_str()]).await?;
    let Some(row) = found else { return Ok(None) };
    let accepted_at: DateTime<Utc> = row.try_get(0)?;
    let events = connection.prepare_cached(EVENTS).await?;
    let rows = connection.query(&events, &[&order_id.0, &accepted_at]).await?;
    rows.iter().map(event).collect::<Result<_, _>>().map(Some)
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
