//! Generated load: one-line orders of about 400 bytes that do not compress away, SKUs by Zipf.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use events::{Merchant, OrderId};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

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
    /// Connections, each with one request under way.
    pub clients: usize,
    /// Seed; also the first part of every idempotency key.
    pub seed: u64,
}

/// Where to send.
#[derive(Debug, Clone)]
pub struct Target {
    /// `host:port` of ingest.
    pub address: String,
    /// Whose API key it is.
    pub merchant: Merchant,
    /// The API key.
    pub key: String,
}

/// Sends a load. Clients are plain keep-alive connections, so that the generator costs little of the
/// machine that it measures.
///
/// # Errors
/// When a connection breaks.
pub async fn send(target: &Target, load: Load) -> Result<Sent> {
    let next = Arc::new(AtomicU32::new(0));
    let zipf = Arc::new(Zipf::new(SKUS));
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..load.clients {
        let (target, next, zipf) = (target.clone(), next.clone(), zipf.clone());
        clients.spawn(async move { client(&target, load, started, &next, &zipf).await });
    }
    let mut all = Sent::default();
    while let Some(sent) = clients.join_next().await {
        let sent = sent??;
        all.began.extend(sent.began);
        all.latencies.extend(sent.latencies);
        all.refused += sent.refused;
    }
    ensure!(!all.began.is_empty(), "no order was accepted");
    Ok(all)
}

/// One connection: takes the next order, waits until it is due, posts it.
async fn client(
    target: &Target,
    load: Load,
    started: Instant,
    next: &AtomicU32,
    zipf: &Zipf,
) -> Result<Sent> {
    let stream = TcpStream::connect(&target.address).await?;
    stream.set_nodelay(true)?;
    let (mut http, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut sent = Sent::default();
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let due = load.per_second.map(|rate| started + Duration::from_secs(1) / rate * n);
        if let Some(due) = due {
            tokio::time::sleep_until(due.into()).await;
        }
        let began = due.unwrap_or_else(Instant::now);
        if began.saturating_duration_since(started) >= load.lasting {
            return Ok(sent);
        }
        let key = format!("{}-{n}", load.seed);
        let body = order(&mut Random::new(load.seed << 32 | u64::from(n)), zipf).to_string();
        let request = hyper::Request::post("/v1/orders")
            .header("Host", &target.address)
            .header("Authorization", format!("Bearer {}", target.key))
            .header("Idempotency-Key", &key)
            .header("Content-Type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let answer = http.send_request(request).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        if status == 202 {
            sent.began.insert(OrderId::derive(&target.merchant, &key), began);
            sent.latencies.push(began.elapsed());
        } else {
            sent.refused += 1;
        }
    }
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
