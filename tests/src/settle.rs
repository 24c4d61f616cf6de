//! Waits until nothing moves any more: every record of `orders` accounted for, every order in a final
//! status in both databases, no lag.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use events::topics::ORDERS;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::lag::Lag;
use crate::payments;
use crate::reconcile::{clickhouse, postgres};
use crate::stack::System;

/// Statuses in which today's flow leaves an order alone.
pub const FINAL: [&str; 5] = ["routed", "rejected", "declined", "cancelled", "expired"];

const KAFKA_ANSWERS: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Settled means that this many looks in a row saw nothing left to do.
const QUIET_LOOKS: u32 = 2;

/// What is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Orders that Postgres shows in a final status.
    pub final_in_postgres: i64,
    /// Orders that ClickHouse shows in a final status.
    pub final_in_clickhouse: i64,
    /// Orders that there should be.
    pub orders: i64,
    /// Records of topic `orders` that Postgres knows neither as an order nor as a repeat.
    pub unaccounted: i64,
    /// Committed records that the processors have yet to take.
    pub processors_lag: u64,
    /// Committed records that the sinks have yet to write.
    pub sinks_lag: u64,
    /// Pieces that are neither free nor bound to an order.
    pub reserved: i64,
    /// Payments that a provider holds but has not taken, and paid orders that ended otherwise whose
    /// refund is not known yet.
    pub payments_open: i64,
}

impl Left {
    fn nothing(&self) -> bool {
        self.final_in_postgres >= self.orders
            && self.final_in_clickhouse >= self.orders
            && self.unaccounted == 0
            && self.processors_lag == 0
            && self.sinks_lag == 0
            && self.reserved == 0
            && self.payments_open == 0
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { final_in_postgres, final_in_clickhouse, orders, .. } = self;
        let Self { unaccounted, processors_lag, sinks_lag, reserved, payments_open, .. } = self;
        write!(
            f,
            "of {orders} orders {final_in_postgres} are final in Postgres and \
             {final_in_clickhouse} in ClickHouse, {unaccounted} records of orders are unaccounted \
             for, {processors_lag} records wait for processors and {sinks_lag} for sinks, {reserved} \
             pieces are reserved, {payments_open} payments are open"
        )
    }
}

/// Waits until `orders` orders are final and everything is at rest. Gives up when nothing changed
/// for `patience`, and returns what is left then. `look` is called with each look.
///
/// # Errors
/// When Kafka or a database does not answer, or an inbox has no reader.
pub async fn settle(
    system: &System,
    orders: u64,
    patience: Duration,
    look: impl Fn(&Left),
) -> Result<Option<Left>> {
    let brokers = system.stack.brokers();
    let kafka: BaseConsumer = wire::client::assigned_consumer(&brokers, "settle").create()?;
    let asked = brokers.clone();
    let partitions = tokio::task::spawn_blocking(move || wire::admin::partitions(&asked)).await??;
    let lag = tokio::task::spawn_blocking(move || Lag::connect(&brokers)).await??;
    let watch = Watch {
        system,
        kafka: Arc::new(kafka),
        partitions,
        lag,
        postgres: postgres::connect(&system.stack.postgres_url()).await?,
        clickhouse: clickhouse::client(&system.stack.clickhouse_url()),
        orders: i64::try_from(orders)?,
    };
    let mut last = Left::default();
    let mut changed = Instant::now();
    let mut quiet = 0;
    loop {
        let left = watch.look().await?;
        look(&left);
        quiet = if left.nothing() { quiet + 1 } else { 0 };
        if quiet == QUIET_LOOKS {
            return Ok(None);
        }
        if left != last {
            changed = Instant::now();
            last = left;
        }
        if changed.elapsed() > patience {
            return Ok(Some(left));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

struct Watch<'a> {
    system: &'a System,
    lag: Lag,
    postgres: tokio_postgres::Client,
    clickhouse: ::clickhouse::Client,
    kafka: Arc<BaseConsumer>,
    partitions: i32,
    orders: i64,
}

impl Watch<'_> {
    async fn look(&self) -> Result<Left> {
        let finals = FINAL.as_slice();
        let row = self
            .postgres
            .query_one(
                "SELECT (SELECT count(*) FROM orders WHERE status = ANY($1)),
                        (SELECT coalesce(sum(reserved), 0)::bigint FROM stock_levels),
                        (SELECT count(*) FROM orders) + (SELECT count(*) FROM order_repeats),
                        (SELECT count(*)
                         FROM orders o JOIN order_events e USING (order_id, accepted_at)
                         WHERE e.status = 'paid' AND o.status IN ('rejected', 'cancelled')
                             AND o.reason <> 'refunded')",
                &[&finals],
            )
            .await?;
        let final_in_clickhouse: u64 = self
            .clickhouse
            .query("SELECT uniqExact(order_id) FROM order_events WHERE status IN ?")
            .bind(finals)
            .fetch_one()
            .await?;
        let payments = payments::ledger(&self.system.stack).await?;
        let held = payments.iter().filter(|payment| payment.state == "authorized").count();
        Ok(Left {
            final_in_postgres: row.try_get(0)?,
            final_in_clickhouse: i64::try_from(final_in_clickhouse)?,
            orders: self.orders,
            unaccounted: self.recorded().await? - row.try_get::<_, i64>(2)?,
            processors_lag: self.lag.of_processors().await?,
            sinks_lag: self.lag.of_sinks(&self.postgres, &self.clickhouse).await?,
            reserved: row.try_get(1)?,
            payments_open: i64::try_from(held)? + row.try_get::<_, i64>(3)?,
        })
    }

    /// Records in topic `orders`, first ones and repeats: as many as its offsets, for nobody writes
    /// transactions to it.
    async fn recorded(&self) -> Result<i64> {
        let consumer = Arc::clone(&self.kafka);
        let partitions = self.partitions;
        tokio::task::spawn_blocking(move || {
            let mut records = 0;
            for partition in 0..partitions {
                let (low, high) =
                    consumer.fetch_watermarks(ORDERS.name, partition, KAFKA_ANSWERS)?;
                records += high - low;
            }
            Ok(records)
        })
        .await?
    }
}
