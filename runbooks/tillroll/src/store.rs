//! PostgreSQL, as the operator's commands ask it. Its URL holds a password, so it comes from the environment
//! alone: flags are seen by others.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};

/// The services' own ways to name the setting are understood too.
const URL: [&str; 4] =
    ["POSTGRES_URL", "TILLROLL_POSTGRES__URL", "SINKS_POSTGRES__URL", "INGEST_POSTGRES__URL"];
/// Longest wait for a connection, and for an answer.
const ANSWERS: Duration = Duration::from_secs(5);

/// The tracking store.
pub(crate) struct Store {
    client: Client,
}

impl Store {
    /// Connects.
    ///
    /// # Errors
    /// When no address is set, or PostgreSQL does not answer or refuses.
    pub(crate) async fn connect() -> Result<Self> {
        let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = URL.iter().find_map(set);
        let url = url
            .context("no PostgreSQL: set POSTGRES_URL (postgres://user:password@host/database)")?;
        // The parser's own message would quote the URL.
        let config: Option<Config> = url.parse().ok();
        let mut config = config.context(
            "POSTGRES_URL is no URL of PostgreSQL: postgres://user:password@host/database",
        )?;
        config.connect_timeout(ANSWERS).application_name("tillroll");
        let connecting = tokio::time::timeout(ANSWERS, config.connect(NoTls)).await;
        let (client, connection) = connecting
            .context("PostgreSQL does not answer in 5 s: see whether it is up")?
            .context("PostgreSQL cannot be reached: see whether it is up, and POSTGRES_URL")?;
        // Its error, if there is one, is that of the question which is open then.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { client })
    }

    /// The rows that a question finds.
    ///
    /// # Errors
    /// When PostgreSQL does not answer in 5 s, or refuses.
    pub(crate) async fn rows(
        &self,
        question: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let asked = tokio::time::timeout(ANSWERS, self.client.query(question, parameters)).await;
        asked
            .context("PostgreSQL does not answer in 5 s: see whether it is overloaded")?
            .context("PostgreSQL refuses: were the sinks started once, which make its tables?")
    }
}
