//! Starts the payment simulator, which stands in for payment providers, and tells services about it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::component::Plan;
use crate::health::Check;
use crate::payment_simulator::{GIFT_SECRET, STRIPE_SECRET};
use crate::ports::Ports;
use crate::process::Spec;
use crate::services::{binary, first_ingest_port};

const READY_WITHIN: Duration = Duration::from_secs(20);
/// What the simulator is called with; it lets anybody in.
const API_SECRET: &str = "sk_simulated";

/// The simulator, which can be changed over HTTP.
pub(crate) fn plan(data: &Path, ports: &Ports) -> Result<Plan> {
    const NAME: &str = "payment-simulator";
    let port = ports.get(NAME)?;
    let mut spec = Spec::new(NAME, binary(NAME)?, data, crate::stack::log_file(data, NAME));
    let webhooks = format!("http://127.0.0.1:{}/v1/webhooks/payments/", first_ingest_port(ports)?);
    spec.args = ["--listen", &format!("127.0.0.1:{port}"), "--webhook-url", &webhooks]
        .map(Into::into)
        .to_vec();
    let url = format!("http://127.0.0.1:{port}");
    Ok(Plan { spec, check: Check::Http(format!("{url}/livez")), url, ready_within: READY_WITHIN })
}

/// The processors' settings for the providers `stripe` and `gift`; none without a simulator.
pub(crate) fn processors(url: &str) -> Vec<(String, String)> {
    let provider = |code: &str, kind: &str| {
        let name = |key: &str| {
            format!("PROCESSORS_PAYMENTS__PROVIDERS__{}__{key}", code.to_ascii_uppercase())
        };
        [
            (name("KIND"), kind.to_owned()),
            (name("URL"), format!("{url}/{code}")),
            (name("SECRET"), API_SECRET.to_owned()),
        ]
    };
    if url.is_empty() {
        return vec![];
    }
    provider("stripe", "stripe").into_iter().chain(provider("gift", "balance")).collect()
}

/// Ingest's settings for their webhooks; none without a simulator.
pub(crate) fn ingest(url: &str) -> Vec<(String, String)> {
    let provider = |code: &str, kind: &str, secret: &str| {
        let name = |key: &str| format!("INGEST_WEBHOOKS__PROVIDERS__{code}__{key}");
        [(name("KIND"), kind.to_owned()), (name("SECRET"), secret.to_owned())]
    };
    if url.is_empty() {
        return vec![];
    }
    let (stripe, gift) =
        (provider("STRIPE", "stripe", STRIPE_SECRET), provider("GIFT", "balance", GIFT_SECRET));
    stripe.into_iter().chain(gift).collect()
}
