//! Topics `orders` and `order-conflicts`, and clients' later requests on `order-outcomes`.

use std::collections::BTreeMap;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::{Currency, Fingerprint, Merchant, Millis, OrderId, PaymentMethod, RequestId, Sku};

/// A merchant's order as ingest accepted it; one record per click, the first one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// Derived from merchant and idempotency key.
    pub order_id: OrderId,
    /// The shop.
    pub merchant: Merchant,
    /// The client's key, unquoted, 1 to 255 visible ASCII characters.
    pub idempotency_key: CompactString,
    /// Digest of the request.
    pub fingerprint: Fingerprint,
    /// The shop's customer; `None` for a guest.
    pub customer_id: Option<CompactString>,
    /// Currency of every price in the order.
    pub currency: Currency,
    /// Where it goes.
    pub destination: Destination,
    /// 1 to 1,000 lines, `line` counting from 1.
    pub lines: Vec<OrderLine>,
    /// Sum of quantity × unit price, minor units.
    pub total_minor: i64,
    /// The shop's own business time; for reports, never used as record time.
    pub ordered_at: Millis,
    /// Free-form, kept as given.
    pub attributes: BTreeMap<CompactString, CompactString>,
    /// Once reserved, the order waits this long for the customer's confirmation and expires without
    /// one, milliseconds; 0: it goes on at once.
    #[serde(default)]
    pub confirm_within_ms: i64,
    /// What it is paid with, all of it or nothing; `None` when payment is not Tillroll's business.
    #[serde(default)]
    pub payment_methods: Option<Vec<PaymentMethod>>,
}

/// One line of an order; the same SKU may stand in several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// Position, from 1.
    pub line: i32,
    /// What is bought.
    pub sku: Sku,
    /// Pieces, 1 or more.
    pub quantity: i32,
    /// Price of a piece, minor units, 1 or more.
    pub unit_price_minor: i64,
}

/// A postal address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Recipient.
    pub name: CompactString,
    /// Street and number.
    pub street: CompactString,
    /// City.
    pub city: CompactString,
    /// Postal code; empty where there is none.
    pub postcode: CompactString,
    /// ISO 3166-1 alpha-2.
    pub country: CompactString,
}

/// A later record under an order's idempotency key: absorbed, the first order untouched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRepeated {
    /// The order.
    pub order_id: OrderId,
    /// Append time of the order's first record.
    pub accepted_at: Millis,
    /// The shop.
    pub merchant: Merchant,
    /// Same payload or another.
    pub kind: RepeatKind,
    /// Fingerprint of the later record.
    pub fingerprint: Fingerprint,
    /// Append time of the later record.
    pub repeated_at: Millis,
    /// Partition of the later record in `orders`.
    pub source_partition: i32,
    /// Its offset; with the partition, the identity of this repeat.
    pub source_offset: i64,
}

/// How a later record under the same key relates to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepeatKind {
    /// Written by a newer version than this reader.
    Unknown,
    /// The same payload again.
    Duplicate,
    /// Another payload.
    Conflict,
}

/// A request to cancel an order, wherever it stands. May be read before the order itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequested {
    /// The order.
    pub order_id: OrderId,
    /// The shop; another shop's request changes nothing.
    pub merchant: Merchant,
    /// The request.
    pub request_id: RequestId,
    /// Why, in the requester's words; empty if it did not say.
    pub reason: CompactString,
}

/// An order's time to be confirmed is over. Written by the orders processor to its own inbox, so that a
/// confirmation that was appended before it counts, however late the processor reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmationTimedOut {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
}

/// The customer has confirmed an order that was placed to be held until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderConfirmed {
    /// The order.
    pub order_id: OrderId,
    /// The shop; another shop's request changes nothing.
    pub merchant: Merchant,
    /// The request.
    pub request_id: RequestId,
}

/// The warehouse has handed an order's pieces over to the courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDispatched {
    /// The order.
    pub order_id: OrderId,
    /// The shop; another shop's request changes nothing.
    pub merchant: Merchant,
    /// The request.
    pub request_id: RequestId,
    /// Who: the id of the API key.
    #[serde(default)]
    pub requested_by: CompactString,
}
