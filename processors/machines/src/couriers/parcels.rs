//! Consignments on their way: couriers' reports in any order, what is overdue, and what is learned.
//!
//! States: *announced* (booked, not scanned) → *shipped* → delivered, and the row goes; or
//! *undeliverable*, until it is returned. A row's next moment is in it: the first scan is due after a
//! quarter of the promised time, then the promise, then the consignment is given up.

use compact_str::CompactString;
use events::{
    ConsignmentMoved, ConsignmentState, CourierAnswered, CourierCode, DeliveryJudged, Lane, Millis,
    OrderKey, TrackingEvent, TrackingReported, topics,
};
use serde::{Deserialize, Serialize};

use super::Couriers;
use super::belief::EarlySign;
use super::rows::{Booking, Health};
use crate::machine::{Context, Effects};
use crate::table::Row;

/// A consignment without news is given up so long after its promise: 30 days.
const GIVEN_UP_MS: i64 = 30 * 86_400_000;
/// And after seven days if its courier has never reported anything.
const SILENT_MS: i64 = 7 * 86_400_000;
/// For a courier that promises nothing: 14 days.
const NO_PROMISE_MS: i64 = 14 * 86_400_000;
/// Promises of our own are kept in so many of a thousand cases.
const EXPECTED_PERMILLE: u32 = 900;

/// A consignment on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// Its lane.
    pub lane: Lane,
    /// Who carries it.
    pub courier: CourierCode,
    /// Attempt of the booking.
    pub attempt: i32,
    /// When it was booked.
    pub booked_at: Millis,
    /// The courier's promise, or ours for want of one.
    pub promised_at: Millis,
    /// What the lane's own distribution promised; 0: nothing.
    pub expected_by: Millis,
    /// What it cost, minor units.
    pub price_minor: i64,
    /// Where it is.
    pub progress: Progress,
    /// What was learned early.
    pub early: EarlySign,
    /// The outcome has been learned from.
    pub judged: bool,
    /// When to look at it again.
    pub wake_at: Millis,
}

/// Where a consignment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Progress {
    /// Booked, not scanned.
    Announced,
    /// The courier has it.
    Shipped,
    /// Given up by the courier, not back yet.
    Undeliverable,
}

impl Row for Parcel {
    fn deadline(&self) -> Option<Millis> {
        Some(self.wake_at)
    }
}

impl Parcel {
    /// When the first scan is due: never after the promise, or what is overdue would be told again.
    fn scan_due(&self) -> Millis {
        let due = self.booked_at.plus(((self.promised_at.0 - self.booked_at.0) / 4).max(1_000));
        due.min(self.promised_at)
    }

    /// When the lane's learning needs to hear of it next.
    fn next_look(&self, now: Millis) -> Millis {
        let moments = [self.scan_due(), self.promised_at];
        let due = moments.into_iter().find(|at| *at > now);
        due.unwrap_or(self.promised_at.plus(GIVEN_UP_MS))
    }
}

impl Couriers {
    /// A courier has taken an order: from now on its consignment is followed. What the lane itself
    /// promises is returned: when it will be there in nine of ten cases, 0 if that is not known.
    pub(super) fn carry(
        &mut self,
        order: OrderKey,
        booking: &Booking,
        answer: &CourierAnswered,
        context: &Context,
    ) -> Millis {
        let now = context.now;
        let quantile =
            self.lanes.peek(&booking.lane).and_then(|row| row.transit.quantile(EXPECTED_PERMILLE));
        let expected_by = quantile.map_or(Millis(0), |takes| now.plus(takes));
        let promised = answer.promised_at > now;
        let promised_at = if promised { answer.promised_at } else { now.plus(NO_PROMISE_MS) };
        // Nothing will be heard of it.
        if self.health.peek(&answer.courier).is_some_and(Health::mute) {
            return expected_by;
        }
        let mut parcel = Parcel {
            lane: booking.lane.clone(),
            courier: answer.courier.clone(),
            attempt: booking.attempt,
            booked_at: now,
            promised_at,
            expected_by,
            price_minor: answer.price_minor,
            progress: Progress::Announced,
            early: EarlySign::None,
            judged: false,
            wake_at: promised_at,
        };
        // Who has never reported anything owes no first scan.
        if self.health.peek(&parcel.courier).is_some_and(|health| health.reports) {
            parcel.wake_at = parcel.next_look(now);
        }
        self.parcels.put(order, parcel);
        expected_by
    }

    /// A courier reports. Repeats and what is older than what is known change nothing.
    pub(super) fn reported(
        &mut self,
        report: TrackingReported,
        context: &Context,
        fx: &mut Effects,
    ) {
        let order = OrderKey { order_id: report.order_id, accepted_at: report.accepted_at };
        self.hear_from(&report.courier);
        let Some(mut parcel) = self.parcels.get(&order) else { return };
        // An abandoned attempt's label: it is being voided.
        if parcel.attempt != report.attempt {
            return;
        }
        if parcel.courier != report.courier {
            fx.reject(format!(
                "{} reports about a consignment of {}",
                report.courier, parcel.courier
            ));
            return;
        }
        let mut tell = |state| {
            let (occurred_at, detail) = (report.occurred_at, report.detail.clone());
            moved(order, parcel.attempt, state, occurred_at, detail, context, fx);
        };
        let mut over = false;
        let before = parcel.progress;
        match report.event {
            TrackingEvent::Collected
            | TrackingEvent::InTransit
            | TrackingEvent::OutForDelivery
            | TrackingEvent::Attempted
            | TrackingEvent::Returning
            | TrackingEvent::Delivered => {
                if before == Progress::Announced {
                    parcel.progress = Progress::Shipped;
                    tell(ConsignmentState::Shipped);
                }
                if report.event == TrackingEvent::Delivered {
                    tell(ConsignmentState::Delivered);
                    over = true;
                }
            }
            TrackingEvent::Undeliverable if before != Progress::Undeliverable => {
                parcel.progress = Progress::Undeliverable;
                tell(ConsignmentState::Undeliverable);
            }
            TrackingEvent::Returned => {
                tell(ConsignmentState::Returned);
                over = true;
            }
            TrackingEvent::Unknown
            | TrackingEvent::Announced
            | TrackingEvent::PickupMissed
            | TrackingEvent::Undeliverable => {}
        }
        self.learn_from_report(order, &mut parcel, &report, context, fx);
        if over {
            self.parcels.remove(order);
        } else {
            parcel.wake_at = parcel.next_look(context.now);
            self.parcels.put(order, parcel);
        }
    }

    fn learn_from_report(
        &mut self,
        order: OrderKey,
        parcel: &mut Parcel,
        report: &TrackingReported,
        context: &Context,
        fx: &mut Effects,
    ) {
        let at = report.occurred_at;
        match report.event {
            TrackingEvent::PickupMissed if parcel.progress == Progress::Announced => {
                self.early(parcel, EarlySign::Ill);
            }
            TrackingEvent::Collected | TrackingEvent::InTransit | TrackingEvent::OutForDelivery => {
                let ill = at > parcel.scan_due() || parcel.early == EarlySign::Ill;
                self.early(parcel, if ill { EarlySign::Ill } else { EarlySign::Well });
            }
            TrackingEvent::Attempted | TrackingEvent::Delivered => {
                self.judge(order, parcel, at <= parcel.promised_at, Some(at), context, fx);
            }
            TrackingEvent::Undeliverable | TrackingEvent::Returning | TrackingEvent::Returned => {
                self.judge(order, parcel, false, None, context, fx);
            }
            _ => {}
        }
    }

    /// A consignment's next moment has come without news.
    pub(super) fn parcel_due(
        &mut self,
        order: OrderKey,
        mut parcel: Parcel,
        context: &Context,
        fx: &mut Effects,
    ) {
        let now = context.now;
        let reports = self.health.peek(&parcel.courier).is_some_and(|health| health.reports);
        if !reports {
            return self.silence(order, parcel, now);
        }
        if now >= parcel.promised_at.plus(GIVEN_UP_MS) {
            self.judge(order, &mut parcel, false, None, context, fx);
            if parcel.progress != Progress::Undeliverable {
                let (state, detail) = (ConsignmentState::Undeliverable, "no news".into());
                moved(order, parcel.attempt, state, now, detail, context, fx);
            }
            self.parcels.remove(order);
            return;
        }
        if parcel.progress != Progress::Undeliverable {
            let overdue = now >= parcel.promised_at;
            if overdue && !parcel.judged {
                let (state, at) = (ConsignmentState::Overdue, parcel.promised_at);
                moved(order, parcel.attempt, state, at, "".into(), context, fx);
            }
            if overdue || parcel.progress == Progress::Announced {
                self.early(&mut parcel, EarlySign::Ill);
            }
        }
        parcel.wake_at = parcel.next_look(now);
        self.parcels.put(order, parcel);
    }

    /// The promise has passed, and its courier has never reported anything.
    fn silence(&mut self, order: OrderKey, mut parcel: Parcel, now: Millis) {
        if now >= parcel.promised_at.plus(SILENT_MS) {
            return self.parcels.remove(order);
        }
        let mut health = self.health.get(&parcel.courier).unwrap_or_default();
        health.silent = health.silent.saturating_add(1);
        self.health.put(parcel.courier.clone(), health);
        parcel.wake_at = parcel.promised_at.plus(SILENT_MS);
        self.parcels.put(order, parcel);
    }

    /// A consignment is voided: it is not followed any more, and nothing is learned from it.
    pub(super) fn forget_parcel(&mut self, order: OrderKey, attempt: i32) {
        let Some(mut parcel) = self.parcels.get(&order).filter(|p| p.attempt == attempt) else {
            return;
        };
        self.early(&mut parcel, EarlySign::None);
        self.parcels.remove(order);
    }

    fn early(&mut self, parcel: &mut Parcel, sign: EarlySign) {
        if parcel.judged || parcel.early == sign {
            return;
        }
        let mut row = self.lanes.get(&parcel.lane).unwrap_or_default();
        row.arm_mut(&parcel.courier).belief.early(parcel.early, sign);
        self.lanes.put(parcel.lane.clone(), row);
        parcel.early = sign;
    }

    /// What came of a consignment is known, for the first time: the lane learns from it.
    fn judge(
        &mut self,
        order: OrderKey,
        parcel: &mut Parcel,
        on_time: bool,
        tried_at: Option<Millis>,
        context: &Context,
        fx: &mut Effects,
    ) {
        if parcel.judged {
            return;
        }
        parcel.judged = true;
        let mut row = self.lanes.get(&parcel.lane).unwrap_or_default();
        for arm in &mut row.arms {
            arm.belief.discount();
        }
        let belief = &mut row.arm_mut(&parcel.courier).belief;
        belief.early(parcel.early, EarlySign::None);
        belief.outcome(on_time);
        // Clocks of companies may run ahead of ours, but not by much.
        let transit_ms = tried_at.map_or(0, |at| (at.0 - parcel.booked_at.0).max(1));
        if tried_at.is_some() {
            row.transit.note(transit_ms);
        }
        self.lanes.put(parcel.lane.clone(), row);
        let judged = DeliveryJudged {
            order_id: order.order_id,
            accepted_at: order.accepted_at,
            lane: parcel.lane.clone(),
            attempt: parcel.attempt,
            courier: parcel.courier.clone(),
            judged_at: context.now,
            on_time,
            transit_ms,
            price_minor: parcel.price_minor,
            expected_by_kept: tried_at.is_some_and(|at| at <= parcel.expected_by),
            expected_by: parcel.expected_by,
        };
        let key = parcel.lane.as_str().as_bytes();
        fx.emit(context, topics::COURIER_DECISIONS.name, key, judged);
    }

    /// A courier that reports at all is expected to go on.
    fn hear_from(&mut self, courier: &CourierCode) {
        let known = self.health.peek(courier).is_some_and(|health| health.reports);
        if known || self.book().company(courier).is_none() {
            return;
        }
        let mut health = self.health.get(courier).unwrap_or_default();
        health.reports = true;
        self.health.put(courier.clone(), health);
    }
}

#[allow(clippy::too_many_arguments)]
fn moved(
    order: OrderKey,
    attempt: i32,
    state: ConsignmentState,
    occurred_at: Millis,
    detail: CompactString,
    context: &Context,
    fx: &mut Effects,
) {
    let (order_id, accepted_at) = (order.order_id, order.accepted_at);
    let moved = ConsignmentMoved { order_id, accepted_at, attempt, state, occurred_at, detail };
    fx.emit(context, topics::ORDER_OUTCOMES.name, order_id.as_bytes(), moved);
}

#[cfg(test)]
#[path = "parcels_tests.rs"]
mod tests;
