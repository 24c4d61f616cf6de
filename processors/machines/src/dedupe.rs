//! Dedupe: the guard before the saga. One lookup in the orders table decides first, duplicate or
//! conflict.

use events::{
    Fingerprint, Merchant, Millis, OrderId, OrderPlaced, OrderRepeated, OrderStatus, RepeatKind,
};
use serde::{Deserialize, Serialize};

use crate::machine::Source;
use crate::planted;
use crate::table::{Row, Table};

/// How long an idempotency key is remembered after its order finished: 30 days.
pub const KEY_LIFETIME_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// An order as dedupe and the saga know it: the body while it is needed, then a marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRow {
    /// Append time of the order's first record.
    pub accepted_at: Millis,
    /// Digest of the first payload.
    pub fingerprint: Fingerprint,
    /// What was ordered; `None` once the order has finished.
    pub body: Option<OrderPlaced>,
    /// How and when it finished.
    pub finished: Option<Finished>,
    /// The order itself has not been read yet, but requests of its customer have.
    #[serde(default)]
    pub early: Option<Early>,
}

/// Requests that were read before their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Early {
    /// Who made them; another merchant's order is not touched.
    pub merchant: Merchant,
    /// It is to be cancelled.
    pub cancelled: bool,
    /// The customer stands by it.
    pub confirmed: bool,
    /// When they may be forgotten.
    pub forget_at: Millis,
}

/// The marker of a finished order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Its last status.
    pub status: OrderStatus,
    /// When.
    pub at: Millis,
}

impl Row for OrderRow {
    fn deadline(&self) -> Option<Millis> {
        let early = self.early.as_ref().map(|early| early.forget_at);
        self.finished.map(|finished| finished.at.plus(KEY_LIFETIME_MS)).or(early)
    }
}

/// What a record under an idempotency key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The order's first record: the saga begins.
    First {
        /// A request to cancel it was here before.
        cancelled: bool,
        /// So was its customer's confirmation.
        confirmed: bool,
    },
    /// A later one: recorded, the order untouched.
    Repeat(OrderRepeated),
}

/// Decides what an `OrderPlaced` is.
pub fn admit(
    orders: &mut Table<OrderId, OrderRow>,
    placed: &OrderPlaced,
    source: Source,
) -> Admission {
    let Some(first) = orders.peek(&placed.order_id) else {
        return Admission::First { cancelled: false, confirmed: false };
    };
    if let Some(early) = &first.early {
        let own = early.merchant == placed.merchant;
        let (cancelled, confirmed) = (own && early.cancelled, own && early.confirmed);
        return Admission::First { cancelled, confirmed };
    }
    if planted!(RepeatAdmitted) {
        return Admission::First { cancelled: false, confirmed: false };
    }
    let kind = if first.fingerprint == placed.fingerprint || planted!(ConflictUnseen) {
        RepeatKind::Duplicate
    } else {
        RepeatKind::Conflict
    };
    Admission::Repeat(OrderRepeated {
        order_id: placed.order_id,
        accepted_at: first.accepted_at,
        merchant: placed.merchant.clone(),
        kind,
        fingerprint: placed.fingerprint,
        repeated_at: source.appended_at,
        source_partition: source.partition,
        source_offset: source.offset,
    })
}
