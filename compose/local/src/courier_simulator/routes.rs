//! Every path of the simulator on one screen, and what it takes to answer it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Couriers;
use super::courier::{Answer, Ask, Courier, SILENCE};
use super::ledger::Reference;
use super::settings::Settings;

/// Greatest body of a request, bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// Most orders `GET /ledger/duplicates` lists; `count` is of all.
const DUPLICATES_LISTED: usize = 1000;

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("a simulated courier never answers")]
pub(super) struct NoAnswer;

/// Answers one request, or ends its connection.
pub(super) async fn answer(
    couriers: Arc<Couriers>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, NoAnswer> {
    let path = request.uri().path().trim_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').collect();
    let method = request.method().clone();
    let answer = match (&method, segments.as_slice()) {
        (&Method::GET, ["livez"]) => Ok(Answer::new(StatusCode::OK, json!({"live": true}))),
        (&Method::GET, ["settings"]) => Ok(all_settings(&couriers)),
        (&Method::GET, ["settings", name]) => courier(&couriers, name)
            .map(|courier| Answer::new(StatusCode::OK, plain(&courier.settings()))),
        (&Method::PUT, ["settings", name]) => put_settings(&couriers, name, request).await,
        (&Method::PATCH, ["settings", name]) => patch_settings(&couriers, name, request).await,
        (&Method::GET, ["ledger"]) => Ok(ledger(&couriers)),
        (&Method::GET, ["ledger", "duplicates"]) => Ok(duplicates(couriers).await),
        (&Method::POST, [name, "consignments"]) => {
            return called(&couriers, name, booking(request).await).await;
        }
        (&Method::DELETE, [name, "consignments", text]) => {
            let ask = reference(text).map(|reference| Ask::Void { reference });
            return called(&couriers, name, ask).await;
        }
        (&Method::GET, [name, "consignments", text]) => {
            let ask = reference(text).map(|reference| Ask::Find { reference });
            return called(&couriers, name, ask).await;
        }
        _ => Err(Answer::fault(StatusCode::NOT_FOUND, "not_found", "there is no such path")),
    };
    Ok(rendered(answer.unwrap_or_else(|fault| fault)))
}

/// A call to a courier, with all that can befall it.
async fn called(
    couriers: &Couriers,
    name: &str,
    ask: Result<Ask, Answer>,
) -> Result<Response<Full<Bytes>>, NoAnswer> {
    let (courier, ask) = match (courier(couriers, name), ask) {
        (Ok(courier), Ok(ask)) => (courier, ask),
        (Err(fault), _) | (_, Err(fault)) => return Ok(rendered(fault)),
    };
    // A task of its own: the company works on when the caller hangs up.
    let call = tokio::spawn(async move { courier.call(ask).await });
    match call.await {
        Ok(Some(answer)) => Ok(rendered(answer)),
        Ok(None) => {
            tokio::time::sleep(SILENCE).await;
            Err(NoAnswer)
        }
        Err(_) => Err(NoAnswer),
    }
}

/// The body of a booking. The courier checks and keeps what it needs, and lets the rest pass.
#[derive(Deserialize)]
struct BookingBody<'a> {
    #[serde(borrow)]
    reference: Cow<'a, str>,
    #[serde(borrow)]
    merchant: Cow<'a, str>,
    order_id: Uuid,
    #[serde(borrow)]
    lane: Cow<'a, str>,
    #[serde(borrow)]
    destination: Destination<'a>,
    #[serde(default)]
    weight_grams: Option<i64>,
}

#[derive(Deserialize)]
struct Destination<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    street: Cow<'a, str>,
    #[serde(borrow)]
    city: Cow<'a, str>,
    #[serde(borrow)]
    postcode: Cow<'a, str>,
    #[serde(borrow)]
    country: Cow<'a, str>,
}

impl BookingBody<'_> {
    fn fault(&self) -> Option<&'static str> {
        let to = &self.destination;
        let faults = [
            (self.merchant.is_empty(), "merchant is empty"),
            (self.lane.is_empty(), "lane is empty"),
            (to.name.is_empty(), "destination.name is empty"),
            (to.street.is_empty() && to.city.is_empty(), "destination has neither street nor city"),
            (to.country.len() != 2, "destination.country is not two letters"),
            (to.postcode.len() > 32, "destination.postcode is above 32 bytes"),
            (self.weight_grams.is_some_and(|grams| grams < 0), "weight_grams is negative"),
        ];
        faults.iter().find(|(wrong, _)| *wrong).map(|(_, what)| *what)
    }
}

async fn booking(request: Request<Incoming>) -> Result<Ask, Answer> {
    let key = request.headers().get("idempotency-key").cloned();
    let bytes = whole_body(request).await?;
    let body: BookingBody<'_> = parsed(&bytes)?;
    let reference = reference(&body.reference)?;
    if key.as_ref().map(HeaderValue::as_bytes) != Some(body.reference.as_bytes()) {
        return Err(bad_request("the Idempotency-Key header has to be the reference"));
    }
    match body.fault() {
        Some(fault) => Err(bad_request(fault)),
        None => Ok(Ask::Book { reference, order: body.order_id }),
    }
}

fn reference(text: &str) -> Result<Reference, Answer> {
    text.parse().map_err(|()| bad_request("the reference is not <uuid>-<attempt>"))
}

fn courier(couriers: &Couriers, name: &str) -> Result<Arc<Courier>, Answer> {
    couriers.get(name).ok_or_else(|| {
        let reason = "there is no such courier: see GET /settings, or make it with PUT";
        Answer::fault(StatusCode::NOT_FOUND, "unknown_courier", reason)
    })
}

fn all_settings(couriers: &Couriers) -> Answer {
    let settings: serde_json::Map<String, Value> = couriers
        .all()
        .iter()
        .map(|courier| (courier.name.clone(), plain(&courier.settings())))
        .collect();
    Answer::new(StatusCode::OK, settings)
}

/// Replaces the settings; a new name makes a new courier.
async fn put_settings(
    couriers: &Couriers,
    name: &str,
    request: Request<Incoming>,
) -> Result<Answer, Answer> {
    super::config::check_name(name).map_err(bad_request)?;
    let settings = Settings::parsed(json_body(request).await?).map_err(bad_request)?;
    let courier = couriers.create(name, settings.clone());
    courier.change(|_| Ok(settings)).map(changed(name)).map_err(bad_request)
}

async fn patch_settings(
    couriers: &Couriers,
    name: &str,
    request: Request<Incoming>,
) -> Result<Answer, Answer> {
    let courier = courier(couriers, name)?;
    let change: Value = json_body(request).await?;
    courier.change(|settings| settings.patched(&change)).map(changed(name)).map_err(bad_request)
}

fn changed(name: &str) -> impl FnOnce(Settings) -> Answer {
    move |settings| {
        tracing::info!(courier = name, ?settings, "settings changed");
        Answer::new(StatusCode::OK, plain(&settings))
    }
}

fn ledger(couriers: &Couriers) -> Answer {
    let tallies: serde_json::Map<String, Value> =
        couriers.all().iter().map(|courier| (courier.name.clone(), courier.tally())).collect();
    Answer::new(StatusCode::OK, tallies)
}

/// Orders with more than one live consignment, over all couriers. Scans every remembered booking, on
/// a thread of its own.
async fn duplicates(couriers: Arc<Couriers>) -> Answer {
    let found = tokio::task::spawn_blocking(move || find_duplicates(&couriers.all())).await;
    match found {
        Ok(body) => Answer::new(StatusCode::OK, body),
        Err(_) => {
            Answer::fault(StatusCode::INTERNAL_SERVER_ERROR, "failed", "the audit was cut off")
        }
    }
}

fn find_duplicates(couriers: &[Arc<Courier>]) -> Value {
    let mut live: HashMap<Uuid, u32> = HashMap::new();
    for courier in couriers {
        courier.ledger.for_each_live(|_, booking| *live.entry(booking.order).or_default() += 1);
    }
    live.retain(|_, count| *count > 1);
    let count = live.len();
    let mut listed: Vec<Uuid> = live.into_keys().collect();
    listed.sort_unstable();
    listed.truncate(DUPLICATES_LISTED);
    let mut consignments: HashMap<Uuid, Vec<Value>> =
        listed.iter().map(|order| (*order, Vec::new())).collect();
    for courier in couriers {
        courier.ledger.for_each_live(|reference, booking| {
            if let Some(list) = consignments.get_mut(&booking.order) {
                list.push(json!({
                    "courier": courier.name,
                    "reference": reference.to_string(),
                    "consignment_id": courier.consignment_id(booking),
                }));
            }
        });
    }
    let orders: Vec<Value> = listed
        .iter()
        .map(|order| json!({"order_id": order, "consignments": consignments[order]}))
        .collect();
    json!({"count": count, "orders": orders})
}

async fn json_body<T: serde::de::DeserializeOwned>(
    request: Request<Incoming>,
) -> Result<T, Answer> {
    parsed(&whole_body(request).await?)
}

async fn whole_body(request: Request<Incoming>) -> Result<Bytes, Answer> {
    let body = Limited::new(request.into_body(), BODY_LIMIT).collect().await;
    Ok(body.map_err(|error| bad_request(format!("the body: {error}")))?.to_bytes())
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Answer> {
    serde_json::from_slice(body).map_err(|error| bad_request(format!("the body: {error}")))
}

fn bad_request(reason: impl Into<String>) -> Answer {
    Answer::fault(StatusCode::BAD_REQUEST, "bad_request", reason)
}

fn plain(settings: &Settings) -> Value {
    serde_json::to_value(settings).expect("settings are plain data")
}

fn rendered(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = answer.retry_after_s {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
