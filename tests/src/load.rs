//! Generated load: one-line orders of about 400 bytes that do not compress away, SKUs by Zipf.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use events::{Merchant, OrderId};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::shop::Shop;

/// SKUs that orders choose from.
pub const SKUS: usize = 1_000;

/// SplitMix64 (Steele, Lea, Flood 2014): seeded, so that a run can be repeated.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn text(&mut self, length: usize) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        (0..length).map(|_| char::from(LETTERS[(self.bits() >> 59) as usize])).collect()
    }
}

/// Ranks 0 to n − 1 with probability proportional to 1 / (rank + 1).
#[derive(Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// A distribution over `n` ranks.
    pub fn new(n: usize) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=n)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    /// A rank.
    pub fn draw(&self, random: &mut Random) -> usize {
        let most = self.0.last().copied().unwrap_or_default();
        let at = (random.bits() >> 11) as f64 / (1u64 << 53) as f64 * most;
        self.0.partition_point(|sum| *sum < at).min(self.0.len() - 1)
    }
}

/// The `n`th SKU.
pub fn sku(n: usize) -> String {
    format!("SKU{n:04}")
}

/// An order's body.
pub fn order(random: &mut Random, zipf: &Zipf) -> Value {
    json!({
        "customer_id": random.text(20),
        "currency": "GBP",
        "destination": {
            "name": random.text(24), "street": random.text(28), "city": random.text(12),
            "postcode": random.text(8), "country": "GB",
        },
        "lines": [{
            "sku": sku(zipf.draw(random)), "quantity": 1,
            "unit_price_minor": 100 + random.bits() % 10_000,
        }],
        "ordered_at": "2026-11-21T12:00:00Z",
        "attributes": { "session": random.text(40), "campaign": random.text(16) },
    })
}

/// What a load did.
#[derive(Debug, Default)]
pub struct Sent {
    /// When each accepted order's POST was due, by order id.
    pub began: HashMap<OrderId, Instant>,
    /// From due to answered, of accepted orders.
    pub latencies: Vec<Duration>,
    /// Answers other than 202.
    pub refused: u64,
}

/// How to send.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Orders per second, each due at its own moment; `None` sends as fast as answers come.
    pub per_second: Option<u32>,
    /// For how long.
    pub lasting: Duration,
    /// Requests under way at once.
    pub clients: usize,
    /// Seed; also the first part of every idempotency key.
    pub seed: u64,
}

/// Sends a load through all ingest processes.
///
/// # Errors
/// When ingest gives no final answer.
pub async fn send(shop: &Shop, merchant: &Merchant, load: Load) -> Result<Sent> {
    let mut random = Random::new(load.seed);
    let zipf = Zipf::new(SKUS);
    let sent = Arc::new(Mutex::new(Sent::default()));
    let clients = Arc::new(Semaphore::new(load.clients));
    let started = Instant::now();
    let mut n = 0u32;
    let mut posts = tokio::task::JoinSet::new();
    while started.elapsed() < load.lasting {
        let due = match load.per_second {
            Some(rate) => {
                let due = started + Duration::from_secs(1) / rate * n;
                tokio::time::sleep_until(due.into()).await;
                Some(due)
            }
            None => None,
        };
        let permit = clients.clone().acquire_owned().await?;
        let key = format!("{}-{n}", load.seed);
        let (body, shop) = (order(&mut random, &zipf), shop.clone());
        let (merchant, sent) = (merchant.clone(), sent.clone());
        let process = n as usize;
        posts.spawn(async move {
            let began = due.unwrap_or_else(Instant::now);
            let answer = shop.post(process, "/v1/orders", &key, &body).await;
            drop(permit);
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok(answer) if answer.status == 202 => {
                    sent.began.insert(OrderId::derive(&merchant, &key), began);
                    sent.latencies.push(began.elapsed());
                }
                _ => sent.refused += 1,
            }
        });
        while posts.try_join_next().is_some() {}
        n += 1;
    }
    while posts.join_next().await.is_some() {}
    let sent = std::mem::take(&mut *sent.lock().unwrap_or_else(PoisonError::into_inner));
    ensure!(!sent.began.is_empty(), "no order was accepted");
    Ok(sent)
}

/// Receives plenty of every SKU.
///
/// # Errors
/// When the receipt is refused.
pub async fn stock_up(shop: &Shop) -> Result<()> {
    let line = |n| json!({ "sku": sku(n), "quantity": 1_000_000 });
    let body = json!({ "lines": (0..SKUS).map(line).collect::<Vec<_>>() });
    let answer = shop.post(0, "/v1/stock/receipts", "plenty", &body).await?;
    ensure!(answer.status == 202, "receipt got {}: {}", answer.status, answer.body);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_have_the_size_that_is_promised_and_seeds_repeat() {
        let zipf = Zipf::new(SKUS);
        let order = |seed| order(&mut Random::new(seed), &zipf).to_string();
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert!((350..450).contains(&order(1).len()), "{}", order(1).len());
    }

    #[test]
    fn the_first_ranks_are_drawn_most() {
        let (zipf, mut random) = (Zipf::new(SKUS), Random::new(7));
        let mut drawn = vec![0u32; SKUS];
        (0..100_000).for_each(|_| drawn[zipf.draw(&mut random)] += 1);
        // 1 / H(1000) = 13.4 %.
        assert!((12_500..14_300).contains(&drawn[0]), "{}", drawn[0]);
        assert!(drawn[0] > drawn[9] && drawn[9] > drawn[99]);
    }
}
