//! Orders and warehouses: which one serves, what becomes of it when that changes, and when the pieces have
//! left.

use super::ways_out_tests::{Shop, id};
use events::{ConsignmentState, LinesReserved, WarehouseCode, topics};

fn east() -> WarehouseCode {
    WarehouseCode::parse("east").unwrap()
}

/// The nearer warehouse lacks one of the two: both come from the other, in one parcel.
#[test]
fn an_order_comes_from_one_warehouse_if_one_has_all_of_it() {
    let mut shop = Shop::open();
    let west = WarehouseCode::parse("west").unwrap();
    shop.list(&WarehouseCode::MAIN, 0, false);
    shop.list(&west, 100, true);
    shop.list(&east(), 500, true);
    shop.receive(0, &west);
    shop.receive(0, &east());
    shop.receive(1, &east());
    shop.place("a", 0);
    shop.run();
    assert_eq!(shop.told(), ["received", "reserved", "book east>FR"]);
    assert_eq!(shop.held(), (2, 0));
    // Now nobody has both.
    shop.receive(1, &WarehouseCode::parse("north").unwrap());
    shop.list(&WarehouseCode::parse("north").unwrap(), 900, true);
    shop.place("b", 0);
    shop.run();
    assert_eq!(shop.told(), ["received", "reserved", "book north>FR"], "split: the last of equals");
    assert_eq!(shop.held(), (4, 0));
}

#[test]
fn what_a_warehouse_that_goes_offline_held_comes_from_another_or_the_order_is_told_why_not() {
    let mut shop = Shop::open();
    shop.list(&WarehouseCode::MAIN, 100, true);
    shop.list(&east(), 500, true);
    shop.place("a", 60_000);
    shop.run();
    shop.receive(0, &east());
    shop.receive(1, &east());
    shop.list(&WarehouseCode::MAIN, 100, false);
    shop.run();
    shop.confirm("a");
    assert_eq!(shop.told(), ["received", "reserved", "book east>FR"]);
    shop.list(&east(), 500, false);
    shop.run();
    assert_eq!(shop.told(), ["void booking 0", "rejected"]);
    shop.not_booked("a");
    assert_eq!(shop.held(), (0, 0));
    assert!(shop.saga.sagas.all().is_empty());
}

#[test]
fn what_has_left_the_warehouse_is_not_cancelled() {
    let mut shop = Shop::open();
    shop.place("a", 0);
    shop.run();
    shop.dispatch("a");
    shop.run();
    assert_eq!(shop.held(), (2, 0), "not before a courier has taken it");
    shop.told();
    shop.booked("a");
    shop.run();
    shop.dispatch("a");
    shop.dispatch("a");
    shop.cancel("a");
    shop.run();
    assert_eq!(shop.told(), ["routed"]);
    assert_eq!(shop.held(), (0, 0));
}

/// Nobody has posted a dispatch: what the courier has is not in the warehouse, so that it can be counted.
#[test]
fn what_a_courier_reports_to_have_has_left_whether_it_was_dispatched_or_not() {
    use ConsignmentState::{Delivered, Returned, Shipped, Undeliverable};
    for (state, before) in
        [(Shipped, false), (Delivered, false), (Undeliverable, true), (Returned, true)]
    {
        let mut shop = Shop::open();
        shop.place("a", 0);
        shop.run();
        shop.booked("a");
        if before {
            shop.dispatch("a");
        }
        shop.moved(state);
        shop.dispatch("a");
        shop.run();
        assert_eq!((shop.on_hand(), shop.held()), (0, (0, 0)), "{state:?}");
    }
}

#[test]
fn listing_another_warehouse_leaves_main_on_sale_until_it_is_listed_itself() {
    let mut shop = Shop::open();
    shop.list(&east(), 500, true);
    shop.place("a", 0);
    shop.run();
    assert_eq!(shop.told(), ["received", "reserved", "book"]);
    let mut shop = Shop::open();
    shop.list(&east(), 500, true);
    shop.list(&WarehouseCode::MAIN, 0, false);
    shop.place("a", 0);
    shop.run();
    assert_eq!(shop.told(), ["received", "rejected"]);
}

/// A flash sale, say, of pieces that are not in `main`.
#[test]
fn the_courier_collects_where_all_lines_are() {
    let mut shop = Shop::open();
    shop.list(&WarehouseCode::MAIN, 0, false);
    shop.list(&east(), 500, true);
    shop.receive(0, &east());
    shop.receive(1, &east());
    shop.place("a", 0);
    shop.run();
    assert_eq!(shop.told(), ["received", "reserved", "book east>FR"]);
}

/// The courier has been asked to collect from a warehouse where the pieces are not any more.
#[test]
fn an_order_whose_pieces_move_after_its_courier_was_asked_is_rejected() {
    for routed in [false, true] {
        let mut shop = Shop::open();
        shop.list(&WarehouseCode::MAIN, 100, true);
        shop.list(&east(), 500, true);
        shop.place("a", 0);
        shop.run();
        shop.receive(0, &east());
        shop.receive(1, &east());
        if routed {
            // Stock hears of the warehouse before it hears of the allocation.
            shop.list(&WarehouseCode::MAIN, 100, false);
            shop.booked("a");
            assert_eq!(shop.told(), ["received", "reserved", "book", "routed"]);
            shop.run();
            assert_eq!(shop.told(), ["void swift 3", "rejected, warehouse_changed"]);
        } else {
            shop.list(&WarehouseCode::MAIN, 100, false);
            shop.run();
            let expected =
                ["received", "reserved", "book", "void booking 0", "rejected, warehouse_changed"];
            assert_eq!(shop.told(), expected);
            shop.not_booked("a");
        }
        shop.run();
        assert_eq!(shop.held(), (0, 0));
        assert!(shop.saga.sagas.all().is_empty());
    }
}

/// A few lines have moved, most of the pieces are where the courier collects.
#[test]
fn an_order_that_mostly_stays_where_it_is_goes_on() {
    let mut shop = Shop::open();
    shop.place("a", 0);
    shop.run();
    let main = Some(WarehouseCode::MAIN);
    let moved = LinesReserved {
        order_id: id("a"),
        accepted_at: shop.saga.orders.get(&id("a")).unwrap().accepted_at,
        stock_partition: 0,
        attempt: 1,
        warehouse: main.clone(),
        alone: vec![],
        moved_from: main,
    };
    shop.hand_over(topics::ORDER_OUTCOMES.name, 0, moved.into());
    shop.booked("a");
    shop.run();
    assert_eq!(shop.told(), ["received", "reserved", "book", "routed"]);
}

/// Pieces that have gone while the order ended are told to somebody: they were given back.
#[test]
fn a_dispatch_too_early_or_too_late_is_not_lost() {
    let refused = |shop: &mut Shop| {
        shop.dispatch("a");
        shop.told()
    };
    let mut shop = Shop::open();
    assert_eq!(
        refused(&mut shop),
        ["refused: an order that was not read, or is forgotten: check its id, \
        and redrive the dispatch once the order is routed"]
    );
    shop.place("a", 0);
    shop.run();
    shop.told();
    assert_eq!(
        refused(&mut shop),
        ["refused: no courier is booked for the order yet: redrive the \
        dispatch once it is routed"]
    );
    shop.booked("a");
    shop.run();
    shop.told();
    shop.cancel("a");
    shop.run();
    shop.told();
    assert_eq!(
        refused(&mut shop),
        ["refused: the order has ended as cancelled and its pieces are free \
        again: if they have left, adjust the stock"]
    );
    // Once more is no fault, and neither is what the courier has delivered.
    let mut shop = Shop::open();
    shop.place("a", 0);
    shop.run();
    shop.booked("a");
    shop.dispatch("a");
    shop.told();
    assert_eq!(refused(&mut shop), [""; 0]);
    shop.moved(ConsignmentState::Delivered);
    shop.told();
    assert_eq!(refused(&mut shop), [""; 0]);
}
