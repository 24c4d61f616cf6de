//! One batch as one transaction.
//!
//! The statements are sent without waiting for each other's answers. The first one moves the offset:
//! it also makes two owners of a partition queue up behind each other before they touch any row.
//!
//! Rows that are written once are inserted as if none of them were there. Where one is (a version
//! came twice, a record was redriven, another owner was faster), PostgreSQL refuses the transaction,
//! and it is made again with inserts that expect it.

mod stock;

use events::{
    OrderRepeated, OrderStatus, OrderStatusChanged, Record, StockLevelChanged, StockMoved,
};
use futures::future::{OptionFuture, try_join};
use futures::try_join;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Transaction};
use wire::telemetry::{RESERVATION_SECONDS, SINK_CONFLICTS, SINK_ROWS};

use super::NAME;
use super::rows::{
    ConsignmentColumns, EventColumns, LineColumns, OrderColumns, RepeatColumns, Versions, Written,
};
use super::statements::{EVENTS_DIFFERING, EVENTS_SETTLE, Inserts, ORDERS_FILL, Statements};
use crate::deliver;
use crate::deliver::intake::{Body, Received};
use crate::postgres::{Batch, Session, Tables};
use crate::retry::Failure;

/// The tables of live state and history.
pub(crate) struct Live;

impl Tables for Live {
    const SINK: &'static str = NAME;
    type Statements = Statements;

    async fn prepare(client: &Client) -> Result<Statements, Error> {
        Statements::prepare(client).await
    }

    async fn write(session: &mut Session<Statements>, batch: &Batch<'_>) -> Result<(), Failure> {
        transaction(session, batch).await
    }
}

/// Rows per table, counted once the transaction is through.
#[derive(Default)]
struct Counts {
    rows: [(&'static str, u64); 4],
    conflicts: u64,
}

/// Writes a batch and moves its partition's offset.
///
/// # Errors
/// `Reopen` when the offset isn't where it was thought to be; else as PostgreSQL's error asks.
async fn transaction(session: &mut Session<Statements>, batch: &Batch<'_>) -> Result<(), Failure> {
    let counts = match attempt(session, batch, None).await {
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            let careful = Inserts::careful(&session.client).await?;
            attempt(session, batch, Some(&careful)).await?
        }
        outcome => outcome?,
    };
    let Some(counts) = counts else { return Err(batch.left()) };
    for (table, rows) in counts.rows.into_iter().filter(|(_, rows)| *rows > 0) {
        SINK_ROWS.with_label_values(&[NAME, table]).inc_by(rows);
    }
    if counts.conflicts > 0 {
        SINK_CONFLICTS.with_label_values(&[NAME]).inc_by(counts.conflicts);
        let (place, conflicts) = (batch.place, counts.conflicts);
        tracing::error!(%place, conflicts, "versions of orders came twice with other content");
    }
    observe_reservations(batch.records);
    Ok(())
}

/// How long orders waited to hear whether their lines are theirs: what version 2 says, unless a cancel
/// was faster.
fn observe_reservations(records: &[Received]) {
    for body in records.iter().filter_map(|r| r.body.as_ref().ok()) {
        if let Record::OrderStatusChanged(status) = &body.record
            && status.version == 2
            && matches!(status.status, OrderStatus::Reserved | OrderStatus::Rejected)
        {
            let took = deliver::seconds(status.accepted_at, status.occurred_at);
            RESERVATION_SECONDS.with_label_values(&[status.status.as_str()]).observe(took);
        }
    }
}

/// One try, by `inserts` or else by those for rows that aren't there; `None` when the offset isn't
/// where it was thought to be, and nothing was written.
async fn attempt(
    session: &mut Session<Statements>,
    batch: &Batch<'_>,
    inserts: Option<&Inserts>,
) -> Result<Option<Counts>, Error> {
    let Session { client, statements, offset_move } = session;
    let inserts = inserts.unwrap_or(&statements.fresh);
    let transaction = client.transaction().await?;
    let (moved, counts) = try_join(
        batch.move_offset(&transaction, offset_move, NAME),
        write(&transaction, statements, inserts, batch.records),
    )
    .await?;
    if moved == 0 {
        transaction.rollback().await?;
        return Ok(None);
    }
    transaction.commit().await?;
    Ok(Some(counts))
}

async fn write(
    transaction: &Transaction<'_>,
    statements: &Statements,
    inserts: &Inserts,
    records: &[Received],
) -> Result<Counts, Error> {
    let mut statuses: Vec<Written<'_, OrderStatusChanged>> = Vec::new();
    let mut levels: Vec<&StockLevelChanged> = Vec::new();
    let mut repeats: Vec<&OrderRepeated> = Vec::new();
    let mut movements: Vec<&StockMoved> = Vec::new();
    for Body { record, origin } in records.iter().filter_map(|r| r.body.as_ref().ok()) {
        match record {
            Record::OrderStatusChanged(status) => statuses.push((status, *origin)),
            Record::StockLevelChanged(level) => levels.push(level),
            Record::OrderRepeated(repeat) => repeats.push(repeat),
            Record::StockMoved(moved) => movements.push(moved),
            // An event for whoever wants to hear of it, no part of the history.
            Record::StockRanLow(_) => {}
            other => unreachable!("{:?} is refused by the intake", other.record_type()),
        }
    }
    // A partition is of one topic, so at most one of these has rows.
    let mut counts = Counts::default();
    if !statuses.is_empty() {
        counts = write_statuses(transaction, statements, inserts, statuses).await?;
    }
    if !levels.is_empty() {
        let rows = stock::levels(transaction, statements, &levels).await?;
        counts.rows[0] = ("stock_levels", rows);
    }
    if !repeats.is_empty() {
        let rows = write_repeats(transaction, statements, &repeats).await?;
        counts.rows[0] = ("order_repeats", rows);
    }
    if !movements.is_empty() {
        let rows = stock::movements(transaction, statements, &movements).await?;
        counts.rows[0] = ("stock_movements", rows);
    }
    Ok(counts)
}

async fn write_statuses(
    transaction: &Transaction<'_>,
    statements: &Statements,
    inserts: &Inserts,
    statuses: Vec<Written<'_, OrderStatusChanged>>,
) -> Result<Counts, Error> {
    let versions = Versions::of(statuses);
    let events = EventColumns::of(&versions);
    let orders = OrderColumns::of(&versions);
    let lines = LineColumns::of(&versions);
    let consignments = ConsignmentColumns::of(&versions);
    let (new_events, changed_orders, new_lines, new_consignments) = try_join!(
        insert_events(transaction, inserts, &events),
        upsert_orders(transaction, statements, &orders),
        optional(!lines.line.is_empty(), insert_lines(transaction, inserts, &lines)),
        optional(
            !consignments.version.is_empty(),
            insert_consignments(transaction, inserts, &consignments)
        ),
    )?;
    let mut conflicts = versions.conflicts;
    if new_events < count(&events.version) {
        conflicts += settle_events(transaction, &events).await?;
    }
    if changed_orders < count(&orders.version) {
        fill_orders(transaction, &orders).await?;
    }
    let rows = [
        ("order_events", new_events),
        ("orders", changed_orders),
        ("order_lines", new_lines),
        ("consignments", new_consignments),
    ];
    Ok(Counts { rows, conflicts })
}

fn count<T>(column: &[T]) -> u64 {
    u64::try_from(column.len()).expect("a batch is small")
}

/// Zero rows without asking the server where there is nothing to write.
async fn optional(
    wanted: bool,
    statement: impl Future<Output = Result<u64, Error>>,
) -> Result<u64, Error> {
    OptionFuture::from(wanted.then_some(statement)).await.unwrap_or(Ok(0))
}

async fn insert_events(
    transaction: &Transaction<'_>,
    inserts: &Inserts,
    rows: &EventColumns<'_>,
) -> Result<u64, Error> {
    transaction
        .execute(
            &inserts.events,
            &[
                &rows.order_id,
                &rows.accepted_at,
                &rows.version,
                &rows.merchant,
                &rows.status,
                &rows.reason,
                &rows.occurred_at,
                &rows.term,
                &rows.sequence,
                &rows.refusals,
            ],
        )
        .await
}

async fn upsert_orders(
    transaction: &Transaction<'_>,
    statements: &Statements,
    rows: &OrderColumns<'_>,
) -> Result<u64, Error> {
    transaction
        .execute(
            &statements.orders,
            &[
                &rows.order_id,
                &rows.accepted_at,
                &rows.version,
                &rows.merchant,
                &rows.status,
                &rows.reason,
                &rows.updated_at,
                &rows.term,
                &rows.sequence,
                &rows.currency,
                &rows.total_minor,
                &rows.line_count,
                &rows.ordered_at,
                &rows.customer_id,
                &rows.destination,
                &rows.attributes,
            ],
        )
        .await
}

async fn insert_lines(
    transaction: &Transaction<'_>,
    inserts: &Inserts,
    rows: &LineColumns<'_>,
) -> Result<u64, Error> {
    transaction
        .execute(
            &inserts.lines,
            &[
                &rows.order_id,
                &rows.accepted_at,
                &rows.line,
                &rows.sku,
                &rows.quantity,
                &rows.unit_price_minor,
            ],
        )
        .await
}

async fn insert_consignments(
    transaction: &Transaction<'_>,
    inserts: &Inserts,
    rows: &ConsignmentColumns<'_>,
) -> Result<u64, Error> {
    transaction
        .execute(
            &inserts.consignments,
            &[
                &rows.order_id,
                &rows.accepted_at,
                &rows.version,
                &rows.courier,
                &rows.consignment_id,
                &rows.tracking_number,
                &rows.price_minor,
                &rows.currency,
                &rows.promised_at,
                &rows.attempt,
                &rows.term,
                &rows.sequence,
            ],
        )
        .await
}

/// Some versions were there already. Where they say something else, the later batch's counts;
/// returns how many differ.
async fn settle_events(
    transaction: &Transaction<'_>,
    rows: &EventColumns<'_>,
) -> Result<u64, Error> {
    let differing = transaction
        .query_one(
            EVENTS_DIFFERING,
            &[
                &rows.order_id,
                &rows.accepted_at,
                &rows.version,
                &rows.merchant,
                &rows.status,
                &rows.reason,
                &rows.occurred_at,
                &rows.refusals,
            ],
        )
        .await?;
    let differing: i64 = differing.get(0);
    if differing > 0 {
        transaction
            .execute(
                EVENTS_SETTLE,
                &[
                    &rows.order_id,
                    &rows.accepted_at,
                    &rows.version,
                    &rows.merchant,
                    &rows.status,
                    &rows.reason,
                    &rows.occurred_at,
                    &rows.refusals,
                    &rows.term,
                    &rows.sequence,
                ],
            )
            .await?;
    }
    Ok(differing.unsigned_abs())
}

async fn fill_orders(transaction: &Transaction<'_>, rows: &OrderColumns<'_>) -> Result<u64, Error> {
    transaction
        .execute(
            ORDERS_FILL,
            &[
                &rows.order_id,
                &rows.accepted_at,
                &rows.customer_id,
                &rows.destination,
                &rows.attributes,
            ],
        )
        .await
}

async fn write_repeats(
    transaction: &Transaction<'_>,
    statements: &Statements,
    repeats: &[&OrderRepeated],
) -> Result<u64, Error> {
    let rows = RepeatColumns::of(repeats.iter().copied());
    transaction
        .execute(
            &statements.repeats,
            &[
                &rows.order_id,
                &rows.accepted_at,
                &rows.merchant,
                &rows.kind,
                &rows.fingerprint,
                &rows.repeated_at,
                &rows.source_partition,
                &rows.source_offset,
            ],
        )
        .await
}
