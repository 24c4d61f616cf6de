//! Ways out that the customer takes, and what each undoes: a cancel at any stage, a confirmation that
//! comes or does not come in time.
//!
//! | stage | a cancel undoes |
//! |---|---|
//! | before the order was read | nothing: remembered, as a confirmation is, and the order ends as soon as it is read |
//! | reserving, retrying, awaiting | what is reserved or asked for |
//! | paying | that, and the payment: what is held or taken goes back, what is being asked for as soon as it is known |
//! | booking | all that, and the booking: the saga stays (*cancelling*) until the couriers processor answers, since a courier may have it already |
//! | routed | what is allocated, the payment and the consignment |
//! | dispatched, shipped, undeliverable | nothing: it is too late |
//! | settling | nothing: it has ended |

use events::{
    CancelRequested, ConfirmationTimedOut, CourierCode, Fingerprint, Merchant, Millis,
    OrderConfirmed, OrderId, OrderStatus, VoidConsignment, topics,
};

use super::{Fulfilment, News, Saga, Stage};
use crate::dedupe::{EarlyRequest, OrderRow, Wish};
use crate::machine::{Context, Effects};
use crate::planted;

/// A request that comes before its order is remembered this long: 8 days, longer than orders are kept
/// in their topic.
const EARLY_KEPT_MS: i64 = 8 * 24 * 60 * 60 * 1000;

impl Fulfilment {
    /// Cancels the order unless it has ended. Repeats change nothing.
    pub(super) fn cancel(&mut self, request: CancelRequested, context: &Context, fx: &mut Effects) {
        let order_id = request.order_id;
        let asked = self.asked(order_id, request.merchant, Wish::Cancel, context, fx);
        let Some(saga) = asked else { return };
        self.abandon(order_id, saga, OrderStatus::Cancelled, news(), context, fx);
    }

    /// Ends an order that nobody has taken out of the warehouse yet, and undoes what was done.
    pub(super) fn abandon(
        &mut self,
        order_id: OrderId,
        mut saga: Saga,
        status: OrderStatus,
        news: News,
        context: &Context,
        fx: &mut Effects,
    ) {
        match saga.stage {
            // What the courier has is not stopped any more: it can be returned.
            Stage::Cancelling | Stage::Shipped | Stage::Undeliverable | Stage::Settling(_) => {}
            // Nor is what the warehouse has handed over.
            _ if saga.dispatched => {}
            Stage::Booking => {
                self.void(order_id, &saga, None, context, fx);
                self.undo(order_id, &mut saga, status, news, context, fx);
                saga.stage = Stage::Cancelling;
                saga.ended_as = Some(status);
                self.sagas.put(order_id, saga);
            }
            _ => {
                if let Some(booked) = saga.consignment.clone() {
                    self.void(order_id, &saga, Some(booked), context, fx);
                }
                self.end(order_id, saga, status, news, context, fx);
            }
        }
    }

    /// The customer has confirmed: the order goes on, if it waits for that. Repeats change nothing.
    pub(super) fn confirm(&mut self, request: OrderConfirmed, context: &Context, fx: &mut Effects) {
        let order_id = request.order_id;
        let asked = self.asked(order_id, request.merchant, Wish::Confirm, context, fx);
        let Some(mut saga) = asked else { return };
        match saga.stage {
            Stage::Awaiting { .. } => self.proceed(order_id, saga, context, fx),
            Stage::Reserving { .. } | Stage::Retrying { .. } => {
                saga.confirmed = true;
                self.sagas.put(order_id, saga);
            }
            _ => {}
        }
    }

    /// The saga that a request is about. `None` if nothing is to be done now: the order was not read yet
    /// (the request is remembered), has ended, or is another merchant's.
    fn asked(
        &mut self,
        order_id: OrderId,
        merchant: Merchant,
        wish: Wish,
        context: &Context,
        fx: &mut Effects,
    ) -> Option<Saga> {
        let Some(accepted_at) = self.accepted_at(order_id) else {
            if wish == Wish::Confirm || !planted!(EarlyCancelLost) {
                self.remember(order_id, merchant, wish, context);
            }
            return None;
        };
        let saga = self.saga(order_id, accepted_at)?;
        if saga.facts.merchant != merchant {
            let what = if wish == Wish::Cancel { "cancel" } else { "confirmation" };
            fx.reject(format!("a {what} of another merchant's order"));
            return None;
        }
        Some(saga)
    }

    /// `None` for an order that was not read yet.
    pub(super) fn accepted_at(&mut self, order_id: OrderId) -> Option<Millis> {
        let row = self.orders.peek(&order_id)?;
        row.early.is_none().then_some(row.accepted_at)
    }

    fn remember(&mut self, order_id: OrderId, merchant: Merchant, wish: Wish, context: &Context) {
        let before = self.orders.peek(&order_id).and_then(|row| row.early.as_ref());
        let before = before.filter(|early| early.merchant == merchant).map(|early| early.wish);
        let wish = before.map_or(wish, |before| before.max(wish));
        let forget_at = context.now.plus(EARLY_KEPT_MS);
        let row = OrderRow {
            accepted_at: context.now,
            fingerprint: Fingerprint(uuid::Uuid::nil()),
            body: None,
            finished: None,
            early: Some(EarlyRequest { merchant, wish, forget_at }),
        };
        self.orders.put(order_id, row);
    }

    /// A saga's deadline is due: the customer's time is over, or a reservation is tried again.
    pub(super) fn saga_due(&mut self, order_id: OrderId, context: &Context, fx: &mut Effects) {
        let Some(saga) = self.sagas.get(&order_id) else { return };
        match saga.stage {
            // Through the inbox: a confirmation that stands there already is read before.
            Stage::Awaiting { until } if until <= context.now => {
                let accepted_at = saga.accepted_at;
                let over = ConfirmationTimedOut { order_id, accepted_at };
                fx.emit(context, topics::ORDER_OUTCOMES.name, order_id.as_bytes(), over);
            }
            Stage::Retrying { at } if at <= context.now => {
                self.reserve_again(order_id, saga, context, fx);
            }
            _ => {}
        }
    }

    /// Nobody has confirmed in time: the order expires.
    pub(super) fn expire(
        &mut self,
        over: &ConfirmationTimedOut,
        context: &Context,
        fx: &mut Effects,
    ) {
        let order_id = over.order_id;
        let Some(saga) = self.saga(order_id, over.accepted_at) else { return };
        if matches!(saga.stage, Stage::Awaiting { .. }) && !planted!(ExpiryIgnored) {
            let news = News { reason: "not_confirmed".into(), ..News::default() };
            self.end(order_id, saga, OrderStatus::Expired, news, context, fx);
        }
    }

    /// The booking of an order that was given up has ended after all: what was booked is voided.
    pub(super) fn cancelled_booking_ended(
        &mut self,
        order_id: OrderId,
        saga: Saga,
        booked: Option<(CourierCode, i32)>,
        context: &Context,
        fx: &mut Effects,
    ) {
        if booked.is_some() && !planted!(CancelNotVoided) {
            self.void(order_id, &saga, booked, context, fx);
        }
        let status = saga.ended_as.unwrap_or(OrderStatus::Cancelled);
        self.finish(order_id, saga, status, context);
    }

    fn void(
        &mut self,
        order_id: OrderId,
        saga: &Saga,
        booked: Option<(CourierCode, i32)>,
        context: &Context,
        fx: &mut Effects,
    ) {
        let Some((lane, _)) = self.lane(order_id, saga) else { return };
        let (courier, attempt) = booked.map_or((None, 0), |(courier, n)| (Some(courier), n));
        let command = VoidConsignment {
            order_id,
            accepted_at: saga.accepted_at,
            merchant: saga.facts.merchant.clone(),
            lane: lane.clone(),
            courier,
            attempt,
        };
        fx.emit(context, topics::COURIERS.name, lane.as_str().as_bytes(), command);
    }

    /// When the customer's time is over, from now; `None` if the order waits for nobody.
    pub(super) fn awaited_until(&mut self, order_id: OrderId, now: Millis) -> Option<Millis> {
        let body = self.orders.peek(&order_id)?.body.as_ref()?;
        (body.confirm_within_ms > 0).then(|| now.plus(body.confirm_within_ms))
    }
}

fn news() -> News {
    News { reason: "requested".into(), ..News::default() }
}
