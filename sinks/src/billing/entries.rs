//! Pure: a change of status → its entries, given the order's entries of earlier versions.
//!
//! The earlier ones alone decide, so a change that is read again has the same entries under the same key.

use compact_str::CompactString;
use events::{OrderStatus, OrderStatusChanged, PaymentFact, PaymentState};

/// What an entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Capture,
    Refund,
    Sale,
    Return,
    Resale,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Capture, Self::Refund, Self::Sale, Self::Return, Self::Resale];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Refund => "refund",
            Self::Sale => "sale",
            Self::Return => "return",
            Self::Resale => "resale",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Debit and credit.
    pub(super) fn accounts(self) -> (&'static str, &'static str) {
        match self {
            Self::Capture => ("clearing", "customers"),
            Self::Refund => ("customers", "clearing"),
            Self::Sale => ("customers", "revenue"),
            Self::Return => ("returns", "customers"),
            Self::Resale => ("customers", "returns"),
        }
    }
}

/// An entry that the order has, as far as later ones depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) version: i32,
    pub(super) kind: Kind,
    /// Method and reference of its payment; 0 and nothing without one.
    pub(super) payment: (i32, CompactString),
}

/// An entry to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) status: &'a OrderStatusChanged,
    pub(super) number: i32,
    pub(super) kind: Kind,
    pub(super) amount_minor: i64,
    pub(super) payment: Option<&'a PaymentFact>,
}

impl Entry<'_> {
    pub(super) fn known(&self) -> Known {
        let payment = self.payment.map(|fact| (fact.method, fact.reference.clone()));
        Known {
            version: self.status.version,
            kind: self.kind,
            payment: payment.unwrap_or_default(),
        }
    }
}

/// Whether the change may have entries.
pub(super) fn moves_money(status: &OrderStatusChanged) -> bool {
    use OrderStatus::{Delivered, Returned, Shipped, Undeliverable};
    matches!(status.status, Shipped | Delivered | Undeliverable | Returned)
        || status
            .payments
            .iter()
            .any(|fact| matches!(fact.state, PaymentState::Captured | PaymentState::Refunded))
}

/// The entries of a change; `known` are the order's, of any version.
pub(super) fn entries<'a>(status: &'a OrderStatusChanged, known: &[Known]) -> Vec<Entry<'a>> {
    let earlier: Vec<&Known> = known.iter().filter(|k| k.version < status.version).collect();
    let mut entries: Vec<Entry<'a>> = Vec::new();
    let total = status.total_minor;
    let of_sale = sale(status.status, &earlier);
    let of_sale =
        of_sale.map(|kind| Entry { status, number: 0, kind, amount_minor: total, payment: None });
    entries.extend(of_sale);
    for (fact, number) in status.payments.iter().zip((1..).step_by(2)) {
        let payment = (fact.method, fact.reference.clone());
        let there = |kind| {
            let same = |known: &Known| known.kind == kind && known.payment == payment;
            earlier.iter().any(|known| same(known)) || entries.iter().any(|new| same(&new.known()))
        };
        // The provider's word can come late: what was refunded was captured before.
        let moved = matches!(fact.state, PaymentState::Captured | PaymentState::Refunded);
        let capture = moved && !there(Kind::Capture);
        let refund = fact.state == PaymentState::Refunded && !there(Kind::Refund);
        for (wanted, number, kind) in
            [(capture, number, Kind::Capture), (refund, number + 1, Kind::Refund)]
        {
            if wanted {
                let amount_minor = fact.amount_minor;
                entries.push(Entry { status, number, kind, amount_minor, payment: Some(fact) });
            }
        }
    }
    entries
}

/// What the status means for revenue. A status can be told twice; an order can be delivered after it was given up.
fn sale(status: OrderStatus, earlier: &[&Known]) -> Option<Kind> {
    use OrderStatus::{Delivered, Returned, Shipped, Undeliverable};
    let count = |kinds: &[Kind]| earlier.iter().filter(|known| kinds.contains(&known.kind)).count();
    let returns = count(&[Kind::Return]);
    let stands = count(&[Kind::Sale, Kind::Resale]) > returns;
    match status {
        Shipped | Delivered if !stands && returns == 0 => Some(Kind::Sale),
        Shipped | Delivered if !stands => Some(Kind::Resale),
        Undeliverable | Returned if stands => Some(Kind::Return),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use events::{Currency, ProviderCode};

    use super::*;
    use crate::samples;

    fn fact(method: i32, state: PaymentState, amount_minor: i64) -> PaymentFact {
        PaymentFact {
            method,
            provider: ProviderCode::parse("stripe").unwrap(),
            reference: format!("pi_{method}").into(),
            state,
            amount_minor,
            currency: Currency::parse("GBP").unwrap(),
        }
    }

    fn change(version: i32, status: OrderStatus, payments: &[PaymentFact]) -> OrderStatusChanged {
        let mut change = samples::status("ledger", version);
        change.status = status;
        change.total_minor = 100;
        change.payments = payments.to_vec();
        change
    }

    /// Balances by account once all changes were read, and the kinds of the entries.
    fn kept(changes: &[OrderStatusChanged]) -> (BTreeMap<&'static str, i64>, Vec<&'static str>) {
        let (mut known, mut balances, mut kinds) = (vec![], BTreeMap::new(), vec![]);
        for change in changes {
            assert!(moves_money(change) || entries(change, &known).is_empty());
            let new = entries(change, &known);
            for entry in &new {
                let (debit, credit) = entry.kind.accounts();
                *balances.entry(debit).or_default() += entry.amount_minor;
                *balances.entry(credit).or_default() -= entry.amount_minor;
                kinds.push(entry.kind.as_str());
            }
            known.extend(new.iter().map(Entry::known));
        }
        // Read again, every change has the entries that it had.
        let again: Vec<Known> =
            changes.iter().flat_map(|change| entries(change, &known)).map(|e| e.known()).collect();
        assert_eq!(again, known);
        balances.retain(|_, balance| *balance != 0);
        (balances, kinds)
    }

    use OrderStatus::{
        Authorized, Cancelled, Delivered, Paid, Received, Returned, Shipped, Undeliverable,
    };
    use PaymentState as State;

    #[test]
    fn a_paid_order_is_revenue_once_it_is_handed_over() {
        let (gift, card) = (fact(1, State::Captured, 30), fact(2, State::Captured, 70));
        let held = [fact(1, State::Authorized, 30), fact(2, State::Authorized, 70)];
        let paid = [
            change(1, Received, &[]),
            change(2, Authorized, &held),
            change(3, Paid, &[gift, card]),
        ];
        let (balances, kinds) = kept(&paid);
        assert_eq!(balances, [("clearing", 100), ("customers", -100)].into());
        assert_eq!(kinds, ["capture", "capture"]);
        let served = [
            paid.as_slice(),
            &[
                change(4, Shipped, &[]),
                // Overdue.
                change(5, Shipped, &[]),
                change(6, Delivered, &[]),
            ],
        ]
        .concat();
        let (balances, _) = kept(&served);
        assert_eq!(balances, [("clearing", 100), ("revenue", -100)].into());
    }

    #[test]
    fn what_is_refunded_leaves_nothing_behind() {
        let cancelled = [
            change(1, Paid, &[fact(1, State::Captured, 100)]),
            change(2, Cancelled, &[]),
            change(3, Cancelled, &[fact(1, State::Refunded, 100)]),
        ];
        assert_eq!(kept(&cancelled), ([].into(), vec!["capture", "refund"]));
        // The capture was never told by itself.
        let late = [change(1, Cancelled, &[fact(1, State::Refunded, 100)])];
        assert_eq!(kept(&late), ([].into(), vec!["capture", "refund"]));
        let both = [fact(1, State::Captured, 100), fact(1, State::Refunded, 100)];
        assert_eq!(kept(&[change(1, Cancelled, &both)]).1, ["capture", "refund"]);
    }

    #[test]
    fn a_return_takes_revenue_back_and_a_late_delivery_restores_it() {
        let given_up = [
            change(1, Paid, &[fact(1, State::Captured, 100)]),
            change(2, Shipped, &[]),
            change(3, Undeliverable, &[]),
            change(4, Undeliverable, &[fact(1, State::Refunded, 100)]),
            change(5, Returned, &[]),
        ];
        let (balances, kinds) = kept(&given_up);
        assert_eq!(balances, [("returns", 100), ("revenue", -100)].into());
        assert_eq!(kinds, ["capture", "sale", "return", "refund"]);
        let delivered = [&given_up[..4], &[change(5, Delivered, &[])]].concat();
        // The customer has the goods and the money.
        assert_eq!(kept(&delivered).0, [("customers", 100), ("revenue", -100)].into());
    }

    #[test]
    fn an_order_paid_elsewhere_is_owed_and_one_never_handed_over_is_nothing() {
        let elsewhere = [change(1, Received, &[]), change(2, Delivered, &[])];
        assert_eq!(kept(&elsewhere).0, [("customers", 100), ("revenue", -100)].into());
        let lost = [change(1, Received, &[]), change(2, Undeliverable, &[])];
        assert_eq!(kept(&lost), ([].into(), vec![]));
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(Kind::parse("gift"), None);
    }
}
