//! Reads topics of the log from somewhere to what is their end now, committed records only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

/// Longest wait for one answer of Kafka's.
const ANSWERS: Duration = Duration::from_secs(15);
/// Longest wait for transactions that are open: their time-out, the broker's sweep, and room.
const OPEN_TRANSACTIONS: Duration = Duration::from_secs(30);

/// A reader of the log. Belongs to no group and commits nothing. Every call blocks.
pub(crate) struct Log {
    consumer: BaseConsumer,
    /// Sees what is not committed yet: where the log really ends.
    uncommitted: BaseConsumer,
    brokers: String,
}

/// First offset of a partition, and the one behind its last.
pub(crate) type Bounds = (i64, i64);

impl Log {
    /// A reader; asks nothing yet.
    ///
    /// # Errors
    /// When librdkafka makes no client of these brokers.
    pub(crate) fn connect(brokers: &str) -> Result<Self> {
        let client = |isolation| {
            wire::client::assigned_consumer(brokers, "tillroll")
                .set("isolation.level", isolation)
                // An end of a partition is told when a fetch comes back empty.
                .set("fetch.wait.max.ms", "10")
                .create()
                .context("no client of Kafka")
        };
        let (consumer, uncommitted) = (client("read_committed")?, client("read_uncommitted")?);
        Ok(Self { consumer, uncommitted, brokers: brokers.to_owned() })
    }

    /// The partitions of a topic.
    ///
    /// # Errors
    /// When Kafka does not answer, or there is no such topic.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let metadata =
            self.consumer.fetch_metadata(Some(topic), ANSWERS).with_context(|| self.silent())?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let found = found.filter(|topic| topic.error().is_none());
        let ids: Vec<i32> =
            found.into_iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect();
        ensure!(!ids.is_empty(), "topic {topic} is missing: run `tillroll setup`");
        Ok(ids)
    }

    /// Where committed records begin and end.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub(crate) fn bounds(&self, topic: &str, partition: i32) -> Result<Bounds> {
        let bounds = self.consumer.fetch_watermarks(topic, partition, ANSWERS);
        bounds.with_context(|| self.silent())
    }

    /// As [`Log::bounds`], once every transaction is over that is open now: whatever was committed before
    /// the call stands before the end.
    ///
    /// # Errors
    /// When Kafka does not answer, or a transaction stays open.
    pub(crate) fn settled_bounds(&self, topic: &str, partition: i32) -> Result<Bounds> {
        let ends = self.uncommitted.fetch_watermarks(topic, partition, ANSWERS);
        let (_, end) = ends.with_context(|| self.silent())?;
        let began = Instant::now();
        loop {
            let bounds = self.bounds(topic, partition)?;
            if bounds.1 >= end {
                return Ok(bounds);
            }
            ensure!(
                began.elapsed() < OPEN_TRANSACTIONS,
                "a transaction stays open in {topic}-{partition}: see whether a process hangs, try \
                 again"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// In every partition of a topic the offset of the first record that was appended at this moment or
    /// later; the end where there is none.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub(crate) fn at(&self, topic: &str, at_ms: i64) -> Result<BTreeMap<i32, i64>> {
        let mut asked = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            asked.add_partition_offset(topic, partition, Offset::Offset(at_ms))?;
        }
        let found = self.consumer.offsets_for_times(asked, ANSWERS);
        let found = found.with_context(|| self.silent())?;
        let mut offsets = BTreeMap::new();
        for element in found.elements() {
            let partition = element.partition();
            let offset = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => self.bounds(topic, partition)?.1,
            };
            offsets.insert(partition, offset);
        }
        Ok(offsets)
    }

    /// Shows the records of a topic from these offsets up to these ends, partition by partition in order,
    /// partitions mixed, until `seen` wants no more of a partition.
    ///
    /// # Errors
    /// When Kafka is silent for 15 s, or records are gone before they were read.
    pub(crate) fn read(
        &self,
        topic: &str,
        ranges: &BTreeMap<i32, (i64, i64)>,
        mut seen: impl FnMut(&BorrowedMessage<'_>) -> Wanted,
    ) -> Result<()> {
        let mut open: BTreeMap<i32, i64> = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for (partition, (from, end)) in ranges.iter().filter(|(_, (from, end))| from < end) {
            list.add_partition_offset(topic, *partition, Offset::Offset(*from))?;
            open.insert(*partition, *end);
        }
        if open.is_empty() {
            return Ok(());
        }
        self.consumer.assign(&list)?;
        let mut heard = Instant::now();
        while !open.is_empty() {
            ensure!(heard.elapsed() < ANSWERS, self.silent());
            match self.consumer.poll(Duration::from_millis(100)) {
                None => continue,
                Some(Ok(message)) => {
                    if let Some(end) = open.get(&message.partition()).copied()
                        && (message.offset() >= end
                            || seen(&message) == Wanted::Enough
                            || message.offset() + 1 == end)
                    {
                        open.remove(&message.partition());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) => {
                    gone(topic, &error)?;
                    continue;
                }
            }
            heard = Instant::now();
        }
        self.consumer.unassign()?;
        Ok(())
    }

    fn silent(&self) -> String {
        let brokers = &self.brokers;
        format!("Kafka does not answer at {brokers}: check --brokers, and that it is up")
    }
}

/// Whether more of a partition is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Go on.
    More,
    /// Pass over the rest of this partition.
    Enough,
}

/// Brokers come and go: librdkafka goes on by itself, unless what was asked for is not there.
fn gone(topic: &str, error: &KafkaError) -> Result<()> {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
            bail!("records of {topic} were removed while they were read: try again")
        }
        _ => Ok(()),
    }
}
