//! A stream thread's algorithm: batches, transactions, takeovers, rebalances. Pure but for the traits
//! in `io`, through which it reaches Kafka, its state stores, the courier companies and the clock.
//!
//! The runtime implements the traits with rdkafka and RocksDB, the simulation with models of both, so
//! that what is crashed in the simulation is what runs.
//!
//! Reading order: `io`, `thread` (its tasks, when to commit), `thread/handover` (rebalances,
//! recovery; `thread/idle`: positions of idle inboxes), `commit` (a transaction, step by step), `takeover` and `restore` (getting a partition), `warm` (before
//! that), `observe` (what is told to metrics and logs).

pub mod commit;
pub mod io;
pub mod observe;
pub mod restore;
pub mod takeover;
pub mod thread;
pub mod warm;

pub use io::{
    Changelog, Changelogs, Inbox, Inboxes, Incoming, Learned, Live, Meta, Outgoing, OutgoingHeader,
    Platform, Producer, Rebalance, ShutOut, Stopped, Store,
};
pub use observe::Observed;
pub use thread::{CommitRule, Setup, StreamThread};
