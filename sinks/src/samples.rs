//! Plausible records for unit tests.

use events::{
    Consignment, CourierCode, Currency, Destination, Fingerprint, Merchant, Millis, OrderId,
    OrderLine, OrderPlaced, OrderStatus, OrderStatusChanged, Sku, StockLevelChanged, WarehouseCode,
};
use uuid::Uuid;

/// Version `version` of the order with this key; the first carries a body with two lines, the third
/// a consignment.
pub(crate) fn status(key: &str, version: i32) -> OrderStatusChanged {
    let merchant = Merchant::parse("shop").expect("legal");
    let order_id = OrderId::derive(&merchant, key);
    let line = |line| OrderLine {
        line,
        sku: Sku::parse("85123A").expect("legal"),
        quantity: 6,
        unit_price_minor: 255,
    };
    let body = OrderPlaced {
        order_id,
        merchant: merchant.clone(),
        idempotency_key: key.into(),
        fingerprint: Fingerprint(Uuid::from_u128(7)),
        customer_id: Some("17850".into()),
        currency: Currency::parse("GBP").expect("legal"),
        destination: Destination {
            name: "A. Buyer".into(),
            street: "1 High Street".into(),
            city: "Leeds".into(),
            postcode: "LS1".into(),
            country: "GB".into(),
        },
        lines: vec![line(1), line(2)],
        total_minor: 3060,
        ordered_at: Millis(1_291_191_960_000),
        attributes: [("gift".into(), "yes".into())].into(),
        confirm_within_ms: 0,
        payment_methods: None,
    };
    let consignment = Consignment {
        courier: CourierCode::parse("swift").expect("legal"),
        consignment_id: "swift-1".into(),
        tracking_number: "T1".into(),
        price_minor: 450,
        currency: "GBP".into(),
        promised_at: Millis(1_800_100_000_000),
        attempt: 1,
        expected_by: Millis(0),
    };
    let statuses = [OrderStatus::Received, OrderStatus::Reserved, OrderStatus::Routed];
    let index = usize::try_from(version - 1).expect("versions count from 1").min(2);
    OrderStatusChanged {
        order_id,
        accepted_at: Millis(1_800_000_000_000),
        merchant,
        version,
        status: statuses[index],
        reason: "".into(),
        occurred_at: Millis(1_800_000_000_000 + i64::from(version)),
        ordered_at: body.ordered_at,
        total_minor: body.total_minor,
        currency: body.currency.clone(),
        line_count: 2,
        order: (version == 1).then_some(body),
        consignment: (version == 3).then_some(consignment),
        refusals: Vec::new(),
        payments: vec![],
    }
}

/// A stock level in a version.
pub(crate) fn level(sku: &str, version: i64) -> StockLevelChanged {
    StockLevelChanged {
        merchant: Merchant::parse("shop").expect("legal"),
        sku: Sku::parse(sku).expect("legal"),
        warehouse: WarehouseCode::parse("main").expect("legal"),
        version,
        on_hand: 10,
        reserved: 1,
        allocated: 2,
        set_aside: 0,
        missing: 0,
        changed_at: Millis(1_800_000_000_000),
    }
}
