//! A model of Kafka: partitions, the transaction coordinator, the consumer group, and the parts of
//! librdkafka that work behind an application's back.

pub mod client;
pub mod group;
pub mod log;
pub mod producer;
pub mod transactions;

use std::collections::BTreeMap;
use std::rc::Rc;

use events::{Millis, topics};

use group::Group;
use log::{Log, Record};
use transactions::{Coordinator, Markers, State};

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tp {
    /// Index into [`Kafka::topics`].
    pub topic: u8,
    /// Partition.
    pub partition: u8,
}

/// Why a broker refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A newer epoch of this producer exists.
    #[error("producer fenced")]
    Fenced,
    /// An earlier transaction is still ending: try again.
    #[error("concurrent transactions")]
    Concurrent,
    /// There is no such transaction.
    #[error("invalid transaction state")]
    InvalidState,
    /// The group has moved on.
    #[error("illegal generation")]
    IllegalGeneration,
    /// Not of the group.
    #[error("unknown member")]
    UnknownMember,
    /// Another process has this instance id.
    #[error("fenced instance id")]
    FencedInstance,
}

/// The brokers.
pub struct Kafka {
    /// Names, by index.
    pub topics: Vec<String>,
    /// Partitions of every topic.
    pub partitions: u8,
    logs: BTreeMap<Tp, Log>,
    /// Transactions.
    pub coordinator: Coordinator,
    /// The processors' group.
    pub group: Group,
    /// Brokers answer nobody before this moment, microseconds.
    pub down_until: u64,
}

impl Kafka {
    /// Brokers with every topic of the catalogue.
    pub fn new(partitions: u8) -> Self {
        let mut names: Vec<String> = topics::ALL.iter().map(|t| t.name.to_string()).collect();
        names.extend(topics::PROCESSORS.iter().map(|name| topics::changelog(name)));
        names.extend(topics::ALL.iter().map(|t| topics::dead_letters(t.name)));
        let mut kafka = Self {
            topics: names,
            partitions,
            logs: BTreeMap::new(),
            coordinator: Coordinator::default(),
            group: Group::default(),
            down_until: 0,
        };
        for topic in 0..kafka.topics.len() {
            for partition in 0..partitions {
                let topic = u8::try_from(topic).expect("few topics");
                kafka.logs.insert(Tp { topic, partition }, Log::default());
            }
        }
        let inboxes = machines::topology::ALL.iter().map(|p| p.commands);
        let all = inboxes.flat_map(|topic| (0..partitions).map(move |p| (topic, i32::from(p))));
        kafka.group.partitions = all.map(|(topic, p)| kafka.tp(topic, p)).collect();
        kafka
    }

    /// The partition of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn tp(&self, topic: &str, partition: i32) -> Tp {
        let index = self.topics.iter().position(|name| name == topic).expect("a known topic");
        let partition = u8::try_from(partition).expect("few partitions");
        assert!(partition < self.partitions, "{topic} has no partition {partition}");
        Tp { topic: u8::try_from(index).expect("few topics"), partition }
    }

    /// Its topic.
    pub fn topic(&self, tp: Tp) -> &str {
        &self.topics[usize::from(tp.topic)]
    }

    /// Its records.
    pub fn log(&self, tp: Tp) -> &Log {
        &self.logs[&tp]
    }

    /// Its records.
    pub fn log_mut(&mut self, tp: Tp) -> &mut Log {
        self.logs.get_mut(&tp).expect("every partition has a log")
    }

    /// Every partition of a topic.
    pub fn of_topic(&self, topic: &str) -> impl Iterator<Item = (Tp, &Log)> {
        let first = self.tp(topic, 0);
        self.logs
            .range(first..)
            .take_while(move |(tp, _)| tp.topic == first.topic)
            .map(|(tp, log)| (*tp, log))
    }

    /// Every partition.
    pub fn all(&self) -> impl Iterator<Item = (Tp, &Log)> {
        self.logs.iter().map(|(tp, log)| (*tp, log))
    }

    /// Appends a record outside of transactions, to the partition that its key decides.
    pub fn append(&mut self, topic: &str, at: Millis, record: Record) -> (Tp, i64) {
        let key = record.key.as_deref().unwrap_or_default();
        let partition = topics::partition_for(key, i32::from(self.partitions));
        let tp = self.tp(topic, partition);
        (tp, self.log_mut(tp).append(at, Rc::new(record), None))
    }

    /// Writes one marker of an ending transaction; the last one completes it, offsets included.
    pub fn mark(&mut self, markers: &Markers, tp: Option<Tp>, at: Millis) {
        let Some(txn) = self.coordinator.txns.get_mut(&markers.id) else { return };
        let State::Ending(commit) = txn.state else { return };
        match tp {
            Some(tp) => {
                txn.partitions.remove(&tp);
                let owner = (txn.producer, txn.epoch);
                self.logs.get_mut(&tp).expect("every partition").mark(at, owner, commit);
            }
            None => {
                let offsets = std::mem::take(&mut txn.offsets);
                if commit {
                    self.group.offsets.extend(offsets);
                }
            }
        }
        if txn.partitions.is_empty() && txn.offsets.is_empty() {
            txn.state = State::Ended(commit);
        }
    }
}
