//! Where each reader goes on.

use std::time::Duration;

use anyhow::{Context, Result};
use events::topics;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::log::Log;
use crate::store::Store;

/// The sink whose offsets are its group's.
const REPORTS: &str = "reports";
/// The sink that is always there in PostgreSQL.
const TRACKING: &str = "tracking";
const ANSWERS: Duration = Duration::from_secs(15);

/// Where a reader goes on in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Its next offset; `None` if it has read nothing yet.
    pub(super) next: Option<i64>,
}

/// Of the readers whose groups say it. Blocks.
pub(super) fn committed(brokers: &str, processors: &str) -> Result<Vec<Position>> {
    let mut positions = Vec::new();
    let partitions = wire::admin::partitions(brokers)?;
    for (group, topics) in [(processors, topics::INBOXES), (REPORTS, topics::REPORTED)] {
        // Never joins the group: it only asks for its offsets.
        let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "tillroll")
            .set("group.id", group)
            .create()
            .context("no client of Kafka")?;
        let mut asked = TopicPartitionList::new();
        for topic in topics {
            asked.add_partition_range(topic.name, 0, partitions - 1);
        }
        let answer = consumer.committed_offsets(asked, ANSWERS);
        let answer = answer.with_context(|| {
            format!("Kafka does not say how far group {group} is: see whether it is up")
        })?;
        positions.extend(answer.elements().iter().map(|element| Position {
            group: group.to_owned(),
            topic: element.topic().to_owned(),
            partition: element.partition(),
            next: element.offset().to_raw().filter(|offset| *offset >= 0),
        }));
    }
    Ok(positions)
}

/// Of the sinks that keep it in PostgreSQL.
pub(super) async fn stored() -> Result<Vec<Position>> {
    let store = Store::connect().await?;
    let question = "SELECT sink, topic, partition, next_offset FROM sink_offsets";
    let rows = store.rows(question, &[]).await?;
    let position = |row: &tokio_postgres::Row| Position {
        group: row.get(0),
        topic: row.get(1),
        partition: row.get(2),
        next: Some(row.get(3)),
    };
    Ok(rows.iter().map(position).collect())
}

/// With the partitions that a sink of PostgreSQL has not begun. Blocks.
pub(super) fn complete(brokers: &str, stored: Vec<Position>) -> Result<Vec<Position>> {
    let log = Log::connect(brokers)?;
    let mut read: Vec<(String, String)> =
        stored.iter().map(|p| (p.group.clone(), p.topic.clone())).collect();
    let tracked = topics::TRACKED.iter();
    read.extend(tracked.map(|topic| (TRACKING.to_owned(), topic.name.to_owned())));
    read.sort();
    read.dedup();
    let mut all = Vec::new();
    for (group, topic) in read {
        for partition in log.partitions(&topic)? {
            let here =
                |p: &&Position| (&p.group, &p.topic, p.partition) == (&group, &topic, partition);
            let next = stored.iter().find(here).and_then(|known| known.next);
            all.push(Position { group: group.clone(), topic: topic.clone(), partition, next });
        }
    }
    Ok(all)
}
