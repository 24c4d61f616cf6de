//! Receipts and the stock API's changes: each counts once, and what cannot be done is told.

use std::rc::Rc;

use events::Millis;
use expect_test::expect;

use super::rows::RECEIPT_KEPT_MS;
use super::tests::{CONTEXT, check, command};
use super::*;
use crate::machine::Effect;
use crate::table::memory::Memory;

#[test]
fn the_first_body_of_a_receipt_counts() {
    check(
        "receive r1 A 5
         receive r1 A 7 2
         receive r1 B 1 2
         receive r1 C 2
         receive r1 A 5
         receive r2 A 7 2",
        expect![[r#"
            receive r1 A 5 -> 
            receive r1 A 7 2 -> rejected: request fda34de8-f267-5fe9-b269-4d6e533ff655 was posted before with another body, which counts: use a new key
            receive r1 B 1 2 -> rejected: request fda34de8-f267-5fe9-b269-4d6e533ff655 was posted before with another body, which counts: use a new key
            receive r1 C 2 -> 
            receive r1 A 5 -> 
            receive r2 A 7 2 -> 
            A: on hand 12 reserved 0 allocated 0
            C: on hand 2 reserved 0 allocated 0
        "#]],
    );
}

/// A writer before fingerprints: the pieces alone tell.
#[test]
fn without_a_fingerprint_another_quantity_is_a_conflict() {
    let backing: Rc<dyn Backing> = Rc::new(Memory::default());
    let mut stock = Stock::new(&backing);
    let source =
        Source { topic: topics::STOCK.name, partition: 0, offset: 0, appended_at: Millis(1_000) };
    let mut effects = Effects::default();
    for (line, rejected) in [("receive r A 5", 0), ("receive r A 5", 0), ("receive r A 6", 1)] {
        let Record::StockReceived(mut received) = command(line) else { unreachable!() };
        received.fingerprint = None;
        stock.step(received.into(), source, &CONTEXT, &mut effects);
        let refusals = effects.list.iter().filter(|e| matches!(e, Effect::Reject { .. }));
        assert_eq!(refusals.count(), rejected, "{line}");
    }
}

#[test]
fn receipts_are_forgotten_when_their_keys_have_expired() {
    let backing: Rc<dyn Backing> = Rc::new(Memory::default());
    let mut stock = Stock::new(&backing);
    let source =
        Source { topic: topics::STOCK.name, partition: 0, offset: 0, appended_at: Millis(1_000) };
    let mut effects = Effects::default();
    stock.step(command("receive r1 A 5"), source, &CONTEXT, &mut effects);
    let mut writes = Vec::new();
    stock.tables().into_iter().for_each(|table| table.seal(&mut writes));
    let later = Context { now: CONTEXT.now.plus(RECEIPT_KEPT_MS), ..CONTEXT };
    for write in writes {
        stock.fire(write.table, &write.key, &later, &mut effects);
    }
    assert!(stock.received.all().is_empty() && stock.receipts.all().is_empty());
    assert_eq!(stock.levels.all().len(), 1);
}

#[test]
fn what_no_order_moves_counts_once_and_tells_the_history() {
    check(
        "opening c1 A 10
         opening c1 A 10
         opening c2 A 1
         adjustment c3 A -2
         adjustment c4 A 0
         reserve o1 A 5
         adjustment c5 A -4
         transfer c6 A 3 east
         transfer c7 A 1 east
         count c8 A 6
         count c8 A 6
         count c9 A -1",
        expect![[r#"
            opening c1 A 10 -> opening +10: 10
            opening c1 A 10 -> 
            opening c2 A 1 -> not done: the SKU has stock there already: adjust or count it
            adjustment c3 A -2 -> adjustment -2: 8
            adjustment c4 A 0 -> not done: an adjustment of nothing
            reserve o1 A 5 -> reserved
            adjustment c5 A -4 -> not done: only 3 pieces are free: count them, or cancel orders first
            transfer c6 A 3 east -> transfer_out -3: 5; transfer_in +3: 3
            transfer c7 A 1 east -> not done: only 0 pieces are free: count them, or cancel orders first
            count c8 A 6 -> count +1: 6
            count c8 A 6 -> 
            count c9 A -1 -> not done: a count of fewer than no pieces
            A@east: on hand 3 reserved 0 allocated 0
            A: on hand 6 reserved 5 allocated 0
        "#]],
    );
}

#[test]
fn a_count_that_finds_too_little_asks_the_newest_reservations_to_go() {
    check(
        "receive r1 A 4
         reserve o1 A 2
         allocate o1
         reserve o2 A 2
         count c1 A 3
         release o2
         count c1 A 3
         count c4 A 3
         count c2 A 1
         dispatch o1
         dispatch o1
         release o1
         count c3 A 0",
        expect![[r#"
            receive r1 A 4 -> 
            reserve o1 A 2 -> reserved
            allocate o1 -> 
            reserve o2 A 2 -> reserved
            count c1 A 3 -> not done: 2 pieces are reserved and 2 allocated: the newest reservations are given up, dispatch or cancel what is allocated, then post the count again under a new key; refused: A wants 2 has 0 sold_out
            release o2 -> 
            count c1 A 3 -> 
            count c4 A 3 -> count -1: 3
            count c2 A 1 -> not done: 0 pieces are reserved and 2 allocated: the newest reservations are given up, dispatch or cancel what is allocated, then post the count again under a new key
            dispatch o1 -> dispatch -2: 1
            dispatch o1 -> 
            release o1 -> rejected: what has left the warehouse cannot be released
            count c3 A 0 -> count -1: 0
            A: on hand 0 reserved 0 allocated 0
        "#]],
    );
}

#[test]
fn no_number_is_too_large_to_be_refused() {
    check(
        "receive r1 A 5
         adjustment c1 A -9223372036854775808
         adjustment c2 A 9223372036854775807
         count c3 A 1000000000001
         count c0 A -9223372036854775808
         count c4 A 1000000000000
         reconcile c5 A -9223372036854775808",
        expect![[r#"
            receive r1 A 5 -> 
            adjustment c1 A -9223372036854775808 -> not done: more pieces than anybody has
            adjustment c2 A 9223372036854775807 -> not done: more pieces than anybody has
            count c3 A 1000000000001 -> not done: more pieces than anybody has
            count c0 A -9223372036854775808 -> not done: more pieces than anybody has
            count c4 A 1000000000000 -> count +999999999995: 1000000000000
            reconcile c5 A -9223372036854775808 -> not done: more pieces than anybody has
            A: on hand 1000000000000 reserved 0 allocated 0
        "#]],
    );
}

#[test]
fn a_reconciliation_moves_nothing_and_counts_once() {
    check(
        "reconcile c0 A 3
         receive r1 A 5
         reconcile c1 A -2
         reconcile c1 A -2",
        expect![[r#"
            reconcile c0 A 3 -> not done: there has never been stock of this SKU there
            receive r1 A 5 -> 
            reconcile c1 A -2 -> reconciliation -2: 5
            reconcile c1 A -2 -> 
            A: on hand 5 reserved 0 allocated 0
        "#]],
    );
}

#[test]
fn low_stock_is_told_once_per_fall() {
    let memory = Rc::new(Memory::default());
    let backing: Rc<dyn Backing> = memory.clone();
    let mut stock = Stock::new(&backing);
    let source =
        Source { topic: topics::STOCK.name, partition: 0, offset: 0, appended_at: Millis(1_000) };
    let mut told = Vec::new();
    for line in
        ["receive r1 A 5", "low_at c1 A 3", "reserve o1 A 2", "reserve o2 A 1", "release o1"]
            .into_iter()
            .chain(["reserve o3 A 2"])
    {
        let mut effects = Effects::default();
        stock.step(command(line), source, &CONTEXT, &mut effects);
        stock.end_batch(&CONTEXT, &mut effects);
        let mut writes = Vec::new();
        stock.tables().into_iter().for_each(|table| table.seal(&mut writes));
        memory.apply(&writes, &[]);
        stock.tables().into_iter().for_each(AnyTable::committed);
        for effect in &effects.list {
            if let Effect::Emit { record: Record::StockRanLow(low), .. } = effect {
                told.push((line, low.available));
            }
        }
    }
    assert_eq!(told, [("reserve o1 A 2", 3), ("reserve o3 A 2", 2)]);
}

/// Two of four pieces are gone: they are sold neither when the reservation on one of them is given back
/// nor out of a receipt, until a count is accepted.
#[test]
fn what_a_count_did_not_find_is_not_sold() {
    check(
        "receive r1 A 4
         reserve o1 A 2
         allocate o1
         reserve o2 A 1
         count c1 A 2
         reserve o3 A 1
         release o2
         reserve o3 A 1
         transfer c2 A 1 east
         receive r2 A 1
         reserve o4 A 2
         reserve o3 A 1
         count c3 A 3
         reserve o4 A 1",
        expect![[r#"
            receive r1 A 4 -> 
            reserve o1 A 2 -> reserved
            allocate o1 -> 
            reserve o2 A 1 -> reserved
            count c1 A 2 -> not done: 1 pieces are reserved and 2 allocated: the newest reservations are given up, dispatch or cancel what is allocated, then post the count again under a new key; refused: A wants 1 has 0 sold_out
            reserve o3 A 1 -> refused: A wants 1 has 0 sold_out
            release o2 -> 
            reserve o3 A 1 -> refused: A wants 1 has 0 sold_out
            transfer c2 A 1 east -> not done: only 0 pieces are free: count them, or cancel orders first
            receive r2 A 1 -> 
            reserve o4 A 2 -> refused: A wants 2 has 1 sold_out
            reserve o3 A 1 -> reserved
            count c3 A 3 -> count -2: 3
            reserve o4 A 1 -> refused: A wants 1 has 0 held
            A: on hand 3 reserved 1 allocated 2
        "#]],
    );
}

/// A request is judged once, whatever has become possible when it is heard again.
#[test]
fn what_was_refused_stays_refused_under_its_key() {
    check(
        "receive r1 A 1
         adjustment c1 A -2
         sale A 2 0 1000 2000
         receive r2 A 4
         adjustment c1 A -2
         sale A 2 0 1000 2000
         adjustment c2 A -2",
        expect![[r#"
            receive r1 A 1 -> 
            adjustment c1 A -2 -> not done: only 1 pieces are free: count them, or cancel orders first
            sale A 2 0 1000 2000 -> not done: a sale needs pieces, 1 are free, and must end after its start
            receive r2 A 4 -> 
            adjustment c1 A -2 -> 
            sale A 2 0 1000 2000 -> 
            adjustment c2 A -2 -> adjustment -2: 3
            A: on hand 3 reserved 0 allocated 0
        "#]],
    );
}
