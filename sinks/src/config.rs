//! Configuration: `default.toml`, then a file, then `SINKS_*` environment variables.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Deserialize;
use wire::config::{Kafka, Postgres, Registry};

use crate::batch::Limits;

/// Most records a batch may hold, whatever is configured: bounds memory.
const MOST_RECORDS: usize = 500_000;

/// Settings of the process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Static member id of this process in its consumer groups; unique among living processes.
    pub instance: String,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub operator_listen: SocketAddr,
    /// The log.
    pub kafka: Kafka,
    /// The schema registry.
    pub registry: Registry,
    /// Where tracking and billing write.
    pub postgres: Postgres,
    /// Where reports writes.
    pub clickhouse: ClickHouse,
    /// Batches of tracking.
    pub tracking: Batches,
    /// Batches of reports.
    pub reports: Batches,
    /// Batches of billing.
    pub billing: Batches,
}

/// How to reach ClickHouse.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouse {
    /// Base URL of the HTTP interface.
    pub url: String,
    /// User who may create tables in the database and insert.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Database of all tables and views; made if it is missing.
    pub database: String,
    /// The shop's time zone, a name of the IANA database: what reports call a local day.
    pub time_zone: String,
}

/// When a sink writes.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batches {
    /// Most records of a batch.
    pub batch_records: usize,
    /// Least time between the beginnings of two batches, milliseconds; up to five times as long
    /// after one that the store was slow to take.
    pub flush_ms: u64,
}

impl Batches {
    pub(crate) fn limits(self) -> Limits {
        Limits { records: self.batch_records, interval: Duration::from_millis(self.flush_ms) }
    }
}

// URLs and passwords are secrets: they never reach a log by way of `{:?}`.
impl fmt::Debug for ClickHouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClickHouse(database {})", self.database)
    }
}

/// Reads the configuration and checks it before any connection is opened.
///
/// # Errors
/// When a value is unusable or a key unknown; the message names it.
pub fn load(file: Option<&Path>) -> Result<Config> {
    let config: Config = wire::config::load(include_str!("default.toml"), file, "SINKS_")?;
    let batches =
        [("tracking", config.tracking), ("reports", config.reports), ("billing", config.billing)];
    for (name, batches) in batches {
        let records = batches.batch_records;
        ensure!(
            (1..=MOST_RECORDS).contains(&records),
            "{name}.batch_records is {records}: use 1 to {MOST_RECORDS}"
        );
    }
    ensure!(!config.instance.is_empty(), "instance is empty: name this process");
    let database = &config.clickhouse.database;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    ensure!(
        !database.is_empty() && database.chars().all(plain),
        "clickhouse.database is {database:?}: use letters, digits and _"
    );
    let zone = &config.clickhouse.time_zone;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '+' | '-');
    ensure!(
        !zone.is_empty() && zone.chars().all(plain),
        "clickhouse.time_zone is {zone:?}: use a name like Europe/London"
    );
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_complete_and_secrets_stay_out_of_debug() {
        let mut config: Config =
            wire::config::load(include_str!("default.toml"), None, "SINKS_TEST_").unwrap();
        config.postgres.url = "postgres://u:canary@h/d".into();
        config.clickhouse.password = "canary".into();
        assert_eq!(config.tracking.batch_records, 5000);
        assert!(!format!("{config:?}").contains("canary"));
    }
}
