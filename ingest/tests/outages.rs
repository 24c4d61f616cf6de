//! Kafka or PostgreSQL paused or killed: an answer in time, the truth in it, recovery by itself.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use local::Service;

use support::{Answer, World, eventually};

/// What a client may wait at most, and what the test machine may add to it.
const IN_TIME: Duration = Duration::from_millis(2000 + 300);

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_answered_in_time_and_truthfully() -> Result<()> {
    // The producer gives a record up while Kafka is still away.
    let give_up = ("INGEST_LIMITS__MESSAGE_TIMEOUT_MS", "4000");
    let world =
        World::start(|stack| stack.service_env(Service::Ingest, give_up.0, give_up.1)).await?;
    let mut clicks = Clicks::default();
    clicks.all(&world, "before", 20).await?;
    assert_eq!(clicks.with(202).len(), 20, "all is well");

    world.stack.pause("kafka")?;
    outage(&world, &mut clicks, "paused", Duration::from_secs(7)).await?;
    world.stack.resume("kafka")?;
    recovery(&world, "paused").await?;
    assert!(!clicks.with(503).is_empty() && !clicks.with(504).is_empty(), "{clicks:?}");

    world.stack.kill("kafka").await?;
    outage(&world, &mut clicks, "killed", Duration::from_secs(7)).await?;
    world.stack.restart("kafka").await?;
    recovery(&world, "killed").await?;

    // A producer that gave up in the middle of the outage has nothing left to send: settle first.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let logged = world.orders()?;
    for (key, id) in clicks.with(503) {
        ensure!(!logged.contains_key(&id), "{key} was answered 503 and appeared");
    }
    for (key, id) in clicks.with(202) {
        ensure!(logged.contains_key(&id), "{key} was answered 202 and is lost");
    }
    // A retry of what is unknown makes it one accepted order, whatever became of the first try.
    let unknown: Vec<String> = clicks.with(504).into_keys().collect();
    for key in unknown {
        let answer = world.order(0, &key).await?;
        ensure!(answer.status == 202, "{key}: {answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_accepted_without_the_tracking_store() -> Result<()> {
    let world = World::start(|stack| stack).await?;
    let known = world.order(0, "known").await?.order_id();
    for away in ["paused", "killed"] {
        match away {
            "paused" => world.stack.pause("postgres")?,
            _ => world.stack.kill("postgres").await?,
        }
        let accepted = world.order(0, away).await?;
        assert_eq!(accepted.status, 202, "{away}");
        for id in [accepted.order_id(), known.clone()] {
            let shown = world.get(0, &world.shop, &format!("/v1/orders/{id}")).await?;
            assert_eq!((shown.status, &shown.body["status"]), (200, &"received".into()), "{away}");
            assert!(shown.body["hint"].is_string(), "{shown:?}");
        }
        let random = "/v1/orders/00000000-0000-4000-8000-000000000000";
        for path in [random, "/v1/stock/A"] {
            let refused = world.get(0, &world.shop, path).await?;
            assert_eq!((refused.status, refused.code()), (503, "database_unavailable"), "{path}");
            assert_eq!(refused.headers["retry-after"], "2");
        }
        match away {
            "paused" => world.stack.resume("postgres")?,
            _ => drop(world.stack.restart("postgres").await?),
        }
        eventually("the store answers again", async || {
            Ok(world.get(0, &world.shop, random).await?.status == 404)
        })
        .await?;
    }
    Ok(())
}

/// The last answer to each key.
#[derive(Debug, Default)]
struct Clicks {
    answers: BTreeMap<String, Answer>,
}

impl Clicks {
    async fn all(&mut self, world: &World, name: &str, count: usize) -> Result<()> {
        let keys: Vec<String> = (0..count).map(|n| format!("{name}-{n}")).collect();
        let answers = try_join_all(keys.iter().enumerate().map(async |(n, key)| {
            let answer = world.order(n % 2, key).await?;
            anyhow::Ok((key.clone(), answer))
        }))
        .await?;
        for (key, answer) in answers {
            ensure!(answer.took < IN_TIME, "{key} took {:?}", answer.took);
            let retry = answer.headers.contains_key("retry-after");
            ensure!(retry == (answer.status != 202), "{key}: {answer:?}");
            self.answers.insert(key, answer);
        }
        Ok(())
    }

    /// Keys and order ids of those whose last answer was this.
    fn with(&self, status: u16) -> BTreeMap<String, String> {
        let merchant = events::Merchant::parse("shop").expect("legal");
        let id = |key: &str| events::OrderId::derive(&merchant, key).to_string();
        let those = self.answers.iter().filter(|(_, answer)| answer.status == status);
        those.map(|(key, _)| (key.clone(), id(key))).collect()
    }
}

/// Clicks all the while; retries what was unknown, which must not become a false certainty.
async fn outage(world: &World, clicks: &mut Clicks, name: &str, long: Duration) -> Result<()> {
    let end = tokio::time::Instant::now() + long;
    let mut round = 0;
    while tokio::time::Instant::now() < end {
        round += 1;
        let start = tokio::time::Instant::now();
        clicks.all(world, &format!("{name}-{round}"), 10).await?;
        tokio::time::sleep_until(start + Duration::from_millis(300)).await;
    }
    let unknown = clicks.with(504);
    let retries = unknown.keys().filter(|key| key.starts_with(&format!("{name}-")));
    for key in retries.take(3) {
        // The process that knows of the doubt.
        let n: usize = key.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let again = world.order(n % 2, key).await?;
        ensure!(again.status == 504, "{key}, unknown before: {again:?}");
        ensure!(again.took < IN_TIME, "{key} took {:?}", again.took);
    }
    let ready = world.http.get(world.url(0, "/readyz")).send().await?;
    ensure!(ready.status() == 503, "not ready without Kafka");
    Ok(())
}

async fn recovery(world: &World, name: &str) -> Result<()> {
    for process in [0, 1] {
        let mut n = 0;
        eventually("it serves again", async || {
            n += 1;
            let key = format!("after-{name}-{process}-{n}");
            let ready = world.http.get(world.url(process, "/readyz")).send().await?.status();
            Ok(world.order(process, &key).await?.status == 202 && ready == 200)
        })
        .await?;
    }
    Ok(())
}
