//! What the payment providers hold, by their own ledger.

use super::{AUTHORIZED, CAPTURED, Column, REFUNDED};
use crate::payments::Payment;

/// Adds the ledger up.
pub fn column(ledger: &[Payment]) -> Column {
    let mut column = Column::default();
    for row in [AUTHORIZED, CAPTURED, REFUNDED] {
        column.set(row, 0);
    }
    for payment in ledger {
        let held = i64::from(payment.state != "declined");
        column.add(AUTHORIZED, held * payment.amount_minor);
        // A payment that was taken twice shows as too much.
        column.add(CAPTURED, payment.captures * payment.amount_minor);
        column.add(REFUNDED, payment.refunds * payment.amount_minor);
    }
    column
}
