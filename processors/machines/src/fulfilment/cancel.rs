//! Ways out that the customer takes, and what each undoes: a cancel at any stage, a confirmation that
//! comes or does not come in time.
//!
//! | stage | a cancel undoes |
//! |---|---|
//! | before the order was read | nothing: remembered, as a confirmation is, and the order ends as soon as it is read |
//! | reserving, retrying, awaiting | what is reserved or asked for |
//! | booking | that, and the booking: the saga stays (*cancelling*) until the couriers processor answers, since a courier may have it already |
//! | routed | what is allocated, and the consignment |
//! | dispatched | nothing: it is too late |

use events::{
    CancelRequested, ConfirmationTimedOut, CourierCode, DispatchLines, Fingerprint, Merchant,
    Millis, OrderConfirmed, OrderDispatched, OrderId, OrderStatus, VoidConsignment, topics,
};

use super::reserve::release;
use super::{Fulfilment, News, Saga, Stage, announce};
use crate::dedupe::{Early, OrderRow};
use crate::machine::{Context, Effects};
use crate::planted;

/// A request that comes before its order is remembered this long: 8 days, longer than orders are kept
/// in their topic.
const EARLY_KEPT_MS: i64 = 8 * 24 * 60 * 60 * 1000;

impl Fulfilment {
    /// Cancels the order unless it has ended. Repeats change nothing.
    pub(super) fn cancel(&mut self, request: CancelRequested, context: &Context, fx: &mut Effects) {
        let order_id = request.order_id;
        let cancelled = |early: &mut Early| early.cancelled = !planted!(EarlyCancelLost);
        if self.note_early(order_id, &request.merchant, context, cancelled) {
            return;
        }
        let Some(accepted_at) = self.orders.peek(&order_id).map(|row| row.accepted_at) else {
            return;
        };
        let Some(saga) = self.saga(order_id, accepted_at) else { return };
        if saga.facts.merchant != request.merchant {
            fx.reject("a cancel of another merchant's order");
            return;
        }
        // What has left the warehouse cannot be undone here.
        if !matches!(saga.stage, Stage::Cancelling) && !saga.dispatched {
            self.abandon(order_id, saga, OrderStatus::Cancelled, news(), context, fx);
        }
    }

    /// Notes a request whose order has not been read yet; `false` if it has.
    fn note_early(
        &mut self,
        order_id: OrderId,
        merchant: &Merchant,
        context: &Context,
        note: impl FnOnce(&mut Early),
    ) -> bool {
        let before = match self.orders.get(&order_id) {
            None => None,
            Some(OrderRow { early: Some(early), .. }) => Some(early),
            Some(_) => return false,
        };
        let forget_at = context.now.plus(EARLY_KEPT_MS);
        let mut early = before.filter(|early| early.merchant == *merchant).unwrap_or(Early {
            merchant: merchant.clone(),
            cancelled: false,
            confirmed: false,
            forget_at,
        });
        note(&mut early);
        let row = OrderRow {
            accepted_at: context.now,
            fingerprint: Fingerprint(uuid::Uuid::nil()),
            body: None,
            finished: None,
            early: Some(early),
        };
        self.orders.put(order_id, row);
        true
    }

    /// Ends an order wherever it stands, and undoes what was done.
    pub(super) fn abandon(
        &mut self,
        order_id: OrderId,
        mut saga: Saga,
        status: OrderStatus,
        news: News,
        context: &Context,
        fx: &mut Effects,
    ) {
        if saga.stage == Stage::Booking {
            release(&saga, order_id, fx);
            self.void(order_id, &saga, None, context, fx);
            announce(order_id, &mut saga, status, news, context, fx);
            saga.stage = Stage::Cancelling;
            saga.ended_as = Some(status);
            self.sagas.put(order_id, saga);
            return;
        }
        if let Some(booked) = saga.consignment.clone() {
            self.void(order_id, &saga, Some(booked), context, fx);
        }
        self.end(order_id, saga, status, news, context, fx);
    }

    /// The warehouse has handed the pieces over. Repeats change nothing.
    pub(super) fn dispatched(&mut self, request: &OrderDispatched, fx: &mut Effects) {
        let order_id = request.order_id;
        let Some(accepted_at) = self.orders.peek(&order_id).map(|row| row.accepted_at) else {
            return;
        };
        let Some(mut saga) = self.saga(order_id, accepted_at) else { return };
        if saga.facts.merchant != request.merchant {
            fx.reject("a dispatch of another merchant's order");
            return;
        }
        if saga.stage == Stage::Routed && !saga.dispatched {
            for partition in &saga.stock_partitions {
                let command = DispatchLines {
                    order_id,
                    accepted_at,
                    merchant: saga.facts.merchant.clone(),
                    attempt: saga.attempt,
                };
                fx.emit_to(topics::STOCK.name, *partition, order_id.as_bytes(), command);
            }
            saga.dispatched = true;
            self.sagas.put(order_id, saga);
        }
    }

    /// The customer has confirmed: the order goes on, if it waits for that. Repeats change nothing.
    pub(super) fn confirm(
        &mut self,
        request: &OrderConfirmed,
        context: &Context,
        fx: &mut Effects,
    ) {
        let order_id = request.order_id;
        let confirmed = |early: &mut Early| early.confirmed = true;
        if self.note_early(order_id, &request.merchant, context, confirmed) {
            return;
        }
        let Some(accepted_at) = self.orders.peek(&order_id).map(|row| row.accepted_at) else {
            return;
        };
        let Some(mut saga) = self.saga(order_id, accepted_at) else { return };
        if saga.facts.merchant != request.merchant {
            fx.reject("a confirmation of another merchant's order");
            return;
        }
        match saga.stage {
            Stage::Awaiting { .. } => self.proceed(order_id, saga, context, fx),
            Stage::Reserving { .. } | Stage::Retrying { .. } => {
                saga.confirmed = true;
                self.sagas.put(order_id, saga);
            }
            _ => {}
        }
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

    /// The booking of a cancelled order has ended after all: what was booked is voided.
    pub(super) fn cancelled_booking_ended(
        &mut self,
        order_id: OrderId,
        saga: &Saga,
        booked: Option<(CourierCode, i32)>,
        context: &Context,
        fx: &mut Effects,
    ) {
        if booked.is_some() && !planted!(CancelNotVoided) {
            self.void(order_id, saga, booked, context, fx);
        }
        self.close(order_id, saga.ended_as.unwrap_or(OrderStatus::Cancelled), context.now);
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
