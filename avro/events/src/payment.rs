//! Payment: what an order is paid with, and what payment providers said, on `order-outcomes`.
//!
//! No card data: a method names a provider and the token under which that provider knows the means of
//! payment.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::{Currency, Millis, OrderId, ProviderCode};

/// A means of payment of an order; the amounts of an order's methods sum up to its total.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentMethod {
    /// Who holds the money.
    pub provider: ProviderCode,
    /// The provider's token, 1 to 255 visible ASCII characters; never card data.
    pub token: CompactString,
    /// Its part of the total, minor units, 1 or more.
    pub amount_minor: i64,
}

/// Outcome of one call to a payment provider, written by the process that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentAnswered {
    /// The order; record key.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Position of the method in the order, from 1.
    pub method: i32,
    /// Which authorization of the method, from 1; rises when one is made anew.
    pub generation: i32,
    /// Which try of the step under a key of its own, from 1; rises when the provider refused it.
    pub attempt: i32,
    /// Who was called.
    pub provider: ProviderCode,
    /// What was asked.
    pub step: PaymentStep,
    /// What came of it.
    pub outcome: PaymentOutcome,
    /// Where the payment stands at the provider, as far as the answer tells.
    pub state: PaymentState,
    /// The provider's id of the payment; empty while unknown.
    pub reference: CompactString,
    /// Minor units that the answer speaks of; 0 when it names none.
    pub amount_minor: i64,
    /// Machine-readable cause of a refusal, `a-z`, `0-9` and `_`, e.g. `card_declined`; else empty.
    pub reason: CompactString,
    /// From call to answer, milliseconds.
    pub latency_ms: i32,
}

/// A provider's webhook, its signature checked at the door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentNotified {
    /// The order; record key.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Position of the method in the order, from 1.
    pub method: i32,
    /// Which authorization of the method, from 1.
    pub generation: i32,
    /// Who sent it.
    pub provider: ProviderCode,
    /// The provider's id of the event: the same event comes more than once.
    pub event_id: CompactString,
    /// Where the payment stood when the event was made.
    pub state: PaymentState,
    /// The provider's id of the payment.
    pub reference: CompactString,
    /// Minor units that the event speaks of; 0 when it names none.
    pub amount_minor: i64,
    /// Machine-readable cause of a refusal; else empty.
    pub reason: CompactString,
    /// When the provider says that it happened.
    pub occurred_at: Millis,
}

/// What a provider is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStep {
    /// Written by a newer version than this reader.
    Unknown,
    /// Hold the amount.
    Authorize,
    /// Take what is held.
    Capture,
    /// Let go of what is held.
    Void,
    /// Give back what was taken.
    Refund,
}

impl PaymentStep {
    /// The step's name in records, keys and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
        }
    }

    /// Where a payment stands while the step may still be done; beyond it the step is over, one way or the
    /// other.
    pub fn begins_from(self) -> PaymentState {
        match self {
            Self::Unknown | Self::Authorize => PaymentState::New,
            Self::Capture | Self::Void => PaymentState::Authorized,
            Self::Refund => PaymentState::Captured,
        }
    }
}

/// What came of a call to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentOutcome {
    /// Nobody knows: time-out, 5xx, or the connection broke after the request left.
    Unknown,
    /// Done.
    Succeeded,
    /// The provider's definite no; asking again under the same key is useless.
    Declined,
    /// This request certainly did nothing (no connection, 429, 503).
    Failed,
    /// The request never left: too late, or the partition moved on.
    NotSent,
    /// Asked for it, the provider knows no such payment, or not this step of it.
    NotFound,
}

impl PaymentOutcome {
    /// The outcome's name in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Succeeded => "succeeded",
            Self::Declined => "declined",
            Self::Failed => "failed",
            Self::NotSent => "not_sent",
            Self::NotFound => "not_found",
        }
    }
}

/// Where a payment stands, in the order in which it can move: a report of an earlier state than the one
/// that is known comes late and says nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// Not told, or written by a newer version than this reader.
    Unknown,
    /// Nothing is held or taken.
    New,
    /// The provider said no.
    Declined,
    /// The amount is held.
    Authorized,
    /// The hold was let go, or ran out.
    Voided,
    /// The amount was taken.
    Captured,
    /// It was given back.
    Refunded,
}

impl PaymentState {
    /// The state's name in records and APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::New => "new",
            Self::Declined => "declined",
            Self::Authorized => "authorized",
            Self::Voided => "voided",
            Self::Captured => "captured",
            Self::Refunded => "refunded",
        }
    }
}

/// What happened to one method of an order's payment; stands in the status event that tells of it, and
/// is what the ledger is posted from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentFact {
    /// Position of the method in the order, from 1.
    pub method: i32,
    /// Who holds the money.
    pub provider: ProviderCode,
    /// The provider's id of the payment.
    pub reference: CompactString,
    /// Where the payment stands now.
    pub state: PaymentState,
    /// Minor units.
    pub amount_minor: i64,
    /// Currency of the amount, the order's.
    pub currency: Currency,
}
