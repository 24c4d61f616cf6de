//! What is kept of a payment.

use compact_str::CompactString;
use events::{Currency, Millis, PaymentFact, PaymentState, PaymentStep, ProviderCode};
use serde::{Deserialize, Serialize};

use crate::table::Row;

/// An order's payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Of every amount.
    pub currency: Currency,
    /// What the saga wants.
    pub goal: Goal,
    /// Its methods, in the order's order.
    pub methods: Vec<Method>,
    /// What happened since the last status event.
    pub untold: Vec<PaymentFact>,
    /// Since when the saga waits for the payment, or for its unwinding.
    #[serde(default)]
    pub since: Millis,
}

impl Payment {
    /// Since when it waits. A row from before that was kept has the time of its oldest open step instead.
    pub(super) fn waits_since(&self) -> Millis {
        let open = self.methods.iter().filter_map(|method| method.open.as_ref());
        let decided = open.map(|open| open.decided_at).min();
        if self.since == Millis::default() { decided.unwrap_or_default() } else { self.since }
    }
}

/// What the saga wants of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// Hold the money.
    Authorize,
    /// Take it.
    Capture,
    /// Have no money of this order.
    Unwind,
}

/// One method of an order's payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// Who holds the money.
    pub provider: ProviderCode,
    /// The provider's token.
    pub token: CompactString,
    /// Its part of the total, minor units.
    pub amount_minor: i64,
    /// Which authorization it is, from 1.
    pub generation: i32,
    /// Where the payment of this generation stands.
    pub state: PaymentState,
    /// The provider's id of the payment; empty while unknown.
    pub reference: CompactString,
    /// When it was authorized; 0 before.
    pub authorized_at: Millis,
    /// Why it was declined; else empty.
    pub reason: CompactString,
    /// The provider holds the amount but will not give it.
    pub refused: bool,
    /// What is being done.
    pub open: Option<Open>,
}

/// A step that has been decided and is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Which.
    pub step: PaymentStep,
    /// Which key it has, from 1.
    pub attempt: i32,
    /// When it was decided; its key counts from then.
    pub decided_at: Millis,
    /// Calls that did not end it.
    pub tries: i32,
    /// Nobody knows what came of it: the provider is asked before it is sent again.
    pub doubt: bool,
    /// When to go on; `None`: a call is under way.
    pub waits_until: Option<Millis>,
}

impl Row for Payment {
    fn deadline(&self) -> Option<Millis> {
        let open = self.methods.iter().filter_map(|method| method.open.as_ref());
        open.filter_map(|open| open.waits_until).min()
    }
}
