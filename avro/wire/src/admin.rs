//! Topics: created once with fixed partition counts, checked at every start.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use events::topics::{self, Retention};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Dead letters are kept this much longer than their records.
const DEAD_LETTER_DAYS: i64 = 30;
const TIMEOUT: Duration = Duration::from_secs(15);
/// KIP-464: the brokers' own `default.replication.factor`.
const BROKERS_DEFAULT: i32 = -1;

/// What to create.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Partitions of every topic; fixed from creation on, since keys are spread by it.
    pub partitions: i32,
    /// Copies of every partition; `None` as the brokers are configured to make them
    /// (`default.replication.factor` and `min.insync.replicas`).
    pub replication: Option<i32>,
}

/// Creates the topics that are missing and checks the partition counts of those that are there.
///
/// # Errors
/// When a broker refuses, or an existing topic has another partition count.
pub async fn set_up(brokers: &str, layout: Layout) -> Result<()> {
    let client: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .context("admin client cannot be made")?;
    let topics = specifications();
    let new: Vec<NewTopic<'_>> = topics.iter().map(|t| t.new_topic(layout)).collect();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let answers = client
        .create_topics(&new, &options)
        .await
        .with_context(|| format!("Kafka does not answer at {brokers}"))?;
    for answer in answers {
        match answer {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => bail!("topic {topic} cannot be created: {code}"),
        }
    }
    let brokers = brokers.to_string();
    tokio::task::spawn_blocking(move || {
        let found = partitions(&brokers)?;
        if found != layout.partitions {
            bail!("topics have {found} partitions, not {}: fixed at creation", layout.partitions);
        }
        Ok(())
    })
    .await?
}

/// The partition count that every topic has.
///
/// # Errors
/// When a topic is missing or counts differ: run `tillroll setup`.
pub fn partitions(brokers: &str) -> Result<i32> {
    let consumer: BaseConsumer = crate::client::assigned_consumer(brokers, "check").create()?;
    let metadata = consumer
        .fetch_metadata(None, TIMEOUT)
        .with_context(|| format!("Kafka does not answer at {brokers}"))?;
    let mut found: Option<(String, i32)> = None;
    for topic in specifications().iter().filter(|t| !t.dead_letters) {
        let count = metadata
            .topics()
            .iter()
            .find(|t| t.name() == topic.name)
            .map(|t| i32::try_from(t.partitions().len()))
            .transpose()?
            .with_context(|| format!("topic {} is missing: run `tillroll setup`", topic.name))?;
        match &found {
            None => found = Some((topic.name.clone(), count)),
            Some((_, n)) if *n == count => {}
            Some((other, n)) => {
                bail!("{} has {count} partitions but {other} has {n}", topic.name)
            }
        }
    }
    Ok(found.expect("the catalogue is not empty").1)
}

struct Specification {
    name: String,
    dead_letters: bool,
    config: Vec<(&'static str, String)>,
}

impl Specification {
    fn new(name: String, dead_letters: bool, mut config: Vec<(&'static str, String)>) -> Self {
        config.push(("max.message.bytes", topics::MAX_MESSAGE_BYTES.to_string()));
        Self { name, dead_letters, config }
    }

    fn new_topic(&self, layout: Layout) -> NewTopic<'_> {
        let partitions = if self.dead_letters { 1 } else { layout.partitions };
        let copies = TopicReplication::Fixed(layout.replication.unwrap_or(BROKERS_DEFAULT));
        let mut topic = NewTopic::new(&self.name, partitions, copies);
        for (key, value) in &self.config {
            topic = topic.set(key, value);
        }
        let safe = layout.replication.is_some_and(|copies| copies >= 3);
        if safe { topic.set("min.insync.replicas", "2") } else { topic }
    }
}

/// How long a topic's dead letters are kept, -1 for good. They have the times of their records, and a record
/// can be refused at its last moment: a sink that begins anew reads everything that its topic has.
fn dead_letters_ms(of: Retention) -> i64 {
    match of {
        Retention::Days(days) => (i64::from(days) + DEAD_LETTER_DAYS) * DAY_MS,
        Retention::Forever | Retention::Compacted => -1,
    }
}

fn specifications() -> Vec<Specification> {
    let mut all = Vec::new();
    for topic in topics::ALL {
        // The log decides the time of a record, not its writer.
        let mut config = vec![("message.timestamp.type", "LogAppendTime".to_string())];
        match topic.retention {
            Retention::Days(days) => {
                config.push(("retention.ms", (i64::from(days) * DAY_MS).to_string()));
            }
            Retention::Forever => config.push(("retention.ms", "-1".to_string())),
            Retention::Compacted => config.push(("cleanup.policy", "compact".to_string())),
        }
        all.push(Specification::new(topic.name.to_string(), false, config));
        let kept = vec![("retention.ms", dead_letters_ms(topic.retention).to_string())];
        all.push(Specification::new(topics::dead_letters(topic.name), true, kept));
    }
    for processor in topics::PROCESSORS {
        let config = vec![
            ("cleanup.policy", "compact".to_string()),
            ("min.compaction.lag.ms", "3600000".to_string()),
            ("message.timestamp.type", "LogAppendTime".to_string()),
        ];
        all.push(Specification::new(topics::changelog(processor), false, config));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_outlives_its_record() {
        let specifications = specifications();
        for topic in topics::ALL {
            let name = topics::dead_letters(topic.name);
            let queue = specifications.iter().find(|s| s.name == name).expect("each has a queue");
            let kept = queue.config.iter().find(|(key, _)| *key == "retention.ms");
            let kept: i64 = kept.expect("it says how long").1.parse().expect("a number");
            match topic.retention {
                Retention::Days(days) => assert!(kept >= (i64::from(days) + 30) * DAY_MS, "{name}"),
                Retention::Forever | Retention::Compacted => assert_eq!(kept, -1, "{name}"),
            }
        }
    }
}
