//! After a courier was booked: dispatched by the warehouse, shipped, delivered, or not.
//!
//! The pieces have left as soon as the warehouse says so or the courier reports that it has, or had,
//! them, whichever is heard first: not everybody posts dispatches, and what stays allocated for ever
//! makes every true count look like a loss. What comes back is stock again by a receipt, once somebody
//! has looked at it.

use events::{
    ConsignmentMoved, ConsignmentState, DispatchLines, OrderDispatched, OrderId, OrderStatus,
    topics,
};

use super::{Fulfilment, News, Saga, Stage, announce};
use crate::machine::{Context, Effects};
use crate::planted;

impl Fulfilment {
    /// The warehouse has handed the pieces over. Repeats change nothing. What contradicts where the order
    /// stands is rejected, for somebody to look at: pieces may have left that stock still offers.
    pub(super) fn dispatched(&mut self, request: &OrderDispatched, fx: &mut Effects) {
        let order_id = request.order_id;
        let Some(accepted_at) = self.accepted_at(order_id) else {
            fx.reject(
                "an order that was not read, or is forgotten: check its id, and redrive the dispatch once \
                 the order is routed",
            );
            return;
        };
        let Some(mut saga) = self.saga(order_id, accepted_at) else {
            if let Some(finished) = self.orders.peek(&order_id).and_then(|row| row.finished) {
                dispatched_after(finished.status, fx);
            }
            return;
        };
        if saga.facts.merchant != request.merchant {
            fx.reject("a dispatch of another merchant's order");
            return;
        }
        match saga.stage {
            // The courier's scan may be read before the warehouse's word.
            Stage::Routed | Stage::Shipped | Stage::Undeliverable => {
                left(order_id, &mut saga, &request.requested_by, fx);
                self.sagas.put(order_id, saga);
            }
            Stage::Settling(status) => dispatched_after(status, fx),
            Stage::Cancelling => {
                dispatched_after(saga.ended_as.unwrap_or(OrderStatus::Cancelled), fx);
            }
            Stage::Reserving { .. }
            | Stage::Retrying { .. }
            | Stage::Awaiting { .. }
            | Stage::Paying
            | Stage::Booking => fx.reject(
                "no courier is booked for the order yet: redrive the dispatch once it is routed",
            ),
        }
    }

    /// The order's consignment has got somewhere. What does not follow from where the order stands
    /// changes nothing: the consignment was voided, or the order has ended.
    pub(super) fn consignment_moved(
        &mut self,
        moved: ConsignmentMoved,
        context: &Context,
        fx: &mut Effects,
    ) {
        let order_id = moved.order_id;
        let Some(mut saga) = self.saga(order_id, moved.accepted_at) else { return };
        let attempt = saga.consignment.as_ref().map(|(_, attempt)| *attempt);
        if attempt.is_some_and(|attempt| attempt != moved.attempt) {
            return;
        }
        let (status, stage) = match (moved.state, &saga.stage) {
            (ConsignmentState::Shipped, Stage::Routed) => {
                (OrderStatus::Shipped, Some(Stage::Shipped))
            }
            (ConsignmentState::Overdue, Stage::Routed) => {
                (OrderStatus::Routed, Some(Stage::Routed))
            }
            (ConsignmentState::Overdue, Stage::Shipped) => {
                (OrderStatus::Shipped, Some(Stage::Shipped))
            }
            (ConsignmentState::Undeliverable, Stage::Routed | Stage::Shipped) => {
                (OrderStatus::Undeliverable, Some(Stage::Undeliverable))
            }
            (
                ConsignmentState::Delivered,
                Stage::Routed | Stage::Shipped | Stage::Undeliverable,
            ) => (OrderStatus::Delivered, None),
            (ConsignmentState::Returned, Stage::Routed | Stage::Shipped | Stage::Undeliverable) => {
                (OrderStatus::Returned, None)
            }
            _ => return,
        };
        let reason = match moved.state {
            ConsignmentState::Overdue => "overdue".into(),
            ConsignmentState::Undeliverable => moved.detail,
            _ => "".into(),
        };
        let news = News { reason, ..News::default() };
        if moved.state != ConsignmentState::Overdue && !planted!(LeftStaysAllocated) {
            left(order_id, &mut saga, "", fx);
        }
        match stage {
            Some(Stage::Undeliverable) => {
                self.undo(order_id, &mut saga, status, news, context, fx);
                saga.stage = Stage::Undeliverable;
                self.sagas.put(order_id, saga);
            }
            Some(stage) => {
                announce(order_id, &mut saga, status, news, context, fx);
                saga.stage = stage;
                self.sagas.put(order_id, saga);
            }
            None => self.end(order_id, saga, status, news, context, fx),
        }
    }
}

/// Tells stock, once, that the order's pieces have left the warehouse, and who said so: an API key, or nobody
/// but the courier.
fn left(order_id: OrderId, saga: &mut Saga, requested_by: &str, fx: &mut Effects) {
    if std::mem::replace(&mut saga.dispatched, true) {
        return;
    }
    for partition in &saga.stock_partitions {
        let command = DispatchLines {
            order_id,
            accepted_at: saga.accepted_at,
            merchant: saga.facts.merchant.clone(),
            attempt: saga.attempt,
            requested_by: requested_by.into(),
        };
        fx.emit_to(topics::STOCK.name, *partition, order_id.as_bytes(), command);
    }
}

/// A dispatch of an order that has ended: its pieces have left with the courier anyway, or are free again.
fn dispatched_after(status: OrderStatus, fx: &mut Effects) {
    use OrderStatus::{Delivered, Returned, Undeliverable};
    if matches!(status, Delivered | Returned | Undeliverable) {
        return;
    }
    let status = status.as_str();
    fx.reject(format!(
        "the order has ended as {status} and its pieces are free again: if they have left, adjust the stock"
    ));
}
