//! Where Kafka and the registry are: flags, then environment variables.

use anyhow::{Context, Result};
use wire::config::Registry;

/// Flags that every command on a cluster has.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    /// Kafka's bootstrap servers, `host:port`, comma separated [env: KAFKA_BROKERS]
    #[arg(long)]
    brokers: Option<String>,
    /// The schema registry's Confluent-compatible base URL [env: SCHEMA_REGISTRY_URL]
    #[arg(long)]
    registry: Option<String>,
}

/// The services' own way to name the two settings is understood too, so that one
/// environment serves a whole installation.
const BROKERS: [&str; 2] = ["KAFKA_BROKERS", "TILLROLL_KAFKA__BROKERS"];
const REGISTRY: [&str; 2] = ["SCHEMA_REGISTRY_URL", "TILLROLL_REGISTRY__URL"];

impl Connection {
    /// Kafka's bootstrap servers.
    ///
    /// # Errors
    /// When neither flag nor environment names any.
    pub(crate) fn brokers(&self) -> Result<String> {
        given(self.brokers.as_deref(), &BROKERS)
            .context("no brokers: give --brokers or set KAFKA_BROKERS")
    }

    /// The registry.
    ///
    /// # Errors
    /// When neither flag nor environment names one.
    pub(crate) fn registry(&self) -> Result<Registry> {
        given(self.registry.as_deref(), &REGISTRY)
            .map(|url| Registry { url: url.trim_end_matches('/').to_owned() })
            .context("no schema registry: give --registry or set SCHEMA_REGISTRY_URL")
    }
}

fn given(flag: Option<&str>, variables: &[&str]) -> Option<String> {
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    flag.map(str::to_owned).or_else(|| variables.iter().find_map(set))
}
