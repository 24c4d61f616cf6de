//! `POST /v1/webhooks/couriers/{courier}`: what couriers report about consignments.
//!
//! Signed as Standard Webhooks has it, several secrets at a time while one is replaced. Repeats and the
//! wrong order are the couriers processor's care.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Buf;
use chrono::Utc;
use compact_str::CompactString;
use events::{
    CourierCode, Lane, Millis, OrderId, OrderKey, Record, TrackingEvent, TrackingReported,
    WarehouseCode,
};
use futures::Stream;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::app::App;
use crate::faults::{Faults, Pointer};
use crate::orders;
use crate::problem::{Code, Fault, Problem};
use crate::publish::{Outcome, Outgoing, Settled, Target};
use crate::request::{self, Request};
use crate::routes;
use crate::webhooks::signature;

/// A company's clock may run ahead of ours by this much, milliseconds: a day, for time zones.
const AHEAD_MS: i64 = 86_400_000;
/// Reports in one request.
const MOST: usize = 100;

/// The couriers' secrets.
#[derive(Default)]
pub(crate) struct Secrets(BTreeMap<CourierCode, Vec<Vec<u8>>>);

impl Secrets {
    /// Reads a JSON file `{"swift": ["whsec_…"]}`; one that isn't there means that no courier reports.
    ///
    /// # Errors
    /// When the file is there and unusable.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            text => text.with_context(|| format!("{} cannot be read", path.display()))?,
        };
        Self::parse(&text).with_context(|| format!("{} is unusable", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let file: BTreeMap<String, Vec<String>> = serde_json::from_str(text)?;
        let mut secrets = BTreeMap::new();
        for (code, texts) in file {
            let courier = CourierCode::parse(&code).with_context(|| format!("courier {code:?}"))?;
            let keys = texts.iter().map(|text| signature::key(text));
            let keys: Result<Vec<_>> = keys.collect();
            let keys = keys.with_context(|| format!("courier {code}"))?;
            secrets.insert(courier, keys);
        }
        Ok(Self(secrets))
    }

    fn of(&self, courier: &CourierCode) -> &[Vec<u8>] {
        self.0.get(courier).map(Vec::as_slice).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Taken {
    recorded: usize,
}

pub(crate) async fn report<B, D>(
    app: &App,
    request: &mut Request<B>,
    courier: &str,
) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let unsigned = || Problem::plain(Code::InvalidSignature);
    let courier = routes::decode(courier).and_then(|code| CourierCode::parse(&code).ok());
    let courier = courier.ok_or_else(unsigned)?;
    let body = request.bytes(&app.limits, &app.bodies).await?;
    let now = Utc::now();
    let keys = app.webhooks.couriers.of(&courier);
    let age = app.webhooks.age(now.timestamp());
    if !signature::standard(&request.headers, &body, keys, age) {
        return Err(unsigned());
    }
    let body = request::parse(&body)?;
    let now = Millis(now.timestamp_millis());
    let reports = reports(&courier, &body, now).map_err(Problem::faults)?;
    let recorded = reports.len();
    let outcome = Arc::new(Outcome::new(recorded, false));
    let records: Vec<Outgoing> = reports
        .into_iter()
        .map(|report| {
            let key = report.lane.as_str().as_bytes().to_vec();
            Outgoing::keyed(Target::Couriers, key, app.codec.to_bytes(&Record::from(report)))
        })
        .collect();
    app.publisher.publish(&records, &outcome);
    match outcome.wait(Instant::now() + app.limits.answer_within()).await {
        Some(Settled::Acknowledged { .. }) => Ok(routes::json(StatusCode::OK, &Taken { recorded })),
        Some(Settled::Refused(refusal)) => Err(orders::refused(refusal)),
        Some(Settled::Unknown) | None => Err(Problem::plain(Code::OutcomeUnknown)),
    }
}

/// Pure: the body's reports, or all its faults.
fn reports(
    courier: &CourierCode,
    body: &Value,
    now: Millis,
) -> Result<Vec<TrackingReported>, Vec<Fault>> {
    let mut faults = Faults::default();
    let at = Pointer::root();
    let Some(object) = faults.object(&at, body, &["events"]) else { return Err(faults.list) };
    let at = at.child("events");
    let Some(events) = object.get("events").and_then(Value::as_array) else {
        faults.add(&at, "must be a list of events");
        return Err(faults.list);
    };
    if !(1..=MOST).contains(&events.len()) {
        faults.add(&at, &format!("must hold 1 to {MOST} events"));
        return Err(faults.list);
    }
    let mut reports = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        let index = index.to_string();
        let at = at.child(&index);
        reports.extend(one(courier, event, now, &at, &mut faults));
    }
    if faults.list.is_empty() { Ok(reports) } else { Err(faults.list) }
}

fn one(
    courier: &CourierCode,
    event: &Value,
    now: Millis,
    at: &Pointer<'_>,
    faults: &mut Faults,
) -> Option<TrackingReported> {
    let known = ["reference", "metadata", "event", "occurred_at", "status"];
    let object = faults.object(at, event, &known)?;
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let consignment = text("metadata").zip(text("reference")).and_then(|(m, r)| consignment(m, r));
    if consignment.is_none() {
        faults.add(&at.child("reference"), "must be a booking's reference, with its metadata");
    }
    let name = text("event").unwrap_or_default();
    let event = TrackingEvent::ALL.iter().copied().find(|event| event.as_str() == name);
    if event.is_none() {
        let names: Vec<&str> = TrackingEvent::ALL.iter().map(|event| event.as_str()).collect();
        faults.add(&at.child("event"), &format!("must be one of {}", names.join(", ")));
    }
    let occurred_at = object.get("occurred_at").and_then(Value::as_i64).map(Millis);
    let occurred_at = occurred_at.filter(|at| 0 < at.0 && at.0 <= now.0 + AHEAD_MS);
    if occurred_at.is_none() {
        faults.add(&at.child("occurred_at"), "must be UTC milliseconds, not in the future");
    }
    let status: CompactString = text("status").unwrap_or_default().chars().take(64).collect();
    let (order, lane, attempt) = consignment?;
    Some(TrackingReported {
        order_id: order.order_id,
        accepted_at: order.accepted_at,
        lane,
        courier: courier.clone(),
        attempt,
        event: event?,
        occurred_at: occurred_at?,
        detail: status,
    })
}

/// What a booking's metadata, `order/accepted at/lane`, and its reference say together; `None` when
/// they do not belong to each other.
fn consignment(metadata: &str, reference: &str) -> Option<(OrderKey, Lane, i32)> {
    let mut parts = metadata.splitn(3, '/');
    let order_id = OrderId(Uuid::try_parse(parts.next()?).ok()?);
    let accepted_at = Millis(parts.next()?.parse().ok()?);
    let (origin, country) = parts.next()?.split_once('>')?;
    let legal = country.len() == 2 && country.chars().all(|c| c.is_ascii_uppercase());
    let lane = Lane::new(&WarehouseCode::parse(origin).ok().filter(|_| legal)?, country);
    let (_, attempt) = reference.rsplit_once('-')?;
    let attempt: i32 = attempt.parse().ok().filter(|attempt| *attempt > 0)?;
    let order = OrderKey { order_id, accepted_at };
    (order.reference(attempt) == reference).then_some((order, lane, attempt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;

    fn swift() -> CourierCode {
        CourierCode::parse("swift").unwrap()
    }

    fn order() -> OrderKey {
        OrderKey { order_id: OrderId(Uuid::from_u128(7)), accepted_at: Millis(5) }
    }

    fn body() -> Value {
        json!({"events": [{
            "reference": order().reference(2),
            "metadata": order().metadata(&Lane::new(&WarehouseCode::MAIN, "FR")),
            "event": "delivered", "occurred_at": NOW * 1_000, "status": "POD",
        }]})
    }

    #[test]
    fn a_report_is_read() {
        let read = reports(&swift(), &body(), Millis(NOW * 1_000)).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].attempt, read[0].event), (2, TrackingEvent::Delivered));
        assert_eq!((read[0].order_id, read[0].lane.as_str()), (order().order_id, "main>FR"));
    }

    #[test]
    fn faults_are_named() {
        let fault = |name: &str, value: Value| {
            let mut body = body();
            body["events"][0][name] = value;
            reports(&swift(), &body, Millis(NOW * 1_000)).unwrap_err()[0].pointer.clone()
        };
        assert_eq!(fault("event", json!("lost")), "/events/0/event");
        assert_eq!(fault("occurred_at", json!(NOW * 2_000)), "/events/0/occurred_at");
        // Another order's reference, or another attempt's number.
        let other = OrderKey { accepted_at: Millis(6), ..order() };
        assert_eq!(fault("reference", json!(other.reference(2))), "/events/0/reference");
        assert_eq!(fault("reference", json!("x-2")), "/events/0/reference");
        assert_eq!(fault("metadata", json!("x")), "/events/0/reference");
        assert_eq!(fault("eta", json!(1)), "/events/0/eta");
        assert!(reports(&swift(), &json!({"events": []}), Millis(0)).is_err());
    }

    #[test]
    fn secrets_are_read_or_refused() {
        let secrets = Secrets::parse(r#"{"swift": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}"#);
        let secrets = secrets.unwrap();
        assert_eq!(secrets.of(&swift()).len(), 1);
        assert!(secrets.of(&CourierCode::parse("other").unwrap()).is_empty(), "no secret");
        assert!(Secrets::parse(r#"{"swift": ["whsec_AAAA"]}"#).is_err(), "too short");
    }
}
