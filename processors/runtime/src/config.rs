//! Configuration of the processors; see `default.toml` for every setting.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use machines::topology::Processor;
use serde::Deserialize;
use wire::config::{Kafka, Registry};

use crate::payments::Settings;

/// The settings, validated before any connection opens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Unique name among living processes of the group.
    pub instance: String,
    /// Consumer group.
    pub group: String,
    /// Names of the processors to serve.
    pub processors: Vec<String>,
    /// Stream threads.
    pub threads: usize,
    /// State stores.
    pub data_dir: PathBuf,
    /// The operator's port.
    pub operator_listen: SocketAddr,
    /// Kafka.
    pub kafka: Kafka,
    /// Schema registry.
    pub registry: Registry,
    /// When to commit.
    pub commit: Commit,
    /// Calls to courier companies.
    pub couriers: Couriers,
    /// Calls to payment providers.
    pub payments: Settings,
}

/// When to commit.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// With empty inboxes, this long after the last commit, milliseconds.
    pub idle_ms: u64,
    /// Under load, this long after the last commit, milliseconds.
    pub max_ms: u64,
    /// At this many staged bytes.
    pub max_bytes: usize,
}

/// Calls to courier companies.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Couriers {
    /// Calls in flight to one company.
    pub max_in_flight: usize,
}

impl Config {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// Names the setting that is unusable.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let config: Self = wire::config::load(include_str!("default.toml"), file, "PROCESSORS_")?;
        ensure!((1..=64).contains(&config.threads), "threads must be 1 to 64");
        ensure!(!config.instance.is_empty(), "instance must not be empty");
        ensure!(config.couriers.max_in_flight > 0, "couriers.max_in_flight must be positive");
        ensure!(config.payments.max_in_flight > 0, "payments.max_in_flight must be positive");
        ensure!(config.payments.timeout_ms > 0, "payments.timeout_ms must be positive");
        config.served()?;
        Ok(config)
    }

    /// The processors to serve.
    ///
    /// # Errors
    /// When a name is unknown or none is given.
    pub fn served(&self) -> Result<Vec<Processor>> {
        ensure!(!self.processors.is_empty(), "processors must name at least one processor");
        let find = |name: &String| {
            Processor::by_name(name).ok_or_else(|| anyhow::anyhow!("unknown processor {name:?}"))
        };
        self.processors.iter().map(find).collect()
    }
}
