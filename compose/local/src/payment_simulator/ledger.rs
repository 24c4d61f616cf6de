//! The providers' own record: payments, and what was answered under each idempotency key.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Declined,
    Authorized,
    Voided,
    Captured,
    Refunded,
}

/// What is asked of a payment that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Capture,
    Void,
    Refund,
}

/// A payment.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Payment {
    /// `stripe` or `gift`.
    pub(crate) provider: &'static str,
    pub(crate) id: String,
    /// The caller's own name for it.
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) amount_minor: i64,
    pub(crate) currency: String,
    pub(crate) metadata: BTreeMap<String, String>,
    /// How often its amount was taken: once at most.
    pub(crate) captures: u32,
    pub(crate) refunds: u32,
}

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    payments: Vec<Payment>,
    by_id: HashMap<String, usize>,
    by_name: HashMap<String, usize>,
    /// `None` while the first request is at work.
    keys: HashMap<String, Option<Answered>>,
}

/// What an idempotency key stands for.
pub(crate) enum Key {
    New,
    AtWork,
    Answered(Answered),
}

impl Ledger {
    /// Takes a key; a new one is at work from now on.
    pub(crate) fn take(&mut self, key: &str) -> Key {
        match self.keys.get(key) {
            Some(Some(answered)) => Key::Answered(answered.clone()),
            Some(None) => Key::AtWork,
            None => {
                self.keys.insert(key.to_owned(), None);
                Key::New
            }
        }
    }

    /// What the key stands for from now on; `None`: nothing was done, it may be used again.
    pub(crate) fn settle(&mut self, key: &str, answered: Option<Answered>) {
        match answered {
            Some(answered) => self.keys.insert(key.to_owned(), Some(answered)),
            None => self.keys.remove(key),
        };
    }

    /// A new payment, held or refused.
    pub(crate) fn create(&mut self, mut payment: Payment) -> Payment {
        let number = self.payments.len() + 1;
        payment.id = format!("{}_{number}", if payment.provider == "stripe" { "pi" } else { "gp" });
        self.by_id.insert(payment.id.clone(), self.payments.len());
        self.by_name.insert(payment.name.clone(), self.payments.len());
        self.payments.push(payment.clone());
        payment
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Payment> {
        self.by_id.get(id).map(|index| &self.payments[*index])
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Payment> {
        self.by_name.get(name).map(|index| &self.payments[*index])
    }

    /// Moves a payment. `Err`: it stands where the step cannot begin.
    pub(crate) fn step(&mut self, id: &str, step: Step) -> Option<Result<Payment, Payment>> {
        let payment = &mut self.payments[*self.by_id.get(id)?];
        let next = match (step, payment.state) {
            (Step::Capture, State::Authorized) => State::Captured,
            (Step::Void, State::Authorized) => State::Voided,
            (Step::Refund, State::Captured) => State::Refunded,
            _ => return Some(Err(payment.clone())),
        };
        payment.state = next;
        payment.captures += u32::from(next == State::Captured);
        payment.refunds += u32::from(next == State::Refunded);
        Some(Ok(payment.clone()))
    }

    /// Every payment, oldest first.
    pub(crate) fn all(&self) -> &[Payment] {
        &self.payments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment() -> Payment {
        Payment {
            provider: "stripe",
            id: String::new(),
            name: "n".into(),
            state: State::Authorized,
            amount_minor: 5,
            currency: "gbp".into(),
            metadata: BTreeMap::new(),
            captures: 0,
            refunds: 0,
        }
    }

    #[test]
    fn money_is_taken_once_and_given_back_once() {
        let mut ledger = Ledger::default();
        let id = ledger.create(payment()).id;
        assert!(ledger.step(&id, Step::Refund).unwrap().is_err(), "nothing was taken");
        assert_eq!(ledger.step(&id, Step::Capture).unwrap().unwrap().captures, 1);
        assert!(ledger.step(&id, Step::Capture).unwrap().is_err());
        assert!(ledger.step(&id, Step::Void).unwrap().is_err());
        assert_eq!(ledger.step(&id, Step::Refund).unwrap().unwrap().state, State::Refunded);
        assert!(ledger.step("nowhere", Step::Void).is_none());
    }

    #[test]
    fn a_key_is_answered_as_the_first_time() {
        let mut ledger = Ledger::default();
        assert!(matches!(ledger.take("k"), Key::New));
        assert!(matches!(ledger.take("k"), Key::AtWork));
        ledger.settle("k", Some(Answered { status: 402, body: vec![1] }));
        assert!(matches!(ledger.take("k"), Key::Answered(a) if a.status == 402));
        ledger.settle("k", None);
        assert!(matches!(ledger.take("k"), Key::New));
    }
}
