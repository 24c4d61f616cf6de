//! `POST /v1/orders`: validate, find who clicked first, record, answer when Kafka has it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Buf;
use chrono::{DateTime, Utc};
use events::{Fingerprint, Merchant, Millis, OrderId, Record};
use futures::Stream;
use serde::Serialize;
use warp::http::StatusCode;
use warp::http::header::{HeaderName, HeaderValue, LOCATION};
use warp::reply::Response;

use crate::app::App;
use crate::problem::{Code, Problem};
use crate::publish::{Outcome, Outgoing, Refusal, Settled, Target};
use crate::recent::{Claim, Click, Progress, Recent};
use crate::request::Request;
use crate::{prefer, routes, validate};

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const EXPIRES: HeaderName = HeaderName::from_static("idempotency-expires");

#[derive(Serialize)]
struct Accepted<'a> {
    order_id: &'a str,
    status: &'static str,
    status_url: &'a str,
}

/// How a click with an idempotency key ended.
pub(crate) struct Answer {
    /// When the first record was appended.
    pub(crate) accepted_at: Millis,
    /// Whether this click left no record of its own.
    pub(crate) replayed: bool,
}

pub(crate) async fn place<B, D>(app: &App, request: &mut Request<B>) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let merchant = request.merchant(&app.keys)?;
    let key = request.idempotency_key()?;
    let body = request.json(&app.limits, &app.bodies).await?;
    let order = validate::order(&body).map_err(Problem::faults)?;
    let order_id = OrderId::derive(&merchant, &key);
    let fingerprint = order.fingerprint();
    // Before the order is recorded, so that nothing of it is missed.
    let waiting = prefer::begin(app, &request.headers, &merchant, order_id);
    let click = (&*app.recent, order_id.0, &merchant, fingerprint);
    let answer = settle(app, click, 1, |app, outcome| {
        let merchant = (*merchant).clone();
        let record: Record =
            order.placed(order_id, merchant, key.clone(), fingerprint, app.reservation_ms).into();
        let payload = app.codec.to_bytes(&record);
        let key = order_id.as_bytes().to_vec();
        app.publisher.publish(&[Outgoing::keyed(Target::Orders, key, payload)], outcome);
    })
    .await?;
    if answer.replayed {
        wire::telemetry::ORDERS_REPLAYED.inc();
    }
    match waiting {
        Some(waiting) => Ok(waiting.response(app, order_id, &answer).await),
        None => Ok(accepted(app, order_id, &answer)),
    }
}

/// Publishes as the first click under its key, or waits for the one that is.
pub(crate) async fn settle(
    app: &App,
    (recent, id, merchant, fingerprint): (&Recent, uuid::Uuid, &Arc<Merchant>, Fingerprint),
    records: usize,
    publish: impl FnOnce(&App, &Arc<Outcome>),
) -> Result<Answer, Problem> {
    let now = Instant::now();
    let until = now + app.limits.answer_within();
    let (outcome, first) = match recent.claim(id, merchant, fingerprint, records, now) {
        Claim::First(outcome) => {
            publish(app, &outcome);
            if let Some(Settled::Refused(_)) = outcome.get() {
                recent.release(id, &outcome);
            }
            (outcome, None)
        }
        Claim::Repeat(click) => match &click.progress {
            Progress::Logged { accepted_at } => {
                return agree(&click, fingerprint, *accepted_at, true);
            }
            Progress::Clicked(outcome) => (Arc::clone(outcome), Some(click)),
        },
    };
    let settled = outcome.wait(until).await;
    // A click whose record was handed over has one of its own, wherever it stands in the topic.
    let replayed = first.is_some() || matches!(settled, Some(Settled::Refused(_)));
    // Another process' record may have been first, or the only one.
    let logged = recent.find(id).filter(|click| matches!(click.progress, Progress::Logged { .. }));
    if let Some(click) = logged.or(first)
        && let Some(accepted_at) = click.accepted_at()
    {
        return agree(&click, fingerprint, accepted_at, replayed);
    }
    match settled {
        Some(Settled::Acknowledged { at, .. }) => {
            let accepted_at = at.unwrap_or_else(|| Millis(Utc::now().timestamp_millis()));
            Ok(Answer { accepted_at, replayed })
        }
        Some(Settled::Refused(refusal)) if !outcome.doubtful => Err(refused(refusal)),
        _ => Err(Problem::plain(Code::OutcomeUnknown)),
    }
}

/// The answer to a click under a key that stands for this order already.
fn agree(
    click: &Click,
    fingerprint: Fingerprint,
    accepted_at: Millis,
    replayed: bool,
) -> Result<Answer, Problem> {
    if click.fingerprint != fingerprint {
        return Err(Problem::plain(Code::IdempotencyKeyConflict));
    }
    Ok(Answer { accepted_at, replayed })
}

/// What a client hears of a record that was not handed over.
pub(crate) fn refused(refusal: Refusal) -> Problem {
    Problem::plain(match refusal {
        Refusal::Busy => Code::TooBusy,
        Refusal::Unavailable => Code::KafkaUnavailable,
    })
}

/// The order is recorded; what becomes of it is not known yet.
pub(crate) fn accepted(app: &App, order_id: OrderId, answer: &Answer) -> Response {
    let order_id = order_id.to_string();
    let url = format!("/v1/orders/{order_id}");
    let body = Accepted { order_id: &order_id, status: "received", status_url: &url };
    let mut response = routes::json(StatusCode::ACCEPTED, &body);
    created(app, &mut response, &url, answer);
    response
}

/// The headers of an order that is recorded.
pub(crate) fn created(app: &App, response: &mut Response, url: &str, answer: &Answer) {
    let location = HeaderValue::from_str(url).expect("an order's path is visible ASCII");
    response.headers_mut().insert(LOCATION, location);
    idempotency(app, response, answer);
}

/// For how long a key stands for its order at least, milliseconds.
pub(crate) fn lifetime_ms(app: &App) -> i64 {
    i64::from(app.idempotency_days) * 24 * 60 * 60 * 1000
}

/// The headers that tell a client what its key stands for.
pub(crate) fn idempotency(app: &App, response: &mut Response, answer: &Answer) {
    let expires = answer.accepted_at.plus(lifetime_ms(app));
    let expires = DateTime::<Utc>::from_timestamp_millis(expires.0);
    let text = expires.unwrap_or_default().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let value = HeaderValue::from_str(&text).expect("a date is visible ASCII");
    response.headers_mut().insert(EXPIRES, value);
    if answer.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
}
