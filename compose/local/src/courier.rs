//! Starts the courier simulator, which stands in for the courier companies, and
//! describes them for `tillroll setup`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::component::Plan;
use crate::health::Check;
use crate::ports::Ports;
use crate::process::Spec;
use crate::services::binary;

const READY_WITHIN: Duration = Duration::from_secs(20);

/// The simulator with its default couriers, which can be changed over HTTP.
pub(crate) fn plan(data: &Path, ports: &Ports) -> Result<Plan> {
    const NAME: &str = "courier-simulator";
    let port = ports.get(NAME)?;
    let mut spec = Spec::new(NAME, binary(NAME)?, data, crate::stack::log_file(data, NAME));
    spec.args = vec!["--listen".into(), format!("127.0.0.1:{port}").into()];
    let url = format!("http://127.0.0.1:{port}");
    Ok(Plan { spec, check: Check::Http(format!("{url}/livez")), url, ready_within: READY_WITHIN })
}

#[derive(Deserialize)]
struct Offer {
    price_minor: i64,
    currency: String,
}

/// The couriers that the simulator at `url` plays, as a file for `tillroll couriers set`.
///
/// # Errors
/// If the simulator doesn't answer.
pub async fn listing(url: &str) -> Result<String> {
    let offers: BTreeMap<String, Offer> = reqwest::Client::new()
        .get(format!("{url}/settings"))
        .timeout(Duration::from_secs(10))
        .send()
        .await?
        .error_for_status()?
        .json()
        .await
        .context("the courier simulator's settings cannot be read")?;
    let mut text = String::new();
    for (code, Offer { price_minor, currency }) in offers {
        // A name, a number and a currency code need no escaping.
        writeln!(
            text,
            "[[courier]]\ncode = \"{code}\"\nurl = \"{url}/{code}\"\n\
             price_minor = {price_minor}\ncurrency = \"{currency}\"\n"
        )?;
    }
    Ok(text)
}
