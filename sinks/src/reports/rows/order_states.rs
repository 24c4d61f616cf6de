//! One row per order, folded: each event brings a row that says what it knows, and the table keeps the
//! greatest of every column, whatever came twice or late.
//!
//! Of two stories for one thing the one of the higher precedence counts, so that stands above, or in
//! front of, the value. Folded here and not by a materialized view: ClickHouse does not run a view for
//! what is inserted while it still loads it after a start (ClickHouse issue 72589).

use events::{OrderStatus, OrderStatusChanged};

use super::{Rows, Source, Table, count, placed, text, unsigned, uuid};

pub(super) static TABLE: Table = Table {
    name: "order_states",
    columns: "merchant, order_id, accepted_at, newest, newest_reason, statuses, ordered_at, \
        currency, total_minor, line_count, pieces, country, customer_id, received, reserved, \
        authorized, routed, paid, shipped, delivered, ended, courier, courier_price, \
        courier_currency, promised, attempt",
};

/// Statuses by their number, from 1, as the views know them.
const STATUSES: [OrderStatus; 13] = [
    OrderStatus::Received,
    OrderStatus::Reserved,
    OrderStatus::Authorized,
    OrderStatus::Routed,
    OrderStatus::Paid,
    OrderStatus::Shipped,
    OrderStatus::Delivered,
    OrderStatus::Rejected,
    OrderStatus::Declined,
    OrderStatus::Expired,
    OrderStatus::Cancelled,
    OrderStatus::Undeliverable,
    OrderStatus::Returned,
];
/// How many of them, from the first, have a column for their time; the others share the last.
const TIMED: usize = 7;

/// Appends the event's row.
pub(super) fn encode(event: &OrderStatusChanged, source: &Source, rows: &mut impl Rows) {
    let body = event.order.as_ref();
    let precedence = source.precedence();
    let told = |value: u64| (u128::from(precedence) << 64) | u128::from(value);
    let version = count(event.version);
    // 0 is a status that this version does not know.
    let place = STATUSES.iter().position(|status| *status == event.status);
    let number = place.map_or(0, |place| place + 1) as u128;
    let newest = (u128::from(version) << 72) | (u128::from(precedence) << 8) | number;
    let consignment = event.consignment.as_ref().filter(|_| event.status == OrderStatus::Routed);
    rows.row(&TABLE, event.accepted_at, |out| {
        text(event.merchant.as_str(), out);
        uuid(event.order_id.0, out);
        out.extend(event.accepted_at.0.to_le_bytes());
        out.extend(newest.to_le_bytes());
        text(&format!("{version:08X}{precedence:016X}{}", event.reason), out);
        out.extend(place.map_or(0, |place| 1_u32 << place).to_le_bytes());
        placed(event, out);
        text(body.and_then(|body| body.customer_id.as_deref()).unwrap_or(""), out);
        for column in 0..=TIMED {
            let here = place.is_some_and(|place| place.min(TIMED) == column);
            let at = if here { told(unsigned(event.occurred_at.0)) } else { 0 };
            out.extend(at.to_le_bytes());
        }
        let named = |name: &str| format!("{precedence:016X}{name}");
        text(&consignment.map_or(String::new(), |c| named(c.courier.as_str())), out);
        let number = |value: Option<u64>| value.map_or(0, told).to_le_bytes();
        out.extend(number(consignment.map(|c| unsigned(c.price_minor))));
        text(&consignment.map_or(String::new(), |c| named(&c.currency)), out);
        out.extend(number(consignment.map(|c| unsigned(c.promised_at.0))));
        out.extend(number(consignment.map(|c| u64::from(count(c.attempt)))));
    });
}
