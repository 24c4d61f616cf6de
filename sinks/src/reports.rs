//! Sink `reports`: the history of orders and of stock, in ClickHouse, for analysts.
//!
//! ClickHouse has no transaction with Kafka. So rows are inserted first and the offset is committed
//! after that, and whatever is unsure is inserted again: of the rows of one key a table keeps the one
//! of the highest precedence, however often it came (the views read with FINAL, until it is merged),
//! and [`rows`] folds orders by functions that repetition does not change.
//!
//! Deduplication of blocks by token is not used: ClickHouse 26.7 notes the token before it stores the
//! block, so a server killed in between has lost the block and refuses it from then on.

mod blocks;
mod insert;
mod migrate;
mod partition;
mod rows;

use anyhow::Result;
use clickhouse::{Client, Compression};
use events::topics::{self, Topic};

use crate::batch::Limits;
use crate::config::{Batches, ClickHouse};
use crate::deliver::dead_letters::DeadLetters;
use crate::deliver::log::Log;
use crate::deliver::{Place, Sink};
use crate::retry::Failure;
use partition::ReportsPartition;

/// Name of the sink and its consumer group.
pub const NAME: &str = "reports";

/// The sink.
pub(crate) struct Reports {
    client: Client,
    database: String,
    time_zone: String,
    limits: Limits,
}

impl Reports {
    pub(crate) fn new(clickhouse: &ClickHouse, batches: Batches) -> Self {
        let client = Client::default()
            .with_url(&clickhouse.url)
            .with_user(&clickhouse.user)
            .with_password(&clickhouse.password)
            .with_compression(Compression::None);
        let (database, time_zone) = (clickhouse.database.clone(), clickhouse.time_zone.clone());
        Self { client, database, time_zone, limits: batches.limits() }
    }
}

/// Makes ClickHouse's database and brings its tables to this version; safe to run side by side.
///
/// # Errors
/// When ClickHouse cannot be reached or refuses.
pub async fn migrate(clickhouse: &ClickHouse) -> Result<()> {
    let batches = Batches { batch_records: 1, flush_ms: 1 };
    Ok(Reports::new(clickhouse, batches).migrate().await?)
}

impl Sink for Reports {
    type Partition = ReportsPartition;

    fn name(&self) -> &'static str {
        NAME
    }

    fn topics(&self) -> &'static [&'static Topic] {
        topics::REPORTED
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn migrate(&self) -> Result<(), Failure> {
        migrate::run(&self.client, &self.database, &self.time_zone).await
    }

    async fn open(
        &self,
        place: Place,
        log: &Log,
        dead_letters: &DeadLetters,
    ) -> Result<ReportsPartition, Failure> {
        let client = self.client.clone().with_database(&self.database);
        ReportsPartition::open(client, place, log.clone(), dead_letters.clone()).await
    }
}
