//! Stock's rows: levels, holds, receipts.

use events::{Fingerprint, Merchant, Millis, Sku, WarehouseCode};
use serde::{Deserialize, Serialize};

use crate::dedupe;
use crate::planted;
use crate::table::Row;

/// A released hold is remembered this long, so that a repeated command can't bring it back: 8 days,
/// longer than the commands are kept.
pub(super) const RELEASED_KEPT_MS: i64 = 8 * 24 * 60 * 60 * 1000;

/// Receipts are remembered as long as idempotency keys: 30 days.
pub(super) const RECEIPT_KEPT_MS: i64 = dedupe::KEY_LIFETIME_MS;

/// Pieces of a SKU in a warehouse. Available = on hand − reserved − allocated.
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
}

impl Level {
    /// Pieces that can still be promised.
    pub fn available(&self) -> i64 {
        if planted!(AllocatedIgnored) {
            return self.on_hand - self.reserved;
        }
        self.on_hand - self.reserved - self.allocated
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
}

/// Where a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldState {
    /// Held until the saga decides.
    Reserved,
    /// Bound to the order for good.
    Allocated,
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
}

impl Row for Hold {
    fn deadline(&self) -> Option<Millis> {
        match self.state {
            HoldState::Released { forget_at } => Some(forget_at),
            _ => None,
        }
    }
}

/// A receipt of which lines have counted here.
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
