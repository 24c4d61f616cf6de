//! One row per change of an order's status.

use events::OrderStatusChanged;

use super::{Rows, Source, Table, count, length, placed, text, unsigned, uuid};

pub(super) static TABLE: Table = Table {
    name: "order_events",
    columns: "order_id, accepted_at, version, merchant, status, reason, occurred_at, ordered_at, \
        currency, total_minor, line_count, pieces, country, guest, customer_id, courier, \
        courier_price_minor, courier_currency, promised_at, attempt, refused_skus, term, \
        sequence, precedence, kafka_partition, kafka_offset",
};

/// Appends the event's row.
pub(super) fn encode(event: &OrderStatusChanged, source: &Source, rows: &mut impl Rows) {
    let body = event.order.as_ref();
    let consignment = event.consignment.as_ref();
    rows.row(&TABLE, event.accepted_at, |out| {
        uuid(event.order_id.0, out);
        out.extend(event.accepted_at.0.to_le_bytes());
        out.extend(count(event.version).to_le_bytes());
        text(event.merchant.as_str(), out);
        text(event.status.as_str(), out);
        text(&event.reason, out);
        out.extend(event.occurred_at.0.to_le_bytes());
        placed(event, out);
        out.push(u8::from(body.is_some_and(|body| body.customer_id.is_none())));
        text(body.and_then(|body| body.customer_id.as_deref()).unwrap_or(""), out);
        text(consignment.map_or("", |c| c.courier.as_str()), out);
        out.extend(consignment.map_or(0, |c| c.price_minor).to_le_bytes());
        text(consignment.map_or("", |c| &c.currency), out);
        out.extend(consignment.map_or(0, |c| c.promised_at.0).to_le_bytes());
        let attempt = consignment.map_or(0, |c| u16::try_from(c.attempt).unwrap_or(u16::MAX));
        out.extend(attempt.to_le_bytes());
        length(event.refusals.len(), out);
        event.refusals.iter().for_each(|refusal| text(refusal.sku.as_str(), out));
        out.extend(unsigned(source.term).to_le_bytes());
        out.extend(unsigned(source.sequence).to_le_bytes());
        out.extend(source.precedence().to_le_bytes());
        out.extend(u16::try_from(source.partition).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(unsigned(source.offset).to_le_bytes());
    });
}
