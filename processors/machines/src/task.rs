//! A task: one processor on one partition. Records in, [`Transaction`]s out; and the same state back
//! from a changelog.
//!
//! A task is pure: who performs its transactions (the runtime on Kafka and RocksDB, the simulation on
//! models) decides when to seal, and must perform them in order, each exactly once or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use events::topics::{self, MAX_RECORD_BYTES};
use events::{Codec, DecodeError, Millis, Origin, RecordType};

use crate::footer::{Footer, Run};
use crate::invariant::Violation;
use crate::machine::{Call, Context, Effect, Effects, Machine, Notice, Source};
use crate::payments::PaymentCall;
use crate::table::{Backing, Due, Write};
use crate::topology::Processor;

/// Most deadlines fired by one tick.
const DUE_PER_TICK: usize = 500;

/// A processor and a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskId {
    /// The processor.
    pub processor: Processor,
    /// The partition of all its inboxes.
    pub partition: i32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.processor.name, self.partition)
    }
}

/// A record for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Topic.
    pub topic: &'static str,
    /// Partition.
    pub partition: i32,
    /// Key.
    pub key: Vec<u8>,
    /// Value in wire format.
    pub value: Vec<u8>,
}

/// A header of a record: its name and value.
pub type Header = (String, Option<Vec<u8>>);

/// A record as it was read.
#[derive(Clone, Copy)]
pub struct Arrived<'a> {
    /// Where it stands.
    pub source: Source,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers; only asked for when it is refused.
    pub headers: &'a dyn Fn() -> Vec<Header>,
}

impl Arrived<'_> {
    fn rejected(&self, stage: &'static str, reason: String) -> Rejected {
        Rejected {
            source: self.source,
            stage,
            reason,
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            headers: (self.headers)(),
        }
    }

    /// Why the record is refused unread, if it is.
    fn too_big(&self) -> Option<String> {
        let bytes = self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len);
        let too_big = bytes > MAX_RECORD_BYTES;
        too_big.then(|| format!("record of {bytes} bytes: at most {MAX_RECORD_BYTES} are read"))
    }
}

/// A record that was refused: it goes, untouched, to its topic's dead letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Where it stood.
    pub source: Source,
    /// `decode` or `step`.
    pub stage: &'static str,
    /// Why.
    pub reason: String,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<Header>,
}

/// What a batch does, as a value. All of it happens, or none.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    /// Whose.
    pub task: TaskId,
    /// Header value of the outputs.
    pub origin: Origin,
    /// Records for other processors and sinks.
    pub outputs: Vec<Output>,
    /// Records for dead letter queues.
    pub rejected: Vec<Rejected>,
    /// Changed rows: the changelog records, and what the local store is to apply.
    pub writes: Vec<Write>,
    /// The last record of the transaction.
    pub footer: Footer,
    /// Entries of the deadline index that have fired; local only, not in the changelog.
    pub fired: Vec<Due>,
    /// Calls to make after the commit.
    pub calls: Vec<Call>,
    /// Calls to payment providers to make after the commit.
    pub payments: Vec<PaymentCall>,
    /// Broken invariants seen while processing.
    pub violations: Vec<Violation>,
    /// What operators want to know.
    pub notices: Vec<Notice>,
}

/// Where a restored task goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Term of the last valid footer; 0 if there was none.
    pub term: u64,
    /// Its sequence.
    pub sequence: u64,
    /// Next offset to read, for every inbox.
    pub positions: BTreeMap<String, i64>,
    /// The task's time.
    pub now: Millis,
    /// Identity of the local store.
    pub store_id: String,
    /// `transactional.id` of the new owner.
    pub owner: String,
    /// Rows to write back over what a torn transaction left behind the last valid footer.
    pub repairs: Vec<Write>,
}

#[derive(Default)]
struct Batch {
    effects: Effects,
    outputs: Vec<Output>,
    rejected: Vec<Rejected>,
    calls: Vec<Call>,
    payments: Vec<PaymentCall>,
    runs: Vec<Run>,
    fired: BTreeSet<Due>,
    repairs: Vec<Write>,
    bytes: usize,
    /// Committed even without records: a takeover must name its owner in the log.
    due: bool,
}

/// One processor on one partition.
pub struct Task {
    id: TaskId,
    machine: Box<dyn Machine>,
    backing: Rc<dyn Backing>,
    codec: Codec,
    partitions: i32,
    start: Start,
    batch: Batch,
    /// Fired in the batch in flight: still in the index, not to fire again.
    fired_in_flight: BTreeSet<Due>,
}

impl Task {
    /// A task that has been restored: `backing` holds the fold of its changelog up to the footer that
    /// `start` was read from. Its first transaction carries the next term, the repairs and the
    /// outstanding calls, and must be committed before records are processed.
    pub fn new(
        id: TaskId,
        backing: Rc<dyn Backing>,
        codec: Codec,
        partitions: i32,
        mut start: Start,
    ) -> Self {
        start.term += 1;
        let machine = id.processor.machine(&backing);
        let batch =
            Batch { repairs: std::mem::take(&mut start.repairs), due: true, ..Batch::default() };
        let fired_in_flight = BTreeSet::new();
        let mut task =
            Self { id, machine, backing, codec, partitions, start, batch, fired_in_flight };
        let context = task.context();
        task.machine.resume(&context, &mut task.batch.effects);
        task.absorb(None);
        task
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Next offset to read, per inbox.
    pub fn positions(&self) -> &BTreeMap<String, i64> {
        &self.start.positions
    }

    /// Whether there is anything to commit.
    pub fn has_work(&self) -> bool {
        self.batch.due || !self.batch.runs.is_empty()
    }

    /// Bytes of output staged so far.
    pub fn staged_bytes(&self) -> usize {
        self.batch.bytes
    }

    /// Teaches the task a schema id that it met.
    pub fn learn(&mut self, codec: Codec) {
        self.codec = codec;
    }

    fn context(&self) -> Context {
        let (now, partition) = (self.start.now, self.id.partition);
        Context { now, partition, partitions: self.partitions }
    }

    /// Refuses a record whose schema id was never registered: it goes to the dead letters, and the
    /// partition moves on.
    pub fn reject(&mut self, record: Arrived<'_>, reason: String) {
        self.note_read(record.source);
        self.start.now = self.start.now.max(record.source.appended_at);
        self.put_aside(record.rejected("decode", reason));
    }

    fn put_aside(&mut self, rejected: Rejected) {
        self.batch.bytes += rejected.value.as_ref().map_or(0, Vec::len);
        self.batch.rejected.push(rejected);
    }

    /// Processes one record. What cannot be read, does not belong on its topic, or is larger than
    /// [`MAX_RECORD_BYTES`] is rejected, and the partition moves on.
    ///
    /// # Errors
    /// An unknown schema id: nothing has happened, [`Task::learn`] and call again, or
    /// [`Task::reject`].
    pub fn process(&mut self, record: Arrived<'_>) -> Result<(), u32> {
        let source = record.source;
        if let Some(reason) = record.too_big() {
            self.reject(record, reason);
            return Ok(());
        }
        match self.codec.decode(record.value.unwrap_or_default()) {
            Err(DecodeError::UnknownSchema(id)) => return Err(id),
            Err(error) => self.reject(record, error.to_string()),
            Ok(decoded) if !belongs(decoded.record_type(), source.topic) => {
                let name = decoded.record_type().name();
                self.reject(record, format!("{name} does not belong on {}", source.topic));
            }
            Ok(decoded) => {
                self.note_read(source);
                self.start.now = self.start.now.max(source.appended_at);
                let context = self.context();
                self.machine.step(decoded, source, &context, &mut self.batch.effects);
                self.absorb(Some(record));
            }
        }
        Ok(())
    }

    /// Fires what is due at `wall` (which only moves the task's time forward). To be called when the
    /// inboxes are at their end or a deadline is due.
    pub fn tick(&mut self, wall: Millis) {
        if self.backing.next_deadline().is_none_or(|deadline| deadline > wall) {
            return;
        }
        let fired =
            |due: &Due| self.batch.fired.contains(due) || self.fired_in_flight.contains(due);
        let entries = self.backing.due(wall, DUE_PER_TICK + self.fired_in_flight.len());
        let due: Vec<Due> = entries.into_iter().filter(|due| !fired(due)).collect();
        if due.is_empty() {
            return;
        }
        self.start.now = self.start.now.max(wall);
        let context = self.context();
        self.batch.runs.push(Run::Tick(self.start.now));
        for due in due {
            self.machine.fire(due.table, &due.key, &context, &mut self.batch.effects);
            self.batch.fired.insert(due);
        }
        self.absorb(None);
    }

    /// Moves effects into the batch, encoded.
    fn absorb(&mut self, record: Option<Arrived<'_>>) {
        let mut effects = std::mem::take(&mut self.batch.effects.list);
        for effect in effects.drain(..) {
            match effect {
                Effect::Emit { topic, partition, key, record } => {
                    let value = self.codec.to_bytes(&record);
                    self.batch.bytes += value.len() + key.len();
                    self.batch.outputs.push(Output { topic, partition, key, value });
                }
                Effect::Call(call) => self.batch.calls.push(call),
                Effect::Pay(call) => self.batch.payments.push(call),
                Effect::Reject { reason } => {
                    if let Some(record) = record {
                        self.put_aside(record.rejected("step", reason));
                    }
                }
            }
        }
        // Its room is used again for the next record.
        self.batch.effects.list = effects;
    }

    /// Takes an inbox to stand at `position`: from its position to there it holds no committed record,
    /// and never will. The next transaction says so, without records if need be.
    pub fn pass(&mut self, inbox: &str, position: i64) {
        if let Some(standing) = self.start.positions.get_mut(inbox)
            && *standing < position
        {
            *standing = position;
            self.batch.due = true;
        }
    }

    fn note_read(&mut self, source: Source) {
        let next = source.offset + 1;
        match self.start.positions.get_mut(source.topic) {
            Some(position) => *position = next,
            None => {
                self.start.positions.insert(source.topic.to_string(), next);
            }
        }
        match self.batch.runs.last_mut() {
            Some(Run::Read(topic, _, to)) if topic == source.topic => *to = next,
            _ => {
                let run = Run::Read(source.topic.to_string(), source.offset, next);
                self.batch.runs.push(run);
            }
        }
    }

    /// Ends the batch. The next one can be processed while this is being committed.
    pub fn seal(&mut self, released: bool) -> Transaction {
        let context = self.context();
        self.machine.end_batch(&context, &mut self.batch.effects);
        self.absorb(None);
        let batch = std::mem::take(&mut self.batch);
        let mut writes = batch.repairs;
        for table in self.machine.tables() {
            table.seal(&mut writes);
        }
        self.start.sequence += 1;
        self.fired_in_flight.clone_from(&batch.fired);
        let footer = Footer {
            term: self.start.term,
            sequence: self.start.sequence,
            positions: self.start.positions.clone(),
            now: self.start.now,
            runs: batch.runs,
            owner: self.start.owner.clone(),
            released,
            store_id: self.start.store_id.clone(),
        };
        let (term, sequence) = (footer.term, footer.sequence);
        Transaction {
            task: self.id,
            origin: Origin { task: self.id.to_string(), term, sequence },
            outputs: batch.outputs,
            rejected: batch.rejected,
            writes,
            footer,
            fired: batch.fired.into_iter().collect(),
            calls: batch.calls,
            payments: batch.payments,
            violations: batch.effects.violations,
            notices: batch.effects.notices,
        }
    }

    /// The sealed batch has been committed and applied to the backing.
    pub fn committed(&mut self) {
        self.fired_in_flight.clear();
        for table in self.machine.tables() {
            table.committed();
        }
    }
}

/// Whether the catalogue has records of this type on this topic.
fn belongs(record_type: RecordType, topic: &str) -> bool {
    let topic = topics::ALL.iter().find(|listed| listed.name == topic);
    topic.is_some_and(|topic| topic.record_types.contains(&record_type))
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
