//! Reads changelogs: what is committed, from offset to offset, and where they end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use machines::footer::BATCH_HEADER;
use machines::restore::Entry;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use stream::{Changelog, Changelogs};

use crate::inbox::Member;

/// Longest silence while reading a changelog that has an end.
const SILENCE: Duration = Duration::from_secs(15);
/// Longest wait for the ends of a log, and for who leads it.
const WATERMARKS: Duration = Duration::from_secs(3);

/// Two consumers of a stream thread, for changelogs only.
pub struct Reader {
    committed: BaseConsumer,
    /// Reads uncommitted: `fetch_watermarks` answers by its client's isolation level.
    probe: BaseConsumer,
}

impl Reader {
    /// Connects.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn connect(member: &Member) -> Result<Self> {
        let mut client = wire::client::assigned_consumer(&member.brokers, &member.instance);
        // A changelog has an end, and a takeover waits for its fetch to say so.
        client.set("fetch.wait.max.ms", "5");
        let committed = client.create()?;
        let probe = client.set("isolation.level", "read_uncommitted").create()?;
        Ok(Self { committed, probe })
    }

    fn read_assigned(
        &self,
        log: &Changelog,
        end: i64,
        mut visit: impl FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut heard = Instant::now();
        loop {
            match self.committed.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if message.topic() != log.topic || message.partition() != log.partition {
                        continue;
                    }
                    if message.offset() >= end {
                        return Ok(());
                    }
                    visit(entry(&message))?;
                    if message.offset() + 1 >= end {
                        return Ok(());
                    }
                }
                // Only markers are left before the end.
                Some(Err(KafkaError::PartitionEOF(partition))) if partition == log.partition => {
                    return Ok(());
                }
                Some(Err(error)) => tracing::debug!(%error, "restore poll"),
                None => {}
            }
            if heard.elapsed() > SILENCE {
                bail!("changelog {log} does not answer");
            }
        }
    }
}

impl Changelogs for Reader {
    fn bounds(&self, log: &Changelog) -> Result<(i64, i64)> {
        watermarks(&self.committed, log)
    }

    fn uncommitted_end(&self, log: &Changelog) -> Result<i64> {
        Ok(watermarks(&self.probe, log)?.1)
    }

    fn read(
        &self,
        log: &Changelog,
        from: i64,
        end: i64,
        visit: impl FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        if from >= end {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&log.topic, log.partition, Offset::Offset(from))?;
        self.committed.assign(&list)?;
        let result = self.read_assigned(log, end, visit);
        self.committed.unassign()?;
        result
    }
}

/// First offset and end. librdkafka asks the broker that it last knew to lead the partition; when that
/// one does not answer, it says "unknown partition" and keeps believing in it, so it is made to ask.
fn watermarks(consumer: &BaseConsumer, log: &Changelog) -> Result<(i64, i64)> {
    let ask = || consumer.fetch_watermarks(&log.topic, log.partition, WATERMARKS);
    let bounds = ask().or_else(|_| {
        consumer.fetch_metadata(Some(&log.topic), WATERMARKS)?;
        ask()
    });
    bounds.with_context(|| format!("end of {log} is unknown"))
}

fn entry<'a>(message: &'a BorrowedMessage<'a>) -> Entry<'a> {
    let header = |headers: &'a rdkafka::message::BorrowedHeaders| {
        headers.iter().find(|h| h.key == BATCH_HEADER).and_then(|h| h.value)
    };
    Entry {
        offset: message.offset(),
        key: message.key().unwrap_or_default(),
        value: message.payload(),
        batch: message.headers().and_then(header),
    }
}
