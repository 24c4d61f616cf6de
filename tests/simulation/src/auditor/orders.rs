//! Orders: one chain of gapless versions each, repeats absorbed and recorded, poison set aside.

use std::collections::{BTreeMap, BTreeSet};

use events::{OrderKey, OrderStatus, OrderStatusChanged, Record, RepeatKind, topics};

use super::{Evidence, records};
use crate::kafka::log::Header;
use crate::world::World;

pub(super) fn check(world: &World, evidence: &Evidence, faults: &mut Vec<String>) {
    let mut firsts = BTreeMap::new();
    let mut repeats = BTreeMap::new();
    for (partition, entry, placed) in &evidence.placed {
        match firsts.get(&placed.order_id) {
            None => {
                firsts.insert(placed.order_id, (entry.at, placed));
            }
            Some((_, first)) => {
                let same = first.fingerprint == placed.fingerprint;
                let kind = if same { RepeatKind::Duplicate } else { RepeatKind::Conflict };
                repeats.insert((*partition, entry.offset), (placed.order_id, kind));
            }
        }
    }
    for order in &world.accepted.orders {
        if !firsts.contains_key(order) {
            faults.push(format!("AU-1 acknowledged order {order} is not in the log"));
        }
    }
    let mut chains: BTreeSet<OrderKey> = evidence.statuses.keys().copied().collect();
    for (order_id, (accepted_at, placed)) in &firsts {
        let key = OrderKey { order_id: *order_id, accepted_at: *accepted_at };
        chains.remove(&key);
        let chain = evidence.statuses.get(&key).map(Vec::as_slice).unwrap_or_default();
        let paid = placed.payment_methods.is_some();
        if let Some(fault) = chain_fault(chain, paid) {
            let seen: Vec<String> =
                chain.iter().map(|c| format!("{} {}", c.version, c.status.as_str())).collect();
            faults.push(format!("{fault}: order {order_id} [{}]", seen.join(", ")));
            continue;
        }
        if chain[0].order.as_ref() != Some(*placed) {
            faults.push(format!("AU-4 order {order_id} was received with another body"));
        }
        let total: i64 =
            placed.lines.iter().map(|l| i64::from(l.quantity) * l.unit_price_minor).sum();
        if chain.iter().any(|changed| changed.total_minor != total) {
            faults.push(format!("AU-4 order {order_id} has another total than its lines"));
        }
    }
    for chain in chains {
        let (order, at) = (chain.order_id, chain.accepted_at);
        faults.push(format!("AU-2 a chain for {order} accepted at {at}, which nobody placed"));
    }
    check_repeats(world, repeats, faults);
    check_dead_letters(world, faults);
}

/// AU-3: versions 1, 2, … once each, legal steps, a final status.
fn chain_fault(chain: &[OrderStatusChanged], paid: bool) -> Option<&'static str> {
    if chain.is_empty() {
        return Some("AU-1 an order without any status");
    }
    let versions = chain.iter().zip(1..);
    if versions.clone().any(|(changed, expected)| changed.version != expected) {
        return Some("AU-3 versions are not 1, 2, … once each");
    }
    let mut statuses: Vec<OrderStatus> = chain.iter().map(|changed| changed.status).collect();
    if paid {
        if let Some(fault) = payment_fault(chain) {
            return Some(fault);
        }
        // What is left is the chain of an order without payment.
        statuses.retain(|status| !matches!(status, OrderStatus::Authorized | OrderStatus::Paid));
        statuses.dedup();
        if let Some(last) = statuses.last_mut().filter(|last| **last == OrderStatus::Declined) {
            *last = OrderStatus::Rejected;
        }
    }
    use OrderStatus::{Received, Rejected, Reserved, Routed};
    match statuses.as_slice() {
        [Received, Reserved, Routed] | [Received, Reserved, Rejected] | [Received, Rejected] => {
            None
        }
        [Received] | [Received, Reserved] => Some("AU-3 an order that was never finished"),
        _ => Some("AU-3 an illegal chain"),
    }
}

/// AU-3 for orders with a payment: authorized, then paid, then routed; a refusal has its reason; money
/// that came back is told of after the end, with a repeated last status.
fn payment_fault(chain: &[OrderStatusChanged]) -> Option<&'static str> {
    use OrderStatus::{Authorized, Declined, Paid, Received, Reserved, Routed};
    let told_back = |changed: &OrderStatusChanged| {
        matches!(changed.reason.as_str(), "refunded" | "payment_voided")
    };
    let repeats = chain.windows(2).filter(|pair| pair[0].status == pair[1].status);
    if repeats.clone().count() > 1 || repeats.clone().any(|pair| !told_back(&pair[1])) {
        return Some("AU-3 a status came twice");
    }
    if chain.iter().any(|c| c.status == Declined && c.reason.is_empty()) {
        return Some("AU-3 declined without a reason");
    }
    let walk: Vec<OrderStatus> = chain.iter().map(|changed| changed.status).collect();
    let legal = match walk.as_slice() {
        [.., Routed] => walk == [Received, Reserved, Authorized, Paid, Routed],
        [start @ .., Declined] => {
            let start =
                if start.last() == Some(&Declined) { &start[..start.len() - 1] } else { start };
            start == [Received, Reserved] || start == [Received, Reserved, Authorized]
        }
        walk => !walk.contains(&Authorized) || walk.contains(&Paid),
    };
    (!legal).then_some("AU-3 an illegal chain of an order with a payment")
}

fn check_repeats(
    world: &World,
    mut expected: BTreeMap<(u8, i64), (events::OrderId, RepeatKind)>,
    faults: &mut Vec<String>,
) {
    let mut unreadable = 0;
    for (_, _, record) in records(world, topics::ORDER_CONFLICTS.name, &mut unreadable) {
        let Record::OrderRepeated(repeated) = record else { continue };
        let partition = u8::try_from(repeated.source_partition).unwrap_or(u8::MAX);
        let found = expected.remove(&(partition, repeated.source_offset));
        if found != Some((repeated.order_id, repeated.kind)) {
            let order = repeated.order_id;
            faults.push(format!("AU-5 repeat of {order} recorded twice or wrongly: {found:?}"));
        }
    }
    for ((partition, offset), (order, kind)) in expected {
        faults.push(format!("AU-5 {kind:?} of {order} at {partition}/{offset} is not recorded"));
    }
}

/// Poison once in its dead letter queue, nothing else in any.
fn check_dead_letters(world: &World, faults: &mut Vec<String>) {
    let mut letters = BTreeSet::new();
    let mut count = 0;
    for topic in topics::ALL {
        for (_, log) in world.kafka.of_topic(&topics::dead_letters(topic.name)) {
            for (_, record) in log.committed(0, log.end()) {
                let Header::Rejected(topic, partition, offset, stage) = record.header else {
                    continue;
                };
                count += 1;
                letters.insert((topic, partition, offset));
                if stage != "decode" || topic != topics::ORDERS.name {
                    faults.push(format!("AU-6 {topic}-{partition}@{offset} refused by a machine"));
                }
            }
        }
    }
    if count != letters.len() || count != world.accepted.poison {
        let sent = world.accepted.poison;
        faults.push(format!("AU-6 {count} dead letters of {sent} poison records"));
    }
}
