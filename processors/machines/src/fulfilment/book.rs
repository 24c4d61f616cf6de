//! Booking a courier, and what its answer means.

use events::{
    AllocateLines, BookConsignment, ConsignmentBooked, ConsignmentFailed, Destination, Lane,
    OrderId, OrderStatus, WarehouseCode, topics,
};

use super::{Fulfilment, News, Saga, Stage, announce};
use crate::invariant;
use crate::machine::{Context, Effects};

impl Fulfilment {
    pub(super) fn book(
        &mut self,
        order_id: OrderId,
        saga: &Saga,
        context: &Context,
        fx: &mut Effects,
    ) {
        let Some((lane, destination)) = self.lane(order_id, saga) else { return };
        let command = BookConsignment {
            order_id,
            accepted_at: saga.accepted_at,
            merchant: saga.facts.merchant.clone(),
            lane: lane.clone(),
            destination,
        };
        fx.emit(context, topics::COURIERS.name, lane.as_str().as_bytes(), command);
    }

    /// The order's lane and where it goes, while its body is kept.
    pub(super) fn lane(&mut self, order_id: OrderId, saga: &Saga) -> Option<(Lane, Destination)> {
        let destination = self.orders.peek(&order_id)?.body.as_ref()?.destination.clone();
        let origin = saga.origin.clone().unwrap_or(WarehouseCode::MAIN);
        Some((Lane::new(&origin, &destination.country), destination))
    }

    pub(super) fn booked(
        &mut self,
        answer: ConsignmentBooked,
        context: &Context,
        fx: &mut Effects,
    ) {
        let order_id = answer.order_id;
        let Some(mut saga) = self.saga(order_id, answer.accepted_at) else { return };
        match saga.stage {
            Stage::Booking => {}
            Stage::Routed | Stage::Shipped | Stage::Undeliverable | Stage::Settling(_) => return,
            Stage::Cancelling => {
                let booked = Some((answer.consignment.courier, answer.consignment.attempt));
                self.cancelled_booking_ended(order_id, saga, booked, context, fx);
                return;
            }
            Stage::Paying => {
                fx.violations.push(invariant::booked_unpaid(order_id));
                return;
            }
            Stage::Reserving { .. } | Stage::Retrying { .. } | Stage::Awaiting { .. } => {
                fx.violations.extend(invariant::booked_while(order_id, false));
                return;
            }
        }
        saga.stage = Stage::Routed;
        saga.consignment = Some((answer.consignment.courier.clone(), answer.consignment.attempt));
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

    pub(super) fn booking_failed(
        &mut self,
        answer: &ConsignmentFailed,
        context: &Context,
        fx: &mut Effects,
    ) {
        let Some(saga) = self.saga(answer.order_id, answer.accepted_at) else { return };
        match saga.stage {
            Stage::Booking => {
                let news = News { reason: "no_courier".into(), ..News::default() };
                self.end(answer.order_id, saga, OrderStatus::Rejected, news, context, fx);
            }
            Stage::Cancelling => {
                self.cancelled_booking_ended(answer.order_id, saga, None, context, fx);
            }
            _ => {}
        }
    }
}
