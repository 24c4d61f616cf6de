//! `tillroll reports`: what an operator does to the reports' store.
//!
//! A backfill makes the sink read the log from its beginning. Rows keep their keys, so those that are there are
//! replaced and the views show each once all the time.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use events::topics::REPORTED;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::output;
use crate::report::query::Database;

/// The sink's consumer group.
const GROUP: &str = "reports";
/// Tables that are filled from the log.
const TABLES: [&str; 4] = ["order_lines", "order_events", "order_states", "stock_movements"];
const TIMEOUT: Duration = Duration::from_secs(15);

/// `tillroll reports …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Fill the reports from the log again; the sink `reports` must be stopped meanwhile
    #[command(after_help = "\
Examples:
  tillroll reports backfill --user tillroll             rows are replaced, reports stay readable
  tillroll reports backfill --user tillroll --empty     tables are emptied first

Stop every `tillroll-sinks --sink reports` first, and start it again afterwards: it reads the log from
its beginning. The user must be one who may change tables; its password comes from
CLICKHOUSE_PASSWORD. Safe to repeat.")]
    Backfill {
        /// Kafka's bootstrap servers [env: KAFKA_BROKERS]
        #[arg(long)]
        brokers: Option<String>,
        #[command(flatten)]
        database: Database,
        /// Empty the tables first: reports show nothing until the sink has caught up
        #[arg(long)]
        empty: bool,
    },
    /// Enter exchange rates for totals across currencies
    #[command(after_help = "\
Example of the file:
  day,currency,into,rate
  2026-11-01,EUR,GBP,0.87

A rate holds from its day on, until the next one of the same pair. The last one entered counts. The user
must be one who may insert.

Example:
  tillroll reports rates rates.csv --user tillroll")]
    Rates {
        #[command(flatten)]
        database: Database,
        /// The rates, CSV
        file: PathBuf,
    },
}

/// Runs the command.
///
/// # Errors
/// When the sink still runs, or Kafka or ClickHouse does not answer or refuses.
pub(crate) async fn run(command: Command) -> Result<()> {
    match command {
        Command::Backfill { brokers, database, empty } => {
            let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
            let brokers = brokers
                .or_else(|| set("KAFKA_BROKERS"))
                .or_else(|| set("TILLROLL_KAFKA__BROKERS"))
                .context("no brokers: give --brokers or set KAFKA_BROKERS")?;
            backfill(brokers, &database, empty).await
        }
        Command::Rates { database, file } => {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let header = text.lines().next().unwrap_or_default();
            ensure!(
                header.trim() == "day,currency,into,rate",
                "{}: the first line must be day,currency,into,rate",
                file.display()
            );
            let rows = text.lines().filter(|line| !line.trim().is_empty()).count() - 1;
            let insert =
                "INSERT INTO exchange_rates (day, currency, into, rate) FORMAT CSVWithNames";
            database.send(&[("query", insert), ("async_insert", "0")], text).await?;
            output::message(&format!("rates: {rows}"));
            Ok(())
        }
    }
}

async fn backfill(brokers: String, database: &Database, empty: bool) -> Result<()> {
    // First: Kafka refuses while the sink runs, and then nothing was changed.
    let records = tokio::task::spawn_blocking(move || rewind(&brokers)).await??;
    if empty {
        for table in TABLES {
            database.send(&[], format!("TRUNCATE TABLE {table}")).await?;
        }
    }
    output::message(&format!("{records} records to read again: start the sink `reports` now"));
    Ok(())
}

/// Moves the group to the beginning of its topics; returns the records that are to be read.
fn rewind(brokers: &str) -> Result<i64> {
    let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "tillroll")
        .set("group.id", GROUP)
        .create()
        .context("no client of Kafka")?;
    let mut list = TopicPartitionList::new();
    let mut records = 0;
    for topic in REPORTED.iter().map(|topic| topic.name) {
        let metadata = consumer
            .fetch_metadata(Some(topic), TIMEOUT)
            .with_context(|| format!("Kafka does not answer at {brokers}"))?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        for partition in partitions.map(|partition| partition.id()) {
            let (first, end) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
            list.add_partition_offset(topic, partition, Offset::Offset(first))?;
            records += end - first;
        }
    }
    ensure!(list.count() > 0, "topic {} is missing: run `tillroll setup`", REPORTED[0].name);
    consumer.commit(&list, CommitMode::Sync).context(
        "Kafka does not move the group `reports`: stop the sink first, and wait ten seconds if it \
         was killed",
    )?;
    Ok(records)
}
