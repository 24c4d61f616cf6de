//! Puts refused records aside: untouched, with headers that say where from and why.
//!
//! A dead letter is acknowledged before its record is passed over. A crash between the two writes it
//! again; its topic, partition and offset headers tell the copies.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use events::topics;
use rdkafka::ClientConfig;
use rdkafka::message::{Headers as _, Message, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use wire::dead_letter::Rejection;
use wire::telemetry::RECORDS_REJECTED;

use crate::retry::Failure;

const DELIVERY_TIMEOUT_MS: u32 = 10_000;

/// Writer of dead letters of one sink.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    config: ClientConfig,
    /// Made with the first dead letter: an idle producer polls, and there is hardly ever one.
    producer: Arc<OnceLock<FutureProducer>>,
    component: String,
}

impl DeadLetters {
    /// A writer under the name of a sink.
    pub(crate) fn new(brokers: &str, client_id: &str, sink: &str) -> Self {
        let config = wire::client::producer(brokers, client_id, DELIVERY_TIMEOUT_MS);
        Self { config, producer: Arc::default(), component: format!("sinks/{sink}") }
    }

    fn producer(&self) -> Result<&FutureProducer, Failure> {
        if let Some(producer) = self.producer.get() {
            return Ok(producer);
        }
        let made = self.config.create();
        let made = made.map_err(|e| Failure::retry(format!("kafka: no producer: {e}")))?;
        // Where two partitions need one at once, the second one's is dropped.
        Ok(self.producer.get_or_init(|| made))
    }

    /// Puts a record aside; returns once Kafka has it.
    pub(crate) async fn put(
        &self,
        record: &OwnedMessage,
        stage: &'static str,
        reason: &str,
    ) -> Result<(), Failure> {
        let rejection = Rejection {
            topic: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset(),
            component: self.component.clone(),
            stage,
            reason: reason.to_owned(),
        };
        let headers: Vec<_> = record
            .headers()
            .into_iter()
            .flat_map(|all| all.iter())
            .map(|h| (h.key, h.value))
            .collect();
        let made = rejection.letter(record.key(), record.payload(), &headers);
        let topic = topics::dead_letters(record.topic());
        let mut letter: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(&topic).headers(made.headers);
        letter.timestamp = record.timestamp().to_millis();
        (letter.key, letter.payload) = (made.key, made.value);
        self.producer()?.send(letter, Duration::ZERO).await.map_err(|(e, _)| {
            Failure::retry(format!("kafka: {topic} takes no dead letter: {e}"))
        })?;
        RECORDS_REJECTED.with_label_values(&[record.topic(), stage]).inc();
        tracing::warn!(
            topic = record.topic(),
            partition = record.partition(),
            offset = record.offset(),
            stage,
            reason,
            "record put aside as a dead letter"
        );
        Ok(())
    }
}
