//! The saga's payment: between the reservation and the booking, and, when an order ends otherwise,
//! the way back of what was paid.
//!
//! The money is captured before a courier is booked, since a booking is what makes a company collect.

use events::{
    OrderId, OrderKey, OrderPlaced, OrderStatus, PaymentAnswered, PaymentFact, PaymentNotified,
    PaymentState,
};

use super::{Fulfilment, News, Saga, Stage, announce};
use crate::machine::{Context, Effects};
use crate::payments::Moved;
use crate::planted;

/// Whether an order's payment methods, if it has any, pay its total exactly.
pub(super) fn covers_total(placed: &OrderPlaced) -> bool {
    let Some(methods) = &placed.payment_methods else { return true };
    let positive = !methods.is_empty() && methods.iter().all(|method| method.amount_minor > 0);
    let sum = methods.iter().try_fold(0_i64, |sum, method| sum.checked_add(method.amount_minor));
    positive && sum == Some(placed.total_minor)
}

/// The order as everybody may read it: a token of a gift balance can be spent.
pub(super) fn without_tokens(mut placed: OrderPlaced) -> OrderPlaced {
    for method in placed.payment_methods.iter_mut().flatten() {
        method.token = "".into();
    }
    placed
}

fn key(order_id: OrderId, saga: &Saga) -> OrderKey {
    OrderKey { order_id, accepted_at: saga.accepted_at }
}

impl Fulfilment {
    /// What follows once the lines are held and the customer is not awaited: the payment, or the booking
    /// where there is none.
    pub(super) fn proceed(
        &mut self,
        order_id: OrderId,
        mut saga: Saga,
        context: &Context,
        fx: &mut Effects,
    ) {
        let body = self.orders.peek(&order_id).and_then(|row| row.body.as_ref());
        let methods = body.and_then(|body| body.payment_methods.as_ref());
        if let Some(methods) = methods {
            saga.stage = Stage::Paying;
            let currency = &saga.facts.currency;
            self.payments.begin(key(order_id, &saga), methods, currency, context, fx);
        } else {
            saga.stage = Stage::Booking;
            self.book(order_id, &saga, context, fx);
        }
        self.sagas.put(order_id, saga);
    }

    /// A provider answered.
    pub(super) fn payment_answered(
        &mut self,
        answer: &PaymentAnswered,
        context: &Context,
        fx: &mut Effects,
    ) {
        let moved = self.payments.answered(answer, context, fx);
        let order = OrderKey { order_id: answer.order_id, accepted_at: answer.accepted_at };
        self.payment_moved(order, moved, context, fx);
    }

    /// A provider's webhook came in.
    pub(super) fn payment_notified(
        &mut self,
        notice: &PaymentNotified,
        context: &Context,
        fx: &mut Effects,
    ) {
        let moved = self.payments.notified(notice, context, fx);
        let order = OrderKey { order_id: notice.order_id, accepted_at: notice.accepted_at };
        self.payment_moved(order, moved, context, fx);
    }

    fn payment_moved(
        &mut self,
        order: OrderKey,
        moved: Option<Moved>,
        context: &Context,
        fx: &mut Effects,
    ) {
        let Some(moved) = moved else { return };
        let order_id = order.order_id;
        let Some(mut saga) = self.saga(order_id, order.accepted_at) else { return };
        match (moved, saga.stage.clone()) {
            (Moved::Authorized, Stage::Paying) => {
                let news = News { payments: self.payments.facts(order), ..News::default() };
                announce(order_id, &mut saga, OrderStatus::Authorized, news, context, fx);
                if planted!(BookedUnpaid) {
                    saga.stage = Stage::Booking;
                    self.book(order_id, &saga, context, fx);
                }
                self.sagas.put(order_id, saga);
                let moved = self.payments.capture(order, context, fx);
                self.payment_moved(order, moved, context, fx);
            }
            (Moved::Captured, Stage::Paying) => {
                let news = News { payments: self.payments.facts(order), ..News::default() };
                announce(order_id, &mut saga, OrderStatus::Paid, news, context, fx);
                saga.stage = Stage::Booking;
                self.book(order_id, &saga, context, fx);
                self.sagas.put(order_id, saga);
            }
            (Moved::Declined(reason), Stage::Paying) => {
                let news = News { reason, ..News::default() };
                self.end(order_id, saga, OrderStatus::Declined, news, context, fx);
            }
            (Moved::Unwound, stage) => {
                self.payment_unwound(order, saga, stage, context, fx);
            }
            _ => {}
        }
    }

    /// Whether Tillroll has to do with the order's payment; known while its body is kept.
    pub(super) fn has_payment(&mut self, order_id: OrderId) -> bool {
        let body = self.orders.peek(&order_id).and_then(|row| row.body.as_ref());
        body.is_some_and(|body| body.payment_methods.is_some())
    }

    /// The order ends unserved: its money begins to go back, if it does not already. What has happened to it
    /// since the last status event.
    pub(super) fn unwind_payment(
        &mut self,
        order_id: OrderId,
        saga: &Saga,
        context: &Context,
        fx: &mut Effects,
    ) -> Vec<PaymentFact> {
        let order = key(order_id, saga);
        let takes_time = self.payments.unwind(order, context, fx);
        let facts = self.payments.facts(order);
        if !takes_time {
            self.payments.forget(order);
        }
        facts
    }

    /// Whether no money of an order that has ended is on its way back; it is forgotten then.
    pub(super) fn payment_is_over(&mut self, order_id: OrderId, saga: &Saga) -> bool {
        let order = key(order_id, saga);
        let over = !self.payments.is_unwinding(order);
        if over {
            self.payments.forget(order);
        }
        over
    }

    /// All money is back. An order that waits for nothing else is finished.
    fn payment_unwound(
        &mut self,
        order: OrderKey,
        mut saga: Saga,
        stage: Stage,
        context: &Context,
        fx: &mut Effects,
    ) {
        let status = match stage {
            Stage::Settling(status) => status,
            Stage::Cancelling => saga.ended_as.unwrap_or(OrderStatus::Cancelled),
            Stage::Undeliverable => OrderStatus::Undeliverable,
            _ => return,
        };
        let payments = self.payments.facts(order);
        self.payments.forget(order);
        let went = |state| payments.iter().any(|fact| fact.state == state);
        let reason = match (went(PaymentState::Refunded), went(PaymentState::Voided)) {
            (true, _) => Some("refunded"),
            (false, true) => Some("payment_voided"),
            // Refused while the order was ending: nothing came back, but it is part of the history.
            (false, false) if !payments.is_empty() => Some("payment_declined"),
            (false, false) => None,
        };
        if let Some(reason) = reason {
            let news = News { reason: reason.into(), payments, ..News::default() };
            announce(order.order_id, &mut saga, status, news, context, fx);
        }
        match stage {
            Stage::Settling(_) => self.finish(order.order_id, saga, status, context),
            _ => self.sagas.put(order.order_id, saga),
        }
    }
}
