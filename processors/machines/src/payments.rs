//! Payments: the methods of an order, all of them or none. Authorizes, captures, lets go, gives back;
//! part of the orders processor, driven by the saga.
//!
//! States of a method: *new* → *authorized* → *captured*, or *declined*; compensated as *voided* or
//! *refunded*. Beside its state a method has at most one *open step*: a call under way, one that is
//! waited with, or one in doubt. A step in doubt is resolved by asking the provider, never by
//! guessing: what the provider does not know is done again under the same idempotency key, and under
//! another key only when the first one can no longer arrive.
//!
//! Answers and webhooks are the same to this machine: reports of where a payment stands. A state only
//! moves forward, in [`PaymentState`]'s order, so reports may come early, late, twice and in any order.

use std::rc::Rc;

use compact_str::CompactString;
use events::{
    Currency, Millis, OrderKey, PaymentAnswered, PaymentFact, PaymentMethod, PaymentNotified,
    PaymentOutcome, PaymentState, PaymentStep, ProviderCode,
};
use serde::{Deserialize, Serialize};

use crate::invariant;
use crate::machine::{Context, Effects};
use crate::planted;
use crate::table::{AnyTable, Backing, Key, Row, Table, TableId};

/// Wait before a step that certainly did nothing is tried again: doubles from 0.5 s to 30 s.
const RETRY_MS: (i64, i64) = (500, 30_000);
/// Wait before a provider is asked what came of a step: doubles from 1 s to 60 s.
const ASK_MS: (i64, i64) = (1_000, 60_000);
/// A step must not be sent later than this after it was decided: providers forget idempotency keys
/// (Stripe: after 24 hours at the earliest), and a forgotten key would make a second payment.
const KEY_LIFETIME_MS: i64 = 22 * 60 * 60 * 1_000;
/// From then on "no such payment" is final: nothing sent under the key can still arrive.
const FINAL_AFTER_MS: i64 = KEY_LIFETIME_MS + 60 * 60 * 1_000;
/// An authorization older than this is made anew before it is captured: card networks let holds of
/// online payments lapse after seven days (Stripe's documentation, "Place a hold on a payment method").
const AUTHORIZATION_LIFETIME_MS: i64 = 6 * 24 * 60 * 60 * 1_000;
/// Authorizations that lapse before they are captured, until the order is declined.
const MOST_GENERATIONS: i32 = 3;

/// An order's payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Of every amount.
    pub currency: Currency,
    /// What the saga wants.
    pub goal: Goal,
    /// Its methods, in the order's order.
    pub methods: Vec<Method>,
    /// What happened since the last status event.
    pub untold: Vec<PaymentFact>,
}

/// What the saga wants of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// Hold the money.
    Authorize,
    /// Take it.
    Capture,
    /// Have no money of this order.
    Unwind,
}

/// One method of an order's payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// Who holds the money.
    pub provider: ProviderCode,
    /// The provider's token.
    pub token: CompactString,
    /// Its part of the total, minor units.
    pub amount_minor: i64,
    /// Which authorization it is, from 1.
    pub generation: i32,
    /// Where the payment of this generation stands.
    pub state: PaymentState,
    /// The provider's id of the payment; empty while unknown.
    pub reference: CompactString,
    /// When it was authorized; 0 before.
    pub authorized_at: Millis,
    /// Why it was declined; else empty.
    pub reason: CompactString,
    /// The provider holds the amount but will not give it.
    pub refused: bool,
    /// What is being done.
    pub open: Option<Open>,
}

/// A step that has been decided and is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Which.
    pub step: PaymentStep,
    /// Which key it has, from 1.
    pub attempt: i32,
    /// When it was decided; its key counts from then.
    pub decided_at: Millis,
    /// Calls that did not end it.
    pub tries: i32,
    /// Nobody knows what came of it: the provider is asked before it is sent again.
    pub doubt: bool,
    /// When to go on; `None`: a call is under way.
    pub waits_until: Option<Millis>,
}

impl Row for Payment {
    fn deadline(&self) -> Option<Millis> {
        let open = self.methods.iter().filter_map(|method| method.open.as_ref());
        open.filter_map(|open| open.waits_until).min()
    }
}

/// One call to a payment provider. Its outcome comes back as a [`PaymentAnswered`] record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentCall {
    /// The order.
    pub order: OrderKey,
    /// Position of the method, from 1.
    pub method: i32,
    /// Which authorization of it, from 1.
    pub generation: i32,
    /// Which key of the step, from 1.
    pub attempt: i32,
    /// What is to be done.
    pub step: PaymentStep,
    /// Only find out what came of the step.
    pub ask: bool,
    /// Whom.
    pub provider: ProviderCode,
    /// The provider's token of the means of payment.
    pub token: CompactString,
    /// Minor units.
    pub amount_minor: i64,
    /// Of the amount.
    pub currency: Currency,
    /// The provider's id of the payment; empty while unknown.
    pub reference: CompactString,
    /// The step must not be sent later than this (UTC ms); asking is always allowed.
    pub not_after: Millis,
}

impl PaymentCall {
    /// Our name for the payment, `<uuid>-<method>.<generation>`. The UUID stands for order and
    /// acceptance: a key used again after its lifetime is another order.
    pub fn payment(&self) -> String {
        let at = self.order.accepted_at.0.to_be_bytes();
        let order = uuid::Uuid::new_v5(&self.order.order_id.0, &at);
        format!("{order}-{}.{}", self.method, self.generation)
    }

    /// The idempotency key: the same for every try of a step.
    pub fn idempotency_key(&self) -> String {
        format!("{}-{}.{}", self.payment(), self.step.as_str(), self.attempt)
    }
}

/// What the saga must hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// Every method is authorized.
    Authorized,
    /// Every method is captured.
    Captured,
    /// One was refused, for this reason; the others are as they were.
    Declined(CompactString),
    /// No money of the order is held or kept any more.
    Unwound,
}

/// The payments of the orders of a partition.
pub struct Payments {
    /// Those on which something is to be done.
    moving: Table<OrderKey, Payment>,
    /// Captured: kept in case that money must go back.
    captured: Table<OrderKey, Payment>,
}

impl Payments {
    /// The payments over a task's committed state, in these two tables.
    pub fn new(ids: (u8, u8), backing: &Rc<dyn Backing>) -> Self {
        Self { moving: Table::new(ids.0, backing), captured: Table::new(ids.1, backing) }
    }

    /// Begins to authorize every method.
    pub fn begin(
        &mut self,
        order: OrderKey,
        methods: &[PaymentMethod],
        currency: &Currency,
        context: &Context,
        fx: &mut Effects,
    ) {
        let new = |method: &PaymentMethod| Method {
            provider: method.provider.clone(),
            token: method.token.clone(),
            amount_minor: method.amount_minor,
            generation: 1,
            state: PaymentState::New,
            reference: "".into(),
            authorized_at: Millis(0),
            reason: "".into(),
            refused: false,
            open: None,
        };
        let payment = Payment {
            currency: currency.clone(),
            goal: Goal::Authorize,
            methods: methods.iter().map(new).collect(),
            untold: vec![],
        };
        self.drive(order, payment, context, fx);
    }

    /// Takes what is authorized.
    pub fn capture(&mut self, order: OrderKey, context: &Context, fx: &mut Effects) {
        if let Some(mut payment) = self.moving.get(&order) {
            payment.goal = Goal::Capture;
            self.drive(order, payment, context, fx);
        }
    }

    /// Lets go of everything held and gives back everything taken. True if that takes time:
    /// [`Moved::Unwound`] follows.
    pub fn unwind(&mut self, order: OrderKey, context: &Context, fx: &mut Effects) -> bool {
        let payment = match self.moving.get(&order) {
            Some(payment) => payment,
            None => match self.captured.get(&order) {
                Some(payment) => {
                    self.captured.remove(order);
                    payment
                }
                None => return false,
            },
        };
        let mut payment = Payment { goal: Goal::Unwind, ..payment };
        if planted!(OpenStepForgotten) {
            payment.methods.iter_mut().for_each(|method| method.open = None);
        }
        self.drive(order, payment, context, fx) != Some(Moved::Unwound)
    }

    /// What happened since the last status event; told by the next one.
    pub fn facts(&mut self, order: OrderKey) -> Vec<PaymentFact> {
        for table in [&mut self.moving, &mut self.captured] {
            if let Some(mut payment) = table.get(&order) {
                let facts = std::mem::take(&mut payment.untold);
                if !facts.is_empty() {
                    table.put(order, payment);
                }
                return facts;
            }
        }
        vec![]
    }

    /// Nothing more is owed or expected of the order: forgets it.
    pub fn forget(&mut self, order: OrderKey) {
        for table in [&mut self.moving, &mut self.captured] {
            if table.peek(&order).is_some() {
                table.remove(order);
            }
        }
    }

    /// A call was answered.
    pub fn answered(
        &mut self,
        answer: &PaymentAnswered,
        context: &Context,
        fx: &mut Effects,
    ) -> Option<Moved> {
        let order = OrderKey { order_id: answer.order_id, accepted_at: answer.accepted_at };
        let mut payment = self.moving.get(&order)?;
        let (currency, goal) = (payment.currency.clone(), payment.goal);
        let method = payment.method_mut(answer.method, answer.generation)?;
        let report = Report::from(answer);
        fx.violations.extend(invariant::paid_amount(order, method.amount_minor, &report));
        let mut facts = vec![];
        method.learn(answer.method, &report, &currency, context.now, &mut facts);
        let current = method
            .open
            .as_ref()
            .is_some_and(|open| open.step == answer.step && open.attempt == answer.attempt);
        if current && let Some(call) = method.after(answer, goal, context.now) {
            let call = method.call(order, answer.method, call, &currency);
            fx.pay(call);
        }
        payment.untold.extend(facts);
        self.drive(order, payment, context, fx)
    }

    /// A provider sent a webhook.
    pub fn notified(
        &mut self,
        notice: &PaymentNotified,
        context: &Context,
        fx: &mut Effects,
    ) -> Option<Moved> {
        let order = OrderKey { order_id: notice.order_id, accepted_at: notice.accepted_at };
        let mut payment = self.moving.get(&order)?;
        let currency = payment.currency.clone();
        let method = payment.method_mut(notice.method, notice.generation)?;
        let report = Report::from(notice);
        fx.violations.extend(invariant::paid_amount(order, method.amount_minor, &report));
        let mut facts = vec![];
        method.learn(notice.method, &report, &currency, context.now, &mut facts);
        payment.untold.extend(facts);
        self.drive(order, payment, context, fx)
    }

    /// A wait may be over.
    pub fn fire(&mut self, key: &[u8], context: &Context, fx: &mut Effects) {
        let Some(order) = OrderKey::from_bytes(key) else { return };
        let Some(mut payment) = self.moving.get(&order) else { return };
        if payment.deadline().is_none_or(|at| at > context.now) {
            return;
        }
        for (method, number) in payment.methods.iter_mut().zip(1..) {
            let Some(open) = &mut method.open else { continue };
            if open.waits_until.is_some_and(|at| at <= context.now) {
                open.waits_until = None;
                if planted!(DoubtNewKey) && open.doubt {
                    open.attempt += 1;
                    open.doubt = false;
                }
                let ask = open.doubt;
                let call = method.call(order, number, Send { ask }, &payment.currency);
                fx.pay(call);
            }
        }
        self.moving.put(order, payment);
    }

    /// After a takeover: what was being called may have been sent or not; it is sent again under the
    /// same key.
    pub fn resume(&mut self, fx: &mut Effects) {
        for (order, payment) in self.moving.all() {
            for (method, number) in payment.methods.iter().zip(1..) {
                let Some(open) = &method.open else { continue };
                if open.waits_until.is_none() {
                    let send = Send { ask: open.doubt };
                    fx.pay(method.call(order, number, send, &payment.currency));
                }
            }
        }
    }

    /// The id of the table whose rows have deadlines.
    pub fn id(&self) -> TableId {
        self.moving.id()
    }

    /// The tables, always in the same order.
    pub fn tables(&mut self) -> [&mut dyn AnyTable; 2] {
        [&mut self.moving, &mut self.captured]
    }

    /// Decides what to do next for methods with nothing open, and keeps the row.
    fn drive(
        &mut self,
        order: OrderKey,
        mut payment: Payment,
        context: &Context,
        fx: &mut Effects,
    ) -> Option<Moved> {
        use PaymentState::{Authorized, Captured};
        let moved = match payment.goal {
            Goal::Authorize => {
                payment.renew();
                let held = || payment.all(|state| matches!(state, Authorized | Captured));
                payment.declined().or_else(|| held().then_some(Moved::Authorized))
            }
            Goal::Capture => {
                payment.renew();
                let taken = || payment.all(|state| state == Captured);
                payment.declined().or_else(|| taken().then_some(Moved::Captured))
            }
            Goal::Unwind => payment.all(is_unwound).then_some(Moved::Unwound),
        };
        if moved == Some(Moved::Captured) {
            self.moving.remove(order);
            self.captured.put(order, payment);
            return moved;
        }
        // After a refusal nothing is begun: the saga unwinds.
        if !matches!(moved, Some(Moved::Declined(_))) {
            let steps = payment.next_steps(context.now);
            for (index, step) in steps {
                let method = &mut payment.methods[index];
                method.open = Some(Open {
                    step,
                    attempt: 1,
                    decided_at: context.now,
                    tries: 0,
                    doubt: false,
                    waits_until: None,
                });
                let number = i32::try_from(index + 1).expect("an order has few methods");
                fx.pay(method.call(order, number, Send { ask: false }, &payment.currency));
            }
        }
        self.moving.put(order, payment);
        moved
    }
}

/// No money is held or kept in this state.
fn is_unwound(state: PaymentState) -> bool {
    use PaymentState::{Declined, New, Refunded, Voided};
    matches!(state, New | Declined | Voided | Refunded)
        || (planted!(RefundForgotten) && state == PaymentState::Captured)
}

/// Where a provider says that a payment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Where.
    pub state: PaymentState,
    /// Minor units; 0 when it names none.
    pub amount_minor: i64,
    reference: CompactString,
    reason: CompactString,
}

impl From<&PaymentAnswered> for Report {
    fn from(answer: &PaymentAnswered) -> Self {
        // The step's own state where the answer names none.
        let state = match (answer.outcome, answer.state) {
            (PaymentOutcome::Succeeded, PaymentState::Unknown) => reached_by(answer.step),
            (PaymentOutcome::Declined, state)
                if answer.step == PaymentStep::Authorize && state < PaymentState::Declined =>
            {
                PaymentState::Declined
            }
            (PaymentOutcome::Unknown, _) if planted!(PaymentGuessed) => PaymentState::Declined,
            (_, state) => state,
        };
        let (reference, reason) = (answer.reference.clone(), answer.reason.clone());
        Self { state, amount_minor: answer.amount_minor, reference, reason }
    }
}

impl From<&PaymentNotified> for Report {
    fn from(notice: &PaymentNotified) -> Self {
        let (reference, reason) = (notice.reference.clone(), notice.reason.clone());
        Self { state: notice.state, amount_minor: notice.amount_minor, reference, reason }
    }
}

/// Where a payment stands once the step is done.
fn reached_by(step: PaymentStep) -> PaymentState {
    match step {
        PaymentStep::Unknown => PaymentState::Unknown,
        PaymentStep::Authorize => PaymentState::Authorized,
        PaymentStep::Capture => PaymentState::Captured,
        PaymentStep::Void => PaymentState::Voided,
        PaymentStep::Refund => PaymentState::Refunded,
    }
}

/// Where a payment stands while the step may still be done; beyond it the step is over, one way or
/// the other.
fn begun_from(step: PaymentStep) -> PaymentState {
    match step {
        PaymentStep::Unknown | PaymentStep::Authorize => PaymentState::New,
        PaymentStep::Capture | PaymentStep::Void => PaymentState::Authorized,
        PaymentStep::Refund => PaymentState::Captured,
    }
}

impl Payment {
    fn method_mut(&mut self, number: i32, generation: i32) -> Option<&mut Method> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.methods.get_mut(index).filter(|method| method.generation == generation)
    }

    /// Whether every method stands so, with nothing open.
    fn all(&self, so: impl Fn(PaymentState) -> bool) -> bool {
        self.methods.iter().all(|method| method.open.is_none() && so(method.state))
    }

    fn declined(&self) -> Option<Moved> {
        let refused = |m: &&Method| m.state == PaymentState::Declined || m.refused;
        let method = self.methods.iter().find(refused)?;
        Some(Moved::Declined(method.reason.clone()))
    }

    /// Authorizations that are gone are made anew, up to a bound.
    fn renew(&mut self) {
        for method in &mut self.methods {
            if method.state != PaymentState::Voided || method.open.is_some() {
                continue;
            }
            if method.generation == MOST_GENERATIONS {
                method.state = PaymentState::Declined;
                method.reason = "authorization_lapsed".into();
            } else {
                method.generation += 1;
                method.state = PaymentState::New;
                method.reference = "".into();
                method.authorized_at = Millis(0);
            }
        }
    }

    /// What to begin, by index of the method. Nothing is captured before all are authorized.
    fn next_steps(&self, now: Millis) -> Vec<(usize, PaymentStep)> {
        use PaymentState::{Authorized, Captured, New};
        let old = |method: &Method| method.authorized_at.plus(AUTHORIZATION_LIFETIME_MS) <= now;
        let fit = |m: &Method| m.state == Captured || (m.state == Authorized && !old(m));
        let whole = self.methods.iter().all(fit);
        let step = |method: &Method| match (self.goal, method.state) {
            (Goal::Authorize | Goal::Capture, New) => Some(PaymentStep::Authorize),
            (Goal::Capture, Authorized) if old(method) => Some(PaymentStep::Void),
            (Goal::Capture, Authorized) if whole => Some(PaymentStep::Capture),
            (Goal::Unwind, Authorized) => Some(PaymentStep::Void),
            (Goal::Unwind, Captured) => Some(PaymentStep::Refund),
            _ => None,
        };
        let idle = self.methods.iter().enumerate().filter(|(_, method)| method.open.is_none());
        idle.filter_map(|(index, method)| Some((index, step(method)?))).collect()
    }
}

/// How a step is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Send {
    ask: bool,
}

impl Method {
    /// Moves the state forward to what was reported; a step that is over is closed.
    fn learn(
        &mut self,
        number: i32,
        report: &Report,
        currency: &Currency,
        now: Millis,
        facts: &mut Vec<PaymentFact>,
    ) {
        if !report.reference.is_empty() && self.reference.is_empty() {
            self.reference = report.reference.clone();
        }
        let back = planted!(LateWebhookBelieved) && report.state != PaymentState::Unknown;
        if report.state > self.state || back {
            self.state = report.state;
            match report.state {
                PaymentState::Declined => {
                    let unnamed = report.reason.is_empty();
                    self.reason = if unnamed { "declined".into() } else { report.reason.clone() };
                }
                PaymentState::Authorized => self.authorized_at = now,
                _ => {}
            }
            facts.push(PaymentFact {
                method: number,
                provider: self.provider.clone(),
                reference: self.reference.clone(),
                state: self.state,
                amount_minor: self.amount_minor,
                currency: currency.clone(),
            });
        }
        if self.open.as_ref().is_some_and(|open| self.state > begun_from(open.step)) {
            self.open = None;
        }
    }

    /// What an answer that did not end its step asks for: a call at once, or a wait.
    fn after(&mut self, answer: &PaymentAnswered, goal: Goal, now: Millis) -> Option<Send> {
        let open = self.open.as_mut()?;
        open.tries = open.tries.saturating_add(1);
        open.waits_until = None;
        let wait = |rule, open: &Open| Some(now.plus(doubled(rule, open.tries - 1)));
        match answer.outcome {
            PaymentOutcome::Unknown => {
                open.doubt = true;
                open.waits_until = wait(ASK_MS, open);
                None
            }
            // This request did nothing; an earlier one in doubt still may have.
            PaymentOutcome::Failed => {
                open.waits_until = wait(RETRY_MS, open);
                None
            }
            // Another owner of the task may have sent it meanwhile: the key makes that one payment.
            PaymentOutcome::NotSent => {
                open.doubt |= open.decided_at.plus(KEY_LIFETIME_MS) <= now;
                if open.doubt && open.tries > 1 {
                    open.waits_until = wait(ASK_MS, open);
                    return None;
                }
                Some(Send { ask: open.doubt })
            }
            PaymentOutcome::NotFound => self.after_not_found(goal, now),
            // The provider's word under this key; what was wanted may be asked for under another.
            PaymentOutcome::Declined | PaymentOutcome::Succeeded => {
                if open.step == PaymentStep::Capture {
                    // It holds the money and does not give it: declined, and the hold is let go.
                    self.refuse_capture(answer);
                    return None;
                }
                open.attempt += 1;
                open.decided_at = now;
                open.doubt = false;
                open.waits_until = wait(RETRY_MS, open);
                None
            }
        }
    }

    fn after_not_found(&mut self, goal: Goal, now: Millis) -> Option<Send> {
        let open = self.open.as_mut()?;
        let (sendable, last) = (open.decided_at.plus(KEY_LIFETIME_MS), FINAL_AFTER_MS);
        if now < sendable {
            // Not there yet: a late request and this one share the key, whichever comes first.
            open.doubt = false;
            return Some(Send { ask: false });
        }
        if now < open.decided_at.plus(last) {
            open.waits_until = Some(now.plus(doubled(ASK_MS, open.tries - 1)));
            return None;
        }
        if open.step == PaymentStep::Authorize && goal == Goal::Unwind {
            self.open = None;
            return None;
        }
        open.attempt += 1;
        open.decided_at = now;
        open.doubt = false;
        Some(Send { ask: false })
    }

    /// The provider holds the amount but will not give it: the method counts as declined once its hold
    /// is let go, which the saga's unwinding sees to.
    fn refuse_capture(&mut self, answer: &PaymentAnswered) {
        self.open = None;
        self.refused = true;
        self.reason =
            if answer.reason.is_empty() { "capture_refused".into() } else { answer.reason.clone() };
    }

    fn call(&self, order: OrderKey, number: i32, send: Send, currency: &Currency) -> PaymentCall {
        let open = self.open.as_ref().expect("a call is made for an open step");
        PaymentCall {
            order,
            method: number,
            generation: self.generation,
            attempt: open.attempt,
            step: open.step,
            ask: send.ask,
            provider: self.provider.clone(),
            token: self.token.clone(),
            amount_minor: self.amount_minor,
            currency: currency.clone(),
            reference: self.reference.clone(),
            not_after: open.decided_at.plus(KEY_LIFETIME_MS),
        }
    }
}

fn doubled((first, most): (i64, i64), times: i32) -> i64 {
    let shift = u32::try_from(times).unwrap_or(0).min(16);
    first.saturating_mul(1 << shift).min(most)
}

#[cfg(test)]
#[path = "payments_tests.rs"]
mod tests;
