//! What ingest, runtime and sinks share: the registry, Kafka clients, the topic set-up, the dead
//! letter envelope, configuration, secrets, API keys, names of payments, metrics and the operator's port.

use mimalloc::MiMalloc;

pub mod admin;
pub mod client;
pub mod config;
pub mod dead_letter;
pub mod keys;
pub mod operator;
pub mod payment_names;
pub mod registry;
pub mod secret;
pub mod telemetry;

/// Every process's allocator, librdkafka's and RocksDB's too: records are born in one thread and die in
/// another, which the C library's is not made for.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;
