//! The course of a booking: ask, read the answer, ask the next, rest, owe voids.

use compact_str::format_compact;
use events::{
    BookConsignment, CallOutcome, Consignment, ConsignmentBooked, ConsignmentFailed,
    CourierAnswered, CourierCall, CourierCode, Lane, OrderKey, Record, topics,
};

use super::Couriers;
use super::rows::{Booking, OwedVoid, Stage};
use crate::machine::{Call, CallKind, Context, Effects, Notice};
use crate::planted;

/// Rest between rounds when no courier took an order: doubles from 0.5 s to 30 s.
const REST_MS: (i64, i64) = (500, 30_000);
/// Time between tries of an owed void: doubles from 1 s to 60 s.
pub(super) const VOID_RETRY_MS: (i64, i64) = (1_000, 60_000);

impl Couriers {
    pub(super) fn begin(&mut self, command: BookConsignment, context: &Context, fx: &mut Effects) {
        let order = OrderKey { order_id: command.order_id, accepted_at: command.accepted_at };
        if self.bookings.peek(&order).is_some() {
            return;
        }
        let booking = Booking {
            lane: command.lane,
            merchant: command.merchant,
            destination: Some(command.destination),
            attempt: 0,
            stage: Stage::Resting(context.now),
            tried: vec![],
            rounds: 0,
            owed: vec![],
            repeated: false,
            probe: false,
        };
        self.advance(order, booking, context, fx);
    }

    /// Asks the next courier; rests or gives up when there is none.
    fn advance(
        &mut self,
        order: OrderKey,
        mut booking: Booking,
        context: &Context,
        fx: &mut Effects,
    ) {
        if let Some(courier) = self.decide(order, &mut booking, context, fx) {
            booking.repeated = false;
            booking.stage = Stage::Calling(courier);
            self.call_book(order, &booking, fx);
            self.bookings.put(order, booking);
            return;
        }
        if self.refused_by_all(&booking, context) {
            let names: Vec<&str> = booking.tried.iter().map(|(c, _)| c.as_str()).collect();
            let answer = ConsignmentFailed {
                order_id: order.order_id,
                accepted_at: order.accepted_at,
                detail: format_compact!("refused by {}", names.join(", ")),
            };
            emit_outcome(order, answer, context, fx);
            self.finish(order, booking);
            return;
        }
        fx.notices.push(Notice::OrderWaits);
        booking.tried.clear();
        booking.stage = Stage::Resting(context.now.plus(doubled(REST_MS, booking.rounds)));
        booking.rounds += 1;
        self.bookings.put(order, booking);
    }

    pub(super) fn answered(
        &mut self,
        answer: CourierAnswered,
        context: &Context,
        fx: &mut Effects,
    ) {
        let order = OrderKey { order_id: answer.order_id, accepted_at: answer.accepted_at };
        let Some(mut booking) = self.bookings.get(&order) else { return };
        match answer.call {
            CourierCall::Void => {
                let confirmed =
                    matches!(answer.outcome, CallOutcome::Succeeded | CallOutcome::Refused);
                if confirmed {
                    booking.owed.retain(|void| void.attempt != answer.attempt);
                    self.keep_or_forget(order, booking);
                }
            }
            CourierCall::Book => {
                // Only the attempt being made counts: an abandoned one is voided already.
                let current = booking.stage == Stage::Calling(answer.courier.clone())
                    && booking.attempt == answer.attempt;
                let calling = matches!(booking.stage, Stage::Calling(_));
                if current || (calling && planted!(AbandonedAnswerCounts)) {
                    self.book_answered(order, booking, answer, context, fx);
                }
            }
            CourierCall::Unknown => fx.reject("an answer to an unknown call"),
        }
    }

    fn book_answered(
        &mut self,
        order: OrderKey,
        mut booking: Booking,
        answer: CourierAnswered,
        context: &Context,
        fx: &mut Effects,
    ) {
        self.learn_from_answer(&booking, &answer, context, fx);
        match answer.outcome {
            CallOutcome::Succeeded => {
                let expected_by = self.carry(order, &booking, &answer, context);
                let consignment = Consignment {
                    courier: answer.courier,
                    consignment_id: answer.consignment_id,
                    tracking_number: answer.tracking_number,
                    price_minor: answer.price_minor,
                    currency: answer.currency,
                    promised_at: answer.promised_at,
                    attempt: booking.attempt,
                    expected_by,
                };
                let (order_id, accepted_at) = (order.order_id, order.accepted_at);
                let booked = ConsignmentBooked { order_id, accepted_at, consignment };
                emit_outcome(order, booked, context, fx);
                self.finish(order, booking);
            }
            // As far as that process knows it never left; another owner of the task may have made
            // the call meanwhile, so it is made again under the same reference.
            CallOutcome::NotSent => {
                booking.repeated = !planted!(RepeatedCallTrusted);
                self.call_book(order, &booking, fx);
                self.bookings.put(order, booking);
            }
            outcome => {
                let unknown = matches!(outcome, CallOutcome::TimedOut | CallOutcome::Unknown);
                if (unknown || booking.repeated) && !planted!(VoidNotOwed) {
                    let void = OwedVoid {
                        courier: answer.courier.clone(),
                        attempt: booking.attempt,
                        tries: 0,
                        retry_at: context.now.plus(VOID_RETRY_MS.0),
                    };
                    self.call_void(order, &booking.lane, &void, fx);
                    booking.owed.push(void);
                }
                booking.tried.push((answer.courier, outcome));
                self.advance(order, booking, context, fx);
            }
        }
    }

    /// Whether everybody who may be asked was, in this round, and said no.
    fn refused_by_all(&mut self, booking: &Booking, context: &Context) -> bool {
        let refused = |code: &CourierCode| {
            booking.tried.iter().any(|(c, o)| c == code && *o == CallOutcome::Refused)
        };
        let mut allowed = self.book().allowed(&booking.lane, context.now).peekable();
        allowed.peek().is_some() && allowed.all(|(code, ..)| refused(code))
    }

    /// A rest or an owed void is due.
    pub(super) fn booking_due(
        &mut self,
        order: OrderKey,
        mut booking: Booking,
        context: &Context,
        fx: &mut Effects,
    ) {
        let lane = booking.lane.clone();
        for i in 0..booking.owed.len() {
            if booking.owed[i].retry_at <= context.now {
                let void = &mut booking.owed[i];
                void.tries += 1;
                void.retry_at = context.now.plus(doubled(VOID_RETRY_MS, void.tries));
                let void = void.clone();
                self.call_void(order, &lane, &void, fx);
            }
        }
        match booking.stage {
            Stage::Resting(until) if until <= context.now => {
                self.advance(order, booking, context, fx);
            }
            _ => self.bookings.put(order, booking),
        }
    }

    pub(super) fn finish(&mut self, order: OrderKey, mut booking: Booking) {
        booking.stage = Stage::Done;
        self.keep_or_forget(order, booking);
    }

    pub(super) fn keep_or_forget(&mut self, order: OrderKey, booking: Booking) {
        if booking.stage == Stage::Done && booking.owed.is_empty() {
            self.bookings.remove(order);
        } else {
            self.bookings.put(order, booking);
        }
    }

    pub(super) fn call_book(&mut self, order: OrderKey, booking: &Booking, fx: &mut Effects) {
        let Stage::Calling(courier) = &booking.stage else { return };
        let Some(destination) = booking.destination.clone() else { return };
        let Some(company) = self.book().company(courier) else { return };
        fx.call(Call {
            kind: CallKind::Book { merchant: booking.merchant.clone(), destination },
            order,
            lane: booking.lane.clone(),
            attempt: booking.attempt,
            courier: courier.clone(),
            url: company.url.clone(),
            timeout_ms: company.timeout_ms,
        });
    }

    pub(super) fn call_void(
        &mut self,
        order: OrderKey,
        lane: &Lane,
        void: &OwedVoid,
        fx: &mut Effects,
    ) {
        let Some(company) = self.book().company(&void.courier) else { return };
        fx.call(Call {
            kind: CallKind::Void,
            order,
            lane: lane.clone(),
            attempt: void.attempt,
            courier: void.courier.clone(),
            url: company.url.clone(),
            timeout_ms: company.timeout_ms,
        });
    }
}

pub(super) fn emit_outcome(
    order: OrderKey,
    record: impl Into<Record>,
    context: &Context,
    fx: &mut Effects,
) {
    fx.emit(context, topics::ORDER_OUTCOMES.name, order.order_id.as_bytes(), record);
}

fn doubled((first, most): (i64, i64), times: i32) -> i64 {
    let shift = u32::try_from(times).unwrap_or(0).min(16);
    first.saturating_mul(1 << shift).min(most)
}
