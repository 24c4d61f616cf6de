//! Stock, told as scripts: one line per command, the answers and levels that follow.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};

use expect_test::{Expect, expect};

use super::*;
use crate::machine::Effect;
use crate::table::memory::Memory;
use events::{
    AllocateLines, ChangeStock, DispatchLines, Fingerprint, FlashSaleScheduled, LineRefusal,
    Merchant, Millis, MovementKind, OrderId, ReceiptId, ReleaseLines, RequestId, ReserveLine,
    ReserveLines, Sku, StockChangeKind, StockReceived, WarehouseCode, WarehouseListed,
};
use rows::RECEIPT_KEPT_MS;

const CONTEXT: Context = Context { now: Millis(1_000), partition: 0, partitions: 1 };

fn order(name: &str) -> OrderKey {
    let merchant = Merchant::parse("shop").unwrap();
    OrderKey { order_id: OrderId::derive(&merchant, name), accepted_at: Millis(1) }
}

/// A SKU and its warehouse: `A` is in `main`, `A@east` in `east`.
fn place(word: &str) -> (Sku, WarehouseCode) {
    let (sku, warehouse) = word.split_once('@').unwrap_or((word, "main"));
    (Sku::parse(sku).unwrap(), WarehouseCode::parse(warehouse).unwrap())
}

/// One line of a script: `receive <receipt> <sku> <pieces> [<body, 1 by default>]`, `reserve <order> <sku> <pieces>…`,
/// `release <order>`, `allocate <order>`, `dispatch <order>`; `<order>/<attempt>` for another attempt
/// than the first, `<order>:<customer>` for a customer's, `<order>@<warehouse>,…` for a ranking. The
/// stock API: `opening|adjustment|count|low_at <change> <sku> <pieces>`, `transfer <change> <sku>
/// <pieces> <warehouse>`, `online|offline <warehouse>`, `sale <sku> <pieces> <limit> <from> <to>`.
fn command(line: &str) -> Record {
    let words: Vec<&str> = line.split_whitespace().collect();
    let merchant = Merchant::parse("shop").unwrap();
    let number = |at: usize| -> i64 { words[at].parse().unwrap() };
    let kind = match words[0] {
        "opening" => Some(StockChangeKind::Opening),
        "adjustment" => Some(StockChangeKind::Adjustment),
        "count" => Some(StockChangeKind::Count),
        "transfer" => Some(StockChangeKind::Transfer),
        "low_at" => Some(StockChangeKind::LowAt),
        "reconcile" => Some(StockChangeKind::Reconciliation),
        _ => None,
    };
    if let Some(kind) = kind {
        let (sku, warehouse) = place(words[2]);
        return ChangeStock {
            change_id: RequestId::derive("change", &merchant, words[1]),
            merchant,
            sku,
            warehouse,
            kind,
            quantity: number(3),
            to_warehouse: words.get(4).map(|to| WarehouseCode::parse(to).unwrap()),
            reason: "why".into(),
            requested_by: "who".into(),
            fingerprint: Fingerprint(uuid::Uuid::from_u128(1)),
        }
        .into();
    }
    if let "online" | "offline" = words[0] {
        // Each is a request of its own, later than the one before.
        static LISTINGS: AtomicI64 = AtomicI64::new(1);
        let listing = LISTINGS.fetch_add(1, Ordering::Relaxed);
        return WarehouseListed {
            merchant,
            warehouse: WarehouseCode::parse(words[1]).unwrap(),
            online: words[0] == "online",
            routes: vec![],
            cost_minor: 0,
            distance_km: 0,
            load_permille: 0,
            requested_by: "who".into(),
            request_id: RequestId(uuid::Uuid::from_u64_pair(1, listing.cast_unsigned())),
            fingerprint: Fingerprint(uuid::Uuid::from_u128(1)),
            listed_at: Millis(listing),
        }
        .into();
    }
    if words[0] == "sale" {
        let (sku, warehouse) = place(words[1]);
        return FlashSaleScheduled {
            sale_id: RequestId::derive("sale", &merchant, words[1]),
            merchant,
            sku,
            warehouse,
            quantity: number(2),
            per_customer: words[3].parse().unwrap(),
            starts_at: Millis(number(4)),
            ends_at: Millis(number(5)),
            requested_by: "who".into(),
            fingerprint: Fingerprint(uuid::Uuid::from_u128(1)),
        }
        .into();
    }
    let (name, ranking) = words[1].split_once('@').unwrap_or((words[1], "main"));
    let (name, customer) = match name.split_once(':') {
        Some((name, customer)) => (name, Some(customer.into())),
        None => (name, None),
    };
    let (name, attempt) = name.split_once('/').unwrap_or((name, "1"));
    let attempt = attempt.parse().unwrap();
    let OrderKey { order_id, accepted_at } = order(name);
    match words[0] {
        "receive" => {
            let (sku, warehouse) = place(words[2]);
            StockReceived {
                receipt_id: ReceiptId::derive(&merchant, words[1]),
                merchant,
                warehouse,
                sku,
                quantity: words[3].parse().unwrap(),
                fingerprint: Some(Fingerprint(uuid::Uuid::from_u128(
                    words.get(4).map_or(1, |body| body.parse().unwrap()),
                ))),
                reason: "".into(),
                requested_by: "who".into(),
            }
            .into()
        }
        "reserve" => {
            let lines = words[2..].chunks(2).zip(1..).map(|(pair, line)| ReserveLine {
                line,
                sku: Sku::parse(pair[0]).unwrap(),
                quantity: pair[1].parse().unwrap(),
            });
            let lines = lines.collect();
            let warehouses = ranking.split(',').map(|w| WarehouseCode::parse(w).unwrap()).collect();
            let customer_id = customer;
            ReserveLines {
                order_id,
                accepted_at,
                merchant,
                attempt,
                warehouses,
                lines,
                customer_id,
            }
            .into()
        }
        "release" => ReleaseLines { order_id, accepted_at, merchant, attempt }.into(),
        "allocate" => AllocateLines { order_id, accepted_at, merchant, attempt }.into(),
        "dispatch" => {
            let requested_by = "who".into();
            DispatchLines { order_id, accepted_at, merchant, attempt, requested_by }.into()
        }
        other => panic!("no such command: {other}"),
    }
}

/// What an effect tells; a receipt's movement goes without saying.
fn answer(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Emit { record: Record::LinesReserved(reserved), .. } => match &reserved.warehouse {
            Some(warehouse) => {
                let alone: Vec<&str> = reserved.alone.iter().map(WarehouseCode::as_str).collect();
                format!("reserved at {warehouse}, alone: {}", alone.join(" "))
            }
            None => "reserved".into(),
        },
        Effect::Emit { record: Record::LinesRefused(refused), .. } => {
            let why = |r: &LineRefusal| {
                let elsewhere =
                    r.elsewhere.iter().map(|a| format!(", {} {}", a.warehouse, a.available));
                let elsewhere: String = elsewhere.collect();
                let reason = r.reason.as_str();
                format!("{} wants {} has {} {reason}{elsewhere}", r.sku, r.requested, r.available)
            };
            format!("refused: {}", refused.refusals.iter().map(why).collect::<Vec<_>>().join(", "))
        }
        Effect::Emit { record: Record::StockMoved(moved), .. } => match moved.kind {
            MovementKind::Receipt => return None,
            kind => format!("{} {:+}: {}", kind.as_str(), moved.quantity, moved.on_hand),
        },
        Effect::Reject { reason } => format!("rejected: {reason}"),
        other => panic!("unexpected {other:?}"),
    })
}

fn check(script: &str, expected: Expect) {
    let backing: Rc<dyn Backing> = Rc::new(Memory::default());
    let mut stock = Stock::new(&backing);
    let source =
        Source { topic: topics::STOCK.name, partition: 0, offset: 0, appended_at: Millis(1_000) };
    let (mut told, mut context) = (String::new(), CONTEXT);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut effects = Effects::default();
        match line.strip_prefix("now ") {
            Some(now) => {
                context.now = Millis(now.parse().unwrap());
                let keys: Vec<_> = stock.sales.all().into_keys().collect();
                for key in keys {
                    let table = stock.sales.id();
                    stock.fire(table, &key.to_bytes(), &context, &mut effects);
                }
            }
            None => stock.step(command(line), source, &context, &mut effects),
        }
        let answers: Vec<String> = effects.list.iter().filter_map(answer).collect();
        writeln!(told, "{line} -> {}", answers.join("; ")).unwrap();
        for (key, level) in stock.levels.all() {
            assert_eq!(invariant::level(&key, &level), None, "after {line}");
        }
    }
    for ((_, sku, warehouse), level) in stock.levels.all() {
        let Level { on_hand, reserved, allocated, set_aside, .. } = level;
        let at =
            if warehouse == WarehouseCode::MAIN { String::new() } else { format!("@{warehouse}") };
        let aside = if set_aside == 0 { String::new() } else { format!(" set aside {set_aside}") };
        writeln!(
            told,
            "{sku}{at}: on hand {on_hand} reserved {reserved} allocated {allocated}{aside}"
        )
        .unwrap();
    }
    expected.assert_eq(&told);
}

#[test]
fn all_lines_or_none_and_the_same_sku_twice() {
    check(
        "receive r1 A 5
         receive r2 B 1
         reserve o1 A 3 B 1
         reserve o2 A 2 B 1
         reserve o3 A 1 A 1
         reserve o4 A 1",
        expect![[r#"
            receive r1 A 5 -> 
            receive r2 B 1 -> 
            reserve o1 A 3 B 1 -> reserved
            reserve o2 A 2 B 1 -> refused: B wants 1 has 0 held
            reserve o3 A 1 A 1 -> reserved
            reserve o4 A 1 -> refused: A wants 1 has 0 held
            A: on hand 5 reserved 5 allocated 0
            B: on hand 1 reserved 1 allocated 0
        "#]],
    );
}

#[test]
fn repeats_change_nothing() {
    check(
        "receive r1 A 5
         receive r1 A 5
         reserve o1 A 2
         reserve o1 A 2
         allocate o1
         allocate o1
         reserve o2 A 3
         release o2
         release o2",
        expect![[r#"
            receive r1 A 5 -> 
            receive r1 A 5 -> 
            reserve o1 A 2 -> reserved
            reserve o1 A 2 -> reserved
            allocate o1 -> 
            allocate o1 -> 
            reserve o2 A 3 -> reserved
            release o2 -> 
            release o2 -> 
            A: on hand 5 reserved 0 allocated 2
        "#]],
    );
}

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
fn a_release_that_overtakes_its_reservation_is_remembered() {
    check(
        "receive r1 A 5
         release o1
         reserve o1 A 2
         allocate o1",
        expect![[r#"
            receive r1 A 5 -> 
            release o1 -> 
            reserve o1 A 2 -> 
            allocate o1 -> rejected: nothing is reserved that could be allocated
            A: on hand 5 reserved 0 allocated 0
        "#]],
    );
}

/// Cancelled after a courier had taken it: the pieces are free again.
#[test]
fn a_release_also_gives_back_what_is_allocated() {
    check(
        "receive r1 A 5
         reserve o1 A 5
         allocate o1
         release o1
         release o1
         allocate o1
         reserve o2 A 5",
        expect![[r#"
            receive r1 A 5 -> 
            reserve o1 A 5 -> reserved
            allocate o1 -> 
            release o1 -> 
            release o1 -> 
            allocate o1 -> rejected: nothing is reserved that could be allocated
            reserve o2 A 5 -> reserved
            A: on hand 5 reserved 5 allocated 0
        "#]],
    );
}

#[test]
fn a_new_attempt_reserves_behind_the_release_of_the_last_and_an_old_release_changes_nothing() {
    check(
        "receive r1 A 5
         reserve o1 A 2
         release o1
         reserve o1/2 A 3
         release o1
         reserve o1 A 2
         reserve o1/2 A 3",
        expect![[r#"
            receive r1 A 5 -> 
            reserve o1 A 2 -> reserved
            release o1 -> 
            reserve o1/2 A 3 -> reserved
            release o1 -> 
            reserve o1 A 2 -> reserved
            reserve o1/2 A 3 -> reserved
            A: on hand 5 reserved 3 allocated 0
        "#]],
    );
}

#[test]
fn refusals_say_whether_waiting_helps() {
    check(
        "receive r1 A 5
         reserve o1 A 5
         reserve o2 A 1
         allocate o1
         reserve o3 A 1
         reserve o4 C 1",
        expect![[r#"
            receive r1 A 5 -> 
            reserve o1 A 5 -> reserved
            reserve o2 A 1 -> refused: A wants 1 has 0 held
            allocate o1 -> 
            reserve o3 A 1 -> refused: A wants 1 has 0 sold_out
            reserve o4 C 1 -> refused: C wants 1 has 0 unknown_sku
            A: on hand 5 reserved 0 allocated 5
        "#]],
    );
}

#[test]
fn what_an_order_holds_itself_is_not_held_by_others() {
    check(
        "receive r1 A 5
         reserve o1 A 3 A 3
         reserve o2 A 2
         reserve o1 A 3 A 3
         reserve o3 A 2 A 2",
        expect![[r#"
            receive r1 A 5 -> 
            reserve o1 A 3 A 3 -> refused: A wants 3 has 2 sold_out
            reserve o2 A 2 -> reserved
            reserve o1 A 3 A 3 -> refused: A wants 3 has 0 sold_out
            reserve o3 A 2 A 2 -> refused: A wants 2 has 1 held
            A: on hand 5 reserved 2 allocated 0
        "#]],
    );
}

#[test]
fn a_level_is_announced_once_per_batch() {
    let backing: Rc<dyn Backing> = Rc::new(Memory::default());
    let mut stock = Stock::new(&backing);
    let source =
        Source { topic: topics::STOCK.name, partition: 0, offset: 0, appended_at: Millis(1_000) };
    let mut effects = Effects::default();
    for line in ["receive r1 A 5", "reserve o1 A 1", "reserve o2 A 1"] {
        stock.step(command(line), source, &CONTEXT, &mut effects);
    }
    effects.list.clear();
    stock.end_batch(&CONTEXT, &mut effects);
    let [Effect::Emit { record: Record::StockLevelChanged(level), .. }] = &effects.list[..] else {
        panic!("one announcement, not {:?}", effects.list)
    };
    assert_eq!((level.version, level.on_hand, level.reserved), (1, 5, 2));
}

#[test]
fn one_warehouse_serves_all_lines_where_one_can_and_several_where_none_does() {
    check(
        "receive r1 A 5
         receive r2 B@east 5
         receive r3 A@east 2
         reserve o1@main,east A 2 B 2
         reserve o2@main,east A 1
         reserve o3@main,east A 3 B 3
         reserve o4@main,east A 2
         receive r4 A@east 1
         reserve o5@main,east A 3",
        expect![[r#"
            receive r1 A 5 -> 
            receive r2 B@east 5 -> 
            receive r3 A@east 2 -> 
            reserve o1@main,east A 2 B 2 -> reserved at east, alone: east
            reserve o2@main,east A 1 -> reserved at main, alone: main
            reserve o3@main,east A 3 B 3 -> reserved at east, alone: 
            reserve o4@main,east A 2 -> refused: A wants 2 has 1 held, main 1
            receive r4 A@east 1 -> 
            reserve o5@main,east A 3 -> refused: A wants 3 has 2 held, main 1, east 1
            A@east: on hand 3 reserved 2 allocated 0
            A: on hand 5 reserved 4 allocated 0
            B@east: on hand 5 reserved 5 allocated 0
        "#]],
    );
}

#[test]
fn a_line_is_split_over_warehouses_when_none_has_all_its_pieces() {
    check(
        "receive r1 A 2
         receive r2 A@east 2
         reserve o1@main,east A 3
         release o1
         allocate o1",
        expect![[r#"
            receive r1 A 2 -> 
            receive r2 A@east 2 -> 
            reserve o1@main,east A 3 -> reserved at main, alone: 
            release o1 -> 
            allocate o1 -> rejected: nothing is reserved that could be allocated
            A@east: on hand 2 reserved 0 allocated 0
            A: on hand 2 reserved 0 allocated 0
        "#]],
    );
}

#[test]
fn a_warehouse_that_goes_offline_offers_nothing_and_its_reservations_go_elsewhere() {
    check(
        "online main
         online east
         receive r1 A@east 4
         receive r2 A 2
         reserve o1@east,main A 1
         reserve o2@east,main A 2
         allocate o1
         reserve o3@east,main A 1
         offline east
         reserve o4@east,main A 1
         online east
         reserve o5@east,main A 1",
        expect![[r#"
            online main -> 
            online east -> 
            receive r1 A@east 4 -> 
            receive r2 A 2 -> 
            reserve o1@east,main A 1 -> reserved at east, alone: east main
            reserve o2@east,main A 2 -> reserved at east, alone: east main
            allocate o1 -> 
            reserve o3@east,main A 1 -> reserved at east, alone: east main
            offline east -> reserved at main, alone: ; refused: A wants 1 has 0 warehouse_offline
            reserve o4@east,main A 1 -> refused: A wants 1 has 0 held
            online east -> 
            reserve o5@east,main A 1 -> reserved at east, alone: east
            A@east: on hand 4 reserved 2 allocated 1
            A: on hand 2 reserved 2 allocated 0
        "#]],
    );
}

#[test]
fn a_later_attempt_replaces_what_is_held_or_keeps_it() {
    check(
        "receive r1 A 2
         receive r2 A@east 2
         reserve o1@main,east A 2
         reserve o1/2@east,main A 2
         reserve o2@east,main A 2
         reserve o1/3@west A 2",
        expect![[r#"
            receive r1 A 2 -> 
            receive r2 A@east 2 -> 
            reserve o1@main,east A 2 -> reserved at main, alone: main east
            reserve o1/2@east,main A 2 -> reserved at east, alone: east main
            reserve o2@east,main A 2 -> reserved at main, alone: main
            reserve o1/3@west A 2 -> reserved
            A@east: on hand 2 reserved 2 allocated 0
            A: on hand 2 reserved 2 allocated 0
        "#]],
    );
}

/// The saga hears nothing of the refusal that its earlier attempt was told.
#[test]
fn a_later_attempt_does_not_keep_what_is_held_in_a_warehouse_that_is_offline() {
    check(
        "online main
         online east
         receive r1 A 1
         reserve o1@main,east A 1
         offline main
         reserve o1/2@east,main A 1
         release o1/2
         online main
         reserve o2@main,east A 1",
        expect![[r#"
            online main -> 
            online east -> 
            receive r1 A 1 -> 
            reserve o1@main,east A 1 -> reserved at main, alone: main
            offline main -> refused: A wants 1 has 0 warehouse_offline
            reserve o1/2@east,main A 1 -> refused: A wants 1 has 0 warehouse_offline
            release o1/2 -> 
            online main -> 
            reserve o2@main,east A 1 -> reserved at main, alone: main
            A: on hand 1 reserved 1 allocated 0
        "#]],
    );
}

#[test]
fn what_is_kept_of_a_sale_that_is_over_is_taken_from_free_pieces() {
    check(
        "receive r1 A 3
         sale A 2 1 1000 2000
         reserve o1:ann A 1
         now 2000
         reserve o1/2:ann@west A 1
         release o1/2",
        expect![[r#"
            receive r1 A 3 -> 
            sale A 2 1 1000 2000 -> 
            reserve o1:ann A 1 -> reserved
            now 2000 -> 
            reserve o1/2:ann@west A 1 -> reserved
            release o1/2 -> 
            A: on hand 3 reserved 0 allocated 0
        "#]],
    );
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
            opening c2 A 1 -> rejected: the SKU has stock there already: adjust or count it
            adjustment c3 A -2 -> adjustment -2: 8
            adjustment c4 A 0 -> rejected: an adjustment of nothing
            reserve o1 A 5 -> reserved
            adjustment c5 A -4 -> rejected: only 3 pieces are free: count them, or cancel orders first
            transfer c6 A 3 east -> transfer_out -3: 5; transfer_in +3: 3
            transfer c7 A 1 east -> rejected: only 0 pieces are free: count them, or cancel orders first
            count c8 A 6 -> count +1: 6
            count c8 A 6 -> 
            count c9 A -1 -> rejected: a count of fewer than no pieces
            A@east: on hand 3 reserved 0 allocated 0
            A: on hand 6 reserved 5 allocated 0
        "#]],
    );
}

#[test]
fn a_count_that_finds_too_little_asks_the_newest_reservations_to_go_and_counts_when_they_have() {
    check(
        "receive r1 A 4
         reserve o1 A 2
         allocate o1
         reserve o2 A 2
         count c1 A 3
         release o2
         count c1 A 3
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
            count c1 A 3 -> refused: A wants 2 has 0 sold_out; rejected: 2 pieces are reserved and 2 allocated: the newest reservations are given up, dispatch or cancel what is allocated, then post the count again
            release o2 -> 
            count c1 A 3 -> count -1: 3
            count c2 A 1 -> rejected: 0 pieces are reserved and 2 allocated: the newest reservations are given up, dispatch or cancel what is allocated, then post the count again
            dispatch o1 -> dispatch -2: 1
            dispatch o1 -> 
            release o1 -> rejected: what has left the warehouse cannot be released
            count c3 A 0 -> count -1: 0
            A: on hand 0 reserved 0 allocated 0
        "#]],
    );
}

#[test]
fn a_flash_sale_sells_what_is_set_aside_from_its_start_on_a_few_to_each_customer() {
    check(
        "receive r1 A 5
         sale A 3 2 2000 3000
         reserve o1 A 3
         reserve o2 A 2
         now 2000
         reserve o3 A 1
         reserve o4:ann A 1
         reserve o5:ann A 2
         reserve o6:bob A 2
         reserve o7:cyd A 1
         release o6
         reserve o7:cyd A 1
         reserve o6/2:bob A 1
         now 3000
         release o7
         reserve o8 A 1",
        expect![[r#"
            receive r1 A 5 -> 
            sale A 3 2 2000 3000 -> 
            reserve o1 A 3 -> refused: A wants 3 has 2 sold_out
            reserve o2 A 2 -> reserved
            now 2000 -> 
            reserve o3 A 1 -> refused: A wants 1 has 3 customer_limit
            reserve o4:ann A 1 -> reserved
            reserve o5:ann A 2 -> refused: A wants 2 has 2 customer_limit
            reserve o6:bob A 2 -> reserved
            reserve o7:cyd A 1 -> refused: A wants 1 has 0 held
            release o6 -> 
            reserve o7:cyd A 1 -> reserved
            reserve o6/2:bob A 1 -> reserved
            now 3000 -> 
            release o7 -> 
            reserve o8 A 1 -> reserved
            A: on hand 5 reserved 5 allocated 0
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
            reconcile c0 A 3 -> rejected: there has never been stock of this SKU there
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
