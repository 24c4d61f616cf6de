//! A seed's orders: click storms, other payloads under the same key, hot SKUs, long orders, stock
//! that does not suffice, receipts that are posted twice, orders that wait for a confirmation, cancels
//! at every moment.

use events::{
    CancelRequested, ChangeStock, Currency, Destination, Fingerprint, FlashSaleScheduled, Merchant,
    Millis, OrderConfirmed, OrderDispatched, OrderId, OrderLine, OrderPlaced, PaymentMethod,
    ProviderCode, ReceiptId, RequestId, Route, Sku, StockChangeKind, StockReceived, WarehouseCode,
    WarehouseListed,
};

use crate::chance::Chance;
use crate::couriers::NOWHERE;
use crate::plan::Plan;
use crate::providers::REFUSED;

/// SKUs per shop; the first is hot.
const SKUS: u64 = 10;

/// Something that a client sends.
#[derive(Debug, Clone)]
// A run makes a few hundred of them.
#[allow(clippy::large_enum_variant)]
pub enum Sent {
    /// An order, perhaps under a key that was used before.
    Order(OrderPlaced),
    /// A stock receipt.
    Receipt(StockReceived),
    /// A request to cancel an order; may come before the order.
    Cancel(CancelRequested),
    /// A customer's confirmation.
    Confirm(OrderConfirmed),
    /// The warehouse has handed an order over.
    Dispatch(OrderDispatched),
    /// A change of stock that no order makes.
    Change(ChangeStock),
    /// A flash sale.
    Sale(FlashSaleScheduled),
    /// A warehouse as it is from now on.
    Warehouse(WarehouseListed),
    /// Bytes that are no record.
    Poison(Vec<u8>),
}

/// What a client sends, and when.
#[derive(Debug, Clone)]
pub struct Click {
    /// Microseconds from the start.
    pub at: u64,
    /// What.
    pub sent: Sent,
}

/// The clicks of a seed, in no particular order.
pub fn clicks(chance: &mut Chance, plan: &Plan) -> Vec<Click> {
    let (orders, span) = (plan.orders, plan.span);
    let mut clicks = receipts(chance, orders, span);
    stock_api(chance, &mut clicks, span);
    let long_share = chance.between(5, 60);
    for number in 0..orders {
        let at = chance.below(span);
        let shop = shop(chance.below(2));
        let key = format!("k{number}");
        let long = chance.per_mille(long_share);
        let mut order = order(chance, &shop, &key, long);
        if chance.per_mille(plan.paid) {
            pay(chance, &mut order);
        }
        if chance.per_mille(200) {
            storm(chance, &mut clicks, at, &order);
        }
        later(chance, &mut clicks, at, &order);
        clicks.push(Click { at, sent: Sent::Order(order) });
    }
    for number in 0..chance.below(3) {
        let sent = Sent::Poison(format!("not a record {number}").into_bytes());
        clicks.push(Click { at: chance.below(span), sent });
    }
    clicks
}

/// The same key again: at once, soon, or much later; sometimes with another payload.
fn storm(chance: &mut Chance, clicks: &mut Vec<Click>, at: u64, order: &OrderPlaced) {
    for _ in 0..chance.between(1, 4) {
        let mut again = order.clone();
        if chance.per_mille(300) {
            again.fingerprint = Fingerprint(uuid::Uuid::from_u128(u128::from(chance.draw())));
            again.lines[0].quantity += 1;
            again.total_minor = total(&again.lines);
            again.payment_methods = None;
        }
        let later = *chance.pick(&[0, 2_000, 50_000, 2_000_000]);
        clicks.push(Click { at: at + chance.below(later + 1), sent: Sent::Order(again) });
    }
}

/// What follows an order: its confirmation, in time or not; a cancel, perhaps before the order.
fn later(chance: &mut Chance, clicks: &mut Vec<Click>, at: u64, order: &OrderPlaced) {
    let (order_id, merchant) = (order.order_id, order.merchant.clone());
    if order.confirm_within_ms > 0 && chance.per_mille(650) {
        let request_id = RequestId::derive("confirm", &merchant, &order.idempotency_key);
        let sent =
            Sent::Confirm(OrderConfirmed { order_id, merchant: merchant.clone(), request_id });
        for _ in 0..chance.between(1, 2) {
            clicks.push(Click { at: at + chance.below(4_000_000), sent: sent.clone() });
        }
    }
    if chance.per_mille(80) {
        let request_id = RequestId::derive("dispatch", &merchant, &order.idempotency_key);
        let merchant = merchant.clone();
        let requested_by = "sim".into();
        let sent = Sent::Dispatch(OrderDispatched { order_id, merchant, request_id, requested_by });
        clicks.push(Click { at: at + chance.between(1_000_000, 8_000_000), sent });
    }
    if chance.per_mille(120) {
        let request_id = RequestId::derive("cancel", &merchant, &order.idempotency_key);
        let reason = "changed my mind".into();
        let sent = Sent::Cancel(CancelRequested { order_id, merchant, request_id, reason });
        let most = *chance.pick(&[0, 20_000, 200_000, 1_000_000, 5_000_000]);
        for _ in 0..chance.between(1, 2) {
            let after = chance.below(most + 1);
            let early = chance.per_mille(100);
            let at = if early { at.saturating_sub(after) } else { at + after };
            clicks.push(Click { at, sent: sent.clone() });
        }
    }
}

fn order(chance: &mut Chance, shop: &Merchant, key: &str, long: bool) -> OrderPlaced {
    let count = if long { chance.between(12, 40) } else { chance.between(1, 4) };
    let mut lines = Vec::new();
    for line in 1..=count {
        let hot = chance.per_mille(300);
        let number = if hot { 0 } else { chance.below(SKUS) };
        lines.push(OrderLine {
            line: i32::try_from(line).expect("few lines"),
            sku: sku(number),
            quantity: i32::try_from(chance.between(1, 3)).expect("few pieces"),
            unit_price_minor: i64::try_from(chance.between(1, 5_000)).expect("a price"),
        });
    }
    if chance.per_mille(10) {
        lines[0].sku = Sku::parse("never-received").expect("a legal code");
    }
    OrderPlaced {
        order_id: OrderId::derive(shop, key),
        merchant: shop.clone(),
        idempotency_key: key.into(),
        fingerprint: Fingerprint(uuid::Uuid::from_u128(u128::from(chance.draw()))),
        customer_id: chance.per_mille(700).then(|| format!("c{}", chance.below(6)).into()),
        currency: Currency::parse("GBP").expect("a currency"),
        destination: Destination {
            name: "n".into(),
            street: "s".into(),
            city: "c".into(),
            postcode: if chance.per_mille(15) { NOWHERE.into() } else { "p".into() },
            country: (*chance.pick(&["GB", "DE", "FR"])).into(),
        },
        total_minor: total(&lines),
        lines,
        ordered_at: Millis(1),
        attributes: [].into(),
        confirm_within_ms: match chance.per_mille(120) {
            true => i64::try_from(chance.between(200, 4_000)).expect("seconds"),
            false => 0,
        },
        payment_methods: None,
    }
}

/// A card, or what is left of a gift card and another card; some are refused.
fn pay(chance: &mut Chance, order: &mut OrderPlaced) {
    let gift = if chance.per_mille(400) { order.total_minor / 3 } else { 0 };
    let parts = [("gift", gift), ("card", order.total_minor - gift)];
    let methods = parts.into_iter().filter(|(_, amount)| *amount > 0).map(|(code, amount)| {
        let token = if chance.per_mille(80) { REFUSED } else { "tok_good" };
        let provider = ProviderCode::parse(code).expect("a legal code");
        PaymentMethod { provider, token: token.into(), amount_minor: amount }
    });
    order.payment_methods = Some(methods.collect());
}

fn total(lines: &[OrderLine]) -> i64 {
    lines.iter().map(|line| i64::from(line.quantity) * line.unit_price_minor).sum()
}

/// Enough for most orders, for some SKUs not; more comes later; some receipts are posted twice.
fn receipts(chance: &mut Chance, orders: u64, span: u64) -> Vec<Click> {
    let mut clicks = Vec::new();
    for number in 0..2 {
        let shop = shop(number);
        for sku_number in 0..SKUS {
            for round in 0..2u64 {
                let most = if sku_number == 0 { orders } else { orders / 3 };
                // The second shop has a second warehouse.
                let east = number == 1 && chance.per_mille(500);
                let receipt = StockReceived {
                    receipt_id: ReceiptId::derive(&shop, &format!("r{sku_number}-{round}")),
                    merchant: shop.clone(),
                    warehouse: if east { second() } else { WarehouseCode::MAIN },
                    sku: sku(sku_number),
                    quantity: i32::try_from(chance.between(1, most.max(2))).expect("few"),
                    fingerprint: Some(Fingerprint(uuid::Uuid::from_u128(u128::from(round)))),
                    reason: "".into(),
                    requested_by: "sim".into(),
                };
                let at = if round == 0 { 0 } else { chance.below(span) };
                if chance.per_mille(200) {
                    let sent = Sent::Receipt(receipt.clone());
                    clicks.push(Click { at: at + chance.below(1_000_000), sent });
                }
                clicks.push(Click { at, sent: Sent::Receipt(receipt) });
            }
        }
    }
    clicks
}

/// What a shop's own people do: both warehouses of the second shop are listed, and go on and off line;
/// pieces are found, lost, counted and moved; the first shop has a flash sale.
fn stock_api(chance: &mut Chance, clicks: &mut Vec<Click>, span: u64) {
    for (warehouse, distance_km) in [(WarehouseCode::MAIN, 100), (second(), 500)] {
        let listed = |online: bool, at: u64| {
            Sent::Warehouse(WarehouseListed {
                request_id: RequestId::derive("warehouse", &shop(1), &format!("{warehouse}-{at}")),
                fingerprint: Fingerprint(uuid::Uuid::from_u128(online.into())),
                listed_at: moment(at),
                merchant: shop(1),
                warehouse: warehouse.clone(),
                online,
                routes: vec![Route { country: "FR".into(), cost_minor: 10, distance_km: 10 }],
                cost_minor: 0,
                distance_km,
                load_permille: 0,
                requested_by: "sim".into(),
            })
        };
        clicks.push(Click { at: 0, sent: listed(true, 0) });
        for _ in 0..chance.below(3) {
            let at = chance.below(span);
            clicks.push(Click { at, sent: listed(false, at) });
            let back = at + chance.between(100_000, 3_000_000);
            clicks.push(Click { at: back, sent: listed(true, back) });
        }
    }
    for number in 0..chance.below(12) {
        let second_shop = chance.below(2);
        let kind = *chance.pick(&[
            StockChangeKind::Adjustment,
            StockChangeKind::Count,
            StockChangeKind::Transfer,
            StockChangeKind::LowAt,
        ]);
        let pieces = i64::try_from(chance.below(12)).expect("few");
        let lost = kind == StockChangeKind::Adjustment && chance.per_mille(500);
        let merchant = shop(second_shop);
        let change = ChangeStock {
            change_id: RequestId::derive("change", &merchant, &format!("x{number}")),
            merchant,
            sku: sku(chance.below(SKUS)),
            warehouse: WarehouseCode::MAIN,
            kind,
            quantity: if lost { -pieces } else { pieces },
            to_warehouse: (kind == StockChangeKind::Transfer).then(second),
            reason: "".into(),
            requested_by: "sim".into(),
            fingerprint: Fingerprint(uuid::Uuid::from_u128(1)),
        };
        let at = chance.below(span);
        for _ in 0..chance.between(1, 2) {
            let sent = Sent::Change(change.clone());
            clicks.push(Click { at: at + chance.below(500_000), sent });
        }
    }
    if chance.per_mille(600) {
        flash_sale(chance, clicks, span);
    }
}

fn flash_sale(chance: &mut Chance, clicks: &mut Vec<Click>, span: u64) {
    let starts = chance.below(span / 2);
    let ends = starts + chance.between(1_000_000, span / 2);
    let sale = FlashSaleScheduled {
        sale_id: RequestId::derive("sale", &shop(0), "sale"),
        merchant: shop(0),
        sku: sku(0),
        warehouse: WarehouseCode::MAIN,
        quantity: i64::try_from(chance.between(1, 12)).expect("few"),
        per_customer: i32::try_from(chance.below(4)).expect("few"),
        starts_at: moment(starts),
        ends_at: moment(ends),
        requested_by: "sim".into(),
        fingerprint: Fingerprint(uuid::Uuid::from_u128(1)),
    };
    for _ in 0..chance.between(1, 2) {
        let at = chance.below(starts + 1);
        clicks.push(Click { at, sent: Sent::Sale(sale.clone()) });
    }
}

/// The time at so many microseconds from the start.
fn moment(at: u64) -> Millis {
    Millis(crate::world::EPOCH + i64::try_from(at / 1_000).expect("short"))
}

fn second() -> WarehouseCode {
    WarehouseCode::parse("east").expect("a legal code")
}

fn shop(number: u64) -> Merchant {
    Merchant::parse(&format!("shop-{number}")).expect("a legal code")
}

fn sku(number: u64) -> Sku {
    Sku::parse(&format!("S{number}")).expect("a legal code")
}
