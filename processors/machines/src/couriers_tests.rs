//! Ranking, failover, abandoned attempts, rests, and what is taken up again after a crash.

use super::booking::VOID_RETRY_MS;
use super::*;
use crate::machine::{CallKind, Effect};
use crate::table::memory::Memory;
use events::{
    BookConsignment, CallOutcome, CourierAnswered, CourierCall, CourierListed, Currency,
    Destination, Merchant, Millis, OrderId, WarehouseCode, topics,
};

struct World {
    machine: Couriers,
    now: i64,
}

fn lane() -> Lane {
    Lane::new(&WarehouseCode::parse("main").unwrap(), "FR")
}

fn order() -> OrderKey {
    let merchant = Merchant::parse("shop").unwrap();
    OrderKey { order_id: OrderId::derive(&merchant, "k"), accepted_at: Millis(1) }
}

fn listed(code: &str, price_minor: i64, currency: &str) -> CourierListed {
    CourierListed {
        courier: CourierCode::parse(code).unwrap(),
        url: format!("http://couriers/{code}").into(),
        price_minor,
        currency: Currency::parse(currency).unwrap(),
        timeout_ms: 1_000,
        paused: false,
    }
}

fn world() -> World {
    let backing: Rc<dyn Backing> = Rc::new(Memory::default());
    let mut world = World { machine: Couriers::new(&backing), now: 1_000 };
    for (code, price_minor) in [("dear", 900), ("cheap", 300), ("middle", 500)] {
        assert_eq!(world.step(listed(code, price_minor, "GBP")), [""; 0]);
    }
    world
}

impl World {
    fn context(&self) -> Context {
        Context { now: Millis(self.now), partition: 0, partitions: 1 }
    }

    fn step(&mut self, record: impl Into<Record>) -> Vec<String> {
        let topic = topics::COURIERS.name;
        let source = Source { topic, partition: 0, offset: 0, appended_at: Millis(self.now) };
        let mut effects = Effects::default();
        let context = self.context();
        self.machine.step(record.into(), source, &context, &mut effects);
        tell(&effects)
    }

    fn book(&mut self) -> Vec<String> {
        let OrderKey { order_id, accepted_at } = order();
        let destination = Destination {
            name: "n".into(),
            street: "s".into(),
            city: "c".into(),
            postcode: "p".into(),
            country: "FR".into(),
        };
        let merchant = Merchant::parse("shop").unwrap();
        self.step(BookConsignment { order_id, accepted_at, merchant, lane: lane(), destination })
    }

    fn answer(
        &mut self,
        courier: &str,
        attempt: i32,
        call: CourierCall,
        outcome: CallOutcome,
    ) -> Vec<String> {
        let OrderKey { order_id, accepted_at } = order();
        self.step(CourierAnswered {
            order_id,
            accepted_at,
            lane: lane(),
            attempt,
            courier: CourierCode::parse(courier).unwrap(),
            call,
            outcome,
            detail: "".into(),
            latency_ms: 10,
            consignment_id: "c1".into(),
            tracking_number: "t1".into(),
            price_minor: 310,
            currency: "GBP".into(),
            promised_at: Millis(9),
        })
    }

    fn fire(&mut self) -> Vec<String> {
        let mut effects = Effects::default();
        let (context, table) = (self.context(), self.machine.bookings.id());
        self.machine.fire(table, &order().to_bytes(), &context, &mut effects);
        tell(&effects)
    }

    fn owed(&mut self) -> usize {
        self.machine.bookings.get(&order()).map_or(0, |booking| booking.owed.len())
    }
}

fn tell(effects: &Effects) -> Vec<String> {
    let tell = |effect: &Effect| match effect {
        Effect::Call(call) => {
            let kind = if call.kind == CallKind::Void { "void" } else { "book" };
            format!("{kind} {} {}", call.courier, call.attempt)
        }
        Effect::Emit { record: Record::ConsignmentBooked(booked), .. } => {
            format!("booked {} {}", booked.consignment.courier, booked.consignment.attempt)
        }
        Effect::Emit { record, .. } => record.record_type().name().to_string(),
        Effect::Reject { reason } => reason.clone(),
        other @ Effect::Pay(_) => format!("{other:?}"),
    };
    let decided = |effect: &&Effect| {
        !matches!(effect, Effect::Emit { record: Record::CourierDecided(_), .. })
    };
    effects.list.iter().filter(decided).map(tell).collect()
}

#[test]
fn the_cheapest_is_asked_and_the_row_goes_when_it_booked() {
    let mut world = world();
    assert_eq!(world.book(), ["book cheap 1"]);
    assert_eq!(world.book(), [""; 0]);
    let booked = world.answer("cheap", 1, CourierCall::Book, CallOutcome::Succeeded);
    assert_eq!(booked, ["booked cheap 1"]);
    assert!(world.machine.bookings.get(&order()).is_none());
    let again = world.answer("cheap", 1, CourierCall::Book, CallOutcome::Succeeded);
    assert_eq!(again, [""; 0]);
    // What it charged is what counts on this lane from now on.
    let cheap = CourierCode::parse("cheap").unwrap();
    assert_eq!(world.machine.lanes.get(&lane()).unwrap().arm(&cheap).unwrap().price_minor, 310);
}

#[test]
fn a_failure_asks_the_next_and_a_timeout_also_owes_a_void() {
    let mut world = world();
    world.book();
    let next = world.answer("cheap", 1, CourierCall::Book, CallOutcome::TimedOut);
    assert_eq!(next, ["void cheap 1", "book middle 2"]);
    // The late success of the abandoned attempt changes nothing: it is being voided.
    let late = world.answer("cheap", 1, CourierCall::Book, CallOutcome::Succeeded);
    assert_eq!(late, [""; 0]);
    let next = world.answer("middle", 2, CourierCall::Book, CallOutcome::Failed);
    assert_eq!(next, ["book dear 3"]);
    let booked = world.answer("dear", 3, CourierCall::Book, CallOutcome::Succeeded);
    assert_eq!(booked, ["booked dear 3"]);
    assert_eq!(world.owed(), 1);
    world.answer("cheap", 1, CourierCall::Void, CallOutcome::Failed);
    world.now += VOID_RETRY_MS.0;
    assert_eq!(world.fire(), ["void cheap 1"]);
    world.answer("cheap", 1, CourierCall::Void, CallOutcome::Succeeded);
    assert!(world.machine.bookings.get(&order()).is_none());
}

#[test]
fn all_down_rests_and_tries_again_all_refusing_gives_up() {
    let mut world = world();
    world.book();
    world.answer("cheap", 1, CourierCall::Book, CallOutcome::Failed);
    world.answer("middle", 2, CourierCall::Book, CallOutcome::Refused);
    let rest = world.answer("dear", 3, CourierCall::Book, CallOutcome::Failed);
    assert_eq!(rest, [""; 0]);
    assert_eq!(world.fire(), [""; 0], "not yet due");
    world.now += 500;
    assert_eq!(world.fire(), ["book cheap 4"]);
    world.answer("cheap", 4, CourierCall::Book, CallOutcome::Refused);
    world.answer("middle", 5, CourierCall::Book, CallOutcome::Refused);
    let end = world.answer("dear", 6, CourierCall::Book, CallOutcome::Refused);
    assert_eq!(end, ["ConsignmentFailed"]);
    assert!(world.machine.bookings.get(&order()).is_none());
}

/// The call of the last owner may have booked before the one made again failed.
#[test]
fn a_call_made_again_after_a_takeover_is_voided_unless_it_books() {
    let mut world = world();
    world.book();
    let (mut effects, context) = (Effects::default(), world.context());
    world.machine.resume(&context, &mut effects);
    assert_eq!(tell(&effects), ["book cheap 1"]);
    let next = world.answer("cheap", 1, CourierCall::Book, CallOutcome::Failed);
    assert_eq!(next, ["void cheap 1", "book middle 2"]);
    assert_eq!(world.owed(), 1);
    let next = world.answer("middle", 2, CourierCall::Book, CallOutcome::Failed);
    assert_eq!(next, ["book dear 3"], "called for once: certain");
}

#[test]
fn a_call_that_was_not_sent_is_made_again_under_its_reference() {
    let mut world = world();
    world.book();
    let again = world.answer("cheap", 1, CourierCall::Book, CallOutcome::NotSent);
    assert_eq!(again, ["book cheap 1"], "a new attempt could book twice");
    assert_eq!(world.owed(), 0);
}

#[test]
fn a_new_list_price_counts_more_than_what_was_charged_under_the_old_one() {
    let mut world = world();
    world.book();
    world.answer("cheap", 1, CourierCall::Book, CallOutcome::Succeeded);
    world.step(listed("cheap", 600, "GBP"));
    assert_eq!(world.book(), ["book middle 1"]);
    world.answer("middle", 1, CourierCall::Book, CallOutcome::Refused);
    world.answer("cheap", 2, CourierCall::Book, CallOutcome::Succeeded);
    world.step(listed("cheap", 200, "GBP"));
    assert_eq!(world.book(), ["book cheap 1"]);
}

#[test]
fn prices_in_another_currency_are_refused() {
    let mut world = world();
    let refused = world.step(listed("yen", 1, "JPY"));
    assert!(refused[0].starts_with("yen is priced in JPY"), "{refused:?}");
    assert_eq!(world.book(), ["book cheap 1"]);
}

#[test]
fn a_call_outstanding_at_a_crash_is_made_again_under_its_reference() {
    let mut world = world();
    world.book();
    let mut effects = Effects::default();
    let context = world.context();
    world.machine.resume(&context, &mut effects);
    assert_eq!(tell(&effects), ["book cheap 1"]);
}
