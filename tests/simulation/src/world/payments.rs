//! Calls to payment providers, and the webhooks that they send: early, late, twice, out of order.
//! As with couriers, a call dies with its process; its request does not.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use events::{Millis, OrderId, PaymentAnswered, PaymentNotified, PaymentOutcome, Record, topics};
use machines::PaymentCall;
use stream::Live;

use super::{Event, World};
use crate::couriers::Mode;
use crate::kafka::log::{self, Header};
use crate::providers::Answer;

/// As the runtime's: a call must leave within this time of its commit, microseconds.
const CALL_LIFETIME: u64 = 30_000_000;
/// How long a caller waits, microseconds.
const PATIENCE: u64 = 300_000;

/// A step of a call or a webhook.
#[derive(Debug)]
pub enum Step {
    /// It leaves its process.
    Leave(u64),
    /// It arrives at the provider.
    Arrive(u64, Box<PaymentCall>),
    /// The answer arrives, or the caller's patience is over.
    Answer(u64, Box<Answer>),
    /// The outcome is written to Kafka.
    Report(u64),
    /// A webhook is written to Kafka.
    Webhook(Box<PaymentNotified>),
}

#[derive(Debug)]
struct UnderWay {
    call: PaymentCall,
    home: (usize, u64),
    live: Live,
    /// Must not leave after this moment, microseconds.
    not_after: u64,
    answer: Option<Answer>,
}

/// Calls to providers under way, by id.
#[derive(Debug, Default)]
pub struct PaymentCalls {
    calls: BTreeMap<u64, UnderWay>,
    /// Requests and webhooks between the parties.
    travelling: usize,
}

impl PaymentCalls {
    /// Those of a process that died.
    pub fn forget(&mut self, home: (usize, u64)) {
        self.calls.retain(|_, call| call.home != home);
    }

    /// Whether the process has calls under way.
    pub fn any(&self, home: (usize, u64)) -> bool {
        self.calls.values().any(|call| call.home == home)
    }

    /// Whether nothing is under way at all.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.travelling == 0
    }
}

impl World {
    /// A process calls a provider.
    pub fn make_payment_call(&mut self, call: PaymentCall, home: (usize, u64), live: Live) {
        let id = self.id();
        let late = self.faulty && self.chance.per_mille(4);
        let not_after = if late { self.now } else { self.now + CALL_LIFETIME };
        let after = self.chance.between(50, 4_000);
        self.moved = self.now;
        let what = if call.ask { "ask" } else { call.step.as_str() };
        self.coverage.hit(&format!("payment call: {what}"));
        let under_way = UnderWay { call, home, live, not_after, answer: None };
        self.payment_calls.calls.insert(id, under_way);
        self.schedule(after, Event::Pay(Step::Leave(id)));
    }

    pub(super) fn payment_moves(&mut self, step: Step) {
        self.moved = self.now;
        match step {
            Step::Leave(id) => self.payment_leaves(id),
            Step::Arrive(id, call) => self.payment_arrives(id, &call),
            Step::Answer(id, answer) => self.payment_answers(id, answer),
            Step::Report(id) => self.report_payment(id),
            Step::Webhook(notice) => self.write_webhook(notice),
        }
    }

    /// The call if its process may act on it now; a paused one acts later.
    fn paying(&mut self, id: u64, again: impl FnOnce(u64) -> Step) -> Option<&mut UnderWay> {
        let (number, _) = self.payment_calls.calls.get(&id)?.home;
        let resumes = self.processes[number].paused_until;
        if resumes > self.now {
            self.schedule(resumes - self.now + 1, Event::Pay(again(id)));
            return None;
        }
        self.payment_calls.calls.get_mut(&id)
    }

    fn payment_leaves(&mut self, id: u64) {
        let now = self.now;
        let Some(under_way) = self.paying(id, Step::Leave) else { return };
        if !under_way.live.load(Ordering::Acquire) {
            self.payment_calls.calls.remove(&id);
            return self.coverage.hit("payment call: not made, task moved on");
        }
        if now > under_way.not_after {
            let answer = Box::new(Answer::bare(PaymentOutcome::NotSent));
            return self.payment_answers(id, answer);
        }
        let call = under_way.call.clone();
        let times = if self.faulty && self.chance.per_mille(self.plan.doubled) { 2 } else { 1 };
        for time in 0..times {
            let slow = self.faulty && self.chance.per_mille(self.plan.slow_calls);
            let after =
                if slow || time > 0 { self.chance.between(100_000, 2_000_000) } else { 2_000 };
            self.payment_calls.travelling += 1;
            self.schedule(after, Event::Pay(Step::Arrive(id, Box::new(call.clone()))));
        }
        if times > 1 {
            self.coverage.hit("payment request arrives twice");
        }
        let silence = Box::new(Answer::bare(PaymentOutcome::Unknown));
        self.schedule(PATIENCE, Event::Pay(Step::Answer(id, silence)));
    }

    fn payment_arrives(&mut self, id: u64, call: &PaymentCall) {
        self.payment_calls.travelling -= 1;
        let now_ms = self.wall().0;
        let odd = self.faulty && self.chance.per_mille(self.plan.odd_answers);
        let odd = odd.then(|| *self.chance.pick(crate::couriers::BAD));
        let lapse = self.faulty && self.chance.per_mille(self.plan.lapses);
        let index = self.providers.iter().position(|provider| provider.code == call.provider);
        let Some(index) = index else { return };
        let provider = &mut self.providers[index];
        let mode = odd.unwrap_or(provider.mode);
        let (answer, after, changed) = provider.serve(call, mode, lapse, now_ms, &mut self.chance);
        if mode != Mode::Well {
            self.coverage.hit(&format!("provider: {mode:?}"));
        }
        if let Some(changed) = changed {
            self.send_webhooks(index, changed);
        }
        if let Some(answer) = answer {
            self.schedule(after, Event::Pay(Step::Answer(id, Box::new(answer))));
        }
    }

    /// Tells of a payment's present state: before the response, after it, much later, or twice.
    fn send_webhooks(&mut self, provider: usize, index: usize) {
        let held = &self.providers[provider].ledger[index];
        let (code, state) = (self.providers[provider].code.clone(), held.state);
        let declined = state == events::PaymentState::Declined;
        let notice = PaymentNotified {
            order_id: held.order.order_id,
            accepted_at: held.order.accepted_at,
            method: held.method,
            generation: held.generation,
            provider: code,
            event_id: format!("{}-{}", held.reference, state.as_str()).into(),
            state,
            reference: held.reference.as_str().into(),
            amount_minor: held.amount_minor,
            reason: if declined { "card_declined".into() } else { "".into() },
            occurred_at: Millis(self.wall().0),
        };
        let doubled = self.chance.per_mille(self.plan.doubled);
        if doubled {
            self.coverage.hit("webhook sent twice");
        }
        for _ in 0..=u8::from(doubled) {
            let (what, most) = *self.chance.pick(&[
                ("webhook: at once", 500),
                ("webhook: soon", 100_000),
                ("webhook: late", 4_000_000),
            ]);
            self.coverage.hit(what);
            let after = self.chance.between(100, most);
            self.payment_calls.travelling += 1;
            self.schedule(after, Event::Pay(Step::Webhook(Box::new(notice.clone()))));
        }
    }

    fn write_webhook(&mut self, notice: Box<PaymentNotified>) {
        if !self.online() {
            // Not acknowledged: the provider sends it again.
            let after = self.chance.between(100_000, 1_000_000);
            return self.schedule(after, Event::Pay(Step::Webhook(notice)));
        }
        self.payment_calls.travelling -= 1;
        let order_id = notice.order_id;
        self.append_outcome(order_id, Record::from(*notice));
    }

    fn payment_answers(&mut self, id: u64, answer: Box<Answer>) {
        let again = answer.clone();
        let Some(under_way) = self.paying(id, |id| Step::Answer(id, again)) else { return };
        if under_way.answer.is_none() {
            let outcome = answer.outcome;
            under_way.answer = Some(*answer);
            self.coverage.hit(&format!("payment: {}", outcome.as_str()));
            let after = self.chance.between(100, 5_000);
            self.schedule(after, Event::Pay(Step::Report(id)));
        }
    }

    fn report_payment(&mut self, id: u64) {
        let online = self.online();
        let Some(under_way) = self.paying(id, Step::Report) else { return };
        if !under_way.live.load(Ordering::Acquire) {
            self.payment_calls.calls.remove(&id);
            return;
        }
        if !online {
            let after = self.kafka.down_until - self.now + 1_000;
            return self.schedule(after, Event::Pay(Step::Report(id)));
        }
        let record = answered(&under_way.call, under_way.answer.as_ref());
        let key = under_way.call.idempotency_key();
        self.payment_calls.calls.remove(&id);
        let (outcome, state) = (record.outcome, record.state);
        self.note(|| "payments".into(), || format!("{key}: {outcome:?}, {state:?}"));
        let order_id = record.order_id;
        if self.faulty && self.chance.per_mille(self.plan.doubled) {
            self.append_outcome(order_id, Record::from(record.clone()));
            self.coverage.hit("payment outcome written twice");
        }
        self.append_outcome(order_id, Record::from(record));
    }

    fn append_outcome(&mut self, order_id: OrderId, record: Record) {
        let (key, value) = (order_id.as_bytes().to_vec(), self.codec.to_bytes(&record));
        let record = log::Record { key: Some(key), value: Some(value), header: Header::None };
        let at = self.wall();
        self.kafka.append(topics::ORDER_OUTCOMES.name, at, record);
    }
}

fn answered(call: &PaymentCall, answer: Option<&Answer>) -> PaymentAnswered {
    let silence = Answer::bare(PaymentOutcome::Unknown);
    let answer = answer.unwrap_or(&silence);
    PaymentAnswered {
        order_id: call.order.order_id,
        accepted_at: call.order.accepted_at,
        method: call.method,
        generation: call.generation,
        attempt: call.attempt,
        provider: call.provider.clone(),
        step: call.step,
        outcome: answer.outcome,
        state: answer.state,
        reference: answer.reference.as_str().into(),
        amount_minor: answer.amount_minor,
        reason: answer.reason.into(),
        latency_ms: 1,
    }
}
