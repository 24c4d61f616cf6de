//! `GET /v1/orders/{id}/events`: an order's history, as JSON or, with `Accept: text/event-stream`, as it happens.
//!
//! A stream's id is the version, so `Last-Event-ID` resumes it anywhere, at any process. It ends after the last
//! status, or whenever its process or its place in the log does; a client that comes back to an order to which nothing
//! can happen any more hears 204, which is how an `EventSource` is told to stay away.
//!
//! It stays away from every other status but 200, too (HTML, "Server-sent events"), and comes back only when a stream ends
//! or no answer comes at all. So a refusal that is worth a retry is told to it as a stream that ends: when to come back, and
//! the problem as an event of that name. A client that accepts problems beside streams hears the status.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use events::{Merchant, OrderId};
use futures::{Stream, stream};
use serde::Serialize;
use warp::Reply as _;
use warp::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY};
use warp::http::{HeaderMap, Method, StatusCode};
use warp::reply::Response;
use wire::keys::KeyHash;

use crate::app::App;
use crate::database::{Event, Unavailable};
use crate::problem::{self, Code, Fault, Problem};
use crate::request::{self, Request};
use crate::routes;
use crate::watch::{NotNow, Watch};

const MEDIA_TYPE: &str = "text/event-stream";
const LAST_EVENT_ID: &str = "last-event-id";
/// A client whose stream broke comes back after that at the earliest, milliseconds.
const RETRY_MS: u32 = 2000;

#[derive(Serialize)]
struct Events {
    order_id: String,
    events: Vec<Event>,
}

pub(crate) async fn show<B, D>(
    app: &App,
    request: &mut Request<B>,
    order_id: &str,
) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let merchant = request.merchant(&app.keys)?;
    let key = request.api_key()?;
    let order_id = request::order_id(order_id)?;
    let last_id = after(&request.headers)?;
    let mut response = match streams(&request.headers) {
        true => follow(app, (merchant, key), order_id, last_id).await?,
        false => list(app, &merchant, order_id).await?,
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

async fn list(app: &App, merchant: &Merchant, order_id: OrderId) -> Result<Response, Problem> {
    let events = match app.database.events(merchant, order_id).await {
        Ok(Some(events)) => events,
        Ok(None) => unseen(app, merchant, order_id, None)?,
        Err(error) => unseen(app, merchant, order_id, Some(&error))?,
    };
    let body = Events { order_id: order_id.to_string(), events };
    Ok(routes::json(StatusCode::OK, &body))
}

/// The events of an order that the store does not have, or is not asked about: none, if it was placed lately.
fn unseen<T>(
    app: &App,
    merchant: &Merchant,
    order_id: OrderId,
    error: Option<&Unavailable>,
) -> Result<Vec<T>, Problem> {
    let click = app.recent.find(order_id.0).filter(|click| *click.merchant == *merchant);
    if click.is_some_and(|click| click.accepted_at().is_some()) {
        return Ok(Vec::new());
    }
    let Some(error) = error else { return Err(Problem::plain(Code::OrderNotFound)) };
    tracing::warn!(%error, "events not read");
    Err(Problem::plain(Code::DatabaseUnavailable))
}

async fn follow(
    app: &App,
    (merchant, key): (Arc<Merchant>, KeyHash),
    order_id: OrderId,
    after: i32,
) -> Result<Response, Problem> {
    let watch = app.watching.watch(Arc::clone(&merchant), order_id, after);
    let mut watch = watch.map_err(|why| match why {
        NotNow::NotFollowing => Problem::plain(Code::Starting),
        NotNow::Full => Problem::plain(Code::TooBusy),
        NotNow::MerchantFull => Problem::plain(Code::TooManyStreams),
    })?;
    let first = match watch.read().await {
        Ok(Some(events)) => events,
        Ok(None) => unseen(app, &merchant, order_id, None)?,
        Err(error) => unseen(app, &merchant, order_id, Some(&error))?,
    };
    if first.is_empty() && watch.over() {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let mut text = retry(RETRY_MS, order_id);
    write(&mut text, &first);
    let keys = Arc::clone(&app.keys);
    let allowed = move || keys.owner(key).is_some();
    let chunks = chunks(text, watch, app.limits.heartbeat(), allowed);
    Ok(event_stream(warp::reply::stream(Exclusive::new(chunks)).into_response()))
}

/// What a client that asks for a stream hears instead of a refusal that is worth a retry; `None` for others, and for every
/// other path and refusal.
pub(crate) fn come_back<B>(
    request: &Request<B>,
    path: &str,
    refusal: &Problem,
) -> Option<Response> {
    let wait_ms = u32::from(refusal.code.retry_after_s()?) * 1000;
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let ["v1", "orders", order_id, "events"] = parts.as_slice() else { return None };
    let order_id = request::order_id(order_id).ok()?;
    let headers = &request.headers;
    if request.method != Method::GET || !streams(headers) || accepts(headers, problem::MEDIA_TYPE) {
        return None;
    }
    let mut text = retry(wait_ms, order_id);
    write!(text, "event: problem\ndata: {}\n\n", refusal.body(path))
        .expect("a text takes everything");
    let mut response = event_stream(Response::new(text.into()));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Some(response)
}

/// After how long a client shall come back: this and up to three seconds. Streams that end together, with their process,
/// do not come back together.
fn retry(least_ms: u32, order_id: OrderId) -> String {
    format!("retry: {}\n\n", least_ms + 12 * u32::from(order_id.as_bytes()[0]))
}

fn event_stream(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would keep events back until its buffer is full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The text of the first events, then of each that follows, with a comment where nothing does for a while. Its API key
/// may be revoked meanwhile: then nothing more is told, and the stream ends within a heartbeat.
fn chunks(
    first: String,
    watch: Watch,
    heartbeat: Duration,
    allowed: impl Fn() -> bool + Send,
) -> impl Stream<Item = Chunk> + Send {
    stream::unfold((Some(first), watch, allowed), move |(first, mut watch, allowed)| async move {
        if let Some(text) = first {
            return Some((Ok(text.into()), (None, watch, allowed)));
        }
        let chunk = match tokio::time::timeout(heartbeat, watch.next()).await {
            Ok(None) => return None,
            Ok(Some(events)) => {
                let mut text = String::new();
                write(&mut text, &events);
                text.into()
            }
            Err(_) => Bytes::from_static(b":\n\n"),
        };
        allowed().then_some((Ok(chunk), (None, watch, allowed)))
    })
}

fn write(text: &mut String, events: &[Arc<Event>]) {
    for event in events {
        let data = serde_json::to_string(event).expect("events are made of strings and numbers");
        write!(text, "id: {}\ndata: {data}\n\n", event.version).expect("a text takes everything");
    }
}

/// Whether the client asks for a stream.
fn streams(headers: &HeaderMap) -> bool {
    accepts(headers, MEDIA_TYPE)
}

/// Whether the client names this media type.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        kind.eq_ignore_ascii_case(media_type) && parts.all(|part| part != "q=0")
    })
}

/// The last version that the client has, 0 if it has none.
fn after(headers: &HeaderMap) -> Result<i32, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(0) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| {
        Problem::faults(vec![Fault {
            pointer: "/Last-Event-ID".into(),
            detail: "must be the id of an event, which is its version".into(),
        }])
    })
}

type Chunk = Result<Bytes, Infallible>;

/// A stream that only its owner touches, which is what makes it `Sync`, as warp wants it.
struct Exclusive<S>(Mutex<Pin<Box<S>>>);

impl<S> Exclusive<S> {
    fn new(stream: S) -> Self {
        Self(Mutex::new(Box::pin(stream)))
    }
}

impl<S: Stream> Stream for Exclusive<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let stream = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        stream.as_mut().poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn who_wants_a_stream_says_so() {
        for (accept, expected) in [
            (&["text/event-stream"][..], true),
            (&["application/json, text/event-stream;q=0.5"], true),
            (&["application/json", "Text/Event-Stream"], true),
            (&["text/event-stream;q=0"], false),
            (&["*/*"], false),
            (&[], false),
        ] {
            assert_eq!(streams(&headers("accept", accept)), expected, "{accept:?}");
        }
    }

    #[test]
    fn a_stream_is_resumed_behind_a_version() {
        let id = |text| after(&headers(LAST_EVENT_ID, &[text])).map_err(|problem| problem.code);
        assert_eq!(after(&HeaderMap::new()), Ok(0));
        assert_eq!(id("7"), Ok(7));
        for bad in ["", "-1", "+1", "x", "99999999999"] {
            assert_eq!(id(bad), Err(Code::ValidationFailed), "{bad}");
        }
    }

    #[test]
    fn an_event_source_is_told_to_come_back_and_everybody_else_gets_the_status() {
        let path = "/v1/orders/00000000-0000-4000-8000-000000000000/events";
        let told = |method: Method, accept: &str, path: &str, code: Code| {
            let accept = headers("accept", &[accept]);
            let request = Request::new(method, accept, String::new(), ());
            come_back(&request, path, &Problem::plain(code))
        };
        for code in [Code::Starting, Code::TooManyStreams, Code::DatabaseUnavailable] {
            let response = told(Method::GET, MEDIA_TYPE, path, code).unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()[CONTENT_TYPE], MEDIA_TYPE);
        }
        for (method, accept, path, code) in [
            (Method::GET, "application/json", path, Code::Starting),
            (Method::GET, "*/*", path, Code::Starting),
            (Method::GET, "text/event-stream, application/problem+json", path, Code::Starting),
            (Method::POST, MEDIA_TYPE, path, Code::Starting),
            (Method::GET, MEDIA_TYPE, path.trim_end_matches("/events"), Code::Starting),
            (Method::GET, MEDIA_TYPE, path, Code::OrderNotFound),
            (Method::GET, MEDIA_TYPE, path, Code::Unauthorized),
        ] {
            assert!(told(method, accept, path, code).is_none(), "{accept} {path} {code:?}");
        }
    }

    #[test]
    fn events_are_written_as_browsers_read_them() {
        let mut text = String::new();
        write(&mut text, &[Arc::new(Event::sample(2, "rejected", "sold_out"))]);
        assert_eq!(
            text,
            "id: 2\ndata: {\"version\":2,\"status\":\"rejected\",\"reason\":\"sold_out\",\
             \"occurred_at\":\"2026-11-22T00:00:00.000Z\"}\n\n"
        );
    }
}
