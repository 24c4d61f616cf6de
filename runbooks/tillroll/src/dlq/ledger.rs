//! Writes decisions, and with a redrive the records that go back, in transactions.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use events::topics;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use wire::client;

use super::letter::{
    ATTEMPTS_HEADER, Action, BY_HEADER, DECISION_HEADER, FIRST_HEADER, LETTER_HEADER, Letter,
    REDRIVEN_BY_HEADER, REDRIVEN_WHY_HEADER, WHY_HEADER,
};
use super::values::Valued;

/// One for all runs of these commands: a run shuts the one before it out.
const TRANSACTIONAL_ID: &str = "tillroll-dlq";
const ANSWERS: Duration = Duration::from_secs(15);
/// A commit that took this long may have been sent twice by librdkafka, and the second one could end the
/// next transaction: that needs a producer of its own (see `wire::client::transactional_producer`).
const SLOW: Duration = Duration::from_millis(400);

/// How a commit went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commit {
    /// The ledger is as good as before.
    Quick,
    /// The ledger must not be used again. Until another one is open anybody may write, so what was read
    /// from the queues before is not to be relied on.
    Slow,
}

/// Who does it, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) by: &'a str,
    pub(crate) why: &'a str,
}

/// The writer of decisions. Every call blocks.
pub(crate) struct Ledger {
    producer: BaseProducer,
}

impl Ledger {
    /// A writer. What an earlier run left open is over from now on, and a run that goes on is refused.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub(crate) fn open(brokers: &str) -> Result<Self> {
        let config = client::transactional_producer(brokers, TRANSACTIONAL_ID, TRANSACTIONAL_ID);
        let producer: BaseProducer = config.create().context("no client of Kafka")?;
        producer.init_transactions(ANSWERS).with_context(|| {
            format!("Kafka at {brokers} does not make a transaction ready: nothing was changed")
        })?;
        Ok(Self { producer })
    }

    /// Decides about letters, all of them or none; a redrive appends their records, values as given, where
    /// they stood.
    ///
    /// # Errors
    /// When Kafka does not answer or refuses, or another run has begun. What came of these letters is then
    /// known by the next run.
    pub(crate) fn decide(
        &self,
        letters: &[Valued<'_>],
        action: Action,
        signed: Signed<'_>,
    ) -> Result<Commit> {
        let took = self.transact(letters, action, signed).map_err(explained)?;
        Ok(if took < SLOW { Commit::Quick } else { Commit::Slow })
    }

    /// How long the commit took.
    fn transact(
        &self,
        letters: &[Valued<'_>],
        action: Action,
        signed: Signed<'_>,
    ) -> Result<Duration> {
        self.producer.begin_transaction()?;
        for (letter, value) in letters {
            if action == Action::Redriven {
                let record = record(letter, value.as_deref(), redriven(letter, signed));
                client::send(&self.producer, record)?;
            }
            let queue = topics::dead_letters(&letter.place.topic);
            let mut decision = BaseRecord::<[u8], [u8]>::to(&queue).partition(0);
            decision.key = letter.key.as_deref();
            client::send(&self.producer, decision.headers(decided(letter, action, signed)))?;
        }
        ensure!(client::drain(&self.producer, ANSWERS), "Kafka acknowledges nothing");
        let began = Instant::now();
        self.producer.commit_transaction(ANSWERS)?;
        Ok(began.elapsed())
    }
}

fn record<'a>(
    letter: &'a Letter,
    value: Option<&'a [u8]>,
    headers: OwnedHeaders,
) -> BaseRecord<'a, [u8], [u8]> {
    let mut record = BaseRecord::to(&letter.place.topic).partition(letter.place.partition);
    record.key = letter.key.as_deref();
    record.payload = value;
    record.headers(headers)
}

/// The record's own headers, and those that tell of its redrive.
fn redriven(letter: &Letter, signed: Signed<'_>) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (key, value) in &letter.headers {
        headers = headers.insert(Header { key, value: value.as_deref() });
    }
    let (attempts, first) = ((letter.attempts + 1).to_string(), letter.first.to_string());
    let ours = [
        (ATTEMPTS_HEADER, attempts.as_str()),
        (FIRST_HEADER, &first),
        (REDRIVEN_BY_HEADER, signed.by),
        (REDRIVEN_WHY_HEADER, signed.why),
    ];
    ours.into_iter()
        .fold(headers, |all, (key, value)| all.insert(Header { key, value: Some(value) }))
}

fn decided(letter: &Letter, action: Action, signed: Signed<'_>) -> OwnedHeaders {
    let place = letter.place.to_string();
    let ours = [
        (DECISION_HEADER, action.as_str()),
        (LETTER_HEADER, &place),
        (BY_HEADER, signed.by),
        (WHY_HEADER, signed.why),
    ];
    let none = OwnedHeaders::new();
    ours.into_iter().fold(none, |all, (key, value)| all.insert(Header { key, value: Some(value) }))
}

fn explained(error: anyhow::Error) -> anyhow::Error {
    let code = error.downcast_ref::<KafkaError>().and_then(KafkaError::rdkafka_error_code);
    let shut_out = [
        RDKafkaErrorCode::ProducerFenced,
        RDKafkaErrorCode::InvalidProducerEpoch,
        RDKafkaErrorCode::Fenced,
        RDKafkaErrorCode::Fatal,
    ];
    error.context(match code {
        Some(code) if shut_out.contains(&code) => {
            "another `tillroll dlq redrive` or `drop` has begun, this one stops: wait for that one, \
             then run `tillroll dlq list`"
        }
        _ => "Kafka did not take the last batch, it is done whole or not at all: run the same command \
              again, nothing is done twice",
    })
}
