//! Pure: the fingerprint of a request, over its canonical JSON: keys sorted, no whitespace, absent
//! optional fields as their default, times in UTC milliseconds. Bodies that mean the same are equal.

use std::collections::BTreeMap;

use compact_str::CompactString;
use events::{
    Currency, Fingerprint, Millis, OrderId, OrderLine, PaymentMethod, ProviderCode, Sku,
    WarehouseCode,
};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::validate;

// The fields of these structs stand in alphabetical order: that is the canonical form.

#[derive(Serialize)]
struct Order<'a> {
    attributes: &'a BTreeMap<CompactString, CompactString>,
    // Left out where it is not asked for, so that the digests of other orders stay as they were.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    await_confirmation: bool,
    currency: &'a Currency,
    customer_id: Option<&'a str>,
    destination: Address<'a>,
    #[serde(serialize_with = "order_lines")]
    lines: &'a [OrderLine],
    ordered_at: Millis,
    // Absent as in bodies of before there were payments.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_methods: Option<Vec<Method<'a>>>,
}

#[derive(Serialize)]
struct Address<'a> {
    city: &'a str,
    country: &'a str,
    name: &'a str,
    postcode: &'a str,
    street: &'a str,
}

#[derive(Serialize)]
struct Line<'a> {
    quantity: i32,
    sku: &'a Sku,
    unit_price_minor: i64,
}

#[derive(Serialize)]
struct Change<'a> {
    kind: &'a str,
    order_id: OrderId,
    reason: &'a str,
}

#[derive(Serialize)]
struct Method<'a> {
    amount_minor: i64,
    provider: &'a ProviderCode,
    token: &'a str,
}

#[derive(Serialize)]
struct Receipt<'a> {
    pieces: &'a BTreeMap<Sku, i32>,
    // Absent as in bodies of before there were reasons.
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    warehouse: &'a WarehouseCode,
}

fn order_lines<S: Serializer>(lines: &&[OrderLine], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(lines.iter().map(|line| Line {
        quantity: line.quantity,
        sku: &line.sku,
        unit_price_minor: line.unit_price_minor,
    }))
}

fn method(method: &PaymentMethod) -> Method<'_> {
    let PaymentMethod { provider, token, amount_minor } = method;
    Method { amount_minor: *amount_minor, provider, token }
}

pub(crate) fn order(order: &validate::Order) -> Fingerprint {
    let destination = &order.destination;
    let address = Address {
        city: &destination.city,
        country: &destination.country,
        name: &destination.name,
        postcode: &destination.postcode,
        street: &destination.street,
    };
    let methods = order.payment_methods.as_ref();
    digest(&Order {
        attributes: &order.attributes,
        await_confirmation: order.await_confirmation,
        currency: &order.currency,
        customer_id: order.customer_id.as_deref(),
        destination: address,
        lines: &order.lines,
        ordered_at: order.ordered_at,
        payment_methods: methods.map(|methods| methods.iter().map(method).collect()),
    })
}

pub(crate) fn receipt(receipt: &validate::Receipt) -> Fingerprint {
    let validate::Receipt { pieces, reason, warehouse } = receipt;
    digest(&Receipt { pieces, reason, warehouse })
}

pub(crate) fn change(kind: &str, order_id: OrderId, reason: &str) -> Fingerprint {
    digest(&Change { kind, order_id, reason })
}

/// Of a body whose fields stand in alphabetical order.
pub(crate) fn body(canonical: &impl Serialize) -> Fingerprint {
    digest(canonical)
}

fn digest(canonical: &impl Serialize) -> Fingerprint {
    let json = serde_json::to_vec(canonical).expect("strings and integers serialise");
    let hash: [u8; 32] = Sha256::digest(&json).into();
    let (first, _) = hash.split_first_chunk::<16>().expect("32 bytes hold 16");
    Fingerprint(Uuid::from_bytes(*first))
}
