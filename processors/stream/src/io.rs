//! What a stream thread needs of the world, as small traits: a platform that makes clients, a
//! transactional producer, the inboxes, changelogs, and a store per task.
//!
//! Every call may fail, and any failure leads to the same recovery; only [`Stopped`] ends the thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use events::{Codec, Millis};
use machines::footer::Footer;
use machines::restore::Entry;
use machines::table::{Backing, Due, Write};
use machines::task::{Header, Rejected};
use machines::topology::Processor;
use machines::{Call, PaymentCall, TaskId};
use serde::{Deserialize, Serialize};

use crate::observe::Observed;

/// An error after which the thread must not go on by itself: an operator decides.
#[derive(Debug, thiserror::Error)]
#[error("stopped: {0}")]
pub struct Stopped(pub String);

/// What came of asking for a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learned {
    /// The codec knows it now.
    Known,
    /// It was never registered: records that name it are refused for this reason.
    NeverRegistered(String),
}

/// The group has given this member's place to another client with its instance id. That may be another
/// process; or itself, when a coordinator that failed or stalled lost its answer to a request to
/// join. The way on is to join again.
#[derive(Debug, thiserror::Error)]
#[error("shut out of the group: {0}")]
pub struct ShutOut(pub String);

/// True while the task that made a call is still this thread's; calls must not leave afterwards.
pub type Live = Arc<AtomicBool>;

/// Makes clients for one stream thread, and knows the time.
pub trait Platform {
    /// Its transactional producers.
    type Producer: Producer<Group = <Self::Inboxes as Inboxes>::Group>;
    /// Its place in the consumer group.
    type Inboxes: Inboxes;
    /// Its reader of changelogs.
    type Changelogs: Changelogs;
    /// Its state stores; clones are handles to the same one.
    type Store: Store;

    /// A producer that is ready for transactions: whoever had this id before is fenced, and whatever
    /// it left open has been ended.
    ///
    /// # Errors
    /// When the brokers do not answer in time.
    fn producer(&self, transactional_id: &str) -> Result<Self::Producer>;

    /// Joins the group for the command inboxes of these processors.
    ///
    /// # Errors
    /// When the client refuses its configuration.
    fn inboxes(&self, processors: &[Processor]) -> Result<Self::Inboxes>;

    /// A reader of changelogs.
    ///
    /// # Errors
    /// When the client refuses its configuration.
    fn changelogs(&self) -> Result<Self::Changelogs>;

    /// Opens a task's store, waiting until whoever has it in this process lets go.
    ///
    /// # Errors
    /// When it stays locked or cannot be read.
    fn store(&self, task: TaskId) -> Result<Self::Store>;

    /// A new identity for a state store, never given twice.
    fn store_id(&self) -> String;

    /// Teaches the codec a schema id that it met.
    ///
    /// # Errors
    /// [`Stopped`] when this version cannot read it; any other when the registry does not answer.
    fn learn(&self, codec: &mut Codec, schema_id: u32) -> Result<Learned>;

    /// Makes a call in the background, unless its task has moved on by then.
    fn call(&self, call: Call, live: &Live);

    /// Makes a call to a payment provider in the background, unless its task has moved on by then.
    fn pay(&self, call: PaymentCall, live: &Live);

    /// Time that only moves forward, from any moment on.
    fn elapsed(&self) -> Duration;

    /// The wall clock.
    fn wall(&self) -> Millis;

    /// Sleeps at least this long.
    fn sleep(&self, time: Duration);

    /// Whether the thread has been told to stop.
    fn stopping(&self) -> bool;

    /// Tells metrics and logs what happened.
    fn observe(&self, observed: Observed<'_>);
}

/// A record to be produced in a transaction.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition; `None` lets the key decide.
    pub partition: Option<i32>,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value; `None` deletes.
    pub value: Option<&'a [u8]>,
    /// What its headers say.
    pub header: OutgoingHeader<'a>,
    /// A footer's index in its transaction: its offset is reported under it.
    pub footer: Option<usize>,
}

/// What the headers of a record say.
#[derive(Debug, Clone, Copy)]
pub enum OutgoingHeader<'a> {
    /// An output: its [`events::Origin`], as text.
    Origin(&'a str),
    /// A changelog record or footer: its [`machines::footer::batch_header`].
    Batch(&'a [u8; 16]),
    /// A dead letter of this task.
    Rejected(TaskId, &'a Rejected),
}

/// A transactional producer. After any error it is dropped and made anew.
pub trait Producer: Sized {
    /// Proves membership of the consumer group.
    type Group;

    /// Begins a transaction.
    ///
    /// # Errors
    /// When the producer is fenced or unusable.
    fn begin(&mut self) -> Result<()>;

    /// Hands a record over; it is delivered in the background.
    ///
    /// # Errors
    /// When the record is refused.
    fn send(&mut self, record: Outgoing<'_>) -> Result<()>;

    /// Asks that everything handed over leaves at once.
    fn hurry(&mut self);

    /// Whether everything handed over has been delivered; never waits.
    ///
    /// # Errors
    /// When a record was not delivered.
    fn drained(&mut self) -> Result<bool>;

    /// Index and offset of the footers delivered since the last call, in any order.
    fn footers(&mut self) -> Vec<(usize, i64)>;

    /// Adds the next offsets of inboxes (topic, partition, offset) to the transaction.
    ///
    /// # Errors
    /// When the member is no longer of the group's present generation, or Kafka does not answer.
    fn send_offsets(&mut self, offsets: &[(&str, i32, i64)], group: Self::Group) -> Result<()>;

    /// Commits. Waits some seconds.
    ///
    /// # Errors
    /// Any: the outcome may be unknown.
    fn commit(&mut self) -> Result<()>;
}

/// Which inbox of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbox {
    /// Outcome inboxes, assigned by hand.
    Outcomes,
    /// Command inboxes, assigned by the group.
    Commands,
}

/// A change of what the group assigns to this thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebalance {
    /// Partitions of command inboxes to take over.
    Assigned(Vec<(String, i32)>),
    /// Partitions to hand over.
    Revoked(Vec<(String, i32)>),
}

/// A record that was read.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// When the broker appended it.
    pub appended_at: Millis,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: Option<&'a [u8]>,
    /// Headers; only asked for when the record is refused.
    pub headers: &'a dyn Fn() -> Vec<Header>,
}

/// A thread's membership of the group and its inboxes; used by that thread only.
pub trait Inboxes {
    /// Proves membership of the consumer group.
    type Group;

    /// Takes the next record at hand, without waiting; `false` if there is none. Taking commands
    /// also serves the group.
    ///
    /// # Errors
    /// What `take` fails with; [`Stopped`] when records were lost, [`ShutOut`] when the group has
    /// another member with this instance id.
    fn next(&self, inbox: Inbox, take: impl FnMut(Incoming<'_>) -> Result<()>) -> Result<bool>;

    /// What the group changed since the last call, in order.
    fn rebalances(&self) -> Vec<Rebalance>;

    /// Starts reading the inboxes of tasks at their positions. To be answered to every
    /// [`Rebalance::Assigned`], empty or not.
    ///
    /// # Errors
    /// When the client refuses.
    fn assign<'a>(
        &self,
        tasks: impl Iterator<Item = (TaskId, &'a BTreeMap<String, i64>)>,
    ) -> Result<()>;

    /// Stops reading the inboxes of tasks. To be answered to every [`Rebalance::Revoked`].
    ///
    /// # Errors
    /// When the client refuses.
    fn unassign(&self, tasks: impl Iterator<Item = TaskId>) -> Result<()>;

    /// What a transaction needs to commit offsets as this member: of the generation that the changes belong
    /// to which [`Self::rebalances`] has returned last. A client joins the next one in the background;
    /// under that, a thread could commit what it has been deprived of and has not heard of yet.
    ///
    /// # Errors
    /// When the group was never joined.
    fn group(&self) -> Result<Self::Group>;

    /// Offset that the group has committed, if any.
    ///
    /// # Errors
    /// When the broker does not answer.
    fn committed(&self, topic: &str, partition: i32) -> Result<Option<i64>>;

    /// Leaves the group: a static member sends no LeaveGroup when it is closed.
    fn unsubscribe(&self);
}

/// A partition of a log that is read from offset to offset.
#[derive(Debug, Clone)]
pub struct Changelog {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
}

impl std::fmt::Display for Changelog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Reads changelogs.
pub trait Changelogs {
    /// First offset and the end of what is committed (the last stable offset).
    ///
    /// # Errors
    /// When the broker does not answer.
    fn bounds(&self, log: &Changelog) -> Result<(i64, i64)>;

    /// The broker's end of a log, committed or not.
    ///
    /// # Errors
    /// When the broker does not answer.
    fn uncommitted_end(&self, log: &Changelog) -> Result<i64>;

    /// Visits the committed records of `from..end`, in order.
    ///
    /// # Errors
    /// What `visit` fails with, and when the broker does not answer.
    fn read(
        &self,
        log: &Changelog,
        from: i64,
        end: i64,
        visit: impl FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()>;
}

/// What a store says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Changelog offset to go on from.
    pub position: i64,
    /// The footer that the store stands at.
    pub footer: Footer,
    /// Highest term among the changelog records before `position`: what follows with a lower one is a
    /// zombie's.
    #[serde(default)]
    pub term: u64,
    /// Set while a restore is under way: rows may be ahead of the footer.
    pub restoring: bool,
}

/// A task's committed rows: a cache of its changelog.
pub trait Store: Backing + Clone + 'static {
    /// What the store says of itself; `None` for a new one.
    ///
    /// # Errors
    /// When it cannot be read.
    fn meta(&self) -> Result<Option<Meta>>;

    /// Whether there is no row at all.
    fn is_empty(&self) -> bool;

    /// Deletes everything.
    ///
    /// # Errors
    /// When the store refuses.
    fn clear(&self) -> Result<()>;

    /// Applies changed rows and meta, all or nothing; survives the process, not always the machine.
    ///
    /// # Errors
    /// When the store refuses; it is then as before.
    fn apply(&self, writes: &[Write], fired: &[Due], meta: &Meta) -> Result<()>;

    /// Notes that the store is open now; to be called at least every minute.
    fn touch(&self);
}
