//! A transactional producer as the stream thread's algorithm wants it.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use events::ORIGIN_HEADER;
use machines::TaskId;
use machines::footer::BATCH_HEADER;
use machines::task::Rejected;
use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext,
};
use rdkafka::{Offset, TopicPartitionList};
use stream::{Outgoing, OutgoingHeader};
use wire::dead_letter::{Letter, Rejection};

use crate::inbox::Member;

/// Bound on making a producer ready; librdkafka retries inside it. After that a new client, which knows
/// nothing of the cluster's past, finds the coordinator sooner than the old one.
const INIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds on sending offsets and on committing, some fifty times what they take: for whatever takes longer a
/// coordinator has gone, which a new client notices sooner too, and meanwhile the thread would serve
/// neither its tasks nor the group.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(3);
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// After its bound librdkafka has this long to say so.
const OFFSETS_GRACE: Duration = Duration::from_secs(1);

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

/// A stream thread's transactional producer.
pub struct TransactionalProducer {
    producer: Arc<BaseProducer<Reports>>,
}

impl TransactionalProducer {
    /// Makes a producer ready, which fences this id's last holder and ends what it left open.
    ///
    /// # Errors
    /// When the brokers do not answer in time.
    pub fn connect(member: &Member, transactional_id: &str) -> Result<Self> {
        let producer: BaseProducer<Reports> = wire::client::transactional_producer(
            &member.brokers,
            &member.instance,
            transactional_id,
        )
        .create_with_context(Reports::default())
        .context("transactional producer cannot be made")?;
        producer.init_transactions(INIT_TIMEOUT).context("transactional producer is not ready")?;
        Ok(Self { producer: Arc::new(producer) })
    }
}

impl stream::Producer for TransactionalProducer {
    type Group = Arc<ConsumerGroupMetadata>;

    fn begin(&mut self) -> Result<()> {
        Ok(self.producer.begin_transaction()?)
    }

    fn send(&mut self, outgoing: Outgoing<'_>) -> Result<()> {
        let opaque = outgoing.footer.unwrap_or(NOT_A_FOOTER);
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(outgoing.topic, opaque);
        record.partition = outgoing.partition;
        (record.key, record.payload) = (outgoing.key, outgoing.value);
        let header =
            |key, value: &[u8]| OwnedHeaders::new().insert(Header { key, value: Some(value) });
        match outgoing.header {
            OutgoingHeader::Origin(origin) => {
                record.headers = Some(header(ORIGIN_HEADER, origin.as_bytes()));
            }
            OutgoingHeader::Batch(batch) => record.headers = Some(header(BATCH_HEADER, batch)),
            OutgoingHeader::Rejected(task, rejected) => {
                let letter = letter(task, rejected);
                record.timestamp = Some(rejected.source.appended_at.0);
                record.headers = Some(letter.headers);
                (record.key, record.payload) = (letter.key, letter.value);
            }
        }
        wire::client::send(&self.producer, record).context("a record cannot be produced")
    }

    fn hurry(&mut self) {
        wire::client::hurry(&self.producer);
    }

    fn drained(&mut self) -> Result<bool> {
        let drained = wire::client::drained(&self.producer);
        let failed = &self.producer.context().failed;
        if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error).context("a record was not delivered");
        }
        Ok(drained)
    }

    fn footers(&mut self) -> Vec<(usize, i64)> {
        let footers = &self.producer.context().footers;
        std::mem::take(&mut *footers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn send_offsets(&mut self, offsets: &[(&str, i32, i64)], group: Self::Group) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (topic, partition, offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        // librdkafka does not always keep to the bound: while the group's coordinator is gone it can wait for
        // ever. So a thread of its own asks, and one that does not come back keeps the producer, which
        // nobody uses any more.
        let (answer, answered) = mpsc::channel();
        let producer = self.producer.clone();
        let ask = move || {
            let sent = producer.send_offsets_to_transaction(&list, &group, OFFSETS_TIMEOUT);
            drop(producer);
            // Nobody listens if it took too long.
            let _ = answer.send(sent);
        };
        std::thread::Builder::new().name("offsets".into()).spawn(ask)?;
        let sent = answered.recv_timeout(OFFSETS_TIMEOUT + OFFSETS_GRACE);
        Ok(sent.context("offsets: librdkafka did not come back")??)
    }

    fn commit(&mut self) -> Result<()> {
        Ok(self.producer.commit_transaction(COMMIT_TIMEOUT)?)
    }
}

fn letter(task: TaskId, rejected: &Rejected) -> Letter<'_> {
    let source = rejected.source;
    let rejection = Rejection {
        topic: source.topic.to_string(),
        partition: source.partition,
        offset: source.offset,
        component: task.to_string(),
        stage: rejected.stage,
        reason: rejected.reason.clone(),
    };
    let original: Vec<_> =
        rejected.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    rejection.letter(rejected.key.as_deref(), rejected.value.as_deref(), &original)
}
