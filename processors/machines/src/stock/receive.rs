//! Receipts: a receipt counts once, and its first body counts.

use events::StockReceived;

use super::Stock;
use super::rows::{RECEIPT_KEPT_MS, Receipt, ReceivedLine};
use crate::machine::{Context, Effects};

impl Stock {
    pub(super) fn receive(
        &mut self,
        received: StockReceived,
        context: &Context,
        effects: &mut Effects,
    ) {
        if received.quantity <= 0 {
            effects.reject("a receipt needs a positive quantity");
            return;
        }
        let key = (received.receipt_id, received.sku.clone(), received.warehouse.clone());
        let first = self.receipts.get(&received.receipt_id).map(|receipt| receipt.fingerprint);
        let line = self.received.get(&key);
        let other_body = first.is_some_and(|f| received.fingerprint.is_some_and(|now| now != f));
        if other_body || line.is_some_and(|line| line.quantity != received.quantity) {
            let id = received.receipt_id.0;
            effects.reject(format!(
                "receipt {id} was posted before with another body, which counts: use a new key"
            ));
            return;
        }
        if line.is_some() {
            return;
        }
        let forget_at = context.now.plus(RECEIPT_KEPT_MS);
        if let (None, Some(fingerprint)) = (first, received.fingerprint) {
            self.receipts.put(received.receipt_id, Receipt { fingerprint, forget_at });
        }
        self.received.put(key, ReceivedLine { quantity: received.quantity, forget_at });
        let key = (received.merchant, received.sku, received.warehouse);
        let mut level = self.levels.get(&key).unwrap_or_default();
        level.on_hand += i64::from(received.quantity);
        self.levels.put(key, level);
    }
}
