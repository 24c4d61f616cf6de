//! The numbered catalogue of what must never be untrue. Written once: tests panic on a violation,
//! production counts it (`tillroll_invariant_violations_total`) and alarms.

use events::{OrderId, OrderKey, PaymentState};

use crate::payments::Report;
use crate::stock::Level;
use crate::table::LevelKey;

/// One broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its number, e.g. `ST-1`.
    pub invariant: &'static str,
    /// What was seen; no personal data.
    pub detail: String,
}

/// ST-1: for every SKU and warehouse, reserved, allocated and what is set aside for a flash sale are not
/// negative, and their sum is no more than what is on hand; nor is what a count did not find.
pub fn level(key: &LevelKey, level: &Level) -> Option<Violation> {
    let sound = level.reserved >= 0
        && level.allocated >= 0
        && level.set_aside >= 0
        && (0..=level.on_hand).contains(&level.missing)
        && level.reserved.saturating_add(level.allocated).saturating_add(level.set_aside)
            <= level.on_hand;
    (!sound).then(|| Violation {
        invariant: "ST-1",
        detail: format!("{}/{}/{} stands at {level:?}", key.0, key.1, key.2),
    })
}

/// CO-1: a consignment is booked only for an order whose lines are all reserved.
pub fn booked_while(order: OrderId, reserved: bool) -> Option<Violation> {
    (!reserved).then(|| Violation {
        invariant: "CO-1",
        detail: format!("order {order} was booked without a reservation"),
    })
}

/// PA-1: a consignment is booked only for an order whose payment, if it has one, is captured.
pub fn booked_unpaid(order: OrderId) -> Violation {
    let detail = format!("order {order} was booked before it was paid");
    Violation { invariant: "PA-1", detail }
}

/// PA-2: a provider holds, takes and gives back the amount that it was asked for.
pub fn paid_amount(order: OrderKey, expected_minor: i64, report: &Report) -> Option<Violation> {
    let named = report.state >= PaymentState::Authorized && report.amount_minor != 0;
    (named && report.amount_minor != expected_minor).then(|| Violation {
        invariant: "PA-2",
        detail: format!(
            "order {}: {} of {} minor units instead of {expected_minor}",
            order.order_id,
            report.state.as_str(),
            report.amount_minor
        ),
    })
}
