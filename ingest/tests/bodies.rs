//! Bodies of ingest's requests: an order or a receipt that can be recorded, or a bounded list of faults,
//! each with a pointer; never a panic.

use events::topics::MAX_RECORD_BYTES;
use events::{Codec, Merchant, OrderId, Record};
use fuzz::{damage, mutations, run};
use ingest::problem::Fault;
use ingest::validate;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

const MOST_FAULTS: usize = 100;

fn order() -> Value {
    serde_json::from_str(include_str!("order.json")).unwrap()
}

fn receipt() -> Value {
    json!({
        "warehouse": "main",
        "lines": [{"sku": "85123A", "quantity": 6}, {"sku": "71053", "quantity": 1_000_000}]
    })
}

/// Any small JSON.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(&[0, 1, -1, 1_000_000, 1_000_001, i64::MAX, i64::MIN][..])
            .prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[0-9]{1,5}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|\\+[0-9]{2}:[0-9]{2})"
            .prop_map(Value::from),
        (0..70_000usize).prop_map(|length| "x".repeat(length).into()),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z_/~]{0,8}", inner, 0..6)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// A change of one node.
#[derive(Debug, Clone)]
enum Change {
    Replace(usize, Value),
    Remove(usize),
    Add(usize, String, Value),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<usize>;
    prop_oneof![
        4 => (at(), json()).prop_map(|(at, value)| Change::Replace(at, value)),
        1 => at().prop_map(Change::Remove),
        1 => (at(), "[a-z_]{0,8}", json()).prop_map(|(at, name, value)| Change::Add(at, name, value)),
        1 => (at(), 0..1_100usize).prop_map(|(at, count)| Change::Repeat(at, count)),
    ]
}

fn pointers(value: &Value, at: &str, list: &mut Vec<String>) {
    list.push(at.to_string());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            pointers(value, &format!("{at}/{key}"), list);
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), list)),
        _ => {}
    }
}

fn apply(body: &mut Value, change: Change) {
    let mut all = Vec::new();
    pointers(body, "", &mut all);
    let (Change::Replace(at, _) | Change::Remove(at) | Change::Add(at, ..) | Change::Repeat(at, _)) =
        &change;
    let pointer = all[at % all.len()].clone();
    let node = body.pointer_mut(&pointer).expect("listed");
    match (change, node) {
        (Change::Replace(_, value), node) => *node = value,
        (Change::Remove(_), node) => *node = Value::Null,
        (Change::Add(_, name, value), Value::Object(map)) => drop(map.insert(name, value)),
        (Change::Repeat(_, count), Value::Array(items)) => {
            if let Some(first) = items.first().cloned() {
                *items = vec![first; count];
            }
        }
        _ => {}
    }
}

fn check(bytes: &[u8]) -> Result<(bool, bool), TestCaseError> {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return Ok((false, false)) };
    let order = match validate::order(&body) {
        Ok(order) => {
            let codec = Codec::without_registry();
            let merchant = Merchant::parse("shop").expect("legal");
            let id = OrderId::derive(&merchant, "k");
            let fingerprint = order.fingerprint();
            let record = Record::from(order.placed(id, merchant, "k".into(), fingerprint, 900_000));
            let bytes = codec.to_bytes(&record);
            prop_assert!(
                bytes.len() < MAX_RECORD_BYTES || body.to_string().len() > MAX_RECORD_BYTES / 2
            );
            prop_assert_eq!(codec.decode(&bytes).map_err(|error| error.to_string()), Ok(record));
            true
        }
        Err(faults) => told(&faults, &body)?,
    };
    let receipt = match validate::receipt(&body) {
        Ok(receipt) => {
            let legal = 1..=validate::MAX_QUANTITY;
            prop_assert!(!receipt.pieces.is_empty());
            prop_assert!(receipt.pieces.values().all(|pieces| legal.contains(pieces)));
            receipt.fingerprint();
            true
        }
        Err(faults) => told(&faults, &body)?,
    };
    Ok((order, receipt))
}

/// Every fault points at something that is there, or at what is missing from something that is.
fn told(faults: &[Fault], body: &Value) -> Result<bool, TestCaseError> {
    prop_assert!((1..=MOST_FAULTS).contains(&faults.len()), "{} faults", faults.len());
    for fault in faults {
        let parent = fault.pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
        prop_assert!(!fault.detail.is_empty());
        prop_assert!(body.pointer(parent).is_some(), "{} points nowhere", fault.pointer);
    }
    Ok(false)
}

#[test]
fn a_body_is_taken_or_its_faults_are_told() {
    assert_eq!(check(order().to_string().as_bytes()).unwrap(), (true, false));
    assert_eq!(check(receipt().to_string().as_bytes()).unwrap(), (false, true));
    let changed = (any::<bool>(), prop::collection::vec(change(), 0..4), mutations());
    run(&changed, |(which, changes, mutations)| {
        let mut body = if which { order() } else { receipt() };
        changes.into_iter().for_each(|change| apply(&mut body, change));
        let mut bytes = body.to_string().into_bytes();
        check(&bytes)?;
        damage(&mut bytes, &mutations);
        check(&bytes)?;
        Ok(())
    });
}

#[test]
fn any_json_and_any_bytes_are_refused_with_reasons() {
    run(&json(), |body| check(body.to_string().as_bytes()).map(drop));
    run(&prop::collection::vec(any::<u8>(), 0..60), |bytes| check(&bytes).map(drop));
    let deep = ["[".repeat(200_000), format!("{}1{}", "[".repeat(127), "]".repeat(127))];
    for text in deep {
        check(text.as_bytes()).unwrap();
    }
}
