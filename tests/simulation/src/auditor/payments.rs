//! Money: what the providers' ledgers say against what the status events say, to the cent.

use std::collections::BTreeMap;

use events::{OrderKey, OrderStatus, OrderStatusChanged, PaymentState};

use super::Evidence;
use crate::providers::Held;
use crate::world::World;

/// AU-15: money captured = money of fulfilled orders, and nothing is left on hold. AU-16: no method is
/// taken twice. AU-17: nobody's parcel leaves before all of it was taken. AU-18: the status events'
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
            .push(format!("AU-15 providers hold money of {}, which has no chain", order.order_id));
    }
}

fn order_faults(chain: &[OrderStatusChanged], held: &[&Held]) -> Vec<String> {
    let mut faults = Vec::new();
    let placed = chain.iter().find_map(|changed| changed.order.as_ref());
    let methods = placed.and_then(|placed| placed.payment_methods.as_deref()).unwrap_or_default();
    let routed = chain.iter().find(|changed| changed.status == OrderStatus::Routed);
    let fulfilled = chain.last().is_some_and(|last| {
        use OrderStatus::{Delivered, Routed, Shipped};
        matches!(last.status, Routed | Shipped | Delivered)
    });
    let kept: i64 = sum(held, |held| held.state == PaymentState::Captured);
    let due = if fulfilled { methods.iter().map(|method| method.amount_minor).sum() } else { 0 };
    if kept != due {
        faults.push(format!("AU-15 providers keep {kept} minor units, due are {due}"));
    }
    if held.iter().any(|held| held.state == PaymentState::Authorized) {
        faults.push("AU-15 an authorization is left behind".into());
    }
    for number in (1..).take(methods.len()) {
        let taken = |held: &&&Held| held.method == number && held.captured_at.is_some();
        let times = held.iter().filter(taken).count();
        if times > 1 {
            faults.push(format!("AU-16 method {number} was captured {times} times"));
        }
    }
    if let Some(routed) = routed {
        let at = routed.occurred_at.0;
        let before: i64 = sum(held, |held| held.captured_at.is_some_and(|captured| captured <= at));
        let total: i64 = methods.iter().map(|method| method.amount_minor).sum();
        if before < total {
            faults.push(format!("AU-17 routed when {before} of {total} were captured"));
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
            faults.push(format!("AU-18 {told} were told to be {state}, {really} were"));
        }
    }
    faults
}

fn sum(held: &[&Held], which: impl Fn(&Held) -> bool) -> i64 {
    held.iter().filter(|held| which(held)).map(|held| held.amount_minor).sum()
}
