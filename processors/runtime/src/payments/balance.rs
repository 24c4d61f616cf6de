//! A balance (gift cards, store credit): the simple provider. The payment is a resource under our own
//! name, so every request can be repeated and looked up:
//!
//! - `PUT /payments/{name}` with `token`, `amount_minor`, `currency`, `metadata` holds the amount;
//! - `POST /payments/{name}/capture`, `/void` and `/refund`;
//! - `GET /payments/{name}`.
//!
//! Each answers `{"id", "state", "amount_minor", "reason"}` with 200; 402 when the amount is refused, 409
//! when the payment is in another state, 404 when there is none.

use events::{PaymentOutcome, PaymentState, PaymentStep};
use machines::PaymentCall;
use serde::Deserialize;
use serde_json::json;
use wire::payment_names::{self, PaymentName};
use wire::secret::Secret;

use super::provider::{Answer, Provider, Request, reference};

/// The adapter.
pub(super) struct Balance {
    secret: Secret,
}

impl Balance {
    /// An adapter with this bearer token.
    pub(super) fn new(secret: Secret) -> Self {
        Self { secret }
    }
}

#[derive(Deserialize)]
struct Payment {
    id: String,
    state: PaymentState,
    amount_minor: i64,
    #[serde(default)]
    reason: String,
}

impl Provider for Balance {
    fn request(&self, call: &PaymentCall) -> Request {
        let resource = format!("/payments/{}", call.payment());
        let mut headers = vec![("authorization", format!("Bearer {}", self.secret.expose()))];
        if call.ask {
            return Request { method: "GET", path: resource, headers, body: None };
        }
        headers.push(("idempotency-key", call.idempotency_key()));
        const JSON: &str = "application/json";
        if call.step == PaymentStep::Authorize {
            let (method, generation) = (call.method, call.generation);
            let name = PaymentName { order: call.order, method, generation };
            let metadata: serde_json::Map<String, serde_json::Value> =
                name.metadata().into_iter().map(|(key, v)| (key.into(), v.into())).collect();
            let body = json!({
                "token": call.token,
                "amount_minor": call.amount_minor,
                "currency": call.currency,
                "metadata": metadata,
            });
            let body = Some((JSON, body.to_string()));
            return Request { method: "PUT", path: resource, headers, body };
        }
        let path = format!("{resource}/{}", call.step.as_str());
        Request { method: "POST", path, headers, body: Some((JSON, "{}".into())) }
    }

    fn read(&self, call: &PaymentCall, status: u16, body: &[u8]) -> Answer {
        let payment = serde_json::from_slice::<Payment>(body).ok();
        let told = |mut answer: Answer, payment: &Payment| {
            answer.state = payment.state;
            answer.reference = reference(&payment.id);
            answer.amount_minor = payment.amount_minor;
            answer
        };
        match (status, payment) {
            (200, Some(payment)) => {
                let mut answer = told(Answer::standing(call, payment.state), &payment);
                if payment.state == PaymentState::Declined {
                    answer.reason = payment_names::reason(&payment.reason).into();
                }
                answer
            }
            // It stands where the step begins, so that was not refused: another request is at work.
            (409, Some(payment)) if payment.state == call.step.begins_from() => {
                Answer::bare(PaymentOutcome::Failed)
            }
            (402 | 409, Some(payment)) => told(Answer::declined(&payment.reason), &payment),
            (404, _) if call.ask => Answer::bare(PaymentOutcome::NotFound),
            (401 | 403 | 429 | 503, _) => Answer::bare(PaymentOutcome::Failed),
            (400..=499, _) => Answer::declined("refused"),
            _ => Answer::bare(PaymentOutcome::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::{Currency, Merchant, Millis, OrderId, OrderKey, ProviderCode};

    fn call(step: PaymentStep, ask: bool) -> PaymentCall {
        let order_id = OrderId::derive(&Merchant::parse("shop").unwrap(), "k1");
        PaymentCall {
            order: OrderKey { order_id, accepted_at: Millis(5) },
            method: 2,
            generation: 1,
            attempt: 1,
            step,
            ask,
            provider: ProviderCode::parse("gift").unwrap(),
            token: "gift_1".into(),
            amount_minor: 300,
            currency: Currency::parse("GBP").unwrap(),
            reference: "".into(),
            not_after: Millis(0),
        }
    }

    fn balance() -> Balance {
        Balance::new(Secret::from("canary"))
    }

    #[test]
    fn every_request_names_the_payment() {
        let send = |step, ask| balance().request(&call(step, ask));
        let put = send(PaymentStep::Authorize, false);
        let name = call(PaymentStep::Authorize, false).payment();
        assert_eq!((put.method, put.path), ("PUT", format!("/payments/{name}")));
        let (_, body) = put.body.unwrap();
        assert!(body.contains("\"tillroll_method\":\"2\"") && !body.contains("canary"), "{body}");
        let void = send(PaymentStep::Void, false);
        assert_eq!((void.method, void.path), ("POST", format!("/payments/{name}/void")));
        assert_eq!(send(PaymentStep::Void, true).method, "GET");
    }

    #[test]
    fn answers_are_read_against_what_was_asked() {
        use PaymentOutcome::{Declined, Failed, NotFound, Succeeded, Unknown};
        let read = |step, ask, status, state: &str| {
            let body = json!({"id": "b1", "state": state, "amount_minor": 300, "reason": "empty"});
            let answer = balance().read(&call(step, ask), status, body.to_string().as_bytes());
            (answer.outcome, answer.state)
        };
        let (authorize, capture) = (PaymentStep::Authorize, PaymentStep::Capture);
        assert_eq!(
            read(authorize, false, 200, "authorized"),
            (Succeeded, PaymentState::Authorized)
        );
        assert_eq!(read(authorize, false, 402, "declined"), (Declined, PaymentState::Declined));
        assert_eq!(read(capture, true, 200, "authorized"), (NotFound, PaymentState::Authorized));
        assert_eq!(read(capture, true, 200, "captured"), (Succeeded, PaymentState::Captured));
        assert_eq!(read(capture, false, 409, "voided"), (Declined, PaymentState::Voided));
        assert_eq!(read(capture, false, 409, "authorized").0, Failed);
        assert_eq!(read(capture, false, 503, "new").0, Failed);
        assert_eq!(read(capture, false, 500, "new").0, Unknown);
        assert_eq!(balance().read(&call(capture, true), 404, b"").outcome, NotFound);
        assert_eq!(balance().read(&call(capture, false), 200, b"?").outcome, Unknown);
    }
}
