//! The shared runtime: runs any processor's machine on Kafka transactions and RocksDB.
//!
//! The algorithm is crate `stream`'s; here is what it runs on.
//!
//! Reading order: `thread` (the platform), `inbox` (polling and rebalances), `commit` (the
//! transactional producer), `changelog` (reading them), `store` (RocksDB), `calls` (courier
//! companies) and `payments` (providers) over `http`, `lag` and `observe` (metrics and logs).

pub mod calls;
pub mod changelog;
pub mod commit;
pub mod config;
pub mod http;
pub mod inbox;
mod lag;
pub mod observe;
mod outcomes;
pub mod payments;
pub mod store;
pub mod thread;
