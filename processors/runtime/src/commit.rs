//! A transaction, step by step: outputs and changelog records → drain → footers → drain → offsets →
//! commit. While it drains, the thread processes the next batch.
//!
//! `Producer::flush` and `poll` cost up to 100 ms as they stand, so draining is
//! `flush(0)` once (skips the linger), then `poll(0)` until nothing is in flight. Offsets are sent
//! only when everything is drained: earlier, a zombie could land records behind its fence.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use events::{ORIGIN_HEADER, topics};
use machines::Transaction;
use machines::footer::{BATCH_HEADER, FOOTER_KEY, batch_header};
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext,
};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use wire::dead_letter::Rejection;
use wire::telemetry::{TRANSACTION_SECONDS, TRANSACTIONS};

use crate::inbox::{Inboxes, Member};

/// A commit that took longer after the drain may have been sent twice by librdkafka (it retries
/// EndTxn by itself, after at least 0.8 × `retry.backoff.ms`): the producer is made anew.
const SUSPICIOUS_COMMIT: Duration = Duration::from_millis(400);

/// Bound on making a producer ready; librdkafka retries inside it.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Delivery opaque of every record but footers; a footer's is its index.
const NOT_A_FOOTER: usize = usize::MAX;

/// Collects delivery reports.
#[derive(Default)]
struct Reports {
    failed: Mutex<Option<KafkaError>>,
    footers: Mutex<Vec<(usize, i64)>>,
}

impl ClientContext for Reports {}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, footer: usize) {
        match report {
            Ok(message) if footer != NOT_A_FOOTER => {
                let mut footers = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
                footers.push((footer, message.offset()));
            }
            Ok(_) => {}
            Err((error, _)) => {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// A transaction that was committed.
pub struct Committed {
    /// What was committed.
    pub transaction: Transaction,
    /// Changelog offset behind its footer.
    pub position: i64,
}

enum Stage {
    Records,
    Footers,
}

struct InFlight {
    transactions: Vec<Transaction>,
    stage: Stage,
    began: Instant,
}

/// A stream thread's transactional producer.
pub struct Committer {
    producer: BaseProducer<Reports>,
    member: Member,
    in_flight: Option<InFlight>,
}

impl Committer {
    /// Makes the producer ready, which ends whatever this id left open.
    ///
    /// # Errors
    /// When the brokers do not answer in time.
    pub fn connect(member: &Member) -> Result<Self> {
        let id = transactional_id(member);
        let producer = ready_producer(member, &id)?;
        Ok(Self { producer, member: member.clone(), in_flight: None })
    }

    /// Whether a transaction is under way.
    pub fn busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Begins a transaction with these tasks' batches.
    ///
    /// # Errors
    /// Any: drop the committer and its tasks' overlays, restore, go on.
    pub fn begin(&mut self, transactions: Vec<Transaction>) -> Result<()> {
        debug_assert!(self.in_flight.is_none(), "one transaction at a time");
        let began = Instant::now();
        self.producer.begin_transaction().context("begin")?;
        for transaction in &transactions {
            self.send_batch(transaction)?;
        }
        let _ = self.producer.flush(Duration::ZERO);
        self.in_flight = Some(InFlight { transactions, stage: Stage::Records, began });
        Ok(())
    }

    /// Moves the transaction on as far as it goes without waiting; the batches when committed.
    ///
    /// # Errors
    /// As [`Committer::begin`]. The outcome may be unknown: restoring finds out.
    pub fn progress(&mut self, inboxes: &Inboxes) -> Result<Option<Vec<Committed>>> {
        let Some(in_flight) = &mut self.in_flight else { return Ok(None) };
        self.producer.poll(Duration::ZERO);
        let failed = &self.producer.context().failed;
        if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error).context("a record was not delivered");
        }
        if self.producer.in_flight_count() > 0 {
            return Ok(None);
        }
        match in_flight.stage {
            Stage::Records => {
                in_flight.stage = Stage::Footers;
                for (index, transaction) in in_flight.transactions.iter().enumerate() {
                    send_footer(&self.producer, index, transaction)?;
                }
                let _ = self.producer.flush(Duration::ZERO);
                Ok(None)
            }
            Stage::Footers => self.finish(inboxes).map(Some),
        }
    }

    /// Waits until the transaction is committed.
    ///
    /// # Errors
    /// As [`Committer::progress`].
    pub fn complete(&mut self, inboxes: &Inboxes) -> Result<Vec<Committed>> {
        while self.busy() {
            if let Some(committed) = self.progress(inboxes)? {
                return Ok(committed);
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        Ok(vec![])
    }

    fn finish(&mut self, inboxes: &Inboxes) -> Result<Vec<Committed>> {
        let in_flight = self.in_flight.take().context("no transaction under way")?;
        let drained = Instant::now();
        let mut offsets = TopicPartitionList::new();
        for transaction in &in_flight.transactions {
            for (inbox, position) in &transaction.footer.positions {
                let partition = transaction.task.partition;
                offsets.add_partition_offset(inbox, partition, Offset::Offset(*position))?;
            }
        }
        let group = inboxes.group()?;
        self.producer
            .send_offsets_to_transaction(&offsets, &group, Timeout::Never)
            .context("offsets")?;
        self.producer.commit_transaction(Timeout::Never).context("commit")?;
        let (all, end) = (in_flight.began.elapsed(), drained.elapsed());
        TRANSACTIONS.with_label_values(&["committed"]).inc();
        TRANSACTION_SECONDS.with_label_values(&["drain"]).observe((all - end).as_secs_f64());
        TRANSACTION_SECONDS.with_label_values(&["commit"]).observe(end.as_secs_f64());
        let footers = &self.producer.context().footers;
        let mut footers =
            std::mem::take(&mut *footers.lock().unwrap_or_else(PoisonError::into_inner));
        footers.sort_unstable();
        if footers.len() != in_flight.transactions.len() {
            bail!("{} footers for {} tasks", footers.len(), in_flight.transactions.len());
        }
        if end >= SUSPICIOUS_COMMIT {
            TRANSACTIONS.with_label_values(&["reinitialised"]).inc();
            tracing::warn!(took_ms = end.as_millis(), "slow commit: producer made anew");
            self.producer = ready_producer(&self.member, &transactional_id(&self.member))?;
        }
        let committed = in_flight.transactions.into_iter().zip(footers);
        let committed = committed
            .map(|(transaction, (_, offset))| Committed { transaction, position: offset + 1 });
        Ok(committed.collect())
    }

    fn send_batch(&self, transaction: &Transaction) -> Result<()> {
        let origin = transaction.origin.to_string();
        for output in &transaction.outputs {
            let headers =
                OwnedHeaders::new().insert(Header { key: ORIGIN_HEADER, value: Some(&origin) });
            let record = BaseRecord::with_opaque_to(output.topic, NOT_A_FOOTER)
                .partition(output.partition)
                .key(&output.key)
                .payload(&output.value)
                .headers(headers);
            send(&self.producer, record)?;
        }
        for rejected in &transaction.rejected {
            let source = rejected.source;
            let rejection = Rejection {
                topic: source.topic.to_string(),
                partition: source.partition,
                offset: source.offset,
                component: transaction.task.to_string(),
                stage: rejected.stage,
                reason: rejected.reason.clone(),
            };
            let topic = topics::dead_letters(source.topic);
            let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&topic, NOT_A_FOOTER)
                .headers(rejection.headers(OwnedHeaders::new()));
            record.key = rejected.key.as_deref();
            record.payload = rejected.value.as_deref();
            send(&self.producer, record)?;
        }
        let batch = batch_header(transaction.footer.term, transaction.footer.sequence);
        let changelog = topics::changelog(transaction.task.processor.name);
        for write in &transaction.writes {
            let headers =
                OwnedHeaders::new().insert(Header { key: BATCH_HEADER, value: Some(&batch) });
            let key = write.changelog_key();
            let mut record =
                BaseRecord::<[u8], [u8], usize>::with_opaque_to(&changelog, NOT_A_FOOTER)
                    .partition(transaction.task.partition)
                    .key(&key)
                    .headers(headers);
            record.payload = write.value.as_deref();
            send(&self.producer, record)?;
        }
        Ok(())
    }
}

fn send_footer(
    producer: &BaseProducer<Reports>,
    index: usize,
    transaction: &Transaction,
) -> Result<()> {
    let footer = &transaction.footer;
    let batch = batch_header(footer.term, footer.sequence);
    let changelog = topics::changelog(transaction.task.processor.name);
    let bytes = footer.to_bytes();
    let record = BaseRecord::with_opaque_to(&changelog, index)
        .partition(transaction.task.partition)
        .key(FOOTER_KEY)
        .payload(&bytes)
        .headers(OwnedHeaders::new().insert(Header { key: BATCH_HEADER, value: Some(&batch) }));
    send(producer, record)
}

fn send<K, P>(producer: &BaseProducer<Reports>, record: BaseRecord<'_, K, P, usize>) -> Result<()>
where
    K: rdkafka::message::ToBytes + ?Sized,
    P: rdkafka::message::ToBytes + ?Sized,
{
    let mut record = record;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(error).context("a record cannot be produced"),
        }
    }
}

/// The `transactional.id` of a group member.
pub fn transactional_id(member: &Member) -> String {
    format!("{}.{}", member.group, member.instance)
}

fn ready_producer(member: &Member, id: &str) -> Result<BaseProducer<Reports>> {
    let producer: BaseProducer<Reports> =
        wire::client::transactional_producer(&member.brokers, &member.instance, id)
            .create_with_context(Reports::default())
            .context("transactional producer cannot be made")?;
    producer.init_transactions(INIT_TIMEOUT).context("transactional producer is not ready")?;
    Ok(producer)
}

/// Ends whatever another owner left open, and fences it.
///
/// # Errors
/// When the brokers do not answer in time.
pub fn fence(member: &Member, owner: &str) -> Result<()> {
    ready_producer(member, owner).map(drop)
}
