//! One method of a payment: what a report changes, and what an answer that did not end its step asks for.

use compact_str::CompactString;
use events::{
    Currency, Millis, OrderKey, PaymentAnswered, PaymentFact, PaymentNotified, PaymentOutcome,
    PaymentState, PaymentStep,
};

use super::{
    ASK_MS, AUTHORIZATION_LIFETIME_MS, FINAL_AFTER_MS, Goal, KEY_LIFETIME_MS, MOST_GENERATIONS,
    Method, Moved, Open, Payment, PaymentCall, REFUSED_MS, RETRY_MS,
};
use crate::planted;

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

impl Payment {
    pub(super) fn method_mut(&mut self, number: i32, generation: i32) -> Option<&mut Method> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.methods.get_mut(index).filter(|method| method.generation == generation)
    }

    /// Whether every method stands so, with nothing open.
    pub(super) fn all(&self, so: impl Fn(PaymentState) -> bool) -> bool {
        self.methods.iter().all(|method| method.open.is_none() && so(method.state))
    }

    pub(super) fn declined(&self) -> Option<Moved> {
        let refused = |m: &&Method| m.state == PaymentState::Declined || m.refused;
        let method = self.methods.iter().find(refused)?;
        Some(Moved::Declined(method.reason.clone()))
    }

    /// Authorizations that are gone are made anew, up to a bound.
    pub(super) fn renew(&mut self) {
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
    pub(super) fn next_steps(&self, now: Millis) -> Vec<(usize, PaymentStep)> {
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

impl Open {
    /// Goes on under another key, after a wait that grows with their number.
    fn take_new_key(&mut self, wait: (i64, i64), now: Millis) {
        self.waits_until = Some(now.plus(doubled(wait, self.attempt - 1)));
        self.attempt += 1;
        self.tries = 0;
        self.decided_at = now;
        self.doubt = false;
    }
}

/// How a step is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Send {
    pub(super) ask: bool,
}

impl Method {
    /// Moves the state forward to what was reported; a step that is over is closed.
    pub(super) fn learn(
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
        if self.open.as_ref().is_some_and(|open| self.state > open.step.begins_from()) {
            self.open = None;
        }
    }

    /// What an answer that did not end its step asks for: a call at once, or a wait.
    pub(super) fn after(
        &mut self,
        answer: &PaymentAnswered,
        goal: Goal,
        now: Millis,
    ) -> Option<Send> {
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
            // Not taken, and not wanted any more: the hold is let go. Should an earlier request still take it,
            // the provider refuses that and says so.
            PaymentOutcome::Failed | PaymentOutcome::NotFound
                if goal == Goal::Unwind && open.step == PaymentStep::Capture =>
            {
                self.open = None;
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
            PaymentOutcome::NotFound if answer.state != PaymentState::Unknown => {
                open.take_new_key(RETRY_MS, now);
                None
            }
            PaymentOutcome::NotFound => self.after_not_found(goal, now),
            // The provider's word under this key; what was wanted may be asked for under another.
            PaymentOutcome::Declined | PaymentOutcome::Succeeded => {
                if open.step == PaymentStep::Capture {
                    // It holds the money and does not give it: declined, and the hold is let go.
                    self.refuse_capture(answer);
                    return None;
                }
                open.take_new_key(REFUSED_MS, now);
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

    pub(super) fn call(
        &self,
        order: OrderKey,
        number: i32,
        send: Send,
        currency: &Currency,
    ) -> PaymentCall {
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
