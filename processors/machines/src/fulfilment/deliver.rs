//! After the courier has taken an order: shipped, delivered, or not.

use events::{ConsignmentMoved, ConsignmentState, OrderStatus};

use super::{Fulfilment, News, Stage, announce};
use crate::machine::{Context, Effects};

impl Fulfilment {
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
