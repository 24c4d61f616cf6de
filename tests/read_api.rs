//! What clients see of orders on the real stack: lists, histories, event streams, orders that are waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use local::{Service, Stack};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tests::stack::{Instances, System};

const INSTANCES: Instances = Instances { ingest: 2, processors: 1, sinks: 1 };
const SKU: &str = "READ";
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_shown_as_it_happens() -> Result<()> {
    let world = World::start().await?;
    lists(&world).await?;
    streams(&world).await?;
    streams_begun_at_any_moment(&world).await?;
    streams_while_the_store_is_behind(&world).await?;
    waits(&world).await?;
    document(&world).await?;
    shutdown(&world).await?;
    world.system.stack.shutdown().await
}

struct World {
    system: System,
    http: reqwest::Client,
}

impl World {
    async fn start() -> Result<Self> {
        let stack =
            Stack::builder().service_env(Service::Ingest, "INGEST_LIMITS__HEARTBEAT_MS", "500");
        let system = System::start(stack, INSTANCES).await?;
        let world = Self { system, http: reqwest::Client::builder().timeout(PATIENCE).build()? };
        let pieces = json!({"lines": [{"sku": SKU, "quantity": 100_000}]});
        let received = world.post(0, "/v1/stock/receipts", "pieces").json(&pieces).send().await?;
        ensure!(received.status() == 202);
        Ok(world)
    }

    fn request(&self, process: usize, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.system.stack.ingest_urls()[process % 2]);
        self.http.request(method, url).bearer_auth(&self.system.key)
    }

    fn post(&self, process: usize, path: &str, key: &str) -> RequestBuilder {
        self.request(process, Method::POST, path).header("Idempotency-Key", key)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.request(0, Method::GET, path).send().await?;
        ensure!(answer.status() == 200, "{path}: {}", answer.status());
        Ok(answer.json().await?)
    }

    /// Places an order and returns its id.
    async fn order(&self, process: usize, key: &str, change: Value) -> Result<String> {
        let answer = self.post(process, "/v1/orders", key).json(&order(change)).send().await?;
        ensure!(answer.status() == 202, "{}", answer.status());
        id(&answer.json().await?)
    }

    async fn stream(&self, process: usize, id: &str, after: Option<i64>) -> Result<Events> {
        let path = format!("/v1/orders/{id}/events");
        let mut request = self.request(process, Method::GET, &path);
        request = request.header("Accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        Ok(Events { response: request.send().await?, text: String::new(), comments: 0 })
    }

    /// Waits until the store has the order in this status. A process hears a moment later of what another one took.
    async fn stored(&self, id: &str, status: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            let request = self.request(0, Method::GET, &format!("/v1/orders/{id}"));
            let shown: Value = request.send().await?.json().await?;
            if shown["status"] == status {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "{id} is never {status}: {shown}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn order(change: Value) -> Value {
    let mut order = json!({
        "currency": "GBP",
        "destination": {"name": "n", "street": "s", "city": "c", "postcode": "p", "country": "GB"},
        "lines": [{"sku": SKU, "quantity": 1, "unit_price_minor": 255}],
        "ordered_at": "2026-11-21T12:00:00Z",
    });
    if let (Some(order), Value::Object(change)) = (order.as_object_mut(), change) {
        order.extend(change);
    }
    order
}

/// What nobody has ever received: such an order is rejected.
fn unknown_sku() -> Value {
    json!({"lines": [{"sku": "NEVER", "quantity": 1, "unit_price_minor": 1}]})
}

fn id(order: &Value) -> Result<String> {
    Ok(order["order_id"].as_str().context("an order has an id")?.to_owned())
}

/// An open stream of events.
struct Events {
    response: Response,
    text: String,
    comments: usize,
}

impl Events {
    /// The next event; `None` at the stream's end. The event's id must be its version.
    async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
                };
                self.comments += usize::from(block.starts_with(':'));
                let Some(data) = field("data:") else { continue };
                let event: Value = serde_json::from_str(data)?;
                ensure!(field("id:") == Some(event["version"].to_string().as_str()), "{block}");
                return Ok(Some(event));
            }
            match self.response.chunk().await? {
                Some(chunk) => self.text.push_str(std::str::from_utf8(&chunk)?),
                None => return Ok(None),
            }
        }
    }

    /// Every event until the stream ends, or one with this status has come.
    async fn until(&mut self, status: &str) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        while let Some(event) = tokio::time::timeout(PATIENCE, self.next()).await?? {
            let last = event["status"] == status;
            events.push(event);
            if last {
                break;
            }
        }
        Ok(events)
    }
}

fn statuses(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["status"].as_str().unwrap_or_default()).collect()
}

fn versions(events: &[Value]) -> Vec<i64> {
    events.iter().map(|event| event["version"].as_i64().unwrap_or_default()).collect()
}

/// Pages of a list while orders come in, and its filters.
async fn lists(world: &World) -> Result<()> {
    let mut placed = BTreeMap::new();
    for n in 0..25 {
        let mut change = if n % 5 == 0 { unknown_sku() } else { json!({}) };
        change["customer_id"] = json!(format!("customer {}", n % 2));
        change["ordered_at"] = json!(format!("2026-11-{:02}T12:00:00Z", n + 1));
        placed.insert(world.order(n, &format!("list-{n}"), change).await?, n);
    }
    for (id, n) in &placed {
        world.stored(id, if n % 5 == 0 { "rejected" } else { "routed" }).await?;
    }
    let (mut seen, mut path) = (Vec::new(), "/v1/orders?limit=7".to_owned());
    for page in 0.. {
        let list = world.get(&path).await?;
        let orders = list["orders"].as_array().context("a list")?.clone();
        assert!(orders.len() <= 7);
        seen.extend(orders);
        // Newer orders do not move the pages.
        let newer = world.order(page, &format!("newer-{page}"), json!({})).await?;
        world.stored(&newer, "routed").await?;
        let Some(cursor) = list["next_cursor"].as_str() else { break };
        path = format!("/v1/orders?limit=7&cursor={cursor}");
    }
    let ids: BTreeSet<&str> = seen.iter().filter_map(|order| order["order_id"].as_str()).collect();
    assert_eq!((ids.len(), seen.len()), (25, 25), "each once");
    assert!(placed.keys().all(|id| ids.contains(id.as_str())));
    let times: Vec<&str> = seen.iter().filter_map(|order| order["accepted_at"].as_str()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    assert_eq!((&seen[0]["total_minor"], &seen[0]["line_count"]), (&json!(255), &json!(1)));

    let count = async |query: &str| -> Result<usize> {
        Ok(world.get(&format!("/v1/orders?limit=200&{query}")).await?["orders"]
            .as_array()
            .map_or(0, Vec::len))
    };
    assert_eq!(count("status=rejected").await?, 5);
    assert_eq!(count("status=rejected&status=routed&customer_id=customer%201").await?, 12);
    assert_eq!(count("customer_id=nobody").await?, 0);
    let days = "ordered_from=2026-11-03T12:00:00Z&ordered_to=2026-11-05T12:00:00Z";
    assert_eq!(count(&format!("{days}&customer_id=customer%200")).await?, 1);
    let (newest, oldest) = (times[0], times[24]);
    assert_eq!(count(&format!("accepted_to={oldest}")).await?, 0);
    assert_eq!(count(&format!("accepted_from={oldest}&accepted_to={newest}")).await?, 24);
    let key = world.system.stack.tillroll(&["keys", "new", "--merchant", "other"]).await?;
    let began = Instant::now();
    loop {
        let url = format!("{}/v1/orders", world.system.stack.ingest_urls()[0]);
        let answer = world.http.get(url).bearer_auth(key.trim()).send().await?;
        if answer.status() == 200 {
            let list: Value = answer.json().await?;
            assert_eq!(list, json!({"orders": [], "next_cursor": null}), "another merchant's");
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the key is never known");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A stream from its beginning to its end, resumed, and told to stay away.
async fn streams(world: &World) -> Result<()> {
    let rejected = world.order(0, "stream-1", unknown_sku()).await?;
    let mut stream = world.stream(1, &rejected, None).await?;
    // The other process hears of the order a moment later.
    let began = Instant::now();
    while stream.response.status() == 404 {
        ensure!(began.elapsed() < PATIENCE, "the other process never hears of the order");
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream = world.stream(1, &rejected, None).await?;
    }
    assert_eq!(stream.response.headers()["content-type"], "text/event-stream");
    let events = stream.until("the end").await?;
    assert_eq!(statuses(&events), ["received", "rejected"], "and then it ends by itself");
    assert_eq!(events[1]["refusals"][0]["reason"], "unknown_sku");
    world.stored(&rejected, "rejected").await?;
    let history = world.get(&format!("/v1/orders/{rejected}/events")).await?;
    assert_eq!(history, json!({"order_id": rejected, "events": events}), "as the store has it");
    let mut resumed = world.stream(0, &rejected, Some(1)).await?;
    assert_eq!(versions(&resumed.until("the end").await?), [2]);
    let over = world.stream(0, &rejected, Some(2)).await?.response;
    assert_eq!((over.status().as_u16(), over.text().await?), (204, String::new()));

    let waiting = world.order(0, "stream-2", json!({"await_confirmation": true})).await?;
    let mut stream = world.stream(0, &waiting, None).await?;
    assert_eq!(statuses(&stream.until("reserved").await?), ["received", "reserved"]);
    world.stored(&waiting, "reserved").await?;
    let mut late = world.stream(1, &waiting, Some(2)).await?;
    // Nothing happens: the streams say that they live.
    let silent = tokio::time::timeout(Duration::from_millis(1800), stream.next()).await;
    assert!(silent.is_err() && stream.comments >= 2, "{} comments", stream.comments);
    let path = format!("/v1/orders/{waiting}/confirm");
    ensure!(world.post(0, &path, "c").json(&json!({})).send().await?.status() == 202);
    assert_eq!(versions(&stream.until("routed").await?), [3]);
    assert_eq!(versions(&late.until("routed").await?), [3]);
    let nobodys = "00000000-0000-4000-8000-000000000000";
    assert_eq!(world.stream(0, nobodys, None).await?.response.status(), 404);
    assert_eq!(world.stream(0, &waiting, Some(-1)).await?.response.status(), 422);
    Ok(())
}

/// Whenever a stream begins, before, while or after an order is served: every version once, in order.
async fn streams_begun_at_any_moment(world: &World) -> Result<()> {
    let orders = (0..60).map(|n: u64| async move {
        let id = world.order(0, &format!("moment-{n}"), json!({})).await?;
        let begun = (0..6).map(|k: u64| {
            let id = id.clone();
            async move {
                // Up to a second: the log is passed after some 100 ms, the store is there after some 300.
                tokio::time::sleep(Duration::from_millis((n * 37 + k * 173) % 1000)).await;
                let mut stream = world.stream(0, &id, None).await?;
                let events = stream.until("routed").await?;
                Ok::<_, anyhow::Error>(events)
            }
        });
        let streams = try_join_all(begun).await?;
        for events in &streams {
            assert_eq!(versions(events), [1, 2, 3], "{id}");
            assert_eq!(events, &streams[0], "{id}: the store and the log say the same");
        }
        Ok::<_, anyhow::Error>(())
    });
    try_join_all(orders).await?;
    Ok(())
}

/// The log was passed on before the stream began, and the store is not there yet.
async fn streams_while_the_store_is_behind(world: &World) -> Result<()> {
    let stack = &world.system.stack;
    stack.kill("sinks-1").await?;
    let order = order(json!({}));
    let request = world.post(0, "/v1/orders", "behind").header("Prefer", "wait=30").json(&order);
    let placed: Value = request.send().await?.json().await?;
    assert_eq!(placed["status"], "reserved");
    let id = id(&placed)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut stream = world.stream(0, &id, None).await?;
    let nothing = tokio::time::timeout(Duration::from_secs(2), stream.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let path = format!("/v1/orders/{id}/events");
    assert_eq!(world.get(&path).await?["events"], json!([]), "it was placed lately");
    stack.restart("sinks-1").await?;
    assert_eq!(versions(&stream.until("routed").await?), [1, 2, 3]);
    Ok(())
}

/// `Prefer: wait`: as soon as it is known, or 202.
async fn waits(world: &World) -> Result<()> {
    let place = async |key: &str, change: Value, prefer: &str| -> Result<(Response, Duration)> {
        let began = Instant::now();
        let request = world.post(0, "/v1/orders", key).header("Prefer", prefer);
        Ok((request.json(&order(change)).send().await?, began.elapsed()))
    };
    for (key, change, status) in
        [("wait-1", json!({}), "reserved"), ("wait-2", unknown_sku(), "rejected")]
    {
        let (answer, took) = place(key, change.clone(), "wait=20").await?;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["preference-applied"], "wait=20");
        assert!(answer.headers().contains_key("idempotency-expires"));
        let url = answer.headers()["location"].to_str()?.to_owned();
        let placed: Value = answer.json().await?;
        assert_eq!((&placed["status"], &placed["version"]), (&json!(status), &json!(2)));
        assert_eq!(placed["status_url"], url);
        assert!(took < Duration::from_secs(10), "{took:?}");
        world.stored(&id(&placed)?, if status == "reserved" { "routed" } else { status }).await?;
        // A repeated click hears how far it is by now.
        let (again, took) = place(key, change, "wait=20").await?;
        assert_eq!(
            (again.status().as_u16(), &again.headers()["idempotent-replayed"]),
            (200, &"true".parse()?)
        );
        let again: Value = again.json().await?;
        assert_eq!(again["order_id"], placed["order_id"]);
        assert_ne!(again["status"], "received");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    let (plain, _) = place("wait-3", json!({}), "return=minimal").await?;
    assert_eq!(plain.status(), 202);
    assert!(!plain.headers().contains_key("preference-applied"));
    world.system.stack.pause("processors-1")?;
    let (unknown, took) = place("wait-4", json!({}), "wait=1").await?;
    world.system.stack.resume("processors-1")?;
    assert_eq!(unknown.status(), 202);
    assert_eq!(unknown.headers()["preference-applied"], "wait=1");
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&took), "{took:?}");
    Ok(())
}

/// The document that describes the API is served, and every path of it is there.
async fn document(world: &World) -> Result<()> {
    let url = format!("{}/v1/openapi.json", world.system.stack.ingest_urls()[0]);
    let document: Value = world.http.get(url).send().await?.json().await?;
    let paths = document["paths"].as_object().context("it has paths")?;
    assert!(paths.len() > 10);
    for (path, methods) in paths.iter().filter(|(path, _)| path.starts_with("/v1/")) {
        let methods = methods.as_object().context("a path has methods")?;
        let mut upper: Vec<String> = methods.keys().map(|name| name.to_uppercase()).collect();
        upper.sort();
        let real = path.replace("{id}", "x").replace("{sku}", "x").replace("{courier}", "x");
        let real = real.replace("{provider}", "stripe");
        let refused = world.request(0, Method::PATCH, &real).send().await?;
        assert_eq!(refused.status(), 405, "{path}");
        assert_eq!(refused.headers()["allow"], upper.join(", ").as_str(), "{path}");
        for method in upper {
            let answer = world.request(0, method.parse()?, &real).send().await?;
            let status = answer.status();
            let body: Value = answer.json().await.unwrap_or_default();
            // No provider is set up.
            let found = body["code"] != "not_found" || path.ends_with("{provider}");
            assert!(status != 405 && found, "{method} {path}: {body}");
            let described = &document["paths"][path][method.to_lowercase()]["responses"];
            assert!(described[status.as_str()].is_object(), "{method} {path}: {status}");
        }
    }
    Ok(())
}

/// A process that ends ends its streams, and clients go on at another one.
async fn shutdown(world: &World) -> Result<()> {
    let id = world.order(0, "last", json!({"await_confirmation": true})).await?;
    let mut stream = world.stream(0, &id, None).await?;
    assert_eq!(versions(&stream.until("reserved").await?), [1, 2]);
    world.stored(&id, "reserved").await?;
    let (stopped, end) = tokio::join!(world.system.stack.stop("ingest-1"), stream.until("routed"));
    assert!(stopped?, "it ends by itself");
    assert!(end?.is_empty());
    let mut resumed = world.stream(1, &id, Some(2)).await?;
    let path = format!("/v1/orders/{id}/cancel");
    let cancelled = world.post(1, &path, "c").json(&json!({})).send().await?.status();
    assert_eq!(cancelled, 202);
    assert_eq!(versions(&resumed.until("cancelled").await?), [3]);
    Ok(())
}
