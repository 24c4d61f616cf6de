//! Orders: one chain of gapless versions each, repeats absorbed and recorded, poison set aside.

use std::collections::{BTreeMap, BTreeSet};

use events::{OrderKey, OrderPlaced, OrderStatus, OrderStatusChanged, Record, RepeatKind, topics};

use super::{Evidence, payments, records};
use crate::kafka::log::Header;
use crate::world::World;

/// Most that a process's clock is ahead of the brokers', and a little more.
const SKEW_MS: i64 = 200;

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
        check_requests(world, evidence, placed, chain, faults);
        // Everybody may read a status: means of payment stay out of it.
        let mut told = (*placed).clone();
        told.payment_methods.iter_mut().flatten().for_each(|method| method.token = "".into());
        if chain[0].order.as_ref() != Some(&told) {
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
    let walk = match paid {
        true => payments::without_payment(chain),
        false => Ok(chain.iter().collect()),
    };
    let walk = match walk {
        Ok(walk) => walk,
        Err(fault) => return Some(fault),
    };
    let statuses: Vec<OrderStatus> = walk.iter().map(|changed| changed.status).collect();
    use OrderStatus::{Cancelled, Declined, Expired, Received, Rejected, Reserved, Routed};
    match statuses.as_slice() {
        [Received, Rejected | Cancelled] | [Received, Reserved, Rejected | Cancelled | Expired] => {
            None
        }
        [Received, Reserved, Declined] if paid => None,
        [Received, Reserved, Routed, ..] => delivery_fault(&walk[2..]),
        [Received] | [Received, Reserved] => Some("AU-3 an order that was never finished"),
        _ => Some("AU-3 an illegal chain"),
    }
}

/// What may follow from `routed`, the first of the chain; nothing has to.
fn delivery_fault(chain: &[&OrderStatusChanged]) -> Option<&'static str> {
    use OrderStatus::{Cancelled, Delivered, Rejected, Returned, Routed, Shipped, Undeliverable};
    let mut overdue = 0;
    for pair in chain.windows(2) {
        let (before, now) = (pair[0].status, pair[1]);
        if now.status == before && now.reason == "overdue" {
            overdue += 1;
            continue;
        }
        let legal: &[OrderStatus] = match before {
            Routed => &[Shipped, Cancelled, Rejected, Undeliverable, Returned],
            Shipped => &[Delivered, Undeliverable, Returned],
            Undeliverable => &[Delivered, Returned],
            _ => &[],
        };
        if !legal.contains(&now.status) {
            return Some("AU-3 an illegal chain after routed");
        }
    }
    (overdue > 1).then_some("AU-3 told more than once that it is overdue")
}

/// AU-15: a cancel that was acknowledged counts, and nothing else cancels. AU-16: what has to be
/// confirmed is not routed without, and expires neither early nor if the confirmation was in time.
fn check_requests(
    world: &World,
    evidence: &Evidence,
    placed: &OrderPlaced,
    chain: &[OrderStatusChanged],
    faults: &mut Vec<String>,
) {
    use OrderStatus::{Cancelled, Expired, Reserved, Routed};
    let order = placed.order_id;
    let last = chain.last().map(|changed| changed.status);
    let gone = evidence.dispatched.contains(&order);
    if world.accepted.cancels.contains(&order) && last == Some(Routed) && !gone {
        faults.push(format!("AU-15 order {order} was cancelled and is routed"));
    }
    if last == Some(Cancelled) && !evidence.cancels.contains(&order) {
        faults.push(format!("AU-15 nobody cancelled order {order}"));
    }
    let moment = |status| chain.iter().find(|c| c.status == status).map(|c| c.occurred_at);
    let confirmed = evidence.confirms.get(&order).copied();
    let awaited = placed.confirm_within_ms > 0;
    if awaited && moment(Routed).is_some() && confirmed.is_none() {
        faults.push(format!("AU-16 order {order} is routed, never confirmed"));
    }
    if let (Some(expired), Some(reserved)) = (moment(Expired), moment(Reserved)) {
        let until = reserved.plus(placed.confirm_within_ms);
        // Clocks of processes and brokers differ.
        let in_time = confirmed.is_some_and(|at| at.plus(SKEW_MS) < until);
        if !awaited || expired < until || in_time {
            faults.push(format!(
                "AU-16 order {order}: reserved {reserved}, confirmed {confirmed:?}, expired {expired}"
            ));
        }
    }
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

/// Whether the record is one that the saga may refuse: a dispatch too early or too late.
fn refused_by_rule(world: &World, topic: &str, partition: i32, offset: i64) -> bool {
    let log = world.kafka.log(world.kafka.tp(topic, partition));
    let Some((_, record)) = log.next_committed(offset, offset + 1) else { return false };
    let record = world.codec.decode(record.value.as_deref().unwrap_or_default());
    matches!(record, Ok(Record::OrderDispatched(_)))
}

/// Poison once in its dead letter queue, and dispatches that contradict their order; nothing else in any.
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
                if stage == "step" && refused_by_rule(world, topic, partition, offset) {
                    count -= 1;
                    letters.remove(&(topic, partition, offset));
                } else if stage != "decode" || topic != topics::ORDERS.name {
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
