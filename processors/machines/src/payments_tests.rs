//! A payment's paths through the saga: all or nothing, doubt, lapses, and the classic races.

use super::*;
use crate::fulfilment::Fulfilment;
use crate::machine::{Effect, Machine, Source};
use crate::table::memory::Memory;
use events::{
    CancelRequested, Destination, Fingerprint, LinesReserved, Merchant, OrderId, OrderLine,
    OrderPlaced, PaymentOutcome, PaymentStep, ProviderCode, Record, RequestId, Sku, topics,
};

const ACCEPTED: Millis = Millis(1_000);

struct World {
    machine: Fulfilment,
    memory: Rc<Memory>,
    now: i64,
}

fn merchant() -> Merchant {
    Merchant::parse("shop").unwrap()
}

fn order_id() -> OrderId {
    OrderId::derive(&merchant(), "k")
}

fn placed(amounts: &[(&str, i64)]) -> OrderPlaced {
    let method = |(provider, amount_minor): &(&str, i64)| PaymentMethod {
        provider: ProviderCode::parse(provider).unwrap(),
        token: "tok".into(),
        amount_minor: *amount_minor,
    };
    OrderPlaced {
        order_id: order_id(),
        merchant: merchant(),
        idempotency_key: "k".into(),
        fingerprint: Fingerprint(uuid::Uuid::from_u128(1)),
        customer_id: None,
        currency: Currency::parse("GBP").unwrap(),
        destination: Destination {
            name: "n".into(),
            street: "s".into(),
            city: "c".into(),
            postcode: "p".into(),
            country: "FR".into(),
        },
        lines: vec![OrderLine {
            line: 1,
            sku: Sku::parse("A").unwrap(),
            quantity: 1,
            unit_price_minor: 100,
        }],
        total_minor: 100,
        ordered_at: Millis(1),
        attributes: [].into(),
        confirm_within_ms: 0,
        payment_methods: Some(amounts.iter().map(method).collect()),
    }
}

/// An order of 100 whose line is reserved, so that its payment begins.
fn paying(amounts: &[(&str, i64)]) -> (World, Vec<String>) {
    let memory = Rc::new(Memory::default());
    let backing: Rc<dyn Backing> = memory.clone();
    let mut world = World { machine: Fulfilment::new(&backing), memory, now: 1_000 };
    assert_eq!(world.step(placed(amounts)), ["received", "ReserveLines"]);
    let reserved = LinesReserved {
        order_id: order_id(),
        accepted_at: ACCEPTED,
        stock_partition: 0,
        attempt: 1,
        warehouse: None,
        alone: vec![],
        moved_from: None,
    };
    let told = world.step(reserved);
    (world, told)
}

/// An answer that says nothing.
fn answered() -> PaymentAnswered {
    PaymentAnswered {
        order_id: order_id(),
        accepted_at: ACCEPTED,
        method: 1,
        generation: 1,
        attempt: 1,
        provider: ProviderCode::parse("card").unwrap(),
        step: PaymentStep::Unknown,
        outcome: PaymentOutcome::Unknown,
        state: PaymentState::Unknown,
        reference: "pi".into(),
        amount_minor: 0,
        reason: "".into(),
        latency_ms: 1,
    }
}

fn tell(effect: &Effect) -> String {
    match effect {
        Effect::Emit { record: Record::OrderStatusChanged(changed), .. } => {
            let mut text = changed.status.as_str().to_string();
            if !changed.reason.is_empty() {
                text += &format!(" ({})", changed.reason);
            }
            for fact in &changed.payments {
                text += &format!(", {} {}", fact.state.as_str(), fact.amount_minor);
            }
            text
        }
        Effect::Emit { record, .. } => record.record_type().name().to_string(),
        Effect::Pay(call) => {
            let ask = if call.ask { "ask: " } else { "" };
            let key = call.idempotency_key();
            // Without the order's UUID.
            format!("{ask}{} {}", call.provider, &key[37..])
        }
        other => format!("{other:?}"),
    }
}

impl World {
    fn context(&self) -> Context {
        Context { now: Millis(self.now), partition: 0, partitions: 1 }
    }

    fn step(&mut self, record: impl Into<Record>) -> Vec<String> {
        let source =
            Source { topic: topics::ORDERS.name, partition: 0, offset: 0, appended_at: ACCEPTED };
        let mut effects = Effects::default();
        let context = self.context();
        self.machine.step(record.into(), source, &context, &mut effects);
        assert_eq!(effects.violations, []);
        self.keep();
        effects.list.iter().map(tell).collect()
    }

    /// What a commit does: deadlines are found in committed rows.
    fn keep(&mut self) {
        let mut writes = vec![];
        for table in self.machine.tables() {
            table.seal(&mut writes);
            table.committed();
        }
        self.memory.apply(&writes, &[]);
    }

    /// Time passes; what is due fires.
    fn later(&mut self, ms: i64) -> Vec<String> {
        self.now += ms;
        let mut effects = Effects::default();
        let context = self.context();
        for due in self.memory.due(context.now, 100) {
            self.machine.fire(due.table, &due.key, &context, &mut effects);
            self.memory.apply(&[], &[due]);
        }
        self.keep();
        effects.list.iter().map(tell).collect()
    }

    fn resume(&mut self) -> Vec<String> {
        let mut effects = Effects::default();
        let context = self.context();
        self.machine.resume(&context, &mut effects);
        effects.list.iter().map(tell).collect()
    }

    fn answer(&mut self, method: i32, step: PaymentStep, outcome: PaymentOutcome) -> Vec<String> {
        self.answer_with(method, 1, step, outcome, PaymentState::Unknown)
    }

    fn answer_with(
        &mut self,
        method: i32,
        generation: i32,
        step: PaymentStep,
        outcome: PaymentOutcome,
        state: PaymentState,
    ) -> Vec<String> {
        let declined = outcome == PaymentOutcome::Declined;
        self.step(PaymentAnswered {
            method,
            generation,
            step,
            outcome,
            state,
            reason: if declined { "card_declined".into() } else { "".into() },
            ..answered()
        })
    }

    /// The first method's step is refused under this key.
    fn refuse(&mut self, step: PaymentStep, attempt: i32) -> Vec<String> {
        self.step(PaymentAnswered { attempt, step, outcome: Declined, ..answered() })
    }

    fn webhook(&mut self, method: i32, state: PaymentState) -> Vec<String> {
        self.webhook_of("card", method, state)
    }

    fn webhook_of(&mut self, provider: &str, method: i32, state: PaymentState) -> Vec<String> {
        self.step(PaymentNotified {
            order_id: order_id(),
            accepted_at: ACCEPTED,
            method,
            generation: 1,
            provider: ProviderCode::parse(provider).unwrap(),
            event_id: "e".into(),
            state,
            reference: "pi".into(),
            amount_minor: 0,
            reason: "".into(),
            occurred_at: Millis(1),
        })
    }

    fn cancel(&mut self) -> Vec<String> {
        let request_id = RequestId::derive("cancel", &merchant(), "k1");
        let (order_id, merchant) = (order_id(), merchant());
        self.step(CancelRequested { order_id, merchant, request_id, reason: "".into() })
    }

    fn no_courier(&mut self) -> Vec<String> {
        let (order_id, accepted_at) = (order_id(), ACCEPTED);
        self.step(events::ConsignmentFailed { order_id, accepted_at, detail: "refused".into() })
    }
}

const NOTHING: [&str; 0] = [];
use PaymentOutcome::{Declined, Failed, NotFound, NotSent, Succeeded, Unknown};
use PaymentStep::{Authorize, Capture, Refund, Void};

#[test]
fn authorized_captured_and_only_then_booked() {
    let (mut world, told) = paying(&[("card", 100)]);
    assert_eq!(told, ["reserved", "card 1.1-authorize.1"]);
    let told = world.answer(1, Authorize, Succeeded);
    assert_eq!(told, ["authorized, authorized 100", "card 1.1-capture.1"]);
    let told = world.answer(1, Capture, Succeeded);
    assert_eq!(told, ["paid, captured 100", "BookConsignment"]);
    assert_eq!(world.answer(1, Capture, Succeeded), NOTHING, "an answer counts once");
    assert_eq!(world.resume(), NOTHING, "nothing is outstanding");
}

#[test]
fn methods_that_do_not_sum_up_are_refused() {
    let (world, _) = paying(&[("card", 100)]);
    for amounts in [&[("card", 99)][..], &[("card", 0), ("gift", 100)], &[]] {
        let backing: Rc<dyn Backing> = Rc::new(Memory::default());
        let mut other =
            World { machine: Fulfilment::new(&backing), memory: world.memory.clone(), now: 1_000 };
        assert!(other.step(placed(amounts))[0].starts_with("Reject"));
    }
}

#[test]
fn all_or_nothing_one_refusal_lets_the_other_go() {
    let (mut world, told) = paying(&[("gift", 30), ("card", 70)]);
    assert_eq!(told, ["reserved", "gift 1.1-authorize.1", "card 2.1-authorize.1"]);
    assert_eq!(
        world.answer(1, Authorize, Succeeded),
        NOTHING,
        "captured is nothing before all are"
    );
    let told = world.answer(2, Authorize, Declined);
    let expected =
        ["ReleaseLines", "gift 1.1-void.1", "declined (card_declined), authorized 30, declined 70"];
    assert_eq!(told, expected);
    assert_eq!(world.answer(1, Void, Succeeded), ["declined (payment_voided), voided 30"]);
    assert_eq!(world.resume(), NOTHING);
}

#[test]
fn a_refusal_waits_for_what_is_being_called() {
    let (mut world, _) = paying(&[("gift", 30), ("card", 70)]);
    let told = world.answer(2, Authorize, Declined);
    assert_eq!(told, ["ReleaseLines", "declined (card_declined), declined 70"]);
    assert_eq!(world.answer(1, Authorize, Succeeded), ["gift 1.1-void.1"]);
    let told = world.answer(1, Void, Succeeded);
    assert_eq!(told, ["declined (payment_voided), authorized 30, voided 30"]);
}

#[test]
fn paid_but_no_courier_is_refunded() {
    let (mut world, _) = paying(&[("card", 100)]);
    world.answer(1, Authorize, Succeeded);
    world.answer(1, Capture, Succeeded);
    let told = world.no_courier();
    assert_eq!(told, ["ReleaseLines", "card 1.1-refund.1", "rejected (no_courier)"]);
    assert_eq!(world.answer(1, Refund, Succeeded), ["rejected (refunded), refunded 100"]);
}

#[test]
fn a_provider_speaks_for_its_own_payments_only() {
    let (mut world, _) = paying(&[("gift", 40), ("card", 60)]);
    let told = world.webhook_of("gift", 2, PaymentState::Captured);
    assert!(told[0].contains("another provider's payment"), "{told:?}");
    assert_eq!(told.len(), 1, "the card is not paid");
}

#[test]
fn an_unknown_outcome_is_resolved_by_asking() {
    let (mut world, _) = paying(&[("card", 100)]);
    assert_eq!(world.answer(1, Authorize, Unknown), NOTHING);
    assert_eq!(world.later(999), NOTHING);
    assert_eq!(world.later(1), ["ask: card 1.1-authorize.1"]);
    // Nobody knows yet, again: asked less often.
    assert_eq!(world.answer(1, Authorize, Unknown), NOTHING);
    assert_eq!(world.later(2_000), ["ask: card 1.1-authorize.1"]);
    // Not there: sent again under the same key, since the first one may still be on its way.
    assert_eq!(world.answer(1, Authorize, NotFound), ["card 1.1-authorize.1"]);
    let told = world.answer(1, Authorize, Succeeded);
    assert_eq!(told, ["authorized, authorized 100", "card 1.1-capture.1"]);
    // The answer to an ask can be that it was done.
    world.answer(1, Capture, Unknown);
    assert_eq!(world.later(60_000), ["ask: card 1.1-capture.1"]);
    let told = world.answer_with(1, 1, Capture, Succeeded, PaymentState::Captured);
    assert_eq!(told, ["paid, captured 100", "BookConsignment"]);
}

#[test]
fn a_failure_that_a_provider_repeats_under_its_key_is_left_behind() {
    let (mut world, _) = paying(&[("card", 100)]);
    world.answer(1, Authorize, Succeeded);
    world.answer(1, Capture, Unknown);
    world.later(1_000);
    let told = world.answer_with(1, 1, Capture, NotFound, PaymentState::Authorized);
    assert_eq!(told, NOTHING);
    assert_eq!(world.later(1_000), ["card 1.1-capture.2"]);
    // The first one was only late.
    assert_eq!(world.webhook(1, PaymentState::Captured), ["paid, captured 100", "BookConsignment"]);
}

#[test]
fn a_cancelled_order_is_not_captured_any_more() {
    for outcome in [NotFound, Failed] {
        let (mut world, _) = paying(&[("card", 100)]);
        world.answer(1, Authorize, Succeeded);
        world.answer(1, Capture, Unknown);
        assert_eq!(world.cancel(), ["ReleaseLines", "cancelled (requested)"]);
        let told = world.answer_with(1, 1, Capture, outcome, PaymentState::Authorized);
        assert_eq!(told, ["card 1.1-void.1"]);
        // The capture was only late: the provider says so when it refuses the void.
        let told = world.answer_with(1, 1, Void, Declined, PaymentState::Captured);
        assert_eq!(told, ["card 1.1-refund.1"]);
    }
}

#[test]
fn a_refusal_after_the_order_was_cancelled_is_told() {
    let (mut world, _) = paying(&[("card", 100)]);
    world.cancel();
    assert_eq!(
        world.answer(1, Authorize, Declined),
        ["cancelled (payment_declined), declined 100"]
    );
}

#[test]
fn what_a_provider_has_captured_by_itself_is_paid() {
    let (mut world, _) = paying(&[("card", 100)]);
    let told = world.answer_with(1, 1, Authorize, Succeeded, PaymentState::Captured);
    assert_eq!(told, ["authorized, captured 100", "paid", "BookConsignment"]);
}

#[test]
fn what_a_provider_refuses_to_give_back_is_asked_for_ever_less_often() {
    let (mut world, _) = paying(&[("card", 100)]);
    world.answer(1, Authorize, Succeeded);
    world.answer(1, Capture, Succeeded);
    world.no_courier();
    let mut waited = 0;
    for attempt in 1..=20 {
        world.refuse(Refund, attempt);
        let due = (500_i64 << (attempt - 1).min(16)).min(3_600_000);
        assert_eq!(world.later(due - 1), NOTHING);
        assert_eq!(world.later(1), [format!("card 1.1-refund.{}", attempt + 1)]);
        waited += due;
    }
    assert!(waited > 6 * 3_600_000, "{waited}");
}

#[test]
fn a_key_is_not_used_after_its_lifetime() {
    let (mut world, _) = paying(&[("card", 100)]);
    world.answer(1, Authorize, Unknown);
    world.later(KEY_LIFETIME_MS + 60_000);
    // It must not be sent any more, and may still arrive: asked again.
    assert_eq!(world.answer(1, Authorize, NotFound), NOTHING);
    assert_eq!(world.later(FINAL_AFTER_MS), ["ask: card 1.1-authorize.1"]);
    // Now "not found" is final.
    assert_eq!(world.answer(1, Authorize, NotFound), ["card 1.1-authorize.2"]);
}

#[test]
fn what_failed_is_tried_again_under_its_key() {
    let (mut world, _) = paying(&[("card", 100)]);
    assert_eq!(world.answer(1, Authorize, Failed), NOTHING);
    assert_eq!(world.later(500), ["card 1.1-authorize.1"]);
    assert_eq!(world.answer(1, Authorize, NotSent), ["card 1.1-authorize.1"]);
    assert_eq!(world.resume(), ["card 1.1-authorize.1"], "after a takeover, too");
}

#[test]
fn an_old_authorization_is_made_anew_before_it_is_captured() {
    let (mut world, _) = paying(&[("gift", 30), ("card", 70)]);
    world.answer(1, Authorize, Succeeded);
    // The other provider is away for a week.
    world.answer(2, Authorize, Failed);
    world.later(7 * 24 * 60 * 60 * 1_000);
    let told = world.answer(2, Authorize, Succeeded);
    let expected =
        ["authorized, authorized 30, authorized 70", "gift 1.1-void.1", "card 2.1-capture.1"];
    assert_ne!(told, expected, "nothing is captured while a hold is being renewed");
    assert_eq!(told, ["authorized, authorized 30, authorized 70", "gift 1.1-void.1"]);
    assert_eq!(world.answer(1, Void, Succeeded), ["gift 1.2-authorize.1"]);
    let told = world.answer_with(1, 2, Authorize, Succeeded, PaymentState::Unknown);
    assert_eq!(told, ["gift 1.2-capture.1", "card 2.1-capture.1"]);
}

#[test]
fn a_lapsed_authorization_is_renewed_and_given_up_after_three() {
    let (mut world, _) = paying(&[("card", 100)]);
    world.answer(1, Authorize, Succeeded);
    for generation in 1..3 {
        let told = world.answer_with(1, generation, Capture, Declined, PaymentState::Voided);
        let next = generation + 1;
        assert_eq!(told, [format!("card 1.{next}-authorize.1")]);
        world.answer_with(1, next, Authorize, Succeeded, PaymentState::Unknown);
    }
    let told = world.answer_with(1, 3, Capture, Declined, PaymentState::Voided);
    assert_eq!(told[0], "ReleaseLines");
    assert!(told[1].starts_with("declined (authorization_lapsed)"), "{told:?}");
}

#[test]
fn a_refused_capture_declines_the_order_and_lets_the_hold_go() {
    let (mut world, _) = paying(&[("card", 100)]);
    world.answer(1, Authorize, Succeeded);
    let told = world.answer_with(1, 1, Capture, Declined, PaymentState::Authorized);
    assert_eq!(told, ["ReleaseLines", "card 1.1-void.1", "declined (card_declined)"]);
    assert_eq!(world.answer(1, Void, Succeeded), ["declined (payment_voided), voided 100"]);
}

#[test]
fn race_webhook_before_response() {
    let (mut world, _) = paying(&[("card", 100)]);
    let told = world.webhook(1, PaymentState::Authorized);
    assert_eq!(told, ["authorized, authorized 100", "card 1.1-capture.1"]);
    assert_eq!(world.answer(1, Authorize, Succeeded), NOTHING);
    // Even "nobody knows" says nothing any more.
    assert_eq!(world.answer(1, Authorize, Unknown), NOTHING);
    let told = world.webhook(1, PaymentState::Captured);
    assert_eq!(told, ["paid, captured 100", "BookConsignment"]);
    assert_eq!(world.answer(1, Capture, Succeeded), NOTHING);
    assert_eq!(world.webhook(1, PaymentState::Captured), NOTHING, "twice");
    assert_eq!(world.webhook(1, PaymentState::Authorized), NOTHING, "late");
}

#[test]
fn race_client_retry_against_webhook() {
    let (mut world, _) = paying(&[("card", 100)]);
    // The customer clicks again while the provider's webhook comes in.
    assert_eq!(world.step(placed(&[("card", 100)])), ["OrderRepeated"]);
    world.webhook(1, PaymentState::Authorized);
    assert_eq!(world.step(placed(&[("card", 100)])), ["OrderRepeated"]);
    world.webhook(1, PaymentState::Captured);
    assert_eq!(world.step(placed(&[("card", 100)])), ["OrderRepeated"], "still one payment");
    assert_eq!(world.resume(), NOTHING);
}

/// The order ends (here: its other method is refused late) while a capture is under way.
#[test]
fn race_capture_against_cancel() {
    for captured in [true, false] {
        let memory = Rc::new(Memory::default());
        let backing: Rc<dyn Backing> = memory;
        let mut payments = Payments::new((3, 4), &backing);
        let order = OrderKey { order_id: order_id(), accepted_at: ACCEPTED };
        let context = Context { now: Millis(1_000), partition: 0, partitions: 1 };
        let methods = placed(&[("card", 100)]).payment_methods.unwrap();
        let mut fx = Effects::default();
        let gbp = Currency::parse("GBP").unwrap();
        payments.begin(order, &methods, &gbp, &context, &mut fx);
        let answer = |step, outcome| PaymentAnswered {
            order_id: order.order_id,
            accepted_at: order.accepted_at,
            method: 1,
            generation: 1,
            attempt: 1,
            provider: ProviderCode::parse("card").unwrap(),
            step,
            outcome,
            state: PaymentState::Unknown,
            reference: "pi".into(),
            amount_minor: 0,
            reason: "".into(),
            latency_ms: 1,
        };
        payments.answered(&answer(Authorize, Succeeded), &context, &mut fx);
        payments.capture(order, &context, &mut fx);
        fx.list.clear();
        // Cancelled: nothing is done before it is known what came of the capture.
        assert!(payments.unwind(order, &context, &mut fx));
        assert_eq!(fx.list, []);
        let outcome = if captured { Succeeded } else { Declined };
        assert_eq!(payments.answered(&answer(Capture, outcome), &context, &mut fx), None);
        let told: Vec<_> = fx.list.iter().map(tell).collect();
        let step = if captured { Refund } else { Void };
        assert_eq!(told, [format!("card 1.1-{}.1", step.as_str())]);
        let moved = payments.answered(&answer(step, Succeeded), &context, &mut fx);
        assert_eq!(moved, Some(Moved::Unwound));
    }
}
