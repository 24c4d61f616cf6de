//! Sink `tracking`: the state and history of orders and stock, in PostgreSQL.
//!
//! Each batch of a partition is one transaction that also moves the partition's row in
//! `sink_offsets` from where it was thought to be: whoever finds it elsewhere writes nothing.

mod rows;
mod statements;
mod write;

use anyhow::Result;
use events::topics::{self, Topic};
use wire::config::Postgres;

use crate::batch::Limits;
use crate::config::Batches;
use crate::deliver::dead_letters::DeadLetters;
use crate::deliver::log::Log;
use crate::deliver::{Place, Sink};
use crate::postgres::{self, PostgresPartition};
use crate::retry::Failure;
use write::Live;

/// Name of the sink, its consumer group and its rows in `sink_offsets`.
pub const NAME: &str = "tracking";

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
    pub(crate) fn new(store: &Postgres, batches: Batches) -> Result<Self> {
        Ok(Self { config: postgres::connection(&store.url)?, limits: batches.limits() })
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

/// Brings the tables of tracking, and `sink_offsets`, to this version.
pub(crate) async fn make_tables(config: &tokio_postgres::Config) -> Result<(), Failure> {
    postgres::migrate(config, embedded::migrations::runner()).await
}

impl Sink for Tracking {
    type Partition = PostgresPartition<Live>;

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
        make_tables(&self.config).await
    }

    async fn open(
        &self,
        place: Place,
        log: &Log,
        dead_letters: &DeadLetters,
    ) -> Result<Self::Partition, Failure> {
        PostgresPartition::open(self.config.clone(), place, log, dead_letters.clone()).await
    }
}
