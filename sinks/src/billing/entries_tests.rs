//! What follows from which history; whatever the history and the order in which it is read, the books are sound.

use std::collections::BTreeMap;

use OrderStatus::{
    Authorized, Cancelled, Delivered, Paid, Received, Returned, Routed, Shipped, Undeliverable,
};
use PaymentState as State;
use events::{Currency, ProviderCode};
use proptest::prelude::*;

use super::*;
use crate::samples;

const TOTAL: i64 = 100;

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
    change.total_minor = TOTAL;
    change.payments = payments.to_vec();
    change
}

/// What was written of an order, and with which amounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ledger {
    known: Known,
    amounts: BTreeMap<Key, i64>,
}

impl Ledger {
    fn read(&mut self, change: &OrderStatusChanged) {
        let news = self.known.take(change);
        assert!(news == News::default() || moves_money(change), "{change:?}");
        for entry in news.entries {
            let before = self.amounts.insert(entry.key, entry.amount_minor);
            assert_eq!(before, None, "written twice: {change:?}");
        }
    }

    fn balances(&self) -> BTreeMap<&'static str, i64> {
        let mut balances = BTreeMap::new();
        for (key, amount) in &self.amounts {
            let (debit, credit) = key.kind.accounts();
            *balances.entry(debit).or_default() += amount;
            *balances.entry(credit).or_default() -= amount;
        }
        balances.retain(|_, balance| *balance != 0);
        balances
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.amounts.keys().map(|key| key.kind.as_str()).collect()
    }
}

fn read(changes: &[OrderStatusChanged]) -> Ledger {
    let mut ledger = Ledger::default();
    changes.iter().for_each(|change| ledger.read(change));
    ledger
}

#[test]
fn a_paid_order_is_revenue_once_it_is_handed_over() {
    let held = [fact(1, State::Authorized, 30), fact(2, State::Authorized, 70)];
    let taken = [fact(1, State::Captured, 30), fact(2, State::Captured, 70)];
    let paid = [change(1, Received, &[]), change(2, Authorized, &held), change(3, Paid, &taken)];
    let ledger = read(&paid);
    assert_eq!(ledger.balances(), [("clearing", 100), ("customers", -100)].into());
    assert_eq!(ledger.kinds(), ["capture", "capture"]);
    // Overdue, it is told to be shipped once more.
    let served = [change(4, Shipped, &[]), change(5, Shipped, &[]), change(6, Delivered, &[])];
    let ledger = read(&[paid.as_slice(), &served].concat());
    assert_eq!(ledger.balances(), [("clearing", 100), ("revenue", -100)].into());
}

#[test]
fn a_hold_that_was_let_go_is_nothing() {
    let cancelled = [
        change(1, Authorized, &[fact(1, State::Authorized, 100)]),
        change(2, Cancelled, &[fact(1, State::Voided, 100)]),
    ];
    assert_eq!(read(&cancelled), Ledger::default());
}

#[test]
fn what_is_refunded_leaves_nothing_behind() {
    let cancelled = [
        change(1, Paid, &[fact(1, State::Captured, 100)]),
        change(2, Cancelled, &[]),
        change(3, Cancelled, &[fact(1, State::Refunded, 100)]),
    ];
    assert_eq!(read(&cancelled).balances(), [].into());
    assert_eq!(read(&cancelled).kinds(), ["capture", "refund"]);
    // The capture was never told by itself.
    let late = [change(1, Cancelled, &[fact(1, State::Refunded, 100)])];
    assert_eq!(read(&late).kinds(), ["capture", "refund"]);
    let both = [fact(1, State::Captured, 100), fact(1, State::Refunded, 100)];
    assert_eq!(read(&[change(1, Cancelled, &both)]).kinds(), ["capture", "refund"]);
}

#[test]
fn of_two_methods_the_one_that_was_taken_goes_back() {
    let refused = [
        change(1, Authorized, &[fact(1, State::Authorized, 30), fact(2, State::Authorized, 70)]),
        change(2, OrderStatus::Declined, &[fact(1, State::Captured, 30)]),
        change(
            3,
            OrderStatus::Declined,
            &[fact(1, State::Refunded, 30), fact(2, State::Voided, 70)],
        ),
    ];
    let ledger = read(&refused);
    assert_eq!((ledger.balances(), ledger.kinds()), ([].into(), vec!["capture", "refund"]));
}

#[test]
fn a_payment_whose_id_comes_late_is_one() {
    let mut unnamed = fact(1, State::Captured, 100);
    unnamed.reference = "".into();
    let changes =
        [change(1, Paid, &[unnamed]), change(2, Cancelled, &[fact(1, State::Refunded, 100)])];
    assert_eq!(read(&changes).kinds(), ["capture", "refund"]);
}

#[test]
fn a_capture_told_in_two_versions_is_taken_once() {
    // A transaction that was torn is done again, with the capture in an earlier version than before.
    let captured = [fact(1, State::Captured, 100)];
    let changes =
        [change(1, Received, &[]), change(3, Paid, &captured), change(2, Paid, &captured)];
    assert_eq!(read(&changes).kinds(), ["capture"]);
}

#[test]
fn a_hand_over_that_is_read_last_is_sold_and_returned() {
    // It waited in the dead letters while the order was given up.
    let mut ledger = read(&[change(1, Received, &[]), change(3, Undeliverable, &[])]);
    assert_eq!(ledger.kinds(), [""; 0]);
    ledger.read(&change(2, Shipped, &[]));
    assert_eq!(ledger.kinds(), ["sale", "return"]);
    // A return between two deliveries, too.
    let mut ledger = read(&[change(1, Shipped, &[]), change(3, Delivered, &[])]);
    ledger.read(&change(2, Undeliverable, &[]));
    assert_eq!(ledger.kinds(), ["sale", "return", "resale"]);
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
    let ledger = read(&given_up);
    assert_eq!(ledger.balances(), [("returns", 100), ("revenue", -100)].into());
    assert_eq!(ledger.kinds(), ["capture", "refund", "sale", "return"]);
    let delivered = [&given_up[..4], &[change(5, Delivered, &[])]].concat();
    // The customer has the goods and the money.
    let owed = [("customers", 100), ("revenue", -100)].into();
    assert_eq!(read(&delivered).balances(), owed);
}

#[test]
fn an_order_paid_elsewhere_is_owed_and_one_never_handed_over_is_nothing() {
    let elsewhere = [change(1, Received, &[]), change(2, Delivered, &[])];
    assert_eq!(read(&elsewhere).balances(), [("customers", 100), ("revenue", -100)].into());
    let lost = [change(1, Received, &[]), change(2, Undeliverable, &[])];
    assert_eq!(read(&lost).kinds(), [""; 0]);
}

#[test]
fn kinds_are_read_as_they_are_written() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.as_str()), Some(kind));
    }
    assert_eq!(Kind::parse("gift"), None);
}

/// Statuses and facts in any order, those that no order would see included.
fn history() -> impl Strategy<Value = Vec<OrderStatusChanged>> {
    let statuses = [
        Received,
        Authorized,
        Paid,
        Routed,
        Shipped,
        Delivered,
        Cancelled,
        Undeliverable,
        Returned,
    ];
    let states =
        [State::Authorized, State::Voided, State::Declined, State::Captured, State::Refunded];
    let methods = vec![(1, 20), (2, 30), (3, 50)];
    let fact = (proptest::sample::select(methods), proptest::sample::select(states.to_vec()))
        .prop_map(|((method, amount_minor), state)| fact(method, state, amount_minor));
    let step = (proptest::sample::select(statuses.to_vec()), proptest::collection::vec(fact, 0..3));
    proptest::collection::vec(step, 0..12).prop_map(|steps| {
        let versions = steps.into_iter().zip(1..);
        versions.map(|((status, facts), version)| change(version, status, &facts)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_history_balances(history in history()) {
        let ledger = read(&history);
        let balance = |account| ledger.balances().get(account).copied().unwrap_or(0);
        let accounts = ["clearing", "customers", "revenue", "returns"];
        prop_assert_eq!(accounts.map(balance).iter().sum::<i64>(), 0);
        // Nothing is given back that was not taken, nothing is taken or given back twice.
        let told = |method: i32, states: &[State]| {
            let of = |fact: &&PaymentFact| fact.method == method && states.contains(&fact.state);
            history.iter().flat_map(|change| &change.payments).find(of).map_or(0, |f| f.amount_minor)
        };
        let kept: i64 = (1..=3)
            .map(|method| told(method, &[State::Captured, State::Refunded]) - told(method, &[State::Refunded]))
            .sum();
        prop_assert_eq!(balance("clearing"), kept);
        // The last word about the goods decides what is left of the sale.
        let moved = |change: &&OrderStatusChanged| matches!(change.status, Shipped | Delivered | Undeliverable | Returned);
        let last = history.iter().rfind(moved).map(|change| change.status);
        let sold = if matches!(last, Some(Shipped | Delivered)) { -TOTAL } else { 0 };
        prop_assert_eq!(balance("revenue") + balance("returns"), sold);
    }

    #[test]
    fn what_is_read_again_late_or_in_another_order_comes_to_the_same(
        (history, order) in history().prop_flat_map(|history| {
            let twice: Vec<usize> = (0..history.len()).chain(0..history.len()).collect();
            (Just(history), Just(twice).prop_shuffle())
        }),
    ) {
        let mut ledger = Ledger::default();
        for index in order {
            ledger.read(&history[index]);
        }
        prop_assert_eq!(ledger, read(&history));
    }
}
