//! One row per movement of stock.

use events::StockMoved;

use super::{Rows, Source, Table, text, uuid};

pub(super) static TABLE: Table = Table {
    name: "stock_movements",
    columns: "movement_id, merchant, sku, warehouse, kind, quantity, on_hand, source_id, reason, \
        requested_by, moved_at, precedence",
};

/// Appends the movement's row.
pub(super) fn encode(moved: &StockMoved, source: &Source, rows: &mut impl Rows) {
    rows.row(&TABLE, moved.moved_at, |out| {
        uuid(moved.movement_id, out);
        text(moved.merchant.as_str(), out);
        text(moved.sku.as_str(), out);
        text(moved.warehouse.as_str(), out);
        text(moved.kind.as_str(), out);
        out.extend(moved.quantity.to_le_bytes());
        out.extend(moved.on_hand.to_le_bytes());
        uuid(moved.source_id, out);
        text(&moved.reason, out);
        text(&moved.requested_by, out);
        out.extend(moved.moved_at.0.to_le_bytes());
        out.extend(source.precedence().to_le_bytes());
    });
}
