//! Settings: `default.toml`, a file, `INGEST_*`; checked before anything is opened.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Deserialize;

const DEFAULTS: &str = include_str!("default.toml");

/// Every setting; `default.toml` says what each is for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Config {
    pub listen: SocketAddr,
    pub operator_listen: Option<SocketAddr>,
    pub instance: String,
    pub keys_file: PathBuf,
    pub webhook_secrets_file: PathBuf,
    pub idempotency_days: u16,
    pub reservation_seconds: u32,
    pub kafka: wire::config::Kafka,
    pub registry: wire::config::Registry,
    pub postgres: wire::config::Postgres,
    pub tracking: Tracking,
    pub limits: Limits,
    pub recent: Recent,
    pub webhooks: crate::webhooks::Settings,
}

/// How to read the tracking store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Tracking {
    pub connections: usize,
    pub timeout_ms: u64,
}

/// What bounds memory and waiting.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Limits {
    pub connections: usize,
    pub watchers: usize,
    pub merchant_watchers: usize,
    pub heartbeat_ms: u64,
    pub body_bytes: usize,
    pub bodies_bytes: usize,
    pub body_timeout_ms: u64,
    pub queue_records: usize,
    pub queue_bytes: usize,
    pub stalled_after_ms: u64,
    pub answer_within_ms: u64,
    pub message_timeout_ms: u32,
    pub linger_ms: u32,
    pub shutdown_ms: u64,
}

/// What is remembered of the orders topic.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Recent {
    pub window_minutes: u32,
    pub orders: usize,
}

impl Config {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// When one is missing, unknown, of the wrong type or out of range; the message names it.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let config: Self = wire::config::load(DEFAULTS, file, "INGEST_")?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let limits = &self.limits;
        ensure!(
            limits.stalled_after_ms < limits.answer_within_ms
                && limits.answer_within_ms < u64::from(limits.message_timeout_ms),
            "limits must rise: stalled_after_ms < answer_within_ms < message_timeout_ms"
        );
        ensure!(limits.queue_records >= 1000, "limits.queue_records must hold a receipt: 1000 up");
        ensure!(
            limits.watchers < limits.connections,
            "limits.connections must leave room beside limits.watchers"
        );
        ensure!(limits.merchant_watchers > 0, "limits.merchant_watchers must be positive");
        ensure!(limits.heartbeat_ms > 0, "limits.heartbeat_ms must be positive");
        ensure!(limits.body_bytes > 0, "limits.body_bytes must be positive");
        ensure!(self.reservation_seconds > 0, "reservation_seconds must be positive");
        let most = events::topics::MAX_RECORD_BYTES / 2;
        ensure!(limits.body_bytes <= most, "limits.body_bytes must be at most {most}");
        ensure!(self.recent.window_minutes > 0, "recent.window_minutes must be positive");
        ensure!(self.tracking.connections > 0, "tracking.connections must be positive");
        ensure!(self.webhooks.tolerance_s > 0, "webhooks.tolerance_s must be positive");
        Ok(())
    }
}

impl Limits {
    /// How long a body may take to arrive.
    pub fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    /// After this a waiting client hears that the outcome is unknown.
    pub fn answer_within(&self) -> Duration {
        Duration::from_millis(self.answer_within_ms)
    }

    /// An event stream says at least this often that it lives.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// A partition is stalled when its oldest record waits this long.
    pub fn stalled_after(&self) -> Duration {
        Duration::from_millis(self.stalled_after_ms)
    }

    /// How long the end may take.
    pub fn shutdown(&self) -> Duration {
        Duration::from_millis(self.shutdown_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_complete_and_legal() {
        let config = Config::load(None).unwrap();
        assert_eq!(config.limits.body_bytes, 256 * 1024);
        assert!(config.operator_listen.is_none());
        assert!(!format!("{config:?}").contains("postgres://"), "its password must not be logged");
    }

    #[test]
    fn a_typo_and_a_contradiction_are_found_at_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ingest.toml");
        std::fs::write(&file, "[limits]\nbody_byte = 1\n").unwrap();
        let message = format!("{:#}", Config::load(Some(&file)).unwrap_err());
        assert!(message.contains("body_byte"), "{message}");
        std::fs::write(&file, "[limits]\nanswer_within_ms = 20000\n").unwrap();
        let message = format!("{:#}", Config::load(Some(&file)).unwrap_err());
        assert!(message.contains("must rise"), "{message}");
    }
}
