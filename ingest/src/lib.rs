//! Crate `ingest`: the HTTP API. A request becomes a record, and is answered once Kafka has it.
//!
//! Reading order: [`service`] (start and end), `routes` (every path), `orders`, `changes`,
//! `tracking` and `stock` (the handlers), [`validate`] (pure: body → order, or all its faults), [`publish`] (acknowledged,
//! refused or unknown), [`recent`] and `tail` (repeated clicks), [`problem`] (refusals), [`keys`].
//!
//! Nothing here writes to a database, and nothing on the way of a POST calls the registry.

mod app;
mod changes;
pub mod config;
mod database;
mod faults;
mod fingerprint;
pub mod keys;
mod orders;
pub mod problem;
pub mod publish;
pub mod recent;
mod request;
mod routes;
mod server;
pub mod service;
mod stock;
mod tail;
mod tracking;
pub mod validate;
