//! What an adapter to a payment provider is: pure. It says what to send and what an answer means; the
//! sending is the same for all.

use compact_str::CompactString;
use events::{PaymentOutcome, PaymentState};
use machines::PaymentCall;
use wire::payment_names::{self, id};

/// An HTTP request. It holds the provider's secret, so it has no `Debug`.
pub struct Request {
    /// GET, POST or PUT.
    pub method: &'static str,
    /// Path and query, with the leading slash.
    pub path: String,
    /// Headers besides the content type.
    pub headers: Vec<(&'static str, String)>,
    /// Content type and body; `None` for a GET.
    pub body: Option<(&'static str, String)>,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What came of the step.
    pub outcome: PaymentOutcome,
    /// Where the payment stands.
    pub state: PaymentState,
    /// The provider's id of it; empty if not told.
    pub reference: CompactString,
    /// Minor units; 0 if not told.
    pub amount_minor: i64,
    /// Machine-readable cause of a refusal.
    pub reason: CompactString,
}

impl Answer {
    /// An answer that tells nothing of the payment.
    pub fn bare(outcome: PaymentOutcome) -> Self {
        Self {
            outcome,
            state: PaymentState::Unknown,
            reference: "".into(),
            amount_minor: 0,
            reason: "".into(),
        }
    }

    /// A definite no.
    pub fn declined(reason: &str) -> Self {
        Self {
            reason: payment_names::reason(reason).into(),
            ..Self::bare(PaymentOutcome::Declined)
        }
    }

    /// Where the payment stands, read against what was asked: an ask finds that the step is over, or
    /// that it is not done.
    pub fn standing(call: &PaymentCall, state: PaymentState) -> Self {
        let outcome = match state {
            PaymentState::Unknown => PaymentOutcome::Unknown,
            PaymentState::Declined => PaymentOutcome::Declined,
            state if !call.ask || state > call.step.begins_from() => PaymentOutcome::Succeeded,
            _ => PaymentOutcome::NotFound,
        };
        Self { state, ..Self::bare(outcome) }
    }
}

/// An id as it may be recorded; empty when it cannot be.
pub fn reference(text: &str) -> CompactString {
    id(text).unwrap_or_default().into()
}

/// An adapter.
pub trait Provider: Send + Sync {
    /// What to send for a call, or for the question what came of it.
    fn request(&self, call: &PaymentCall) -> Request;

    /// What the answer to [`Provider::request`] means.
    fn read(&self, call: &PaymentCall, status: u16, body: &[u8]) -> Answer;
}
