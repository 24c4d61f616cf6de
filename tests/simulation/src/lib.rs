//! Deterministic simulation: the real machines and the real stream thread on models of Kafka,
//! RocksDB, courier companies and the sinks' databases. One seed decides everything.
//!
//! Reading order: `plan` (what a seed means), `run` (the scheduler), `world` (clock, processes,
//! clients, calls, faults), `kafka`, `store`, `couriers`, `providers`, `sinks` (the
//! models), `platform` (the
//! stream thread's traits on them), `workload`, `auditor` (a second opinion on the outcome),
//! `coverage`, `journal`, `sweep` and `crash_points` (many runs).

pub mod auditor;
pub mod chance;
pub mod couriers;
pub mod coverage;
pub mod crash_points;
pub mod journal;
pub mod kafka;
pub mod plan;
pub mod platform;
pub mod providers;
pub mod run;
pub mod sinks;
pub mod store;
pub mod sweep;
pub mod workload;
pub mod world;
