//! Stock's rows: levels, holds, receipts, warehouses, flash sales.

use compact_str::CompactString;
use events::{Fingerprint, Merchant, Millis, RequestId, Sku, WarehouseCode};
use serde::{Deserialize, Serialize};

use crate::dedupe;
use crate::planted;
use crate::table::Row;

/// A released hold is remembered this long, so that a repeated command can't bring it back: 8 days,
/// longer than the commands are kept.
pub(super) const RELEASED_KEPT_MS: i64 = 8 * 24 * 60 * 60 * 1000;

/// Receipts are remembered as long as idempotency keys: 30 days.
pub(super) const RECEIPT_KEPT_MS: i64 = dedupe::KEY_LIFETIME_MS;

/// Pieces of a SKU in a warehouse. Available = on hand − reserved − allocated − set aside − missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Rises by one per batch that changed the level.
    pub version: i64,
    /// Pieces in the warehouse.
    pub on_hand: i64,
    /// Held for orders.
    pub reserved: i64,
    /// Bound to orders, not yet gone.
    pub allocated: i64,
    /// Free, but only for a flash sale.
    #[serde(default)]
    pub set_aside: i64,
    /// From how many available pieces on stock counts as low; 0: never.
    #[serde(default)]
    pub low_at: i64,
    /// It was told that stock is low.
    #[serde(default)]
    pub low: bool,
    /// What the last count did not find although it is promised to orders: the count was refused, and
    /// so many pieces are not sold until one is accepted.
    #[serde(default)]
    pub missing: i64,
}

impl Level {
    /// Pieces that can still be promised; negative: a count says that more are promised than there are.
    pub fn available(&self) -> i64 {
        if planted!(AllocatedIgnored) {
            return self.on_hand - self.reserved - self.set_aside;
        }
        let missing = if planted!(MissingSold) { 0 } else { self.missing };
        self.on_hand - self.reserved - self.allocated - self.set_aside - missing
    }

    /// Pieces that can still be promised in a flash sale: what is missing is missed there last.
    pub fn for_sale(&self) -> i64 {
        self.set_aside + self.available().min(0)
    }
}

impl Row for Level {}

/// What an order holds in this partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Whose stock.
    pub merchant: Merchant,
    /// The attempt that reserved.
    pub attempt: i32,
    /// Where it stands.
    pub state: HoldState,
    /// What is held; empty once released.
    pub lines: Vec<HeldLine>,
    /// Whose limit in a flash sale it counts for.
    #[serde(default)]
    pub customer_id: Option<CompactString>,
}

/// Where a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldState {
    /// Held until the saga decides.
    Reserved,
    /// Bound to the order for good.
    Allocated,
    /// Gone with a courier; forgotten at the deadline.
    Dispatched {
        /// When the marker may go.
        forget_at: Millis,
    },
    /// Given back; forgotten at the deadline.
    Released {
        /// When the marker may go.
        forget_at: Millis,
    },
}

/// One held line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLine {
    /// The order's line.
    pub line: i32,
    /// What.
    pub sku: Sku,
    /// From where.
    pub warehouse: WarehouseCode,
    /// Pieces.
    pub quantity: i32,
    /// The flash sale from whose pieces they are.
    #[serde(default)]
    pub sale: Option<RequestId>,
}

impl Row for Hold {
    fn deadline(&self) -> Option<Millis> {
        match self.state {
            HoldState::Released { forget_at } | HoldState::Dispatched { forget_at } => {
                Some(forget_at)
            }
            _ => None,
        }
    }
}

/// A receipt, or another change of stock, of which lines have counted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Digest of its body.
    pub fingerprint: Fingerprint,
    /// When it may be forgotten.
    pub forget_at: Millis,
}

impl Row for Receipt {
    fn deadline(&self) -> Option<Millis> {
        Some(self.forget_at)
    }
}

/// A line of a receipt that has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedLine {
    /// Pieces.
    pub quantity: i32,
    /// When it may be forgotten.
    pub forget_at: Millis,
}

impl Row for ReceivedLine {
    fn deadline(&self) -> Option<Millis> {
        Some(self.forget_at)
    }
}

/// A warehouse as it was listed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Whether its free stock is offered.
    pub online: bool,
    /// When it was listed, and by which request: a listing of before that counts nothing.
    pub as_of: (Millis, RequestId),
}

impl Row for Site {}

/// A flash sale of a SKU that is scheduled or on; its free pieces are the level's `set_aside`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    /// The request that scheduled it.
    pub sale_id: RequestId,
    /// Where its pieces are.
    pub warehouse: WarehouseCode,
    /// Most pieces that a customer may order; 0: no limit.
    pub per_customer: i32,
    /// From then on.
    pub starts_at: Millis,
    /// Until then.
    pub ends_at: Millis,
}

impl Sale {
    /// Whether it is on.
    pub fn on(&self, now: Millis) -> bool {
        self.starts_at <= now && now < self.ends_at
    }
}

impl Row for Sale {
    fn deadline(&self) -> Option<Millis> {
        Some(self.ends_at)
    }
}

/// What a customer has ordered of a SKU in a flash sale with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    /// The sale.
    pub sale_id: RequestId,
    /// Pieces reserved, allocated or gone.
    pub pieces: i32,
    /// When the sale is over.
    pub forget_at: Millis,
}

impl Row for Purchase {
    fn deadline(&self) -> Option<Millis> {
        Some(self.forget_at)
    }
}
