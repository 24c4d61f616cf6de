//! A second opinion: from the committed logs, the companies' ledgers and the sinks' tables alone, was
//! every order served exactly once? Shares no code with the machines; decodes records by `events`.

mod deliveries;
mod money;
mod orders;
mod payments;
mod sales;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use events::{
    Millis, MovementKind, OrderId, OrderKey, OrderPlaced, OrderStatus, OrderStatusChanged, Record,
    StockMoved, StockReceived, topics,
};

use crate::kafka::log::Entry;
use crate::world::World;

/// What the logs say, decoded.
#[derive(Default)]
struct Evidence {
    /// Orders as they were written: partition, entry, order.
    placed: Vec<(u8, Entry, OrderPlaced)>,
    /// Status events by order, in log order.
    statuses: BTreeMap<OrderKey, Vec<OrderStatusChanged>>,
    /// Receipts as they were written.
    receipts: Vec<StockReceived>,
    /// Movements of stock.
    movements: Vec<StockMoved>,
    /// Orders that left the warehouse.
    dispatched: BTreeSet<OrderId>,
    /// Orders that somebody asked to cancel.
    cancels: BTreeSet<OrderId>,
    /// Orders that were confirmed, and when first.
    confirms: BTreeMap<OrderId, Millis>,
}

impl Evidence {
    /// Requests to change stock that were refused.
    fn refused(&self) -> BTreeSet<uuid::Uuid> {
        let refused = self.movements.iter().filter(|moved| moved.kind == MovementKind::Refused);
        refused.map(|moved| moved.source_id).collect()
    }
}

/// Everything that is untrue.
pub fn audit(world: &World) -> Vec<String> {
    let mut faults = Vec::new();
    let evidence = gather(world, &mut faults);
    orders::check(world, &evidence, &mut faults);
    money::stock(world, &evidence, &mut faults);
    sales::check(world, &evidence, &mut faults);
    money::consignments(world, &evidence, &mut faults);
    deliveries::check(world, &evidence, &mut faults);
    payments::check(world, &evidence, &mut faults);
    state::check(world, &mut faults);
    state::sinks(world, &evidence, &mut faults);
    faults.truncate(20);
    faults
}

fn gather(world: &World, faults: &mut Vec<String>) -> Evidence {
    let mut evidence = Evidence::default();
    let mut poison = 0;
    for (tp, entry, record) in records(world, topics::ORDERS.name, &mut poison) {
        if let Record::OrderPlaced(placed) = record {
            evidence.placed.push((tp, entry, placed));
        }
    }
    let mut unreadable = 0;
    for (_, _, record) in records(world, topics::ORDER_STATUS.name, &mut unreadable) {
        if let Record::OrderStatusChanged(changed) = record {
            let key = OrderKey { order_id: changed.order_id, accepted_at: changed.accepted_at };
            evidence.statuses.entry(key).or_default().push(changed);
        }
    }
    for (_, _, record) in records(world, topics::STOCK.name, &mut unreadable) {
        if let Record::StockReceived(receipt) = record {
            evidence.receipts.push(receipt);
        }
    }
    for (_, _, record) in records(world, topics::STOCK_MOVEMENTS.name, &mut unreadable) {
        if let Record::StockMoved(moved) = record {
            if moved.kind == MovementKind::Dispatch
                && let Ok(order) = moved.reason.parse()
            {
                evidence.dispatched.insert(OrderId(order));
            }
            evidence.movements.push(moved);
        }
    }
    for (_, entry, record) in records(world, topics::ORDER_OUTCOMES.name, &mut unreadable) {
        match record {
            Record::CancelRequested(request) => {
                evidence.cancels.insert(request.order_id);
            }
            Record::OrderConfirmed(request) => {
                let at = evidence.confirms.entry(request.order_id).or_insert(entry.at);
                *at = entry.at.min(*at);
            }
            _ => {}
        }
    }
    if unreadable > 0 {
        faults.push(format!("{unreadable} records of processors cannot be read"));
    }
    evidence
}

/// The committed records of a topic: partition, entry, record. Counts what cannot be read.
fn records(world: &World, topic: &str, unreadable: &mut usize) -> Vec<(u8, Entry, Record)> {
    let mut found = Vec::new();
    for (tp, log) in world.kafka.of_topic(topic) {
        for (entry, record) in log.committed(0, log.end()) {
            match world.codec.decode(record.value.as_deref().unwrap_or_default()) {
                Ok(record) => found.push((tp.partition, entry.clone(), record)),
                Err(_) => *unreadable += 1,
            }
        }
    }
    found
}

/// Whether a courier took the order and it was not given up afterwards, so that its pieces are bound.
fn served(chain: &[OrderStatusChanged]) -> bool {
    use OrderStatus::{Cancelled, Rejected, Routed};
    let was = |status| chain.iter().any(|changed| changed.status == status);
    was(Routed) && !was(Cancelled) && !was(Rejected)
}

/// Counts the saga steps that the log shows.
pub fn cover(world: &mut World) {
    let mut counts = BTreeMap::<String, u64>::new();
    let mut stands = BTreeMap::<OrderKey, OrderStatus>::new();
    for topic in topics::ALL {
        let mut unreadable = 0;
        for (_, _, record) in records(world, topic.name, &mut unreadable) {
            let name = match &record {
                Record::OrderStatusChanged(changed) if changed.reason == "requested" => {
                    let key =
                        OrderKey { order_id: changed.order_id, accepted_at: changed.accepted_at };
                    let before = stands.get(&key).map_or("nothing", |status| status.as_str());
                    format!("saga: cancelled when {before}")
                }
                Record::OrderStatusChanged(changed) => format!(
                    "saga: {}{}{}",
                    changed.status.as_str(),
                    if changed.reason.is_empty() { "" } else { ", " },
                    changed.reason
                ),
                Record::OrderRepeated(repeated) => format!("saga: {:?}", repeated.kind),
                Record::ConsignmentBooked(booked) if booked.consignment.attempt > 1 => {
                    "saga: ConsignmentBooked after failover".into()
                }
                Record::CourierDecided(decided) => {
                    format!("decision: {}", decided.reason.as_str())
                }
                Record::BreakerMoved(moved) => format!("breaker: {}", moved.state.as_str()),
                Record::TrackingReported(report) => format!("tracking: {}", report.event.as_str()),
                Record::DeliveryJudged(judged) => {
                    format!("judged: {}", if judged.on_time { "on time" } else { "late" })
                }
                Record::VoidConsignment(void) if void.courier.is_some() => {
                    "saga: VoidConsignment, of a booked one".into()
                }
                Record::LinesRefused(refused) => {
                    let worst = refused.refusals.iter().map(|line| line.reason).max();
                    format!("saga: LinesRefused, {}", worst.map_or("", |r| r.as_str()))
                }
                Record::StockMoved(moved) => format!("stock: {}", moved.kind.as_str()),
                Record::LinesReserved(answer) if answer.warehouse.is_some() => {
                    let alone = if answer.alone.is_empty() { "split or moved" } else { "whole" };
                    format!("saga: LinesReserved, {alone}")
                }
                Record::ReserveLines(command) if command.attempt > 1 => {
                    "saga: ReserveLines, again".into()
                }
                Record::LinesReserved(answer) if answer.attempt > 1 => {
                    "saga: reserved, at a later attempt".into()
                }
                other => format!("saga: {}", other.record_type().name()),
            };
            *counts.entry(name).or_default() += 1;
            if let Record::OrderStatusChanged(changed) = record {
                let key = OrderKey { order_id: changed.order_id, accepted_at: changed.accepted_at };
                stands.insert(key, changed.status);
            }
        }
    }
    for (what, times) in counts {
        world.coverage.add(&what, times);
    }
    let aborted: usize = world.kafka.all().map(|(_, log)| log.aborted()).sum();
    world.coverage.add("records of aborted transactions", aborted as u64);
}
