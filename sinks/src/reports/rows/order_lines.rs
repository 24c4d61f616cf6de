//! One row per line of an order, from the event that carries the order's body.

use events::OrderStatusChanged;

use super::{Rows, Source, Table, count, text, uuid};

pub(super) static TABLE: Table = Table {
    name: "order_lines",
    columns: "order_id, accepted_at, line, merchant, ordered_at, currency, sku, quantity, \
        unit_price_minor, precedence",
};

/// Appends a row per line; nothing where the event has no body.
pub(super) fn encode(event: &OrderStatusChanged, source: &Source, rows: &mut impl Rows) {
    for line in event.order.iter().flat_map(|body| &body.lines) {
        rows.row(&TABLE, event.accepted_at, |out| {
            uuid(event.order_id.0, out);
            out.extend(event.accepted_at.0.to_le_bytes());
            out.extend(count(line.line).to_le_bytes());
            text(event.merchant.as_str(), out);
            out.extend(event.ordered_at.0.to_le_bytes());
            text(event.currency.as_str(), out);
            text(line.sku.as_str(), out);
            out.extend(count(line.quantity).to_le_bytes());
            out.extend(line.unit_price_minor.to_le_bytes());
            out.extend(source.precedence().to_le_bytes());
        });
    }
}
