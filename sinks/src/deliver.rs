//! Consume → batch → write, the same for every sink.
//!
//! Each sink is a consumer group of its own, so one that is down moves no other. A process is one
//! static member of it; the member's thread ([`member`]) does nothing but poll the group and start
//! or stop one worker per partition ([`worker`]). A worker reads its partition's own queue
//! ([`intake`]), so that a database which is slow or away holds back the fetching of its partition
//! (librdkafka stops at a bound) while the group is polled on.
//!
//! Where a partition starts is the sink's to know, never the group's reset policy's; what is written
//! and how far it is written change together ([`Partition::write`]).

pub(crate) mod dead_letters;
pub(crate) mod health;
pub(crate) mod intake;
pub(crate) mod log;
pub(crate) mod member;
pub(crate) mod positions;
pub(crate) mod worker;

use std::cmp::Ordering;
use std::time::SystemTime;

use events::Millis;
use events::topics::Topic;

use crate::batch::Limits;
use crate::retry::Failure;
use dead_letters::DeadLetters;
use intake::Received;
use log::Log;

/// The wall clock, UTC.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Seconds from one moment to a later one, for histograms; 0 when clocks disagree.
#[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
pub(crate) fn seconds(from: Millis, to: Millis) -> f64 {
    (to.0 - from.0).max(0) as f64 / 1000.0
}

/// A partition of a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) topic: &'static Topic,
    pub(crate) partition: i32,
}

impl Place {
    fn key(&self) -> (&'static str, i32) {
        (self.topic.name, self.partition)
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Place {}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic.name, self.partition)
    }
}

/// One destination of records.
pub(crate) trait Sink: Send + Sync + 'static {
    /// A partition while it is assigned here.
    type Partition: Partition;

    /// Name of the sink, of its consumer group and of its readiness check.
    fn name(&self) -> &'static str;

    /// What it reads.
    fn topics(&self) -> &'static [&'static Topic];

    /// When it writes.
    fn limits(&self) -> Limits;

    /// Brings the store's tables to this version.
    fn migrate(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Connects and finds out where the partition starts.
    fn open(
        &self,
        place: Place,
        log: &Log,
        dead_letters: &DeadLetters,
    ) -> impl Future<Output = Result<Self::Partition, Failure>> + Send;
}

/// The writing end of one assigned partition.
pub(crate) trait Partition: Send {
    /// The offset of the first record to write.
    fn start(&self) -> i64;

    /// Writes the records, in offset order, and then how far they reach; to a reader each is there once,
    /// however often it is tried. After an error it is called with the same records again. Rejected
    /// records are passed over: they are dead letters already.
    fn write(&mut self, batch: &[Received]) -> impl Future<Output = Result<(), Failure>> + Send;
}
