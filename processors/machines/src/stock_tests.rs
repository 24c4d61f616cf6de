//! Stock, told as scripts: one line per command, the answers and levels that follow.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;
use crate::machine::Effect;
use crate::table::memory::Memory;
use events::{
    AllocateLines, Fingerprint, LineRefusal, Merchant, Millis, OrderId, ReceiptId, ReleaseLines,
    ReserveLine, ReserveLines, Sku, StockReceived, WarehouseCode,
};
use rows::RECEIPT_KEPT_MS;

const CONTEXT: Context = Context { now: Millis(1_000), partition: 0, partitions: 1 };

fn order(name: &str) -> OrderKey {
    let merchant = Merchant::parse("shop").unwrap();
    OrderKey { order_id: OrderId::derive(&merchant, name), accepted_at: Millis(1) }
}

/// One line of a script: `receive <receipt> <sku> <pieces> [<body, 1 by default>]`, `reserve <order> <sku> <pieces>…`,
/// `release <order>`, `allocate <order>`; `<order>/<attempt>` for another attempt than the first.
fn command(line: &str) -> Record {
    let words: Vec<&str> = line.split_whitespace().collect();
    let merchant = Merchant::parse("shop").unwrap();
    let warehouse = WarehouseCode::parse("main").unwrap();
    let (name, attempt) = words[1].split_once('/').unwrap_or((words[1], "1"));
    let attempt = attempt.parse().unwrap();
    let OrderKey { order_id, accepted_at } = order(name);
    match words[0] {
        "receive" => StockReceived {
            receipt_id: ReceiptId::derive(&merchant, words[1]),
            merchant,
            warehouse,
            sku: Sku::parse(words[2]).unwrap(),
            quantity: words[3].parse().unwrap(),
            fingerprint: Some(Fingerprint(uuid::Uuid::from_u128(
                words.get(4).map_or(1, |body| body.parse().unwrap()),
            ))),
        }
        .into(),
        "reserve" => {
            let lines = words[2..].chunks(2).zip(1..).map(|(pair, line)| ReserveLine {
                line,
                sku: Sku::parse(pair[0]).unwrap(),
                quantity: pair[1].parse().unwrap(),
            });
            let (lines, warehouses) = (lines.collect(), vec![warehouse]);
            ReserveLines { order_id, accepted_at, merchant, attempt, warehouses, lines }.into()
        }
        "release" => ReleaseLines { order_id, accepted_at, merchant, attempt }.into(),
        "allocate" => AllocateLines { order_id, accepted_at, merchant, attempt }.into(),
        other => panic!("no such command: {other}"),
    }
}

fn answer(effect: &Effect) -> String {
    match effect {
        Effect::Emit { record: Record::LinesReserved(_), .. } => "reserved".into(),
        Effect::Emit { record: Record::LinesRefused(refused), .. } => {
            let why = |r: &LineRefusal| {
                format!("{} wants {} has {} {}", r.sku, r.requested, r.available, r.reason.as_str())
            };
            format!("refused: {}", refused.refusals.iter().map(why).collect::<Vec<_>>().join(", "))
        }
        Effect::Reject { reason } => format!("rejected: {reason}"),
        other => panic!("unexpected {other:?}"),
    }
}

fn check(script: &str, expected: Expect) {
    let backing: Rc<dyn Backing> = Rc::new(Memory::default());
    let mut stock = Stock::new(&backing);
    let source =
        Source { topic: topics::STOCK.name, partition: 0, offset: 0, appended_at: Millis(1_000) };
    let mut told = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut effects = Effects::default();
        stock.step(command(line), source, &CONTEXT, &mut effects);
        let answers: Vec<String> = effects.list.iter().map(answer).collect();
        writeln!(told, "{line} -> {}", answers.join("; ")).unwrap();
        for (key, level) in stock.levels.all() {
            assert_eq!(invariant::level(&key, &level), None, "after {line}");
        }
    }
    for ((_, sku, _), level) in stock.levels.all() {
        let Level { on_hand, reserved, allocated, .. } = level;
        writeln!(told, "{sku}: on hand {on_hand} reserved {reserved} allocated {allocated}")
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
            receive r1 A 7 2 -> rejected: receipt fda34de8-f267-5fe9-b269-4d6e533ff655 was posted before with another body, which counts: use a new key
            receive r1 B 1 2 -> rejected: receipt fda34de8-f267-5fe9-b269-4d6e533ff655 was posted before with another body, which counts: use a new key
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
        assert_eq!(effects.list.len(), rejected, "{line}");
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
