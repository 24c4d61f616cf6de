//! Sink `tracking`: the state and history of orders and stock, in PostgreSQL.
//!
//! Each batch of a partition is one transaction that also moves the partition's row in
//! `sink_offsets` from where it was thought to be: whoever finds it elsewhere writes nothing.

mod partition;
mod rows;
mod statements;
mod write;

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use events::topics::{self, Topic};
use tokio_postgres::NoTls;
use wire::config::Postgres;

use crate::batch::Limits;
use crate::config::Batches;
use crate::deliver::dead_letters::DeadLetters;
use crate::deliver::log::Log;
use crate::deliver::{Place, Sink};
use crate::retry::Failure;
use partition::TrackingPartition;

/// Name of the sink, its consumer group and its rows in `sink_offsets`.
pub const NAME: &str = "tracking";

/// Locks migrations against each other: any number that nothing else in the database uses.
const MIGRATION_LOCK: i64 = 0x7469_6c6c_726f_6c6c;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The files of `migrations/`, embedded.
#[allow(missing_docs, unreachable_pub)]
mod embedded {
    refinery::embed_migrations!("src/tracking/migrations");
}

/// The sink.
pub(crate) struct Tracking {
    config: tokio_postgres::Config,
    limits: Limits,
}

impl Tracking {
    pub(crate) fn new(postgres: &Postgres, batches: Batches) -> Result<Self> {
        Ok(Self { config: connection(&postgres.url)?, limits: batches.limits() })
    }
}

/// Brings PostgreSQL's tables to this version; safe to run side by side with others.
///
/// # Errors
/// When PostgreSQL cannot be reached or refuses.
pub async fn migrate(postgres: &Postgres) -> Result<()> {
    let batches = Batches { batch_records: 1, flush_ms: 1 };
    Ok(Tracking::new(postgres, batches)?.migrate().await?)
}

fn connection(url: &str) -> Result<tokio_postgres::Config> {
    // The parser's error doesn't quote the URL, which holds a password.
    let mut config = tokio_postgres::Config::from_str(url)
        .context("postgres.url is not postgres://user:password@host:port/database")?;
    let options = config.get_options().unwrap_or_default();
    // Rows and offset vanish together in a crash of the server, so waiting for its disk is no use.
    let options = format!("{options} -c synchronous_commit=off");
    config.options(options.trim()).connect_timeout(CONNECT_TIMEOUT);
    if config.get_application_name().is_none() {
        config.application_name("tillroll-sinks");
    }
    Ok(config)
}

async fn connect(config: &tokio_postgres::Config) -> Result<tokio_postgres::Client, Failure> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(NoTls));
    let (client, connection) =
        connecting.await.map_err(|_| Failure::retry("postgres: no answer to a connection"))??;
    // Ends with the client; its errors reach the client's calls.
    tokio::spawn(connection);
    Ok(client)
}

impl Sink for Tracking {
    type Partition = TrackingPartition;

    fn name(&self) -> &'static str {
        NAME
    }

    fn topics(&self) -> &'static [&'static Topic] {
        topics::TRACKED
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn migrate(&self) -> Result<(), Failure> {
        let mut client = connect(&self.config).await?;
        // Held by the session: released at its end, also by a crash.
        client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
        // An older process beside a newer one finds migrations that it doesn't have, and goes on.
        let runner = embedded::migrations::runner().set_abort_missing(false);
        let report = runner.run_async(&mut client).await.map_err(|error| {
            let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
            while let Some(inner) = source {
                if let Some(e) = inner.downcast_ref::<tokio_postgres::Error>() {
                    let verdict = crate::retry::postgres(e.code());
                    return Failure { verdict, reason: format!("postgres: migration: {e}") };
                }
                source = inner.source();
            }
            Failure::stop(format!("postgres: migration: {error}"))
        })?;
        for migration in report.applied_migrations() {
            tracing::info!(%migration, "applied to postgres");
        }
        client.execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK]).await?;
        Ok(())
    }

    async fn open(
        &self,
        place: Place,
        log: &Log,
        dead_letters: &DeadLetters,
    ) -> Result<TrackingPartition, Failure> {
        TrackingPartition::open(self.config.clone(), place, log, dead_letters.clone()).await
    }
}
