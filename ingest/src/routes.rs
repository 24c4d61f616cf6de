//! Every path on one screen; the rest of the file is what they have in common.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Buf;
use events::StockChangeKind as Kind;
use futures::Stream;
use serde::Serialize;
use warp::Filter;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::http::{HeaderMap, Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;
use wire::operator::Readiness;
use wire::telemetry::{HTTP_REQUESTS, HTTP_SECONDS};

use crate::app::App;
use crate::changes::Change;
use crate::problem::{self, Code, Problem};
use crate::request::Request;
use crate::{changes, history, list, openapi, orders, prefer, stock, tracking, webhooks};

/// Set once Kafka and the registry were reached; until then the API answers 503.
pub(crate) type Slot = Arc<OnceLock<App>>;

async fn dispatch<B, D>(app: &App, path: &str, request: &mut Request<B>) -> (&'static str, Answered)
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (parts.as_slice(), &request.method.clone()) {
        (["v1", "orders"], &Method::POST) => {
            (prefer::route(&request.headers), orders::place(app, request).await)
        }
        (["v1", "orders"], &Method::GET) => (list::ROUTE, list::list(app, request).await),
        (["v1", "orders"], _) => ("/v1/orders", only("GET, POST")),
        (["v1", "orders", id], &Method::GET) => {
            ("/v1/orders/{id}", tracking::show(app, request, id).await)
        }
        (["v1", "orders", _], _) => ("/v1/orders/{id}", only("GET")),
        (["v1", "orders", id, "events"], &Method::GET) => {
            ("/v1/orders/{id}/events", history::show(app, request, id).await)
        }
        (["v1", "orders", _, "events"], _) => ("/v1/orders/{id}/events", only("GET")),
        (["v1", "orders", id, "cancel"], method) => (
            "/v1/orders/{id}/cancel",
            post(method, changes::request(app, request, id, Change::Cancel)).await,
        ),
        (["v1", "orders", id, "confirm"], method) => (
            "/v1/orders/{id}/confirm",
            post(method, changes::request(app, request, id, Change::Confirm)).await,
        ),
        (["v1", "orders", id, "dispatch"], method) => (
            "/v1/orders/{id}/dispatch",
            post(method, changes::request(app, request, id, Change::Dispatch)).await,
        ),
        (["v1", "stock", "flash-sales"], method) => {
            ("/v1/stock/flash-sales", post(method, stock::changes::flash_sale(app, request)).await)
        }
        (["v1", "warehouses"], method) => {
            ("/v1/warehouses", post(method, stock::changes::warehouse(app, request)).await)
        }
        (["v1", "stock", "imports"], method) => (
            "/v1/stock/imports",
            post(method, stock::changes::change(app, request, Kind::Opening)).await,
        ),
        (["v1", "stock", "adjustments"], method) => (
            "/v1/stock/adjustments",
            post(method, stock::changes::change(app, request, Kind::Adjustment)).await,
        ),
        (["v1", "stock", "counts"], method) => (
            "/v1/stock/counts",
            post(method, stock::changes::change(app, request, Kind::Count)).await,
        ),
        (["v1", "stock", "transfers"], method) => (
            "/v1/stock/transfers",
            post(method, stock::changes::change(app, request, Kind::Transfer)).await,
        ),
        (["v1", "stock", "low-marks"], method) => (
            "/v1/stock/low-marks",
            post(method, stock::changes::change(app, request, Kind::LowAt)).await,
        ),
        (["v1", "stock", "receipts"], method) => {
            ("/v1/stock/receipts", post(method, stock::receive(app, request)).await)
        }
        (["v1", "stock", sku], &Method::GET) => {
            ("/v1/stock/{sku}", stock::show(app, request, sku).await)
        }
        (["v1", "stock", _], _) => ("/v1/stock/{sku}", only("GET")),
        (["v1", "webhooks", "couriers", courier], method) => (
            "/v1/webhooks/couriers/{courier}",
            post(method, webhooks::couriers::report(app, request, courier)).await,
        ),
        (["v1", "webhooks", "payments", provider], method) => (
            "/v1/webhooks/payments/{provider}",
            post(method, webhooks::payments::receive(app, request, provider)).await,
        ),
        (["v1", "openapi.json"], &Method::GET) => ("/v1/openapi.json", Ok(openapi::show())),
        (["v1", "openapi.json"], _) => ("/v1/openapi.json", only("GET")),
        _ => ("unknown", Err(Problem::plain(Code::NotFound))),
    }
}

/// The API, and the operator's paths if they have no port of their own.
pub(crate) fn all(
    slot: Slot,
    operator: Option<Readiness>,
) -> impl Filter<Extract = (impl warp::Reply,), Error = Infallible> + Clone {
    let operator = match operator {
        Some(readiness) => {
            wire::operator::routes(readiness).map(warp::Reply::into_response).boxed()
        }
        None => warp::any().and_then(nothing_here).boxed(),
    };
    let pages = warp::get().and(warp::path!("problems" / ..)).and(warp::path::tail()).and_then(
        async |name: warp::path::Tail| problem::page(name.as_str()).ok_or_else(warp::reject),
    );
    let api = warp::any()
        .and(warp::method())
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::body::stream())
        .then(move |method: Method, path: FullPath, headers: HeaderMap, query: String, body| {
            let slot = Arc::clone(&slot);
            let request = Request::new(method, headers, query, body);
            async move { answer(&slot, path.as_str(), request).await }
        });
    operator.or(pages).or(api).recover(async |_: warp::Rejection| {
        // The API's filters take every request, so this is a fault of ours.
        Ok::<_, Infallible>(Problem::plain(Code::Internal).response("/"))
    })
}

async fn nothing_here() -> Result<Response, warp::Rejection> {
    Err(warp::reject::reject())
}

type Answered = Result<Response, Problem>;

async fn answer<B, D>(slot: &Slot, path: &str, mut request: Request<B>) -> Response
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let start = Instant::now();
    let (route, answered) = match slot.get() {
        Some(app) => dispatch(app, path, &mut request).await,
        None => ("starting", Err(Problem::plain(Code::Starting))),
    };
    let (status, response) = match answered {
        Ok(response) => (response.status(), response),
        Err(problem) => {
            request.discard().await;
            let response = history::come_back(&request, path, &problem);
            // It counts as what it is, whatever it has to look like.
            (problem.code.status(), response.unwrap_or_else(|| problem.response(path)))
        }
    };
    HTTP_REQUESTS.with_label_values(&[route, status.as_str()]).inc();
    HTTP_SECONDS.with_label_values(&[route]).observe(start.elapsed().as_secs_f64());
    response
}

/// The answer of a path that takes POST alone.
async fn post(method: &Method, answer: impl Future<Output = Answered>) -> Answered {
    if *method == Method::POST { answer.await } else { only("POST") }
}

fn only(allow: &'static str) -> Answered {
    Err(Problem { allow, ..Problem::new(Code::MethodNotAllowed, format!("use {allow}")) })
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("answers are made of strings and numbers");
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A path segment without its percent escapes; `None` if they are malformed.
pub(crate) fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (escape, tail) = rest.split_at_checked(2)?;
        let escape = std::str::from_utf8(escape).ok().filter(|e| !e.starts_with('+'))?;
        bytes.push(u8::from_str_radix(escape, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_are_decoded() {
        assert_eq!(decode("85123A").as_deref(), Some("85123A"));
        assert_eq!(decode("a%20b%2Fc").as_deref(), Some("a b/c"));
        for bad in ["%", "%2", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn before_the_start_the_api_says_so_and_the_process_lives() {
        let readiness = Readiness::starting(&["kafka"]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(warp::serve(all(Slot::default(), Some(readiness))).incoming(listener).run());
        let get = async |path: &str| reqwest::get(format!("http://{address}{path}")).await.unwrap();
        assert_eq!(get("/livez").await.status(), 200);
        assert_eq!(get("/readyz").await.status(), 503);
        assert_eq!(get("/metrics").await.status(), 200);
        let answer = get("/v1/orders/x").await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "2");
        // An EventSource would never ask again after a 503.
        let events = "/v1/orders/00000000-0000-4000-8000-000000000000/events";
        let request = reqwest::Client::new().get(format!("http://{address}{events}"));
        let answer = request.header("accept", "text/event-stream").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let text = answer.text().await.unwrap();
        let (retry, problem) = text.split_once("\n\nevent: problem\ndata: ").unwrap();
        assert_eq!(retry, "retry: 2000");
        let problem: serde_json::Value = serde_json::from_str(problem.trim_end()).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&"starting".into(), &503.into()));
        assert_eq!(get(events).await.status(), 503);
        assert!(get("/problems/outcome_unknown").await.text().await.unwrap().contains("504"));
    }

    #[tokio::test]
    async fn the_operators_paths_can_be_kept_inside() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(warp::serve(all(Slot::default(), None)).incoming(listener).run());
        for path in ["/metrics", "/readyz", "/livez"] {
            let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
            // As any other path before the start, and a 404 after it.
            let body: serde_json::Value = answer.json().await.unwrap();
            assert_eq!(body["code"], "starting", "{path}");
        }
    }
}
