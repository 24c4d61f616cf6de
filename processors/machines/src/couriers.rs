//! Couriers: one lane at a time. Ranks by price, books, fails over, owes voids.
//!
//! States of a booking: *calling* (one courier is being asked) → booked, and the row goes; or, when
//! every courier was tried in vain, *resting* until a new round. A time-out abandons the attempt:
//! its void is owed, retried until the company confirms, while the next courier is asked at once.
//! A cancelled order's booking is abandoned or voided likewise.

mod cancel;

use std::collections::BTreeMap;
use std::rc::Rc;

use compact_str::{CompactString, format_compact};
use events::{
    BookConsignment, CallOutcome, Consignment, ConsignmentBooked, ConsignmentFailed,
    CourierAnswered, CourierCall, CourierCode, CourierListed, Currency, Destination, Lane,
    Merchant, Millis, OrderKey, Record, topics,
};
use serde::{Deserialize, Serialize};

use crate::machine::{Call, CallKind, Context, Effects, Machine, Source};
use crate::planted;
use crate::table::{AnyTable, ArmKey, Backing, Key, Row, Table, TableId};

/// Rest between rounds when no courier took an order: doubles from 0.5 s to 30 s.
const REST_MS: (i64, i64) = (500, 30_000);
/// Time between tries of an owed void: doubles from 1 s to 60 s.
const VOID_RETRY_MS: (i64, i64) = (1_000, 60_000);

/// A courier company as it was listed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Company {
    /// Base URL of its API.
    pub url: CompactString,
    /// List price, minor units.
    pub price_minor: i64,
    /// Currency of the price; the same for all that are listed.
    pub currency: Currency,
    /// Longest wait for an answer.
    pub timeout_ms: i32,
    /// Not asked for new consignments.
    pub paused: bool,
}

impl Row for Company {}

/// What is known of a courier on a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// What it charged last, minor units of its list price's currency.
    pub price_minor: i64,
    /// Its list price at the time: a new one makes what was charged under the old one worthless.
    pub list_price_minor: i64,
}

impl Row for Arm {}

/// An order on its way to a courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// Its lane.
    pub lane: Lane,
    /// The shop.
    pub merchant: Merchant,
    /// Where to; `None` in a row that only owes voids.
    pub destination: Option<Destination>,
    /// Number of the attempt being made or made last, from 1.
    pub attempt: i32,
    /// Where the booking stands.
    pub stage: Stage,
    /// Couriers asked in this round, with what came of it.
    pub tried: Vec<(CourierCode, CallOutcome)>,
    /// Rounds ended in vain.
    pub rounds: i32,
    /// Attempts that must be voided.
    pub owed: Vec<OwedVoid>,
    /// The attempt was called for more than once (after a takeover): the calls can end differently,
    /// so that no single answer but a booking is certain.
    #[serde(default)]
    pub repeated: bool,
}

/// Where a booking stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// This courier is being asked.
    Calling(CourierCode),
    /// Nobody took it; a new round begins then.
    Resting(Millis),
    /// Over; only voids are owed.
    Done,
}

/// An abandoned attempt that the company must forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedVoid {
    /// Whom to tell.
    pub courier: CourierCode,
    /// Which attempt.
    pub attempt: i32,
    /// Tries so far.
    pub tries: i32,
    /// When to try again unless confirmed.
    pub retry_at: Millis,
}

impl Row for Booking {
    fn deadline(&self) -> Option<Millis> {
        let rest = match self.stage {
            Stage::Resting(until) => Some(until),
            _ => None,
        };
        self.owed.iter().map(|void| void.retry_at).chain(rest).min()
    }
}

/// The couriers machine.
pub struct Couriers {
    companies: Table<CourierCode, Company>,
    arms: Table<ArmKey, Arm>,
    bookings: Table<OrderKey, Booking>,
    /// The companies table read whole, since every decision ranks all; filled on first use.
    listed: Option<BTreeMap<CourierCode, Company>>,
}

impl Couriers {
    /// The machine over a task's committed state.
    pub fn new(backing: &Rc<dyn Backing>) -> Self {
        Self {
            companies: Table::new(1, backing),
            arms: Table::new(2, backing),
            bookings: Table::new(3, backing),
            listed: None,
        }
    }

    fn list(&mut self, listed: CourierListed, fx: &mut Effects) {
        let others = self.companies().iter().filter(|(code, _)| **code != listed.courier);
        if let Some((code, other)) = others.into_iter().find(|(_, c)| c.currency != listed.currency)
        {
            fx.reject(format!(
                "{} is priced in {}, {code} in {}: prices can be compared in one currency only",
                listed.courier, listed.currency, other.currency
            ));
            return;
        }
        let company = Company {
            url: listed.url,
            price_minor: listed.price_minor,
            currency: listed.currency,
            timeout_ms: listed.timeout_ms,
            paused: listed.paused,
        };
        self.companies().insert(listed.courier.clone(), company.clone());
        self.companies.put(listed.courier, company);
    }

    fn companies(&mut self) -> &mut BTreeMap<CourierCode, Company> {
        self.listed.get_or_insert_with(|| self.companies.all())
    }

    /// The cheapest courier on the lane that was not tried in this round; ties by code.
    fn next(&mut self, booking: &Booking) -> Option<CourierCode> {
        let tried = |code: &CourierCode| booking.tried.iter().any(|(c, _)| c == code);
        let open: Vec<(CourierCode, i64)> = self
            .companies()
            .iter()
            .filter(|(code, company)| !company.paused && !tried(code))
            .map(|(code, company)| (code.clone(), company.price_minor))
            .collect();
        let price = |arms: &mut Table<ArmKey, Arm>, code: &CourierCode, list: i64| {
            let arm = arms.peek(&(booking.lane.clone(), code.clone()));
            arm.filter(|arm| arm.list_price_minor == list).map_or(list, |arm| arm.price_minor)
        };
        open.into_iter()
            .map(|(code, list)| (price(&mut self.arms, &code, list), code))
            .min()
            .map(|(_, code)| code)
    }

    fn begin(&mut self, command: BookConsignment, context: &Context, fx: &mut Effects) {
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
        if let Some(courier) = self.next(&booking) {
            booking.attempt += 1;
            booking.repeated = false;
            booking.stage = Stage::Calling(courier);
            self.call_book(order, &booking, fx);
            self.bookings.put(order, booking);
            return;
        }
        let refused = |(_, outcome): &(CourierCode, CallOutcome)| *outcome == CallOutcome::Refused;
        if !booking.tried.is_empty() && booking.tried.iter().all(refused) {
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
        booking.tried.clear();
        booking.stage = Stage::Resting(context.now.plus(doubled(REST_MS, booking.rounds)));
        booking.rounds += 1;
        self.bookings.put(order, booking);
    }

    fn answered(&mut self, answer: CourierAnswered, context: &Context, fx: &mut Effects) {
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
        match answer.outcome {
            CallOutcome::Succeeded => {
                self.learn_price(&booking, &answer);
                let consignment = Consignment {
                    courier: answer.courier,
                    consignment_id: answer.consignment_id,
                    tracking_number: answer.tracking_number,
                    price_minor: answer.price_minor,
                    currency: answer.currency,
                    promised_at: answer.promised_at,
                    attempt: booking.attempt,
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

    fn learn_price(&mut self, booking: &Booking, answer: &CourierAnswered) {
        let Some(company) = self.companies().get(&answer.courier) else { return };
        let list_price_minor = company.price_minor;
        if answer.currency != company.currency.as_str() {
            return;
        }
        let key = (booking.lane.clone(), answer.courier.clone());
        let arm = Arm { price_minor: answer.price_minor, list_price_minor };
        if self.arms.peek(&key) != Some(&arm) {
            self.arms.put(key, arm);
        }
    }

    fn finish(&mut self, order: OrderKey, mut booking: Booking) {
        booking.stage = Stage::Done;
        self.keep_or_forget(order, booking);
    }

    fn keep_or_forget(&mut self, order: OrderKey, booking: Booking) {
        if booking.stage == Stage::Done && booking.owed.is_empty() {
            self.bookings.remove(order);
        } else {
            self.bookings.put(order, booking);
        }
    }

    fn call_book(&mut self, order: OrderKey, booking: &Booking, fx: &mut Effects) {
        let Stage::Calling(courier) = &booking.stage else { return };
        let Some(destination) = booking.destination.clone() else { return };
        let Some(company) = self.companies().get(courier) else { return };
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

    fn call_void(&mut self, order: OrderKey, lane: &Lane, void: &OwedVoid, fx: &mut Effects) {
        let Some(company) = self.companies().get(&void.courier) else { return };
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

fn emit_outcome(order: OrderKey, record: impl Into<Record>, context: &Context, fx: &mut Effects) {
    fx.emit(context, topics::ORDER_OUTCOMES.name, order.order_id.as_bytes(), record);
}

fn doubled((first, most): (i64, i64), times: i32) -> i64 {
    let shift = u32::try_from(times).unwrap_or(0).min(16);
    first.saturating_mul(1 << shift).min(most)
}

impl Machine for Couriers {
    fn step(&mut self, record: Record, _source: Source, context: &Context, effects: &mut Effects) {
        match record {
            Record::CourierListed(listed) => self.list(listed, effects),
            Record::BookConsignment(command) => self.begin(command, context, effects),
            Record::VoidConsignment(command) => self.void(command, context, effects),
            Record::CourierAnswered(answer) => self.answered(answer, context, effects),
            other => effects.reject(format!("{} is not for couriers", other.record_type().name())),
        }
    }

    fn fire(&mut self, table: TableId, key: &[u8], context: &Context, effects: &mut Effects) {
        let Some(order) = OrderKey::from_bytes(key).filter(|_| table == self.bookings.id()) else {
            return;
        };
        let Some(mut booking) = self.bookings.get(&order) else { return };
        if booking.deadline().is_none_or(|at| at > context.now) {
            return;
        }
        let lane = booking.lane.clone();
        for i in 0..booking.owed.len() {
            if booking.owed[i].retry_at <= context.now {
                let void = &mut booking.owed[i];
                void.tries += 1;
                void.retry_at = context.now.plus(doubled(VOID_RETRY_MS, void.tries));
                let void = void.clone();
                self.call_void(order, &lane, &void, effects);
            }
        }
        match booking.stage {
            Stage::Resting(until) if until <= context.now => {
                self.advance(order, booking, context, effects);
            }
            _ => self.bookings.put(order, booking),
        }
    }

    fn resume(&mut self, _context: &Context, effects: &mut Effects) {
        if planted!(CallsForgotten) {
            return;
        }
        // Repeated under the same reference: a company that did book answers with that booking.
        for (order, mut booking) in self.bookings.all() {
            if matches!(booking.stage, Stage::Calling(_)) {
                self.call_book(order, &booking, effects);
                booking.repeated = !planted!(RepeatedCallTrusted);
                self.bookings.put(order, booking);
            }
        }
    }

    fn tables(&mut self) -> Vec<&mut dyn AnyTable> {
        vec![&mut self.companies, &mut self.arms, &mut self.bookings]
    }
}

#[cfg(test)]
#[path = "couriers_tests.rs"]
mod tests;
