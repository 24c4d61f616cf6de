//! A call to a payment provider, and the names under which the provider knows it.

use compact_str::CompactString;
use events::{Currency, Millis, OrderKey, PaymentStep, ProviderCode};

/// One call to a payment provider. Its outcome comes back as a [`PaymentAnswered`] record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentCall {
    /// The order.
    pub order: OrderKey,
    /// Position of the method, from 1.
    pub method: i32,
    /// Which authorization of it, from 1.
    pub generation: i32,
    /// Which key of the step, from 1.
    pub attempt: i32,
    /// What is to be done.
    pub step: PaymentStep,
    /// Only find out what came of the step.
    pub ask: bool,
    /// Whom.
    pub provider: ProviderCode,
    /// The provider's token of the means of payment.
    pub token: CompactString,
    /// Minor units.
    pub amount_minor: i64,
    /// Of the amount.
    pub currency: Currency,
    /// The provider's id of the payment; empty while unknown.
    pub reference: CompactString,
    /// The step must not be sent later than this (UTC ms); asking is always allowed.
    pub not_after: Millis,
}

impl PaymentCall {
    /// Our name for the payment, `<uuid>-<method>.<generation>`. The UUID stands for order and
    /// acceptance: a key used again after its lifetime is another order.
    pub fn payment(&self) -> String {
        let at = self.order.accepted_at.0.to_be_bytes();
        let order = uuid::Uuid::new_v5(&self.order.order_id.0, &at);
        format!("{order}-{}.{}", self.method, self.generation)
    }

    /// The idempotency key: the same for every try of a step.
    pub fn idempotency_key(&self) -> String {
        format!("{}-{}.{}", self.payment(), self.step.as_str(), self.attempt)
    }
}
