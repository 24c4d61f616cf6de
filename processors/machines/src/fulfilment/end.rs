//! How an order ends, whichever way it does: what was done for it is undone, the customer is told, and
//! once nothing of it is open any more only the marker stays.
//!
//! | end | stock | money |
//! |---|---|---|
//! | rejected, declined, expired, cancelled | released | let go, or given back |
//! | undeliverable, returned | has left, and comes back by a receipt alone | given back |
//! | delivered | has left | kept |

use events::{OrderId, OrderStatus};

use super::reserve::release;
use super::{Fulfilment, News, Saga, Stage, announce};
use crate::dedupe::Finished;
use crate::machine::{Context, Effects};
use crate::planted;

impl Fulfilment {
    /// Ends the order; it is finished as soon as its money is back.
    pub(super) fn end(
        &mut self,
        order_id: OrderId,
        mut saga: Saga,
        status: OrderStatus,
        news: News,
        context: &Context,
        fx: &mut Effects,
    ) {
        self.undo(order_id, &mut saga, status, news, context, fx);
        self.finish(order_id, saga, status, context);
    }

    /// Undoes what an order with this end has no use for, and tells of the end. Its saga goes on only to
    /// hear what becomes of the booking.
    pub(super) fn undo(
        &mut self,
        order_id: OrderId,
        saga: &mut Saga,
        status: OrderStatus,
        mut news: News,
        context: &Context,
        fx: &mut Effects,
    ) {
        use OrderStatus::{Delivered, Returned, Undeliverable};
        let handed_over = matches!(status, Delivered | Returned | Undeliverable);
        if !handed_over {
            release(saga, order_id, fx);
        }
        let kept = status == Delivered || (handed_over && planted!(ReturnNotRefunded));
        if !kept && self.has_payment(order_id) {
            news.payments = self.unwind_payment(order_id, saga, context, fx);
        }
        announce(order_id, saga, status, news, context, fx);
    }

    /// Nothing is open any more, but for money that may still be on its way back.
    pub(super) fn finish(
        &mut self,
        order_id: OrderId,
        mut saga: Saga,
        status: OrderStatus,
        context: &Context,
    ) {
        if self.has_payment(order_id) && !self.payment_is_over(order_id, &saga) {
            saga.stage = Stage::Settling(status);
            self.sagas.put(order_id, saga);
            return;
        }
        if let Some(mut row) = self.orders.get(&order_id) {
            row.body = None;
            row.finished = Some(Finished { status, at: context.now });
            self.orders.put(order_id, row);
        }
        self.sagas.remove(order_id);
    }
}
