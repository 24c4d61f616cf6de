//! Topics `stock` and `stock-levels`, and stock's answers on `order-outcomes`. What no order causes is
//! in `movements`.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::{Fingerprint, Merchant, Millis, OrderId, ReceiptId, Sku, WarehouseCode};

/// Command: hold these lines, all or none. Answered once by [`LinesReserved`] or [`LinesRefused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveLines {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Whose stock.
    pub merchant: Merchant,
    /// Which try of this order, from 1.
    pub attempt: i32,
    /// Warehouses in the order they are preferred.
    pub warehouses: Vec<WarehouseCode>,
    /// The order's lines that this stock partition owns.
    pub lines: Vec<ReserveLine>,
    /// The shop's customer, for limits per customer; `None` for a guest.
    #[serde(default)]
    pub customer_id: Option<CompactString>,
}

/// One line of a [`ReserveLines`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveLine {
    /// The order's line.
    pub line: i32,
    /// What to hold.
    pub sku: Sku,
    /// Pieces, 1 or more.
    pub quantity: i32,
}

/// Command: give back what the order holds in this partition. No answer; remembered if it overtakes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseLines {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Whose stock.
    pub merchant: Merchant,
    /// The attempt that reserved.
    pub attempt: i32,
}

/// Command: bind what the order holds in this partition for good. No answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocateLines {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Whose stock.
    pub merchant: Merchant,
    /// The attempt that reserved.
    pub attempt: i32,
}

/// Command: what the order has allocated in this partition has left the warehouse. No answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchLines {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Whose stock.
    pub merchant: Merchant,
    /// The attempt that reserved.
    pub attempt: i32,
    /// Who: the id of the API key.
    #[serde(default)]
    pub requested_by: CompactString,
}

/// Pieces arrived at a warehouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReceived {
    /// The same receipt counts once per SKU and warehouse.
    pub receipt_id: ReceiptId,
    /// Whose stock.
    pub merchant: Merchant,
    /// Where.
    pub warehouse: WarehouseCode,
    /// What.
    pub sku: Sku,
    /// Pieces, 1 or more.
    pub quantity: i32,
    /// Digest of the whole receipt: another one under the same id is a conflict and counts nothing.
    /// `None` from writers before it.
    pub fingerprint: Option<Fingerprint>,
    /// Why, in the requester's words; empty if not told.
    #[serde(default)]
    pub reason: CompactString,
    /// Who: the id of the API key; empty from writers before it.
    #[serde(default)]
    pub requested_by: CompactString,
}

/// Answer: every line asked for is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesReserved {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// The stock partition that answers.
    pub stock_partition: i32,
    /// The attempt that was asked for.
    pub attempt: i32,
    /// Where most of the pieces are held; `None`: all in `main`, and the command named no other.
    #[serde(default)]
    pub warehouse: Option<WarehouseCode>,
    /// The warehouses that could each have served every line asked for, best first; empty if the
    /// command named one only.
    #[serde(default)]
    pub alone: Vec<WarehouseCode>,
    /// Not an answer, but news: what was held in this warehouse is held elsewhere from now on.
    #[serde(default)]
    pub moved_from: Option<WarehouseCode>,
}

/// Answer: nothing of what was asked for is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesRefused {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// The stock partition that answers.
    pub stock_partition: i32,
    /// The attempt that was asked for.
    pub attempt: i32,
    /// The lines that cannot be served, and why.
    pub refusals: Vec<LineRefusal>,
}

/// Why one line cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRefusal {
    /// The order's line.
    pub line: i32,
    /// Its SKU.
    pub sku: Sku,
    /// Pieces wanted.
    pub requested: i32,
    /// Pieces free at that moment, over all warehouses asked.
    pub available: i64,
    /// Why.
    pub reason: RefusalReason,
    /// Where pieces of the SKU are free: what could be ordered instead, in part or from there.
    #[serde(default)]
    pub elsewhere: Vec<Alternative>,
}

/// Pieces that a refused line could have instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// Where.
    pub warehouse: WarehouseCode,
    /// Pieces free there.
    pub available: i64,
}

/// Why there is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// Written by a newer version than this reader.
    Unknown,
    /// Not enough pieces in the warehouses.
    SoldOut,
    /// Enough pieces, but held for other orders: may come free.
    Held,
    /// Never received.
    UnknownSku,
    /// Enough pieces, but in a warehouse that is offline.
    WarehouseOffline,
    /// More than the flash sale lets a customer have, or a guest in a sale with a limit.
    CustomerLimit,
}

impl RefusalReason {
    /// The reason's name in records and APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::SoldOut => "sold_out",
            Self::Held => "held",
            Self::UnknownSku => "unknown_sku",
            Self::WarehouseOffline => "warehouse_offline",
            Self::CustomerLimit => "customer_limit",
        }
    }
}

/// Stock of a SKU in a warehouse after a batch of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockLevelChanged {
    /// Whose stock.
    pub merchant: Merchant,
    /// What.
    pub sku: Sku,
    /// Where.
    pub warehouse: WarehouseCode,
    /// Rises by one per batch that changed the level.
    pub version: i64,
    /// Pieces in the warehouse.
    pub on_hand: i64,
    /// Held for orders.
    pub reserved: i64,
    /// Bound to orders, not yet gone.
    pub allocated: i64,
    /// When.
    pub changed_at: Millis,
    /// Free, but only for a flash sale.
    #[serde(default)]
    pub set_aside: i64,
    /// On hand by the book, but a count did not find them: not sold until another count is accepted.
    #[serde(default)]
    pub missing: i64,
}
