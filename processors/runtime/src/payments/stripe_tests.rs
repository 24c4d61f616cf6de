//! Requests as the API reference describes them, and its documented answers, read.

use super::*;
use compact_str::CompactString;
use events::{Currency, Merchant, Millis, OrderId, OrderKey, ProviderCode};
use serde_json::json;

fn call(step: PaymentStep, ask: bool, id: &str) -> PaymentCall {
    let order_id = OrderId::derive(&Merchant::parse("shop").unwrap(), "k1");
    PaymentCall {
        order: OrderKey { order_id, accepted_at: Millis(1_800_000_000_000) },
        method: 1,
        generation: 1,
        attempt: 1,
        step,
        ask,
        provider: ProviderCode::parse("stripe").unwrap(),
        token: "pm_card_visa".into(),
        amount_minor: 2_000,
        currency: Currency::parse("USD").unwrap(),
        reference: CompactString::from(id),
        not_after: Millis(0),
    }
}

fn stripe() -> Stripe {
    Stripe::new(Secret::from("sk_test_canary"))
}

fn read(call: &PaymentCall, status: u16, body: &Value) -> (PaymentOutcome, PaymentState, String) {
    let answer = stripe().read(call, status, body.to_string().as_bytes());
    (answer.outcome, answer.state, answer.reason.to_string())
}

#[test]
fn an_authorization_is_a_confirmed_intent_with_manual_capture() {
    let call = call(PaymentStep::Authorize, false, "");
    let request = stripe().request(&call);
    assert_eq!((request.method, request.path.as_str()), ("POST", "/v1/payment_intents"));
    let header = |name| request.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
    assert_eq!(header("authorization"), Some("Bearer sk_test_canary"));
    assert_eq!(header("idempotency-key"), Some(call.idempotency_key().as_str()));
    let (kind, body) = request.body.unwrap();
    assert_eq!(kind, "application/x-www-form-urlencoded");
    for part in [
        "amount=2000&currency=usd&payment_method=pm_card_visa",
        "capture_method=manual&confirm=true&error_on_requires_action=true",
        "metadata%5Btillroll_accepted_at%5D=1800000000000",
    ] {
        assert!(body.contains(part), "{body}");
    }
    assert!(!body.contains("canary"));
}

#[test]
fn later_steps_name_the_intent() {
    let path = |step, ask, id| stripe().request(&call(step, ask, id)).path;
    assert_eq!(path(PaymentStep::Capture, false, "pi_1"), "/v1/payment_intents/pi_1/capture");
    assert_eq!(path(PaymentStep::Void, false, "pi_1"), "/v1/payment_intents/pi_1/cancel");
    assert_eq!(path(PaymentStep::Refund, false, "pi_1"), "/v1/refunds");
    let asked = path(PaymentStep::Capture, true, "pi_1");
    assert_eq!(asked, "/v1/payment_intents/pi_1?expand%5B%5D=latest_charge");
    let searched = path(PaymentStep::Authorize, true, "");
    assert!(
        searched.starts_with("/v1/payment_intents/search?query=metadata%5B%27tillroll_payment")
    );
}

#[test]
fn statuses_of_an_intent_are_states() {
    use PaymentOutcome::{Declined, NotFound, Succeeded, Unknown};
    let authorize = call(PaymentStep::Authorize, false, "");
    let intent = |status: &str| json!({"id": "pi_1", "status": status, "amount": 2000});
    for (status, outcome, state) in [
        ("requires_capture", Succeeded, PaymentState::Authorized),
        ("canceled", Succeeded, PaymentState::Voided),
        ("requires_payment_method", Declined, PaymentState::Declined),
        ("processing", Unknown, PaymentState::Unknown),
        ("some_new_status", Unknown, PaymentState::Unknown),
    ] {
        let (o, s, _) = read(&authorize, 200, &intent(status));
        assert_eq!((o, s), (outcome, state), "{status}");
    }
    // Asked about a capture: not done yet; done; even given back.
    let ask = call(PaymentStep::Capture, true, "pi_1");
    assert_eq!(read(&ask, 200, &intent("requires_capture")).0, NotFound);
    assert_eq!(read(&ask, 200, &intent("succeeded")).1, PaymentState::Captured);
    let mut refunded = intent("succeeded");
    refunded["latest_charge"] = json!({"id": "ch_1", "refunded": true});
    assert_eq!(read(&ask, 200, &refunded).1, PaymentState::Refunded);
    let search = call(PaymentStep::Authorize, true, "");
    assert_eq!(read(&search, 200, &json!({"data": []})).0, NotFound);
    let found = json!({"data": [intent("requires_capture")]});
    assert_eq!(read(&search, 200, &found).1, PaymentState::Authorized);
}

#[test]
fn refusals_failures_and_doubt_are_told_apart() {
    use PaymentOutcome::{Declined, Failed, NotFound, Succeeded, Unknown};
    let authorize = call(PaymentStep::Authorize, false, "");
    let declined = json!({"error": {
        "type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds",
        "payment_intent": {"id": "pi_1", "status": "requires_payment_method"},
    }});
    let expected = (Declined, PaymentState::Declined, "insufficient_funds".to_string());
    assert_eq!(read(&authorize, 402, &declined), expected);
    let capture = call(PaymentStep::Capture, false, "pi_1");
    let gone = json!({"error": {"code": "payment_intent_unexpected_state",
        "payment_intent": {"id": "pi_1", "status": "canceled"}}});
    assert_eq!(read(&capture, 400, &gone).1, PaymentState::Voided);
    for (status, outcome) in [(429, Failed), (404, Failed), (409, Failed), (401, Failed)] {
        assert_eq!(read(&capture, status, &json!({})).0, outcome, "{status}");
    }
    for status in [408, 424, 500, 502, 503, 504] {
        assert_eq!(read(&capture, status, &json!({})).0, Unknown, "{status}");
    }
    let ask = call(PaymentStep::Capture, true, "pi_1");
    assert_eq!(read(&ask, 404, &json!({"error": {}})).0, NotFound);
    assert_eq!(read(&capture, 200, &json!("nonsense")).0, Unknown);
    assert_eq!(read(&capture, 400, &json!("nonsense")).0, Unknown);
    let refund = call(PaymentStep::Refund, false, "pi_1");
    let done = json!({"id": "re_1", "status": "succeeded", "amount": 2000});
    assert_eq!(read(&refund, 200, &done).1, PaymentState::Refunded);
    let again = json!({"error": {"code": "charge_already_refunded"}});
    assert_eq!(read(&refund, 400, &again).0, Succeeded);
}

#[test]
fn what_a_provider_says_is_recorded_only_if_it_is_a_code() {
    let authorize = call(PaymentStep::Authorize, false, "");
    let body = json!({"error": {"code": "Card <b>4242</b> declined"}});
    assert_eq!(read(&authorize, 402, &body).2, "declined");
}
