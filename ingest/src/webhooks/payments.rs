//! `POST /v1/webhooks/payments/{provider}`: a provider tells what became of a payment.
//!
//! The same event again is answered alike: this process remembers its id, and to the payments machine it
//! says nothing new.

mod balance;
mod stripe;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use anyhow::{Context as _, Result};
use bytes::Buf;
use chrono::Utc;
use compact_str::CompactString;
use events::{Fingerprint, Merchant, PaymentNotified, PaymentState, ProviderCode, Record};
use futures::Stream;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;
use wire::payment_names;
use wire::secret::{self, Secret};

use crate::app::App;
use crate::problem::{Code, Problem};
use crate::publish::{Outgoing, Target};
use crate::request::Request;
use crate::webhooks::signature;
use crate::{orders, routes};

/// Webhooks belong to no merchant; their ids are remembered under this name.
static NOBODY: LazyLock<Arc<Merchant>> =
    LazyLock::new(|| Arc::new(Merchant::parse("payment-webhooks").expect("a legal code")));

/// One provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// Which protocol it speaks.
    pub kind: Kind,
    /// The secret it signs with, by environment.
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
    /// Stripe's events, `Stripe-Signature`.
    Stripe,
    /// Balances; signed as Standard Webhooks describe.
    Balance,
}

/// How a provider's events are proved.
enum Proof {
    Stripe(Secret),
    Balance(Vec<u8>),
}

/// The providers with their secrets.
pub(crate) struct Providers(BTreeMap<ProviderCode, Proof>);

impl Providers {
    pub(crate) fn new(settings: &BTreeMap<String, ProviderSettings>) -> Result<Self> {
        let mut providers = BTreeMap::new();
        for (code, provider) in settings {
            let what = format!("webhooks.providers.{code}");
            let (given, file) = (provider.secret.as_ref(), provider.secret_file.as_ref());
            let secret = secret::resolve(&what, given, file)?;
            let code = ProviderCode::parse(code).with_context(|| what.clone())?;
            let proof = match provider.kind {
                Kind::Stripe => Proof::Stripe(secret),
                Kind::Balance => Proof::Balance(signature::key(secret.expose()).context(what)?),
            };
            providers.insert(code, proof);
        }
        Ok(Self(providers))
    }
}

/// Takes an event in.
pub(crate) async fn receive<B, D>(
    app: &App,
    request: &mut Request<B>,
    provider: &str,
) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let code = routes::decode(provider).and_then(|text| ProviderCode::parse(&text).ok());
    let known = code.and_then(|code| app.webhooks.payments.0.get_key_value(&code));
    let Some((code, proof)) = known else { return Err(Problem::plain(Code::NotFound)) };
    let body = request.bytes(&app.limits, &app.bodies).await?;
    let age = app.webhooks.age(Utc::now().timestamp());
    let genuine = match proof {
        Proof::Stripe(secret) => signature::stripe(&request.headers, &body, secret, age),
        Proof::Balance(key) => {
            signature::standard(&request.headers, &body, std::slice::from_ref(key), age)
        }
    };
    if !genuine {
        return Err(Problem::plain(Code::InvalidSignature));
    }
    let notice = match proof {
        Proof::Stripe(_) => stripe::read(code, &body),
        Proof::Balance(_) => balance::read(code, &body),
    };
    let notice = notice.map_err(|detail| Problem::new(Code::InvalidJson, detail))?;
    // Signed, and of no interest: another kind of event, or a payment that is not ours.
    let Some(notice) = notice else {
        return Ok(routes::json(StatusCode::OK, &json!({"received": true, "recorded": false})));
    };
    record(app, notice).await?;
    Ok(routes::json(StatusCode::OK, &json!({"received": true, "recorded": true})))
}

async fn record(app: &App, notice: PaymentNotified) -> Result<(), Problem> {
    let name = format!("{}/{}", notice.provider, notice.event_id);
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes());
    // A repeat may differ in what is no part of the event, such as the count of pending deliveries.
    let click = (&app.events, id, &*NOBODY, Fingerprint(id));
    orders::settle(app, click, 1, |app, outcome| {
        let key = notice.order_id.as_bytes().to_vec();
        let payload = app.codec.to_bytes(&Record::from(notice));
        app.publisher.publish(&[Outgoing::keyed(Target::Outcomes, key, payload)], outcome);
    })
    .await?;
    Ok(())
}

/// A provider's id as it may be recorded.
fn recorded_id(text: &str) -> Result<CompactString, &'static str> {
    let id = payment_names::id(text);
    id.map(CompactString::from).ok_or("an id must be 1 to 100 visible ASCII characters")
}

/// Why a payment was declined, as it may be recorded; empty with any other state.
fn recorded_reason(state: PaymentState, told: Option<String>) -> CompactString {
    match state {
        PaymentState::Declined => payment_names::reason(told.as_deref().unwrap_or_default()).into(),
        _ => "".into(),
    }
}
