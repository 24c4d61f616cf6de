//! Stripe's PaymentIntents, as in its API reference (version 2024-06-20): created and confirmed with
//! manual capture, captured, cancelled; refunds.
//!
//! Every POST carries an `Idempotency-Key`: Stripe repeats its first answer under it for at least 24
//! hours. A 500 is repeated, too, so what came of it is asked: by id, or, before an id is known, by
//! searching our metadata. Search lags behind by up to a minute, which is why a payment that is not found is
//! only made again under the same key.

use events::{PaymentOutcome, PaymentState, PaymentStep};
use machines::PaymentCall;
use serde::Deserialize;
use serde_json::Value;
use wire::payment_names::{self, PAYMENT, PaymentName};
use wire::secret::Secret;

use super::provider::{Answer, Provider, Request, reference};

/// The version of the API that this adapter was written for.
const VERSION: &str = "2024-06-20";

/// The adapter.
pub(super) struct Stripe {
    secret: Secret,
}

impl Stripe {
    /// An adapter with this secret key (`sk_…`).
    pub(super) fn new(secret: Secret) -> Self {
        Self { secret }
    }
}

#[derive(Deserialize)]
struct Intent {
    id: String,
    status: String,
    #[serde(default)]
    amount: i64,
    #[serde(default)]
    last_payment_error: Option<Failure>,
    /// An object when expanded, else an id.
    #[serde(default)]
    latest_charge: Value,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    decline_code: Option<String>,
    #[serde(default)]
    payment_intent: Option<Box<Intent>>,
}

impl Failure {
    fn reason(&self) -> &str {
        self.decline_code.as_deref().or(self.code.as_deref()).unwrap_or("declined")
    }
}

#[derive(Deserialize)]
struct Failed {
    error: Failure,
}

#[derive(Deserialize)]
struct Refund {
    status: Option<String>,
    #[serde(default)]
    amount: i64,
}

#[derive(Deserialize)]
struct Found {
    data: Vec<Intent>,
}

impl Intent {
    fn state(&self) -> PaymentState {
        match self.status.as_str() {
            "requires_capture" => PaymentState::Authorized,
            "succeeded" if self.latest_charge["refunded"] == true => PaymentState::Refunded,
            "succeeded" => PaymentState::Captured,
            "canceled" => PaymentState::Voided,
            // Nobody can act on it any more: no customer is there to authenticate.
            "requires_payment_method" | "requires_action" => PaymentState::Declined,
            _ => PaymentState::Unknown,
        }
    }

    fn answer(&self, call: &PaymentCall) -> Answer {
        let reason = match (&self.last_payment_error, self.state()) {
            (Some(error), PaymentState::Declined) => payment_names::reason(error.reason()).into(),
            (None, PaymentState::Declined) => "authentication_required".into(),
            _ => "".into(),
        };
        let (reference, amount_minor) = (reference(&self.id), self.amount);
        Answer { reference, amount_minor, reason, ..Answer::standing(call, self.state()) }
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

impl Provider for Stripe {
    fn request(&self, call: &PaymentCall) -> Request {
        let mut headers = vec![
            ("authorization", format!("Bearer {}", self.secret.expose())),
            ("stripe-version", VERSION.into()),
        ];
        let id = &call.reference;
        if call.ask {
            let path = if id.is_empty() {
                let query = format!("metadata['{PAYMENT}']:'{}'", call.payment());
                format!("/v1/payment_intents/search?{}", form(&[("query", query.as_str())]))
            } else {
                format!("/v1/payment_intents/{id}?{}", form(&[("expand[]", "latest_charge")]))
            };
            return Request { method: "GET", path, headers, body: None };
        }
        headers.push(("idempotency-key", call.idempotency_key()));
        let (path, body) = match call.step {
            PaymentStep::Unknown | PaymentStep::Authorize => {
                ("/v1/payment_intents".to_string(), authorization(call))
            }
            PaymentStep::Capture => (format!("/v1/payment_intents/{id}/capture"), String::new()),
            PaymentStep::Void => (format!("/v1/payment_intents/{id}/cancel"), String::new()),
            PaymentStep::Refund => {
                ("/v1/refunds".to_string(), form(&[("payment_intent", id.as_str())]))
            }
        };
        let body = Some(("application/x-www-form-urlencoded", body));
        Request { method: "POST", path, headers, body }
    }

    fn read(&self, call: &PaymentCall, status: u16, body: &[u8]) -> Answer {
        match status {
            200 => read_done(call, body),
            // Not taken; or another request under this key is at work. 401 and 403: our key is wrong,
            // which an operator mends.
            401 | 403 | 409 | 429 => Answer::bare(PaymentOutcome::Failed),
            404 if call.ask => Answer::bare(PaymentOutcome::NotFound),
            // A payment that was there is not: the key is of another account. An operator's, too.
            404 if call.step != PaymentStep::Authorize => Answer::bare(PaymentOutcome::Failed),
            // 408 and 424 may have been taken.
            400..=407 | 409..=423 | 425..=499 => read_refusal(call, body),
            _ => Answer::bare(PaymentOutcome::Unknown),
        }
    }
}

fn authorization(call: &PaymentCall) -> String {
    let name = PaymentName { order: call.order, method: call.method, generation: call.generation };
    let (amount, currency) =
        (call.amount_minor.to_string(), call.currency.as_str().to_ascii_lowercase());
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs([
        ("amount", amount.as_str()),
        ("currency", currency.as_str()),
        ("payment_method", call.token.as_str()),
        ("payment_method_types[]", "card"),
        ("capture_method", "manual"),
        ("confirm", "true"),
        ("error_on_requires_action", "true"),
    ]);
    form.append_pair(&format!("metadata[{PAYMENT}]"), &call.payment());
    for (field, value) in name.metadata() {
        form.append_pair(&format!("metadata[{field}]"), &value);
    }
    form.finish()
}

fn read_done(call: &PaymentCall, body: &[u8]) -> Answer {
    let unusable = || Answer::bare(PaymentOutcome::Unknown);
    if call.ask && call.reference.is_empty() {
        let Ok(found) = serde_json::from_slice::<Found>(body) else { return unusable() };
        return match found.data.first() {
            Some(intent) => intent.answer(call),
            None => Answer::bare(PaymentOutcome::NotFound),
        };
    }
    if call.step == PaymentStep::Refund && !call.ask {
        let Ok(refund) = serde_json::from_slice::<Refund>(body) else { return unusable() };
        return match refund.status.as_deref() {
            // A pending refund is done as far as we are asked: the balance is debited.
            Some("succeeded" | "pending") => {
                let answer = Answer::standing(call, PaymentState::Refunded);
                Answer { amount_minor: refund.amount, ..answer }
            }
            _ => Answer::declined("refund_failed"),
        };
    }
    match serde_json::from_slice::<Intent>(body) {
        Ok(intent) => intent.answer(call),
        Err(_) => unusable(),
    }
}

fn read_refusal(call: &PaymentCall, body: &[u8]) -> Answer {
    let Ok(Failed { error }) = serde_json::from_slice::<Failed>(body) else {
        return Answer::bare(PaymentOutcome::Unknown);
    };
    if error.code.as_deref() == Some("charge_already_refunded") {
        return Answer::standing(call, PaymentState::Refunded);
    }
    let mut answer = Answer::declined(error.reason());
    if let Some(intent) = &error.payment_intent {
        answer.state = intent.state();
        answer.reference = reference(&intent.id);
    }
    if error.code.as_deref() == Some("charge_expired_for_capture") {
        answer.state = PaymentState::Voided;
    }
    answer
}

#[cfg(test)]
#[path = "stripe_tests.rs"]
mod tests;
