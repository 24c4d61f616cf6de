//! Pure: Stripe's events that tell of a payment (its API reference, "Types of events").

use std::collections::BTreeMap;

use events::{Millis, PaymentNotified, PaymentState, ProviderCode};
use serde::Deserialize;
use wire::payment_names::PaymentName;

use super::{recorded_id, recorded_reason};

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    /// Seconds.
    created: i64,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Object,
}

/// A PaymentIntent or a charge, which repeats its intent's metadata.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    id: String,
    #[serde(default)]
    amount: i64,
    #[serde(default)]
    payment_intent: Option<String>,
    #[serde(default)]
    refunded: bool,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    last_payment_error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    decline_code: Option<String>,
}

/// What an event says of a payment of ours; `None` if it says nothing of one.
pub(super) fn read(
    provider: &ProviderCode,
    body: &[u8],
) -> Result<Option<PaymentNotified>, &'static str> {
    let event: Event = serde_json::from_slice(body).map_err(|_| "not an event of Stripe's")?;
    let object = event.data.object;
    let state = match event.kind.as_str() {
        "payment_intent.amount_capturable_updated" => PaymentState::Authorized,
        "payment_intent.succeeded" => PaymentState::Captured,
        "payment_intent.canceled" => PaymentState::Voided,
        "payment_intent.payment_failed" => PaymentState::Declined,
        "charge.refunded" if object.refunded => PaymentState::Refunded,
        _ => return Ok(None),
    };
    let Some(name) = PaymentName::read(&object.metadata) else { return Ok(None) };
    let reason = object.last_payment_error.and_then(|error| error.decline_code.or(error.code));
    Ok(Some(PaymentNotified {
        order_id: name.order.order_id,
        accepted_at: name.order.accepted_at,
        method: name.method,
        generation: name.generation,
        provider: provider.clone(),
        event_id: recorded_id(&event.id)?,
        state,
        reference: recorded_id(object.payment_intent.as_deref().unwrap_or(&object.id))?,
        amount_minor: object.amount,
        reason: recorded_reason(state, reason),
        occurred_at: Millis(event.created.saturating_mul(1_000)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn event(kind: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut event = json!({
            "id": "evt_1", "object": "event", "type": kind, "created": 1_800_000_000,
            "data": {"object": {
                "id": "pi_1", "object": "payment_intent", "amount": 2000, "status": "x",
                "metadata": {
                    "tillroll_order_id": "291917d1-b421-5ba9-bb35-7eca73e4d4b7",
                    "tillroll_accepted_at": "1799999999000",
                    "tillroll_method": "2", "tillroll_generation": "1", "theirs": "kept",
                },
            }},
        });
        change(&mut event["data"]["object"]);
        event
    }

    fn read(event: &Value) -> Result<Option<PaymentNotified>, &'static str> {
        super::read(&ProviderCode::parse("stripe").unwrap(), event.to_string().as_bytes())
    }

    #[test]
    fn an_event_of_ours_is_a_notice() {
        let notice = read(&event("payment_intent.succeeded", |_| ())).unwrap().unwrap();
        assert_eq!((notice.method, notice.generation, notice.amount_minor), (2, 1, 2000));
        assert_eq!(notice.accepted_at, Millis(1_799_999_999_000));
        assert_eq!(notice.state, PaymentState::Captured);
        assert_eq!((notice.event_id.as_str(), notice.reference.as_str()), ("evt_1", "pi_1"));
        let failed = event("payment_intent.payment_failed", |intent| {
            intent["last_payment_error"] =
                json!({"code": "card_declined", "decline_code": "lost_card"});
        });
        assert_eq!(read(&failed).unwrap().unwrap().reason, "lost_card");
        let refunded = event("charge.refunded", |charge| {
            charge["id"] = "ch_1".into();
            charge["payment_intent"] = "pi_1".into();
            charge["refunded"] = true.into();
        });
        let notice = read(&refunded).unwrap().unwrap();
        assert_eq!((notice.state, notice.reference.as_str()), (PaymentState::Refunded, "pi_1"));
    }

    #[test]
    fn what_is_not_ours_or_says_nothing_is_let_pass() {
        assert_eq!(read(&event("customer.created", |_| ())), Ok(None));
        assert_eq!(read(&event("charge.refunded", |_| ())), Ok(None), "a part only");
        let foreign = event("payment_intent.succeeded", |intent| intent["metadata"] = json!({}));
        assert_eq!(read(&foreign), Ok(None));
        assert!(read(&json!({"hello": 1})).is_err());
        let odd = event("payment_intent.succeeded", |intent| intent["id"] = "a b".into());
        assert!(read(&odd).is_err());
    }
}
