//! What the file says: counted from its invoices alone.

use std::collections::BTreeMap;

use anyhow::Result;
use events::{Merchant, OrderId};

use super::{
    ASKED, CONFLICTS, Column, LINES, MONEY, ORDERS, PIECES, REFUSED_RECORDED, REPEATS,
    STOCK_BELOW_ZERO, STOCK_RECEIVED, STOCK_RESERVED, UNSERVABLE, VERSION_GAPS,
};
use crate::invoices;
use crate::replay::{Orders, clicks};

/// Counts the file, given what was received of each SKU.
///
/// # Errors
/// When the file cannot be read.
pub fn column(orders: &Orders, receipts: &BTreeMap<String, i64>) -> Result<Column> {
    let mut column = Column::default();
    for row in [ORDERS, LINES, PIECES, MONEY, UNSERVABLE, REPEATS, ASKED] {
        column.set(row, 0);
    }
    let mut n = 0;
    for invoice in orders.read()? {
        let invoice = invoice?;
        let faults = invoice.faults();
        if !faults.is_empty() {
            column.add_refused(&invoices::reason(&faults));
            continue;
        }
        column.add(ORDERS, 1);
        column.add(LINES, i64::try_from(invoice.lines.len())?);
        column.add(PIECES, invoice.lines.iter().map(|line| line.pieces()).sum());
        column.add(MONEY, invoice.total_minor());
        if orders.payment_methods(n, &invoice).is_some() {
            column.add(ASKED, invoice.total_minor());
        }
        column.add(REPEATS, i64::try_from(clicks(n) - 1)?);
        let received = |sku: &String| receipts.get(sku).is_some_and(|pieces| *pieces > 0);
        if !invoice.lines.iter().all(|line| received(&line.sku)) {
            column.add(UNSERVABLE, 1);
        }
        n += 1;
    }
    column.set(STOCK_RECEIVED, receipts.values().sum());
    // What must never be, however the orders went.
    for row in [CONFLICTS, REFUSED_RECORDED, VERSION_GAPS, STOCK_RESERVED, STOCK_BELOW_ZERO] {
        column.set(row, 0);
    }
    Ok(column)
}

/// Ids that the file's bad invoices would have as orders.
///
/// # Errors
/// When the file cannot be read.
pub fn refused(orders: &Orders, merchant: &Merchant) -> Result<Vec<OrderId>> {
    let bad = |invoice: Result<invoices::Invoice>| match invoice {
        Ok(invoice) if invoice.faults().is_empty() => None,
        Ok(invoice) => Some(Ok(OrderId::derive(merchant, &invoice.key))),
        Err(error) => Some(Err(error)),
    };
    orders.read()?.filter_map(bad).collect()
}
