//! A merchant's client: posts with an idempotency key and retries as the API asks, with the same key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::{Client, StatusCode};
use serde_json::Value;

/// A client that gives up has waited this long, through every retry.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// The API promises an answer within 2 s; a connection that hangs longer is broken.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A client of several ingest processes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shop {
    http: Client,
    urls: Arc<Vec<String>>,
    key: Arc<str>,
    doubts: Arc<AtomicU64>,
}

/// A final answer: anything but "try again".
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its JSON; null where there is none.
    pub body: Value,
}

impl Shop {
    /// A client with this API key.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(urls: Vec<String>, key: &str) -> Result<Self> {
        let http = Client::builder().timeout(ANSWER_WITHIN).pool_max_idle_per_host(256).build()?;
        Ok(Self { http, urls: Arc::new(urls), key: key.into(), doubts: Arc::default() })
    }

    /// The base URL of the `n`th process, counting around.
    pub fn url(&self, n: usize) -> &str {
        &self.urls[n % self.urls.len()]
    }

    /// How often a request was repeated although the first may have been recorded.
    pub fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    /// Posts to the `n`th process until there is a final answer.
    ///
    /// # Errors
    /// When there is none within a minute.
    pub async fn post(&self, n: usize, path: &str, key: &str, body: &Value) -> Result<Answer> {
        let url = format!("{}{path}", self.url(n));
        let bytes = serde_json::to_vec(body)?;
        let started = Instant::now();
        loop {
            let sent = self
                .http
                .post(&url)
                .bearer_auth(&self.key)
                .header("Idempotency-Key", key)
                .header("Content-Type", "application/json")
                .body(bytes.clone())
                .send()
                .await;
            let (why, pause, doubt) = match sent {
                Ok(answer) => {
                    let status = answer.status();
                    let Some(doubt) = try_again(status) else {
                        let body = answer.json().await.unwrap_or(Value::Null);
                        return Ok(Answer { status, body });
                    };
                    (status.to_string(), retry_after(&answer), doubt)
                }
                // Nobody knows how far the request came.
                Err(error) => (error.to_string(), Duration::from_millis(200), !error.is_connect()),
            };
            self.doubts.fetch_add(u64::from(doubt), Ordering::Relaxed);
            if started.elapsed() > GIVE_UP_AFTER {
                bail!("POST {url} with key {key}: still {why} after a minute");
            }
            tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
        }
    }

    /// Gets a path from the `n`th process; a 503 is tried again.
    ///
    /// # Errors
    /// When there is no answer within a minute, or it is not JSON.
    pub async fn get(&self, n: usize, path: &str) -> Result<Answer> {
        let url = format!("{}{path}", self.url(n));
        let started = Instant::now();
        loop {
            let sent = self.http.get(&url).bearer_auth(&self.key).send().await;
            let answer = sent.with_context(|| format!("GET {url}"))?;
            let status = answer.status();
            if try_again(status).is_none() || started.elapsed() > GIVE_UP_AFTER {
                let body = answer.json().await.with_context(|| format!("GET {url}"))?;
                return Ok(Answer { status, body });
            }
            tokio::time::sleep(retry_after(&answer).min(LONGEST_PAUSE)).await;
        }
    }

    /// The sum of a metric over every process and label.
    ///
    /// # Errors
    /// When a process does not answer, or exports no such metric.
    pub async fn metric(&self, name: &str) -> Result<i64> {
        let mut sum = 0;
        for url in self.urls.iter() {
            sum += metric(&self.http, url, name).await?;
        }
        Ok(sum)
    }
}

/// The sum of a metric over its labels, from one process.
async fn metric(http: &Client, url: &str, name: &str) -> Result<i64> {
    let answer = http.get(format!("{url}/metrics")).send().await;
    let text = answer.with_context(|| format!("{url}/metrics"))?.text().await?;
    sum(&text, name).with_context(|| format!("{url} exports no {name}"))
}

fn sum(metrics: &str, name: &str) -> Option<i64> {
    let of_ours = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    };
    let values: Vec<i64> = metrics
        .lines()
        .filter(of_ours)
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// Whether a status asks to try again, and then whether the request may have been recorded.
fn try_again(status: StatusCode) -> Option<bool> {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some(false),
        StatusCode::GATEWAY_TIMEOUT | StatusCode::INTERNAL_SERVER_ERROR => Some(true),
        _ => None,
    }
}

fn retry_after(answer: &reqwest::Response) -> Duration {
    let seconds = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text =
            "# HELP a_total x\na_total{m=\"x y\"} 3\na_total{m=\"z\"} 4\na_total_more 9\nb 2\n";
        assert_eq!(sum(text, "a_total"), Some(7));
        assert_eq!(sum(text, "b"), Some(2));
        assert_eq!(sum(text, "c"), None);
    }
}
