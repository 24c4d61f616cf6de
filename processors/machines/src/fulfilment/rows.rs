//! The saga's row: small, since it changes at each step; the order's body stays where dedupe looks.

use events::{CourierCode, Currency, Merchant, Millis, OrderStatus, WarehouseCode};
use serde::{Deserialize, Serialize};

use crate::table::Row;

/// What changes while an order is served; its body stays in [`crate::dedupe::OrderRow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saga {
    /// With the order id, the order's identity.
    pub accepted_at: Millis,
    /// Version of the last status event.
    pub version: i32,
    /// Where the saga stands.
    pub stage: Stage,
    /// Stock partitions that hold lines of this order, or have been asked to.
    pub stock_partitions: Vec<i32>,
    /// Try of the reservation, from 1.
    pub attempt: i32,
    /// What every status event repeats.
    pub facts: Facts,
    /// Who has booked it, and under which attempt.
    #[serde(default)]
    pub consignment: Option<(CourierCode, i32)>,
    /// The customer has confirmed before everything was reserved.
    #[serde(default)]
    pub confirmed: bool,
    /// The warehouse that most pieces come from; `None`: the merchant has only `main`.
    #[serde(default)]
    pub origin: Option<WarehouseCode>,
    /// Where the partitions that have answered hold the lines; only of several warehouses.
    #[serde(default)]
    pub places: Vec<Place>,
    /// The pieces have left the warehouse: it said so, or the courier did.
    #[serde(default)]
    pub dispatched: bool,
    /// What the order ended as, while a courier may have it; `None`: cancelled.
    #[serde(default)]
    pub ended_as: Option<OrderStatus>,
}

/// Where one stock partition holds its lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Most of them.
    pub warehouse: WarehouseCode,
    /// The warehouses that could each have served all of them.
    pub alone: Vec<WarehouseCode>,
}

/// Where a saga stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Waits for these stock partitions.
    Reserving {
        /// Not answered yet.
        waiting: Vec<i32>,
        /// To be asked when those have answered; only from the second attempt on.
        #[serde(default)]
        rest: Vec<i32>,
    },
    /// Was refused pieces that are only held by others, and will ask again.
    Retrying {
        /// When.
        at: Millis,
    },
    /// Waits for the customer's confirmation.
    Awaiting {
        /// Expires then.
        until: Millis,
    },
    /// Waits for its payment.
    Paying,
    /// Waits for a courier.
    Booking,
    /// A courier has it.
    Routed,
    /// Cancelled, or rejected after all, while a courier may have it.
    Cancelling,
    /// On its way to the customer.
    Shipped,
    /// The courier has given up; it may come back.
    Undeliverable,
    /// It has ended with this status; what was paid is still on its way back.
    Settling(OrderStatus),
}

/// What every status event repeats of its order, so that no reader needs to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The shop.
    pub merchant: Merchant,
    /// The shop's business time.
    pub ordered_at: Millis,
    /// Minor units.
    pub total_minor: i64,
    /// Of the total.
    pub currency: Currency,
    /// Lines in the order.
    pub line_count: i32,
}

impl Row for Saga {
    fn deadline(&self) -> Option<Millis> {
        match self.stage {
            Stage::Retrying { at } => Some(at),
            Stage::Awaiting { until } => Some(until),
            _ => None,
        }
    }
}
