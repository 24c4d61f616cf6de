//! Configuration: a service's `default.toml`, then a file, then environment variables.
//!
//! `INGEST_KAFKA__BROKERS=…` sets `kafka.brokers` of the service whose prefix is `INGEST_`; `__`
//! separates levels. An unknown key is an error, so a typo is found at start.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use figment::Figment;
use figment::providers::{Env, Format, Toml};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How to reach Kafka.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, comma separated.
    pub brokers: String,
}

/// How to reach the schema registry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Base URL of a Confluent-compatible API.
    pub url: String,
}

/// How to reach PostgreSQL. Its URL holds a password, so it never reaches a log by way of `{:?}`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database`; without TLS.
    pub url: String,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postgres(…)")
    }
}

/// Reads a service's configuration.
///
/// # Errors
/// When the file is missing, a value has the wrong type, or a key is unknown; the message names the
/// key and where it was set.
pub fn load<T: DeserializeOwned>(
    defaults: &str,
    file: Option<&Path>,
    env_prefix: &str,
) -> Result<T> {
    let mut figment = Figment::from(Toml::string(defaults));
    if let Some(file) = file {
        figment = figment.merge(Toml::file_exact(file));
    }
    figment = figment.merge(Env::prefixed(env_prefix).split("__"));
    figment.extract().with_context(|| {
        format!(
            "configuration is unusable; settings come from defaults, --config and {env_prefix}*"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_stays_out_of_debug() {
        let postgres = Postgres { url: "postgres://u:canary@h/d".into() };
        assert!(!format!("{postgres:?}").contains("canary"));
    }
}
