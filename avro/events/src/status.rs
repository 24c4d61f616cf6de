//! Topic `order-status`: the history of every order.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::{
    Consignment, Currency, LineRefusal, Merchant, Millis, OrderId, OrderPlaced, PaymentFact,
};

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Written by a newer version than this reader.
    Unknown,
    /// Accepted and deduplicated.
    Received,
    /// Every line is held.
    Reserved,
    /// The payment is authorized.
    Authorized,
    /// A courier has taken it.
    Routed,
    /// The payment is captured.
    Paid,
    /// Handed over to the courier.
    Shipped,
    /// Arrived.
    Delivered,
    /// Cannot be served; everything is released.
    Rejected,
    /// Payment refused.
    Declined,
    /// The customer let the reservation run out.
    Expired,
    /// Cancelled on request.
    Cancelled,
    /// The courier could not deliver.
    Undeliverable,
    /// Came back.
    Returned,
}

impl OrderStatus {
    /// The status's name in records and APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Received => "received",
            Self::Reserved => "reserved",
            Self::Authorized => "authorized",
            Self::Routed => "routed",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::Declined => "declined",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Undeliverable => "undeliverable",
            Self::Returned => "returned",
        }
    }
}

/// One change of an order's status; versions are gapless per order, from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderStatusChanged {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// The shop.
    pub merchant: Merchant,
    /// 1 = received.
    pub version: i32,
    /// The status from now on.
    pub status: OrderStatus,
    /// Machine-readable cause, e.g. `sold_out`; empty where the status says it all.
    pub reason: CompactString,
    /// When the machine decided.
    pub occurred_at: Millis,
    /// As in the order.
    pub ordered_at: Millis,
    /// As in the order, minor units.
    pub total_minor: i64,
    /// As in the order.
    pub currency: Currency,
    /// As in the order.
    pub line_count: i32,
    /// The order's body, with version 1 only.
    pub order: Option<OrderPlaced>,
    /// With `routed`.
    pub consignment: Option<Consignment>,
    /// With `rejected`: the lines that cannot be served.
    pub refusals: Vec<LineRefusal>,
    /// What has happened to the order's payments since its last status event.
    pub payments: Vec<PaymentFact>,
}
