//! Calls to payment providers. They leave only after their transaction committed; the outcome comes
//! back as a `PaymentAnswered` record on `order-outcomes`, whatever it was.
//!
//! A provider is an adapter, which says what to send and what an answer means, and a base URL.

mod balance;
pub mod provider;
mod stripe;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use events::{Codec, PaymentAnswered, PaymentOutcome, PaymentStep, ProviderCode, topics};
use http_body_util::Full;
use hyper::header::HeaderValue;
use machines::PaymentCall;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wire::secret::{self, Secret};
use wire::telemetry::{PAYMENT_CALL_SECONDS, PAYMENT_CALLS};

use balance::Balance;
use provider::{Answer, Provider, Request};
use stripe::Stripe;

use crate::calls::now;
use crate::http::{self, Http, NoAnswer};
use crate::outcomes::Outcomes;

/// A call must leave within this time of its commit: a process that was stopped meanwhile may have
/// lost its task to another one.
const CALL_LIFETIME: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;

/// Payment providers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Calls in flight to one provider.
    pub max_in_flight: usize,
    /// Longest wait for an answer, milliseconds.
    pub timeout_ms: u64,
    /// By code, as orders name them.
    pub providers: BTreeMap<String, ProviderSettings>,
}

/// One provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// Which protocol it speaks.
    pub kind: Kind,
    /// Base URL, without a slash at its end.
    pub url: String,
    /// Its secret key, by environment.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// A file that holds it.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
}

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Stripe's PaymentIntents.
    Stripe,
    /// Balances of gift cards and the like.
    Balance,
}

struct Endpoint {
    adapter: Box<dyn Provider>,
    url: String,
    limit: Semaphore,
}

/// Makes payment calls for all stream threads of a process.
#[derive(Clone)]
pub struct Payments {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Handle,
    http: Http,
    outcomes: Outcomes,
    timeout: Duration,
    endpoints: BTreeMap<ProviderCode, Endpoint>,
}

impl Payments {
    /// A service that knows the configured providers and answers to this Kafka.
    ///
    /// # Errors
    /// When a provider's code or secret is unusable, or a client cannot be made.
    pub fn new(
        runtime: Handle,
        brokers: &str,
        instance: &str,
        codec: Codec,
        partitions: i32,
        settings: &Settings,
    ) -> Result<Self> {
        let outcomes = Outcomes::new(brokers, &format!("{instance}.payments"), codec, partitions)?;
        let http = Http::new();
        let mut endpoints = BTreeMap::new();
        for (code, provider) in &settings.providers {
            let what = format!("payments.providers.{code}");
            let endpoint = endpoint(&what, provider, settings.max_in_flight)?;
            let code = ProviderCode::parse(code).context(what)?;
            endpoints.insert(code, endpoint);
        }
        let timeout = Duration::from_millis(settings.timeout_ms);
        let inner = Inner { runtime, http, outcomes, timeout, endpoints };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes a call in the background, unless its task has moved on by then.
    pub fn make(&self, call: PaymentCall, live: Arc<AtomicBool>) {
        let inner = self.inner.clone();
        let not_after = Instant::now() + CALL_LIFETIME;
        self.inner.runtime.spawn(async move { inner.run(call, not_after, &live).await });
    }
}

fn endpoint(what: &str, settings: &ProviderSettings, max_in_flight: usize) -> Result<Endpoint> {
    let secret = secret::resolve(what, settings.secret.as_ref(), settings.secret_file.as_ref())?;
    let adapter: Box<dyn Provider> = match settings.kind {
        Kind::Stripe => Box::new(Stripe::new(secret)),
        Kind::Balance => Box::new(Balance::new(secret)),
    };
    let url = settings.url.trim_end_matches('/').to_string();
    Ok(Endpoint { adapter, url, limit: Semaphore::new(max_in_flight) })
}

impl Inner {
    async fn run(&self, call: PaymentCall, not_after: Instant, live: &AtomicBool) {
        let began = Instant::now();
        let answer = match self.endpoints.get(&call.provider) {
            Some(endpoint) => {
                let Ok(_permit) = endpoint.limit.acquire().await else { return };
                // The new owner of the task makes the call; a resumed zombie sends nothing stale.
                if !live.load(Ordering::Acquire) {
                    return;
                }
                let key_expired = !call.ask && now() > call.not_after;
                if Instant::now() > not_after || key_expired {
                    Answer::bare(PaymentOutcome::NotSent)
                } else {
                    self.ask(endpoint, &call).await
                }
            }
            None => unknown_provider(&call),
        };
        let took = began.elapsed();
        let labels = [call.provider.as_str(), call.step.as_str(), answer.outcome.as_str()];
        PAYMENT_CALLS.with_label_values(&labels).inc();
        let seconds = PAYMENT_CALL_SECONDS.with_label_values(&[call.provider.as_str()]);
        seconds.observe(took.as_secs_f64());
        let record = answered(&call, answer, took).into();
        let key = call.order.order_id.as_bytes();
        self.outcomes.write(topics::ORDER_OUTCOMES.name, key, &record, live).await;
    }

    async fn ask(&self, endpoint: &Endpoint, call: &PaymentCall) -> Answer {
        let Ok(request) = http_request(&endpoint.url, endpoint.adapter.request(call)) else {
            // Its error could name what was to be sent, so it is not told.
            tracing::error!(provider = %call.provider, "no request can be made: check the URL");
            return Answer::bare(PaymentOutcome::Failed);
        };
        match self.http.send(request, self.timeout, MAX_ANSWER).await {
            Ok(http::Answer { status, body: Some(body) }) => {
                endpoint.adapter.read(call, status.as_u16(), &body)
            }
            Err(NoAnswer::NotConnected) => Answer::bare(PaymentOutcome::Failed),
            Ok(_) | Err(NoAnswer::TimedOut | NoAnswer::Broken) => {
                Answer::bare(PaymentOutcome::Unknown)
            }
        }
    }
}

/// An order that names a provider which was never configured is declined; money that is already with
/// one whose configuration was taken away waits until it is back.
fn unknown_provider(call: &PaymentCall) -> Answer {
    if call.step == PaymentStep::Authorize && !call.ask && call.attempt == 1 {
        Answer::declined("unknown_provider")
    } else {
        Answer::bare(PaymentOutcome::Failed)
    }
}

fn http_request(url: &str, request: Request) -> Result<hyper::Request<Full<Bytes>>> {
    let Request { method, path, headers, body } = request;
    let mut builder = hyper::Request::builder().method(method).uri(format!("{url}{path}"));
    for (name, value) in headers {
        let mut value = HeaderValue::try_from(value)?;
        value.set_sensitive(true);
        builder = builder.header(name, value);
    }
    let body = match body {
        Some((kind, text)) => {
            builder = builder.header("content-type", kind);
            Bytes::from(text)
        }
        None => Bytes::new(),
    };
    Ok(builder.body(Full::new(body))?)
}

fn answered(call: &PaymentCall, answer: Answer, took: Duration) -> PaymentAnswered {
    PaymentAnswered {
        order_id: call.order.order_id,
        accepted_at: call.order.accepted_at,
        method: call.method,
        generation: call.generation,
        attempt: call.attempt,
        provider: call.provider.clone(),
        step: call.step,
        outcome: answer.outcome,
        state: answer.state,
        reference: answer.reference,
        amount_minor: answer.amount_minor,
        reason: answer.reason,
        latency_ms: i32::try_from(took.as_millis()).unwrap_or(i32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_neither_shown_nor_sent_where_they_do_not_belong() {
        let settings: Settings = settings_with("canary-of-payments");
        assert!(!format!("{settings:?}").contains("canary"));
        let request = || Request {
            method: "POST",
            path: "/v1/payment_intents".into(),
            headers: vec![("authorization", "Bearer canary-of-payments".into())],
            body: Some(("application/json", "{}".into())),
        };
        let sent = http_request("http://127.0.0.1:1", request()).unwrap();
        assert!(!format!("{sent:?}").contains("canary"), "a request shows no secret");
        let Err(error) = http_request("no url", request()) else { panic!("no URL is no URL") };
        assert!(!format!("{error:#}").contains("canary"), "nor does an error");
    }

    fn settings_with(secret: &str) -> Settings {
        serde_json::from_value(serde_json::json!({
            "max_in_flight": 1, "timeout_ms": 1,
            "providers": {"stripe": {"kind": "stripe", "url": "http://x", "secret": secret}},
        }))
        .unwrap()
    }
}
