//! The saga of an order: reserve every line → book a courier → routed. The only writer of
//! `order-status`.
//!
//! States: *reserving* (waits for its stock partitions) → *paying* (waits for the payment, if it has
//! one) → *booking* (waits for a courier) → *routed*; or an end from any of them, after everything that
//! was reserved is released and, *settling*, everything that was paid is given back. Each step is
//! paired with its compensation: `ReserveLines`/`ReleaseLines`, authorize and capture/void and refund
//! (`payments`), `BookConsignment`/(void, owed by the couriers processor). A stock partition receives an order's commands in the order they were
//! decided, so a release never overtakes its reservation and needs no answer.

mod pay;

use std::collections::BTreeMap;
use std::rc::Rc;

use compact_str::CompactString;
use events::{
    AllocateLines, BookConsignment, Consignment, ConsignmentBooked, ConsignmentFailed, Currency,
    Lane, LineRefusal, LinesRefused, LinesReserved, Merchant, Millis, OrderId, OrderPlaced,
    OrderStatus, OrderStatusChanged, PaymentFact, Record, ReleaseLines, ReserveLine, ReserveLines,
    WarehouseCode, topics,
};
use serde::{Deserialize, Serialize};

use crate::dedupe::{self, Admission, Finished, OrderRow};
use crate::invariant;
use crate::machine::{Context, Effects, Machine, Source};
use crate::payments::Payments;
use crate::planted;
use crate::table::{AnyTable, Backing, Key, Row, Table, TableId};

/// What changes while an order is served; its body stays in [`OrderRow`].
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
}

/// Where a saga stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Waits for these stock partitions.
    Reserving {
        /// Not answered yet.
        waiting: Vec<i32>,
    },
    /// Waits for a courier.
    Booking,
    /// A courier has it.
    Routed,
    /// Waits for its payment.
    Paying,
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

impl Row for Saga {}

/// The orders processor's machine: dedupe, then the saga.
pub struct Fulfilment {
    orders: Table<OrderId, OrderRow>,
    sagas: Table<OrderId, Saga>,
    payments: Payments,
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
        }
    }

    fn place(&mut self, placed: OrderPlaced, source: Source, context: &Context, fx: &mut Effects) {
        if let Admission::Repeat(repeat) = dedupe::admit(&mut self.orders, &placed, source) {
            fx.emit(context, topics::ORDER_CONFLICTS.name, placed.order_id.as_bytes(), repeat);
            return;
        }
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
        let commands = reservations(&placed, accepted_at, context);
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
            stage: Stage::Reserving { waiting: stock_partitions.clone() },
            stock_partitions,
            attempt: 1,
            facts,
        };
        let row = OrderRow {
            accepted_at,
            fingerprint: placed.fingerprint,
            body: Some(placed.clone()),
            finished: None,
        };
        self.orders.put(order_id, row);
        let news = News { order: Some(placed), ..News::default() };
        announce(order_id, &mut saga, OrderStatus::Received, news, context, fx);
        for (partition, command) in commands {
            fx.emit_to(topics::STOCK.name, partition, order_id.as_bytes(), command);
        }
        self.sagas.put(order_id, saga);
    }

    fn lines_reserved(&mut self, answer: &LinesReserved, context: &Context, fx: &mut Effects) {
        let order_id = answer.order_id;
        // An order that ended meanwhile has sent its release behind this reservation.
        let Some(mut saga) = self.saga(order_id, answer.accepted_at) else { return };
        let Stage::Reserving { waiting } = &mut saga.stage else { return };
        waiting.retain(|partition| *partition != answer.stock_partition);
        if waiting.is_empty() {
            announce(order_id, &mut saga, OrderStatus::Reserved, News::default(), context, fx);
            self.pay_or_book(order_id, &mut saga, context, fx);
        }
        self.sagas.put(order_id, saga);
    }

    fn lines_refused(&mut self, answer: LinesRefused, context: &Context, fx: &mut Effects) {
        let order_id = answer.order_id;
        let Some(mut saga) = self.saga(order_id, answer.accepted_at) else { return };
        if !matches!(saga.stage, Stage::Reserving { .. }) {
            fx.reject("a reserved order cannot be refused its lines");
            return;
        }
        // Who refused holds nothing: there is nothing to release.
        saga.stock_partitions.retain(|partition| *partition != answer.stock_partition);
        let reason = answer.refusals.iter().map(|refusal| refusal.reason).max();
        let news = News {
            reason: reason.map_or("", |reason| reason.as_str()).into(),
            refusals: answer.refusals,
            ..News::default()
        };
        self.end(order_id, saga, OrderStatus::Rejected, news, context, fx);
    }

    fn book(&mut self, order_id: OrderId, saga: &Saga, context: &Context, fx: &mut Effects) {
        let body = self.orders.peek(&order_id).and_then(|row| row.body.as_ref());
        let Some(destination) = body.map(|body| body.destination.clone()) else { return };
        let lane = Lane::new(&WarehouseCode::MAIN, &destination.country);
        let command = BookConsignment {
            order_id,
            accepted_at: saga.accepted_at,
            merchant: saga.facts.merchant.clone(),
            lane: lane.clone(),
            destination,
        };
        fx.emit(context, topics::COURIERS.name, lane.as_str().as_bytes(), command);
    }

    fn booked(&mut self, answer: ConsignmentBooked, context: &Context, fx: &mut Effects) {
        let order_id = answer.order_id;
        let Some(mut saga) = self.saga(order_id, answer.accepted_at) else { return };
        match saga.stage {
            Stage::Booking => {}
            Stage::Routed | Stage::Settling(_) => return,
            Stage::Paying => {
                fx.violations.push(invariant::booked_unpaid(order_id));
                return;
            }
            Stage::Reserving { .. } => {
                fx.violations.extend(invariant::booked_while(order_id, false));
                return;
            }
        }
        saga.stage = Stage::Routed;
        let news = News { consignment: Some(answer.consignment), ..News::default() };
        announce(order_id, &mut saga, OrderStatus::Routed, news, context, fx);
        for partition in &saga.stock_partitions {
            let command = AllocateLines {
                order_id,
                accepted_at: saga.accepted_at,
                merchant: saga.facts.merchant.clone(),
                attempt: saga.attempt,
            };
            fx.emit_to(topics::STOCK.name, *partition, order_id.as_bytes(), command);
        }
        self.sagas.put(order_id, saga);
    }

    fn booking_failed(&mut self, answer: &ConsignmentFailed, context: &Context, fx: &mut Effects) {
        let Some(saga) = self.saga(answer.order_id, answer.accepted_at) else { return };
        if saga.stage == Stage::Booking {
            let news = News { reason: "no_courier".into(), ..News::default() };
            self.end(answer.order_id, saga, OrderStatus::Rejected, news, context, fx);
        }
    }

    /// Compensates everything that was asked for and ends the order: only the marker stays.
    fn end(
        &mut self,
        order_id: OrderId,
        mut saga: Saga,
        status: OrderStatus,
        mut news: News,
        context: &Context,
        fx: &mut Effects,
    ) {
        for partition in saga.stock_partitions.iter().filter(|_| !planted!(HoldNotReleased)) {
            let command = ReleaseLines {
                order_id,
                accepted_at: saga.accepted_at,
                merchant: saga.facts.merchant.clone(),
                attempt: saga.attempt,
            };
            fx.emit_to(topics::STOCK.name, *partition, order_id.as_bytes(), command);
        }
        let settling = self.unwind_payment(order_id, &saga, &mut news, context, fx);
        announce(order_id, &mut saga, status, news, context, fx);
        if settling {
            self.settle_later(order_id, saga, status);
        } else {
            self.finish(order_id, status, context);
        }
    }

    /// Nothing more is to be done for the order: only the marker stays.
    fn finish(&mut self, order_id: OrderId, status: OrderStatus, context: &Context) {
        if let Some(mut row) = self.orders.get(&order_id) {
            row.body = None;
            row.finished = Some(Finished { status, at: context.now });
            self.orders.put(order_id, row);
        }
        self.sagas.remove(order_id);
    }

    fn saga(&mut self, order_id: OrderId, accepted_at: Millis) -> Option<Saga> {
        self.sagas.get(&order_id).filter(|saga| saga.accepted_at == accepted_at)
    }
}

/// One `ReserveLines` per stock partition that owns a SKU of the order.
fn reservations(
    placed: &OrderPlaced,
    accepted_at: Millis,
    context: &Context,
) -> BTreeMap<i32, ReserveLines> {
    let mut commands = BTreeMap::new();
    for line in &placed.lines {
        let key = topics::stock_key(&placed.merchant, &line.sku);
        let partition = topics::partition_for(key.as_bytes(), context.partitions);
        let command = commands.entry(partition).or_insert_with(|| ReserveLines {
            order_id: placed.order_id,
            accepted_at,
            merchant: placed.merchant.clone(),
            attempt: 1,
            warehouses: vec![WarehouseCode::MAIN],
            lines: vec![],
        });
        let (sku, quantity) = (line.sku.clone(), line.quantity);
        command.lines.push(ReserveLine { line: line.line, sku, quantity });
    }
    commands
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
            Record::ConsignmentBooked(answer) => self.booked(answer, context, effects),
            Record::ConsignmentFailed(answer) => self.booking_failed(&answer, context, effects),
            Record::PaymentAnswered(answer) => self.payment_answered(&answer, context, effects),
            Record::PaymentNotified(notice) => self.payment_notified(&notice, context, effects),
            other => effects.reject(format!("{} is not for orders", other.record_type().name())),
        }
    }

    fn fire(&mut self, table: TableId, key: &[u8], context: &Context, effects: &mut Effects) {
        if table == self.payments.id() {
            return self.payments.fire(key, context, effects);
        }
        if table == self.orders.id()
            && let Some(order_id) = OrderId::from_bytes(key)
            && let Some(row) = self.orders.peek(&order_id)
            && row.deadline().is_some_and(|at| at <= context.now)
        {
            self.orders.remove(order_id);
        }
    }

    fn resume(&mut self, _context: &Context, effects: &mut Effects) {
        self.payments.resume(effects);
    }

    fn tables(&mut self) -> Vec<&mut dyn AnyTable> {
        let [moving, captured] = self.payments.tables();
        vec![&mut self.orders, &mut self.sagas, moving, captured]
    }
}

#[cfg(test)]
#[path = "fulfilment_tests.rs"]
mod tests;
