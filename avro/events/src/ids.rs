//! Identities: parsed once at the door, never checked again behind it.

use std::fmt;

use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::time::Millis;

/// Namespace of every UUIDv5 that Tillroll derives (itself UUIDv5 of the DNS namespace and
/// `tillroll`), so that ids are the same in every installation.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d1f_9c53_0b6f_5c5e_9a51_9f4a_3f0e_7d21);

/// Why a text is not an id of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 of a-z, A-Z, 0-9, '-', '_', '.', ' ' and not start or end with a space")]
pub struct IdError;

macro_rules! code {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(CompactString);

        // What is read is parsed, too: a record with an illegal code is refused by its decoder, not by
        // whoever meets the code later.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = CompactString::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl $name {
            /// Parses a code: 1 to 64 of letters, digits, `-`, `_`, `.` and inner spaces.
            ///
            /// # Errors
            /// When the text is anything else.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
                let ok = !text.is_empty()
                    && text.len() <= 64
                    && text.chars().all(legal)
                    && text.trim() == text;
                if ok { Ok(Self(text.into())) } else { Err(IdError) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

code!(
    /// A shop on this installation. API keys belong to one; stock and orders are per merchant.
    Merchant
);
code!(
    /// A stock keeping unit, unique within its merchant.
    Sku
);
code!(
    /// A warehouse of a merchant.
    WarehouseCode
);
code!(
    /// A courier company.
    CourierCode
);
code!(
    /// A payment provider.
    ProviderCode
);

impl WarehouseCode {
    /// The warehouse that every merchant has without listing it: what names none means this one, and the
    /// orders of a merchant that has listed none are served from it.
    pub const MAIN: Self = Self(CompactString::const_new("main"));
}

/// Where a consignment goes from and to: the key under which couriers are learned about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Lane(CompactString);

/// A lane that is read is one that [`Lane::new`] could have made of a country's code.
impl<'de> Deserialize<'de> for Lane {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = CompactString::deserialize(deserializer)?;
        let code = |part: &str| WarehouseCode::parse(part).is_ok();
        match text.split_once('>') {
            Some((origin, country)) if code(origin) && code(country) => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("a lane is a warehouse, '>' and a country")),
        }
    }
}

impl Lane {
    /// The lane from a warehouse to a country (ISO 3166-1 alpha-2).
    pub fn new(origin: &WarehouseCode, country: &str) -> Self {
        Self(compact_str::format_compact!("{origin}>{country}"))
    }

    /// The text, `origin>country`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An order's id: UUIDv5 of merchant and idempotency key, so a repeated click has the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

impl OrderId {
    /// The id of the order that this merchant places under this (unquoted) idempotency key.
    pub fn derive(merchant: &Merchant, idempotency_key: &str) -> Self {
        Self(derive("order", merchant, idempotency_key))
    }

    /// The record key: 16 bytes, big-endian.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An order's identity for good: the same idempotency key may name a second order after its
/// published lifetime, and the acceptance time tells the two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OrderKey {
    /// The order.
    pub order_id: OrderId,
    /// Append time of its first record.
    pub accepted_at: Millis,
}

impl OrderKey {
    /// The reference under which a courier knows an attempt's consignment, `<uuid>-<attempt>`; repeats
    /// are safe under it. The UUID stands for order and acceptance: a key used again after its
    /// lifetime is another order.
    pub fn reference(&self, attempt: i32) -> String {
        let order = Uuid::new_v5(&self.order_id.0, &self.accepted_at.0.to_be_bytes());
        format!("{order}-{attempt}")
    }

    /// What a courier hands back with its reports, beside the reference: `order/accepted at/lane`.
    pub fn metadata(&self, lane: &Lane) -> String {
        format!("{}/{}/{lane}", self.order_id, self.accepted_at)
    }
}

/// A stock receipt's id: UUIDv5 of merchant and idempotency key; a receipt counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReceiptId(pub Uuid);

impl ReceiptId {
    /// The id of the receipt that this merchant posts under this idempotency key.
    pub fn derive(merchant: &Merchant, idempotency_key: &str) -> Self {
        Self(derive("receipt", merchant, idempotency_key))
    }
}

/// A request's id: UUIDv5 of merchant, kind of request and idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub Uuid);

impl RequestId {
    /// The id of a request of this kind (`cancel`, `confirm`, …) that this merchant makes under this
    /// idempotency key.
    pub fn derive(kind: &str, merchant: &Merchant, idempotency_key: &str) -> Self {
        Self(derive(kind, merchant, idempotency_key))
    }
}

fn derive(kind: &str, merchant: &Merchant, idempotency_key: &str) -> Uuid {
    // A merchant has no '/', so no two pairs share a name.
    Uuid::new_v5(&NAMESPACE, format!("{kind}/{merchant}/{idempotency_key}").as_bytes())
}

/// Digest of a request's canonical JSON (first 16 bytes of SHA-256): same key and fingerprint is a
/// duplicate, same key and another fingerprint a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub Uuid);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_id_depends_on_merchant_and_key_alone() {
        let shop = Merchant::parse("shop").unwrap();
        let other = Merchant::parse("other").unwrap();
        assert_eq!(OrderId::derive(&shop, "k1"), OrderId::derive(&shop, "k1"));
        assert_ne!(OrderId::derive(&shop, "k1"), OrderId::derive(&shop, "k2"));
        assert_ne!(OrderId::derive(&shop, "k1"), OrderId::derive(&other, "k1"));
        // Changing the derivation would create every order anew on a retry: pinned.
        assert_eq!(
            OrderId::derive(&shop, "k1").to_string(),
            "291917d1-b421-5ba9-bb35-7eca73e4d4b7"
        );
    }

    #[test]
    fn the_warehouse_of_every_merchant_is_a_legal_code() {
        assert_eq!(WarehouseCode::parse("main"), Ok(WarehouseCode::MAIN));
    }

    #[test]
    fn codes_refuse_what_would_break_a_key() {
        for bad in ["", " a", "a/b", "a>b", "é", &"x".repeat(65)] {
            assert!(Sku::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["85123A", "gift_0001_20", "POST", "a b"] {
            assert!(Sku::parse(good).is_ok(), "{good:?}");
        }
    }
}
