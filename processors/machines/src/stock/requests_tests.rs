//! Requests of one record, listings of warehouses and flash sales: once per key, the first body counts, and of two
//! listings the later one, in whatever order a partition reads them. The history says who asked, and why.

use super::*;
use crate::machine::Effect;
use crate::table::memory::Memory;
use events::{
    AllocateLines, DispatchLines, Fingerprint, FlashSaleScheduled, Merchant, Millis, MovementKind,
    OrderId, RequestId, ReserveLine, ReserveLines, Sku, StockReceived, WarehouseCode,
    WarehouseListed,
};
use uuid::Uuid;

const SOURCE: Source =
    Source { topic: topics::STOCK.name, partition: 0, offset: 0, appended_at: Millis(0) };

fn stock() -> Stock {
    let backing: Rc<dyn Backing> = Rc::new(Memory::default());
    Stock::new(&backing)
}

fn merchant() -> Merchant {
    Merchant::parse("shop").unwrap()
}

/// What is rejected or refused.
fn step(stock: &mut Stock, record: impl Into<Record>, now: i64) -> Vec<String> {
    let context = Context { now: Millis(now), partition: 0, partitions: 1 };
    let mut effects = Effects::default();
    stock.step(record.into(), SOURCE, &context, &mut effects);
    let rejected = effects.list.into_iter().filter_map(|effect| match effect {
        Effect::Reject { reason } => Some(reason.to_string()),
        Effect::Emit { record: Record::StockMoved(moved), .. }
            if moved.kind == MovementKind::Refused =>
        {
            Some(moved.reason.into())
        }
        _ => None,
    });
    rejected.collect()
}

fn listed(key: &str, listed_at: i64, online: bool) -> WarehouseListed {
    WarehouseListed {
        merchant: merchant(),
        warehouse: WarehouseCode::MAIN,
        online,
        routes: vec![],
        cost_minor: 0,
        distance_km: 0,
        load_permille: 0,
        requested_by: "k1".into(),
        request_id: RequestId::derive("warehouse", &merchant(), key),
        fingerprint: Fingerprint(Uuid::from_u128(online.into())),
        listed_at: Millis(listed_at),
    }
}

fn sale(key: &str, quantity: i64, ends_at: i64) -> FlashSaleScheduled {
    FlashSaleScheduled {
        sale_id: RequestId::derive("flash_sale", &merchant(), key),
        merchant: merchant(),
        sku: Sku::parse("A").unwrap(),
        warehouse: WarehouseCode::MAIN,
        quantity,
        per_customer: 0,
        starts_at: Millis(0),
        ends_at: Millis(ends_at),
        requested_by: "k1".into(),
        fingerprint: Fingerprint(Uuid::from_u64_pair(
            quantity.cast_unsigned(),
            ends_at.cast_unsigned(),
        )),
    }
}

fn set_aside(stock: &mut Stock) -> i64 {
    stock.levels().into_values().map(|level| level.set_aside).sum()
}

/// Ten pieces of `A`.
fn received() -> StockReceived {
    StockReceived {
        receipt_id: ReceiptId::derive(&merchant(), "r"),
        merchant: merchant(),
        warehouse: WarehouseCode::MAIN,
        sku: Sku::parse("A").unwrap(),
        quantity: 10,
        fingerprint: None,
        reason: "purchase order 4711".into(),
        requested_by: "k1".into(),
    }
}

fn stocked() -> Stock {
    let mut stock = stock();
    assert!(step(&mut stock, received(), 1).is_empty());
    stock
}

#[test]
fn the_later_of_two_listings_counts_in_whatever_order_they_are_read() {
    let (first, second) = (listed("w1", 10, true), listed("w2", 20, false));
    for order in [[&first, &second], [&second, &first]] {
        let mut stock = stock();
        for listed in order {
            assert!(step(&mut stock, listed.clone(), 30).is_empty());
        }
        assert!(!stock.online(&merchant(), &WarehouseCode::MAIN));
    }
    // In the same millisecond all partitions agree on one.
    let (first, second) = (listed("w1", 10, true), listed("w2", 10, false));
    let ends = [[&first, &second], [&second, &first]].map(|order| {
        let mut stock = stock();
        for listed in order {
            step(&mut stock, listed.clone(), 30);
        }
        stock.online(&merchant(), &WarehouseCode::MAIN)
    });
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn a_repeated_listing_does_not_bring_back_what_a_later_one_changed() {
    let mut stock = stock();
    step(&mut stock, listed("w1", 10, true), 10);
    step(&mut stock, listed("w2", 20, false), 20);
    // A repeat that another process took in: recorded at its own time.
    assert!(step(&mut stock, listed("w1", 30, true), 30).is_empty());
    assert!(!stock.online(&merchant(), &WarehouseCode::MAIN));
    let other = step(&mut stock, listed("w1", 40, false), 40);
    assert!(other.len() == 1 && other[0].contains("another body"), "{other:?}");
}

#[test]
fn a_sale_counts_once_per_key_and_its_first_body() {
    let mut stock = stocked();
    assert!(step(&mut stock, sale("f1", 4, 100), 2).is_empty());
    assert!(step(&mut stock, sale("f1", 4, 100), 3).is_empty());
    assert_eq!(set_aside(&mut stock), 4);
    let other = step(&mut stock, sale("f1", 5, 100), 4);
    assert!(other.len() == 1 && other[0].contains("another body"), "{other:?}");
    let second = step(&mut stock, sale("f2", 5, 100), 5);
    assert!(second.len() == 1 && second[0].contains("one at a time"), "{second:?}");
    // Over: a repeat doesn't begin it anew, not even with another end.
    stock.end_sale((merchant(), Sku::parse("A").unwrap()));
    assert!(step(&mut stock, sale("f1", 4, 100), 200).is_empty());
    assert_eq!(step(&mut stock, sale("f1", 4, 900), 200).len(), 1);
    assert_eq!(set_aside(&mut stock), 0);
    // What was refused stays refused under its key.
    assert!(step(&mut stock, sale("f2", 5, 100), 50).is_empty());
    assert_eq!(set_aside(&mut stock), 0);
    assert!(step(&mut stock, sale("f3", 5, 900), 200).is_empty());
    assert_eq!(set_aside(&mut stock), 5);
}

/// What is told of movements: their kinds, who and why.
fn told(stock: &mut Stock, record: impl Into<Record>) -> Vec<(MovementKind, String, String)> {
    let context = Context { now: Millis(1), partition: 0, partitions: 1 };
    let mut effects = Effects::default();
    stock.step(record.into(), SOURCE, &context, &mut effects);
    let moved = effects.list.into_iter().filter_map(|effect| match effect {
        Effect::Emit { record: Record::StockMoved(moved), .. } => {
            Some((moved.kind, moved.requested_by.into(), moved.reason.into()))
        }
        _ => None,
    });
    moved.collect()
}

#[test]
fn the_history_says_who_and_why() {
    let mut stock = stock();
    let arrived = told(&mut stock, received());
    assert_eq!(arrived, [(MovementKind::Receipt, "k1".into(), "purchase order 4711".into())]);
    let (order_id, accepted_at) = (OrderId::derive(&merchant(), "o1"), Millis(1));
    let lines = vec![ReserveLine { line: 1, sku: Sku::parse("A").unwrap(), quantity: 2 }];
    let reserve = ReserveLines {
        order_id,
        accepted_at,
        merchant: merchant(),
        attempt: 1,
        warehouses: vec![WarehouseCode::MAIN],
        lines,
        customer_id: None,
    };
    assert!(told(&mut stock, reserve).is_empty());
    let merchant = merchant();
    let allocate = AllocateLines { order_id, accepted_at, merchant: merchant.clone(), attempt: 1 };
    assert!(told(&mut stock, allocate).is_empty());
    let requested_by = "k2".into();
    let dispatch = DispatchLines { order_id, accepted_at, merchant, attempt: 1, requested_by };
    let left = told(&mut stock, dispatch);
    assert_eq!(left, [(MovementKind::Dispatch, "k2".into(), order_id.to_string())]);
}

#[test]
fn a_sale_can_be_ended_early_once() {
    let mut stock = stocked();
    let none = step(&mut stock, sale("too early", 0, 0), 1);
    assert!(none.len() == 1 && none[0].contains("no flash sale"), "{none:?}");
    assert!(step(&mut stock, sale("f1", 4, 100), 2).is_empty());
    assert!(step(&mut stock, sale("end", 0, 0), 3).is_empty());
    assert_eq!(set_aside(&mut stock), 0);
    let key = (merchant(), Sku::parse("A").unwrap());
    assert!(stock.sale_of(&key, Millis(4)).is_none());
    // The end of one sale is not the next one's.
    assert!(step(&mut stock, sale("f2", 5, 100), 5).is_empty());
    assert!(step(&mut stock, sale("end", 0, 0), 6).is_empty());
    assert_eq!(set_aside(&mut stock), 5);
}
