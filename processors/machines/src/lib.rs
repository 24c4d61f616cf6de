//! The pure core: what Tillroll decides, without IO, clocks or chance.
//!
//! A *machine* takes one record and its state and answers with effects. A *task* runs a machine for
//! one partition, collects effects and state changes into a [`task::Transaction`] (a value), and
//! restores itself from what earlier transactions left in its changelog. The runtime performs
//! transactions on Kafka and RocksDB; the simulation performs them on models of both.
//!
//! Reading order: `table`, `machine`, the machines (`dedupe`, `fulfilment`, `payments`, `stock`,
//! `couriers`), `task`, `footer`, `topology`.

pub mod couriers;
pub mod dedupe;
pub mod footer;
pub mod fulfilment;
pub mod invariant;
pub mod machine;
pub mod payments;
#[cfg(feature = "planted")]
pub mod planted;
pub mod restore;
pub mod stock;
pub mod table;
pub mod task;
pub mod topology;

pub use machine::{Call, CallKind, Context, Effect, Effects, Machine, Notice, Source};
pub use payments::PaymentCall;
pub use task::{Task, TaskId, Transaction};

/// Whether a bug is planted; `false` without the feature.
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(feature = "planted")]
        let active = $crate::planted::active($crate::planted::Bug::$bug);
        #[cfg(not(feature = "planted"))]
        let active = false;
        active
    }};
}
