//! Calls to courier companies. They leave only after their transaction committed; the outcome comes
//! back as a `CourierAnswered` record, whatever it was.
//!
//! The API called: `POST {url}/consignments` with an `Idempotency-Key`, `DELETE
//! {url}/consignments/{reference}` to void. A company that takes part must know idempotency keys, so
//! a call outstanding at a crash is simply made again; and it must remember a void of a reference
//! that it doesn't know (404), since the booking may still be on its way behind it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use bytes::Bytes;
use events::{
    CallOutcome, Codec, CourierAnswered, CourierCall, CourierCode, Currency, Destination, Lane,
    Merchant, Millis, OrderId, topics,
};
use http_body_util::Full;
use hyper::{Request, StatusCode};
use machines::{Call, CallKind};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wire::telemetry::{COURIER_CALL_SECONDS, COURIER_CALLS};

use crate::http::{self, Http, NoAnswer};
use crate::outcomes::Outcomes;

/// A call must leave within this time of its commit: a process that was stopped meanwhile may have
/// lost its task to another one.
const CALL_LIFETIME: Duration = Duration::from_secs(30);

/// Longest answer that is read.
const MAX_ANSWER: usize = 16 * 1024;

/// Makes calls for all stream threads of a process.
#[derive(Clone)]
pub struct Calls {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Handle,
    http: Http,
    outcomes: Outcomes,
    max_in_flight: usize,
    limits: Mutex<BTreeMap<CourierCode, Arc<Semaphore>>>,
}

/// What a company is asked to book.
#[derive(Serialize)]
struct Book<'a> {
    reference: &'a str,
    /// Comes back with the company's reports.
    metadata: String,
    merchant: &'a Merchant,
    order_id: OrderId,
    lane: &'a Lane,
    destination: &'a Destination,
    weight_grams: Option<u32>,
}

/// What a company answers to a booking.
#[derive(Debug, Deserialize)]
struct Booked {
    consignment_id: String,
    tracking_number: String,
    price_minor: i64,
    currency: String,
    promised_at: i64,
}

struct Answer {
    outcome: CallOutcome,
    detail: String,
    booked: Option<Booked>,
}

impl Answer {
    fn new(outcome: CallOutcome, detail: impl Into<String>) -> Self {
        Self { outcome, detail: detail.into(), booked: None }
    }
}

impl Calls {
    /// A service that answers to this Kafka.
    ///
    /// # Errors
    /// When a client cannot be made.
    pub fn new(
        runtime: Handle,
        brokers: &str,
        instance: &str,
        codec: Codec,
        partitions: i32,
        max_in_flight: usize,
    ) -> Result<Self> {
        let outcomes = Outcomes::new(brokers, &format!("{instance}.calls"), codec, partitions)?;
        let http = Http::new();
        let limits = Mutex::default();
        let inner = Inner { runtime, http, outcomes, max_in_flight, limits };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes a call in the background, unless its task has moved on by then.
    pub fn make(&self, call: Call, live: Arc<AtomicBool>) {
        let inner = self.inner.clone();
        let not_after = Instant::now() + CALL_LIFETIME;
        self.inner.runtime.spawn(async move { inner.run(call, not_after, &live).await });
    }
}

impl Inner {
    async fn run(&self, call: Call, not_after: Instant, live: &AtomicBool) {
        let limit = self.limit(&call.courier);
        let Ok(_permit) = limit.acquire().await else { return };
        // The new owner of the task makes the call; a resumed zombie sends nothing stale.
        if !live.load(Ordering::Acquire) {
            return;
        }
        let began = Instant::now();
        let answer = if began > not_after {
            Answer::new(CallOutcome::NotSent, "too late to be sent")
        } else {
            self.ask(&call).await
        };
        let took = began.elapsed();
        let kind = match call.kind {
            CallKind::Book { .. } => CourierCall::Book,
            CallKind::Void => CourierCall::Void,
        };
        count(&call, kind, answer.outcome, took);
        let record = answered(&call, kind, answer, took);
        let key = call.lane.as_str().as_bytes();
        self.outcomes.write(topics::COURIERS.name, key, &record.into(), live).await;
    }

    fn limit(&self, courier: &CourierCode) -> Arc<Semaphore> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(self.max_in_flight));
        limits.entry(courier.clone()).or_insert_with(new).clone()
    }

    async fn ask(&self, call: &Call) -> Answer {
        let reference = call.reference();
        let timeout = Duration::from_millis(u64::try_from(call.timeout_ms).unwrap_or(1_000));
        let request = match request(call, &reference) {
            Ok(request) => request,
            Err(error) => return Answer::new(CallOutcome::Failed, format!("no request: {error}")),
        };
        let sent = self.http.send(request, timeout, MAX_ANSWER).await;
        match (sent, &call.kind) {
            (Err(reason), _) => failed(reason),
            (Ok(answer), CallKind::Book { .. }) => read_booking(&answer),
            (Ok(answer), CallKind::Void) => read_void(answer.status),
        }
    }
}

fn request(call: &Call, reference: &str) -> Result<Request<Full<Bytes>>> {
    let (builder, body) = match &call.kind {
        CallKind::Book { merchant, destination } => {
            let body = serde_json::to_vec(&Book {
                reference,
                metadata: call.order.metadata(&call.lane),
                merchant,
                order_id: call.order.order_id,
                lane: &call.lane,
                destination,
                weight_grams: None,
            })?;
            let builder = Request::post(format!("{}/consignments", call.url))
                .header("Content-Type", "application/json");
            (builder, Bytes::from(body))
        }
        CallKind::Void => {
            (Request::delete(format!("{}/consignments/{reference}", call.url)), Bytes::new())
        }
    };
    Ok(builder.header("Idempotency-Key", reference).body(Full::new(body))?)
}

fn failed(reason: NoAnswer) -> Answer {
    match reason {
        NoAnswer::NotConnected => {
            Answer::new(CallOutcome::Failed, "connection refused or timed out")
        }
        NoAnswer::TimedOut => Answer::new(CallOutcome::TimedOut, "no answer in time"),
        NoAnswer::Broken => Answer::new(CallOutcome::TimedOut, "connection broke before an answer"),
    }
}

fn read_booking(answer: &http::Answer) -> Answer {
    let status = answer.status;
    let text = |what: &str| format!("{what}: status {}", status.as_u16());
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Answer::new(CallOutcome::Throttled, text("too many requests"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Answer::new(CallOutcome::Failed, text("not now"));
    }
    if status.is_client_error() {
        return Answer::new(CallOutcome::Refused, text("refused"));
    }
    if !status.is_success() {
        // It may have booked before it failed: in doubt, so the attempt is voided.
        return Answer::new(CallOutcome::TimedOut, text("failed"));
    }
    match answer.body.as_deref().and_then(Booked::parse) {
        Some(booked) => {
            let mut answer = Answer::new(CallOutcome::Succeeded, "");
            answer.booked = Some(booked);
            answer
        }
        // It says that it booked, but not what: in doubt, too.
        None => Answer::new(CallOutcome::TimedOut, text("unusable answer")),
    }
}

impl Booked {
    /// An answer that can be recorded and paid: what it says travels to every sink.
    fn parse(bytes: &[u8]) -> Option<Self> {
        // The years 1970 to 2100.
        const MOMENTS: std::ops::Range<i64> = 0..4_102_444_800_000;
        let booked: Self = serde_json::from_slice(bytes).ok()?;
        let code = |text: &str| {
            (1..=100).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic())
        };
        let usable = code(&booked.consignment_id)
            && code(&booked.tracking_number)
            && booked.price_minor >= 0
            && Currency::parse(&booked.currency).is_ok()
            && MOMENTS.contains(&booked.promised_at);
        usable.then_some(booked)
    }
}

fn read_void(status: StatusCode) -> Answer {
    if status.is_success() || status == StatusCode::NOT_FOUND {
        Answer::new(CallOutcome::Succeeded, "")
    } else {
        Answer::new(CallOutcome::Failed, format!("status {}", status.as_u16()))
    }
}

fn answered(call: &Call, kind: CourierCall, answer: Answer, took: Duration) -> CourierAnswered {
    let booked = answer.booked.unwrap_or(Booked {
        consignment_id: String::new(),
        tracking_number: String::new(),
        price_minor: 0,
        currency: String::new(),
        promised_at: 0,
    });
    CourierAnswered {
        order_id: call.order.order_id,
        accepted_at: call.order.accepted_at,
        lane: call.lane.clone(),
        attempt: call.attempt,
        courier: call.courier.clone(),
        call: kind,
        outcome: answer.outcome,
        detail: answer.detail.into(),
        latency_ms: i32::try_from(took.as_millis()).unwrap_or(i32::MAX),
        consignment_id: booked.consignment_id.into(),
        tracking_number: booked.tracking_number.into(),
        price_minor: booked.price_minor,
        currency: booked.currency.into(),
        promised_at: Millis(booked.promised_at),
    }
}

fn count(call: &Call, kind: CourierCall, outcome: CallOutcome, took: Duration) {
    let kind = if kind == CourierCall::Void { "void" } else { "book" };
    let outcome = match outcome {
        CallOutcome::Succeeded => "succeeded",
        CallOutcome::Refused => "refused",
        CallOutcome::Failed => "failed",
        CallOutcome::TimedOut => "timed_out",
        CallOutcome::NotSent => "not_sent",
        CallOutcome::Throttled => "throttled",
        CallOutcome::Unknown => "unknown",
    };
    COURIER_CALLS.with_label_values(&[call.courier.as_str(), kind, outcome]).inc();
    COURIER_CALL_SECONDS.with_label_values(&[call.courier.as_str()]).observe(took.as_secs_f64());
}

/// The wall clock, UTC.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_can_be_recorded_are_believed() {
        let booked = |change: fn(&mut serde_json::Value)| {
            let mut answer = serde_json::json!({
                "consignment_id": "c-1", "tracking_number": "T1", "price_minor": 310,
                "currency": "GBP", "promised_at": 1_700_000_000_000_i64,
            });
            change(&mut answer);
            Booked::parse(answer.to_string().as_bytes()).is_some()
        };
        assert!(booked(|_| ()));
        assert!(!booked(|answer| answer["price_minor"] = (-1).into()));
        assert!(!booked(|answer| answer["currency"] = "pounds".into()));
        assert!(!booked(|answer| answer["tracking_number"] = "T\u{0}1".into()));
        assert!(!booked(|answer| answer["consignment_id"] = "".into()));
        assert!(!booked(|answer| answer["promised_at"] = 1_700_000_000_000_000_000_i64.into()));
    }
}
