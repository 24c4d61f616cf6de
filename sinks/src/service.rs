//! The process: which sinks run, how they start, and the order in which they stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Handle;
use tokio::sync::watch;
use wire::operator::Readiness;

use crate::billing::{self, Billing};
use crate::config::Config;
use crate::deliver::Sink;
use crate::deliver::health::Health;
use crate::deliver::member::{self, Settings};
use crate::reports::{self, Reports};
use crate::retry::{Backoff, Failure, Verdict};
use crate::tracking::{self, Tracking};

/// One of the sinks, as chosen by a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// State and history of orders and stock, into PostgreSQL.
    Tracking,
    /// History of orders for analysts, into ClickHouse.
    Reports,
    /// The ledger of payments and revenue, into PostgreSQL.
    Billing,
}

impl Role {
    /// Every sink.
    pub const ALL: [Self; 3] = [Self::Tracking, Self::Reports, Self::Billing];

    fn name(self) -> &'static str {
        match self {
            Self::Tracking => tracking::NAME,
            Self::Reports => reports::NAME,
            Self::Billing => billing::NAME,
        }
    }
}

/// Runs the sinks until `shutdown` says true, then finishes their batches and leaves their groups.
/// Stores and registry may be down, at the start and later: readiness says so, and all goes on once
/// they are back.
///
/// # Errors
/// When the operator's port cannot be opened, or a sink ends by itself: another process has its
/// instance name, or its tables cannot be brought to this version.
pub async fn run(config: Config, roles: &[Role], shutdown: watch::Receiver<bool>) -> Result<()> {
    let checks: Vec<&'static str> = roles.iter().map(|role| role.name()).collect();
    let readiness = Readiness::starting(&checks);
    wire::operator::serve(config.operator_listen, readiness.clone()).await?;
    let mut sinks = tokio::task::JoinSet::new();
    for role in roles {
        let health = Health::starting(readiness.clone(), role.name());
        let (config, shutdown) = (config.clone(), shutdown.clone());
        match role {
            Role::Tracking => {
                let sink = Tracking::new(&config.postgres, config.tracking)?;
                sinks.spawn(one(Arc::new(sink), config, health, shutdown));
            }
            Role::Reports => {
                let sink = Reports::new(&config.clickhouse, config.reports);
                sinks.spawn(one(Arc::new(sink), config, health, shutdown));
            }
            Role::Billing => {
                let sink = Billing::new(&config.postgres, config.billing)?;
                sinks.spawn(one(Arc::new(sink), config, health, shutdown));
            }
        }
    }
    let mut leaving = shutdown.clone();
    tokio::spawn(async move {
        let _ = leaving.wait_for(|shutdown| *shutdown).await;
        checks.iter().for_each(|check| readiness.fail(check, "shutting down"));
    });
    // The first that ends by itself ends the process: its supervisor starts it anew.
    while let Some(ended) = sinks.join_next().await {
        ended.context("a sink panicked")??;
    }
    Ok(())
}

/// One sink: migrates its store, then is a member of its group.
async fn one<S: Sink>(
    sink: Arc<S>,
    config: Config,
    health: Health,
    shutdown: watch::Receiver<bool>,
) -> Result<()> {
    let name = sink.name();
    let mut stop = shutdown.clone();
    let getting_ready = async {
        persist(&health, || sink.migrate()).await?;
        // The registry is asked once; what is unknown then is learnt record by record.
        persist(&health, || async {
            let codec = wire::registry::codec(&config.registry).await;
            codec.map_err(|e| Failure::retry(format!("{e:#}")))
        })
        .await
    };
    let codec = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
        codec = getting_ready => codec?,
    };
    health.problem("group", "joining");
    let settings = Settings {
        brokers: config.kafka.brokers,
        registry: config.registry,
        instance: config.instance,
        codec,
    };
    let runtime = Handle::current();
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name(format!("group-{name}"))
        .spawn(move || {
            let outcome = member::run(&sink, &settings, &health, &runtime, &shutdown);
            let _ = done.send(outcome);
        })
        .context("the group's thread cannot be started")?;
    let outcome =
        outcome.await.with_context(|| format!("the group's thread of {name} panicked"))?;
    tracing::info!(sink = name, "ended");
    outcome.with_context(|| format!("sink {name} ended"))
}

/// Tries until it works.
async fn persist<T, F: Future<Output = Result<T, Failure>>>(
    health: &Health,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let mut backoff = Backoff::default();
    loop {
        let failure = match attempt().await {
            Ok(outcome) => return Ok(outcome),
            Err(failure) => failure,
        };
        if failure.verdict == Verdict::Stop {
            return Err(failure.into());
        }
        if backoff.fresh() {
            tracing::warn!(%failure, "cannot start yet, will try again");
        }
        health.problem("group", &failure.reason);
        tokio::time::sleep(backoff.next().min(Duration::from_secs(2))).await;
    }
}
