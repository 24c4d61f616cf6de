//! Benchmark part `streams`: many open event streams on one ingest process. What each costs, and what they cost orders
//! that are placed meanwhile, against the same load without them, in alternation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;
use local::{Service, Stack};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::load::{self, Load, Target};
use crate::progress::say;
use crate::shop::Shop;
use crate::stack::{Instances, System};
use crate::state::Results;
use crate::watch::cpu_seconds;

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
/// Loads without and with streams, each.
const PAIRS: usize = 5;
/// How long open streams are left alone to see what they cost: two heartbeats.
const IDLE: Duration = Duration::from_secs(30);
const WARM_UP: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);
/// Requests that are under way at once while orders are placed and streams opened.
const AT_ONCE: usize = 64;

/// Measures with this many streams, and orders at this rate for this long.
///
/// # Errors
/// When a stream breaks, or does not begin within two minutes.
pub async fn measure(
    streams: usize,
    rate: u32,
    lasting: Duration,
    results: &mut Results,
) -> Result<()> {
    let most = streams.to_string();
    let stack = Stack::builder()
        .service_env(Service::Ingest, "INGEST_RESERVATION_SECONDS", "7200")
        .service_env(Service::Ingest, "INGEST_LIMITS__MERCHANT_WATCHERS", &most);
    let system = System::start(stack, INSTANCES).await?;
    let urls = system.stack.ingest_urls();
    let address = urls[0].trim_start_matches("http://").to_owned();
    let (merchant, key) = (system.merchant.clone(), system.key.clone());
    let target = Target { address, merchant, key };
    let shop = Shop::new(urls, &system.key)?;
    load::stock_up(&shop).await?;
    let warm_up = Load { per_second: Some(rate), lasting: WARM_UP, clients: 256, seed: 1 };
    load::send(&target, warm_up).await?;
    say(&format!("placing {streams} orders that are held"));
    let orders = futures::stream::iter(0..streams).map(|n| held_order(&shop, n));
    let orders: Vec<Result<String>> = orders.buffer_unordered(AT_ONCE).collect().await;
    let orders = orders.into_iter().collect::<Result<Vec<String>>>()?;

    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let load = |seed| Load { per_second: Some(rate), lasting, clients: 256, seed };
        without.push(post_p99_ms(&target, load(100 + pair as u64)).await?);
        let memory = resident_bytes(&system.stack)?;
        let began = Instant::now();
        let open = open(&target, &orders).await?;
        if pair == 0 {
            let each = resident_bytes(&system.stack)?.saturating_sub(memory) / streams as u64;
            results.insert("streams.memory_bytes_each".into(), each as f64);
            let opened = streams as f64 / began.elapsed().as_secs_f64();
            results.insert("streams.opened_per_s".into(), opened);
            let before = ingest_cpu(&system.stack)?;
            tokio::time::sleep(IDLE).await;
            let spent = ingest_cpu(&system.stack)? - before;
            results.insert("streams.idle_cpu_percent".into(), spent * 100.0 / IDLE.as_secs_f64());
        }
        with.push(post_p99_ms(&target, load(200 + pair as u64)).await?);
        ensure!(open.broken.load(Ordering::Relaxed) == 0, "streams broke: see ingest's log");
        say(&format!("p99 {:.1} ms without streams, {:.1} ms with", without[pair], with[pair]));
    }
    results.insert("streams.open".into(), streams as f64);
    results.insert("streams.without_post_p99_ms".into(), median(without));
    results.insert("streams.with_post_p99_ms".into(), median(with));
    system.stack.shutdown().await
}

async fn held_order(shop: &Shop, n: usize) -> Result<String> {
    let body = json!({
        "currency": "GBP", "await_confirmation": true,
        "destination": {"name": "n", "street": "s", "city": "c", "postcode": "p", "country": "GB"},
        "lines": [{"sku": load::sku(n % load::SKUS), "quantity": 1, "unit_price_minor": 100}],
        "ordered_at": "2026-11-21T12:00:00Z",
    });
    let placed = shop.post(0, "/v1/orders", &format!("held-{n}"), &body).await?;
    ensure!(placed.status == 202, "{}: {}", placed.status, placed.body);
    Ok(placed.body["order_id"].as_str().context("an order has an id")?.to_owned())
}

/// Open streams; closed when dropped.
struct Open {
    _tasks: JoinSet<()>,
    broken: Arc<AtomicUsize>,
}

/// Opens a stream per order, each of which has told that its order is reserved.
async fn open(target: &Target, orders: &[String]) -> Result<Open> {
    let (mut tasks, broken) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    let opening = futures::stream::iter(orders).map(|order| begin(target, order));
    let mut opening = opening.buffer_unordered(AT_ONCE);
    while let Some(stream) = opening.next().await {
        let (mut stream, broken) = (stream?, Arc::clone(&broken));
        tasks.spawn(async move {
            let mut buffer = [0; 64];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            broken.fetch_add(1, Ordering::Relaxed);
        });
    }
    Ok(Open { _tasks: tasks, broken })
}

async fn begin(target: &Target, order: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(&target.address).await?;
    let request = format!(
        "GET /v1/orders/{order}/events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
         Accept: text/event-stream\r\n\r\n",
        target.address, target.key
    );
    stream.write_all(request.as_bytes()).await?;
    let reserved = async {
        let (mut text, mut buffer) = (String::new(), [0; 2048]);
        while !text.contains("id: 2\n") {
            let read = stream.read(&mut buffer).await?;
            ensure!(read > 0, "the stream has ended: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(PATIENCE, reserved).await.context("a stream does not begin")??;
    Ok(stream)
}

async fn post_p99_ms(target: &Target, load: Load) -> Result<f64> {
    let mut sent = load::send(target, load).await?;
    ensure!(sent.refused == 0, "{} orders were refused", sent.refused);
    sent.latencies.sort_unstable();
    let at = sent.latencies.len() * 99 / 100;
    Ok(sent.latencies[at.min(sent.latencies.len() - 1)].as_secs_f64() * 1000.0)
}

fn ingest_cpu(stack: &Stack) -> Result<f64> {
    Ok(cpu_seconds(stack)?.get("ingest").copied().unwrap_or_default())
}

/// Memory of the ingest process that is in RAM.
fn resident_bytes(stack: &Stack) -> Result<u64> {
    let pid = stack.component("ingest-1")?.pid().context("ingest has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    Ok(kilobytes.context("the system tells how much memory a process has")? * 1024)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
