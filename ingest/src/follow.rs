//! Follows a topic until dropped: one thread, by hand and in no group. Where it begins and what it does with a record is its
//! [`Reader`]'s. It starts over after a pause when its position is lost or the registry does not answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use events::{Codec, DecodeError, Record};
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use tokio::runtime::Handle;
use wire::config::Registry;
use wire::registry::LearnError;

use crate::config::Config;

/// How long Kafka may take to tell where a partition begins or ends.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(1);

/// What is followed, from where, and what for.
pub(crate) trait Reader: Send + 'static {
    /// The topic's name.
    const TOPIC: &'static str;
    /// Ends the name of the client and of its thread.
    const NAME: &'static str;
    /// There is a fetch this often, milliseconds, however many batches there are.
    const FETCH_EVERY_MS: u32;

    /// Where to begin in each of the partitions.
    fn start(&mut self, consumer: &Consumer, partitions: i32) -> Result<TopicPartitionList>;

    /// The end that the topic had at the start is reached: once after each start.
    fn caught_up(&mut self);

    /// The topic is not followed any more, until the next start.
    fn lost(&mut self) {}

    /// Looks at the next record; whether it is worth being decoded.
    fn wants(&mut self, message: &BorrowedMessage<'_>) -> bool;

    /// Takes a record that it wants.
    fn take(&mut self, message: &BorrowedMessage<'_>, record: Record);
}

/// The client that a reader asks where to begin.
pub(crate) type Consumer = BaseConsumer<Quiet>;

/// The thread that follows; stops when dropped.
pub(crate) struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts following; call it within a Tokio runtime.
    pub(crate) fn start<R: Reader>(
        config: &Config,
        partitions: i32,
        codec: Codec,
        reader: R,
    ) -> Result<Self> {
        let client_id = format!("ingest-{}-{}", config.instance, R::NAME);
        let mut settings = wire::client::assigned_consumer(&config.kafka.brokers, &client_id);
        settings
            .set("fetch.min.bytes", "1048576")
            .set("fetch.wait.max.ms", R::FETCH_EVERY_MS.to_string());
        let stop = Arc::new(AtomicBool::new(false));
        let following = Following {
            settings,
            registry: config.registry.clone(),
            partitions,
            codec,
            reader,
            stop: Arc::clone(&stop),
            handle: Handle::current(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("follow-{}", R::NAME))
            .spawn(move || following.run())
            .context("a thread cannot be started")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

struct Following<R> {
    settings: ClientConfig,
    registry: Registry,
    partitions: i32,
    codec: Codec,
    reader: R,
    stop: Arc<AtomicBool>,
    handle: Handle,
}

impl<R: Reader> Following<R> {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(error) = self.follow() {
                self.reader.lost();
                let reason = format!("{error:#}");
                tracing::warn!(topic = R::TOPIC, reason, "topic cannot be followed: tried again");
                std::thread::sleep(RETRY);
            }
        }
    }

    /// Follows until told to stop; fails when the position is lost or the registry does not answer.
    fn follow(&mut self) -> Result<()> {
        let consumer: Consumer =
            self.settings.create_with_context(Quiet).context("consumer cannot be made")?;
        let positions = self.reader.start(&consumer, self.partitions)?;
        consumer.assign(&positions).context("partitions cannot be assigned")?;
        let mut behind: HashSet<i32> = (0..self.partitions).collect();
        while !self.stop.load(Ordering::Relaxed) {
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => self.take(&message)?,
                Some(Err(KafkaError::PartitionEOF(partition)))
                    if behind.remove(&partition) && behind.is_empty() =>
                {
                    self.reader.caught_up();
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if position_lost(&error) => {
                    bail!("the position in the topic is lost: {error}");
                }
                // The client reconnects by itself.
                Some(Err(error)) => tracing::debug!(topic = R::TOPIC, %error, "topic"),
            }
        }
        Ok(())
    }

    /// Passes a record on; fails when it cannot be known yet what it is. What cannot be read at all is for others to send
    /// to the dead letters.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<()> {
        if !self.reader.wants(message) {
            return Ok(());
        }
        let bytes = message.payload().unwrap_or_default();
        let mut decoded = self.codec.decode(bytes);
        if let Err(DecodeError::UnknownSchema(id)) = decoded {
            let learning = wire::registry::learn(&mut self.codec, &self.registry, id);
            match self.handle.block_on(learning) {
                Ok(()) => {}
                Err(error @ LearnError::Unavailable { .. }) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(topic = R::TOPIC, %error, "a record is passed over");
                }
            }
            decoded = self.codec.decode(bytes);
        }
        if let Ok(record) = decoded {
            self.reader.take(message, record);
        }
        Ok(())
    }
}

/// Leaves errors to the loop that polls: by default the end of a partition, too, is logged as one.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}

/// Whether the consumer has stopped for good: its offset is no longer in the topic.
fn position_lost(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}
