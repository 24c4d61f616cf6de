//! Crate `local`: gets, starts, health-checks, stops, kills and pauses the real
//! components of Tillroll without containers, on free ports, under one data folder.
//!
//! Reading order: [`stack`] (what tests and the demo use), [`component`] (one
//! running thing with its health check), [`process`] (a supervised child), then
//! a file per component: [`kafka`], [`registry`], [`postgres`], [`clickhouse`],
//! [`courier`], [`services`]. [`fetch`] downloads what [`versions`] pins.
//!
//! The crate knows nothing of topics, schemas or tables: `tillroll setup` makes them.

pub mod chdb;
mod classes;
pub mod clickhouse;
pub mod clickhouse_server;
pub mod component;
pub mod control;
pub mod courier;
pub mod courier_simulator;
pub mod fetch;
pub mod health;
pub mod kafka;
pub mod payment;
pub mod payment_simulator;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod registry;
pub mod serve;
pub mod services;
pub mod stack;
pub mod tools;
pub mod versions;

pub use component::Component;
pub use services::Service;
pub use stack::{Stack, StackBuilder};
