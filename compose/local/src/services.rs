//! Our own services: where their binaries are and which environment each gets.
//!
//! Every setting is an environment variable named `<SERVICE>_<SECTION>__<KEY>`;
//! one function per service below sets them, and nothing else does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::component::Plan;
use crate::health::Check;
use crate::ports::Ports;
use crate::process::Spec;
use crate::{clickhouse, payment};

const READY_WITHIN: Duration = Duration::from_secs(90);
/// Ports that are easy to remember, for the first instance of each, if they are free.
const INGEST_PORT: u16 = 8080;

/// Every binary that a whole stack needs.
pub const BINARIES: [&str; 7] = [
    "clickhouse-server-local",
    "courier-simulator",
    "payment-simulator",
    "tillroll-ingest",
    "tillroll-processors",
    "tillroll-sinks",
    "tillroll",
];

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// One of our services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// The HTTP API.
    Ingest,
    /// Every processor.
    Processors,
    /// Every sink.
    Sinks,
}

impl Service {
    /// `ingest`; its instances are `ingest-1`, `ingest-2`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Processors => "processors",
            Self::Sinks => "sinks",
        }
    }

    fn binary(self) -> &'static str {
        match self {
            Self::Ingest => "tillroll-ingest",
            Self::Processors => "tillroll-processors",
            Self::Sinks => "tillroll-sinks",
        }
    }
}

/// Where the components of a stack are; absent ones are empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    pub(crate) brokers: String,
    pub(crate) registry: String,
    pub(crate) postgres: String,
    pub(crate) clickhouse: String,
    pub(crate) couriers: String,
    pub(crate) payments: String,
    pub(crate) keys_file: PathBuf,
}

/// One instance of a service, with `overrides` on top of what it normally gets.
pub(crate) fn plan(
    service: Service,
    instance: usize,
    data: &Path,
    ports: &Ports,
    addresses: &Addresses,
    overrides: &Environment,
) -> Result<Plan> {
    let name = format!("{}-{instance}", service.name());
    let port = match (service, instance) {
        (Service::Ingest, 1) => first_ingest_port(ports)?,
        _ => ports.get(&name)?,
    };
    let folder = data.join(&name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let log = crate::stack::log_file(data, &name);
    let mut spec = Spec::new(&name, binary(service.binary())?, &folder, log);
    let instance = Instance { name: &name, port, folder: &folder };
    spec.env = match service {
        Service::Ingest => ingest(&instance, addresses),
        Service::Processors => processors(&instance, addresses),
        Service::Sinks => sinks(&instance, addresses),
    };
    match service {
        Service::Ingest => spec.env.extend(payment::ingest(&addresses.payments)),
        Service::Processors => spec.env.extend(payment::processors(&addresses.payments)),
        Service::Sinks => {}
    }
    spec.env.extend(overrides.clone());
    let url = format!("http://127.0.0.1:{port}");
    Ok(Plan { spec, check: Check::Http(format!("{url}/readyz")), url, ready_within: READY_WITHIN })
}

/// Where the first ingest process is, or will be.
pub(crate) fn first_ingest_port(ports: &Ports) -> Result<u16> {
    const NAME: &str = "ingest-1";
    ports.prefer(NAME, INGEST_PORT);
    ports.get(NAME)
}

struct Instance<'a> {
    name: &'a str,
    port: u16,
    folder: &'a Path,
}

impl Instance<'_> {
    fn listen(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn ingest(instance: &Instance<'_>, addresses: &Addresses) -> Environment {
    environment([
        ("INGEST_LISTEN", instance.listen()),
        ("INGEST_INSTANCE", instance.name.to_owned()),
        ("INGEST_KAFKA__BROKERS", addresses.brokers.clone()),
        ("INGEST_REGISTRY__URL", addresses.registry.clone()),
        ("INGEST_POSTGRES__URL", addresses.postgres.clone()),
        ("INGEST_KEYS_FILE", addresses.keys_file.display().to_string()),
    ])
}

fn processors(instance: &Instance<'_>, addresses: &Addresses) -> Environment {
    environment([
        ("PROCESSORS_OPERATOR_LISTEN", instance.listen()),
        ("PROCESSORS_INSTANCE", instance.name.to_owned()),
        ("PROCESSORS_DATA_DIR", instance.folder.join("state").display().to_string()),
        ("PROCESSORS_KAFKA__BROKERS", addresses.brokers.clone()),
        ("PROCESSORS_REGISTRY__URL", addresses.registry.clone()),
    ])
}

fn sinks(instance: &Instance<'_>, addresses: &Addresses) -> Environment {
    environment([
        ("SINKS_OPERATOR_LISTEN", instance.listen()),
        ("SINKS_INSTANCE", instance.name.to_owned()),
        ("SINKS_KAFKA__BROKERS", addresses.brokers.clone()),
        ("SINKS_REGISTRY__URL", addresses.registry.clone()),
        ("SINKS_POSTGRES__URL", addresses.postgres.clone()),
        ("SINKS_CLICKHOUSE__URL", addresses.clickhouse.clone()),
        ("SINKS_CLICKHOUSE__USER", clickhouse::USER.to_owned()),
        ("SINKS_CLICKHOUSE__PASSWORD", clickhouse::PASSWORD.to_owned()),
        // The shop of the shipped invoices is British.
        ("SINKS_CLICKHOUSE__TIME_ZONE", "Europe/London".to_owned()),
    ])
}

/// What `tillroll` gets, for `tillroll setup` and for an operator's shell.
pub(crate) fn operator(addresses: &Addresses) -> Environment {
    environment([
        ("TILLROLL_KAFKA__BROKERS", addresses.brokers.clone()),
        ("TILLROLL_REGISTRY__URL", addresses.registry.clone()),
        ("TILLROLL_POSTGRES__URL", addresses.postgres.clone()),
        ("TILLROLL_CLICKHOUSE__URL", addresses.clickhouse.clone()),
        ("TILLROLL_CLICKHOUSE__USER", clickhouse::READER.to_owned()),
        ("TILLROLL_CLICKHOUSE__PASSWORD", clickhouse::READER_PASSWORD.to_owned()),
        ("TILLROLL_KEYS_FILE", addresses.keys_file.display().to_string()),
    ])
}

/// Leaves out what the stack doesn't have: the service's own default holds, or its error.
fn environment<const N: usize>(variables: [(&str, String); N]) -> Environment {
    variables
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// One of our binaries: next to the running one (also for tests, which cargo puts
/// a folder deeper), or in `$CARGO_TARGET_DIR/release`.
///
/// # Errors
/// If it is in neither place: the message says how to build it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let us = std::env::current_exe().context("cannot tell where this program is")?;
    let mut folders: Vec<PathBuf> = us.ancestors().skip(1).take(2).map(Path::to_owned).collect();
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        folders.push(Path::new(&target).join("release"));
    }
    if let Some(path) = folders.iter().map(|f| f.join(name)).find(|path| path.is_file()) {
        return Ok(path);
    }
    let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    bail!("`{name}` isn't in {}; build it with: cargo build --release", looked.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_components_set_no_variable() {
        let addresses = Addresses { brokers: "127.0.0.1:9".to_owned(), ..Default::default() };
        let set = operator(&addresses);
        assert_eq!(set.get("TILLROLL_KAFKA__BROKERS").map(String::as_str), Some("127.0.0.1:9"));
        assert!(!set.contains_key("TILLROLL_POSTGRES__URL"));
    }

    #[test]
    fn a_missing_binary_is_named_with_its_cure() {
        let message = binary("tillroll-nothing").expect_err("no such binary").to_string();
        assert!(message.contains("cargo build --release"), "{message}");
    }
}
