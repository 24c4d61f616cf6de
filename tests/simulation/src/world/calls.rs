//! Calls to companies: they leave after their commit, arrive some time later, and their outcome
//! comes back as a record, whatever it was. A call dies with its process; its request does not.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use events::{CallOutcome, CourierAnswered, CourierCall, CourierListed, Currency, Record, topics};
use machines::{Call, CallKind};
use stream::Live;

use super::{Event, World};
use crate::couriers::{Answer, Mode};
use crate::kafka::log::{self, Header};

/// As the runtime's: a call must leave within this time of its commit, microseconds.
const CALL_LIFETIME: u64 = 30_000_000;

/// A step of a call.
#[derive(Debug)]
pub enum Step {
    /// It leaves its process.
    Leave(u64),
    /// It arrives at the company.
    Arrive(u64, Box<Call>),
    /// The answer arrives.
    Answer(u64, Answer),
    /// The caller's patience is over.
    TimeOut(u64),
    /// The outcome is written to Kafka.
    Report(u64),
}

#[derive(Debug)]
struct UnderWay {
    call: Call,
    home: (usize, u64),
    live: Live,
    /// Must not leave after this moment, microseconds.
    not_after: u64,
    answer: Option<Answer>,
}

/// Calls under way, by id.
#[derive(Debug, Default)]
pub struct Calls {
    calls: BTreeMap<u64, UnderWay>,
}

impl Calls {
    /// Those of a process that died.
    pub fn forget(&mut self, home: (usize, u64)) {
        self.calls.retain(|_, call| call.home != home);
    }

    /// Whether the process has calls under way.
    pub fn any(&self, home: (usize, u64)) -> bool {
        self.calls.values().any(|call| call.home == home)
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

impl World {
    /// Tells every partition of `couriers` which companies there are.
    pub(super) fn list_companies(&mut self) {
        for company in 0..self.companies.len() {
            let company = &self.companies[company];
            let listed = CourierListed {
                courier: company.code.clone(),
                url: "sim".into(),
                price_minor: company.price_minor,
                currency: Currency::parse("GBP").expect("a currency"),
                timeout_ms: 300,
                paused: false,
            };
            let value = Some(self.codec.to_bytes(&Record::from(listed)));
            let key = Some(company.code.as_str().as_bytes().to_vec());
            let record = std::rc::Rc::new(log::Record { key, value, header: Header::None });
            let at = self.wall();
            for partition in 0..self.kafka.partitions {
                let tp = self.kafka.tp(topics::COURIERS.name, i32::from(partition));
                self.kafka.log_mut(tp).append(at, record.clone(), None);
            }
        }
    }

    /// A call is made by a process.
    pub fn make_call(&mut self, call: Call, home: (usize, u64), live: Live) {
        let id = self.id();
        // For some the process stands still so long that they must not leave any more.
        let late = self.faulty && self.chance.per_mille(4);
        let not_after = if late { self.now } else { self.now + CALL_LIFETIME };
        let after = self.chance.between(50, 4_000);
        self.moved = self.now;
        self.coverage.hit(if call.kind == CallKind::Void { "call: void" } else { "call: book" });
        self.calls.calls.insert(id, UnderWay { call, home, live, not_after, answer: None });
        self.schedule(after, Event::Call(Step::Leave(id)));
    }

    pub(super) fn call_moves(&mut self, step: Step) {
        self.moved = self.now;
        match step {
            Step::Leave(id) => self.leave(id),
            Step::Arrive(id, call) => self.arrive(id, &call),
            Step::Answer(id, answer) => self.answer(id, answer),
            Step::TimeOut(id) => {
                let answer = Answer { outcome: CallOutcome::TimedOut, booking: None };
                self.answer(id, answer);
            }
            Step::Report(id) => self.report(id),
        }
    }

    /// The call if its process may act on it now; a paused one acts later.
    fn under_way(&mut self, id: u64, again: impl FnOnce(u64) -> Step) -> Option<&mut UnderWay> {
        let (number, _) = self.calls.calls.get(&id)?.home;
        let resumes = self.processes[number].paused_until;
        if resumes > self.now {
            self.schedule(resumes - self.now + 1, Event::Call(again(id)));
            return None;
        }
        self.calls.calls.get_mut(&id)
    }

    fn leave(&mut self, id: u64) {
        let Some(under_way) = self.under_way(id, Step::Leave) else { return };
        if !under_way.live.load(Ordering::Acquire) {
            self.calls.calls.remove(&id);
            return self.coverage.hit("call: not made, task moved on");
        }
        let (call, not_after) = (under_way.call.clone(), under_way.not_after);
        if self.now > not_after {
            let answer = Answer { outcome: CallOutcome::NotSent, booking: None };
            return self.answer(id, answer);
        }
        let slow = self.faulty && self.chance.per_mille(self.plan.slow_calls);
        let after = if slow { self.chance.between(100_000, 2_000_000) } else { 2_000 };
        let patience = u64::try_from(call.timeout_ms).unwrap_or(300) * 1_000;
        self.schedule(after, Event::Call(Step::Arrive(id, Box::new(call))));
        self.schedule(patience, Event::Call(Step::TimeOut(id)));
    }

    fn arrive(&mut self, id: u64, call: &Call) {
        let now_ms = self.wall().0;
        let odd = self.faulty && self.chance.per_mille(self.plan.odd_answers);
        let odd = odd.then(|| *self.chance.pick(crate::couriers::BAD));
        let company = self.companies.iter_mut().find(|company| company.code == call.courier);
        let Some(company) = company else { return };
        let mode = odd.unwrap_or(company.mode);
        let (answer, after) = company.serve(call, mode, now_ms, &mut self.chance);
        let (courier, taken) = (company.code.clone(), company.taken());
        if mode != Mode::Well {
            self.coverage.hit(&format!("company: {mode:?}"));
        }
        for taken in taken {
            self.carry(&courier, &taken);
        }
        if let Some(answer) = answer {
            self.schedule(after, Event::Call(Step::Answer(id, answer)));
        }
    }

    fn answer(&mut self, id: u64, answer: Answer) {
        let again = answer.clone();
        let Some(under_way) = self.under_way(id, |id| Step::Answer(id, again)) else { return };
        if under_way.answer.is_none() {
            self.coverage.hit(&format!("outcome: {:?}", answer.outcome));
            self.calls.calls.get_mut(&id).expect("looked at above").answer = Some(answer);
            let after = self.chance.between(100, 5_000);
            self.schedule(after, Event::Call(Step::Report(id)));
        }
    }

    fn report(&mut self, id: u64) {
        let online = self.online();
        let Some(under_way) = self.under_way(id, Step::Report) else { return };
        if !under_way.live.load(Ordering::Acquire) {
            self.calls.calls.remove(&id);
            return;
        }
        if !online {
            let after = self.kafka.down_until - self.now + 1_000;
            return self.schedule(after, Event::Call(Step::Report(id)));
        }
        let record = answered(&under_way.call, under_way.answer.as_ref());
        let key = Some(under_way.call.lane.as_str().as_bytes().to_vec());
        let (courier, reference) = (record.courier.clone(), under_way.call.reference());
        let (outcome, kind) = (record.outcome, record.call);
        self.calls.calls.remove(&id);
        let who = || "calls".to_string();
        self.note(who, || format!("{kind:?} {reference} at {courier}: {outcome:?}"));
        let value = Some(self.codec.to_bytes(&Record::from(record)));
        let record = log::Record { key, value, header: Header::None };
        // The outcome's producer may have been made anew between sending and hearing of it.
        let doubled = self.faulty && self.chance.per_mille(self.plan.doubled);
        let at = self.wall();
        if doubled {
            self.kafka.append(topics::COURIERS.name, at, record.clone());
            self.coverage.hit("outcome written twice");
        }
        self.kafka.append(topics::COURIERS.name, at, record);
    }
}

fn answered(call: &Call, answer: Option<&Answer>) -> CourierAnswered {
    let booking = answer.and_then(|answer| answer.booking.as_ref());
    CourierAnswered {
        order_id: call.order.order_id,
        accepted_at: call.order.accepted_at,
        lane: call.lane.clone(),
        attempt: call.attempt,
        courier: call.courier.clone(),
        call: match call.kind {
            CallKind::Book { .. } => CourierCall::Book,
            CallKind::Void => CourierCall::Void,
        },
        outcome: answer.map_or(CallOutcome::TimedOut, |answer| answer.outcome),
        detail: "".into(),
        latency_ms: 1,
        consignment_id: booking.map_or("", |b| &b.consignment_id).into(),
        tracking_number: booking.map_or("", |b| &b.consignment_id).into(),
        price_minor: booking.map_or(0, |b| b.price_minor),
        currency: if booking.is_some() { "GBP".into() } else { "".into() },
        promised_at: events::Millis(booking.map_or(0, |b| b.promised_at)),
    }
}
