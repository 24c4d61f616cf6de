//! What the demo, the benchmark and the tests on real components share.
//!
//! [`invoices`] reads real orders (with [`countries`]), [`replay`] sends them through [`shop`],
//! [`load`] generates orders without end, [`watch`] sees them come out, [`raw`] is the ceiling above.
//! [`reservations`] measures stock alone, beside PostgreSQL; [`growth`] what many SKUs cost.
//! [`settle`] waits until nothing moves ([`lag`] counts what is left), [`reconcile`] compares what every system says,
//! [`payments`] says what is paid with what, [`books`] what the ledger must hold, [`couriers`] asks the companies; [`state`] measures what a million rows cost,
//! [`streams`] what open event streams do.
//! [`stack`] starts all of it on free ports; [`chaos`] breaks it and compares; [`progress`] tells people how far it is.
//! [`alerts`] reads the alert rules.

pub mod alerts;
pub mod books;
pub mod chaos;
pub mod countries;
pub mod couriers;
pub mod growth;
pub mod invoices;
pub mod lag;
pub mod load;
pub mod payments;
pub mod progress;
pub mod raw;
pub mod reconcile;
pub mod replay;
pub mod reservations;
pub mod settle;
pub mod shop;
pub mod stack;
pub mod state;
pub mod streams;
pub mod watch;
