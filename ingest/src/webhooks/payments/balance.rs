//! Pure: events of balances: `{"id", "occurred_at", "payment": {"id", "state", "amount_minor", "reason",
//! "metadata"}}`.

use std::collections::BTreeMap;

use events::{Millis, PaymentNotified, PaymentState, ProviderCode};
use serde::Deserialize;
use wire::payment_names::PaymentName;

use super::{recorded_id, recorded_reason};

#[derive(Deserialize)]
struct Event {
    id: String,
    /// UTC ms.
    occurred_at: i64,
    payment: Payment,
}

#[derive(Deserialize)]
struct Payment {
    id: String,
    state: PaymentState,
    amount_minor: i64,
    #[serde(default)]
    reason: Option<String>,
    metadata: BTreeMap<String, String>,
}

/// What an event says of a payment of ours; `None` if it is not ours.
pub(super) fn read(
    provider: &ProviderCode,
    body: &[u8],
) -> Result<Option<PaymentNotified>, &'static str> {
    let event: Event = serde_json::from_slice(body).map_err(|_| "not an event of a balance")?;
    let payment = event.payment;
    let Some(name) = PaymentName::read(&payment.metadata) else { return Ok(None) };
    Ok(Some(PaymentNotified {
        order_id: name.order.order_id,
        accepted_at: name.order.accepted_at,
        method: name.method,
        generation: name.generation,
        provider: provider.clone(),
        event_id: recorded_id(&event.id)?,
        state: payment.state,
        reference: recorded_id(&payment.id)?,
        amount_minor: payment.amount_minor,
        reason: recorded_reason(payment.state, payment.reason),
        occurred_at: Millis(event.occurred_at),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_of_ours_is_a_notice() {
        let event = json!({
            "id": "e1", "occurred_at": 7,
            "payment": {
                "id": "b1", "state": "declined", "amount_minor": 300, "reason": "Empty!",
                "metadata": {
                    "tillroll_order_id": "291917d1-b421-5ba9-bb35-7eca73e4d4b7",
                    "tillroll_accepted_at": "5", "tillroll_method": "1", "tillroll_generation": "1",
                },
            },
        });
        let gift = ProviderCode::parse("gift").unwrap();
        let notice = read(&gift, event.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!((notice.state, notice.reason.as_str()), (PaymentState::Declined, "declined"));
        assert_eq!((notice.accepted_at, notice.occurred_at), (Millis(5), Millis(7)));
        assert!(read(&gift, b"{}").is_err());
    }
}
