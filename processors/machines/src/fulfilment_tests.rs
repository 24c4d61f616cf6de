//! The saga's paths: all reserved, one partition refuses, every courier refuses, answers repeated.

use super::*;
use crate::machine::Effect;
use crate::table::memory::Memory;
use events::{
    ConsignmentBooked, ConsignmentFailed, ConsignmentMoved, CourierCode, Currency, Destination,
    Fingerprint, LinesRefused, Merchant, OrderLine, RefusalReason, Sku,
};

const PARTITIONS: i32 = 4;
const ACCEPTED: Millis = Millis(1_000);
const CONTEXT: Context = Context { now: ACCEPTED, partition: 0, partitions: PARTITIONS };

struct Saga {
    machine: Fulfilment,
    order_id: OrderId,
    partitions: Vec<i32>,
}

/// An order of one piece of each of these SKUs.
pub(super) fn order(key: &str, skus: &[Sku], confirm_within_ms: i64) -> OrderPlaced {
    let merchant = Merchant::parse("shop").unwrap();
    let line = |(sku, line): (&Sku, _)| OrderLine {
        line,
        sku: sku.clone(),
        quantity: 1,
        unit_price_minor: 100,
    };
    OrderPlaced {
        order_id: OrderId::derive(&merchant, key),
        merchant,
        idempotency_key: key.into(),
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
        lines: skus.iter().zip(1..).map(line).collect(),
        total_minor: 200,
        ordered_at: Millis(1),
        attributes: BTreeMap::new(),
        confirm_within_ms,
        payment_methods: None,
    }
}

/// What a courier has booked.
pub(super) fn consignment(attempt: i32) -> Consignment {
    Consignment {
        courier: CourierCode::parse("swift").unwrap(),
        consignment_id: "1".into(),
        tracking_number: "t".into(),
        price_minor: 100,
        currency: "GBP".into(),
        promised_at: Millis(9),
        attempt,
        expected_by: Millis(0),
    }
}

/// An order of two SKUs that live in different stock partitions, just placed.
fn placed() -> Saga {
    let backing: Rc<dyn Backing> = Rc::new(Memory::default());
    let merchant = Merchant::parse("shop").unwrap();
    let skus = ["A", "B", "C", "D", "E"].map(|sku| Sku::parse(sku).unwrap());
    let home =
        |sku: &Sku| topics::partition_for(topics::stock_key(&merchant, sku).as_bytes(), PARTITIONS);
    let second = skus.iter().find(|sku| home(sku) != home(&skus[0])).unwrap();
    let order = order("k", &[skus[0].clone(), second.clone()], 0);
    let order_id = order.order_id;
    let mut partitions = vec![home(&skus[0]), home(second)];
    partitions.sort_unstable();
    let mut saga = Saga { machine: Fulfilment::new(&backing), order_id, partitions };
    assert_eq!(saga.step(order), ["received 1", "ReserveLines", "ReserveLines"]);
    saga
}

impl Saga {
    fn step(&mut self, record: impl Into<Record>) -> Vec<String> {
        let source =
            Source { topic: topics::ORDERS.name, partition: 0, offset: 0, appended_at: ACCEPTED };
        let mut effects = Effects::default();
        self.machine.step(record.into(), source, &CONTEXT, &mut effects);
        assert_eq!(effects.violations, []);
        let tell = |effect: &Effect| match effect {
            Effect::Emit { record: Record::OrderStatusChanged(changed), .. } => {
                let reason = if changed.reason.is_empty() { "" } else { ": " };
                let status = changed.status.as_str();
                format!("{status} {}{reason}{}", changed.version, changed.reason)
            }
            Effect::Emit { record, .. } => record.record_type().name().to_string(),
            other => format!("{other:?}"),
        };
        effects.list.iter().map(tell).collect()
    }

    fn reserved(&self, which: usize) -> LinesReserved {
        let stock_partition = self.partitions[which];
        LinesReserved {
            order_id: self.order_id,
            accepted_at: ACCEPTED,
            stock_partition,
            attempt: 1,
            warehouse: None,
            alone: vec![],
            moved_from: None,
        }
    }

    fn refused(&self, which: usize) -> LinesRefused {
        LinesRefused {
            order_id: self.order_id,
            accepted_at: ACCEPTED,
            stock_partition: self.partitions[which],
            attempt: 1,
            refusals: vec![LineRefusal {
                line: 1,
                sku: Sku::parse("A").unwrap(),
                requested: 1,
                available: 0,
                reason: RefusalReason::SoldOut,
                elsewhere: vec![],
            }],
        }
    }

    fn booked(&self) -> ConsignmentBooked {
        let consignment = consignment(1);
        ConsignmentBooked { order_id: self.order_id, accepted_at: ACCEPTED, consignment }
    }
}

#[test]
fn all_reserved_then_booked_then_routed_each_answer_counting_once() {
    let mut saga = placed();
    assert_eq!(saga.step(saga.reserved(0)), [""; 0]);
    assert_eq!(saga.step(saga.reserved(0)), [""; 0]);
    assert_eq!(saga.step(saga.reserved(1)), ["reserved 2", "BookConsignment"]);
    assert_eq!(saga.step(saga.reserved(1)), [""; 0]);
    assert_eq!(saga.step(saga.booked()), ["routed 3", "AllocateLines", "AllocateLines"]);
    assert_eq!(saga.step(saga.booked()), [""; 0]);
}

#[test]
fn a_consignment_is_followed_to_its_end() {
    use events::ConsignmentState::{self, Delivered, Overdue, Returned, Shipped, Undeliverable};
    let told = |states: &[ConsignmentState]| {
        let mut saga = placed();
        saga.step(saga.reserved(0));
        saga.step(saga.reserved(1));
        saga.step(saga.booked());
        let mut all = vec![];
        for state in states {
            let (order_id, accepted_at) = (saga.order_id, ACCEPTED);
            let (occurred_at, detail) = (Millis(7), "lost".into());
            let state = *state;
            let moved =
                ConsignmentMoved { order_id, accepted_at, attempt: 1, state, occurred_at, detail };
            // An abandoned attempt's consignment says nothing.
            let abandoned = ConsignmentMoved { attempt: 2, ..moved.clone() };
            assert_eq!(saga.step(abandoned), [""; 0]);
            all.extend(saga.step(moved));
        }
        all.join(", ")
    };
    // Stock hears once that the pieces have left, whatever the courier reports first.
    let left = "DispatchLines, DispatchLines";
    assert_eq!(
        told(&[Shipped, Shipped, Delivered, Returned]),
        format!("{left}, shipped 4, delivered 5")
    );
    assert_eq!(told(&[Overdue, Delivered]), format!("routed 4: overdue, {left}, delivered 5"));
    assert_eq!(told(&[Returned]), format!("{left}, returned 4"));
    assert_eq!(
        told(&[Shipped, Overdue, Undeliverable, Shipped, Returned, Delivered]),
        format!("{left}, shipped 4, shipped 5: overdue, undeliverable 6: lost, returned 7")
    );
}

#[test]
fn one_refusal_releases_the_other_partition_and_only_that() {
    let mut saga = placed();
    assert_eq!(saga.step(saga.reserved(0)), [""; 0]);
    assert_eq!(saga.step(saga.refused(1)), ["ReleaseLines", "rejected 2: sold_out"]);
    assert_eq!(saga.step(saga.refused(1)), [""; 0]);
    // A refusal that comes first also releases the partition that has not answered yet.
    let mut saga = placed();
    assert_eq!(saga.step(saga.refused(0)), ["ReleaseLines", "rejected 2: sold_out"]);
    assert_eq!(saga.step(saga.reserved(1)), [""; 0]);
}

#[test]
fn no_courier_releases_everything() {
    let mut saga = placed();
    saga.step(saga.reserved(0));
    saga.step(saga.reserved(1));
    let (order_id, accepted_at) = (saga.order_id, ACCEPTED);
    let failed = ConsignmentFailed { order_id, accepted_at, detail: "all refused".into() };
    let expected = ["ReleaseLines", "ReleaseLines", "rejected 3: no_courier"];
    assert_eq!(saga.step(failed), expected);
}

#[test]
fn an_answer_to_another_acceptance_of_the_key_is_ignored() {
    let mut saga = placed();
    let mut stale = saga.reserved(0);
    stale.accepted_at = Millis(1);
    assert_eq!(saga.step(stale), [""; 0]);
}
