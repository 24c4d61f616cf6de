//! What the demo, the benchmark and the tests on real components share.
//!
//! [`invoices`] reads real orders (with [`countries`]), [`replay`] sends them through [`shop`],
//! [`settle`] waits until nothing moves, [`reconcile`] compares what every system says. [`stack`]
//! starts all of it on free ports; [`progress`] tells people how far it is.

pub mod countries;
pub mod invoices;
pub mod progress;
pub mod reconcile;
pub mod replay;
pub mod settle;
pub mod shop;
pub mod stack;
