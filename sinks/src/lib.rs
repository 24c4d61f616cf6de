//! Sinks: each writes what the topics hold into one store, exactly once, as a consumer group of its
//! own: `tracking` and `billing` into PostgreSQL, `reports` into ClickHouse.
//!
//! Reading order: [`config`]; `batch` (when to write) and `retry` (what an error asks), both pure;
//! `deliver` (what is the same for every sink: group, queues, batches, dead letters); then a sink:
//! [`tracking`], [`billing`] (both on `postgres`), [`reports`]. A new sink is another implementation of `deliver::Sink`.

mod batch;
pub mod billing;
pub mod config;
mod deliver;
mod postgres;
pub mod reports;
mod retry;
#[cfg(test)]
mod samples;
pub mod service;
pub mod tracking;
