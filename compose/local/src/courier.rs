//! Starts the courier simulator, which stands in for the courier companies.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

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
