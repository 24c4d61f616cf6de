//! The saga of an order: reserve every line → (wait for the customer) → (take its payment) → book a
//! courier → routed. The only writer of `order-status`.
//!
//! States: *reserving* (waits for its stock partitions; *retrying* if pieces were only held by others)
//! → *awaiting* (only an order that its customer must confirm: expires in time) → *paying* (only an
//! order with payment methods) → *booking* (waits for a courier) → *routed*; from each of them
//! *rejected*, *declined*, *expired* or *cancelled*, after everything that was done is undone. Then
//! *shipped* → delivered, or *undeliverable* → returned. An order that has ended while money is on its
//! way back is *settling*. Each step is paired with its compensation: `ReserveLines`/`ReleaseLines`,
//! authorize and capture/void and refund (`payments`), `BookConsignment`/`VoidConsignment`. A stock
//! partition receives an order's commands in the order they were decided, so a release never overtakes
//! its reservation and needs no answer.

mod book;
mod cancel;
mod deliver;
mod end;
mod pay;
mod ranking;
mod reserve;
mod rows;

use std::collections::BTreeMap;
use std::rc::Rc;

use compact_str::CompactString;
use events::{
    Consignment, LineRefusal, LinesReserved, Millis, OrderId, OrderPlaced, OrderStatus,
    OrderStatusChanged, PaymentFact, ReceiptId, Record, topics,
};

use crate::dedupe::{self, Admission, OrderRow, Wish};
use crate::machine::{Context, Effects, Machine, Source};
use crate::payments::Payments;
use crate::stock::Receipt;
use crate::table::{AnyTable, Backing, Key, Row as _, Table, TableId, WarehouseKey};
pub use ranking::Warehouse;
pub use rows::{Facts, Place, Saga, Stage};

/// The orders processor's machine: dedupe, then the saga.
pub struct Fulfilment {
    orders: Table<OrderId, OrderRow>,
    sagas: Table<OrderId, Saga>,
    payments: Payments,
    warehouses: Table<WarehouseKey, Warehouse>,
    /// Requests that have listed a warehouse.
    listings: Table<ReceiptId, Receipt>,
    /// The warehouses table read whole, since every order is ranked by it; filled on first use.
    all_warehouses: Option<BTreeMap<WarehouseKey, Warehouse>>,
}

/// What a status event says beyond the order's facts.
#[derive(Default)]
struct News {
    reason: CompactString,
    order: Option<OrderPlaced>,
    consignment: Option<Consignment>,
    refusals: Vec<LineRefusal>,
    payments: Vec<PaymentFact>,
}

impl Fulfilment {
    /// The machine over a task's committed state.
    pub fn new(backing: &Rc<dyn Backing>) -> Self {
        Self {
            orders: Table::new(1, backing),
            sagas: Table::new(2, backing),
            payments: Payments::new((3, 4), backing),
            warehouses: Table::new(5, backing),
            listings: Table::new(6, backing),
            all_warehouses: None,
        }
    }

    fn place(&mut self, placed: OrderPlaced, source: Source, context: &Context, fx: &mut Effects) {
        let early = match dedupe::admit(&mut self.orders, &placed, source) {
            Admission::First { early } => early,
            Admission::Repeat(repeat) => {
                fx.emit(context, topics::ORDER_CONFLICTS.name, placed.order_id.as_bytes(), repeat);
                return;
            }
        };
        if placed.lines.is_empty() || placed.lines.iter().any(|line| line.quantity <= 0) {
            fx.reject("an order needs lines with positive quantities");
            return;
        }
        if !pay::covers_total(&placed) {
            fx.reject("payment methods need positive amounts that sum up to the order's total");
            return;
        }
        let order_id = placed.order_id;
        let accepted_at = source.appended_at;
        let cancelled = early == Some(Wish::Cancel);
        let commands = match cancelled {
            true => BTreeMap::new(),
            false => {
                let ranking = self.ranking(&placed.merchant, &placed.destination.country);
                reserve::reservations(&placed, &ranking, accepted_at, context.partitions)
            }
        };
        let stock_partitions: Vec<i32> = commands.keys().copied().collect();
        let facts = Facts {
            merchant: placed.merchant.clone(),
            ordered_at: placed.ordered_at,
            total_minor: placed.total_minor,
            currency: placed.currency.clone(),
            line_count: i32::try_from(placed.lines.len()).unwrap_or(i32::MAX),
        };
        let mut saga = Saga {
            accepted_at,
            version: 0,
            stage: Stage::Reserving { waiting: stock_partitions.clone(), rest: vec![] },
            stock_partitions,
            attempt: 1,
            facts,
            consignment: None,
            confirmed: early == Some(Wish::Confirm),
            origin: None,
            places: vec![],
            dispatched: false,
            ended_as: None,
        };
        let row = OrderRow {
            accepted_at,
            fingerprint: placed.fingerprint,
            body: Some(placed.clone()),
            finished: None,
            early: None,
        };
        self.orders.put(order_id, row);
        let news = News { order: Some(pay::without_tokens(placed)), ..News::default() };
        announce(order_id, &mut saga, OrderStatus::Received, news, context, fx);
        if cancelled {
            let news = News { reason: "requested".into(), ..News::default() };
            return self.end(order_id, saga, OrderStatus::Cancelled, news, context, fx);
        }
        for (partition, command) in commands {
            fx.emit_to(topics::STOCK.name, partition, order_id.as_bytes(), command);
        }
        self.sagas.put(order_id, saga);
    }

    fn lines_reserved(&mut self, answer: &LinesReserved, context: &Context, fx: &mut Effects) {
        let order_id = answer.order_id;
        // An order that ended meanwhile has sent its release behind this reservation.
        let Some(mut saga) = self.saga(order_id, answer.accepted_at) else { return };
        if answer.attempt != saga.attempt {
            return;
        }
        if let (Some(from), Some(to)) = (&answer.moved_from, &answer.warehouse) {
            return self.lines_moved(order_id, saga, from, to, context, fx);
        }
        let Stage::Reserving { waiting, rest } = &mut saga.stage else { return };
        if let Some(warehouse) = answer.warehouse.clone() {
            saga.places.push(Place { warehouse, alone: answer.alone.clone() });
        }
        waiting.retain(|partition| *partition != answer.stock_partition);
        match (waiting.is_empty(), std::mem::take(rest)) {
            (false, still) => {
                *rest = still;
                self.sagas.put(order_id, saga);
            }
            (true, rest) if !rest.is_empty() => {
                self.reserve_next(order_id, saga, rest, context, fx);
            }
            _ => {
                if let Some(saga) = self.settle_origin(order_id, saga, context, fx) {
                    self.reserved(order_id, saga, context, fx);
                }
            }
        }
    }

    /// Every line is held. An order that its customer has to confirm waits for that.
    fn reserved(&mut self, order_id: OrderId, mut saga: Saga, context: &Context, fx: &mut Effects) {
        announce(order_id, &mut saga, OrderStatus::Reserved, News::default(), context, fx);
        match self.awaited_until(order_id, context.now) {
            Some(until) if !saga.confirmed => {
                saga.stage = Stage::Awaiting { until };
                self.sagas.put(order_id, saga);
            }
            _ => self.proceed(order_id, saga, context, fx),
        }
    }

    fn saga(&mut self, order_id: OrderId, accepted_at: Millis) -> Option<Saga> {
        self.sagas.get(&order_id).filter(|saga| saga.accepted_at == accepted_at)
    }
}

fn announce(
    order_id: OrderId,
    saga: &mut Saga,
    status: OrderStatus,
    news: News,
    context: &Context,
    fx: &mut Effects,
) {
    saga.version += 1;
    let changed = OrderStatusChanged {
        order_id,
        accepted_at: saga.accepted_at,
        merchant: saga.facts.merchant.clone(),
        version: saga.version,
        status,
        reason: news.reason,
        occurred_at: context.now,
        ordered_at: saga.facts.ordered_at,
        total_minor: saga.facts.total_minor,
        currency: saga.facts.currency.clone(),
        line_count: saga.facts.line_count,
        order: news.order,
        consignment: news.consignment,
        refusals: news.refusals,
        payments: news.payments,
    };
    fx.emit(context, topics::ORDER_STATUS.name, order_id.as_bytes(), changed);
}

impl Machine for Fulfilment {
    fn step(&mut self, record: Record, source: Source, context: &Context, effects: &mut Effects) {
        match record {
            Record::OrderPlaced(placed) => self.place(placed, source, context, effects),
            Record::LinesReserved(answer) => self.lines_reserved(&answer, context, effects),
            Record::LinesRefused(answer) => self.lines_refused(answer, context, effects),
            Record::CancelRequested(request) => self.cancel(request, context, effects),
            Record::OrderConfirmed(request) => self.confirm(request, context, effects),
            Record::OrderDispatched(request) => self.dispatched(&request, effects),
            Record::WarehouseListed(listed) => self.list_warehouse(listed, context),
            Record::ConfirmationTimedOut(over) => self.expire(&over, context, effects),
            Record::ConsignmentBooked(answer) => self.booked(answer, context, effects),
            Record::ConsignmentFailed(answer) => self.booking_failed(&answer, context, effects),
            Record::ConsignmentMoved(moved) => self.consignment_moved(moved, context, effects),
            Record::PaymentAnswered(answer) => self.payment_answered(&answer, context, effects),
            Record::PaymentNotified(notice) => self.payment_notified(&notice, context, effects),
            other => effects.reject(format!("{} is not for orders", other.record_type().name())),
        }
    }

    fn fire(&mut self, table: TableId, key: &[u8], context: &Context, effects: &mut Effects) {
        if table == self.payments.id() {
            self.payments.fire(key, context, effects);
        } else if table == self.sagas.id() {
            if let Some(order_id) = OrderId::from_bytes(key) {
                self.saga_due(order_id, context, effects);
            }
        } else if table == self.listings.id()
            && let Some(key) = ReceiptId::from_bytes(key)
            && self.listings.get(&key).is_some_and(|listing| listing.forget_at <= context.now)
        {
            self.listings.remove(key);
        } else if table == self.orders.id()
            && let Some(order_id) = OrderId::from_bytes(key)
            && let Some(row) = self.orders.peek(&order_id)
            && row.deadline().is_some_and(|at| at <= context.now)
        {
            self.orders.remove(order_id);
        }
    }

    fn end_batch(&mut self, _context: &Context, effects: &mut Effects) {
        self.payments.end_batch(effects);
    }

    fn resume(&mut self, _context: &Context, effects: &mut Effects) {
        self.payments.resume(effects);
    }

    fn tables(&mut self) -> Vec<&mut dyn AnyTable> {
        let [moving, captured] = self.payments.tables();
        vec![
            &mut self.orders,
            &mut self.sagas,
            moving,
            captured,
            &mut self.warehouses,
            &mut self.listings,
        ]
    }
}

#[cfg(test)]
#[path = "fulfilment_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "fulfilment/ways_out_tests.rs"]
mod ways_out_tests;

#[cfg(test)]
#[path = "fulfilment/payment_tests.rs"]
mod payment_tests;

#[cfg(test)]
#[path = "fulfilment/warehouse_tests.rs"]
mod warehouse_tests;
