//! `POST /v1/webhooks/payments/{provider}`: a provider tells what became of a payment.
//!
//! Who calls is proved by a signature over time and body, not by an API key. The event is acknowledged
//! by Kafka before it is answered 200; until then the provider sends it again. The same event again is
//! answered alike: this process remembers its id, and to the payments machine it says nothing new.

mod balance;
mod fields;
pub(crate) mod signature;
mod stripe;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use anyhow::{Context as _, Result};
use bytes::Buf;
use chrono::Utc;
use events::{Fingerprint, Merchant, PaymentNotified, ProviderCode, Record};
use futures::Stream;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;
use wire::secret::{self, Secret};

use crate::app::App;
use crate::problem::{Code, Problem};
use crate::publish::{Outgoing, Target};
use crate::request::Request;
use crate::{orders, routes};

/// Webhooks belong to no merchant; their ids are remembered under this name.
static NOBODY: LazyLock<Arc<Merchant>> =
    LazyLock::new(|| Arc::new(Merchant::parse("payment-webhooks").expect("a legal code")));

/// Who may send webhooks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// An event signed longer ago, or as far ahead, is refused, seconds.
    pub tolerance_s: i64,
    /// By code, as orders name them.
    pub providers: BTreeMap<String, ProviderSettings>,
}

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

/// The providers with their secrets.
pub(crate) struct Webhooks {
    tolerance_s: i64,
    providers: BTreeMap<ProviderCode, (Kind, Secret)>,
}

impl Webhooks {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let mut providers = BTreeMap::new();
        for (code, provider) in &settings.providers {
            let what = format!("webhooks.providers.{code}");
            let (given, file) = (provider.secret.as_ref(), provider.secret_file.as_ref());
            let secret = secret::resolve(&what, given, file)?;
            let code = ProviderCode::parse(code).context(what)?;
            providers.insert(code, (provider.kind, secret));
        }
        Ok(Self { tolerance_s: settings.tolerance_s, providers })
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
    let known = code.and_then(|code| app.webhooks.providers.get_key_value(&code));
    let Some((code, (kind, secret))) = known else { return Err(Problem::plain(Code::NotFound)) };
    let body = request.bytes(&app.limits, &app.bodies).await?;
    let (now, tolerance) = (Utc::now().timestamp(), app.webhooks.tolerance_s);
    let genuine = match kind {
        Kind::Stripe => signature::stripe(&request.headers, &body, secret, now, tolerance),
        Kind::Balance => signature::standard(&request.headers, &body, secret, now, tolerance),
    };
    if !genuine {
        return Err(Problem::plain(Code::InvalidSignature));
    }
    let notice = match kind {
        Kind::Stripe => stripe::read(code, &body),
        Kind::Balance => balance::read(code, &body),
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
        app.publisher.publish(&[Outgoing { target: Target::Outcomes, key, payload }], outcome);
    })
    .await?;
    Ok(())
}
