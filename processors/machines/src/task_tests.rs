//! A task's transactions: what they hold, that a restored task goes on like the one that stopped,
//! and that poison is set aside.

use super::*;
use crate::footer::FOOTER_KEY;
use crate::restore::{Entry, LastFooter, Restorer};
use crate::table::memory::Memory;
use crate::topology;
use events::{
    Destination, Fingerprint, LinesReserved, Merchant, OrderId, OrderLine, OrderPlaced, Record,
    Sku, topics,
};

const ID: TaskId = TaskId { processor: topology::ORDERS, partition: 0 };

fn start() -> Start {
    Start {
        term: 0,
        sequence: 0,
        positions: [("orders".to_string(), 0), ("order-outcomes".to_string(), 0)].into(),
        now: Millis(0),
        store_id: "store".into(),
        owner: "test".into(),
        repairs: vec![],
    }
}

fn task(memory: &Rc<Memory>, start: Start) -> Task {
    Task::new(ID, memory.clone() as Rc<dyn Backing>, Codec::without_registry(), 1, start)
}

fn placed(key: &str) -> OrderPlaced {
    let merchant = Merchant::parse("shop").unwrap();
    OrderPlaced {
        order_id: OrderId::derive(&merchant, key),
        merchant,
        idempotency_key: key.into(),
        fingerprint: Fingerprint(uuid::Uuid::from_u128(1)),
        customer_id: None,
        currency: events::Currency::parse("GBP").unwrap(),
        destination: Destination {
            name: "n".into(),
            street: "s".into(),
            city: "c".into(),
            postcode: "p".into(),
            country: "GB".into(),
        },
        lines: vec![OrderLine {
            line: 1,
            sku: Sku::parse("A").unwrap(),
            quantity: 1,
            unit_price_minor: 100,
        }],
        total_minor: 100,
        ordered_at: Millis(1),
        attributes: Default::default(),
        confirm_within_ms: 0,
        payment_methods: None,
    }
}

fn source(topic: &'static str, offset: i64) -> Source {
    Source { topic, partition: 0, offset, appended_at: Millis(1_000 + offset) }
}

fn feed(task: &mut Task, topic: &'static str, offset: i64, record: impl Into<Record>) {
    let bytes = Codec::without_registry().to_bytes(&record.into());
    task.process(arrived(source(topic, offset), None, &bytes)).unwrap();
}

fn arrived<'a>(source: Source, key: Option<&'a [u8]>, value: &'a [u8]) -> Arrived<'a> {
    Arrived { source, key, value: Some(value), headers: &|| vec![("trace".into(), Some(vec![7]))] }
}

fn types(transaction: &Transaction) -> Vec<&'static str> {
    let codec = Codec::without_registry();
    let name = |o: &Output| codec.decode(&o.value).unwrap().record_type().name();
    transaction.outputs.iter().map(name).collect()
}

fn commit(task: &mut Task, memory: &Memory) -> Transaction {
    let transaction = task.seal(false);
    memory.apply(&transaction.writes, &transaction.fired);
    task.committed();
    transaction
}

#[test]
fn the_first_transaction_names_the_owner_even_without_records() {
    let memory = Rc::new(Memory::default());
    let mut task = task(&memory, start());
    assert!(task.has_work());
    let transaction = commit(&mut task, &memory);
    assert_eq!((transaction.footer.term, transaction.footer.sequence), (1, 1));
    assert_eq!(transaction.footer.owner, "test");
    assert!(!task.has_work());
}

#[test]
fn an_order_is_received_once_whatever_comes_again() {
    let memory = Rc::new(Memory::default());
    let mut task = task(&memory, start());
    feed(&mut task, topics::ORDERS.name, 0, placed("k"));
    feed(&mut task, topics::ORDERS.name, 1, placed("k"));
    let mut other = placed("k");
    other.fingerprint = Fingerprint(uuid::Uuid::from_u128(2));
    feed(&mut task, topics::ORDERS.name, 2, other);
    let transaction = commit(&mut task, &memory);
    let expected = ["OrderStatusChanged", "ReserveLines", "OrderRepeated", "OrderRepeated"];
    assert_eq!(types(&transaction), expected);
    assert_eq!(transaction.footer.positions["orders"], 3);
    assert_eq!(transaction.footer.runs, [Run::Read("orders".into(), 0, 3)]);
}

#[test]
fn a_record_whose_schema_was_never_registered_is_put_aside_untouched() {
    let memory = Rc::new(Memory::default());
    let mut task = task(&memory, start());
    let (source, bytes) = (source(topics::ORDERS.name, 0), [0, 0, 0, 9, 9, 1]);
    assert_eq!(task.process(arrived(source, Some(b"k"), &bytes)), Err(2313));
    task.reject(arrived(source, Some(b"k"), &bytes), "never registered".into());
    feed(&mut task, topics::ORDERS.name, 1, placed("k"));
    let transaction = commit(&mut task, &memory);
    let [rejected] = &transaction.rejected[..] else { panic!("{:?}", transaction.rejected) };
    assert_eq!((rejected.stage, rejected.value.as_deref()), ("decode", Some(&bytes[..])));
    assert_eq!(transaction.footer.positions["orders"], 2);
    assert_eq!(types(&transaction), ["OrderStatusChanged", "ReserveLines"]);
}

#[test]
fn the_next_batch_sees_the_one_in_flight() {
    let memory = Rc::new(Memory::default());
    let mut task = task(&memory, start());
    feed(&mut task, topics::ORDERS.name, 0, placed("k"));
    let first = task.seal(false);
    // Not committed yet: the answer must still find its saga.
    let placed = placed("k");
    let (order_id, accepted_at) = (placed.order_id, Millis(1_000));
    let answer = LinesReserved {
        order_id,
        accepted_at,
        stock_partition: 0,
        attempt: 1,
        warehouse: None,
        alone: vec![],
        moved_from: None,
    };
    feed(&mut task, topics::ORDER_OUTCOMES.name, 0, answer);
    memory.apply(&first.writes, &first.fired);
    task.committed();
    let second = commit(&mut task, &memory);
    assert_eq!(types(&second), ["OrderStatusChanged", "BookConsignment"]);
}

/// Key, value and batch header of a changelog record.
type Logged = (Vec<u8>, Option<Vec<u8>>, [u8; 16]);

#[test]
fn a_restored_task_equals_the_one_that_stopped() {
    let memory = Rc::new(Memory::default());
    let mut live = task(&memory, start());
    let mut log: Vec<Logged> = vec![];
    for offset in 0..20 {
        feed(&mut live, topics::ORDERS.name, offset, placed(&format!("k{}", offset % 15)));
        if offset % 3 == 0 {
            let transaction = commit(&mut live, &memory);
            let footer = &transaction.footer;
            let header = crate::footer::batch_header(footer.term, footer.sequence);
            for write in &transaction.writes {
                log.push((write.changelog_key(), write.value.clone(), header));
            }
            log.push((FOOTER_KEY.to_vec(), Some(footer.to_bytes()), header));
        }
    }
    // A torn transaction: rows without a footer.
    log.push((b"\x01torn".to_vec(), Some(vec![0]), crate::footer::batch_header(1, 99)));
    let entries = || {
        log.iter().zip(0..).map(|((key, value, batch), offset)| Entry {
            offset,
            key,
            value: value.as_deref(),
            batch: Some(batch),
        })
    };
    let mut last = LastFooter::default();
    entries().for_each(|entry| last.see(entry));
    let (offset, footer) = last.found().unwrap();
    let restored = Memory::default();
    let mut restorer = Restorer::new(offset, 0);
    let writes: Vec<_> = entries().filter_map(|entry| restorer.next(entry)).collect();
    restored.apply(&writes, &[]);
    assert_eq!(restored.rows(), memory.rows());
    assert_eq!(footer.positions["orders"], 19);
    assert_eq!(restorer.torn().count(), 1);
}

#[test]
fn poison_is_set_aside_and_an_unknown_schema_is_asked_for() {
    let memory = Rc::new(Memory::default());
    let mut task = task(&memory, start());
    let orders = topics::ORDERS.name;
    assert_eq!(task.process(arrived(source(orders, 0), None, b"\0\0\0\x03\xe7x")), Err(999));
    task.process(arrived(source(orders, 0), Some(b"key"), b"not avro")).unwrap();
    feed(&mut task, orders, 1, placed("k"));
    let wrong = LinesReserved {
        order_id: placed("k").order_id,
        accepted_at: Millis(0),
        stock_partition: 0,
        attempt: 1,
        warehouse: None,
        alone: vec![],
        moved_from: None,
    };
    feed(&mut task, orders, 2, wrong);
    let big = vec![0; MAX_RECORD_BYTES + 1];
    task.process(arrived(source(orders, 3), None, &big)).unwrap();
    let transaction = commit(&mut task, &memory);
    let reasons: Vec<_> = transaction.rejected.iter().map(|r| (r.stage, &*r.reason)).collect();
    let expected = [
        ("decode", "not in Confluent wire format (8 bytes)"),
        ("decode", "LinesReserved does not belong on orders"),
        ("decode", "record of 524289 bytes: at most 524288 are read"),
    ];
    assert_eq!(reasons, expected);
    let first = &transaction.rejected[0];
    assert_eq!(
        (first.key.as_deref(), first.value.as_deref()),
        (Some(&b"key"[..]), Some(&b"not avro"[..]))
    );
    assert_eq!(first.headers, [("trace".to_string(), Some(vec![7]))]);
    assert_eq!(transaction.footer.positions["orders"], 4);
    assert_eq!(types(&transaction), ["OrderStatusChanged", "ReserveLines"]);
}

#[test]
fn an_idle_inbox_is_passed_by_a_transaction_without_records() {
    let memory = Rc::new(Memory::default());
    let mut task = task(&memory, start());
    commit(&mut task, &memory);
    task.pass(topics::ORDERS.name, 7);
    assert!(task.has_work());
    let transaction = commit(&mut task, &memory);
    assert_eq!(transaction.footer.positions["orders"], 7);
    assert_eq!(transaction.footer.positions["order-outcomes"], 0);
    assert!(transaction.writes.is_empty() && transaction.footer.runs.is_empty());
    task.pass(topics::ORDERS.name, 3);
    assert!(!task.has_work(), "positions never go back");
    feed(&mut task, topics::ORDERS.name, 9, placed("k"));
    assert_eq!(commit(&mut task, &memory).footer.positions["orders"], 10);
}
