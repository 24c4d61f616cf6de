//! Payments: the methods of an order, all of them or none. Authorizes, captures, lets go, gives back;
//! part of the orders processor, driven by the saga.
//!
//! States of a method: *new* → *authorized* → *captured*, or *declined*; compensated as *voided* or
//! *refunded*. Beside its state a method has at most one *open step*: a call under way, one that is
//! waited with, or one in doubt. A step in doubt is resolved by asking the provider, never by
//! guessing: a payment that the provider does not know is made again under the same idempotency key, and
//! under another key only when the first one can no longer arrive. A step of a payment that it knows and
//! that stands where it stood is asked for under another key, after a wait: providers repeat a failure under the old
//! one (Stripe, "Idempotent requests"), and let a payment be captured, voided or refunded once.
//!
//! Answers and webhooks are the same to this machine: reports of where a payment stands. A state only
//! moves forward, in [`PaymentState`]'s order, so reports may come early, late, twice and in any order.

mod call;
mod method;
mod rows;
mod waiting;

use std::rc::Rc;

use compact_str::CompactString;
use events::{
    Currency, Millis, OrderKey, PaymentAnswered, PaymentFact, PaymentMethod, PaymentNotified,
    PaymentState,
};

pub use call::PaymentCall;
pub use method::Report;
use method::Send;
pub use rows::{Goal, Method, Open, Payment};
use waiting::Waiting;

use crate::invariant;
use crate::machine::{Context, Effects};
use crate::planted;
use crate::table::{AnyTable, Backing, Key, Row as _, Table, TableId};

/// Wait before a step that certainly did nothing is tried again: doubles from 0.5 s to 30 s.
const RETRY_MS: (i64, i64) = (500, 30_000);
/// Wait before a provider is asked again for what it has refused: doubles from 0.5 s to an hour.
const REFUSED_MS: (i64, i64) = (500, 3_600_000);
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
    waiting: Waiting,
}

impl Payments {
    /// The payments over a task's committed state, in these two tables.
    pub fn new(ids: (u8, u8), backing: &Rc<dyn Backing>) -> Self {
        let [moving, captured] = [ids.0, ids.1].map(|id| Table::new(id, backing));
        Self { moving, captured, waiting: Waiting::default() }
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
            since: context.now,
        };
        self.drive(order, payment, context, fx);
    }

    /// Takes what is authorized. It may be taken already.
    pub fn capture(
        &mut self,
        order: OrderKey,
        context: &Context,
        fx: &mut Effects,
    ) -> Option<Moved> {
        let payment = self.moving.get(&order)?;
        self.drive(order, Payment { goal: Goal::Capture, ..payment }, context, fx)
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
        let mut payment = Payment { goal: Goal::Unwind, since: context.now, ..payment };
        if planted!(OpenStepForgotten) {
            payment.methods.iter_mut().for_each(|method| method.open = None);
        }
        self.drive(order, payment, context, fx) != Some(Moved::Unwound)
    }

    /// Whether money of the order is on its way back.
    pub fn is_unwinding(&mut self, order: OrderKey) -> bool {
        self.moving.peek(&order).is_some_and(|payment| payment.goal == Goal::Unwind)
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
        // It knows the order from another of its methods, and would pay with what is not its own.
        if method.provider != notice.provider {
            fx.reject("a webhook about another provider's payment");
            return None;
        }
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
            self.waiting.note(order, Some(&payment));
            for (method, number) in payment.methods.iter().zip(1..) {
                let Some(open) = &method.open else { continue };
                if open.waits_until.is_none() {
                    let send = Send { ask: open.doubt };
                    fx.pay(method.call(order, number, send, &payment.currency));
                }
            }
        }
    }

    /// Says what has changed in what payments wait for; once per batch.
    pub fn end_batch(&mut self, fx: &mut Effects) {
        for order in self.moving.written() {
            let payment = self.moving.peek(&order);
            self.waiting.note(order, payment);
        }
        self.waiting.tell(fx);
    }

    /// Rows in each table.
    #[cfg(test)]
    pub(crate) fn rows(&mut self) -> [usize; 2] {
        [self.moving.all().len(), self.captured.all().len()]
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

#[cfg(test)]
#[path = "payments_tests.rs"]
mod tests;
