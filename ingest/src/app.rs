//! What the handlers share, once Kafka and the registry were reached.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use events::Codec;
use wire::operator::Readiness;

use crate::config::{Config, Limits};
use crate::database::Database;
use crate::follow::Follower;
use crate::keys::KeyRing;
use crate::publish::Publisher;
use crate::recent::Recent;
use crate::request::BodyBudget;
use crate::tail::Tail;
use crate::watch::Watching;
use crate::webhooks::Webhooks;

/// Receipts, and requests to change orders, that are remembered: far fewer than orders, and known to their own process alone.
const RECEIPTS: usize = 100_000;
/// Events that are remembered, known to their own process alone.
const EVENTS: usize = 200_000;

/// Everything a handler needs.
pub(crate) struct App {
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) codec: Codec,
    pub(crate) publisher: Publisher,
    pub(crate) recent: Arc<Recent>,
    pub(crate) receipts: Recent,
    pub(crate) requests: Recent,
    /// Ids of providers' events.
    pub(crate) events: Recent,
    pub(crate) webhooks: Webhooks,
    pub(crate) database: Database,
    /// Orders that somebody waits for.
    pub(crate) watching: Arc<Watching>,
    pub(crate) bodies: BodyBudget,
    pub(crate) limits: Limits,
    pub(crate) idempotency_days: u16,
    pub(crate) reservation_ms: i64,
    _tail: Follower,
}

impl App {
    /// Looks up partitions and schema ids, then starts producer and tail.
    ///
    /// # Errors
    /// When Kafka or the registry doesn't answer, or a topic is missing.
    pub(crate) async fn start(
        config: &Config,
        keys: Arc<KeyRing>,
        readiness: &Readiness,
    ) -> Result<Self> {
        let brokers = config.kafka.brokers.clone();
        let partitions = tokio::task::spawn_blocking(move || wire::admin::partitions(&brokers))
            .await
            .context("looking up the partitions panicked")??;
        let codec = wire::registry::codec(&config.registry).await?;
        let window = Duration::from_secs(60) * config.recent.window_minutes;
        let recent = Arc::new(Recent::new(window, config.recent.orders));
        let publisher = Publisher::start(config, partitions, readiness.clone())?;
        let tail = Tail::new(config, Arc::clone(&recent), readiness.clone())?;
        let tail = Follower::start(config, partitions, codec.clone(), tail)?;
        let database = Database::new(&config.postgres, &config.tracking)?;
        let watching = Watching::start(config, partitions, codec.clone(), database.clone())?;
        Ok(Self {
            keys,
            codec,
            publisher,
            recent,
            receipts: Recent::new(window, RECEIPTS),
            requests: Recent::new(window, RECEIPTS),
            reservation_ms: i64::from(config.reservation_seconds) * 1000,
            events: Recent::new(window, EVENTS),
            webhooks: Webhooks::new(config)?,
            database,
            watching: Arc::new(watching),
            bodies: BodyBudget::new(config.limits.bodies_bytes),
            limits: config.limits.clone(),
            idempotency_days: config.idempotency_days,
            _tail: tail,
        })
    }
}
