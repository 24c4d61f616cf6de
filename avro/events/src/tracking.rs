//! Deliveries: what couriers report, on topic `couriers`, and what orders are told of it, on
//! `order-outcomes`.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::{CourierCode, Lane, Millis, OrderId};

/// A courier's report about a consignment, in one vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackingReported {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Record key.
    pub lane: Lane,
    /// Who reported; checked against who carries it.
    pub courier: CourierCode,
    /// Attempt of the booking that the consignment belongs to.
    pub attempt: i32,
    /// What happened.
    pub event: TrackingEvent,
    /// When, by the courier's clock.
    pub occurred_at: Millis,
    /// The courier's own word for it.
    pub detail: CompactString,
}

/// What happens to a consignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackingEvent {
    /// Written by a newer version than this reader.
    Unknown,
    /// The courier expects it.
    Announced,
    /// First scan: the courier has it.
    Collected,
    /// The courier came and did not get it, or did not come.
    PickupMissed,
    /// On its way.
    InTransit,
    /// On the van.
    OutForDelivery,
    /// Tried to deliver in vain.
    Attempted,
    /// Arrived.
    Delivered,
    /// Given up.
    Undeliverable,
    /// On its way back.
    Returning,
    /// Back with the shop.
    Returned,
}

impl TrackingEvent {
    /// Every event that can be reported.
    pub const ALL: &[Self] = &[
        Self::Announced,
        Self::Collected,
        Self::PickupMissed,
        Self::InTransit,
        Self::OutForDelivery,
        Self::Attempted,
        Self::Delivered,
        Self::Undeliverable,
        Self::Returning,
        Self::Returned,
    ];

    /// The event's name in APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Announced => "announced",
            Self::Collected => "collected",
            Self::PickupMissed => "pickup_missed",
            Self::InTransit => "in_transit",
            Self::OutForDelivery => "out_for_delivery",
            Self::Attempted => "attempted",
            Self::Delivered => "delivered",
            Self::Undeliverable => "undeliverable",
            Self::Returning => "returning",
            Self::Returned => "returned",
        }
    }
}

/// Where an order's consignment has got to. Per order: `shipped` before what follows from it,
/// nothing after `delivered`, `undeliverable` or `returned` but `returned`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsignmentMoved {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Attempt of the booking that the consignment belongs to.
    pub attempt: i32,
    /// From now on.
    pub state: ConsignmentState,
    /// When, by the courier's clock; overdue: when it was due.
    pub occurred_at: Millis,
    /// The courier's own word for it.
    pub detail: CompactString,
}

/// Where a consignment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsignmentState {
    /// Written by a newer version than this reader.
    Unknown,
    /// The courier has it.
    Shipped,
    /// It should have arrived.
    Overdue,
    /// Arrived.
    Delivered,
    /// Given up.
    Undeliverable,
    /// Back with the shop.
    Returned,
}
