//! Requests and answers of both protocols, as the ledger sees them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::REFUSED_TOKENS;
use super::ledger::{Answered, Ledger, Payment, State, Step};

/// What a request asks.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// Hold an amount; its state is decided by its token, else by chance.
    Authorize(Box<Payment>, String),
    /// Do something with a payment.
    Step(&'static str, String, Step),
    /// Show a payment.
    Show(&'static str, String),
    /// Find payments by our metadata.
    Search(String),
}

impl Ask {
    /// Whether it changes anything.
    pub(crate) fn changes(&self) -> bool {
        matches!(self, Self::Authorize(..) | Self::Step(..))
    }
}

/// Reads a request; `None` if there is no such path or its body is unusable.
pub(crate) fn read(method: &str, path: &str, query: &str, body: &[u8]) -> Option<Ask> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (method, segments.as_slice()) {
        ("POST", ["stripe", "v1", "payment_intents"]) => stripe_intent(body),
        ("GET", ["stripe", "v1", "payment_intents", "search"]) => {
            let query = pairs(query.as_bytes()).remove("query")?;
            let (_, name) = query.split_once("']:'")?;
            Some(Ask::Search(name.trim_end_matches('\'').to_owned()))
        }
        ("GET", ["stripe", "v1", "payment_intents", id]) => Some(Ask::Show("stripe", (*id).into())),
        ("POST", ["stripe", "v1", "payment_intents", id, "capture"]) => {
            Some(Ask::Step("stripe", (*id).into(), Step::Capture))
        }
        ("POST", ["stripe", "v1", "payment_intents", id, "cancel"]) => {
            Some(Ask::Step("stripe", (*id).into(), Step::Void))
        }
        ("POST", ["stripe", "v1", "refunds"]) => {
            let id = pairs(body).remove("payment_intent")?;
            Some(Ask::Step("stripe", id, Step::Refund))
        }
        ("PUT", ["gift", "payments", name]) => gift_payment(name, body),
        ("GET", ["gift", "payments", name]) => Some(Ask::Show("gift", (*name).into())),
        ("POST", ["gift", "payments", name, step]) => {
            let step = match *step {
                "capture" => Step::Capture,
                "void" => Step::Void,
                "refund" => Step::Refund,
                _ => return None,
            };
            Some(Ask::Step("gift", (*name).into(), step))
        }
        _ => None,
    }
}

fn pairs(form: &[u8]) -> BTreeMap<String, String> {
    form_urlencoded::parse(form).into_owned().collect()
}

fn stripe_intent(body: &[u8]) -> Option<Ask> {
    let form = pairs(body);
    let manual = form.get("capture_method").is_some_and(|method| method == "manual");
    if !manual || form.get("confirm").is_none_or(|confirm| confirm != "true") {
        return None;
    }
    let field = |key: &str| key.strip_prefix("metadata[")?.strip_suffix(']').map(str::to_owned);
    let metadata: BTreeMap<String, String> =
        form.iter().filter_map(|(key, value)| Some((field(key)?, value.clone()))).collect();
    let token = form.get("payment_method")?.clone();
    let payment = Payment {
        provider: "stripe",
        id: String::new(),
        name: metadata.get("tillroll_payment").cloned().unwrap_or_default(),
        state: State::Authorized,
        amount_minor: form.get("amount")?.parse().ok()?,
        currency: form.get("currency")?.clone(),
        metadata,
        captures: 0,
        refunds: 0,
    };
    Some(Ask::Authorize(Box::new(payment), token))
}

#[derive(Deserialize)]
struct Gift {
    token: String,
    amount_minor: i64,
    currency: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

fn gift_payment(name: &str, body: &[u8]) -> Option<Ask> {
    let Gift { token, amount_minor, currency, metadata } = serde_json::from_slice(body).ok()?;
    let payment = Payment {
        provider: "gift",
        id: String::new(),
        name: name.to_owned(),
        state: State::Authorized,
        amount_minor,
        currency,
        metadata,
        captures: 0,
        refunds: 0,
    };
    Some(Ask::Authorize(Box::new(payment), token))
}

/// Performs what is asked: the answer, and the payment that moved.
pub(crate) fn perform(
    ledger: &mut Ledger,
    ask: Ask,
    declined: bool,
) -> (Answered, Option<Payment>) {
    match ask {
        Ask::Authorize(mut payment, token) => {
            let declined = declined || REFUSED_TOKENS.contains(&token.as_str());
            // A balance's payment is its name: the same one again is shown.
            if payment.provider == "gift"
                && let Some(known) = ledger.by_name(&payment.name)
            {
                return (gift(status_of(known), known), None);
            }
            payment.state = if declined { State::Declined } else { State::Authorized };
            let payment = ledger.create(*payment);
            let answered = match (payment.provider, declined) {
                ("gift", _) => gift(status_of(&payment), &payment),
                (_, false) => json_answer(200, &intent(&payment)),
                (_, true) => refusal(402, "card_declined", Some(&payment)),
            };
            (answered, Some(payment))
        }
        Ask::Step(provider, id, step) => {
            let id = match provider {
                "gift" => ledger.by_name(&id).map(|payment| payment.id.clone()).unwrap_or_default(),
                _ => id,
            };
            match (ledger.step(&id, step), provider) {
                (None, _) => (refusal(404, "resource_missing", None), None),
                (Some(Ok(payment)), "gift") => (gift(200, &payment), Some(payment)),
                (Some(Err(payment)), "gift") => (gift(409, &payment), None),
                (Some(Ok(payment)), _) if step == Step::Refund => {
                    let amount = payment.amount_minor;
                    let refund = json!({"id": format!("re_{id}"), "object": "refund",
                        "status": "succeeded", "amount": amount, "payment_intent": id});
                    (json_answer(200, &refund), Some(payment))
                }
                (Some(Ok(payment)), _) => (json_answer(200, &intent(&payment)), Some(payment)),
                (Some(Err(payment)), _) => {
                    let refunded = step == Step::Refund && payment.state == State::Refunded;
                    let code = match refunded {
                        true => "charge_already_refunded",
                        false => "payment_intent_unexpected_state",
                    };
                    (refusal(400, code, Some(&payment)), None)
                }
            }
        }
        Ask::Show("gift", name) => match ledger.by_name(&name) {
            Some(payment) => (gift(200, payment), None),
            None => (refusal(404, "resource_missing", None), None),
        },
        Ask::Show(_, id) => match ledger.by_id(&id) {
            Some(payment) => (json_answer(200, &intent(payment)), None),
            None => (refusal(404, "resource_missing", None), None),
        },
        Ask::Search(name) => {
            let found: Vec<Value> = ledger.by_name(&name).map(intent).into_iter().collect();
            (json_answer(200, &json!({"object": "search_result", "data": found})), None)
        }
    }
}

fn status_of(payment: &Payment) -> u16 {
    if payment.state == State::Declined { 402 } else { 200 }
}

fn json_answer(status: u16, body: &Value) -> Answered {
    Answered { status, body: body.to_string().into_bytes() }
}

fn gift(status: u16, payment: &Payment) -> Answered {
    json_answer(status, &gift_body(payment))
}

/// A balance's payment as its protocol shows it.
pub(crate) fn gift_body(payment: &Payment) -> Value {
    json!({
        "id": payment.id, "state": payment.state, "amount_minor": payment.amount_minor,
        "reason": if payment.state == State::Declined { "insufficient_balance" } else { "" },
        "metadata": payment.metadata,
    })
}

/// A PaymentIntent, with its charge expanded.
pub(crate) fn intent(payment: &Payment) -> Value {
    let (status, refunded) = match payment.state {
        State::Declined => ("requires_payment_method", false),
        State::Authorized => ("requires_capture", false),
        State::Voided => ("canceled", false),
        State::Captured => ("succeeded", false),
        State::Refunded => ("succeeded", true),
    };
    let error = match payment.state {
        State::Declined => json!({"type": "card_error", "code": "card_declined"}),
        _ => Value::Null,
    };
    json!({
        "id": payment.id, "object": "payment_intent", "status": status,
        "amount": payment.amount_minor, "currency": payment.currency,
        "metadata": payment.metadata, "last_payment_error": error,
        "latest_charge": {"id": format!("ch_{}", payment.id), "refunded": refunded},
    })
}

fn refusal(status: u16, code: &str, payment: Option<&Payment>) -> Answered {
    let intent = payment.map(intent);
    let error = json!({"error": {"type": "card_error", "code": code, "payment_intent": intent}});
    json_answer(status, &error)
}
