//! The shared runtime: runs any processor's machine on Kafka transactions and RocksDB.
//!
//! Reading order: `thread` (a stream thread: its tasks, when to commit), `inbox` (polling and
//! rebalances), `commit` (a transaction, step by step), `takeover` and `restore` (getting a
//! partition), `store` (RocksDB), `calls` (courier companies).

pub mod calls;
pub mod commit;
pub mod config;
pub mod inbox;
pub mod restore;
pub mod store;
pub mod takeover;
pub mod thread;
