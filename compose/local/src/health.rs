//! Whether a component is ready, and waiting until it is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::process::Process;

const RETRY: Duration = Duration::from_millis(25);
/// One attempt: a paused component accepts connections and never answers.
const ATTEMPT: Duration = Duration::from_secs(2);
const TAIL_LINES: usize = 25;

/// How a component shows that it is ready.
#[derive(Debug, Clone)]
pub enum Check {
    /// GET answers with a 2xx status.
    Http(String),
    /// This node of the cluster is registered, and leads what it should.
    Kafka {
        /// Where this node listens.
        address: SocketAddr,
        /// Its `node.id`.
        node: i32,
    },
    /// The database of this URL answers a query.
    Postgres(String),
}

impl Check {
    /// One attempt.
    ///
    /// # Errors
    /// Why it isn't ready.
    pub async fn attempt(&self) -> Result<()> {
        let attempt = async {
            match self {
                Self::Http(url) => http(url).await,
                Self::Kafka { address, node } => kafka(*address, *node).await,
                Self::Postgres(url) => postgres(url).await,
            }
        };
        match tokio::time::timeout(ATTEMPT, attempt).await {
            Ok(result) => result,
            Err(_) => bail!("no answer within {} s", ATTEMPT.as_secs()),
        }
    }

    /// Waits until `process` is ready.
    ///
    /// # Errors
    /// If it ends, or isn't ready `within` this time; both quote the end of its log.
    pub async fn wait(&self, process: &Process, within: Duration) -> Result<Duration> {
        let name = &process.spec().name;
        let started = Instant::now();
        loop {
            let failure = match self.attempt().await {
                Ok(()) => return Ok(started.elapsed()),
                Err(failure) => failure,
            };
            let tail = || {
                let log = process.spec().log.display();
                format!("the end of {log}:\n{}", process.log_tail(TAIL_LINES))
            };
            if let Some(status) = process.ended() {
                bail!("{name} ended before it was ready ({status}); {}", tail());
            }
            if started.elapsed() > within {
                let seconds = within.as_secs();
                bail!("{name} isn't ready after {seconds} s: {failure:#}; {}", tail());
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn http(url: &str) -> Result<()> {
    let response = reqwest::get(url).await?;
    if !response.status().is_success() {
        let status = response.status();
        let body = response.text().await.unwrap_or_default();
        let start: String = body.chars().take(200).collect();
        bail!("{url} answers {status} {start}");
    }
    Ok(())
}

async fn postgres(url: &str) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let answer = client.simple_query("select 1").await;
    drop(client);
    connection.abort();
    answer.map(drop).context("`select 1` failed")
}

async fn kafka(address: SocketAddr, node: i32) -> Result<()> {
    // librdkafka backs off for longer than a broker takes to come up: look first.
    drop(tokio::net::TcpStream::connect(address).await?);
    let look = tokio::task::spawn_blocking(move || -> Result<()> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", address.to_string())
            .set("client.id", "tillroll-local-health")
            .create()?;
        let metadata = consumer.fetch_metadata(None, Duration::from_millis(1500))?;
        if !metadata.brokers().iter().any(|b| b.id() == node) {
            bail!("broker {node} isn't registered yet");
        }
        for topic in metadata.topics() {
            for partition in topic.partitions() {
                if partition.leader() < 0 && partition.replicas().contains(&node) {
                    bail!("{}-{} has no leader yet", topic.name(), partition.id());
                }
            }
        }
        Ok(())
    });
    look.await.context("the look at the cluster panicked")?
}
