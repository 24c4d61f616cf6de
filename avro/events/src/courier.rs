//! Topic `couriers`, and the couriers processor's answers on `order-outcomes`.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::{CourierCode, Currency, Destination, Lane, Merchant, Millis, OrderId};

/// A courier company as it is from now on; appended to every partition of `couriers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourierListed {
    /// Its code.
    pub courier: CourierCode,
    /// Base URL of its API.
    pub url: CompactString,
    /// List price of a consignment, minor units; a lane's last price counts once it is known.
    pub price_minor: i64,
    /// Currency of the price.
    pub currency: Currency,
    /// Longest wait for an answer, milliseconds.
    pub timeout_ms: i32,
    /// Not asked for new consignments.
    pub paused: bool,
}

/// Command: find a courier for the order and book. Answered once by [`ConsignmentBooked`] or
/// [`ConsignmentFailed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookConsignment {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// The shop.
    pub merchant: Merchant,
    /// Record key.
    pub lane: Lane,
    /// Where to.
    pub destination: Destination,
}

/// Command: no courier shall carry this order any more. Without a courier it is answered by
/// [`ConsignmentFailed`], unless an answer is under way already; with one it has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoidConsignment {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// The shop.
    pub merchant: Merchant,
    /// Record key.
    pub lane: Lane,
    /// Who has booked it; `None` while nobody has, as far as the sender knows.
    pub courier: Option<CourierCode>,
    /// The attempt that was booked; 0 without a courier.
    pub attempt: i32,
}

/// Outcome of one call to a courier company, written by the process that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourierAnswered {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Record key.
    pub lane: Lane,
    /// The attempt of the booking that the call belongs to.
    pub attempt: i32,
    /// Who was called.
    pub courier: CourierCode,
    /// What was asked.
    pub call: CourierCall,
    /// What came of it.
    pub outcome: CallOutcome,
    /// For people: status code or error.
    pub detail: CompactString,
    /// From call to answer, milliseconds.
    pub latency_ms: i32,
    /// When booked, else empty.
    pub consignment_id: CompactString,
    /// When booked, else empty.
    pub tracking_number: CompactString,
    /// When booked, else 0.
    pub price_minor: i64,
    /// When booked, else empty.
    pub currency: CompactString,
    /// When booked, else 0.
    pub promised_at: Millis,
}

/// What a company was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CourierCall {
    /// Written by a newer version than this reader.
    Unknown,
    /// Take a consignment.
    Book,
    /// Forget a consignment.
    Void,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// Written by a newer version than this reader.
    Unknown,
    /// Done.
    Succeeded,
    /// The company said no (4xx); asking again is useless.
    Refused,
    /// Certainly not done (refused connection, 5xx or 429 answer).
    Failed,
    /// Nobody knows: time-out, or the connection broke after the request left.
    TimedOut,
    /// The call never left: too late, or the partition moved on.
    NotSent,
}

/// One parcel set with one courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consignment {
    /// Who carries it.
    pub courier: CourierCode,
    /// The company's id.
    pub consignment_id: CompactString,
    /// For the customer.
    pub tracking_number: CompactString,
    /// What the company charges, minor units.
    pub price_minor: i64,
    /// Currency of that price.
    pub currency: CompactString,
    /// The company's promise.
    pub promised_at: Millis,
    /// 1 = the first courier asked; more means failover.
    pub attempt: i32,
}

/// Answer: a courier has taken the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsignmentBooked {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// The winner.
    pub consignment: Consignment,
}

/// Answer: every courier refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsignmentFailed {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Who refused, and why.
    pub detail: CompactString,
}
