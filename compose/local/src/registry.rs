//! The schema registry: Apicurio, which speaks Confluent's API under `/apis/ccompat/v7`.
//!
//! Its storage is Kafka (`kafkasql`): the default one is in memory and forgets ids.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::component::Plan;
use crate::health::Check;
use crate::ports::Ports;
use crate::process::Spec;
use crate::tools::JAVA;

const READY_WITHIN: Duration = Duration::from_secs(90);

/// The registry on the cluster at `brokers`, which must be up.
pub(crate) fn plan(home: &Path, data: &Path, ports: &Ports, brokers: &str) -> Result<Plan> {
    let port = ports.get("registry")?;
    let folder = data.join("registry");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let log = crate::stack::log_file(data, "registry");
    let mut spec = Spec::new("registry", JAVA.find()?, &folder, log);
    spec.args = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar"]
        .map(Into::into)
        .to_vec();
    spec.args.push(home.join("quarkus-run.jar").into());
    spec.env = [
        ("QUARKUS_HTTP_HOST", "127.0.0.1".to_owned()),
        ("QUARKUS_HTTP_PORT", port.to_string()),
        ("APICURIO_STORAGE_KIND", "kafkasql".to_owned()),
        ("APICURIO_KAFKASQL_BOOTSTRAP_SERVERS", brokers.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let url = format!("http://127.0.0.1:{port}/apis/ccompat/v7");
    Ok(Plan {
        spec,
        check: Check::Http(format!("{url}/subjects")),
        url,
        ready_within: READY_WITHIN,
    })
}
