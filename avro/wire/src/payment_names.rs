//! How providers name our payments back to us: metadata that we give with an authorization and that
//! every webhook repeats. And what of their own names may be recorded.

use std::collections::BTreeMap;

use events::{Millis, OrderId, OrderKey};

/// Metadata field: order id.
pub const ORDER_ID: &str = "tillroll_order_id";
/// Metadata field: acceptance of the order, UTC ms.
pub const ACCEPTED_AT: &str = "tillroll_accepted_at";
/// Metadata field: position of the method in the order.
pub const METHOD: &str = "tillroll_method";
/// Metadata field: which authorization of the method.
pub const GENERATION: &str = "tillroll_generation";
/// Metadata field: our name for the payment, by which it can be searched.
pub const PAYMENT: &str = "tillroll_payment";

/// Which payment of ours something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaymentName {
    /// The order.
    pub order: OrderKey,
    /// Position of the method, from 1.
    pub method: i32,
    /// Which authorization of it, from 1.
    pub generation: i32,
}

impl PaymentName {
    /// The metadata to send.
    pub fn metadata(&self) -> [(&'static str, String); 4] {
        [
            (ORDER_ID, self.order.order_id.to_string()),
            (ACCEPTED_AT, self.order.accepted_at.0.to_string()),
            (METHOD, self.method.to_string()),
            (GENERATION, self.generation.to_string()),
        ]
    }

    /// What metadata that came back names; `None` if it is not ours.
    pub fn read(metadata: &BTreeMap<String, String>) -> Option<Self> {
        let field = |name: &str| metadata.get(name).map(String::as_str);
        let order_id = OrderId(field(ORDER_ID)?.parse().ok()?);
        let accepted_at = Millis(field(ACCEPTED_AT)?.parse().ok()?);
        Some(Self {
            order: OrderKey { order_id, accepted_at },
            method: field(METHOD)?.parse().ok()?,
            generation: field(GENERATION)?.parse().ok()?,
        })
    }
}

/// A provider's id as it may be recorded, since it travels to every sink: 1 to 100 visible ASCII characters.
pub fn id(text: &str) -> Option<&str> {
    let legal = (1..=100).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    legal.then_some(text)
}

/// A provider's reason as it may be recorded: a code of `a-z`, `0-9` and `_`, or just `declined`.
pub fn reason(text: &str) -> &str {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let fits = (1..=64).contains(&text.len()) && text.chars().all(legal);
    if fits { text } else { "declined" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_metadata() {
        let merchant = events::Merchant::parse("shop").expect("legal");
        let order_id = OrderId::derive(&merchant, "k");
        let order = OrderKey { order_id, accepted_at: Millis(7) };
        let name = PaymentName { order, method: 2, generation: 3 };
        let mut metadata: BTreeMap<String, String> =
            name.metadata().into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        assert_eq!(PaymentName::read(&metadata), Some(name));
        metadata.remove(METHOD);
        assert_eq!(PaymentName::read(&metadata), None);
    }
}
