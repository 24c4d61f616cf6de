//! Payments of a replayed file: which orders are paid through Tillroll, with what, and which of them the
//! shop cancels afterwards; and what the providers' own ledger says of them.

use anyhow::{Context, Result};
use local::Stack;
use local::payment_simulator::REFUSED_TOKENS;
use serde::Deserialize;
use serde_json::{Value, json};

/// Every fifth order is paid through Tillroll.
const PAID: u64 = 5;

/// Which of the paid orders the `n`th order (from 0) is; `None`: it is not paid through Tillroll.
fn paid(n: u64) -> Option<u64> {
    n.is_multiple_of(PAID).then_some(n / PAID)
}

/// What the `n`th order (from 0) is paid with: a card, or every second time a third from a gift card and the
/// rest from a card. The card of every tenth is refused.
pub fn methods(n: u64, total_minor: i64) -> Option<Value> {
    let paid = paid(n)?;
    let token = if paid % 10 == 9 { REFUSED_TOKENS[0] } else { "pm_card_visa" };
    let gift = if paid % 2 == 1 { total_minor / 3 } else { 0 };
    let card = json!({"provider": "stripe", "token": token, "amount_minor": total_minor - gift});
    Some(match gift {
        0 => json!([card]),
        _ => json!([{"provider": "gift", "token": "gift_demo", "amount_minor": gift}, card]),
    })
}

/// Whether the shop cancels the `n`th order (from 0) once all are settled: every fifth of the paid ones.
pub fn is_cancelled(n: u64) -> bool {
    paid(n).is_some_and(|paid| paid % 5 == 3)
}

/// A payment in the providers' ledger; of the rest nothing is counted.
#[derive(Debug, Clone, Deserialize)]
pub struct Payment {
    /// `declined`, `authorized`, `voided`, `captured` or `refunded`.
    pub state: String,
    /// Minor units.
    pub amount_minor: i64,
    /// How often the amount was taken.
    pub captures: i64,
    /// How often it was given back.
    pub refunds: i64,
}

/// Every payment in the ledger of the payment simulator.
///
/// # Errors
/// When it does not answer.
pub async fn ledger(stack: &Stack) -> Result<Vec<Payment>> {
    let url = format!("{}/ledger/payments", stack.payment_simulator_url());
    let answer = reqwest::get(&url).await?.error_for_status()?;
    answer.json().await.with_context(|| url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_sum_up_to_the_total_and_every_way_is_met() {
        let (mut gifts, mut refused, mut cancelled) = (0, 0, 0);
        for n in 0..500 {
            let Some(methods) = methods(n, 1_000) else {
                assert!(!is_cancelled(n));
                continue;
            };
            let methods = methods.as_array().unwrap();
            let sum: i64 = methods.iter().map(|m| m["amount_minor"].as_i64().unwrap()).sum();
            assert_eq!(sum, 1_000);
            gifts += usize::from(methods.len() == 2);
            let declined = methods.iter().any(|m| m["token"] == REFUSED_TOKENS[0]);
            refused += usize::from(declined);
            cancelled += usize::from(is_cancelled(n));
            assert!(!(declined && is_cancelled(n)), "what was refused has no money to give back");
        }
        assert_eq!((gifts, refused, cancelled), (50, 10, 20));
        assert_eq!(methods(5, 2).unwrap().as_array().unwrap().len(), 1, "no gift of nothing");
    }
}
