//! What every machine is: records and timers in, effects out.

use compact_str::CompactString;
use events::{
    BreakerState, CourierCode, Destination, Lane, Merchant, Millis, OrderKey, PaymentStep,
    ProviderCode, Record,
};

use crate::invariant::Violation;
use crate::payments::PaymentCall;
use crate::table::{AnyTable, TableId};

/// Where a record stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Topic.
    pub topic: &'static str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// When the broker appended it.
    pub appended_at: Millis,
}

/// What a step may know besides its record and state.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The task's time: never runs backwards, never read from a clock.
    pub now: Millis,
    /// Partition of the task.
    pub partition: i32,
    /// Partitions of every topic.
    pub partitions: i32,
}

/// What follows from a step. Built and taken apart within one step, so its size costs a move.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Effect {
    /// A record for a topic, in the same transaction as the state change.
    Emit {
        /// Topic.
        topic: &'static str,
        /// Partition.
        partition: i32,
        /// Record key.
        key: Vec<u8>,
        /// Record.
        record: Record,
    },
    /// A call to a company; leaves only after the transaction committed.
    Call(Call),
    /// A call to a payment provider; leaves only after the transaction committed.
    Pay(PaymentCall),
    /// The record contradicts its contract: it goes to the dead letter queue.
    Reject {
        /// Why.
        reason: String,
    },
}

/// Effects of the steps of a batch, in order.
#[derive(Debug, Default)]
pub struct Effects {
    /// What follows.
    pub list: Vec<Effect>,
    /// Broken invariants: panic in tests, counted and alarmed in production.
    pub violations: Vec<Violation>,
    /// What operators want to know, beyond the records.
    pub notices: Vec<Notice>,
}

/// What operators want to know of a step, beyond its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A courier is rested, or asked again.
    BreakerMoved {
        /// The courier.
        courier: CourierCode,
        /// On this lane; `None`: on all lanes of the partition.
        lane: Option<Lane>,
        /// From now on.
        state: BreakerState,
    },
    /// Every courier was tried in vain for an order, or none may be asked: it waits.
    OrderWaits,
    /// What the partition's payments wait for of a provider has changed.
    PaymentsWait {
        /// The provider.
        provider: ProviderCode,
        /// How many wait for each step, of the steps that any ever waited for.
        steps: Vec<(PaymentStep, i64)>,
        /// Since when the longest of them waits; `None`: none waits.
        oldest: Option<Millis>,
    },
}

impl Effects {
    /// Emits a record whose key decides the partition.
    pub fn emit(
        &mut self,
        context: &Context,
        topic: &'static str,
        key: &[u8],
        record: impl Into<Record>,
    ) {
        let partition = events::topics::partition_for(key, context.partitions);
        self.emit_to(topic, partition, key, record);
    }

    /// Emits a record to a partition chosen by the caller.
    pub fn emit_to(
        &mut self,
        topic: &'static str,
        partition: i32,
        key: &[u8],
        record: impl Into<Record>,
    ) {
        let key = key.to_vec();
        self.list.push(Effect::Emit { topic, partition, key, record: record.into() });
    }

    /// Makes a call after the commit.
    pub fn call(&mut self, call: Call) {
        self.list.push(Effect::Call(call));
    }

    /// Calls a payment provider after the commit.
    pub fn pay(&mut self, call: PaymentCall) {
        self.list.push(Effect::Pay(call));
    }

    /// Refuses the record at hand.
    pub fn reject(&mut self, reason: impl Into<String>) {
        self.list.push(Effect::Reject { reason: reason.into() });
    }
}

/// One call to a courier company. Its outcome comes back as a `CourierAnswered` record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What to ask.
    pub kind: CallKind,
    /// The order.
    pub order: OrderKey,
    /// Key of the outcome.
    pub lane: Lane,
    /// Attempt of the booking; with the order the idempotency key.
    pub attempt: i32,
    /// Whom.
    pub courier: CourierCode,
    /// Base URL of the company's API.
    pub url: CompactString,
    /// Longest wait, milliseconds.
    pub timeout_ms: i32,
}

impl Call {
    /// The reference under which the company knows the consignment; see [`OrderKey::reference`].
    pub fn reference(&self) -> String {
        self.order.reference(self.attempt)
    }
}

/// What a company is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallKind {
    /// Take a consignment.
    Book {
        /// For whom.
        merchant: Merchant,
        /// Where to.
        destination: Destination,
    },
    /// Forget a consignment, whether it was ever booked or not.
    Void,
}

/// A processor's pure part.
pub trait Machine {
    /// One record: changes state, appends effects. A function of its arguments and the tables.
    fn step(&mut self, record: Record, source: Source, context: &Context, effects: &mut Effects);

    /// A row's deadline may be due; the row may have changed or gone meanwhile.
    fn fire(&mut self, table: TableId, key: &[u8], context: &Context, effects: &mut Effects);

    /// Before a batch is sealed: what is said once per batch, not per record.
    fn end_batch(&mut self, _context: &Context, _effects: &mut Effects) {}

    /// After a takeover: calls that were outstanding, to be made again under the same reference.
    fn resume(&mut self, _context: &Context, _effects: &mut Effects) {}

    /// The machine's tables, always in the same order.
    fn tables(&mut self) -> Vec<&mut dyn AnyTable>;
}
