//! `Prefer: wait=n` (RFC 7240) on `POST /v1/orders`: the answer waits until the order is reserved, or refused, or ended
//! otherwise, for n seconds at most. The order is recorded as fast as without.

use std::sync::Arc;
use std::time::Duration;

use events::{Merchant, OrderId};
use serde::Serialize;
use tokio::time::Instant;
use warp::http::header::HeaderValue;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use crate::app::App;
use crate::database::Event;
use crate::orders::{self, Answer};
use crate::routes;
use crate::watch::Watch;

const PREFER: &str = "prefer";
const APPLIED: &str = "preference-applied";
/// Nobody waits longer, seconds.
const MOST_S: u32 = 30;

/// What is left of an order's history for a client that waited.
#[derive(Serialize)]
struct Placed<'a> {
    order_id: &'a str,
    status: &'a str,
    reason: &'a Option<String>,
    version: i32,
    status_url: &'a str,
}

/// A client that waits for its order.
pub(crate) struct Waiting {
    watch: Watch,
    seconds: u32,
    until: Instant,
}

/// The route under which a request is measured: how long clients want to wait says nothing about the API.
pub(crate) fn route(headers: &HeaderMap) -> &'static str {
    if wait(headers).is_some() { "/v1/orders waiting" } else { "/v1/orders" }
}

/// Begins to watch the order, if the client wants to wait and can: who may not is answered at once.
pub(crate) fn begin(
    app: &App,
    headers: &HeaderMap,
    merchant: &Arc<Merchant>,
    order_id: OrderId,
) -> Option<Waiting> {
    let seconds = wait(headers)?;
    let watch = app.watching.watch(Arc::clone(merchant), order_id, 0).ok()?;
    let until = Instant::now() + Duration::from_secs(u64::from(seconds));
    Some(Waiting { watch, seconds, until })
}

impl Waiting {
    /// The answer for an order that is recorded.
    pub(crate) async fn response(
        mut self,
        app: &App,
        order_id: OrderId,
        answer: &Answer,
    ) -> Response {
        // The store may have an order whose key has expired, and which this one has the id of.
        self.watch.not_before(answer.accepted_at.plus(-orders::lifetime_ms(app)));
        let waited = tokio::time::timeout_at(self.until, decided(&mut self.watch)).await;
        let honoured = honoured(&waited);
        let mut response = match waited.ok().flatten() {
            Some(event) => placed(app, order_id, &event, answer),
            None => orders::accepted(app, order_id, answer),
        };
        if honoured {
            let applied = HeaderValue::from_str(&format!("wait={}", self.seconds));
            response.headers_mut().insert(APPLIED, applied.expect("a number is visible ASCII"));
        }
        response
    }
}

/// Whether the preference was honoured, which is what `Preference-Applied` may say (RFC 7240, section 3): the answer came
/// as soon as there was one, or after the whole time; not when the watch ended before.
fn honoured<E, T>(waited: &Result<Option<E>, T>) -> bool {
    !matches!(waited, Ok(None))
}

/// Where the order stands once it is more than received; `None` when nobody can tell.
async fn decided(watch: &mut Watch) -> Option<Arc<Event>> {
    while let Some(events) = watch.next().await {
        if let Some(last) = events.last().filter(|event| event.status != "received") {
            return Some(Arc::clone(last));
        }
    }
    None
}

fn placed(app: &App, order_id: OrderId, event: &Event, answer: &Answer) -> Response {
    let order_id = order_id.to_string();
    let url = format!("/v1/orders/{order_id}");
    let body = Placed {
        order_id: &order_id,
        status: &event.status,
        reason: &event.reason,
        version: event.version,
        status_url: &url,
    };
    let mut response = routes::json(StatusCode::OK, &body);
    orders::created(app, &mut response, &url, answer);
    response
}

/// Seconds that the client wants to wait, [`MOST_S`] at most; `None` if it does not, or its wish cannot be understood: such
/// a preference is passed over. The first one counts.
fn wait(headers: &HeaderMap) -> Option<u32> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let seconds = values.flat_map(|value| value.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then_some(value.trim())
    })?;
    let seconds = seconds.strip_prefix('"').and_then(|s| s.strip_suffix('"')).unwrap_or(seconds);
    let digits = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    // What does not fit is longer than anybody may wait.
    digits.then(|| seconds.parse().unwrap_or(MOST_S).min(MOST_S)).filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_ended_early_for_nothing_was_not_applied() {
        assert!(honoured::<_, ()>(&Ok(Some("reserved"))));
        assert!(honoured::<&str, _>(&Err("out of time")));
        assert!(!honoured::<&str, ()>(&Ok(None)));
    }

    #[test]
    fn a_wait_is_bounded_and_what_is_not_understood_is_passed_over() {
        for (prefer, expected) in [
            (&["wait=5"][..], Some(5)),
            (&["respond-async, wait = 10; foo=bar"], Some(10)),
            (&["return=minimal", "WAIT=\"3\""], Some(3)),
            (&["wait=31"], Some(30)),
            (&["wait=99999999999999"], Some(30)),
            (&["wait=2, wait=9"], Some(2)),
            (&["wait=0"], None),
            (&["wait=-1"], None),
            (&["wait=soon"], None),
            (&["wait"], None),
            (&["wait="], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in prefer {
                headers.append(PREFER, value.parse().unwrap());
            }
            assert_eq!(wait(&headers), expected, "{prefer:?}");
        }
    }
}
