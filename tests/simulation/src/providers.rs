//! Models of payment providers: a ledger behind an API with idempotency keys, which is slow, down, broken
//! half-way, silent though it has done it; and which tells of everything by webhook, too.

use std::collections::BTreeMap;

use events::{OrderKey, PaymentOutcome, PaymentState, PaymentStep, ProviderCode};
use machines::PaymentCall;

use crate::chance::Chance;
use crate::couriers::Mode;

/// The token of a means of payment that is refused.
pub const REFUSED: &str = "tok_refused";

/// A payment in a provider's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// For which order.
    pub order: OrderKey,
    /// Which of its methods.
    pub method: i32,
    /// Which authorization of it, as the caller named it.
    pub generation: i32,
    /// The caller's name for it.
    pub payment: String,
    /// The provider's id.
    pub reference: String,
    /// Where it stands.
    pub state: PaymentState,
    /// Minor units.
    pub amount_minor: i64,
    /// When it was captured, UTC ms.
    pub captured_at: Option<i64>,
}

/// What a caller hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What came of it.
    pub outcome: PaymentOutcome,
    /// Where the payment stands.
    pub state: PaymentState,
    /// The provider's id.
    pub reference: String,
    /// Minor units.
    pub amount_minor: i64,
    /// Why not.
    pub reason: &'static str,
}

impl Answer {
    /// An answer that says nothing of the payment.
    pub fn bare(outcome: PaymentOutcome) -> Self {
        let (state, reference) = (PaymentState::Unknown, String::new());
        Self { outcome, state, reference, amount_minor: 0, reason: "" }
    }

    fn of(outcome: PaymentOutcome, held: &Held, reason: &'static str) -> Self {
        let (state, reference) = (held.state, held.reference.clone());
        Self { outcome, state, reference, amount_minor: held.amount_minor, reason }
    }
}

/// A provider.
#[derive(Debug)]
pub struct Provider {
    /// Its code.
    pub code: ProviderCode,
    /// How it behaves in general.
    pub mode: Mode,
    /// Its ledger, oldest first.
    pub ledger: Vec<Held>,
    /// What was answered under each key.
    keys: BTreeMap<String, Answer>,
}

impl Provider {
    /// A provider that behaves well.
    pub fn new(code: &str) -> Self {
        let code = ProviderCode::parse(code).expect("a legal code");
        Self { code, mode: Mode::Well, ledger: vec![], keys: BTreeMap::new() }
    }

    /// Serves a call that has arrived: the answer, if the caller hears one, how many microseconds it
    /// takes, and the index of the payment that changed.
    pub fn serve(
        &mut self,
        call: &PaymentCall,
        mode: Mode,
        lapse: bool,
        now_ms: i64,
        chance: &mut Chance,
    ) -> (Option<Answer>, u64, Option<usize>) {
        let quick = chance.between(1_000, 60_000);
        let bare = |outcome| Some(Answer::bare(outcome));
        match mode {
            Mode::Away | Mode::Busy | Mode::Throttling => {
                (bare(PaymentOutcome::Failed), quick, None)
            }
            Mode::Broken => {
                let done = chance.per_mille(500).then(|| self.perform(call, lapse, now_ms));
                (bare(PaymentOutcome::Unknown), quick, done.and_then(|(_, changed)| changed))
            }
            Mode::Silent => (None, 0, self.perform(call, lapse, now_ms).1),
            Mode::Slow => {
                let (answer, changed) = self.perform(call, lapse, now_ms);
                (Some(answer), chance.between(200_000, 3_000_000), changed)
            }
            Mode::Well | Mode::Choosy => {
                let (answer, changed) = self.perform(call, lapse, now_ms);
                (Some(answer), quick, changed)
            }
        }
    }

    fn perform(&mut self, call: &PaymentCall, lapse: bool, now: i64) -> (Answer, Option<usize>) {
        let found = self.find(call);
        if call.ask {
            return (self.tell(call, found), None);
        }
        let key = call.idempotency_key();
        if let Some(answer) = self.keys.get(&key) {
            return (answer.clone(), None);
        }
        let (answer, changed) = match call.step {
            PaymentStep::Authorize => self.authorize(call),
            step => match found {
                Some(index) => self.change(index, step, lapse, now),
                None => (Answer::bare(PaymentOutcome::NotFound), None),
            },
        };
        self.keys.insert(key, answer.clone());
        (answer, changed)
    }

    fn find(&self, call: &PaymentCall) -> Option<usize> {
        let (reference, payment) = (call.reference.as_str(), call.payment());
        self.ledger.iter().position(|held| {
            if reference.is_empty() { held.payment == payment } else { held.reference == reference }
        })
    }

    fn tell(&self, call: &PaymentCall, found: Option<usize>) -> Answer {
        let Some(held) = found.map(|index| &self.ledger[index]) else {
            return Answer::bare(PaymentOutcome::NotFound);
        };
        let done = match call.step {
            PaymentStep::Authorize | PaymentStep::Unknown => true,
            PaymentStep::Capture => held.state >= PaymentState::Captured,
            PaymentStep::Void => held.state == PaymentState::Voided,
            PaymentStep::Refund => held.state == PaymentState::Refunded,
        };
        match (held.state, done) {
            (PaymentState::Declined, _) => {
                Answer::of(PaymentOutcome::Declined, held, "card_declined")
            }
            (_, true) => Answer::of(PaymentOutcome::Succeeded, held, ""),
            (_, false) => Answer::of(PaymentOutcome::NotFound, held, ""),
        }
    }

    fn authorize(&mut self, call: &PaymentCall) -> (Answer, Option<usize>) {
        let refused = call.token == REFUSED;
        let held = Held {
            order: call.order,
            method: call.method,
            generation: call.generation,
            payment: call.payment(),
            reference: format!("{}-{}", self.code, self.ledger.len() + 1),
            state: if refused { PaymentState::Declined } else { PaymentState::Authorized },
            amount_minor: call.amount_minor,
            captured_at: None,
        };
        let answer = if refused {
            Answer::of(PaymentOutcome::Declined, &held, "card_declined")
        } else {
            Answer::of(PaymentOutcome::Succeeded, &held, "")
        };
        self.ledger.push(held);
        (answer, Some(self.ledger.len() - 1))
    }

    fn change(
        &mut self,
        index: usize,
        step: PaymentStep,
        lapse: bool,
        now: i64,
    ) -> (Answer, Option<usize>) {
        use PaymentState::{Authorized, Captured, Refunded, Voided};
        let held = &mut self.ledger[index];
        let lapsed = lapse && held.state == Authorized && step == PaymentStep::Capture;
        if lapsed {
            held.state = Voided;
            let answer = Answer::of(PaymentOutcome::Declined, held, "authorization_expired");
            return (answer, Some(index));
        }
        let next = match (step, held.state) {
            (PaymentStep::Capture, Authorized) => Captured,
            (PaymentStep::Void, Authorized) => Voided,
            (PaymentStep::Refund, Captured) => Refunded,
            _ => return (Answer::of(PaymentOutcome::Declined, held, "wrong_state"), None),
        };
        held.state = next;
        if next == Captured {
            held.captured_at = Some(now);
        }
        (Answer::of(PaymentOutcome::Succeeded, held, ""), Some(index))
    }
}
