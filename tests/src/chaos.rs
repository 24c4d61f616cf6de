//! Faults on the real stack: a load whose client keeps a ledger, a fault every few seconds, and at
//! the end a comparison of ledger, topics, Postgres, ClickHouse and couriers, record by record.
//!
//! [`ledger`] is what the client was told, [`client`] sends, [`tracker`] knows what has come out where,
//! [`faults`] strikes, [`checker`] compares.

pub mod checker;
pub mod client;
pub mod faults;
pub mod ledger;
pub mod tracker;
