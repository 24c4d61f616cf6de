//! What the tests on the local stack share, not each all of it: the stack, a producer of plausible records, and an
//! auditor that compares the topics with the tables without using the sinks' code.

#![allow(dead_code)]

pub(crate) mod auditor;
pub(crate) mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use events::Codec;
use local::{Component, Service, Stack};
use tokio::sync::{Mutex, MutexGuard};
use wire::admin::Layout;
use wire::config::Registry;

/// One stack at a time: the machine is small.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Kafka, registry and both stores, with topics and schemas, and sinks to start.
pub(crate) struct Bench {
    pub(crate) stack: Stack,
    pub(crate) codec: Codec,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    pub(crate) async fn start() -> Result<Self> {
        let turn = ONE_AT_A_TIME.lock().await;
        let stack = Stack::builder().registry().postgres().clickhouse().start().await?;
        wire::admin::set_up(&stack.brokers(), Layout { partitions: 4, replication: None }).await?;
        let codec = wire::registry::set_up(&Registry { url: stack.registry_url() }).await?;
        Ok(Self { stack, codec, _turn: turn })
    }

    /// Starts another sinks process and waits until it is ready.
    pub(crate) async fn sinks(&self) -> Result<Arc<Component>> {
        let started = self.stack.start_service(Service::Sinks, 1).await?;
        started.into_iter().next().context("one was asked for")
    }

    /// A client of the reports' database.
    pub(crate) fn clickhouse(&self) -> clickhouse::Client {
        clickhouse::Client::default()
            .with_url(self.stack.clickhouse_url())
            .with_user(local::clickhouse::USER)
            .with_password(local::clickhouse::PASSWORD)
            .with_database("tillroll")
            .with_compression(clickhouse::Compression::None)
    }

    pub(crate) async fn postgres(&self) -> Result<tokio_postgres::Client> {
        let (client, connection) =
            tokio_postgres::connect(&self.stack.postgres_url(), tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// The first number of a query's answer.
    pub(crate) async fn number(&self, sql: &str) -> Result<i64> {
        Ok(self.postgres().await?.query_one(sql, &[]).await.with_context(|| sql.to_owned())?.get(0))
    }
}

/// Whether it is ready, and what `/readyz` says.
pub(crate) async fn readiness(component: &Component) -> Result<(bool, String)> {
    let answer = reqwest::get(format!("{}/readyz", component.url())).await?;
    Ok((answer.status().is_success(), answer.text().await?))
}

/// A counter's value over all label sets that hold `labels`.
pub(crate) async fn metric(component: &Component, name: &str, labels: &str) -> Result<f64> {
    let text = reqwest::get(format!("{}/metrics", component.url())).await?.text().await?;
    let lines = text.lines().filter(|l| l.starts_with(name) && l.contains(labels));
    lines.map(|l| Ok(l.rsplit(' ').next().context("a metric has a value")?.parse::<f64>()?)).sum()
}

/// Waits until `check` holds.
pub(crate) async fn until<F: Future<Output = Result<bool>>>(
    what: &str,
    patience: Duration,
    mut check: impl FnMut() -> F,
) -> Result<Duration> {
    let started = Instant::now();
    loop {
        if check().await? {
            return Ok(started.elapsed());
        }
        if started.elapsed() > patience {
            bail!("not within {} s: {what}", patience.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
