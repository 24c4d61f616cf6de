//! The shop's side: orders at a steady rate, some clicked twice at once on two ingest processes,
//! retried under the same key as the API asks, until told or given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use events::{Merchant, OrderId};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::ledger::{Ledger, Told};
use super::tracker::Tracker;
use crate::load::{Random, Zipf};

/// SKUs that orders choose from.
pub const SKUS: usize = 200;
/// Pieces received of every SKU but each tenth, which sells out.
pub const PLENTY: i64 = 1_000_000;
/// Pieces received of each tenth SKU.
pub const SCARCE: i64 = 50;
/// Tries of one click before it is given up, over about half a minute.
const TRIES: u32 = 20;
/// Longest wait for one answer: the API promises 2 s, a paused process never answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Sends orders; cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    urls: Arc<Vec<String>>,
    secret: Arc<str>,
    merchant: Merchant,
    ledger: Arc<Ledger>,
    tracker: Arc<Tracker>,
}

impl Client {
    /// A client of these ingest processes.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(
        urls: Vec<String>,
        secret: &str,
        merchant: Merchant,
        ledger: Arc<Ledger>,
        tracker: Arc<Tracker>,
    ) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(ANSWER_WITHIN).build()?;
        Ok(Self { http, urls: Arc::new(urls), secret: secret.into(), merchant, ledger, tracker })
    }

    /// Sends `per_second` orders a second until told to stop, then waits for the last answers.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn run(self, per_second: u32, seed: u64, stop: &AtomicBool) -> Result<()> {
        let zipf = Zipf::new(SKUS);
        let started = Instant::now();
        let mut orders = JoinSet::new();
        let mut synced = Instant::now();
        for n in 0u32.. {
            let due = started + Duration::from_secs(1) / per_second * n;
            tokio::time::sleep_until(due.into()).await;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let mut random = Random::new(seed << 32 | u64::from(n));
            let (body, client) = (order(&mut random, &zipf), self.clone());
            orders.spawn(async move { client.place(n, &format!("{seed}-{n}"), &body).await });
            while let Some(done) = orders.try_join_next() {
                done??;
            }
            if synced.elapsed() > Duration::from_secs(1) {
                synced = Instant::now();
                self.ledger.sync()?;
            }
        }
        while let Some(done) = orders.join_next().await {
            done??;
        }
        self.ledger.sync()
    }

    /// Every tenth order is clicked twice at once, on two processes.
    async fn place(&self, n: u32, key: &str, body: &Value) -> Result<()> {
        self.ledger.note(key, Told::Sent)?;
        let first = self.click(n, key, body);
        let told = if n.is_multiple_of(10) {
            let (first, second) = tokio::join!(first, self.click(n + 1, key, body));
            match (first, second) {
                (Told::Acknowledged, _) | (_, Told::Acknowledged) => Told::Acknowledged,
                (Told::Refused, Told::Refused) => Told::Refused,
                _ => Told::Unknown,
            }
        } else {
            first.await
        };
        if told == Told::Acknowledged {
            self.tracker.acknowledged(OrderId::derive(&self.merchant, key));
        }
        self.ledger.note(key, told)
    }

    async fn click(&self, n: u32, key: &str, body: &Value) -> Told {
        // Some customers walk away when they are refused: those orders must never appear.
        let patient = !n.is_multiple_of(3);
        let mut doubt = false;
        for attempt in 0..TRIES {
            let url = &self.urls[(n + attempt) as usize % self.urls.len()];
            let sent = self
                .http
                .post(format!("{url}/v1/orders"))
                .bearer_auth(&self.secret)
                .header("Idempotency-Key", key)
                .json(body)
                .send()
                .await;
            match sent.map(|answer| answer.status()) {
                Ok(StatusCode::ACCEPTED) => return Told::Acknowledged,
                Ok(StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => {
                    if !patient && !doubt {
                        return Told::Refused;
                    }
                }
                Ok(status) if status.is_client_error() => return Told::Refused,
                Ok(_) => doubt = true,
                Err(error) => doubt |= !error.is_connect(),
            }
            let pause = Duration::from_millis(250) * (attempt + 1).min(8);
            tokio::time::sleep(pause).await;
        }
        if doubt { Told::Unknown } else { Told::Refused }
    }
}

/// The `n`th SKU.
fn sku(n: usize) -> String {
    format!("C{n:03}")
}

/// The receipts' lines: SKU and pieces.
pub fn receipts() -> Vec<(String, i64)> {
    (0..SKUS).map(|n| (sku(n), if n % 10 == 9 { SCARCE } else { PLENTY })).collect()
}

/// One to four lines, now and then the same SKU twice.
fn order(random: &mut Random, zipf: &Zipf) -> Value {
    let lines: Vec<Value> = (0..1 + random.bits() % 4)
        .map(|_| {
            json!({
                "sku": sku(zipf.draw(random)), "quantity": 1 + random.bits() % 3,
                "unit_price_minor": 100 + random.bits() % 10_000,
            })
        })
        .collect();
    let country = ["GB", "FR", "DE", "US"][(random.bits() % 4) as usize];
    json!({
        "customer_id": format!("customer-{}", random.bits() % 1_000),
        "currency": "GBP",
        "destination": {
            "name": "N", "street": "S 1", "city": "C", "postcode": "P1",
            "country": country,
        },
        "lines": lines,
        "ordered_at": "2026-11-21T12:00:00Z",
    })
}
