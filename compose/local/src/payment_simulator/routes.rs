//! Every path of the simulator, and what befalls a request on its way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::ledger::{Answered, Key, State as Standing};
use super::{State, protocols, webhooks};

const BODY_LIMIT: usize = 64 * 1024;
/// An unanswered request's connection is closed after this long.
const SILENCE: Duration = Duration::from_secs(120);

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("a simulated provider never answers")]
pub(super) struct NoAnswer;

/// Answers one request, or ends its connection.
pub(super) async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, NoAnswer> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answered = match (&method, path.trim_matches('/')) {
        (&Method::GET, "livez") => told(200, &json!({"live": true})),
        (&Method::GET, "settings") => told(200, &plain(&state.settings())),
        (&Method::PATCH, "settings") => change(&state, request).await,
        (&Method::GET, "ledger") => told(200, &summary(&state)),
        (&Method::GET, "ledger/payments") => {
            told(200, &serde_json::to_value(state.ledger().all()).expect("plain data"))
        }
        _ => {
            // A task of its own: the provider works on when the caller hangs up.
            let call = tokio::spawn(async move { call(&state, request).await });
            match call.await {
                Ok(Some(answered)) => answered,
                Ok(None) => {
                    tokio::time::sleep(SILENCE).await;
                    return Err(NoAnswer);
                }
                Err(_) => return Err(NoAnswer),
            }
        }
    };
    Ok(rendered(answered))
}

/// A call to a provider, with all that can befall it; `None`: its caller never hears of it.
async fn call(state: &Arc<State>, request: Request<Incoming>) -> Option<Answered> {
    let settings = state.settings();
    if settings.down {
        return Some(told(503, &json!({"error": {"code": "unavailable"}})));
    }
    let (head, body) = request.into_parts();
    let key = head.headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let key = key.map(str::to_owned);
    let body = Limited::new(body, BODY_LIMIT).collect().await.ok()?.to_bytes();
    let query = head.uri.query().unwrap_or("");
    let Some(ask) = protocols::read(head.method.as_str(), head.uri.path(), query, &body) else {
        return Some(told(400, &json!({"error": {"code": "bad_request"}})));
    };
    let (latency, silent, failed, done, declined) = {
        let mut chance = state.chance();
        let latency = chance.between(settings.latency_min_ms, settings.latency_max_ms);
        (
            Duration::from_millis(latency / 2),
            chance.hits(settings.timeout_rate),
            chance.hits(settings.failure_rate),
            chance.hits(settings.done_rate),
            chance.hits(settings.decline_rate),
        )
    };
    tokio::time::sleep(latency).await;
    let key = key.filter(|_| ask.changes());
    if let Some(key) = &key {
        match state.ledger().take(key) {
            Key::New => {}
            Key::AtWork => return Some(told(409, &json!({"error": {"code": "lock_timeout"}}))),
            Key::Answered(answered) => return Some(answered),
        }
    }
    if silent && !done {
        // It never arrived.
        if let Some(key) = &key {
            state.ledger().settle(key, None);
        }
        return None;
    }
    let failure = told(500, &json!({"error": {"code": "api_error"}}));
    let (answered, moved) = if failed && !done {
        (failure.clone(), None)
    } else {
        protocols::perform(&mut state.ledger(), ask, declined)
    };
    let answered = if failed { failure } else { answered };
    if let Some(key) = &key {
        state.ledger().settle(key, Some(answered.clone()));
    }
    if let Some(payment) = &moved {
        webhooks::tell(state, payment);
    }
    tokio::time::sleep(latency).await;
    (!silent).then_some(answered)
}

async fn change(state: &State, request: Request<Incoming>) -> Answered {
    let body = Limited::new(request.into_body(), BODY_LIMIT).collect().await;
    let change = body.ok().and_then(|body| serde_json::from_slice::<Value>(&body.to_bytes()).ok());
    match state.change(&change.unwrap_or_default()) {
        Ok(settings) => {
            tracing::info!(?settings, "settings changed");
            told(200, &plain(&settings))
        }
        Err(fault) => told(400, &json!({"error": fault})),
    }
}

/// Payments and money by provider and state.
fn summary(state: &State) -> Value {
    let mut by_state = BTreeMap::<(&str, Standing), (u64, i64)>::new();
    for payment in state.ledger().all() {
        let entry = by_state.entry((payment.provider, payment.state)).or_default();
        entry.0 += 1;
        entry.1 += payment.amount_minor;
    }
    by_state
        .into_iter()
        .map(|((provider, state), (payments, amount_minor))| {
            json!({"provider": provider, "state": state, "payments": payments,
                "amount_minor": amount_minor})
        })
        .collect()
}

fn plain(settings: &super::Settings) -> Value {
    serde_json::to_value(settings).expect("settings are plain data")
}

fn told(status: u16, body: &Value) -> Answered {
    Answered { status, body: body.to_string().into_bytes() }
}

fn rendered(answered: Answered) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answered.body));
    *response.status_mut() =
        StatusCode::from_u16(answered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
