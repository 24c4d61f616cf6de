//! One batch as one transaction: the offset, then the entries that follow from its changes and from what the
//! ledger holds of their orders.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use compact_str::CompactString;
use events::{Millis, OrderKey, OrderStatusChanged, Record};
use tokio_postgres::{Client, Error, Row, Statement, Transaction};
use uuid::Uuid;
use wire::telemetry::SINK_ROWS;

use super::NAME;
use super::entries::{Entry, Kind, Known, entries, moves_money};
use crate::deliver::intake::Body;
use crate::postgres::{Batch, Session, Tables};
use crate::retry::Failure;

const KNOWN: &str = "SELECT order_id, accepted_at, version, kind, method, reference
    FROM ledger_entries
    WHERE (order_id, accepted_at) IN (SELECT unnest($1::uuid[]), unnest($2::timestamptz[]))
    ORDER BY order_id, accepted_at, version, entry";

/// An entry that is there already follows from the same change.
const ENTRIES: &str =
    "INSERT INTO ledger_entries (order_id, accepted_at, version, entry, merchant, kind,
        debit, credit, amount_minor, currency, provider, method, reference, occurred_at)
    SELECT unnest($1::uuid[]), unnest($2::timestamptz[]), unnest($3::int[]), unnest($4::int[]),
        unnest($5::text[]), unnest($6::text[]), unnest($7::text[]), unnest($8::text[]),
        unnest($9::bigint[]), unnest($10::text[]), unnest($11::text[]), unnest($12::int[]),
        unnest($13::text[]), unnest($14::timestamptz[])
    ON CONFLICT DO NOTHING";

/// The ledger's tables.
pub(crate) struct Ledger;

/// The statements that run all the time, prepared.
pub(crate) struct Statements {
    known: Statement,
    entries: Statement,
}

impl Tables for Ledger {
    const SINK: &'static str = NAME;
    type Statements = Statements;

    async fn prepare(client: &Client) -> Result<Statements, Error> {
        Ok(Statements {
            known: client.prepare(KNOWN).await?,
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
        let written = match changes.is_empty() {
            true => 0,
            false => post(&transaction, statements, changes).await?,
        };
        transaction.commit().await?;
        SINK_ROWS.with_label_values(&[NAME, "ledger_entries"]).inc_by(written);
        Ok(())
    }
}

async fn post(
    transaction: &Transaction<'_>,
    statements: &Statements,
    mut changes: Vec<&OrderStatusChanged>,
) -> Result<u64, Failure> {
    let key = |change: &OrderStatusChanged| OrderKey {
        order_id: change.order_id,
        accepted_at: change.accepted_at,
    };
    // In the order of the primary key; equal ones keep the log's order.
    changes.sort_by_key(|change| (key(change), change.version));
    let mut orders: Vec<OrderKey> = changes.iter().map(|change| key(change)).collect();
    orders.dedup();
    let mut known = known(transaction, statements, &orders).await?;
    let mut columns = Columns::default();
    for change in changes {
        let known = known.entry(key(change)).or_default();
        let new = entries(change, known);
        new.iter().for_each(|entry| columns.push(entry));
        known.extend(new.iter().map(Entry::known));
    }
    Ok(columns.insert(transaction, statements).await?)
}

fn time(at: Millis) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at.0).expect("records outside the calendar are dead letters")
}

async fn known(
    transaction: &Transaction<'_>,
    statements: &Statements,
    orders: &[OrderKey],
) -> Result<BTreeMap<OrderKey, Vec<Known>>, Failure> {
    let ids: Vec<Uuid> = orders.iter().map(|order| order.order_id.0).collect();
    let times: Vec<DateTime<Utc>> = orders.iter().map(|order| time(order.accepted_at)).collect();
    let mut known = BTreeMap::<OrderKey, Vec<Known>>::new();
    for row in transaction.query(&statements.known, &[&ids, &times]).await? {
        let accepted_at: DateTime<Utc> = row.try_get(1)?;
        let accepted_at = Millis(accepted_at.timestamp_millis());
        let order = OrderKey { order_id: events::OrderId(row.try_get(0)?), accepted_at };
        known.entry(order).or_default().push(read(&row)?);
    }
    Ok(known)
}

fn read(row: &Row) -> Result<Known, Failure> {
    let kind: &str = row.try_get(3)?;
    let unknown =
        || Failure::stop(format!("ledger: an entry of kind {kind}: is this a newer one's?"));
    let kind = Kind::parse(kind).ok_or_else(unknown)?;
    let (method, reference): (Option<i32>, Option<&str>) = (row.try_get(4)?, row.try_get(5)?);
    let payment = (method.unwrap_or_default(), CompactString::from(reference.unwrap_or_default()));
    Ok(Known { version: row.try_get(2)?, kind, payment })
}

/// Rows, one array per column.
#[derive(Default)]
struct Columns<'a> {
    order_id: Vec<Uuid>,
    accepted_at: Vec<DateTime<Utc>>,
    version: Vec<i32>,
    entry: Vec<i32>,
    merchant: Vec<&'a str>,
    kind: Vec<&'static str>,
    debit: Vec<&'static str>,
    credit: Vec<&'static str>,
    amount_minor: Vec<i64>,
    currency: Vec<&'a str>,
    provider: Vec<Option<&'a str>>,
    method: Vec<Option<i32>>,
    reference: Vec<Option<&'a str>>,
    occurred_at: Vec<DateTime<Utc>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, entry: &Entry<'a>) {
        let Entry { status, number, kind, amount_minor, payment } = entry;
        let (debit, credit) = kind.accounts();
        self.order_id.push(status.order_id.0);
        self.accepted_at.push(time(status.accepted_at));
        self.version.push(status.version);
        self.entry.push(*number);
        self.merchant.push(status.merchant.as_str());
        self.kind.push(kind.as_str());
        self.debit.push(debit);
        self.credit.push(credit);
        self.amount_minor.push(*amount_minor);
        self.currency.push(payment.map_or(&status.currency, |fact| &fact.currency).as_str());
        self.provider.push(payment.map(|fact| fact.provider.as_str()));
        self.method.push(payment.map(|fact| fact.method));
        self.reference.push(payment.map(|fact| fact.reference.as_str()));
        self.occurred_at.push(time(status.occurred_at));
    }

    async fn insert(
        &self,
        transaction: &Transaction<'_>,
        statements: &Statements,
    ) -> Result<u64, Error> {
        if self.entry.is_empty() {
            return Ok(0);
        }
        transaction
            .execute(
                &statements.entries,
                &[
                    &self.order_id,
                    &self.accepted_at,
                    &self.version,
                    &self.entry,
                    &self.merchant,
                    &self.kind,
                    &self.debit,
                    &self.credit,
                    &self.amount_minor,
                    &self.currency,
                    &self.provider,
                    &self.method,
                    &self.reference,
                    &self.occurred_at,
                ],
            )
            .await
    }
}
