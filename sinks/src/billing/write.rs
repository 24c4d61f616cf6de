//! One batch as one transaction: the offset, then what follows from its changes and from what the ledger holds of
//! their orders.
//!
//! The offset comes first, so two owners of a partition queue up behind each other before they read.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use compact_str::CompactString;
use events::{Millis, OrderId, OrderKey, OrderStatusChanged, Record};
use futures::try_join;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement, Transaction};
use uuid::Uuid;
use wire::telemetry::SINK_ROWS;

use super::NAME;
use super::entries::{Entry, Goods, Key, Kind, Known, moves_money};
use crate::deliver::intake::Body;
use crate::postgres::{Batch, Session, Tables};
use crate::retry::Failure;

const ENTRIES_KNOWN: &str = "SELECT order_id, accepted_at, kind, turn, method, reference
    FROM ledger_entries
    WHERE (order_id, accepted_at) IN (SELECT unnest($1::uuid[]), unnest($2::timestamptz[]))";

const GOODS_KNOWN: &str = "SELECT order_id, accepted_at, version, handed_over, occurred_at
    FROM ledger_handovers
    WHERE (order_id, accepted_at) IN (SELECT unnest($1::uuid[]), unnest($2::timestamptz[]))";

const GOODS: &str = "INSERT INTO ledger_handovers
    SELECT unnest($1::uuid[]), unnest($2::timestamptz[]), unnest($3::int[]), unnest($4::bool[]),
        unnest($5::timestamptz[])";

const ENTRIES: &str = "INSERT INTO ledger_entries (order_id, accepted_at, kind, turn, method,
        reference, version, merchant, debit, credit, amount_minor, currency, provider, occurred_at)
    SELECT unnest($1::uuid[]), unnest($2::timestamptz[]), unnest($3::text[]), unnest($4::int[]),
        unnest($5::int[]), unnest($6::text[]), unnest($7::int[]), unnest($8::text[]),
        unnest($9::text[]), unnest($10::text[]), unnest($11::bigint[]), unnest($12::text[]),
        unnest($13::text[]), unnest($14::timestamptz[])";

/// The ledger's tables.
pub(crate) struct Ledger;

/// The statements that run all the time, prepared.
pub(crate) struct Statements {
    entries_known: Statement,
    goods_known: Statement,
    goods: Statement,
    entries: Statement,
}

impl Tables for Ledger {
    const SINK: &'static str = NAME;
    type Statements = Statements;

    async fn prepare(client: &Client) -> Result<Statements, Error> {
        Ok(Statements {
            entries_known: client.prepare(ENTRIES_KNOWN).await?,
            goods_known: client.prepare(GOODS_KNOWN).await?,
            goods: client.prepare(GOODS).await?,
            entries: client.prepare(ENTRIES).await?,
        })
    }

    async fn write(session: &mut Session<Statements>, batch: &Batch<'_>) -> Result<(), Failure> {
        let Session { client, statements, offset_move } = session;
        let mut changes: Vec<&OrderStatusChanged> = Vec::new();
        for Body { record, .. } in batch.records.iter().filter_map(|r| r.body.as_ref().ok()) {
            match record {
                Record::OrderStatusChanged(change) if moves_money(change) => changes.push(change),
                Record::OrderStatusChanged(_) => {}
                other => unreachable!("{:?} is refused by the intake", other.record_type()),
            }
        }
        let transaction = client.transaction().await?;
        if batch.move_offset(&transaction, offset_move, NAME).await? == 0 {
            transaction.rollback().await?;
            return Err(batch.left());
        }
        let written =
            if changes.is_empty() { 0 } else { post(&transaction, statements, changes).await? };
        transaction.commit().await?;
        SINK_ROWS.with_label_values(&[NAME, "ledger_entries"]).inc_by(written);
        Ok(())
    }
}

/// Returns how many entries were written.
async fn post(
    transaction: &Transaction<'_>,
    statements: &Statements,
    changes: Vec<&OrderStatusChanged>,
) -> Result<u64, Failure> {
    let mut orders: Vec<OrderKey> = changes.iter().map(|change| key(change)).collect();
    orders.sort();
    orders.dedup();
    let mut known = known(transaction, statements, &orders).await?;
    let (mut goods, mut entries) = (GoodsColumns::default(), EntryColumns::default());
    for change in changes {
        let news = known.entry(key(change)).or_default().take(change);
        if let Some(new) = news.goods {
            goods.push(change, new);
        }
        news.entries.into_iter().for_each(|entry| entries.push(change, entry));
    }
    goods.insert(transaction, statements).await?;
    Ok(entries.insert(transaction, statements).await?)
}

fn key(change: &OrderStatusChanged) -> OrderKey {
    OrderKey { order_id: change.order_id, accepted_at: change.accepted_at }
}

fn time(at: Millis) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at.0).expect("records outside the calendar are dead letters")
}

/// What the ledger holds of the orders.
async fn known(
    transaction: &Transaction<'_>,
    statements: &Statements,
    orders: &[OrderKey],
) -> Result<BTreeMap<OrderKey, Known>, Failure> {
    let ids: Vec<Uuid> = orders.iter().map(|order| order.order_id.0).collect();
    let times: Vec<DateTime<Utc>> = orders.iter().map(|order| time(order.accepted_at)).collect();
    let parameters: [&(dyn ToSql + Sync); 2] = [&ids, &times];
    let (entries, goods) = try_join!(
        transaction.query(&statements.entries_known, &parameters),
        transaction.query(&statements.goods_known, &parameters),
    )?;
    let mut known = BTreeMap::<OrderKey, Known>::new();
    for row in &entries {
        known.entry(order(row)?).or_default().entries.insert(entry(row)?);
    }
    for row in &goods {
        let goods = Goods { handed_over: row.try_get(3)?, occurred_at: millis(row, 4)? };
        known.entry(order(row)?).or_default().goods.insert(row.try_get(2)?, goods);
    }
    Ok(known)
}

fn order(row: &Row) -> Result<OrderKey, Error> {
    Ok(OrderKey { order_id: OrderId(row.try_get(0)?), accepted_at: millis(row, 1)? })
}

fn millis(row: &Row, column: usize) -> Result<Millis, Error> {
    Ok(Millis(row.try_get::<_, DateTime<Utc>>(column)?.timestamp_millis()))
}

fn entry(row: &Row) -> Result<Key, Failure> {
    let kind: &str = row.try_get(2)?;
    let unknown = || Failure::stop(format!("ledger: an entry of kind {kind}: update this sink"));
    Ok(Key {
        kind: Kind::parse(kind).ok_or_else(unknown)?,
        turn: row.try_get(3)?,
        method: row.try_get(4)?,
        reference: CompactString::from(row.try_get::<_, &str>(5)?),
    })
}

/// Rows of `ledger_handovers`, one array per column.
#[derive(Default)]
struct GoodsColumns {
    order_id: Vec<Uuid>,
    accepted_at: Vec<DateTime<Utc>>,
    version: Vec<i32>,
    handed_over: Vec<bool>,
    occurred_at: Vec<DateTime<Utc>>,
}

impl GoodsColumns {
    fn push(&mut self, change: &OrderStatusChanged, goods: Goods) {
        self.order_id.push(change.order_id.0);
        self.accepted_at.push(time(change.accepted_at));
        self.version.push(change.version);
        self.handed_over.push(goods.handed_over);
        self.occurred_at.push(time(goods.occurred_at));
    }

    async fn insert(
        &self,
        transaction: &Transaction<'_>,
        statements: &Statements,
    ) -> Result<(), Error> {
        if self.order_id.is_empty() {
            return Ok(());
        }
        let columns: [&(dyn ToSql + Sync); 5] = [
            &self.order_id,
            &self.accepted_at,
            &self.version,
            &self.handed_over,
            &self.occurred_at,
        ];
        transaction.execute(&statements.goods, &columns).await?;
        Ok(())
    }
}

/// Rows of `ledger_entries`, one array per column.
#[derive(Default)]
struct EntryColumns<'a> {
    order_id: Vec<Uuid>,
    accepted_at: Vec<DateTime<Utc>>,
    kind: Vec<&'static str>,
    turn: Vec<i32>,
    method: Vec<i32>,
    reference: Vec<CompactString>,
    version: Vec<i32>,
    merchant: Vec<&'a str>,
    debit: Vec<&'static str>,
    credit: Vec<&'static str>,
    amount_minor: Vec<i64>,
    currency: Vec<&'a str>,
    provider: Vec<Option<&'a str>>,
    occurred_at: Vec<DateTime<Utc>>,
}

impl<'a> EntryColumns<'a> {
    fn push(&mut self, order: &'a OrderStatusChanged, entry: Entry<'a>) {
        let Entry { key, version, occurred_at, amount_minor, payment } = entry;
        let (debit, credit) = key.kind.accounts();
        self.order_id.push(order.order_id.0);
        self.accepted_at.push(time(order.accepted_at));
        self.kind.push(key.kind.as_str());
        self.turn.push(key.turn);
        self.method.push(key.method);
        self.reference.push(key.reference);
        self.version.push(version);
        self.merchant.push(order.merchant.as_str());
        self.debit.push(debit);
        self.credit.push(credit);
        self.amount_minor.push(amount_minor);
        self.currency.push(payment.map_or(&order.currency, |fact| &fact.currency).as_str());
        self.provider.push(payment.map(|fact| fact.provider.as_str()));
        self.occurred_at.push(time(occurred_at));
    }

    async fn insert(
        &self,
        transaction: &Transaction<'_>,
        statements: &Statements,
    ) -> Result<u64, Error> {
        if self.order_id.is_empty() {
            return Ok(0);
        }
        let reference: Vec<&str> = self.reference.iter().map(CompactString::as_str).collect();
        transaction
            .execute(
                &statements.entries,
                &[
                    &self.order_id,
                    &self.accepted_at,
                    &self.kind,
                    &self.turn,
                    &self.method,
                    &reference,
                    &self.version,
                    &self.merchant,
                    &self.debit,
                    &self.credit,
                    &self.amount_minor,
                    &self.currency,
                    &self.provider,
                    &self.occurred_at,
                ],
            )
            .await
    }
}
