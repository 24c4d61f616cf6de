//! Webhooks: what moved is told, signed, until it is answered 2xx.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use super::ledger::{Payment, State as Standing};
use super::{GIFT_SECRET, STRIPE_SECRET, State, protocols};

/// Tries of a webhook: with the waits between them, about three minutes.
const MOST_TRIES: u32 = 40;

/// Sends a payment's webhook now or later, once or twice.
pub(crate) fn tell(state: &Arc<State>, payment: &Payment) {
    let settings = state.settings();
    if settings.webhook_url.is_empty() {
        return;
    }
    let (early, twice) = {
        let mut chance = state.chance();
        (chance.hits(settings.webhook_early_rate), chance.hits(settings.webhook_double_rate))
    };
    for _ in 0..=u8::from(twice) {
        let most = if early { 0 } else { settings.webhook_delay_max_ms };
        let wait = Duration::from_millis(state.chance().between(0, most));
        let (state, payment) = (state.clone(), payment.clone());
        let url = format!("{}{}", settings.webhook_url, payment.provider);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            deliver(&state, &payment, &url).await;
        });
    }
}

async fn deliver(state: &State, payment: &Payment, url: &str) {
    for attempt in 0..MOST_TRIES {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = match payment.provider {
            "stripe" => stripe(state, payment, url, now),
            _ => gift(state, payment, url, now),
        };
        if request.send().await.is_ok_and(|response| response.status().is_success()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250 * u64::from(attempt.min(20) + 1))).await;
    }
    tracing::warn!(payment = payment.id, "webhook given up");
}

fn event_id(payment: &Payment) -> String {
    let standing = serde_json::to_value(payment.state).unwrap_or_default();
    format!("evt_{}_{}", payment.id, standing.as_str().unwrap_or("unknown"))
}

fn mac(key: &[u8], content: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(content.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn stripe(state: &State, payment: &Payment, url: &str, now: u64) -> reqwest::RequestBuilder {
    let kind = match payment.state {
        Standing::Authorized => "payment_intent.amount_capturable_updated",
        Standing::Captured => "payment_intent.succeeded",
        Standing::Voided => "payment_intent.canceled",
        Standing::Declined => "payment_intent.payment_failed",
        Standing::Refunded => "charge.refunded",
    };
    let mut object = protocols::intent(payment);
    if payment.state == Standing::Refunded {
        object["payment_intent"] = object["id"].take();
        object["id"] = format!("ch_{}", payment.id).into();
        object["refunded"] = true.into();
    }
    let body = json!({"id": event_id(payment), "object": "event", "type": kind, "created": now,
        "data": {"object": object}})
    .to_string();
    let signature: String = mac(STRIPE_SECRET.as_bytes(), &format!("{now}.{body}"))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let header = format!("t={now},v1={signature}");
    let request = state.http.post(url).header("content-type", "application/json; charset=utf-8");
    request.header("stripe-signature", header).body(body)
}

fn gift(state: &State, payment: &Payment, url: &str, now: u64) -> reqwest::RequestBuilder {
    let id = event_id(payment);
    let body = json!({"id": id, "occurred_at": now * 1_000,
        "payment": protocols::gift_body(payment)})
    .to_string();
    let key = STANDARD.decode(GIFT_SECRET.trim_start_matches("whsec_")).unwrap_or_default();
    let signature = STANDARD.encode(mac(&key, &format!("{id}.{now}.{body}")));
    state
        .http
        .post(url)
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", now.to_string())
        .header("webhook-signature", format!("v1,{signature}"))
        .body(body)
}
