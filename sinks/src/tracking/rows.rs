//! Pure: records → columns, sorted by key; the newest only where a table holds the newest.
//!
//! Sorting makes every transaction lock rows in one order, so that none waits for another in a ring,
//! and puts neighbours of an index page side by side.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use compact_str::CompactString;
use events::{
    Destination, LineRefusal, Millis, OrderPlaced, OrderRepeated, OrderStatusChanged, RepeatKind,
    StockLevelChanged, StockMoved,
};
use tokio_postgres::types::Json;
use uuid::Uuid;

/// A record, and term and sequence of the batch that wrote it.
pub(super) type Written<'a, T> = (&'a T, (i64, i64));

type Time = DateTime<Utc>;

fn time(at: Millis) -> Time {
    DateTime::from_timestamp_millis(at.0).expect("records outside the calendar are dead letters")
}

/// The identity of a version of an order.
fn identity(status: &OrderStatusChanged) -> (Uuid, Millis, i32) {
    (status.order_id.0, status.accepted_at, status.version)
}

/// Whether two records say the same about one version, as far as the history shows it.
fn same(a: &OrderStatusChanged, b: &OrderStatusChanged) -> bool {
    (&a.merchant, a.status, &a.reason, a.occurred_at, &a.refusals)
        == (&b.merchant, b.status, &b.reason, b.occurred_at, &b.refusals)
}

/// Versions in key order, one record each: the one of the highest (term, sequence).
pub(super) struct Versions<'a> {
    pub(super) rows: Vec<Written<'a, OrderStatusChanged>>,
    /// How many records were dropped that said something else about their version.
    pub(super) conflicts: u64,
}

impl<'a> Versions<'a> {
    pub(super) fn of(mut records: Vec<Written<'a, OrderStatusChanged>>) -> Self {
        // Equal ones keep the log's order: the first stays.
        records.sort_by_key(|(status, origin)| (identity(status), std::cmp::Reverse(*origin)));
        let mut conflicts = 0;
        records.dedup_by(|later, first| {
            let repeated = identity(later.0) == identity(first.0);
            if repeated && !same(later.0, first.0) {
                conflicts += 1;
            }
            repeated
        });
        Self { rows: records, conflicts }
    }
}

/// Rows for `order_events`.
#[derive(Default)]
pub(super) struct EventColumns<'a> {
    pub(super) order_id: Vec<Uuid>,
    pub(super) accepted_at: Vec<Time>,
    pub(super) version: Vec<i32>,
    pub(super) merchant: Vec<&'a str>,
    pub(super) status: Vec<&'a str>,
    pub(super) reason: Vec<&'a str>,
    pub(super) occurred_at: Vec<Time>,
    pub(super) term: Vec<i64>,
    pub(super) sequence: Vec<i64>,
    pub(super) refusals: Vec<Option<Json<&'a [LineRefusal]>>>,
}

impl<'a> EventColumns<'a> {
    pub(super) fn of(versions: &Versions<'a>) -> Self {
        let mut columns = Self::default();
        for (status, (term, sequence)) in &versions.rows {
            columns.order_id.push(status.order_id.0);
            columns.accepted_at.push(time(status.accepted_at));
            columns.version.push(status.version);
            columns.merchant.push(status.merchant.as_str());
            columns.status.push(status.status.as_str());
            columns.reason.push(&status.reason);
            columns.occurred_at.push(time(status.occurred_at));
            columns.term.push(*term);
            columns.sequence.push(*sequence);
            let refusals = status.refusals.as_slice();
            columns.refusals.push((!refusals.is_empty()).then_some(Json(refusals)));
        }
        columns
    }
}

/// Rows for `orders`: per order the newest version, with the body wherever it came.
#[derive(Default)]
pub(super) struct OrderColumns<'a> {
    pub(super) order_id: Vec<Uuid>,
    pub(super) accepted_at: Vec<Time>,
    pub(super) version: Vec<i32>,
    pub(super) merchant: Vec<&'a str>,
    pub(super) status: Vec<&'a str>,
    pub(super) reason: Vec<&'a str>,
    pub(super) updated_at: Vec<Time>,
    pub(super) term: Vec<i64>,
    pub(super) sequence: Vec<i64>,
    pub(super) currency: Vec<&'a str>,
    pub(super) total_minor: Vec<i64>,
    pub(super) line_count: Vec<i32>,
    pub(super) ordered_at: Vec<Time>,
    pub(super) customer_id: Vec<Option<&'a str>>,
    pub(super) destination: Vec<Option<Json<&'a Destination>>>,
    pub(super) attributes: Vec<Option<Json<&'a BTreeMap<CompactString, CompactString>>>>,
}

impl<'a> OrderColumns<'a> {
    pub(super) fn of(versions: &Versions<'a>) -> Self {
        let mut columns = Self::default();
        let same_order = |a: &Written<'_, OrderStatusChanged>, b: &Written<'_, _>| {
            let b: &OrderStatusChanged = b.0;
            (a.0.order_id, a.0.accepted_at) == (b.order_id, b.accepted_at)
        };
        for order in versions.rows.chunk_by(same_order) {
            let body = order.iter().find_map(|(status, _)| status.order.as_ref());
            let newest = order.last().expect("a chunk is not empty");
            columns.push(*newest, body);
        }
        columns
    }

    fn push(
        &mut self,
        (status, (term, sequence)): Written<'a, OrderStatusChanged>,
        body: Option<&'a OrderPlaced>,
    ) {
        self.order_id.push(status.order_id.0);
        self.accepted_at.push(time(status.accepted_at));
        self.version.push(status.version);
        self.merchant.push(status.merchant.as_str());
        self.status.push(status.status.as_str());
        self.reason.push(&status.reason);
        self.updated_at.push(time(status.occurred_at));
        self.term.push(term);
        self.sequence.push(sequence);
        self.currency.push(status.currency.as_str());
        self.total_minor.push(status.total_minor);
        self.line_count.push(status.line_count);
        self.ordered_at.push(time(status.ordered_at));
        self.customer_id.push(body.and_then(|body| body.customer_id.as_deref()));
        self.destination.push(body.map(|body| Json(&body.destination)));
        self.attributes.push(body.map(|body| Json(&body.attributes)));
    }
}

/// Rows for `order_lines`, of the orders whose body is there.
#[derive(Default)]
pub(super) struct LineColumns<'a> {
    pub(super) order_id: Vec<Uuid>,
    pub(super) accepted_at: Vec<Time>,
    pub(super) line: Vec<i32>,
    pub(super) sku: Vec<&'a str>,
    pub(super) quantity: Vec<i32>,
    pub(super) unit_price_minor: Vec<i64>,
}

impl<'a> LineColumns<'a> {
    pub(super) fn of(versions: &Versions<'a>) -> Self {
        let mut columns = Self::default();
        for (status, _) in &versions.rows {
            for line in status.order.iter().flat_map(|body| &body.lines) {
                columns.order_id.push(status.order_id.0);
                columns.accepted_at.push(time(status.accepted_at));
                columns.line.push(line.line);
                columns.sku.push(line.sku.as_str());
                columns.quantity.push(line.quantity);
                columns.unit_price_minor.push(line.unit_price_minor);
            }
        }
        columns
    }
}

/// Rows for `consignments`.
#[derive(Default)]
pub(super) struct ConsignmentColumns<'a> {
    pub(super) order_id: Vec<Uuid>,
    pub(super) accepted_at: Vec<Time>,
    pub(super) version: Vec<i32>,
    pub(super) courier: Vec<&'a str>,
    pub(super) consignment_id: Vec<&'a str>,
    pub(super) tracking_number: Vec<&'a str>,
    pub(super) price_minor: Vec<i64>,
    pub(super) currency: Vec<&'a str>,
    pub(super) promised_at: Vec<Time>,
    pub(super) attempt: Vec<i32>,
    pub(super) term: Vec<i64>,
    pub(super) sequence: Vec<i64>,
}

impl<'a> ConsignmentColumns<'a> {
    pub(super) fn of(versions: &Versions<'a>) -> Self {
        let mut columns = Self::default();
        for (status, (term, sequence)) in &versions.rows {
            let Some(consignment) = &status.consignment else { continue };
            columns.order_id.push(status.order_id.0);
            columns.accepted_at.push(time(status.accepted_at));
            columns.version.push(status.version);
            columns.courier.push(consignment.courier.as_str());
            columns.consignment_id.push(&consignment.consignment_id);
            columns.tracking_number.push(&consignment.tracking_number);
            columns.price_minor.push(consignment.price_minor);
            columns.currency.push(&consignment.currency);
            columns.promised_at.push(time(consignment.promised_at));
            columns.attempt.push(consignment.attempt);
            columns.term.push(*term);
            columns.sequence.push(*sequence);
        }
        columns
    }
}

/// Rows for `stock_levels`: the newest version of each.
#[derive(Default)]
pub(super) struct LevelColumns<'a> {
    pub(super) merchant: Vec<&'a str>,
    pub(super) sku: Vec<&'a str>,
    pub(super) warehouse: Vec<&'a str>,
    pub(super) version: Vec<i64>,
    pub(super) on_hand: Vec<i64>,
    pub(super) reserved: Vec<i64>,
    pub(super) allocated: Vec<i64>,
    pub(super) changed_at: Vec<Time>,
    pub(super) set_aside: Vec<i64>,
    pub(super) missing: Vec<i64>,
}

impl<'a> LevelColumns<'a> {
    pub(super) fn of(levels: impl Iterator<Item = &'a StockLevelChanged>) -> Self {
        let mut newest: BTreeMap<_, &StockLevelChanged> = BTreeMap::new();
        for level in levels {
            let slot = newest.entry((&level.merchant, &level.sku, &level.warehouse));
            let slot = slot.or_insert(level);
            if slot.version < level.version {
                *slot = level;
            }
        }
        let mut columns = Self::default();
        for level in newest.into_values() {
            columns.merchant.push(level.merchant.as_str());
            columns.sku.push(level.sku.as_str());
            columns.warehouse.push(level.warehouse.as_str());
            columns.version.push(level.version);
            columns.on_hand.push(level.on_hand);
            columns.reserved.push(level.reserved);
            columns.allocated.push(level.allocated);
            columns.changed_at.push(time(level.changed_at));
            columns.set_aside.push(level.set_aside);
            columns.missing.push(level.missing);
        }
        columns
    }
}

/// Rows for `stock_movements`.
#[derive(Default)]
pub(super) struct MovementColumns<'a> {
    pub(super) movement_id: Vec<Uuid>,
    pub(super) merchant: Vec<&'a str>,
    pub(super) sku: Vec<&'a str>,
    pub(super) warehouse: Vec<&'a str>,
    pub(super) kind: Vec<&'static str>,
    pub(super) quantity: Vec<i64>,
    pub(super) on_hand: Vec<i64>,
    pub(super) source_id: Vec<Uuid>,
    pub(super) reason: Vec<&'a str>,
    pub(super) requested_by: Vec<&'a str>,
    pub(super) moved_at: Vec<Time>,
}

impl<'a> MovementColumns<'a> {
    pub(super) fn of(movements: impl Iterator<Item = &'a StockMoved>) -> Self {
        let mut sorted: Vec<&StockMoved> = movements.collect();
        sorted.sort_by_key(|moved| moved.movement_id);
        let mut columns = Self::default();
        for moved in sorted {
            columns.movement_id.push(moved.movement_id);
            columns.merchant.push(moved.merchant.as_str());
            columns.sku.push(moved.sku.as_str());
            columns.warehouse.push(moved.warehouse.as_str());
            columns.kind.push(moved.kind.as_str());
            columns.quantity.push(moved.quantity);
            columns.on_hand.push(moved.on_hand);
            columns.source_id.push(moved.source_id);
            columns.reason.push(&moved.reason);
            columns.requested_by.push(&moved.requested_by);
            columns.moved_at.push(time(moved.moved_at));
        }
        columns
    }
}

/// Rows for `order_repeats`.
#[derive(Default)]
pub(super) struct RepeatColumns<'a> {
    pub(super) order_id: Vec<Uuid>,
    pub(super) accepted_at: Vec<Time>,
    pub(super) merchant: Vec<&'a str>,
    pub(super) kind: Vec<&'static str>,
    pub(super) fingerprint: Vec<Uuid>,
    pub(super) repeated_at: Vec<Time>,
    pub(super) source_partition: Vec<i32>,
    pub(super) source_offset: Vec<i64>,
}

impl<'a> RepeatColumns<'a> {
    pub(super) fn of(repeats: impl Iterator<Item = &'a OrderRepeated>) -> Self {
        let mut sorted: Vec<&OrderRepeated> = repeats.collect();
        sorted.sort_by_key(|repeat| (repeat.source_partition, repeat.source_offset));
        let mut columns = Self::default();
        for repeat in sorted {
            columns.order_id.push(repeat.order_id.0);
            columns.accepted_at.push(time(repeat.accepted_at));
            columns.merchant.push(repeat.merchant.as_str());
            columns.kind.push(match repeat.kind {
                RepeatKind::Unknown => "unknown",
                RepeatKind::Duplicate => "duplicate",
                RepeatKind::Conflict => "conflict",
            });
            columns.fingerprint.push(repeat.fingerprint.0);
            columns.repeated_at.push(time(repeat.repeated_at));
            columns.source_partition.push(repeat.source_partition);
            columns.source_offset.push(repeat.source_offset);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use events::OrderStatus;

    #[test]
    fn of_one_version_the_highest_term_and_sequence_stays() {
        let (mut early, mut late) = (samples::status("a", 2), samples::status("a", 2));
        early.status = OrderStatus::Reserved;
        late.status = OrderStatus::Rejected;
        let other = samples::status("a", 3);
        let all = vec![(&early, (1, 8)), (&other, (1, 9)), (&late, (2, 1)), (&late, (1, 9))];
        let versions = Versions::of(all);
        assert_eq!(versions.conflicts, 1, "only different content is a conflict");
        let kept: Vec<_> = versions.rows.iter().map(|(s, o)| (s.version, s.status, *o)).collect();
        assert_eq!(kept[0], (2, OrderStatus::Rejected, (2, 1)));
        assert_eq!(kept.len(), 2);
    }

    #[test]
    fn an_order_shows_its_newest_version_and_keeps_its_body() {
        let (first, second) = (samples::status("a", 1), samples::status("a", 2));
        let lonely = samples::status("b", 2);
        let versions = Versions::of(vec![(&second, (1, 2)), (&lonely, (1, 2)), (&first, (1, 1))]);
        let orders = OrderColumns::of(&versions);
        assert_eq!(orders.version, [2, 2]);
        let bodies: Vec<bool> = orders.destination.iter().map(Option::is_some).collect();
        let a_is_first = orders.order_id[0] == first.order_id.0;
        assert_eq!(bodies, [a_is_first, !a_is_first]);
        assert_eq!(LineColumns::of(&versions).line, [1, 2]);
        assert_eq!(EventColumns::of(&versions).version.len(), 3);
    }

    #[test]
    fn the_newest_stock_level_of_a_batch_is_written() {
        let levels: Vec<_> = [2, 5, 3].map(|version| samples::level("s", version)).into();
        let columns = LevelColumns::of(levels.iter());
        assert_eq!(columns.version, [5]);
    }
}
