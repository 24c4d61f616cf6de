//! Pure: the payment methods of an order, or their faults. Tokens only: what looks like a card number
//! is refused at the door.

use events::{PaymentMethod, ProviderCode};
use serde_json::Value;

use crate::card_numbers;
use crate::faults::{Faults, Pointer};

/// More methods than this are refused.
const MAX_METHODS: usize = 10;
const MAX_TOKEN: usize = 255;

/// Reads `payment_methods`; absent or null: payment is not Tillroll's business. The amounts must sum up
/// to the order's total, when that is known.
pub(crate) fn read(
    faults: &mut Faults,
    at: &Pointer,
    value: Option<&Value>,
    total_minor: Option<i64>,
) -> Option<Vec<PaymentMethod>> {
    let items = match value {
        None | Some(Value::Null) => return None,
        Some(Value::Array(items)) => items,
        Some(_) => {
            faults.add(at, "must be an array");
            return None;
        }
    };
    if items.is_empty() || items.len() > MAX_METHODS {
        faults.add(at, "must have 1 to 10 methods");
        return None;
    }
    let each = items.iter().enumerate();
    let methods: Vec<Option<PaymentMethod>> =
        each.map(|(index, item)| method(faults, &at.child(&index.to_string()), item)).collect();
    let methods: Vec<PaymentMethod> = methods.into_iter().collect::<Option<_>>()?;
    let sum = methods.iter().try_fold(0_i64, |sum, method| sum.checked_add(method.amount_minor));
    if let Some(total) = total_minor.filter(|total| sum != Some(*total)) {
        faults.add(at, &format!("the amounts must sum up to the order's total, {total}"));
    }
    Some(methods)
}

fn method(faults: &mut Faults, at: &Pointer, item: &Value) -> Option<PaymentMethod> {
    let object = faults.object(at, item, &["provider", "token", "amount_minor"])?;
    let provider_at = at.child("provider");
    let provider = faults.string(&provider_at, object.get("provider"));
    let provider = provider.and_then(|text| faults.parsed(&provider_at, ProviderCode::parse(text)));
    let token_at = at.child("token");
    let token = faults.string(&token_at, object.get("token")).filter(|token| {
        let legal =
            (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
        if !legal {
            faults.add(&token_at, "must be 1 to 255 visible ASCII characters");
        } else if card_numbers::is_one(token) {
            faults.add(&token_at, "looks like a card number: send the provider's token");
            return false;
        }
        legal
    });
    let amount = object.get("amount_minor");
    let amount_minor = faults.integer(&at.child("amount_minor"), amount, 1, i64::MAX);
    Some(PaymentMethod { provider: provider?, token: token?.into(), amount_minor: amount_minor? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults_of(value: &Value, total: i64) -> Vec<(String, String)> {
        let mut faults = Faults::default();
        let at = Pointer::root();
        read(&mut faults, &at.child("payment_methods"), Some(value), Some(total));
        faults.list.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
    }

    fn method(token: &str, amount_minor: i64) -> Value {
        json!({"provider": "stripe", "token": token, "amount_minor": amount_minor})
    }

    #[test]
    fn methods_pay_the_total_exactly() {
        assert_eq!(faults_of(&json!([method("pm_1", 30), method("gift_2", 70)]), 100), []);
        assert_eq!(faults_of(&Value::Null, 100), []);
        let short = faults_of(&json!([method("pm_1", 99)]), 100);
        assert_eq!(short[0].0, "/payment_methods");
        for wrong in [json!([]), json!({}), json!([method("", 100)]), json!([method("a b", 100)])] {
            assert_eq!(faults_of(&wrong, 100).len(), 1, "{wrong}");
        }
        let zero = faults_of(&json!([method("pm_1", 0)]), 100);
        assert_eq!(zero[0].0, "/payment_methods/0/amount_minor");
    }

    #[test]
    fn card_numbers_are_refused_and_not_repeated() {
        for number in ["4242424242424242", "4242-4242-4242-4242", "378282246310005"] {
            let faults = faults_of(&json!([method(number, 100)]), 100);
            assert_eq!(faults.len(), 1);
            assert!(faults[0].1.contains("card number") && !faults[0].1.contains("4242"));
        }
        // Not the right check digit; too short; a token.
        for token in ["4242424242424241", "4242", "pm_4242424242424242"] {
            assert_eq!(faults_of(&json!([method(token, 100)]), 100), []);
        }
    }
}
