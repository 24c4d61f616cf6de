//! PostgreSQL as the store of sinks: each batch of a partition is one transaction that also moves the partition's
//! row in `sink_offsets` from where it was thought to be; whoever finds it elsewhere writes nothing.

mod partition;

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use refinery::Runner;
use tokio_postgres::NoTls;

pub(crate) use partition::{Batch, PostgresPartition, Session, Tables};

use crate::retry::Failure;

/// Locks migrations against each other: any number that nothing else in the database uses.
const MIGRATION_LOCK: i64 = 0x7469_6c6c_726f_6c6c;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to connect, with what every sink wants of its sessions.
///
/// # Errors
/// When the URL is none; it is not repeated.
pub(crate) fn connection(url: &str) -> Result<tokio_postgres::Config> {
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

pub(crate) async fn connect(
    config: &tokio_postgres::Config,
) -> Result<tokio_postgres::Client, Failure> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(NoTls));
    let (client, connection) =
        connecting.await.map_err(|_| Failure::retry("postgres: no answer to a connection"))??;
    // Ends with the client; its errors reach the client's calls.
    tokio::spawn(connection);
    Ok(client)
}

/// Brings tables to this version; safe to run side by side with others.
///
/// # Errors
/// When PostgreSQL cannot be reached or refuses.
pub(crate) async fn migrate(
    config: &tokio_postgres::Config,
    runner: Runner,
) -> Result<(), Failure> {
    let mut client = connect(config).await?;
    // Held by the session: released at its end, also by a crash.
    client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
    // An older process beside a newer one finds migrations that it doesn't have, and goes on.
    let report = runner.set_abort_missing(false).run_async(&mut client).await.map_err(|error| {
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
