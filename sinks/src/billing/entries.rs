//! Pure: changes of an order's status → its entries, given what the ledger holds of the order.
//!
//! An entry's key says what it stands for and not which change told of it. So changes may be read again, late (sent
//! back from the dead letters) and in any order: in the end the ledger holds the same, and nothing was taken back.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;
use events::{Millis, OrderStatus, OrderStatusChanged, PaymentFact, PaymentState};

/// What an entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// What an order has one entry of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    /// How often the order had come back before; 0 of a payment.
    pub(super) turn: i32,
    /// Position of the payment's method in the order, from 1; 0 without a payment.
    pub(super) method: i32,
    /// The provider's id of the payment; empty without one.
    pub(super) reference: CompactString,
}

/// An entry to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) key: Key,
    /// The change that it follows from, and when that happened.
    pub(super) version: i32,
    pub(super) occurred_at: Millis,
    /// Minor units, as the change tells them.
    pub(super) amount_minor: i64,
    pub(super) payment: Option<&'a PaymentFact>,
}

/// Where a change of status says that the goods are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Goods {
    /// Handed to the courier or delivered; else given up, or back.
    pub(super) handed_over: bool,
    pub(super) occurred_at: Millis,
}

/// What the ledger holds of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) entries: BTreeSet<Key>,
    /// By version.
    pub(super) goods: BTreeMap<i32, Goods>,
}

/// What a change adds to it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News<'a> {
    pub(super) goods: Option<Goods>,
    pub(super) entries: Vec<Entry<'a>>,
}

/// Whether the change may add to the ledger.
pub(super) fn moves_money(change: &OrderStatusChanged) -> bool {
    handed_over(change.status).is_some()
        || change.payments.iter().any(|fact| !steps(fact.state).is_empty())
}

/// What the status says of the goods, if anything.
fn handed_over(status: OrderStatus) -> Option<bool> {
    match status {
        OrderStatus::Shipped | OrderStatus::Delivered => Some(true),
        OrderStatus::Undeliverable | OrderStatus::Returned => Some(false),
        _ => None,
    }
}

/// What has happened to a payment that stands so. The provider's word can come late: what was refunded was
/// captured before, told or not.
fn steps(state: PaymentState) -> &'static [Kind] {
    match state {
        PaymentState::Captured => &[Kind::Capture],
        PaymentState::Refunded => &[Kind::Capture, Kind::Refund],
        _ => &[],
    }
}

impl Known {
    /// Takes a change of the order's in, and says what is new by it.
    pub(super) fn take<'a>(&mut self, change: &'a OrderStatusChanged) -> News<'a> {
        let mut news = News::default();
        if let Some(handed_over) = handed_over(change.status)
            && !self.goods.contains_key(&change.version)
        {
            let goods = Goods { handed_over, occurred_at: change.occurred_at };
            self.goods.insert(change.version, goods);
            news.goods = Some(goods);
            news.entries = self.sales(change.total_minor);
        }
        for fact in &change.payments {
            for &kind in steps(fact.state) {
                if self.entries.iter().any(|key| key.kind == kind && is_of(key, fact)) {
                    continue;
                }
                let (method, reference) = (fact.method, fact.reference.clone());
                let entry = Entry {
                    key: Key { kind, turn: 0, method, reference },
                    version: change.version,
                    occurred_at: change.occurred_at,
                    amount_minor: fact.amount_minor,
                    payment: Some(fact),
                };
                self.entries.insert(entry.key.clone());
                news.entries.push(entry);
            }
        }
        news
    }

    /// The order's sale, returns and resales that are not there yet: one for each time that the goods changed sides.
    /// Whatever is learnt later of the time between, there are never fewer.
    fn sales<'a>(&mut self, total_minor: i64) -> Vec<Entry<'a>> {
        let mut entries = Vec::new();
        let (mut sold, mut turn) = (false, 0);
        for (&version, goods) in &self.goods {
            if goods.handed_over == sold {
                continue;
            }
            let kind = match (goods.handed_over, turn) {
                (true, 0) => Kind::Sale,
                (true, _) => Kind::Resale,
                (false, _) => Kind::Return,
            };
            let key = Key { kind, turn, method: 0, reference: "".into() };
            if self.entries.insert(key.clone()) {
                let (occurred_at, amount_minor) = (goods.occurred_at, total_minor);
                entries.push(Entry { key, version, occurred_at, amount_minor, payment: None });
            }
            turn += i32::from(sold);
            sold = goods.handed_over;
        }
        entries
    }
}

/// Whether an entry is of the fact's payment, whose id may not be known from the beginning.
fn is_of(key: &Key, fact: &PaymentFact) -> bool {
    let unnamed = key.reference.is_empty() || fact.reference.is_empty();
    key.method == fact.method && (unnamed || key.reference == fact.reference)
}

#[cfg(test)]
#[path = "entries_tests.rs"]
mod tests;
