//! Crate `ingest`: the HTTP API. A request becomes a record, and is answered once Kafka has it.
//!
//! Reading order: [`service`] (start and end), `routes` (every path), `orders`, `changes`,
//! `tracking`, `list`, `history`, `stock` and `webhooks` (the handlers), `watch` (what happens to an order, as it
//! happens), [`validate`] (pure: body → order, or all its faults), [`publish`] (acknowledged,
//! refused or unknown), [`recent`] and `tail` (repeated clicks), `follow` (a topic, for `tail` and `watch`),
//! [`problem`] (refusals), [`keys`].
//!
//! Nothing here writes to a database, and nothing on the way of a POST calls the registry.

mod app;
mod card_numbers;
mod changes;
pub mod config;
mod database;
mod faults;
mod fingerprint;
mod follow;
mod history;
pub mod keys;
mod list;
mod openapi;
mod orders;
mod payment_methods;
mod prefer;
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
mod watch;
pub mod webhooks;
