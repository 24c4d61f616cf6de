//! The saga with a payment: the order of things, and every end gives the money back once.

use events::{
    ConsignmentMoved, ConsignmentState, PaymentAnswered, PaymentMethod, PaymentOutcome,
    PaymentState, PaymentStep, ProviderCode,
};

use super::tests::order;
use super::ways_out_tests::{Shop, id, skus};
use super::*;

const NOTHING: [&str; 0] = [];

impl Shop {
    fn place_paid(&mut self, confirm_within_ms: i64) {
        let mut order = order("a", &skus(), confirm_within_ms);
        order.payment_methods = Some(vec![PaymentMethod {
            provider: ProviderCode::parse("card").unwrap(),
            token: "t".into(),
            amount_minor: order.total_minor,
        }]);
        self.hand_over(topics::ORDERS.name, 0, order.into());
        self.run();
    }

    /// The oldest call is answered.
    fn answer(&mut self, outcome: PaymentOutcome) {
        let call = self.calls.pop_front().expect("a call");
        let answer = PaymentAnswered {
            order_id: call.order.order_id,
            accepted_at: call.order.accepted_at,
            method: call.method,
            generation: call.generation,
            attempt: call.attempt,
            provider: call.provider,
            step: call.step,
            outcome,
            state: PaymentState::Unknown,
            reference: "p".into(),
            amount_minor: 0,
            reason: "".into(),
            latency_ms: 1,
        };
        self.hand_over(topics::ORDER_OUTCOMES.name, 0, answer.into());
        self.run();
    }

    fn succeed(&mut self) {
        self.answer(PaymentOutcome::Succeeded);
    }

    pub(super) fn moved(&mut self, state: ConsignmentState) {
        let accepted_at = self.saga.orders.get(&id("a")).unwrap().accepted_at;
        let moved = ConsignmentMoved {
            order_id: id("a"),
            accepted_at,
            attempt: 3,
            state,
            occurred_at: Millis(1),
            detail: "".into(),
        };
        self.hand_over(topics::ORDER_OUTCOMES.name, 0, moved.into());
    }

    /// Paid, and the courier is being booked.
    fn booking() -> Self {
        let mut shop = Self::open();
        shop.place_paid(0);
        shop.succeed();
        shop.succeed();
        shop.told();
        shop
    }

    fn routed() -> Self {
        let mut shop = Self::booking();
        shop.booked("a");
        shop.run();
        shop.told();
        shop
    }

    /// Nothing is left but the marker, and no call.
    fn is_over(&mut self) -> bool {
        let row = self.saga.orders.get(&id("a")).unwrap();
        let [moving, captured] = self.saga.payments.rows();
        row.finished.is_some() && moving + captured == 0 && self.saga.sagas.all().is_empty()
    }
}

#[test]
fn the_money_is_authorized_after_the_confirmation_and_captured_before_the_booking() {
    let mut shop = Shop::open();
    shop.place_paid(500);
    assert_eq!(shop.told(), ["received", "reserved"]);
    shop.confirm("a");
    assert_eq!(shop.told(), ["authorize"]);
    shop.succeed();
    assert_eq!(shop.told(), ["authorized", "capture"]);
    shop.succeed();
    assert_eq!(shop.told(), ["paid", "book"]);
}

#[test]
fn an_order_that_is_not_confirmed_asks_for_no_money() {
    let mut shop = Shop::open();
    shop.place_paid(500);
    shop.told();
    shop.wait(500);
    shop.run();
    assert_eq!(shop.told(), ["expired"]);
    assert!(shop.is_over());
}

#[test]
fn a_cancel_while_an_authorization_is_under_way_waits_for_it_and_lets_it_go() {
    let mut shop = Shop::open();
    shop.place_paid(0);
    shop.told();
    shop.cancel("a");
    shop.cancel("a");
    shop.run();
    assert_eq!(shop.told(), ["cancelled"]);
    assert_eq!(shop.held(), (0, 0), "the stock waits for nobody");
    shop.succeed();
    assert_eq!(shop.told(), ["void"]);
    assert!(!shop.is_over());
    shop.cancel("a");
    shop.succeed();
    assert_eq!(shop.told(), ["cancelled"], "once more, with what came of the money");
    assert!(shop.is_over());
}

#[test]
fn a_cancel_while_a_capture_is_under_way_refunds_it() {
    let mut shop = Shop::open();
    shop.place_paid(0);
    shop.succeed();
    shop.told();
    shop.cancel("a");
    shop.succeed();
    assert_eq!(shop.told(), ["cancelled", "refund"]);
    shop.succeed();
    assert_eq!(shop.told(), ["cancelled"]);
    assert!(shop.is_over());
}

/// The courier and the provider answer in either order.
#[test]
fn a_cancel_while_booking_refunds_at_once_and_waits_for_both() {
    for money_first in [true, false] {
        let mut shop = Shop::booking();
        shop.cancel("a");
        shop.run();
        assert_eq!(shop.told(), ["void booking 0", "refund", "cancelled"]);
        if money_first {
            shop.succeed();
            assert_eq!(shop.told(), ["cancelled"]);
            assert!(!shop.is_over());
            shop.booked("a");
            assert_eq!(shop.told(), ["void swift 3"]);
        } else {
            shop.booked("a");
            assert_eq!(shop.told(), ["void swift 3"]);
            assert!(!shop.is_over());
            shop.cancel("a");
            shop.booked("a");
            assert_eq!(shop.told(), NOTHING);
            shop.succeed();
            assert_eq!(shop.told(), ["cancelled"]);
        }
        assert!(shop.is_over() && shop.calls.is_empty());
    }
}

#[test]
fn an_order_that_no_courier_takes_or_that_is_cancelled_when_routed_is_refunded() {
    let mut shop = Shop::booking();
    shop.not_booked("a");
    assert_eq!(shop.told(), ["refund", "rejected"]);
    shop.succeed();
    assert_eq!(shop.told(), ["rejected"]);
    assert!(shop.is_over());
    let mut shop = Shop::routed();
    shop.cancel("a");
    shop.run();
    assert_eq!(shop.told(), ["void swift 3", "refund", "cancelled"]);
    shop.succeed();
    assert!(shop.is_over());
}

#[test]
fn what_is_delivered_stays_paid() {
    let mut shop = Shop::routed();
    shop.moved(ConsignmentState::Shipped);
    shop.moved(ConsignmentState::Delivered);
    assert_eq!(shop.told(), ["shipped", "delivered"]);
    assert!(shop.is_over() && shop.calls.is_empty());
}

/// Given up, then returned or delivered after all, before or after the refund: one refund.
#[test]
fn what_the_courier_gave_up_is_refunded_once() {
    let ends =
        [(ConsignmentState::Returned, "returned"), (ConsignmentState::Delivered, "delivered")];
    for (end, status) in ends {
        for money_first in [true, false] {
            let mut shop = Shop::routed();
            shop.moved(ConsignmentState::Undeliverable);
            assert_eq!(shop.told(), ["refund", "undeliverable"]);
            if money_first {
                shop.succeed();
                assert_eq!(shop.told(), ["undeliverable"]);
                shop.moved(end);
                assert_eq!(shop.told(), [status]);
            } else {
                shop.moved(end);
                assert_eq!(shop.told(), [status]);
                assert!(!shop.is_over());
                shop.succeed();
                assert_eq!(shop.told(), [status]);
            }
            assert!(shop.is_over() && shop.calls.is_empty());
        }
    }
}

#[test]
fn a_refused_payment_declines_the_order_and_frees_its_stock() {
    let mut shop = Shop::open();
    shop.place_paid(0);
    shop.told();
    shop.answer(PaymentOutcome::Declined);
    assert_eq!(shop.told(), ["declined"]);
    assert_eq!(shop.held(), (0, 0));
    assert!(shop.is_over());
}

#[test]
fn the_same_step_is_never_asked_for_twice() {
    let mut shop = Shop::booking();
    shop.cancel("a");
    let steps: Vec<_> = shop.calls.iter().map(|call| call.step).collect();
    assert_eq!(steps, [PaymentStep::Refund]);
    shop.not_booked("a");
    assert_eq!(shop.calls.len(), 1);
}
