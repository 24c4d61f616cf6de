//! The inboxes of a stream thread: one group member for command inboxes, one hand-assigned consumer
//! for outcome inboxes, both polled by this thread only.
//!
//! Rebalances are only noted in librdkafka's callback; the thread acts on them between batches.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use events::Millis;
use machines::TaskId;
use machines::task::Header;
use machines::topology::Processor;
use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::{Offset, Statistics, Timestamp, TopicPartitionList};
use stream::{Inbox, Inboxes, Incoming, Rebalance, ShutOut, Stopped};

use crate::lag::{LagGauge, Measured};

/// How often lag is measured.
const LAG_EVERY_MS: &str = "5000";

/// Notes rebalances instead of acting on them, and exports how far behind its inboxes are.
pub struct Noting {
    notes: Mutex<Vec<Note>>,
    lag: LagGauge,
    closing: AtomicBool,
}

/// A change, and the membership at the time when it was polled: until it is answered there is no other, unless
/// the member has been thrown out, and then this one is refused.
type Note = (Rebalance, Option<Arc<ConsumerGroupMetadata>>);

impl ClientContext for Noting {
    fn stats(&self, statistics: Statistics) {
        self.lag.report(&statistics);
    }
}

impl ConsumerContext for Noting {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: rd_kafka_resp_err_t,
        list: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::Acquire) {
            give_back(consumer);
            return;
        }
        let partitions =
            list.elements().iter().map(|e| (e.topic().to_string(), e.partition())).collect();
        let note = if error == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Rebalance::Assigned(partitions)
        } else {
            Rebalance::Revoked(partitions)
        };
        let membership = consumer.group_metadata().map(Arc::new);
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push((note, membership));
    }
}

/// The consumers of a stream thread.
pub struct GroupInboxes {
    commands: BaseConsumer<Noting>,
    outcomes: BaseConsumer<Measured>,
    membership: RefCell<Option<Arc<ConsumerGroupMetadata>>>,
}

/// Who this thread is to the group.
#[derive(Debug, Clone)]
pub struct Member {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// Consumer group.
    pub group: String,
    /// `group.instance.id`, also `transactional.id` with the group in front.
    pub instance: String,
}

impl GroupInboxes {
    /// Connects and joins the group for the command inboxes of these processors.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn join(member: &Member, processors: &[Processor]) -> Result<Self> {
        let Member { brokers, group, instance } = member;
        let commands = wire::client::group_consumer(brokers, instance, group, instance)
            .set("enable.partition.eof", "false")
            .set("statistics.interval.ms", LAG_EVERY_MS)
            .create_with_context(Noting {
                notes: Mutex::default(),
                lag: LagGauge::new(group),
                closing: AtomicBool::new(false),
            })
            .context("command consumer cannot be made")?;
        let outcomes = wire::client::assigned_consumer(brokers, instance)
            .set("enable.partition.eof", "false")
            .set("statistics.interval.ms", LAG_EVERY_MS)
            .create_with_context(Measured(LagGauge::new(group)))
            .context("outcome consumer cannot be made")?;
        let inboxes = Self { commands, outcomes, membership: RefCell::default() };
        let topics: Vec<&str> = processors.iter().map(|p| p.commands).collect();
        inboxes.commands.subscribe(&topics).context("command inboxes cannot be subscribed")?;
        Ok(inboxes)
    }
}

/// A consumer is closed only once every change is answered, and there is nobody left to do so.
impl Drop for GroupInboxes {
    fn drop(&mut self) {
        self.commands.context().closing.store(true, Ordering::Release);
        // An assignment that still waits for its answer takes nothing.
        if let Err(error) = self.commands.incremental_assign(&TopicPartitionList::new()) {
            tracing::debug!(%error, "an assignment is not answered");
        }
        give_back(&self.commands);
    }
}

fn give_back(consumer: &BaseConsumer<Noting>) {
    let all = consumer.assignment();
    if let Err(error) = all.and_then(|all| consumer.incremental_unassign(&all)) {
        tracing::debug!(%error, "partitions are not given back");
    }
}

impl Inboxes for GroupInboxes {
    type Group = Arc<ConsumerGroupMetadata>;

    fn rebalances(&self) -> Vec<Rebalance> {
        let notes = &self.commands.context().notes;
        let notes = std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut membership = self.membership.borrow_mut();
        let mut changes = Vec::with_capacity(notes.len());
        for (change, by) in notes {
            *membership = by;
            changes.push(change);
        }
        changes
    }

    fn next(&self, inbox: Inbox, mut take: impl FnMut(Incoming<'_>) -> Result<()>) -> Result<bool> {
        let polled = match inbox {
            Inbox::Outcomes => self.outcomes.poll(Duration::ZERO),
            Inbox::Commands => self.commands.poll(Duration::ZERO),
        };
        let Some(message) = settle(polled)? else { return Ok(false) };
        let appended_at = match message.timestamp() {
            Timestamp::LogAppendTime(at) | Timestamp::CreateTime(at) => Millis(at),
            Timestamp::NotAvailable => Millis(0),
        };
        take(Incoming {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            appended_at,
            key: message.key(),
            value: message.payload(),
            headers: &|| headers(&message),
        })?;
        Ok(true)
    }

    fn assign<'a>(
        &self,
        tasks: impl Iterator<Item = (TaskId, &'a BTreeMap<String, i64>)>,
    ) -> Result<()> {
        let (mut commands, mut outcomes) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (task, positions) in tasks {
            for inbox in task.processor.inboxes() {
                let position = positions.get(inbox).copied().unwrap_or(0);
                let own = inbox == task.processor.commands;
                let list = if own { &mut commands } else { &mut outcomes };
                list.add_partition_offset(inbox, task.partition, Offset::Offset(position))?;
            }
        }
        self.commands.incremental_assign(&commands).map_err(refused)?;
        if outcomes.count() > 0 {
            self.outcomes.incremental_assign(&outcomes).map_err(refused)?;
        }
        Ok(())
    }

    fn unassign(&self, tasks: impl Iterator<Item = TaskId>) -> Result<()> {
        let (mut commands, mut outcomes) = (TopicPartitionList::new(), TopicPartitionList::new());
        for task in tasks {
            commands.add_partition(task.processor.commands, task.partition);
            if let Some(inbox) = task.processor.outcomes {
                outcomes.add_partition(inbox, task.partition);
            }
        }
        self.commands.incremental_unassign(&commands).map_err(refused)?;
        if outcomes.count() > 0 {
            self.outcomes.incremental_unassign(&outcomes).map_err(refused)?;
        }
        Ok(())
    }

    fn group(&self) -> Result<Self::Group> {
        self.membership.borrow().clone().context("not a member of the group")
    }

    fn committed(&self, topic: &str, partition: i32) -> Result<Option<i64>> {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let list = self.commands.committed_offsets(list, Duration::from_secs(10))?;
        Ok(list.elements().first().and_then(|e| e.offset().to_raw()).filter(|o| *o >= 0))
    }

    fn unsubscribe(&self) {
        self.commands.unsubscribe();
    }
}

fn headers(message: &BorrowedMessage<'_>) -> Vec<Header> {
    let all = message.headers().into_iter().flat_map(|headers| headers.iter());
    all.map(|header| (header.key.to_string(), header.value.map(<[u8]>::to_vec))).collect()
}

/// A client that was shut out refuses everything from then on.
fn refused(error: KafkaError) -> anyhow::Error {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId) => {
            ShutOut(error.to_string()).into()
        }
        _ => error.into(),
    }
}

fn settle(
    polled: Option<Result<BorrowedMessage<'_>, KafkaError>>,
) -> Result<Option<BorrowedMessage<'_>>> {
    match polled {
        None => Ok(None),
        Some(Ok(message)) => Ok(Some(message)),
        Some(Err(error)) => match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId) => {
                bail!(ShutOut(error.to_string()))
            }
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                bail!(Stopped(format!("records were deleted before they were read: {error}")))
            }
            // Brokers come and go; librdkafka goes on by itself.
            _ => {
                tracing::debug!(%error, "poll");
                Ok(None)
            }
        },
    }
}
