//! One order's courier: what can be chosen, the choice, its record; and what an answer says about
//! who gave it.

use events::{
    BreakerMoved, BreakerState, CallOutcome, CourierAnswered, CourierCode, CourierDecided,
    DecisionReason, Lane, OrderKey, topics,
};

use super::Couriers;
use super::belief::Belief;
use super::breaker::{Permit, Verdict};
use super::chance::Chance;
use super::choice::{self, Choosable, Policy};
use super::rows::{Arm, Booking, Health, LaneRow};
use super::rules::Book;
use crate::machine::{Context, Effects, Notice};

/// The purpose of a decision's chance.
const CHOOSING: u64 = 1;

impl Couriers {
    /// Chooses a courier for the booking's next attempt and records the decision; `None`: nobody is
    /// left in this round.
    pub(super) fn decide(
        &mut self,
        order: OrderKey,
        booking: &mut Booking,
        context: &Context,
        fx: &mut Effects,
    ) -> Option<CourierCode> {
        let (choosable, informed) = self.choosable(booking, context);
        let stakes = self.book().stakes(&booking.lane);
        let attempt = booking.attempt + 1;
        let mut chance = Chance::of(&order, attempt, CHOOSING);
        let choice = choice::choose(&choosable, stakes, informed, Policy::Thompson, &mut chance)?;
        // When all are out, one is tried per round: the others would only cost time.
        if choice.reason == DecisionReason::LastResort && !booking.tried.is_empty() {
            return None;
        }
        let chosen = &choosable[choice.index];
        let courier = chosen.courier.clone();
        booking.attempt = attempt;
        booking.probe = chosen.permit != Permit::Yes;
        if chosen.permit == Permit::Probe {
            self.probe(booking, &courier, context);
        }
        let decided = CourierDecided {
            order_id: order.order_id,
            accepted_at: order.accepted_at,
            lane: booking.lane.clone(),
            attempt,
            decided_at: context.now,
            courier: courier.clone(),
            reason: choice.reason,
            propensity_permille: choice.propensity_permille,
            lateness_cost_minor: stakes.lateness_cost_minor,
            candidates: choice::candidates(&choosable, stakes),
        };
        let key = booking.lane.as_str().as_bytes();
        fx.emit(context, topics::COURIER_DECISIONS.name, key, decided);
        Some(courier)
    }

    /// Everybody who was not tried in this round and whom operators allow, by code; and whether
    /// anything is known of deliveries on the lane.
    fn choosable(&mut self, booking: &Booking, context: &Context) -> (Vec<Choosable>, bool) {
        let (companies, rules, lane_rules) =
            (&mut self.companies, &mut self.rules, &mut self.lane_rules);
        let book = self.book.get_or_insert_with(|| Book::read(companies, rules, lane_rules));
        let row = self.lanes.peek(&booking.lane);
        let average = row.and_then(LaneRow::average_late_permille);
        let now = context.now;
        let mut choosable = Vec::with_capacity(8);
        for (code, company, weight_percent) in book.allowed(&booking.lane, now) {
            if booking.tried.iter().any(|(tried, _)| tried == code) {
                continue;
            }
            let health = self.health.peek(code);
            let wide = health.map_or(Permit::Yes, |health| health.permits(now));
            let moved_at = health.map_or(events::Millis(0), |health| health.breaker.moved_at());
            let fresh = Belief::default();
            let mut one = Choosable {
                courier: code.clone(),
                price_minor: company.price_minor,
                weight_percent,
                belief: fresh.parameters(),
                late_permille: fresh.late_permille(),
                permit: wide,
                moved_at,
            };
            if let Some(arm) = row.and_then(|row| row.arm(code)) {
                if arm.list_price_minor == company.price_minor {
                    one.price_minor = arm.price_minor;
                }
                one.belief = arm.belief.parameters();
                one.late_permille = arm.belief.late_permille();
                one.permit = wide.max(arm.breaker.permits(now));
                one.moved_at = moved_at.max(arm.breaker.moved_at());
            }
            // Who never reports is taken for average, or its silence would be explored for ever.
            if let (Some(late_permille), true) = (average, health.is_some_and(Health::mute)) {
                one.late_permille = late_permille;
                one.belief = (f64::from(late_permille) + 1.0, f64::from(1_001 - late_permille));
            }
            choosable.push(one);
        }
        (choosable, row.is_some_and(LaneRow::informed))
    }

    /// Tells operators of every breaker that is not closed, after a takeover.
    pub(super) fn show_breakers(&mut self, fx: &mut Effects) {
        for (courier, health) in self.health.all() {
            if health.breaker.state() != BreakerState::Closed {
                notice(fx, &courier, None, health.breaker.state());
            }
        }
        for (lane, row) in self.lanes.all() {
            let open = |arm: &&Arm| arm.breaker.state() != BreakerState::Closed;
            for arm in row.arms.iter().filter(open) {
                notice(fx, &arm.courier, Some(&lane), arm.breaker.state());
            }
        }
    }

    fn probe(&mut self, booking: &Booking, courier: &CourierCode, context: &Context) {
        let now = context.now;
        if let Some(mut health) = self.health.get(courier)
            && health.permits(now) == Permit::Probe
        {
            health.breaker.probe(now);
            self.health.put(courier.clone(), health);
        }
        if let Some(mut row) = self.lanes.get(&booking.lane) {
            let breaker = &mut row.arm_mut(courier).breaker;
            if breaker.permits(now) == Permit::Probe {
                breaker.probe(now);
                self.lanes.put(booking.lane.clone(), row);
            }
        }
    }

    /// What the answer to a booking says about the courier: whether it is well, on this lane and
    /// everywhere, what it charges, whether it refuses.
    pub(super) fn learn_from_answer(
        &mut self,
        booking: &Booking,
        answer: &CourierAnswered,
        context: &Context,
        fx: &mut Effects,
    ) {
        let Some(company) = self.book().company(&answer.courier) else { return };
        let (list_price_minor, timeout_ms) = (company.price_minor, company.timeout_ms);
        let same_currency = answer.currency == company.currency.as_str();
        let Some(verdict) = Verdict::of(answer.outcome, answer.latency_ms, timeout_ms) else {
            return;
        };
        let now = context.now;
        let jitter = Chance::seeded(
            now.0.cast_unsigned() ^ (u64::from(context.partition.unsigned_abs()) << 48),
        )
        .draw();
        let mut row = self.lanes.get(&booking.lane).unwrap_or_default();
        let arm = row.arm_mut(&answer.courier);
        let moved = arm.breaker.record(verdict, booking.probe, now, jitter, |_| true);
        if let Some(state) = moved {
            notice(fx, &answer.courier, Some(&booking.lane), state);
        }
        match answer.outcome {
            CallOutcome::Succeeded if same_currency => {
                arm.price_minor = answer.price_minor;
                arm.list_price_minor = list_price_minor;
            }
            // Where nothing is known of deliveries, prices decide; a refusal does not change that.
            CallOutcome::Refused if arm.belief.informed() => arm.belief.refused(),
            _ => {}
        }
        self.lanes.put(booking.lane.clone(), row);
        let mut health = self.health.get(&answer.courier).unwrap_or_default();
        health.met(&booking.lane);
        let lanes = health.lanes();
        let moved = health.breaker.record(verdict, booking.probe, now, jitter, |window| {
            Health::everywhere(lanes, |call| window.bad(call), window.calls())
        });
        if let Some(state) = moved {
            notice(fx, &answer.courier, None, state);
            let until = health.breaker.until().unwrap_or(now);
            tell_others(&answer.courier, state, until, context, fx);
        }
        self.health.put(answer.courier.clone(), health);
    }
}

/// Tells operators of a breaker.
pub(super) fn notice(
    fx: &mut Effects,
    courier: &CourierCode,
    lane: Option<&Lane>,
    state: BreakerState,
) {
    let (courier, lane) = (courier.clone(), lane.cloned());
    fx.notices.push(Notice::BreakerMoved { courier, lane, state });
}

/// Tells every other partition, so that their lanes need not find out one by one.
fn tell_others(
    courier: &CourierCode,
    state: BreakerState,
    until: events::Millis,
    context: &Context,
    fx: &mut Effects,
) {
    for partition in (0..context.partitions).filter(|p| *p != context.partition) {
        let courier = courier.clone();
        let moved = BreakerMoved { courier, partition: context.partition, state, until };
        let key = moved.courier.as_str().as_bytes().to_vec();
        fx.emit_to(topics::COURIERS.name, partition, &key, moved);
    }
}
