//! Sink `billing`: the ledger, in PostgreSQL. What order-status tells of payments, hand-overs and returns becomes
//! entries between four accounts:
//!
//! | what happened | debit | credit |
//! |---|---|---|
//! | a payment was captured | clearing of its provider | customers |
//! | a payment was refunded | customers | clearing of its provider |
//! | the order was handed to its courier | customers | revenue |
//! | it was given up, or came back | returns | customers |
//! | it was delivered after all | customers | returns |
//!
//! An authorization moves no money and has no entry. An order that is not paid through Tillroll is owed by its
//! customer from the hand-over on.

mod entries;
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
use crate::tracking;
use write::Ledger;

/// Name of the sink, its consumer group and its rows in `sink_offsets`.
pub const NAME: &str = "billing";

/// The files of `migrations/`, embedded.
#[allow(missing_docs, unreachable_pub)]
mod embedded {
    refinery::embed_migrations!("src/billing/migrations");
}

/// The sink.
pub(crate) struct Billing {
    config: tokio_postgres::Config,
    limits: Limits,
}

impl Billing {
    pub(crate) fn new(postgres: &Postgres, batches: Batches) -> Result<Self> {
        Ok(Self { config: postgres::connection(&postgres.url)?, limits: batches.limits() })
    }
}

impl Sink for Billing {
    type Partition = PostgresPartition<Ledger>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn topics(&self) -> &'static [&'static Topic] {
        topics::BILLED
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn migrate(&self) -> Result<(), Failure> {
        // Offsets are in a table of tracking's. The ledger's history of migrations is its own.
        tracking::make_tables(&self.config).await?;
        let mut runner = embedded::migrations::runner();
        runner.set_migration_table_name("ledger_schema_history");
        postgres::migrate(&self.config, runner).await
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
