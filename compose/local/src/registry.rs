//! The schema registry: Apicurio, which speaks Confluent's API under `/apis/ccompat/v7`.
//!
//! Its storage is Kafka (`kafkasql`): the default one is in memory and forgets ids.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::classes::Classes;
use crate::component::Plan;
use crate::health::Check;
use crate::ports::Ports;
use crate::process::Spec;
use crate::tools::JAVA;
use crate::versions::versions;

const READY_WITHIN: Duration = Duration::from_secs(90);

/// The registry on the cluster at `brokers`, which must be up.
pub(crate) fn plan(
    home: &Path,
    data: &Path,
    ports: &Ports,
    brokers: &str,
    classes: Classes,
) -> Result<Plan> {
    let port = ports.get("registry")?;
    let folder = data.join("registry");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let log = crate::stack::log_file(data, "registry");
    let mut spec = Spec::new("registry", JAVA.find()?, &folder, log);
    spec.args = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar"]
        .map(Into::into)
        .to_vec();
    classes.configure(&mut spec, home)?;
    let version = &versions().registry.version;
    spec.args.push(home.join(format!("apicurio-registry-app-{version}-runner.jar")).into());
    spec.env = [
        ("QUARKUS_HTTP_HOST", "127.0.0.1".to_owned()),
        ("QUARKUS_HTTP_PORT", port.to_string()),
        ("APICURIO_STORAGE_KIND", "kafkasql".to_owned()),
        ("APICURIO_KAFKASQL_BOOTSTRAP_SERVERS", brokers.to_owned()),
        // At a start it waits this long for snapshots, 5 s by default. One that comes
        // later isn't needed: the whole journal is kept.
        ("APICURIO_KAFKASQL_CONSUMER_POLL_TIMEOUT", "500".to_owned()),
        ("APICURIO_STORAGE_SNAPSHOT_LOCATION", folder.display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let url = format!("http://127.0.0.1:{port}/apis/ccompat/v7");
    Ok(Plan {
        spec,
        // The API itself answers before the journal is read, and knows no schema then.
        check: Check::Http(format!("http://127.0.0.1:{port}/health/ready")),
        url,
        ready_within: READY_WITHIN,
    })
}
