//! Changelog → store: streams what the store lacks, buffering nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use machines::footer::{BATCH_HEADER, Footer};
use machines::restore::{Entry, LastFooter, Restorer};
use machines::table::{Backing, Write};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use wire::telemetry::RESTORED_RECORDS;

use crate::store::{Meta, Store};

/// Rows per WriteBatch while restoring.
const BATCH: usize = 5_000;
/// First stretch read back from the end when looking for the last footer.
const FIRST_STRETCH: i64 = 2_000;
/// Longest silence while reading a changelog that has an end.
const SILENCE: Duration = Duration::from_secs(30);

/// A changelog partition.
#[derive(Debug, Clone)]
pub struct Changelog {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
}

/// Reads committed changelog records; one per stream thread.
pub struct Reader {
    consumer: BaseConsumer,
}

impl Reader {
    /// Connects.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn connect(brokers: &str, client_id: &str) -> Result<Self> {
        let consumer = wire::client::assigned_consumer(brokers, client_id).create()?;
        Ok(Self { consumer })
    }

    /// First offset and the end of what is committed (the last stable offset).
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn bounds(&self, log: &Changelog) -> Result<(i64, i64)> {
        let timeout = Duration::from_secs(10);
        Ok(self.consumer.fetch_watermarks(&log.topic, log.partition, timeout)?)
    }

    /// Offset and content of the last valid footer, read back from the end.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn last_footer(&self, log: &Changelog) -> Result<Option<(i64, Footer)>> {
        let (low, end) = self.bounds(log)?;
        let mut stretch = FIRST_STRETCH;
        loop {
            let from = low.max(end - stretch);
            let mut last = LastFooter::default();
            self.read(log, from, end, |entry| {
                last.see(entry);
                Ok(())
            })?;
            match last.found() {
                Some(found) => return Ok(Some(found)),
                None if from == low => return Ok(None),
                None => stretch *= 8,
            }
        }
    }

    /// Brings the store to the last valid footer; the rows that a torn tail needs written back.
    ///
    /// # Errors
    /// When the broker or the store fails.
    pub fn restore(
        &self,
        log: &Changelog,
        store: &Store,
        footer: &(i64, Footer),
    ) -> Result<Vec<Write>> {
        let (low, end) = self.bounds(log)?;
        let meta = store.meta()?;
        let from = meta.as_ref().map_or(low, |meta| meta.position);
        let mut restorer = Restorer::new(footer.0);
        let task = format!("{}-{}", log.topic, log.partition);
        let counter = RESTORED_RECORDS.with_label_values(&[&task]);
        let mut writes = Vec::with_capacity(BATCH);
        let mark = |position, restoring| Meta { position, footer: footer.1.clone(), restoring };
        let began = Instant::now();
        let mut applied = 0usize;
        self.read(log, from, end, |entry| {
            writes.extend(restorer.next(entry));
            if writes.len() >= BATCH {
                applied += writes.len();
                counter.inc_by(writes.len() as u64);
                store.apply(&writes, &[], &mark(entry.offset + 1, true))?;
                writes.clear();
            }
            Ok(())
        })?;
        applied += writes.len();
        counter.inc_by(writes.len() as u64);
        store.apply(&writes, &[], &mark((footer.0 + 1).max(from), false))?;
        let took_ms = began.elapsed().as_millis();
        tracing::info!(changelog = task, rows = applied, took_ms, "state restored");
        let repair = |(table, key): (_, Vec<u8>)| {
            let value = store.get(table, &key);
            Write { table, key, value }
        };
        Ok(restorer.torn().map(repair).collect())
    }

    /// Visits the committed records of `from..end`, in order.
    fn read(
        &self,
        log: &Changelog,
        from: i64,
        end: i64,
        mut visit: impl FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        if from >= end {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&log.topic, log.partition, Offset::Offset(from))?;
        self.consumer.assign(&list)?;
        let result = self.read_assigned(log, end, &mut visit);
        self.consumer.unassign()?;
        result
    }

    fn read_assigned(
        &self,
        log: &Changelog,
        end: i64,
        visit: &mut impl FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut heard = Instant::now();
        loop {
            match self.consumer.poll(Duration::from_millis(50)) {
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
                bail!("changelog {}-{} does not answer", log.topic, log.partition);
            }
        }
    }
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

/// Whether a store can be brought forward from what it has; if not, it is emptied.
///
/// # Errors
/// When the store cannot be read.
pub fn usable(store: &Store, footer: Option<&Footer>, low: i64, end: i64) -> Result<bool> {
    let Some(meta) = store.meta()? else { return Ok(store.is_empty()) };
    let Some(footer) = footer else { return Ok(false) };
    let within = meta.position >= low && meta.position <= end;
    Ok(within && meta.footer.store_id == footer.store_id)
}

/// The broker's end of a log, committed or not.
///
/// # Errors
/// When the broker does not answer.
pub fn uncommitted_end(probe: &BaseConsumer, log: &Changelog) -> Result<i64> {
    let timeout = Duration::from_secs(10);
    let bounds = probe.fetch_watermarks(&log.topic, log.partition, timeout);
    Ok(bounds.with_context(|| format!("end of {} is unknown", log.topic))?.1)
}
