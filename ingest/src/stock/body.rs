//! Pure: bodies of the stock API → what they ask for, or all their faults.

use std::collections::BTreeMap;

use compact_str::CompactString;
use events::{Millis, Route, Sku, StockChangeKind, WarehouseCode};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::faults::{Faults, Pointer};
use crate::problem::Fault;
use crate::validate::{MAX_QUANTITY, country, lines, moment, sku};

const MAX_REASON: usize = 255;
const MAX_ROUTES: usize = 300;
/// No shipping cost, distance or load is more than this: more likely a fault.
const MAX_FIGURE: i64 = 1_000_000_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The longest sale; its pieces are kept from everybody else.
const MAX_SALE_DAYS: i64 = 31;
/// How far ahead a sale may begin.
const MAX_AHEAD_DAYS: i64 = 366;

/// A change of stock: one warehouse, some SKUs. Fields in alphabetical order: the canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// Pieces by SKU; a SKU stands in one line only.
    pub(crate) pieces: BTreeMap<Sku, i64>,
    pub(crate) reason: CompactString,
    /// Of a transfer.
    pub(crate) to: Option<WarehouseCode>,
    pub(crate) warehouse: WarehouseCode,
}

/// Checks the body of a change. An adjustment needs a reason, a transfer two warehouses.
pub(crate) fn change(body: &Value, kind: StockChangeKind) -> Result<Change, Vec<Fault>> {
    let mut faults = Faults::default();
    let at = Pointer::root();
    let transfer = kind == StockChangeKind::Transfer;
    let known: &[&str] = match transfer {
        true => &["from", "to", "lines", "reason"],
        false => &["warehouse", "lines", "reason"],
    };
    let Some(object) = faults.object(&at, body, known) else { return Err(faults.list) };
    let place = if transfer { "from" } else { "warehouse" };
    let home = warehouse(&mut faults, &at.child(place), object.get(place), !transfer);
    let to = match transfer {
        true => warehouse(&mut faults, &at.child("to"), object.get("to"), false),
        false => None,
    };
    if to.is_some() && to == home {
        faults.add(&at.child("to"), "must be another warehouse than from");
    }
    let needed = kind == StockChangeKind::Adjustment;
    let reason = reason(&mut faults, &at.child("reason"), object.get("reason"), needed);
    let (least, most) = bounds(kind);
    let list = at.child("lines");
    let read = |faults: &mut Faults, at: &Pointer<'_>, item: &Value, _: i32| {
        let object = faults.object(at, item, &["sku", "quantity"])?;
        let sku = sku(faults, at, object);
        let at = at.child("quantity");
        let quantity = faults.integer(&at, object.get("quantity"), least, most)?;
        if quantity == 0 && kind == StockChangeKind::Adjustment {
            faults.add(&at, "must not be 0");
        }
        Some((sku?, quantity))
    };
    let mut pieces = BTreeMap::new();
    let found = lines(&mut faults, &list, object.get("lines"), read).unwrap_or_default();
    for (index, (sku, quantity)) in found.into_iter().enumerate() {
        if pieces.insert(sku, quantity).is_some() {
            faults.add(&list.child(&index.to_string()), "the SKU stands in a line before");
        }
    }
    match (home, reason) {
        (Some(warehouse), Some(reason)) if faults.list.is_empty() => {
            Ok(Change { pieces, reason, to, warehouse })
        }
        _ => Err(faults.list),
    }
}

fn bounds(kind: StockChangeKind) -> (i64, i64) {
    let most = i64::from(MAX_QUANTITY);
    match kind {
        StockChangeKind::Adjustment => (-most, most),
        StockChangeKind::Count | StockChangeKind::LowAt => (0, most),
        StockChangeKind::Opening
        | StockChangeKind::Transfer
        | StockChangeKind::Reconciliation
        | StockChangeKind::Unknown => (1, most),
    }
}

/// Why something is asked for; empty if it may be left out and is.
pub(crate) fn reason(
    faults: &mut Faults,
    at: &Pointer<'_>,
    value: Option<&Value>,
    needed: bool,
) -> Option<CompactString> {
    match value {
        None | Some(Value::Null) if !needed => Some(CompactString::default()),
        value => faults.text(at, value, usize::from(needed), MAX_REASON),
    }
}

/// A warehouse's code; `main` if it may be left out and is.
pub(crate) fn warehouse(
    faults: &mut Faults,
    at: &Pointer<'_>,
    value: Option<&Value>,
    optional: bool,
) -> Option<WarehouseCode> {
    match value {
        None | Some(Value::Null) if optional => Some(WarehouseCode::MAIN),
        value => {
            let text = faults.string(at, value)?;
            faults.parsed(at, WarehouseCode::parse(text))
        }
    }
}

/// A flash sale. Fields in alphabetical order: the canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FlashSale {
    pub(crate) ends_at: Millis,
    pub(crate) per_customer: i32,
    pub(crate) quantity: i64,
    pub(crate) sku: Sku,
    pub(crate) starts_at: Millis,
    pub(crate) warehouse: WarehouseCode,
}

/// Checks the body of a flash sale, or of its end: a SKU and a quantity of 0, no more. Without a time, whether it
/// can still begin is not asked.
pub(crate) fn flash_sale(body: &Value, now: Option<Millis>) -> Result<FlashSale, Vec<Fault>> {
    let mut faults = Faults::default();
    let at = Pointer::root();
    let known = ["sku", "quantity", "warehouse", "per_customer", "starts_at", "ends_at"];
    let Some(object) = faults.object(&at, body, &known) else { return Err(faults.list) };
    let sku = sku(&mut faults, &at, object);
    let most = i64::from(MAX_QUANTITY);
    let quantity = faults.integer(&at.child("quantity"), object.get("quantity"), 0, most);
    if quantity == Some(0) {
        for name in &known[2..] {
            if object.get(*name).is_some_and(|value| !value.is_null()) {
                faults.add(&at.child(name), "must be left out where a quantity of 0 ends the sale");
            }
        }
        return match sku {
            Some(sku) if faults.list.is_empty() => Ok(FlashSale::end(sku)),
            _ => Err(faults.list),
        };
    }
    let warehouse = warehouse(&mut faults, &at.child("warehouse"), object.get("warehouse"), true);
    let per_customer = number(&mut faults, &at, object, "per_customer", most);
    let starts_at = moment(&mut faults, &at.child("starts_at"), object.get("starts_at"));
    let ends_at = moment(&mut faults, &at.child("ends_at"), object.get("ends_at"));
    if let (Some(from), Some(to), Some(now)) = (starts_at, ends_at, now) {
        lasts(&mut faults, &at, (from, to), now);
    }
    match (sku, warehouse, quantity, per_customer, starts_at, ends_at) {
        (
            Some(sku),
            Some(warehouse),
            Some(quantity),
            Some(limit),
            Some(starts_at),
            Some(ends_at),
        ) if faults.list.is_empty() => {
            let per_customer = i32::try_from(limit).unwrap_or(MAX_QUANTITY);
            Ok(FlashSale { ends_at, per_customer, quantity, sku, starts_at, warehouse })
        }
        _ => Err(faults.list),
    }
}

impl FlashSale {
    /// What ends a SKU's sale.
    fn end(sku: Sku) -> Self {
        let (starts_at, ends_at) = (Millis(0), Millis(0));
        let warehouse = WarehouseCode::MAIN;
        Self { ends_at, per_customer: 0, quantity: 0, sku, starts_at, warehouse }
    }
}

/// When a sale may be. One that began in the past is on at once.
fn lasts(faults: &mut Faults, at: &Pointer<'_>, (from, to): (Millis, Millis), now: Millis) {
    let ends_at = at.child("ends_at");
    if from >= to {
        faults.add(&ends_at, "must be after starts_at");
    } else if to <= now {
        faults.add(&ends_at, "must be in the future");
    } else if to.0 - from.0 > MAX_SALE_DAYS * DAY_MS {
        faults.add(&ends_at, "must be at most 31 days after starts_at");
    }
    if from.0 - now.0 > MAX_AHEAD_DAYS * DAY_MS {
        faults.add(&at.child("starts_at"), "must be at most 366 days ahead");
    }
}

/// A warehouse. Fields in alphabetical order: the canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Warehouse {
    pub(crate) cost_minor: i64,
    pub(crate) distance_km: i32,
    pub(crate) load_permille: i32,
    pub(crate) online: bool,
    pub(crate) routes: Vec<Route>,
    pub(crate) warehouse: WarehouseCode,
}

/// Checks the body of a warehouse.
pub(crate) fn listed(body: &Value) -> Result<Warehouse, Vec<Fault>> {
    let mut faults = Faults::default();
    let at = Pointer::root();
    let known = ["warehouse", "online", "routes", "cost_minor", "distance_km", "load_permille"];
    let Some(object) = faults.object(&at, body, &known) else { return Err(faults.list) };
    let warehouse = warehouse(&mut faults, &at.child("warehouse"), object.get("warehouse"), false);
    let online = match object.get("online") {
        None | Some(Value::Null) => Some(true),
        Some(Value::Bool(flag)) => Some(*flag),
        Some(_) => {
            faults.add(&at.child("online"), "must be true or false");
            None
        }
    };
    let cost = number(&mut faults, &at, object, "cost_minor", MAX_FIGURE);
    let distance = number(&mut faults, &at, object, "distance_km", 50_000);
    let load = number(&mut faults, &at, object, "load_permille", 10_000);
    let routes = routes(&mut faults, &at.child("routes"), object.get("routes"));
    match (warehouse, online, cost, distance, load) {
        (Some(warehouse), Some(online), Some(cost_minor), Some(distance), Some(load))
            if faults.list.is_empty() =>
        {
            let small = |figure: i64| i32::try_from(figure).unwrap_or(i32::MAX);
            let (distance_km, load_permille) = (small(distance), small(load));
            Ok(Warehouse { cost_minor, distance_km, load_permille, online, routes, warehouse })
        }
        _ => Err(faults.list),
    }
}

fn routes(faults: &mut Faults, at: &Pointer<'_>, value: Option<&Value>) -> Vec<Route> {
    let items = match value {
        None | Some(Value::Null) => return vec![],
        Some(Value::Array(items)) if items.len() <= MAX_ROUTES => items,
        Some(_) => {
            faults.add(at, "must be an array of at most 300 routes");
            return vec![];
        }
    };
    let mut routes = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let index = index.to_string();
        let at = at.child(&index);
        let known = ["country", "cost_minor", "distance_km"];
        let Some(object) = faults.object(&at, item, &known) else { continue };
        let country = country(faults, &at.child("country"), object.get("country"));
        let cost = number(faults, &at, object, "cost_minor", MAX_FIGURE);
        let distance = number(faults, &at, object, "distance_km", 50_000);
        if let (Some(country), Some(cost_minor), Some(distance)) = (country, cost, distance) {
            let distance_km = i32::try_from(distance).unwrap_or(i32::MAX);
            routes.push(Route { country: country.into(), cost_minor, distance_km });
        }
    }
    routes
}

/// A number from 0 that may be left out.
fn number(
    faults: &mut Faults,
    at: &Pointer<'_>,
    object: &Map<String, Value>,
    name: &str,
    most: i64,
) -> Option<i64> {
    match object.get(name) {
        None | Some(Value::Null) => Some(0),
        value => faults.integer(&at.child(name), value, 0, most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::parse_moment;
    use serde_json::json;

    fn pointers<T>(result: Result<T, Vec<Fault>>) -> Vec<String> {
        result.err().unwrap_or_default().into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn an_adjustment_is_signed_and_needs_a_reason() {
        let lines = json!([{"sku": "A", "quantity": -2}]);
        let body = json!({"reason": "broken", "lines": lines});
        let read = change(&body, StockChangeKind::Adjustment).unwrap();
        assert_eq!(read.warehouse, WarehouseCode::MAIN);
        assert_eq!(read.pieces.values().copied().collect::<Vec<_>>(), [-2]);
        assert_eq!(
            pointers(change(&json!({"lines": lines}), StockChangeKind::Adjustment)),
            ["/reason"]
        );
        assert_eq!(pointers(change(&body, StockChangeKind::Count)), ["/lines/0/quantity"]);
        let none = json!({"reason": "broken", "lines": [{"sku": "A", "quantity": 0}]});
        assert_eq!(pointers(change(&none, StockChangeKind::Adjustment)), ["/lines/0/quantity"]);
        let twice = json!({"lines": [{"sku": "A", "quantity": 1}, {"sku": "A", "quantity": 1}]});
        assert_eq!(pointers(change(&twice, StockChangeKind::Opening)), ["/lines/1"]);
    }

    #[test]
    fn a_transfer_needs_both_ends() {
        let lines = json!([{"sku": "A", "quantity": 2}]);
        let body = json!({"from": "main", "to": "east", "lines": lines});
        assert!(change(&body, StockChangeKind::Transfer).is_ok());
        assert_eq!(
            pointers(change(&json!({"lines": lines}), StockChangeKind::Transfer)),
            ["/from", "/to"]
        );
        let nowhere = json!({"from": "east", "to": "east", "lines": lines});
        assert_eq!(pointers(change(&nowhere, StockChangeKind::Transfer)), ["/to"]);
    }

    #[test]
    fn sales_end_after_they_start_and_in_the_future_and_have_bounds() {
        let now = parse_moment("2026-11-27T09:30:00Z").unwrap();
        let sale = |from: &str, to: &str| {
            let body = json!({"sku": "A", "quantity": 10, "per_customer": 2,
                "starts_at": format!("{from}T09:00:00Z"), "ends_at": format!("{to}T10:00:00Z")});
            pointers(flash_sale(&body, Some(now)))
        };
        assert!(sale("2026-11-27", "2026-11-27").is_empty(), "it is on at once");
        assert!(sale("2027-11-28", "2027-12-28").is_empty(), "366 days ahead, for 30 days");
        for (from, to, pointer) in [
            ("2026-11-28", "2026-11-27", "/ends_at"),
            ("2026-11-26", "2026-11-26", "/ends_at"),
            ("2026-11-27", "2026-12-28", "/ends_at"),
            ("2027-11-29", "2027-11-29", "/starts_at"),
        ] {
            assert_eq!(sale(from, to), [pointer], "{from} to {to}");
        }
        let over = json!({"sku": "A", "quantity": 10, "starts_at": "2026-11-26T09:00:00Z",
            "ends_at": "2026-11-26T10:00:00Z"});
        assert!(flash_sale(&over, None).is_ok(), "a repeat of one that was taken in time");
    }

    #[test]
    fn a_quantity_of_nothing_ends_a_sale_and_says_no_more() {
        let end = flash_sale(&json!({"sku": "A", "quantity": 0}), None).unwrap();
        assert_eq!(end, FlashSale::end(Sku::parse("A").unwrap()));
        let more = json!({"sku": "A", "quantity": 0, "per_customer": 1,
            "ends_at": "2026-11-27T10:00:00Z", "warehouse": null});
        assert_eq!(pointers(flash_sale(&more, None)), ["/per_customer", "/ends_at"]);
        assert_eq!(pointers(flash_sale(&json!({"quantity": 0}), None)), ["/sku"]);
    }

    #[test]
    fn warehouses_have_routes() {
        let body = json!({"warehouse": "east", "routes": [{"country": "FR", "cost_minor": 5}]});
        let read = listed(&body).unwrap();
        assert!(read.online && read.routes[0].cost_minor == 5);
        assert_eq!(
            pointers(listed(&json!({"warehouse": "east", "routes": [{"country": "x"}]}))),
            ["/routes/0/country"]
        );
    }
}
