//! Money: what the providers' ledgers say against what the status events say, to the cent.

use std::collections::BTreeMap;

use events::{OrderKey, OrderStatus, OrderStatusChanged, PaymentState};

use super::Evidence;
use crate::providers::Held;
use crate::world::World;

/// AU-19: money kept = money of orders that were served, and nothing is left on hold. AU-20: no method is
/// taken twice. AU-21: nobody's parcel leaves before all of it was taken. AU-22: the status events'
/// facts add up to the providers' ledgers.
pub(super) fn check(world: &World, evidence: &Evidence, faults: &mut Vec<String>) {
    let mut ledger = BTreeMap::<OrderKey, Vec<&Held>>::new();
    for held in world.providers.iter().flat_map(|provider| &provider.ledger) {
        ledger.entry(held.order).or_default().push(held);
    }
    for (order, chain) in &evidence.statuses {
        let held = ledger.remove(order).unwrap_or_default();
        for fault in order_faults(chain, &held) {
            faults.push(format!("{fault}: order {} {held:?}", order.order_id));
        }
    }
    for order in ledger.keys() {
        faults
            .push(format!("AU-19 providers hold money of {}, which has no chain", order.order_id));
    }
}

fn order_faults(chain: &[OrderStatusChanged], held: &[&Held]) -> Vec<String> {
    let mut faults = Vec::new();
    let placed = chain.iter().find_map(|changed| changed.order.as_ref());
    let methods = placed.and_then(|placed| placed.payment_methods.as_deref()).unwrap_or_default();
    let routed = chain.iter().find(|changed| changed.status == OrderStatus::Routed);
    let served = routed.is_some() && !chain.iter().any(|changed| unserved(changed.status));
    let kept: i64 = sum(held, |held| held.state == PaymentState::Captured);
    let due = if served { methods.iter().map(|method| method.amount_minor).sum() } else { 0 };
    if kept != due {
        faults.push(format!("AU-19 providers keep {kept} minor units, due are {due}"));
    }
    if held.iter().any(|held| held.state == PaymentState::Authorized) {
        faults.push("AU-19 an authorization is left behind".into());
    }
    for number in (1..).take(methods.len()) {
        let taken = |held: &&&Held| held.method == number && held.captured_at.is_some();
        let times = held.iter().filter(taken).count();
        if times > 1 {
            faults.push(format!("AU-20 method {number} was captured {times} times"));
        }
    }
    if let Some(routed) = routed {
        let at = routed.occurred_at.0;
        let before: i64 = sum(held, |held| held.captured_at.is_some_and(|captured| captured <= at));
        let total: i64 = methods.iter().map(|method| method.amount_minor).sum();
        if before < total {
            faults.push(format!("AU-21 routed when {before} of {total} were captured"));
        }
    }
    for state in [PaymentState::Captured, PaymentState::Refunded] {
        let facts = chain.iter().flat_map(|changed| &changed.payments);
        let told: i64 = facts.filter(|fact| fact.state == state).map(|f| f.amount_minor).sum();
        let really = sum(held, |held| match state {
            PaymentState::Captured => held.captured_at.is_some(),
            state => held.state == state,
        });
        if told != really {
            let state = state.as_str();
            faults.push(format!("AU-22 {told} were told to be {state}, {really} were"));
        }
    }
    faults
}

fn sum(held: &[&Held], which: impl Fn(&Held) -> bool) -> i64 {
    held.iter().filter(|held| which(held)).map(|held| held.amount_minor).sum()
}

/// An order with this status in its chain keeps none of its customer's money. What was given up and is
/// delivered after all has been refunded meanwhile.
fn unserved(status: OrderStatus) -> bool {
    use OrderStatus::{Cancelled, Declined, Expired, Rejected, Returned, Undeliverable};
    matches!(status, Cancelled | Declined | Expired | Rejected | Returned | Undeliverable)
}

/// AU-3 for an order with a payment: authorized, then paid, then routed; a refusal has its reason; money
/// that came back is told of once, after the end. What is left is the chain of an order without payment.
pub(super) fn without_payment(
    chain: &[OrderStatusChanged],
) -> Result<Vec<&OrderStatusChanged>, &'static str> {
    use OrderStatus::{
        Authorized, Cancelled, Declined, Expired, Paid, Received, Rejected, Reserved, Routed,
    };
    let told_back = |changed: &OrderStatusChanged| {
        matches!(changed.reason.as_str(), "refunded" | "payment_voided" | "payment_declined")
    };
    let mut walk: Vec<&OrderStatusChanged> = Vec::new();
    let mut times = 0;
    for changed in chain {
        if !told_back(changed) {
            walk.push(changed);
            continue;
        }
        times += 1;
        let ended = walk.iter().any(|before| unserved(before.status));
        if times > 1 || !ended || walk.last().is_none_or(|last| last.status != changed.status) {
            return Err("AU-3 money came back without an end, or twice");
        }
    }
    if walk.iter().any(|c| c.status == Declined && c.reason.is_empty()) {
        return Err("AU-3 declined without a reason");
    }
    let statuses: Vec<OrderStatus> = walk.iter().map(|changed| changed.status).collect();
    let legal = match statuses.as_slice() {
        [Received, Rejected | Cancelled]
        | [Received, Reserved, Rejected | Cancelled | Declined | Expired]
        | [Received, Reserved, Authorized, Rejected | Cancelled | Declined] => true,
        [Received, Reserved, Authorized, Paid, Rejected | Cancelled | Routed, rest @ ..] => {
            !rest.iter().any(|status| matches!(status, Authorized | Paid))
        }
        _ => false,
    };
    if !legal {
        return Err("AU-3 an illegal chain of an order with a payment");
    }
    walk.retain(|changed| !matches!(changed.status, Authorized | Paid));
    Ok(walk)
}
