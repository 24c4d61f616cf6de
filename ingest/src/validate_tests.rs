//! Tables of bodies and their faults; fingerprints of bodies that mean the same.

use super::*;
use serde_json::json;

fn body() -> Value {
    serde_json::from_str(include_str!("../tests/order.json")).unwrap()
}

/// The body with the value at this pointer replaced; `null` removes the field.
fn with(pointer: &str, value: Value) -> Value {
    let mut body = body();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match body.pointer_mut(parent).unwrap() {
        Value::Object(object) if value.is_null() => {
            object.remove(name);
        }
        Value::Object(object) => {
            object.insert(name.to_string(), value);
        }
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        other => panic!("{other} has no fields"),
    }
    body
}

fn faults(body: &Value) -> Vec<String> {
    match order(body) {
        Ok(_) => Vec::new(),
        Err(list) => list.iter().map(|f| format!("{}: {}", f.pointer, f.detail)).collect(),
    }
}

#[test]
fn a_faultless_order_becomes_its_record() {
    let order = order(&body()).unwrap();
    assert_eq!(order.total_minor, 6 * 255 + 339);
    assert_eq!(order.ordered_at, Millis(1_291_191_960_000));
    assert_eq!(order.lines[1].line, 2);
    assert_eq!(order.attributes["gift"], "yes");
    assert_eq!(order.customer_id.as_deref(), Some("17850"));
}

#[test]
fn each_fault_is_named_with_its_pointer() {
    let quantity = "must be an integer from 1 to 1000000";
    let price = "must be an integer from 1 to 9223372036854775807";
    let time = "must be an RFC 3339 time from 1970 to 2199, like 2026-11-27T09:00:00Z";
    let code =
        "must be 1 to 64 of a-z, A-Z, 0-9, '-', '_', '.', ' ' and not start or end with a space";
    let table = [
        ("/currency", json!("gbp"), "must be an ISO 4217 code: three capital letters"),
        ("/currency", Value::Null, "is missing"),
        ("/currency", json!(1), "must be a string"),
        ("/customer_id", json!(17850), "must be a string"),
        ("/customer_id", json!(""), "must have 1 to 255 bytes"),
        ("/customer_id", json!("a\u{0}b"), "must not contain control characters"),
        ("/destination", Value::Null, "is missing"),
        ("/destination", json!("Leeds"), "must be an object"),
        (
            "/destination/country",
            json!("Britain"),
            "must be an ISO 3166-1 code: two capital letters",
        ),
        ("/destination/name", json!("x".repeat(256)), "must have 1 to 255 bytes"),
        ("/destination/street", Value::Null, "is missing"),
        ("/destination/planet", json!("Earth"), "is not a known field"),
        ("/lines", Value::Null, "is missing"),
        ("/lines", json!({}), "must be an array"),
        ("/lines", json!([]), "must have 1 to 1000 lines"),
        ("/lines/1", json!(7), "must be an object"),
        ("/lines/0/sku", json!("a/b"), code),
        ("/lines/0/sku", Value::Null, "is missing"),
        ("/lines/0/quantity", json!(-6), quantity),
        ("/lines/0/quantity", json!(0), quantity),
        ("/lines/0/quantity", json!(1.5), quantity),
        ("/lines/0/quantity", json!("6"), quantity),
        ("/lines/0/quantity", json!(1_000_001), quantity),
        ("/lines/0/quantity", Value::Null, "is missing"),
        ("/lines/0/unit_price_minor", json!(-1), price),
        ("/lines/0/unit_price_minor", json!(0), price),
        ("/lines/0/unit_price_minor", json!(2.55), price),
        ("/lines/0/unit_price_minor", json!(u64::MAX), price),
        ("/lines/0/discount", json!(1), "is not a known field"),
        ("/ordered_at", json!("yesterday"), time),
        ("/ordered_at", json!("1969-12-31T23:59:59Z"), time),
        ("/ordered_at", json!(1_291_191_960_000_i64), "must be a string"),
        ("/attributes", json!([]), "must be an object of strings"),
        ("/attributes/gift", json!(true), "must be a string"),
        (
            "/attributes/gift",
            json!("to 4242 4242 4242 4242"),
            "looks like a card number: none may be sent",
        ),
        ("/attributes/gift", json!("x".repeat(4097)), "must have at most 4096 bytes and no NUL"),
        ("/total_minor", json!(1), "is not a known field"),
    ];
    for (pointer, value, detail) in table {
        let body = with(pointer, value);
        assert_eq!(faults(&body), [format!("{pointer}: {detail}")], "{body}");
    }
    let odd = with("/a~b", json!(1));
    assert_eq!(faults(&odd), ["/a~0b: is not a known field"]);
    assert_eq!(faults(&json!([])), [": must be an object"]);
}

#[test]
fn all_faults_are_told_at_once_and_their_number_is_bounded() {
    let body = json!({
        "currency": "pounds",
        "lines": [{"sku": "", "quantity": -1}],
        "ordered_at": "2010-12-01",
        "extra": null
    });
    let pointers: Vec<String> =
        order(&body).unwrap_err().into_iter().map(|fault| fault.pointer).collect();
    let expected = [
        "/extra",
        "/currency",
        "/destination",
        "/lines/0/sku",
        "/lines/0/quantity",
        "/lines/0/unit_price_minor",
        "/ordered_at",
    ];
    assert_eq!(pointers, expected);
    let garbage = with("/lines", json!(vec![0; 1000]));
    assert_eq!(faults(&garbage).len(), 100);
    let long = with("/lines", json!(vec![body["lines"][0].clone(); 1001]));
    assert_eq!(faults(&long), ["/lines: must have 1 to 1000 lines"]);
}

#[test]
fn a_total_that_overflows_is_a_fault() {
    let line = json!({"sku": "A", "quantity": 2, "unit_price_minor": i64::MAX});
    let faults = faults(&with("/lines", json!([line])));
    assert_eq!(faults, ["/lines: the total does not fit 63 bits of minor units"]);
}

#[test]
fn bodies_that_mean_the_same_have_one_fingerprint() {
    let fingerprint =
        |text: &str| order(&serde_json::from_str(text).unwrap()).expect("legal").fingerprint();
    let first = fingerprint(&body().to_string());
    let reordered = r#" {
        "attributes": {"gift": "\u0079es"}, "ordered_at": "2010-12-01T09:26:00.000+01:00",
        "lines": [ {"unit_price_minor":255, "quantity":6, "sku":"85123A"},
                   {"unit_price_minor":339, "quantity":1, "sku":"71053"} ],
        "destination": {"country":"GB","postcode":"LS1","city":"Leeds","street":"1 High Street",
                        "name":"A. Buyer"},
        "currency": "GBP", "customer_id": "17850" }"#;
    assert_eq!(first, fingerprint(reordered));
    // Changing the canonical form would turn a retry over an upgrade into a conflict: pinned.
    assert_eq!(first.0.to_string(), "42e90d33-3f24-6ef4-86ee-7ea3715d20ab");
    for (pointer, value) in [
        ("/customer_id", Value::Null),
        ("/lines/0/quantity", json!(7)),
        ("/destination/city", json!("York")),
        ("/attributes/gift", json!("no")),
        ("/ordered_at", json!("2010-12-01T08:26:00.001Z")),
    ] {
        assert_ne!(first, fingerprint(&with(pointer, value).to_string()), "{pointer}");
    }
    let guest = fingerprint(&with("/customer_id", Value::Null).to_string());
    let mut null = body();
    null["customer_id"] = Value::Null;
    assert_eq!(guest, fingerprint(&null.to_string()));
}

#[test]
fn a_receipt_sums_the_lines_of_a_sku() {
    let line = |sku: &str, quantity: i32| json!({"sku": sku, "quantity": quantity});
    let body = json!({"lines": [line("B", 1), line("A", 2), line("B", 3)]});
    let read = receipt(&body).unwrap();
    let pieces: Vec<(&str, i32)> = read.pieces.iter().map(|(s, q)| (s.as_str(), *q)).collect();
    assert_eq!(pieces, [("A", 2), ("B", 4)]);
    let mut named = body.clone();
    named["warehouse"] = "main".into();
    assert_eq!(receipt(&named), Ok(read.clone()));
    // Changing the canonical form would turn a retry over an upgrade into a conflict: pinned.
    assert_eq!(read.fingerprint().0.to_string(), "31883aae-7935-70a3-64ac-7b3eafe6ba85");
    let mut why = body.clone();
    why["reason"] = "purchase order 4711".into();
    let told = receipt(&why).unwrap();
    assert_eq!((told.reason.as_str(), &told.pieces), ("purchase order 4711", &read.pieces));
    assert_ne!(told.fingerprint(), read.fingerprint());
    let elsewhere = json!({"warehouse": "east", "lines": [line("A", 2)]});
    assert_eq!(receipt(&elsewhere).unwrap().warehouse.as_str(), "east");
    let faulty = json!({
        "warehouse": "a/b", "note": "",
        "lines": [line("A", 1_000_000), line("A", 1), line("C", 0), {"sku": "D"}]
    });
    let pointers: Vec<String> =
        receipt(&faulty).unwrap_err().into_iter().map(|fault| fault.pointer).collect();
    assert_eq!(pointers, ["/note", "/warehouse", "/lines/2/quantity", "/lines/3/quantity"]);
    let much = json!({"lines": [line("A", 1_000_000), line("A", 1)]});
    assert_eq!(receipt(&much).unwrap_err()[0].pointer, "/lines/1");
}
