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

pub(super) const CONTEXT: Context = Context { now: Millis(1_000), partition: 0, partitions: 1 };

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
pub(super) fn command(line: &str) -> Record {
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
            MovementKind::Refused => format!("not done: {}", moved.reason),
            kind => format!("{} {:+}: {}", kind.as_str(), moved.quantity, moved.on_hand),
        },
        Effect::Reject { reason } => format!("rejected: {reason}"),
        other => panic!("unexpected {other:?}"),
    })
}

pub(super) fn check(script: &str, expected: Expect) {
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
        let Level { on_hand, reserved, allocated, set_aside, missing, .. } = level;
        let at =
            if warehouse == WarehouseCode::MAIN { String::new() } else { format!("@{warehouse}") };
        let aside = if set_aside == 0 { String::new() } else { format!(" set aside {set_aside}") };
        let missing = if missing == 0 { String::new() } else { format!(" missing {missing}") };
        writeln!(
            told,
            "{sku}{at}: on hand {on_hand} reserved {reserved} allocated {allocated}{aside}{missing}"
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
