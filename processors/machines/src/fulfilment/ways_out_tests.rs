//! The saga with real stock behind it: cancels at every stage, confirmations in time and late, two
//! orders that hold each other's last piece.

use std::collections::VecDeque;

use super::tests::{consignment, order};
use super::*;
use crate::machine::Effect;
use crate::payments::PaymentCall;
use crate::stock::Stock;
use crate::table::memory::Memory;
use events::{
    CancelRequested, ConsignmentBooked, ConsignmentFailed, Fingerprint, LinesRefused, Merchant,
    OrderConfirmed, OrderDispatched, ReceiptId, RequestId, Sku, StockReceived, WarehouseCode,
    WarehouseListed,
};

const PARTITIONS: i32 = 2;

/// Orders and stock, with what is under way between them.
pub(super) struct Shop {
    pub(super) saga: Fulfilment,
    stock: Vec<Stock>,
    under_way: VecDeque<(&'static str, i32, Record)>,
    /// Statuses, courier commands and payment steps, in order.
    told: Vec<String>,
    /// Calls to payment providers that nobody has answered.
    pub(super) calls: VecDeque<PaymentCall>,
    now: Millis,
}

fn merchant() -> Merchant {
    Merchant::parse("shop").unwrap()
}

/// Two SKUs, the first of stock partition 0, the second of 1.
pub(super) fn skus() -> [Sku; 2] {
    [0, 1].map(|partition| {
        let named = (0..).map(|n| Sku::parse(&format!("S{n}")).unwrap());
        let home =
            |sku: &Sku| topics::partition_for(topics::stock_key(&merchant(), sku).as_bytes(), 2);
        named.into_iter().find(|sku| home(sku) == partition).unwrap()
    })
}

pub(super) fn id(name: &str) -> OrderId {
    OrderId::derive(&merchant(), name)
}

impl Shop {
    /// One piece of each SKU.
    pub(super) fn open() -> Self {
        let backing = || -> Rc<dyn Backing> { Rc::new(Memory::default()) };
        let stock = (0..PARTITIONS).map(|_| Stock::new(&backing())).collect();
        let saga = Fulfilment::new(&backing());
        let (under_way, told, calls) = (VecDeque::new(), vec![], VecDeque::new());
        let mut shop = Self { saga, stock, under_way, told, calls, now: Millis(1_000) };
        for (sku, partition) in skus().into_iter().zip(0..) {
            let received = StockReceived {
                receipt_id: ReceiptId::derive(&merchant(), "r"),
                merchant: merchant(),
                warehouse: WarehouseCode::MAIN,
                sku,
                quantity: 1,
                fingerprint: None,
                reason: "".into(),
                requested_by: "".into(),
            };
            shop.under_way.push_back((topics::STOCK.name, partition, received.into()));
        }
        shop.run();
        shop
    }

    pub(super) fn place(&mut self, name: &str, confirm_within_ms: i64) {
        let order = order(name, &skus(), confirm_within_ms);
        self.hand_over(topics::ORDERS.name, 0, order.into());
    }

    pub(super) fn receive(&mut self, sku: usize, warehouse: &WarehouseCode) {
        let received = StockReceived {
            receipt_id: ReceiptId::derive(&merchant(), warehouse.as_str()),
            merchant: merchant(),
            warehouse: warehouse.clone(),
            sku: skus()[sku].clone(),
            quantity: 1,
            fingerprint: None,
            reason: "".into(),
            requested_by: "".into(),
        };
        let partition = i32::try_from(sku).unwrap();
        self.hand_over(topics::STOCK.name, partition, received.into());
    }

    /// To every partition, as reference data goes.
    pub(super) fn list(&mut self, warehouse: &WarehouseCode, distance_km: i32, online: bool) {
        self.now = self.now.plus(1);
        let listed = WarehouseListed {
            merchant: merchant(),
            warehouse: warehouse.clone(),
            online,
            routes: vec![],
            cost_minor: 0,
            distance_km,
            load_permille: 0,
            requested_by: "".into(),
            request_id: RequestId(uuid::Uuid::from_u64_pair(0, self.now.0.cast_unsigned())),
            fingerprint: Fingerprint(uuid::Uuid::nil()),
            listed_at: self.now,
        };
        for partition in 0..PARTITIONS {
            self.hand_over(topics::STOCK.name, partition, listed.clone().into());
        }
        self.hand_over(topics::ORDER_OUTCOMES.name, 0, listed.into());
    }

    pub(super) fn dispatch(&mut self, name: &str) {
        let request = OrderDispatched {
            order_id: id(name),
            merchant: merchant(),
            request_id: RequestId::derive("dispatch", &merchant(), name),
            requested_by: "who".into(),
        };
        self.hand_over(topics::ORDER_OUTCOMES.name, 0, request.into());
    }

    pub(super) fn cancel(&mut self, name: &str) {
        let request = CancelRequested {
            order_id: id(name),
            merchant: merchant(),
            request_id: RequestId::derive("cancel", &merchant(), name),
            reason: "".into(),
        };
        self.hand_over(topics::ORDER_OUTCOMES.name, 0, request.into());
    }

    pub(super) fn confirm(&mut self, name: &str) {
        let request = OrderConfirmed {
            order_id: id(name),
            merchant: merchant(),
            request_id: RequestId::derive("confirm", &merchant(), name),
        };
        self.hand_over(topics::ORDER_OUTCOMES.name, 0, request.into());
    }

    pub(super) fn booked(&mut self, name: &str) {
        let consignment = consignment(3);
        let accepted_at = self.saga.orders.get(&id(name)).unwrap().accepted_at;
        let booked = ConsignmentBooked { order_id: id(name), accepted_at, consignment };
        self.hand_over(topics::ORDER_OUTCOMES.name, 0, booked.into());
    }

    pub(super) fn not_booked(&mut self, name: &str) {
        let accepted_at = self.saga.orders.get(&id(name)).unwrap().accepted_at;
        let detail = "cancelled".into();
        let failed = ConsignmentFailed { order_id: id(name), accepted_at, detail };
        self.hand_over(topics::ORDER_OUTCOMES.name, 0, failed.into());
    }

    /// One record to its machine; what follows is under way.
    pub(super) fn hand_over(&mut self, topic: &'static str, partition: i32, record: Record) {
        let context = Context { now: self.now, partition, partitions: PARTITIONS };
        let source = Source { topic, partition, offset: 0, appended_at: self.now };
        let mut effects = Effects::default();
        let machine: &mut dyn Machine = match topic {
            "stock" => &mut self.stock[usize::try_from(partition).unwrap()],
            _ => &mut self.saga,
        };
        machine.step(record, source, &context, &mut effects);
        self.absorb(effects);
    }

    fn absorb(&mut self, effects: Effects) {
        assert_eq!(effects.violations, []);
        for effect in effects.list {
            match effect {
                Effect::Emit { record: Record::OrderStatusChanged(changed), .. } => {
                    let status = changed.status.as_str();
                    self.told.push(match changed.reason.as_str() {
                        "warehouse_changed" => format!("{status}, {}", changed.reason),
                        _ => status.into(),
                    });
                }
                Effect::Emit { record: Record::VoidConsignment(void), .. } => {
                    let whom = void.courier.map_or("booking".into(), |c| format!("{c}"));
                    self.told.push(format!("void {whom} {}", void.attempt));
                }
                Effect::Emit { record: Record::BookConsignment(book), .. } => {
                    let main = book.lane.as_str().starts_with("main>");
                    self.told.push(if main {
                        "book".into()
                    } else {
                        format!("book {}", book.lane)
                    });
                }
                Effect::Pay(call) => {
                    self.told.push(call.step.as_str().into());
                    self.calls.push_back(call);
                }
                Effect::Emit { record: Record::StockMoved(_), .. } => {}
                Effect::Reject { reason } => self.told.push(format!("refused: {reason}")),
                Effect::Emit { topic, partition, record, .. } => {
                    self.under_way.push_back((topic, partition, record));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Until nothing is under way.
    pub(super) fn run(&mut self) {
        while let Some((topic, partition, record)) = self.under_way.pop_front() {
            self.hand_over(topic, partition, record);
        }
    }

    /// Time passes; due deadlines fire.
    pub(super) fn wait(&mut self, time_ms: i64) {
        self.now = self.now.plus(time_ms);
        let table = self.saga.sagas.id();
        for (order_id, saga) in self.saga.sagas.all() {
            if saga.deadline().is_some_and(|at| at <= self.now) {
                let context = Context { now: self.now, partition: 0, partitions: PARTITIONS };
                let mut effects = Effects::default();
                self.saga.fire(table, order_id.as_bytes(), &context, &mut effects);
                self.absorb(effects);
            }
        }
    }

    pub(super) fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// Pieces in the warehouses.
    pub(super) fn on_hand(&mut self) -> i64 {
        let levels = self.stock.iter_mut().flat_map(|stock| stock.levels().into_values());
        levels.map(|level| level.on_hand).sum()
    }

    /// Pieces reserved and allocated, over all stock.
    pub(super) fn held(&mut self) -> (i64, i64) {
        let levels = self.stock.iter_mut().flat_map(|stock| stock.levels().into_values());
        levels.fold((0, 0), |(r, a), level| (r + level.reserved, a + level.allocated))
    }
}

#[test]
fn a_cancel_before_the_order_is_remembered_and_reserves_nothing() {
    let mut shop = Shop::open();
    shop.cancel("a");
    shop.cancel("a");
    assert_eq!(shop.told(), [""; 0]);
    shop.place("a", 0);
    shop.run();
    assert_eq!(shop.told(), ["received", "cancelled"]);
    shop.cancel("a");
    assert_eq!((shop.told(), shop.held()), (vec![], (0, 0)));
}

#[test]
fn a_cancel_while_reserving_releases_whatever_comes() {
    let mut shop = Shop::open();
    shop.place("a", 0);
    shop.cancel("a");
    shop.cancel("a");
    shop.run();
    assert_eq!(shop.told(), ["received", "cancelled"]);
    assert_eq!(shop.held(), (0, 0));
}

#[test]
fn a_cancel_while_booking_voids_what_the_courier_answers() {
    for booked in [true, false] {
        let mut shop = Shop::open();
        shop.place("a", 0);
        shop.run();
        assert_eq!(shop.told(), ["received", "reserved", "book"]);
        shop.cancel("a");
        shop.cancel("a");
        shop.run();
        assert_eq!(shop.told(), ["void booking 0", "cancelled"]);
        assert_eq!(shop.held(), (0, 0));
        if booked {
            shop.booked("a");
            assert_eq!(shop.told(), ["void swift 3"]);
        } else {
            shop.not_booked("a");
            assert_eq!(shop.told(), [""; 0]);
        }
        shop.cancel("a");
        assert_eq!(shop.told(), [""; 0]);
        assert!(shop.saga.sagas.all().is_empty(), "only the marker stays");
    }
}

#[test]
fn a_cancel_when_routed_gives_back_what_is_allocated_and_voids_the_consignment() {
    let mut shop = Shop::open();
    shop.place("a", 0);
    shop.run();
    shop.booked("a");
    shop.run();
    assert_eq!(shop.held(), (0, 2));
    shop.told();
    shop.cancel("a");
    shop.cancel("a");
    shop.run();
    assert_eq!(shop.told(), ["void swift 3", "cancelled"]);
    assert_eq!(shop.held(), (0, 0));
    shop.place("b", 0);
    shop.run();
    assert_eq!(shop.told(), ["received", "reserved", "book"], "the pieces are free again");
}

#[test]
fn another_merchants_cancel_changes_nothing() {
    let mut shop = Shop::open();
    let merchant = Merchant::parse("other").unwrap();
    let request_id = RequestId::derive("cancel", &merchant, "a");
    let request = CancelRequested { order_id: id("a"), merchant, request_id, reason: "".into() };
    shop.hand_over(topics::ORDER_OUTCOMES.name, 0, request.into());
    shop.place("a", 0);
    shop.run();
    assert_eq!(shop.told(), ["received", "reserved", "book"]);
}

#[test]
fn a_confirmation_lets_the_order_go_on_whenever_it_comes_in_time() {
    for early in [true, false] {
        let mut shop = Shop::open();
        shop.place("a", 500);
        if early {
            shop.confirm("a");
        }
        shop.run();
        if !early {
            assert_eq!(shop.told(), ["received", "reserved"]);
            shop.wait(499);
            shop.run();
            shop.confirm("a");
            shop.confirm("a");
            assert_eq!(shop.told(), ["book"]);
        } else {
            assert_eq!(shop.told(), ["received", "reserved", "book"]);
        }
        shop.wait(60_000);
        shop.run();
        assert_eq!(shop.told(), [""; 0], "a confirmed order doesn't expire");
    }
}

/// Outcomes are read before commands, so what a customer asks can be read before the order.
#[test]
fn a_confirmation_that_is_read_before_its_order_counts_and_a_cancel_outweighs_it() {
    let mut shop = Shop::open();
    shop.confirm("a");
    shop.place("a", 500);
    shop.run();
    assert_eq!(shop.told(), ["received", "reserved", "book"]);
    let mut shop = Shop::open();
    shop.cancel("a");
    shop.confirm("a");
    shop.place("a", 500);
    shop.run();
    assert_eq!(shop.told(), ["received", "cancelled"]);
}

#[test]
fn an_order_that_nobody_confirms_expires_by_timer_and_gives_everything_back() {
    let mut shop = Shop::open();
    shop.place("a", 500);
    shop.run();
    assert_eq!(shop.held(), (2, 0));
    shop.told();
    shop.wait(500);
    shop.run();
    assert_eq!(shop.told(), ["expired"]);
    assert_eq!(shop.held(), (0, 0));
    shop.confirm("a");
    shop.cancel("a");
    shop.wait(60_000);
    assert_eq!(shop.told(), [""; 0]);
}

/// The processor was slow, not the customer: the confirmation stands in the log before the timer.
#[test]
fn a_confirmation_that_is_read_after_the_deadline_but_stands_before_it_counts() {
    let mut shop = Shop::open();
    shop.place("a", 500);
    shop.run();
    shop.told();
    shop.wait(700);
    shop.confirm("a");
    shop.run();
    assert_eq!(shop.told(), ["book"]);
}

/// Each has one and is refused the other: one of them gets both.
#[test]
fn two_orders_that_hold_each_others_last_piece_do_not_both_fail() {
    let mut shop = Shop::open();
    shop.place("a", 0);
    shop.place("b", 0);
    // a's commands are 0 and 1, b's are 2 and 3: partition 0 hears a first, partition 1 hears b.
    let commands: Vec<_> = shop.under_way.drain(..).collect();
    for which in [0, 3, 1, 2] {
        let (topic, partition, record) = commands[which].clone();
        shop.hand_over(topic, partition, record);
    }
    shop.run();
    assert_eq!(shop.told(), ["received", "received"], "neither has failed");
    assert_eq!(shop.held(), (0, 0), "both have let go");
    for _ in 0..10 {
        shop.wait(1_600);
        shop.run();
    }
    let mut told = shop.told();
    told.sort();
    assert_eq!(told, ["book", "rejected", "reserved"]);
    assert_eq!(shop.held(), (2, 0));
}

/// What waits for nothing is not tried again: a sold-out flash sale would be asked five times over.
#[test]
fn an_order_of_one_partition_is_refused_at_once() {
    let mut shop = Shop::open();
    shop.place("a", 0);
    shop.run();
    shop.told();
    shop.place("b", 0);
    let (.., record) = shop.under_way.pop_front().unwrap();
    let Record::ReserveLines(command) = record else { panic!("{record:?}") };
    let mut saga = shop.saga.sagas.get(&id("b")).unwrap();
    saga.stock_partitions = vec![0];
    saga.stage = Stage::Reserving { waiting: vec![0], rest: vec![] };
    shop.saga.sagas.put(id("b"), saga);
    shop.under_way.clear();
    shop.hand_over(topics::STOCK.name, 0, command.into());
    let refused =
        shop.under_way.iter().any(|(.., r)| matches!(r, Record::LinesRefused(LinesRefused { .. })));
    assert!(refused);
    shop.run();
    assert_eq!(shop.told(), ["received", "rejected"]);
}
