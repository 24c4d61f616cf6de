//! What couriers report, in any order, and what is learned from it.

use std::rc::Rc;

use super::*;
use crate::couriers::rows::Stage;
use crate::machine::{Effect, Machine, Source};
use crate::table::memory::Memory;
use crate::table::{Backing, Key};
use events::{
    CallOutcome, CourierCall, CourierListed, Currency, Destination, Merchant, OrderId, Record,
    WarehouseCode,
};

const DAY: i64 = 86_400_000;
const BOOKED: i64 = 1_800_000_000_000;

struct World {
    machine: Couriers,
    now: Millis,
}

fn order() -> OrderKey {
    let merchant = Merchant::parse("shop").unwrap();
    OrderKey { order_id: OrderId::derive(&merchant, "k"), accepted_at: Millis(1) }
}

fn lane() -> Lane {
    Lane::new(&WarehouseCode::MAIN, "FR")
}

fn swift() -> CourierCode {
    CourierCode::parse("swift").unwrap()
}

/// A consignment with swift, promised for the fourth day; swift has reported before.
fn world() -> World {
    let backing: Rc<dyn Backing> = Rc::new(Memory::default());
    let mut world = World { machine: Couriers::new(&backing), now: Millis(BOOKED) };
    let listed = CourierListed {
        courier: swift(),
        url: "http://localhost".into(),
        price_minor: 300,
        currency: Currency::parse("GBP").unwrap(),
        timeout_ms: 1_000,
        paused: false,
    };
    world.machine.list(listed, &mut Effects::default());
    world.machine.hear_from(&swift());
    let booking = Booking {
        lane: lane(),
        merchant: Merchant::parse("shop").unwrap(),
        destination: Some(Destination {
            name: "n".into(),
            street: "s".into(),
            city: "c".into(),
            postcode: "p".into(),
            country: "FR".into(),
        }),
        attempt: 2,
        stage: Stage::Calling(swift()),
        tried: vec![],
        rounds: 0,
        owed: vec![],
        repeated: false,
        probe: false,
    };
    let OrderKey { order_id, accepted_at } = order();
    let answer = CourierAnswered {
        order_id,
        accepted_at,
        lane: lane(),
        attempt: 2,
        courier: swift(),
        call: CourierCall::Book,
        outcome: CallOutcome::Succeeded,
        detail: "".into(),
        latency_ms: 10,
        consignment_id: "c1".into(),
        tracking_number: "t1".into(),
        price_minor: 310,
        currency: Currency::parse("GBP").unwrap().as_str().into(),
        promised_at: Millis(BOOKED + 4 * DAY),
    };
    let context = world.context();
    assert_eq!(world.machine.carry(order(), &booking, &answer, &context), Millis(0));
    world
}

impl World {
    fn context(&self) -> Context {
        Context { now: self.now, partition: 0, partitions: 1 }
    }

    /// Hears of an event after so many days.
    fn report(&mut self, event: TrackingEvent, days: i64) -> Vec<String> {
        self.report_of(&swift(), 2, event, days)
    }

    fn report_of(
        &mut self,
        courier: &CourierCode,
        attempt: i32,
        event: TrackingEvent,
        days: i64,
    ) -> Vec<String> {
        let OrderKey { order_id, accepted_at } = order();
        let report = TrackingReported {
            order_id,
            accepted_at,
            lane: lane(),
            courier: courier.clone(),
            attempt,
            event,
            occurred_at: Millis(BOOKED + days * DAY),
            detail: "".into(),
        };
        self.now = self.now.max(report.occurred_at);
        let (topic, appended_at) = (topics::COURIERS.name, self.now);
        let source = Source { topic, partition: 0, offset: 0, appended_at };
        let (mut effects, context) = (Effects::default(), self.context());
        self.machine.step(Record::from(report), source, &context, &mut effects);
        tell(&effects)
    }

    fn after(&mut self, days: i64) -> Vec<String> {
        self.now = Millis(BOOKED + days * DAY);
        let (mut effects, context) = (Effects::default(), self.context());
        let table = self.machine.parcels.id();
        self.machine.fire(table, &order().to_bytes(), &context, &mut effects);
        tell(&effects)
    }

    fn late_permille(&mut self) -> i32 {
        let row = self.machine.lanes.get(&lane()).unwrap_or_default();
        row.arm(&swift()).map_or(500, |arm| arm.belief.late_permille())
    }

    fn gone(&mut self) -> bool {
        self.machine.parcels.peek(&order()).is_none()
    }
}

fn tell(effects: &Effects) -> Vec<String> {
    let tell = |effect: &Effect| match effect {
        Effect::Emit { record: Record::ConsignmentMoved(moved), .. } => {
            format!("{:?}", moved.state).to_lowercase()
        }
        Effect::Emit { record: Record::DeliveryJudged(judged), .. } => {
            format!("judged {} after {} d", judged.on_time, judged.transit_ms / DAY)
        }
        Effect::Reject { reason } => reason.clone(),
        other => format!("{other:?}"),
    };
    effects.list.iter().map(tell).collect()
}

use TrackingEvent::{
    Announced, Attempted, Collected, Delivered, InTransit, OutForDelivery, PickupMissed, Returned,
    Returning, Undeliverable,
};

#[test]
fn a_good_delivery_is_told_step_by_step_and_repeats_change_nothing() {
    let mut world = world();
    assert_eq!(world.report(Announced, 0), [""; 0]);
    assert_eq!(world.report(Collected, 1), ["shipped"]);
    assert_eq!(world.late_permille(), 333, "scanned in time counts at once");
    assert_eq!(world.report(Collected, 1), [""; 0]);
    assert_eq!(world.report(InTransit, 2), [""; 0]);
    assert_eq!(world.report(Delivered, 3), ["delivered", "judged true after 3 d"]);
    assert_eq!(world.late_permille(), 333, "once");
    assert!(world.gone());
    assert_eq!(world.report(Delivered, 3), [""; 0]);
    assert_eq!(world.report(OutForDelivery, 3), [""; 0]);
}

#[test]
fn reports_in_the_wrong_order_end_the_same() {
    let mut world = world();
    let all = world.report(Delivered, 3);
    assert_eq!(all, ["shipped", "delivered", "judged true after 3 d"]);
    assert_eq!(world.report(Collected, 1), [""; 0]);
    assert!(world.gone());
}

#[test]
fn the_first_try_to_deliver_decides_whether_it_was_late() {
    let mut world = world();
    world.report(Collected, 1);
    assert_eq!(world.report(Attempted, 4), ["judged true after 4 d"]);
    assert_eq!(world.report(Delivered, 9), ["delivered"]);
    assert_eq!(world.late_permille(), 333);
}

#[test]
fn what_is_overdue_counts_before_it_arrives() {
    let mut world = world();
    assert_eq!(world.after(1), [""; 0]);
    assert_eq!(world.late_permille(), 666, "the first scan is overdue");
    assert_eq!(world.report(InTransit, 2), ["shipped"]);
    assert_eq!(world.late_permille(), 666, "and came late");
    assert_eq!(world.after(4), ["overdue"]);
    assert_eq!(world.report(Delivered, 6), ["delivered", "judged false after 6 d"]);
    assert_eq!(world.late_permille(), 666, "once");
}

#[test]
fn a_report_that_comes_late_of_a_delivery_in_time_puts_it_right() {
    let mut world = world();
    world.report(Collected, 1);
    assert_eq!(world.after(4), ["overdue"]);
    assert_eq!(world.late_permille(), 666);
    assert_eq!(world.report(Delivered, 3), ["delivered", "judged true after 3 d"]);
    assert_eq!(world.late_permille(), 333);
}

#[test]
fn a_missed_pickup_counts_at_once() {
    let mut world = world();
    assert_eq!(world.report(PickupMissed, 0), [""; 0]);
    assert_eq!(world.late_permille(), 666);
}

#[test]
fn undeliverable_returned_lost() {
    let mut world = self::world();
    world.report(Collected, 1);
    assert_eq!(world.report(Undeliverable, 3), ["undeliverable", "judged false after 0 d"]);
    assert_eq!(world.report(Undeliverable, 3), [""; 0]);
    assert_eq!(world.report(Returning, 4), [""; 0]);
    assert_eq!(world.after(5), [""; 0], "nobody is told that it is overdue");
    assert_eq!(world.report(Returned, 6), ["returned"]);
    assert!(world.gone());
    let mut world = self::world();
    assert_eq!(world.after(4), ["overdue"]);
    assert_eq!(world.after(34), ["judged false after 0 d", "undeliverable"]);
    assert!(world.gone());
}

#[test]
fn only_the_one_who_carries_it_is_believed() {
    let mut world = world();
    let other = CourierCode::parse("other").unwrap();
    let refused = world.report_of(&other, 2, Delivered, 1);
    assert_eq!(refused, ["other reports about a consignment of swift"]);
    assert_eq!(world.report_of(&swift(), 1, Delivered, 1), [""; 0], "an abandoned attempt");
    assert!(!world.gone());
}

#[test]
fn who_never_reports_is_neither_waited_for_nor_blamed() {
    let mut world = world();
    let mut health = world.machine.health.get(&swift()).unwrap();
    health.reports = false;
    world.machine.health.put(swift(), health);
    assert_eq!(world.after(4), [""; 0]);
    assert_eq!(world.machine.health.get(&swift()).unwrap().silent, 1);
    assert!(!world.gone(), "the first report may still come");
    assert_eq!(world.after(11), [""; 0]);
    assert!(world.gone());
    assert_eq!(world.late_permille(), 500);
}

#[test]
fn the_lane_promises_what_it_keeps() {
    let mut world = world();
    let mut row = world.machine.lanes.get(&lane()).unwrap_or_default();
    (1..=100).for_each(|hours| row.transit.note(hours * 3_600_000));
    world.machine.lanes.put(lane(), row);
    let parcel = world.machine.parcels.get(&order()).unwrap();
    let mut effects = Effects::default();
    let context = world.context();
    world.machine.parcels.put(order(), Parcel { expected_by: Millis(BOOKED + DAY), ..parcel });
    let report = TrackingReported {
        order_id: order().order_id,
        accepted_at: order().accepted_at,
        lane: lane(),
        courier: swift(),
        attempt: 2,
        event: Delivered,
        occurred_at: Millis(BOOKED + DAY),
        detail: "".into(),
    };
    world.machine.reported(report, &context, &mut effects);
    let kept = effects.list.iter().any(|effect| {
        matches!(effect, Effect::Emit { record: Record::DeliveryJudged(j), .. } if j.expected_by_kept)
    });
    assert!(kept);
    let quantile = world.machine.lanes.get(&lane()).unwrap().transit.quantile(900).unwrap();
    assert!((quantile / 3_600_000 - 90).abs() <= 2, "{quantile}");
}
