//! Event streams: how many a merchant may have, what who comes too late hears, and that they end with their API key.

mod support;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use local::Service;
use reqwest::Response;
use support::{World, eventually};

const PATIENCE: Duration = Duration::from_secs(20);
const STREAM: &str = "text/event-stream";

#[tokio::test(flavor = "multi_thread")]
async fn a_merchants_streams_are_bounded_and_end_with_their_key() -> Result<()> {
    let world = World::start(|stack| {
        stack.service_env(Service::Ingest, "INGEST_LIMITS__MERCHANT_WATCHERS", "2").service_env(
            Service::Ingest,
            "INGEST_LIMITS__HEARTBEAT_MS",
            "300",
        )
    })
    .await?;
    let id = world.order(0, "streamed").await?.order_id();
    let url = world.url(0, &format!("/v1/orders/{id}/events"));
    let open = async |accept: &str| -> Result<Response> {
        let request = world.http.get(&url).bearer_auth(&world.shop).header("accept", accept);
        Ok(request.send().await?)
    };
    let mut streams = Vec::new();
    // A process that has just begun does not follow the log yet, and says so.
    eventually("two streams are open", async || {
        let mut stream = open(STREAM).await?;
        ensure!(stream.status() == 200, "{}", stream.status());
        let first = stream.chunk().await?.context("a stream begins with something")?;
        if !std::str::from_utf8(&first)?.contains("event: problem") {
            streams.push(stream);
        }
        Ok(streams.len() == 2)
    })
    .await?;

    let told = open(STREAM).await?;
    assert_eq!((told.status().as_u16(), &told.headers()["content-type"]), (200, &STREAM.parse()?));
    let text = told.text().await?;
    assert!(text.starts_with("retry: 1") && text.contains("too_many_streams"), "{text}");
    let refused = open("text/event-stream, application/problem+json").await?;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"10".parse()?)
    );
    assert_eq!(open("application/json").await?.status(), 200, "its history is no stream");

    let keys = wire::keys::list(&world.stack.keys_file())?;
    let own = keys.iter().find(|entry| entry.merchant.as_str() == "shop").context("a key")?;
    ensure!(wire::keys::revoke(&world.stack.keys_file(), own.id())?.is_some());
    for mut stream in streams {
        let end = async {
            while stream.chunk().await?.is_some() {}
            Ok::<_, anyhow::Error>(())
        };
        tokio::time::timeout(PATIENCE, end).await.context("a stream goes on without a key")??;
    }
    assert_eq!(open(STREAM).await?.status(), 401, "which is the end of it");
    Ok(())
}
