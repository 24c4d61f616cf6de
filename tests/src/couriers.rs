//! What the courier companies say of our orders.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use local::Stack;
use serde::Deserialize;

const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Duplicates {
    count: u64,
}

/// How many orders have more than one live consignment, over all couriers. A consignment that was given
/// up is void once its company has confirmed it, so this waits up to `patience` for the last voids.
///
/// # Errors
/// When the courier simulator does not answer.
pub async fn booked_twice(stack: &Stack, patience: Duration) -> Result<u64> {
    let url = format!("{}/ledger/duplicates", stack.courier_simulator_url());
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
    let began = Instant::now();
    loop {
        let answer = http.get(&url).send().await?.error_for_status()?;
        let duplicates: Duplicates = answer.json().await.with_context(|| url.clone())?;
        if duplicates.count == 0 || began.elapsed() > patience {
            return Ok(duplicates.count);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
