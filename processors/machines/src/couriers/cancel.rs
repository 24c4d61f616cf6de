//! An order that no courier shall carry any more: what is being booked is abandoned, what is booked is
//! voided. The void is owed like any other, until the company confirms.

use events::{ConsignmentFailed, CourierCode, OrderKey, VoidConsignment};

use super::{Booking, Couriers, OwedVoid, Stage, VOID_RETRY_MS, emit_outcome};
use crate::machine::{Context, Effects};
use crate::planted;

impl Couriers {
    pub(super) fn void(&mut self, command: VoidConsignment, context: &Context, fx: &mut Effects) {
        let order = OrderKey { order_id: command.order_id, accepted_at: command.accepted_at };
        let booking = self.bookings.get(&order);
        if let Some(courier) = command.courier {
            let mut booking = booking.unwrap_or_else(|| Booking {
                lane: command.lane,
                merchant: command.merchant,
                destination: None,
                attempt: command.attempt,
                stage: Stage::Done,
                tried: vec![],
                rounds: 0,
                owed: vec![],
                repeated: false,
            });
            self.owe(order, &mut booking, courier, command.attempt, context, fx);
            return self.keep_or_forget(order, booking);
        }
        // No row, or an ended one: the answer is under way, and the sender will void what it names.
        let Some(mut booking) = booking else { return };
        match booking.stage.clone() {
            Stage::Done => return,
            Stage::Calling(courier) => {
                let attempt = booking.attempt;
                self.owe(order, &mut booking, courier, attempt, context, fx);
            }
            Stage::Resting(_) => {}
        }
        let answer = ConsignmentFailed {
            order_id: order.order_id,
            accepted_at: order.accepted_at,
            detail: "cancelled".into(),
        };
        emit_outcome(order, answer, context, fx);
        self.finish(order, booking);
    }

    /// Makes the void of an attempt owed, and asks for it at once.
    fn owe(
        &mut self,
        order: OrderKey,
        booking: &mut Booking,
        courier: CourierCode,
        attempt: i32,
        context: &Context,
        fx: &mut Effects,
    ) {
        if booking.owed.iter().any(|void| void.attempt == attempt) || planted!(CancelNotVoided) {
            return;
        }
        let retry_at = context.now.plus(VOID_RETRY_MS.0);
        let void = OwedVoid { courier, attempt, tries: 0, retry_at };
        self.call_void(order, &booking.lane, &void, fx);
        booking.owed.push(void);
    }
}
