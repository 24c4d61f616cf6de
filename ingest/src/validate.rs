//! Pure: a body → an order or a receipt, or all its faults, each with its JSON pointer.

use std::collections::BTreeMap;

use chrono::DateTime;
use compact_str::CompactString;
use events::{
    Currency, Destination, Fingerprint, Merchant, Millis, OrderId, OrderLine, OrderPlaced,
    PaymentMethod, Sku, WarehouseCode,
};
use serde_json::{Map, Value};

use crate::card_numbers;
use crate::faults::{Faults, Pointer};
use crate::fingerprint;
use crate::payment_methods;
use crate::problem::Fault;
use crate::stock::body as stock_body;

/// More lines than this are refused, in orders and in receipts.
pub const MAX_LINES: usize = 1000;
/// More pieces than this in one line are refused: more likely a fault than an order.
pub const MAX_QUANTITY: i32 = 1_000_000;
/// Most bytes of a text, a customer's code among them.
pub(crate) const MAX_TEXT: usize = 255;
/// What a time has to be.
pub(crate) const MOMENT: &str =
    "must be an RFC 3339 time from 1970 to 2199, like 2026-11-27T09:00:00Z";
const MAX_ATTRIBUTES: usize = 100;
const MAX_ATTRIBUTE: usize = 4096;
/// 2200-01-01, UTC ms: what every store downstream can hold.
const LATEST: i64 = 7_258_118_400_000;

/// An order's body, free of faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub(crate) customer_id: Option<CompactString>,
    pub(crate) currency: Currency,
    pub(crate) destination: Destination,
    pub(crate) lines: Vec<OrderLine>,
    pub(crate) total_minor: i64,
    pub(crate) ordered_at: Millis,
    pub(crate) attributes: BTreeMap<CompactString, CompactString>,
    pub(crate) await_confirmation: bool,
    pub(crate) payment_methods: Option<Vec<PaymentMethod>>,
}

impl Order {
    /// What tells a repeated click from another order under the same key.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint::order(self)
    }

    /// The record of this order; one that awaits a confirmation is held for `reservation_ms`.
    pub fn placed(
        self,
        order_id: OrderId,
        merchant: Merchant,
        idempotency_key: CompactString,
        fingerprint: Fingerprint,
        reservation_ms: i64,
    ) -> OrderPlaced {
        OrderPlaced {
            order_id,
            merchant,
            idempotency_key,
            fingerprint,
            customer_id: self.customer_id,
            currency: self.currency,
            destination: self.destination,
            lines: self.lines,
            total_minor: self.total_minor,
            ordered_at: self.ordered_at,
            attributes: self.attributes,
            confirm_within_ms: if self.await_confirmation { reservation_ms } else { 0 },
            payment_methods: self.payment_methods,
        }
    }
}

/// A stock receipt's body, free of faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Where the pieces arrived.
    pub warehouse: WarehouseCode,
    /// Pieces by SKU; lines of the same SKU are summed.
    pub pieces: BTreeMap<Sku, i32>,
    /// Why, in the requester's words; empty if not told.
    pub reason: CompactString,
}

impl Receipt {
    /// What tells a repeated receipt from another one under the same key.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint::receipt(self)
    }
}

/// Checks the body of an order.
///
/// # Errors
/// With every fault, up to a hundred.
pub fn order(body: &Value) -> Result<Order, Vec<Fault>> {
    let mut faults = Faults::default();
    let at = Pointer::root();
    let known = [
        "customer_id",
        "currency",
        "destination",
        "lines",
        "ordered_at",
        "attributes",
        "await_confirmation",
        "payment_methods",
    ];
    let Some(object) = faults.object(&at, body, &known) else { return Err(faults.list) };
    let customer_id = match object.get("customer_id") {
        None | Some(Value::Null) => None,
        Some(value) => faults.text(&at.child("customer_id"), Some(value), 1, MAX_TEXT),
    };
    let currency = faults.string(&at.child("currency"), object.get("currency"));
    let currency =
        currency.and_then(|text| faults.parsed(&at.child("currency"), Currency::parse(text)));
    let destination = destination(&mut faults, &at.child("destination"), object.get("destination"));
    let lines = lines(&mut faults, &at.child("lines"), object.get("lines"), order_line);
    let total_minor = lines.as_ref().and_then(|lines| total(&mut faults, &at, lines));
    let ordered_at = moment(&mut faults, &at.child("ordered_at"), object.get("ordered_at"));
    let attributes = attributes(&mut faults, &at.child("attributes"), object.get("attributes"));
    let await_confirmation = match object.get("await_confirmation") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(_) => {
            faults.add(&at.child("await_confirmation"), "must be true or false");
            false
        }
    };
    let methods = object.get("payment_methods");
    let payment_methods =
        payment_methods::read(&mut faults, &at.child("payment_methods"), methods, total_minor);
    match (currency, destination, lines, total_minor, ordered_at) {
        (Some(currency), Some(destination), Some(lines), Some(total_minor), Some(ordered_at))
            if faults.list.is_empty() =>
        {
            Ok(Order {
                customer_id,
                currency,
                destination,
                lines,
                total_minor,
                ordered_at,
                attributes,
                await_confirmation,
                payment_methods,
            })
        }
        _ => Err(faults.list),
    }
}

/// Checks the body of a stock receipt. Without a warehouse it is [`WarehouseCode::MAIN`].
///
/// # Errors
/// With every fault, up to a hundred.
pub fn receipt(body: &Value) -> Result<Receipt, Vec<Fault>> {
    let mut faults = Faults::default();
    let at = Pointer::root();
    let Some(object) = faults.object(&at, body, &["warehouse", "lines", "reason"]) else {
        return Err(faults.list);
    };
    let place = at.child("warehouse");
    let warehouse = stock_body::warehouse(&mut faults, &place, object.get("warehouse"), true);
    let reason = stock_body::reason(&mut faults, &at.child("reason"), object.get("reason"), false);
    let at = at.child("lines");
    let lines = lines(&mut faults, &at, object.get("lines"), receipt_line).unwrap_or_default();
    let mut pieces: BTreeMap<Sku, i32> = BTreeMap::new();
    for (index, (sku, quantity)) in lines.into_iter().enumerate() {
        let sum = pieces.entry(sku).or_insert(0);
        // At most 1,000 lines of at most a million: fits.
        *sum += quantity;
        if *sum > MAX_QUANTITY {
            faults.add(&at.child(&index.to_string()), "the SKU's lines sum up to over 1000000");
        }
    }
    match (warehouse, reason) {
        (Some(warehouse), Some(reason)) if faults.list.is_empty() => {
            Ok(Receipt { warehouse, pieces, reason })
        }
        _ => Err(faults.list),
    }
}

fn destination(faults: &mut Faults, at: &Pointer, value: Option<&Value>) -> Option<Destination> {
    let known = ["name", "street", "city", "postcode", "country"];
    let object = faults.object(at, faults.present(value), &known)?;
    let mut field =
        |name: &str, least: usize| faults.text(&at.child(name), object.get(name), least, MAX_TEXT);
    let (name, street, city) = (field("name", 1), field("street", 1), field("city", 1));
    let postcode = field("postcode", 0);
    let country = country(faults, &at.child("country"), object.get("country"));
    Some(Destination {
        name: name?,
        street: street?,
        city: city?,
        postcode: postcode?,
        country: country?.into(),
    })
}

/// An ISO 3166-1 code.
pub(crate) fn country<'v>(
    faults: &mut Faults,
    at: &Pointer<'_>,
    value: Option<&'v Value>,
) -> Option<&'v str> {
    let text = faults.string(at, value)?;
    let legal = text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase());
    if !legal {
        faults.add(at, "must be an ISO 3166-1 code: two capital letters");
    }
    legal.then_some(text)
}

/// The lines that `each` can read; `None` if there is a fault in any.
pub(crate) fn lines<T>(
    faults: &mut Faults,
    at: &Pointer,
    value: Option<&Value>,
    each: impl Fn(&mut Faults, &Pointer, &Value, i32) -> Option<T>,
) -> Option<Vec<T>> {
    let Value::Array(items) = faults.present(value) else {
        let missing = value.is_none();
        faults.add(at, if missing { "is missing" } else { "must be an array" });
        return None;
    };
    if items.is_empty() || items.len() > MAX_LINES {
        faults.add(at, "must have 1 to 1000 lines");
        return None;
    }
    let read = |(index, item): (usize, &Value)| {
        let line = i32::try_from(index + 1).expect("at most 1,000 lines");
        each(faults, &at.child(&index.to_string()), item, line)
    };
    let lines: Vec<Option<T>> = items.iter().enumerate().map(read).collect();
    lines.into_iter().collect()
}

fn order_line(faults: &mut Faults, at: &Pointer, item: &Value, line: i32) -> Option<OrderLine> {
    let object = faults.object(at, item, &["sku", "quantity", "unit_price_minor"])?;
    let sku = sku(faults, at, object);
    let quantity = quantity(faults, at, object);
    let at = at.child("unit_price_minor");
    let price = faults.integer(&at, object.get("unit_price_minor"), 1, i64::MAX);
    Some(OrderLine { line, sku: sku?, quantity: quantity?, unit_price_minor: price? })
}

fn receipt_line(faults: &mut Faults, at: &Pointer, item: &Value, _: i32) -> Option<(Sku, i32)> {
    let object = faults.object(at, item, &["sku", "quantity"])?;
    let (sku, quantity) = (sku(faults, at, object), quantity(faults, at, object));
    Some((sku?, quantity?))
}

pub(crate) fn sku(faults: &mut Faults, at: &Pointer, object: &Map<String, Value>) -> Option<Sku> {
    let at = at.child("sku");
    let text = faults.string(&at, object.get("sku"))?;
    faults.parsed(&at, Sku::parse(text))
}

fn quantity(faults: &mut Faults, at: &Pointer, object: &Map<String, Value>) -> Option<i32> {
    let at = at.child("quantity");
    let number = faults.integer(&at, object.get("quantity"), 1, i64::from(MAX_QUANTITY))?;
    i32::try_from(number).ok()
}

fn total(faults: &mut Faults, at: &Pointer, lines: &[OrderLine]) -> Option<i64> {
    let price = |line: &OrderLine| line.unit_price_minor.checked_mul(i64::from(line.quantity));
    let sum = lines.iter().try_fold(0_i64, |sum, line| sum.checked_add(price(line)?));
    if sum.is_none() {
        faults.add(&at.child("lines"), "the total does not fit 63 bits of minor units");
    }
    sum
}

pub(crate) fn moment(faults: &mut Faults, at: &Pointer, value: Option<&Value>) -> Option<Millis> {
    let text = faults.string(at, value)?;
    let legal = parse_moment(text);
    if legal.is_none() {
        faults.add(at, MOMENT);
    }
    legal
}

/// A time that [`MOMENT`] describes.
pub(crate) fn parse_moment(text: &str) -> Option<Millis> {
    let parsed = DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis());
    parsed.filter(|ms| (0..LATEST).contains(ms)).map(Millis)
}

fn attributes(
    faults: &mut Faults,
    at: &Pointer,
    value: Option<&Value>,
) -> BTreeMap<CompactString, CompactString> {
    let object = match value {
        None | Some(Value::Null) => return BTreeMap::new(),
        Some(Value::Object(object)) => object,
        Some(_) => {
            faults.add(at, "must be an object of strings");
            return BTreeMap::new();
        }
    };
    if object.len() > MAX_ATTRIBUTES {
        faults.add(at, "must have at most 100 attributes");
        return BTreeMap::new();
    }
    let mut attributes = BTreeMap::new();
    for (key, value) in object {
        if card_numbers::holds_one(key) {
            // Not at the attribute: a pointer would repeat it.
            faults.add(at, "an attribute's name looks like a card number: none may be sent");
            continue;
        }
        let at = at.child(key);
        if key.is_empty() || key.len() > MAX_TEXT || key.contains('\0') {
            faults.add(&at, "the attribute's name must have 1 to 255 bytes and no NUL");
        } else if let Some(text) = faults.string(&at, Some(value)) {
            if text.len() > MAX_ATTRIBUTE || text.contains('\0') {
                faults.add(&at, "must have at most 4096 bytes and no NUL");
            } else if card_numbers::holds_one(text) {
                faults.add(&at, "looks like a card number: none may be sent");
            } else {
                attributes.insert(key.into(), text.into());
            }
        }
    }
    attributes
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
