//! Reserving: one command per stock partition that owns a SKU of the order, and again when pieces were
//! only held by others.
//!
//! Two orders can hold each other's last piece: each has one in a partition and is refused the other,
//! and both would fail. So an order that was refused only because pieces are *held*, and that asks
//! several partitions, releases what it has and tries again a little later. From then on it asks one
//! partition after the other, in ascending order: of orders that try again, the one that holds in the
//! highest partition waits for none of the others, so at least one of them gets through.

use std::collections::BTreeMap;

use events::{
    LinesRefused, Millis, OrderId, OrderPlaced, OrderStatus, RefusalReason, ReleaseLines,
    ReserveLine, ReserveLines, WarehouseCode, topics,
};

use super::{Fulfilment, News, Place, Saga, Stage};
use crate::dedupe::OrderRow;
use crate::machine::{Context, Effects};
use crate::planted;

/// Tries of a reservation, the first one included.
const ATTEMPTS: i32 = 5;
/// Time before the second try; doubles with each further one: all of them take 3 s.
const RETRY_MS: i64 = 200;

impl Fulfilment {
    pub(super) fn lines_refused(
        &mut self,
        answer: LinesRefused,
        context: &Context,
        fx: &mut Effects,
    ) {
        let order_id = answer.order_id;
        let Some(mut saga) = self.saga(order_id, answer.accepted_at) else { return };
        if answer.attempt != saga.attempt || matches!(saga.stage, Stage::Retrying { .. }) {
            return;
        }
        let asked = match &saga.stage {
            Stage::Reserving { waiting, .. } => waiting.contains(&answer.stock_partition),
            _ => false,
        };
        if !asked {
            // What it holds can't be had after all: a warehouse went offline, a count found less. Not
            // if the order has ended, or the warehouse has handed it over, whatever a count found.
            return self.abandon(order_id, saga, OrderStatus::Rejected, news(answer), context, fx);
        }
        let several = saga.attempt > 1 || saga.stock_partitions.len() > 1;
        let only_held = answer.refusals.iter().all(|line| line.reason == RefusalReason::Held);
        // Who refused holds nothing: there is nothing to release.
        saga.stock_partitions.retain(|partition| *partition != answer.stock_partition);
        if several && only_held && saga.attempt < ATTEMPTS {
            release(&saga, order_id, fx);
            saga.stock_partitions.clear();
            saga.places.clear();
            let wait = RETRY_MS << (saga.attempt - 1);
            saga.stage = Stage::Retrying { at: context.now.plus(wait) };
            self.sagas.put(order_id, saga);
            return;
        }
        self.end(order_id, saga, OrderStatus::Rejected, news(answer), context, fx);
    }

    /// A warehouse went offline, or lacks pieces, and another one has what it held. A courier who has been
    /// asked already would collect in vain: such an order is given up. Where most of the pieces stay, so does
    /// the order: only a few of its lines have moved.
    pub(super) fn lines_moved(
        &mut self,
        order_id: OrderId,
        mut saga: Saga,
        from: &WarehouseCode,
        to: &WarehouseCode,
        context: &Context,
        fx: &mut Effects,
    ) {
        if from == to {
            return;
        }
        let leaves = saga.origin.as_ref().unwrap_or(&WarehouseCode::MAIN) == from;
        match &saga.stage {
            Stage::Reserving { .. } => {
                let place = Place { warehouse: to.clone(), alone: vec![] };
                match saga.places.iter_mut().find(|place| place.warehouse == *from) {
                    Some(before) => *before = place,
                    // It was in `main`, which goes without saying.
                    None => saga.places.push(place),
                }
                self.sagas.put(order_id, saga);
            }
            Stage::Awaiting { .. } | Stage::Paying if leaves => {
                saga.origin = Some(to.clone());
                self.sagas.put(order_id, saga);
            }
            Stage::Booking | Stage::Routed if leaves => {
                let news = News { reason: "warehouse_changed".into(), ..News::default() };
                self.abandon(order_id, saga, OrderStatus::Rejected, news, context, fx);
            }
            _ => {}
        }
    }

    /// All partitions have answered. If they chose different warehouses although one could serve all,
    /// they are asked once more with that one in front; what they hold they keep until they can.
    /// `None`: asked again.
    pub(super) fn settle_origin(
        &mut self,
        order_id: OrderId,
        mut saga: Saga,
        context: &Context,
        fx: &mut Effects,
    ) -> Option<Saga> {
        let places = std::mem::take(&mut saga.places);
        let Some(first) = places.first() else { return Some(saga) };
        let agreed = places.iter().all(|place| place.warehouse == first.warehouse);
        let could = |code: &&WarehouseCode| places.iter().all(|p| p.alone.contains(code));
        let common = first.alone.iter().find(could);
        match common {
            Some(common) if !agreed && saga.attempt == 1 => {
                saga.origin = Some(common.clone());
                saga.attempt += 1;
                let commands = self.commands(order_id, &saga, context);
                let waiting = commands.keys().copied().collect();
                saga.stage = Stage::Reserving { waiting, rest: vec![] };
                for (partition, command) in commands {
                    fx.emit_to(topics::STOCK.name, partition, order_id.as_bytes(), command);
                }
                self.sagas.put(order_id, saga);
                None
            }
            _ => {
                // Of several origins the one that serves most partitions.
                let times = |w: &WarehouseCode| places.iter().filter(|p| p.warehouse == *w).count();
                let most = places.iter().max_by_key(|place| times(&place.warehouse));
                saga.origin = most.map(|place| place.warehouse.clone());
                Some(saga)
            }
        }
    }

    /// Begins the next attempt with the lowest partition.
    pub(super) fn reserve_again(
        &mut self,
        order_id: OrderId,
        mut saga: Saga,
        context: &Context,
        fx: &mut Effects,
    ) {
        saga.attempt += 1;
        let rest = self.commands(order_id, &saga, context).into_keys().collect();
        self.reserve_next(order_id, saga, rest, context, fx);
    }

    /// Asks the first of these partitions.
    pub(super) fn reserve_next(
        &mut self,
        order_id: OrderId,
        mut saga: Saga,
        mut rest: Vec<i32>,
        context: &Context,
        fx: &mut Effects,
    ) {
        let partition = rest.remove(0);
        if let Some(command) = self.commands(order_id, &saga, context).remove(&partition) {
            fx.emit_to(topics::STOCK.name, partition, order_id.as_bytes(), command);
        }
        saga.stock_partitions.push(partition);
        saga.stage = Stage::Reserving { waiting: vec![partition], rest };
        self.sagas.put(order_id, saga);
    }

    fn commands(
        &mut self,
        order_id: OrderId,
        saga: &Saga,
        context: &Context,
    ) -> BTreeMap<i32, ReserveLines> {
        let country = |row: &OrderRow| Some(row.body.as_ref()?.destination.country.clone());
        let Some(country) = self.orders.peek(&order_id).and_then(country) else {
            return BTreeMap::new();
        };
        let mut ranking = self.ranking(&saga.facts.merchant, &country);
        // Stable: the one that could serve all comes first, the others stay as they are ranked.
        ranking.sort_by_key(|code| saga.origin.as_ref() != Some(code));
        let body = self.orders.peek(&order_id).and_then(|row| row.body.as_ref());
        let commands =
            body.map(|body| reservations(body, &ranking, saga.accepted_at, context.partitions));
        let mut commands = commands.unwrap_or_default();
        commands.values_mut().for_each(|command| command.attempt = saga.attempt);
        commands
    }
}

/// One `ReserveLines` per stock partition that owns a SKU of the order, first attempt.
pub(super) fn reservations(
    placed: &OrderPlaced,
    ranking: &[WarehouseCode],
    accepted_at: Millis,
    partitions: i32,
) -> BTreeMap<i32, ReserveLines> {
    let mut commands = BTreeMap::new();
    for line in &placed.lines {
        let key = topics::stock_key(&placed.merchant, &line.sku);
        let partition = topics::partition_for(key.as_bytes(), partitions);
        let command = commands.entry(partition).or_insert_with(|| ReserveLines {
            order_id: placed.order_id,
            accepted_at,
            merchant: placed.merchant.clone(),
            attempt: 1,
            warehouses: ranking.to_vec(),
            lines: vec![],
            customer_id: placed.customer_id.clone(),
        });
        let (sku, quantity) = (line.sku.clone(), line.quantity);
        command.lines.push(ReserveLine { line: line.line, sku, quantity });
    }
    commands
}

fn news(answer: LinesRefused) -> News {
    let reason = answer.refusals.iter().map(|refusal| refusal.reason).max();
    News {
        reason: reason.map_or("", |reason| reason.as_str()).into(),
        refusals: answer.refusals,
        ..News::default()
    }
}

/// Gives back whatever the order's stock partitions hold for it, reserved or allocated.
pub(super) fn release(saga: &Saga, order_id: OrderId, fx: &mut Effects) {
    for partition in saga.stock_partitions.iter().filter(|_| !planted!(HoldNotReleased)) {
        let command = ReleaseLines {
            order_id,
            accepted_at: saga.accepted_at,
            merchant: saga.facts.merchant.clone(),
            attempt: saga.attempt,
        };
        fx.emit_to(topics::STOCK.name, *partition, order_id.as_bytes(), command);
    }
}
