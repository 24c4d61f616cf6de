//! What ingest, runtime and sinks share: the registry, Kafka clients, the topic set-up, the dead
//! letter envelope, configuration, metrics and the operator's port.

pub mod admin;
pub mod client;
pub mod config;
pub mod dead_letter;
pub mod operator;
pub mod registry;
pub mod telemetry;
